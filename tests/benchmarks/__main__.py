"""Compare eventflow with its peers: ``python tests/benchmarks [--quick] [NAME ...]``.

Only ratios mean something: every table is one race in one process, over the same bytes, in turns, the best round of
each. The exit status is 0 whatever was measured, unless ``--strict`` is given.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from decoding import DECODERS, decode, decode_recorded
from dispatching import every_type, three_handlers
from footprint import AFTER_DELTAS, AFTER_END, import_memory, import_time, stream_memory
from handling import LONG, OPENAI, PARSE, handle, handle_async, handle_recorded, linear_time, pipeline, quiet
from live import AIOHTTP, ASYNC, ASYNC_SDK, DELAY, SDK, SYNC, live
from measure import Race
from report import Target, render, render_targets
from streams import CHUNKINGS, recorded
from translating import ANTHROPIC_SDK, CHAT_SDK, translate

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
    "wires": translate,
    "recorded": _recorded,
    "quiet": quiet,
    "types": every_type,
    "three": three_handlers,
    "pipeline": pipeline,
    "linear": linear_time,
    "memory": stream_memory,
    "import": import_time,
    "resident": import_memory,
    "live": live,
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
    peers = ("openai", "anthropic", "httpx", "aiohttp", "httpx-sse", "launchdarkly-eventsource", "msgspec", "pluggy")
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

    def ratio(title: str, row: str) -> float | None:
        return races[title].ratio(row) if title in races else None

    def fastest_decoder(form: str) -> float | None:
        ratios = [ratio(f"decode only, {form}", name) for name in list(DECODERS)[1:]]
        return min((found for found in ratios if found is not None), default=None)

    def delay() -> float | None:
        ours = [races[DELAY].median(row) for row in (SYNC, ASYNC, AIOHTTP)] if DELAY in races else []
        return max((found for found in ours if found is not None), default=None)

    def over_aiohttp() -> float | None:
        sdk, ours = ratio("live, async", ASYNC_SDK), ratio("live, async", AIOHTTP)
        return sdk / ours if sdk and ours else None

    parse = ratio(f"bytes to one handler, {small}", PARSE)
    return [
        Target(
            f"the OpenAI SDK to Dispatcher.run, {small}", ratio(f"bytes to one handler, {small}", OPENAI), 40, aim=70
        ),
        Target(f"the OpenAI SDK to Dispatcher.run, {single}", ratio(f"bytes to one handler, {single}", OPENAI), 25),
        Target(f"Dispatcher.run to msgspec's parse alone, {small}", parse and 1 / parse, maximum=5, aim=3.5),
        *(Target(f"the fastest other decoder to ours, {form}", fastest_decoder(form), 1) for form in CHUNKINGS),
        Target("import openai to import eventflow", ratio("import time", "import openai"), 5),
        Target("memory after the last delta to its text", ratio("memory of a long text", AFTER_DELTAS), maximum=1.25),
        Target("memory after the end to its text", ratio("memory of a long text", AFTER_END), maximum=1.25),
        Target("an event of a stream to one of a quarter of it", ratio("linear time", LONG), maximum=1.25),
        Target("the OpenAI SDK to Dispatcher.run, chat", ratio("chat bytes to one handler", CHAT_SDK), 25),
        Target("the Anthropic SDK to Dispatcher.run", ratio("anthropic bytes to one handler", ANTHROPIC_SDK), 5),
        Target("the OpenAI SDK to Dispatcher.run, live", ratio("live, sync", SDK), 6),
        Target("the OpenAI SDK to Dispatcher.arun, live", ratio("live, async", ASYNC_SDK), 6),
        Target("the OpenAI SDK to Dispatcher.arun over aiohttp, live", over_aiohttp(), 18),
        Target("µs from a chunk to its handler, 99 of 100", delay(), maximum=100),
    ]


if __name__ == "__main__":
    sys.exit(main())
