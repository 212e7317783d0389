"""Hypothesis strategies that more than one test module draws from."""

from __future__ import annotations

import functools
import types
import typing
from itertools import pairwise
from typing import Any

import attrs
import msgspec
from hypothesis import strategies as st

from eventflow import events as ef

__all__ = [
    "LINE_ENDS",
    "STREAM_KINDS",
    "WIRE_EVENTS",
    "Told",
    "batches",
    "bodies",
    "canonical_blocks",
    "chunked",
    "chunkings",
    "events_of",
    "frame_ids",
    "frame_names",
    "frame_texts",
    "json_values",
    "streams",
    "wire_events",
]

LINE_ENDS = (b"\n", b"\r", b"\r\n")

_FIELDS = (b"data", b"data:", b"data: ", b"event:", b"event: ", b"id", b"id: ", b"retry:", b"retry: ", b"x: ", b": ")
_VALUES = (b"a", b"b:c", b"{}", b"0", b"1500", b"ping", b" ", b":", b"\0", "\u0663".encode(), "\U0001f600".encode())
_BROKEN = (b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98")
_NO_LINE_ENDS = (b"\x0b", b"\x0c", b"\x1c", "\x85".encode(), "\u2028".encode(), "\u2029".encode())


def canonical_blocks() -> st.SearchStrategy[bytes]:
    """Blocks as servers of language models write them: an event line or none, one data line, a blank line."""
    value = st.lists(st.sampled_from(_VALUES + _BROKEN + _NO_LINE_ENDS), max_size=3).map(b"".join)
    return st.tuples(st.just(b"event: ") | st.none(), value, value).map(
        lambda parts: (b"" if parts[0] is None else parts[0] + parts[1] + b"\n") + b"data: " + parts[2] + b"\n\n"
    )


def bodies(max_size: int = 40) -> st.SearchStrategy[bytes]:
    """Bodies full of what decoders get wrong: every line end, marks, colons, NUL, broken UTF-8, canonical blocks."""
    pieces = st.one_of(
        st.sampled_from(LINE_ENDS),
        st.sampled_from((b"\n\n", b"\r\r", b"\r\n\r\n")),
        st.sampled_from(_FIELDS),
        st.sampled_from(_VALUES + _BROKEN + _NO_LINE_ENDS),
        canonical_blocks(),
    )
    start = st.sampled_from((b"", b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"))
    return st.builds(lambda mark, rest: mark + b"".join(rest), start, st.lists(pieces, max_size=max_size))


def chunkings(body: bytes) -> st.SearchStrategy[list[bytes]]:
    """Ways to cut *body* into chunks: whole, one byte each, or anywhere, with empty chunks in between."""

    def cut(places: list[int]) -> list[bytes]:
        edges = [0, *sorted(places), len(body)]
        return [body[start:end] for start, end in pairwise(edges)]

    single = [body[place : place + 1] for place in range(len(body))]
    anywhere = st.lists(st.integers(0, len(body)), max_size=12).map(cut)
    return st.one_of(st.just([body]), st.just(single), anywhere)


@st.composite
def chunked(draw: st.DrawFn, body: st.SearchStrategy[bytes] | None = None) -> tuple[bytes, list[bytes]]:
    """A body (of `bodies` unless told otherwise), and the chunks that it comes in."""
    whole = draw(bodies() if body is None else body)
    return whole, draw(chunkings(whole))


def frame_names() -> st.SearchStrategy[str]:
    """Event types that the wire can carry: anything in one line, and not empty; NUL is left out."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1)


def frame_ids() -> st.SearchStrategy[str]:
    """Event ids that the wire can carry: anything in one line but NUL."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))


def frame_texts() -> st.SearchStrategy[str]:
    """Data as a decoder can return it: any text without CR, rich in LF."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))
    return st.lists(st.just("\n") | text).map("".join)


# --- events ----------------------------------------------------------------------------------------------------------

WIRE_EVENTS = tuple(
    cls for tag, cls in sorted(ef.event_classes().items()) if cls.__module__.startswith("eventflow.events.")
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


def wire_events(texts: st.SearchStrategy[str] = _texts) -> st.SearchStrategy[ef.WireEvent]:
    """Events that a peer may send, of all 59 kinds."""
    sent = [cls for cls in WIRE_EVENTS if not cls.type.startswith("eventflow.")]
    return st.one_of([events_of(cls, texts) for cls in sent])


def batches(events: typing.Sequence[ef.Event]) -> st.SearchStrategy[list[list[ef.Event]]]:
    """Ways to cut a list of events into batches, empty ones in between."""

    def cut(places: list[int]) -> list[list[ef.Event]]:
        return [list(events[start:end]) for start, end in pairwise([0, *sorted(places), len(events)])]

    return st.lists(st.integers(0, len(events)), max_size=8).map(cut)


# --- streams ---------------------------------------------------------------------------------------------------------

STREAM_KINDS = ("message", "reasoning", "function", "custom", "mcp", "code", "shell", "search")
"""The kinds of items that `streams` tells of."""

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
        at = {**where, "content_index": index}
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
        at = {**where, "summary_index": index}
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
        at = {"output_index": where["output_index"], "command_index": index}
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
def streams(
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
        where = {"item_id": f"item_{index}", "output_index": index}
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
