"""`Plugin`: handlers, transforms and rewrites with configuration, state and a lifecycle."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, dataclass_transform, final, overload

import attrs

from eventflow import signals
from eventflow.discovery import Available, available, hint, load
from eventflow.errors import PluginError
from eventflow.marks import Configured, Mark, Matches, configured, marked_methods, on, rewrite, transform
from eventflow.routing import name_of

if TYPE_CHECKING:
    from eventflow.pipeline import Pipeline
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
_STATE = "eventflow.state"


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
    if _is_mutable(default):
        kind = type(default).__name__
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
        _check_async(cls)
        _check_attributes(cls)

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


def _is_mutable(value: object) -> bool:
    """Whether a value is one to change, by the rule of dataclasses: it cannot be hashed."""
    return type(value).__hash__ is None


def _check_fields(cls: type) -> None:
    annotated = vars(cls).get("__annotations__", {})
    for name in ("open", "close", "start", "receive", "finish", "stop"):
        if name in annotated:
            raise PluginError(f"plugin {cls.__qualname__}: {name} is a hook, and no name for a field")


def _check_attributes(cls: type) -> None:
    """What is no field, but looks as if it were one of a run; a constant is told by its name."""
    annotated = vars(cls).get("__annotations__", {})
    for name, value in vars(cls).items():
        if name not in annotated and not name.isupper() and not name.startswith("__") and _is_mutable(value):
            kind = type(value).__name__
            raise PluginError(
                f"plugin {cls.__qualname__}: {name} is a {kind} that all runs would share; write {name}: ... = "
                f"state(factory={kind}) for a run's own, or annotate it as ClassVar if sharing is meant"
            )


def _check_async(cls: type) -> None:
    """What is awaited once cannot be an async generator: nobody would take what that yields."""
    events = " that returns a list of events"
    methods = [(name, "transform", events) for name, mark in marked_methods(cls) if mark.kind == "transform"]
    methods += [("start", "hook", ""), ("finish", "hook", events), ("stop", "hook", "")]
    for name, kind, gives in methods:
        if inspect.isasyncgenfunction(getattr(cls, name)):
            raise PluginError(
                f"plugin {cls.__qualname__}: {name} is an async generator, which a {kind} cannot be; make it an async "
                f"method{gives}"
            )


def _checked(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """The fields of a plugin class; those that decorators name are checked when a plugin is made."""
    for field in fields:
        if _is_mutable(field.default):
            kind = type(cast("object", field.default)).__name__
            raise PluginError(
                f"plugin {cls.__qualname__}: the default of {field.name} is a {kind} that all runs would share; write "
                f"state(factory={kind}) for a run's own, attrs.field(factory={kind}) for configuration"
            )
    checks: dict[str, Callable[..., object]] = {}
    for method, mark in marked_methods(cls):
        for name in mark.fields:
            _check_named(cls, method, name, fields)
        checks |= mark.fields
    return [_with_check(field, checks.get(field.name)) for field in fields] if checks else fields


def _check_named(cls: type, method: str, name: str, fields: list[attrs.Attribute[Any]]) -> None:
    field = next((field for field in fields if field.name == name), None)
    where = f"plugin {cls.__qualname__}: {method} is for configured({name!r}), which is"
    if field is None:
        names = [field.name for field in fields if _STATE not in field.metadata]
        raise PluginError(f"{where} no field of it; {hint(name, names)}")
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
