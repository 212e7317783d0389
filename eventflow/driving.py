"""The faces of an exchange: its steps done with an HTTP client, sync and async, and its answer as a source.

An HTTP client is taken by its shape (``build_request``, ``send``), and what it raises is told by the names of its
errors.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable
from math import inf
from typing import Any, TypeVar

from eventflow.errors import (
    ConnectionFailed,
    EventflowError,
    HTTPStatusError,
    LimitExceeded,
    Phase,
    StreamTimeout,
    UsageError,
)
from eventflow.exchange import Connection, Exchange, Pause, Read, Send, Step, caused_by, server_of
from eventflow.http import abody_of, body_at_hand, body_of, close_wholly, interrupter
from eventflow.outcome import Position
from eventflow.reading import Interruptible, Watchdog
from eventflow.request import Call, head_seconds
from eventflow.sources import Reopened, Source, open_source
from eventflow.waiting import Interrupted, Waiter, shielded, sleep, waiter

__all__ = ["adrive", "astream_source", "drive", "stream_source"]

T = TypeVar("T")


# --- steps ----------------------------------------------------------------------------------------------------------


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
                    case Send():
                        value = _send(http, step, call)
                    case Read():
                        value = _read(step)
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
                    case Send():
                        value = await _asend(http, step, wait, call)
                    case Read(response, _, seconds):
                        try:
                            value = await wait.wait(_aread(step), time.monotonic() + seconds)
                        except Interrupted:
                            raise _slow(step) from None
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


def _send(http: Any, step: Send, call: Call) -> tuple[Any, float]:
    """Send a request: the HTTP client times each read of the head, the watchdog all of it."""
    began = time.monotonic()
    with _guarded(step.connection, head_seconds(call.timeouts, step.spent)[1]) as deadline:
        try:
            return http.send(step.request, stream=True, follow_redirects=False), time.monotonic() - began
        except Exception as error:
            late = step.connection.interrupt is not None and time.monotonic() >= deadline
            failure = _head_timeout(call, step.spent) if late else _explained(error, call, step)
    raise failure  # not within `except`: the other would be its context, with all its frames


async def _asend(http: Any, step: Send, wait: Waiter, call: Call) -> tuple[Any, float]:
    began, seconds = time.monotonic(), head_seconds(call.timeouts, step.spent)[1]
    try:
        answer = http.send(step.request, stream=True, follow_redirects=False)
        response = await wait.wait(answer, inf if seconds is None else began + seconds)
        close_wholly(response)
        return response, time.monotonic() - began
    except Interrupted:
        await _hang_up(step.connection)
        failure: Exception = _head_timeout(call, step.spent)
    except Exception as error:
        failure = _explained(error, call, step)
    except BaseException:
        await _hang_up(step.connection)
        raise
    raise failure


async def _hang_up(connection: Connection) -> None:
    """Close the connection that a request made before it was cancelled.

    httpcore (1.0) does not where the cancellation comes between the connection and the request.
    """
    if connection.stream is not None:
        await shielded(connection.stream.aclose())


def _read(step: Read) -> bytes:
    response, seconds = step.response, step.seconds
    try:
        with _guarded(Source(interrupt=interrupter(response)), seconds) as deadline:
            try:
                return _joined(body_of(response, body_at_hand(response), document=True, head=step.head), step.maximum)
            except EventflowError:
                raise
            except Exception:
                if time.monotonic() >= deadline:
                    raise _slow(step) from None
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


async def _aread(step: Read) -> bytes:
    body, response = bytearray(), step.response
    async with contextlib.aclosing(abody_of(response, body_at_hand(response), document=True, head=step.head)) as chunks:
        async for chunk in chunks:
            body += chunk
            _check_size(len(body), step.maximum)
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


def _slow(step: Read) -> StreamTimeout:
    return StreamTimeout(
        f"the body of the answer did not come within {step.allowed:g} s; raise Timeouts({step.timer}=...) if it needs "
        "more",
        timer=step.timer,
        seconds=step.allowed,
    )


# --- failures --------------------------------------------------------------------------------------------------------


def _explained(error: Exception, call: Call, step: Send) -> Exception:
    """Our error in the place of what an HTTP client raised in the place of an answer; itself where it is none of HTTP.

    By the names of httpx's classes: httpx2 has classes of its own under the same names.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    cause = error.__cause__
    if names & {"LocalProtocolError", "InvalidURL", "UnsupportedProtocol"} or type(error) is ValueError:
        # whose texts may show a header; aiohttp raises a plain ValueError
        return UsageError(f"the request to {server_of(call.url)} has a header or an address that HTTP does not allow")
    if isinstance(error, RuntimeError) and "closed" in str(error):
        return UsageError("the HTTP client is closed; make a new one")
    # httpx-aiohttp (0.2) says timeout where aiohttp says that the server has disconnected
    disconnected = _of_aiohttp(cause) and not isinstance(cause, TimeoutError)
    if "TimeoutException" in names and not disconnected:
        if names & {"ConnectTimeout", "PoolTimeout"}:
            what = f"there was no connection to {server_of(call.url)}"
            return caused_by(_timeout("connect", what, call.timeouts.connect, "connect"), error)
        return caused_by(_head_timeout(call, step.spent), error)
    status = step.connection.status
    if "RemoteProtocolError" in names and status is not None and 300 <= status < 400:  # nobody asked it to look
        message = f"the server answered HTTP {status} with a redirect that leads nowhere: {error}"
        return caused_by(HTTPStatusError(message, status=status), error)
    if names & {"TransportError", "OSError", "ClientError"}:
        failure = ConnectionFailed(f"no answer came from {server_of(call.url)}: {type(error).__name__}: {error}")
        refused = names & {"ConnectError", "ProxyError"} or type(cause).__name__.startswith("ClientConnector")
        failure.phase = "connect" if refused else "headers"
        return failure if _of_aiohttp(cause or error) else caused_by(failure, error)  # aiohttp's show the headers
    return error


def _of_aiohttp(error: BaseException | None) -> bool:
    return error is not None and type(error).__module__.startswith("aiohttp")


def _head_timeout(call: Call, spent: float) -> StreamTimeout:
    """The error of an answer whose head did not come."""
    timer, _ = head_seconds(call.timeouts, spent)
    seconds = getattr(call.timeouts, timer)
    return _timeout(timer, f"no answer came from {server_of(call.url)}", seconds, "headers")


def _timeout(timer: str, what: str, seconds: float | None, phase: Phase) -> StreamTimeout:
    within = "in time" if seconds is None else f"within {seconds:g} s"
    error = StreamTimeout(
        f"{what} {within}; raise Timeouts({timer}=...) if it needs more", timer=timer, seconds=seconds or 0.0
    )
    error.phase = phase
    return error


# --- streams as sources ----------------------------------------------------------------------------------------------


def stream_source(exchange: Exchange, http: Any) -> Source:
    """The source of a stream whose answer has come; it opens itself again where the exchange can."""
    made = _source_of(exchange)

    def reopen(position: Position, error: Exception | None, pause: Callable[[float], object]) -> Reopened:
        made.close()
        made.interrupt = exchange.interrupt
        how = drive(exchange.again(position, error), http, exchange.call, pause)
        _take(made, exchange, how)
        return how

    made.reopen = reopen
    return made


def astream_source(exchange: Exchange, http: Any) -> Source:
    """`stream_source`, async."""
    made = _source_of(exchange)

    async def reopen(position: Position, error: Exception | None) -> Reopened:
        await made.aclose()
        how = await adrive(exchange.again(position, error), http, exchange.call)
        _take(made, exchange, how)
        return how

    made.areopen = reopen
    return made


def _source_of(exchange: Exchange) -> Source:
    made = Source(timeouts=exchange.call.timeouts, wire=exchange.wire, parse=exchange.parse)
    _take(made, exchange, "anew")
    return made


def _take(made: Source, exchange: Exchange, how: Reopened) -> None:
    """Have *made* go on with the exchange's answer, where one has come."""
    if how == "no":
        return
    answer = open_source(exchange.response)
    if exchange.is_async:
        made.aitems, made.aclose = answer.aitems, answer.aclose
    else:
        made.items, made.close, made.blocking = answer.items, answer.close, answer.blocking
        made.interrupt = answer.interrupt
    made.drain, made.request_id = answer.drain, answer.request_id
    made.waited, made.spent = exchange.waited, exchange.spent
