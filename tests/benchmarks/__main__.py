"""Compare eventflow with its peers: ``python tests/benchmarks [--quick] [NAME ...]``.

Only ratios mean something: every table is one race in one process, over the same bytes, in turns, the best round of
each. The exit status is 0 whatever was measured, unless ``--strict`` is given.
"""

from __future__ import annotations

import argparse
import functools
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from decoding import DECODERS, decode, decode_recorded
from dispatching import every_type, three_handlers
from footprint import import_memory, import_time, stream_memory
from handling import OPENAI, PARSE, handle, handle_async, handle_recorded, linear_time, pipeline, quiet
from measure import Race
from report import Target, render, render_targets
from streams import CHUNKINGS, recorded

Benchmark = Callable[[int, int], list[Race]]
"""Takes the number of text deltas (or events) and of rounds."""


def _recorded(_events: int, rounds: int) -> list[Race]:
    """Recorded streams, decoded, and taken to a handler."""
    streams = recorded()
    print(f"\nrecorded streams: {streams.origin}")
    return decode_recorded(streams, rounds) + handle_recorded(streams, rounds)


BENCHMARKS: dict[str, Benchmark] = {
    "decode": decode,
    "handle": handle,
    "async": handle_async,
    "recorded": _recorded,
    "quiet": quiet,
    "types": every_type,
    "three": three_handlers,
    "pipeline": pipeline,
    "linear": linear_time,
    "memory": stream_memory,
    "import": import_time,
    "resident": import_memory,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; gives the exit status."""
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark is called {unknown[0]!r}; there is {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    events = options.events or (10_000 if options.quick else 100_000)
    print(_heading(events, options.rounds))
    races: dict[str, Race] = {}
    for name in options.names or BENCHMARKS:
        for race in BENCHMARKS[name](events, options.rounds):
            races[race.title] = race
            print(render(race), flush=True)
    targets = _targets(races)
    print(render_targets(targets))
    return 1 if options.strict and not all(target.met for target in targets) else 0


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:10} {(run.__doc__ or '').splitlines()[0]}" for name, run in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks",
        description=__doc__,
        epilog=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; all of them by default")
    parser.add_argument("--quick", action="store_true", help="10,000 text deltas instead of 100,000")
    parser.add_argument("--events", type=int, help="another number of text deltas")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is not met")
    return parser


def _heading(events: int, rounds: int) -> str:
    peers = ("openai", "httpx", "httpx-sse", "launchdarkly-eventsource", "msgspec", "blinker", "pluggy")
    versions = ", ".join(f"{name} {version}" for name in peers if (version := _version(name)))
    return (
        f"eventflow's benchmarks, {time.strftime('%Y-%m-%d')}: Python {platform.python_version()}, {versions}\n"
        f"{events:,} text deltas, best of {rounds} rounds in turns; a ratio is to the first row of its table."
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _targets(races: Mapping[str, Race]) -> list[Target]:
    """What the project promises, and what was measured of it."""
    small, single = CHUNKINGS
    handling = functools.partial(_ratio, races)
    parse = handling(f"bytes to one handler, {small}", PARSE)
    imports = _ratio(races, "import time", "import openai")
    text = next((race.rows for title, race in races.items() if title.startswith("memory of")), None)
    grown = next((race.rows for title, race in races.items() if title.startswith("linear time")), None)
    return [
        Target(
            f"events per CPU second, times the openai SDK's, {small}",
            handling(f"bytes to one handler, {small}", OPENAI),
            bound=40,
            at_least=True,
            aim=70,
        ),
        Target(
            f"the same, {single}",
            handling(f"bytes to one handler, {single}", OPENAI),
            bound=25,
            at_least=True,
        ),
        Target(f"CPU time, times msgspec's parse alone, {small}", parse and 1 / parse, bound=5, aim=3.5),
        *(
            Target(f"the fastest other decoder's CPU time, {form}", _fastest_peer(races, form), bound=1, at_least=True)
            for form in CHUNKINGS
        ),
        Target("import openai, times import eventflow", imports, bound=5, at_least=True),
        Target("memory held after the last delta, times the text", text and text[1].best / text[0].best, bound=1.25),
        Target("memory held after the end, times the text", text and text[2].best / text[0].best, bound=1.25),
        Target(
            "CPU time of an event in a stream four times as long", grown and grown[1].best / grown[0].best, bound=1.25
        ),
    ]


def _ratio(races: Mapping[str, Race], title: str, name: str) -> float | None:
    return races[title].ratio(name) if title in races else None


def _fastest_peer(races: Mapping[str, Race], form: str) -> float | None:
    ratios = [_ratio(races, f"decode only, {form}", name) for name in DECODERS]
    return min((ratio for ratio in ratios[1:] if ratio is not None), default=None)


if __name__ == "__main__":
    sys.exit(main())
