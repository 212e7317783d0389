"""The order in which the events of one response come, as a table, and its checker: for tests of what makes events.

Every wire that assembles events keeps this order, and so do most recorded streams of OpenAI's own API (November 2026;
the others count nothing, or end without the items that they brought). Three machines run side by side: one for the
response, one for each of its items, one for each part of an item. An event moves the machines that it stands in, and
may come only where it stands. What a table cannot say (numbers, equal texts) are rules of `check_order`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast, final

import attrs

from eventflow import events as ef
from eventflow.errors import excerpt
from eventflow.events import Event

__all__ = ["ORDER", "Machine", "OrderError", "check_order", "draw_order"]


# --- the table -------------------------------------------------------------------------------------------------------

_AT_WORK = (  # the provider's own tools report
    ef.CodeInterpreterCallInProgress,
    ef.CodeInterpreterCallInterpreting,
    ef.CodeInterpreterCallCompleted,
    ef.CompactionCompacting,
    ef.FileSearchCallInProgress,
    ef.FileSearchCallSearching,
    ef.FileSearchCallCompleted,
    ef.ImageGenerationCallInProgress,
    ef.ImageGenerationCallGenerating,
    ef.ImageGenerationCallPartialImage,
    ef.ImageGenerationCallCompleted,
    ef.McpCallInProgress,
    ef.McpCallCompleted,
    ef.McpCallFailed,
    ef.McpListToolsInProgress,
    ef.McpListToolsCompleted,
    ef.McpListToolsFailed,
    ef.ShellCallCommandAdded,
    ef.ShellCallCommandDelta,
    ef.ShellCallCommandDone,
    ef.ShellCallOutputContentDelta,
    ef.ShellCallOutputContentDone,
    ef.WebSearchCallInProgress,
    ef.WebSearchCallSearching,
    ef.WebSearchCallCompleted,
)
_AUDIO = (ef.AudioDelta, ef.AudioDone, ef.AudioTranscriptDelta, ef.AudioTranscriptDone)
_CALL_DELTAS = (
    ef.FunctionCallArgumentsDelta,
    ef.CustomToolCallInputDelta,
    ef.McpCallArgumentsDelta,
    ef.CodeInterpreterCallCodeDelta,
)
_CALL_DONES = (
    ef.FunctionCallArgumentsDone,
    ef.CustomToolCallInputDone,
    ef.McpCallArgumentsDone,
    ef.CodeInterpreterCallCodeDone,
)
_PARTS_ADDED = (ef.ContentPartAdded, ef.ReasoningSummaryPartAdded)
_PARTS_DONE = (ef.ContentPartDone, ef.ReasoningSummaryPartDone)
_DELTAS = (ef.TextDelta, ef.RefusalDelta, ef.ReasoningTextDelta, ef.ReasoningSummaryTextDelta)
_DONES = (ef.TextDone, ef.RefusalDone, ef.ReasoningTextDone, ef.ReasoningSummaryTextDone)

_Moves = Mapping[type[Event], str]


def _moves(*moves: tuple[tuple[type[Event], ...], str]) -> _Moves:
    return MappingProxyType({event: state for events, state in moves for event in events})


@final
@attrs.frozen
class Machine:
    """The life of a response, of an item or of a part.

    Attributes:
        of: What it is the life of.
        within: Where it goes on: the machine above it, and the states which that must be in.
        states: Which event may come in a state, and the state after it. The first state is where it begins.
    """

    of: str
    within: tuple[str, tuple[str, ...]] | None
    states: Mapping[str, _Moves]

    @property
    def events(self) -> frozenset[type[Event]]:
        """The events that move it."""
        return frozenset(event for moves in self.states.values() for event in moves)


ORDER: Final[tuple[Machine, ...]] = (
    Machine(
        of="response",
        within=None,
        states=MappingProxyType(
            {
                "none": _moves(((ef.ResponseCreated,), "open"), ((ef.StreamError,), "error")),
                "open": _moves(
                    ((ef.ResponseQueued, ef.ResponseInProgress, ef.OutputItemAdded, *_AUDIO), "open"),
                    ((ef.ResponseCompleted, ef.ResponseIncomplete, ef.ResponseFailed), "ended"),
                    ((ef.StreamError,), "error"),
                ),
                "error": _moves(((ef.ResponseFailed,), "ended")),
                "ended": _moves(),
            }
        ),
    ),
    Machine(
        of="item",
        within=("response", ("open",)),
        states=MappingProxyType(
            {
                "none": _moves(((ef.OutputItemAdded,), "open")),
                "open": _moves(
                    ((*_PARTS_ADDED, *_AT_WORK), "open"),
                    (_CALL_DELTAS, "writing"),
                    (_CALL_DONES, "written"),
                    ((ef.OutputItemDone,), "closed"),
                ),
                "writing": _moves(((*_CALL_DELTAS, *_AT_WORK), "writing"), (_CALL_DONES, "written")),
                "written": _moves((_AT_WORK, "written"), ((ef.OutputItemDone,), "closed")),
                "closed": _moves(((ef.ToolCall,), "called")),
                "called": _moves(),
            }
        ),
    ),
    Machine(
        of="part",
        within=("item", ("open",)),
        states=MappingProxyType(
            {
                "none": _moves((_PARTS_ADDED, "open")),
                "open": _moves(((*_DELTAS, ef.TextAnnotationAdded), "open"), (_DONES, "written")),
                "written": _moves((_PARTS_DONE, "closed")),
                "closed": _moves(),
            }
        ),
    ),
)
"""The order: each machine after the one that it goes on within."""


def draw_order() -> str:
    """`ORDER` as text: of each machine its states, and under each the events that may come and where they lead."""
    lines = list[str]()
    for machine in ORDER:
        above = "" if machine.within is None else f", while its {machine.within[0]} is {' or '.join(machine.within[1])}"
        lines += ["", f"{machine.of}{above}"]
        for state, moves in machine.states.items():
            lines.append(f"  {state}{'' if moves else '  (the end)'}")
            lines += [f"    {event.type}{'' if after == state else f'  -> {after}'}" for event, after in moves.items()]
    return "\n".join(lines[1:])


# --- the checker -----------------------------------------------------------------------------------------------------


class OrderError(AssertionError):
    """Events are not in their order; the message names the event, its place and the rule."""


def check_order(events: Iterable[Event]) -> None:
    """Check that *events*, those of one response from its beginning on, are in their order; it may go on after them.

    Unknown events, those of users, and eventflow's own may stand anywhere; only a `ToolCall` comes right after the item
    that it tells of. The rules beyond the table: sequence numbers count from 0; items and parts are numbered from 0 in
    the order in which they are opened; a text that is done is its deltas, joined; a part that is done has that text and
    what it cites, an item that is done has its parts or its arguments, and the whole response has its items.

    Raises:
        OrderError: They are not; it tells of the first event that is out of order.

    >>> from eventflow.events import Response, ResponseCreated, TextDelta
    >>> check_order([ResponseCreated(Response(), sequence_number=0)])
    >>> check_order([TextDelta("a", output_index=0, content_index=0, sequence_number=0)])
    Traceback (most recent call last):
    ...
    eventflow.testing.order.OrderError: event 0, response.output_text.delta of item 0, content 0: its response is none
    """
    checker = _Checker()
    for place, event in enumerate(events):
        fault = checker.fault(event)
        if fault is not None:
            raise OrderError(f"event {place}, {event.type}{_place_of(event)}: {fault}")


_MOVED: dict[type[Event], tuple[Machine, ...]] = {  # by each event, the response first
    event: tuple(machine for machine in ORDER if event in machine.events)
    for event in frozenset[type[Event]]().union(*(machine.events for machine in ORDER))
}
_ABOVE: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {}  # what each goes on within, the response first
for _machine in ORDER:
    _ABOVE[_machine.of] = (*_ABOVE[_machine.within[0]], _machine.within) if _machine.within else ()
_KINDS: dict[type[Event], type[object]] = {  # what an event's part, or its item, must be
    ef.TextDelta: ef.OutputText,
    ef.TextDone: ef.OutputText,
    ef.TextAnnotationAdded: ef.OutputText,
    ef.RefusalDelta: ef.OutputRefusal,
    ef.RefusalDone: ef.OutputRefusal,
    ef.ReasoningTextDelta: ef.ReasoningText,
    ef.ReasoningTextDone: ef.ReasoningText,
    ef.ReasoningSummaryTextDelta: ef.SummaryText,
    ef.ReasoningSummaryTextDone: ef.SummaryText,
    ef.FunctionCallArgumentsDelta: ef.FunctionCall,
    ef.FunctionCallArgumentsDone: ef.FunctionCall,
    ef.CustomToolCallInputDelta: ef.CustomToolCall,
    ef.CustomToolCallInputDone: ef.CustomToolCall,
    ef.McpCallArgumentsDelta: ef.McpCall,
    ef.McpCallArgumentsDone: ef.McpCall,
    ef.CodeInterpreterCallCodeDelta: ef.CodeInterpreterCall,
    ef.CodeInterpreterCallCodeDone: ef.CodeInterpreterCall,
}
_CALLS: dict[str, Any] = {"function": ef.FunctionCall, "custom": ef.CustomToolCall, "mcp": ef.McpCall}
_TEXTS = ("text", "refusal", "arguments", "input", "code")  # the fields in which a text is, where it is done

_Place = tuple[object, ...]


class _Life:
    """What is known of a response, an item or a part.

    Attributes:
        state: That of its machine.
        start: The item or part as it was opened.
        end: As it was closed.
        text: The pieces of its text.
        annotations: What its text cites.
    """

    def __init__(self) -> None:
        self.state = "none"
        self.start: Any = None
        self.end: Any = None
        self.text: list[str] = []
        self.annotations: list[object] = []


class _Checker:
    """Where the lives of one stream are."""

    def __init__(self) -> None:
        self._lives: dict[_Place, _Life] = {}  # by ("response",), ("item", index), ("part", index, name, index)
        self._number = 0
        self._last: Event | None = None

    def fault(self, event: Event) -> str | None:
        """What is wrong with the next event; None when it is in order."""
        own = event.type.startswith("eventflow.")
        if isinstance(event, ef.WireEvent) and not own:
            if event.sequence_number != self._number:
                return f"its sequence number is {event.sequence_number}, the next is {self._number}"
            self._number += 1
        machines = _MOVED.get(type(event), ())
        fault = self._moves(event, machines) if machines else None
        if not own or machines:
            self._last = event
        return fault

    def _moves(self, event: Any, machines: tuple[Machine, ...]) -> str | None:
        for machine in machines:
            for above, states in _ABOVE[machine.of]:
                state = self._life(_key(above, event)).state
                if state not in states:
                    return f"its {above} is {state}"
            life = self._life(_key(machine.of, event))
            after = machine.states[life.state].get(type(cast("Event", event)))
            if after is None:
                return f"its {machine.of} is {life.state}, where it may not come"
            fault = self._rule(machine.of, life, event)
            if fault is not None:
                return fault
            life.state = after
        return None

    def _life(self, place: _Place) -> _Life:
        return self._lives.setdefault(place, _Life())

    def _of(self, *above: object) -> list[tuple[object, _Life]]:
        """The lives right below a place, by their numbers, in the order in which they began."""
        return [
            (place[-1], life) for place, life in self._lives.items() if place[:-1] == above and life.state != "none"
        ]

    # --- the rules beyond the table ----------------------------------------------------------------------------------

    def _rule(self, of: str, life: _Life, event: Any) -> str | None:
        if isinstance(event, _OPENING[of]):
            return self._opens(of, life, event)
        if isinstance(event, _CLOSING[of]):
            return self._closes(of, life, event)
        if isinstance(event, ef.ToolCall):
            return self._tells(life, event)
        return self._writes(of, life, event)

    def _opens(self, of: str, life: _Life, event: Any) -> str | None:
        if of == "response":
            return "its response has output already" if event.response.output else None
        place = _key(of, event)
        due = len(self._of(*place[:-1]))
        if place[-1] != due:
            return f"the {of} opened next is number {due}"
        life.start = event.item if of == "item" else event.part
        return None if of == "item" else self._named(event)

    def _named(self, event: Any) -> str | None:
        opened = self._life(_key("item", event)).start.id
        given = event.item.id if isinstance(event, ef.OutputItemDone) else event.item_id
        return None if given == opened else f"its item's id is {given!r}, and {opened!r} when it was opened"

    def _writes(self, of: str, life: _Life, event: Any) -> str | None:
        if of == "response":
            return None
        fault = self._named(event) if hasattr(event, "item_id") else None
        kind = _KINDS.get(type(cast("Event", event)))
        if fault is None and kind is not None and not isinstance(life.start, kind):
            fault = f"its {of} is {type(life.start).__name__}"
        if isinstance(event, ef.TextAnnotationAdded):
            if event.annotation_index != len(life.annotations):
                fault = fault or f"the annotation added next is number {len(life.annotations)}"
            life.annotations.append(event.annotation)
        elif isinstance(event, (*_CALL_DELTAS, *_DELTAS)):
            life.text.append(event.delta)
        elif isinstance(event, (*_CALL_DONES, *_DONES)):
            fault = fault or _differs("its text", _text_of(event), "".join(life.text), "of its deltas, joined")
        return fault

    def _closes(self, of: str, life: _Life, event: Any) -> str | None:
        if of == "response":
            return self._ends(event)
        fault = self._named(event)
        life.end = end = event.item if of == "item" else event.part
        if fault is not None or type(end) is not type(life.start):
            return fault or f"it was opened as {type(life.start).__name__}"
        if of == "part":
            cited = getattr(end, "annotations", ())
            fault = _differs("what it cites", cited, tuple(life.annotations), "of its annotations")
            return fault or _differs("its text", _text_of(end), "".join(life.text), "of its deltas, joined")
        for name in ("content", "summary"):
            parts = self._of("part", event.output_index, name)
            if any(part.state != "closed" for _, part in parts):
                return f"a part of its {name} is open"
            if hasattr(end, name):
                expected = tuple(part.end for _, part in parts) or getattr(life.start, name)
                fault = fault or _differs(f"its {name}", getattr(end, name), expected, "of its parts")
        if isinstance(end, ef.Message | ef.Reasoning | ef.Untyped):
            return fault
        written = "".join(life.text) if life.state == "written" else _text_of(life.start)
        return fault or _differs("its text", _text_of(end), written, "that was written")

    def _ends(self, event: Any) -> str | None:
        items = self._of("item")
        if not isinstance(event, ef.ResponseFailed):
            for index, item in items:
                if item.state not in ("closed", "called"):
                    return f"item {index} is {item.state}"
        closed = tuple(item.end for _, item in items if item.end is not None)
        return _differs("its output", event.response.output, closed, "of the items that were closed")

    def _tells(self, life: _Life, event: ef.ToolCall) -> str | None:
        last = self._last
        item: Any = life.end
        if not isinstance(last, ef.OutputItemDone) or last.output_index != event.output_index:
            return "it does not come right after its item"
        if not isinstance(item, _CALLS.get(event.kind, ())):
            return f"its item is {type(item).__name__}"
        if item.status in ("incomplete", "in_progress"):
            return f"its item is {item.status}"
        told = (event.name, event.arguments, event.call_id, event.item_id)
        return _differs("it", told, (item.name, item.arguments, item.call_id, item.id), "of its item")


_OPENING: dict[str, Any] = {"response": ef.ResponseCreated, "item": ef.OutputItemAdded, "part": _PARTS_ADDED}
_CLOSING: dict[str, Any] = {
    "response": (ef.ResponseCompleted, ef.ResponseIncomplete, ef.ResponseFailed),
    "item": ef.OutputItemDone,
    "part": _PARTS_DONE,
}


def _key(of: str, event: Any) -> _Place:
    if of == "response":
        return ("response",)
    if of == "item":
        return ("item", event.output_index)
    name = "summary" if hasattr(event, "summary_index") else "content"
    return ("part", event.output_index, name, getattr(event, f"{name}_index"))


def _place_of(event: Any) -> str:
    """Where an event belongs, for messages."""
    names = {"item": "output_index", "content": "content_index", "summary": "summary_index"}
    places = [f"{name} {getattr(event, field)}" for name, field in names.items() if hasattr(event, field)]
    return f" of {', '.join(places)}" if places else ""


def _text_of(record: Any) -> str:
    return next((getattr(record, name) or "" for name in _TEXTS if hasattr(record, name)), "")


def _differs(what: str, given: object, expected: object, of: str) -> str | None:
    if given == expected:
        return None
    return f"{what} is {excerpt(repr(given))}, not {excerpt(repr(expected))} {of}"
