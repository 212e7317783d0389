"""Limits: the defaults, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import Dispatcher, Limits
from eventflow.errors import LimitExceeded, UsageError
from eventflow.events import Message, OutputText, Untyped
from eventflow.limits import weight

NAMES = [field.name for field in attrs.fields(Limits)]


def test_limits_when_nothing_is_said() -> None:
    """Every bound is on."""
    assert Limits() == Limits(
        event_bytes=8 * 2**20,
        json_depth=128,
        text=64 * 2**20,
        arguments=8 * 2**20,
        other=64 * 2**20,
        calls=128,
        emitted=10_000,
    )


@pytest.mark.parametrize("name", NAMES)
def test_limits_when_one_is_set(name: str) -> None:
    """It takes a positive integer, or None for no limit; it is documented, and cannot be changed later."""
    assert getattr(Limits(**{name: 1}), name) == 1
    assert getattr(Limits(**{name: None}), name) is None
    assert f"{name}:" in str(Limits.__doc__)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(Limits(), name, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True])
def test_limits_when_one_is_no_positive_integer(name: str, value: Any) -> None:
    """The error says which one, and what it takes."""
    with pytest.raises(
        UsageError, match=rf"Limits\({name}=\.\.\.\) takes a positive integer, or None .* not {value!r}"
    ):
        Limits(**{name: value})


def test_limits_when_given_by_position() -> None:
    """They have no order that anybody could know."""
    with pytest.raises(TypeError):
        Limits(5)  # type: ignore[misc]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_weight_when_it_is_any_json(value: Any) -> None:
    """It is no more than the characters on the wire, and no less than those of the text."""
    assert weight(value) <= len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    assert weight(Untyped({"value": value})) == weight({"value": value}) == 1 + len("value") + weight(value)


def test_weight_when_it_is_a_record() -> None:
    """It is that of its fields."""
    message = Message(id="m", role="user", content=(OutputText("abc"),))
    assert weight(message) - weight(message.replace(content=())) == weight(OutputText("abc")) >= 3


BIG = "x" * 100
START = {"type": "response.created", "response": {"id": "r"}}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}}]}
IMAGE = {"image_url": {"url": f"data:image/png;base64,{BIG}"}}
CALL = {"id": BIG, "function": {"name": "f"}}


@pytest.mark.parametrize("size", [None, 1, 70])
@pytest.mark.parametrize(
    ("first", "event"),
    [
        (START, {"type": "response.output_item.done", "item": {"type": "new_thing", "data": BIG}}),
        (START, {"type": "response.output_item.done", "item": {"type": "reasoning", "encrypted_content": BIG}}),
        (START, {"type": "response.output_text.annotation.added", "annotation": {"type": "new", "data": BIG}}),
        (START, {"type": "response.content_part.added", "part": {"type": "new", "data": BIG}}),
        (START, {"type": "response.output_item.added", "item": {"type": "message", "id": BIG}}),
        (CHUNK, {"choices": [], "new": BIG}),
        (CHUNK, {"choices": [{"index": 0, "delta": {"annotations": [{"type": "new", "data": BIG}]}}]}),
        (CHUNK, {"choices": [{"index": 0, "delta": {"images": [IMAGE]}}]}),
        (CHUNK, {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]}),
        (
            BLOCK,
            {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {"a": BIG}}},
        ),
        (BLOCK, {"type": "content_block_start", "index": 0, "content_block": {"type": "new", "data": BIG}}),
        ({"candidates": []}, {"candidates": [{"content": {"parts": [{"new": BIG}]}}]}),
    ],
)
def test_other_when_something_else_is_kept(first: Any, event: Any, size: int | None) -> None:
    """It counts as well, however the stream was cut: nothing that a peer sends fills memory without a bound."""
    events = [first] + [json.loads(json.dumps(event).replace(BIG, chr(97 + n) * 100)) for n in range(20)]
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in events).encode()
    chunks = [body[at : at + (size or len(body))] for at in range(0, len(body), size or len(body))]
    run = Dispatcher(limits=Limits(other=1000, calls=None)).run(chunks, check=False)
    assert isinstance(run.error, LimitExceeded), run.error
    assert (run.error.limit, 1000 < run.error.seen < 1300) == ("other", True)
