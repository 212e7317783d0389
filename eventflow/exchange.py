"""One call and its answer: sent, retried before its first event, redirected within its origin, resumed after a cut.

The logic is in generators that yield what a face must do (send this, read that page, sleep so long) and are sent what
came of it; the faces are in `driving`.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import time
from collections.abc import Callable, Generator, Mapping
from math import inf
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urljoin, urlsplit

import attrs

from eventflow.errors import (
    ConnectionFailed,
    EventflowError,
    HTTPStatusError,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
    UnexpectedContentType,
    UsageError,
)
from eventflow.events import Response
from eventflow.http import Head, interrupter, shut_down
from eventflow.outcome import Position
from eventflow.request import Call, Secret, Settings, response_path, sendable, timeout_of
from eventflow.schema import parsing
from eventflow.sources import Reopened

__all__ = ["Connection", "Exchange", "Pause", "Read", "Send", "Step", "caused_by", "server_of"]

E = TypeVar("E", bound=EventflowError)

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0  # seconds; doubled from try to try, up to a quarter less by chance
_SHORTEST_RETRY = 0.1  # seconds, however little a stream asks for: "retry: 0" would have us ask without a breath
_RESUMPTIONS = 5  # in a row without a new event: a server that is restarted is back after those pauses, some 15 s
_RETRY_AFTER = 60.0  # seconds that a server may ask to wait; whoever asks for more is told to the caller
_REDIRECTS = 5
_PAGE, _PAGE_SECONDS = 16 * 1024, 10.0  # bytes and seconds of an error page: the excerpt needs a quarter of that


@attrs.frozen
class Send:
    """Send the request; comes to the response, its body unread, and the seconds that it took.

    Attributes:
        request: The request.
        connection: Is told of its connection.
        spent: Seconds of ``Timeouts.total`` that earlier tries and pauses took.
    """

    request: Any = attrs.field(repr=False)
    connection: Connection
    spent: float


@attrs.frozen
class Read:
    """Read the body of an answer, and close it; comes to the body, or raises the error that the answer is.

    Attributes:
        response: The answer.
        maximum: Bytes that the body may have.
        seconds: How long it may take.
        timer: The field of `Timeouts` that says so.
        allowed: Its value.
        head: What judges it, where what was read is wanted though it does not come whole.
    """

    response: Any
    maximum: int
    seconds: float
    timer: str
    allowed: float
    head: Head | None = None


@attrs.frozen
class Pause:
    """Sleep so many seconds; comes to True when the run was cancelled meanwhile."""

    seconds: float


Step: TypeAlias = Send | Read | Pause
Steps: TypeAlias = Generator[Step, Any, Any]


class Exchange:
    """One call, and how often it was tried.

    Attributes:
        call: The call.
        response: The answer, or the newest where there were several.
        waited: Seconds from the request to the head of that.
        spent: Seconds from the first try to the head of that, pauses included.
        wire: Whose frames a stream has.
        limits: What the answer may cost.
        provider: Whose answer it is.
        parse: Makes of a response what the call asked the text to be, or None.
        is_async: Whether the HTTP client is.
    """

    def __init__(self, call: Call, settings: Settings, http: Any, *, is_async: bool) -> None:
        self.call = call
        self.response: Any = None
        self.waited = self.spent = 0.0
        self.wire = settings.wire
        self.limits = settings.limits
        self.provider = settings.provider
        self.parse: Callable[[Response], Response] | None = parsing(call.parsed_as) if call.parsed_as else None
        self.is_async = is_async
        self._settings = settings
        self._build = http.build_request
        self._failures = 0  # in a row: progress forgives them
        self._allowed = settings.max_retries  # of those
        self._progress = 0  # events that were more than pings when the body ended last
        self._rest: Call | None = None  # what was asked for then
        self._began: float | None = time.monotonic()  # until a run counts the time
        self._connection: Connection | None = None  # of the request whose answer is awaited
        self._interrupted = False

    def begin(self) -> Steps:
        """Come to an answer that is no error."""
        return self._answer(self.call)

    def document(self) -> Generator[Step, Any, bytes]:
        """Come to the whole body of an answer that is no stream; retried when it is cut."""
        idle, maximum, total = self.call.timeouts.idle or inf, self.limits.event_bytes, self.call.timeouts.total or inf
        while True:
            response = yield from self.begin()
            try:
                left = total - self._seconds()
                timer = ("idle", idle) if idle <= left else ("total", total)
                size = sys.maxsize if maximum is None else maximum
                body: bytes = yield Read(response, size, min(idle, left), *timer)
                return body
            except StreamTruncated as error:  # what was compressed
                failure: StreamTruncated = error
            except EventflowError:
                raise
            except Exception as error:
                failure = caused_by(StreamInterrupted(f"the answer was cut: {type(error).__name__}: {error}"), error)
            delay = self._delay(failure)
            if delay is None or self._too_long(delay):
                raise failure
            yield Pause(delay)

    def again(self, position: Position, error: Exception | None) -> Generator[Step, Any, Reopened]:
        """The body ended or failed before a terminal event: open it again, where that does no harm.

        Where the call asks for it and the server can do that, the stream is resumed, five times in a row at most
        without progress (an event that is no ping, and another place to go on from), whatever ``max_retries`` says.
        Else the request is sent again, if the connection failed before the first event, as often as ``max_retries``
        allows.
        """
        self._began = None
        timed_out = isinstance(error, StreamTimeout) and error.timer != "total" and self._settings.retry_timeouts
        if isinstance(error, EventflowError) and not timed_out:
            return "no"
        call, how = self._rest_of(position) if self.call.resume else (None, "no")
        self._allowed = self._settings.max_retries if call is None else _RESUMPTIONS
        if call is None and position.events == 0 and error is not None:
            call, how = self.call, "anew"
        if position.progress > self._progress and call != self._rest:  # what would bring the same again is none
            self._failures, self._progress, self._rest = 0, position.progress, call
        delay = self._delay(None) if call is not None else None
        if call is None or delay is None:
            return "no"
        if position.retry is not None and position.retry > _RETRY_AFTER:
            return "no"
        if position.retry is not None:  # asked for by the stream itself
            asked = max(position.retry, _SHORTEST_RETRY)
            delay = asked if self._failures == 1 else max(delay, asked)
        if (yield Pause(delay)):
            return "no"
        try:
            yield from self._answer(call)
        except EventflowError as failure:
            if position.events == 0 or isinstance(failure, StreamTimeout):
                raise
            raise StreamInterrupted(
                f"the stream was cut after {position.events} events and could not be resumed: {failure.message}; the "
                "response so far is in .partial"
            ) from failure
        return how

    def interrupt(self) -> None:
        """Have what is under way fail, and try nothing again. From any thread.

        A request on a connection that was kept cannot be cut before the head of its answer: it ends in its time.
        """
        self._interrupted = True  # before the connection is looked at: one that is made meanwhile looks at this
        connection = self._connection
        if connection is not None:
            connection.cut()
        else:
            interrupter(self.response)()

    def _rest_of(self, position: Position) -> tuple[Call | None, Reopened]:
        """The call that asks for what comes behind *position*, or None where the server cannot be asked."""
        call, server = self.call, str(self.response.headers.get("server") or "")
        if call.conversation is not None and server == "llama.cpp":
            url = self._settings.url("/stream", {"conv_id": call.conversation, "from": position.size})
            return _get(call, url), "on"
        counts = self._settings.provider.name == "responses"  # other numbers are those of our translation
        if position.last_event_id and counts:
            return attrs.evolve(call, headers={**call.headers, "last-event-id": position.last_event_id}), "anew"
        if counts and position.response_id and position.sequence_number is not None:
            query = {"stream": True, "starting_after": position.sequence_number}
            url = self._settings.url(response_path(position.response_id), query)
            return _get(call, url), "anew"
        return None, "no"

    def _answer(self, call: Call) -> Steps:
        redirects, stale = (
            0,
            False,
        )  # no variable has the address, whose query may have a key: a traceback would show it
        while True:
            send = Send(*self._request(call), self._seconds())
            failure: EventflowError | None = None
            response: Any = None
            headers: Any = None
            self._connection = send.connection
            if self._interrupted:
                send.connection.cut()
            try:
                response, self.waited = yield send
                self.response, self.spent = response, self._seconds()
            except EventflowError as error:
                failure = error
            finally:
                self._connection = None  # it may be another request's from here on
            cut = isinstance(failure, ConnectionFailed) and failure.phase == "headers"
            if cut and not (stale or send.connection.fresh or self._interrupted):
                stale = True  # a connection that was kept had been closed by the server: that is no failure yet
                continue
            if failure is None:
                headers = response.headers
                if response.status_code < 300:
                    self._await_body(send.request)
                    return response
                failure = yield from self._refusal(response)
                redirected = self._redirect(call, response)
                if redirected is not None and redirects < _REDIRECTS:
                    call, redirects = redirected, redirects + 1
                    continue
            delay = self._delay(failure, headers)
            if delay is None or self._too_long(delay) or (yield Pause(delay)):
                raise failure

    def _seconds(self) -> float:
        """How much of the time for all of it is spent; of a stream that is under way its run knows."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _too_long(self, delay: float) -> bool:
        """Whether the time for all of it would be over after a pause: then the failure is told at once."""
        total = self.call.timeouts.total
        return total is not None and self._seconds() + delay >= total

    def _refusal(self, response: Any) -> Generator[Step, Any, HTTPStatusError | UnexpectedContentType]:
        head = Head(response, document=True)
        total = self.call.timeouts.total
        seconds = _PAGE_SECONDS if total is None else min(_PAGE_SECONDS, max(0.0, total - self._seconds()))
        with contextlib.suppress(Exception):  # it is the verdict, or its page cannot be read, or not in time
            yield Read(response, _PAGE, seconds, "idle", seconds, head)
        return head.verdict()

    def _request(self, call: Call) -> tuple[Any, Connection]:
        connection, trouble, request = Connection(), "", None
        key = self._settings.key.now() if self._settings.key is not None else None
        try:
            request = self._build(
                call.method,
                call.url,
                headers=call.headers,
                content=call.body,
                timeout=timeout_of(call.timeouts, self._seconds(), is_async=self.is_async),
                extensions={"trace": connection.atrace if self.is_async else connection.trace},
            )
            self._authorize(request, key)
        except Exception as error:
            trouble = type(error).__name__  # its text may show a header
        if trouble:
            raise UsageError(
                f"the request to {server_of(call.url)} has a header or an address that HTTP does not allow ({trouble})"
            )
        return request, connection

    def _await_body(self, request: Any) -> None:
        """From here on our own timers count; the client's is for connections that they cannot cut."""
        timeout = request.extensions.get("timeout")
        if isinstance(timeout, dict):
            extensions = self.response.extensions  # the socket of HTTP/2 is not ours to shut down
            ours = "network_stream" in extensions and extensions.get("http_version") != b"HTTP/2"
            first, idle = self.call.timeouts.first_event, self.call.timeouts.idle
            never = self.is_async or ours or first is None or idle is None
            timeout["read"] = None if never else max(first or 0.0, idle or 0.0)

    def _authorize(self, request: Any, key: Secret | None) -> None:
        """Add the client's headers and its key, which no variable of ours ever holds."""
        taken = {name for name, text in self.call.headers.items() if (name, text) != ("user-agent", "eventflow")}
        request.headers.update(
            {name: text for name, text in self._settings.headers.reveal().items() if name.lower() not in taken}
        )
        always = self._settings.provider.headers(None)
        for name, text in always.items():
            request.headers.setdefault(name, text)
        if key is not None and not any(
            name in request.headers for name in self._settings.provider.headers("") if name not in always
        ):
            request.headers.update(self._settings.provider.headers(key.reveal()))
        if not all(map(sendable, request.headers.values())):  # the HTTP client would show it in its log
            raise ValueError

    def _redirect(self, call: Call, response: Any) -> Call | None:
        """What an answer asks us to ask instead, if we do: within the origin, with the same method and body."""
        location, status = response.headers.get("location"), response.status_code
        keeps = status in (307, 308) or (call.method == "GET" and status in (301, 302, 303))
        if not (self._settings.follow_redirects and location and keeps):
            return None
        try:
            target = urljoin(call.url, location)
            return attrs.evolve(call, url=target) if _origin(target) == _origin(call.url) else None
        except ValueError:  # it is no address
            return None

    def _delay(self, failure: EventflowError | None, headers: Any = None) -> float | None:
        """Seconds until the next try, or None where there is none."""
        advice = str(headers.get("x-should-retry") or "") if headers is not None else ""  # of OpenAI's servers
        if isinstance(failure, StreamTimeout):  # unless the server has not even seen the request
            retryable = self._settings.retry_timeouts or failure.timer == "connect"
        else:
            retryable = advice == "true" if advice else failure is None or failure.retryable
        if not retryable or self._failures >= self._allowed:
            return None
        self._failures += 1
        asked = failure.retry_after if isinstance(failure, HTTPStatusError) else None
        if asked is not None:
            return asked if asked <= _RETRY_AFTER else None
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (self._failures - 1))
        return delay * random.uniform(0.75, 1.0)


def _get(call: Call, url: str) -> Call:
    headers = {name: value for name, value in call.headers.items() if name not in ("content-type", "idempotency-key")}
    return attrs.evolve(call, method="GET", url=url, headers=headers, body=None)


class Connection:
    """Notes whether a request made a connection of its own, and which: httpcore tells its ``trace`` of each step.

    Attributes:
        fresh: Whether it did.
        stream: The one it made, as httpcore has it, until the request is sent on it; else None.
        interrupt: Shuts the one it made down, once it is there.
        status: Of the answer that has come on it, or None.
    """

    def __init__(self) -> None:
        self.fresh = False
        self.stream: Any = None
        self.interrupt: Callable[[], None] | None = None
        self.status: int | None = None
        self._unwanted = False

    def cut(self) -> None:
        """Shut it down now, or as soon as it is there. From any thread."""
        self._unwanted = True
        if self.interrupt is not None:
            self.interrupt()

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """One step."""
        if name == "connection.connect_tcp.started":
            self.fresh = True
        elif name in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.stream = info.get("return_value")
            self.interrupt = functools.partial(shut_down, self.stream)
            if self._unwanted:
                self.interrupt()
        elif not name.startswith("connection."):
            self.stream = None
            if name.endswith(".receive_response_headers.complete"):
                self.status = next((part for part in info.get("return_value") or () if isinstance(part, int)), None)

    async def atrace(self, name: str, info: Mapping[str, Any]) -> None:
        """One step, of the async side."""
        self.trace(name, info)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def server_of(url: str) -> str:
    """The server that an address is of, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def caused_by(failure: E, error: Exception) -> E:
    """*failure* with *error* as its cause, without the frames of the HTTP client, whose variables hold the key."""
    failure.__cause__ = error
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return failure
