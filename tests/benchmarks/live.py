"""From a server on loopback to a handler: each subject in processes of its own, against the OpenAI SDK."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import attrs
from measure import Measure, Race, turns
from subjects import SUBJECTS

__all__ = ["AIOHTTP", "ASYNC", "ASYNC_SDK", "DELAY", "SDK", "SYNC", "live"]

SYNC, SDK, READ = "Dispatcher.run, httpx", "openai OpenAI", "httpx, only read"
ASYNC, ASYNC_SDK, ASYNC_READ = "Dispatcher.arun, httpx", "openai AsyncOpenAI", "httpx, only read, async"
AIOHTTP, AIOHTTP_SDK, AIOHTTP_READ = (
    "Dispatcher.arun, httpx-aiohttp",
    "openai AsyncOpenAI, its aiohttp client",
    "httpx-aiohttp, only read",
)
DELAY = "live, from a chunk to its handler, 99 of 100"
_PACE = 200  # events a second of one stream: each comes alone
_PACE_OF_MANY = 5  # and of each of a thousand, so that a core is enough for every subject
_HERE = Path(__file__).parent


def live(events: int, rounds: int) -> list[Race]:
    """From a server on loopback to one handler: a stream at full speed, one at a pace, many at once."""
    fast, slow = events // 5, min(max(events // 50, 20), 400)
    streams, of_many = max(events // 100, 1), min(max(events // 1000, 5), 25)
    paced = f"{slow:,} at {_PACE} a second"
    many = f"live, {streams:,} streams of {_PACE_OF_MANY} events a second"
    with _server() as address:
        one_stream = functools.partial(_turns, rounds, address, "one")
        many_streams = functools.partial(_turns, min(rounds, 3), address, "many")
        return [
            *one_stream((SYNC, SDK, READ), (fast, 0, 1), {"cpu": ("live, sync", f"ns of CPU an event, of {fast:,}")}),
            *one_stream(
                (ASYNC, AIOHTTP, ASYNC_SDK, AIOHTTP_SDK, ASYNC_READ, AIOHTTP_READ),
                (fast, 0, 1),
                {"cpu": ("live, async", f"ns of CPU an event, of {fast:,}")},
            ),
            *one_stream(
                tuple(SUBJECTS),
                (slow, _PACE, 1),
                {
                    "cpu": ("live, at a pace", f"ns of CPU an event, of {paced}"),
                    "median": ("live, from a chunk to its handler, median", f"µs, of {paced}"),
                    "p99": (DELAY, f"µs, of {paced}"),
                },
            ),
            *many_streams(
                (ASYNC, AIOHTTP, ASYNC_READ, AIOHTTP_READ),
                (of_many, _PACE_OF_MANY, streams),
                {"cpu": (many, "ns of CPU an event"), "kibibytes": (f"{many}, memory", "KiB a stream")},
            ),
        ]


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """The address of a server that lasts as long as the block, or as this process."""
    command = [sys.executable, str(_HERE / "serving.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"


def _turns(
    rounds: int,
    address: str,
    measure: str,
    names: tuple[str, ...],
    numbers: tuple[int, ...],
    tables: Mapping[str, tuple[str, str]],
) -> list[Race]:
    """Let subjects race in new processes; gives a race, with its title and unit, for each thing that they measure."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def prepare(name: str) -> Measure:
        for module in SUBJECTS[name].needs:
            if find_spec(module) is None:
                raise ModuleNotFoundError(name=module)

        def measured() -> float:
            command = [sys.executable, str(_HERE / "subjects.py"), measure, name, address, *map(str, numbers)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seen[name].append(json.loads(done.stdout))
            return seen[name][-1]["cpu"]

        return measured

    race = turns("", "", {name: functools.partial(prepare, name) for name in names}, rounds)
    return [
        Race(
            title,
            unit,
            tuple(
                attrs.evolve(row, values=tuple(found[key] for found in seen[row.name]))
                for row in race.rows
                if row.absent or key in seen[row.name][0]
            ),
        )
        for key, (title, unit) in tables.items()
    ]
