"""What decorators say of a plugin's methods: `on`, `transform`, `rewrite`; and reading it again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, cast, overload

import attrs

from eventflow.errors import UsageError
from eventflow.events import Event
from eventflow.routing import ErrorPolicy, Matcher, Select, check_policy, matcher_of

if TYPE_CHECKING:
    from eventflow.plugin import Plugin
    from eventflow.rewriting import Part
    from eventflow.run import Run

__all__ = ["Configured", "Mark", "Matches", "configured", "marked_methods", "on", "rewrite", "transform"]

E = TypeVar("E", bound=Event)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
F = TypeVar("F", bound=Callable[..., Any])
P = TypeVar("P")
R = TypeVar("R")


RewriteFamily = Literal["text", "refusal", "reasoning", "tool"]
REWRITE_FAMILIES: tuple[RewriteFamily, ...] = ("text", "refusal", "reasoning", "tool")
_MARKS = "__eventflow_marks__"

Matches: TypeAlias = Callable[[type[Event], str], bool]
"""Tells whether events of a class under a wire name are meant."""


@attrs.frozen
class Configured:
    """What a field of the plugin's instance says, where a decorator would say it for all of them; see `configured`.

    Attributes:
        field: The field's name.
        negate: Whether everything else is meant.
    """

    field: str
    negate: bool = False


def configured(field: str, *, negate: bool = False) -> Configured:
    """Let a field of the plugin say what a method is for: ``@on(configured("events"), errors=configured("errors"))``.

    As a selector the field holds what `on` takes, or a tuple or list of that; an empty one selects nothing. As the
    error policy it holds ``raise`` or ``isolate``. The field is checked when the plugin is made, and read when a
    dispatcher first runs with it: what is assigned later is not seen.

    Args:
        field: An attrs field of the plugin, its own or inherited; no `state`, which changes from run to run.
        negate: Of a selector: select everything that the field does not.
    """
    return Configured(field, negate)


@attrs.frozen
class Mark:
    """What a decorator says of a plugin's method.

    Attributes:
        kind: ``on``, ``transform`` or ``rewrite``.
        matchers: What it is for (of a rewrite: none).
        families: The families whose text a rewrite takes.
        order: Of a handler.
        errors: Of a handler.
    """

    kind: Literal["on", "transform", "rewrite"]
    matchers: tuple[Matcher | Configured, ...] = ()
    families: tuple[RewriteFamily, ...] = ()
    order: int = 0
    errors: ErrorPolicy | Configured = "raise"

    @property
    def fields(self) -> dict[str, Callable[..., object]]:
        """The fields of the plugin that say more; each with what checks it, called with plugin, name and value."""
        named: dict[str, Callable[..., object]] = {
            matcher.field: _selected for matcher in self.matchers if isinstance(matcher, Configured)
        }
        if isinstance(self.errors, Configured):
            named[self.errors.field] = _policy
        return named

    def matches(self, plugin: Plugin) -> tuple[Matches, ...]:
        """What it is for in *plugin*; raises `UsageError` where a field holds a selector that can never match."""
        matches: list[Matches] = []
        for matcher in self.matchers:
            if isinstance(matcher, Configured):
                matchers = _selected(plugin, matcher.field, getattr(plugin, matcher.field))
                matches.extend([functools.partial(_none_matches, matchers)] if matcher.negate else matchers)
            else:
                matches.append(matcher)
        return tuple(matches)

    def isolates(self, plugin: Plugin) -> bool:
        """Whether its failure in *plugin* is isolated; raises `UsageError` where a field holds no error policy."""
        errors = self.errors
        if isinstance(errors, Configured):
            errors = _policy(plugin, errors.field, getattr(plugin, errors.field))
        return errors == "isolate"


@contextlib.contextmanager
def _naming(plugin: Plugin, field: str) -> Generator[None]:
    """What is wrong with a field's value is told with the plugin's name and the field's."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{type(plugin).__qualname__}({field.lstrip('_')}=...): {error.message}") from error


def _selected(plugin: Plugin, field: str, value: object) -> tuple[Matcher, ...]:
    selects = cast("tuple[Select, ...]", value if isinstance(value, tuple | list) else (value,))
    with _naming(plugin, field):
        return tuple(map(matcher_of, selects))


def _policy(plugin: Plugin, field: str, value: Any) -> ErrorPolicy:
    with _naming(plugin, field):
        check_policy(value)
    return cast("ErrorPolicy", value)


def _none_matches(matchers: tuple[Matcher, ...], cls: type[Event], name: str) -> bool:
    return not any(matcher(cls, name) for matcher in matchers)


# --- decorators ------------------------------------------------------------------------------------------------------


class MethodOn(Protocol[E]):
    """``on(EventClass)`` in the body of a plugin."""

    @overload
    def __call__(self, method: Callable[[P, E], R]) -> Callable[[P, E], R]: ...
    @overload
    def __call__(self, method: Callable[[P, E, Run], R]) -> Callable[[P, E, Run], R]: ...


def _marker(mark: Mark) -> Callable[[F], F]:
    def decorate(method: F) -> F:
        function = getattr(method, "__func__", method)  # of a staticmethod or classmethod
        if not callable(function):
            raise UsageError(f"@{mark.kind} decorates a method, not {method!r}")
        setattr(function, _MARKS, [*getattr(function, _MARKS, ()), mark])
        return method

    return decorate


def _matchers(decorator: str, selects: tuple[Select | Configured, ...]) -> tuple[Matcher | Configured, ...]:
    if not selects:
        raise UsageError(
            f'@{decorator} needs a selector: @{decorator}(TextDelta), @{decorator}("tool"), @{decorator}("*")'
        )
    if callable(selects[0]) and not isinstance(selects[0], type):
        raise UsageError(f'@{decorator} is written with a selector: @{decorator}("*")')
    return tuple(select if isinstance(select, Configured) else matcher_of(select) for select in selects)


@overload  # the overloads overlap where a class is given; the first that fits is meant, it knows the event
def on(  # type: ignore[overload-overlap]
    select: type[E], /, *, order: int = ..., errors: ErrorPolicy | Configured = ...
) -> MethodOn[E]: ...
@overload
def on(  # type: ignore[overload-overlap]
    select: type[E1], second: type[E2], /, *, order: int = ..., errors: ErrorPolicy | Configured = ...
) -> MethodOn[E1 | E2]: ...
@overload
def on(*selects: Select | Configured, order: int = ..., errors: ErrorPolicy | Configured = ...) -> Callable[[F], F]: ...
def on(*selects: Select | Configured, order: int = 0, errors: ErrorPolicy | Configured = "raise") -> Any:
    """Make a plugin's method a handler: called with the event, and the run if it takes a second argument.

    Args:
        selects: Event classes, wire names, families or patterns, or `configured` fields that hold them.
        order: Lower comes first among the plugin's handlers.
        errors: ``isolate`` reports its failure as a `HandlerFailed` event instead of ending the run. It may be a
            `configured` field.

    Raises:
        UsageError: A selector can never match, or *errors* is no policy.
    """
    if not isinstance(errors, Configured):
        check_policy(errors)
    return _marker(Mark("on", _matchers("on", selects), order=order, errors=errors))


@overload  # overlapping as those of `on`
def transform(select: type[E], /) -> MethodOn[E]: ...  # type: ignore[overload-overlap]
@overload
def transform(  # type: ignore[overload-overlap]
    select: type[E1], second: type[E2], /
) -> MethodOn[E1 | E2]: ...
@overload
def transform(*selects: Select | Configured) -> Callable[[F], F]: ...
def transform(*selects: Select | Configured) -> Any:
    """Make a plugin's method decide what goes on in place of an event: an event, None (drop it), or several.

    The plugin's own handlers see the event before; what a transform gives passes the plugin's later transforms and
    the plugins after it.

    Raises:
        UsageError: A selector can never match.
    """
    return _marker(Mark("transform", _matchers("transform", selects)))


class MethodRewrite(Protocol):
    """``rewrite(...)`` in the body of a plugin."""

    @overload
    def __call__(self, method: Callable[[P, str], str]) -> Callable[[P, str], str]: ...
    @overload
    def __call__(self, method: Callable[[P, str, Part], str]) -> Callable[[P, str, Part], str]: ...


def rewrite(*families: RewriteFamily) -> MethodRewrite:
    """Make a plugin's method rewrite the text of a family, wherever a stream repeats it.

    Called with each piece of text as it comes, it returns the text that goes on. A method that takes a second
    argument, the `Part`, may hold text back in ``part.held`` and return less; it is called once more, with ``""`` and
    ``part.final`` true, when the part ends. Deltas, ``done`` events, parts, items and the terminal event stay
    consistent.

    Args:
        families: ``text``, ``refusal``, ``reasoning`` or ``tool`` (arguments, inputs and code).

    Raises:
        UsageError: A family has no text.
    """
    for family in families or ("",):
        if family not in REWRITE_FAMILIES:
            raise UsageError(f"@rewrite takes the families {', '.join(REWRITE_FAMILIES)}, not {family!r}")
    return cast("MethodRewrite", _marker(Mark("rewrite", families=families)))


# --- reading it again ------------------------------------------------------------------------------------------------


@functools.cache
def marked_methods(cls: type) -> tuple[tuple[str, Mark], ...]:
    """The decorated methods of a plugin class, in order of definition, base classes first.

    A method that overrides a decorated one is what that was, unless it is decorated itself.
    """
    found: dict[str, tuple[Mark, ...]] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            function: Any = getattr(value, "__func__", value)  # of a staticmethod or classmethod
            marks = getattr(function, _MARKS, None) if callable(function) else None
            if marks:
                found[name] = tuple(marks)
            elif name in found and not callable(function):
                del found[name]  # an override stays what it overrides; None in its place ends that
    return tuple((name, mark) for name, marks in found.items() for mark in marks)
