"""The server of `eventflow.testing` with answers that are written by hand: functions of the `Peer`.

::

    with Server(answers.status(503), answers.sse(events)) as server:
        client = Client(base_url=server.url)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scenarios import JSON, block

from eventflow import Client, testing
from eventflow.testing import Peer, Request, Script

__all__ = ["Answer", "Peer", "Request", "Server", "document", "raw", "silence", "sse", "status"]

Answer = Callable[[Peer], None]


class Server(testing.Server):
    """Gives the n-th request the n-th answer; the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(*map(Script, answers), repeat=True)

    def client(self, **options: Any) -> Client:
        """A client for it."""
        return Client(base_url=self.url, **options)


# --- answers ---------------------------------------------------------------------------------------------------------


def sse(
    events: Iterable[JSON | bytes],
    *,
    end: bytes = b"0\r\n\r\n",
    headers: Mapping[str, str] | None = None,
    pace: float = 0.0,
    then: Callable[[Peer], None] | None = None,
) -> Answer:
    """An event stream: each event (or piece of bytes) a chunk, *pace* seconds apart, *end* behind them.

    An *end* that is not the end of a body closes the connection; *then* is called instead of sending it.
    """

    def answer(peer: Peer) -> None:
        peer.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})})
        for number, event in enumerate(events):
            if number and pace:
                time.sleep(pace)
            data = event if isinstance(event, bytes) else block(event)
            peer.chunk(data)
        if then is not None:
            peer.closes = True
            then(peer)
            return
        peer.send(end)
        peer.closes = end != b"0\r\n\r\n"

    return answer


def document(value: Any, code: int = 200, *, headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON document, or *value* itself where it is bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()

    def answer(peer: Peer) -> None:
        peer.head(code, {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})})
        peer.send(data)

    return answer


def status(code: int, *, headers: Mapping[str, str] | None = None, page: bytes = b'{"error":{}}') -> Answer:
    """An HTTP error."""
    return document(page, code, headers=headers)


def raw(data: bytes) -> Answer:
    """*data* as it is, then the end of the connection."""

    def answer(peer: Peer) -> None:
        peer.send(data)
        peer.closes = True

    return answer


def silence(peer: Peer) -> None:
    """No answer at all."""
    peer.wait()
    peer.closes = True
