"""Many live streams at once, with faults: ``python tests/soak [--seconds 60] [--streams 200] [--face threads]``.

A server in a process of its own cuts, resets, hangs, fails, babbles; consumers leave, cancel and raise. Afterwards
every stream has ended as its fault says and in time, and nothing is left: no socket, thread or task, and no memory.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs

from eventflow import AsyncClient, Client, Dispatcher, Event, Plugin, Run, TextDelta, Timeouts, on, state
from eventflow.errors import EventflowError, StreamTimeout, StreamTruncated
from eventflow_plugins import Accumulate, Tools, Usage, tool

_WIRES = ("responses", "chat", "anthropic", "gemini")
_ENDS = {  # how a stream ends with each fault
    "whole": "completed",
    "short": "incomplete",
    "error": "failed",
    "garbage": "failed",
    "cut": "truncated",
    "reset": "truncated",
    "gone": "truncated",
    "hang": "timeout",
    "silent": "timeout",
    "busy": "failed",
    "page": "failed",
    "leave": "cancelled",
    "cancel": "cancelled",
    "scope": "cancelled",
    "raise": "failed",
}
_FIRST, _IDLE, _TOTAL = 5.0, 2.0, 25.0  # seconds of the timers; those of a short run are shorter
_GRACE = 1.0  # seconds that a stream may take beyond its timers
_SETTLING = 1.0  # seconds for threads that were told to end
_TRIO = ("<init>", "<TrioToken.run_sync_soon task>")  # tasks that are always there
_MEMORY = 8 * 2**20  # bytes that may be left: what the allocator does not give back varies by some MB
_BLOCKS = 2_000  # that the interpreter may hold more of: each stream makes hundreds


class _Boom(Exception):
    """A handler's own fault."""


class _Last(Plugin):
    """When the last event came."""

    at: float = state(default=0.0)

    def start(self, run: Run) -> None:
        self.at = time.monotonic()

    @on("*")
    def note(self, event: Event) -> None:
        self.at = time.monotonic()


@attrs.frozen
class _Task:
    """One stream to be."""

    fault: str
    wire: str
    deltas: int
    pace: float

    @classmethod
    def draw(cls, chance: random.Random, faults: Sequence[str], slowest: float) -> _Task:
        return cls(
            chance.choice(faults), chance.choice(_WIRES), chance.randint(8, 24), chance.uniform(slowest / 10, slowest)
        )

    @property
    def request(self) -> dict[str, Any]:
        headers = {"x-fault": self.fault, "x-wire": self.wire}
        headers |= {"x-deltas": str(self.deltas), "x-pace": str(self.pace)}
        return {"model": "m", "input": "Hello!", "stream": True, "extra_headers": headers}

    def late(self, timeouts: Timeouts, seconds: float, since: float) -> float:
        """Seconds that a stream went on beyond its timers, which took so many, so many of them since its last event."""
        spent, allowed = {
            "hang": (since, timeouts.idle),
            "silent": (seconds, timeouts.first_event),
        }.get(self.fault, (seconds, timeouts.total))
        return spent - (allowed or 0.0)


@attrs.define
class _Book:
    """What became of the streams, and what is wrong. Threads may add to it."""

    timeouts: Timeouts
    ends: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    problems: list[str] = attrs.field(factory=list)
    latest: float = 0.0  # seconds that a timer was late, at most

    def note(self, task: _Task, run: Run | None, error: BaseException | None, seconds: float) -> None:
        if run is not None:
            end = run.status
            if task.fault == "whole" and len(run.outbox) != 2:
                self.problems.append(f"{task}: {len(run.outbox)} tool outputs")
            if run[Accumulate].response != run.response:
                self.problems.append(f"{task}: the plugin and the run differ in what was received")
        elif isinstance(error, StreamTruncated):
            end = "truncated"
        else:
            end = "timeout" if isinstance(error, StreamTimeout) else "failed"
        self.ends[task.fault, end] += 1
        if end != _ENDS[task.fault] and (task.fault, end) != ("cancel", "completed"):  # it was over when it came
            self.problems.append(f"{task} ended {end}: {error or (run and run.error)!r}")
        late = task.late(self.timeouts, seconds, seconds if run is None else time.monotonic() - run[_Last].at)
        self.latest = max(self.latest, late)
        if late > _GRACE:
            self.problems.append(f"{task} ended {late:.2f} s after its timers")


def _get_weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


async def _get_time(city: str) -> str:
    """Tell the time."""
    await anyio.lowlevel.checkpoint()
    return f"noon in {city}"


def _dispatcher() -> Dispatcher:
    tools = [tool(name="get_weather")(_get_weather), tool(name="get_time")(_get_time)]
    return Dispatcher(_Last(), Accumulate(), Usage(), Tools(tools))


def _raising() -> Dispatcher:
    flow = _dispatcher()

    @flow.on(TextDelta)
    def fail(event: TextDelta, run: Run) -> None:
        raise _Boom

    return flow


# --- threads ---------------------------------------------------------------------------------------------------------


def _by_threads(url: str, tasks: Callable[[], Iterator[_Task]], streams: int, book: _Book) -> None:
    """Each stream in a thread; cancelled from another."""
    with contextlib.ExitStack() as stack:
        flow, raising = stack.enter_context(_dispatcher()), stack.enter_context(_raising())
        clients = {
            wire: stack.enter_context(
                Client(base_url=url, api_key="sk-made-up", wire=wire, timeout=book.timeouts, max_retries=1)
            )
            for wire in _WIRES
        }
        due: list[tuple[float, Run]] = []

        def one(task: _Task) -> Run | None:
            with clients[task.wire].responses.create(**task.request) as stream:
                if task.fault in ("leave", "cancel"):
                    with flow.stream(stream, check=False) as events:
                        for number, _ in enumerate(events):
                            if task.fault == "leave" and number == 3:
                                break
                            if task.fault == "cancel" and number == 2:
                                due.append((time.monotonic() + task.pace, events.run))
                    return events.run
                if task.fault == "raise":
                    with raising.stream(stream, check=False) as events, contextlib.suppress(_Boom):
                        list(events)
                    return events.run
                return flow.run(stream, check=False)

        def work() -> None:
            for task in tasks():
                began, run, failure = time.monotonic(), None, None
                try:
                    run = one(task)
                except EventflowError as error:
                    failure = error
                except BaseException as error:
                    book.problems.append(f"{task} raised {error!r}")
                book.note(task, run, failure, time.monotonic() - began)

        threads = [threading.Thread(target=work) for _ in range(streams)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.01)
            while due and due[0][0] <= time.monotonic():
                due.pop(0)[1].cancel()


# --- tasks -----------------------------------------------------------------------------------------------------------


async def _by_tasks(url: str, tasks: Callable[[], Iterator[_Task]], streams: int, book: _Book) -> None:
    """Each stream in a task."""
    async with contextlib.AsyncExitStack() as stack:
        flow, raising = stack.enter_context(_dispatcher()), stack.enter_context(_raising())
        clients = {
            wire: await stack.enter_async_context(
                AsyncClient(base_url=url, api_key="sk-made-up", wire=wire, timeout=book.timeouts, max_retries=1)
            )
            for wire in _WIRES
        }

        async def one(task: _Task) -> Run | None:
            async with await clients[task.wire].responses.create(**task.request) as stream:
                if task.fault in ("leave", "cancel", "scope"):
                    async with flow.astream(stream, check=False) as events:
                        with anyio.CancelScope() as scope:
                            number = 0
                            async for _ in events:
                                number += 1
                                if task.fault == "leave" and number == 3:
                                    break
                                if task.fault == "cancel" and number == 3:
                                    waking.append((anyio.current_time() + task.pace, events.run.cancel))
                                if task.fault == "scope" and number == 3:
                                    scope.deadline = anyio.current_time() + task.pace
                    return events.run
                if task.fault == "raise":
                    async with raising.astream(stream, check=False) as events:
                        with contextlib.suppress(_Boom):
                            [event async for event in events]
                    return events.run
                return await flow.arun(stream, check=False)

        async def work() -> None:
            for task in tasks():
                began, run, failure = time.monotonic(), None, None
                try:
                    run = await one(task)
                except EventflowError as error:
                    failure = error
                except Exception as error:
                    book.problems.append(f"{task} raised {error!r}")
                book.note(task, run, failure, time.monotonic() - began)

        async def wake() -> None:
            while True:
                await anyio.sleep(0.01)
                while waking and waking[0][0] <= anyio.current_time():
                    waking.pop(0)[1]()

        waking: list[tuple[float, Callable[[], None]]] = []
        async with anyio.create_task_group() as outer:
            outer.start_soon(wake)
            async with anyio.create_task_group() as group:
                for _ in range(streams):
                    group.start_soon(work)
            outer.cancel_scope.cancel()
    for _ in range(20):  # tasks that end take a turn or two
        await anyio.lowlevel.checkpoint()
    mine = anyio.get_current_task().id
    left = [str(task.name) for task in anyio.get_running_tasks() if task.id != mine]
    left = [name for name in left if name not in _TRIO]
    if left:
        book.problems.append(f"{len(left)} tasks are left: {left[:5]}")


_FACES: dict[str, Callable[..., None]] = {
    "threads": _by_threads,
    "asyncio": lambda *given: anyio.run(_by_tasks, *given, backend="asyncio"),
    "trio": lambda *given: anyio.run(_by_tasks, *given, backend="trio"),
}


# --- what is left ----------------------------------------------------------------------------------------------------


@attrs.frozen
class _Left:
    """What the process holds."""

    sockets: int
    threads: tuple[str, ...]
    blocks: int
    memory: int

    @classmethod
    def now(cls) -> _Left:
        until = time.monotonic() + _SETTLING
        while len(threading.enumerate()) > 1 and time.monotonic() < until:
            time.sleep(0.01)
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # what is free goes back to the system, where it can
            ctypes.CDLL(None).malloc_trim(0)
        held = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)]
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        names = tuple(sorted(thread.name for thread in threading.enumerate() if not _is_kept(thread)))
        sockets = sum(name.startswith("socket:") for name in held)
        return cls(sockets, names, sys.getallocatedblocks(), pages * os.sysconf("SC_PAGE_SIZE"))


def _is_open(name: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{name}")


def _is_kept(thread: threading.Thread) -> bool:
    """Whether trio keeps it, for the next one who needs a thread: ten seconds."""
    return thread.name.startswith("Trio thread")


def soak(face: str, url: str, seconds: float, streams: int, seed: int) -> list[str]:
    """Have streams for so many seconds; gives what is wrong, and prints the figures."""
    faults = [fault for fault in _ENDS if fault != "scope" or face != "threads"]
    chance = random.Random(seed)
    slowest = min(0.3, seconds / 40)
    timeouts = Timeouts(first_event=min(_FIRST, seconds / 2), idle=min(_IDLE, seconds / 3), total=_TOTAL)

    def measured(tasks: Callable[[], Iterator[_Task]]) -> tuple[_Book, _Left]:
        book = _Book(timeouts)
        _FACES[face](url, tasks, streams, book)
        return book, _Left.now()

    every = iter([_Task(fault, wire, 8, slowest) for fault in faults for wire in _WIRES])
    lock = threading.Lock()

    def once() -> Iterator[_Task]:
        """Each fault on each wire: then what is imported, pooled and cached is there, however slow the machine."""
        while True:
            with lock:
                task = next(every, None)
            if task is None:
                return
            yield task

    def until(end: float) -> Iterator[_Task]:
        while time.monotonic() < end:
            yield _Task.draw(chance, faults, slowest)

    def warm() -> Iterator[_Task]:
        """And as much of all that what the allocator keeps for so many at once is there too."""
        yield from once()
        yield from until(time.monotonic() + seconds / 6)

    first, before = measured(warm)
    began = time.monotonic()
    book, after = measured(partial(until, began + seconds))
    took = time.monotonic() - began
    book.problems[:0] = first.problems
    problems = [*book.problems]
    if after.sockets > before.sockets:
        problems.append(f"{after.sockets - before.sockets} sockets are left open")
    if after.threads != before.threads:
        problems.append(f"threads are left: {after.threads}")
    if after.blocks > before.blocks + _BLOCKS:
        problems.append(f"{after.blocks - before.blocks:,} blocks of memory are left")
    if after.memory > before.memory + _MEMORY:
        problems.append(f"{(after.memory - before.memory) / 2**20:.1f} MB of memory are left")
    counted = ", ".join(f"{fault} {count}" for (fault, _), count in sorted(book.ends.items()))
    print(
        f"{face}: {sum(book.ends.values()):,} streams, {streams} at once, in {took:.0f} s; {counted}\n"
        f"  the latest timer {book.latest:.2f} s late; sockets {before.sockets} -> {after.sockets}, threads "
        f"{len(before.threads)} -> {len(after.threads)}, blocks {before.blocks:,} -> {after.blocks:,}, memory "
        f"{before.memory / 2**20:.1f} -> {after.memory / 2**20:.1f} MB; {len(problems)} problems",
        flush=True,
    )
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; gives the exit status."""
    options = _parser().parse_args(arguments)
    problems: list[str] = []
    command = [sys.executable, str(Path(__file__).with_name("faulty.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        print(f"seed {options.seed}")
        for face in options.face or _FACES:
            problems += soak(face, url, options.seconds, options.streams, options.seed)
        server.communicate()
    for problem in problems[:20]:
        print(f"  {problem}")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tests/soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="for each face (default: 60)")
    parser.add_argument("--streams", type=int, default=200, help="at once (default: 200)")
    parser.add_argument("--face", action="append", choices=_FACES, help="threads, asyncio or trio; by default all")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="which faults are drawn")
    return parser


if __name__ == "__main__":
    sys.exit(main())
