"""Requests to Anthropic's Messages API, and to servers that speak it.

Facts: the types of the public package anthropic 2.12.0 (read November 2026).

Decisions. ``max_tokens``, which must be there, is 4096 where none is asked for, and room to think besides. An effort
is ``output_config.effort`` with adaptive thinking for the models of Claude that know it, and a budget of tokens for
older ones and everybody else's. Temperature and top_p are sent as given; new models refuse them, and say so.
"""

from __future__ import annotations

import base64
import re
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
    kind_of,
    media_of,
    object_of,
    on_host,
    text_of,
)
from eventflow.sse import Frame

__all__ = ["body", "frames", "headers", "path", "query"]

_API = "the Messages API"
_VERSION = "2023-06-01"
_MAX_TOKENS = 4096
_LEAST_BUDGET = 1024  # tokens, says the API
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
_OLD = re.compile(r"claude-(?:[1-3]|\w+-4(?:$|[-@](?:[015](?!\d)|2025)))")  # models without adaptive thinking
_SERVICE_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_OF_TOOLS = ("cache_control", "defer_loading", "eager_input_streaming", "input_examples")  # what is Anthropic's own
_NOT_OF_IDS = re.compile(r"[^A-Za-z0-9_-]")  # "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"


def path(model: str, stream: bool) -> str:
    """Where requests go, behind the base address."""
    return "/messages"


def query(stream: bool) -> dict[str, str]:
    """What the address ends with."""
    return {}


def headers(key: str | None) -> dict[str, str]:
    """The key's header, and the version of the API."""
    return {"anthropic-version": _VERSION, **({} if key is None else {"x-api-key": key})}


def body(parameters: Mapping[str, object], stream: bool, cannot: Cannot, base_url: str) -> dict[str, object]:
    """The body of a request.

    Raises:
        UsageError: The parameters are malformed, or *cannot* raises.
    """
    asked = Asked(parameters, _API, cannot)
    made: dict[str, Any] = {}
    asked.move(("model",), made)
    made["max_tokens"] = 0  # `_think` knows how many
    messages = _Messages(cannot, signed=on_host(base_url, ("anthropic.com",)))
    made["messages"] = messages.of(asked)
    made.update({"system": messages.system} if messages.system else {})
    tools = [_tool(where, tool, cannot) for where, tool in asked.tools()]
    made.update({"tools": [tool for tool in tools if tool]} if any(tools) else {})
    _choose(asked, made)
    _think(asked, made)
    _format(asked.part("text"), made)
    _identify(asked, made)
    temperature = asked.take("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        cannot(f"temperature: {_API} goes from 0 to 1, not to {temperature}; give a lower one")
    elif temperature is not None:
        made["temperature"] = temperature
    asked.move({"top_p": "top_p", "stop": "stop_sequences"}, made)
    if isinstance(made.get("stop_sequences"), str):
        made["stop_sequences"] = [made["stop_sequences"]]
    tier = asked.text("service_tier")
    if tier in _SERVICE_TIERS:
        made["service_tier"] = _SERVICE_TIERS[tier]
    elif tier:
        cannot(f"service_tier: {_API} has auto and default, no {tier}; leave it out")
    asked.included()
    asked.take("prompt_cache_key")  # a hint for OpenAI's servers
    for name in ("prompt_cache_options", "prompt_cache_retention"):
        asked.refuse(name, "give cache_control, which is its own")
    if not isinstance(parameters.get("context_management"), Mapping):  # an object is the API's own
        asked.refuse("context_management", "give the object that is its own")
    for name in ("moderation", "store", "top_logprobs"):
        asked.refuse(name)
    asked.refuse_what_is_kept()
    asked.take("stream_options")  # its usage comes by itself
    made.update({"stream": True} if stream else {})
    return asked.rest(made)


def frames(value: Mapping[str, object]) -> list[Frame]:
    """A message that came whole, as the frames of a stream."""
    if value.get("type") == "error" or "content" not in value:
        return [_frame("error", **value)]
    usage = as_mapping(value.get("usage"))
    made = [_frame("message_start", message={**value, "content": [], "stop_reason": None})]
    for index, given in enumerate(as_list(value.get("content"))):
        block = as_mapping(given)
        pieces: list[dict[str, Any]] = []
        if block.get("type") == "thinking":  # its signature is told in a piece, be it empty
            pieces.append({"type": "thinking_delta", "thinking": block.get("thinking") or ""})
            if "signature" in block:
                pieces.append({"type": "signature_delta", "signature": block["signature"]})
            block = {**block, "thinking": "", "signature": ""}
        made.append(_frame("content_block_start", index=index, content_block=block))
        made += [_frame("content_block_delta", index=index, delta=piece) for piece in pieces]
        made.append(_frame("content_block_stop", index=index))
    delta = {name: value.get(name) for name in ("stop_reason", "stop_sequence")}
    made += [_frame("message_delta", delta=delta, usage=usage), _frame("message_stop")]
    return made


def _frame(kind: str, /, **fields: object) -> Frame:
    return Frame(kind, encode_json({**fields, "type": kind}).decode())


# --- tools, thinking, formats ----------------------------------------------------------------------------------------


def _tool(where: str, tool: dict[str, Any], cannot: Cannot) -> dict[str, Any] | None:
    kind = tool.get("type")
    if kind == "function":
        made: dict[str, Any] = {"name": tool["name"]}
        made["input_schema"] = tool.get("parameters") or {"type": "object", "properties": {}}
        made.update({name: tool[name] for name in ("description", *_OF_TOOLS) if tool.get(name) is not None})
        return {**made, "strict": True} if tool.get("strict") else made
    if kind == "custom" and "input_schema" not in tool:
        cannot(f"{where}: tools take JSON in {_API}; make {tool.get('name')} a function with a field for its text")
        return None
    if kind in HOSTED_TOOLS:
        cannot(f"{where}: {_API} has no {kind}; give a tool of its own, such as web_search_20250305")
        return None
    return tool


def _choose(asked: Asked, made: dict[str, Any]) -> None:
    """Which tools may be used; without tools no word is taken about them."""
    value, parallel = asked.take("tool_choice"), asked.take("parallel_tool_calls")
    if "tools" not in made:
        return
    choice, chosen = choice_of(value), as_mapping(value)
    if choice is not None and len(choice.names) == 1 and choice.mode == "required":
        chosen = {"type": "tool", "name": choice.names[0]}
    elif choice is not None:
        chosen = {"type": "any" if choice.mode == "required" else choice.mode}
        if choice.names:
            asked.cannot(f"tool_choice: {_API} allows one tool or all; give the allowed ones alone as tools")
    elif kind_of(chosen) in HOSTED_TOOLS or (value is not None and not chosen):
        asked.cannot(f"tool_choice: {_API} cannot choose {value!r}; choose auto, none, required or a function")
        chosen = {}
    if parallel is False and chosen.get("type") != "none":
        chosen = {"type": "auto", **chosen, "disable_parallel_tool_use": True}
    made.update({"tool_choice": chosen} if chosen else {})


def _think(asked: Asked, made: dict[str, Any]) -> None:
    """How much to think, and how many tokens may come of it all."""
    reasoning, maximum = asked.part("reasoning"), asked.take("max_output_tokens")
    effort = reasoning.text("effort")
    summary = reasoning.take("summary") or reasoning.take("generate_summary")
    reasoning.refuse_rest()
    made["max_tokens"] = _MAX_TOKENS if maximum is None else maximum
    if effort == "none":
        made["thinking"] = {"type": "disabled"}
        return
    if not effort and not summary:
        return
    budget = _BUDGETS.get(effort or "medium")
    if budget is None:
        asked.cannot(f"reasoning.effort: it is none or one of {', '.join(_BUDGETS)}, not {effort!r}; give one of them")
        return
    if maximum is None:
        made["max_tokens"] += budget
    model = str(made.get("model") or "")
    if "claude" in model and not _OLD.search(model):
        made["thinking"] = {"type": "adaptive", **({"display": "summarized"} if summary else {})}
        made.update({"output_config": {"effort": "low" if effort == "minimal" else effort}} if effort else {})
    elif made["max_tokens"] > _LEAST_BUDGET:
        made["thinking"] = {"type": "enabled", "budget_tokens": min(budget, made["max_tokens"] - 1)}
    else:
        asked.cannot(
            f"reasoning.effort: thinking takes {_LEAST_BUDGET} tokens at least, and the answer some more; raise "
            f"max_output_tokens, which is {maximum}"
        )


def _format(asked: Asked, made: dict[str, Any]) -> None:
    form = asked.fields("format")
    if kind_of(form) == "json_schema":
        wanted = {"type": "json_schema", "schema": as_mapping(form.get("schema"))}
        made["output_config"] = {**as_mapping(made.get("output_config")), "format": wanted}
    elif form and kind_of(form) != "text":
        asked.cannot(f"text.format: {_API} has no {kind_of(form)}; give a json_schema")
    asked.refuse_rest()


def _identify(asked: Asked, made: dict[str, Any]) -> None:
    """Who asks: all that there is place for."""
    metadata, user = asked.fields("metadata"), asked.take("user")
    identifier = asked.take("safety_identifier") or user or metadata.get("user_id")
    if identifier:
        made["metadata"] = {"user_id": identifier}
    if metadata.keys() - {"user_id"}:
        asked.cannot(f"metadata: {_API} keeps a user_id alone; keep the rest yourself")


# --- messages --------------------------------------------------------------------------------------------------------


class _Messages:
    """The messages that items are: of users and assistants in turn, each with all its blocks.

    Attributes:
        system: What is said before all of them.
    """

    def __init__(self, cannot: Cannot, *, signed: bool) -> None:
        self.system = ""
        self._cannot = cannot
        self._signed = signed  # whether thoughts without a signature are refused
        self._made: list[dict[str, Any]] = []

    def of(self, asked: Asked) -> list[dict[str, Any]]:
        """All of them."""
        self.system = asked.text("instructions")
        for item in asked.items():
            self._add(item)
        for message in self._made:  # results come before what else the user says
            message["content"].sort(key=_is_no_result)
        return self._made

    def _put(self, role: str, *blocks: dict[str, Any]) -> None:
        if blocks and (not self._made or self._made[-1]["role"] != role):
            self._made.append({"role": role, "content": []})
        if blocks:
            self._made[-1]["content"] += blocks

    def _add(self, item: Item) -> None:
        match item.type:
            case "message":
                self._message(item)
            case "reasoning":
                self._reason(item)
            case "function_call" | "custom_tool_call":
                given = item.type == "function_call"
                arguments = object_of(item.text("arguments")) if given else {"input": item.text("input")}
                self._use("tool_use", item, _id(item.call_id), arguments)
            case "function_call_output" | "custom_tool_call_output":
                blocks = self._blocks(item, "output")
                plain = len(blocks) == 1 and blocks[0]["type"] == "text"
                content = blocks[0]["text"] if plain else blocks
                result = {"type": "tool_result", "tool_use_id": _id(item.call_id)}
                self._put("user", {**result, "content": content} if blocks else result)
            case "mcp_call" if isinstance(item.data.get("output"), dict) or "output" not in item.data:
                self._provided(item)
            case kind if kind in HOSTED_ITEMS - {"compaction"}:
                self._cannot(f"{item.where}: {_API} has no such items ({kind}); leave it out of input")
            case _:  # a block that was passed on as it is
                self._put("assistant", item.data)

    def _use(self, kind: str, item: Item, call_id: str, arguments: dict[str, Any], **more: str) -> None:
        block = {"type": kind, "id": call_id, "name": item.text("name"), "input": arguments, **more}
        caller = item.data.get("caller")
        self._put("assistant", {**block, "caller": caller} if caller else block)

    def _provided(self, item: Item) -> None:
        """A call of the provider's own, and its result."""
        server, arguments = item.text("server_label"), object_of(item.text("arguments"))
        if server:
            self._use("mcp_tool_use", item, item.call_id, arguments, server_name=server)
        else:
            self._use("server_tool_use", item, item.call_id, arguments)
        if item.data.get("output"):
            self._put("assistant", item.data["output"])

    def _message(self, item: Item) -> None:
        role, blocks = item.role, self._blocks(item, "content")
        if role in ("user", "assistant"):
            self._put(role, *blocks)
        elif self._made:
            self._put("system", *blocks)
        else:
            texts = (text_of(block) for block in blocks)
            self.system = "\n\n".join(filter(None, (self.system, *texts)))

    def _reason(self, item: Item) -> None:
        sealed = item.data.get("encrypted_content")
        if item.data.get("content"):
            if sealed is None and self._signed:
                self._cannot(
                    f"{item.where}: {_API} takes back no reasoning without its signature; leave it out of input"
                )
            else:
                self._put("assistant", {"type": "thinking", "thinking": item.thoughts(), "signature": sealed or ""})
        elif sealed and not item.data.get("summary"):
            self._put("assistant", {"type": "redacted_thinking", "data": sealed})
        elif sealed or item.data.get("summary"):
            self._cannot(f"{item.where}: this reasoning is not of {_API}; leave it out of input")

    def _blocks(self, item: Item, name: str) -> list[dict[str, Any]]:
        blocks = (self._block(where, part) for where, part in item.parts(name))
        return [block for block in blocks if block]

    def _block(self, where: str, part: dict[str, Any]) -> dict[str, Any] | None:
        """A part of a message; one of the API's own is sent as it is, an empty one not at all."""
        kind = part["type"]
        if kind in TEXT_PARTS and not ("cache_control" in part or "citations" in part):
            return {"type": "text", "text": text_of(part)} if text_of(part) else None
        if kind == "input_image":
            return self._image(where, part)
        if kind == "input_file":
            return self._file(where, part)
        if kind == "input_audio":
            self._cannot(f"{where}: {_API} takes no audio; send its text")
            return None
        return {**part, "type": "text"} if kind in TEXT_PARTS else part

    def _image(self, where: str, part: dict[str, Any]) -> dict[str, Any]:
        if part.get("detail") not in (None, "auto"):
            self._cannot(f"{where}.detail: {_API} has no {part['detail']}; scale the image yourself")
        return {"type": "image", "source": _source(part)}

    def _file(self, where: str, part: dict[str, Any]) -> dict[str, Any] | None:
        media = media_of(part)
        source: dict[str, Any] | None = _source(part)
        if media.media_type.startswith("image/"):
            return {"type": "image", "source": source}
        if media.data and media.media_type.startswith("text/"):
            text = base64.b64decode(media.data).decode(errors="replace")
            source = {"type": "text", "media_type": "text/plain", "data": text}
        elif media.data and media.media_type != "application/pdf":
            known = media.media_type or f"{media.name!r}, whose type is not known,"
            self._cannot(f"{where}: {_API} takes PDF, text and images, not {known}; send what it says as text")
            return None
        return {"type": "document", "source": source, **({"title": media.name} if media.name else {})}


def _is_no_result(block: dict[str, Any]) -> bool:
    return bool(block["type"] != "tool_result")


def _source(part: dict[str, Any]) -> dict[str, Any]:
    media = media_of(part)
    if media.data:
        return {"type": "base64", "media_type": media.media_type, "data": media.data}
    return {"type": "url", "url": media.url} if media.url else {"type": "file", "file_id": media.file_id}


def _id(call_id: str) -> str:
    """An id as the API takes it: other providers' may have other characters."""
    return _NOT_OF_IDS.sub("_", call_id)
