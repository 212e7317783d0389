"""`Usage`: the tokens of a run and the pace of its events; and the same over all runs."""

from __future__ import annotations

import operator
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import attrs

from eventflow import Event, Plugin, Run, on, state
from eventflow.errors import UsageError
from eventflow.events import (
    AudioDelta,
    AudioTranscriptDelta,
    CodeInterpreterCallCodeDelta,
    CustomToolCallInputDelta,
    FunctionCallArgumentsDelta,
    LifecycleEvent,
    McpCallArgumentsDelta,
    ReasoningSummaryTextDelta,
    ReasoningTextDelta,
    RefusalDelta,
    Response,
    ShellCallCommandDelta,
    TextDelta,
)
from eventflow.events import Usage as Counted
from eventflow_plugins.spread import FEW, Histogram, Spread

__all__ = ["Spread", "Tokens", "Totals", "Usage"]

_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))

# What the model gives, piece by piece.
_DELTAS: Final[dict[type[Event], str]] = {
    TextDelta: "text",
    RefusalDelta: "text",
    AudioTranscriptDelta: "text",
    ReasoningTextDelta: "reasoning",
    ReasoningSummaryTextDelta: "reasoning",
    AudioDelta: "other",
    CodeInterpreterCallCodeDelta: "other",
    CustomToolCallInputDelta: "other",
    FunctionCallArgumentsDelta: "other",
    McpCallArgumentsDelta: "other",
    ShellCallCommandDelta: "other",
}


@attrs.frozen
class Tokens:
    """Tokens as the server counted them; None is what it did not say.

    Attributes:
        input: Of the request.
        cached: Those of them that came from a cache.
        output: Of the answer.
        reasoning: Those of them that the model thought.
        total: As the server adds them up.
    """

    input: int | None = None
    cached: int | None = None
    output: int | None = None
    reasoning: int | None = None
    total: int | None = None

    def __str__(self) -> str:
        parts = [
            f"{value:,} {name}"
            for name, value in attrs.asdict(self).items()
            if value is not None and name in ("input", "output", "total")
        ]
        details = {"input": ("cached", self.cached), "output": ("reasoning", self.reasoning)}
        shown = [
            f"{part} ({about[1]:,} {about[0]})" if (about := details.get(part.split()[1])) and about[1] else part
            for part in parts
        ]
        return "tokens: " + (", ".join(shown) or "not told")


class Totals:
    """What runs come to together. Any number of runs in any threads add to it; it may be read at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: Counter[str] = Counter()
        self._tokens = Tokens()
        self._deltas = 0
        self._duration = 0.0
        self._timed = (0, 0.0)  # tokens, and the seconds that they took
        self._spreads = {name: Histogram() for name in ("gaps", "event", "text", "reasoning")}

    def __repr__(self) -> str:
        return f"<Totals: {self.summary()}>"

    def __str__(self) -> str:
        return self.summary()

    @property
    def runs(self) -> int:
        """How many runs have ended."""
        return sum(self.statuses.values())

    @property
    def statuses(self) -> dict[str, int]:
        """How many of them ended how: ``{"completed": 9, "truncated": 1}``."""
        with self._lock:
            return dict(self._statuses)

    @property
    def tokens(self) -> Tokens:
        """The tokens of the runs whose servers told them."""
        return self._tokens

    @property
    def deltas(self) -> int:
        """How many deltas came."""
        return self._deltas

    @property
    def duration(self) -> float:
        """How long all runs took, in seconds; runs at the same time count each."""
        return self._duration

    @property
    def tokens_per_second(self) -> float | None:
        """The speed of the answers that told both their tokens and their time."""
        tokens, seconds = self._timed
        return tokens / seconds if seconds else None

    @property
    def gaps(self) -> Spread:
        """Seconds between one delta and the next of the same run."""
        return self._spread("gaps")

    @property
    def first_event(self) -> Spread:
        """Seconds to the first event."""
        return self._spread("event")

    @property
    def first_text(self) -> Spread:
        """Seconds to the first text."""
        return self._spread("text")

    @property
    def first_reasoning(self) -> Spread:
        """Seconds to the first reasoning."""
        return self._spread("reasoning")

    def summary(self) -> str:
        """All of it in a line for people."""
        statuses = self.statuses
        how = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items()))
        first = self.first_text.p50
        pace = _pace(self.deltas, self.tokens_per_second, self.gaps)
        runs = f"{sum(statuses.values()):,} runs" + (f" ({how})" if how else "")
        return "; ".join(
            [runs, str(self.tokens), *([f"first text p50 {_seconds(first)}"] if first is not None else []), pace]
        )

    def _spread(self, name: str) -> Spread:
        with self._lock:
            values = self._spreads[name].copy()
        return values.spread()

    def _add(self, usage: Usage, status: str, gaps: Histogram) -> None:
        """A run is over."""
        tokens, span = usage.tokens, usage.span
        with self._lock:
            self._statuses[status] += 1
            self._tokens = _sum(self._tokens, tokens)
            self._deltas += usage.deltas
            self._duration += usage.duration or 0.0
            if tokens.output and span:
                self._timed = self._timed[0] + tokens.output, self._timed[1] + span
            self._spreads["gaps"].merge(gaps)
            firsts = {"event": usage.first_event, "text": usage.first_text, "reasoning": usage.first_reasoning}
            for name, seconds in firsts.items():
                if seconds is not None:
                    self._spreads[name].add([seconds])


class Usage(Plugin):
    """Counts tokens and measures time: of each run, and in `totals` of all.

    ::

        usage = Usage()
        flow = Dispatcher(usage)
        run = flow.run(source)
        print(run[Usage].tokens.output, run[Usage].first_text, run[Usage])
        print(usage.totals.tokens, usage.totals.statuses)

    Times are in seconds. What is not known is None: tokens that the server did not tell, for instance because the
    stream was cut; the speed of an answer of one delta. It measures at its place in the pipeline: what a plugin before
    it holds back comes late here. Whatever the number of deltas, it takes a bounded amount of memory.

    Attributes:
        clock: Seconds from whatever start; not going back.
        began: When the request was sent, by that clock; None: when the run began.
        totals: What all runs of this plugin come to, those of other threads included.
    """

    clock: Callable[[], float] = attrs.field(default=time.perf_counter, kw_only=True)
    began: float | None = attrs.field(default=None, kw_only=True)
    totals: Totals = attrs.field(factory=Totals, kw_only=True)
    _begun: float | None = state(default=None)
    _ended: float | None = state(default=None)
    _status: str = state(default="running")
    _tokens: Tokens = state(factory=Tokens)
    _firsts: dict[str, float] = state(factory=dict[str, float])
    _familiar: set[type[Event]] = state(factory=set[type[Event]])  # delta classes whose first one has come
    _times: list[float] = state(factory=list[float])  # of deltas; the last one counted, and those after it
    _counted: int = state(default=0)
    _gaps: Histogram = state(factory=Histogram)

    def __attrs_post_init__(self) -> None:
        if not callable(self.clock):
            raise UsageError(f"Usage(clock=...) takes a function that gives seconds, not {self.clock!r}")
        if not isinstance(self.totals, Totals):
            raise UsageError(f"Usage(totals=...) takes a Totals, not {self.totals!r}")

    def __repr__(self) -> str:
        return f"<Usage: {self.summary()}>"

    def __str__(self) -> str:
        return self.summary()

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> Tokens:
        """The tokens, once the server has told them."""
        return self._tokens

    @property
    def duration(self) -> float | None:
        """Seconds that the run has taken, until now or its end; None before it began."""
        if self._begun is None:
            return None
        return (self.clock() if self._ended is None else self._ended) - self._begun

    @property
    def first_event(self) -> float | None:
        """Seconds to the first event of any kind."""
        return self._firsts.get("event")

    @property
    def first_text(self) -> float | None:
        """Seconds to the first text, be it of a refusal or spoken."""
        return self._firsts.get("text")

    @property
    def first_reasoning(self) -> float | None:
        """Seconds to the first reasoning, or summary of it."""
        return self._firsts.get("reasoning")

    @property
    def deltas(self) -> int:
        """How many deltas have come: of text, reasoning, arguments, code, speech."""
        return self._counted + len(self._times)

    @property
    def span(self) -> float | None:
        """Seconds from the first delta to the last; None before the second."""
        first = self._firsts.get("delta")
        return self._times[-1] - first if first is not None and self.deltas > 1 else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of the answer, a second from the first delta to the last."""
        return self.tokens.output / self.span if self.tokens.output and self.span else None

    @property
    def gaps(self) -> Spread:
        """Seconds between one delta and the next.

        Percentiles are exact up to 4,096 gaps; beyond, they are within 1 %, and gaps under a microsecond count as 0.
        """
        return self._all_gaps().spread()

    def summary(self) -> str:
        """All of it in a line for people."""
        duration = self.duration
        parts = [self._status if duration is None else f"{self._status} in {_seconds(duration)}", str(self.tokens)]
        for name, seconds in (
            ("event", self.first_event),
            ("reasoning", self.first_reasoning),
            ("text", self.first_text),
        ):
            if seconds is not None:
                parts.append(f"first {name} {_seconds(seconds)}")
        return "; ".join([*parts, _pace(self.deltas, self.tokens_per_second, self.gaps)])

    # --- hearing -----------------------------------------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """The time begins."""
        self._begun = self.clock() if self.began is None else self.began

    def stop(self, run: Run) -> None:
        """The time ends; the totals learn of it."""
        self._ended = self.clock()
        self._status = run.status
        self.totals._add(self, run.status, self._all_gaps())

    @on("*")
    def _hear(self, event: Event) -> None:
        if type(event) in self._familiar:
            times = self._times
            times.append(self.clock())
            if len(times) > FEW:
                self._count()
        else:
            self._hear_other(event)

    def _hear_other(self, event: Event) -> None:
        """An event that is no delta, or the first delta of its class that says something."""
        now = self.clock()
        since = now - (self._begun or 0.0)
        self._firsts.setdefault("event", since)
        kind = _DELTAS.get(type(event))
        if kind is not None:
            self._times.append(now)
            self._firsts.setdefault("delta", now)
            if getattr(event, "delta"):  # noqa: B009  # of every class in the table; some servers begin with an empty one
                self._firsts.setdefault(kind, since)
                self._familiar.add(type(event))
            if len(self._times) > FEW:
                self._count()
        elif isinstance(event, LifecycleEvent):
            response: Response = getattr(event, "response")  # noqa: B009  # a field of every subclass
            if response.usage is not None:
                self._tokens = _tokens(response.usage)

    def _count(self) -> None:
        """Turn the times that have come into gaps, but for the last."""
        self._gaps.add(_differences(self._times))
        self._counted += len(self._times) - 1
        del self._times[:-1]

    def _all_gaps(self) -> Histogram:
        gaps = self._gaps.copy()
        gaps.add(_differences(self._times))
        return gaps


def _differences(times: list[float]) -> list[float]:
    return list(map(operator.sub, times[1:], times))


def _tokens(usage: Counted) -> Tokens:
    given, made = usage.input_tokens_details, usage.output_tokens_details
    return Tokens(
        usage.input_tokens,
        None if given is None else given.cached_tokens,
        usage.output_tokens,
        None if made is None else made.reasoning_tokens,
        usage.total_tokens,
    )


def _sum(one: Tokens, other: Tokens) -> Tokens:
    pairs = zip(attrs.astuple(one), attrs.astuple(other), strict=True)
    return Tokens(*(mine if yours is None else (mine or 0) + yours for mine, yours in pairs))


def _seconds(value: float) -> str:
    scale, unit = next(((scale, unit) for scale, unit in _UNITS if value >= scale), _UNITS[-1])
    return f"{value / scale:.3g} {unit}"


def _pace(deltas: int, speed: float | None, gaps: Spread) -> str:
    said = [f"{deltas:,} deltas"]
    if speed is not None:
        said.append(f"{speed:.3g} tokens/s")
    if gaps.p50 is not None and gaps.p99 is not None and gaps.max is not None:
        said.append(f"gaps p50 {_seconds(gaps.p50)}, p99 {_seconds(gaps.p99)}, max {_seconds(gaps.max)}")
    return ", ".join(said)
