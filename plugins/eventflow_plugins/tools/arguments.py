"""Arguments as a model writes them: one JSON object, read strictly; nothing is repaired."""

from __future__ import annotations

import collections
import json
import math
from typing import Any, cast

__all__ = ["InvalidArguments", "check_known", "check_text", "read_object"]

_SHOWN = 300  # characters of what the model wrote, in a message


class InvalidArguments(ValueError):
    """What a model wrote is not what a tool takes; the message is for the model."""


def read_object(text: str, depth: int) -> dict[str, Any]:
    """One JSON object, read strictly: no key twice, no NaN, no number without end, not too deep, and all of it text."""
    try:
        value = json.loads(
            text, object_pairs_hook=_without_doubles, parse_constant=_no_constant, parse_float=_finite_float
        )
    except InvalidArguments:
        raise
    except (ValueError, RecursionError) as error:  # also integers longer than Python's limit
        raise InvalidArguments(f"the arguments cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArguments("the arguments must be one JSON object")
    read = cast("dict[str, Any]", value)
    level: list[Any] = [read]
    for _ in range(depth):
        level = [inner for each in level for inner in _inside(each)]
    if level:
        raise InvalidArguments(f"the arguments are nested deeper than {depth}")
    check_text(json.dumps(read, ensure_ascii=False))
    return read


def check_text(text: str) -> None:
    """Refuse half of a surrogate pair, which no file and no socket takes; raises `InvalidArguments`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArguments("the arguments have half of a surrogate pair, which is no text") from error


def _inside(value: Any) -> list[Any]:
    """The collections right in a collection."""
    elements: Any = cast("dict[str, Any]", value).values() if isinstance(value, dict) else value
    return [element for element in elements if isinstance(element, dict | list)]


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        double = next(key for key, count in collections.Counter(key for key, _ in pairs).items() if count > 1)
        raise InvalidArguments(f"the arguments have the key {double[:_SHOWN]!r} twice")
    return read


def _no_constant(name: str) -> Any:
    raise InvalidArguments(f"the arguments have {name}, which is no JSON")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidArguments(f"the arguments have the number {digits[:40]}, which is too large")
    return number


def check_known(given: dict[str, Any], schema: dict[str, Any]) -> None:
    """Refuse what the schema does not speak of: msgspec and pydantic ignore it inside of most types.

    Each value is looked at once for each part of the schema, however the parts refer to each other.
    """
    definitions = cast("dict[str, Any]", schema.get("$defs", {}))
    seen: dict[tuple[int, int], str | None] = {}

    def target(part: Any) -> Any:
        while "$ref" in part:
            part = definitions[part["$ref"].rpartition("/")[2]]
        return part

    def fault(value: Any, part: Any, path: str) -> str | None:
        if not isinstance(value, dict | list) or not isinstance(part, dict):
            return None
        place = (id(cast("object", value)), id(cast("object", part)))
        if place not in seen:
            seen[place] = look(value, target(part), path)
        return seen[place]

    def look(value: Any, part: Any, path: str) -> str | None:
        options = part.get("anyOf") or part.get("oneOf") or part.get("allOf")
        if options:
            faults = [fault(value, option, path) for option in chosen(value, part, options)]
            return None if None in faults or not faults else faults[0]
        if isinstance(value, list):
            elements = cast("Any", value)
            first = part.get("prefixItems", ())
            parts = (first[place] if place < len(first) else part.get("items") for place in range(len(elements)))
            faults = [fault(element, each, f"{path}[...]") for element, each in zip(elements, parts, strict=True)]
            return next(filter(None, faults), None)
        properties, others = part.get("properties", {}), part.get("additionalProperties", "properties" not in part)
        for key, inner in value.items():
            if key not in properties and others is False:
                return f"Object contains unknown field `{key[:_SHOWN]}` - at `{path}`"
            found = fault(inner, properties.get(key, others), f"{path}.{key[:_SHOWN]}")
            if found is not None:
                return found
        return None

    def chosen(value: Any, part: Any, options: list[Any]) -> list[Any]:
        """The options that *value* can be one of."""
        kind = "object" if isinstance(value, dict) else "array"
        tags = part.get("discriminator", {})
        tag: object = cast("Any", value).get(tags.get("propertyName")) if kind == "object" else None
        named = tags.get("mapping", {}).get(str(tag))
        if named is not None:
            return [definitions[named.rpartition("/")[2]]]
        return [option for option in options if target(option).get("type", kind) == kind]

    found = fault(given, schema, "$")
    if found is not None:
        raise InvalidArguments(found)
