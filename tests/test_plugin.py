"""Plugins: their class, configuration and state, lifecycle, transforms; shared resources; finding them by name."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import (
    FACES,
    SYNC,
    AsyncWatched,
    Tick,
    Watched,
    answer,
    block,
    body,
    completed,
    created,
    delta,
    deltas,
    drive,
    error,
)

from eventflow import (
    Dispatcher,
    Event,
    HandlerFailed,
    Part,
    Pause,
    Plugin,
    Response,
    ResponseCompleted,
    Run,
    StreamError,
    TextDelta,
    TextDone,
    configured,
    on,
    rewrite,
    signals,
    state,
    transform,
)
from eventflow.engine import ANEW
from eventflow.errors import PluginError, StreamTruncated, UsageError
from eventflow.plan import Plan
from eventflow.plugin import available, load
from eventflow.routing import ErrorPolicy, Select
from eventflow.sources import Source
from eventflow.sse import Frame

AB = answer("a", "b")


class WordCount(Plugin):
    """Counts the words of the answer."""

    minimum: int = 1
    words: int = state(default=0)

    @on(TextDelta)
    def count(self, event: TextDelta) -> None:
        self.words += len(event.delta.split())


# --- the class -------------------------------------------------------------------------------------------------------


def test_plugin_when_subclassed_is_an_attrs_class() -> None:
    """Subclassing is enough: configuration by keyword or place, state not settable, identity as equality."""
    assert attrs.has(WordCount)
    assert WordCount(3).minimum == WordCount(minimum=3).minimum == 3
    assert WordCount().words == 0
    assert WordCount() != WordCount()
    with pytest.raises(TypeError):
        WordCount(words=3)  # type: ignore[call-arg]


def test_state_when_runs_go_on_is_fresh_in_each() -> None:
    """Every run has a copy with fresh state; the template stays as it was, configuration is shared."""
    marker = object()

    class Keeps(Plugin):
        shared: Any
        own: list[str] = state(factory=list)
        number: int = state(default=0)

        @on(TextDelta)
        def keep(self, event: TextDelta) -> None:
            self.own.append(event.delta)
            self.number += 1

    template = Keeps(marker)
    template.number = 7
    flow = Dispatcher(template)
    first, second = flow.run(AB), flow.run(answer("c"))
    assert (first[Keeps].own, first[Keeps].number) == (["a", "b"], 2)
    assert (second[Keeps].own, second[Keeps].number) == (["c"], 1)
    assert first[Keeps].shared is second[Keeps].shared is marker
    assert first[Keeps] is not second[Keeps]
    assert (template.own, template.number) == ([], 7)


def test_attributes_when_not_declared_as_state() -> None:
    """An attribute set in a run stays in that run: the copy has it, the template has not."""

    class Sets(Plugin):
        last: str | None = None

        @on(TextDelta)
        def keep(self, event: TextDelta) -> None:
            self.last = event.delta

    template = Sets()
    flow = Dispatcher(template)
    assert flow.run(AB)[Sets].last == "b"
    assert template.last is None
    assert flow.run([completed()])[Sets].last is None


class Changing:
    """Compared by what it holds, which may change, so that it has no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "changing"


MUTABLE = [[], {}, set(), bytearray(), deque(), Counter(), Changing()]


@pytest.mark.parametrize("value", MUTABLE, ids=repr)
def test_defaults_when_mutable(value: Any) -> None:
    """A mutable default is refused when the class is defined, with what to write instead; in `state` as well."""
    with pytest.raises(PluginError, match=rf"Shares.*the default of own is a {type(value).__name__} .*state\(factory="):
        type("Shares", (Plugin,), {"__annotations__": {"own": object}, "own": value, "__qualname__": "Shares"})
    field = attrs.field(default=value)
    with pytest.raises(PluginError, match=r"Shares.*the default of own is a"):
        type("Shares", (Plugin,), {"__annotations__": {"own": object}, "own": field, "__qualname__": "Shares"})
    with pytest.raises(PluginError, match=r"would be shared by all runs; write state\(factory="):
        state(default=value)


@pytest.mark.parametrize("value", MUTABLE, ids=repr)
def test_attribute_when_it_is_mutable_and_no_field(value: Any) -> None:
    """What all runs would share unseen is refused with two ways out; a constant and a `ClassVar` say that they do."""
    with pytest.raises(PluginError, match=rf"Shares: own is a {type(value).__name__} .*state\(factory=.*ClassVar"):
        type("Shares", (Plugin,), {"own": value, "__qualname__": "Shares"})

    class Says(Plugin):
        OWN = value
        _OWN = value
        own: ClassVar[object] = value

        def made(self) -> object:
            return self.OWN, self._OWN, self.own

    assert Says().made() == (value, value, value)


def test_default_when_it_can_be_hashed_is_taken() -> None:
    """An object with an identity of its own, a lock or an open log, is what runs are meant to share."""

    class Holds(Plugin):
        lock: Any = threading.Lock()
        kind: Any = list
        words: Any = ("a",)
        plain = object()

    assert Holds().lock is Holds().lock


def test_state_when_written_wrongly() -> None:
    """`state` takes a default or a factory."""
    with pytest.raises(PluginError, match="either default"):
        state()  # type: ignore[call-overload]
    with pytest.raises(PluginError, match="either default"):
        state(default=1, factory=int)  # type: ignore[call-overload]


def test_class_when_malformed() -> None:
    """What attrs refuses, as a required field after an optional one, is a `PluginError` that names the class."""
    with pytest.raises(PluginError, match="plugin Wrong: "):
        type("Wrong", (Plugin,), {"__annotations__": {"a": int, "b": int}, "a": 1, "__qualname__": "Wrong"})


@pytest.mark.parametrize("name", ["passed", "start", "finish", "stop"])
def test_method_when_an_async_generator(name: str) -> None:
    """Nobody would take what a transform or hook yields then: refused at definition, inherited or not, with a way."""

    async def gives(self: object, given: object) -> AsyncIterator[Event]:
        yield TextDelta("x")

    class Base(Plugin):
        @transform(TextDelta)
        async def passed(self, event: TextDelta) -> list[Event]:
            return [event]

        @on(TextDelta)
        async def heard(self, event: TextDelta) -> AsyncIterator[Event]:  # a handler may be one
            yield StreamError("x")

    words = rf"plugin Async: {name} is an async generator.*make it an async method"
    for method in (gives, staticmethod(gives), transform("text")(gives)):
        with pytest.raises(PluginError, match=words):
            type("Async", (Base,), {name: method, "__qualname__": "Async"})


def test_plugin_when_inherited() -> None:
    """A subclass inherits handlers, fields and state; an override is what it overrides, and None ends that."""
    heard: list[str] = []

    class Base(Plugin):
        name: str = "base"
        seen: int = state(default=0)

        @on(TextDelta)
        def first(self, event: TextDelta) -> None:
            self.seen += 1
            heard.append(f"{self.name}.first")

        @on(TextDelta)
        def second(self, event: TextDelta) -> None:
            heard.append(f"{self.name}.second")

    class Derived(Base):
        more: int = 0

        second = None  # type: ignore[assignment]

        def first(self, event: TextDelta) -> None:
            super().first(event)
            heard.append("derived.first")

        @on(TextDone)
        def done(self, event: TextDone) -> None:
            heard.append(f"{self.name}.done")

    run = Dispatcher(Derived(name="derived", more=2)).run(answer("a"))
    assert heard == ["derived.first", "derived.first", "derived.done"]
    assert run[Base] is run[Derived]
    assert run[Base].seen == 1


@pytest.mark.parametrize(
    ("decorated", "message"),
    [
        (on("*")(lambda self: None), "takes no argument"),
        (on("*")(lambda self, event, run, more: None), "needs 3 arguments"),
        (transform("*")(lambda self, event, *, key: None), "keyword argument 'key'"),
        (rewrite("text")(lambda self: ""), "takes no argument"),
    ],
)
def test_method_when_it_cannot_be_called(decorated: Any, message: str) -> None:
    """A method that cannot take what it is called with is refused, naming plugin and method, before the first event."""
    cls = type("Odd", (Plugin,), {"method": decorated, "__qualname__": "Odd"})
    source = Watched(AB)
    with pytest.raises(PluginError, match=rf"plugin Odd: .*method.* {message}|plugin Odd: .*{message}"):
        Dispatcher(cls()).run(source)
    assert source.pulled == 0


def test_rewrite_when_async_or_for_a_family_without_text() -> None:
    """A rewrite is a plain method, of a family that has text."""

    class Late(Plugin):
        @rewrite("text")  # type: ignore[type-var]
        async def shout(self, text: str) -> str:
            return text

    with pytest.raises(PluginError, match="shout is async"):
        Dispatcher(Late()).run(AB)
    for families in ((), ("audio",), ("text", "item")):
        with pytest.raises(UsageError, match="takes the families text, refusal, reasoning, tool"):
            rewrite(*families)  # type: ignore[arg-type]


@pytest.mark.parametrize("decorator", [on, transform])
def test_decorator_when_written_without_a_selector(decorator: Any) -> None:
    """Decorators need a selector, and something to call."""
    with pytest.raises(UsageError, match="needs a selector"):
        decorator()
    with pytest.raises(UsageError, match="is written with a selector"):
        decorator(lambda self, event: None)
    with pytest.raises(UsageError, match="no event is called"):
        decorator("response.output_text.detla")
    with pytest.raises(UsageError, match="decorates a method"):
        decorator("*")(3)


def test_methods_when_static_class_or_stacked() -> None:
    """Static and class methods serve; a method under several decorators hears an event once."""
    heard: list[Any] = []

    class Odd(Plugin):
        @staticmethod
        @on(TextDone)
        def static(event: Event, run: Run) -> None:
            heard.append(run)

        @classmethod
        @on(TextDone)
        def of_class(cls, event: Event) -> None:
            heard.append(cls)

        @on(TextDone)
        @on("text")
        def stacked(self, event: Event) -> None:
            heard.append(event.type)

    run = Dispatcher(Odd()).run([*deltas("a"), {"type": "response.output_text.done", "text": "a"}, completed()])
    name = "response.output_text"
    assert heard == [f"{name}.delta", run, Odd, f"{name}.done"]


def test_methods_when_decorated_outside_of_staticmethod() -> None:
    """The order of ``@on`` and ``@staticmethod`` does not matter."""
    heard: list[Any] = []

    class Odd(Plugin):
        @on(TextDone)
        @staticmethod
        def static(event: Event) -> None:
            heard.append(event)

        @on(TextDone)
        @classmethod
        def of_class(cls, event: Event) -> None:
            heard.append(cls)

    done = TextDone(text="")
    Dispatcher(Odd()).run([done], check=False)
    assert heard == [done, Odd]


def test_methods_when_their_argument_is_optional() -> None:
    """A method may take the event by default or by star, as a function may."""
    heard: list[Any] = []

    class Loose(Plugin):
        @on(TextDone)
        def default(self, event: Event | None = None) -> None:
            heard.append(event)

        @on(TextDone)
        def star(self, *args: object) -> None:
            heard.extend(args)

    done = TextDone(text="")
    Dispatcher(Loose()).run([done], check=False)
    assert heard == [done, done]


def test_handlers_when_a_plugin_has_several() -> None:
    """Handlers of a plugin run by order, then as defined; all before its transforms; then the dispatcher's own."""
    heard: list[str] = []

    class Several(Plugin):
        @transform("*")
        def change(self, event: Event) -> Event:
            heard.append("transform")
            return event

        @on("*", order=1)
        def late(self, event: Event) -> None:
            heard.append("late")

        @on("*")
        def middle(self, event: Event) -> None:
            heard.append("middle")

        @on("*", order=-1)
        def early(self, event: Event) -> None:
            heard.append("early")

    flow = Dispatcher(Several())
    flow.on("*", lambda event: heard.append("own"), order=-100)
    flow.run([completed()])
    assert heard == ["early", "middle", "late", "transform", "own"]


# --- transforms ------------------------------------------------------------------------------------------------------


def run_through(give: Any, *more: Plugin, face: str = "run") -> list[Any]:
    """What comes out of a plugin whose transform of `TextDone` gives what *give* does."""

    class Gives(Plugin):
        @transform(TextDone)
        def change(self, event: TextDone) -> Any:
            return give(event)

    outcome = drive(
        face, [*deltas("x"), {"type": "response.output_text.done", "text": "x"}], Dispatcher(Gives(), *more)
    )
    return outcome.heard[1:]


@pytest.mark.parametrize("face", FACES)
def test_transform_when_it_gives(face: str) -> None:
    """An event, None, several, another class, an iterable of any kind: that goes on in place of the event."""
    done = TextDone(text="x")
    assert run_through(lambda event: event, face=face) == [done]
    assert run_through(lambda event: event.replace(text="y"), face=face) == [TextDone(text="y")]
    assert run_through(lambda event: None, face=face) == []
    assert run_through(lambda event: [], face=face) == []
    assert run_through(lambda event: [Tick(1), event, Tick(2)], face=face) == [Tick(1), done, Tick(2)]
    assert run_through(lambda event: (Tick(n) for n in range(2)), face=face) == [Tick(0), Tick(1)]
    assert run_through(lambda event: Tick(3), face=face) == [Tick(3)]


@pytest.mark.parametrize("wrong", [3, "text", b"", {"type": "x"}, [3], [Tick(), "x"], True, ...], ids=repr)
def test_transform_when_it_gives_something_else(wrong: object) -> None:
    """Anything else ends the run with an error that names the transform and says what it may give."""

    class Gives(Plugin):
        @transform(TextDone)
        def change(self, event: TextDone) -> Any:
            return wrong

    with pytest.raises(UsageError, match=r"Gives\.change must give an event, None, or an iterable") as caught:
        Dispatcher(Gives()).run(AB)
    assert any("Gives.change on response.output_text.done" in note for note in caught.value.__notes__)


class _Log(Plugin):
    name: str
    log: Any

    @on("*")
    def hear(self, event: Event) -> None:
        self.log.append((self.name, event.n if isinstance(event, Tick) else event.type.rsplit(".", 1)[-1]))


def test_replacement_when_it_goes_on_passes_later_steps_alone() -> None:
    """What a transform gives passes the plugin's later transforms and the plugins after it, not those before."""
    log: list[Any] = []

    class Twice(Plugin):
        @transform(TextDone)
        def first(self, event: TextDone) -> list[Event]:
            return [Tick(1), event]

        @transform(Tick)
        def second(self, event: Tick) -> Event:
            return Tick(event.n * 10)

    flow = Dispatcher(_Log("before", log), Twice(), _Log("after", log))
    flow.run([{"type": "response.output_text.done", "text": ""}, completed()])
    assert log == [
        ("before", "done"),
        ("after", 10),
        ("after", "done"),
        ("before", "completed"),
        ("after", "completed"),
    ]


def test_emission_when_from_a_later_plugin_enters_at_the_head() -> None:
    """What a handler emits passes the whole pipeline, as if the source had sent it."""
    log: list[Any] = []

    class Emits(Plugin):
        @on(TextDone)
        def emit(self, event: TextDone, run: Run) -> None:
            run.emit(Tick(1))

    Dispatcher(_Log("before", log), Emits(), _Log("after", log)).run(
        [{"type": "response.output_text.done", "text": ""}, completed()]
    )
    assert log[:4] == [("before", "done"), ("after", "done"), ("before", 1), ("after", 1)]


def test_received_fold_when_a_transform_drops() -> None:
    """``run.response`` is what was received, whatever the pipeline did to it."""

    class Drops(Plugin):
        @transform("*")
        def drop(self, event: Event) -> None:
            return None

    flow = Dispatcher(Drops())
    assert list(flow.stream(AB)) == []
    run = flow.run(AB)
    assert (run.status, run.text, run.events) == ("completed", "ab", 7)


def test_async_transform_when_awaited() -> None:
    """A transform may be async in an async run; in a sync one it is refused before the first event."""

    class Late(Plugin):
        @transform(TextDone)
        async def change(self, event: TextDone, run: Run) -> Event:
            await asyncio.sleep(0)
            return Tick(run.events)

    heard: list[Event] = []
    flow = Dispatcher(Late())
    flow.on(Tick, heard.append)
    asyncio.run(flow.arun(AB))
    assert heard == [Tick(5)]
    with pytest.raises(UsageError, match=r"Late\.change can only be awaited"):
        flow.run(AB)

    class Disguised(Plugin):
        @transform(TextDone)
        def change(self, event: TextDone) -> Any:
            return asyncio.sleep(0)

    with pytest.raises(UsageError, match=r"Disguised\.change gave an awaitable"):
        Dispatcher(Disguised()).run(AB)


@pytest.mark.parametrize("face", FACES)
def test_transform_when_it_raises(face: str) -> None:
    """What a transform raises ends the run as a handler's exception would."""

    class Breaks(Plugin):
        @transform(TextDelta)
        def change(self, event: TextDelta) -> Event:
            raise ValueError("mine")

    outcome = drive(face, AB, Dispatcher(Breaks()))
    assert type(outcome.raised) is ValueError
    assert outcome.run.status == "failed"
    assert "Breaks.change on response.output_text.delta" in outcome.raised.__notes__[0]
    assert outcome.run.id in outcome.raised.__notes__[0]


def test_plugin_handler_when_isolated() -> None:
    """``errors="isolate"`` works on a plugin's handlers too."""

    class Breaks(Plugin):
        @on(TextDelta, errors="isolate")
        def hear(self, event: TextDelta) -> None:
            raise ValueError("mine")

    heard: list[str] = []
    flow = Dispatcher(Breaks())
    flow.on(HandlerFailed, lambda event: heard.append(event.handler))
    assert flow.run(AB).status == "completed"
    assert [name.rpartition(".<locals>.")[2] for name in heard] == ["Breaks.hear"] * 2


# --- lifecycle -------------------------------------------------------------------------------------------------------


# --- selectors of an instance's own ----------------------------------------------------------------------------------


class Chosen(Plugin):
    """Notes the types of the events that its configuration selects; and of the others."""

    events: Select | tuple[Select, ...] = "*"
    errors: ErrorPolicy = attrs.field(default="raise", kw_only=True)
    heard: list[str] = state(factory=list[str])
    others: list[str] = state(factory=list[str])

    @on(configured("events"), errors=configured("errors"))
    def hear(self, event: Event) -> None:
        self.heard.append(event.type)
        if isinstance(event, Tick) and event.n < 0:
            raise ValueError("negative")

    @transform(configured("events", negate=True))
    def drop(self, event: Event) -> None:
        self.others.append(event.type)


selectors = st.sampled_from([Tick, TextDelta, TextDone, "text", "custom", "lifecycle", "response.*", "*"])


@given(st.one_of(selectors, st.lists(selectors, max_size=3), st.lists(selectors, max_size=3).map(tuple)))
def test_configured_selector_when_run_is_that_of_on(select: Any) -> None:
    """It selects what `on` selects with it, in sync and async runs; negated, everything else; nothing twice."""
    selects: tuple[Any, ...] = tuple(select) if isinstance(select, list | tuple) else (select,)
    source = [Tick(), TextDelta(delta="a"), TextDone(text="a"), ResponseCompleted(response=Response())]
    expected: list[str] = []
    flow = Dispatcher()
    if selects:
        flow.on(*selects)(lambda event: expected.append(event.type))
    flow.run(source)
    run = Dispatcher(Chosen(select)).run(source)
    assert run[Chosen].heard == expected
    assert run[Chosen].others == [event.type for event in source if event.type not in expected]
    again = asyncio.run(Dispatcher(Chosen(select)).arun(source))
    assert (again[Chosen].heard, again[Chosen].others) == (run[Chosen].heard, run[Chosen].others)


def test_configured_selector_when_events_are_not_wanted_costs_nothing() -> None:
    """They do not even reach the plugin: its instances of one class have routes of their own."""
    plan = Plan((Chosen(()), Chosen("text")), ())
    assert [step.name for step in plan.steps] == ["Chosen.drop", "Chosen.hear", "Chosen.drop"]
    assert plan.route(TextDelta, TextDelta.type) == (0, 1)
    assert Plan((Chosen("text"),), ()).route(TextDelta, TextDelta.type) == (0,)


def test_configured_selector_when_it_stands_among_others() -> None:
    """A method may have fixed selectors as well, and several decorators; it hears an event once."""

    class Several(Plugin):
        events: str = "custom"
        heard: list[str] = state(factory=list[str])

        @on(TextDelta, configured("events"))
        @on(configured("events", negate=True))
        def hear(self, event: Event) -> None:
            self.heard.append(event.type)

    run = Dispatcher(Several()).run([Tick(), TextDelta(delta="a"), TextDone(text="a")], check=False)
    assert run[Several].heard == [Tick.type, TextDelta.type, TextDone.type]


def test_configured_method_when_it_selects_nothing_is_switched_off() -> None:
    """An async method that hears nothing is no obstacle to a sync run."""

    class Optional(Plugin):
        events: tuple[str, ...] = ()

        @on(configured("events"))
        async def hear(self, event: Event) -> None: ...

    assert Dispatcher(Optional()).run([Tick()], check=False).events == 1
    with pytest.raises(UsageError, match=r"Optional\.hear can only be awaited"):
        Dispatcher(Optional(("text",))).run([Tick()])


def test_configured_errors_when_a_handler_fails() -> None:
    """One plugin lets its failures end the run, the next reports them."""
    failures: list[HandlerFailed] = []
    flow = Dispatcher(Chosen(errors="isolate"))
    flow.on(HandlerFailed, failures.append)
    assert flow.run([Tick(n=-1), Tick()], check=False)[Chosen].heard == [Tick.type, HandlerFailed.type, Tick.type]
    assert [failure.handler for failure in failures] == ["Chosen.hear"]
    with pytest.raises(ValueError, match="negative"):
        Dispatcher(Chosen()).run([Tick(n=-1)])


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"events": "txet"}, r"Chosen\(events=\.\.\.\): no event is called 'txet'; did you mean 'text'\?"),
        ({"events": ("text", 3)}, r"Chosen\(events=\.\.\.\): 3 is no selector"),
        ({"events": None}, r"Chosen\(events=\.\.\.\): None is no selector"),
        ({"errors": "ignore"}, r"Chosen\(errors=\.\.\.\): errors must be \"raise\" or \"isolate\", not 'ignore'"),
    ],
)
def test_configured_field_when_wrong_is_refused_as_the_plugin_is_made(configuration: Any, message: str) -> None:
    """With plugin, field, and the nearest spelling; and before a run where it was assigned later."""
    with pytest.raises(UsageError, match=message):
        Chosen(**configuration)
    plugin = Chosen()
    vars(plugin).update(configuration)
    with pytest.raises(UsageError, match=message):
        Dispatcher(plugin).run([Tick()])


def test_configured_field_when_inherited_is_checked_beside_its_own_validator() -> None:
    """A subclass may select by a field of its base, and override a configured method."""
    seen: list[object] = []

    class Base(Plugin):
        _events: Any = attrs.field(default="*", validator=lambda plugin, field, value: seen.append(value))
        words: int = attrs.field(default=0, converter=int)

    class Derived(Base):
        @on(configured("_events"))
        def hear(self, event: Event) -> None:
            raise AssertionError

    class Quiet(Derived):
        heard: int = state(default=0)

        def hear(self, event: Event) -> None:
            self.heard += 1

    assert Base("txet").words == 0  # it selects nothing there
    with pytest.raises(UsageError, match=r"Derived\(events=\.\.\.\): no event is called 'txet'"):
        Derived("txet")
    assert seen == ["txet", "txet"]
    assert Dispatcher(Quiet("custom")).run([Tick(), TextDelta(delta="")], check=False)[Quiet].heard == 1


def test_state_when_a_plugin_has_configured_methods_is_assigned_directly() -> None:
    """Its fields are checked when it is made alone: nothing stands between a handler and its state."""
    assert Chosen.__setattr__ is object.__setattr__


def test_configured_field_when_there_is_none_is_refused_with_the_class() -> None:
    """A misspelt one, one that is a state, and none at all."""
    with pytest.raises(PluginError, match=r"Lost: hear is for configured\('evnets'\).*did you mean 'events'"):

        class Lost(Plugin):
            events: str = "*"

            @on(configured("evnets"))
            def hear(self, event: Event) -> None: ...

    with pytest.raises(PluginError, match=r"drop is for configured\('x'\), which is no field of it; there is: none"):

        class Bare(Plugin):
            @transform(configured("x"))
            def drop(self, event: Event) -> None: ...

    with pytest.raises(PluginError, match="a state, another in every run"):

        class Stated(Plugin):
            policy: str = state(default="raise")

            @on("*", errors=configured("policy"))
            def hear(self, event: Event) -> None: ...


def test_error_policy_when_none_is_refused_at_the_decorator() -> None:
    """`on` in a plugin takes the policies that a dispatcher takes."""
    with pytest.raises(UsageError, match='"raise" or "isolate"'):
        on("*", errors="ignore")  # type: ignore[call-overload]


class Hooks(Plugin):
    """Logs its hooks; raises where it is told to."""

    name: str
    log: Any
    broken: str = ""
    is_async: bool = False

    def _do(self, hook: str, run: Run) -> None:
        self.log.append(f"{self.name}.{hook}")
        if hook == self.broken:
            raise ValueError(f"{self.name}.{hook}")

    def start(self, run: Run) -> Any:
        self._do("start", run)
        return asyncio.sleep(0) if self.is_async else None

    def finish(self, run: Run) -> Any:
        self._do("finish", run)

    def stop(self, run: Run) -> Any:
        self._do("stop", run)
        return asyncio.sleep(0) if self.is_async else None


ENDINGS = {
    "well": AB,
    "truncated": AB[:3],
    "an error": [*AB[:3], error()],
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("face", FACES)
def test_hooks_when_the_stream_ends(face: str, ending: str) -> None:
    """`start` and `finish` in order, `stop` in reverse, each once, however the stream ends."""
    log: list[str] = []
    drive(face, ENDINGS[ending], Dispatcher(Hooks("a", log), Hooks("b", log)))
    assert log == ["a.start", "b.start", "a.finish", "b.finish", "b.stop", "a.stop"]


@pytest.mark.parametrize("hook", ["start", "finish", "stop"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("face", FACES)
def test_hooks_when_one_raises(face: str, place: int, hook: str) -> None:
    """What a hook raises ends the run, with a note naming it; every `stop` is still called once, in reverse."""
    log: list[str] = []
    plugins = [Hooks(name, log, hook if place == number else "") for number, name in enumerate("abc")]
    outcome = drive(face, AB, Dispatcher(*plugins))
    assert type(outcome.raised) is ValueError
    assert outcome.raised.args == (f"{'abc'[place]}.{hook}",)
    assert f"Hooks.{hook}" in outcome.raised.__notes__[0]
    assert outcome.run.id in outcome.raised.__notes__[0]
    assert outcome.run.status == "failed"
    assert [entry for entry in log if entry.endswith("stop")] == ["c.stop", "b.stop", "a.stop"]
    if hook == "start":
        assert log[: place + 1] == [f"{name}.start" for name in "abc"[: place + 1]]
        assert outcome.heard == []


@pytest.mark.parametrize("face", FACES)
def test_stop_when_several_fail(face: str, caplog: pytest.LogCaptureFixture) -> None:
    """The first failure is the run's, the others are logged; a handler's comes before a hook's."""
    log: list[str] = []
    flow = Dispatcher(*(Hooks(name, log, "stop") for name in "abc"))
    assert str(drive(face, AB, flow).raised) == "c.stop"
    assert log[-3:] == ["c.stop", "b.stop", "a.stop"]
    assert len(caplog.records) == 2

    def fail(event: Event) -> None:
        raise KeyError("handler")

    flow.on(TextDelta, fail)
    assert isinstance(drive(face, AB, flow).raised, KeyError)


@pytest.mark.parametrize("face", FACES)
def test_stop_when_it_fails_after_a_bad_stream(face: str) -> None:
    """A `stop` that raises after a truncated stream: its exception comes out, the stream's error stays on the run."""
    outcome = drive(face, AB[:3], Dispatcher(Hooks("a", [], "stop")))
    assert type(outcome.raised) is ValueError
    assert outcome.run.status == "failed"
    assert isinstance(outcome.run.error, StreamTruncated)


@pytest.mark.parametrize("face", FACES)
def test_finish_when_it_gives_events_held_back(face: str) -> None:
    """What `finish` returns goes on behind its plugin, before the next plugin finishes."""
    log: list[Any] = []

    class Holds(Plugin):
        held: list[Event] = state(factory=list)

        @transform(TextDelta)
        def hold(self, event: TextDelta) -> None:
            self.held.append(event)

        def finish(self, run: Run) -> Any:
            return self.held

    class Last(Plugin):
        def finish(self, run: Run) -> Iterator[Event]:
            log.append(("last", "finish"))
            yield Tick(9)

    flow = Dispatcher(_Log("before", log), Holds(), _Log("after", log), Last())
    outcome = drive(face, [created(), *deltas("a", "b"), completed()], flow)
    assert log == [
        ("before", "created"),
        ("after", "created"),
        ("before", "delta"),
        ("before", "delta"),
        ("before", "completed"),
        ("after", "completed"),
        ("after", "delta"),
        ("after", "delta"),
        ("last", "finish"),
    ]
    assert [event.type for event in outcome.heard][-3:] == ["response.output_text.delta"] * 2 + ["tests.tick"]
    if outcome.given is not None:
        assert outcome.given == outcome.heard


def test_finish_when_it_gives_one_event_or_something_else() -> None:
    """`finish` may return one event; what is none is an error that names it."""

    class Gives(Plugin):
        what: Any

        def finish(self, run: Run) -> Any:
            return self.what

    assert drive("run", AB, Dispatcher(Gives(Tick(1)))).heard[-1] == Tick(1)
    with pytest.raises(UsageError, match=r"Gives\.finish must give an event, None"):
        Dispatcher(Gives(3)).run(AB)


@pytest.mark.parametrize("face", ["arun", "astream", "aopen"])
def test_hooks_when_async(face: str) -> None:
    """Hooks may be async in an async run, also in disguise."""
    log: list[str] = []

    class Late(Plugin):
        async def start(self, run: Run) -> None:
            await asyncio.sleep(0)
            log.append("late.start")

        async def finish(self, run: Run) -> Event:
            await asyncio.sleep(0)
            return Tick(1)

        async def stop(self, run: Run) -> None:
            await asyncio.sleep(0)
            log.append("late.stop")

    outcome = drive(face, AB, Dispatcher(Late(), Hooks("plain", log, is_async=True)))
    assert outcome.raised is None
    assert outcome.heard[-1] == Tick(1)
    assert log == ["late.start", "plain.start", "plain.finish", "plain.stop", "late.stop"]


def test_hooks_when_async_in_a_sync_run() -> None:
    """An async hook is refused before the first event; one in disguise ends the run when it is met."""

    class Late(Plugin):
        async def stop(self, run: Run) -> None:
            """Never called."""

    source = Watched(AB)
    with pytest.raises(UsageError, match=r"Late\.stop can only be awaited"):
        Dispatcher(Late()).run(source)
    assert (source.pulled, source.closed) == (0, 1)
    with pytest.raises(UsageError, match=r"Hooks\.start gave an awaitable"):
        Dispatcher(Hooks("a", [], is_async=True)).run(AB)


# --- the plugins of a run --------------------------------------------------------------------------------------------


def test_plugins_when_one_class_is_used_twice() -> None:
    """Two plugins of a class each have their state; ``run[Cls]`` is the first, ``run.plugins`` has all."""
    flow = Dispatcher(WordCount(1), WordCount(2))
    flow.use(WordCount(3))
    run = flow.run(answer("two words"))
    assert [plugin.minimum for plugin in run.plugins if isinstance(plugin, WordCount)] == [1, 2, 3]
    assert [plugin.words for plugin in run.plugins if isinstance(plugin, WordCount)] == [2, 2, 2]
    assert run[WordCount].minimum == 1


def test_plugin_when_given_twice() -> None:
    """The same template given twice is two plugins of a run."""
    template = WordCount()
    run = Dispatcher(template, template).run(answer("a"))
    assert len(run.plugins) == 2
    assert run.plugins[0] is not run.plugins[1]
    assert template.words == 0


def test_use_when_undone() -> None:
    """`use` adds behind the others; its undo takes the plugin out of later runs, as call or context manager."""
    flow = Dispatcher(WordCount(1))
    undo = flow.use(WordCount(2))
    assert len(flow.run(AB).plugins) == 2
    undo()
    undo()
    assert len(flow.run(AB).plugins) == 1
    with flow.use(WordCount(3)):
        assert len(flow.run(AB).plugins) == 2
    assert len(flow.run(AB).plugins) == 1


@pytest.mark.parametrize("wrong", [WordCount, object(), None, print])
def test_use_when_it_is_no_plugin(wrong: Any) -> None:
    """What is no plugin is refused; a class is told to be called."""
    with pytest.raises(UsageError, match="made of plugins") as caught:
        Dispatcher(wrong)
    with pytest.raises(UsageError, match="made of plugins"):
        Dispatcher().use(wrong)
    assert ("write WordCount()" in str(caught.value)) == (wrong is WordCount)
    with pytest.raises(UsageError, match="with a name only"):
        Dispatcher().use(WordCount(), minimum=3)


def test_use_when_one_instance_is_used_twice_and_undone() -> None:
    """An undo takes back its own use, and no other of the same instance."""
    plugin = WordCount()
    flow = Dispatcher(plugin)
    undo = flow.use(plugin)
    undo()
    assert len(flow.run(AB).plugins) == 1


def test_plugin_when_it_is_the_bare_class() -> None:
    """A `Plugin` that does nothing may stand in a pipeline."""
    assert len(Dispatcher(Plugin()).run(AB).plugins) == 1


@pytest.mark.parametrize("face", FACES)
def test_rewrite_when_the_stream_ends_within_its_text(face: str) -> None:
    """What a rewrite still holds when the stream ends early goes on as a delta, behind its plugin."""

    class Holds(Plugin):
        @rewrite("text")
        def last_character(self, text: str, part: Part) -> str:
            text = part.held + text
            part.held = "" if part.final else text[-1:]
            return text if part.final else text[:-1]

    outcome = drive(face, [created(), *deltas("ab", "cd")], Dispatcher(Holds()))
    given = [event.delta for event in outcome.heard if isinstance(event, TextDelta)]
    assert given == ["a", "bc", "d"]
    assert isinstance(outcome.raised, StreamTruncated)


# --- shared resources ------------------------------------------------------------------------------------------------


class Shared(Plugin):
    """Logs when it is opened and closed; adds up over runs."""

    log: Any
    lock: Any = attrs.field(factory=threading.Lock)
    total: Any = attrs.field(factory=list)

    def open(self) -> None:
        self.log.append("open")

    def close(self) -> None:
        self.log.append("close")

    @on(TextDelta)
    def add(self, event: TextDelta) -> None:
        with self.lock:
            self.total.append(event.delta)


def test_open_and_close_when_a_dispatcher_is_used() -> None:
    """Both are called once per dispatcher, whatever the number of runs, and last first; the shared object is one."""
    log: list[str] = []
    shared = Shared(log)
    with Dispatcher(shared) as flow:
        assert log == ["open"]
        flow.run(AB)
        flow.run(AB)
        assert log == ["open"]
    assert log == ["open", "close"]
    assert shared.total == ["a", "b", "a", "b"]
    flow.close()
    assert log == ["open", "close"]
    flow.run(AB)
    flow.close()
    assert log == ["open", "close", "open", "close"]


def test_open_when_there_is_no_with_block() -> None:
    """Without ``with`` a plugin is opened before the first run, and closed with the dispatcher's end."""
    log: list[str] = []
    flow = Dispatcher(Shared(log))
    assert log == []
    flow.run(AB)
    late = Shared(log)
    flow.use(late)
    flow.run(AB)
    assert log == ["open", "open"]
    del flow
    gc.collect()  # runs and their plugins know each other
    assert log == ["open", "open", "close", "close"]


def test_open_when_two_dispatchers_share_a_plugin() -> None:
    """Each dispatcher opens and closes a plugin of its own accord."""
    log: list[str] = []
    shared = Shared(log)
    with Dispatcher(shared) as one, Dispatcher(shared) as two:
        one.run(AB)
        two.run(AB)
    assert log == ["open", "open", "close", "close"]


def test_open_when_it_fails() -> None:
    """A plugin that cannot be opened is the caller's error; those opened before it are closed."""
    log: list[str] = []

    class Refuses(Plugin):
        def open(self) -> None:
            raise OSError("no such disk")

        def close(self) -> None:
            log.append("never")

    flow = Dispatcher(Shared(log), Refuses())
    source = Watched(AB)
    with pytest.raises(OSError, match="no such disk"):
        flow.run(source)
    assert source.closed == 1
    flow.close()
    assert log == ["open", "close"]


def test_close_when_it_fails() -> None:
    """A plugin whose `close` raises does not keep the others open; what the first one raised comes out."""
    log: list[str] = []

    class Stuck(Plugin):
        word: str

        def close(self) -> None:
            raise OSError(self.word)

    with pytest.raises(OSError, match="second"), Dispatcher(Shared(log), Stuck("first"), Stuck("second")):
        pass
    assert log == ["open", "close"]


# --- by name ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Installs distributions into a folder on the path: ``packages(name, {module: source}, {plugin: target})``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(name: str, modules: dict[str, str], plugins: dict[str, str], version: str = "1.0") -> None:
        for module, source in modules.items():
            (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
        )
        lines = [f"{plugin} = {target}" for plugin, target in plugins.items()]
        info.joinpath("entry_points.txt").write_text(
            "[eventflow.plugins]\n" + "\n".join(lines) + "\n", encoding="utf-8"
        )
        importlib.invalidate_caches()

    yield install
    for module in set(sys.modules) - before:
        del sys.modules[module]


STRANGER = '''
from eventflow import Plugin, TextDelta, on, state

class Letters(Plugin):
    """Count letters."""
    letter: str = "a"
    count: int = state(default=0)

    @on(TextDelta)
    def add(self, event: TextDelta) -> None:
        self.count += event.delta.count(self.letter)

def make(letter):
    return Letters(letter)

nothing = 3

def wrong():
    return 3
'''


def test_plugin_when_a_strangers_package_brings_it(packages: Any) -> None:
    """A plugin published by anybody works by name, with its configuration; the signal tells of it."""
    packages("strangers-letters", {"strangers_letters": STRANGER}, {"letters": "strangers_letters:Letters"})
    loaded: list[Any] = []

    def receive(sender: Any, **keywords: Any) -> None:
        loaded.append((sender.__name__, keywords["name"], keywords["plugin"].letter))

    flow = Dispatcher()
    with signals.plugin_loaded.connected_to(receive):
        undo = flow.use("letters", letter="b")
    assert loaded == [("Letters", "letters", "b")]
    run = flow.run(answer("b", "ab", "c"))
    (plugin,) = run.plugins
    assert plugin.count == 2  # type: ignore[attr-defined]
    assert type(plugin) is load("letters")
    undo()
    assert flow.run(AB).plugins == ()


def test_plugins_when_listed_are_not_imported(packages: Any) -> None:
    """`available` tells name, place and distribution of all there are, and imports none; nothing loads unasked."""
    packages("strangers-letters", {"strangers_letters": STRANGER}, {"letters": "strangers_letters:Letters"}, "2.5")
    packages("broken-thing", {"broken_thing": "import no_such_module_anywhere"}, {"broken": "broken_thing:Plugin"})
    found = {plugin.name: plugin for plugin in available()}
    assert found["letters"].target == "strangers_letters:Letters"
    assert found["letters"].distribution == "strangers-letters 2.5"
    assert found["letters"].allowed
    assert "broken" in found
    Dispatcher().run(AB)
    assert "strangers_letters" not in sys.modules


def test_plugin_when_its_import_fails(packages: Any) -> None:
    """It is reported with its distribution and cause, and does not stop the others."""
    packages("broken-thing", {"broken_thing": "import no_such_module_anywhere"}, {"broken": "broken_thing:Plugin"})
    packages("raises-thing", {"raises_thing": "1 / 0"}, {"raises": "raises_thing:Plugin"})
    packages("hollow-thing", {"hollow_thing": ""}, {"hollow": "hollow_thing:Plugin"})
    packages("strangers-letters", {"strangers_letters": STRANGER}, {"letters": "strangers_letters:make"})
    for name, cause in (("broken", ImportError), ("raises", ZeroDivisionError), ("hollow", AttributeError)):
        with pytest.raises(PluginError, match=rf"plugin '{name}' of {name}-thing 1\.0 does not import") as caught:
            Dispatcher().use(name)
        assert isinstance(caught.value.__cause__, cause)
    Dispatcher().use("letters", letter="x")


def test_plugin_when_two_have_one_name(packages: Any) -> None:
    """Two plugins of one name: an error that names both owners, and only where that name is asked for."""
    packages("one-thing", {"one_thing": STRANGER}, {"letters": "one_thing:Letters", "single": "one_thing:Letters"})
    packages("other-thing", {"other_thing": STRANGER}, {"letters": "other_thing:Letters"})
    with pytest.raises(PluginError, match=r"two plugins are called 'letters'.*one-thing 1\.0.*other-thing 1\.0"):
        Dispatcher().use("letters")
    assert load("single").__name__ == "Letters"


def test_plugin_when_its_name_is_unknown(packages: Any) -> None:
    """The nearest name is offered, or else what there is."""
    packages("strangers-letters", {"strangers_letters": STRANGER}, {"letters": "strangers_letters:Letters"})
    with pytest.raises(PluginError, match=r"no plugin is called 'leters'; did you mean 'letters'\?"):
        Dispatcher().use("leters")
    with pytest.raises(PluginError, match=r"there is: .*letters"):
        Dispatcher().use("zzzzz")


def test_plugin_when_the_environment_limits_names(packages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``EVENTFLOW_PLUGINS`` says what may be loaded by name; the rest is listed as not allowed, and refused."""
    packages("strangers-letters", {"strangers_letters": STRANGER}, {"letters": "strangers_letters:Letters"})
    monkeypatch.setenv("EVENTFLOW_PLUGINS", "log, other")
    with pytest.raises(PluginError, match=r"'letters' of strangers-letters 1\.0 is not in EVENTFLOW_PLUGINS"):
        Dispatcher().use("letters")
    assert [plugin.allowed for plugin in available() if plugin.name == "letters"] == [False]
    assert "strangers_letters" not in sys.modules
    monkeypatch.setenv("EVENTFLOW_PLUGINS", "")
    with pytest.raises(PluginError, match="is not in EVENTFLOW_PLUGINS"):
        Dispatcher().use("letters")
    monkeypatch.setenv("EVENTFLOW_PLUGINS", " letters ,log")
    Dispatcher().use("letters")


def test_plugin_when_configured_wrongly(packages: Any) -> None:
    """A wrong configuration, and an entry point that is or gives no plugin, are errors that name the plugin."""
    targets = {"letters": "Letters", "number": "nothing", "wrong": "wrong", "make": "make"}
    packages(
        "strangers-letters", {"strangers_letters": STRANGER}, {k: f"strangers_letters:{v}" for k, v in targets.items()}
    )
    with pytest.raises(PluginError, match=r"'letters' cannot be configured so: .*size"):
        Dispatcher().use("letters", size=3)
    with pytest.raises(PluginError, match="is neither class nor function"):
        Dispatcher().use("number")
    with pytest.raises(PluginError, match="wrong gives int, not a Plugin"):
        Dispatcher().use("wrong")
    with pytest.raises(PluginError, match="cannot be configured so"):
        Dispatcher().use("make")
    run_text = body(answer("xyx"))
    flow = Dispatcher()
    flow.use("make", letter="x")
    (plugin,) = flow.run(run_text).plugins
    assert plugin.count == 2  # type: ignore[attr-defined]


class Receiver(Plugin):
    """Notes what it is shown, and how many events there were then."""

    name: str
    log: Any

    def receive(self, item: Any, run: Run) -> None:
        self.log.append((self.name, item, run.events))


class Sized(Receiver):
    """Does without the run."""

    def receive(self, item: Any) -> None:  # type: ignore[override]
        self.log.append((self.name, item, None))


@pytest.mark.parametrize("face", FACES)
def test_receive_when_items_come(face: str) -> None:
    """Every item as the source gives it, in pipeline order, before anything of it is decoded or dispatched."""
    log: list[Any] = []
    flow = Dispatcher(Receiver("a", log), Sized("b", log))
    flow.on(TextDelta, lambda event: log.append(event.delta))
    first, second = block(created()) + block(delta("x")), block(delta("y"))
    frame = Frame("response.output_text.delta", json.dumps(delta("z")))
    items = [first, bytearray(second), frame, delta("u"), TextDelta("v"), completed()]
    outcome = drive(face, items, flow)
    assert outcome.run.status == "completed"
    expected: list[Any] = []
    for item, count, text in zip(items, [0, 2, 3, 4, 5, 6], [*"xyzuv", None], strict=True):
        expected += [("a", item, count), ("b", item, None), *([text] if text else [])]
    assert log == expected
    assert type(log[3][1]) is bytes


@pytest.mark.parametrize("face", FACES)
def test_receive_when_nothing_more_comes(face: str) -> None:
    """The end of the source is no item, nor is what comes after the end of the run."""
    log: list[Any] = []
    drive(face, [body(AB[:3])], Dispatcher(Receiver("a", log)))
    assert len(log) == 1
    log.clear()
    drive(face, [body(AB), b"more", b"and more"], Dispatcher(Receiver("a", log)))
    assert len(log) == 1


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("items", [[body(AB)], AB], ids=["bytes", "mappings"])
def test_receive_when_it_raises(face: str, items: list[Any]) -> None:
    """It ends the run as any hook does: with a note that names it, nothing dispatched, every `stop` called."""
    log: list[str] = []

    class Refuses(Plugin):
        def receive(self, item: Any, run: Run) -> None:
            raise ValueError("no")

    outcome = drive(face, items, Dispatcher(Hooks("a", log), Refuses()))
    assert type(outcome.raised) is ValueError
    (note,) = outcome.raised.__notes__
    assert note.startswith(f"raised by {Refuses.__qualname__}.receive in run {outcome.run.id}")
    assert (outcome.heard, outcome.run.status, log) == ([], "failed", ["a.start", "a.stop"])


async def _receive_async(self: object, item: object, run: object) -> None: ...


async def _receive_some(self: object, item: object, run: object) -> Any:
    yield item


def _receive_later(self: object, item: object, run: object) -> Any:
    yield item


@pytest.mark.parametrize(
    ("receive", "message"),
    [
        (_receive_async, r"Forgets\.receive is called with items as they come .* plain method"),
        (_receive_some, r"Forgets\.receive is called with items as they come .* plain method"),
        (_receive_later, r"Forgets\.receive is called with items as they come .* plain method"),
        (lambda self: None, r"Forgets\.receive takes no argument; it is called with the item and the run"),
        (lambda self, item, run, more: None, r"Forgets\.receive needs 3 arguments"),
    ],
)
@pytest.mark.parametrize("face", FACES)
def test_receive_when_malformed(face: str, receive: Any, message: str) -> None:
    """One that is awaited, or cannot be called, is refused before the run, sync and async."""
    plugin: Any = type("Forgets", (Plugin,), {"receive": receive, "__qualname__": "Forgets"})
    with pytest.raises(PluginError, match=message):
        FACES[face](Dispatcher(plugin()), AB, [])
    with pytest.raises(PluginError, match="receive is a hook"):
        type("Names", (Plugin,), {"__annotations__": {"receive": str}, "receive": "x"})


@pytest.mark.parametrize("face", ["run", "arun"])
def test_receive_when_the_source_is_opened_again(face: str) -> None:
    """`ANEW` stands between two bodies; a source that goes on in the middle of one gives no sign of it."""
    log: list[Any] = []
    hows: list[Any] = ["anew", "on"]
    parts = [body(AB[:2]), body(AB[2:3]), body(AB[3:])]
    made = Source(items=iter(parts[:1]), aitems=AsyncWatched(parts[:1]))

    def reopen(*_: Any) -> Any:
        if not hows:
            return "no"
        made.items, made.aitems = iter(parts[1:2]), AsyncWatched(parts[1:2])
        del parts[1]
        return hows.pop(0)

    async def areopen(*_: Any) -> Any:
        return reopen()

    made.reopen, made.areopen = reopen, areopen
    flow = Dispatcher(Sized("a", log))
    run = flow.run(made) if face == "run" else asyncio.run(flow.arun(made))
    assert run.status == "completed"
    assert [item for _, item, _ in log if item] == [body(AB[:2]), ANEW, body(AB[2:3]), body(AB[3:])]


def test_hooks_when_malformed() -> None:
    """A hook that cannot take the run, and a field in a hook's place, are errors before the first event."""
    start = type("Forgets", (Plugin,), {"start": lambda self: None, "__qualname__": "Forgets"})
    with pytest.raises(PluginError, match=r"Forgets\.start takes no argument"):
        Dispatcher(start()).run(answer("a"))

    with pytest.raises(PluginError, match="Names: finish is a hook"):
        type("Names", (Plugin,), {"__annotations__": {"finish": str}, "finish": "x", "__qualname__": "Names"})


def test_rewrite_when_it_gives_no_text() -> None:
    """A rewrite that gives something else is named at the first piece."""

    class Forgets(Plugin):
        @rewrite("text")
        def nothing(self, text: str) -> str:
            return None  # type: ignore[return-value]

    with pytest.raises(UsageError, match=r"Forgets\.nothing must give text, not NoneType"):
        Dispatcher(Forgets()).run(answer("a"))


# --- hooks that wait -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("hook", ["start", "finish", "stop"])
def test_hook_when_it_pauses_goes_on_when_woken(face: str, hook: str) -> None:
    """A hook that is a generator waits for a thread of its own; what was emitted meanwhile is dispatched at once."""
    heard: list[int] = []
    seen: list[list[int]] = []

    def waits(self: Plugin, run: Run) -> Iterator[Any]:
        done: list[int] = []

        def work() -> None:
            if hook != "stop":
                run.emit(Tick(n=1))
            done.append(1)
            run.wake()

        thread = threading.Thread(target=work)
        thread.start()
        while not done:
            yield Pause()
        thread.join()
        yield Pause(0.01)
        seen.append(list(heard))
        if hook == "finish":
            yield Tick(n=2)
            seen.append(list(heard))

    waiting = type("Waits", (Plugin,), {hook: waits, "__annotations__": {}})
    flow = Dispatcher(waiting())
    flow.on(Tick, lambda event: heard.append(event.n))
    outcome = drive(face, AB, flow)
    assert outcome.raised is None
    if hook == "finish":
        assert seen == [[1], [1, 2]]
    elif hook == "stop":
        assert seen == [[]]
    assert heard == {"start": [1], "finish": [1, 2], "stop": []}[hook]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("hook", ["start", "finish"])
def test_hook_when_it_pauses_and_the_run_is_cancelled(face: str, hook: str) -> None:
    """The generator is closed: its cleaning up is done, and the run ends."""
    calls: list[str] = []

    def waits(self: Plugin, run: Run) -> Iterator[Any]:
        thread = threading.Thread(target=run.cancel)
        thread.start()
        try:
            while True:
                yield Pause()
        finally:
            thread.join()
            calls.append("closed")

    waiting = type("Waits", (Plugin,), {hook: waits, "__annotations__": {}})
    outcome = drive(face, AB, Dispatcher(waiting()))
    assert calls == ["closed"]
    assert outcome.run.status == ("cancelled" if hook == "start" else "completed")


@pytest.mark.parametrize("face", FACES)
def test_hook_when_it_pauses_and_is_interrupted(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wait raises comes to the hook, and goes on from there; `stop` is called."""
    calls: list[str] = []

    class Waits(Plugin):
        def finish(self, run: Run) -> Iterator[Any]:
            try:
                yield Pause("soon")  # type: ignore[arg-type]
            finally:
                calls.append("finish")

        def stop(self, run: Run) -> None:
            calls.append("stop")

    outcome = drive(face, AB, Dispatcher(Waits()))
    assert isinstance(outcome.raised, TypeError)
    assert calls == ["finish", "stop"]


def test_stop_when_it_gives_a_pause_and_the_run_was_dropped() -> None:
    """Where nobody drives the run any more, a pause is not made."""
    calls: list[str] = []

    class Waits(Plugin):
        def stop(self, run: Run) -> Any:
            calls.append("stop")
            return Pause(10)

    run = Dispatcher(Waits()).open().__enter__()
    del run
    gc.collect()
    assert calls == ["stop"]


@pytest.mark.parametrize("face", ["run", "arun", "stream", "astream"])
def test_source_when_plugins_finish_is_closed(face: str) -> None:
    """The source is closed before plugins finish, once, and a cancellation there does not reach for it."""
    make: Callable[..., Any] = Watched if face in SYNC else AsyncWatched
    source = make(AB)
    closed: list[int] = []

    class Finishes(Plugin):
        def finish(self, run: Run) -> None:
            closed.append(source.closed)
            assert run._interrupt is None
            run.cancel()

    flow = Dispatcher(Finishes())
    if face == "run":
        flow.run(source)
    elif face == "stream":
        assert len(list(flow.stream(source))) == len(AB)
    else:

        async def main() -> None:
            if face == "arun":
                await flow.arun(source)
            else:
                assert len([event async for event in flow.astream(source)]) == len(AB)

        asyncio.run(main())
    assert closed == [1]
    assert source.closed == 1
