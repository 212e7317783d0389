"""`eventflow.testing.Clock`: time goes by when it is told to."""

from __future__ import annotations

import doctest
import math
from typing import Any

import anyio
import pytest

from eventflow import Dispatcher, Timeouts
from eventflow.errors import UsageError
from eventflow.testing import Clock, clock, stream


def test_clock_when_told_goes_on() -> None:
    """It stands still until it is advanced, or slept on."""
    now = Clock(5.0)
    assert (now(), now()) == (5.0, 5.0)
    now.advance(1.5)
    now.sleep(2)
    now.advance(0)
    assert (now(), now.now, now.slept) == (8.5, 8.5, [2])
    assert repr(now) == "Clock(8.5)"


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_clock_when_slept_on_async_lets_others_go_on(way: str) -> None:
    """The async sleep is over at once, and a checkpoint."""
    now, heard = Clock(), list[str]()

    async def sleeper(name: str) -> None:
        for _ in range(2):
            await now.asleep(10)
            heard.append(name)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(sleeper, "a")
            group.start_soon(sleeper, "b")

    anyio.run(main, backend=way)
    assert (now(), now.slept) == (40.0, [10, 10, 10, 10])
    assert sorted(heard) == ["a", "a", "b", "b"]
    assert heard[:2] != ["a", "a"] != heard[2:]


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
def test_clock_when_told_to_go_back_is_refused(seconds: Any) -> None:
    """It goes on, by a number of seconds."""
    with pytest.raises(UsageError, match="give a number from 0 on"):
        Clock().advance(seconds)


def test_dispatcher_when_it_has_the_clock_times_out_by_it() -> None:
    """A pushed stream times out when the clock says so, and not before."""
    now = Clock()
    with Dispatcher(clock=now, timeout=Timeouts(idle=10)).open(check=False) as run:
        for chunk in stream("a b", cut_at=5):
            run.feed(chunk)
            now.advance(9)
            run.tick()
        assert run.status == "running"
        now.advance(2)
        run.tick()
    assert run.status == "timeout"


def test_docstrings_when_run() -> None:
    """The example says what happens."""
    assert doctest.testmod(clock).failed == 0
