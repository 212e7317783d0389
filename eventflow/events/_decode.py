"""JSON to events: strictly and straight from the bytes; what that refuses, a second, lenient way.

Servers send a null where text is expected, ``0.0`` for an integer, lone surrogates, items and events that nobody
knows. None of that is an error. Only a wrong shape in a field that we fold is: a delta that is a list, an output that
is a number. (What we do not fold is typed as JSON in the records, or becomes its default: `_LOOSE_FIELDS`.)
"""

from __future__ import annotations

import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from itertools import accumulate
from threading import RLock
from typing import Any, TypeAlias, TypeVar, cast

import msgspec

from eventflow.errors import DecodeError, LimitExceeded, UsageError, excerpt
from eventflow.events._base import RESERVED, Event, Record, Tagged, UnknownEvent, Untyped, class_of_tag, event_classes
from eventflow.events._names import resolve
from eventflow.events.error import StreamError
from eventflow.events.lifecycle import ResponseCompleted
from eventflow.events.response import (
    Annotation,
    IncompleteDetails,
    InputTokensDetails,
    Logprob,
    OutputTokensDetails,
    Response,
    ResponseFault,
    TopLogprob,
    Usage,
)

__all__ = [
    "BUILDING",
    "STRICT_ERRORS",
    "check_depth",
    "decode",
    "decode_mapping",
    "decode_object",
    "decode_response",
    "decoder_of",
    "is_flat",
    "read_leniently",
]

Decode: TypeAlias = Callable[[bytes | str], Event]
Shape: TypeAlias = Callable[[Any], Any]
T = TypeVar("T")

STRICT_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises where the lenient way is to be tried (`msgspec.ValidationError` is a `msgspec.DecodeError`)."""

BUILDING = RLock()
"""Held wherever msgspec may meet a class for the first time. While it reads the fields of one, other threads have their
turn, and a decoder that one of them makes with the same class reads memory that is not there (msgspec 0.22 crashes).
"""

_MAX_DIGITS = 4000  # CPython refuses to read longer integers (4,300 digits); such a number becomes a float
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_STEPS = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}


def decode(data: bytes | str, name: str = "", *, max_depth: int | None = 128) -> Event:
    """One event from its JSON.

    Args:
        data: A JSON object, as bytes or text. Invalid UTF-8 is replaced.
        name: The SSE event name; the type inside the data wins over it.
        max_depth: Nesting allowed in the JSON; None for any.

    Returns:
        The event; an `UnknownEvent` when nobody knows its type.

    Raises:
        DecodeError: The data is no JSON object, or a field that we fold has a wrong shape.
        LimitExceeded: The JSON is nested deeper than *max_depth*.
        UsageError: It is for an event class of the user's whose fields cannot be decoded.
    """
    cls = class_of_tag(name) if name else None
    says_nothing = cls is None or cls is StreamError or name.startswith(RESERVED)
    read = _any_event() if says_nothing else decoder_of(cast("type[Event]", cls))
    try:
        event = read(data)
    except STRICT_ERRORS:  # not an error yet: the lenient way decides
        check_depth(data, max_depth)
        return _lenient(data, name)
    if not is_flat(type(event)):
        check_depth(data, max_depth)
    return event


def decode_mapping(data: Mapping[str, object], name: str = "") -> Event:
    """One event from its JSON object as Python values, by the lenient way; raises as `decode` does."""
    return _from_object(dict(data), name)


def decode_object(data: bytes, *, max_depth: int | None = 128) -> dict[str, Any]:
    """One JSON object, or the last of an array of them; raises as `decode` does."""
    check_depth(data, max_depth)
    try:
        if data[:1] != b"[":
            return msgspec.json.decode(data, type=dict[str, Any])
        return (msgspec.json.decode(data, type=list[dict[str, Any]]) or [{}])[-1]
    except STRICT_ERRORS as error:
        raise DecodeError(f"the answer is no JSON object: {error}; it begins with {excerpt(data)}") from error


def decode_response(data: bytes, *, max_depth: int | None = 128) -> Response:
    """One response from its JSON; raises as `decode` does."""
    value = decode_object(data, max_depth=max_depth)
    event = decode_mapping({"type": ResponseCompleted.type, "response": value})
    return cast("ResponseCompleted", event).response


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
    bare = data.replace(rb"\\", b"").replace(rb"\"", b"")  # now every quote begins or ends a string
    brackets = b"".join(bare.split(b'"')[::2]).translate(None, _NOT_BRACKETS)
    deepest = max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
    if deepest > maximum:
        raise LimitExceeded(limit="json_depth", maximum=maximum, seen=deepest)


# --- the strict way --------------------------------------------------------------------------------------------------


def _once_per_class(make: Callable[[type[Any]], T]) -> Callable[[type[Any]], T]:
    """Keep what *make* gives on the class itself: a table would keep users' classes alive for ever."""
    name = f"_eventflow_{make.__name__}"

    @functools.wraps(make)
    def made(cls: type[Any]) -> T:
        if name not in cls.__dict__:
            with BUILDING:
                setattr(cls, name, make(cls))
        return cast("T", cls.__dict__[name])

    return made


@_once_per_class
def decoder_of(cls: type[Event]) -> Decode:
    """The strict decoder of one event class; it refuses data that names another type.

    It raises `STRICT_ERRORS`; making it raises `UsageError` where a user's class has fields that msgspec cannot decode.
    """
    try:
        return msgspec.json.Decoder(cls).decode
    except (TypeError, NameError) as error:
        raise _undecodable(cls, error) from error


@_once_per_class
def is_flat(cls: type[Event]) -> bool:
    """Whether the records of a class cannot nest without end: none of their fields is free JSON.

    What such an event carries besides its fields is skipped by the parser, so that its depth costs nothing and need
    not be measured: counting brackets would take as long as decoding does.
    """
    return _has_one_shape(cls) and all(
        field.name == "extra" or _is_bounded(field.type) for field in msgspec.structs.fields(cls)
    )


def _has_one_shape(cls: type[Event]) -> bool:
    """Whether it is one of the 59, neither a user's nor eventflow's own, and not the error, which has many shapes."""
    own = cls.__module__.startswith("eventflow.events.") and not cls.type.startswith(RESERVED)
    return own and cls is not StreamError


def _is_bounded(kind: Any) -> bool:
    if kind in (Any, object):
        return False
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return all(_is_bounded(field.type) for field in msgspec.structs.fields(kind))
    return all(_is_bounded(argument) for argument in typing.get_args(kind) if argument is not Ellipsis)


@functools.cache
def _any_event() -> Decode:
    """The strict decoder of frames whose event name says nothing: the type inside the data chooses."""
    known = [cls for cls in event_classes().values() if _has_one_shape(cls)]
    union: Any = known[0]
    for cls in known[1:]:
        union |= cls
    with BUILDING:
        return cast("Decode", msgspec.json.Decoder(union).decode)


def _undecodable(kind: object, error: Exception) -> UsageError:
    return UsageError(f"{getattr(kind, '__qualname__', kind)} cannot be decoded from JSON: {error}")


# --- the lenient way: from JSON to the right class -------------------------------------------------------------------


def _lenient(data: bytes | str, name: str) -> Event:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    try:
        value = read_leniently(text)
    except (ValueError, RecursionError) as error:
        if name == "error":
            return StreamError.from_wire(text)
        raise DecodeError(f"the data of a {name or 'message'} event is not JSON ({error}): {excerpt(text)}") from error
    return _from_object(value, name)


def read_leniently(text: str) -> Any:
    """The value of some JSON that msgspec refuses: with lone surrogates, or integers longer than Python's.

    Raises:
        ValueError, RecursionError: It is no JSON, or nested too deep.
    """
    return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _from_object(value: Any, name: str) -> Event:
    if not isinstance(value, dict):
        if name == "error":
            return StreamError.from_wire(value)
        what = f"the data of a {name or 'message'} event is {type(value).__name__}, not an object"
        raise DecodeError(f"{what}: {excerpt(_shown(value))}")
    data = cast("dict[str, Any]", value)
    kind, cls = _kind_of(data, name)
    number = _count(data.get("sequence_number"))
    if cls is StreamError:
        return StreamError.from_wire(data, number)
    if cls is None:
        return UnknownEvent(kind, data, sequence_number=number)
    try:
        return cast("Event", _record_shape(cls)(data))
    except _WrongShape as error:
        raise DecodeError(f"{kind}: {error}: {excerpt(_shown(data))}") from error


def _kind_of(value: dict[str, Any], name: str) -> tuple[str, type[Event] | None]:
    """The type of an event, and its class where it is known.

    The data's own type counts; then a known event name; then an ``error`` in the data, as gateways send it. A
    vendor's type under ``event: error`` is an error too.
    """
    sent = value.get("type")
    if isinstance(sent, str) and sent:
        kind, cls = sent, resolve(sent)
        if cls is None and name == "error":
            cls = StreamError
    else:
        kind, cls = name or "message", resolve(name)
        if cls is None and value.get("error") not in (None, False):
            cls = StreamError
    if cls is not None and cls.type.startswith(RESERVED):  # made here alone
        cls = None
    return kind, cls


def _count(value: object) -> int | None:
    try:
        return None if value is None else _whole(value)
    except _WrongShape:
        return None


def _shown(value: object) -> str:
    try:
        return json.dumps(value, default=repr)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, a mapping that contains itself
        return repr(value)


# --- the lenient way: a function per type that shapes a JSON value, or raises _WrongShape -----------------------------


_LOOSE_FIELDS = frozenset(
    {
        "annotation_index",
        "annotations",
        "completed_at",
        "created_at",
        "logprobs",
        "partial_image_index",
        "sequence_number",
        "top_logprobs",
        "usage",
    }
)
_LOOSE_RECORDS = (Usage, InputTokensDetails, OutputTokensDetails, Logprob, TopLogprob)
"""What nothing is folded by: a wrong shape there is no error but the default; the frame has it as sent."""

_TEXT_ALONE: dict[type[Record], str] = {ResponseFault: "message", IncompleteDetails: "reason"}
"""Records that some servers send as a string, and the field that it is."""


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
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise _WrongShape("text", value)


def _whole(value: Any) -> int:
    number = value
    if isinstance(value, str) and len(value) <= _MAX_DIGITS:
        if value.isdecimal():
            return int(value)
        if value.replace(".", "", 1).isdecimal():
            number = float(value)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    raise _WrongShape("an integer", value)


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise _WrongShape("a number", value)


def _as_is(value: Any) -> Any:
    return value


_SCALARS: dict[Any, Shape] = {str: _text, int: _whole, float: _number, Any: _as_is, object: _as_is}


def _shape_of(kind: Any) -> Shape:
    """How to make a value of *kind*, one of the types that the vocabulary uses; msgspec does those of users' events."""
    if isinstance(kind, types.UnionType):
        arguments = typing.get_args(kind)
        chosen = [argument for argument in arguments if argument is not types.NoneType]
        optional = len(chosen) < len(arguments)
        if len(chosen) == 1:
            return _optional_shape(_shape_of(chosen[0]))
        if all(isinstance(argument, type) and issubclass(argument, Tagged) for argument in chosen):
            return _union_shape(tuple(chosen), optional=optional)
    elif isinstance(kind, type) and issubclass(kind, Record):
        return lambda value: _record_shape(kind)(value)  # asked for late: a user's class may contain itself
    elif typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] == (Ellipsis,):
        return _tuple_shape(_shape_of(typing.get_args(kind)[0]))
    elif kind in _SCALARS:
        return _SCALARS[kind]
    return functools.partial(_foreign, kind)


def _foreign(kind: Any, value: Any) -> Any:
    try:
        with BUILDING:
            return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _WrongShape(f"{kind} ({error})", value) from error
    except TypeError as error:
        raise _undecodable(kind, error) from error


def _optional_shape(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def _tuple_shape(shape: Shape) -> Shape:
    def build(value: Any) -> tuple[Any, ...]:
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise _WrongShape("a list", value)
        return tuple([shape(element) for element in cast("list[Any]", value)])

    return build


def _union_shape(members: tuple[type[Tagged], ...], *, optional: bool) -> Shape:
    known = {member.type: _record_shape(member) for member in members}
    loose = members == typing.get_args(Annotation)

    def build(value: Any) -> Any:
        if value is None and optional:
            return None
        if not isinstance(value, Mapping):
            raise _WrongShape("an object", value)
        sent = dict(cast("Mapping[str, Any]", value))
        kind = sent.get("type")
        shape = known.get(kind) if isinstance(kind, str) else None
        if shape is None:
            return Untyped(sent)
        try:
            return shape(sent)
        except _WrongShape:
            if not loose:
                raise
            return Untyped(sent)

    return build


@_once_per_class
def _record_shape(cls: type[Record]) -> Shape:
    try:
        described = msgspec.structs.fields(cls)
    except (TypeError, NameError) as error:
        raise _undecodable(cls, error) from error
    loose = cls in _LOOSE_RECORDS
    fields = [
        (field.name, field.encode_name, _shape_of(field.type), field.required, loose or field.name in _LOOSE_FIELDS)
        for field in described
    ]
    alone = _TEXT_ALONE.get(cls)

    def build(value: Any) -> Record:
        if value is None and not any(field.required for field in described):
            return cls()
        if isinstance(value, str) and alone is not None:
            value = {alone: value}
        if not isinstance(value, Mapping):
            raise _WrongShape("an object", value)
        sent = cast("Mapping[str, Any]", value)
        made: dict[str, Any] = {}
        for name, wire_name, shape, required, loose in fields:
            if wire_name in sent or required:
                try:
                    made[name] = shape(sent.get(wire_name))
                except _WrongShape as error:
                    if not loose:
                        error.path = f"{name}.{error.path}" if error.path else name
                        raise
        try:
            return cls(**made)
        except (TypeError, ValueError) as error:  # of a user's own __post_init__
            raise _WrongShape(f"what {cls.__qualname__} takes ({error})", sent) from error

    return build
