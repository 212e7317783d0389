"""The plugins that come with eventflow.

Each is made like a stranger's: from public names of `eventflow` alone, and found by its entry point. A dispatcher
takes them as instances, ``Dispatcher(Accumulate(), Log("run.jsonl"))``, or by name,
``flow.use("log", path="run.jsonl")``.
"""

from eventflow_plugins.accumulate import Accumulate
from eventflow_plugins.log import Log
from eventflow_plugins.operators import drop, only, tap
from eventflow_plugins.record import Record
from eventflow_plugins.redact import Redact
from eventflow_plugins.replaying import replay
from eventflow_plugins.tee import Tee, tee
from eventflow_plugins.terminal import Terminal
from eventflow_plugins.tools import PendingCall, Slots, Tool, ToolContext, Tools, tool
from eventflow_plugins.usage import Usage

__all__ = [
    "Accumulate",
    "Log",
    "PendingCall",
    "Record",
    "Redact",
    "Slots",
    "Tee",
    "Terminal",
    "Tool",
    "ToolContext",
    "Tools",
    "Usage",
    "drop",
    "only",
    "replay",
    "tap",
    "tee",
    "tool",
]
