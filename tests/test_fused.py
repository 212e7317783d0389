"""The fused path of the loop gives what the layers give, and any chunking of a body gives the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scenarios import (
    Tick,
    answer,
    block,
    body,
    bytewise,
    call,
    call_delta,
    closed,
    completed,
    created,
    delta,
    error,
    failed,
    message,
    numbered,
    opened,
    text_done,
)
from strategies import chunkings

from eventflow import Dispatcher, Event, Limits, Plugin, Run, TextDelta, on, rewrite, signals, transform
from eventflow.sse import Decoder, Frame

# --- bodies ----------------------------------------------------------------------------------------------------------

_UNKNOWN = {"type": "vendor.thing", "x": [1, {"y": None}]}
_NULLS = {"type": "response.output_text.delta", "item_id": None, "output_index": 0.0, "delta": None}
_REASONING = {"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "summary_index": 0, "delta": "hm"}
_LOGPROBS = {**delta("p"), "logprobs": [{"token": "p", "logprob": -0.5, "bytes": [112], "top_logprobs": []}]}
_WRONG = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": ["not", "text"]}
_SURROGATE = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"\\ud800"}\n\n'

_EVENTS = st.sampled_from(
    [
        created(),
        opened(),
        *(delta(text) for text in ("a", "bc", " ", "", "\u2028", "é", "\U0001f600", "x" * 40)),
        delta("b", item_id="msg_2", index=1),
        text_done("abc"),
        opened(call("", status="in_progress"), index=1),
        call_delta('{"a":'),
        closed(call('{"a":1}'), index=1),
        closed(message("abc")),
        _REASONING,
        _LOGPROBS,
        _NULLS,
        _UNKNOWN,
        _WRONG,
        error(),
        failed(),
        completed(message("abc")),
        {"type": "tests.tick", "n": 3},
        {"type": "keepalive"},
        {"error": {"message": "bare", "code": 500}},
    ]
)
_NAMES = ("response.output_text.delta", "response.created", "message", "ping", "error", "response.text_delta", "é")


@st.composite
def _blocks(draw: st.DrawFn) -> bytes:
    event = dict(draw(_EVENTS))
    number = draw(st.none() | st.none() | st.integers(0, 6))
    if number is not None:
        event["sequence_number"] = number
    name = event.get("type", "error")
    data = json.dumps(
        event, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    )
    style = draw(st.integers(0, 13))
    text = {
        0: f"data: {data}\n\n",
        1: f": ping\n\nevent: {name}\ndata: {data}\n\n",
        2: f"id: {len(data)}\nevent: {name}\ndata: {data}\n\n",
        3: f"event: {name}\nid: 7\ndata: {data}\n\n",
        4: f"event:{name}\ndata:{data}\n\n",
        5: f"data: {data}\nevent: {name}\n\n",
        6: f"event: {draw(st.sampled_from(_NAMES))}\ndata: {data}\n\n",
        7: f"event: {name}\ndata: {data}\n\n\n",
        8: f"event: {name}\ndata: {data}\n\n: comment\n",
        9: f"retry: 10\nevent: {name}\ndata: {data}\n\n",
        10: f"event: {name}\nevent: {name}\ndata: {data}\n\n",
        11: f"event: {name}\ndata: {data[:1]}\ndata: {data[1:]}\n\n",
        12: f"event: {name}\n\ndata: {data}\n\n",
    }.get(style, f"event: {name}\ndata: {data}\n\n")
    if draw(st.integers(0, 7)) == 0:
        text = text.replace("\n", draw(st.sampled_from(["\r\n", "\r"])))
    return text.encode()


_CANONICAL = _EVENTS.filter(lambda event: "type" in event).map(block)
_ODD = st.sampled_from([b"data: [DONE]\n\n", b"\n", b"data\n\n", b": x\n", _SURROGATE, b"event: ping\ndata: {}\n\n"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Bodies of events, mostly canonical, some mutated: bytes doubled, dropped, replaced."""
    blocks = draw(st.lists(st.one_of(_CANONICAL, _CANONICAL, _blocks(), _ODD), max_size=8))
    start = draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\n"]))
    data = bytearray(start + b"".join(blocks))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        if data:
            place = draw(st.integers(0, len(data) - 1))
            match draw(st.integers(0, 3)):
                case 0:
                    del data[place]
                case 1:
                    data.insert(place, data[place])
                case 2:
                    data[place] = draw(st.sampled_from(b'\n\r\xff\xc3"{:}'))
                case _:
                    del data[place:]
    return bytes(data)


@st.composite
def cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A body of `streams`, and the chunks that it comes in."""
    whole = draw(streams())
    return whole, draw(chunkings(whole))


# --- runs ------------------------------------------------------------------------------------------------------------


class _Loud(Plugin):
    @on("text")
    def hear(self, event: Event) -> None:
        return None

    @rewrite("text")
    def shout(self, text: str) -> str:
        return text.upper()

    @transform(TextDelta)
    def twice(self, event: TextDelta) -> list[Event]:
        return [event, Tick(len(event.delta))] if event.delta else []


def _plain() -> Dispatcher:
    return Dispatcher()


def _picky() -> Dispatcher:
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: None)
    return flow


def _emitting() -> Dispatcher:
    flow = Dispatcher()
    flow.on(TextDelta, lambda event, run: run.emit(Tick(run.events)))
    flow.on("tool", lambda event: (Tick(n) for n in range(2)))
    return flow


def _failing() -> Dispatcher:
    flow = Dispatcher()

    def fail(event: Event, run: Run) -> None:
        if run.events == 3:
            raise ValueError("third")

    flow.on("*", fail)
    return flow


def _isolated() -> Dispatcher:
    flow = Dispatcher()
    flow.on("text", lambda event: 1 / len(getattr(event, "delta", "")), errors="isolate")
    return flow


def _relay() -> Dispatcher:
    return Dispatcher(snapshot=False)  # always heard: it does not parse what nobody listens to


FLOWS = {
    "plain": _plain,
    "picky": _picky,
    "strict": lambda: Dispatcher(strict=True),
    "relay": _relay,
    "emitting": _emitting,
    "failing": _failing,
    "isolated": _isolated,
    "loud": lambda: Dispatcher(_Loud()),
    "limited": lambda: Dispatcher(limits=Limits(text=60, arguments=8, calls=1, json_depth=5)),
}


@attrs.define
class _Result:
    heard: list[Any]
    rest: dict[str, Any]
    message: str
    unfinished: bool


def _shown(event: Event) -> object:
    return event if "failed" not in event.type else (event.type, repr(event))


def outcome(make: Any, source: Iterable[Any], *, everything: bool, frames: bool = True) -> _Result:
    """Run *source*; with *everything*, hear every event with its frame, which is a route of its own for each."""
    flow = make()
    everything = everything or make is _relay
    runs: list[Run] = []
    heard: list[Any] = []
    raised: Exception | None = None

    def hear(event: Event, run: Run) -> None:
        heard.append((_shown(event), run.frame if frames else None))

    def started(_: object, run: Run) -> None:
        runs.append(run)

    if everything:
        flow.on("*", hear)
    with signals.run_started.connected_to(started, sender=flow):
        try:
            flow.run(source, check=False)
        except (ValueError, ZeroDivisionError) as caught:
            raised = caught
    run = runs[0]
    warnings = [oddity for oddity in run.warnings if oddity.kind != "unfinished"]
    rest = {
        "status": run.status,
        "error": type(run.error),
        "raised": type(raised),
        "notes": [note.replace(run.id, "") for note in getattr(raised, "__notes__", ())],
        "response": run.response,
        "text": run.text,
        "events": run.events,
        "warnings": warnings,
    }
    return _Result(heard, rest, str(run.error).replace(run.id, ""), len(warnings) != len(run.warnings))


def layers(chunks: list[bytes], *, unfinished: bool) -> Iterator[Frame]:
    """What the decoder makes of *chunks*; with the event that only lacks its blank line, where the run kept it."""
    decoder = Decoder()
    for chunk in chunks:
        yield from decoder.feed(chunk)
    if unfinished:
        rest = decoder.unfinished
        assert rest is not None
        yield rest


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
@given(case=cut(), everything=st.booleans())
def test_fused_path_when_compared_with_the_layers(make: Any, case: tuple[bytes, list[bytes]], everything: bool) -> None:
    """A run over chunks hears, ends and warns as a run over the frames that the decoder makes of them."""
    _, chunks = case
    fused = outcome(make, iter(chunks), everything=everything)
    apart = outcome(make, layers(chunks, unfinished=fused.unfinished), everything=everything)
    assert fused.heard == apart.heard
    if not apart.rest["events"] and "no event stream" in fused.message:  # only bytes can be no event stream at all
        return
    assert fused.rest == apart.rest


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
@given(case=cut(), everything=st.booleans())
def test_chunking_when_it_is_any_other(make: Any, case: tuple[bytes, list[bytes]], everything: bool) -> None:
    """However a body is cut, the run hears the same, ends the same, and says the same of it."""
    whole, chunks = case
    at_once = outcome(make, [whole], everything=everything)
    in_pieces = outcome(make, chunks, everything=everything)
    assert in_pieces.heard == at_once.heard
    assert in_pieces.rest == at_once.rest
    assert in_pieces.message == at_once.message


@given(case=cut(), maximum=st.integers(20, 200))
def test_chunking_when_events_are_limited(case: tuple[bytes, list[bytes]], maximum: int) -> None:
    """The event that is too large is the same one however the body is cut."""
    whole, chunks = case

    def make() -> Dispatcher:
        return Dispatcher(limits=Limits(event_bytes=maximum))

    at_once = outcome(make, [whole], everything=True)
    in_pieces = outcome(make, chunks, everything=True)
    assert in_pieces.heard == at_once.heard
    assert in_pieces.rest == at_once.rest


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
@pytest.mark.parametrize("name", ["responses-text", "responses-tool", "responses-reasoning", "responses-error"])
def test_recorded_streams_when_cut_bytewise(make: Any, name: str, fixtures: Any) -> None:
    """A recorded stream in single bytes, in whole and as frames comes to the same."""
    data = (fixtures / f"{name}.sse").read_bytes()
    whole = outcome(make, [data], everything=True)
    assert whole.heard
    for other in (bytewise(data), layers([data], unfinished=False)):
        result = outcome(make, other, everything=True)
        assert (result.heard, result.rest) == (whole.heard, whole.rest)


def test_unheard_frames_when_they_are_malformed() -> None:
    """A relay that does not parse what nobody listens to does not stumble over it either, however the body is cut."""
    whole = body([created(), _WRONG, completed()]) + b"\r\n"
    ends = {
        Dispatcher(snapshot=False).run(chunks, check=False).status for chunks in ([whole], [whole[:-2], whole[-2:]])
    }
    assert ends == {"completed"}


@pytest.mark.parametrize("chunks", [[b"", b"\xef\xbb\xbf"], [b"", b"\xef", b"\xbb\xbf"], [b"\xef\xbb", b"", b"\xbf"]])
def test_byte_order_mark_when_chunks_are_empty(chunks: list[bytes]) -> None:
    """A byte order mark is taken off also where empty chunks come before or inside of it."""
    names: list[str] = []
    flow = Dispatcher()
    flow.on("*", lambda event, run: names.append(run.frame.event))
    run = flow.run([*chunks, body([created(), completed()])])
    assert names == ["response.created", "response.completed"]
    assert not run.warnings


@given(data=st.data())
def test_text_when_deltas_are_any(data: st.DataObject) -> None:
    """The text of a run is the text that was sent, whatever it is, however it is cut."""
    texts = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=6))
    whole = body(numbered(answer(*texts)))
    heard: list[str] = []
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    run = flow.run(data.draw(chunkings(whole)))
    assert heard == texts
    assert run.text == "".join(texts)
    assert not run.warnings


@example(size=16 * 1024)
@example(size=16 * 1024 + 1)
@given(size=st.integers(1, 70_000))
def test_unfinished_event_when_it_is_long(size: int) -> None:
    """An event that goes on over many chunks is one event, whether it is carried along or handed to the decoder."""
    whole = body([created(), delta("x" * size), delta("y"), completed(message("x" * size + "y"))])
    heard: list[str] = []
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    flow.run([whole[start : start + 1500] for start in range(0, len(whole), 1500)])
    assert list(map(len, heard)) == [size, 1]
