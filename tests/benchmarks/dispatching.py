"""Events that are decoded already, to handlers: `Dispatcher`, blinker's signals, pluggy's hooks."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from handling import openai_stream
from measure import Lap, Race, race
from responses import response
from streams import all_types, slices, text_stream

from eventflow import Dispatcher, TextDelta, iter_events
from eventflow.events import Event, event_classes

__all__ = ["every_type", "three_handlers"]

Handler = Callable[[Any], None]
Table = dict[str, list[Handler]]
"""The handlers of each wire name."""
Dispatch = Callable[[list[Event]], object]
"""Takes the events of one stream to their handlers."""


def every_type(events: int, rounds: int) -> list[Race]:
    """All types of the wire in turn, a handler for each: from events as objects, then from bytes."""
    body = all_types(events)
    decoded = list(iter_events(body))
    kinds = [tag for tag in event_classes() if not tag.startswith("eventflow.")]
    return [
        race(
            f"{len(kinds)} types, a handler each, decoded events",
            {name: functools.partial(_lap, make, kinds, 1, decoded) for name, make in _DISPATCHERS.items()},
            events=len(decoded),
            rounds=rounds,
        ),
        race(
            f"{len(kinds)} types, a handler each, 4 KiB chunks",
            {
                "Dispatcher.run": functools.partial(_lap, _ours_from_bytes, kinds, 1, slices(body)),
                "openai Stream, a table": functools.partial(_lap, _openai_from_bytes, kinds, 1, slices(body)),
            },
            events=len(decoded),
            rounds=rounds,
        ),
    ]


def three_handlers(deltas: int, rounds: int) -> list[Race]:
    """Three handlers of one type: from events as objects, then from bytes, with one handler beside."""
    body = b"".join(text_stream(deltas))
    decoded = list(iter_events(body))
    kinds = [TextDelta.type]
    return [
        race(
            "three handlers of one type, decoded events",
            {name: functools.partial(_lap, make, kinds, 3, decoded) for name, make in _DISPATCHERS.items()},
            events=deltas,
            rounds=rounds,
        ),
        race(
            "three handlers of one type, 4 KiB chunks",
            {
                "Dispatcher.run, three handlers": functools.partial(_lap, _ours_from_bytes, kinds, 3, slices(body)),
                "Dispatcher.run, one handler": functools.partial(_lap, _ours_from_bytes, kinds, 1, slices(body)),
            },
            events=deltas,
            rounds=rounds,
        ),
    ]


def _lap(make: Callable[[Table], Callable[[Any], object]], kinds: list[str], handlers: int, source: Any) -> Lap:
    """A lap over *source* with *handlers* handlers for each of *kinds*; gives the events that all of them heard."""
    heard = 0

    def handler() -> Handler:
        def hear(event: object) -> None:
            nonlocal heard
            heard += 1

        return hear

    dispatch = make({kind: [handler() for _ in range(handlers)] for kind in kinds})

    def lap() -> int:
        nonlocal heard
        heard = 0
        dispatch(source)
        return heard // handlers

    return lap


# --- decoded events --------------------------------------------------------------------------------------------------


def _ours(table: Table, snapshot: bool = True) -> Callable[[Any], object]:
    flow = Dispatcher(snapshot=snapshot)
    for kind, handlers in table.items():
        for handler in handlers:
            flow.on(kind, handler)
    return flow.run


def _ours_without_snapshot(table: Table) -> Dispatch:
    return _ours(table, snapshot=False)


def _by_hand(table: Table) -> Dispatch:
    def dispatch(events: list[Event]) -> None:
        for event in events:
            for handler in table.get(event.type, ()):
                handler(event)

    return dispatch


def _blinker(table: Table) -> Dispatch:
    from blinker import Namespace

    namespace = Namespace()
    for kind, handlers in table.items():
        for handler in handlers:
            namespace.signal(kind).connect(handler, weak=False)

    def dispatch(events: list[Event]) -> None:
        for event in events:
            signal = namespace.get(event.type)
            if signal is not None:
                signal.send(event)  # as the sender: a keyword for it would cost a little more

    return dispatch


def _pluggy(table: Table) -> Dispatch:
    from pluggy import HookimplMarker, HookspecMarker, PluginManager

    specified, implemented = HookspecMarker("benchmark"), HookimplMarker("benchmark")

    def specification() -> Handler:
        def hook(event: Event) -> None: ...

        return specified(hook)

    names = {kind: kind.replace(".", "_") for kind in table}
    manager = PluginManager("benchmark")
    manager.add_hookspecs(type("Specifications", (), {name: staticmethod(specification()) for name in names.values()}))
    for place in range(max(map(len, table.values()))):
        hooks = {names[kind]: implemented(handlers[place]) for kind, handlers in table.items()}
        manager.register(types.SimpleNamespace(**hooks))
    calls = {kind: getattr(manager.hook, name) for kind, name in names.items()}

    def dispatch(events: list[Event]) -> None:
        for event in events:
            call = calls.get(event.type)
            if call is not None:
                call(event=event)

    return dispatch


_DISPATCHERS: dict[str, Callable[[Table], Dispatch]] = {
    "Dispatcher.run, everything on": _ours,
    "Dispatcher.run, snapshot=False": _ours_without_snapshot,
    "blinker, a signal a type": _blinker,
    "pluggy, a hook a type": _pluggy,
    "a dict of lists, by hand": _by_hand,
}


# --- from bytes ------------------------------------------------------------------------------------------------------


def _ours_from_bytes(table: Table) -> Callable[[list[bytes]], object]:
    run = _ours(table)
    return lambda chunks: run(response(chunks))


def _openai_from_bytes(table: Table) -> Callable[[list[bytes]], object]:
    stream = openai_stream()

    def dispatch(chunks: list[bytes]) -> None:
        for event in stream(response(chunks)):
            for handler in table.get(event.type, ()):
                handler(event)

    return dispatch
