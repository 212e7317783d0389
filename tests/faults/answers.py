"""What a misbehaving server says and does: the pieces that the catalogue's faults are made of."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import attrs

from eventflow.testing import Peer, stream

__all__ = [
    "APIS",
    "TEXT",
    "Answer",
    "Api",
    "Ending",
    "Talk",
    "Way",
    "block",
    "candidate",
    "chunked",
    "is_brief",
    "talk",
]

Api = Literal["responses", "chat", "anthropic", "gemini"]
Ending = Literal["end", "cut", "reset", "hang"]
Way = Literal["sync", "async"]

APIS: tuple[Api, ...] = ("responses", "chat", "anthropic", "gemini")
TEXT = ("It ", "is ", "sunny.")
TOOL = ("get_weather", {"city": "Paris"})


def is_brief(number: int, api: Api, way: Way) -> bool:
    """Whether the tests play it: the last API in one way, which is the other one with the next number."""
    return api != APIS[-1] or way == ("sync", "async")[number % 2]


def block(data: Any, name: str | None = None) -> bytes:
    """One server-sent event; what is no bytes becomes JSON, under the name of its type."""
    if not isinstance(data, bytes):
        name = data.get("type") if name is None and isinstance(data, Mapping) else name
        data = json.dumps(data).encode()
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


def candidate(*parts: Any, **more: Any) -> dict[str, Any]:
    """A chunk of Gemini's with these parts."""
    return {"candidates": [{"content": {"parts": [*parts], "role": "model"}, "index": 0, **more}]}


@attrs.frozen
class Talk:
    """An answer that goes well: a text in three pieces, and a call of a tool.

    Attributes:
        api: Whose it is.
        blocks: Its events.
    """

    api: Api
    blocks: tuple[bytes, ...] = attrs.field(repr=False)

    @property
    def before(self) -> tuple[bytes, ...]:
        """Up to the second piece of text, which is in it."""
        return self.blocks[: self._after(b'"is "')]

    @property
    def after(self) -> tuple[bytes, ...]:
        """From the third piece of text on."""
        return self.blocks[self._after(b'"is "') :]

    @property
    def to_tool(self) -> tuple[bytes, ...]:
        """Up to the middle of the call's arguments."""
        return self.blocks[: self._after(b"$.city" if self.api == "gemini" else b'"city"')]

    @property
    def to_end(self) -> tuple[bytes, ...]:
        """Everything but what says that it is over."""
        return self.blocks[: -{"responses": 1, "chat": 3, "anthropic": 2, "gemini": 1}[self.api]]

    def having(self, old: bytes, new: bytes) -> tuple[bytes, ...]:
        """It, with other bytes wherever *old* stands."""
        return tuple(each.replace(old, new) for each in self.blocks)

    def _after(self, piece: bytes) -> int:
        return next(place for place, each in enumerate(self.blocks, 1) if piece in each)

    def delta(self, text: str) -> bytes:
        """One more piece of text."""
        match self.api:
            case "responses":
                return block(
                    {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0}
                    | {"delta": text}
                )
            case "chat":
                return block({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
            case "anthropic":
                delta = {"type": "text_delta", "text": text}
                return block({"type": "content_block_delta", "index": 0, "delta": delta})
            case "gemini":
                return block(candidate({"text": text}))


def talk(api: Api, **options: Any) -> Talk:
    """The answer of *api*; *options* are those of `eventflow.testing.stream`."""
    blocks = stream(**{"text": TEXT, "tools": [TOOL], "wire": api, **options}).blocks
    if api == "gemini":
        chunks = [chunk for each in blocks for chunk in _split(json.loads(each.removeprefix(b"data: ")))]
        blocks = tuple(block(chunk).replace(b"\n", b"\r\n") for chunk in chunks)
    return Talk(api, blocks)


def _split(chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A chunk of Gemini's; the arguments of a call in two pieces, and the reason of the end by itself, as others send.

    Its servers do so where they are asked to, and else send both at once.
    """
    ((said,), used) = chunk.pop("candidates"), chunk.pop("usageMetadata", None)
    (part,) = said["content"]["parts"]
    call = part.get("functionCall")
    city = call["args"].get("city") if call else None
    if isinstance(city, str):
        named = {"id": call["id"], "name": call["name"]}
        pieces = [{"jsonPath": "$.city", "stringValue": each} for each in (city[:2], city[2:])]
        calls = [named, *({"partialArgs": [piece]} for piece in pieces)]
        parts = [*({"functionCall": {**each, "willContinue": True}} for each in calls), {"functionCall": {}}]
    else:
        parts = [part]
    for each in parts:
        yield {**candidate(each), **chunk}
    if "finishReason" in said:
        yield {**candidate(finishReason=said["finishReason"]), **chunk, "usageMetadata": used}


def chunked(data: bytes) -> bytes:
    """*data* as one chunk of a body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@attrs.frozen
class Answer:
    """One answer, and what comes behind it.

    Attributes:
        pieces: Of the body, a chunk each; or all bytes as they are, where there is no *status*.
        status: Of the head, or None for an answer that brings its own.
        headers: More of them, or others; None leaves one out.
        ending: ``end``: the last chunk, and the connection stays; ``cut``: nothing more comes, and the server waits
            until the client closes; ``reset``; ``hang``: the connection is open, and says nothing.
        then: Called before that: what no list of pieces can say.
    """

    pieces: Iterable[bytes] = ()
    status: int | None = attrs.field(default=200, kw_only=True)
    headers: Mapping[str, str | None] = attrs.field(factory=dict[str, str | None], kw_only=True)
    ending: Ending = attrs.field(default="end", kw_only=True)
    then: Callable[[Peer], None] | None = attrs.field(default=None, kw_only=True)

    def play(self, peer: Peer) -> None:
        """Say it."""
        peer.closes = True
        if self.status is not None:
            headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked", "x-request-id": "req_1"}
            given = {**headers, **self.headers}
            peer.head(self.status, {name: value for name, value in given.items() if value is not None})
        for piece in self.pieces:
            (peer.send if self.status is None else peer.chunk)(piece)
        if self.then is not None:
            self.then(peer)
        match self.ending:
            case "end":
                peer.closes = False
                if self.status is not None and self.headers.get("transfer-encoding", "chunked"):
                    peer.chunk(b"")
            case "cut":
                peer._connection.shutdown(socket.SHUT_WR)
            case "reset":
                peer.abort()
            case "hang":
                pass
