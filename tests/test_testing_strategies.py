"""`eventflow.testing.strategies`: what is drawn is what it says, and all of it can be met."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from eventflow import Dispatcher
from eventflow.errors import UsageError
from eventflow.events import WireEvent, decode, encode_json
from eventflow.testing import stream
from eventflow.testing.strategies import (
    FAULTS,
    STREAM_KINDS,
    Fault,
    Told,
    chunkings,
    event_streams,
    events,
    faults,
    streams,
)

ENDS = {"completed", "incomplete", "failed", "truncated"}
QUICK = settings(phases=[Phase.generate], max_examples=1_000)  # until one is found; the smallest is not looked for
SHORT = st.just(stream("a", tools=[("f", "{}")]))


@given(st.binary(max_size=30).flatmap(lambda body: st.tuples(st.just(body), chunkings(body))))
def test_chunkings_when_joined_are_the_body(drawn: tuple[bytes, list[bytes]]) -> None:
    """Nothing is lost and nothing comes twice, however it is cut."""
    body, chunks = drawn
    assert b"".join(chunks) == body


def test_chunkings_when_searched_have_every_kind() -> None:
    """Whole, byte by byte, and with empty chunks in between."""
    body = b"abc"
    for kind in ([body], [b"a", b"b", b"c"], [b"", b"abc"], [b"ab", b"c"]):
        find(chunkings(body), lambda chunks, kind=kind: chunks == kind, settings=QUICK)


@given(events())
def test_events_when_drawn_can_be_sent(event: WireEvent) -> None:
    """Every event of the vocabulary can be written, and read as what it was."""
    assert decode(encode_json(event), event.type).type == event.type


@settings(max_examples=30)
@given(event_streams())
def test_event_streams_when_run_are_in_order_and_end(told: Told) -> None:
    """A stream of events of any kinds, several items open at once, comes to its response without a warning."""
    run = Dispatcher().run(told.events)
    assert run.warnings == ()
    assert run.response == told.response


@pytest.mark.parametrize("kind", STREAM_KINDS)
def test_event_streams_when_searched_have_every_kind(kind: str) -> None:
    """Each kind of item is told of."""
    told = find(event_streams((kind,)), lambda told: bool(told.response.output), settings=QUICK)
    assert told.response.output


@pytest.mark.parametrize("wire", ["responses", "chat", "anthropic", "gemini"])
def test_streams_when_searched_have_every_wire(wire: Any) -> None:
    """Each wire is drawn, and only those that are asked for."""
    assert find(streams(), lambda made: made.wire == wire, settings=QUICK).wire == wire
    assert find(streams([wire]), lambda made: True, settings=QUICK).wire == wire


# --- faults ----------------------------------------------------------------------------------------------------------


def told_of(fault: Fault) -> Iterator[str]:
    """The statuses of the runs over a fault, with its wire given and detected."""
    for wire in (fault.stream.wire, None):
        yield Dispatcher().run([fault.body], check=False, wire=wire).status


@settings(max_examples=60)
@given(faults())
def test_faults_when_run_end_in_a_status(fault: Fault) -> None:
    """Whatever is wrong with a stream, its run ends in one of the statuses and raises nothing."""
    assert set(told_of(fault)) <= ENDS


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_when_searched_change_the_stream(kind: str) -> None:
    """Each kind of fault is met, and is one."""
    fault = find(faults(SHORT, [kind]), lambda fault: fault.body != fault.stream.body, settings=QUICK)
    assert fault.kind == kind


@settings(max_examples=30)
@given(faults(SHORT, ["cut", "error"]))
def test_faults_when_of_some_kinds_are_what_they_say(fault: Fault) -> None:
    """A cut stream is the beginning of the whole and does not complete; an error event fails it."""
    (status, _) = told_of(fault)
    if fault.kind == "cut":
        assert fault.stream.body.startswith(fault.body)
        assert status == "truncated" or fault.body == fault.stream.body[: len(fault.body)]
        assert len(fault.body) < len(fault.stream.body)
    else:
        assert status == "failed"


def test_faults_when_of_an_unknown_kind_are_refused() -> None:
    """A fault that there is not is named, with those that there are."""
    with pytest.raises(UsageError, match="there is no fault 'fire'; there is cut, bytes dropped"):
        faults(kinds=["fire"])


# --- the extra -------------------------------------------------------------------------------------------------------


def run_python(code: str) -> str:
    """What *code* prints in a Python of its own."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_import_when_hypothesis_is_not_installed() -> None:
    """The kit does without; the strategies say what to install."""
    code = """
import sys
sys.modules["hypothesis"] = None
import eventflow.testing
try:
    import eventflow.testing.strategies
except ImportError as error:
    print(error)
"""
    told = "eventflow.testing.strategies needs hypothesis: pip install 'eventflow-stream[testing]'"
    assert run_python(code) == told


def test_import_when_nothing_needs_it_loads_nothing_more_than_the_core() -> None:
    """``import eventflow.testing`` loads neither hypothesis nor the libraries that the core loads late."""
    code = "import sys, eventflow.testing; print([m for m in ('hypothesis', 'httpx', 'anyio') if m in sys.modules])"
    assert run_python(code) == "[]"
