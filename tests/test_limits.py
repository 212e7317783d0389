"""Limits: the defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from eventflow import Limits
from eventflow.errors import UsageError

NAMES = [field.name for field in attrs.fields(Limits)]


def test_limits_when_nothing_is_said() -> None:
    """Every bound is on."""
    assert Limits() == Limits(
        event_bytes=8 * 2**20, json_depth=128, text=64 * 2**20, arguments=8 * 2**20, calls=128, emitted=10_000
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
