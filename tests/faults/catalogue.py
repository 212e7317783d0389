"""Every fault that the bench knows: what the server does, and what must come of it.

An outcome is what design and documentation promise; the bench says whether it is so. `page` makes a table of it.
"""

from __future__ import annotations

import functools
import gzip
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
from answers import APIS, TEXT, Answer, Api, Talk, block, candidate, chunked, talk

from eventflow import Limits, Timeouts
from eventflow.errors import (
    APIStreamError,
    ConnectionFailed,
    DecodeError,
    EventflowError,
    HTTPStatusError,
    LimitExceeded,
    SequenceError,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
    UnexpectedContentType,
)
from eventflow.testing import cut

__all__ = ["FAULTS", "TIMER", "Expected", "Fault"]

MARKED: tuple[Api, ...] = ("responses", "chat", "anthropic")  # APIs with an event that ends an answer
TIMER = 0.15  # seconds that the bench's timers wait
WHOLE = "".join(TEXT)
HEARD = "".join(TEXT[:2])  # before the faults in the middle

Tool = Literal["runs", "does not run"]


@attrs.frozen(kw_only=True)
class Expected:
    """What the caller gets.

    Attributes:
        status: Of the run; None where the request itself raises, before there is a run.
        error: The class of the error, or None.
        retryable: Of the error.
        phase: Of the error.
        text: The text of the response, in full.
        heard: What handlers were told of it, where that is something else.
        tool: Whether the tool that the answer calls is executed.
        tries: How often the request is sent by a client that may send it twice.
        says: Attributes of the error.
        warnings: Kinds of the run's warnings.
    """

    status: str | None
    error: type[EventflowError] | None = None
    retryable: bool = False
    phase: str | None = None
    text: str = ""
    heard: str | None = None
    tool: Tool = "does not run"
    tries: int = 1
    says: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    warnings: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True, eq=False)
class Fault:
    """One way of a server to misbehave.

    Attributes:
        name: Of the fault, and of its test.
        group: The table of the page that it stands in.
        what: What the server does, for the page.
        answer: What it answers; None where the API has no such thing.
        expected: What must come of it, by API.
        seconds: How long that may take.
        timeouts: Of the run.
        limits: Of the run.
        strict: Whether the dispatcher is.
        plain: Whether a plain response of httpx is a source as well: there is a head.
    """

    name: str
    group: str
    what: str
    answer: Callable[[Api], Answer | None]
    expected: Mapping[Api, Expected]
    seconds: float = 0.0
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    limits: Limits = attrs.field(factory=Limits)
    strict: bool = False
    plain: bool = True

    @property
    def apis(self) -> list[Api]:
        """Those that can have it."""
        return [api for api in APIS if api in self.expected and self.answer(api) is not None]


# --- outcomes --------------------------------------------------------------------------------------------------------

COMPLETED = Expected(status="completed", text=WHOLE, tool="runs")
UNCALLED = attrs.evolve(COMPLETED, tool="does not run")
TRUNCATED = Expected(status="truncated", error=StreamTruncated, retryable=True, phase="stream", text=HEARD)
INTERRUPTED = attrs.evolve(TRUNCATED, error=StreamInterrupted)
GARBLED = Expected(status="failed", error=DecodeError, phase="decode", text=HEARD)
UNANSWERED = Expected(status=None, error=ConnectionFailed, retryable=True, phase="headers", tries=2)


def limited(limit: str, **more: Any) -> Expected:
    """A limit is reached."""
    outcome = Expected(status="failed", error=LimitExceeded, phase="decode", text=HEARD, says={"limit": limit})
    return attrs.evolve(outcome, **more)


def reported(*, retryable: bool = False, text: str = HEARD, **says: Any) -> Expected:
    """The API says that it failed."""
    return Expected(status="failed", error=APIStreamError, retryable=retryable, phase="stream", text=text, says=says)


def overdue(timer: str, text: str = "") -> Expected:
    """A timer runs out."""
    said = {"timer": timer, "seconds": TIMER}
    return Expected(status="timeout", error=StreamTimeout, retryable=True, phase="stream", text=text, says=said)


def refused(code: int, *, retryable: bool = False, tries: int = 1, **says: Any) -> Expected:
    """An HTTP error."""
    return Expected(
        status=None,
        error=HTTPStatusError,
        retryable=retryable,
        phase="headers",
        tries=tries,
        says={"status": code, **says},
    )


NO_STREAM = Expected(status="failed", error=UnexpectedContentType, phase="headers")


# --- making them -----------------------------------------------------------------------------------------------------

Made = Callable[[Talk], Answer | None]


def fault(
    name: str,
    what: str,
    answer: Made,
    expected: Expected,
    *,
    apis: tuple[Api, ...] = APIS,
    but: Mapping[Api, Expected] | None = None,
    **options: Any,
) -> Callable[[str], Fault]:
    """A fault, as yet without its group; *but* are the outcomes of APIs where it is another."""

    def made(api: Api) -> Answer | None:
        return answer(talk(api))

    outcomes = {api: (but or {}).get(api, expected) for api in apis}
    return lambda group: Fault(name=name, group=group, what=what, answer=made, expected=outcomes, **options)


def slow(
    name: str, what: str, timer: str, answer: Made, *, text: str = "", headless: bool = False
) -> Callable[[str], Fault]:
    """A fault that a timer ends: before there is an answer at all, where that is *headless*."""
    expected = overdue(timer, text)
    if headless:
        expected = attrs.evolve(expected, status=None, phase="headers")
    timeouts = Timeouts(**{timer: TIMER})
    return fault(name, what, answer, expected, plain=not headless, seconds=TIMER, timeouts=timeouts)


def data_of(piece: Any) -> bytes:
    """An event as it stands on the wire; bytes are that already."""
    return piece if isinstance(piece, bytes) else block(piece)


def inserted(piece: Any, *, ending: Any = "end") -> Made:
    """In the middle of an answer that goes well but for that."""
    return lambda said: Answer([*said.before, data_of(piece), *said.after], ending=ending)


def broken(piece: Any, *, ending: Any = "hang") -> Made:
    """An answer that ends in its middle with an event."""
    return lambda said: Answer([*said.before, data_of(piece)], ending=ending)


def by_api(
    responses: Any = None, chat: Any = None, anthropic: Any = None, gemini: Any = None, *, ending: Any = "end"
) -> Made:
    """`inserted`, with a piece for each API."""

    def answer(said: Talk) -> Answer | None:
        piece = {"responses": responses, "chat": chat, "anthropic": anthropic, "gemini": gemini}[said.api]
        return None if piece is None else inserted(piece, ending=ending)(said)

    return answer


def changed(old: bytes, new: bytes) -> Made:
    """An answer with other bytes in it."""
    return lambda said: Answer(said.having(old, new))


def rawly(head: bytes, body: Callable[[Talk], bytes], *, ending: Any = "cut") -> Made:
    """Bytes as they are, behind a head with *head* in it."""
    lines = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + head + b"\r\n"
    return lambda said: Answer([lines + body(said)], status=None, ending=ending)


def page(status: int, body: bytes = b"", ending: Any = "end", **headers: str) -> Made:
    """A document instead of a stream."""
    named: dict[str, str | None] = {"content-type": "application/json", "transfer-encoding": None}
    named |= {"content-length": str(len(body)), **{key.replace("_", "-"): value for key, value in headers.items()}}
    return lambda said: Answer(status=status, headers=named, ending=ending, then=lambda peer: peer.send(body))


def array(blocks: Sequence[bytes], end: bytes = b"]") -> Answer:
    """The same as one array of JSON, which Gemini's servers send where nobody asks for events."""
    values = [each.removeprefix(b"data: ").rstrip() for each in blocks]
    pieces = [b"[", *(b"\n,\r\n" * bool(place) + value for place, value in enumerate(values)), end]
    return Answer(pieces, headers={"content-type": "application/json; charset=UTF-8"})


def before(said: Talk) -> bytes:
    """The bytes up to the middle."""
    return b"".join(said.before)


def packed(said: Talk, *, rest: bytes = b"") -> bytes:
    """The answer up to its middle as gzip, flushed, and *rest*."""
    import zlib

    engine = zlib.compressobj(wbits=31)
    return engine.compress(before(said)) + engine.flush(zlib.Z_SYNC_FLUSH) + rest


GZIP: dict[str, str | None] = {"content-encoding": "gzip"}


def forever(piece: bytes, pause: float = 0.0) -> Callable[[Any], None]:
    """The same again and again, until the client leaves or the server's patience is over."""

    def then(peer: Any) -> None:
        until = time.monotonic() + peer.server.patience
        while time.monotonic() < until:
            peer.chunk(piece)
            if pause:
                peer.pause(pause)

    return then


def trickled(peer: Any) -> None:
    """One event, byte by byte, in more time than it has."""
    for byte in block({"type": "response.output_text.delta", "delta": "x" * 200}):
        peer.chunk(bytes([byte]))
        peer.pause(0.03)


def trickled_head(peer: Any) -> None:
    """A head, byte by byte, in more time than it has."""
    for byte in b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 200:
        peer.send(bytes([byte]))
        peer.pause(0.03)


CHATTER: dict[Api, bytes] = {
    "responses": block({"type": "response.in_progress", "response": {"id": "resp_1", "status": "in_progress"}}),
    "chat": block({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]}),
    "anthropic": block({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}}),
    "gemini": block(candidate({"text": ""})),
}


def endless(piece: bytes, head: bytes = b"") -> Made:
    """In the middle, a piece that is repeated without end."""
    return lambda said: Answer(
        [*said.before, head or piece], then=forever(piece * (65536 // len(piece))), ending="hang"
    )


def bomb(said: Talk) -> Answer:
    """8 MiB of one event, in 8 KiB."""
    return Answer([gzip.compress(before(said)) + _bomb()], headers=GZIP, ending="hang")


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b"data: " + b"x" * 2**23)


def deep(depth: int) -> bytes:
    """Nested lists."""
    return b"[" * depth + b"]" * depth


DIGITS = b"1" * 10_000
QUICK = Limits(event_bytes=2**20)
"""The bounds as such are proven in processes of their own; here it is what comes of them."""


def text_delta(**fields: Any) -> dict[str, Any]:
    """A piece of the text of the Responses API, with other fields or more of them."""
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return {"type": "response.output_text.delta", **at, "delta": "", **fields}


def chat_delta(value: Any) -> dict[str, Any]:
    """A chunk of Chat Completions with that in its delta."""
    return {"choices": [{"index": 0, "delta": value, "finish_reason": None}]}


def nested_error(code: str, kind: str = "server_error") -> dict[str, Any]:
    """The error that servers send."""
    return {"type": "error", "error": {"type": kind, "code": code, "message": "it broke"}}


def error_of(api: Api, code: str = "overloaded", kind: str = "server_error") -> bytes:
    """The same as an API's own servers send it; Google's say an HTTP status, and a word for it."""
    if api != "gemini":
        return block(nested_error(code, kind))
    status, word = (503, "UNAVAILABLE") if kind == "server_error" else (400, "INVALID_ARGUMENT")
    return block({"error": {"code": status, "message": "it broke", "status": word}})


OVERLOADED = reported(code="overloaded", retryable=True)
UNAVAILABLE = reported(code="503", type="UNAVAILABLE", retryable=True)
"""The same of Gemini."""


def failed(code: str) -> dict[str, Any]:
    """The response has failed."""
    fault = {"code": code, "message": "it broke"}
    response = {"id": "resp_1", "status": "failed", "output": [], "error": fault}
    return {"type": "response.failed", "response": response}


def redirected(target: str) -> Made:
    """To somewhere else."""
    return page(307, b"", location=target)


def renumbered(order: Callable[[list[bytes]], list[bytes]]) -> Made:
    """The events of the Responses API in another order."""
    return lambda said: Answer(order(list(said.blocks)))


def with_end(line_end: bytes) -> Made:
    """Lines that end otherwise."""
    return lambda said: Answer([each.replace(b"\r\n", b"\n").replace(b"\n", line_end) for each in said.blocks])


def calling(name: str, arguments: str, made: bytes = b"") -> Made:
    """Another call; *made* is what ``HERE`` in its arguments becomes, which are JSON in JSON in Gemini's."""

    def answer(said: Talk) -> Answer:
        if said.api != "gemini":
            return Answer(talk(said.api, tools=[(name, arguments)]).having(b"HERE", made))
        arguments_there = arguments.encode().replace(b"HERE", made)
        return Answer(talk("gemini", tools=[(name, {})]).having(b'"args": {}', b'"args": ' + arguments_there))

    return answer


def half_a_call(said: Talk) -> Answer | None:
    """An answer that is whole, but for the rest of the arguments of its call."""
    if said.api == "gemini":
        return Answer([*said.to_tool, said.blocks[-1]])
    return calling("get_weather", '{"city": "Par')(said)


def many_calls(said: Talk) -> Answer:
    """More calls than anybody wants."""
    blocks = talk(said.api, tools=[("get_weather", {"city": "Paris"})] * 12).blocks
    return Answer(blocks[:-2], ending="hang")


# --- the catalogue ---------------------------------------------------------------------------------------------------


def catalogue() -> Iterator[Fault]:
    """All of it, in the order of the page."""
    for group, faults in GROUPS.items():
        yield from (each(group) for each in faults)


WELL = [
    fault("ok", "nothing wrong", lambda said: Answer(said.blocks), COMPLETED),
    fault("splinters", "chunks of seven bytes", lambda said: Answer(cut(b"".join(said.blocks), 7)), COMPLETED),
    fault("one-chunk", "all of it is one chunk", lambda said: Answer([b"".join(said.blocks)]), COMPLETED),
    fault("bom", "a byte order mark comes first", lambda said: Answer([b"\xef\xbb\xbf", *said.blocks]), COMPLETED),
    fault("crlf", "lines end with CR LF", with_end(b"\r\n"), COMPLETED),
    fault("cr", "lines end with CR", with_end(b"\r"), COMPLETED),
    fault("comments", "comments and empty lines between the events", inserted(b": ping\n\n\n\n: pong\n\n"), COMPLETED),
    fault("more-fields", "`id`, `retry` and unknown fields", inserted(b"id: 7\nretry: 5\nvendor: x\n\n"), COMPLETED),
    fault(
        "gzip",
        "compressed, though nobody asked",
        lambda said: Answer([gzip.compress(b"".join(said.blocks))], headers=GZIP),
        COMPLETED,
    ),
    fault(
        "wrong-type",
        "the stream is called `text/plain`",
        lambda said: Answer(said.blocks, headers={"content-type": "text/plain"}),
        COMPLETED,
    ),
    fault(
        "no-type",
        "the stream has no content type",
        lambda said: Answer(said.blocks, headers={"content-type": None}),
        COMPLETED,
    ),
    fault(
        "lingering",
        "the connection stays open behind the last event",
        lambda said: Answer(said.blocks, ending="hang"),
        COMPLETED,
        apis=MARKED,
    ),
    fault(
        "after-end",
        "more text, an error and garbage behind the last event",
        lambda said: Answer(
            [b"".join([*said.blocks, said.delta("more"), error_of(said.api, "late"), b"data: {\n\n"])], ending="hang"
        ),
        COMPLETED,
        but={"gemini": attrs.evolve(UNAVAILABLE, text=WHOLE + "more")},
    ),
    fault(
        "cut-after-end",
        "the connection is cut behind the last event",
        lambda said: Answer(said.blocks, ending="reset"),
        COMPLETED,
        but={"gemini": attrs.evolve(INTERRUPTED, text=WHOLE)},
    ),
    fault(
        "no-blank-line",
        "the last event lacks the blank line after it",
        lambda said: Answer([b"".join(said.blocks).removesuffix(b"\n").removesuffix(b"\r")]),
        attrs.evolve(COMPLETED, warnings=frozenset({"unfinished"})),
        but={"chat": COMPLETED},
    ),
    fault(
        "no-done",
        "the reason of the end is given, what should follow it is not",
        lambda said: Answer(said.blocks[: -2 if said.api == "chat" else -1]),
        COMPLETED,
        apis=("chat", "anthropic"),
    ),
    fault(
        "json-array",
        "one array of JSON instead of events",
        lambda said: array(said.blocks),
        COMPLETED,
        apis=("gemini",),
    ),
    fault(
        "no-reason",
        "`[DONE]` without a reason",
        lambda said: Answer([*said.to_end, said.blocks[-1]]),
        COMPLETED,
        apis=("chat",),
    ),
]
CUTS = [
    fault(
        "cut-between",
        "the connection is cut between two events",
        lambda said: Answer(said.before, ending="cut"),
        INTERRUPTED,
    ),
    fault(
        "cut-mid-event",
        "it is cut in the middle of an event",
        lambda said: Answer([*said.before, said.after[0][:40]], ending="cut"),
        INTERRUPTED,
    ),
    fault("reset", "it is reset", lambda said: Answer(said.before, ending="reset"), INTERRUPTED),
    fault(
        "bad-chunk",
        "a chunk of the body has no length",
        rawly(b"transfer-encoding: chunked\r\n", lambda said: chunked(before(said)) + b"zzz\r\n", ending="hang"),
        INTERRUPTED,
    ),
    fault(
        "short-chunk",
        "a chunk is shorter than its length",
        rawly(b"transfer-encoding: chunked\r\n", lambda said: b"ffff\r\n" + before(said)),
        INTERRUPTED,
    ),
    fault(
        "short-length",
        "the body is shorter than its `content-length`",
        rawly(b"content-length: 100000\r\n", before),
        INTERRUPTED,
    ),
    fault(
        "cut-mid-tool",
        "the connection is cut in the arguments of a call",
        lambda said: Answer(said.to_tool, ending="cut"),
        attrs.evolve(INTERRUPTED, text=WHOLE),
    ),
    fault(
        "cut-before-event",
        "it is cut behind the head",
        lambda said: Answer(ending="cut"),
        attrs.evolve(INTERRUPTED, text="", tries=2),
    ),
    fault(
        "cut-in-head",
        "it is cut in the head",
        lambda said: Answer([b"HTTP/1.1 200 OK\r\ncontent-ty"], status=None, ending="cut"),
        UNANSWERED,
        plain=False,
    ),
    fault(
        "no-head", "it is cut before the head", lambda said: Answer(status=None, ending="cut"), UNANSWERED, plain=False
    ),
    fault(
        "no-http",
        "the answer is not HTTP",
        lambda said: Answer([b"SSH-2.0-made_up\r\n\r\n"], status=None, ending="hang"),
        UNANSWERED,
        plain=False,
    ),
    fault(
        "header-bomb",
        "the head has no end",
        lambda said: Answer([b"HTTP/1.1 200 OK\r\n" + b"x-more: yes\r\n" * 50_000], status=None, ending="hang"),
        UNANSWERED,
        plain=False,
    ),
]
ENDS = [
    fault("eof", "the body ends between two events", lambda said: Answer(said.before), TRUNCATED),
    fault(
        "eof-mid-event",
        "it ends in the middle of an event",
        lambda said: Answer([*said.before, said.after[0][:40]]),
        TRUNCATED,
    ),
    fault(
        "eof-array",
        "an array of JSON instead of events ends in the middle",
        lambda said: array(said.before, end=b',\n{"candidates": [{'),
        TRUNCATED,
        apis=("gemini",),
    ),
    fault("eof-closed", "a body without a length ends with the connection", rawly(b"", before), TRUNCATED),
    fault(
        "eof-mid-tool",
        "the body ends in the arguments of a call",
        lambda said: Answer(said.to_tool),
        attrs.evolve(TRUNCATED, text=WHOLE),
    ),
    fault(
        "eof-before-end",
        "everything is there but the event that ends the answer",
        lambda said: Answer(said.to_end),
        attrs.evolve(TRUNCATED, text=WHOLE),
    ),
    fault("empty", "the body is empty", lambda said: Answer(), attrs.evolve(TRUNCATED, text="")),
    fault("gzip-cut", "a compressed body ends too early", lambda said: Answer([packed(said)], headers=GZIP), TRUNCATED),
]
TIMES = [
    slow(
        "stall-head", "no answer comes", "first_event", lambda said: Answer(status=None, ending="hang"), headless=True
    ),
    slow(
        "trickled-head",
        "the head comes byte by byte",
        "first_event",
        lambda said: Answer(status=None, ending="hang", then=trickled_head),
        headless=True,
    ),
    slow("stall-first", "no event comes", "first_event", lambda said: Answer(ending="hang")),
    slow(
        "ping-first",
        "comments come, but no event",
        "first_event",
        lambda said: Answer(then=forever(b": ping\n\n", 0.02), ending="hang"),
    ),
    slow("stall", "no further event comes", "idle", lambda said: Answer(said.before, ending="hang"), text=HEARD),
    slow(
        "stall-mid-event",
        "an event begins, and nothing more",
        "idle",
        lambda said: Answer([*said.before, said.after[0][:40]], ending="hang"),
        text=HEARD,
    ),
    slow(
        "stall-mid-tool",
        "nothing more comes in the arguments of a call",
        "idle",
        lambda said: Answer(said.to_tool, ending="hang"),
        text=WHOLE,
    ),
    fault(
        "stall-before-end",
        "the reason of the end is given, what should follow it is not, and the connection stays open",
        lambda said: Answer(said.blocks[: {"chat": -2, "anthropic": -1}.get(said.api)], ending="hang"),
        overdue("idle", text=WHOLE),
        apis=("chat", "anthropic", "gemini"),
        seconds=TIMER,
        timeouts=Timeouts(idle=TIMER),
    ),
    slow(
        "ping-forever",
        "comments come instead of further events",
        "idle",
        lambda said: Answer(said.before, then=forever(b": ping\n\n", 0.02), ending="hang"),
        text=HEARD,
    ),
    slow(
        "trickle",
        "an event comes byte by byte",
        "idle",
        lambda said: Answer(said.before, then=trickled, ending="hang"),
        text=HEARD,
    ),
    slow(
        "chatter",
        "events come in time, but without end",
        "total",
        lambda said: Answer(said.before, then=forever(b": ping\n\n" + CHATTER[said.api], 0.02), ending="hang"),
        text=HEARD,
    ),
]
LIMITS = [
    fault("endless-line", "a line has no end", endless(b"x", b"data: "), limited("event_bytes"), limits=QUICK),
    fault(
        "endless-event",
        "an event has no end of lines",
        endless(b"data: x\n"),
        limited("event_bytes"),
        limits=Limits(event_bytes=10_000),
    ),
    fault(
        "endless-name",
        "the name of an event has no end",
        endless(b"x", b"event: "),
        limited("event_bytes"),
        limits=QUICK,
    ),
    fault("endless-comment", "a comment has no end", endless(b"x", b": "), limited("event_bytes"), limits=QUICK),
    fault("gzip-bomb", "8 KiB become an event of 8 MiB", bomb, limited("event_bytes"), limits=QUICK),
    fault(
        "deep-json",
        "JSON is nested 10,000 deep",
        by_api(
            block(b'{"type":"vendor.deep","x":' + deep(10_000) + b"}"),
            block(b'{"choices":[],"x":' + deep(10_000) + b"}"),
            block(b'{"type":"vendor_deep","x":' + deep(10_000) + b"}"),
            block(b'{"candidates":[],"x":' + deep(10_000) + b"}"),
            ending="hang",
        ),
        limited("json_depth"),
    ),
    fault(
        "long-text",
        "the text has no end",
        lambda said: Answer(said.before, then=forever(said.delta("x" * 10_000)), ending="hang"),
        limited("text", text=HEARD + "x" * 50_000),
        limits=Limits(text=50_000),
    ),
    fault(
        "long-arguments",
        "the arguments of a call have no end",
        lambda said: Answer(talk(said.api, tools=[("get_weather", {"city": "x" * 3_000})]).to_end, ending="hang"),
        limited("arguments", text=WHOLE),
        limits=Limits(arguments=2_000),
    ),
    fault(
        "many-calls",
        "12 tools are called, and 8 are allowed",
        many_calls,
        limited("calls", text=WHOLE),
        limits=Limits(calls=8),
    ),
]

CUTE = "s\N{REPLACEMENT CHARACTER}nny."
CONTENT = [
    fault(
        "bad-utf8",
        "bytes that are no UTF-8",
        changed(b"sunny.", b"s\xffnny."),
        attrs.evolve(COMPLETED, text="It is s\ufffdnny."),
    ),
    fault(
        "lone-surrogate",
        "half of a surrogate pair in the text",
        changed(b"sunny.", b"s\\ud83dnny."),
        attrs.evolve(COMPLETED, text="It is s\ud83dnny."),
    ),
    fault(
        "control-characters",
        "escape sequences for terminals in the text",
        changed(b"sunny.", b"\\u001b[31msunny\\u0000\\u202e."),
        attrs.evolve(COMPLETED, text="It is \x1b[31msunny\x00\u202e."),
    ),
    fault("bad-json", "an event that is no JSON", inserted(block(b"{what"), ending="hang"), GARBLED),
    fault(
        "cut-json",
        "JSON that is cut, in an event that is not",
        by_api(
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.del\n\n',
            b'data: {"choices":[{"index":0,"del\n\n',
            b'event: content_block_delta\ndata: {"type":"content_blo\n\n',
            b'data: {"candidates":[{"content":{"par\n\n',
            ending="hang",
        ),
        GARBLED,
    ),
    fault("json-list", "an event that is a list", inserted(block(b"[1, 2]"), ending="hang"), GARBLED),
    fault("json-null", "an event that is null", inserted(block(b"null"), ending="hang"), GARBLED),
    fault("json-text", "an event that is a string", inserted(block(b'"text"'), ending="hang"), GARBLED),
    fault(
        "huge-number",
        "an integer of 10,000 digits",
        by_api(
            b'data: {"type":"response.output_text.delta","delta":"","output_index":' + DIGITS + b"}\n\n",
            b'data: {"choices":[{"index":' + DIGITS + b',"delta":{}}]}\n\n',
            b'data: {"type":"content_block_delta","index":' + DIGITS + b',"delta":{"type":"text_delta","text":""}}\n\n',
            ending="hang",
        ),
        GARBLED,
        apis=("responses",),
    ),
    fault(
        "huge-number-unread",
        "an integer of 10,000 digits where nobody reads it",
        by_api(
            b'data: {"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"delta":"","vendor":'
            + DIGITS
            + b"}\n\n",
            b'data: {"vendor":' + DIGITS + b',"choices":[]}\n\n',
            b'data: {"type":"ping","vendor":' + DIGITS + b"}\n\n",
            b'data: {"vendor":' + DIGITS + b',"candidates":[]}\n\n',
        ),
        COMPLETED,
    ),
    fault(
        "wrong-shape",
        "an object where text must be",
        by_api(
            {"type": "response.output_text.delta", "delta": {"a": 1}},
            chat_delta({"content": {"a": 1}}),
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": {"a": 1}}},
            candidate({"text": {"a": 1}}),
            ending="hang",
        ),
        GARBLED,
    ),
    fault(
        "wrong-number",
        "text where a number must be",
        by_api(
            {"type": "response.output_text.delta", "delta": "", "output_index": "first"},
            {"choices": [{"index": "first", "delta": {}}]},
            {"type": "content_block_delta", "index": "first", "delta": {"type": "text_delta", "text": ""}},
            ending="hang",
        ),
        GARBLED,
        apis=("responses",),
    ),
    fault(
        "null-fields",
        "null where something must be",
        by_api(
            text_delta(delta=None),
            {"id": None, "choices": [{"index": 0, "delta": {"content": None, "tool_calls": None}}], "usage": None},
            {"type": "message_delta", "delta": {"stop_reason": None}, "usage": None},
            {**candidate({"text": None, "functionCall": None}, finishReason=None), "usageMetadata": None},
        ),
        COMPLETED,
    ),
    fault(
        "unknown-event",
        "an event of a type that nobody knows",
        by_api(
            {"type": "vendor.progress", "percent": 50},
            {"object": "vendor.progress", "percent": 50},
            {"type": "vendor_progress", "percent": 50},
            {"kind": "vendor.progress", "percent": 50},
        ),
        COMPLETED,
    ),
    fault("untyped-event", "an event without a type", inserted({"percent": 50}), COMPLETED),
    fault(
        "unknown-field",
        "fields that nobody knows",
        by_api(
            text_delta(vendor=[1]),
            {"choices": [{"index": 0, "delta": {"vendor": [1]}, "vendor": 2}], "vendor": {}},
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "", "vendor": 1},
                "vendor": 2,
            },
            {**candidate({"text": "", "vendor": 1}, vendor=2), "vendor": [1]},
        ),
        COMPLETED,
    ),
    fault(
        "unknown-item",
        "an item of a kind that nobody knows",
        by_api(
            b"".join(
                block(
                    {
                        "type": f"response.output_item.{step}",
                        "output_index": 5,
                        "item": {"type": "vendor_thing", "id": "v_1", "n": 1},
                    }
                )
                for step in ("added", "done")
            ),
            None,
            block({"type": "content_block_start", "index": 5, "content_block": {"type": "vendor_thing", "n": 1}})
            + block({"type": "content_block_stop", "index": 5}),
            candidate({"vendorThing": {"n": 1}}),
        ),
        COMPLETED,
        apis=("responses", "anthropic", "gemini"),
    ),
    fault(
        "wrong-name",
        "an event under the name of another",
        changed(b"event: response.output_text.delta", b"event: response.refusal.delta"),
        attrs.evolve(COMPLETED, warnings=frozenset({"name"})),
        apis=("responses",),
    ),
    fault(
        "no-names",
        "events without their names",
        lambda said: Answer([each[each.index(b"data:") :] for each in said.blocks]),
        COMPLETED,
        apis=("responses", "anthropic"),
    ),
    fault(
        "html-inside",
        "a page of HTML in the middle",
        inserted(b"<html><body>502 Bad Gateway</body></html>\n\n"),
        COMPLETED,
    ),
]
ERRORS = [
    fault(
        "error-flat",
        "an error event, as documented",
        broken({"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": None}),
        reported(code="rate_limit_exceeded", retryable=True),
        apis=("responses",),
    ),
    fault(
        "error-nested",
        "an error inside an `error`",
        lambda said: Answer([*said.before, error_of(said.api)], ending="hang"),
        reported(code="overloaded", type="server_error", retryable=True),
        but={"gemini": UNAVAILABLE},
    ),
    fault(
        "error-caller",
        "an error that is the caller's",
        lambda said: Answer(
            [*said.before, error_of(said.api, "invalid_prompt", "invalid_request_error")], ending="hang"
        ),
        reported(code="invalid_prompt", retryable=False),
        but={"gemini": reported(code="400", type="INVALID_ARGUMENT", retryable=False)},
    ),
    fault(
        "error-bare",
        "an error without an event's name or type",
        broken({"error": {"message": "it broke", "type": "server_error"}}),
        reported(type="server_error", retryable=True),
    ),
    fault("error-text", "an error that is a string", broken({"error": "model not loaded"}), reported()),
    fault("error-plain", "an error that is no JSON", broken(block(b"upstream is gone", "error")), reported()),
    fault(
        "error-untyped",
        "an error that only the event's name tells",
        broken(block(b'{"message": "it broke", "code": "server_error"}', "error")),
        reported(code="server_error", retryable=True),
    ),
    fault(
        "failed",
        "`response.failed`",
        broken(failed("server_error")),
        reported(code="server_error", retryable=True),
        apis=("responses",),
    ),
    fault(
        "error-then-failed",
        "an error event, then `response.failed`",
        broken(block(nested_error("first")) + block(failed("server_error"))),
        reported(code="server_error", retryable=True),
        apis=("responses",),
    ),
    fault(
        "error-first",
        "an error instead of the first event",
        lambda said: Answer([error_of(said.api)], ending="hang"),
        attrs.evolve(OVERLOADED, text=""),
        but={"gemini": attrs.evolve(UNAVAILABLE, text="")},
    ),
    fault(
        "error-then-more",
        "an error, and then the rest of the answer",
        lambda said: Answer([*said.before, error_of(said.api), *said.after], ending="hang"),
        OVERLOADED,
        but={"responses": attrs.evolve(OVERLOADED, text=WHOLE), "gemini": UNAVAILABLE},
    ),
    fault(
        "error-mid-tool",
        "an error in the arguments of a call",
        lambda said: Answer([*said.to_tool, error_of(said.api)], ending="hang"),
        attrs.evolve(OVERLOADED, text=WHOLE),
        but={"gemini": attrs.evolve(UNAVAILABLE, text=WHOLE)},
    ),
    fault(
        "error-before-end",
        "an error where only the end is missing",
        lambda said: Answer([*said.to_end, error_of(said.api)], ending="hang"),
        attrs.evolve(OVERLOADED, text=WHOLE),
        but={"gemini": attrs.evolve(UNAVAILABLE, text=WHOLE)},
    ),
    fault(
        "error-then-cut",
        "an error, then a reset",
        lambda said: Answer([*said.before, error_of(said.api)], ending="reset"),
        OVERLOADED,
        but={"gemini": UNAVAILABLE},
    ),
    fault(
        "incomplete",
        "the model is cut short by a limit of its own",
        lambda said: Answer(talk(said.api, status="incomplete").blocks),
        Expected(status="incomplete", text=WHOLE),
    ),
    fault(
        "filtered",
        "the model is cut short by a filter",
        lambda said: Answer(talk(said.api, status="incomplete", reason="content_filter").blocks),
        Expected(status="incomplete", text=WHOLE),
    ),
    fault(
        "blocked",
        "no candidate, only why the question is not answered",
        lambda said: Answer([block({"promptFeedback": {"blockReason": "SAFETY"}})]),
        Expected(status="incomplete"),
        apis=("gemini",),
    ),
    fault(
        "malformed-call",
        "the model has written a call that cannot be read",
        lambda said: Answer([*said.to_end, block(candidate(finishReason="MALFORMED_FUNCTION_CALL"))]),
        Expected(status="incomplete", text=WHOLE),
        apis=("gemini",),
    ),
]
ORDER = [
    fault(
        "repeated",
        "an event comes twice",
        lambda said: Answer([*said.before, said.before[-1], *said.after]),
        attrs.evolve(COMPLETED, warnings=frozenset({"duplicate"})),
        apis=("responses",),
    ),
    fault(
        "missing",
        "an event is missing",
        lambda said: Answer([*said.before[:-1], *said.after]),
        attrs.evolve(COMPLETED, heard="It sunny.", warnings=frozenset({"gap", "mismatch"})),
        apis=("responses",),
    ),
    fault(
        "swapped",
        "two events are swapped",
        lambda said: Answer([*said.before[:-1], said.after[0], said.before[-1], *said.after[1:]]),
        attrs.evolve(COMPLETED, heard="It sunny.is ", warnings=frozenset({"gap", "order", "mismatch"})),
        apis=("responses",),
    ),
    fault(
        "missing-strict",
        "an event is missing, in a strict run",
        lambda said: Answer([*said.before[:-1], *said.after], ending="hang"),
        Expected(
            status="failed",
            error=SequenceError,
            retryable=True,
            phase="decode",
            text="It ",
            says={"expected": 5, "got": 6},
        ),
        apis=("responses",),
        strict=True,
    ),
    fault(
        "mismatch",
        "the whole text is not the sum of its pieces",
        lambda said: Answer([each.replace(b"It is sunny.", b"It rains.") for each in said.blocks]),
        attrs.evolve(COMPLETED, text="It rains.", heard=WHOLE, warnings=frozenset({"mismatch"})),
        apis=("responses",),
    ),
    fault(
        "orphan",
        "a piece of an item that was never opened",
        inserted(text_delta(item_id="msg_9", output_index=9, delta="more")),
        attrs.evolve(COMPLETED, heard="It is moresunny.", warnings=frozenset({"orphan", "mismatch"})),
        apis=("responses",),
    ),
    fault(
        "twice",
        "a whole answer, and then another",
        lambda said: Answer([*said.blocks, *said.blocks], ending="hang"),
        COMPLETED,
        apis=MARKED,
    ),
]
HTTP = [
    *(
        fault(
            f"http-{code}",
            f"HTTP {code}",
            page(code, b'{"error": {"message": "no"}}'),
            refused(code, retryable=again, tries=2 if again else 1),
        )
        for code, again in (
            (400, False),
            (401, False),
            (404, False),
            (408, True),
            (409, True),
            (413, False),
            (422, False),
            (429, True),
            (500, True),
            (503, True),
            (529, True),
        )
    ),
    fault(
        "retry-after",
        "HTTP 429 that asks to wait",
        page(429, b"", retry_after_ms="20"),
        refused(429, retryable=True, tries=2, retry_after=0.02),
    ),
    fault(
        "retry-after-huge",
        "HTTP 429 that asks to wait for a year",
        page(429, b"", retry_after="31536000"),
        refused(429, retryable=True, retry_after=31536000.0),
    ),
    fault(
        "retry-after-date",
        "HTTP 503 that says when, in the past",
        page(503, b"", retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        refused(503, retryable=True, tries=2, retry_after=0.0),
    ),
    fault(
        "error-page",
        "HTTP 502 with a page of HTML",
        page(502, b"<html>\x1b[31mBad Gateway</html>", content_type="text/html"),
        refused(502, retryable=True, tries=2, excerpt="<html>\\x1b[31mBad Gateway</html>"),
    ),
    fault(
        "error-page-endless",
        "HTTP 500 with a page that has no end",
        lambda said: Answer(status=500, then=forever(b"<br>" * 1000), ending="hang"),
        refused(500, retryable=True, tries=2),
    ),
    fault(
        "html-200",
        "HTTP 200 with a page of HTML",
        page(200, b"<html>Log in</html>", content_type="text/html"),
        attrs.evolve(NO_STREAM, says={"excerpt": "<html>Log in</html>"}),
    ),
    fault(
        "json-200",
        "HTTP 200 with JSON instead of a stream",
        page(200, b'{"answer": 42}'),
        attrs.evolve(NO_STREAM, says={"content_type": "application/json"}),
    ),
    fault("http-204", "HTTP 204", lambda said: Answer([b"HTTP/1.1 204 No Content\r\n\r\n"], status=None), NO_STREAM),
    fault("redirect", "a redirect to another server", redirected("http://127.0.0.1:9/v1"), refused(307)),
    fault("redirect-loop", "a redirect to itself", redirected("."), refused(307)),
    fault(
        "unknown-encoding",
        "a compression that nobody asked for",
        lambda said: Answer(said.blocks, headers={"content-encoding": "br"}, ending="hang"),
        attrs.evolve(GARBLED, text=""),
    ),
    fault(
        "gzip-corrupt",
        "a compressed body is garbled",
        lambda said: Answer([packed(said, rest=b"\xff" * 3000)], headers=GZIP, ending="hang"),
        GARBLED,
    ),
    fault(
        "gzip-none",
        "a body that is called compressed, and is not",
        lambda said: Answer(said.blocks, headers=GZIP, ending="hang"),
        attrs.evolve(GARBLED, text=""),
    ),
]
TOOLS = [
    fault(
        "tool-bad-arguments",
        "a tool is called with half of its arguments",
        half_a_call,
        UNCALLED,
    ),
    fault("tool-wrong-arguments", "with arguments that do not fit", calling("get_weather", '{"city": 5}'), UNCALLED),
    fault(
        "tool-repeated-key",
        "with a key that stands there twice",
        calling("get_weather", '{"city": "a", "city": "b"}'),
        UNCALLED,
        but={"gemini": COMPLETED},
    ),
    fault("tool-list", "with a list", calling("get_weather", '["Paris"]'), UNCALLED),
    fault(
        "tool-deep",
        "with JSON that is 10,000 deep",
        calling("get_weather", '{"city": HERE}', deep(10_000)),
        UNCALLED,
        but={"gemini": limited("json_depth", text=WHOLE)},
    ),
    fault(
        "tool-number", "with an integer of 10,000 digits", calling("get_weather", '{"city": HERE}', DIGITS), UNCALLED
    ),
    fault("tool-unknown", "a tool that there is not", calling("rm_rf", "{}"), UNCALLED),
    fault("tool-dunder", "a name of Python's own", calling("__class__", "{}"), UNCALLED),
]

GROUPS: dict[str, list[Callable[[str], Fault]]] = {
    "Well enough": WELL,
    "Cut connections": CUTS,
    "Bodies that end too early": ENDS,
    "Time": TIMES,
    "Too much": LIMITS,
    "Odd content": CONTENT,
    "Errors of the API": ERRORS,
    "Order": ORDER,
    "HTTP": HTTP,
    "Tools": TOOLS,
}
FAULTS: dict[str, Fault] = {each.name: each for each in catalogue()}
