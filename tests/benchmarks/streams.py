"""The inputs: streams made here, recorded ones, and two ways to cut them into chunks."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec

from eventflow import Dispatcher
from eventflow.events import Event, event_classes

__all__ = [
    "CHUNKINGS",
    "Recorded",
    "all_types",
    "one_event_a_chunk",
    "recorded",
    "slices",
    "text_payloads",
    "text_stream",
]

_ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(rb".+?(?:\r\n\r\n|\n\n|\r\r)|.+", re.DOTALL)
_ITEM = "msg_68c350a75ddc819ea5406470460be7850f2d670b80edc5"
_WORDS = (
    " the", " of", " and", ",", ".", " a", " token", " stream", " answer", " model", "ing", " because", "\n\n",
    ' "quoted"', " naïve", " 東京", " 🙂", " 1984",
    " `code`", "**", " Widerspruch", " to", " which", " handlers", "-", " is",
)  # fmt: skip
_NOISE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_LAST = ("response.completed", "response.incomplete", "response.failed", "error")


def slices(body: bytes) -> list[bytes]:
    """*body* in chunks of 4 KiB, wherever that cuts."""
    return [body[start : start + 4096] for start in range(0, len(body), 4096)]


def one_event_a_chunk(body: bytes) -> list[bytes]:
    """*body* cut behind every blank line, as a server flushes it."""
    return _BLOCK.findall(body)


CHUNKINGS = {"4 KiB chunks": slices, "one event a chunk": one_event_a_chunk}


# --- made here -------------------------------------------------------------------------------------------------------


def text_stream(deltas: int) -> Iterator[bytes]:
    """One response whose text comes in *deltas* pieces, event by event: the shape and size of the live API's."""
    dice = random.Random(0)
    number = 0

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        data = {"type": kind, **fields, "sequence_number": number}
        number += 1
        return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'), ensure_ascii=False)}\n\n".encode()

    where = {"content_index": 0, "item_id": _ITEM, "output_index": 0}
    yield event("response.created", response=_response("in_progress", []))
    yield event("response.in_progress", response=_response("in_progress", []))
    yield event("response.output_item.added", item=_message("in_progress", []), output_index=0)
    yield event("response.content_part.added", **where, part=_part(""))
    words: list[str] = []
    for _ in range(deltas):
        word = dice.choice(_WORDS)
        words.append(word)
        yield event(
            "response.output_text.delta",
            content_index=0,
            delta=word,
            item_id=_ITEM,
            logprobs=[],
            obfuscation="".join(dice.choices(_NOISE, k=16 - len(word))),
            output_index=0,
        )
    text = "".join(words)
    yield event("response.output_text.done", **where, logprobs=[], text=text)
    yield event("response.content_part.done", **where, part=_part(text))
    yield event("response.output_item.done", item=_message("completed", [_part(text)]), output_index=0)
    yield event("response.completed", response=_response("completed", [_message("completed", [_part(text)])]))


def text_payloads(body: bytes) -> list[bytes]:
    """The JSON of the text deltas of *body*: what a parser is given."""
    return re.findall(rb"^event: response\.output_text\.delta\ndata: (.*)$", body, re.MULTILINE)


def all_types(events: int) -> bytes:
    """A stream of about *events* events, the wire's types in turn, ended by the one that completes a response.

    The types that end a stream cannot come in turn; handlers are registered for them all the same.
    """
    kinds = [cls for tag, cls in event_classes().items() if not tag.startswith("eventflow.")]
    turning = [cls for cls in kinds if cls.type not in _LAST]
    blocks = [_block(turning[number % len(turning)], number) for number in range(events - 1)]
    last = next(cls for cls in kinds if cls.type == "response.completed")
    return b"".join([*blocks, _block(last, events - 1)])


def _block(cls: type[Event], number: int) -> bytes:
    data = {"type": cls.type, "sequence_number": number}
    for field in msgspec.structs.fields(cls):
        if field.encode_name in _SAMPLES:
            data[field.encode_name] = _SAMPLES[field.encode_name]
    if cls.type == "response.shell_call_output_content.delta":
        data["delta"] = {"stdout": "a line\n", "stderr": ""}
    if "summary_part" in cls.type:
        data["part"] = {"type": "summary_text", "text": ""}
    return b"event: %s\ndata: %s\n\n" % (cls.type.encode(), json.dumps(data, separators=(",", ":")).encode())


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _message(status: str, content: list[Any]) -> dict[str, Any]:
    return {"id": _ITEM, "type": "message", "status": status, "content": content, "role": "assistant"}


def _response(status: str, output: list[Any]) -> dict[str, Any]:
    usage = {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 100,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 111,
    }
    return {
        "id": "resp_0f9e576c8c577a130169fb7cb9cd788196843b932ad7aa5a88",
        "object": "response",
        "created_at": 1778089145,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4.1-2025-04-14",
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "usage": usage if status == "completed" else None,
        "metadata": {},
    }


_SAMPLES: dict[str, Any] = {
    "delta": " word",
    "text": " word",
    "refusal": " word",
    "arguments": '{"city":"Paris"}',
    "input": "SELECT 1",
    "code": "print(1)",
    "command": "ls -l",
    "partial_image_b64": "iVBORw0KGgo=",
    "item_id": _ITEM,
    "output_index": 0,
    "content_index": 0,
    "summary_index": 0,
    "annotation_index": 0,
    "partial_image_index": 0,
    "command_index": 0,
    "item": _message("completed", [_part(" word")]),
    "part": _part(" word"),
    "response": _response("in_progress", []),
}


# --- recorded --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Recorded:
    """Streams that a server sent.

    Attributes:
        bodies: One for each stream.
        origin: Where they are from, and what is missing, in words.
    """

    bodies: tuple[bytes, ...]
    origin: str


def recorded() -> Recorded:
    """The project's own recordings, and the corpus of the folder ``EVENTFLOW_CORPUS`` where there is one.

    Left out are those that end with an error, or without a blank line: there the OpenAI SDK's stream raises, or drops
    an event, and the work would not be the same.
    """
    own = sorted((_ROOT / "tests" / "fixtures").glob("responses-*.sse"))
    folder = Path(os.environ.get("EVENTFLOW_CORPUS", _ROOT.parent / "shared" / "corpus")) / "responses"
    found = sorted(folder.glob("*.sse"))
    bodies = [body for body in (path.read_bytes() for path in own + found) if _ends_well(body)]
    where = f"{len(found)} of {folder}" if found else f"no corpus at {folder} (set EVENTFLOW_CORPUS)"
    left_out = len(own) + len(found) - len(bodies)
    return Recorded(tuple(bodies), f"{len(own)} of the project's own, {where}; {left_out} that end oddly left out")


def _ends_well(body: bytes) -> bool:
    return body.endswith((b"\n\n", b"\r\n\r\n")) and Dispatcher().run(body, check=False).error is None
