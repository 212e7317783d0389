"""Server-sent events: bytes in, frames out, and back.

Exactly the format of the WHATWG HTML standard, 9.2.6 (read November 2026), without I/O: `Decoder` takes chunks as they
come and gives `Frame` objects, `decode` and `adecode` do the same lazily for an iterable of chunks, `encode` writes one.

How it works: line ends are made LF and cut off at the last one, and one regular expression then walks over the complete
lines. Its first alternative takes a whole *canonical* block (``event: …``, ``data: …``, blank line; or ``data: …``, blank
line), which is what every LM server sends nearly always; its second takes any single line to the line machine. Both
give the same frames, as a property test proves. An incomplete line waits in a buffer that is searched only once.
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

__all__ = ["MAX_EVENT_BYTES", "Decoder", "Frame", "adecode", "decode", "encode"]

MAX_EVENT_BYTES = 8 * 2**20
"""What one event may take, in bytes: room for 6 MiB of image or sound in base64, the largest that APIs put into one."""

_BOM = b"\xef\xbb\xbf"
_CR = 13  # as a number: `13 in data` takes a tenth of the time of `b"\r" in data`
_PIECE = 2**16  # bytes read at once: 64 KiB of blank lines make 5 MB of matches
_RETRY_DIGITS = 18  # an integer of 64 bits; int() itself refuses some thousand digits
_READ = re.compile(rb"(?:event: (.++)\n)?data: (.*+)\n\n|(.*+\n)").findall  # possessive: backtracking took four times as long
_LINE_END = re.compile(r"\r\n|\r|\n")  # never str.splitlines: it splits at U+2028, U+0085, VT and FF too
_ONE_LINE = re.compile(r"[^\r\n\0]*")


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One server-sent event as it stood on the wire.

    Attributes:
        event: Its type; ``"message"`` when the wire gave none or an empty one.
        data: The data lines, joined by LF.
        id: The last event id when it was dispatched, which may have been set by an earlier event; ``""`` when none was.
    """

    event: str = "message"
    data: str = ""
    id: str = ""


@final
@attrs.define(eq=False)
class Decoder:
    """Decode one body, in chunks cut anywhere, into frames.

    A frame is out with the byte that ends its blank line; in particular, a CR is a line end at once, and an LF right after
    it is then swallowed. Invalid UTF-8 becomes U+FFFD. Any chunking gives the same frames and fails at the same place.

    Who reads canonical frames elsewhere may pass this decoder by while `idle` is true, and come back at any event boundary.
    The first bytes that the decoder sees settle whether the body has a byte order mark: hand it at least the first chunk, or
    ``b"\\n"`` (a blank line, which changes nothing else) when the body does not start with one.

    Belongs to one body and to one thread at a time.

    Attributes:
        max_event_bytes: How many bytes of data the event under way, together with the line under way, may take; None for no
            limit. Lines that are complete and carry no data do not add up, but each counts while it is under way.
        retry: The reconnection time that the server last asked for, in ms, or None.
        last_event_id: The id to reconnect with: of the last block that was ended by a blank line.
        error: Why decoding stopped, or None. The frames in front of an event that is too large are still returned; the next
            call of `feed` or `close`, and each one after it, raises this error.

    >>> Decoder().feed(b"event: ping\\ndata: {}\\n\\ndata: ...")
    [Frame(event='ping', data='{}', id='')]
    """

    max_event_bytes: int | None = attrs.field(default=MAX_EVENT_BYTES, kw_only=True)
    retry: int | None = attrs.field(default=None, init=False)
    last_event_id: str = attrs.field(default="", init=False)
    error: LimitExceeded | None = attrs.field(default=None, init=False)
    _start: bytes | None = attrs.field(default=b"", init=False, repr=False)  # may still become a BOM; None: settled
    _after_cr: bool = attrs.field(default=False, init=False, repr=False)  # an LF that comes next belongs to that CR
    _line: bytearray = attrs.field(factory=bytearray, init=False, repr=False)  # the line under way
    _between: bool = attrs.field(default=True, init=False, repr=False)  # no line since the last blank one
    _event: str = attrs.field(default="", init=False, repr=False)  # the buffers of the standard, under its names
    _data: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _id: str = attrs.field(default="", init=False, repr=False)

    @property
    def idle(self) -> bool:
        """Whether everything fed so far is settled: no byte is held, no block is under way, nothing failed."""
        return self._between and not (self._line or self._after_cr or self._start or self.error)

    @property
    def unfinished(self) -> Frame | None:
        """The event under way, as if its last line and a blank one had come, or None when that makes no event.

        The standard discards it at the end of a body; whether that is right is for the caller to say.
        """
        ending = copy(self)
        ending._line, ending._data, ending.error = self._line[:], self._data[:], None
        return next(iter(ending.feed(b"\n\n")), None)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes of the body and return the frames that they complete.

        Raises:
            LimitExceeded: An earlier call met an event larger than `max_event_bytes`.
        """
        if self.error is not None:
            raise self.error
        if not isinstance(data, bytes):
            data = bytes(memoryview(data))
        if len(data) > _PIECE:
            pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
            return [frame for piece in pieces if self.error is None for frame in self.feed(piece)]
        if self._start is not None:
            data = self._start + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._start = data
                return []
            self._start = None
            data = data.removeprefix(_BOM)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if _CR in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        frames: list[Frame] = []
        try:
            end = data.rfind(b"\n") + 1
            if end:
                lines, data = data[:end], data[end:]
                if self._line:
                    lines = bytes(self._line) + lines
                    self._line.clear()
                self._read(lines, frames)
            if data:
                self._check(len(self._line) + len(data))
                self._line += data
        except LimitExceeded as error:
            self.error = error.with_traceback(None)
            self._line.clear()
        return frames

    def close(self) -> list[Frame]:
        """Say that the body has ended: no frame comes of it, what was under way is in `unfinished`.

        Raises:
            LimitExceeded: The last call met an event larger than `max_event_bytes`.
        """
        if self.error is not None:
            raise self.error
        return []

    def _read(self, lines: bytes, frames: list[Frame]) -> None:
        """Read complete *lines*, all ended by LF."""
        between = self._between
        room = self._maximum() - len(b"event: ")  # a block of that size cannot have a line over the limit
        for event, data, line in _READ(lines):
            if line:
                self._read_line(line[:-1], frames)
                between = line == b"\n"
            elif between and len(event) + len(data) <= room:
                name = event.decode("utf-8", "replace") if event else "message"
                frames.append(Frame(name, data.decode("utf-8", "replace"), self._id))
            else:
                if event:
                    self._read_line(b"event: " + event, frames)
                self._read_line(b"data: " + data, frames)
                self._read_line(b"", frames)
                between = True
        self._between = between

    def _read_line(self, line: bytes, frames: list[Frame]) -> None:
        """Read one *line*, without its end, as 9.2.6 says."""
        self._check(len(line))
        if not line:
            self.last_event_id = self._id
            if self._data:
                del self._data[-1]
                frames.append(Frame(self._event or "message", self._data.decode("utf-8", "replace"), self._id))
            self._event = ""
            self._data.clear()
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data += value
            self._data += b"\n"
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:  # of bytes: ASCII digits only
            self.retry = int(value)

    def _check(self, line: int) -> None:
        """Refuse a line under way of *line* bytes that does not fit beside the data of its event."""
        seen = len(self._data) + line
        if seen > self._maximum():
            raise LimitExceeded(limit="event_bytes", maximum=self._maximum(), seen=seen)

    def _maximum(self) -> int:
        return sys.maxsize if self.max_event_bytes is None else self.max_event_bytes


def decode(chunks: Iterable[bytes], *, max_event_bytes: int | None = MAX_EVENT_BYTES) -> Iterator[Frame]:
    """Decode the *chunks* of one body lazily: a frame is out before the next chunk is pulled.

    Raises:
        LimitExceeded: An event is larger than *max_event_bytes*; the frames in front of it came first.
    """
    decoder = Decoder(max_event_bytes=max_event_bytes)
    for chunk in chunks:
        yield from decoder.feed(chunk)
        if decoder.error is not None:
            raise decoder.error


async def adecode(chunks: AsyncIterable[bytes], *, max_event_bytes: int | None = MAX_EVENT_BYTES) -> AsyncIterator[Frame]:
    """Decode the *chunks* of one body lazily, like `decode`."""
    decoder = Decoder(max_event_bytes=max_event_bytes)
    async for chunk in chunks:
        for frame in decoder.feed(chunk):
            yield frame
        if decoder.error is not None:
            raise decoder.error


def encode(
    *,
    event: str | None = None,
    data: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    r"""Write one block, ended by a blank line; without *data* (``""`` is data) no reader makes an event of it.

    CRLF and CR in *data* arrive as LF: the format has one line end only. An empty *event* is no event, an empty *id* resets
    the reader's last event id, *retry* is in ms.

    Raises:
        UsageError: A line end or NUL in *event*, *id* or *comment*, a lone surrogate, a *retry* that no reader accepts.

    >>> encode(event="ping", data="{}")
    b'event: ping\ndata: {}\n\n'
    """
    for name, value in (("event", event), ("id", id), ("comment", comment)):
        if value and not _ONE_LINE.fullmatch(value):
            raise UsageError(f"{name} {excerpt(value)!r} has a line end or NUL, which no {name} can carry: send it in data")
    if retry is not None:
        if isinstance(retry, bool) or not isinstance(retry, int) or not 0 <= retry < 10**_RETRY_DIGITS:
            raise UsageError(f"retry must be whole milliseconds, an int from 0 to 10**{_RETRY_DIGITS} - 1: got a {retry!r}")
    fields = [("", comment), ("id", id), ("retry", retry), ("event", event or None)]
    fields += [("data", line) for line in ([] if data is None else _LINE_END.split(data))]
    block = "".join(f"{name}:\n" if value == "" else f"{name}: {value}\n" for name, value in fields if value is not None)
    try:
        return (block + "\n").encode()
    except UnicodeEncodeError as error:
        around = excerpt(block[max(error.start - 20, 0) : error.end + 20])
        raise UsageError(f"a lone surrogate, which UTF-8 cannot carry, in '{around}': replace it before sending") from error
