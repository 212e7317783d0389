"""Timers with told times: against a naive model that adds up a list of waits; and what `Timeouts` takes."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventflow import Timeouts
from eventflow.errors import StreamTimeout, UsageError
from eventflow.timers import Timers

NAMES = [field.name for field in attrs.fields(Timeouts)]

# --- Timeouts --------------------------------------------------------------------------------------------------------


def test_timeouts_when_nothing_is_said() -> None:
    """A connection has 10 s, each event 2 minutes, the whole as long as it takes."""
    assert Timeouts() == Timeouts(connect=10, first_event=120, idle=120, total=None)


@pytest.mark.parametrize("name", NAMES)
def test_timeouts_when_one_is_set(name: str) -> None:
    """It takes seconds above 0, or None; it is documented, and cannot be changed later."""
    for value in (1, 0.25, 1e-9, inf, None):
        assert getattr(Timeouts(**{name: value}), name) == value
    assert f"{name}:" in str(Timeouts.__doc__)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(Timeouts(), name, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, -inf, nan, True, False, "10", b"10", [10], 10j, object])
def test_timeouts_when_refused(name: str, value: Any) -> None:
    """What is no number of seconds above 0 is refused where it is given, by its name and its value."""
    with pytest.raises(UsageError) as caught:
        Timeouts(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"Timeouts({name}=...) takes seconds above 0, or None")
    assert repr(value) in message


def test_timeouts_when_given_by_place() -> None:
    """Nobody remembers which of four numbers is which: they are given by name."""
    with pytest.raises(TypeError):
        Timeouts(10)  # type: ignore[misc]


# --- Timers against a model ------------------------------------------------------------------------------------------

# Quarters of a second, so that the sums of the model and of the timers are the same to the last bit.
SECONDS = st.integers(0, 80).map(lambda quarters: quarters / 4)
LIMITS = st.none() | st.integers(1, 80).map(lambda quarters: quarters / 4)


@attrs.frozen
class Wait:
    """The source is waited for; so many events come at its end."""

    seconds: float
    events: int


@attrs.frozen
class Work:
    """Handlers work: that counts for nothing."""

    seconds: float


@attrs.frozen
class Read:
    """What has come is read: that counts like waiting, once a wait follows, as long as no event is found in it."""

    seconds: float


@attrs.frozen
class Anew:
    """The source was opened again: so long for the answer, and so long in all with what had failed before."""

    waited: float
    spent: float | None

    @property
    def seconds(self) -> float:
        """What counts for the total."""
        return self.waited if self.spent is None else self.spent


Step = Wait | Work | Read | Anew
STEPS = st.lists(
    st.builds(Wait, SECONDS, st.sampled_from([0, 0, 1, 3]))
    | st.builds(Work, SECONDS)
    | st.builds(Read, SECONDS)
    | st.builds(Anew, SECONDS, st.none() | SECONDS),
    max_size=20,
)


def room(timeouts: Timeouts, waited: float, steps: list[Step]) -> dict[str, float]:
    """What each timer still allows after *steps*, by adding up what they were."""
    spent = [0.0 if isinstance(step, Work) else step.seconds for step in steps]
    name, since, before = "first_event", waited, "nothing"  # what was done last, besides reading and working
    last = -1  # its place
    for place, step in enumerate(steps):
        if isinstance(step, Anew):
            name, since, before = "first_event", step.waited, "nothing"
            spent[last + 1 : place] = [0.0] * (place - last - 1)  # read at the end of the body before
        elif isinstance(step, Read):
            since += step.seconds if before == "noise" else 0.0
            spent[place] = 0.0 if before == "nothing" else step.seconds
            continue
        elif isinstance(step, Work):
            continue
        elif step.events:
            name, since, before = "idle", 0.0, "event"
        else:
            since, before = since + spent[place], "noise"
        last = place
    allowed = getattr(timeouts, name)
    return {
        name: inf if allowed is None else allowed - since,
        "total": inf if timeouts.total is None else timeouts.total - (waited + sum(spent)),
    }


@attrs.define
class Told:
    """Timers that are told what a list of steps says."""

    timers: Timers
    now: float
    events: int = 0
    handled: float = 0.0
    deadlines: list[float] = attrs.field(factory=list)

    def tell(self, step: Step) -> None:
        """One step."""
        if isinstance(step, Wait):
            self.deadlines.append(self.timers.begin(self.now, self.events, self.handled))
            assert self.timers.deadline == self.deadlines[-1]
            self.timers.end(self.now + step.seconds)
            self.events += step.events
        elif isinstance(step, Anew):
            self.timers.anew(self.events, step.waited, *([] if step.spent is None else [step.spent]))
        elif isinstance(step, Work):
            self.handled += step.seconds
        self.now += step.seconds


@given(
    timeouts=st.builds(Timeouts, first_event=LIMITS, idle=LIMITS, total=LIMITS),
    waited=SECONDS,
    start=st.sampled_from([0.0, 1e6, -3.0]),
    steps=STEPS,
)
def test_deadline_when_anything_happens_is_the_models(
    timeouts: Timeouts, waited: float, start: float, steps: list[Step]
) -> None:
    """first_event until the first event, then idle since the last one, total over all: handlers do not count."""
    told = Told(Timers(timeouts, waited=waited), start)
    expected: list[float] = []
    for place, step in enumerate(steps):
        if isinstance(step, Wait):
            expected.append(told.now + min(room(timeouts, waited, steps[:place]).values()))
        told.tell(step)
    assert told.deadlines == expected


@given(
    timeouts=st.builds(Timeouts, first_event=LIMITS, idle=LIMITS, total=LIMITS),
    waited=SECONDS,
    steps=STEPS,
)
def test_error_when_a_wait_is_too_long_names_the_timer(timeouts: Timeouts, waited: float, steps: list[Step]) -> None:
    """The timer that was first to run out is named, with its seconds and how many events had come."""
    left = room(timeouts, waited, steps)
    name, total = next(iter(left)), left["total"]
    assume(min(left.values()) < inf and left[name] != total)
    told = Told(Timers(timeouts, waited=waited), 0.0)
    for step in steps:
        told.tell(step)
    told.timers.begin(told.now, told.events, told.handled)
    error = told.timers.error()
    first = "total" if total < left[name] else name
    assert type(error) is StreamTimeout
    assert (error.timer, error.seconds) == (first, getattr(timeouts, first))
    assert (error.retryable, error.phase, error.partial, error.run) == (True, "stream", None, None)
    what = "was waited for longer than" if first == "total" else "sent no event for"
    assert str(error) == (
        f"the source {what} {error.seconds:g} s; {told.events} events were received, the response so far is in "
        f".partial; raise Timeouts({first}=...) if it needs more"
    )


# --- the same by hand ------------------------------------------------------------------------------------------------


def test_deadline_when_all_is_off_never_comes() -> None:
    """None is no limit, for each of them."""
    timers = Timers(Timeouts(first_event=None, idle=None, total=None), waited=1e9)
    assert timers.deadline == inf
    assert timers.begin(5, 0) == inf
    timers.end(1e12)
    assert timers.begin(1e12, 7) == inf


def test_deadline_when_handlers_work_moves_with_them() -> None:
    """Between two waits no time goes by but for what was read."""
    timers = Timers(Timeouts(first_event=10, idle=10, total=30))
    assert timers.begin(100, 0) == 110
    timers.end(104)
    assert timers.begin(1000, 0, 895) == 1005  # the same wait goes on, a second of reading later
    timers.end(1002)
    assert timers.begin(2000, 1, 895 + 998) == 2010
    timers.end(2009)
    assert timers.begin(3000, 2, 895 + 998 + 990) == 3010  # the second of reading is before the event
    timers.end(3009)
    assert timers.begin(4000, 3, 895 + 998 + 990 + 991) == 4004  # of the 30, 7 + 10 + 9 are used up
    timers.end(4003)
    assert timers.begin(5000, 4, 895 + 998 + 990 + 991 + 997) == 5001


def test_deadline_when_it_has_passed_before_the_wait() -> None:
    """An item that came too late leaves less than nothing: the next wait is over before it begins."""
    timers = Timers(Timeouts(first_event=10))
    timers.begin(0, 0)
    timers.end(25)
    assert timers.begin(25, 0) == 10
    assert timers.error().timer == "first_event"


def test_deadline_when_an_event_came_too_late_is_new() -> None:
    """The event that was waited for has come: idle begins with it; total forgives nothing."""
    timers = Timers(Timeouts(first_event=10, idle=5))
    timers.begin(0, 0)
    timers.end(25)
    assert timers.begin(25, 1) == 30
    timers = Timers(Timeouts(total=20))
    timers.begin(0, 0)
    timers.end(25)
    assert timers.begin(25, 1) == 20
    assert timers.error().timer == "total"


def test_deadline_when_the_source_is_opened_anew() -> None:
    """The first event of another body has first_event again, less what its head took; total goes on."""
    timers = Timers(Timeouts(first_event=10, idle=5, total=100))
    timers.begin(0, 0)
    timers.end(1)
    assert timers.begin(1, 3) == 6
    timers.end(4)
    timers.anew(3, 2.5)
    assert timers.begin(50, 3) == 57.5
    assert timers.error().timer == "first_event"
    timers.end(51)
    assert timers.begin(51, 4) == 56
    assert timers.error().timer == "idle"
    timers.anew(4)
    assert timers.begin(60, 4) == 70
    timers.end(60)
    timers.anew(4, 9)
    assert timers.begin(60, 4) == 61


def test_deadline_when_two_timers_end_together_is_of_the_event() -> None:
    """Where both run out at the same moment, the one that says more is named."""
    timers = Timers(Timeouts(first_event=10, total=10))
    assert timers.begin(0, 0) == 10
    assert timers.error().timer == "first_event"


def test_deadline_when_the_source_was_waited_for_before() -> None:
    """What the head of an answer took counts for first_event and total, not for idle."""
    timers = Timers(Timeouts(first_event=10, idle=10, total=25), waited=4)
    assert timers.begin(0, 0) == 6
    timers.end(5)
    assert timers.begin(5, 1) == 15
    timers.end(14)
    assert timers.begin(14, 2) == 21  # 25 less 4, 5 and 9
    assert timers.error().timer == "total"


def test_total_when_the_source_is_opened_again_counts_all_of_it() -> None:
    """Pauses and tries that failed are waiting too: they count for the total, not for the next event."""
    timers = Timers(Timeouts(first_event=10, total=100), waited=5)
    timers.begin(0, 0)
    timers.end(2)
    timers.anew(0, 1, 60)
    assert timers.begin(70, 0) == 79
    timers.end(75)
    assert timers.begin(75, 1) == 75 + 100 - 5 - 2 - 60 - 5
    timers.anew(1, 3)
    assert timers.begin(80, 1) == 87
    timers.anew(1, 0, 30)
    assert timers.begin(90, 1) == 85
    assert timers.error().timer == "total"


def test_timers_when_earlier_tries_took_longer_than_the_last() -> None:
    """They count for all of it, but not for the first event."""
    timers = Timers(Timeouts(first_event=10, total=20), waited=2, spent=15)
    assert timers.begin(100.0, 0) == 105.0
    assert timers.error().timer == "total"
    assert Timers(Timeouts(first_event=10, total=20), waited=2).begin(100.0, 0) == 108.0
