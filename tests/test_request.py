"""Requests: what a client is given and what it sends, without sending it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast, get_type_hints
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventflow import Limits, Timeouts, collect
from eventflow.errors import UsageError
from eventflow.request import (
    Call,
    CreateParameters,
    RequestOptions,
    Secret,
    Settings,
    create_call,
    response_call,
    timeout_of,
)

KEY = "sk-made-up-4711"
HERE = "http://127.0.0.1:1/v1"

TEXTS = st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(st.characters(), max_size=8),  # lone surrogates too: models write them
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def settings(base_url: str | None = HERE, **changes: Any) -> Settings:
    """Settings as a client makes them, of nothing but what is said here."""
    options: dict[str, Any] = {
        "api_key": None,
        "wire": "responses",
        "timeouts": None,
        "max_retries": 2,
        "retry_timeouts": False,
        "headers": Secret({}),
        "follow_redirects": False,
        "limits": None,
        "environ": {},
    }
    return Settings.of(base_url=base_url, **{**options, **changes})


def sent(**parameters: Any) -> Any:
    """The body that *parameters* make, decoded."""
    body = create_call(settings(), stream=False, **parameters).body
    assert body is not None
    return json.loads(body)


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [KEY, {"x-key": KEY}, lambda: KEY])
def test_secret_when_it_is_shown(value: Any) -> None:
    """Its value is in no text that is made of it, and comes out when asked for alone."""
    secret = Secret(value)
    assert KEY not in f"{secret} {secret!r} {[secret]}"
    assert secret.now().reveal() == (KEY if not isinstance(value, Mapping) else value)


def test_secret_when_it_is_a_function() -> None:
    """It is asked anew each time, for keys that expire."""
    keys = iter("ab")
    secret = Secret(lambda: next(keys))
    assert (secret.now().reveal(), secret.now().reveal()) == ("a", "b")


def test_secret_when_its_function_fails() -> None:
    """What went wrong is told, with its cause; an error of ours, or a cancellation, passes as it is."""

    def fail(error: BaseException) -> Secret:
        def key() -> str:
            raise error

        return Secret(key)

    lost, ours = KeyError("no key today"), UsageError("the vault is locked")
    with pytest.raises(UsageError, match=r"api_key failed: KeyError: 'no key today'") as caught:
        fail(lost).now()
    assert caught.value.__cause__ is lost
    with pytest.raises(UsageError) as caught:
        fail(ours).now()
    assert caught.value is ours
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt()).now()


@pytest.mark.parametrize(
    ("value", "sendable"),
    [
        (KEY, True),
        ("a key with spaces", True),
        ("", False),
        (" ", False),
        (f" {KEY}", False),
        (f"{KEY}\n", False),
        (f"{KEY}\r\nx: y", False),
        (f"{KEY}\0", False),
        ("schlüssel", False),
        (lambda: "\n", True),  # not known before it is asked
        ({"x": "\n"}, True),
    ],
)
def test_secret_when_a_header_is_to_have_it(value: Any, sendable: bool) -> None:
    """Text that is no header's value is known before it is sent."""
    assert Secret(value).sendable is sendable


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_when_nothing_is_said() -> None:
    """OpenAI's address, the key of the environment, two retries, no redirects, our own timeouts and limits."""
    made = settings(None, environ={"OPENAI_API_KEY": KEY})
    assert made.base_url == "https://api.openai.com/v1"
    assert made.key is not None
    assert made.key.reveal() == KEY
    assert (made.timeouts, made.limits, made.wire) == (Timeouts(), Limits(), "responses")
    assert (made.max_retries, made.retry_timeouts, made.follow_redirects) == (2, False, False)
    assert KEY not in repr(made)


def test_settings_when_they_are_all_given() -> None:
    """What is given stands, whatever the environment says."""
    timeouts, limits = Timeouts(idle=1), Limits(text=1)
    environ = {"OPENAI_API_KEY": "other", "OPENAI_BASE_URL": "http://other"}
    made = settings(
        "https://example.com/api/",
        api_key=Secret(KEY),
        timeouts=timeouts,
        limits=limits,
        max_retries=0,
        retry_timeouts=True,
        follow_redirects=True,
        environ=environ,
    )
    assert made.base_url == "https://example.com/api"
    assert made.key is not None
    assert made.key.reveal() == KEY
    assert (made.timeouts, made.limits) == (timeouts, limits)
    assert (made.max_retries, made.retry_timeouts, made.follow_redirects) == (0, True, True)


def test_settings_when_the_environment_has_an_address() -> None:
    """It is taken where none is given; an empty variable is as none."""
    assert (
        settings(None, environ={"OPENAI_BASE_URL": "http://localhost:8080/v1/"}).base_url == "http://localhost:8080/v1"
    )
    assert settings(HERE, environ={"OPENAI_BASE_URL": "http://localhost:8080"}).base_url == HERE
    empty = {"OPENAI_BASE_URL": "", "OPENAI_API_KEY": KEY}
    assert settings(None, environ=empty).base_url == "https://api.openai.com/v1"


def test_settings_when_a_server_needs_no_key() -> None:
    """Only OpenAI's address asks for one; an empty variable is none."""
    assert settings(HERE).key is None
    assert settings(HERE, environ={"OPENAI_API_KEY": ""}).key is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "127.0.0.1:8080"}, "give an address such as https://"),
        ({"base_url": "ftp://example.com"}, "give an address such as https://"),
        ({"base_url": "http://"}, "give an address such as https://"),
        ({"base_url": ""}, "give an address such as https://"),
        ({"base_url": "http://[::1"}, "give an address"),
        ({"base_url": f"http://user:{KEY}@127.0.0.1"}, "user name or password"),
        ({"base_url": f"http://:{KEY}@127.0.0.1"}, "user name or password"),
        ({"base_url": f"ftp://user:{KEY}@127.0.0.1"}, "base_url"),
        ({"base_url": None}, "there is no key for api.openai.com: set OPENAI_API_KEY"),
        ({"base_url": None, "environ": {"OPENAI_API_KEY": ""}}, "there is no key"),
        ({"api_key": Secret(f"{KEY}\n")}, "characters that no header may have"),
        ({"environ": {"OPENAI_API_KEY": f"{KEY}\n"}}, "characters that no header may have"),
        ({"max_retries": -1}, "an integer from 0 on, not -1"),
        ({"max_retries": 1.5}, "an integer from 0 on, not 1.5"),
        ({"max_retries": True}, "an integer from 0 on, not True"),
        ({"max_retries": None}, "an integer from 0 on, not None"),
        ({"wire": "respones"}, "no wire is called 'respones'; there is responses"),
    ],
)
def test_settings_when_something_cannot_be(changes: dict[str, Any], message: str) -> None:
    """A `UsageError` says what, and shows no key."""
    with pytest.raises(UsageError, match=message) as caught:
        settings(**changes)
    assert KEY not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    ("base_url", "local"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://LOCALHOST/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://127.0.0.1.example.com", False),
        ("http://example.com/localhost", False),
    ],
)
def test_settings_when_the_server_is_on_this_machine(base_url: str, local: bool) -> None:
    """Known by the host's name alone."""
    assert settings(base_url, api_key=Secret(KEY)).on_loopback is local


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "query", "url"),
    [
        ("http://h", {}, "http://h/responses"),
        ("http://h/", {}, "http://h/responses"),
        ("http://h:1/v1//", {}, "http://h:1/v1/responses"),
        ("http://h/v1", {"a": 1, "b": None, "c": True, "d": False}, "http://h/v1/responses?a=1&c=true&d=false"),
        ("http://h/v1", {"a": "ü &=", "b": 0.5}, "http://h/v1/responses?a=%C3%BC+%26%3D&b=0.5"),
        ("http://h/v1?api-version=2", {}, "http://h/v1/responses?api-version=2"),
        ("http://h/v1/?api-version=2", {"a": "b"}, "http://h/v1/responses?api-version=2&a=b"),
        ("http://h/v1?path=/", {}, "http://h/v1/responses?path=/"),
    ],
)
def test_url_when_there_are_queries(base_url: str, query: dict[str, object], url: str) -> None:
    """The path follows the base's, its query comes first, None is left out, truth is in small letters."""
    assert settings(base_url).url("/responses", query) == url


@given(
    base=st.lists(st.tuples(TEXTS, TEXTS), max_size=3),
    path=st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5), max_size=3),
    query=st.dictionaries(TEXTS, TEXTS | st.integers() | st.booleans() | st.none(), max_size=4),
)
def test_url_when_it_is_read_again(
    base: list[tuple[str, str]], path: list[str], query: dict[str, str | int | bool | None]
) -> None:
    """A server finds in it what was put in: the base's query, then ours, and the path."""
    from urllib.parse import urlencode

    base_url = "https://example.com/" + "/".join(path) + ("?" + urlencode(base) if base else "")
    parts = urlsplit(settings(base_url).url("/responses", query))
    ours = [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in query.items()
        if value is not None
    ]
    assert parse_qsl(parts.query, keep_blank_values=True) == [*base, *ours]
    assert parts.path == "/".join(["", *path, "responses"])
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "example.com", "")


# --- create ----------------------------------------------------------------------------------------------------------


def test_create_call_when_it_is_a_document() -> None:
    """A POST of the parameters as JSON, of the client's timeouts, whose repr shows neither headers nor body."""
    made = create_call(settings(), stream=False, model="m", input="a secret plan", temperature=None)
    assert (made.method, made.url, made.stream, made.resume) == ("POST", f"{HERE}/responses", False, False)
    assert made.body == b'{"model":"m","input":"a secret plan"}'
    assert (made.timeouts, made.conversation, made.parsed_as) == (Timeouts(), None, None)
    key = made.headers["idempotency-key"]
    assert made.headers == {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "idempotency-key": key,
        "user-agent": "eventflow",
    }
    assert "secret" not in repr(made)
    assert key not in repr(made)


def test_create_call_when_it_is_a_stream() -> None:
    """The body says so, and so does what is accepted; the request's own timeouts win."""
    timeouts = Timeouts(idle=1)
    made = create_call(settings(timeouts=Timeouts(idle=2)), stream=True, timeout=timeouts)
    assert made.body == b'{"stream":true}'
    assert made.headers["accept"] == "text/event-stream"
    assert (made.stream, made.timeouts, made.conversation) == (True, timeouts, None)


def test_create_call_when_it_is_made_twice() -> None:
    """Each call has an idempotency key of its own, which nobody guesses."""
    keys = {create_call(settings(), stream=False).headers["idempotency-key"] for _ in range(50)}
    assert len(keys) == 50
    assert min(map(len, keys)) >= 32


@pytest.mark.parametrize(("stream", "resume", "kept"), [(True, True, True), (True, False, False), (False, True, False)])
def test_create_call_when_it_is_to_be_resumed(stream: bool, resume: bool, kept: bool) -> None:
    """A stream that may be resumed has a conversation's id, for llama.cpp's server; nothing else has one."""
    made = create_call(settings(), stream=stream, resume=resume)
    assert made.resume is resume
    assert (made.conversation is not None) is kept
    assert made.headers.get("x-conversation-id") == made.conversation


def test_create_call_when_there_is_more() -> None:
    """``extra_body`` wins over the parameters, ``extra_headers`` over ours, ``extra_query`` stands in the address."""
    made = create_call(
        settings(),
        stream=True,
        model="m",
        extra_body={"model": "n", "stream": False, "top_k": 3, "user": None},
        extra_headers={"Accept": "*/*", "X-More": "1"},
        extra_query={"v": 2},
    )
    assert made.body is not None
    assert json.loads(made.body) == {"model": "n", "stream": False, "top_k": 3, "user": None}
    assert (made.headers["accept"], made.headers["x-more"]) == ("*/*", "1")
    assert "Accept" not in made.headers
    assert made.url == f"{HERE}/responses?v=2"


def test_create_call_when_the_text_has_a_format() -> None:
    """``text_format`` becomes the format of the text, beside what else is said of it; two formats are one too many."""
    made = create_call(settings(), stream=False, text={"verbosity": "low"}, text_format=Point)
    assert made.body is not None
    text = json.loads(made.body)["text"]
    assert (text["verbosity"], text["format"]["name"], made.parsed_as) == ("low", "Point", Point)
    assert set(json.loads(create_call(settings(), stream=False, text_format=Point).body or b"")["text"]) == {"format"}
    with pytest.raises(UsageError, match="give one of them"):
        create_call(settings(), stream=False, text={"format": {"type": "text"}}, text_format=Point)


def test_create_call_when_parameters_are_ours() -> None:
    """What the list of parameters says is ours is an argument here, and never sent."""
    ours = {"resume", "timeout", "extra_body", "extra_headers", "extra_query"}
    names = set(get_type_hints(CreateParameters))
    assert ours < names
    values: dict[str, Any] = dict.fromkeys(names, "x")
    values |= {"resume": False, "timeout": None, "extra_body": None, "extra_headers": None, "extra_query": None}
    assert set(sent(**values)) == names - ours
    assert set(get_type_hints(RequestOptions)) == ours - {"resume", "extra_body"}


class Point(msgspec.Struct):
    x: int = 0
    y: int = 0


@attrs.frozen
class Attrs:
    x: int = 1


class Dumps:
    """As a pydantic model."""

    def model_dump(self, *, mode: str, **options: object) -> dict[str, object]:
        return {"mode": mode, "options": options["exclude_unset"], "x": Point(1)}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), {"x": 1, "y": 2}),
        (Attrs(), {"x": 1}),
        (Dumps(), {"mode": "json", "options": True, "x": {"x": 1, "y": 0}}),
        (MappingProxyType({"a": (1, 2)}), {"a": [1, 2]}),
        ("\ud800 alone", "\ud800 alone"),
        (["\udc00", Dumps()], ["\udc00", {"mode": "json", "options": True, "x": {"x": 1, "y": 0}}]),
        (math.nan, None),
        (["\udc00", math.inf], ["\udc00", None]),
    ],
)
def test_body_when_values_are_no_plain_json(value: Any, plain: Any) -> None:
    """Records, attrs classes, mappings, pydantic objects and lone surrogates are sent as the JSON that they mean."""
    assert sent(input=value) == {"input": plain}


def test_body_when_it_has_pydantic_objects() -> None:
    """Under the names that the API knows, without what was not set, also where a surrogate stands beside it."""
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model(
        "Item", kind=(str, pydantic.Field("x", alias="type")), name=(str, ...), more=(int | None, None)
    )
    for beside in ("plain", "\udc00"):
        items = [model(type="message", name="n"), model(name="n"), beside]
        assert sent(input=items)["input"] == [{"type": "message", "name": "n"}, {"name": "n"}, beside]


def test_body_when_it_has_items_of_a_response() -> None:
    """What a model gave goes back as it came: known items, parts of no known type, items of no known type."""
    output = [
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "hologram", "data": [1]}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "s"}],
            "encrypted_content": "e",
        },
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "call_1", "async": True},
        {"type": "telepathy_call", "id": "tp_1", "depth": {"a": None}},
    ]
    response = collect(
        [{"type": "response.completed", "response": {"id": "r", "status": "completed", "output": output}}]
    )
    given = [*response.output, {"type": "function_call_output", "call_id": "call_1", "output": "1"}]
    assert sent(input=given)["input"] == [*output, given[-1]]
    assert sent(input=response.output)["input"] == output


@pytest.mark.parametrize("trouble", [object(), {"a": [object()]}, {(1, 2): "x"}, 1j])
@pytest.mark.parametrize("text", ["plain", "\ud800"], ids=["text", "surrogate"])
def test_body_when_it_is_no_json(trouble: Any, text: str) -> None:
    """The caller is told, whatever else is in it."""
    with pytest.raises(UsageError, match="no JSON"):
        sent(input=text, metadata=trouble)


@pytest.mark.parametrize("text", ["plain", "\ud800"], ids=["text", "surrogate"])
def test_body_when_it_contains_itself(text: str) -> None:
    """A list in itself ends, as the caller's error."""
    inner: list[object] = []
    inner.append(inner)
    with pytest.raises(UsageError, match="no JSON"):
        sent(input=text, metadata=inner)


@given(parameters=st.dictionaries(st.text(st.characters(codec="ascii"), max_size=5), VALUES, max_size=4))
def test_body_when_it_is_read_again(parameters: dict[str, Any]) -> None:
    """A server reads what was given, but for what was None."""
    ours = {*get_type_hints(CreateParameters), "stream", "text_format", "settings"}
    kept = {name: value for name, value in parameters.items() if name not in ours}
    assert sent(extra_body=kept) == kept
    assert sent(**kept) == {name: value for name, value in kept.items() if value is not None}


# --- retrieve, cancel ------------------------------------------------------------------------------------------------


def test_response_call_when_it_is_a_document() -> None:
    """A GET without a body, and so without a type or an idempotency key."""
    made = response_call(settings(), "GET", "resp_1")
    assert (made.method, made.url, made.body) == ("GET", f"{HERE}/responses/resp_1", None)
    assert made.headers == {"accept": "application/json", "accept-encoding": "identity", "user-agent": "eventflow"}
    assert (made.stream, made.resume, made.conversation) == (False, False, None)


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({}, "?stream=true"),
        ({"starting_after": 0}, "?stream=true&starting_after=0"),
        ({"starting_after": 7, "extra_query": {"include": "x"}}, "?stream=true&starting_after=7&include=x"),
        ({"extra_query": {"stream": None, "a": True}}, "?a=true"),
    ],
)
def test_response_call_when_it_is_a_stream(options: dict[str, Any], query: str) -> None:
    """The address says so, and behind which event it is to begin; what is extra wins."""
    made = response_call(settings(), "GET", "resp_1", stream=True, resume=True, **options)
    assert made.url == f"{HERE}/responses/resp_1{query}"
    assert (made.headers["accept"], made.stream, made.resume) == ("text/event-stream", True, True)


def test_response_call_when_it_is_an_action() -> None:
    """The action stands behind the id; headers and timeouts are as of `create_call`."""
    timeouts = Timeouts(total=1)
    made = response_call(
        settings(), "POST", "resp_1", "/cancel", timeout=timeouts, extra_headers={"X-A": "b"}, extra_query={"c": 1}
    )
    assert made.url == f"{HERE}/responses/resp_1/cancel?c=1"
    assert (made.headers["x-a"], made.timeouts) == ("b", timeouts)


def test_response_call_when_the_id_is_empty() -> None:
    """An id that is missing must not become a list of all responses."""
    with pytest.raises(UsageError, match="empty"):
        response_call(settings(), "GET", "")


@given(response_id=st.text(min_size=1, max_size=12), base=st.sampled_from(["", "?a=b"]))
def test_response_call_when_the_id_is_odd(response_id: str, base: str) -> None:
    """It stays one segment of the path, whatever is in it, and a server reads it back."""
    assume(response_id not in (".", ".."))
    parts = urlsplit(response_call(settings(HERE + base), "GET", response_id, "/cancel").url)
    *before, segment, action = parts.path.split("/")
    assert (before, unquote(segment), action) == (["", "v1", "responses"], response_id, "cancel")
    assert parts.query == base[1:]


# --- timeouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeouts", "told"),
    [
        (Timeouts(), (10, 120, 120, 10)),
        (Timeouts(connect=1, first_event=2, idle=3, total=4), (1, 2, 2, 1)),
        (Timeouts(connect=1, first_event=5, total=4), (1, 4, 5, 1)),
        (Timeouts(connect=None, first_event=None), (None, None, None, None)),
        (Timeouts(first_event=None, total=4), (10, 4, None, 10)),
    ],
)
def test_timeout_when_an_http_client_is_told(timeouts: Timeouts, told: tuple[Any, ...]) -> None:
    """To connect, to read the head within the sooner of two, to write, and to get a connection."""
    connect, _, write, pool = told
    assert timeout_of(timeouts, is_async=False) == told
    assert timeout_of(timeouts, is_async=True) == (connect, None, write, pool)  # which times the head as a whole


def test_call_when_it_is_changed() -> None:
    """It cannot be: every attempt is the same request."""
    made = Call(method="GET", url=HERE, headers={}, timeouts=Timeouts())
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.url = "http://example.com"  # type: ignore[misc]


@pytest.mark.parametrize("given", [lambda: None, lambda: b"sk", lambda: "a\nb"])
def test_secret_when_its_function_gives_no_header(given: Any) -> None:
    """What a function gives for a key is looked at before it is sent."""
    with pytest.raises(UsageError, match="gave what no header may have"):
        Secret(given).now()


@pytest.mark.parametrize("changes", [{"limits": 3}, {"timeouts": 3}, {"api_key": Secret(b"sk")}])  # type: ignore[arg-type]
def test_settings_when_a_record_is_none(changes: dict[str, Any]) -> None:
    """A number where a record belongs, and bytes for a key, are told apart from what can be."""
    with pytest.raises(UsageError):
        settings(**changes)


@pytest.mark.parametrize("response_id", [".", ".."])
def test_response_call_when_the_id_would_lead_elsewhere(response_id: str) -> None:
    """Dots are folded by HTTP clients: they are no id."""
    with pytest.raises(UsageError, match="cannot be"):
        response_call(settings(HERE), "GET", response_id)


# --- what is of the wrong kind ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"extra_headers": 5}, "extra_headers takes a mapping, not int"),
        ({"extra_headers": [("a", "b")]}, "extra_headers takes a mapping, not list"),
        ({"extra_headers": {1: "b"}}, "extra_headers takes a mapping of text to text; 1 is of type int"),
        (
            {"extra_headers": {"a": None}},
            "extra_headers takes a mapping of text to text; the value of 'a' is of type NoneType",
        ),
        ({"extra_query": "a=b"}, "extra_query takes a mapping, not str"),
        ({"timeout": 5}, r"timeout takes Timeouts\(...\), not 5"),
    ],
)
def test_calls_when_what_is_given_is_of_the_wrong_kind(parameters: dict[str, Any], message: str) -> None:
    """Whatever is called: the error says what to give."""
    with pytest.raises(UsageError, match=f"^{message}$"):
        create_call(settings(), stream=False, **parameters)
    with pytest.raises(UsageError, match=f"^{message}$"):
        response_call(settings(), "GET", "resp_1", **parameters)


@pytest.mark.parametrize("value", [5, "a", [("a", "b")]])
def test_create_call_when_more_of_the_body_is_none(value: Any) -> None:
    """The body is an object, and so is what goes into it."""
    with pytest.raises(UsageError, match=f"extra_body takes a mapping, not {type(value).__name__}"):
        create_call(settings(), stream=False, extra_body=value)
    with pytest.raises(UsageError, match=f"text takes a mapping, not {type(value).__name__}"):
        create_call(settings(), stream=False, text=value, text_format=dict)


@pytest.mark.parametrize("value", [5, None, b"resp_1", ["resp_1"]])
def test_response_call_when_the_id_is_no_text(value: Any) -> None:
    """An id is text."""
    with pytest.raises(UsageError, match=f"the id of a response is text, not {type(value).__name__}"):
        response_call(settings(), "GET", value)


@pytest.mark.parametrize("value", ["5", 5.0, True])
def test_response_call_when_it_starts_after_no_number(value: Any) -> None:
    """A sequence number is an integer."""
    with pytest.raises(UsageError, match="starting_after takes a sequence_number, an integer, not"):
        response_call(settings(), "GET", "resp_1", stream=True, starting_after=value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_url": 5}, "base_url takes text, an address such as https://api.openai.com/v1, not int"),
        ({"base_url": b"http://here"}, "base_url takes text, an address such as https://api.openai.com/v1, not bytes"),
        ({"api_key": Secret({})}, "api_key takes text, or a function that gives it, not dict"),
        ({"headers": Secret(cast("Any", []))}, "headers takes a mapping, not list"),
        (
            {"headers": Secret(cast("Any", {"a": 5}))},
            "headers takes a mapping of text to text; the value of 'a' is of type int",
        ),
    ],
)
def test_settings_when_what_is_given_is_of_the_wrong_kind(given: dict[str, Any], message: str) -> None:
    """The error says what to give."""
    with pytest.raises(UsageError, match=f"^{message}$"):
        settings(**{"base_url": "http://here/v1", **given})
