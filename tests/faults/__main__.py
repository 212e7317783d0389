"""Play the faults: ``python tests/faults [--write] [NAME ...]``.

Says what is not as it must be, and exits with 1 where anything is. ``--write`` writes docs/faults.md when all is well.
"""

from __future__ import annotations

import argparse

from bench import serving
from catalogue import FAULTS
from leaving import CASES, LEAVINGS, leave
from page import PAGE, render
from weigh import LOADS, check


def main() -> int:
    """Play what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description="Play the faults.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of faults, ways to leave and loads; all of them by default"
    )
    parser.add_argument("--write", action="store_true", help="write docs/faults.md")
    options = parser.parse_args()
    known = list(dict.fromkeys([*FAULTS, *LEAVINGS, *LOADS]))
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"there is no {min(unknown)}; there are {', '.join(known)}")
    names = options.names or known
    wrong = 0
    with serving() as bench:
        for name in names:
            found = bench.mistakes(FAULTS[name]) if name in FAULTS else []
            found += [each for case in CASES if case[0] == name for each in leave(*case)]
            found += check(name) if name in LOADS else []
            wrong += bool(found)
            print("\n  ".join([f"{name}: {'wrong' if found else 'as it must be'}", *found]), flush=True)
    if options.write and not wrong:
        PAGE.write_text(render(), encoding="utf-8")
        print(f"wrote {PAGE.name}")
    return wrong > 0


if __name__ == "__main__":
    raise SystemExit(main())
