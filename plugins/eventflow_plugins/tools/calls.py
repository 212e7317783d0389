"""One call of a tool on its way: approved, run in a thread or a task, and settled once, whoever comes first."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import inspect
import json
import logging
import re
import threading
import types
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, Literal, TypeAlias, cast

import attrs
import msgspec

from eventflow import Run, ToolCall, ToolOutput, ToolProgress
from eventflow.errors import ToolError, UsageError
from eventflow.events import encode_json
from eventflow.forks import PerProcess
from eventflow.jobs import Job, await_thread
from eventflow.limits import is_count
from eventflow.logs import logger
from eventflow.routing import is_async, name_of
from eventflow.waiting import discard, is_cancellation
from eventflow_plugins.tools.definition import Tool, ToolContext

__all__ = ["Approve", "Call", "Outcome", "PendingCall", "Slots"]

Outcome: TypeAlias = Literal["ok", "error", "timeout", "denied", "unknown", "invalid", "cancelled"]

_log: Final = logger("eventflow.tools")
_WAITING: Final = 64  # reports of progress that the run has still to tell
_MESSAGE: Final = 500  # characters of an exception's message that the model is told
_SHOWN: Final = 100  # characters of a name or id in a log line
_MARKER: Final = 64  # bytes kept for what stands in the place of what is left out
# What drives terminals: sequences that are whole, then every control character that is left but tab and line ends.
_ESCAPES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)


@attrs.frozen
class PendingCall:
    """A call that waits for approval: exactly what will run.

    Attributes:
        name: The tool.
        arguments: What the function will be called with, by name: a copy, so that what is done to it changes nothing.
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

    A forked process has all of them free.

    Args:
        count: So many.
    """

    def __init__(self, count: int) -> None:
        if not is_count(count):
            raise ToolError(f"concurrency is a number of calls, at least 1, not {count!r}")
        self.count = count
        self._state = PerProcess(_Taken)

    def __repr__(self) -> str:
        return f"Slots({self.count})"

    def take(self, holder: object, wake: Callable[[], None]) -> bool:
        """Take a slot for *holder*, if one is free; else *wake* is called when one is, or is left: ask again sometimes.

        It is known who has them, so that an interrupt right after this loses none: `give` is for who may have one.
        """
        state = self._state.here()
        with state.lock:
            if len(state.holders) < self.count:
                state.holders.add(holder)
                state.waiting.pop(wake, None)
                return True
            state.waiting[wake] = None
            return False

    def give(self, holder: object) -> None:
        """Give back the slot of *holder*, if any, and wake who waits longest: to wake all takes long if many wait."""
        state = self._state.here()
        with state.lock:
            if holder not in state.holders:
                return
            state.holders.remove(holder)
            wake = next(iter(state.waiting), None)
            if wake is not None:
                del state.waiting[wake]
        if wake is not None:
            wake()

    def forget(self, wake: Callable[[], None]) -> None:
        """Nobody waits there any more."""
        state = self._state.here()
        with state.lock:
            state.waiting.pop(wake, None)


class _Taken:
    """Who has slots in a process and who waits, longest first. Only who has the lock may touch it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders: set[object] = set()
        self.waiting: dict[Callable[[], None], None] = {}


class Call:
    """A call of a tool.

    The run's thread or task makes, starts and expires it; the worker runs it. Whoever settles it first decides, and
    gives its slot back.

    Attributes:
        event: The call as it came.
        call_id: What its output names.
        outcome: How it ended, None before.
        output: What goes back to the model.
        duration: How long it ran, in seconds; None where it did not.
        over: Whether it has ended and its `ToolOutput` was handed to the run.
        timeout: Seconds that it may take, or None.
        deadline: When it has taken too long, by the run's clock; None before a worker has it, and while it waits for
            approval.
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
        self.duration: float | None = None
        self.over = False
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
        self._progress: deque[ToolProgress] = deque(maxlen=_WAITING)  # oldest first
        self._reporting = False
        self._digest = hashlib.sha256(event.arguments.encode("utf-8", "surrogatepass")).hexdigest()
        self.tell("requested")

    @property
    def started(self) -> bool:
        """Whether a worker has it, or had it."""
        return self.job is not None

    @property
    def running(self) -> bool:
        """Whether a worker has it."""
        return self.job is not None and self.outcome is None

    @property
    def begun(self) -> bool:
        """Whether the worker has come to it, and it was approved."""
        return self._began is not None

    def is_like(self, other: Call) -> bool:
        """Whether the model would ask for the same thing by both."""
        mine, its = self.event, other.event
        return (mine.kind, mine.name, mine.arguments) == (its.kind, its.name, its.arguments)

    def tell(self, step: str, level: int = logging.INFO, **more: object) -> None:
        """Note a step for those who audit: what, for which call; of the arguments a hash."""
        words = "".join(f" {name}={value}" for name, value in more.items())
        name, call_id = _quoted(self.event.name), _quoted(self.call_id)
        said = "%s %s%s tool=%s call=%s arguments=sha256:%s"
        _log.log(level, said, self._run.id, step, words, name, call_id, self._digest)

    # --- settling: from any thread -----------------------------------------------------------------------------------

    def settle(self, outcome: Outcome, output: str, *, quietly: bool = False) -> bool:
        """End the call, unless it has ended; returns whether this did it. *quietly* dispatches no `ToolOutput`."""
        limited = _limited(_ESCAPES.sub("", output), self._limit)
        with self._lock:
            if self.outcome is not None:
                return False
            self.output, self.outcome = limited, outcome
            if self._began is not None:
                self.duration = self._run.now() - self._began
            slots, self._slots = self._slots, None
            progress, self._progress = [*self._progress], deque[ToolProgress]()
        try:
            if slots is not None:
                slots.give(self)
            self.tell("ended", outcome=outcome, duration=None if self.duration is None else round(self.duration, 3))
        finally:  # whatever the log does
            if not quietly:
                for event in progress:
                    self._emit(event)
                self._emit(self.told())
            self.over = True
        return True

    def told(self) -> ToolOutput:
        """Its end as an event."""
        return ToolOutput(self.call_id, self.output, self.event.name, str(self.outcome), self.duration)

    def failed(self, error: BaseException) -> None:
        """The tool raised: the model is told the type and a short message, and the log everything."""
        _log.debug("tool %s failed in run %s", _quoted(self.event.name), self._run.id, exc_info=error)
        try:
            message = str(error)[:_MESSAGE]
        except Exception as unspeakable:  # an exception of the tool's own, which cannot say what it is
            message = f"its message cannot be read ({type(unspeakable).__name__})"
        self.settle("error", f"{type(error).__name__}: {message}" if message else type(error).__name__)

    def _emit(self, event: ToolOutput | ToolProgress) -> None:
        try:
            self._run.emit(event)
        except UsageError:
            _log.debug("run %s ended before %s was told", self._run.id, event.type)

    def report(self, progress: object) -> None:
        """Dispatch progress: one at a time, and as many wait as there is room for; the oldest makes room."""
        event = ToolProgress(self.call_id, progress, self.event.name)
        with self._lock:
            if self.outcome is not None:
                return
            if self._reporting:
                self._progress.append(event)
            else:
                self._reporting = True
                self._emit(event)

    def reported(self) -> None:
        """The run has told of some progress."""
        with self._lock:
            self._reporting = bool(self._progress)
            if self._progress:
                self._emit(self._progress.popleft())

    # --- the worker --------------------------------------------------------------------------------------------------

    def bind(self, context: object, timeout: float | None, slots: Slots) -> None:
        """It is about to begin, and has one of the *slots*."""
        assert self.tool is not None
        self._slots = slots
        self._context = ToolContext(self.call_id, self.tool.name, self._key(), context, self.report)
        self.timeout = self.tool.timeout or timeout
        if self.timeout is not None:  # until it begins: an event loop that is blocked never comes to it
            self.deadline = self._run.now() + self.timeout

    def work(self, approve: Approve | None) -> None:
        """Run it in a thread of its own: approval and tool are plain functions."""
        try:
            if (approve is None or self._allowed(self._verdict(approve))) and self._begin():
                result = self._run_here()
                if result is not None:
                    discard(result)
                    raise ToolError("the function gave an awaitable; make it an async function")
        except BaseException as error:  # whatever it is: nobody else hears of it here
            self.failed(error)

    async def awork(self, approve: Approve | None) -> None:
        """Run it in a task of its own; what is a plain function, in a thread."""
        assert self.tool is not None
        thread = f"eventflow-tool {self.tool.name}"
        try:
            if approve is not None:
                if is_async(approve):
                    verdict = await self._averdict(approve)
                else:
                    verdict = await await_thread(functools.partial(self._verdict, approve), name=thread)
                if not self._allowed(verdict):
                    return
            if not self._begin():
                return
            if is_async(self.tool.function):
                result: Any = self._invoke()
            else:  # also a plain wrapper of an async function
                result = await await_thread(self._run_here, name=thread)
            if result is not None:
                self._give(await self._afollow(result))
        except BaseException as error:
            if _passes(error):
                self.settle("error", "it was cancelled")  # by itself: where the run does that, it has settled it
                raise
            self.failed(error)

    def _pending(self) -> PendingCall:
        """What is asked about; from now on its time does not count until there is an answer."""
        assert self.tool is not None
        self.deadline = None
        arguments, text = copy.deepcopy(self.arguments), self.event.arguments
        return PendingCall(self.tool.name, arguments, self.call_id, text, self.tool.dangerous, self._run)

    def _verdict(self, approve: Approve) -> bool:
        """Whether it is allowed, by a plain function in a thread; what fails, denies."""
        try:
            verdict = approve(self._pending())
            if inspect.isawaitable(verdict):
                discard(verdict)
                raise ToolError("it gave an awaitable; make it an async function")
        except BaseException as error:
            self._unsure(approve, error)
            return False
        return verdict is True

    async def _averdict(self, approve: Approve) -> bool:
        try:
            return (await approve(self._pending())) is True
        except BaseException as error:
            if _passes(error):
                raise
            self._unsure(approve, error)
            return False

    def _unsure(self, approve: Approve, error: BaseException) -> None:
        _log.error("%s failed; the call of %s is denied", name_of(approve), _quoted(self.event.name), exc_info=error)

    def _allowed(self, verdict: bool) -> bool:
        if self.outcome is not None:  # the answer comes too late
            return False
        self.tell("approved" if verdict else "denied")
        if not verdict:
            self.settle("denied", "the call was not approved")
        return verdict

    def _begin(self) -> bool:
        """From now on its time counts; False where it was settled before."""
        with self._lock:
            if self.outcome is not None:
                return False
            self._began = self._run.now()
            if self.timeout is not None:
                self.deadline = self._began + self.timeout
        self.tell("started")
        self._run.wake()  # which waits until the deadline
        return True

    def _invoke(self) -> Any:
        assert self.tool is not None
        assert self._context is not None
        return self.tool.call(self.arguments, self._context)

    def _run_here(self) -> Any:
        """Run a plain function to its end, in a thread. What must be awaited is given back, anything else is None."""
        try:
            result = self._invoke()
            if inspect.isawaitable(result) or isinstance(result, types.AsyncGeneratorType):
                return result  # pyright: ignore[reportUnknownVariableType]
            if isinstance(result, types.GeneratorType):
                result = self._follow(cast("Generator[object, None, object]", result))
            self._give(result)
        except BaseException as error:  # whatever it is: in a thread it is no cancellation
            self.failed(error)
        return None

    def _follow(self, generator: Generator[object, None, object]) -> object:
        """What a generator returns, else the last that it yielded."""
        last: object = None
        while self.outcome is None:
            try:
                last = next(generator)
            except StopIteration as end:
                return last if end.value is None else end.value
            self.report(last)
        generator.close()
        return None

    async def _afollow(self, result: Any) -> object:
        if not isinstance(result, types.AsyncGeneratorType):
            return await result
        last: object = None
        async with contextlib.aclosing(cast("AsyncGenerator[object]", result)) as generator:
            async for last in generator:
                self.report(last)
        return last

    def _give(self, output: object) -> None:
        self.settle("ok", _text_of(output))

    def _key(self) -> str:
        where = self._run.response.id or self._run.id  # some servers give responses no id
        return hashlib.sha256(repr((where, self.call_id, self.event.name, self._digest)).encode()).hexdigest()[:32]


def _passes(error: BaseException) -> bool:
    """Whether an exception in a task is not the tool's own: the task is cancelled, or Ctrl-C was pressed."""
    if isinstance(error, KeyboardInterrupt):  # which comes in the main thread only
        return threading.current_thread() is threading.main_thread()
    return is_cancellation(error)


def _quoted(text: str) -> str:
    """Foreign text as one word of a log line, which it cannot break, end or forge."""
    return json.dumps(text[:_SHOWN])


# --- outputs ---------------------------------------------------------------------------------------------------------


def _text_of(output: object) -> str:
    """An output as the model reads it: text as it is, everything else as JSON."""
    if isinstance(output, str):
        return output
    return encode_json(msgspec.to_builtins(output, enc_hook=_plain, str_keys=True)).decode()


def _plain(value: Any) -> object:
    """What msgspec has no JSON for: pydantic's models; and whatever events may hold."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else json.loads(encode_json(value))


def _limited(text: str, most: int) -> str:
    """*text* in at most *most* bytes of UTF-8: its head and its tail. Half a surrogate pair becomes U+FFFD."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        data = text.encode()
    if len(data) <= most:
        return text
    kept = max(0, most - _MARKER)
    marker = f"\n[... {len(data) - kept} bytes left out ...]\n"
    head, tail = data[: kept - kept // 2], data[len(data) - kept // 2 :]
    return (head.decode("utf-8", "ignore") + marker + tail.decode("utf-8", "ignore"))[:most]
