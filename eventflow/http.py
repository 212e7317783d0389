"""HTTP answers as sources of bytes: judged by their heads and first bytes, inflated, and cut off when need be.

Answers are taken by their shape (``status_code``, ``headers``, ``iter_raw``/``aiter_raw``), so that httpx, httpx2 and
whatever has their interface serve alike; no HTTP library is imported here. Bytes are read raw, as they come, and what
is compressed all the same is inflated here, with a bound.
"""

from __future__ import annotations

import contextlib
import functools
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from eventflow.errors import (
    DecodeError,
    HTTPStatusError,
    StreamTruncated,
    UnexpectedContentType,
    UsageError,
    excerpt,
)
from eventflow.json_array import begins_array
from eventflow.sse import plausible
from eventflow.waiting import wholly

__all__ = [
    "Head",
    "abody_of",
    "body_at_hand",
    "body_of",
    "check_unread",
    "close_wholly",
    "interrupter",
    "is_response",
    "refusal_of",
    "shut_down",
    "slices",
]

_CHUNK = 64 * 1024  # bytes given out at once
_GZIP = b"\x1f\x8b"  # what every member of gzip begins with
_EXCERPT = 4096  # bytes of an error page that are read


def is_response(source: Any) -> bool:
    """Whether *source* has the interface of an httpx response."""
    return all(hasattr(source, name) for name in ("status_code", "headers")) and (
        hasattr(source, "iter_raw") or hasattr(source, "aiter_raw")
    )


def body_at_hand(response: Any) -> bytes | None:
    """The body of a response that was read before it came here, already inflated; else None."""
    try:
        body = response.content
    except Exception:  # httpx.ResponseNotRead, which is not imported here: the body is still to be read
        return None
    return body if isinstance(body, bytes) else None


def check_unread(response: Any, *, also_closed: bool = True) -> None:
    """Raise `UsageError` for a response that has nothing more to give: it was read, or closed, before it came here."""
    read = getattr(response, "is_stream_consumed", False)
    if read or (also_closed and getattr(response, "is_closed", False)):
        raise UsageError(
            f"the response was {'read' if read else 'closed'} already, and nothing of it is left; a response is good "
            "for one run, so send the request again, or read() it first to run over it more than once"
        )


def body_of(
    response: Any, body: bytes | None = None, *, document: bool = False, head: Head | None = None
) -> Iterator[bytes]:
    """The bytes of a response as they come, unpacked.

    Args:
        response: A sync response, or any whose *body* is at hand.
        body: What `body_at_hand` gave.
        document: Take any kind of body, not an event stream only.
        head: What judges it, for whoever wants to know what was read when that fails; *document* goes for nothing then.

    Raises:
        HTTPStatusError: The server answered with an error; as much of its page was read as the excerpt shows.
        UnexpectedContentType: It is no event stream.
        DecodeError: What is compressed cannot be unpacked.
        StreamTruncated: What is compressed was cut off.
        UsageError: The response was read or closed already.
    """
    if body is None:
        check_unread(response)  # it may have been read since it was opened
    judge = head or Head(response, document=document)
    chunks = iter(response.iter_raw() if body is None else slices(body))
    for raw in chunks:
        yield from judge.feed(raw, inflated=body is not None)
        if judge.decided:
            raise judge.verdict()
        if judge.satisfied:
            yield from chunks
            return
    yield from judge.end()


async def abody_of(
    response: Any, body: bytes | None = None, *, document: bool = False, head: Head | None = None
) -> AsyncGenerator[bytes, None]:
    """`body_of`, async."""
    judge = head or Head(response, document=document)
    if body is not None:
        for chunk in body_of(response, body, head=judge):
            yield chunk
        return
    check_unread(response)
    async with contextlib.aclosing(response.aiter_raw()) as raws:
        satisfied = False
        async for raw in raws:
            if satisfied:
                yield raw
                continue
            for chunk in judge.feed(raw):
                yield chunk
            if judge.decided:
                raise judge.verdict()
            satisfied = judge.satisfied
    for chunk in judge.end():
        yield chunk


def close_wholly(response: Any) -> None:
    """Have a response let go of its connection, though the task that closes it or reads its end is cancelled then.

    What httpcore (1.0) does to that end may be interrupted: its pool keeps the open connection, and never uses it.
    """
    stream: Any = getattr(response, "stream", None)
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        with contextlib.suppress(AttributeError):  # a stream of somebody else's, who knows
            stream.aclose = functools.partial(wholly, aclose)


def refusal_of(response: Any) -> HTTPStatusError | UnexpectedContentType:
    """The error that an answer is whose body was read already, or cannot be."""
    judge = Head(response, document=False)
    for _ in judge.feed((body_at_hand(response) or b"")[:_EXCERPT], inflated=True):
        pass  # it has begun like a stream, which does not matter now
    return judge.verdict()


class Head:
    """Judges an answer by its head and first bytes, and inflates its body. Sans-IO."""

    def __init__(self, response: Any, *, document: bool) -> None:
        headers = response.headers
        self.excerptible = True
        self.status = int(response.status_code)
        self.content_type = str(headers.get("content-type") or "")
        self.request_id = headers.get("x-request-id")
        self.retry_after = headers.get("retry-after")
        self.retry_after_ms = headers.get("retry-after-ms")
        try:
            self._inflate = _Inflater(str(headers.get("content-encoding") or ""))
        except DecodeError:
            if self.status < 300:
                raise
            self._inflate = _Inflater("")  # an error is an error, though its page cannot be read
            self.excerptible = False
        self._held = b""  # the start of a body that is under suspicion
        declared = self.content_type.partition(";")[0].strip().lower() == "text/event-stream"
        self._trusted = self.status < 300 and (declared or document)
        self.decided = False

    @property
    def satisfied(self) -> bool:
        """Whether the rest of the body can go by: it is a stream, and not compressed."""
        return self._trusted and self._inflate.plain

    def feed(self, raw: bytes, *, inflated: bool = False) -> Iterator[bytes]:
        """The body's next bytes; nothing while it is under suspicion."""
        for chunk in (raw,) if inflated else self._inflate.feed(raw):
            if self._trusted:
                yield chunk
                continue
            self._held += chunk
            if self.status < 300 and (begins_array(self._held) or (plausible(self._held) and len(self._held) >= 6)):
                self._trusted = True
                yield self._held
            elif len(self._held) >= _EXCERPT:
                self.decided = True
                return

    def end(self) -> Iterator[bytes]:
        """The body has ended: its last bytes, or the verdict on one that was no stream."""
        self._inflate.close()
        if not self._trusted:
            if self.status < 300 and self._held and plausible(self._held):
                yield self._held
                return
            raise self.verdict()

    def verdict(self) -> HTTPStatusError | UnexpectedContentType:
        """The error that this answer is."""
        if not self.excerptible:
            self._held = b""
        shown = excerpt(self._held[:_EXCERPT], _EXCERPT)
        if self.status >= 300:
            page = excerpt(self._held) or "a page that is empty or cannot be read"
            return HTTPStatusError(
                f"the server answered HTTP {self.status} with {page}",
                status=self.status,
                excerpt=shown,
                request_id=self.request_id,
                retry_after=self._retry_seconds(),
            )
        what = self.content_type or "no content type"
        return UnexpectedContentType(
            f"the server answered HTTP {self.status} with {what}, not text/event-stream; was stream=true asked for, is "
            f"the address right? It begins with {excerpt(self._held)!r}",
            content_type=self.content_type,
            excerpt=shown,
        )

    def _retry_seconds(self) -> float | None:
        """What the server asks for, in seconds or milliseconds or as a date."""
        for value, scale in ((self.retry_after_ms, 1000.0), (self.retry_after, 1.0)):
            try:
                if value is not None and float(value) >= 0:
                    return float(value) / scale
            except ValueError:
                continue
        if self.retry_after is None:
            return None
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(self.retry_after).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None


class _Inflater:
    """Bounded inflating of gzip and deflate: at most 64 KiB are unpacked at once, however much a byte may mean."""

    def __init__(self, encoding: str) -> None:
        names = [name.strip().lower() for name in encoding.split(",") if name.strip().lower() not in ("", "identity")]
        self._engine: Any = None
        self._held: bytes = b""  # a first byte that alone does not tell what it begins
        self._gzip = False  # whether another member may come
        self._compressed = bool(names)
        if not names:
            return
        if names not in (["gzip"], ["x-gzip"], ["deflate"]):
            raise DecodeError(
                f"the body is compressed with {encoding!r}, which is not read here; send the header "
                "Accept-Encoding: identity with the request"
            )
        self._gzip = names != ["deflate"]
        if self._gzip:
            self._engine = zlib.decompressobj(47)

    @property
    def plain(self) -> bool:
        """Whether there is nothing to unpack."""
        return not self._compressed

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """The unpacked bytes, in bounded pieces."""
        if not self._compressed:
            if raw:
                yield raw
            return
        if self._engine is None:
            raw = self._held = self._held + raw
            if len(raw) < 2:
                return
            headed = raw[0] & 15 == 8 and int.from_bytes(raw[:2], "big") % 31 == 0  # RFC 1950; some send none
            self._held, self._engine = b"", zlib.decompressobj(15 if headed else -15)
        for piece in slices(raw):  # what is left of one is copied for every member in it
            yield from self._members(piece)

    def _members(self, raw: bytes) -> Iterator[bytes]:
        """The next bytes, unpacked; a body of gzip may be several of them, one behind the other (RFC 1952)."""
        while True:
            if self._engine.eof:
                raw = self._held + raw
                self._gzip = self._gzip and _GZIP.startswith(raw[:2])
                self._held = raw[:2] if self._gzip else b""
                if self._held != _GZIP:  # none, or not yet enough of it to be told from what some servers add
                    return
                self._held, self._engine = b"", zlib.decompressobj(31)
            before = self._engine.copy()
            try:
                chunk = self._engine.decompress(raw, _CHUNK)
            except zlib.error as error:
                yield _before_fault(before, raw)
                raise DecodeError(f"the compressed body is corrupt: {error}") from error
            if chunk:
                yield chunk
            raw = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
            if not (raw or (len(chunk) == _CHUNK and not self._engine.eof)):  # a full piece: there may be more of it
                return

    def close(self) -> None:
        """The body has ended; raises `StreamTruncated` where the compressed data is cut off."""
        if self._held or (self._engine is not None and not self._engine.eof):
            raise StreamTruncated("the compressed body was cut off before its end")


def _before_fault(engine: Any, raw: bytes) -> bytes:
    """What *raw* means up to where it is corrupt: zlib gives nothing of a piece that has a fault in it."""
    pieces: list[bytes] = []
    with contextlib.suppress(zlib.error):
        for place in range(len(raw)):
            pieces.append(engine.decompress(raw[place : place + 1], _CHUNK))
    return b"".join(pieces)


def interrupter(response: Any) -> Callable[[], None]:
    """Shuts the response's socket down, which ends a read in another thread; found when it is needed.

    Nothing where the response is closed: its connection may be another request's by now.
    """

    def interrupt() -> None:
        extensions = getattr(response, "extensions", {})
        shared = extensions.get("http_version") == b"HTTP/2"  # with other streams
        if not (shared or getattr(response, "is_closed", False)):
            shut_down(extensions.get("network_stream"))

    return interrupt


def shut_down(network_stream: Any) -> None:
    """Shut the socket of a connection of httpcore's down; nothing where there is none."""
    import socket

    connection = network_stream.get_extra_info("socket") if network_stream is not None else None
    if isinstance(connection, socket.socket):
        with contextlib.suppress(OSError):  # it is gone already
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the plain one: an SSL socket's own is not safe


def slices(data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """*data* in chunks of at most 64 KiB."""
    if isinstance(data, bytes) and len(data) <= _CHUNK:
        yield data
        return
    view = memoryview(data).cast("B")
    for start in range(0, len(view), _CHUNK):
        yield bytes(view[start : start + _CHUNK])
