"""What is fuzzed: functions of any bytes, that raise where a promise is broken; and what to begin with.

The first bytes of an input say how the rest is cut, so that what finds inputs finds cuts too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from eventflow import Dispatcher, Event, Limits, Run
from eventflow.errors import DecodeError, EventflowError, LimitExceeded, UsageError
from eventflow.events import (
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
    StreamError,
    ToolCall,
)
from eventflow.json_array import ElementDecoder
from eventflow.partial_json import PartialParser
from eventflow.snapshot import Snapshot
from eventflow.sse import Decoder, Frame, decode, encode
from eventflow.testing import check_order, stream
from eventflow_plugins import Accumulate, Redact, Tools, Usage
from eventflow_plugins.matching import Pattern, Patterns, Scan
from eventflow_plugins.tools.definition import InvalidArguments, Tool

__all__ = ["CUTS", "TARGETS", "Target", "check_run", "seeds"]

Target = Callable[[bytes], None]

CUTS = 3
"""Bytes at the start of an input that say where the rest is cut."""

_FIXTURES = Path(__file__).parents[1] / "fixtures"
_WIRES: tuple[Literal["responses", "chat", "anthropic", "gemini"], ...] = ("responses", "chat", "anthropic", "gemini")


def _cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """The rest of an input, whole and in pieces."""
    body = data[CUTS:]
    edges = sorted(byte * len(body) // 255 for byte in data[:CUTS])
    return body, [body[start:end] for start, end in pairwise([0, *edges, len(body)])]


def _texts(data: bytes) -> tuple[str, list[str]]:
    """The same as text: what is no UTF-8 becomes lone surrogates."""
    pieces = [piece.decode("utf-8", "surrogateescape") for piece in _cut(data)[1]]
    return "".join(pieces), pieces


# --- frames ----------------------------------------------------------------------------------------------------------


def _framed(chunks: Iterable[bytes], most: int) -> tuple[list[Frame], bool, Frame | None]:
    decoder, frames = Decoder(max_event_bytes=most), list[Frame]()
    try:
        for chunk in chunks:
            frames += decoder.feed(chunk)
        decoder.close()
    except LimitExceeded:
        return frames, True, None
    return frames, False, decoder.unfinished


def _sse(data: bytes) -> None:
    """Any chunking gives the same frames and the same fault; a frame survives being written."""
    body, chunks = _cut(data)
    bytewise = [body[place : place + 1] for place in range(len(body))]
    for most in (40, 2**20):
        expected = _framed([body], most)
        assert _framed(chunks, most) == expected
        if len(body) < 1000:
            assert _framed(bytewise, most) == expected
    for frame in _framed([body], 2**20)[0]:
        if "\0" not in frame.event:
            (read,) = decode([encode(event=frame.event, data=frame.data)])
            assert (read.event, read.data) == (frame.event, frame.data)


# --- wires -----------------------------------------------------------------------------------------------------------


def check_run(run: Run, heard: Iterable[Event], *, order: bool = False, raised: BaseException | None = None) -> None:
    """What every run keeps that is over, whatever came: its status says what was heard, its response adds it up.

    Args:
        run: The run.
        heard: All that was heard at the head of its pipeline.
        order: Whether its wire makes events in order.
        raised: What a handler raised.
    """
    received = [event for event in heard if not event.type.startswith("eventflow.")]
    ends = [event for event in received if isinstance(event, ResponseCompleted | ResponseIncomplete | ResponseFailed)]
    faults = [event for event in received if isinstance(event, StreamError)]
    status, error = run.status, run.error
    assert status != "running"
    if status in ("completed", "incomplete"):
        assert error is None
        assert not faults
        assert [event.type for event in ends] == [f"response.{status}"]
    elif status in ("failed", "truncated", "timeout"):
        assert error is not None or raised is not None
    if error is not None:
        assert isinstance(error, EventflowError)
        assert error.partial is run.response
        assert error.run is run
        str(error).encode()  # a lone surrogate from the wire would not go into a log
        assert not str(error).startswith("the frame cannot be read")  # an accident of a wire, not its judgement
    if order and not faults and not isinstance(error, DecodeError | LimitExceeded):
        check_order(received)
    folded = Snapshot()
    folded.add(received)
    folded.close()
    assert folded.response == run.response
    for event in heard:
        event.to_json()
        repr(event)


def _heard(chunks: list[bytes], wire: str, **options: Any) -> tuple[Run, list[Event]]:
    flow, heard = Dispatcher(**options), list[Event]()
    flow.on("*", heard.append)
    return flow.run(chunks, wire=wire, check=False), heard


def _shown(run: Run, heard: list[Event]) -> tuple[object, ...]:
    error = run.error
    words = None if error is None or isinstance(error, LimitExceeded) else str(error)
    return run.status, type(error), words, run.response, run.events, run.warnings, heard


def _wire(data: bytes, name: str) -> None:
    """No exception but ours; any chunking and any face the same; no tool on what is not whole; nothing shown twice."""
    body, chunks = _cut(data)
    run, heard = _heard([body], name)
    check_run(run, heard, order=name != "responses")
    expected = _shown(run, heard)
    assert _shown(*_heard(chunks, name)) == expected
    relay, relayed = _heard(chunks, name, snapshot=False)
    if not run.warnings and run.error is None:  # arguments that only deltas bring, a relay does not keep
        assert relay.status == run.status
        assert [event for event in relayed if type(event) is not ToolCall] == [
            event for event in heard if type(event) is not ToolCall
        ]
    match data[0] % 4 if data else 0:  # these take their time
        case 0:
            _heard(chunks, name, strict=True)
        case 1:
            _heard(chunks, name, limits=Limits(event_bytes=200, json_depth=4, text=8, arguments=8, calls=1))
        case _:
            _piped(chunks, name)


def _piped(chunks: list[bytes], wire: str) -> None:
    """Through the bundled plugins."""
    ran: list[str] = []
    called: list[ToolCall] = []

    def get_weather(city: str = "") -> str:
        ran.append(city)
        return city

    flow = Dispatcher(Accumulate(), Redact(), Usage(), Tools([get_weather]))
    flow.on(ToolCall, called.append)
    run = flow.run(chunks, wire=wire, check=False)
    assert run.error is None or isinstance(run.error, EventflowError)
    assert not ran or run.status == "completed"
    assert len(ran) <= sum(call.name == "get_weather" for call in called)
    assert run[Accumulate].response == run.response
    assert run[Usage].deltas >= 0
    assert run.status == "completed" or not run.outbox


# --- JSON ------------------------------------------------------------------------------------------------------------


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _equal(one: object, other: object) -> bool:
    """Equal, of the same types, in the same order."""
    return repr(one) == repr(other)


def _parsed(pieces: Iterable[str]) -> tuple[object, str | None]:
    parser = PartialParser()
    try:
        for piece in pieces:
            parser.feed(piece)
            repr(parser.value)
        return parser.close(), None
    except (DecodeError, LimitExceeded) as error:
        str(error).encode()
        return parser.value, str(error)


def _partial_json(data: bytes) -> None:
    """Any cut gives the same value or the same fault, and what is JSON is what `json` says it is."""
    text, pieces = _texts(data)
    value, fault = _parsed([text])
    for way in (pieces, list(text)):
        again = _parsed(way)
        assert _equal(again[0], value)
        assert (again[1] is None) == (fault is None)
    try:
        expected = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        assert fault is not None or len(text) > 4300  # the digits that Python reads
    else:
        assert fault is None or "deep" in fault
        assert fault is not None or _equal(value, expected)


def _elements(chunks: Iterable[bytes], most: int | None = None) -> tuple[list[str], bool, bool]:
    decoder, elements = ElementDecoder(max_event_bytes=most), list[str]()
    for chunk in chunks:
        elements += decoder.feed(chunk)
    return elements, decoder.ended, decoder.error is not None


def _json_array(data: bytes) -> None:
    """Any cut gives the same elements, and those of an array of objects are its own."""
    body, chunks = _cut(data)
    bytewise = [body[place : place + 1] for place in range(len(body))]
    elements, ended, _ = expected = _elements([body])
    assert _elements(chunks) == _elements(bytewise) == expected
    bounded = _elements([body], 30)[0]
    assert all(len(element.encode()) <= 90 for element in bounded)  # a byte that is no UTF-8 becomes three
    try:
        array = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(array, list) and array and all(isinstance(element, dict) for element in array):
        assert ended
        assert [json.loads(element) for element in elements] == array or not math.isfinite(_sum(array))


def _sum(value: Any) -> float:
    """NaN where there is one somewhere: it equals nothing."""
    if isinstance(value, dict | list):
        return math.fsum(map(_sum, value.values() if isinstance(value, dict) else value)) * 0
    return value * 0 if isinstance(value, float) else 0


def _taking(
    city: str,
    days: int = 1,
    *,
    scale: float = 1.0,
    unit: Literal["c", "f"] = "c",
    tags: list[str] = [],  # noqa: B006  # never changed
    places: dict[str, list[int | None]] | None = None,
) -> str:
    """Take arguments of many kinds."""
    return city


_TAKING = Tool.of(_taking)


def _arguments(data: bytes) -> None:
    """What a tool is given is what the JSON says, of the types that it takes; all else is refused with a message."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        given = _TAKING.arguments(text, most=100_000, depth=8)
    except InvalidArguments as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    said = json.loads(text)
    if "scale" in said:
        said["scale"] = float(said["scale"])
    assert {name: given[name] for name in said} == said
    assert isinstance(given["city"], str)
    assert type(given.get("days", 1)) is int
    assert type(given.get("scale", 1.0)) is float
    assert given.get("unit", "c") in ("c", "f")
    assert all(isinstance(tag, str) for tag in given.get("tags", ()))
    json.dumps(given, allow_nan=False, ensure_ascii=False).encode()


# --- Redact ----------------------------------------------------------------------------------------------------------

_REDACT = Redact(r"ACME-\d{2,}", words=["Aurora"])


def _redact(data: bytes) -> None:
    """However a text is cut, joined it is `redact` of the whole, which has nothing left to take out."""
    text, pieces = _texts(data)
    whole = _REDACT.redact(text)
    for way in (pieces, list(text)):
        scan = Scan(_REDACT._compiled, _REDACT.replacement, _REDACT.limit)
        assert "".join(map(scan.feed, way)) + scan.finish() == whole
    arguments = _REDACT._arguments(text)
    try:
        json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return
    json.loads(arguments, parse_constant=_no_constant)


_LONGEST = 16  # characters of a pattern, and of a text: `re` takes exponential time for some


def _matching(data: bytes) -> None:
    """A pattern that is taken gives the matches of `re`, however the text is cut; any other is refused by name."""
    source, _, rest = data.partition(b"\n")
    pattern = source.decode("utf-8", "surrogateescape")[:_LONGEST]
    text, pieces = _texts(rest[:_LONGEST])
    try:
        with _quietly():
            patterns = Patterns([Pattern(pattern)])
    except UsageError as error:
        str(error)
        return
    spans = [match.span() for match in re.finditer(pattern, text)]
    expected, shown = "", 0
    for start, end in spans:
        expected, shown = expected + text[shown:start] + "#", end
    expected += text[shown:]
    for way in ([text], pieces, list(text)):
        scan = Scan(patterns, "#", 1000)
        assert "".join(map(scan.feed, way)) + scan.finish() == expected


def _quietly() -> Any:
    """`re` warns of patterns whose meaning may change."""
    import warnings

    return warnings.catch_warnings(action="ignore")


# --- all of them -----------------------------------------------------------------------------------------------------

TARGETS: dict[str, Target] = {
    "sse": _sse,
    **{name: partial(_wire, name=name) for name in _WIRES},
    "partial_json": _partial_json,
    "json_array": _json_array,
    "arguments": _arguments,
    "redact": _redact,
    "matching": _matching,
}
"""By name: takes any bytes, raises where a promise is broken."""

_JSON = (
    '{"city": "Paris", "days": 2, "scale": 1.5, "unit": "f", "tags": ["a"], "places": {"x": [1, null]}}',
    '{"city": "\\ud83d\\ude00 \\u00e9\\n", "days": 1e2}',
    '[{"a": [1, -0.5e-3, true, false, null, "\\\\\\""]}, {}]',
    '[{"candidates": [{"content": {"parts": [{"text": "]}"}]}}]},\r\n{"usageMetadata": {}}]',
    '"lone \\ud83d"',
    "12345678901234567890",
)
_TALK = (
    "write to a.b@mail.example or use sk-made-up-0123456789, please",
    "card 4111 1111 1111 1111 123, ACME-123, aurora; Bearer abcdefghijklmnopqrstuvwxyz0123==",
    '{"key": "sk-made-up-0123456789", "card": 4111111111111111, "\\u0061@b.example": 1.5e3}',
)
_PATTERNS = (r"(?i)a+b|c", r"\b\d{2,3}\b", r"(?:ab|a)+?1", r"(?<!a)[^b-d]{2}", r"(?m)^a.*$", r"(?s:a.)\Z")


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with: recordings and streams of the wire, texts of the kind."""
    bodies: list[bytes]
    if name in _WIRES:
        wire: Any = name
        more: dict[str, Any] = {} if wire in ("anthropic", "gemini") else {"refusal": "No."}
        bodies = [path.read_bytes() for path in sorted(_FIXTURES.glob(f"{name}-*.sse"))]
        bodies += [
            stream("It is sunny.", wire=wire).body,
            stream(["a", "b"], reasoning=["hm", "?"], tools=[("get_weather", {"city": "Paris"})], wire=wire).body,
            stream(tools=[("get_weather", {"city": "a\n"}), ("other", {})], wire=wire, chunk=2).body,
            stream("a", status="incomplete", wire=wire, **more).body,
            stream(["a", "b", "c"], error_at=1, wire=wire).body,
        ]
        if name == "gemini":
            bodies += [text.encode() for text in _JSON if text.startswith('[{"c')]
    elif name == "sse":
        bodies = [path.read_bytes() for path in sorted(_FIXTURES.glob("*.sse"))]
        bodies.append(b"\xef\xbb\xbfid: 7\r\nevent: x\rdata: a\r\n: c\ndata:b\n\nretry: 10\ndata\n\n\ndata: \xff\n\n")
    elif name == "matching":
        return [f"{source}\n".encode() + bytes([50, 100, 200]) + b"aab c1 abcd\nab12" for source in _PATTERNS]
    else:
        bodies = [text.encode() for text in (_TALK if name == "redact" else _JSON)]
    if name == "arguments":
        return bodies
    return [bytes([40, 128, 200]) + body for body in bodies]
