"""The `Response` and what it is made of: items, parts, annotations, usage, errors.

Field names are the API's own (OpenAI Responses API, types of the public package openai 3.54.0, read November 2026).
Every field that a server may leave out has a default. What we fold or execute is typed; what only echoes the
request, or is passed through, stays JSON; an item or part of another type is an `Untyped` mapping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from eventflow.events._base import Record, Tagged, Untyped

__all__ = [
    "Annotation",
    "CodeInterpreterCall",
    "ContainerFileCitation",
    "ContentPart",
    "CustomToolCall",
    "FileCitation",
    "FilePath",
    "FileSearchCall",
    "FunctionCall",
    "ImageGenerationCall",
    "IncompleteDetails",
    "InputTokensDetails",
    "LocalShellCall",
    "Logprob",
    "Logprobs",
    "McpApprovalRequest",
    "McpCall",
    "McpListTools",
    "Message",
    "OutputItem",
    "OutputRefusal",
    "OutputText",
    "OutputTokensDetails",
    "Reasoning",
    "ReasoningText",
    "Response",
    "ResponseFault",
    "ShellCall",
    "SummaryText",
    "ToolCallItem",
    "TopLogprob",
    "URLCitation",
    "Usage",
    "WebSearchCall",
]


# --- annotations -----------------------------------------------------------------------------------------------------


class FileCitation(Tagged, tag="file_citation"):
    """A file that the text relies on."""

    file_id: str | None = None
    filename: str | None = None
    index: int | None = None


class URLCitation(Tagged, tag="url_citation"):
    """A page that the text relies on; *start_index* and *end_index* count characters of the text."""

    url: str | None = None
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class ContainerFileCitation(Tagged, tag="container_file_citation"):
    """A file in a code interpreter's container; the indices count characters of the text."""

    container_id: str | None = None
    file_id: str | None = None
    filename: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class FilePath(Tagged, tag="file_path"):
    """A file that the model wrote."""

    file_id: str | None = None
    index: int | None = None


_KnownAnnotation: TypeAlias = FileCitation | URLCitation | ContainerFileCitation | FilePath
if TYPE_CHECKING:
    Annotation: TypeAlias = _KnownAnnotation | Untyped
else:  # msgspec decodes the known ones only: what is none of them goes the lenient way
    Annotation = _KnownAnnotation
"""What an annotation may be; of any other type it is an `Untyped`."""


class TopLogprob(Record):
    """A token that might have come instead."""

    token: str | None = None
    logprob: float | None = None
    bytes: tuple[int, ...] | None = None


class Logprob(Record):
    """How sure the model was of a token."""

    token: str | None = None
    logprob: float | None = None
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple[TopLogprob, ...] | None = None


Logprobs: TypeAlias = tuple[Logprob, ...] | None


# --- parts -----------------------------------------------------------------------------------------------------------


class OutputText(Tagged, tag="output_text"):
    """Text of a message."""

    text: str = ""
    annotations: tuple[Annotation, ...] = ()
    logprobs: Logprobs = None


class OutputRefusal(Tagged, tag="refusal"):
    """The model's words for not answering."""

    refusal: str = ""


class ReasoningText(Tagged, tag="reasoning_text"):
    """Text of the reasoning itself."""

    text: str = ""


class SummaryText(Tagged, tag="summary_text"):
    """A paragraph of the summary of the reasoning."""

    text: str = ""


_KnownPart: TypeAlias = OutputText | OutputRefusal | ReasoningText | SummaryText
if TYPE_CHECKING:
    ContentPart: TypeAlias = _KnownPart | Untyped
else:
    ContentPart = _KnownPart
"""What a part may be; of any other type it is an `Untyped`."""


# --- items -----------------------------------------------------------------------------------------------------------


class Message(Tagged, tag="message"):
    """What the model says."""

    content: tuple[ContentPart, ...] = ()
    id: str | None = None
    role: str | None = None
    status: str | None = None
    phase: str | None = None


class Reasoning(Tagged, tag="reasoning"):
    """What the model thinks: summary, text, and what must be sent back unread."""

    summary: tuple[ContentPart, ...] = ()
    content: tuple[ContentPart, ...] = ()
    id: str | None = None
    encrypted_content: str | None = None
    status: str | None = None


class FunctionCall(Tagged, tag="function_call"):
    """A call of one of the caller's functions; *arguments* is JSON text as the model wrote it."""

    name: str = ""
    arguments: str = ""
    call_id: str | None = None
    id: str | None = None
    status: str | None = None
    namespace: Any = None
    caller: Any = None
    async_: Any = msgspec.field(default=None, name="async")


class CustomToolCall(Tagged, tag="custom_tool_call"):
    """A call of one of the caller's free-text tools."""

    name: str = ""
    input: str = ""
    call_id: str | None = None
    id: str | None = None
    status: str | None = None
    namespace: Any = None
    caller: Any = None
    async_: Any = msgspec.field(default=None, name="async")

    @property
    def arguments(self) -> str:
        """The input, under the name that all calls share."""
        return self.input


class McpCall(Tagged, tag="mcp_call"):
    """A call that the provider made on an MCP server, and what came of it."""

    name: str = ""
    arguments: str = ""
    id: str | None = None
    server_label: str | None = None
    status: str | None = None
    output: Any = None
    error: Any = None
    approval_request_id: str | None = None

    @property
    def call_id(self) -> str | None:
        """Its id, under the name that all calls share."""
        return self.id


class McpListTools(Tagged, tag="mcp_list_tools"):
    """The tools of an MCP server."""

    id: str | None = None
    server_label: str | None = None
    tools: Any = None
    error: Any = None
    status: str | None = None


class McpApprovalRequest(Tagged, tag="mcp_approval_request"):
    """The provider asks whether it may make a call on an MCP server."""

    name: str = ""
    arguments: str = ""
    id: str | None = None
    server_label: str | None = None
    status: str | None = None


class CodeInterpreterCall(Tagged, tag="code_interpreter_call"):
    """Code that the provider ran."""

    code: str | None = None
    id: str | None = None
    container_id: str | None = None
    status: str | None = None
    outputs: Any = None


class WebSearchCall(Tagged, tag="web_search_call"):
    """A web search of the provider."""

    id: str | None = None
    status: str | None = None
    action: Any = None


class FileSearchCall(Tagged, tag="file_search_call"):
    """A search in files that the provider holds."""

    id: str | None = None
    status: str | None = None
    queries: Any = None
    results: Any = None


class ImageGenerationCall(Tagged, tag="image_generation_call"):
    """An image that the provider made; *result* is base64."""

    id: str | None = None
    status: str | None = None
    result: str | None = None
    action: Any = None
    background: Any = None
    error: Any = None
    output_format: Any = None
    quality: Any = None
    revised_prompt: Any = None
    size: Any = None
    svg_usage: Any = None


class ShellCall(Tagged, tag="shell_call"):
    """Commands that the caller, or the provider's container, is to run."""

    id: str | None = None
    call_id: str | None = None
    status: str | None = None
    action: Any = None
    environment: Any = None
    caller: Any = None
    created_by: Any = None


class LocalShellCall(Tagged, tag="local_shell_call"):
    """A command that the caller is to run."""

    id: str | None = None
    call_id: str | None = None
    status: str | None = None
    action: Any = None


_KnownItem: TypeAlias = (
    Message
    | Reasoning
    | FunctionCall
    | CustomToolCall
    | McpCall
    | McpListTools
    | McpApprovalRequest
    | CodeInterpreterCall
    | WebSearchCall
    | FileSearchCall
    | ImageGenerationCall
    | ShellCall
    | LocalShellCall
)
if TYPE_CHECKING:
    OutputItem: TypeAlias = _KnownItem | Untyped
else:
    OutputItem = _KnownItem
"""What an item may be; of any other type it is an `Untyped`."""

ToolCallItem: TypeAlias = FunctionCall | CustomToolCall | McpCall
"""The items that carry a tool's name and arguments."""


# --- the whole -------------------------------------------------------------------------------------------------------


class InputTokensDetails(Record):
    """What the input tokens were; None where the server does not say."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: Any = None


class OutputTokensDetails(Record):
    """What the output tokens were; None where the server does not say."""

    reasoning_tokens: int | None = None


class Usage(Record):
    """Tokens of one response, as the server counted them."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: InputTokensDetails | None = None
    output_tokens_details: OutputTokensDetails | None = None


class ResponseFault(Record):
    """Why a response failed, as the server says."""

    code: str | None = None
    message: str | None = None
    type: str | None = None
    param: str | None = None
    misalignment: Any = None


class IncompleteDetails(Record):
    """Why a response is incomplete: ``max_output_tokens``, ``content_filter``, ..."""

    reason: str | None = None


class Response(Record):
    """One answer of a model: as far as it has come, or whole."""

    id: str | None = None
    status: str | None = None
    model: str | None = None
    output: tuple[OutputItem, ...] = ()
    usage: Usage | None = None
    error: ResponseFault | None = None
    incomplete_details: IncompleteDetails | None = None
    object: str | None = None
    created_at: float | None = None
    completed_at: float | None = None
    previous_response_id: str | None = None
    access_programs: Any = None
    background: Any = None
    conversation: Any = None
    image: Any = None
    input_transformations: Any = None
    instructions: Any = None
    max_output_tokens: Any = None
    max_tool_calls: Any = None
    metadata: Any = None
    moderation: Any = None
    parallel_tool_calls: Any = None
    prompt: Any = None
    prompt_cache_diagnostics: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    reasoning: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    temperature: Any = None
    text: Any = None
    tool_choice: Any = None
    tool_usage: Any = None
    tools: Any = None
    top_logprobs: Any = None
    top_p: Any = None
    truncation: Any = None
    user: Any = None

    @property
    def output_text(self) -> str:
        """The text of all messages."""
        return "".join(
            part.text
            for item in self.output
            if isinstance(item, Message)
            for part in item.content
            if isinstance(part, OutputText)
        )

    @property
    def refusal(self) -> str:
        """The words of all refusals."""
        return "".join(
            part.refusal
            for item in self.output
            if isinstance(item, Message)
            for part in item.content
            if isinstance(part, OutputRefusal)
        )

    @property
    def reasoning_text(self) -> str:
        """What the model thought: of each item the reasoning itself, or its summary where that is not shown."""
        texts = (_texts(item.content) or _texts(item.summary) for item in self.output if isinstance(item, Reasoning))
        return "\n\n".join(text for text in texts if text)

    @property
    def reasoning_summary(self) -> str:
        """The summaries of the reasoning, a blank line between paragraphs."""
        texts = (_texts(item.summary) for item in self.output if isinstance(item, Reasoning))
        return "\n\n".join(text for text in texts if text)

    @property
    def tool_calls(self) -> tuple[ToolCallItem, ...]:
        """The calls in order; each has ``name``, ``arguments`` (text) and ``call_id``."""
        return tuple(item for item in self.output if isinstance(item, ToolCallItem))


def _texts(parts: tuple[ContentPart, ...]) -> str:
    return "\n\n".join(part.text for part in parts if isinstance(part, ReasoningText | SummaryText) and part.text)
