"""Who hears what: selectors, handlers, and the table that says which handlers an event goes to. Pure."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypedDict, cast, get_args

import attrs

from eventflow.errors import UsageError
from eventflow.events import (
    AudioEvent,
    ErrorEvent,
    Event,
    ItemEvent,
    LifecycleEvent,
    ReasoningEvent,
    RefusalEvent,
    TextEvent,
    ToolEvent,
    UnknownEvent,
    nearest,
    resolve,
)
from eventflow.limits import is_count

__all__ = [
    "FAMILIES",
    "Background",
    "ErrorPolicy",
    "Handler",
    "HandlerOptions",
    "Matcher",
    "Overflow",
    "Select",
    "Selects",
    "check_policy",
    "handler_of",
    "is_async",
    "matcher_of",
    "name_of",
]

Select: TypeAlias = type[Event] | str
"""What may stand in ``on(...)``: an event class, a wire name, a family, or a pattern."""

Selects: TypeAlias = Select | tuple[Select, ...] | list[Select]
"""What a plugin's field holds that says which events: a selector, or several; see `eventflow.plugin.configured`."""

ErrorPolicy = Literal["raise", "isolate"]
"""What a handler's failure does: end the run, or become a `HandlerFailed` event."""

Overflow = Literal["block", "drop_oldest", "coalesce", "error"]
"""What happens to an event for which a queue has no room."""

FAMILIES: dict[str, type[Event]] = {
    "text": TextEvent,
    "refusal": RefusalEvent,
    "reasoning": ReasoningEvent,
    "tool": ToolEvent,
    "item": ItemEvent,
    "lifecycle": LifecycleEvent,
    "error": ErrorEvent,
    "audio": AudioEvent,
    "unknown": UnknownEvent,
    "custom": Event,
}
"""The families, and the class whose subclasses belong to each (``custom``: whatever belongs to no other)."""

_TAKES = "on() takes event classes, wire names, families and patterns"


@attrs.frozen
class Matcher:
    """A selector, ready to be asked."""

    select: Select
    base: type[Event] | None = None
    pattern: re.Pattern[str] | None = None

    def __call__(self, cls: type[Event], name: str) -> bool:
        """Whether events of class *cls* under the wire name *name* are meant."""
        if self.pattern is not None:
            return self.pattern.fullmatch(name) is not None
        if self.select == "custom":
            return cls.family == "custom"
        return self.base is not None and issubclass(cls, self.base)


def matcher_of(select: Select) -> Matcher:
    """Read a selector.

    Raises:
        UsageError: It can never match; the message names the nearest spelling.
    """
    if isinstance(select, type):
        if not issubclass(select, Event):
            raise UsageError(f"{select.__name__} is no event class; {_TAKES}")
        return Matcher(select, base=select)
    if not isinstance(select, str):
        raise UsageError(f"{select!r} is no selector; {_TAKES}")
    if "*" in select:
        return Matcher(select, pattern=re.compile(".*".join(map(re.escape, select.split("*"))), re.DOTALL))
    if select in FAMILIES:
        return Matcher(select, base=FAMILIES[select])
    cls = resolve(select)
    if cls is not None:
        return Matcher(select, base=cls)
    guess = nearest(select, tuple(FAMILIES))
    hint = f"did you mean {guess!r}?" if guess else f"families are {', '.join(FAMILIES)}."
    raise UsageError(
        f"no event is called {select!r}; {hint} A vendor's own events are reached by a pattern: {select + '*'!r}"
    )


class HandlerOptions(TypedDict, total=False):
    """What may be said of a handler besides its selectors; see `Handler` and `Background`."""

    order: int
    errors: ErrorPolicy
    background: bool
    queue: int
    overflow: Overflow
    patience: float | None


@attrs.frozen(kw_only=True)
class Background:
    """How a handler hears events beside the run: from a queue of its own, in order, by a worker of its own.

    Attributes:
        queue: Events that may wait for it. 256.
        overflow: What happens when so many do: ``block`` (the run waits, and so does the server), ``drop_oldest``,
            ``coalesce`` (deltas of one text are joined; for other events the run waits), ``error`` (`SlowConsumer`).
        patience: Seconds that the run waits, for room or at its end, while the handler is at one event; then it fails
            with `SlowConsumer`. 60; None for ever.
    """

    queue: int = 256
    overflow: Overflow = "block"
    patience: float | None = 60.0

    def __attrs_post_init__(self) -> None:
        if not is_count(self.queue):
            raise UsageError(f"queue must be a positive number of events, not {self.queue!r}")
        if self.overflow not in get_args(Overflow):
            raise UsageError(f"overflow must be one of {', '.join(get_args(Overflow))}, not {self.overflow!r}")
        if self.patience is not None and not (isinstance(self.patience, int | float) and self.patience > 0):
            raise UsageError(f"patience must be seconds, more than 0, or None for ever, not {self.patience!r}")

    @classmethod
    def of(cls, options: HandlerOptions) -> Background | None:
        """What *options* say; None for a handler in the run itself."""
        given: dict[str, Any] = {name: value for name, value in options.items() if name in attrs.fields_dict(cls)}
        if options.get("background", False):
            return cls(**given)
        if given:
            raise UsageError(f"{next(iter(given))} is for handlers in the background; add background=True")
        return None


@attrs.frozen
class Handler:
    """A function that hears events, classified once.

    Attributes:
        function: What is called, with the event, or with the event and the run.
        name: Its qualified name, for messages.
        matchers: It hears what any of them matches, once.
        order: Lower comes first; handlers of one order run as they were registered.
        isolate: Whether its failure is reported instead of ending the run.
        wants_run: Whether it takes the run as its second argument.
        is_async: Whether it can only run in an async run.
        background: How it hears events beside the run, or None.
    """

    function: Callable[..., Any]
    name: str
    matchers: tuple[Matcher, ...]
    order: int = 0
    isolate: bool = False
    wants_run: bool = False
    is_async: bool = False
    background: Background | None = None

    def matches(self, cls: type[Event], name: str) -> bool:
        """Whether it hears events of class *cls* under the wire name *name*."""
        return any(matcher(cls, name) for matcher in self.matchers)

    def runs_like(self, other: Handler) -> bool:
        """Whether it is in the background as another one is, and fails as that does."""
        return self.background == other.background and self.isolate == other.isolate

    def call(self, event: Event, run: object) -> Any:
        """Call it as it wants to be called."""
        return self.function(event, run) if self.wants_run else self.function(event)


def handler_of(
    function: Callable[..., Any],
    matchers: tuple[Matcher, ...],
    *,
    order: int = 0,
    errors: ErrorPolicy = "raise",
    background: Background | None = None,
    arguments: tuple[str, ...] = ("the event", "the run"),
    name: str = "",
) -> Handler:
    """Classify a handler.

    Args:
        function: A function, bound method, or other callable.
        matchers: What it hears.
        order: Lower comes first.
        errors: What its failure does.
        background: How it hears events beside the run, or None.
        arguments: What it is offered, for the message; it may take fewer, but at least one.
        name: How messages call it; by default, its qualified name.

    Raises:
        UsageError: It takes no event, or needs more than it is offered.
    """
    check_policy(errors)
    if not isinstance(order, int):
        raise UsageError(f"order must be an integer, not {order!r}")
    if not callable(function):
        raise UsageError(f"a handler must be callable, not {function!r}")
    name = name or name_of(function)
    taken = required_arguments(function, name, arguments)
    return Handler(function, name, matchers, order, errors == "isolate", taken > 1, is_async(function), background)


def check_policy(errors: object) -> None:
    """Raise `UsageError` unless *errors* is an `ErrorPolicy`."""
    if errors not in ("raise", "isolate"):
        raise UsageError(f'errors must be "raise" or "isolate", not {errors!r}')


def name_of(function: Callable[..., Any]) -> str:
    """A callable's name for messages."""
    target = function.func if isinstance(function, functools.partial) else function
    return cast("str", getattr(target, "__qualname__", None) or type(target).__qualname__)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine or an async generator."""
    while isinstance(function, functools.partial):
        function = function.func
    called = (function, getattr(type(function), "__call__", None))  # noqa: B004  # the method itself is wanted
    return any(inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target) for target in called)


def required_arguments(
    function: Callable[..., Any], name: str, arguments: tuple[str, ...], *, bound: bool = True
) -> int:
    """How many of the offered *arguments* a callable takes: the required positional ones, at least one.

    Of a function that is to be a method (*bound* false), the first parameter is not counted.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell
        return 1
    if not bound and parameters and parameters[0].kind is not parameters[0].VAR_POSITIONAL:
        del parameters[0]
    offered = " and ".join(arguments)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    missing = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if missing:
        raise UsageError(f"{name} needs the keyword argument {missing[0]!r}; it is called with {offered}")
    if len(required) > len(arguments):
        raise UsageError(f"{name} needs {len(required)} arguments; it is called with {offered}")
    if not positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise UsageError(f"{name} takes no argument; it is called with {offered}")
    return max(1, len(required))
