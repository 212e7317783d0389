"""Fake streams: what a model says, as the bytes that its provider sends. Sans-IO but for a checkpoint.

::

    flow.run(stream(text="Hello, world", tools=[("get_weather", {"city": "Paris"})], wire="anthropic"))
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias, final

import attrs

from eventflow.errors import UsageError, excerpt
from eventflow.events import StreamError, Usage, encode_json
from eventflow.limits import is_count
from eventflow.testing.frames import WIRES, Call, Said
from eventflow.waiting import checkpoint

__all__ = ["FakeStream", "Text", "Tool", "WireName", "cut", "stream"]

WireName: TypeAlias = Literal["responses", "chat", "anthropic", "gemini"]
Text: TypeAlias = str | Iterable[str]
"""A text, which is cut into pieces about as a model does, or the pieces themselves."""
Tool: TypeAlias = tuple[str, Mapping[str, Any] | str] | tuple[str, Mapping[str, Any] | str, str]
"""A call: the function's name, its arguments (a mapping, or JSON text), its id unless that is counted."""

_PIECE = re.compile(r"\s*(?:\w{1,12}|[^\w\s]{1,12})|\s+")  # about what a token is
_NO_TEXTS: tuple[Any, ...] = (bytes, Mapping)
_KINDS_OF_CALL: tuple[Any, ...] = (str, (str, Mapping), str)
_USAGE: Final = Usage(input_tokens=10, output_tokens=5, total_tokens=15)
_ERROR: Final = StreamError("the fake server had an error")


@final
@attrs.frozen(kw_only=True)
class FakeStream:
    """A stream that is bytes: a source, sync and async, any number of times.

    Attributes:
        wire: The wire that it is of.
        blocks: Its server-sent events as they stand in the body, the last one perhaps cut.
        events: How many of them are whole.
        chunk: In what chunks it comes: None for one an event, a number of bytes, or ``"whole"``.
    """

    wire: WireName
    blocks: tuple[bytes, ...] = attrs.field(repr=False)
    events: int
    chunk: int | Literal["whole"] | None = None

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.blocks)

    @property
    def chunks(self) -> list[bytes]:
        """It, as it comes."""
        if self.chunk is None:
            return list(self.blocks)
        return [self.body] if self.chunk == "whole" else cut(self.body, self.chunk)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            await checkpoint()
            yield chunk


def stream(
    text: Text = (),
    *,
    reasoning: Text = (),
    summary: Text = (),
    refusal: Text = (),
    tools: Iterable[Tool] = (),
    usage: Usage | None = _USAGE,
    model: str = "made-up",
    response_id: str = "resp_1",
    status: Literal["completed", "incomplete", "failed"] = "completed",
    reason: str | None = None,
    error_at: int | None = None,
    error: StreamError = _ERROR,
    cut_at: float | None = None,
    chunk: int | Literal["whole"] | None = None,
    wire: WireName = "responses",
) -> FakeStream:
    """Make the stream in which the provider of *wire* would send an answer; the same arguments give the same bytes.

    Args:
        text: What the answer says.
        reasoning: What the model thinks before.
        summary: The summary of it; the Responses API alone has that.
        refusal: Why it does not answer; Responses and Chat Completions have that.
        tools: Calls of functions: ``("get_weather", {"city": "Paris"})``. Their ids are ``call_1``, ``call_2``, ...,
            unless they are given as a third value; arguments that are text are sent as they are, valid or not.
        usage: Tokens, or None to say nothing of them.
        model: Its name.
        response_id: The answer's id.
        status: How it ends; only the Responses API has an end that is ``failed``.
        reason: Why it is incomplete; ``max_output_tokens`` unless given.
        error_at: Send that many events, then the provider's own *error* event instead of the rest.
        error: What it says.
        cut_at: End the body after that many events; ``2.5`` ends it in the middle of the third.
        chunk: None gives one chunk an event, a number so many bytes a chunk, ``"whole"`` all in one.
        wire: ``responses``, ``chat``, ``anthropic`` or ``gemini``.

    Raises:
        UsageError: The wire cannot say it, or the arguments contradict each other.

    >>> stream("Hi there", wire="chat").events
    6
    >>> stream("Hi there", chunk=1000).chunks[0][:23]
    b'event: response.created'
    """
    form = WIRES.get(wire)
    if form is None:
        raise UsageError(f"stream(wire={wire!r}): there is no such wire; give {_either(WIRES)}")
    said = Said(
        reasoning=_pieces("reasoning", reasoning),
        summary=_pieces("summary", summary),
        text=_pieces("text", text),
        refusal=_pieces("refusal", refusal),
        calls=tuple(_call(number, tool) for number, tool in enumerate(tools, 1)),
        usage=usage,
        model=model,
        response_id=response_id,
        reason=_reason_of(status, reason, wire),
        error=error if status == "failed" else None,
    )
    for name, advice in form.silent.items():
        if getattr(said, name):
            given = "status='failed'" if name == "error" else f"{name}=..."
            raise UsageError(f"stream({given}): the wire {wire} has no words for that; {advice}")
    if not (chunk is None or chunk == "whole" or (type(chunk) is int and chunk > 0)):
        raise UsageError(f"stream(chunk={chunk!r}): give None, a number of bytes from 1 on, or 'whole'")
    blocks = form.blocks(said)
    events = len(blocks)
    if error_at is not None and cut_at is not None:
        raise UsageError("stream(error_at=..., cut_at=...): give one of them; a stream ends but once")
    if error_at is not None:
        _check_place("error_at", error_at, events)
        blocks[error_at:] = form.fault_blocks(error, error_at)
        events = len(blocks)
    if cut_at is not None:
        _check_place("cut_at", cut_at, events)
        events = int(cut_at)
        blocks[events:] = [blocks[events][: int((cut_at - events) * len(blocks[events]))]]
        blocks = [block for block in blocks if block]
    return FakeStream(wire=wire, blocks=tuple(blocks), events=events, chunk=chunk)


def cut(body: bytes, size: int) -> list[bytes]:
    """Cut *body* into chunks of *size* bytes, the last one perhaps shorter.

    Raises:
        UsageError: The size is no number from 1 on.

    >>> cut(b"abcde", 2)
    [b'ab', b'cd', b'e']
    """
    if not is_count(size):
        raise UsageError(f"cut(body, {size!r}): give a number of bytes from 1 on")
    return [body[start : start + size] for start in range(0, len(body), size)]


# --- what is given ---------------------------------------------------------------------------------------------------


def _pieces(name: str, text: Any) -> tuple[str, ...]:
    pieces: list[Any] = [text]
    if isinstance(text, str):
        pieces = _PIECE.findall(text)
    elif isinstance(text, Iterable) and not isinstance(text, _NO_TEXTS):
        pieces = [*text]
    for piece in pieces:
        if not isinstance(piece, str):
            raise UsageError(f"stream({name}=...): give a str or a list of them, not {type(piece).__name__}")
        _check_text(name, piece)
    return tuple(pieces)


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"stream({name}=...): '{excerpt(text)}' has a lone surrogate in it, which no UTF-8 can carry; leave it out"
        ) from error


def _call(number: int, tool: Any) -> Call:
    shown = excerpt(repr(tool))
    given: list[Any] = [*tool] if isinstance(tool, tuple) else []
    if len(given) == 2:
        given.append(f"call_{number}")
    if len(given) != 3 or not all(map(isinstance, given, _KINDS_OF_CALL)):
        raise UsageError(
            f"stream(tools=...): {shown} is no call; give (name, arguments) or "
            '(name, arguments, call_id), the arguments a mapping or JSON text: ("get_weather", {"city": "Paris"})'
        )
    name, arguments, call_id = given
    text = arguments if isinstance(arguments, str) else encode_json(arguments).decode()
    for each in (name, call_id):
        _check_text("tools", each)
    return Call(name, _pieces("tools", text), call_id)


def _reason_of(status: str, reason: str | None, wire: str) -> str | None:
    if status not in ("completed", "incomplete", "failed"):
        raise UsageError(f"stream(status={status!r}): give 'completed', 'incomplete' or 'failed'")
    if status != "incomplete":
        if reason is not None:
            raise UsageError(f"stream(reason={reason!r}) is why an answer is incomplete: give status='incomplete'")
        return None
    reason = "max_output_tokens" if reason is None else reason
    if reason not in WIRES[wire].reasons:
        raise UsageError(f"stream(reason={reason!r}): the wire {wire} has {_either(WIRES[wire].reasons)}")
    return reason


def _check_place(name: str, place: float, events: int) -> None:
    whole = type(place) is int or (name == "cut_at" and type(place) is float)
    if not whole or not 0 <= place < events:
        raise UsageError(
            f"stream({name}={place!r}): the stream has {events} events; give a number from 0 to {events - 1}"
        )


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"
