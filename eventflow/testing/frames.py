"""What a model says, as the server-sent events of each provider's API. Sans-IO.

Facts: the types of the public packages openai 3.54.0 and anthropic 2.12.0, Google's reference of the Gemini API, and
recorded streams (November 2026). OpenAI's own chat models do not show their reasoning: there it is in
``reasoning_content``, as most servers of other models send it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, cast

import attrs
import msgspec

from eventflow import sse
from eventflow.errors import UsageError, excerpt
from eventflow.events import StreamError, Usage

__all__ = ["WIRES", "Call", "Said", "Wire"]

CREATED: Final = 1_700_000_000  # seconds since 1970: fakes look at no clock
_SIGNATURE = "c2lnbmF0dXJl"  # what Anthropic signs thinking with, and wants back

_Frames: TypeAlias = Iterator[tuple[str | None, Any]]  # of each event its name, where it has one, and its data


@attrs.frozen
class Call:
    """A call of a function.

    Attributes:
        name: Of the function.
        arguments: Pieces of JSON text.
        call_id: What its output refers to.
    """

    name: str
    arguments: tuple[str, ...]
    call_id: str


@attrs.frozen(kw_only=True)
class Said:
    """What a model says in one answer, in this order; texts are pieces, as they come."""

    reasoning: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    refusal: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    usage: Usage | None = None
    model: str = "made-up"
    response_id: str = "resp_1"
    reason: str | None = None  # why it is not whole
    error: StreamError | None = None  # why it failed at its end


@attrs.frozen(kw_only=True)
class Wire:
    """How one provider says it.

    Attributes:
        name: Of the wire.
        reasons: Why an answer may be incomplete, in the words of the Responses API, and the provider's own.
        silent: What of `Said` it has no words for, and what to give instead.
        frames: The events of an answer that comes to its end.
        fault: The events that tell of an error, after so many others.
        line_end: Of its blocks.
    """

    name: str
    reasons: Mapping[str, str]
    silent: Mapping[str, str]
    frames: Callable[[Said], _Frames] = attrs.field(repr=False)
    fault: Callable[[StreamError, int], _Frames] = attrs.field(repr=False)
    line_end: bytes = b"\n"

    def blocks(self, said: Said) -> list[bytes]:
        """The answer, one server-sent event after the other."""
        return [self._block(*frame) for frame in self.frames(said)]

    def fault_blocks(self, error: StreamError, count: int) -> list[bytes]:
        """What comes instead of the rest where the provider fails after *count* events."""
        return [self._block(*frame) for frame in self.fault(error, count)]

    def _block(self, name: str | None, data: Any) -> bytes:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return sse.encode(event=name, data=text).replace(b"\n", self.line_end)


# --- Responses -------------------------------------------------------------------------------------------------------


def _responses(said: Said) -> _Frames:
    for number, event in enumerate(_responses_events(said)):
        yield event["type"], {**event, "sequence_number": number}


def _responses_events(said: Said) -> Iterator[dict[str, Any]]:
    begun = _response(said, "in_progress")
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    items = _items(said)
    output = list[dict[str, Any]]()
    for index, item in enumerate(items):
        last = index == len(items) - 1
        whole = {**item.whole, "status": "incomplete" if said.reason and last else "completed"}
        yield {"type": "response.output_item.added", "output_index": index, "item": item.opened}
        for event in item.events:
            yield {"type": event["type"], "item_id": whole["id"], "output_index": index, **event}
        yield {"type": "response.output_item.done", "output_index": index, "item": whole}
        output.append(whole)
    status = "failed" if said.error is not None else "incomplete" if said.reason else "completed"
    ended = {**_response(said, status), "output": output}
    if said.usage is not None:
        ended["usage"] = msgspec.to_builtins(said.usage)
    if said.reason:
        ended["incomplete_details"] = {"reason": said.reason}
    if said.error is not None:
        ended["error"] = {"code": said.error.code or "server_error", "message": said.error.message}
    yield {"type": f"response.{status}", "response": ended}


def _response(said: Said, status: str) -> dict[str, Any]:
    return {
        "id": said.response_id,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": said.model,
        "output": [],
        "usage": None,
    }


@attrs.frozen
class _Item:
    opened: dict[str, Any]
    whole: dict[str, Any]
    events: list[dict[str, Any]]


def _items(said: Said) -> list[_Item]:
    items = list[_Item]()
    if said.reasoning or said.summary:
        opened: dict[str, Any] = {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
        content, events = _parts("reasoning_text", said.reasoning)
        summary, more = _parts("summary_text", said.summary)
        items.append(_Item(opened, {**opened, "summary": summary, "content": content}, events + more))
    if said.text or said.refusal:
        opened = {"id": "msg_1", "type": "message", "status": "in_progress", "content": [], "role": "assistant"}
        content, events = _parts("output_text", said.text)
        refusal, more = _parts("refusal", said.refusal, len(content))
        items.append(_Item(opened, {**opened, "content": content + refusal}, events + more))
    for number, call in enumerate(said.calls, 1):
        arguments = "".join(call.arguments)
        named = {"name": call.name, "call_id": call.call_id}
        opened = {"id": f"fc_{number}", "type": "function_call", "status": "in_progress", "arguments": "", **named}
        kind = "response.function_call_arguments"
        events = [{"type": f"{kind}.delta", "delta": piece} for piece in call.arguments]
        events.append({"type": f"{kind}.done", "arguments": arguments})
        items.append(_Item(opened, {**opened, "arguments": arguments}, events))
    return items


_PART_EVENTS = {  # of each kind of part: the events around it, and those of its text
    "output_text": ("response.content_part", "response.output_text"),
    "refusal": ("response.content_part", "response.refusal"),
    "reasoning_text": ("response.content_part", "response.reasoning_text"),
    "summary_text": ("response.reasoning_summary_part", "response.reasoning_summary_text"),
}


def _parts(kind: str, pieces: tuple[str, ...], index: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The part that *pieces* make, where there are any, and the events that tell of it."""
    if not pieces:
        return [], []
    around, text = _PART_EVENTS[kind]
    field = "refusal" if kind == "refusal" else "text"
    rest: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
    scored: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
    at = {"summary_index" if kind == "summary_text" else "content_index": index}
    whole = "".join(pieces)
    part = {"type": kind, **rest, field: whole}
    events = [
        {"type": f"{around}.added", **at, "part": {**part, field: ""}},
        *({"type": f"{text}.delta", **at, "delta": piece, **scored} for piece in pieces),
        {"type": f"{text}.done", **at, field: whole, **scored},
        {"type": f"{around}.done", **at, "part": part},
    ]
    return [part], events


def _responses_fault(error: StreamError, count: int) -> _Frames:
    fault = {"code": error.code or "server_error", "message": error.message, "param": error.param}
    yield "error", {"type": "error", **fault, "sequence_number": count}


# --- Chat Completions ------------------------------------------------------------------------------------------------


def _chat(said: Said) -> _Frames:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> tuple[None, dict[str, Any]]:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return None, {**envelope, "choices": choices}

    envelope = {
        "id": said.response_id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": said.model,
    }
    yield chunk({"role": "assistant", "content": ""})
    for piece in said.reasoning:
        yield chunk({"reasoning_content": piece})
    for piece in said.text:
        yield chunk({"content": piece})
    for piece in said.refusal:
        yield chunk({"refusal": piece})
    for index, call in enumerate(said.calls):
        function = {"name": call.name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": call.call_id, "type": "function", "function": function}]})
        for piece in call.arguments:
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, _finish_of(CHAT, said, "tool_calls" if said.calls else "stop"))
    if said.usage is not None:
        yield None, {**envelope, "choices": [], "usage": _chat_usage(said.usage)}
    yield None, "[DONE]"


def _chat_usage(usage: Usage) -> dict[str, Any]:
    counted: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.input_tokens_details is not None:
        counted["prompt_tokens_details"] = msgspec.to_builtins(usage.input_tokens_details)
    if usage.output_tokens_details is not None:
        counted["completion_tokens_details"] = msgspec.to_builtins(usage.output_tokens_details)
    return counted


def _chat_fault(error: StreamError, count: int) -> _Frames:
    fault = {"message": error.message, "type": error.error_type or "server_error"}
    yield None, {"error": {**fault, "param": error.param, "code": error.code or "server_error"}}


# --- Anthropic -------------------------------------------------------------------------------------------------------


def _anthropic(said: Said) -> _Frames:
    for event in _anthropic_events(said):
        yield event["type"], event


def _anthropic_events(said: Said) -> Iterator[dict[str, Any]]:
    message: dict[str, Any] = {
        "id": said.response_id,
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    usage = _anthropic_usage(said.usage)
    if usage is not None:
        message["usage"] = {**usage, "output_tokens": usage["output_tokens"] and 1}  # so far
    yield {"type": "message_start", "message": message}
    for index, (block, deltas) in enumerate(_blocks(said)):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        if index == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = _finish_of(ANTHROPIC, said, "tool_use" if said.calls else "end_turn")
    changed: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}}
    yield {**changed, **({} if usage is None else {"usage": usage})}
    yield {"type": "message_stop"}


def _blocks(said: Said) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    if said.reasoning:
        thinking = [{"type": "thinking_delta", "thinking": piece} for piece in said.reasoning]
        signature = {"type": "signature_delta", "signature": _SIGNATURE}
        yield {"type": "thinking", "thinking": "", "signature": ""}, [*thinking, signature]
    if said.text:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in said.text]
    for call in said.calls:
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *call.arguments)]
        yield {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}, pieces


def _anthropic_usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    cached, thought = usage.input_tokens_details, usage.output_tokens_details
    counted: dict[str, Any] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if cached is not None:
        counted["cache_read_input_tokens"] = cached.cached_tokens
        counted["cache_creation_input_tokens"] = cached.cache_write_tokens
    if thought is not None:
        counted["output_tokens_details"] = {"thinking_tokens": thought.reasoning_tokens}
    return counted


def _anthropic_fault(error: StreamError, count: int) -> _Frames:
    kind = error.error_type or "api_error"
    yield "error", {"type": "error", "error": {"type": kind, "message": error.message}}


# --- Gemini ----------------------------------------------------------------------------------------------------------


def _gemini(said: Said) -> _Frames:
    parts: list[dict[str, Any]] = [{"text": piece, "thought": True} for piece in said.reasoning]
    parts += [{"text": piece} for piece in said.text]
    for call in said.calls:
        named = {"id": call.call_id, "name": call.name}
        parts.append({"functionCall": {**named, "args": _object_of(call)}})
    parts = parts or [{"text": ""}]
    for number, part in enumerate(parts, 1):
        candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
        chunk: dict[str, Any] = {"candidates": [candidate]}
        if number == len(parts):
            candidate["finishReason"] = _finish_of(GEMINI, said, "STOP")
            if said.usage is not None:
                chunk["usageMetadata"] = _gemini_usage(said.usage)
        yield None, {**chunk, "modelVersion": said.model, "responseId": said.response_id}


def _object_of(call: Call) -> dict[str, Any]:
    text = "".join(call.arguments)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(
            f"gemini sends a call's arguments as a JSON object, which those of {call.name} are not: {excerpt(text)}; "
            "give a mapping, or another wire"
        )
    return cast("dict[str, Any]", value)


def _gemini_usage(usage: Usage) -> dict[str, Any]:
    cached, thought = usage.input_tokens_details, usage.output_tokens_details
    thoughts = None if thought is None else thought.reasoning_tokens
    said = usage.output_tokens
    counted = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": None if said is None else said - (thoughts or 0),
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": usage.total_tokens,
        "cachedContentTokenCount": None if cached is None else cached.cached_tokens,
    }
    return {name: value for name, value in counted.items() if value is not None}


def _gemini_fault(error: StreamError, count: int) -> _Frames:
    kind = error.error_type or "INTERNAL"
    yield None, {"error": {"code": error.status or 500, "message": error.message, "status": kind}}


# --- the table -------------------------------------------------------------------------------------------------------


def _finish_of(wire: Wire, said: Said, whole: str) -> str:
    return whole if said.reason is None else wire.reasons[said.reason]


# What only some have words for, and what to give instead.
_NO_FAILURE = {"error": "error_at=... makes a stream that fails"}
_NO_SUMMARY = {"summary": "give reasoning=..., or wire='responses'"}
_NO_REFUSAL = {"refusal": "give text=... with status='incomplete' and reason='content_filter'"}

RESPONSES: Final = Wire(
    name="responses",
    reasons={"max_output_tokens": "max_output_tokens", "content_filter": "content_filter"},
    silent={},
    frames=_responses,
    fault=_responses_fault,
)
CHAT: Final = Wire(
    name="chat",
    reasons={"max_output_tokens": "length", "content_filter": "content_filter"},
    silent=_NO_FAILURE | _NO_SUMMARY,
    frames=_chat,
    fault=_chat_fault,
)
ANTHROPIC: Final = Wire(
    name="anthropic",
    reasons={"max_output_tokens": "max_tokens", "content_filter": "refusal", "pause_turn": "pause_turn"},
    silent=_NO_FAILURE | _NO_SUMMARY | _NO_REFUSAL,
    frames=_anthropic,
    fault=_anthropic_fault,
)
GEMINI: Final = Wire(
    name="gemini",
    reasons={"max_output_tokens": "MAX_TOKENS", "content_filter": "SAFETY", "other": "OTHER"},
    silent=_NO_FAILURE | _NO_SUMMARY | _NO_REFUSAL,
    frames=_gemini,
    fault=_gemini_fault,
    line_end=b"\r\n",
)
WIRES: Final = {wire.name: wire for wire in (RESPONSES, CHAT, ANTHROPIC, GEMINI)}
"""By their names."""
