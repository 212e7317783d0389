"""Plain values: out of JSON that somebody else wrote, and of objects that are to become JSON. Pure.

What is read is what was asked for, or an empty one; nothing here raises because a peer wrote something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, cast

__all__ = ["as_list", "as_mapping", "as_number", "as_sent", "as_text"]


def as_mapping(value: Any) -> dict[str, Any]:
    """*value* itself where it is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """*value* itself where it is a list, a tuple as one, else an empty one."""
    if isinstance(value, tuple):
        return [*cast("Any", value)]
    return cast("Any", value) if isinstance(value, list) else []


def as_text(value: object) -> str:
    """*value* itself where it is text, else ``""``."""
    return value if isinstance(value, str) else ""


def as_number(value: object) -> int | None:
    """*value* as an integer where it is a finite number, else None; what is behind the point is cut off."""
    if isinstance(value, float):
        return int(value) if isfinite(value) else None
    return int(value) if isinstance(value, int) else None


def as_sent(value: Any) -> object:
    """What msgspec is to write for *value*, an object that it does not know: one of pydantic's, or any mapping.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(value, Mapping):  # items of no known type are such
        return dict(cast("Mapping[object, object]", value))
    if callable(getattr(value, "model_dump", None)):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    raise TypeError(f"an object of type {type(value).__name__} cannot be sent")
