"""Chat and Anthropic streams to one handler: `Dispatcher` and the SDKs of their providers."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from measure import Lap, Race, race
from responses import response
from streams import slices

from eventflow import Dispatcher, TextDelta

__all__ = ["ANTHROPIC_SDK", "CHAT_SDK", "translate"]

CHAT_SDK = "openai Stream of chat chunks, one function"
ANTHROPIC_SDK = "anthropic Stream, one function"
_WORD = "word "


def translate(deltas: int, rounds: int) -> list[Race]:
    """Bytes of other wires to typed event to one handler, 4 KiB a chunk."""
    streams: dict[str, tuple[bytes, str, Callable[[list[bytes]], Lap]]] = {
        "chat": (_chat_stream(deltas), CHAT_SDK, _chat_sdk),
        "anthropic": (_anthropic_stream(deltas), ANTHROPIC_SDK, _anthropic_sdk),
    }
    return [
        race(
            f"{wire} bytes to one handler",
            {
                "Dispatcher.run": functools.partial(_run, slices(body)),
                name: functools.partial(sdk, slices(body)),
            },
            events=deltas,
            rounds=rounds,
        )
        for wire, (body, name, sdk) in streams.items()
    ]


def _chat_stream(deltas: int) -> bytes:
    """A chat stream as OpenAI sends it."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        data = {
            "id": "chatcmpl-C9aVx0YQhTLrqm5sRcQw7Wn2pXb1d",
            "object": "chat.completion.chunk",
            "created": 1778089145,
            "model": "gpt-4.1-2025-04-14",
            "service_tier": "default",
            "system_fingerprint": "fp_daf5fcc80a",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
        return b"data: %s\n\n" % json.dumps(data, separators=(",", ":")).encode()

    first, last = chunk({"role": "assistant", "content": "", "refusal": None}), chunk({}, "stop")
    return b"".join([first, *[chunk({"content": _WORD})] * deltas, last, b"data: [DONE]\n\n"])


def _anthropic_stream(deltas: int) -> bytes:
    """A Messages stream as Anthropic sends it."""

    def event(kind: str, **fields: Any) -> bytes:
        data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
        return f"event: {kind}\ndata: {data}\n\n".encode()

    usage = {"input_tokens": 11, "output_tokens": 1}
    message = {"id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "content": []}
    message.update(model="claude-sonnet-4-5", stop_reason=None, stop_sequence=None, usage=usage)
    piece = event("content_block_delta", index=0, delta={"type": "text_delta", "text": _WORD})
    stopped = {"stop_reason": "end_turn", "stop_sequence": None}
    return b"".join(
        [
            event("message_start", message=message),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            *[piece] * deltas,
            event("content_block_stop", index=0),
            event("message_delta", delta=stopped, usage={"output_tokens": deltas}),
            event("message_stop"),
        ]
    )


class _Counter:
    def __init__(self) -> None:
        self.events = 0

    def __call__(self, text: str | None) -> None:
        if text:
            self.events += 1


def _run(chunks: list[bytes]) -> Lap:
    def lap() -> int:
        counter = _Counter()
        flow = Dispatcher()
        flow.on(TextDelta, lambda event: counter(event.delta))
        flow.run(response(chunks))
        return counter.events

    return lap


def _chat_sdk(chunks: list[bytes]) -> Lap:
    from openai import OpenAI, Stream
    from openai.types.chat import ChatCompletionChunk

    client = OpenAI(api_key="none", base_url="http://localhost/v1")

    def lap() -> int:
        counter = _Counter()
        answer: Any = response(chunks)
        for chunk in Stream[ChatCompletionChunk](cast_to=ChatCompletionChunk, response=answer, client=client):
            counter(chunk.choices[0].delta.content)
        return counter.events

    return lap


def _anthropic_sdk(chunks: list[bytes]) -> Lap:
    from anthropic import Anthropic, Stream
    from anthropic.types import RawMessageStreamEvent

    client = Anthropic(api_key="none", base_url="http://localhost")
    kind: Any = RawMessageStreamEvent

    def lap() -> int:
        counter = _Counter()
        answer: Any = response(chunks)
        for event in Stream[Any](cast_to=kind, response=answer, client=client):
            if event.type == "content_block_delta":
                counter(event.delta.text)
        return counter.events

    return lap
