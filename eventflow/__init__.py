"""eventflow: a stream dispatcher for language-model events, with plugins, pipelines and typed events.

::

    from eventflow import Dispatcher, TextDelta

    flow = Dispatcher()


    @flow.on(TextDelta)
    def show(event: TextDelta) -> None:
        print(event.delta, end="", flush=True)


    run = flow.run("stream.sse")
"""

import importlib
from typing import TYPE_CHECKING

from eventflow import errors, events, signals, sse, wires
from eventflow.dispatcher import Dispatcher, acollect, aiter_events, collect, iter_events
from eventflow.errors import EventflowError
from eventflow.events import (
    ContentPartAdded,
    ContentPartDone,
    Event,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    HandlerFailed,
    OutputItemAdded,
    OutputItemDone,
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    RefusalDelta,
    RefusalDone,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    StreamError,
    TextDelta,
    TextDone,
    ToolCall,
    ToolOutput,
    ToolProgress,
    TurnStarted,
    UnknownEvent,
)
from eventflow.limits import Limits
from eventflow.pipeline import Pipeline
from eventflow.plugin import Pause, Plugin, configured, on, rewrite, state, transform
from eventflow.rewriting import Part
from eventflow.run import Run
from eventflow.timers import Timeouts

if TYPE_CHECKING:
    from eventflow.agent import Agent, AgentResult
    from eventflow.client import AsyncClient, AsyncStream, Client, Stream

__all__ = [
    "Agent",
    "AgentResult",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "ContentPartAdded",
    "ContentPartDone",
    "Dispatcher",
    "Event",
    "EventflowError",
    "FunctionCallArgumentsDelta",
    "FunctionCallArgumentsDone",
    "HandlerFailed",
    "Limits",
    "OutputItemAdded",
    "OutputItemDone",
    "Part",
    "Pause",
    "Pipeline",
    "Plugin",
    "ReasoningSummaryTextDelta",
    "ReasoningSummaryTextDone",
    "ReasoningTextDelta",
    "ReasoningTextDone",
    "RefusalDelta",
    "RefusalDone",
    "Response",
    "ResponseCompleted",
    "ResponseCreated",
    "ResponseFailed",
    "ResponseInProgress",
    "ResponseIncomplete",
    "Run",
    "Stream",
    "StreamError",
    "TextDelta",
    "TextDone",
    "Timeouts",
    "ToolCall",
    "ToolOutput",
    "ToolProgress",
    "TurnStarted",
    "UnknownEvent",
    "acollect",
    "aiter_events",
    "collect",
    "configured",
    "errors",
    "events",
    "iter_events",
    "on",
    "rewrite",
    "signals",
    "sse",
    "state",
    "transform",
    "wires",
]

_LATE = {
    "Agent": "eventflow.agent",
    "AgentResult": "eventflow.agent",
    "AsyncClient": "eventflow.client",
    "AsyncStream": "eventflow.client",
    "Client": "eventflow.client",
    "Stream": "eventflow.client",
}


def __getattr__(name: str) -> object:
    """Clients and agents are imported when first used: who only dispatches need not wait for them."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)
