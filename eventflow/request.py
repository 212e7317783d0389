"""Requests to a Responses API: from parameters to method, address, headers and body. Pure.

Nothing here shows a key or a body in its ``repr``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, cast
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import attrs
import msgspec

from eventflow.errors import EventflowError, UsageError
from eventflow.events._base import finite
from eventflow.limits import Limits, limits_of
from eventflow.plain import as_sent
from eventflow.providers import PROVIDERS, Provider, provider_named
from eventflow.schema import text_format_of
from eventflow.timers import Timeouts, timeouts_of
from eventflow.wires import wire_named

__all__ = [
    "Call",
    "CreateParameters",
    "RequestOptions",
    "Secret",
    "Settings",
    "create_call",
    "head_seconds",
    "response_call",
    "response_path",
    "sendable",
    "shown",
    "timeout_of",
]

_OPENAI = "https://api.openai.com/v1"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PASSWORD = re.compile(r"//[^/#]*@")
_EVER = 1e8  # seconds: three years


def sendable(text: str) -> bool:
    """Whether a header may have *text* as its value."""
    return text.isascii() and text.isprintable() and text == text.strip()


class Secret:
    """A value, or what makes it anew for every request; shown nowhere."""

    __slots__ = ("_value",)

    def __init__(self, value: str | Callable[[], str] | Mapping[str, str]) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<secret>"

    @property
    def sendable(self) -> bool:
        """Whether it is text that a header may have, as far as it is known now."""
        if isinstance(self._value, str):
            return self._value != "" and sendable(self._value)
        return callable(self._value) or isinstance(self._value, Mapping)

    def now(self) -> Secret:
        """The value as it is now, where a function gives it."""
        if not callable(self._value):
            return self
        try:
            now = Secret(self._value())
        except EventflowError:
            raise
        except Exception as error:
            raise UsageError(f"the function given as api_key failed: {type(error).__name__}: {error}") from error
        if not now.sendable:
            raise UsageError("the function given as api_key gave what no header may have; it is not shown here")
        return now

    def reveal(self) -> Any:
        """The value."""
        return self._value


@attrs.frozen(kw_only=True)
class Settings:
    """What all requests of a client have in common.

    Attributes:
        base_url: Where the API begins, without a slash at its end.
        key: The key, or None.
        headers: More headers.
        timeouts: How long to wait.
        max_retries: How often a request is sent again before its first event.
        retry_timeouts: Whether that, and resumption, goes for timeouts too.
        follow_redirects: Whether to follow redirects within the origin.
        limits: What one answer may cost.
        wire: Whose frames its streams have.
        provider: How its requests are made.
        lenient: Whether to leave out, with a warning, what the provider cannot be told.
    """

    base_url: str = attrs.field(repr=False)  # which may have a key in its query
    key: Secret | None
    headers: Secret
    timeouts: Timeouts
    max_retries: int
    retry_timeouts: bool
    follow_redirects: bool
    limits: Limits
    wire: str
    provider: Provider
    lenient: bool

    @classmethod
    def of(
        cls,
        *,
        api_key: Secret | None,
        base_url: str | None,
        wire: str,
        timeouts: Timeouts | None,
        max_retries: int,
        retry_timeouts: bool,
        headers: Secret,
        follow_redirects: bool,
        limits: Limits | None,
        lenient: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Check what a client was given, and read the rest from the environment.

        Raises:
            UsageError: Something of it cannot be; the message never shows a key.
        """
        given = Secret(os.environ if environ is None else environ)
        environ = None  # which may have the key, and a traceback shows variables
        limits = limits_of(limits)
        wire_named(wire, limits)  # a misspelt one fails here
        provider = provider_named(wire if wire in PROVIDERS else "responses")  # a stranger's wire, with our requests
        own = given.reveal().get(provider.url_name)
        url = base_url if base_url is not None else provider.base_of(own) if own else provider.base_url
        parts = _address(url)
        if api_key is not None and not (isinstance(api_key.reveal(), str) or callable(api_key.reveal())):
            raise UsageError(f"api_key takes text, or a function that gives it, not {type(api_key.reveal()).__name__}")
        _check_headers("headers", headers.reveal())
        if api_key is None and given.reveal().get(provider.key_name):
            api_key = Secret(given.reveal()[provider.key_name])
        if api_key is None and parts.hostname == urlsplit(provider.base_url).hostname:
            raise UsageError(
                f"there is no key for {parts.hostname}: set {provider.key_name}, or give Client(api_key=...)"
            )
        if api_key is not None and not api_key.sendable:
            raise UsageError("api_key has characters that no header may have, perhaps a line end; it is not shown here")
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise UsageError(f"max_retries takes an integer from 0 on, not {max_retries!r}")
        return cls(
            base_url=parts._replace(path=parts.path.rstrip("/")).geturl(),
            key=api_key,
            headers=Secret(dict(headers.reveal())),
            timeouts=timeouts_of(timeouts, Timeouts()),
            max_retries=max_retries,
            retry_timeouts=retry_timeouts,
            follow_redirects=follow_redirects,
            limits=limits,
            wire=wire,
            provider=provider,
            lenient=lenient,
        )

    def cannot(self, message: str) -> None:
        """The provider cannot be told something that the parameters say."""
        if not self.lenient:
            raise UsageError(f"{message}; or Client(lenient=True), which leaves it out")
        warnings.warn(f"{message}; it is left out", stacklevel=2)

    @property
    def on_loopback(self) -> bool:
        """Whether the server is on this machine, where a proxy has no business."""
        return urlsplit(self.base_url).hostname in _LOOPBACK

    def url(self, path: str, query: Mapping[str, object]) -> str:
        """The address of *path*; a query in the base address stays."""
        parts = urlsplit(self.base_url)
        pairs = [(name, value) for name, value in query.items() if value is not None]
        words = [parts.query] if parts.query else []
        words += [urlencode([(name, _query_value(value)) for name, value in pairs])] if pairs else []
        return parts._replace(path=parts.path + path, query="&".join(words)).geturl()


def _address(url: str) -> SplitResult:
    """The parts of a base address; raises `UsageError` where it is none."""
    if not isinstance(url, str):
        raise UsageError(f"base_url takes text, an address such as {_OPENAI}, not {type(url).__name__}")
    with contextlib.suppress(ValueError):  # also of a port that is none
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise UsageError("base_url has a user name or password in it; give them as a header")
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    raise UsageError(f"base_url is {shown(url)!r}: give an address such as {_OPENAI}")


def shown(url: str) -> str:
    """An address without its query, which may have a key, and without a password."""
    return _PASSWORD.sub("//", url.partition("?")[0])


def _check_mapping(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise UsageError(f"{name} takes a mapping, not {type(value).__name__}")


def _check_headers(name: str, headers: Mapping[str, str] | None) -> None:
    """Raise `UsageError` for what are no headers; their values are not shown."""
    _check_mapping(name, headers)
    for header in headers or ():
        if not isinstance(header, str):
            raise UsageError(f"{name} takes a mapping of text to text; {header!r} is of type {type(header).__name__}")
        if headers is not None and not isinstance(headers[header], str):
            kind = type(headers[header]).__name__
            raise UsageError(f"{name} takes a mapping of text to text; the value of {header!r} is of type {kind}")


def _query_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@attrs.frozen(kw_only=True)
class Call:
    """One request, as it is sent at every attempt, but for the key.

    Attributes:
        method: Of HTTP.
        url: The whole address.
        headers: All headers but the key's.
        body: The body, or None.
        stream: Whether the answer is to be an event stream.
        timeouts: How long to wait.
        resume: Whether to go on by itself after a cut.
        conversation: The id under which llama.cpp's server keeps a stream that is to be resumed.
        parsed_as: What the text is to be, or None.
    """

    method: str
    url: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes | None = attrs.field(default=None, repr=False)
    stream: bool = False
    timeouts: Timeouts
    resume: bool = False
    conversation: str | None = None
    parsed_as: type[Any] | None = None


class CreateParameters(TypedDict, total=False):
    """What ``responses.create`` takes: the parameters of the API (its reference, November 2026), and ours at the end.

    A parameter that is None is left out. What is not listed here is sent as well.
    """

    background: bool | None
    context_management: Sequence[object] | None
    conversation: object
    include: Sequence[str] | None
    input: object  # text, or items: mappings, and the items of responses
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: Mapping[str, str] | None
    model: str | None
    moderation: object
    parallel_tool_calls: bool | None
    previous_response_id: str | None
    prompt: Mapping[str, object] | None
    prompt_cache_key: str | None
    prompt_cache_options: object
    prompt_cache_retention: str | None
    reasoning: Mapping[str, object] | None
    safety_identifier: str | None
    service_tier: str | None
    store: bool | None
    stream_options: Mapping[str, object] | None
    temperature: float | None
    text: Mapping[str, object] | None
    tool_choice: object
    tools: Sequence[object] | None
    top_logprobs: int | None
    top_p: float | None
    truncation: str | None
    user: str | None
    resume: bool  # go on by itself after a cut, where the server can
    timeout: Timeouts | None  # instead of the client's
    extra_body: Mapping[str, object] | None  # more of the body; it wins
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, object] | None


class RequestOptions(TypedDict, total=False):
    """What every other call takes."""

    timeout: Timeouts | None
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, object] | None


def create_call(
    settings: Settings,
    *,
    stream: bool,
    text_format: type[Any] | None = None,
    resume: bool = False,
    timeout: Timeouts | None = None,
    extra_body: Mapping[str, object] | None = None,
    extra_headers: Mapping[str, str] | None = None,
    extra_query: Mapping[str, object] | None = None,
    **parameters: object,
) -> Call:
    """``POST /responses``, or what stands for it, with *parameters*; the others as of `CreateParameters`.

    Raises:
        UsageError: The parameters are no JSON or of the wrong kind, or there is no schema for the format.
    """
    _check_headers("extra_headers", extra_headers)
    _check_mapping("extra_query", extra_query)
    _check_mapping("extra_body", extra_body)
    asked: dict[str, object] = {name: value for name, value in parameters.items() if value is not None}
    if text_format is not None:
        _check_mapping("text", asked.get("text"))
        text = cast("Mapping[str, object]", asked.get("text") or {})
        if "format" in text:
            raise UsageError("text_format and a text with a format of its own: give one of them")
        asked["text"] = {**text, "format": text_format_of(text_format)}
    provider = settings.provider
    body = provider.body(asked, stream, settings.cannot, settings.base_url)
    body.update(extra_body or {})
    model = str((extra_body or {}).get("model") or asked.get("model") or "")
    headers = {
        "content-type": "application/json",
        "idempotency-key": f"eventflow-{os.urandom(16).hex()}",  # one for all attempts: the work is done once
    }
    conversation = f"eventflow-{os.urandom(16).hex()}" if stream and resume else None
    if conversation is not None:
        headers["x-conversation-id"] = conversation
    return Call(
        method="POST",
        url=settings.url(provider.path(model, stream), {**provider.query(stream), **(extra_query or {})}),
        headers=_headers(headers, extra_headers, stream),
        body=_json(body),
        stream=stream,
        timeouts=timeouts_of(timeout, settings.timeouts),
        resume=resume,
        conversation=conversation,
        parsed_as=text_format,
    )


def response_call(
    settings: Settings,
    method: str,
    response_id: str,
    action: str = "",
    *,
    stream: bool = False,
    starting_after: int | None = None,
    resume: bool = False,
    timeout: Timeouts | None = None,
    extra_headers: Mapping[str, str] | None = None,
    extra_query: Mapping[str, object] | None = None,
) -> Call:
    """``GET /responses/ID``, ``POST /responses/ID/cancel`` and the like.

    Raises:
        UsageError: The id is none, or what else is given is of the wrong kind.
    """
    _check_headers("extra_headers", extra_headers)
    _check_mapping("extra_query", extra_query)
    if settings.provider.name != "responses":
        raise UsageError(f"the {settings.provider.name} API keeps no responses: there is none to ask for by its id")
    query: dict[str, object] = {"stream": True} if stream else {}
    if starting_after is not None:
        if isinstance(starting_after, bool) or not isinstance(starting_after, int):
            raise UsageError(f"starting_after takes a sequence_number, an integer, not {starting_after!r}")
        query["starting_after"] = starting_after
    return Call(
        method=method,
        url=settings.url(response_path(response_id) + action, {**query, **(extra_query or {})}),
        headers=_headers({}, extra_headers, stream),
        stream=stream,
        timeouts=timeouts_of(timeout, settings.timeouts),
        resume=resume,
    )


def response_path(response_id: str) -> str:
    """Where a response is; raises `UsageError` for an id that would lead elsewhere."""
    if not isinstance(response_id, str):
        raise UsageError(f"the id of a response is text, not {type(response_id).__name__}")
    if not response_id.strip("."):
        what = "is empty" if not response_id else f"cannot be {response_id!r}"
        raise UsageError(f"the id of a response {what}")
    return f"/responses/{quote(response_id, safe='')}"


def _headers(own: Mapping[str, str], extra: Mapping[str, str] | None, stream: bool) -> dict[str, str]:
    accept = "text/event-stream" if stream else "application/json"
    headers = {"accept": accept, "accept-encoding": "identity", "user-agent": "eventflow", **own}
    headers.update({name.lower(): value for name, value in (extra or {}).items()})
    return headers


def _json(body: Mapping[str, object]) -> bytes:
    """The body of a request; what is no JSON is refused."""
    try:
        try:
            return msgspec.json.encode(body, enc_hook=as_sent)
        except UnicodeEncodeError:  # a lone surrogate, which a model may have written
            plain = msgspec.to_builtins(body, enc_hook=as_sent, str_keys=True)
            return json.dumps(finite(plain), separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        # without the frames below: their variables are what was asked
        raise UsageError(f"the parameters of the request are no JSON: {error}") from error.with_traceback(None)


def timeout_of(timeouts: Timeouts, spent: float = 0.0, *, is_async: bool) -> tuple[float | None, ...]:
    """What an HTTP client is told: seconds to connect, to read, to write and to wait for a connection.

    To read is for the head, and for the sync side alone: the async one times it as a whole.
    """
    head = None if is_async else _clocked(head_seconds(timeouts, spent)[1])
    return (_clocked(timeouts.connect), head, _clocked(timeouts.first_event), _clocked(timeouts.connect))


def head_seconds(timeouts: Timeouts, spent: float = 0.0) -> tuple[str, float | None]:
    """How long the head of an answer may take where so many seconds are *spent*, and the timer that says so."""
    first, total = timeouts.first_event, None if timeouts.total is None else max(0.0, timeouts.total - spent)
    return ("total", total) if total is not None and (first is None or total < first) else ("first_event", first)


def _clocked(seconds: float | None) -> float | None:
    """None, which is for ever, for what no system call takes."""
    return None if seconds is None or seconds > _EVER else seconds
