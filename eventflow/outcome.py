"""`Outcome`: how a run stands, and how it ends; `Position`: how far it has come. Pure; the table of statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from eventflow.errors import APIStreamError, EventflowError, StreamInterrupted, StreamTimeout, StreamTruncated
from eventflow.events import (
    ResponseCompleted,
    ResponseFailed,
    ResponseFault,
    ResponseIncomplete,
    StreamError,
)

if TYPE_CHECKING:
    from eventflow.sources import Source

__all__ = ["LINGER", "Outcome", "Position", "Status"]

Status = Literal["running", "completed", "incomplete", "failed", "truncated", "timeout", "cancelled"]

LINGER = 0.2  # seconds: the live API sends response.failed right after an error event; longer nobody need wait

_RETRYABLE = {  # codes and types of OpenAI, Anthropic and gateways after which the same request may succeed
    "429",
    "500",
    "502",
    "503",
    "504",
    "529",
    "api_error",
    "internal_server_error",
    "overloaded",
    "overloaded_error",
    "rate_limit_error",
    "rate_limit_exceeded",
    "server_error",
    "service_unavailable",
    "timeout",
}


class Position(NamedTuple):
    """How far a run has come, for a source that may go on from there.

    Attributes:
        events: Events received.
        progress: Those of them that are more than pings.
        size: Bytes received of the body at hand.
        sequence_number: The highest number of an event, or None.
        response_id: The id of the response, or None.
        last_event_id: The id that the standard has a client reconnect with, ``""`` when there was none.
        retry: Seconds that the server asked to wait before that, or None.
    """

    events: int
    progress: int
    size: int
    sequence_number: int | None
    response_id: str | None
    last_event_id: str
    retry: float | None


class Outcome:
    """The status of one run.

    Attributes:
        status: ``running``, or how the run ended.
        error: What the stream ended with when it did not end well, or None.
        over: Whether the source is done with.
        ended: Whether a terminal event has come.
        linger: After an error event, the seconds that the source may still take for a terminal one; else None.
        source: Where the stream comes from; it knows the server's id of the request.
        source_error: What reading the source raised, or None.
    """

    __slots__ = ("ended", "error", "linger", "over", "source", "source_error", "status")

    def __init__(self) -> None:
        self.status: Status = "running"
        self.error: EventflowError | None = None
        self.over = False
        self.ended = False
        self.linger: float | None = None
        self.source: Source | None = None
        self.source_error: Exception | None = None

    def terminal(self, event: ResponseCompleted | ResponseIncomplete | ResponseFailed) -> None:
        """A terminal event has come: it decides, but for an error event before it."""
        self.linger, self.ended = None, True
        if isinstance(event, ResponseFailed):
            fault = event.response.error or ResponseFault()
            if self.error is None or fault.code or fault.message:
                self.error = self._api_error(fault.message, fault.code, fault.type, fault.param)
            self.status = "failed"
        elif self.error is None:
            self.status = "completed" if isinstance(event, ResponseCompleted) else "incomplete"

    def reported(self, event: StreamError) -> None:
        """An error event has come; a terminal one may follow."""
        if self.error is None:
            self.error = self._api_error(event.message, event.code, event.error_type, event.param, event.status)
            self.status = "failed"
        self.linger = LINGER

    def fail(self, error: EventflowError) -> None:
        """The stream ends with an error of ours; what an error event said before stays."""
        self.over = True
        if self.error is None:
            self.error = error
            self.status = (
                "truncated"
                if isinstance(error, StreamTruncated)
                else "timeout"
                if isinstance(error, StreamTimeout)
                else "failed"
            )

    def source_failed(self, error: Exception, received: int) -> None:
        """Reading the source raised."""
        if isinstance(error, EventflowError):
            self.fail(error)
            return
        interrupted = StreamInterrupted(
            f"the source failed before a terminal event: {type(error).__name__}: {error}; {received} events were "
            "received, the response so far is in .partial"
        )
        interrupted.__cause__ = error
        self.fail(interrupted)

    def left(self, error: BaseException) -> None:
        """A handler raised, or the run was left."""
        self.over = True
        if isinstance(error, Exception):
            self.status = "failed"
        elif self.status not in ("completed", "incomplete"):  # it had ended before
            self.status = "cancelled"

    def cancelled(self) -> None:
        """`Run.cancel` was called; a terminal event that had come before stays."""
        self.over = True
        if self.status == "running" or self.status in ("truncated", "timeout"):
            self.status, self.error = "cancelled", None

    def _api_error(
        self,
        message: str | None,
        code: str | None,
        kind: str | None,
        param: str | None,
        status: int | None = None,
    ) -> APIStreamError:
        error = APIStreamError(
            message or "",
            code=code,
            type=kind,
            param=param,
            request_id=self.source.request_id if self.source is not None else None,
        )
        named = not _RETRYABLE.isdisjoint(word for word in (code, kind) if word)
        error.retryable = named or status in (408, 409, 429) or (status is not None and status >= 500)
        return error
