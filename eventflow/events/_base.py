"""What every event is: `Event`, the families, the registry of wire names, and JSON out."""

from __future__ import annotations

import gc
import json
import math
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, cast, dataclass_transform

import msgspec

from eventflow.errors import UsageError

__all__ = [
    "FAMILY_NAMES",
    "JSON",
    "RESERVED",
    "Event",
    "Record",
    "Tagged",
    "UnknownEvent",
    "Untyped",
    "WireEvent",
    "class_of_spelling",
    "class_of_tag",
    "encode_json",
    "event_classes",
]

FAMILY_NAMES = ("text", "refusal", "reasoning", "tool", "item", "lifecycle", "error", "audio", "unknown", "custom")
"""The families there are."""

RESERVED = "eventflow."
"""How the wire names of eventflow's own events begin: no user may take one, and no peer may send one."""

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
"""Whatever JSON can say."""

_by_tag: weakref.WeakValueDictionary[str, type[Event]] = weakref.WeakValueDictionary()
_by_spelling: weakref.WeakValueDictionary[str, type[Event]] = weakref.WeakValueDictionary()


def event_classes() -> dict[str, type[Event]]:
    """Every event class alive, by wire name: the library's and those that users defined."""
    return dict(_by_tag)


def class_of_tag(tag: str) -> type[Event] | None:
    """The event class with exactly this wire name, or None."""
    return _by_tag.get(tag)


def class_of_spelling(name: str) -> type[Event] | None:
    """The event class with this wire name, where dots and underscores are one; or None."""
    return _by_tag.get(name) or _by_spelling.get(name.replace(".", "_"))


def _register(tag: str, cls: type[Event]) -> None:
    _by_tag[tag] = cls
    spelling = tag.replace(".", "_")
    first = _by_spelling.get(spelling)
    if first is None or first.type == tag:  # of two names that differ in dots alone the first is meant
        _by_spelling[spelling] = cls


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _RecordMeta(msgspec.StructMeta):
    """Makes a record's tag readable as its ``type``; tells type checkers that records are frozen."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> Any:
        tag = config.get("tag")
        if tag is not None:
            config.setdefault("tag_field", "type")
        cls = super().__new__(mcls, name, bases, namespace, **config)
        if tag is not None:
            cls.type = tag  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        return cls


class Record(msgspec.Struct, metaclass=_RecordMeta, frozen=True, gc=False, omit_defaults=True, repr_omit_defaults=True):
    """An immutable record of the vocabulary: an event, an item, a part, a `Response`.

    Equality, ``repr``, pattern matching and pickling are those of a dataclass.
    """

    def replace(self, **changes: object) -> Self:
        """A copy with *changes*; a field that does not exist is a `UsageError`."""
        try:
            return msgspec.structs.replace(self, **changes)
        except TypeError as error:
            names = ", ".join(self.__struct_fields__)
            raise UsageError(f"{type(self).__name__}.replace: {error}; its fields are {names}") from error

    def to_dict(self) -> dict[str, JSON]:
        """The record as JSON values, under the wire's names; fields at their default are left out."""
        return cast("dict[str, JSON]", _listed(msgspec.to_builtins(self, enc_hook=_plain)))

    def to_json(self) -> bytes:
        """The record as JSON, UTF-8; see `encode_json`."""
        return encode_json(self)


def encode_json(value: object) -> bytes:
    r"""JSON of anything, UTF-8, in one line; what is no JSON is shown by its ``repr``, NaN and infinities are null.

    Lone surrogates, which a peer may send as ``\ud800``, are written as such escapes.

    Raises:
        TypeError: A mapping has keys that are neither text nor numbers.
        RecursionError: A collection contains itself, or is nested deeper than Python's stack.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        plain = finite(msgspec.to_builtins(value, enc_hook=_plain, str_keys=True))
        return json.dumps(plain, separators=(",", ":")).encode("ascii")


def _plain(value: object) -> object:
    """JSON for the few things in events that are not JSON: untyped items, exceptions, foreign objects."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": str(value)}
    return repr(value)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode  # made once: a tenth of the time of a short record


def finite(value: Any) -> Any:
    """Numbers as the fast encoder writes them: what JSON has no words for is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in cast("list[Any]", value)]
    return value


def _listed(value: Any) -> Any:
    """Tuples as the lists that JSON has."""
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_listed(inner) for inner in cast("list[Any]", value)]
    return value


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
        if family is not None and family not in FAMILY_NAMES:
            raise UsageError(f"event class {name}: no family is called {family!r}; there is {', '.join(FAMILY_NAMES)}")
        cls = super().__new__(mcls, name, bases, namespace, **config)
        if family is not None:
            cls.family = family
        if tag is not None:
            _register(tag, cls)
        return cls


def _check_tag(tag: object, name: str, module: str, qualname: str) -> None:
    if not isinstance(tag, str) or not tag or any(c.isspace() or c == "*" for c in tag):
        raise UsageError(f'event class {name}: the tag must be a name like "yourapp.{name.lower()}", not {tag!r}')
    if tag.startswith(RESERVED) and not module.startswith("eventflow.events."):
        raise UsageError(f"event class {name}: the tag {tag!r} is none of yours: {RESERVED!r} begins eventflow's own")
    taken = _by_tag.get(tag)
    if taken is None or (taken.__module__, taken.__qualname__) == (module, qualname):  # a reloaded module
        return
    del taken
    gc.collect()  # a class is freed by the collector only: one that nobody uses any more does not count
    taken = _by_tag.get(tag)
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

    # what is a class's property elsewhere is this event's own
    type: str  # type: ignore[misc]  # pyright: ignore[reportIncompatibleVariableOverride]
    data: dict[str, Any]

    def to_dict(self) -> dict[str, JSON]:
        """The JSON object as sent, and the type where only the SSE event name told it."""
        return dict(self.data) if "type" in self.data else {"type": self.type, **self.data}

    def to_json(self) -> bytes:
        """`to_dict`, encoded."""
        return encode_json(self.to_dict())


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
