"""The wire of Anthropic's Messages API.

Facts: the types of the public package anthropic 2.12.0, and recorded streams (November 2026). Text blocks that follow
each other are the parts of one message; thinking is a piece of reasoning whose signature is its encrypted content;
what Anthropic runs itself (``server_tool_use``, ``mcp_tool_use``) is an MCP call that carries its result. A block of
any other type is an item of that type, as it was sent. What has no place in the vocabulary is in ``extra``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar

import msgspec

from eventflow.events import (
    Event,
    FunctionCall,
    FunctionCallArgumentsDelta,
    InputTokensDetails,
    McpCall,
    OutputTokensDetails,
    ReasoningTextDelta,
    StreamError,
    TextDelta,
    Untyped,
    URLCitation,
    Usage,
    encode_json,
    resolve,
)
from eventflow.events._decode import STRICT_ERRORS
from eventflow.limits import Limits, weight
from eventflow.pieces import Pieces
from eventflow.plain import as_list, as_mapping, as_number, as_text
from eventflow.sse import Frame
from eventflow.wires.translation import TranslatingWire, spoken

__all__ = ["AnthropicWire"]

_TYPES = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "ping",
}
_REASONS = {  # stop reasons of answers that are not whole
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
    "pause_turn": "pause_turn",
    "compaction": "compaction",
}
_CALLS = {"server_tool_use", "mcp_tool_use"}
_PLACES = {  # of a piece of what is not passed on as it is: the blocks that it may belong to
    "text_delta": {"text"},
    "citations_delta": {"text"},
    "thinking_delta": {"thinking"},
    "signature_delta": {"thinking"},
    "input_json_delta": {"tool_use", *_CALLS},
}
_ASSEMBLED = {"redacted_thinking", *frozenset[str]().union(*_PLACES.values())}  # the blocks that become items of ours
_KNOWN_OF_MESSAGE = {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"}


# --- the short way: a piece of a block, decoded strictly -------------------------------------------------------------


class _TextPiece(msgspec.Struct, tag="text_delta", tag_field="type", forbid_unknown_fields=True, gc=False):
    text: str


class _ThinkingPiece(msgspec.Struct, tag="thinking_delta", tag_field="type", forbid_unknown_fields=True, gc=False):
    thinking: str


class _JSONPiece(msgspec.Struct, tag="input_json_delta", tag_field="type", forbid_unknown_fields=True, gc=False):
    partial_json: str


class _Piece(msgspec.Struct, tag="content_block_delta", tag_field="type", forbid_unknown_fields=True, gc=False):
    index: int
    delta: _TextPiece | _ThinkingPiece | _JSONPiece


_read_piece = msgspec.json.Decoder(_Piece).decode


class _Head(msgspec.Struct):
    type: str | None = None


_read_head = msgspec.json.Decoder(_Head).decode


class AnthropicWire(TranslatingWire):
    """Frames of one Messages stream as events of a Responses stream."""

    name: ClassVar[str] = "anthropic"
    _frame_name: ClassVar[str] = "an event of an Anthropic stream"

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._blocks: dict[int, dict[str, Any]] = {}  # open ones by their index, as they were opened
        self._keys: dict[int, Hashable] = {}  # where the pieces of an open block go
        self._message: Hashable | None = None  # the message that the next text block belongs to
        self._speaking = set[Hashable]()  # messages with a text block that is open
        self._waiting: dict[str, Hashable] = {}  # calls of the provider's own whose results are to come, by id
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._count = 0  # of blocks, for keys

    @property
    def finished(self) -> bool:
        """Whether the end of the body would be the end of the answer."""
        return self._stop_reason is not None

    @staticmethod
    def fits(frame: Frame) -> bool:
        """Whether the frame, or its data, has a type of this API."""
        if frame.event in _TYPES:
            return True
        try:
            return _read_head(frame.data).type in _TYPES
        except STRICT_ERRORS:
            return False

    def delta(self, name: str, data: bytes) -> Event | None:
        """The short way: the one event of a piece of something open; None for everything else."""
        if name not in ("content_block_delta", "message"):
            return None
        try:
            piece = _read_piece(data)
        except STRICT_ERRORS:
            return None
        key, delta = self._keys.get(piece.index), piece.delta
        if type(delta) is _TextPiece:
            return self._assembler.next_piece(key, TextDelta, delta.text) if delta.text else None
        if type(delta) is _ThinkingPiece:
            return self._assembler.next_piece(key, ReasoningTextDelta, delta.thinking) if delta.thinking else None
        if type(delta) is _JSONPiece and delta.partial_json:
            return self._assembler.next_piece(key, FunctionCallArgumentsDelta, delta.partial_json)
        return None

    def _hear(self, event: dict[str, Any], name: str) -> None:
        kind = as_text(event.get("type")) or name
        if kind == "error" or name == "error" or ("error" in event and kind not in _TYPES):
            self._fail(StreamError.from_wire(event))
        elif kind == "message_start":
            self._begin(as_mapping(event.get("message")))
        elif kind in _STEPS:
            if not self._assembler.begun:  # the beginning is lost
                self._begin({})
            _STEPS[kind](self, event)
        elif resolve(kind) is not None:  # it would be read as that again
            self._assembler.keep({kind: event})
        elif kind != "ping":
            self._assembler.unknown(kind, event)

    # --- the message -------------------------------------------------------------------------------------------------

    def _begin(self, message: Mapping[str, Any]) -> None:
        if self._assembler.begun:  # a gateway that has tried again: what was under way then will not be completed
            for index in list(self._blocks):
                self._close_block(index, "incomplete")
            for key in (self._message, *self._waiting.values()):
                self._assembler.close(key, "incomplete")
            self._message = None
            self._waiting.clear()
            self._assembler.keep({"message_start": dict(message)})
            return
        self._usage.update(as_mapping(message.get("usage")))
        self._assembler.keep(
            {name: value for name, value in message.items() if name not in _KNOWN_OF_MESSAGE and value}
        )
        self._assembler.begin(
            response_id=as_text(message.get("id")) or None, model=as_text(message.get("model")) or None
        )

    def _change(self, event: Mapping[str, Any]) -> None:
        delta = as_mapping(event.get("delta"))
        self._stop_reason = as_text(delta.get("stop_reason")) or self._stop_reason
        self._usage.update({name: value for name, value in as_mapping(event.get("usage")).items() if value is not None})
        self._assembler.keep({name: value for name, value in delta.items() if value is not None}, latest=True)
        known = ("type", "delta", "usage")
        rest = {name: value for name, value in event.items() if name not in known and value}
        self._assembler.keep(rest, latest=True)

    def _end(self) -> None:
        reason = _REASONS.get(self._stop_reason or "")
        for index in list(self._blocks):  # some never stop
            self._close_block(index, "incomplete" if reason else "completed")
        self._assembler.keep({"usage": self._usage} if self._usage else {})
        self._assembler.end(reason, usage=self._usage_so_far())

    def _usage_so_far(self) -> Usage | None:
        """Tokens as sent: what was cached is not among the input tokens here."""
        usage = self._usage
        if not usage:
            return None
        details = as_mapping(usage.get("output_tokens_details"))
        return Usage(
            input_tokens=as_number(usage.get("input_tokens")),
            output_tokens=as_number(usage.get("output_tokens")),
            input_tokens_details=InputTokensDetails(
                cached_tokens=as_number(usage.get("cache_read_input_tokens")),
                cache_write_tokens=as_number(usage.get("cache_creation_input_tokens")),
            ),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=as_number(details.get("thinking_tokens"))),
        )

    # --- blocks ------------------------------------------------------------------------------------------------------

    def _open_block(self, index: int, block: dict[str, Any]) -> None:
        if index in self._blocks:  # the one before never stopped
            self._close_block(index, "incomplete")
        kind = as_text(block.get("type"))
        self._count += 1
        key: Hashable = (kind, self._count)
        if kind == "text":
            if self._message is None or self._message in self._speaking:  # two texts at once are two messages
                self._message = key
            key = self._message
            self._speaking.add(key)
        else:
            self._end_message()
        self._assembler.count("other", weight(block))
        self._blocks[index], self._keys[index] = block, key
        if kind == "text":
            self._assembler.piece(key, TextDelta, as_text(block.get("text")))
            for citation in as_list(block.get("citations")):
                self._cite(key, as_mapping(citation))
        elif kind == "thinking":
            self._assembler.piece(key, ReasoningTextDelta, as_text(block.get("thinking")))
            if block.get("signature"):
                self._assembler.seal(key, as_text(block["signature"]))
        elif kind == "redacted_thinking":
            self._assembler.seal(key, as_text(block.get("data")))
        elif kind == "tool_use":
            self._keep_rest(block, {"type", "id", "name", "input", "caller"})
            self._assembler.call(
                key,
                FunctionCall(
                    name=as_text(block.get("name")), call_id=as_text(block.get("id")), caller=block.get("caller")
                ),
            )
        elif kind in _CALLS:
            self._keep_rest(block, {"type", "id", "name", "input", "server_name"})
            label = as_text(block.get("server_name")) or None
            call = McpCall(name=as_text(block.get("name")), id=as_text(block.get("id")) or None, server_label=label)
            self._assembler.call(key, call)

    def _piece(self, index: int, delta: dict[str, Any]) -> None:
        kind = as_text(delta.get("type"))
        if index not in self._blocks and kind in ("text_delta", "thinking_delta"):  # its block was never opened
            self._open_block(index, {"type": kind.removesuffix("_delta")})
        block = self._blocks.get(index)
        held = as_text(as_mapping(block).get("type"))
        if block is None or (held in _ASSEMBLED and held not in _PLACES.get(kind, ())):
            self._assembler.keep({"delta": delta})  # of nothing that it may belong to
            return
        key = self._keys[index]
        if held not in _ASSEMBLED:  # it is passed on as it is: its fields become whole
            for name, value in delta.items():
                if name != "type" and value is not None:
                    self._grow(block, name, value)
        elif kind == "text_delta":
            self._assembler.piece(key, TextDelta, spoken(delta.get("text"), "the text of a delta"))
        elif kind == "thinking_delta":
            self._keep_rest(delta, {"type", "thinking"})
            self._assembler.piece(key, ReasoningTextDelta, spoken(delta.get("thinking"), "the thinking of a delta"))
        elif kind == "signature_delta":
            self._assembler.seal(key, as_text(delta.get("signature")))
        elif kind == "citations_delta":
            self._cite(key, as_mapping(delta.get("citation")))
        else:
            self._assembler.arguments(key, spoken(delta.get("partial_json"), "the partial_json of a delta"))

    def _grow(self, block: dict[str, Any], name: str, value: Any) -> None:
        """A piece of a field: text goes on behind what is there, everything else takes its place."""
        before = block.get(name)
        self._assembler.count("text", len(value) if isinstance(value, str) else len(encode_json(value)))
        if isinstance(before, str) and isinstance(value, str):
            block[name] = Pieces(before, value)
        elif isinstance(before, Pieces) and isinstance(value, str):
            before.add(value)
        else:
            block[name] = value

    def _cite(self, key: Hashable, citation: dict[str, Any]) -> None:
        if citation.get("type") == "web_search_result_location":
            self._assembler.keep({"citation": citation})
            self._assembler.annotate(
                key, URLCitation(url=as_text(citation.get("url")), title=as_text(citation.get("title")) or None)
            )
        else:
            self._assembler.annotate(key, Untyped(citation))

    def _close_block(self, index: int, status: str = "completed") -> None:
        if index not in self._blocks:
            return
        grown, key = self._blocks.pop(index), self._keys.pop(index)
        block = {name: str(value) if isinstance(value, Pieces) else value for name, value in grown.items()}
        kind, call = as_text(block.get("type")), as_text(block.get("tool_use_id"))
        if kind == "text":
            self._speaking.discard(key)
            self._assembler.end_part(key)
            if key != self._message:  # something else has begun meanwhile
                self._assembler.close(key, status)
        elif kind in ("thinking", "redacted_thinking"):
            self._assembler.close(key, status)
        elif kind == "tool_use" or kind in _CALLS:
            if status == "completed" and not self._assembler.has_arguments(key):  # it has none, or was sent whole
                self._assembler.arguments(key, encode_json(block.get("input") or {}).decode())
            called = as_text(block.get("id"))
            if kind in _CALLS and status == "completed" and called and called not in self._waiting:
                self._waiting[called] = key
            else:
                self._assembler.close(key, status)
        elif call in self._waiting:
            waiting = self._waiting.pop(call)
            self._assembler.amend(waiting, output=block)
            self._assembler.close(waiting)
        else:
            if kind == "fallback":  # from here on another model speaks
                self._assembler.rename(model=as_text(as_mapping(block.get("to")).get("model")) or None)
            self._assembler.item(Untyped(block), counted=True)

    def _end_message(self) -> None:
        """Something else than text begins: the message is complete, unless a text of it is still open."""
        message, self._message = self._message, None
        if message is not None and message not in self._speaking:
            self._assembler.close(message)

    def _keep_rest(self, block: Mapping[str, Any], known: set[str]) -> None:
        self._assembler.keep({name: value for name, value in block.items() if name not in known and value is not None})


_STEPS: dict[str, Callable[[AnthropicWire, dict[str, Any]], None]] = {
    "content_block_start": lambda wire, event: wire._open_block(_index(event), as_mapping(event.get("content_block"))),
    "content_block_delta": lambda wire, event: wire._piece(_index(event), as_mapping(event.get("delta"))),
    "content_block_stop": lambda wire, event: wire._close_block(_index(event)),
    "message_delta": lambda wire, event: wire._change(event),
    "message_stop": lambda wire, event: wire._finish(),
}


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else -1  # one place for all that say none
