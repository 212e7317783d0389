"""`Accumulate`: the response as it stands at one place of the pipeline."""

from __future__ import annotations

from collections.abc import Callable

from eventflow import Event, Plugin, Response, Run, on, state
from eventflow.errors import UsageError
from eventflow.events import JSON, ToolCallItem, Usage
from eventflow.snapshot import FOLDED, Snapshot

__all__ = ["Accumulate"]

_BATCH = 256  # events folded at once: one call for many, and little memory under way


class Accumulate(Plugin):
    """The response so far, as this place of the pipeline sees it: with what transforms before it changed.

    ::

        flow = Dispatcher(Redact(), Accumulate())
        run = flow.run(source)
        run[Accumulate].text  # redacted; run.text is what was received

    It may be read at any time of a run, by handlers and plugins behind it too, and after the run. Events are folded
    when it is read, or 256 at a time. Read the run's own instance, ``run[Accumulate]``; the one given to the dispatcher
    is a template, and reading that is a `UsageError`.

    Attributes:
        on_change: Called with this object after each event that may have changed the response. What it returns is
            treated as a handler's result: in an async run it may be awaitable.
    """

    on_change: Callable[[Accumulate], object] | None = None
    _snapshot: Snapshot = state(factory=Snapshot)
    _pending: list[Event] = state(factory=list[Event])
    _running: bool = state(default=False)

    def __attrs_post_init__(self) -> None:
        if self.on_change is not None and not callable(self.on_change):
            raise UsageError(f"Accumulate(on_change=...) takes a function of the Accumulate, not {self.on_change!r}")

    def __repr__(self) -> str:
        given = "" if self.on_change is None else f"on_change={self.on_change!r}"
        return f"Accumulate({given})"

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def response(self) -> Response:
        """The response so far."""
        return self._folded().response

    @property
    def text(self) -> str:
        """The text so far."""
        return self._folded().text

    @property
    def reasoning(self) -> str:
        """The reasoning so far; of an item that shows none, its summary."""
        return self.response.reasoning_text

    @property
    def refusal(self) -> str:
        """The words of refusal so far."""
        return self.response.refusal

    @property
    def tool_calls(self) -> tuple[ToolCallItem, ...]:
        """The calls so far, in order; the arguments of the last may be a part only."""
        return self.response.tool_calls

    @property
    def usage(self) -> Usage | None:
        """The tokens, once the server has counted them."""
        return self.response.usage

    @property
    def status(self) -> str | None:
        """The response's own status: ``in_progress``, ``completed``, ...; None before its first event."""
        return self.response.status

    def partial_arguments(self, call_id: str) -> JSON:
        """The arguments of a call so far, as the JSON value that is certain of them by now.

        A custom tool's free text is given as text. Nothing is parsed before the first call of this method; from then
        on every character is parsed once as it comes, and once more when the whole is there, which replaces pieces that
        differ. Arguments that are no JSON give what was certain before the fault.

        Args:
            call_id: The ``call_id`` of the call, or the ``id`` of its item.

        Returns:
            The value (see `eventflow.partial_json` for what is certain), None while nothing of it is known and for a
            call that has not come. Arrays and objects are not copied: they grow in place and must not be changed.
        """
        return self._folded().value(call_id)

    def _folded(self) -> Snapshot:
        if not self._running:
            raise UsageError("this Accumulate is a dispatcher's template and hears nothing; read run[Accumulate]")
        if self._pending:
            self._snapshot.add(self._pending)
            self._pending.clear()
        return self._snapshot

    # --- hearing -----------------------------------------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """From now on there is something to read."""
        self._running = True

    def stop(self, run: Run) -> None:
        """What was under way when the stream ended is incomplete."""
        self._folded().close()

    @on(*FOLDED)
    def _hear(self, event: Event) -> object:
        self._pending.append(event)
        if len(self._pending) >= _BATCH:
            self._folded()
        return None if self.on_change is None else self.on_change(self)
