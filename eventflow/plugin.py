"""Plugins: handlers, transforms and rewrites with configuration, state and a lifecycle; and finding them by name."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, cast, dataclass_transform, final, overload

import attrs

from eventflow import signals
from eventflow.errors import PluginError, UsageError
from eventflow.events import Event
from eventflow.routing import ErrorPolicy, Matcher, Select, check_policy, matcher_of, name_of

if TYPE_CHECKING:
    from eventflow.pipeline import Pipeline
    from eventflow.rewriting import Part
    from eventflow.run import Run

__all__ = [
    "Available",
    "Configured",
    "Mark",
    "Matches",
    "Pause",
    "Plugin",
    "available",
    "configured",
    "load",
    "on",
    "rewrite",
    "state",
    "transform",
]

T = TypeVar("T")
E = TypeVar("E", bound=Event)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
F = TypeVar("F", bound=Callable[..., Any])
P = TypeVar("P")
R = TypeVar("R")

ENTRY_POINTS = "eventflow.plugins"
RewriteFamily = Literal["text", "refusal", "reasoning", "tool"]
REWRITE_FAMILIES: tuple[RewriteFamily, ...] = ("text", "refusal", "reasoning", "tool")
_MARKS = "__eventflow_marks__"
_STATE = "eventflow.state"
_MUTABLE = (list, dict, set, bytearray)

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


@final
@attrs.frozen
class Pause:
    """What a ``start``, ``finish`` or ``stop`` that is a generator yields to wait without standing in the way.

    The run goes on with it when `Run.wake` has been called, from whatever thread, when an event was emitted, or when
    the time is up; it has to look for itself which it was. A ``start`` or ``finish`` that pauses is closed when the
    run is cancelled, and a ``stop`` where nobody drives the run any more.

    Attributes:
        seconds: The longest wait; None for as long as it takes.
    """

    seconds: float | None = None


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


def _selected(plugin: Plugin, field: str, value: object) -> tuple[Matcher, ...]:
    selects = cast("tuple[Select, ...]", value if isinstance(value, tuple | list) else (value,))
    try:
        return tuple(map(matcher_of, selects))
    except UsageError as error:
        raise UsageError(f"{type(plugin).__qualname__}({field.lstrip('_')}=...): {error.message}") from error


def _policy(plugin: Plugin, field: str, value: Any) -> ErrorPolicy:
    try:
        check_policy(value)
    except UsageError as error:
        raise UsageError(f"{type(plugin).__qualname__}({field.lstrip('_')}=...): {error.message}") from error
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


@overload
def state(*, default: T, init: Literal[False] = False) -> T: ...
@overload
def state(*, factory: Callable[[], T], init: Literal[False] = False) -> T: ...
def state(
    *, default: Any = attrs.NOTHING, factory: Callable[[], Any] | None = None, init: Literal[False] = False
) -> Any:
    """Declare a plugin's field whose value is made anew for every run.

    ``words: int = state(default=0)``, ``seen: list[str] = state(factory=list[str])``

    Args:
        default: Its value when a run starts; immutable.
        factory: Or what makes it: ``state(factory=list)``.
        init: Not to be given: it tells type checkers that the constructor does not take the field.

    Raises:
        PluginError: Neither or both are given, or the default is mutable.
    """
    if (default is attrs.NOTHING) == (factory is None):
        raise PluginError("state() takes either default=... or factory=...")
    if isinstance(default, _MUTABLE):
        kind = type(cast("object", default)).__name__
        raise PluginError(f"state(default={default!r}) would be shared by all runs; write state(factory={kind})")
    make = factory if factory is not None else lambda: default
    return attrs.field(init=False, factory=make, metadata={_STATE: make})


# --- the class -------------------------------------------------------------------------------------------------------


@dataclass_transform(eq_default=False, field_specifiers=(attrs.field, state))
class Plugin:
    """Handlers, transforms and rewrites with configuration and per-run state.

    ::

        class WordCount(Plugin):
            minimum: int = 1  # configuration: an ordinary attrs field
            words: int = state(default=0)  # state: fresh in every run

            @on(TextDelta)
            def count(self, event: TextDelta) -> None:
                self.words += len(event.delta.split())

    Subclassing makes it an attrs class. An instance given to a dispatcher is a template: every run works with a
    shallow copy whose state is fresh. What runs are meant to share is an object in a configuration field, with a lock
    of its own.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _check_fields(cls)
        try:
            attrs.define(slots=False, eq=False, field_transformer=_checked)(cls)
        except (TypeError, ValueError, attrs.exceptions.UnannotatedAttributeError) as error:
            raise PluginError(f"plugin {cls.__qualname__}: {error}") from error

    def open(self) -> None:
        """Called once per dispatcher, before its first run: acquire what runs share."""

    def close(self) -> None:
        """Called once per dispatcher, when it is closed: release what `open` acquired."""

    def start(self, run: Run) -> Any:
        """A run begins. May be async, or a generator that yields a `Pause`."""

    def receive(self, item: Any, run: Run) -> None:
        """Look at an item that the source gives, before anything is decoded or dispatched from it. Never async.

        Args:
            item: A chunk of `bytes` as it came, or whatever else the source yields: a `Frame`, a mapping, an event, an
                object of an SDK. `eventflow.engine.ANEW` where a source that was cut is opened again: the items behind
                it are of another body, and an event that the cut had left unfinished is lost.
            run: The run.
        """

    def finish(self, run: Run) -> Any:
        """The stream has ended, well or badly, and its source is closed; not called when the run was left.

        May return events still held back, or be a generator of them. May be async. A generator may yield a `Pause`, to
        wait for work of its own.
        """

    def stop(self, run: Run) -> Any:
        """The run is over, on whatever path; always called, in reverse order.

        May be async, or a generator that yields a `Pause`.
        """

    def __or__(self, other: Plugin) -> Pipeline:
        """``a | b``: a pipeline in which *b* sees what *a* lets through."""
        if not isinstance(other, Plugin):
            return NotImplemented
        from eventflow.pipeline import Pipeline

        return Pipeline(self, other)


def _check_fields(cls: type) -> None:
    annotated = vars(cls).get("__annotations__", {})
    for name in ("open", "close", "start", "receive", "finish", "stop"):
        if name in annotated:
            raise PluginError(f"plugin {cls.__qualname__}: {name} is a hook, and no name for a field")
    for name, value in vars(cls).items():
        if name in annotated and isinstance(value, _MUTABLE):
            kind = type(cast("object", value)).__name__
            raise PluginError(
                f"plugin {cls.__qualname__}: the default of {name} is a {kind} that all runs would share; write "
                f"state(factory={kind}) for a run's own, attrs.field(factory={kind}) for configuration"
            )


def _checked(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """The fields of a plugin class; those that decorators name are checked when a plugin is made."""
    checks: dict[str, Callable[..., object]] = {}
    for method, mark in marked_methods(cls):
        named: dict[str, Callable[..., object]] = {
            matcher.field: _selected for matcher in mark.matchers if isinstance(matcher, Configured)
        }
        if isinstance(mark.errors, Configured):
            named[mark.errors.field] = _policy
        for name in named:
            _check_named(cls, method, name, fields)
        checks |= named
    return [_with_check(field, checks.get(field.name)) for field in fields] if checks else fields


def _check_named(cls: type, method: str, name: str, fields: list[attrs.Attribute[Any]]) -> None:
    field = next((field for field in fields if field.name == name), None)
    where = f"plugin {cls.__qualname__}: {method} is for configured({name!r}), which is"
    if field is None:
        import difflib

        names = [field.name for field in fields if _STATE not in field.metadata]
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there is: {', '.join(names) or 'none'}."
        raise PluginError(f"{where} no field of it; {hint}")
    if _STATE in field.metadata:
        raise PluginError(f"{where} a state, another in every run; name a field of the configuration")


def _with_check(field: Any, check: Callable[..., object] | None) -> Any:
    """The field with *check* as a validator, which attrs then runs when a plugin is made, and only then.

    For what is checked when it is assigned, attrs gives the class a ``__setattr__`` that takes ten times as long, for
    its state too.
    """
    if field.validator is None and field.converter is None and field.on_setattr is None:
        field = field.evolve(on_setattr=attrs.setters.NO_OP)
    if check is None:
        return field

    def validate(plugin: Any, attribute: attrs.Attribute[Any], value: object) -> None:
        check(plugin, attribute.name, value)

    given = () if field.validator is None else (field.validator,)
    return field.evolve(validator=attrs.validators.and_(*given, validate))


@functools.cache
def _state_fields(cls: type) -> tuple[tuple[str, Callable[[], Any]], ...]:
    """The names of a plugin class's state fields, and what makes their values."""
    if not attrs.has(cls):  # Plugin itself
        return ()
    return tuple((field.name, field.metadata[_STATE]) for field in attrs.fields(cls) if _STATE in field.metadata)


def instantiate(template: Plugin) -> Plugin:
    """A run's own copy of a template: configuration shared, state fresh."""
    instance = copy.copy(template)
    for name, make in _state_fields(class_of(template)):
        instance.__dict__[name] = make()
    return instance


def class_of(plugin: Plugin) -> type:
    return type(plugin)  # as a bare type: checkers take the hash of type[Plugin] for that of an instance


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


# --- finding by name -------------------------------------------------------------------------------------------------


@attrs.frozen
class Available:
    """A plugin that can be used by name.

    Attributes:
        name: The name of its entry point.
        target: Where it is: ``module:attribute``.
        distribution: The package that brings it, with its version.
        allowed: Whether ``EVENTFLOW_PLUGINS`` lets it be loaded.
    """

    name: str
    target: str
    distribution: str
    allowed: bool = True
    entry: Any = attrs.field(default=None, repr=False, eq=False)


def available() -> tuple[Available, ...]:
    """The plugins that can be used by name, sorted; nothing is imported.

    Entry points of the group ``eventflow.plugins``. The environment variable ``EVENTFLOW_PLUGINS`` (a comma list of
    names) limits what may be loaded.
    """
    from importlib.metadata import entry_points  # a third of the whole import, and needed for plugins by name only

    limit = os.environ.get("EVENTFLOW_PLUGINS")
    names = None if limit is None else {name.strip() for name in limit.split(",") if name.strip()}
    found: list[Available] = []
    for entry in entry_points(group=ENTRY_POINTS):
        distribution = (
            f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown distribution"
        )
        found.append(Available(entry.name, entry.value, distribution, names is None or entry.name in names, entry))
    unique = {(plugin.name, plugin.target, plugin.distribution): plugin for plugin in found}  # seen twice on one path
    return tuple(sorted(unique.values(), key=lambda plugin: (plugin.name, plugin.distribution)))


def load(name: str) -> Callable[..., Plugin]:
    """The class, or maker, of the plugin called *name*.

    Raises:
        PluginError: No plugin, or more than one, has the name; it may not be loaded; it does not import; it is none.
    """
    plugins = available()
    named = [plugin for plugin in plugins if plugin.name == name]
    if not named:
        import difflib

        close = difflib.get_close_matches(name, [plugin.name for plugin in plugins], n=1)
        names = ", ".join(dict.fromkeys(plugin.name for plugin in plugins)) or "none"
        hint = f"did you mean {close[0]!r}?" if close else f"there is: {names}."
        raise PluginError(f"no plugin is called {name!r}; {hint} Is its package installed?")
    if len(named) > 1:
        owners = " and ".join(f"{plugin.distribution} ({plugin.target})" for plugin in named)
        raise PluginError(
            f"two plugins are called {name!r}: {owners}; import the class that you mean, or uninstall one"
        )
    chosen = named[0]
    if not chosen.allowed:
        raise PluginError(f"plugin {name!r} of {chosen.distribution} is not in EVENTFLOW_PLUGINS; add it there")
    try:
        target = chosen.entry.load()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"plugin {name!r} of {chosen.distribution} does not import ({chosen.target}): {reason}"
        ) from error
    if not callable(target):
        raise PluginError(f"plugin {name!r} of {chosen.distribution}: {chosen.target} is neither class nor function")
    return cast("Callable[..., Plugin]", target)


def make(name: str, configuration: dict[str, Any]) -> Plugin:
    """Load the plugin called *name* and configure it; raises `PluginError` when it cannot be."""
    maker = load(name)
    try:
        plugin = maker(**configuration)
    except TypeError as error:
        raise PluginError(f"plugin {name!r} cannot be configured so: {error}") from error
    if not isinstance(plugin, Plugin):
        raise PluginError(f"plugin {name!r}: {name_of(maker)} gives {type(plugin).__name__}, not a Plugin")
    signals.send(signals.plugin_loaded, type(plugin), name=name, plugin=plugin)
    return plugin
