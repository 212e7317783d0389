"""`Tee`: the events of a place in the pipeline, for a slow sink beside the run."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from eventflow import Event, Plugin, Run, configured, on, state
from eventflow.background import Lane
from eventflow.routing import Background, ErrorPolicy, Overflow, Selects, handler_of

__all__ = ["Tee", "tee"]


class Tee(Plugin):
    """Gives the events of its place in the pipeline to a sink, in order, from a queue and by a worker of its own.

    ::

        Dispatcher(tee(archive.append, events=("text", "lifecycle")))

    A plain sink is called in a thread of its own, a coroutine function in a task, which only async runs have. The run
    goes on meanwhile, and waits for the sink before it ends; one that is left drops what waits. Every run has its own
    queue and worker: a sink that several runs at once share sees to its own lock.

    Attributes:
        sink: Takes an event, or an event and the run. The events of a generator are emitted.
        queue: Events that may wait for it.
        overflow: What happens when so many do: ``block`` (the run waits, and so does the server), ``drop_oldest``,
            ``coalesce`` (deltas of one text are joined; for other events the run waits), ``error`` (`SlowConsumer`).
        patience: Seconds that the run waits for the sink while it is at one event; None for ever.
        events: Which events: a selector, as for `on`, or a tuple or list of them.
        errors: What a failure of the sink does: ``raise`` ends the run with it; ``isolate`` logs it, reports it as a
            `HandlerFailed` event, and the run goes on, without a sink that is stuck.

    Raises:
        UsageError: The configuration is none; when a run starts: the sink is async, and the run is not.
    """

    sink: Callable[..., object]
    queue: int = attrs.field(default=256, kw_only=True)
    overflow: Overflow = attrs.field(default="block", kw_only=True)
    patience: float | None = attrs.field(default=60.0, kw_only=True)
    events: Selects = attrs.field(default="*", kw_only=True)
    errors: ErrorPolicy = attrs.field(default="raise", kw_only=True)
    _lane: Lane | None = state(default=None)

    def __attrs_post_init__(self) -> None:
        background = Background(queue=self.queue, overflow=self.overflow, patience=self.patience)
        handler_of(self.sink, (), errors=self.errors, background=background)

    @property
    def handled(self) -> int:
        """Of a run: events that the sink is done with."""
        return 0 if self._lane is None else self._lane.handled

    @property
    def dropped(self) -> int:
        """Of a run: events that the sink did not get, for want of room or because it has failed."""
        return 0 if self._lane is None else self._lane.dropped

    def start(self, run: Run) -> None:
        """Make the run's queue; its worker begins with the first event."""
        self._lane = run.background(
            self.sink, queue=self.queue, overflow=self.overflow, patience=self.patience, errors=self.errors
        )

    @on(configured("events"))
    def _hear(self, event: Event) -> Lane | None:
        """What the lane gives, so that the run waits where there is no room."""
        return None if self._lane is None else self._lane(event)


def tee(
    sink: Callable[..., object],
    queue: int = 256,
    overflow: Overflow = "block",
    patience: float | None = 60.0,
    events: Selects = "*",
    errors: ErrorPolicy = "raise",
) -> Tee:
    """Give the events of this place in the pipeline to *sink*, beside the run: a `Tee`."""
    return Tee(sink, queue=queue, overflow=overflow, patience=patience, events=events, errors=errors)
