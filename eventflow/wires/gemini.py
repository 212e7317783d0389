"""The wire of Google's Gemini API (``streamGenerateContent``), as server-sent events or as one array of JSON.

Facts: Google's reference of the API, and recorded streams (November 2026). A chunk has candidates, these have parts;
text, thoughts and calls are items of their own, one sequence of them for each candidate. A call's arguments come whole,
or in pieces by JSON path; then they are put together, and told when the call is complete. One that says of itself that
it goes on, and does not, is incomplete. Usage, grounding and whatever else has no place in the vocabulary is in
``extra``.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Any, ClassVar, cast

import msgspec

from eventflow.errors import LimitExceeded
from eventflow.events import (
    CodeInterpreterCall,
    Event,
    FunctionCall,
    ImageGenerationCall,
    InputTokensDetails,
    OutputTokensDetails,
    ReasoningTextDelta,
    StreamError,
    TextDelta,
    Untyped,
    Usage,
    encode_json,
)
from eventflow.events._decode import STRICT_ERRORS
from eventflow.limits import Limits
from eventflow.pieces import Pieces
from eventflow.plain import as_list, as_mapping, as_number, as_text
from eventflow.sse import Frame
from eventflow.wires.translation import TranslatingWire, spoken

__all__ = ["GeminiWire"]

_REASONS = {  # why an answer is not whole; every other reason but STOP is a filter's
    "MAX_TOKENS": "max_output_tokens",
    "MALFORMED_FUNCTION_CALL": "malformed_function_call",
    "UNEXPECTED_TOOL_CALL": "malformed_function_call",
    "OTHER": "other",
}
_GOOD = ("STOP", "FINISH_REASON_UNSPECIFIED")
_CHUNK = {"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"}
_CANDIDATE = {"content", "index", "finishReason"}
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")
_MAX_STEPS = 128  # of a path, where no limit of depth is given: what nests without end cannot be written
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^']+)'\]")  # of a JSON path


class _Head(msgspec.Struct):
    candidates: list[Any] | None = None
    usageMetadata: Any = None  # noqa: N815  # the wire's name
    promptFeedback: Any = None  # noqa: N815


_read_head = msgspec.json.Decoder(_Head).decode


class GeminiWire(TranslatingWire):
    """Chunks of one Gemini stream as events of a Responses stream; they are few and large, there is no short way."""

    name: ClassVar[str] = "gemini"
    _frame_name: ClassVar[str] = "a chunk of a Gemini stream"

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._usage: dict[str, Any] = {}
        self._heard = set[int]()  # the candidates that are
        self._finishes: dict[int, str] = {}  # by candidate
        self._speaking: dict[int, Hashable] = {}  # of each candidate: the item that its last piece belongs to
        self._arguments: dict[int, _Arguments] = {}  # of each candidate: those of the call under way
        self._count = 0  # of items, for keys
        self._code: dict[int, CodeInterpreterCall] = {}  # of each candidate: what was run, and whose result is to come

    @property
    def finished(self) -> bool:
        """Whether the end of the body would be the end of the answer: of every candidate of it."""
        return bool(self._finishes) and self._heard <= self._finishes.keys()

    def close(self) -> list[Event]:
        """The body has ended: that is the end of the answer if a reason for it was given."""
        if not self.finished:
            self._end_calls()
        return super().close()

    @staticmethod
    def fits(frame: Frame) -> bool:
        """Whether the frame's data has candidates, or what stands in for them."""
        try:
            head = _read_head(frame.data)
        except STRICT_ERRORS:
            return False
        return any(part is not None for part in (head.candidates, head.usageMetadata, head.promptFeedback))

    def _hear(self, chunk: dict[str, Any], name: str) -> None:
        assembler = self._assembler
        if name == "error" or chunk.get("error"):
            self._end_calls()
            self._fail(_error_of(chunk))
            return
        if not assembler.begun:
            response_id, model = as_text(chunk.get("responseId")), as_text(chunk.get("modelVersion"))
            assembler.keep({"createTime": chunk["createTime"]} if chunk.get("createTime") else {})
            assembler.begin(response_id=response_id or None, model=model or None)
        self._usage.update(as_mapping(chunk.get("usageMetadata")))
        self._keep({name: value for name, value in chunk.items() if name not in _CHUNK}, latest=True)
        for candidate in as_list(chunk.get("candidates")):
            self._candidate(as_mapping(candidate))
        blocked = as_mapping(chunk.get("promptFeedback")).get("blockReason")
        if blocked and not chunk.get("candidates"):
            for index in self._heard or (0,):
                self._finishes.setdefault(index, as_text(blocked))

    def _end(self) -> None:
        bad = next((reason for reason in self._finishes.values() if reason not in _GOOD), None)
        reason = None if bad is None else _REASONS.get(bad, "content_filter")
        self._end_calls()
        for index in list(self._code):
            self._end_code(index, None)
        self._assembler.keep({"usage": self._usage} if self._usage else {})
        self._assembler.end(reason, usage=self._usage_so_far())

    def _usage_so_far(self) -> Usage | None:
        """Tokens as sent: thoughts are not among the candidates' tokens here, and are added to them."""
        usage = self._usage
        if "promptTokenCount" not in usage and "candidatesTokenCount" not in usage:
            return None
        thoughts = as_number(usage.get("thoughtsTokenCount"))
        said = as_number(usage.get("candidatesTokenCount"))
        return Usage(
            input_tokens=as_number(usage.get("promptTokenCount")),
            output_tokens=None if said is None and thoughts is None else (said or 0) + (thoughts or 0),
            total_tokens=as_number(usage.get("totalTokenCount")),
            input_tokens_details=InputTokensDetails(cached_tokens=as_number(usage.get("cachedContentTokenCount"))),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=thoughts),
        )

    # --- a candidate -------------------------------------------------------------------------------------------------

    def _candidate(self, candidate: Mapping[str, Any]) -> None:
        index = candidate.get("index")
        index = index if isinstance(index, int) else 0
        self._heard.add(index)
        self._keep({name: value for name, value in candidate.items() if name not in _CANDIDATE})
        for part in as_list(as_mapping(candidate.get("content")).get("parts")):
            self._part(index, as_mapping(part))
        finish = as_text(candidate.get("finishReason"))
        if finish:
            self._finishes[index] = finish
            self._keep({"finishReason": finish})

    def _part(self, index: int, part: dict[str, Any]) -> None:
        if part.get("codeExecutionResult") is not None:
            self._end_item(index)
            self._end_code(index, as_mapping(part["codeExecutionResult"]))
            return
        if index in self._code:  # no result came
            self._end_code(index, None)
        if part.get("functionCall") is not None:
            self._call(index, part)
            return
        text, signature = part.get("text"), as_text(part.get("thoughtSignature"))
        if text is not None:
            text = spoken(text, "candidates[].content.parts[].text")
            cls = ReasoningTextDelta if part.get("thought") else TextDelta
            if signature and cls is TextDelta:
                self._seal(index, signature)
            if text:
                self._assembler.piece(self._key(index, cls.family), cls, text)
            if signature and cls is ReasoningTextDelta:
                self._assembler.seal(self._key(index, cls.family), signature)
        elif part.get("executableCode") is not None:
            self._end_item(index)
            if signature:
                self._seal(index, signature)
            code = as_mapping(part["executableCode"])
            self._assembler.keep({"executableCode": part})
            self._code[index] = CodeInterpreterCall(code=as_text(code.get("code")), id=as_text(code.get("id")) or None)
        elif as_text(as_mapping(part.get("inlineData")).get("mimeType")).startswith("image/"):
            self._end_item(index)
            image = part["inlineData"]
            self._assembler.keep({"mimeType": image["mimeType"]})
            self._assembler.item(ImageGenerationCall(status="completed", result=as_text(image.get("data")) or None))
        elif part := {name: value for name, value in part.items() if value is not None}:
            self._end_item(index)
            kind = next((name for name in part if name not in ("thought", "thoughtSignature")), "thoughtSignature")
            self._assembler.item(Untyped({"type": kind, **part}))

    def _seal(self, index: int, signature: str) -> None:
        """A signature, which must be sent back with the part that it stands in, is reasoning of its own before that."""
        self._end_item(index)
        self._count += 1
        key = (index, "signature", self._count)
        self._assembler.seal(key, signature)
        self._assembler.close(key)

    def _key(self, index: int, kind: str) -> Hashable:
        """The item that pieces of this kind belong to; what came before of another kind is complete."""
        key = self._speaking.get(index)
        if key is None or cast("Any", key)[1] != kind:
            self._end_item(index)
            self._count += 1
            key = self._speaking[index] = (index, kind, self._count)
        return key

    def _end_item(self, index: int) -> None:
        self._end_call(index)
        key = self._speaking.pop(index, None)
        if key is not None:
            self._assembler.close(key)

    def _end_code(self, index: int, result: dict[str, Any] | None) -> None:
        """Code was run: with its result, or without one where none came."""
        code = self._code.pop(index, None) or CodeInterpreterCall(code="")
        status = "completed" if result is None or result.get("outcome") in (None, "OUTCOME_OK") else "failed"
        outputs = [] if result is None else [{"type": "logs", "logs": as_text(result.get("output"))}]
        self._assembler.keep({"codeExecutionResult": result} if result is not None else {})
        self._assembler.item(code.replace(status=status, outputs=outputs))

    # --- calls -------------------------------------------------------------------------------------------------------

    def _call(self, index: int, part: dict[str, Any]) -> None:
        call = as_mapping(part["functionCall"])
        name, signature = as_text(call.get("name")), as_text(part.get("thoughtSignature"))
        if name:
            self._end_item(index)
            if signature:
                self._seal(index, signature)
            self._count += 1
            key = self._speaking[index] = (index, "call", self._count)
            made_up = f"call_{self._count}"  # Gemini gives none, or few; outputs need one to refer to
            self._assembler.call(key, FunctionCall(name=name, call_id=as_text(call.get("id")) or made_up))
            self._arguments[index] = _Arguments(self._max_depth)
        if index not in self._arguments:
            self._assembler.keep({"functionCall": call} if call else {})
            return
        arguments = self._arguments[index]
        if call.get("args") is not None:
            arguments.data = call["args"]
        for piece in as_list(call.get("partialArgs")):
            self._assembler.count("arguments", arguments.put(as_mapping(piece)))
        if not call.get("willContinue"):
            self._end_call(index, "completed")

    def _end_calls(self) -> None:
        """Nothing more comes of the calls under way: what has come is told, and that they are not whole."""
        for index in list(self._arguments):
            self._end_call(index)

    def _end_call(self, index: int, status: str = "incomplete") -> None:
        """The call under way is over, where there is one; it is whole if it said so itself."""
        if index in self._arguments:
            arguments = self._arguments.pop(index)
            key = self._speaking.pop(index)
            self._assembler.arguments(key, arguments.whole())
            self._assembler.close(key, status)


class _Arguments:
    """The arguments of a call: they come whole, or in pieces that say by JSON path where they belong.

    Attributes:
        data: What has come of them.
    """

    def __init__(self, max_depth: int | None) -> None:
        self.data: Any = {}
        self._max_steps = max_depth or _MAX_STEPS
        self._texts: list[tuple[Any, Any]] = []  # that came in several pieces: in what they are, and where there

    def put(self, piece: Mapping[str, Any]) -> int:
        """Put a piece where its path says, text behind what is there; returns how many characters it has at least.

        What does not fit what came before is left out.

        Raises:
            LimitExceeded: Its path is deeper than the limit.
        """
        value: Any = next((piece[name] for name in _VALUES if name in piece and name != "nullValue"), None)
        path = _STEP.findall(as_text(piece.get("jsonPath")))
        if len(path) > self._max_steps:
            raise LimitExceeded(limit="json_depth", maximum=self._max_steps, seen=len(path))
        steps: list[Any] = [*(name or quoted or int(number) for name, number, quoted in path), None]
        size, at = len(value) if isinstance(value, str) else 1, self.data
        for step, after in pairwise(steps):
            by_number = isinstance(step, int)
            fitting: Any = list if by_number else dict
            if not isinstance(at, fitting) or (by_number and step > len(at)):
                break
            before: Any = (at[step] if step < len(at) else None) if by_number else at.get(step)
            if after is not None:
                new = cast("Any", before if isinstance(before, dict | list) else [] if isinstance(after, int) else {})
            else:
                new = self._grown(at, step, before, value) if isinstance(value, str) else value
            if by_number and step == len(at):
                at.append(new)
            else:
                size += 0 if by_number or step in at else len(step)
                at[step] = new
            at = cast("Any", new)
        return size

    def _grown(self, at: Any, step: Any, before: Any, value: str) -> str | Pieces:
        """What stands at a place where another piece of text has come."""
        if isinstance(before, str):
            self._texts.append((at, step))
            return Pieces(before, value)
        if isinstance(before, Pieces):
            before.add(value)
            return before
        return value

    def whole(self) -> str:
        """All of them, as JSON."""
        for at, step in self._texts:
            if isinstance(at[step], Pieces):
                at[step] = str(at[step])
        return encode_json(self.data).decode()


def _error_of(chunk: Mapping[str, Any]) -> StreamError:
    error = StreamError.from_wire(chunk)
    inner = as_mapping(chunk.get("error"))
    code = inner.get("code")
    named = as_text(inner.get("status")) or None
    return error.replace(error_type=named or error.error_type, status=code if isinstance(code, int) else None)
