"""The wire of Chat Completions: OpenAI's, and that of the many servers that speak it in their own ways.

Facts: the types of the public package openai 3.54.0, and recorded streams of some forty servers (November 2026). One
output item per choice, in the order in which they begin; reasoning, text and each tool call are items of their own.
What has no place in the vocabulary is in ``extra``: of chunks and choices where it changes, of deltas always.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, cast

import msgspec

from eventflow.events import (
    AudioDelta,
    AudioDone,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    CustomToolCall,
    Event,
    FunctionCall,
    FunctionCallArgumentsDelta,
    ImageGenerationCall,
    InputTokensDetails,
    Logprob,
    OutputTokensDetails,
    ReasoningTextDelta,
    RefusalDelta,
    StreamError,
    TextDelta,
    Untyped,
    URLCitation,
    Usage,
    encode_json,
)
from eventflow.events._decode import BUILDING, STRICT_ERRORS
from eventflow.limits import Limits
from eventflow.plain import as_list, as_mapping, as_number, as_text
from eventflow.sse import Frame
from eventflow.wires.translation import TranslatingWire, spoken

__all__ = ["ChatWire"]

_REASONS = {  # why an answer is not whole
    "length": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "model_length": "max_output_tokens",
    "content_filter": "content_filter",
}
_ENVELOPE = {"id", "object", "created", "model", "choices", "usage", "obfuscation", "p", "error"}
_CHOICE = {"index", "delta", "message", "finish_reason", "finishReason", "logprobs", "error"}
_DELTA = {"role", "content", "refusal", "tool_calls", "function_call", "audio", "annotations", "images"}
_REASONING = ("reasoning_content", "reasoning")


# --- the short way: what nearly every chunk is, decoded strictly -----------------------------------------------------


class _Strict(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A chunk with anything else in it goes the long way."""


class _Function(_Strict):
    arguments: str
    name: None = None


class _Call(_Strict):
    index: int
    function: _Function
    id: None = None
    type: str | None = None


class _Delta(_Strict):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[_Call, ...] | None = None
    role: str | None = None
    refusal: None = None
    function_call: None = None


class _Choice(_Strict):
    delta: _Delta
    index: int = 0
    finish_reason: None = None
    logprobs: None = None
    native_finish_reason: None = None


class _Chunk(_Strict):
    choices: tuple[_Choice]
    id: str | None = None
    object: str | None = None
    created: float | None = None
    model: str | None = None
    usage: None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    provider: str | None = None
    obfuscation: str | None = None
    p: str | None = None


_KEPT = ("system_fingerprint", "service_tier", "provider")

_read_chunk = msgspec.json.Decoder(_Chunk).decode


class _Head(msgspec.Struct):
    """What tells a chunk from the frames of other wires."""

    choices: list[Any] | msgspec.UnsetType | None = msgspec.UNSET
    object: str | None = None
    created: float | None = None
    model: str | None = None
    type: str | None = None


_read_head = msgspec.json.Decoder(_Head).decode


class ChatWire(TranslatingWire):
    """Chunks of one Chat Completions stream as events of a Responses stream."""

    name: ClassVar[str] = "chat"
    _frame_name: ClassVar[str] = "a chunk of a chat stream"
    _has_end_mark: ClassVar[bool] = True

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._usage: Usage | None = None
        self._heard = set[int]()  # the choices that are
        self._finishes: dict[int, str] = {}  # by choice
        self._open: dict[int, Hashable] = {}  # of each choice: what its last piece of text belongs to
        self._calls: dict[int, list[Hashable]] = {}  # of each choice: its calls, in order
        self._by_call_id: dict[tuple[int, str], Hashable] = {}  # the same by choice and id
        self._audio = False

    @property
    def finished(self) -> bool:
        """Whether the end of the body would be the end of the answer: of every choice of it."""
        return bool(self._finishes) and self._heard <= self._finishes.keys()

    @staticmethod
    def fits(frame: Frame) -> bool:
        """Whether the frame's data is an object with choices, or with what else a chunk has."""
        try:
            head = _read_head(frame.data)
        except STRICT_ERRORS:
            return False
        if head.choices is not msgspec.UNSET or (head.object or "").startswith("chat.completion"):
            return True
        return head.created is not None and head.model is not None and head.type is None

    def delta(self, name: str, data: bytes) -> Event | None:
        """The short way: the one event of a chunk that brings the next piece of something open; None for others."""
        if name == "error":
            return None
        try:
            chunk = _read_chunk(data)
        except STRICT_ERRORS:
            return None
        kept = self._kept
        for field in _KEPT:
            value = getattr(chunk, field)
            if value is not None and kept.get(field) != value:
                return None  # that is for ``extra``
        (choice,) = chunk.choices
        delta, index = choice.delta, choice.index
        calls, text, reasoning = delta.tool_calls, delta.content, delta.reasoning_content or delta.reasoning
        if calls:
            call = calls[0]
            if len(calls) > 1 or text or reasoning or not call.function.arguments:
                return None
            key = (index, "tool", call.index)
            return self._assembler.next_piece(key, FunctionCallArgumentsDelta, call.function.arguments)
        if text:
            return None if reasoning else self._assembler.next_piece((index, "text"), TextDelta, text)
        if reasoning:
            return self._assembler.next_piece((index, "reasoning"), ReasoningTextDelta, reasoning)
        return None

    def _hear(self, chunk: dict[str, Any], name: str) -> None:
        if name == "error" or chunk.get("error"):
            self._fail(StreamError.from_wire(chunk))
            return
        assembler = self._assembler
        choices = as_list(chunk.get("choices"))
        if not assembler.begun and (choices or chunk.get("id")):  # Azure sends a chunk without either first
            created = chunk.get("created")
            assembler.begin(
                response_id=as_text(chunk.get("id")) or None,
                model=as_text(chunk.get("model")) or None,
                created_at=created if isinstance(created, int | float) else None,
            )
        self._keep({name: value for name, value in chunk.items() if name not in _ENVELOPE}, latest=True)
        usage = chunk.get("usage") or as_mapping(chunk.get("x_groq")).get("usage")
        if isinstance(usage, Mapping):
            self._usage = _usage_of(cast("Mapping[str, Any]", usage))
            self._keep({"usage": usage}, latest=True)
        for choice in choices:
            self._choice(as_mapping(choice))
            if assembler.ended:
                break

    # --- a choice ----------------------------------------------------------------------------------------------------

    def _choice(self, choice: Mapping[str, Any]) -> None:
        index = choice.get("index")
        index = index if isinstance(index, int) else 0
        self._heard.add(index)
        delta = as_mapping(choice.get("delta") or choice.get("message"))
        self._keep({name: value for name, value in choice.items() if name not in _CHOICE})
        known = {*_DELTA, *_REASONING, "reasoning_details"}
        self._assembler.keep({name: value for name, value in delta.items() if name not in known and value})
        self._reasoning(index, delta)
        self._content(index, delta, _logprobs_of(as_mapping(choice.get("logprobs"))))
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._piece(index, "text", RefusalDelta, refusal)
        for call in as_list(delta.get("tool_calls")):
            self._call(index, as_mapping(call))
        if isinstance(delta.get("function_call"), Mapping):  # how functions were called before there were tools
            self._call(index, {"index": 0, "function": delta["function_call"]})
        self._media(delta)
        if choice.get("error"):
            self._fail(StreamError.from_wire(choice))
            return
        finish = choice.get("finish_reason") or choice.get("finishReason")
        if isinstance(finish, str) and finish:
            self._finishes[index] = finish
            self._keep({"finish_reason": finish})

    def _piece(self, index: int, kind: str, cls: Any, text: str, **fields: Any) -> None:
        """A piece of text of a choice; what it spoke before, with another voice, is complete."""
        key = (index, kind)
        before = self._open.get(index)
        if before is not None and before != key:
            self._assembler.close(before)
        self._open[index] = key
        self._assembler.piece(key, cls, text, **fields)

    def _reasoning(self, index: int, delta: Mapping[str, Any]) -> None:
        details = [as_mapping(detail) for detail in as_list(delta.get("reasoning_details"))]
        text = next((delta[name] for name in _REASONING if isinstance(delta.get(name), str) and delta[name]), "")
        if not text:  # what OpenRouter says twice, others say here alone
            text = "".join(as_text(detail.get("text") or detail.get("summary")) for detail in details)
        if text:
            self._piece(index, "reasoning", ReasoningTextDelta, text)
        sealed = "".join(as_text(detail.get("data") or detail.get("signature")) for detail in details)
        if sealed:
            key = (index, "reasoning")
            self._assembler.keep({"reasoning_details": details})
            self._open.setdefault(index, key)
            self._assembler.seal(key, sealed)

    def _content(self, index: int, delta: Mapping[str, Any], logprobs: Any) -> None:
        content = delta.get("content")
        fields = {"logprobs": logprobs} if logprobs else {}
        if not isinstance(content, list | tuple):
            text = spoken(content, "the content of a chunk")
            if text or (fields and content is not None):
                self._piece(index, "text", TextDelta, text, **fields)
        for part in as_list(content):  # Mistral's thinking models
            part = as_mapping(part)
            thinking = part.get("thinking")
            if thinking is not None:
                said = (
                    thinking
                    if isinstance(thinking, str)
                    else "".join(as_text(as_mapping(t).get("text")) for t in as_list(thinking))
                )
                self._piece(index, "reasoning", ReasoningTextDelta, said)
            elif isinstance(part.get("text"), str):
                self._piece(index, "text", TextDelta, part["text"])
            else:
                self._assembler.keep({"content": [part]})
        for annotation in as_list(delta.get("annotations")):
            self._annotate(index, as_mapping(annotation))

    def _annotate(self, index: int, annotation: dict[str, Any]) -> None:
        if self._open.get(index) != (index, "text"):
            self._piece(index, "text", TextDelta, "")
        cited = as_mapping(annotation.get("url_citation"))
        if cited:
            known = {name: cited.get(name) for name in ("url", "title", "start_index", "end_index")}
            self._assembler.keep({"annotation": annotation})
            self._assembler.annotate((index, "text"), URLCitation(**known))
        else:
            self._assembler.annotate((index, "text"), Untyped(annotation))

    def _media(self, delta: Mapping[str, Any]) -> None:
        audio = as_mapping(delta.get("audio"))
        if audio:
            self._audio = True
            self._assembler.keep({name: audio[name] for name in ("id", "expires_at") if audio.get(name)})
            if audio.get("data"):
                self._assembler.emit(AudioDelta(as_text(audio["data"])))
            if audio.get("transcript"):
                self._assembler.emit(AudioTranscriptDelta(as_text(audio["transcript"])))
        for image in as_list(delta.get("images")):  # of OpenRouter
            url = as_text(as_mapping(as_mapping(image).get("image_url")).get("url"))
            head, _, data = url.partition(",")
            self._assembler.keep({"image": image} if not data else {"image_format": head})
            self._assembler.item(ImageGenerationCall(status="completed", result=data or None))

    # --- tool calls --------------------------------------------------------------------------------------------------

    def _call(self, index: int, call: Mapping[str, Any]) -> None:
        function, custom = as_mapping(call.get("function")), as_mapping(call.get("custom"))
        name = as_text(function.get("name") or custom.get("name"))
        given = function.get("arguments", custom.get("input"))
        arguments = given if isinstance(given, str) else "" if given is None else encode_json(given).decode()
        call_id = as_text(call.get("id"))
        key = self._key_of_call(index, call, call_id, name)
        opened = self._assembler.item_of(key)
        if opened is None:
            before = self._open.pop(index, None)
            if before is not None:
                self._assembler.close(before)
            self._calls.setdefault(index, []).append(key)
            cls = CustomToolCall if custom else FunctionCall
            # Some servers give no id; outputs need one to refer to.
            call_id = call_id or f"call_{index}_{len(self._calls[index])}"
            self._by_call_id[index, call_id] = key
            self._assembler.call(key, cls(name=name, call_id=call_id))
        elif (  # the name comes in pieces; some servers repeat it whole
            isinstance(opened, FunctionCall | CustomToolCall)
            and not opened.name.endswith(name)
            and not self._assembler.has_arguments(key)
        ):
            whole = opened.name + name
            self._assembler.count("arguments", len(whole))  # at every piece, for every piece copies it
            self._assembler.amend(key, name=whole)
        known = {"index", "id", "type", "function", "custom"}
        self._assembler.keep({name: value for name, value in call.items() if name not in known and value})
        self._assembler.arguments(key, arguments)

    def _key_of_call(self, index: int, call: Mapping[str, Any], call_id: str, name: str) -> Hashable:
        """Which call a piece belongs to: by its index; by its id where there is none, or several share one."""
        calls = self._calls.get(index, [])
        number = call.get("index")
        if isinstance(number, int):
            key: Hashable = (index, "tool", number)
        elif calls and not (name and call_id):
            return calls[-1]
        else:
            key = self._by_call_id.get((index, call_id))
            if key is None or self._id_of(key) != call_id:  # it is closed
                key = (index, "tool", len(calls))
        opened: Any = self._assembler.item_of(key)
        if (
            opened is not None
            and name
            and call_id
            and opened.call_id != call_id
            and (opened.name != name or self._assembler.has_arguments(key))
        ):
            self._assembler.close(key)  # another call under the same index
        return key

    def _id_of(self, key: Hashable) -> str | None:
        opened = self._assembler.item_of(key)
        return opened.call_id if isinstance(opened, FunctionCall | CustomToolCall) else None

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        if not self._assembler.begun:
            return
        if self._audio:
            self._assembler.emit(AudioTranscriptDone())
            self._assembler.emit(AudioDone())
        reasons = (_REASONS.get(finish) for finish in self._finishes.values())
        if "error" in self._finishes.values():
            self._fail(StreamError(message="the provider finished with an error", code="error"))
            return
        for index in sorted(self._heard - self._finishes.keys()) if self._finishes else ():
            for key in ((index, "reasoning"), (index, "text"), *self._calls.get(index, ())):
                self._assembler.close(key, "incomplete")  # the mark came all the same; some servers give no reasons
        self._assembler.end(next(filter(None, reasons), None), usage=self._usage)

    def _usage_so_far(self) -> Usage | None:
        return self._usage


# --- parts of chunks -------------------------------------------------------------------------------------------------


def _logprobs_of(logprobs: Mapping[str, Any]) -> tuple[Logprob, ...]:
    tokens = [token for name in ("content", "refusal", "reasoning_content") for token in as_list(logprobs.get(name))]
    try:
        with BUILDING:
            return msgspec.convert(tokens, tuple[Logprob, ...], strict=False)
    except msgspec.ValidationError:
        return ()


def _usage_of(usage: Mapping[str, Any]) -> Usage:
    """Tokens under the names of the Responses API. As given: the whole is in ``extra``."""
    given, taken = as_mapping(usage.get("prompt_tokens_details")), as_mapping(usage.get("completion_tokens_details"))
    cached = given.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))  # the second is DeepSeek's
    return Usage(
        input_tokens=as_number(usage.get("prompt_tokens")),
        output_tokens=as_number(usage.get("completion_tokens")),
        total_tokens=as_number(usage.get("total_tokens")),
        input_tokens_details=InputTokensDetails(
            cached_tokens=as_number(cached), cache_write_tokens=as_number(given.get("cache_write_tokens"))
        ),
        output_tokens_details=OutputTokensDetails(
            reasoning_tokens=as_number(taken.get("reasoning_tokens", usage.get("reasoning_tokens")))
        ),
    )
