"""Tools: calls being written, the provider's own tools at work, and eventflow's record of calls and outputs."""

from __future__ import annotations

from typing import Any

from eventflow.events._base import WireEvent

__all__ = [
    "CodeInterpreterCallCodeDelta",
    "CodeInterpreterCallCodeDone",
    "CodeInterpreterCallCompleted",
    "CodeInterpreterCallInProgress",
    "CodeInterpreterCallInterpreting",
    "CustomToolCallInputDelta",
    "CustomToolCallInputDone",
    "FileSearchCallCompleted",
    "FileSearchCallInProgress",
    "FileSearchCallSearching",
    "FunctionCallArgumentsDelta",
    "FunctionCallArgumentsDone",
    "ImageGenerationCallCompleted",
    "ImageGenerationCallGenerating",
    "ImageGenerationCallInProgress",
    "ImageGenerationCallPartialImage",
    "McpCallArgumentsDelta",
    "McpCallArgumentsDone",
    "McpCallCompleted",
    "McpCallFailed",
    "McpCallInProgress",
    "McpListToolsCompleted",
    "McpListToolsFailed",
    "McpListToolsInProgress",
    "ShellCallCommandAdded",
    "ShellCallCommandDelta",
    "ShellCallCommandDone",
    "ShellCallOutputContentDelta",
    "ShellCallOutputContentDone",
    "ToolCall",
    "ToolEvent",
    "ToolOutput",
    "ToolProgress",
    "WebSearchCallCompleted",
    "WebSearchCallInProgress",
    "WebSearchCallSearching",
]


class ToolEvent(WireEvent, family="tool"):
    """A tool is called or at work; as a selector, the family ``tool``."""


class FunctionCallArgumentsDelta(ToolEvent, tag="response.function_call_arguments.delta"):
    """The next piece of a function call's arguments: JSON text."""

    delta: str
    item_id: str | None = None
    output_index: int | None = None


class FunctionCallArgumentsDone(ToolEvent, tag="response.function_call_arguments.done"):
    """A function call's arguments are complete."""

    arguments: str
    item_id: str | None = None
    output_index: int | None = None


class CustomToolCallInputDelta(ToolEvent, tag="response.custom_tool_call_input.delta"):
    """The next piece of a custom tool's input."""

    delta: str
    item_id: str | None = None
    output_index: int | None = None


class CustomToolCallInputDone(ToolEvent, tag="response.custom_tool_call_input.done"):
    """A custom tool's input is complete."""

    input: str
    item_id: str | None = None
    output_index: int | None = None


class WebSearchCallInProgress(ToolEvent, tag="response.web_search_call.in_progress"):
    """A web search begins."""

    item_id: str | None = None
    output_index: int | None = None


class WebSearchCallSearching(ToolEvent, tag="response.web_search_call.searching"):
    """A web search is under way."""

    item_id: str | None = None
    output_index: int | None = None


class WebSearchCallCompleted(ToolEvent, tag="response.web_search_call.completed"):
    """A web search is complete."""

    item_id: str | None = None
    output_index: int | None = None


class FileSearchCallInProgress(ToolEvent, tag="response.file_search_call.in_progress"):
    """A file search begins."""

    item_id: str | None = None
    output_index: int | None = None


class FileSearchCallSearching(ToolEvent, tag="response.file_search_call.searching"):
    """A file search is under way."""

    item_id: str | None = None
    output_index: int | None = None


class FileSearchCallCompleted(ToolEvent, tag="response.file_search_call.completed"):
    """A file search is complete."""

    item_id: str | None = None
    output_index: int | None = None


class CodeInterpreterCallInProgress(ToolEvent, tag="response.code_interpreter_call.in_progress"):
    """The code interpreter begins."""

    item_id: str | None = None
    output_index: int | None = None


class CodeInterpreterCallCodeDelta(ToolEvent, tag="response.code_interpreter_call_code.delta"):
    """The next piece of the code."""

    delta: str
    item_id: str | None = None
    output_index: int | None = None


class CodeInterpreterCallCodeDone(ToolEvent, tag="response.code_interpreter_call_code.done"):
    """The code is complete."""

    code: str
    item_id: str | None = None
    output_index: int | None = None


class CodeInterpreterCallInterpreting(ToolEvent, tag="response.code_interpreter_call.interpreting"):
    """The code runs."""

    item_id: str | None = None
    output_index: int | None = None


class CodeInterpreterCallCompleted(ToolEvent, tag="response.code_interpreter_call.completed"):
    """The code has run."""

    item_id: str | None = None
    output_index: int | None = None


class ImageGenerationCallInProgress(ToolEvent, tag="response.image_generation_call.in_progress"):
    """An image begins."""

    item_id: str | None = None
    output_index: int | None = None


class ImageGenerationCallGenerating(ToolEvent, tag="response.image_generation_call.generating"):
    """An image is being made."""

    item_id: str | None = None
    output_index: int | None = None


class ImageGenerationCallPartialImage(ToolEvent, tag="response.image_generation_call.partial_image"):
    """A preview of the image, base64."""

    partial_image_b64: str
    partial_image_index: int | None = None
    background: Any = None
    output_format: Any = None
    quality: Any = None
    size: Any = None
    item_id: str | None = None
    output_index: int | None = None


class ImageGenerationCallCompleted(ToolEvent, tag="response.image_generation_call.completed"):
    """The image is complete."""

    item_id: str | None = None
    output_index: int | None = None


class McpListToolsInProgress(ToolEvent, tag="response.mcp_list_tools.in_progress"):
    """An MCP server is asked for its tools."""

    item_id: str | None = None
    output_index: int | None = None


class McpListToolsCompleted(ToolEvent, tag="response.mcp_list_tools.completed"):
    """The MCP server's tools are listed."""

    item_id: str | None = None
    output_index: int | None = None


class McpListToolsFailed(ToolEvent, tag="response.mcp_list_tools.failed"):
    """The MCP server's tools could not be listed."""

    item_id: str | None = None
    output_index: int | None = None


class McpCallInProgress(ToolEvent, tag="response.mcp_call.in_progress"):
    """A call on an MCP server begins."""

    item_id: str | None = None
    output_index: int | None = None


class McpCallArgumentsDelta(ToolEvent, tag="response.mcp_call_arguments.delta"):
    """The next piece of an MCP call's arguments: JSON text."""

    delta: str
    item_id: str | None = None
    output_index: int | None = None


class McpCallArgumentsDone(ToolEvent, tag="response.mcp_call_arguments.done"):
    """An MCP call's arguments are complete."""

    arguments: str
    item_id: str | None = None
    output_index: int | None = None


class McpCallCompleted(ToolEvent, tag="response.mcp_call.completed"):
    """An MCP call is complete."""

    item_id: str | None = None
    output_index: int | None = None


class McpCallFailed(ToolEvent, tag="response.mcp_call.failed"):
    """An MCP call failed."""

    item_id: str | None = None
    output_index: int | None = None


class ShellCallCommandAdded(ToolEvent, tag="response.shell_call_command.added"):
    """A shell command begins."""

    command: str
    command_index: int | None = None
    output_index: int | None = None


class ShellCallCommandDelta(ToolEvent, tag="response.shell_call_command.delta"):
    """The next piece of a shell command."""

    delta: str
    command_index: int | None = None
    output_index: int | None = None
    obfuscation: str | None = None


class ShellCallCommandDone(ToolEvent, tag="response.shell_call_command.done"):
    """A shell command is complete."""

    command: str
    command_index: int | None = None
    output_index: int | None = None


class ShellCallOutputContentDelta(ToolEvent, tag="response.shell_call_output_content.delta"):
    """The next piece of a command's output: ``{"stdout": ...}`` or ``{"stderr": ...}``."""

    delta: Any = None
    command_index: int | None = None
    item_id: str | None = None
    output_index: int | None = None


class ShellCallOutputContentDone(ToolEvent, tag="response.shell_call_output_content.done"):
    """A command's output is complete."""

    output: Any = None
    command_index: int | None = None
    item_id: str | None = None
    output_index: int | None = None


# --- eventflow's own -------------------------------------------------------------------------------------------------


class ToolCall(ToolEvent, tag="eventflow.tool_call"):
    """A call is complete: dispatched right after the `OutputItemDone` that carries it.

    Attributes:
        kind: ``function``, ``custom``, or ``mcp`` (which the provider itself runs).
        name: The tool's name as the model wrote it.
        arguments: JSON text of a function or MCP call, free text of a custom one; not validated.
        call_id: What the output must name.
    """

    kind: str
    name: str
    arguments: str
    call_id: str | None = None
    item_id: str | None = None
    output_index: int | None = None


class ToolOutput(ToolEvent, tag="eventflow.tool_output"):
    """A tool has run, or was not allowed to.

    Attributes:
        call_id: The call that it answers.
        output: What goes back to the model.
        outcome: ``ok``, or why it is none: ``error``, ``timeout``, ``denied``, ``unknown``, ``invalid``.
        duration: How long it ran, in seconds.
    """

    call_id: str | None
    output: str
    name: str = ""
    outcome: str = "ok"
    duration: float | None = None


class ToolProgress(ToolEvent, tag="eventflow.tool_progress", gc=True):
    """A tool under way reports.

    Attributes:
        call_id: The call that it works on.
        progress: Whatever the tool yielded.
    """

    call_id: str | None
    progress: Any = None
    name: str = ""
