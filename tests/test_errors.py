"""Errors: one root, drawn in the docstring; what they carry, and that they survive pickling."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import errors
from eventflow.errors import (
    APIStreamError,
    ConnectionFailed,
    DecodeError,
    EventflowError,
    HTTPStatusError,
    LimitExceeded,
    SequenceError,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
    UnexpectedContentType,
    excerpt,
)
from eventflow.events import Response
from eventflow.sse import Frame

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, EventflowError)]
MADE: list[EventflowError] = [
    *(cls("what happened") for cls in CLASSES),
    DecodeError("no", frame=Frame(event="x", data="{", id="7")),
    LimitExceeded(limit="text", maximum=10, seen=12),
    SequenceError("gap", expected=3, got=5),
    APIStreamError("slow", code="rate_limit_exceeded", type="requests", param="input", request_id="req_1"),
    HTTPStatusError("429", status=429, excerpt="{}", request_id="req_1", retry_after=1.5),
    UnexpectedContentType("html", content_type="text/html", excerpt="<html>"),
]


def test_docstring_when_it_draws_the_errors() -> None:
    """Every class is in the drawing, under its base."""
    drawing = str(errors.__doc__)
    for cls in CLASSES[1:]:
        depth = cls.__mro__.index(EventflowError)
        assert re.search(rf"^ {{4}}([│ ]   ){{{depth - 1}}}[├└]── {cls.__name__} ", drawing, re.MULTILINE), cls
    assert drawing.count("── ") == len(CLASSES) - 1


def test_public_names_when_listed() -> None:
    """They are the classes, the type of their phases, and what messages quote with; each class has a docstring."""
    assert set(errors.__all__) == {cls.__name__ for cls in CLASSES} | {"Phase", "excerpt"}
    assert all(cls.__doc__ for cls in CLASSES)


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_error_when_pickled_or_copied(error: EventflowError) -> None:
    """All that it carries comes through, notes too; the run, which is alive, stays behind."""
    error.partial = Response(id="resp_1", status="in_progress")
    error.run = object()  # type: ignore[assignment]
    error.add_note("raised by h")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert {**vars(twin), "run": None} == {**vars(error), "run": None}
        assert twin.run is None
        assert str(twin) == str(error)
        assert (twin.retryable, twin.phase) == (error.retryable, error.phase)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_when_made_without_anything(cls: type[EventflowError]) -> None:
    """It has what every error has."""
    error = cls()
    assert error.partial is error.run is None
    assert (error.message == str(error)) is not isinstance(error, APIStreamError)
    assert isinstance(error.retryable, bool)
    assert error.phase in (None, "connect", "headers", "stream", "decode", "handler", "tool")


def test_retryable_when_errors_are_asked() -> None:
    """What the network or the clock did may be tried again; what the caller or the peer's bytes did may not."""
    assert {cls for cls in CLASSES if cls().retryable} == {
        StreamTruncated,
        StreamInterrupted,
        ConnectionFailed,
        StreamTimeout,
        SequenceError,
    }


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (401, False), (404, False), (408, True), (409, True), (429, True), (500, True)],
)
def test_http_status_when_it_may_be_tried_again(status: int, retryable: bool) -> None:
    """408, 409, 429 and the server's own faults."""
    assert HTTPStatusError("no", status=status).retryable is retryable


def test_limit_exceeded_when_it_has_no_message() -> None:
    """It says which limit, and what to do."""
    error = LimitExceeded(limit="event_bytes", maximum=8388608, seen=9000000)
    what = "event_bytes is limited to 8,388,608 and 9,000,000 was reached"
    assert error.message == f"{what}; raise Limits(event_bytes=...) if that is expected"
    assert LimitExceeded("too much").message == "too much"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"message": "slow", "code": "rate_limit", "type": "requests"}, "rate_limit (requests): slow"),
        ({"message": "slow", "code": "x", "type": "x"}, "x: slow"),
        ({"message": "slow"}, "slow"),
        ({"type": "requests"}, "(requests)"),
        ({"message": "", "param": "input"}, "no reason given"),
        ({"message": "two\nlines\x1b"}, "two\\nlines\\u001b"),
    ],
)
def test_api_error_when_it_is_shown(told: dict[str, Any], text: str) -> None:
    """``message`` is what the API said, and nothing where it said nothing; the sentence has all of it, on one line."""
    error = APIStreamError(**told)
    assert str(error) == f"the API reported an error in the stream: {text}"
    assert error.message == (text.rpartition(": ")[2] if told.get("message") else "")
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.message) == (str(error), error.message)


@given(st.binary(max_size=50) | st.text(max_size=50), st.integers(0, 20))
def test_excerpt_when_of_foreign_bytes(data: Any, length: int) -> None:
    """It is short, in one line, and can be printed anywhere."""
    shown = excerpt(data, length)
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    body = shown.removesuffix("…")
    assert body.isascii()
    assert body.isprintable()
    assert body.encode().decode("unicode_escape") == text[:length]
    assert shown.endswith("…") == (len(text) > length)


def test_excerpt_when_the_data_is_large() -> None:
    """Only its start is looked at, whatever its characters take."""
    assert excerpt("é".encode() * 1000, 3) == "\\xe9\\xe9\\xe9…"
    assert excerpt("😀".encode() * 1000, 3) == "\\U0001f600" * 3 + "…"
    assert excerpt(b"<html>\x1b[31m") == "<html>\\x1b[31m"
