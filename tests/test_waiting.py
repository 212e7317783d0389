"""Waiting that can be ended from elsewhere, seen from runs: by a thread, a task, a timer; on asyncio and trio."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import AsyncWatched, Watched, answer, block, created, error

from eventflow import Dispatcher, Event, Plugin, Run
from eventflow.errors import APIStreamError, StreamInterrupted
from eventflow.waiting import Bell, discard, is_cancellation

AB = answer("a", "b")
BACKENDS = ("asyncio", "trio")


@pytest.mark.parametrize("backend", BACKENDS)
def test_wait_when_cancelled_by_many_at_once(backend: str) -> None:
    """However many threads cancel a run, it is cancelled once, and the task goes on undisturbed."""

    async def main() -> None:
        source = AsyncWatched([block(created())], hang=True)
        flow = Dispatcher()
        threads: list[threading.Thread] = []

        @flow.on("response.created")
        def soon(event: Event, run: Run) -> None:
            threads.extend(threading.Thread(target=run.cancel) for _ in range(8))
            for thread in threads:
                thread.start()

        run = await flow.arun(source)
        assert (run.status, source.closed) == ("cancelled", 1)
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join)
        await anyio.sleep(0.01)  # a late interruption would hit this
        assert (await Dispatcher().arun(AsyncWatched(AB))).status == "completed"

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wait_when_cancelled_after_its_loop_has_ended(backend: str) -> None:
    """Cancelling a run whose event loop is closed is nothing, from this thread and from others."""
    runs: list[Run] = []
    flow = Dispatcher()
    flow.on("response.created", lambda event, run: runs.append(run))

    async def main() -> None:
        cursor = aiter(flow.astream(AsyncWatched(AB)))
        await anext(cursor)
        await cursor.aclose()  # type: ignore[attr-defined]

    anyio.run(main, backend=backend)
    runs[0].cancel()
    thread = threading.Thread(target=runs[0].cancel)
    thread.start()
    thread.join()
    assert runs[0].status == "cancelled"


def test_wait_when_the_task_is_cancelled_too() -> None:
    """Where the task is cancelled at the same moment as its run, the task's cancellation goes through."""

    async def main() -> None:
        source = AsyncWatched([block(created())], hang=True)
        flow = Dispatcher()
        runs: list[Run] = []
        flow.on("response.created", lambda event, run: runs.append(run))
        task = asyncio.create_task(flow.arun(source))
        while not runs:  # noqa: ASYNC110  # the run waits, it sets nothing
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        runs[0].cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert source.closed == 1
        assert runs[0].status == "cancelled"

    asyncio.run(main())


@pytest.mark.parametrize("backend", BACKENDS)
def test_wait_when_the_timer_of_an_error_event_runs(backend: str) -> None:
    """A source that goes on within the time after an error event is read on, one event after the other."""

    async def slow() -> Any:
        for event in [*AB[:4], error(), error("second")]:
            yield block(event)
            await anyio.sleep(0.01)
        await anyio.sleep_forever()

    async def main() -> None:
        heard: list[str] = []
        flow = Dispatcher()
        flow.on("error", lambda event: heard.append(event.code))
        begun = time.monotonic()
        with pytest.raises(APIStreamError, match="rate_limit_exceeded"):
            await flow.arun(slow())
        assert heard == ["rate_limit_exceeded", "second"]
        assert 0.15 < time.monotonic() - begun < 2

    anyio.run(main, backend=backend)


def test_wait_when_a_chattering_source_follows_an_error_event() -> None:
    """After an error event, a source that only keeps the line warm is left after 0.2 s in all, not 0.2 s each time."""

    async def chatter() -> Any:
        for event in [*AB[:4], error()]:
            yield block(event)
        while True:
            await asyncio.sleep(0.02)
            yield b": ping\n\n"

    async def main() -> None:
        with pytest.raises(APIStreamError):
            async with asyncio.timeout(1.5):
                await Dispatcher().arun(chatter())

    asyncio.run(main())


@pytest.mark.parametrize("backend", BACKENDS)
def test_sync_source_when_in_an_async_run_gives_way(backend: str) -> None:
    """A long sync source lets other tasks have their turn."""

    async def main() -> None:
        turns: list[int] = []
        flow = Dispatcher()
        runs: list[Run] = []
        flow.on("response.created", lambda event, run: runs.append(run))

        async def other() -> None:
            while not runs or runs[0].status == "running":
                turns.append(1)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(other)
            await flow.arun(Watched(map(block, answer(*(["x"] * 1000)))))
        assert len(turns) > 10

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    "backend",
    ["asyncio", "trio"],
)
def test_source_when_closed_in_a_cancelled_task(backend: str) -> None:
    """The source of a cancelled task is closed to the end, though closing takes its time."""
    closed: list[str] = []

    class Slow(AsyncWatched):
        async def aclose(self) -> None:
            await anyio.sleep(0.02)
            closed.append("to the end")

    async def main() -> None:
        with anyio.move_on_after(0.02) as scope:
            await Dispatcher().arun(Slow(AB[:3], hang=True))
        assert scope.cancelled_caught
        assert closed == ["to the end"]

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_handler_when_a_source_fails_is_awaited(backend: str) -> None:
    """A source that fails while it is awaited ends the run in order: finish and stop are awaited."""
    calls: list[str] = []

    class Late(Plugin):
        async def finish(self, run: Run) -> None:
            await anyio.lowlevel.checkpoint()
            calls.append("finish")

        async def stop(self, run: Run) -> None:
            await anyio.lowlevel.checkpoint()
            calls.append("stop")

    async def main() -> None:
        with pytest.raises(StreamInterrupted):
            await Dispatcher(Late()).arun(AsyncWatched(AB[:3], OSError("cut")))

    anyio.run(main, backend=backend)
    assert calls == ["finish", "stop"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_astream_when_a_sync_source_is_never_read(backend: str) -> None:
    """A sync source of an async stream that is never iterated is closed too."""

    async def main() -> None:
        source = Watched(AB)
        async with Dispatcher().astream(source) as events:
            pass
        assert (source.closed, events.run.status) == (1, "cancelled")

    anyio.run(main, backend=backend)


def test_cancel_when_the_loop_is_closed_under_a_run() -> None:
    """Cancelling a run whose loop was closed while it waited is nothing: it ends when it is driven again."""
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    source = AsyncWatched(map(block, AB))
    cursor = aiter(stream := Dispatcher().astream(source))
    loop.run_until_complete(anext(cursor))
    loop.close()
    stream.run.cancel()
    other.run_until_complete(cursor.aclose())  # type: ignore[attr-defined]
    other.close()
    assert (stream.run.status, source.closed) == ("cancelled", 1)


# --- the bell --------------------------------------------------------------------------------------------------------


def in_time(wait: Any) -> float:
    """Call *wait*; returns the seconds that it took."""
    begun = time.monotonic()
    wait()
    return time.monotonic() - begun


FACES: dict[str, Any] = {
    "thread": lambda bell, seconds=None: bell.wait(seconds),
    "asyncio": lambda bell, seconds=None: anyio.run(bell.await_, seconds, backend="asyncio"),
    "trio": lambda bell, seconds=None: anyio.run(bell.await_, seconds, backend="trio"),
}


@pytest.mark.parametrize("face", FACES)
def test_bell_when_rung_before_the_wait(face: str) -> None:
    """A ring, or several, before the wait ends one wait, and no second one."""
    bell = Bell()
    bell.ring()
    bell.ring()
    FACES[face](bell)
    assert in_time(lambda: FACES[face](bell, 0.03)) >= 0.03
    FACES[face](bell, -1)  # no time at all


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("seconds", [None, 1e12, float("inf")])
def test_bell_when_rung_from_a_thread(face: str, seconds: float | None) -> None:
    """A ring from another thread ends the wait, be it bounded as it may."""
    bell = Bell()
    timer = threading.Timer(0.02, bell.ring)
    timer.start()
    FACES[face](bell, seconds)
    timer.join()
    bell.ring()  # the loop is over: nobody waits, and the next wait will not
    FACES[face](bell)


@settings(max_examples=20)
@given(face=st.sampled_from([*FACES]), counts=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_bell_when_many_threads_ring(face: str, counts: list[int]) -> None:
    """Whoever waits until all has happened comes to its end, however the rings fall."""
    bell = Bell()
    done: list[int] = []

    def work(count: int) -> None:
        for _ in range(count):
            done.append(1)
            bell.ring()

    async def until_done() -> None:
        while len(done) < sum(counts):
            await bell.await_(10)

    threads = [threading.Thread(target=work, args=(count,)) for count in counts]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    if face == "thread":
        while len(done) < sum(counts):
            bell.wait(10)
    else:
        anyio.run(until_done, backend=face)
    assert time.monotonic() - begun < 5  # a ring that is missed would take 10 s
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bell_when_rung_in_its_own_loop(backend: str) -> None:
    """A task of the same loop rings; a wait that is cancelled leaves nothing behind."""

    async def main() -> None:
        bell = Bell()
        with anyio.move_on_after(0.01) as scope:
            await bell.await_()
        assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(bell.await_)
            await anyio.sleep(0.01)
            bell.ring()

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bell_when_its_loop_is_blocked(backend: str) -> None:
    """Ringing does not wait for the loop, which may wait for the thread that rings."""

    async def main() -> None:
        bell = Bell()
        async with anyio.create_task_group() as group:
            group.start_soon(bell.await_)
            await anyio.sleep(0.01)
            thread = threading.Thread(target=bell.ring)
            thread.start()
            thread.join(5)
            assert not thread.is_alive()

    anyio.run(main, backend=backend)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends signals")
def test_bell_when_rung_by_a_signal_handler() -> None:
    """A signal handler may ring while its own thread waits."""
    bell = Bell()
    before = signal.signal(signal.SIGALRM, lambda *_: bell.ring())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert in_time(lambda: bell.wait(5)) < 4
    finally:
        signal.signal(signal.SIGALRM, before)


def test_discard_when_nobody_awaits() -> None:
    """A coroutine that was never begun is closed without a warning; what has nothing to close is let be."""
    coroutine = anyio.lowlevel.checkpoint()
    discard(coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
        coroutine.send(None)
    discard(object())


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_cancellation_when_a_task_raises(backend: str) -> None:
    """A task that is cancelled raises what is none of its own, as does one that is dropped, in no event loop."""
    seen: list[bool] = []

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            except BaseException as error:
                seen.append(is_cancellation(error))
                raise
        seen.extend(map(is_cancellation, (ValueError(), SystemExit(), KeyboardInterrupt())))

    anyio.run(main, backend=backend)
    assert seen == [True, False, False, False]
    assert is_cancellation(GeneratorExit())
