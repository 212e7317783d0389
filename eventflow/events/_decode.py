"""JSON to events: strictly and straight from the bytes; what that refuses, a second, lenient way.

Servers send a null where text is expected, ``0.0`` for an integer, lone surrogates, items and events that nobody
knows. None of that is an error. Only a wrong shape in a field that we fold is: a delta that is a list, an output that
is a number. (Whatever we do not fold is typed as JSON in the records, so that it cannot be wrong.)
"""

from __future__ import annotations

import functools
import json
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import msgspec

from eventflow.errors import DecodeError, LimitExceeded, excerpt
from eventflow.events._base import Event, Record, Tagged, UnknownEvent, Untyped, class_of_tag, event_classes
from eventflow.events._names import resolve
from eventflow.events.error import StreamError
from eventflow.events.response import Annotation, Logprob, Logprobs

__all__ = ["decode", "decode_mapping", "decoder_of"]

Shape: TypeAlias = Callable[[Any], Any]

_MAX_DIGITS = 4000  # CPython refuses to read longer integers (4,300 digits); such a number becomes a float
_OURS = "eventflow."  # these events are made here; a peer's use of the name is an unknown event

STRICT_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises where the lenient way is to be tried (`msgspec.ValidationError` is a `msgspec.DecodeError`)."""


def decode(data: bytes | str, name: str = "", *, max_depth: int | None = 128) -> Event:
    """One event from its JSON.

    Args:
        data: A JSON object, as bytes or text. Invalid UTF-8 is replaced.
        name: The SSE event name; the type inside the data wins over it.
        max_depth: Nesting allowed in the JSON.

    Returns:
        The event; an `UnknownEvent` when nobody knows its type.

    Raises:
        DecodeError: The data is no JSON object, or a field that we fold has a wrong shape.
        LimitExceeded: The JSON is nested deeper than *max_depth*.
    """
    cls = class_of_tag(name) if name else None
    if cls is None or cls is StreamError or name.startswith(_OURS):
        read = _any_event() if not name or name == "message" else None
    else:
        read = decoder_of(cls)
    if read is not None:
        try:
            event = read(data)
        except STRICT_ERRORS:
            pass  # not an error yet: the lenient way decides
        else:
            if not is_flat(type(event)):
                check_depth(data, max_depth)
            return event
    check_depth(data, max_depth)
    return _lenient(data, name)


@functools.cache
def is_flat(cls: type[Event]) -> bool:
    """Whether the records of a class cannot nest without end: none of their fields is free JSON.

    What such an event carries besides its fields is skipped by the parser, so that its depth costs nothing and need
    not be measured: counting brackets would take as long as decoding does.
    """
    wire_events = cls.__module__.startswith("eventflow.events.") and not cls.type.startswith(_OURS)
    return wire_events and all(
        field.name == "extra" or _is_bounded(field.type) for field in msgspec.structs.fields(cls)
    )


def _is_bounded(kind: Any) -> bool:
    if kind in (Any, object):
        return False
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return all(_is_bounded(field.type) for field in msgspec.structs.fields(kind))
    return all(_is_bounded(argument) for argument in typing.get_args(kind) if argument is not Ellipsis)


def decode_mapping(data: Mapping[str, Any], name: str = "") -> Event:
    """One event from its JSON object as Python values, by the lenient way; raises as `decode` does."""
    return _from_object(dict(data), name)


def check_depth(data: bytes | str, maximum: int | None) -> None:
    """Raise `LimitExceeded` when JSON is nested deeper than *maximum*."""
    if maximum is None:
        return
    if isinstance(data, str):
        if data.count("{") + data.count("[") <= maximum:  # cannot be deeper than it has openings
            return
        data = data.encode("utf-8", "surrogatepass")
    elif data.count(b"{") + data.count(b"[") <= maximum:
        return
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if escaped:
            escaped = False
        elif in_string:
            if byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"{[":
            depth += 1
            if depth > maximum:
                raise LimitExceeded(limit="json_depth", maximum=maximum, seen=depth)
        elif byte in b"}]":
            depth -= 1
        deepest = max(deepest, depth)


@functools.cache
def decoder_of(cls: type[Event]) -> Callable[[bytes | str], Event]:
    """The strict decoder of one event class; it refuses data that names another type."""
    return msgspec.json.Decoder(cls).decode


@functools.cache
def _any_event() -> Callable[[bytes | str], Event]:
    """The strict decoder of frames that carry no event name: the type inside the data chooses."""
    known = [cls for tag, cls in event_classes().items() if tag.startswith("response.")]
    union: Any = functools.reduce(operator.or_, known)
    return cast("Callable[[bytes | str], Event]", msgspec.json.Decoder(union).decode)


def _lenient(data: bytes | str, name: str) -> Event:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    try:
        value = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        if name == "error":
            return StreamError.from_wire(text)
        raise DecodeError(f"the data of a {name or 'message'} event is not JSON ({error}): {excerpt(text)}") from error
    return _from_object(value, name)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _from_object(value: object, name: str) -> Event:
    if not isinstance(value, dict):
        if name == "error":
            return StreamError.from_wire(value)
        shown = excerpt(json.dumps(value))
        raise DecodeError(f"the data of a {name or 'message'} event is {type(value).__name__}, not an object: {shown}")
    sent = value.get("type")
    kind = sent if isinstance(sent, str) and sent else ""
    if not kind and value.get("error"):  # {"error": ...} without a type, as gateways send it
        kind = "error"
    if name == "error" and class_of_tag(kind) is None:  # event: error, and a vendor's own type inside
        kind = "error"
    kind = kind or name or "message"
    cls = None if kind.startswith(_OURS) else resolve(kind)
    if cls is StreamError:
        return StreamError.from_wire(value, _shape_of(int | None)(_number_or_none(value.get("sequence_number"))))
    if cls is None:
        return UnknownEvent(kind, value, sequence_number=_number_or_none(value.get("sequence_number")))
    try:
        return cast("Event", _record_shape(cls)(value))
    except _WrongShape as error:
        raise DecodeError(f"{kind}: {error}: {excerpt(json.dumps(value, default=repr))}") from error


def _number_or_none(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# --- the lenient way: a function per type that shapes a JSON value, or raises _WrongShape -----------------------------


class _WrongShape(Exception):
    def __init__(self, expected: str, value: object, path: str = "") -> None:
        super().__init__(expected, value, path)
        self.expected, self.value, self.path = expected, value, path

    def __str__(self) -> str:
        return f"{self.path or 'value'} must be {self.expected}, not {type(self.value).__name__}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    raise _WrongShape("text", value)


def _whole(value: Any) -> int:
    if isinstance(value, str):
        value = float(value) if value.strip().replace(".", "", 1).isdecimal() else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _WrongShape("an integer", value)


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise _WrongShape("a number", value)


def _as_is(value: Any) -> Any:
    return value


_SCALARS: dict[Any, Shape] = {str: _text, int: _whole, float: _number, Any: _as_is, object: _as_is}


@functools.cache
def _shape_of(kind: Any) -> Shape:
    """How to make a value of *kind*, one of the types that the vocabulary uses; msgspec does those of users' events."""
    if kind == Logprobs:
        return _loose_shape(_optional_shape(_tuple_shape(_record_shape(Logprob))))
    if kind in _SCALARS:
        return _SCALARS[kind]
    if isinstance(kind, type) and issubclass(kind, Record):
        return _record_shape(kind)
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        chosen = [argument for argument in arguments if argument is not types.NoneType]
        if all(isinstance(argument, type) and issubclass(argument, Tagged) for argument in chosen) and len(chosen) > 1:
            return _union_shape(tuple(chosen), optional=len(chosen) < len(arguments))
        if len(chosen) == 1:
            return _optional_shape(_shape_of(chosen[0]))
    if typing.get_origin(kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_shape(_shape_of(arguments[0]))
    return functools.partial(_foreign, kind)


def _foreign(kind: Any, value: Any) -> Any:
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _WrongShape(f"{kind} ({error})", value) from error


def _optional_shape(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def _loose_shape(shape: Shape) -> Shape:
    def build(value: Any) -> Any:
        try:
            return shape(value)
        except _WrongShape:
            return None  # not folded, so it cannot be an error; the frame has it as sent

    return build


def _tuple_shape(shape: Shape) -> Shape:
    def build(value: Any) -> tuple[Any, ...]:
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise _WrongShape("a list", value)
        return tuple([shape(element) for element in value])

    return build


def _union_shape(members: tuple[type[Tagged], ...], *, optional: bool) -> Shape:
    known = {member.type: _record_shape(member) for member in members}

    def build(value: Any) -> Any:
        if value is None and optional:
            return None
        if not isinstance(value, Mapping):
            raise _WrongShape("an object", value)
        shape = known.get(cast("str", value.get("type"))) if isinstance(value.get("type"), str) else None
        if shape is None:
            return Untyped(dict(value))
        try:
            return shape(value)
        except _WrongShape:
            if members == typing.get_args(Annotation):  # not folded, so it cannot be an error
                return Untyped(dict(value))
            raise

    return build


@functools.cache
def _record_shape(cls: type[Record]) -> Shape:
    fields = [
        (field.name, field.encode_name, _shape_of(field.type), field.required)
        for field in msgspec.structs.fields(cls)
    ]

    def build(value: Any) -> Record:
        if value is None and not any(required for *_, required in fields):
            return cls()
        if not isinstance(value, Mapping):
            raise _WrongShape("an object", value)
        made: dict[str, Any] = {}
        for name, wire_name, shape, required in fields:
            if wire_name in value or required:
                try:
                    made[name] = shape(value.get(wire_name))
                except _WrongShape as error:
                    error.path = f"{name}.{error.path}" if error.path else name
                    raise
        return cls(**made)

    return build
