"""One call of a tool on its way: approved, run in a thread or a task, and settled once, whoever comes first."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import re
import threading
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, Literal, TypeAlias, cast

import attrs

from eventflow import Run, ToolCall, ToolOutput, ToolProgress
from eventflow.background import Job, await_thread
from eventflow.errors import ToolError, UsageError, excerpt
from eventflow.events import encode_json
from eventflow.routing import is_async, name_of
from eventflow_plugins.tools.definition import Tool, ToolContext

__all__ = ["Approve", "Call", "Outcome", "PendingCall", "Slots"]

Outcome: TypeAlias = Literal["ok", "error", "timeout", "denied", "unknown", "invalid", "cancelled"]

_log: Final = logging.getLogger("eventflow.tools")
_MESSAGE: Final = 500  # characters of an exception's message that the model is told
_ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[@-_])"
)


@attrs.frozen
class PendingCall:
    """A call that waits for approval: exactly what will run.

    Attributes:
        name: The tool.
        arguments: What the function will be called with, by name.
        call_id: The id of the call.
        text: What the model wrote.
        dangerous: Whether the tool is.
        run: The run that the call belongs to.
    """

    name: str
    arguments: dict[str, Any]
    call_id: str
    text: str
    dangerous: bool
    run: Run = attrs.field(repr=False)


Approve: TypeAlias = Callable[[PendingCall], Any]
"""Gives, or in an async function awaits, True to allow a call; anything else denies it. May take its time."""


class Slots:
    """How many calls may run at once, in all the runs and dispatchers that share it. Safe from any thread.

    Args:
        count: So many.
    """

    def __init__(self, count: int) -> None:
        if type(count) is not int or count < 1:
            raise ToolError(f"concurrency is a number of calls, at least 1, not {count!r}")
        self.count = count
        self._free = count
        self._lock = threading.Lock()
        self._waiting: dict[Callable[[], None], None] = {}

    def __repr__(self) -> str:
        return f"Slots({self.count})"

    def take(self, wake: Callable[[], None]) -> bool:
        """Take a slot, if one is free; else *wake* is called when one is."""
        with self._lock:
            if self._free:
                self._free -= 1
                self._waiting.pop(wake, None)
                return True
            self._waiting[wake] = None
            return False

    def give(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._free += 1
            waiting, self._waiting = self._waiting, {}
        for wake in waiting:  # all of them: one that was told alone may not want it any more
            wake()

    def forget(self, wake: Callable[[], None]) -> None:
        """Nobody waits there any more."""
        with self._lock:
            self._waiting.pop(wake, None)


class Call:
    """A call of a tool.

    The run's thread or task makes, starts and expires it; the worker runs it. Whoever settles it first decides.

    Attributes:
        event: The call as it came.
        call_id: What its output names.
        outcome: How it ended, None before.
        output: What goes back to the model.
        timeout: Seconds that it may take, or None.
        deadline: When it has taken too long, by the run's clock; None while it has not begun.
        job: The worker, None before.
        is_task: Whether that is a task, which can be cancelled.
        tool: What it calls, once that is known.
        arguments: With what.
    """

    def __init__(self, event: ToolCall, call_id: str, run: Run, limit: int) -> None:
        self.event = event
        self.call_id = call_id
        self.outcome: Outcome | None = None
        self.output = ""
        self.timeout: float | None = None
        self.deadline: float | None = None
        self.job: Job | None = None
        self.is_task = False
        self.tool: Tool | None = None
        self.arguments: dict[str, Any] = {}
        self._run = run
        self._limit = limit
        self._lock = threading.Lock()
        self._began: float | None = None
        self._context: ToolContext | None = None
        self._slots: Slots | None = None
        self._progress: ToolProgress | None = None
        self._reporting = False
        self._digest = hashlib.sha256(event.arguments.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self.tell("requested")

    @property
    def started(self) -> bool:
        """Whether a worker has it, or had it."""
        return self.job is not None

    @property
    def running(self) -> bool:
        """Whether a worker has it."""
        return self.job is not None and self.outcome is None

    def tell(self, step: str, **more: object) -> None:
        """Note a step for those who audit: what, for which call; of the arguments a hash."""
        words = "".join(f" {name}={value}" for name, value in more.items())
        name, call_id = excerpt(self.event.name, 100), excerpt(self.call_id, 100)
        _log.info("%s tool %s call=%s arguments=sha256:%s %s%s", self._run.id, name, call_id, self._digest, step, words)

    # --- settling: from any thread -----------------------------------------------------------------------------------

    def settle(self, outcome: Outcome, output: str, *, quietly: bool = False) -> bool:
        """End the call, unless it has ended; returns whether this did it. *quietly* dispatches no `ToolOutput`."""
        with self._lock:
            if self.outcome is not None:
                return False
            self.output = _limited(output, self._limit)
            self.outcome = outcome
            slots, self._slots = self._slots, None
        if slots is not None:
            slots.give()
        duration = None if self._began is None else self._run.now() - self._began
        self.tell("ended", outcome=outcome, duration=None if duration is None else round(duration, 3))
        if not quietly:
            self._emit(ToolOutput(self.call_id, self.output, self.event.name, outcome, duration))
        return True

    def failed(self, error: BaseException) -> None:
        """The tool raised: the model is told the type and a short message, and the log everything."""
        _log.debug("tool %s failed in run %s", excerpt(self.event.name, 100), self._run.id, exc_info=error)
        message = str(error)[:_MESSAGE]
        self.settle("error", f"{type(error).__name__}: {message}" if message else type(error).__name__)

    def _emit(self, event: ToolOutput | ToolProgress) -> None:
        try:
            self._run.emit(event)
        except UsageError:
            _log.debug("run %s ended before %s was told", self._run.id, event.type)

    def report(self, progress: object) -> None:
        """Dispatch progress. What comes faster than the run can tell is left out, but for the newest."""
        event = ToolProgress(self.call_id, progress, self.event.name)
        with self._lock:
            if self.outcome is not None:
                return
            if self._reporting:
                self._progress = event
                return
            self._reporting = True
        self._emit(event)

    def reported(self) -> None:
        """The run has told of the progress."""
        with self._lock:
            event, self._progress = self._progress, None
            self._reporting = event is not None and self.outcome is None
        if event is not None and self.outcome is None:
            self._emit(event)

    # --- the worker --------------------------------------------------------------------------------------------------

    def bind(self, context: object, timeout: float | None, slots: Slots) -> None:
        """It is about to begin, and has one of the *slots*."""
        assert self.tool is not None
        self._context = ToolContext(self.call_id, self.tool.name, self._key(), context, self.report)
        self.timeout = self.tool.timeout or timeout
        self._slots = slots

    def work(self, approve: Approve | None) -> None:
        """Run it in a thread of its own: approval and tool are plain functions."""
        try:
            if approve is None or self._allowed(_verdict(approve, self._pending())):
                self._begin()
                self._give(self._run_here())
        except (Exception, SystemExit) as error:
            self.failed(error)

    async def awork(self, approve: Approve | None) -> None:
        """Run it in a task of its own; what is a plain function, in a thread."""
        assert self.tool is not None
        try:
            if approve is not None:
                if is_async(approve):
                    verdict = await _averdict(approve, self._pending())
                else:
                    ask = functools.partial(_verdict, approve, self._pending())
                    verdict = await await_thread(ask, name=f"eventflow-approve {self.tool.name}")
                if not self._allowed(verdict):
                    return
            self._begin()
            if self.tool.is_async:
                self._give(await self._afollow(self._invoke()))
            else:
                self._give(await await_thread(self._run_here, name=f"eventflow-tool {self.tool.name}"))
        except (Exception, SystemExit) as error:
            self.failed(error)
        except BaseException:  # cancelled: by the run, which has settled it, or by the tool itself
            self.settle("error", "it was cancelled")
            raise

    def _pending(self) -> PendingCall:
        assert self.tool is not None
        text, dangerous = self.event.arguments, self.tool.dangerous
        return PendingCall(self.tool.name, self.arguments, self.call_id, text, dangerous, self._run)

    def _allowed(self, verdict: bool) -> bool:
        self.tell("approved" if verdict else "denied")
        if not verdict:
            self.settle("denied", "the call was not approved")
        return verdict

    def _begin(self) -> None:
        """From now on its time counts."""
        self._began = self._run.now()
        if self.timeout is not None:
            self.deadline = self._began + self.timeout
        self.tell("started")
        self._run.wake()  # which waits until the deadline

    def _invoke(self) -> Any:
        assert self.tool is not None
        assert self._context is not None
        if self.outcome is not None:  # settled while it was approved: the run is over
            raise ToolError("the run has ended")
        return self.tool.call(self.arguments, self._context)

    def _run_here(self) -> object:
        """The output of a plain function: of a generator what it returns, else the last that it yielded."""
        result = self._invoke()
        if inspect.isawaitable(result):
            close = getattr(result, "close", None)
            if close is not None:
                close()
            raise ToolError("the function gave an awaitable; make it an async function")
        if not isinstance(result, types.GeneratorType):
            return result
        generator = cast("Generator[object, None, object]", result)
        last: object = None
        while self.outcome is None:
            try:
                last = next(generator)
            except StopIteration as end:
                return last if end.value is None else end.value
            self.report(last)
        generator.close()
        return last

    async def _afollow(self, result: Any) -> object:
        if not isinstance(result, types.AsyncGeneratorType):
            return await result
        last: object = None
        async for last in cast("AsyncGenerator[object]", result):
            self.report(last)
        return last

    def _give(self, output: object) -> None:
        self.settle("ok", _text_of(output))

    def _key(self) -> str:
        response = self._run.response.id
        return hashlib.sha256(repr((response, self.call_id, self.event.name, self._digest)).encode()).hexdigest()[:32]


def _verdict(approve: Approve, pending: PendingCall) -> bool:
    """Whether a call is allowed; what fails, denies."""
    try:
        return approve(pending) is True
    except Exception:
        _log.exception("%s failed; the call of %s is denied", name_of(approve), pending.name)
        return False


async def _averdict(approve: Approve, pending: PendingCall) -> bool:
    try:
        return (await approve(pending)) is True
    except Exception:
        _log.exception("%s failed; the call of %s is denied", name_of(approve), pending.name)
        return False


# --- outputs ---------------------------------------------------------------------------------------------------------


def _text_of(output: object) -> str:
    """An output as the model reads it: text as it is, but for what drives terminals; everything else as JSON."""
    if isinstance(output, str):
        return _ESCAPES.sub("", output)
    if hasattr(output, "model_dump"):  # of pydantic
        output = cast("Any", output).model_dump(mode="json")
    return encode_json(output).decode()


def _limited(text: str, most: int) -> str:
    """*text* in at most *most* bytes of UTF-8: its head and its tail."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return text
    marker = f"\n[... {len(data) - most} bytes left out ...]\n"
    kept = max(0, most - len(marker))
    head, tail = data[: kept - kept // 2], data[len(data) - kept // 2 :]
    return head.decode("utf-8", "ignore") + marker + tail.decode("utf-8", "ignore")
