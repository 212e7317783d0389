"""`Client` and `AsyncClient`: talk to a server that speaks the Responses API. The only module that knows httpx.

::

    with Client() as client, client.responses.create(model="...", input="Hello!", stream=True) as stream:
        for text in stream.text:
            print(text, end="", flush=True)

What both faces have in common stands in `request` (what is sent), `exchange` (how often) and `driving` (how); what they
give while an answer is coming in `answer`.
"""

from __future__ import annotations

import abc
import functools
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar, overload

from eventflow.answer import AsyncStream, Stream
from eventflow.dispatcher import Dispatcher, collect
from eventflow.driving import adrive, astream_source, drive, stream_source
from eventflow.errors import APIStreamError, UnexpectedContentType, UsageError, excerpt
from eventflow.events import Response, ResponseFailed
from eventflow.events._decode import decode_object, decode_response
from eventflow.exchange import Exchange
from eventflow.forks import PerProcess
from eventflow.limits import Limits
from eventflow.outcome import Outcome
from eventflow.request import (
    Call,
    CreateParameters,
    RequestOptions,
    Secret,
    Settings,
    create_call,
    response_call,
    shown,
)
from eventflow.schema import ParsedResponse
from eventflow.timers import Timeouts

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Unpack

__all__ = ["AsyncClient", "AsyncHTTPClient", "AsyncStream", "Client", "HTTPClient", "Stream"]

T = TypeVar("T")
H = TypeVar("H", bound="HTTPClient | AsyncHTTPClient")


class HTTPClient(Protocol):
    """What is used of an ``httpx.Client``; httpx2's and others' have it as well."""

    @property
    def build_request(self) -> Callable[..., Any]:
        """Called with method, address, ``headers``, ``content``, ``timeout`` and ``extensions``."""
        ...

    @property
    def send(self) -> Callable[..., Any]:
        """Called with the request, ``stream=True`` and ``follow_redirects=False``."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class AsyncHTTPClient(Protocol):
    """What is used of an ``httpx.AsyncClient``: as `HTTPClient`, but ``send`` is awaited."""

    @property
    def build_request(self) -> Callable[..., Any]:
        """As of `HTTPClient`."""
        ...

    @property
    def send(self) -> Callable[..., Any]:
        """As of `HTTPClient`, awaited."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


# --- responses -------------------------------------------------------------------------------------------------------


class Responses:
    """``client.responses``."""

    def __init__(self, client: Client) -> None:
        self._client = client  # which closes its connections when nobody holds it any more
        self._settings = client._settings

    @overload
    def create(
        self, *, stream: Literal[True], text_format: type[T], **parameters: Unpack[CreateParameters]
    ) -> Stream[ParsedResponse[T]]: ...
    @overload
    def create(
        self, *, stream: Literal[True], text_format: None = None, **parameters: Unpack[CreateParameters]
    ) -> Stream[Response]: ...
    @overload
    def create(
        self, *, stream: Literal[False] = False, text_format: type[T], **parameters: Unpack[CreateParameters]
    ) -> ParsedResponse[T]: ...
    @overload
    def create(
        self, *, stream: Literal[False] = False, text_format: None = None, **parameters: Unpack[CreateParameters]
    ) -> Response: ...
    def create(self, *, stream: bool = False, text_format: Any = None, **parameters: Any) -> Any:
        """Ask for a response.

        Args:
            stream: True for its events as they come, False for the whole response at once.
            text_format: A dataclass, attrs class, msgspec struct, TypedDict or pydantic model: the answer is asked for
                in its schema, and ``response.parsed`` is one.
            parameters: Those of the API (``model``, ``input``, ``instructions``, ``tools``, ...); ``resume=True`` to
                go on by itself after a cut, where the server can; ``timeout`` for this request; ``extra_body``,
                ``extra_headers``, ``extra_query`` for what is not foreseen here. None leaves a parameter out.

        Raises:
            UsageError: The parameters cannot be sent.
            HTTPStatusError: The server answered with an error, after the retries.
            ConnectionFailed, StreamTimeout: No answer came, after the retries.
            APIStreamError: Without *stream*: the response failed.
        """
        call = _create_call(self._settings, stream, text_format, parameters)
        return self._stream(call) if stream else self._document(call, check=True)

    @overload
    def retrieve(
        self,
        response_id: str,
        *,
        stream: Literal[True],
        starting_after: int | None = None,
        resume: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Stream[Response]: ...
    @overload
    def retrieve(
        self, response_id: str, *, stream: Literal[False] = False, **options: Unpack[RequestOptions]
    ) -> Response: ...
    def retrieve(
        self,
        response_id: str,
        *,
        stream: bool = False,
        starting_after: int | None = None,
        resume: bool = False,
        **options: Any,
    ) -> Any:
        """Ask for a response that was made before: as it stands, or its events.

        Args:
            response_id: Its id.
            stream: True for its events, of a response that was created with ``background=True`` and ``stream=True``.
            starting_after: Leave out the events up to this ``sequence_number``.
            resume: Go on by itself after a cut, where the server can do that; ``max_retries`` does not limit that.
            options: ``timeout``, ``extra_headers`` and ``extra_query``, as of `create`.

        Raises:
            EventflowError: As `create`; a response that failed is returned.
        """
        call = response_call(
            self._settings,
            "GET",
            response_id,
            stream=stream,
            starting_after=starting_after,
            resume=resume,
            **options,
        )
        return self._stream(call) if stream else self._document(call)

    def cancel(self, response_id: str, **options: Unpack[RequestOptions]) -> Response:
        """Stop a response that is made in the background; returns it as it stands then."""
        return self._document(response_call(self._settings, "POST", response_id, "/cancel", **options))

    def _stream(self, call: Call) -> Stream[Any]:
        http = self._client._http
        exchange = Exchange(call, self._settings, http, is_async=False)
        drive(exchange.begin(), http, call)
        return Stream(exchange, stream_source(exchange, http), self._client)

    def _document(self, call: Call, *, check: bool = False) -> Response:
        http = self._client._http
        exchange = Exchange(call, self._settings, http, is_async=False)
        return _response_of(exchange, drive(exchange.document(), http, call), check=check)


class AsyncResponses:
    """`Responses`, async."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client  # which closes its connections when nobody holds it any more
        self._settings = client._settings

    @overload
    async def create(
        self, *, stream: Literal[True], text_format: type[T], **parameters: Unpack[CreateParameters]
    ) -> AsyncStream[ParsedResponse[T]]: ...
    @overload
    async def create(
        self, *, stream: Literal[True], text_format: None = None, **parameters: Unpack[CreateParameters]
    ) -> AsyncStream[Response]: ...
    @overload
    async def create(
        self, *, stream: Literal[False] = False, text_format: type[T], **parameters: Unpack[CreateParameters]
    ) -> ParsedResponse[T]: ...
    @overload
    async def create(
        self, *, stream: Literal[False] = False, text_format: None = None, **parameters: Unpack[CreateParameters]
    ) -> Response: ...
    async def create(self, *, stream: bool = False, text_format: Any = None, **parameters: Any) -> Any:
        """`Responses.create`, async."""
        call = _create_call(self._settings, stream, text_format, parameters)
        return await (self._stream(call) if stream else self._document(call, check=True))

    @overload
    async def retrieve(
        self,
        response_id: str,
        *,
        stream: Literal[True],
        starting_after: int | None = None,
        resume: bool = False,
        **options: Unpack[RequestOptions],
    ) -> AsyncStream[Response]: ...
    @overload
    async def retrieve(
        self, response_id: str, *, stream: Literal[False] = False, **options: Unpack[RequestOptions]
    ) -> Response: ...
    async def retrieve(
        self,
        response_id: str,
        *,
        stream: bool = False,
        starting_after: int | None = None,
        resume: bool = False,
        **options: Any,
    ) -> Any:
        """`Responses.retrieve`, async."""
        call = response_call(
            self._settings,
            "GET",
            response_id,
            stream=stream,
            starting_after=starting_after,
            resume=resume,
            **options,
        )
        return await (self._stream(call) if stream else self._document(call))

    async def cancel(self, response_id: str, **options: Unpack[RequestOptions]) -> Response:
        """`Responses.cancel`, async."""
        return await self._document(response_call(self._settings, "POST", response_id, "/cancel", **options))

    async def _stream(self, call: Call) -> AsyncStream[Any]:
        http = self._client._http
        exchange = Exchange(call, self._settings, http, is_async=True)
        await adrive(exchange.begin(), http, call)
        return AsyncStream(exchange, astream_source(exchange, http), self._client)

    async def _document(self, call: Call, *, check: bool = False) -> Response:
        http = self._client._http
        exchange = Exchange(call, self._settings, http, is_async=True)
        return _response_of(exchange, await adrive(exchange.document(), http, call), check=check)


def _create_call(settings: Settings, stream: bool, text_format: Any, parameters: dict[str, Any]) -> Call:
    """`create_call`, of which no traceback shows what was asked: *parameters* are empty behind it."""
    failure: UsageError | None = None
    try:
        return create_call(settings, stream=stream, text_format=text_format, **parameters)
    except UsageError as error:
        failure = error.with_traceback(None)
    finally:
        parameters.clear()
    raise failure


def _response_of(exchange: Exchange, body: bytes, *, check: bool) -> Response:
    """The response that a body is; *check* raises where it failed."""
    limits, headers = exchange.limits, exchange.response.headers
    content_type = str(headers.get("content-type") or "")
    if content_type.startswith("text/event-stream"):  # some servers stream whatever they are asked
        response = collect(body, wire=exchange.wire, limits=limits)
    else:
        body = body.removeprefix(b"\xef\xbb\xbf").strip()  # a byte order mark is none of JSON's
        response = _decoded(exchange, body) if body[:1] in (b"{", b"[") else Response()
    if response == Response():
        raise UnexpectedContentType(
            f"the server answered HTTP {exchange.response.status_code} with {content_type or 'no content type'}, not "
            f"with a response in JSON; is the address right? It begins with {excerpt(body)!r}",
            content_type=content_type,
            excerpt=excerpt(body, 4096),
        )
    failed = response.status == "failed" and check
    if failed or (response.error is not None and (check or response.id is None)):
        outcome = Outcome()
        outcome.terminal(ResponseFailed(response))
        assert outcome.error is not None
        outcome.error.partial = response
        if isinstance(outcome.error, APIStreamError):
            outcome.error.request_id = headers.get("x-request-id")
        raise outcome.error
    return response if exchange.parse is None else exchange.parse(response)


def _decoded(exchange: Exchange, body: bytes) -> Response:
    """The response that a JSON body is: as it stands, or by way of the frames that would have brought it."""
    depth = exchange.limits.json_depth
    if exchange.provider.name == "responses":
        return decode_response(body, max_depth=depth) if body[:1] == b"{" else Response()
    value = decode_object(body, max_depth=depth)
    frames = exchange.provider.frames(value)
    flow = Dispatcher(limits=exchange.limits, snapshot=True)
    return flow.run(iter(frames), wire=exchange.wire).response if frames else Response()


# --- clients ---------------------------------------------------------------------------------------------------------


class _Base(abc.ABC, Generic[H]):
    """What both clients are: settings, and what sends their requests."""

    _closes: ClassVar[str]  # what closes an HTTP client of the right kind

    def __init__(
        self,
        *,
        api_key: str | Callable[[], str] | None = None,
        base_url: str | None = None,
        wire: str = "responses",
        timeout: Timeouts | None = None,
        max_retries: int = 2,
        retry_timeouts: bool = False,
        headers: Mapping[str, str] | None = None,
        follow_redirects: bool = False,
        limits: Limits | None = None,
        lenient: bool = False,
        http_client: H | None = None,
    ) -> None:
        key, api_key = None if api_key is None else Secret(api_key), None
        more, headers = Secret({} if headers is None else headers), None
        self._settings = Settings.of(
            api_key=key,
            base_url=base_url,
            wire=wire,
            timeouts=timeout,
            max_retries=max_retries,
            retry_timeouts=retry_timeouts,
            headers=more,
            follow_redirects=follow_redirects,
            limits=limits,
            lenient=lenient,
        )
        missing = [name for name in ("build_request", "send", self._closes) if not hasattr(http_client, name)]
        if http_client is not None and missing:
            raise UsageError(
                f"http_client takes an HTTP client with build_request, send and {self._closes}; "
                f"{type(http_client).__name__} has no {missing[0]}"
            )
        self._given = http_client
        self._own = PerProcess(functools.partial(self._open, self._settings))
        if http_client is None:
            self._own.here()
            if self._closes == "close":  # what is async cannot be closed when nobody holds it any more
                weakref.finalize(self, _close, self._own)

    @property
    def _http(self) -> H:
        """What sends the requests: the HTTP client that was given, or the one of our own of this process.

        A process that was forked has a new one: on the connections of its parent the two would get each other's
        answers. Those stay open there, for to close some (TLS, an event loop's) is to close the parent's.
        """
        return self._own.here() if self._given is None else self._given

    @staticmethod
    @abc.abstractmethod
    def _open(settings: Settings) -> H:
        """An HTTP client of our own, which is ours to close."""

    def __repr__(self) -> str:
        settings = getattr(self, "_settings", None)  # a traceback shows clients that could not be made
        where = f" {shown(settings.base_url)}" if settings is not None else ""
        return f"<{type(self).__name__}{where}>"


class Client(_Base[HTTPClient]):
    """A client of one server. It may be used by several threads; close it at the end, or use it in a ``with`` block.

    A process that is forked may use its parent's: it makes connections of its own.

    Args:
        api_key: The key, or a function that gives it for each request; by default ``OPENAI_API_KEY``,
            ``ANTHROPIC_API_KEY`` or ``GEMINI_API_KEY``. It is shown nowhere.
        base_url: Where the API begins; by default ``OPENAI_BASE_URL``, ``ANTHROPIC_BASE_URL`` or
            ``GOOGLE_GEMINI_BASE_URL``, or the provider's own address.
        wire: Whose API it is: ``responses``, ``chat``, ``anthropic`` or ``gemini``. Requests are made in its words.
        timeout: How long to wait.
        max_retries: How often a request is sent again before its first event: on HTTP 408, 409, 429 and 5xx and on
            failed connections, after a growing pause or what the server asks for, up to 60 s. ``resume=True`` has a
            bound of its own.
        retry_timeouts: Whether to do so after timeouts too: a model that thinks long does not think faster then.
        headers: More headers, for every request.
        follow_redirects: Follow redirects within the origin; others never, for they would take the key along.
        limits: What one answer may cost.
        lenient: Leave out, with a warning, what the provider cannot be told; else that is an error.
        http_client: What sends the requests, in place of an ``httpx.Client`` of our own; yours to close, and to make
            anew in a process that is forked.
    """

    _closes: ClassVar[str] = "close"

    @staticmethod
    def _open(settings: Settings) -> HTTPClient:
        import httpx

        return httpx.Client(**_options(settings))

    @property
    def responses(self) -> Responses:
        """The responses of the API: ``create``, ``retrieve``, ``cancel``."""
        return Responses(self)

    def close(self) -> None:
        """Close the connections, unless the HTTP client is yours. Twice is once."""
        _close(self._own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Base[AsyncHTTPClient]):
    """`Client`, async: for one event loop, asyncio's or trio's; *http_client* is an ``httpx.AsyncClient`` then."""

    _closes: ClassVar[str] = "aclose"

    @staticmethod
    def _open(settings: Settings) -> AsyncHTTPClient:
        import httpx

        return httpx.AsyncClient(**_options(settings))

    @property
    def responses(self) -> AsyncResponses:
        """The responses of the API: ``create``, ``retrieve``, ``cancel``."""
        return AsyncResponses(self)

    async def close(self) -> None:
        """Close the connections, unless the HTTP client is yours. Twice is once."""
        own = self._own.known()
        if own is not None:
            await own.aclose()

    aclose = close  # for contextlib.aclosing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _close(own: PerProcess[Any]) -> None:
    """Close the HTTP client of this process."""
    here = own.known()
    if here is not None:
        here.close()


def _options(settings: Settings) -> dict[str, Any]:
    """How our own HTTP client is made: any number of connections, for a stream that waits for one looks like a hang."""
    import httpx

    return {
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=100),
        "trust_env": not settings.on_loopback,
        "timeout": None,  # every request brings its own
        "verify": settings.base_url.startswith("https"),  # or certificates are loaded (36 ms) that nobody looks at
    }
