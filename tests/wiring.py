"""Frames into a wire, events out of it, and what every stream must keep."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from eventflow import Limits
from eventflow.events import Event, Response
from eventflow.snapshot import TERMINAL, Snapshot
from eventflow.sse import Frame
from eventflow.testing import check_order

__all__ = ["Told", "Unjoined", "Unscanned", "extras", "feed", "frame", "listen", "said", "unjoined"]


@attrs.frozen
class Told:
    """What a wire made of a stream: its events, and the response that they fold to."""

    events: list[Event]
    response: Response

    def of(self, cls: type[Event]) -> list[Any]:
        """The events of a class."""
        return [event for event in self.events if isinstance(event, cls)]


def frame(data: Any, name: str = "message") -> Frame:
    """Make a frame: of JSON, or of text as it is."""
    return Frame(event=name, data=data if isinstance(data, str) else json.dumps(data))


def feed(wire: Any, frames: Iterable[Frame], *, short: bool = False, close: bool = True) -> list[Event]:
    """What *wire* gives for *frames*: each the short way where it takes that, or all the long way."""
    events: list[Event] = []
    for each in frames:
        event = wire.delta(each.event, each.data.encode("utf-8", "surrogatepass")) if short else None
        events += wire.feed(each) if event is None else [event]
    return events + (wire.close() if close else [])


def listen(wire: Callable[[Limits], Any], *stream: Any, close: bool = True) -> Told:
    """Feed a stream to a new wire, and see that what it gives is in order, both ways the same, and folds to its end."""
    frames = [each if isinstance(each, Frame) else frame(each) for each in stream]
    events = feed(wire(Limits()), frames, close=close)
    assert feed(wire(Limits()), frames, short=True, close=close) == events
    check_order(events)
    snapshot = Snapshot()
    snapshot.add(events)
    assert not snapshot.oddities
    if events and isinstance(events[-1], TERMINAL):
        pieces = Snapshot()
        pieces.add(events[:-1])
        pieces.close()
        assert pieces.response.output == snapshot.response.output == events[-1].response.output
    return Told(events, snapshot.response)


def said(response: Response) -> list[Any]:
    """The items of a response in short: what kind each is, and what it says."""
    short: list[Any] = []
    for item in response.output:
        if item.type == "message":
            short.append("".join(getattr(part, "text", "") or getattr(part, "refusal", "") for part in item.content))
        elif item.type == "reasoning":
            short.append(("thought", "".join(part.text for part in item.content)))
        elif hasattr(item, "call_id"):
            short.append((item.name, item.arguments, item.call_id))
        else:
            short.append(item.type)
    return short


def extras(events: Iterable[Event]) -> dict[str, Any]:
    """What was kept beyond the vocabulary: of each name what was last said."""
    kept: dict[str, Any] = {}
    for event in events:
        kept.update(getattr(event, "extra", None) or {})
    return kept


class Unscanned(dict[Any, Any]):
    """A mapping of which single entries are asked for: who looks at all of them does so for ever more."""

    def __iter__(self) -> Any:
        raise AssertionError("all entries were looked at")

    keys = values = items = __iter__


class Unjoined(str):
    """Text that cannot be added to other text: who keeps pieces and joins them at the end does not notice."""

    __slots__ = ()

    def __add__(self, other: object) -> str:
        raise AssertionError("text that grows was copied for a piece")

    __radd__ = __add__


def unjoined(data: str) -> Any:
    """Read JSON; its text is `Unjoined`."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [convert(inner) for inner in value]
        return Unjoined(value) if isinstance(value, str) else value

    return convert(json.loads(data))
