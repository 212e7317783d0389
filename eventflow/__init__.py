"""eventflow: a stream dispatcher for language-model events, with plugins, pipelines and typed events.

::

    from eventflow import Dispatcher, TextDelta

    flow = Dispatcher()


    @flow.on(TextDelta)
    def show(event: TextDelta) -> None:
        print(event.delta, end="", flush=True)


    run = flow.run("stream.sse")
"""

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
    UnknownEvent,
)
from eventflow.limits import Limits
from eventflow.pipeline import Pipeline
from eventflow.plugin import Plugin, on, rewrite, state, transform
from eventflow.rewriting import Part
from eventflow.run import Run

__all__ = [
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
    "StreamError",
    "TextDelta",
    "TextDone",
    "ToolCall",
    "ToolOutput",
    "ToolProgress",
    "UnknownEvent",
    "acollect",
    "aiter_events",
    "collect",
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
