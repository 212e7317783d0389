"""Every error that leaves the library.

One root, so that ``except EventflowError`` is enough; the class says who can do something about it::

    EventflowError
    ├── UsageError                the caller: a misspelt selector, a source that is none, an async handler in a sync run
    ├── PluginError               a plugin: it does not import, its name is taken, its class is malformed
    ├── ToolError                 a tool: bad definition, a name registered twice
    ├── SlowConsumer              a handler in the background: its queue is full, or it is stuck
    ├── StreamTruncated           the peer: the body ended before a terminal event
    │   └── StreamInterrupted     the transport: the connection was cut, reset or garbled
    │       └── ConnectionFailed  the transport: no answer came at all
    ├── StreamTimeout             the clock: one of our timers ran out
    ├── DecodeError               the peer's bytes: not JSON, not an event, a wrong shape in a field that we fold
    ├── LimitExceeded             the peer's bytes: larger, deeper or more than the limits allow
    ├── SequenceError             the peer's order: events missing or doubled (strict runs only)
    ├── APIStreamError            the peer's API: it reported an error inside the stream
    ├── HTTPStatusError           the peer's API: it answered with an HTTP error instead of a stream
    └── UnexpectedContentType     the peer: it answered with something that is not an event stream

Anything else that leaves ``eventflow`` is an exception of your own handler, a cancellation, or a bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

from eventflow.printable import printable

if TYPE_CHECKING:
    from eventflow.agent import AgentResult
    from eventflow.events import Response
    from eventflow.run import Run
    from eventflow.sse import Frame

__all__ = [
    "APIStreamError",
    "ConnectionFailed",
    "DecodeError",
    "EventflowError",
    "HTTPStatusError",
    "LimitExceeded",
    "Phase",
    "PluginError",
    "SequenceError",
    "SlowConsumer",
    "StreamInterrupted",
    "StreamTimeout",
    "StreamTruncated",
    "ToolError",
    "UnexpectedContentType",
    "UsageError",
    "excerpt",
]

Phase = Literal["connect", "headers", "stream", "decode", "handler", "tool"]
"""Where an error happened: before the answer, in its head, in its body, in its bytes, in a handler, in a tool."""

_EXCERPT = 200  # characters of foreign bytes in a message: enough to recognise a page, too little to flood a log


def excerpt(data: bytes | str, length: int = _EXCERPT) -> str:
    """The start of what somebody else wrote, to be quoted in a message: one line, in ASCII but for a last "…".

    Args:
        data: Text, or bytes, which are taken for UTF-8.
        length: Characters that are shown; control characters and those beyond ASCII are escaped.
    """
    text = data[: length * 4 + 4].decode("utf-8", "replace") if isinstance(data, bytes) else data
    shown = text[:length].encode("unicode_escape").decode("ascii")
    return shown + ("…" if len(text) > length else "")


class EventflowError(Exception):
    """The root of every error of this library.

    Messages and notes may quote what a peer or a model wrote: they are one line each, control characters escaped.

    Attributes:
        message: What happened, where, and what to do: ``str(error)``, but for `APIStreamError`.
        partial: The `Response` as received up to the error, or None when nothing was under way.
        run: The `Run` that ended with this error, or None outside a run.
        result: What an `Agent` had done until then, its `AgentResult`, or None outside an agent.
        retryable: Whether sending the same request again may succeed.
        phase: Where it happened, or None when it has nothing to do with a stream.
    """

    retryable: bool = False
    phase: Phase | None = None

    def __init__(self, message: str = "") -> None:
        message = printable(message)
        super().__init__(message)
        self.message = message
        self.partial: Response | None = None
        self.run: Run | None = None
        self.result: AgentResult | None = None

    def add_note(self, note: str, /) -> None:
        """Say more, on one line."""
        super().add_note(printable(note))

    def __reduce__(self) -> tuple[object, ...]:
        live = ("run", "result")  # a run holds live callables
        state = {name: value for name, value in self.__dict__.items() if name not in live}
        return (_rebuild, (type(self), self.args, state))


def _rebuild(cls: type[EventflowError], args: tuple[object, ...], state: dict[str, object]) -> EventflowError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.run = error.result = None
    error.__dict__.update(state)
    return error


@final
class UsageError(EventflowError):
    """The library was asked for something that cannot be; the message says what to write instead."""


@final
class PluginError(EventflowError):
    """A plugin cannot be loaded, found or defined; the message names it and where it comes from."""


@final
class ToolError(EventflowError):
    """A tool is defined or registered wrongly."""

    phase = "tool"


@final
class SlowConsumer(EventflowError):
    """A handler in the background does not keep up: its queue is full, or it does not go on with what is in it."""

    phase = "handler"


class StreamTruncated(EventflowError):
    """The body ended before a terminal event: what was received is in ``partial``, and it is not the whole answer."""

    retryable = True
    phase: Phase | None = "stream"


class StreamInterrupted(StreamTruncated):
    """The source failed before a terminal event; its own exception is the ``__cause__``."""


@final
class ConnectionFailed(StreamInterrupted):
    """No answer came: there was no connection, or it was cut before the head of the answer."""

    phase: Phase | None = "connect"


@final
class StreamTimeout(EventflowError):
    """One of our timers ran out while waiting for the source.

    Attributes:
        timer: The field of `Timeouts` that it was.
        seconds: Its value.
    """

    retryable = True
    phase: Phase | None = "stream"

    def __init__(self, message: str = "", *, timer: str = "", seconds: float = 0.0) -> None:
        super().__init__(message)
        self.timer = timer
        self.seconds = seconds


@final
class DecodeError(EventflowError):
    """Bytes that cannot be read as an event.

    Attributes:
        frame: The frame as it stood on the wire, or None when the bytes did not even make a frame.
    """

    phase = "decode"

    def __init__(self, message: str = "", *, frame: Frame | None = None) -> None:
        super().__init__(message)
        self.frame = frame


@final
class LimitExceeded(EventflowError):
    """More than `Limits` allows.

    Attributes:
        limit: The field of `Limits` that was reached.
        maximum: Its value.
        seen: What was seen when it was reached, at least *maximum*; in the unit of the limit.
    """

    phase = "decode"

    def __init__(self, message: str = "", *, limit: str = "", maximum: int = 0, seen: int = 0) -> None:
        what = f"{limit} is limited to {maximum:,} and {seen:,} was reached"
        super().__init__(message or f"{what}; raise Limits({limit}=...) if that is expected")
        self.limit = limit
        self.maximum = maximum
        self.seen = seen


@final
class SequenceError(EventflowError):
    """An event is missing or came twice; only a dispatcher made with ``strict=True`` raises it.

    Attributes:
        expected: The sequence number that should have come.
        got: The one that came.
    """

    retryable = True
    phase = "decode"

    def __init__(self, message: str = "", *, expected: int = 0, got: int = 0) -> None:
        super().__init__(message)
        self.expected = expected
        self.got = got


@final
class APIStreamError(EventflowError):
    """The API reported an error inside the stream, in whatever shape; ``str(error)`` says so, and all that it told.

    Attributes:
        message: The API's own text, ``""`` where it gave none.
        code: The API's code (``"rate_limit_exceeded"``), or None.
        type: The API's error type, or None.
        param: The request parameter that the API blames, or None.
        request_id: The ``x-request-id`` of the answer, when the source was an HTTP response.
    """

    phase = "stream"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        type: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
    ) -> None:
        name = " ".join(word for word in (code, f"({type})" if type and type != code else None) if word)
        reason = ": ".join(part for part in (name, message) if part) or "no reason given"
        super().__init__(f"the API reported an error in the stream: {reason}")
        self.message = printable(message)
        self.code = code
        self.type = type
        self.param = param
        self.request_id = request_id


@final
class HTTPStatusError(EventflowError):
    """The server answered with an HTTP error instead of a stream.

    Attributes:
        status: The HTTP status.
        excerpt: The start of the body, control characters escaped.
        request_id: The ``x-request-id`` header, or None.
        retry_after: What ``Retry-After`` asks for, in seconds, or None.
    """

    phase = "headers"

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        excerpt: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.excerpt = excerpt
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = status in (408, 409, 429) or status >= 500


@final
class UnexpectedContentType(EventflowError):
    """The server answered with something that is not an event stream.

    Attributes:
        content_type: The ``Content-Type`` of the answer, ``""`` when it had none.
        excerpt: The start of the body, control characters escaped.
    """

    phase = "headers"

    def __init__(self, message: str = "", *, content_type: str = "", excerpt: str = "") -> None:
        super().__init__(message)
        self.content_type = content_type
        self.excerpt = excerpt
