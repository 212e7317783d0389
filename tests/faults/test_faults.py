"""Whatever a server does: the right outcome, in time, with all that came, and the connection closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from answers import Api
from bench import Bench, serving
from catalogue import FAULTS
from leaving import BRIEF_CASES, leave
from page import PAGE, render
from weigh import LOADS, check


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One server for all faults of a process."""
    with serving() as bench:
        yield bench


@pytest.mark.parametrize("name", FAULTS)
def test_outcome_when_the_server_misbehaves(name: str, bench: Bench) -> None:
    """It is what the catalogue promises: over each API, sync and async, as our stream and as a plain response."""
    assert bench.mistakes(FAULTS[name], brief=True) == []


@pytest.mark.parametrize(("name", "api", "way"), BRIEF_CASES)
def test_connection_when_the_consumer_leaves(name: str, api: Api, way: str) -> None:
    """It is closed at once, without the garbage collector; and a slow consumer is not sent more than it takes."""
    assert leave(name, api, way) == []


@pytest.mark.parametrize("name", LOADS)
def test_cost_when_a_stream_is_to_cost_too_much(name: str) -> None:
    """In a process of its own, memory stays within 40 MB of the text, and time in proportion to the load."""
    assert check(name) == []


def test_page_when_the_catalogue_is_rendered() -> None:
    """The documentation says what the bench proves; `make faults` writes it."""
    assert PAGE.read_text(encoding="utf-8") == render()
