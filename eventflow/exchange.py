"""One call and its answer: sent, retried before its first event, redirected within its origin, resumed after a cut.

The logic is in generators that yield what a face must do (send this, read that page, sleep so long) and are sent what
came of it; `drive` and `adrive` are the faces. An HTTP client is taken by its shape (``build_request``, ``send``).
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from math import inf
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urljoin, urlsplit

import attrs

from eventflow.errors import (
    ConnectionFailed,
    EventflowError,
    HTTPStatusError,
    LimitExceeded,
    Phase,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
    UnexpectedContentType,
    UsageError,
)
from eventflow.events import Response
from eventflow.http import abody_of, body_at_hand, body_of, interrupter, refusal_of, shut_down
from eventflow.outcome import Position
from eventflow.reading import Interruptible, Watchdog
from eventflow.request import Call, Secret, Settings, head_seconds, response_path, sendable, timeout_of
from eventflow.schema import parsing
from eventflow.sources import Reopened, Source, open_source
from eventflow.waiting import Interrupted, Waiter, shielded, sleep, waiter

__all__ = ["Exchange", "adrive", "astream_source", "drive", "stream_source"]

E = TypeVar("E", bound=EventflowError)
T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0  # seconds; doubled from try to try, up to a quarter less by chance
_RETRY_AFTER = 60.0  # seconds that a server may ask to wait; whoever asks for more is told to the caller
_REDIRECTS = 5
_PAGE, _PAGE_SECONDS = 16 * 1024, 10.0  # bytes and seconds of an error page: the excerpt needs a quarter of that


@attrs.frozen
class Send:
    """Send the request; comes to the response, its body unread, and the seconds that it took."""

    request: Any = attrs.field(repr=False)
    connection: _Connection


@attrs.frozen
class Read:
    """Read the body of an answer, and close it; comes to the body, or raises the error that the answer is.

    Attributes:
        response: The answer.
        maximum: Bytes that the body may have.
        seconds: How long it may take.
    """

    response: Any
    maximum: int
    seconds: float


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
        wire: Whose frames a stream has.
        limits: What the answer may cost.
        provider: Whose answer it is.
        parse: Makes of a response what the call asked the text to be, or None.
    """

    def __init__(self, call: Call, settings: Settings, http: Any, *, is_async: bool) -> None:
        self.call = call
        self.response: Any = None
        self.waited = 0.0
        self.wire = settings.wire
        self.limits = settings.limits
        self.provider = settings.provider
        self.parse: Callable[[Response], Response] | None = parsing(call.parsed_as) if call.parsed_as else None
        self._settings = settings
        self._build = http.build_request
        self._is_async = is_async
        self._failures = 0  # in a row: a new event forgives them
        self._events = 0

    def begin(self) -> Steps:
        """Come to an answer that is no error."""
        return self._answer(self.call)

    def document(self) -> Generator[Step, Any, bytes]:
        """Come to the whole body of an answer that is no stream; retried when it is cut."""
        idle, maximum = self.call.timeouts.idle, self.limits.event_bytes
        while True:
            response = yield from self.begin()
            try:
                body: bytes = yield Read(response, sys.maxsize if maximum is None else maximum, idle or inf)
                return body
            except StreamTruncated as error:  # what was compressed
                failure: StreamTruncated = error
            except EventflowError:
                raise
            except Exception as error:
                failure = _caused(StreamInterrupted(f"the answer was cut: {type(error).__name__}: {error}"), error)
            delay = self._delay(failure)
            if delay is None:
                raise failure
            yield Pause(delay)

    def again(self, position: Position, error: Exception | None) -> Generator[Step, Any, Reopened]:
        """The body ended or failed before a terminal event: open it again, where that does no harm.

        Before the first event the request is sent again, if the connection failed; later a stream is resumed where the
        server can do that.
        """
        timed_out = isinstance(error, StreamTimeout) and error.timer != "total" and self._settings.retry_timeouts
        if isinstance(error, EventflowError) and not timed_out:
            return "no"
        call, how = self._rest_of(position) if self.call.resume else (None, "no")
        if call is None and position.events == 0 and error is not None:
            call, how = self.call, "anew"
        if position.events > self._events:
            self._failures, self._events = 0, position.events
        delay = self._delay(None) if call is not None else None
        if call is None or delay is None:
            return "no"
        if position.retry is not None and position.retry > _RETRY_AFTER:
            return "no"
        if position.retry is not None:  # asked for by the stream itself
            delay = position.retry if self._failures == 1 else max(delay, position.retry)
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
        url, redirects, stale = call.url, 0, False
        while True:
            request, connection = self._request(call, url)
            failure: EventflowError | None = None
            response: Any = None
            headers: Any = None
            try:
                response, self.waited = yield Send(request, connection)
            except EventflowError as error:
                failure = error
            cut = isinstance(failure, ConnectionFailed) and failure.phase == "headers"
            if cut and not (stale or connection.fresh):
                stale = True  # a connection that was kept had been closed by the server: that is no failure yet
                continue
            if failure is None:
                self.response, headers = response, response.headers
                if response.status_code < 300:
                    self._await_body(request)
                    return response
                failure = yield from self._refusal(response)
                target = self._redirect(call, url, response)
                if target is not None and redirects < _REDIRECTS:
                    url, redirects = target, redirects + 1
                    continue
            delay = self._delay(failure, headers)
            if delay is None or (yield Pause(delay)):
                raise failure

    def _refusal(self, response: Any) -> Generator[Step, Any, HTTPStatusError | UnexpectedContentType]:
        try:
            yield Read(response, _PAGE, _PAGE_SECONDS)
        except HTTPStatusError as error:
            return error
        except Exception:  # its page cannot be read, or not in time: the status says enough
            return refusal_of(response)
        return refusal_of(response)

    def _request(self, call: Call, url: str) -> tuple[Any, _Connection]:
        connection, trouble, request = _Connection(), "", None
        key = self._settings.key.now() if self._settings.key is not None else None
        try:
            request = self._build(
                call.method,
                url,
                headers=call.headers,
                content=call.body,
                timeout=timeout_of(call.timeouts, is_async=self._is_async),
                extensions={"trace": connection.atrace if self._is_async else connection.trace},
            )
            self._authorize(request, key)
        except Exception as error:
            trouble = type(error).__name__  # its text may show a header
        if trouble:
            raise UsageError(
                f"the request to {_server(url)} has a header or an address that HTTP does not allow ({trouble})"
            )
        return request, connection

    def _await_body(self, request: Any) -> None:
        """From here on our own timers count; the client's is for connections that they cannot cut."""
        timeout = request.extensions.get("timeout")
        if isinstance(timeout, dict):
            extensions = self.response.extensions  # the socket of HTTP/2 is not ours to shut down
            ours = "network_stream" in extensions and extensions.get("http_version") != b"HTTP/2"
            first, idle = self.call.timeouts.first_event, self.call.timeouts.idle
            never = self._is_async or ours or first is None or idle is None
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

    def _redirect(self, call: Call, url: str, response: Any) -> str | None:
        """Where an answer sends us, if we follow: within the origin, with the same method and body."""
        location, status = response.headers.get("location"), response.status_code
        keeps = status in (307, 308) or (call.method == "GET" and status in (301, 302, 303))
        if not (self._settings.follow_redirects and location and keeps):
            return None
        try:
            target = urljoin(url, location)
            return target if _origin(target) == _origin(url) else None
        except ValueError:  # it is no address
            return None

    def _delay(self, failure: EventflowError | None, headers: Any = None) -> float | None:
        """Seconds until the next try, or None where there is none."""
        advice = str(headers.get("x-should-retry") or "") if headers is not None else ""  # of OpenAI's servers
        if isinstance(failure, StreamTimeout):  # unless the server has not even seen the request
            retryable = self._settings.retry_timeouts or failure.timer == "connect"
        else:
            retryable = advice == "true" if advice else failure is None or failure.retryable
        if not retryable or self._failures >= self._settings.max_retries:
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


class _Connection:
    """Notes whether a request made a connection of its own, and which: httpcore tells its ``trace`` of each step.

    Attributes:
        fresh: Whether it did.
        interrupt: Shuts it down, once it is there.
    """

    def __init__(self) -> None:
        self.fresh = False
        self.interrupt: Callable[[], None] | None = None

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """One step."""
        if name == "connection.connect_tcp.started":
            self.fresh = True
        elif name in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.interrupt = functools.partial(shut_down, info.get("return_value"))

    async def atrace(self, name: str, info: Mapping[str, Any]) -> None:
        """One step, of the async side."""
        self.trace(name, info)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


# --- failures --------------------------------------------------------------------------------------------------------


def _explained(error: Exception, call: Call) -> Exception:
    """Our error in the place of what an HTTP client raised in the place of an answer; itself where it is none of HTTP.

    By the names of httpx's classes: httpx2 has classes of its own under the same names.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    cause = error.__cause__
    if names & {"LocalProtocolError", "InvalidURL", "UnsupportedProtocol"} or type(error) is ValueError:
        # whose texts may show a header; aiohttp raises a plain ValueError
        return UsageError(f"the request to {_server(call.url)} has a header or an address that HTTP does not allow")
    if isinstance(error, RuntimeError) and "closed" in str(error):
        return UsageError("the HTTP client is closed; make a new one")
    # httpx-aiohttp (0.2) says timeout where aiohttp says that the server has disconnected
    disconnected = _of_aiohttp(cause) and not isinstance(cause, TimeoutError)
    if "TimeoutException" in names and not disconnected:
        if names & {"ConnectTimeout", "PoolTimeout"}:
            what = f"there was no connection to {_server(call.url)}"
            return _caused(_timeout("connect", what, call.timeouts.connect, "connect"), error)
        return _caused(head_timeout(call), error)
    if names & {"TransportError", "OSError", "ClientError"}:
        failure = ConnectionFailed(f"no answer came from {_server(call.url)}: {type(error).__name__}: {error}")
        refused = names & {"ConnectError", "ProxyError"} or type(cause).__name__.startswith("ClientConnector")
        failure.phase = "connect" if refused else "headers"
        return failure if _of_aiohttp(cause or error) else _caused(failure, error)  # aiohttp's show the headers
    return error


def _of_aiohttp(error: BaseException | None) -> bool:
    return error is not None and type(error).__module__.startswith("aiohttp")


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def head_timeout(call: Call) -> StreamTimeout:
    """The error of an answer whose head did not come."""
    timer, seconds = head_seconds(call.timeouts)
    return _timeout(timer, f"no answer came from {_server(call.url)}", seconds, "headers")


def _timeout(timer: str, what: str, seconds: float | None, phase: Phase) -> StreamTimeout:
    within = "in time" if seconds is None else f"within {seconds:g} s"
    error = StreamTimeout(
        f"{what} {within}; raise Timeouts({timer}=...) if it needs more", timer=timer, seconds=seconds or 0.0
    )
    error.phase = phase
    return error


def _caused(failure: E, error: Exception) -> E:
    """*failure* with *error* as its cause, without the frames of the HTTP client, whose variables hold the key."""
    failure.__cause__ = error
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return failure


# --- the faces -------------------------------------------------------------------------------------------------------


def drive(steps: Generator[Step, Any, T], http: Any, call: Call, pause: Callable[[float], object] = time.sleep) -> T:
    """Do what *steps* ask for, with a sync HTTP client; *pause* sleeps, and is true when that was cut short."""
    send: Any = steps.send
    value: Any = None
    try:
        while True:
            step: Step = send(value)
            send, value = steps.send, None
            try:
                match step:
                    case Send(request, connection):
                        value = _send(http, request, connection, call)
                    case Read(response, maximum, seconds):
                        value = _read(response, maximum, seconds)
                    case Pause(seconds):
                        value = pause(seconds)
            except Exception as error:
                send, value = steps.throw, error
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def adrive(steps: Generator[Step, Any, T], http: Any, call: Call) -> T:
    """`drive`, async."""
    wait = waiter()
    send: Any = steps.send
    value: Any = None
    try:
        while True:
            step: Step = send(value)
            send, value = steps.send, None
            try:
                match step:
                    case Send(request):
                        value = await _asend(http, request, wait, call)
                    case Read(response, maximum, seconds):
                        try:
                            value = await wait.wait(_aread(response, maximum), time.monotonic() + seconds)
                        except Interrupted:
                            raise _slow(seconds) from None
                        finally:
                            await shielded(response.aclose())
                    case Pause(seconds):
                        await sleep(seconds)
            except Exception as error:
                send, value = steps.throw, error
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        wait.close()


def _send(http: Any, request: Any, connection: _Connection, call: Call) -> tuple[Any, float]:
    """Send a request: the HTTP client times each read of the head, the watchdog all of it."""
    began = time.monotonic()
    with _guarded(connection, head_seconds(call.timeouts)[1]) as deadline:
        try:
            return http.send(request, stream=True, follow_redirects=False), time.monotonic() - began
        except Exception as error:
            late = connection.interrupt is not None and time.monotonic() >= deadline
            failure = head_timeout(call) if late else _explained(error, call)
    raise failure  # not within `except`: the other would be its context, with all its frames


async def _asend(http: Any, request: Any, wait: Waiter, call: Call) -> tuple[Any, float]:
    began = time.monotonic()
    try:
        answer = http.send(request, stream=True, follow_redirects=False)
        return await wait.wait(answer, began + (head_seconds(call.timeouts)[1] or inf)), time.monotonic() - began
    except Interrupted:
        failure: Exception = head_timeout(call)
    except Exception as error:
        failure = _explained(error, call)
    raise failure


def _read(response: Any, maximum: int, seconds: float) -> bytes:
    try:
        with _guarded(Source(interrupt=interrupter(response)), seconds) as deadline:
            try:
                return _joined(body_of(response, body_at_hand(response), document=True), maximum)
            except EventflowError:
                raise
            except Exception:
                if time.monotonic() >= deadline:
                    raise _slow(seconds) from None
                raise
    finally:
        response.close()


@contextlib.contextmanager
def _guarded(what: Interruptible, seconds: float | None) -> Generator[float]:
    """A watchdog over *what* for so many seconds; gives the deadline."""
    deadline = inf if seconds is None else time.monotonic() + seconds
    dog = Watchdog(what, time.monotonic)
    dog.deadline = deadline
    dog.wake()
    try:
        yield deadline
    finally:
        dog.stop()


async def _aread(response: Any, maximum: int) -> bytes:
    body = bytearray()
    async with contextlib.aclosing(abody_of(response, body_at_hand(response), document=True)) as chunks:
        async for chunk in chunks:
            body += chunk
            _check_size(len(body), maximum)
    return bytes(body)


def _joined(chunks: Iterable[bytes], maximum: int) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        _check_size(len(body), maximum)
    return bytes(body)


def _check_size(size: int, maximum: int) -> None:
    if size > maximum:
        raise LimitExceeded(limit="event_bytes", maximum=maximum, seen=size)


def _slow(seconds: float) -> StreamTimeout:
    return StreamTimeout(
        f"the body of the answer did not come within {seconds:g} s; raise Timeouts(idle=...) if it needs more",
        timer="idle",
        seconds=seconds,
    )


# --- streams as sources ----------------------------------------------------------------------------------------------


def stream_source(exchange: Exchange, http: Any) -> Source:
    """The source of a stream whose answer has come; it opens itself again where the exchange can."""
    made = Source(timeouts=exchange.call.timeouts, wire=exchange.wire, parse=exchange.parse)

    def take() -> None:
        answer = open_source(exchange.response)
        made.items, made.close, made.blocking, made.drain = answer.items, answer.close, answer.blocking, answer.drain
        made.interrupt, made.request_id, made.waited = answer.interrupt, answer.request_id, exchange.waited

    def reopen(position: Position, error: Exception | None, pause: Callable[[float], object]) -> Reopened:
        made.close()
        how = drive(exchange.again(position, error), http, exchange.call, pause)
        if how != "no":
            take()
        return how

    take()
    made.reopen = reopen
    return made


def astream_source(exchange: Exchange, http: Any) -> Source:
    """`stream_source`, async."""
    made = Source(timeouts=exchange.call.timeouts, wire=exchange.wire, parse=exchange.parse)

    def take() -> None:
        answer = open_source(exchange.response)
        made.aitems, made.aclose, made.drain = answer.aitems, answer.aclose, answer.drain
        made.request_id, made.waited = answer.request_id, exchange.waited

    async def reopen(position: Position, error: Exception | None) -> Reopened:
        await made.aclose()
        how = await adrive(exchange.again(position, error), http, exchange.call)
        if how != "no":
            take()
        return how

    take()
    made.areopen = reopen
    return made
