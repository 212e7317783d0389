"""Server-sent events: bytes in, frames out, and back.

Exactly the format of the WHATWG HTML standard (9.2.6, read November 2026), without I/O: `Decoder` takes the chunks of a
body as they come and returns `Frame` objects, `decode` and `adecode` do so lazily for an iterable, `encode` writes one.

How it works: line ends are made LF, and one regular expression walks over what has come. Its first alternative takes a
whole *canonical* block (``event: …``, ``data: …``, a blank line; or the last two), which is nearly all that servers of
language models send; the second takes one line of anything else to the line machine. A property test proves that both
give the same frames. A line that has not ended waits in a buffer, and is not looked at again before its end has come.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from copy import copy
from typing import final

import attrs
import msgspec

from eventflow.errors import LimitExceeded, UsageError, excerpt

__all__ = ["MAX_EVENT_BYTES", "Decoder", "Frame", "adecode", "decode", "encode", "plausible"]

MAX_EVENT_BYTES = 8 * 2**20
"""What an event may take unless told otherwise, in bytes: room for an image or a sound of 6 MiB in base64."""

_BOM = b"\xef\xbb\xbf"
_CR, _LF = b"\r\n"  # as numbers: `13 in data` takes a tenth of the time of `b"\r" in data`
_PIECE = 2**16  # bytes read at once: the matches of 64 KiB of blank lines take 5 MB
_RETRY_DIGITS = 18  # what fits 64 bits; int() itself raises above some thousand digits

# A canonical block, or one line (the last one perhaps without its end). Possessive, because backtracking cost four
# times as much where the first alternative fails; findall, because match objects cost a quarter more.
_SCAN = re.compile(rb"(?:event: (.++)\n|)data: (.*+)\n\n|(.*+\n|.++)").findall
_LINE_END = re.compile(r"\r\n|\r|\n")  # not str.splitlines, which also splits at U+2028, U+0085, VT and FF
_STARTS = (_BOM, b":", b"\n", b"\r", b"data", b"event", b"id", b"retry")
_UNSENDABLE = re.compile(r"[\r\n\0]")


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One server-sent event as it stood on the wire.

    Attributes:
        event: Its type; ``"message"`` when the wire gave none or an empty one.
        data: Its data lines, joined by LF.
        id: The last event id at that point, which may come from an earlier event; ``""`` when there was none.
    """

    event: str = "message"
    data: str = ""
    id: str = ""


def _maximum_of(decoder: Decoder) -> int:
    return sys.maxsize if decoder.max_event_bytes is None else decoder.max_event_bytes


@final
@attrs.define(eq=False)
class Decoder:
    r"""Decode one body, cut into chunks anywhere, into frames.

    A frame is out with the byte that ends its blank line: a CR ends a line at once, and an LF right after it is
    swallowed. Bytes that are not UTF-8 become U+FFFD. Every chunking of a body gives the same frames, and fails after
    the same one.

    A caller may read canonical blocks itself while `idle` is true, and come back at the end of any block. The first
    bytes that the decoder is given settle whether the body starts with a byte order mark, so it must get them if they
    are one; a caller that has read them itself feeds ``b"\n"`` first, a blank line, which changes nothing else.

    A decoder belongs to one body, and to one thread at a time.

    Attributes:
        max_event_bytes: What the data of the event under way and the line under way may take together; None for no
            limit. Complete lines without data do not add up.
        error_field: Whether a block with a field ``error`` and no data is an event of that name, which the standard
            ignores: some servers report their failures so.
        retry: The reconnection time that the server last asked for, in ms, or None.
        last_event_id: The id to reconnect with: the last one that was followed by a blank line.
        error: Why decoding has stopped, or None. Frames before an event that is too large are still returned; the call
            that has none to return raises the error, and so does every later one.

    >>> Decoder().feed(b"event: ping\ndata: {}\n\ndata: ...")
    [Frame(event='ping', data='{}', id='')]
    """

    max_event_bytes: int | None = attrs.field(default=MAX_EVENT_BYTES, kw_only=True)
    error_field: bool = attrs.field(default=False, kw_only=True)
    retry: int | None = attrs.field(default=None, init=False)
    last_event_id: str = attrs.field(default="", init=False)
    error: LimitExceeded | None = attrs.field(default=None, init=False)
    _maximum: int = attrs.field(init=False, repr=False, default=attrs.Factory(_maximum_of, takes_self=True))
    _start: bytes | None = attrs.field(default=b"", init=False, repr=False)  # what may become a BOM; None when settled
    _after_cr: bool = attrs.field(default=False, init=False, repr=False)  # an LF that comes next belongs to this CR
    _between: bool = attrs.field(default=True, init=False, repr=False)  # no complete line since the last blank one
    _line: bytearray = attrs.field(factory=bytearray, init=False, repr=False)  # the line under way
    _event: str = attrs.field(default="", init=False, repr=False)  # this and the next two: the buffers of the standard
    _data: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _id: str = attrs.field(default="", init=False, repr=False)
    _fault: bytes = attrs.field(default=b"", init=False, repr=False)  # the value of a field `error`

    @property
    def idle(self) -> bool:
        """Whether a block could start here: none is under way, no byte is held back, nothing has failed."""
        return self._between and not (self._line or self._after_cr or self._start or self.error)

    @property
    def unfinished(self) -> Frame | None:
        """The event under way, as if the line under way and then the block ended here; None if that makes no event.

        At the end of a body the standard throws it away; here the caller decides.
        """
        ending = copy(self)
        ending._line, ending._data, ending.error = self._line[:], self._data[:], None
        return next(iter(ending._feed(b"\n\n")), None)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes of the body and return the frames that they complete.

        Raises:
            LimitExceeded: An event is larger than `max_event_bytes`; where frames came before it, they are returned
                first, and the next call raises.
            UsageError: *data* is no bytes.
        """
        if self.error is not None:
            raise self.error
        if not isinstance(data, bytes):
            if not isinstance(data, bytearray | memoryview):
                raise UsageError(
                    f"the body of a stream is bytes, not {type(data).__name__}: encode text, give bytes as a list"
                )
            data = bytes(data)
        if len(data) <= _PIECE:
            frames = self._feed(data)
        else:
            pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
            frames = [frame for piece in pieces if self.error is None for frame in self._feed(piece)]
        if self.error is not None and not frames:
            raise self.error
        return frames

    def _feed(self, data: bytes) -> list[Frame]:
        """The frames that *data* complete, and what stopped that in `error`."""
        if self._start is not None or self._after_cr or _CR in data:
            data = self._normalize(data)
        frames: list[Frame] = []
        room = self._maximum - len(b"event: ")  # a block with no more than that has no line over the limit
        try:
            if self._line:
                if _LF not in data:
                    self._hold(data)
                    return frames
                data = bytes(self._line) + data
                self._line.clear()
            for event, text, line in _SCAN(data):
                if line:
                    self._read(line, frames)
                elif self._between and len(event) + len(text) <= room:
                    name = event.decode("utf-8", "replace") if event else "message"
                    frames.append(Frame(name, text.decode("utf-8", "replace"), self._id))
                else:  # a block that goes on or is too large
                    if event:
                        self._read(b"event: " + event + b"\n", frames)
                    self._read(b"data: " + text + b"\n", frames)
                    self._read(b"\n", frames)
        except LimitExceeded as error:
            self.error = error.with_traceback(None)
            self._line.clear()
        return frames

    def close(self) -> list[Frame]:
        """Say that the body has ended. No frame comes of it: what has not ended is in `unfinished`.

        Raises:
            LimitExceeded: An earlier call met an event larger than `max_event_bytes`.
        """
        if self.error is not None:
            raise self.error
        return []

    def restart(self) -> None:
        """Another body takes the place of one that was cut: what had not ended is thrown away, the ids stay.

        So does the standard on a reconnection.
        """
        self._start, self._after_cr, self._between, self._event, self._fault = b"", False, True, "", b""
        self._line.clear()
        self._data.clear()
        self._id = self.last_event_id

    def _normalize(self, data: bytes) -> bytes:
        """Take the byte order mark off *data* and make its line ends LF, also where a chunk ends inside of one."""
        if self._start is not None:
            data = self._start + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._start = data
                return b""
            self._start = None
            data = data.removeprefix(_BOM)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if _CR in data:
            self._after_cr = data[-1] == _CR
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _hold(self, data: bytes) -> None:
        """Keep *data*, which goes on with the line under way without ending it."""
        seen = len(self._data) + len(self._line) + len(data)
        if seen > self._maximum:
            raise LimitExceeded(limit="event_bytes", maximum=self._maximum, seen=seen)
        self._line += data

    def _read(self, line: bytes, frames: list[Frame]) -> None:
        """Read one *line*, and append to *frames* the event that it ends."""
        if line == b"\n":
            self.last_event_id = self._id
            if self._data:
                del self._data[-1]
                frames.append(Frame(self._event or "message", self._data.decode("utf-8", "replace"), self._id))
                self._data.clear()
            elif self._fault:
                frames.append(Frame("error", self._fault.decode("utf-8", "replace"), self._id))
            self._event, self._fault = "", b""
            self._between = True
            return
        if line[-1] != _LF:
            self._hold(line)
            return
        self._between = False
        seen = len(self._data) + len(line) - 1
        if seen > self._maximum:
            raise LimitExceeded(limit="event_bytes", maximum=self._maximum, seen=seen)
        name, _, value = line[:-1].partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data += value
            self._data += b"\n"
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and 0 not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"error" and self.error_field:
            self._fault = value
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:  # of bytes: ASCII digits only
            self.retry = int(value)


def decode(chunks: Iterable[bytes], *, max_event_bytes: int | None = MAX_EVENT_BYTES) -> Iterator[Frame]:
    """Decode the *chunks* of one body lazily: its frames are out before the next chunk is pulled.

    Raises:
        LimitExceeded: An event is larger than *max_event_bytes*; the frames before it come first.
    """
    decoder = Decoder(max_event_bytes=max_event_bytes)
    for chunk in chunks:
        yield from decoder.feed(chunk)
        if decoder.error is not None:
            raise decoder.error


async def adecode(
    chunks: AsyncIterable[bytes], *, max_event_bytes: int | None = MAX_EVENT_BYTES
) -> AsyncIterator[Frame]:
    """Decode the *chunks* of one body lazily, as `decode` does."""
    decoder = Decoder(max_event_bytes=max_event_bytes)
    async for chunk in chunks:
        for frame in decoder.feed(chunk):
            yield frame
        if decoder.error is not None:
            raise decoder.error


def plausible(head: bytes) -> bool:
    """Whether a body that begins with *head* may be an event stream: it begins with a field, a comment or a blank line.

    The standard takes any bytes and ignores the lines that it does not know; a page of HTML or an error in JSON is
    better called by its name.

    >>> plausible(b"data: x"), plausible(b"ev"), plausible(b"<html>")
    (True, True, False)
    """
    return any(head.startswith(start[: len(head)]) for start in _STARTS)


def encode(
    *,
    event: str | None = None,
    data: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    r"""Write one block, ended by a blank line. It is an event if there is *data*, which may be ``""``.

    CRLF and CR in *data* arrive as LF, for the format has but one line end inside data. An empty *event* is none; an
    empty *id* resets the last event id of the reader; *retry* is in ms.

    Raises:
        UsageError: Something that is no text; a line end or NUL in *event*, *id* or *comment*; a lone surrogate; a
            *retry* that no reader takes.

    >>> encode(event="ping", data="{}")
    b'event: ping\ndata: {}\n\n'
    """
    for name, value in (("event", event), ("id", id), ("comment", comment), ("data", data)):
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} takes text, not {type(value).__name__}: make a str of it first")
        if name != "data" and value and _UNSENDABLE.search(value):
            raise UsageError(f"{name} '{excerpt(value)}' has a line end or NUL in it: take it out, or send it as data")
    if retry is not None and not (type(retry) is int and 0 <= retry < 10**_RETRY_DIGITS):
        raise UsageError(f"retry is {excerpt(repr(retry))}: give whole milliseconds, an int below 10**{_RETRY_DIGITS}")
    lines = [("", comment), ("id", id), ("retry", None if retry is None else str(retry)), ("event", event or None)]
    if data is not None:
        lines += [("data", line) for line in _LINE_END.split(data)]
    block = "".join(f"{name}: {value}\n" if value else f"{name}:\n" for name, value in lines if value is not None)
    try:
        return f"{block}\n".encode()
    except UnicodeEncodeError as error:
        where = excerpt(block[max(0, error.start - 20) : error.end + 20])
        raise UsageError(f"a lone surrogate in '{where}' cannot be sent as UTF-8: replace it first") from error
