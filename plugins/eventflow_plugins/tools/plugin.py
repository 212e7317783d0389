"""`Tools`: the plugin that runs the calls of a response."""

from __future__ import annotations

import functools
import logging
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Literal

import attrs

from eventflow import Pause, Plugin, Run, ToolCall, ToolOutput, ToolProgress, on, state
from eventflow.errors import ToolError
from eventflow.events import JSON
from eventflow.jobs import LoopThread, start_task, start_thread
from eventflow.limits import is_count
from eventflow.routing import is_async
from eventflow_plugins.tools.arguments import InvalidArguments
from eventflow_plugins.tools.calls import Approve, Call, Slots
from eventflow_plugins.tools.definition import Tool, is_seconds

__all__ = ["Tools"]

_AGAIN = 0.25  # seconds after which a call asks for a slot again: who was woken for one may not have taken it
_LONGEST = 3600.0  # seconds of one wait: more is not known to every system
_GRACE = 1.0  # seconds that cancelled tools may take to end


def _tools_of(given: Iterable[Any]) -> tuple[Tool, ...]:
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise ToolError(f"Tools([...]) takes functions in a list, not {given!r}")
    tools = tuple(each if isinstance(each, Tool) else Tool.of(each) for each in given)
    names = [tool.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise ToolError(f"two tools are called {name!r}; name one of them with @tool(name=...)")
    return tools


def _slots_of(given: int | Slots) -> Slots:
    return given if isinstance(given, Slots) else Slots(given)


def _seconds(_: Tools, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not is_seconds(value):
        raise ToolError(f"Tools({attribute.name}=...) takes seconds, more than 0, or None for ever, not {value!r}")


def _positive(_: Tools, attribute: attrs.Attribute[Any], value: object) -> None:
    if not is_count(value):
        raise ToolError(f"Tools({attribute.name}=...) is a number, at least 1, not {value!r}")


class Tools(Plugin):
    """Runs the functions that a model calls, and puts what they give into ``run.outbox``, to be sent back.

    ::

        def get_weather(city: str) -> str:
            "The weather of a city, now."
            return "18 °C, clear"


        tools = Tools([get_weather])
        run = Dispatcher(tools).run(client.responses.create(..., tools=tools.definitions, stream=True))
        run.outbox  # [{"type": "function_call_output", "call_id": ..., "output": "18 °C, clear"}]

    A call runs once its arguments are complete and valid; never one of a response that is incomplete, failed or
    truncated. Whatever goes wrong with it (an unknown name, arguments that do not fit, an exception, too long a time,
    no approval) is an output too, for the model to read: the run goes on. Each call ends in a `ToolOutput` event, as
    it ends; in the outbox, outputs have the order of the calls.

    A plain function runs in a daemon thread with the run's context variables; an async one in a task, of the run's own
    event loop or, in a sync run, of one in the background. Nobody can stop a thread: one that takes too long is
    abandoned, and what it gives then goes nowhere. A run that is left cancels its tools.

    Attributes:
        tools: The functions, plain or decorated with `tool`.
        when: ``response``: calls run after the response is complete and its connection closed; ``item``: each at once,
            while the rest still comes. Then some may have run when the response fails.
        timeout: Seconds that one call may take, once it was approved; None for ever. 60.
        total_timeout: Seconds that all calls of a response may take together, approval included; None for ever.
        concurrency: Calls that run at once, in all runs of the dispatcher; a `Slots` is shared with other plugins. 8.
            A call that was abandoned does not count any more.
        approve: Asked before each call runs, with the `PendingCall`, in the call's own thread or task: True allows it;
            anything else, an exception too, denies it. Tools that are ``dangerous`` need it.
        context: What tools are granted: the `ToolContext.granted` of those that ask for it.
        max_output: Bytes of one output that the model is sent: more is cut in the middle. 256 KiB.
        max_arguments: Characters of one call's arguments. 1 Mi.
        max_depth: How deep they may be nested. 64.

    Raises:
        ToolError: A function has no schema, two have one name, a dangerous one has nobody to approve it.
    """

    tools: tuple[Tool, ...] = attrs.field(converter=_tools_of)
    when: Literal["response", "item"] = attrs.field(default="response", kw_only=True)
    timeout: float | None = attrs.field(default=60.0, kw_only=True, validator=_seconds)
    total_timeout: float | None = attrs.field(default=None, kw_only=True, validator=_seconds)
    concurrency: Slots = attrs.field(factory=lambda: Slots(8), kw_only=True, converter=_slots_of)
    approve: Approve | None = attrs.field(default=None, kw_only=True)
    context: Any = attrs.field(default=None, kw_only=True, repr=False)
    max_output: int = attrs.field(default=256 * 1024, kw_only=True, validator=_positive)
    max_arguments: int = attrs.field(default=2**20, kw_only=True, validator=_positive)
    max_depth: int = attrs.field(default=64, kw_only=True, validator=_positive)
    _by_name: dict[str, Tool] = attrs.field(init=False, repr=False)
    _loop: LoopThread = attrs.field(init=False, repr=False, factory=LoopThread)
    _calls: dict[str, Call] = state(factory=dict[str, Call])  # by id, in the order in which they came
    _others: tuple[Tools, ...] = state(default=())  # of the same pipeline
    _answering: bool = state(default=True)  # of several in one pipeline, the one that answers for unknown names
    _done: bool = state(default=False)  # whether what is called now comes too late

    def __attrs_post_init__(self) -> None:
        self._by_name = {tool.name: tool for tool in self.tools}
        if self.when not in ("response", "item"):
            raise ToolError(f'Tools(when=...) is "response" or "item", not {self.when!r}')
        if self.approve is not None and not callable(self.approve):
            raise ToolError(f"Tools(approve=...) takes a function of the call, not {self.approve!r}")
        dangerous = [tool.name for tool in self.tools if tool.dangerous]
        if dangerous and self.approve is None:
            raise ToolError(f"tool {dangerous[0]!r} is dangerous: say who approves its calls, Tools(approve=...)")

    @property
    def definitions(self) -> list[dict[str, JSON]]:
        """What a request tells the model: its ``tools``."""
        return [tool.definition for tool in self.tools]

    @property
    def outputs(self) -> list[ToolOutput]:
        """Of a run: how its calls ended so far, in their order."""
        return [call.told() for call in self._calls.values() if call.outcome is not None]

    # --- the run -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the background's event loop."""
        self._loop.close()

    def start(self, run: Run) -> None:
        """See which other tools there are; raises `ToolError` where two have one name."""
        every = [plugin for plugin in run.plugins if isinstance(plugin, Tools)]
        self._others = tuple(plugin for plugin in every if plugin is not self)
        self._answering = every[0] is self
        for other in self._others:
            for name in self._by_name.keys() & other._by_name.keys():
                raise ToolError(f"two tools of this run are called {name!r}; name one of them with @tool(name=...)")

    @on(ToolCall)
    def _called(self, event: ToolCall, run: Run) -> None:
        if event.kind not in ("function", "custom") or not self._is_mine(event.name):
            return
        call_id = event.call_id or event.item_id or ""
        call = Call(event, call_id, run, self.max_output)
        twin = next((tools._calls[call_id] for tools in (self, *self._others) if call_id in tools._calls), None)
        if not call_id:  # an answer must name it
            call.tell("ignored", logging.WARNING, why='"it has no id"')
        elif twin is not None:  # an id is answered once
            level, why = (logging.INFO, "same") if call.is_like(twin) else (logging.WARNING, "different")
            call.tell("ignored", level, why=f'"a {why} call came with this id"')
        elif not self._done:
            self._calls[call_id] = call
            if self.when == "item":
                self._advance(run)
        elif run.status == "completed":
            self._calls[call_id] = call
            call.settle("error", "the call came after the tools had ended")
            run.outbox.append(_item_of(call))

    def _is_mine(self, name: str) -> bool:
        return name in self._by_name or (self._answering and not any(name in tools._by_name for tools in self._others))

    @on(ToolOutput)
    def _ended(self, event: ToolOutput, run: Run) -> None:
        if event.call_id in self._calls and self.when == "item":
            self._advance(run)  # one has room now

    @on(ToolProgress)
    def _progressed(self, event: ToolProgress) -> None:
        if event.call_id in self._calls:
            self._calls[event.call_id].reported()

    def finish(self, run: Run) -> Generator[Pause | None]:
        """Run what was called, if the response is complete, and wait for it."""
        calls = self._calls.values()
        if run.status != "completed":
            self._done = True
            self._drop("the response is not complete")
            return
        ends = None if self.total_timeout is None else run.now() + self.total_timeout
        while not self._done:
            self._advance(run)
            now = run.now()
            for call in calls:
                self._look_after(call, now, ends)
            if all(call.over for call in calls):
                yield None  # the last outputs are dispatched; somebody may call once more because of them
                self._done = all(call.over for call in calls)
            else:
                deadlines = [call.deadline for call in calls if not call.over and call.deadline is not None]
                deadlines += [] if ends is None else [ends]
                longest = _LONGEST if all(call.over or call.started for call in calls) else _AGAIN
                yield Pause(max(0.0, min([longest, *(each - now for each in deadlines)])))
        run.outbox.extend(_item_of(call) for call in calls)

    def stop(self, run: Run) -> Generator[Pause]:
        """Cancel what is under way, and let it end."""
        self._done = True
        self.concurrency.forget(run.wake)
        self._drop("the run was left")
        jobs = [call.job for call in self._calls.values() if call.job is not None and call.is_task]
        under_way = [job for job in jobs if not job.done]
        until = run.now() + _GRACE
        for _ in (None, *under_way):  # each of them ends one wait, and somebody's ring before may have ended another
            left = until - run.now()
            if left <= 0 or all(job.done for job in under_way):
                return
            yield Pause(left)

    def _drop(self, why: str) -> None:
        for call in self._calls.values():
            if call.settle("cancelled", why, quietly=True) and call.job is not None:
                call.job.cancel()
            self.concurrency.give(call)  # which it has done, unless something interrupted that

    def _look_after(self, call: Call, now: float, ends: float | None) -> None:
        """End a call whose time is up, or whose worker is gone."""
        if call.outcome is not None:
            return
        late = call.deadline is not None and now >= call.deadline
        if call.job is not None and call.job.done:
            call.settle("error", "it was cancelled")  # by somebody else, before it began
        elif late or (ends is not None and now >= ends):
            seconds = (call.timeout if late else self.total_timeout) or 0.0
            what = "the calls of this response took longer than"
            if late:
                what = "the call took longer than" if call.begun else "the call did not begin within"
            if call.settle("timeout", f"{what} {seconds:g} s") and call.job is not None:
                call.job.cancel()

    # --- starting ----------------------------------------------------------------------------------------------------

    def _advance(self, run: Run) -> None:
        """Start what may start, in order."""
        running = [call for call in self._calls.values() if call.running]
        for call in tuple(self._calls.values()):
            if call.started or call.outcome is not None or not self._prepare(call):
                continue
            assert call.tool is not None
            if running and not all(other.tool.parallel for other in (call, *running) if other.tool is not None):
                return
            if not self.concurrency.take(call, run.wake):
                return
            self._start(call, run)
            running.append(call)

    def _prepare(self, call: Call) -> bool:
        """Read the arguments of a call; False where it cannot run, which settles it."""
        if call.tool is not None:
            return True
        tool = self._by_name.get(call.event.name)
        if tool is None:
            names = ", ".join(name for tools in (self, *self._others) for name in tools._by_name) or "none"
            call.settle("unknown", f"there is no tool {call.event.name[:100]!r}; the tools are: {names}")
            return False
        if tool.kind != call.event.kind:
            call.settle("invalid", f"{tool.name} is a {tool.kind} tool and was called as a {call.event.kind} one")
            return False
        try:
            call.arguments = tool.arguments(call.event.arguments, most=self.max_arguments, depth=self.max_depth)
        except InvalidArguments as error:
            call.settle("invalid", f"the call is invalid: {error}")
            return False
        call.tool = tool
        return True

    def _start(self, call: Call, run: Run) -> None:
        assert call.tool is not None
        call.bind(self.context, self.timeout, self.concurrency)
        name = f"eventflow-tool {call.tool.name}"
        call.is_task = call.tool.is_async or (self.approve is not None and is_async(self.approve))
        start = start_thread if not call.is_task else start_task if run.is_async else self._loop.start_task
        work: Any = functools.partial(call.awork if call.is_task else call.work, self.approve)
        try:
            call.job = start(work, name=name, then=run.wake)
        except RuntimeError as error:  # no more threads
            call.failed(error)


def _item_of(call: Call) -> dict[str, JSON]:
    """An output as an item of the Responses API's input."""
    kind = "custom_tool_call_output" if call.event.kind == "custom" else "function_call_output"
    return {"type": kind, "call_id": call.call_id, "output": call.output}
