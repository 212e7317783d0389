"""What every event is: `Event`, the families, the registry of wire names, and JSON out."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar, cast, dataclass_transform

import msgspec

from eventflow.errors import UsageError

__all__ = ["JSON", "Event", "Record", "Tagged", "UnknownEvent", "Untyped", "WireEvent"]

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
"""Whatever JSON can say."""

R = TypeVar("R", bound="Record")

_registry: weakref.WeakValueDictionary[str, type[Event]] = weakref.WeakValueDictionary()


def event_classes() -> dict[str, type[Event]]:
    """Every event class alive, by wire name: the library's and those that users defined."""
    return dict(_registry)


def class_of_tag(tag: str) -> type[Event] | None:
    """The event class with exactly this wire name, or None."""
    return _registry.get(tag)


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _RecordMeta(msgspec.StructMeta):
    """Makes a record's tag readable as its ``type``; tells type checkers that records are frozen."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> Any:
        tag = config.get("tag")
        if tag is not None:
            config.setdefault("tag_field", "type")
        cls = super().__new__(mcls, name, bases, namespace, **config)
        if tag is not None:
            cls.type = tag  # type: ignore[attr-defined]
        return cls


class Record(msgspec.Struct, metaclass=_RecordMeta, frozen=True, gc=False, omit_defaults=True, repr_omit_defaults=True):
    """An immutable record of the vocabulary: an event, an item, a part, a `Response`.

    Equality, ``repr``, pattern matching and pickling are those of a dataclass.
    """

    def replace(self: R, **changes: object) -> R:
        """A copy with *changes*; a field that does not exist is a `UsageError`."""
        try:
            return msgspec.structs.replace(self, **changes)
        except TypeError as error:
            names = ", ".join(self.__struct_fields__)
            raise UsageError(f"{type(self).__name__}.replace: {error}; its fields are {names}") from error

    def to_dict(self) -> dict[str, JSON]:
        """The record as JSON values, under the wire's names; fields at their default are left out."""
        return cast("dict[str, JSON]", msgspec.to_builtins(self, enc_hook=_plain))

    def to_json(self) -> bytes:
        """The record as JSON, UTF-8; a lone surrogate of a peer is written as its ``\\ud800`` escape."""
        try:
            return msgspec.json.encode(self, enc_hook=_plain)
        except UnicodeEncodeError:
            return json.dumps(self.to_dict(), separators=(",", ":")).encode("ascii")


def _plain(value: object) -> object:
    """JSON for the few things in events that are not JSON: untyped items, exceptions, foreign objects."""
    as_json = getattr(value, "__eventflow_json__", None)
    if as_json is not None:
        return as_json()
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": str(value)}
    return repr(value)


class Tagged(Record):
    """A record that carries its type on the wire: an item, a part, an annotation."""

    type: ClassVar[str]


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _EventMeta(_RecordMeta):
    """Registers an event class under its tag, and refuses one without a tag or with a tag that is taken."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], family: str | None = None, **config: Any
    ) -> Any:
        tag = config.get("tag")
        if tag is not None:
            _check_tag(tag, name, namespace.get("__module__", ""), namespace.get("__qualname__", name))
        elif family is None:
            raise UsageError(f'event class {name} has no tag; write class {name}(Event, tag="yourapp.{name.lower()}")')
        cls = super().__new__(mcls, name, bases, namespace, **config)
        if family is not None:
            cls.family = family
        if tag is not None:
            _registry[tag] = cls
        return cls


def _check_tag(tag: object, name: str, module: str, qualname: str) -> None:
    if not isinstance(tag, str) or not tag or any(c.isspace() or c == "*" for c in tag):
        raise UsageError(f'event class {name}: the tag must be a name like "yourapp.{name.lower()}", not {tag!r}')
    taken = _registry.get(tag)
    if taken is None or (taken.__module__, taken.__qualname__) == (module, qualname):  # a reloaded module
        return
    del taken
    gc.collect()  # a class is freed by the collector only: one that nobody uses any more does not count
    taken = _registry.get(tag)
    if taken is not None:
        raise UsageError(f"event class {name}: the tag {tag!r} belongs to {taken.__module__}.{taken.__qualname__}")


class Event(Record, metaclass=_EventMeta, gc=True, family="custom"):
    """One thing that happened in a stream.

    Subclass it for events of your own: ``class Tick(Event, tag="myapp.tick"): n: int``. The tag is the wire name; an
    event that arrives under it is decoded into your class.

    Attributes:
        type: The wire name, ``"response.output_text.delta"``.
        family: ``text refusal reasoning tool item lifecycle error audio unknown`` or ``custom``.
    """

    type: ClassVar[str]
    family: ClassVar[str]

    if TYPE_CHECKING:  # the metaclass takes what checkers look for here

        def __init_subclass__(
            cls, *, tag: str | None = ..., family: str | None = ..., kw_only: bool = ..., gc: bool = ...
        ) -> None: ...


class WireEvent(Event, gc=False, kw_only=True, family="custom"):
    """An event that providers send.

    Attributes:
        sequence_number: Its number in the stream from 0, or None where the server does not count.
        extra: What a translated stream carries beyond the vocabulary, by the provider's own names; else None.
    """

    sequence_number: int | None = None
    extra: dict[str, Any] | None = msgspec.field(default=None, name="eventflow_extra")


class UnknownEvent(WireEvent, family="unknown"):
    """An event whose type nobody knows, with all it carried.

    Attributes:
        type: The wire name as sent, or the SSE event name where the data has no type.
        data: The JSON object as sent.
    """

    type: str  # type: ignore[misc]  # what is a class's property elsewhere is this event's own
    data: dict[str, Any]

    def __eventflow_json__(self) -> dict[str, Any]:
        return self.data

    def to_dict(self) -> dict[str, JSON]:
        """The JSON object as sent."""
        return dict(self.data)

    def to_json(self) -> bytes:
        """The JSON object as sent, encoded anew."""
        return encode_json(self.data)


class Untyped(Mapping[str, Any]):
    """An item or part of a type that this version does not spell out: a read-only mapping of what was sent."""

    __slots__ = ("data",)

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"Untyped({self.data!r})"

    @property
    def type(self) -> str:
        """The wire's type, ``""`` where it has none."""
        return str(self.data.get("type") or "")

    @property
    def id(self) -> str | None:
        """The wire's id, or None."""
        value = self.data.get("id")
        return value if isinstance(value, str) else None

    @property
    def status(self) -> str | None:
        """The wire's status, or None."""
        value = self.data.get("status")
        return value if isinstance(value, str) else None

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __eventflow_json__(self) -> dict[str, Any]:
        return self.data


def encode_json(value: object) -> bytes:
    """JSON of anything, UTF-8; lone surrogates are escaped, what is no JSON is shown by its ``repr``."""
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value, enc_hook=_plain), separators=(",", ":")).encode("ascii")
