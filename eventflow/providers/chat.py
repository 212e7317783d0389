"""Requests to Chat Completions: OpenAI's, and those of the many servers that speak it in their own ways.

Facts: the types of the public package openai 3.54.0; that DeepSeek and Kimi refuse the turn after a call without its
``reasoning_content``, and others any turn with it: their answers in public issues (read November 2026).

Decisions. ``max_output_tokens`` is ``max_tokens``, the name that every server knows, but ``max_completion_tokens`` at
OpenAI's own, whose reasoning models refuse the other. Instructions are a ``system`` message, for the same reason.
Reasoning goes back as ``reasoning_content``, but not to servers that are known to refuse it. What the assistant says,
thinks and calls in a row is one message, for most chat templates want roles in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventflow.events import encode_json
from eventflow.plain import as_list, as_mapping
from eventflow.providers.parameters import (
    HOSTED_ITEMS,
    HOSTED_TOOLS,
    TEXT_PARTS,
    Asked,
    Cannot,
    Item,
    choice_of,
    image_type,
    kind_of,
    media_of,
    on_host,
    text_of,
)
from eventflow.providers.responses import headers, query
from eventflow.sse import Frame

__all__ = ["body", "frames", "headers", "path", "query"]

_API = "Chat Completions"
_OPENAI = ("api.openai.com", "openai.azure.com")
_NO_REASONING = (*_OPENAI, "api.mistral.ai", "api.groq.com", "api.cerebras.ai")
_AS_THEY_ARE = (
    "metadata",
    "moderation",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "temperature",
    "top_p",
    "user",
)
_FUNCTION = ("name", "description", "parameters", "strict")


def path(model: str, stream: bool) -> str:
    """Where requests go, behind the base address."""
    return "/chat/completions"


def body(parameters: Mapping[str, object], stream: bool, cannot: Cannot, base_url: str) -> dict[str, object]:
    """The body of a request.

    Raises:
        UsageError: The parameters are malformed, or *cannot* raises.
    """
    asked = Asked(parameters, _API, cannot)
    openai = on_host(base_url, _OPENAI)
    made: dict[str, Any] = {}
    asked.move(("model",), made)
    messages = _Messages(cannot, openai=openai, reasoning=not on_host(base_url, _NO_REASONING))
    made["messages"] = messages.of(asked)
    tools = [_tool(where, tool, cannot) for where, tool in asked.tools()]
    made.update({"tools": [tool for tool in tools if tool]} if any(tools) else {})
    _choose(asked, made)
    asked.move({"max_output_tokens": "max_completion_tokens" if openai else "max_tokens"}, made)
    asked.move(_AS_THEY_ARE, made)
    _format(asked.part("text"), made)
    reasoning = asked.part("reasoning")
    effort = reasoning.text("effort")
    made.update({"reasoning_effort": effort} if effort else {})
    reasoning.refuse_rest()
    if "message.output_text.logprobs" in asked.included("message.output_text.logprobs"):
        made["logprobs"] = True
    top = asked.take("top_logprobs")
    made.update({"logprobs": True, "top_logprobs": top} if top is not None else {})
    if openai:
        asked.move(("store",), made)
    asked.refuse("store", "this server is not known to keep answers")
    asked.refuse("context_management")
    asked.refuse_what_is_kept()
    if asked.take("n") not in (None, 1):
        cannot("n: a response is one answer; ask as often as you want answers")
    options = asked.fields("stream_options")
    if stream:
        made.update(stream=True, stream_options={"include_usage": True, **options})
    return asked.rest(made)


def frames(value: Mapping[str, object]) -> list[Frame]:
    """An answer that came whole, as the frames of a stream."""
    choices: list[Any] = []
    for choice in as_list(value.get("choices")):
        message = as_mapping(as_mapping(choice).get("message"))
        calls = [{"index": index, **as_mapping(call)} for index, call in enumerate(as_list(message.get("tool_calls")))]
        choices.append({**as_mapping(choice), "message": {**message, "tool_calls": calls}})
    data = {**value, "choices": choices} if choices else dict(value)
    return [Frame(data=encode_json(data).decode()), Frame(data="[DONE]")]


# --- tools and formats -----------------------------------------------------------------------------------------------


def _tool(where: str, tool: dict[str, Any], cannot: Cannot) -> dict[str, Any] | None:
    kind = tool.get("type")
    if kind == "function":
        return {"type": kind, kind: {name: tool[name] for name in _FUNCTION if tool.get(name) is not None}}
    if kind == "custom":
        custom = {name: tool[name] for name in ("name", "description", "format") if tool.get(name) is not None}
        form = as_mapping(custom.get("format"))
        if form.get("type") == "grammar" and "grammar" not in form:
            grammar = {name: form.get(name) for name in ("syntax", "definition")}
            custom["format"] = {"type": "grammar", "grammar": grammar}
        return {"type": kind, kind: custom}
    if kind in HOSTED_TOOLS and kind not in tool:  # Z.ai's web_search has its settings under its own name
        cannot(f"{where}: {_API} has no {kind}; give a function that does it, or a tool of the server's own")
        return None
    return tool


def _choose(asked: Asked, made: dict[str, Any]) -> None:
    """Which tools may be used; without tools servers take no word about them."""
    value, parallel = asked.take("tool_choice"), asked.take("parallel_tool_calls")
    if "tools" not in made:
        return
    if parallel is not None:
        made["parallel_tool_calls"] = parallel
    kind, choice = kind_of(value), choice_of(value)
    if kind in ("function", "custom") and choice is not None:
        made["tool_choice"] = {"type": kind, kind: {"name": choice.names[0]}}
    elif kind == "allowed_tools" and choice is not None:
        tools = [{"type": "function", "function": {"name": name}} for name in choice.names]
        made["tool_choice"] = {"type": kind, kind: {"mode": choice.mode, "tools": tools}}
    elif kind in HOSTED_TOOLS:
        asked.cannot(f"tool_choice: {_API} has no {kind}; choose a function")
    elif value is not None:
        made["tool_choice"] = value


def _format(asked: Asked, made: dict[str, Any]) -> None:
    form = asked.fields("format")
    if kind_of(form) == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type" and value is not None}
        made["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form and kind_of(form) != "text":
        made["response_format"] = form
    asked.move(("verbosity",), made)
    asked.refuse_rest()


# --- messages --------------------------------------------------------------------------------------------------------


class _Messages:
    """The messages that items are."""

    def __init__(self, cannot: Cannot, *, openai: bool, reasoning: bool) -> None:
        self._cannot = cannot
        self._openai = openai
        self._reasoning = reasoning
        self._made: list[dict[str, Any]] = []

    def of(self, asked: Asked) -> list[dict[str, Any]]:
        """All of them, the instructions first."""
        instructions = asked.text("instructions")
        if instructions:
            self._made.append({"role": "system", "content": instructions})
        for item in asked.items():
            self._add(item)
        for message in self._made:
            if message["content"] is None and "tool_calls" not in message:
                message["content"] = ""
        return self._made

    def _add(self, item: Item) -> None:
        match item.type:
            case "message":
                self._message(item)
            case "reasoning":
                self._reason(item)
            case "function_call":
                function = {"name": item.text("name"), "arguments": item.text("arguments").strip() or "{}"}
                self._call({"id": item.call_id, "type": "function", "function": function})
            case "custom_tool_call":
                custom = {"name": item.text("name"), "input": item.text("input")}
                self._call({"id": item.call_id, "type": "custom", "custom": custom})
            case "function_call_output" | "custom_tool_call_output":
                self._output(item)
            case "image_generation_call" if item.text("result"):  # as OpenRouter's models give them
                data = item.text("result")
                image = {"type": "image_url", "image_url": {"url": f"data:{image_type(data)};base64,{data}"}}
                self._assistant().setdefault("images", []).append(image)
            case _:
                hosted = "has no such items" if item.type in HOSTED_ITEMS else "knows no such item"
                self._cannot(f"{item.where}: {_API} {hosted} ({item.type}); leave it out of input")

    def _assistant(self) -> dict[str, Any]:
        """The message of the assistant that is under way, or a new one."""
        if not self._made or self._made[-1]["role"] != "assistant":
            self._made.append({"role": "assistant", "content": None})
        return self._made[-1]

    def _message(self, item: Item) -> None:
        role = item.role
        if role == "assistant":
            self._say(self._assistant(), "content", "".join(text_of(part) for _, part in item.parts()))
            return
        parts = [made for where, part in item.parts() if (made := self._part(where, part))]
        plain = len(parts) == 1 and parts[0]["type"] == "text"
        role = "system" if role == "developer" and not self._openai else role
        self._made.append({"role": role, "content": parts[0]["text"] if plain else parts or ""})

    def _reason(self, item: Item) -> None:
        text = item.thoughts() or item.thoughts("summary")
        if text and self._reasoning:
            self._say(self._assistant(), "reasoning_content", text)

    @staticmethod
    def _say(message: dict[str, Any], name: str, text: str) -> None:
        before = message.get(name)
        message[name] = f"{before}\n\n{text}" if before and text else before or text

    def _call(self, call: dict[str, Any]) -> None:
        self._assistant().setdefault("tool_calls", []).append(call)

    def _output(self, item: Item) -> None:
        texts: list[str] = []
        for where, part in item.parts("output"):
            if part["type"] in TEXT_PARTS:
                texts.append(text_of(part))
            else:
                self._cannot(f"{where}: a tool's output is text in {_API}; send it in a message of the user's")
        self._made.append({"role": "tool", "tool_call_id": item.call_id, "content": "".join(texts)})

    def _part(self, where: str, part: dict[str, Any]) -> dict[str, Any] | None:
        """A part of a message; one of the server's own is sent as it is."""
        if part["type"] in TEXT_PARTS:
            return {"type": "text", "text": text_of(part)}
        media = media_of(part)
        if part["type"] == "input_image":
            url = f"data:{media.media_type};base64,{media.data}" if media.data else media.url
            if not url:
                self._cannot(f"{where}: {_API} takes no image by its file_id; give its image_url")
                return None
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        if part["type"] == "input_file":
            if media.url:
                self._cannot(f"{where}: {_API} takes no file by its address; give its file_data")
                return None
            names = ("file_data", "file_id", "filename")
            return {"type": "file", "file": {name: part[name] for name in names if part.get(name)}}
        return part
