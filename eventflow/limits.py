"""How much one stream may cost: `Limits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs
import msgspec

from eventflow.errors import UsageError

__all__ = ["Limits", "is_count", "limits_of", "weight"]


def is_count(value: object) -> bool:
    """Whether *value* says how many there may be: a whole number, at least 1; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def weight(value: object) -> int:
    """How much *value*, JSON or a record of it, counts: of text its characters, of all else one, and what is in it.

    No more than it has on the wire, for whoever counts there.
    """
    total, rest = 0, [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, msgspec.Struct):
            rest.extend(getattr(value, name) for name in value.__struct_fields__)
        elif value is not None:
            total += 1
            if isinstance(value, Mapping):
                for name, inner in cast("Mapping[str, object]", value).items():
                    total += len(name)
                    rest.append(inner)
            elif isinstance(value, list | tuple):
                rest.extend(cast("list[object]", value))
    return total


def _positive(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not is_count(value):
        raise UsageError(f"Limits({attribute.name}=...) takes a positive integer, or None for no limit, not {value!r}")


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of one run; reaching one ends the run with `LimitExceeded`. None switches a bound off.

    What another provider sends in pieces, but events tell whole, counts by itself: signatures of reasoning and blocks
    of unknown types against ``text``, arguments that are put together by path against ``arguments``.

    Attributes:
        event_bytes: Bytes of one event on the wire. 8 MiB: previews of images come in single events of megabytes.
        json_depth: Nesting of one event's JSON. 128: real events stay under 20.
        text: Characters of text, reasoning and refusals of one response together. 64 Mi.
        arguments: Characters of all tool arguments and code of one response together. 8 Mi.
        other: Characters of all else that is kept of one response: ids, what is encrypted, citations, images, items of
            unknown types, and what a translated stream carries beyond the vocabulary. What is no text counts one for
            each value. 64 Mi.
        calls: Tool calls of one response. 128.
        emitted: Events that handlers emit before the next one is read from the source: a loop of handlers that
            answer each other ends here. 10,000.
    """

    event_bytes: int | None = attrs.field(default=8 * 2**20, validator=_positive)
    json_depth: int | None = attrs.field(default=128, validator=_positive)
    text: int | None = attrs.field(default=64 * 2**20, validator=_positive)
    arguments: int | None = attrs.field(default=8 * 2**20, validator=_positive)
    other: int | None = attrs.field(default=64 * 2**20, validator=_positive)
    calls: int | None = attrs.field(default=128, validator=_positive)
    emitted: int | None = attrs.field(default=10_000, validator=_positive)


def limits_of(given: Limits | None) -> Limits:
    """What an argument ``limits`` means; raises `UsageError` where it is something else."""
    if given is not None and not isinstance(given, Limits):
        raise UsageError(f"limits takes Limits(...), not {given!r}")
    return given if given is not None else Limits()
