"""`replay`: a recording as a source, sync and async: the same items in the same order, and the same end."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from math import inf
from typing import IO, Final, TypeAlias

import attrs

from eventflow.errors import StreamInterrupted, UsageError
from eventflow.sources import Source
from eventflow.waiting import checkpoint
from eventflow.waiting import sleep as sleep_async
from eventflow_plugins.recording import End, Header, Item, read_header, read_line

__all__ = ["Replay", "replay"]

_HEADER_BYTES: Final = 64 * 1024  # a file of something else may be one line

_Sleep: TypeAlias = Callable[[float], object]


def replay(
    path: str | os.PathLike[str],
    speed: float = 0,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] | None = None,
    asleep: Callable[[float], Awaitable[object]] = sleep_async,
) -> Replay:
    """A recording as a source, for whatever takes one; it may be read several times, also at once.

    ::

        Dispatcher().run(replay("run.jsonl"))
        await Dispatcher().arun(replay("run.jsonl", speed=1))

    It gives what was received, in the same order and the same pieces, and ends as the recorded source did: a failure of
    the transport or a timer that ran out is raised again, as the same class with the same message. A recording that
    lacks its end, because the program that made it crashed or its consumer left, gives all that it has, and then raises
    `StreamInterrupted`.

    Args:
        path: What `Record` has written.
        speed: 0 gives everything at once, 1 at the times at which it came, n so many times faster.
        clock: Gives seconds, never goes back.
        sleep: Waits so many seconds; by default in a way that `Run.cancel` and timers interrupt.
        asleep: `sleep`, async.

    Raises:
        UsageError: The file cannot be opened, is no recording, or one of a newer version; or the speed is none.
    """
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0 <= speed < inf:
        raise UsageError(
            f"replay(speed=...) takes 0 for at once, 1 for real time, or how many times faster, not {speed!r}"
        )
    with _opened(os.fspath(path)) as (_, header):
        return Replay(os.fspath(path), speed, header, clock, sleep, asleep)


@attrs.frozen
class Replay:
    """What `replay` gives.

    Attributes:
        path: The recording.
        speed: How fast it is given.
        header: Its first line.
    """

    path: str
    speed: float
    header: Header
    _clock: Callable[[], float] = attrs.field(repr=False)
    _sleep: _Sleep | None = attrs.field(repr=False)
    _asleep: Callable[[float], Awaitable[object]] = attrs.field(repr=False)

    def __iter__(self) -> Iterator[object]:
        """The items: bytes, frames, mappings, events, and `eventflow.engine.ANEW` where another body began."""
        return self._items(threading.Event())

    def __aiter__(self) -> AsyncIterator[object]:
        return self._aitems()

    def __eventflow_source__(self) -> Source:
        stopped = threading.Event()
        items = self._items(stopped)
        made = Source(items=items, close=items.close, wire=self.header.wire)
        if self.speed:
            aitems = self._aitems()
            made.aitems, made.aclose = aitems, aitems.aclose
            made.blocking, made.interrupt = True, stopped.set
        return made

    def _items(self, stopped: threading.Event) -> Generator[object, None, None]:
        sleep = self._sleep or stopped.wait
        with contextlib.closing(_steps(self.path)) as steps:
            began = self._clock()
            for step in steps:
                seconds = self._early(step, began)
                if seconds > 0:
                    sleep(seconds)
                    if stopped.is_set():
                        raise StreamInterrupted("the replay was interrupted while it waited for the next item")
                if isinstance(step, Item):
                    yield step.value
                elif step.error is not None:
                    raise step.error

    async def _aitems(self) -> AsyncGenerator[object, None]:
        with contextlib.closing(_steps(self.path)) as steps:
            began = self._clock()
            for step in steps:
                seconds = self._early(step, began)
                await (self._asleep(seconds) if seconds > 0 else checkpoint())
                if isinstance(step, Item):
                    yield step.value
                elif step.error is not None:
                    raise step.error

    def _early(self, step: Item | _Last, began: float) -> float:
        """Seconds until *step* is due."""
        return began + step.at / self.speed - self._clock() if self.speed else 0.0


@attrs.frozen
class _Last:
    """The end: when it is due, and what is raised."""

    at: float
    error: Exception | None


@contextlib.contextmanager
def _opened(path: str) -> Generator[tuple[IO[bytes], Header]]:
    """The file behind its header, and that."""
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UsageError(f"cannot open the recording {path!r}: {reason}") from error
    with file:
        yield file, read_header(file.readline(_HEADER_BYTES), path)


def _steps(path: str) -> Generator[Item | _Last, None, None]:
    """What a recording tells, line by line; the end comes last."""
    with _opened(path) as (file, _):
        at, items, lost, why = 0.0, 0, "", "it has no last line"
        for number, line in enumerate(file, 2):
            record = read_line(line, number)
            if record is None:
                why = f"it is cut in the middle of line {number}"
                break
            if isinstance(record, End):
                yield _Last(record.at, _lost(lost, record) if lost else _failure(record))
                return
            if lost:
                break
            at, lost, items = record.at, record.lost, items + 1
            if not lost:
                yield record
    cut = StreamInterrupted(
        f"the recording {path!r} ends after {items} items: {why}: the program that made it crashed, or is at it"
    )
    yield _Last(at, _lost(lost, None) if lost else cut)


def _lost(kind: str, end: End | None) -> Exception:
    """What a run ends with at an item that could not be recorded: what the recorded one did, where it ended there."""
    return (end.raised or end.error if end is not None else None) or StreamInterrupted(
        f"what the source gave here could not be recorded: it was of the type {kind}"
    )


def _failure(end: End) -> Exception | None:
    """What reading the recorded source raised, or None where it came to its end."""
    if end.raised is not None or end.error is not None:
        return end.raised
    if end.status == "cancelled":
        return StreamInterrupted(f"the recorded run was cancelled after {end.events} events; no more was received")
    if end.status == "failed":
        return StreamInterrupted(
            f"the recorded run was ended by an exception of its own program after {end.events} events; no more was "
            "received"
        )
    return None
