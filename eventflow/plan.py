"""What a run executes: plugins and handlers in one flat list of steps, compiled when something is registered. Pure.

A plugin's handlers come before its transforms and rewrites; the dispatcher's own handlers come last. An event that a
transform puts in the place of another goes on behind that transform.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Literal

import attrs

from eventflow.errors import PluginError, UsageError
from eventflow.events import Event, UnknownEvent
from eventflow.marks import Mark, Matches, marked_methods
from eventflow.plugin import Plugin, class_of
from eventflow.rewriting import Rewriter
from eventflow.routing import Handler, is_async, required_arguments

__all__ = ["Plan", "Step", "same"]

_RECEIVE = "receive"
_HOOKS = {"start": ("the run",), "finish": ("the run",), "stop": ("the run",), _RECEIVE: ("the item", "the run")}
_MAX_UNKNOWN = 256  # routes kept for event types nobody knows: a peer can invent names without end


@attrs.frozen
class Step:
    """One thing that is done with an event.

    Attributes:
        place: Where it stands among all steps.
        kind: ``handler``, ``transform`` or ``rewrite``.
        name: How messages call it.
        plugin: The place of its plugin in the plan; None for the dispatcher's own handlers.
        target: The method's name, or the function.
        matches: Which events it is for; asked once per event class.
        isolate: Whether its failure is reported instead of ending the run.
        wants_run: Whether it takes a second argument: the run, or for a rewrite the part.
        is_async: Whether it can only run in an async run.
        families: Of a rewrite.
        handler: Of a handler of the dispatcher's own that hears events beside the run; else None.
    """

    place: int
    kind: Literal["handler", "transform", "rewrite"]
    name: str
    plugin: int | None
    target: str | Callable[..., Any]
    matches: Matches
    isolate: bool = False
    wants_run: bool = False
    is_async: bool = False
    families: tuple[str, ...] = ()
    handler: Handler | None = None


@attrs.frozen
class _Method:
    """A plugin's decorated method, classified once per class."""

    mark: Mark
    attribute: str
    name: str
    wants_second: bool
    is_async: bool


@functools.cache
def _methods(cls: type) -> tuple[_Method, ...]:
    methods: list[_Method] = []
    for attribute, mark in marked_methods(cls):
        function = getattr(cls, attribute)
        name = f"{cls.__qualname__}.{attribute}"
        second = "the part" if mark.kind == "rewrite" else "the run"
        first = "the text" if mark.kind == "rewrite" else "the event"
        static = isinstance(_raw_attribute(cls, attribute), staticmethod | classmethod)
        try:
            taken = required_arguments(function, name, (first, second), bound=static)
        except UsageError as error:
            raise PluginError(f"plugin {cls.__qualname__}: {error}") from error
        if mark.kind == "rewrite" and is_async(function):
            raise PluginError(f"plugin {cls.__qualname__}: @rewrite takes a plain method; {attribute} is async")
        methods.append(_Method(mark, attribute, name, taken > 1, is_async(function)))
    handlers = sorted((method for method in methods if method.mark.kind == "on"), key=lambda method: method.mark.order)
    return (*handlers, *(method for method in methods if method.mark.kind != "on"))


@functools.cache
def _check_hooks(cls: type) -> int:
    """How many arguments the ``receive`` of a plugin class takes, 0 where it has none of its own.

    Raises:
        PluginError: A hook cannot be called as hooks are.
    """
    taken = 0
    for hook, offered in _HOOKS.items():
        try:
            taken = required_arguments(getattr(cls, hook), f"{cls.__qualname__}.{hook}", offered, bound=False)
        except UsageError as error:
            raise PluginError(f"plugin {cls.__qualname__}: {error}") from error
    receive = getattr(cls, _RECEIVE)
    if receive is getattr(Plugin, _RECEIVE):
        return 0
    if is_async(receive) or inspect.isgeneratorfunction(receive):
        raise PluginError(
            f"plugin {cls.__qualname__}: {cls.__qualname__}.receive is called with items as they come and nobody waits "
            "for it; make it a plain method"
        )
    return taken


def _raw_attribute(cls: type, name: str) -> object:
    return next(vars(base)[name] for base in cls.__mro__ if name in vars(base))


def _steps_of(plugin: Plugin, index: int, place: int) -> list[Step]:
    steps: list[Step] = []
    for method in _methods(class_of(plugin)):
        mark = method.mark
        if mark.kind == "rewrite":
            matches = _takes(mark.families)
        elif selected := mark.matches(plugin):
            matches = functools.partial(_any_matches, selected)
        else:  # switched off: its configuration selects nothing
            continue
        steps.append(
            Step(
                place + len(steps),
                "handler" if mark.kind == "on" else mark.kind,
                method.name,
                index,
                method.attribute,
                matches,
                isolate=mark.isolates(plugin),
                wants_run=method.wants_second,
                is_async=method.is_async,
                families=mark.families,
            )
        )
    return steps


def _any_matches(matchers: tuple[Matches, ...], cls: type[Event], name: str) -> bool:
    return any(matcher(cls, name) for matcher in matchers)


def _takes(families: tuple[str, ...]) -> Matches:
    rewriter = Rewriter(lambda text, part: text, families)
    return lambda cls, name: rewriter.takes(cls)


def same(step: Step, other: Step) -> bool:
    """Whether two steps call the same function; a bound method is made anew whenever it is looked up."""
    if step.plugin != other.plugin:
        return False
    return step.target is other.target or (
        isinstance(step.target, str | types.MethodType) and step.target == other.target
    )


class Plan:
    """The steps of a dispatcher, as they are when a run starts. Immutable but for a cache; shared by runs and threads.

    Attributes:
        templates: The plugins, in order.
        steps: All steps; an event's way is always from lower to higher places.
        ends: For each plugin, the place of its last step (of the step before it, where it has none).
        receivers: The plugins that have a ``receive``: their places, and whether it takes the run.
    """

    def __init__(self, plugins: tuple[Plugin, ...], handlers: tuple[Handler, ...]) -> None:
        self.templates = plugins
        steps: list[Step] = []
        ends: list[int] = []
        receivers: list[tuple[int, bool]] = []
        for index, plugin in enumerate(plugins):
            taken = _check_hooks(class_of(plugin))
            if taken:
                receivers.append((index, taken > 1))
            steps.extend(_steps_of(plugin, index, len(steps)))
            ends.append(len(steps) - 1)
        for handler in sorted(handlers, key=lambda handler: handler.order):
            steps.append(
                Step(
                    len(steps),
                    "handler",
                    handler.name,
                    None,
                    handler.function,
                    handler.matches,
                    isolate=handler.isolate,
                    wants_run=handler.wants_run,
                    is_async=handler.is_async,
                    handler=handler if handler.background is not None else None,
                )
            )
        self.steps = tuple(steps)
        self.ends = tuple(ends)
        self.receivers = tuple(receivers)
        self._routes: dict[tuple[type[Event], str], tuple[int, ...]] = {}
        self._unknown = 0

    def route(self, cls: type[Event], name: str) -> tuple[int, ...]:
        """The places of the steps that events of class *cls* under the wire name *name* take, ascending."""
        places = self._routes.get((cls, name))
        if places is None:
            places = self._find(cls, name)
            if cls is UnknownEvent:
                if self._unknown >= _MAX_UNKNOWN:
                    return places
                self._unknown += 1
            self._routes[cls, name] = places
        return places

    def _find(self, cls: type[Event], name: str) -> tuple[int, ...]:
        places: list[int] = []
        seen: list[Step] = []
        for place, step in enumerate(self.steps):
            if not step.matches(cls, name):
                continue
            if step.kind == "handler":  # a function that several selectors match runs once
                if any(same(step, earlier) for earlier in seen):
                    continue
                seen.append(step)
            places.append(place)
        return tuple(places)

    def asynchronous(self) -> list[str]:
        """The names of the steps and hooks that a sync run cannot call."""
        names = [step.name for step in self.steps if step.is_async]
        for plugin in self.templates:
            for hook in ("start", "finish", "stop"):
                if is_async(getattr(plugin, hook)):
                    names.append(f"{type(plugin).__qualname__}.{hook}")
        return names
