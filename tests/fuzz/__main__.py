"""Look for inputs that break a promise: ``python tests/fuzz [--seconds 60] [NAME ...]``.

Where atheris (libFuzzer) is installed it looks for inputs that reach new code, and what it learns stays in ``.fuzz/``
for the next time; without it, the seeds are mutated at random. An input that is found is made small, kept in ``.fuzz/``
and printed as a line for ``FOUND`` in tests/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_KEPT = Path(__file__).parents[2] / ".fuzz"
_LONGEST = 6_000  # bytes of an input
_SHRINKING = 20.0  # seconds
_PIECES = (*(b"%c" % byte for byte in b'\n\r\0\xff{}[]"\\'), b"\n\n", b"data: ", b"event: ", b"\\ud83d")
_VALUES = (b"null", b"true", b"0", b"-1", b"1.5", b"1e999", b'""', b"{}", b"[]", b"[{}]", b'"x"', b"9" * 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz what was asked for, each target in a process of its own; gives the exit status."""
    options = _parser().parse_args(arguments)
    if options.here:
        return _fuzz(*options.names, options.kept, options.seconds, options.random)
    targets = importlib.import_module("targets").TARGETS
    unknown = [name for name in options.names if name not in targets]
    if unknown:
        print(f"no target is called {unknown[0]!r}; there is {', '.join(targets)}", file=sys.stderr)
        return 2
    failed: list[str] = []
    for name in options.names or targets:
        command = [sys.executable, __file__, name, "--here", f"--seconds={options.seconds}", f"--kept={options.kept}"]
        if subprocess.run([*command, *(["--random"] if options.random else [])]).returncode:
            failed.append(name)
    print(f"found something in {', '.join(failed)}" if failed else "found nothing")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tests/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which targets; all of them by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--random", action="store_true", help="mutate at random, though atheris is there")
    parser.add_argument("--kept", type=Path, default=_KEPT, help="where inputs are kept (default: .fuzz/)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser


def _fuzz(name: str, kept: Path, seconds: int, is_random: bool) -> int:
    """Fuzz one target in this process, which atheris ends by itself."""
    kept, corpus = kept / name, kept / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if is_random or importlib.util.find_spec("atheris") is None:
        return _mutate(name, kept, seconds)
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["eventflow", "eventflow_plugins"], enable_loader_override=False):
        targets = importlib.import_module("targets")
    for seed in targets.seeds(name):
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    flags = ["-print_final_stats=1", "-verbosity=0", "-timeout=20"]
    flags += [f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-artifact_prefix={kept}/"]
    run = _watched(name, kept, targets.TARGETS[name])
    atheris.Setup([name, str(corpus), *flags], run)
    atheris.Fuzz()
    return 0


def _mutate(name: str, kept: Path, seconds: int) -> int:
    """Fuzz one target without help: seeds, mutated."""
    targets = importlib.import_module("targets")
    run, known, chance = _watched(name, kept, targets.TARGETS[name]), targets.seeds(name), random.Random()
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        data = bytearray(chance.choice(known))
        for _ in range(chance.randint(0, 4)):
            start = chance.randrange(len(data) + 1)
            end = min(len(data), start + chance.choice((0, 1, 8, 80)))
            other = chance.choice(known)
            place = chance.randrange(len(other))
            new = (b"", data[start:end] * 2, other[place : place + 80], chance.choice(_PIECES), chance.choice(_VALUES))
            data[start:end] = chance.choice(new)
        run(bytes(data[:_LONGEST]))
        tried += 1
    print(f"{name}: {tried:,} inputs in {seconds} s")
    return 0


# --- what was found --------------------------------------------------------------------------------------------------


def _watched(name: str, kept: Path, target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target; an input that breaks it is shown and kept, and ends the process."""

    def run(data: bytes) -> None:
        try:
            target(data)
        except Exception as error:
            small = _small(target, data, type(error))
            file = kept / hashlib.sha1(small).hexdigest()
            file.write_bytes(small)
            with contextlib.suppress(type(error)):
                target(small)
            traceback.print_exc()
            print(f"\n{name}: {type(error).__name__}: kept in {file}; for FOUND in tests/test_fuzz.py:\n")
            print(f"    ({name!r}, {small!r}),\n", flush=True)
            os._exit(1)

    return run


def _small(target: Callable[[bytes], None], data: bytes, kind: type[Exception]) -> bytes:
    """A smaller input that raises the same."""
    until, size = time.monotonic() + _SHRINKING, len(data) // 2
    while size:
        place = 0
        while place < len(data) and time.monotonic() < until:
            shorter = data[:place] + data[place + size :]
            try:
                target(shorter)
            except kind:
                data = shorter
            except Exception:  # another fault, which is not the one that was found
                place += size
            else:
                place += size
        size //= 2
    return data


if __name__ == "__main__":
    sys.exit(main())
