"""Strategies for hypothesis: events, streams, ways to cut them into chunks, and what may go wrong with them.

The only module that needs hypothesis: ``pip install 'eventflow-stream[testing]'``.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, final

import attrs
import msgspec

from eventflow import events as ef
from eventflow.errors import UsageError
from eventflow.testing.frames import WIRES
from eventflow.testing.streams import FakeStream, WireName, stream

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "eventflow.testing.strategies needs hypothesis: pip install 'eventflow-stream[testing]'", name="hypothesis"
    ) from error

__all__ = [
    "FAULTS",
    "STREAM_KINDS",
    "WIRE_EVENTS",
    "Fault",
    "Told",
    "chunkings",
    "event_streams",
    "events",
    "events_of",
    "faults",
    "json_values",
    "streams",
]


def chunkings(body: bytes) -> st.SearchStrategy[list[bytes]]:
    """Ways to cut *body* into chunks: whole, one byte each, or anywhere, with empty chunks in between."""

    def cut(places: list[int]) -> list[bytes]:
        edges = [0, *sorted(places), len(body)]
        return [body[start:end] for start, end in pairwise(edges)]

    single = [body[place : place + 1] for place in range(len(body))]
    anywhere = st.lists(st.integers(0, len(body)), max_size=12).map(cut)
    return st.one_of(st.just([body]), st.just(single), anywhere)


# --- events ----------------------------------------------------------------------------------------------------------

WIRE_EVENTS = tuple(
    cls for _, cls in sorted(ef.event_classes().items()) if cls.__module__.startswith("eventflow.events.")
)
"""The classes of the vocabulary, eventflow's own included."""

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_counts = st.integers(0, 5) | st.integers(-(2**70), 2**70)


@functools.cache
def json_values(max_leaves: int = 4) -> st.SearchStrategy[Any]:
    """Whatever JSON can say, NaN and infinities left out."""
    numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | _texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
        max_leaves=max_leaves,
    )


def _untyped() -> st.SearchStrategy[ef.Untyped]:
    data = st.dictionaries(_texts, json_values(2), max_size=2)
    return data.map(lambda data: ef.Untyped({**data, "type": "vendor.thing"}))


def _values(kind: Any, texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Values of a field of the vocabulary."""
    if kind is str:
        return texts
    if kind is int:
        return _counts
    if kind is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if isinstance(kind, type) and issubclass(kind, ef.Record):
        return events_of(kind, texts)
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        members = [st.none() if member is types.NoneType else _values(member, texts) for member in arguments]
        tagged = [member for member in arguments if isinstance(member, type) and issubclass(member, ef.Tagged)]
        return st.one_of(*members, *([_untyped()] if len(tagged) > 1 else []))
    if typing.get_origin(kind) is tuple:
        return st.lists(_values(arguments[0], texts), max_size=2).map(tuple)
    if typing.get_origin(kind) is dict:
        return st.dictionaries(_texts, json_values(2), max_size=2)
    return json_values()


@functools.cache  # making a strategy costs more than drawing from it
def events_of(cls: type[Any], texts: st.SearchStrategy[str] = _texts) -> st.SearchStrategy[Any]:
    """Records of one class, any of its optional fields left out."""
    fields = msgspec.structs.fields(cls)
    required = {field.name: _values(field.type, texts) for field in fields if field.required}
    optional = {field.name: _values(field.type, texts) for field in fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: cls(**values))


def events(texts: st.SearchStrategy[str] = _texts) -> st.SearchStrategy[ef.WireEvent]:
    """Events that a peer may send, of all 59 kinds."""
    sent: list[Any] = [cls for cls in WIRE_EVENTS if not cls.type.startswith("eventflow.")]
    return st.one_of([events_of(cls, texts) for cls in sent])


# --- streams ---------------------------------------------------------------------------------------------------------

STREAM_KINDS = ("message", "reasoning", "function", "custom", "mcp", "code", "shell", "search")
"""The kinds of items that `event_streams` tells of."""

_LOGPROBS = (ef.Logprob(token="t", logprob=-0.5),)


@attrs.frozen
class Told:
    """A well-formed stream.

    Attributes:
        events: Its events, numbered.
        response: What its terminal event carries.
    """

    events: tuple[Any, ...]
    response: ef.Response


def _pieces(text: str) -> st.SearchStrategy[list[str]]:
    places = st.lists(st.integers(0, len(text)), max_size=4)
    return places.map(lambda places: [text[a:b] for a, b in pairwise([0, *sorted(places), len(text)])])


@st.composite
def _message(draw: st.DrawFn, where: dict[str, Any], texts: st.SearchStrategy[str]) -> tuple[list[Any], Any]:
    told: list[Any] = []
    parts: list[Any] = []
    for index in range(draw(st.integers(0, 2))):
        at: dict[str, Any] = {**where, "content_index": index}
        text = draw(texts)
        if draw(st.booleans()):
            logprobs = draw(st.sampled_from([None, _LOGPROBS]))
            citations = tuple(
                ef.URLCitation(url=url) for url in draw(st.lists(st.just("https://a.example"), max_size=2))
            )
            part: Any = ef.OutputText(text, citations, logprobs)
            told.append(ef.ContentPartAdded(ef.OutputText(), **at))
            told += [ef.TextDelta(piece, logprobs=logprobs, **at) for piece in draw(_pieces(text))]
            told += [ef.TextAnnotationAdded(citation, number, **at) for number, citation in enumerate(citations)]
            told.append(ef.TextDone(text, logprobs=logprobs, **at))
        else:
            part = ef.OutputRefusal(text)
            told.append(ef.ContentPartAdded(ef.OutputRefusal(), **at))
            told += [ef.RefusalDelta(piece, **at) for piece in draw(_pieces(text))]
            told.append(ef.RefusalDone(text, **at))
        told.append(ef.ContentPartDone(part, **at))
        parts.append(part)
    return told, ef.Message(tuple(parts), id=where["item_id"], role="assistant")


@st.composite
def _reasoning(draw: st.DrawFn, where: dict[str, Any], texts: st.SearchStrategy[str]) -> tuple[list[Any], Any]:
    told: list[Any] = []
    summary = draw(st.lists(texts, max_size=2))
    content = draw(st.lists(texts, max_size=2))
    for index, text in enumerate(summary):
        at: dict[str, Any] = {**where, "summary_index": index}
        told.append(ef.ReasoningSummaryPartAdded(ef.SummaryText(), **at))
        told += [ef.ReasoningSummaryTextDelta(piece, **at) for piece in draw(_pieces(text))]
        told.append(ef.ReasoningSummaryTextDone(text, **at))
        told.append(ef.ReasoningSummaryPartDone(ef.SummaryText(text), **at))
    for index, text in enumerate(content):
        at = {**where, "content_index": index}
        told.append(ef.ContentPartAdded(ef.ReasoningText(), **at))
        told += [ef.ReasoningTextDelta(piece, **at) for piece in draw(_pieces(text))]
        told.append(ef.ReasoningTextDone(text, **at))
        told.append(ef.ContentPartDone(ef.ReasoningText(text), **at))
    parts = tuple(map(ef.SummaryText, summary)), tuple(map(ef.ReasoningText, content))
    return told, ef.Reasoning(*parts, id=where["item_id"])


@st.composite
def _call(draw: st.DrawFn, kind: str, where: dict[str, Any], texts: st.SearchStrategy[str]) -> tuple[list[Any], Any]:
    text, number, item_id = draw(texts), where["output_index"], where["item_id"]
    named: dict[str, Any] = {"name": "tool", "id": item_id}
    delta, done, item = {
        "function": (
            ef.FunctionCallArgumentsDelta,
            ef.FunctionCallArgumentsDone,
            ef.FunctionCall(arguments=text, call_id=f"call_{number}", **named),
        ),
        "custom": (
            ef.CustomToolCallInputDelta,
            ef.CustomToolCallInputDone,
            ef.CustomToolCall(input=text, call_id=f"call_{number}", **named),
        ),
        "mcp": (ef.McpCallArgumentsDelta, ef.McpCallArgumentsDone, ef.McpCall(arguments=text, **named)),
        "code": (
            ef.CodeInterpreterCallCodeDelta,
            ef.CodeInterpreterCallCodeDone,
            ef.CodeInterpreterCall(code=text, id=item_id),
        ),
    }[kind]
    return [*(delta(piece, **where) for piece in draw(_pieces(text))), done(text, **where)], item


@st.composite
def _shell(draw: st.DrawFn, where: dict[str, Any], texts: st.SearchStrategy[str]) -> tuple[list[Any], Any]:
    told: list[Any] = []
    commands = draw(st.lists(texts, max_size=2))
    for index, text in enumerate(commands):
        at: dict[str, Any] = {"output_index": where["output_index"], "command_index": index}
        told.append(ef.ShellCallCommandAdded("", **at))
        told += [ef.ShellCallCommandDelta(piece, **at) for piece in draw(_pieces(text))]
        told.append(ef.ShellCallCommandDone(text, **at))
    return told, ef.ShellCall(where["item_id"], f"call_{where['output_index']}", action={"commands": commands})


def _opened(item: Any) -> Any:
    """An item as its ``added`` event shows it."""
    empty = {"content": (), "summary": (), "arguments": "", "input": "", "code": None}
    changes = {field: value for field, value in empty.items() if field in item.__struct_fields__}
    return item.replace(status="in_progress", **changes)


@st.composite
def event_streams(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = STREAM_KINDS,
    texts: st.SearchStrategy[str] = _texts,
    *,
    interleaved: bool = True,
) -> Told:
    """Well-formed streams of the Responses API: items of these *kinds*, several open at once where *interleaved*."""
    queues: list[list[Any]] = []
    output: list[Any] = []
    for index, kind in enumerate(draw(st.lists(st.sampled_from(kinds), max_size=4))):
        where: dict[str, Any] = {"item_id": f"item_{index}", "output_index": index}
        if kind == "message":
            told, item = draw(_message(where, texts))
        elif kind == "reasoning":
            told, item = draw(_reasoning(where, texts))
        elif kind == "shell":
            told, item = draw(_shell(where, texts))
        elif kind == "search":
            told = [ef.WebSearchCallInProgress(**where), ef.WebSearchCallCompleted(**where)]
            item = ef.WebSearchCall(id=where["item_id"])
        else:
            told, item = draw(_call(kind, where, texts))
        whole = item.replace(status="completed")
        output.append(whole)
        added = ef.OutputItemAdded(_opened(item), output_index=index)
        queues.append([added, *told, ef.OutputItemDone(whole, output_index=index)])
    body: list[Any] = []
    while queues:
        queue = queues[draw(st.integers(0, len(queues) - 1)) if interleaved else 0]
        body.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    terminal, status = draw(
        st.sampled_from([(ef.ResponseCompleted, "completed"), (ef.ResponseIncomplete, "incomplete")])
    )
    begun = ef.Response(id="resp_1", status="in_progress", model="model", created_at=1.0)
    usage = ef.Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    response = begun.replace(status=status, output=tuple(output), usage=usage)
    told = [ef.ResponseCreated(begun), ef.ResponseInProgress(begun), *body, terminal(response)]
    return Told(tuple(event.replace(sequence_number=number) for number, event in enumerate(told)), response)


# --- streams as bytes ------------------------------------------------------------------------------------------------

_NAMES: tuple[WireName, ...] = ("responses", "chat", "anthropic", "gemini")


@st.composite
def streams(draw: st.DrawFn, wires: Sequence[WireName] = _NAMES, texts: st.SearchStrategy[str] = _texts) -> FakeStream:
    """Streams as `eventflow.testing.stream` makes them, of one of these *wires*, in chunks of any size.

    They come to their end, completed or incomplete, and are in order.
    """
    wire = draw(st.sampled_from(wires))
    pieces = st.lists(texts, max_size=4)
    given: dict[str, Any] = {name: draw(pieces) for name in ("text", "reasoning")}
    given |= {name: draw(pieces) for name in ("refusal", "summary") if name not in WIRES[wire].silent}
    arguments = st.dictionaries(texts, texts | st.integers(-1000, 1000) | st.booleans(), max_size=2)
    chunks: st.SearchStrategy[Any] = st.none() | st.just("whole") | st.integers(1, 100)
    names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
    return stream(
        **given,
        tools=draw(st.lists(st.tuples(names, arguments), max_size=2)),
        status=draw(st.sampled_from(["completed", "incomplete"])),
        chunk=draw(chunks),
        wire=wire,
    )


# --- faults ----------------------------------------------------------------------------------------------------------


@final
@attrs.frozen
class Fault:
    """A stream with which something is wrong.

    Attributes:
        kind: What: one of `FAULTS`.
        body: Its bytes.
        stream: As it was before.
    """

    kind: str
    body: bytes
    stream: FakeStream = attrs.field(repr=False)


def faults(
    whole: st.SearchStrategy[FakeStream] | None = None, kinds: Sequence[str] | None = None
) -> st.SearchStrategy[Fault]:
    """Streams (of `streams` unless told otherwise) with a fault of one of these *kinds*; all of `FAULTS` by default.

    Raises:
        UsageError: There is no such kind.
    """
    for kind in kinds or ():
        if kind not in _FAULTS:
            raise UsageError(f"faults(kinds=...): there is no fault {kind!r}; there is {', '.join(FAULTS)}")
    return _broken(streams() if whole is None else whole, kinds or FAULTS)


@st.composite
def _broken(draw: st.DrawFn, whole: st.SearchStrategy[FakeStream], kinds: Sequence[str]) -> Fault:
    before, kind = draw(whole), draw(st.sampled_from(kinds))
    return Fault(kind, _FAULTS[kind](draw, before), before)


def _span(draw: st.DrawFn, length: int, most: int) -> tuple[int, int]:
    """A place, and another behind it."""
    start = draw(st.integers(0, length - 1))
    return start, min(length, start + draw(st.integers(1, most)))


def _cut(draw: st.DrawFn, before: FakeStream) -> bytes:
    return before.body[: draw(st.integers(0, len(before.body) - 1))]


def _bytes_dropped(draw: st.DrawFn, before: FakeStream) -> bytes:
    start, end = _span(draw, len(before.body), 8)
    return before.body[:start] + before.body[end:]


def _bytes_doubled(draw: st.DrawFn, before: FakeStream) -> bytes:
    start, end = _span(draw, len(before.body), 8)
    return before.body[:end] + before.body[start:]


def _bytes_swapped(draw: st.DrawFn, before: FakeStream) -> bytes:
    start, end = _span(draw, len(before.body), 8)
    return before.body[:start] + before.body[start:end][::-1] + before.body[end:]


def _events_dropped(draw: st.DrawFn, before: FakeStream) -> bytes:
    start, end = _span(draw, len(before.blocks), 2)
    return b"".join(before.blocks[:start] + before.blocks[end:])


def _events_doubled(draw: st.DrawFn, before: FakeStream) -> bytes:
    start, end = _span(draw, len(before.blocks), 2)
    return b"".join(before.blocks[:end] + before.blocks[start:])


def _events_swapped(draw: st.DrawFn, before: FakeStream) -> bytes:
    start, end = _span(draw, len(before.blocks), 4)
    return b"".join(before.blocks[:start] + before.blocks[start:end][::-1] + before.blocks[end:])


def _error(draw: st.DrawFn, before: FakeStream) -> bytes:
    place = draw(st.integers(0, len(before.blocks) - 1))
    fault = WIRES[before.wire].fault_blocks(ef.StreamError("a made-up error"), place)
    rest = before.blocks[place:] if draw(st.booleans()) else ()
    return b"".join([*before.blocks[:place], *fault, *rest])


def _garbage(draw: st.DrawFn, before: FakeStream) -> bytes:
    place = draw(st.integers(0, len(before.blocks)))
    garbage = draw(st.binary(min_size=1, max_size=20) | st.sampled_from(_GARBAGE))
    return b"".join([*before.blocks[:place], garbage, *before.blocks[place:]])


_GARBAGE = (
    b"\n\n",
    b": ping\n\n",
    b"data: {\n\n",
    b"data: null\n\n",
    b"event: x\n\n",
    b"<html>",
    b"\xff\n",
    b"data: []\n\n",
)
_FAULTS: dict[str, Callable[[st.DrawFn, FakeStream], bytes]] = {
    "cut": _cut,
    "bytes dropped": _bytes_dropped,
    "bytes doubled": _bytes_doubled,
    "bytes swapped": _bytes_swapped,
    "events dropped": _events_dropped,
    "events doubled": _events_doubled,
    "events swapped": _events_swapped,
    "error": _error,
    "garbage": _garbage,
}
FAULTS = tuple(_FAULTS)
"""What may go wrong: the kinds that `faults` draws."""
