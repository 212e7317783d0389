"""`only`, `drop`, `tap`: what a pipeline often needs between its plugins, in a word."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from eventflow import Event, Plugin, Run, configured, on, transform
from eventflow.errors import UsageError
from eventflow.routing import ErrorPolicy, Handler, Select, Selects, handler_of

__all__ = ["Drop", "Only", "Tap", "drop", "only", "tap"]


class Only(Plugin):
    """What is not selected goes no further; see `only`.

    Attributes:
        events: A selector, as for `on`, or a tuple or list of them.
    """

    events: Selects

    def __repr__(self) -> str:
        return f"only({_shown(self.events)})"

    @transform(configured("events", negate=True))
    def _drop(self, event: Event) -> None:
        return None


class Drop(Plugin):
    """What is selected goes no further; see `drop`.

    Attributes:
        events: A selector, as for `on`, or a tuple or list of them.
    """

    events: Selects

    def __repr__(self) -> str:
        return f"drop({_shown(self.events)})"

    @transform(configured("events"))
    def _drop(self, event: Event) -> None:
        return None


class Tap(Plugin):
    """Calls a function with what is selected; see `tap`.

    Attributes:
        function: What is called, with the event, and the run if it takes a second argument.
        events: A selector, as for `on`, or a tuple or list of them.
        errors: What its failure does: ``raise`` or ``isolate``.
    """

    function: Callable[..., object]
    events: Selects = "*"
    errors: ErrorPolicy = attrs.field(default="raise", kw_only=True)
    _handler: Handler = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._handler = handler_of(self.function, ())  # says what is wrong with a function that cannot be called so

    def __repr__(self) -> str:
        selects = "" if self.events == "*" else f", {_shown(self.events)}"
        errors = "" if self.errors == "raise" else f", errors={self.errors!r}"
        return f"tap({self._handler.name}{selects}{errors})"

    def start(self, run: Run) -> None:
        """Refuse what could not be awaited, before the first event."""
        if self._handler.is_async and not run.is_async:
            raise UsageError(f"{self!r} can only be awaited; use arun(), astream() or aopen()")

    @on(configured("events"), errors=configured("errors"))
    def _call(self, event: Event, run: Run) -> object:
        return self.function(event, run) if self._handler.wants_run else self.function(event)


def only(*selects: Select) -> Only:
    """A plugin that lets go on what is selected, and nothing else.

    ::

        Dispatcher(only("text", ToolOutput) | Log("run.jsonl"))

    Plugins behind it and the dispatcher's handlers see the rest no more, the events that end a stream included;
    ``run.response`` and ``run.status`` are as ever.

    Args:
        selects: Event classes, wire names, families or patterns, as for `on`.

    Raises:
        UsageError: There is no selector, or one that can never match.
    """
    return Only(_given("only", selects))


def drop(*selects: Select) -> Drop:
    """A plugin that lets everything go on but what is selected; arguments and errors as for `only`.

    ::

        Dispatcher(drop("reasoning") | Log("run.jsonl"))
    """
    return Drop(_given("drop", selects))


def tap(function: Callable[..., object], *selects: Select, errors: ErrorPolicy = "raise") -> Tap:
    """A plugin that calls a function with each event that comes to this place of the pipeline, which goes on unchanged.

    ::

        Dispatcher(Redact() | tap(print, TextDelta) | Tools([...]))

    Args:
        function: Called with the event, and the run if it takes a second argument. It may be async, for async runs.
            What it gives is treated as what a handler gives.
        selects: Which events, as for `on`; by default all.
        errors: What its failure does: ``raise`` ends the run with it; ``isolate`` logs it, reports it as a
            `HandlerFailed` event, and the run goes on.

    Raises:
        UsageError: A selector can never match, or the function cannot take an event.
    """
    return Tap(function, selects or "*", errors=errors)


def _given(name: str, selects: tuple[Select, ...]) -> tuple[Select, ...]:
    if not selects:
        raise UsageError(f'{name}() needs a selector: {name}(TextDelta), {name}("tool"), {name}("response.*.delta")')
    return selects


def _shown(events: Selects) -> str:
    selects = events if isinstance(events, tuple | list) else (events,)
    return ", ".join(select.__name__ if isinstance(select, type) else repr(select) for select in selects)
