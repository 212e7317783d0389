"""Tools: functions that a model may call, run when their arguments are complete."""

from eventflow_plugins.tools.calls import PendingCall, Slots
from eventflow_plugins.tools.definition import Tool, ToolContext, tool
from eventflow_plugins.tools.plugin import Tools

__all__ = ["PendingCall", "Slots", "Tool", "ToolContext", "Tools", "tool"]
