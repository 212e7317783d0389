"""Wires: the Responses API's frames, and the choice of a wire."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import Dispatcher, Limits, wires
from eventflow.errors import DecodeError, EventflowError, LimitExceeded, UsageError
from eventflow.events import Event, StreamError, TextDelta, UnknownEvent, decode, event_classes
from eventflow.events._decode import STRICT_ERRORS, is_flat
from eventflow.sse import Frame, encode
from eventflow.sse import decode as frames_of
from eventflow.wires import detect, wire_named
from eventflow.wires.anthropic import AnthropicWire
from eventflow.wires.chat import ChatWire
from eventflow.wires.gemini import GeminiWire
from eventflow.wires.responses import ResponsesWire
from tests.strategies import wire_events

FIXTURES = Path(__file__).parent / "fixtures"


class Tick(Event, tag="tests_wires.tick"):
    n: int = 0


def frame(data: Any, name: str = "message") -> Frame:
    """Make a frame of JSON."""
    return Frame(event=name, data=data if isinstance(data, str) else json.dumps(data))


def wire() -> ResponsesWire:
    """Make a wire with the usual limits."""
    return ResponsesWire(Limits())


# --- frames to events ------------------------------------------------------------------------------------------------


@given(wire_events())
def test_feed_when_a_frame_is_an_event(event: Event) -> None:
    """It gives that event, named or not."""
    for name in (event.type, "message", event.type.replace(".", "_")):
        assert wire().feed(Frame(event=name, data=event.to_json().decode())) == [event]


def test_feed_when_the_frame_is_an_end_marker() -> None:
    """It means nothing; and nothing is held back at the end."""
    assert wire().feed(frame("[DONE]")) == wire().feed(frame(" [DONE]\n")) == []
    assert wire().close() == []


def test_feed_when_users_have_events_of_their_own() -> None:
    """They come from the wire under their tags; eventflow's own do not."""
    assert wire().feed(frame({"type": "tests_wires.tick", "n": 3})) == [Tick(3)]
    assert wire().feed(frame({"n": 3}, "tests_wires.tick")) == [Tick(3)]
    data = {"type": "eventflow.tool_call", "kind": "function", "name": "rm", "arguments": "{}"}
    for name in ("message", "eventflow.tool_call", "eventflow_tool_call"):
        assert wire().feed(frame(data, name)) == [UnknownEvent("eventflow.tool_call", data)]


def test_feed_when_a_limit_is_reached() -> None:
    """The depth that is allowed is the wire's."""
    data = frame({"type": "vendor", "a": [[1]]})
    assert ResponsesWire(Limits(json_depth=3)).feed(data)
    assert ResponsesWire(Limits(json_depth=None)).feed(data)
    with pytest.raises(LimitExceeded):
        ResponsesWire(Limits(json_depth=2)).feed(data)


@given(st.text(max_size=40), st.sampled_from(["message", "error", "vendor", *event_classes()]))
def test_feed_when_the_data_is_any_text(data: str, name: str) -> None:
    """Events or an eventflow error come of it, and the same of detection."""
    for call in (wire().feed, lambda frame: detect(frame, Limits())):
        with contextlib.suppress(EventflowError):
            call(Frame(event=name, data=data))


def test_feed_when_text_cannot_be_encoded() -> None:
    """Frames of Python code may hold lone surrogates."""
    odd = Frame(event="message", data='{"type":"response.output_text.delta","delta":"\ud800"}')
    assert wire().feed(odd) == [TextDelta("\ud800")]
    assert not ResponsesWire.fits(odd)


@pytest.mark.parametrize(
    "tag", [*sorted(tag for tag in event_classes() if tag.startswith(("response.", "err"))), "vendor"]
)
def test_direct_when_a_name_is_asked(tag: str) -> None:
    """There is a decoder for flat events alone, and it gives what the wire gives."""
    cls = event_classes().get(tag)
    read = wire().direct(tag)
    assert (read is not None) == (cls is not None and cls is not StreamError and is_flat(cls))


@given(wire_events())
def test_direct_when_it_decodes(event: Event) -> None:
    """It gives the wire's event, and refuses what is another's with an error that is known."""
    for name in ("response.output_text.delta", event.type):
        read = wire().direct(name)
        if read is None:
            continue
        if name == event.type:
            with contextlib.suppress(STRICT_ERRORS):  # an untyped part goes the lenient way
                assert read(event.to_json()) == event
            assert decode(event.to_json(), name) == event
        else:
            with pytest.raises(STRICT_ERRORS):
                read(event.to_json())


def test_direct_when_the_name_is_eventflows_or_a_users() -> None:
    """There is none: a peer makes none of the first, and the second may nest."""
    assert wire().direct("eventflow.tool_call") is wire().direct("tests_wires.tick") is None


# --- the choice of a wire --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        frame({"type": "response.created", "response": {}}),
        frame({"type": "response.created", "response": {}}, "response.created"),
        frame("{", "response.created"),
        frame({"response": {}}, "response_created"),
        frame({"type": "codex.rate_limits"}),
        frame({"type": "tests_wires.tick"}),
        frame({}, "tests_wires.tick"),
        frame({"error": {"message": "no"}}),
        frame({"error": "no"}),
        frame("out of memory", "error"),
        frame({"type": "vendor", "error": None}, "vendor"),
    ],
    ids=lambda frame: f"{frame.event} {frame.data}",
)
def test_detect_when_a_stream_is_of_the_responses_api(first: Frame) -> None:
    """A name that is known, a type, or an error in the data says so."""
    assert isinstance(detect(first, Limits()), ResponsesWire)


@pytest.mark.parametrize(
    "first",
    [
        frame({"object": "text_completion"}),
        frame({"type": 5}),
        frame([1]),
        frame("<html>\x1b"),
        frame('{"type":"\ud800'),
        frame("[" * 100_000),
    ],
    ids=lambda frame: frame.data[:20],
)
def test_detect_when_a_stream_is_of_no_known_wire(first: Frame) -> None:
    """The error names the wires, says what to pass, and shows the start, safe to print."""
    with pytest.raises(DecodeError) as caught:
        detect(first, Limits())
    assert "of no wire that is read here (responses, anthropic, chat, gemini); wire=..." in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600
    assert caught.value.frame is first


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("responses-*.sse")), ids=lambda path: path.stem)
def test_detect_when_a_stream_was_recorded(path: Path) -> None:
    """Real streams of the Responses API are found, and all their frames are known events."""
    frames = list(frames_of([path.read_bytes()]))
    found = detect(frames[0], Limits())
    assert isinstance(found, ResponsesWire)
    events = [event for frame in frames for event in found.feed(frame)]
    assert events
    assert not any(isinstance(event, UnknownEvent) for event in events)


def test_wire_when_named() -> None:
    """A known name gives a wire of its own for every stream; an unknown one an error that names the known."""
    first, second = wire_named("responses", Limits()), wire_named("responses", Limits())
    assert isinstance(first, ResponsesWire)
    assert first is not second
    with pytest.raises(UsageError, match=r"no wire is called 'response'; there is responses"):
        wire_named("response", Limits())


def test_public_names_when_listed() -> None:
    """They exist, and have docstrings."""
    public = [getattr(wires, name) for name in wires.__all__]
    assert all(value.__doc__ for value in public if value is not wires.DirectDecoder)


class _Holding:
    """A wire that gives its last event only when the body has ended."""

    name = "holding"

    def __init__(self, limits: Limits) -> None:
        self.held: list[Event] = []

    @staticmethod
    def fits(frame: Frame) -> bool:
        return True

    def feed(self, frame: Frame) -> list[Event]:
        given, self.held = self.held, [ResponsesWire(Limits()).feed(frame)[0]]
        return given

    def close(self) -> list[Event]:
        return self.held

    @staticmethod
    def direct(name: str) -> None:
        return None


def test_wire_when_it_holds_an_event_back_gives_it_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wire gives when the body has ended counts like any other event, the terminal one too."""
    monkeypatch.setattr(wires, "_WIRES", (_Holding,))
    body = encode(data='{"type":"response.output_text.delta","delta":"a"}') + encode(
        data='{"type":"response.completed","response":{}}'
    )
    run = Dispatcher().run([body])
    assert (run.status, run.text, run.events) == ("completed", "a", 2)


@pytest.mark.parametrize(
    ("first", "wire"),
    [
        (frame({"object": "chat.completion.chunk", "choices": []}), ChatWire),
        (frame({"choices": [], "error": None}), ChatWire),
        (frame({"choices": None, "id": "x"}), ChatWire),
        (frame({"id": "x", "model": "m", "created": 1}), ChatWire),
        (frame({"candidates": []}), GeminiWire),
        (frame({"promptFeedback": {"blockReason": "SAFETY"}}), GeminiWire),
        (frame({"type": "message_start", "message": {}}), AnthropicWire),
        (frame("{}", "message_start"), AnthropicWire),
    ],
)
def test_detect_when_a_stream_is_of_another_wire(first: Frame, wire: type) -> None:
    """What the first frame carries tells."""
    assert isinstance(detect(first, Limits()), wire)


@pytest.mark.parametrize("name", ["anthropic-text.sse", "chat-text.sse"])
def test_detection_when_the_stream_is_another_providers(name: str) -> None:
    """A recorded stream of another wire is read as that."""
    run = Dispatcher().run(FIXTURES / name)
    assert run.status in ("completed", "incomplete")
    assert run.text
