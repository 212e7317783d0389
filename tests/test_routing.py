"""Selectors and handlers: what each hears, and what is refused with a hint."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventflow import events as ef
from eventflow.errors import UsageError
from eventflow.events import Event, TextDelta, TextDone, ToolCall, UnknownEvent, event_classes
from eventflow.events._base import FAMILY_NAMES
from eventflow.routing import FAMILIES, Handler, handler_of, is_async, matcher_of, name_of, required_arguments

CLASSES = tuple(cls for _, cls in sorted(event_classes().items()) if cls.__module__.startswith("eventflow."))


class Tick(Event, tag="tests_routing.tick"):
    n: int = 0


def heard(select: Any) -> set[str]:
    """The wire names that a selector hears, a vendor's among them."""
    matcher = matcher_of(select)
    names = {cls.type for cls in (*CLASSES, Tick) if matcher(cls, cls.type)}
    return names | ({"vendor.thing"} if matcher(UnknownEvent, "vendor.thing") else set())


EVERYTHING = {cls.type for cls in (*CLASSES, Tick)} | {"vendor.thing"}


@given(st.sampled_from(CLASSES))
def test_matcher_when_one_event_is_meant(cls: type[Event]) -> None:
    """A class, its wire name, and its name with underscores hear that event alone."""
    for select in (cls, cls.type, cls.type.replace(".", "_")):
        if select != "error":  # which is a family
            assert heard(select) == {cls.type}


def test_matcher_when_the_name_is_of_the_sdk_page() -> None:
    """It means the event of the true wire name."""
    assert heard("response.text_delta") == {"response.output_text.delta"}
    assert heard("response.error") == {"error"}


@pytest.mark.parametrize("family", FAMILIES)
def test_matcher_when_a_family_is_meant(family: str) -> None:
    """It hears the events of the family, and ``lifecycle`` the failed response too."""
    expected = {cls.type for cls in (*CLASSES, Tick) if cls.family == family}
    expected |= {"response.failed"} if family == "lifecycle" else set()
    expected |= {"vendor.thing"} if family == "unknown" else set()
    assert heard(family) == expected != set()
    if family != "custom":
        assert heard(FAMILIES[family]) == expected


def test_families_when_counted() -> None:
    """Every family can be selected, and every event is of one."""
    assert tuple(FAMILIES) == FAMILY_NAMES
    assert {cls.family for cls in (*CLASSES, Tick, UnknownEvent)} == set(FAMILY_NAMES)


def test_matcher_when_a_base_class_is_meant() -> None:
    """It hears all that is made of it."""
    assert heard(Event) == EVERYTHING
    assert heard(ef.WireEvent) == EVERYTHING - {"eventflow.turn_started", "tests_routing.tick"}
    assert heard(UnknownEvent) == {"vendor.thing"}
    assert heard(Tick) == heard("tests_routing.tick") == {"tests_routing.tick"}


@pytest.mark.parametrize(
    ("pattern", "like"),
    [
        ("*", ".*"),
        ("response.*.delta", r"response\..*\.delta"),
        ("response.output_text.*", r"response\.output_text\..*"),
        ("*_call.completed", r".*_call\.completed"),
        ("*.tick", r".*\.tick"),
        ("vendor.*", r"vendor\..*"),
        ("eventflow.*", r"eventflow\..*"),
        ("error*", "error.*"),
        ("response*text*d*", "response.*text.*d.*"),
        ("resp0nse.*", "$^"),
    ],
)
def test_matcher_when_a_pattern_is_meant(pattern: str, like: str) -> None:
    """A star is any text, everything else is itself; vendors' names are heard too."""
    assert heard(pattern) == {name for name in EVERYTHING if re.fullmatch(like, name)}


@given(st.text("a.*+?[", min_size=1), st.text("a.+?[\n"))
@example("a*[", "a\n[")
def test_matcher_when_a_pattern_has_other_signs(pattern: str, name: str) -> None:
    """No sign but the star means anything else than itself."""
    pieces = pattern.split("*")
    if len(pieces) == 1:
        return
    matcher = matcher_of(pattern)
    assert matcher(UnknownEvent, "x".join(pieces))
    rest = name
    fits = rest.startswith(pieces[0]) and len(name) >= len("".join(pieces)) and rest.endswith(pieces[-1])
    if len(pieces) == 2:
        assert matcher(UnknownEvent, name) == fits
    elif not fits:
        assert not matcher(UnknownEvent, name)


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ("response.output_text.detla", "did you mean 'response.output_text.delta'?"),
        ("tools", "did you mean 'tool'?"),
        ("TextDelta", "did you mean 'response.output_text.delta'?"),
        ("response.text_dleta", "did you mean 'response.output_text.delta'?"),
        ("zzzz", "families are text, refusal, reasoning, tool"),
        ("codex.rate_limits", "reached by a pattern: 'codex.rate_limits*'"),
        ("", "no event is called ''"),
        (int, "int is no event class; on() takes event classes"),
        (5, "5 is no selector; on() takes event classes"),
        (None, "None is no selector"),
        (TextDelta | TextDone, "is no selector"),
        (TextDelta("a"), "is no selector"),
    ],
)
def test_matcher_when_a_selector_can_never_match(select: Any, words: str) -> None:
    """The error says what was probably meant."""
    with pytest.raises(UsageError) as caught:
        matcher_of(select)
    assert words in caught.value.message


# --- handlers --------------------------------------------------------------------------------------------------------


def handler(function: Any, *selects: Any, **options: Any) -> Handler:
    """Classify a function."""
    return handler_of(function, tuple(map(matcher_of, selects)), **options)


class Callables:
    """What may stand for a handler."""

    def method(self, event: Event) -> None: ...

    def with_run(self, event: Event, run: object) -> None: ...

    @staticmethod
    def static(event: Event) -> None: ...

    @classmethod
    def of_class(cls, event: Event, run: object) -> None: ...

    async def coroutine(self, event: Event) -> None: ...

    async def generator(self, event: Event) -> AsyncIterator[Event]:
        yield event

    def __call__(self, event: Event) -> None: ...


class AsyncCallable:
    async def __call__(self, event: Event, run: object) -> None: ...


def generator(event: Event) -> Iterator[Event]:
    """Answer with events."""
    yield event


async def with_default(event: Event, run: object = None) -> None:
    """Take the run where it is given."""


@pytest.mark.parametrize(
    ("function", "wants_run", "asynchronous", "name"),
    [
        (lambda event: None, False, False, "<lambda>"),
        (lambda event, run: None, True, False, "<lambda>"),
        (lambda *events: None, False, False, "<lambda>"),
        (lambda event, /, *, loud=True: None, False, False, "<lambda>"),
        (Callables().method, False, False, "Callables.method"),
        (Callables().with_run, True, False, "Callables.with_run"),
        (Callables.static, False, False, "Callables.static"),
        (Callables.of_class, True, False, "Callables.of_class"),
        (Callables().coroutine, False, True, "Callables.coroutine"),
        (Callables().generator, False, True, "Callables.generator"),
        (Callables(), False, False, "Callables"),
        (AsyncCallable(), True, True, "AsyncCallable"),
        (generator, False, False, "generator"),
        (with_default, False, True, "with_default"),
        (functools.partial(with_default, run=1), False, True, "with_default"),
        (functools.partial(Callables().with_run), True, False, "Callables.with_run"),
        ([].append, False, False, "list.append"),
        (print, False, False, "print"),
        (max, False, False, "max"),
    ],
)
def test_handler_when_classified(function: Any, wants_run: bool, asynchronous: bool, name: str) -> None:
    """What it takes, and whether it is async, is known before anything happens."""
    made = handler(function, TextDelta)
    assert (made.wants_run, made.is_async, made.name) == (wants_run, asynchronous, name.replace("<lambda>", made.name))
    assert made.function is function
    assert is_async(function) is asynchronous
    assert name_of(function).endswith(name)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: None, "takes no argument; it is called with the event and the run"),
        (lambda *, event: None, "needs the keyword argument 'event'"),
        (lambda event, run, more: None, "needs 3 arguments; it is called with the event and the run"),
        (lambda event, *, loud: None, "needs the keyword argument 'loud'"),
        (lambda **events: None, "takes no argument"),
        (5, "a handler must be callable, not 5"),
        (None, "a handler must be callable, not None"),
    ],
)
def test_handler_when_it_cannot_be_called(function: Any, words: str) -> None:
    """The error says what it would be called with."""
    with pytest.raises(UsageError) as caught:
        handler(function, TextDelta)
    assert words in caught.value.message


def test_handler_when_it_has_options() -> None:
    """Order, policy, and a name of its own are kept."""
    made = handler(print, TextDelta, order=-3, errors="isolate", name="Plugin.show")
    assert (made.order, made.isolate, made.name) == (-3, True, "Plugin.show")
    assert not handler(print, TextDelta).isolate
    with pytest.raises(UsageError, match='errors must be "raise" or "isolate", not \'ignore\''):
        handler(print, TextDelta, errors="ignore")


def test_handler_when_offered_other_arguments() -> None:
    """Messages call them by their names."""
    function: Callable[..., None] = lambda text, part, more: None  # noqa: E731
    with pytest.raises(UsageError, match="it is called with the text and the part"):
        handler(function, TextDelta, arguments=("the text", "the part"))


def test_handler_when_it_has_several_selectors() -> None:
    """It hears what any of them hears."""
    made = handler(print, TextDelta, "tool", "vendor.*")
    assert made.matches(TextDelta, TextDelta.type)
    assert made.matches(ToolCall, ToolCall.type)
    assert made.matches(UnknownEvent, "vendor.x")
    assert not made.matches(TextDone, TextDone.type)
    assert not handler(print).matches(TextDelta, TextDelta.type)


class Methods:
    def none() -> None: ...  # type: ignore[misc]

    def one(self) -> None: ...

    def two(self, event: Event) -> None: ...

    def any(*arguments: object) -> None: ...


@pytest.mark.parametrize(("function", "taken"), [(Methods.two, 1), (Methods.any, 1)])
def test_required_arguments_when_a_function_is_to_be_a_method(function: Any, taken: int) -> None:
    """Its first parameter is not counted."""
    assert required_arguments(function, "m", ("the event", "the run"), bound=False) == taken


@pytest.mark.parametrize("function", [Methods.none, Methods.one])
def test_required_arguments_when_a_method_takes_none(function: Any) -> None:
    """It is an error that names it."""
    with pytest.raises(UsageError, match="m takes no argument; it is called with the event and the run"):
        required_arguments(function, "m", ("the event", "the run"), bound=False)
