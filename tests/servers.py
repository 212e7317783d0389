"""An HTTP server on loopback that plays a script: one answer a request, byte by byte if need be.

::

    with Server(answers.status(503), answers.sse(events)) as server:
        client = Client(base_url=server.url)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from scenarios import JSON, block

from eventflow import Client

__all__ = ["Answer", "Peer", "Request", "Server", "document", "raw", "silence", "sse", "status"]

_PATIENCE = 5.0  # seconds that a peer may take; no test waits so long


@attrs.frozen
class Request:
    """What a client has sent; *connection* counts the connections from 0."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Peer:
    """The client's side of one request: what an answer writes to."""

    def __init__(self, server: Server, connection: socket.socket, request: Request) -> None:
        self.server = server
        self.request = request
        self._connection = connection
        self.closes = False  # the connection is not good for another request

    def send(self, data: bytes) -> None:
        """Write *data* as it is."""
        self._connection.sendall(data)

    def head(self, code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Write the status line and the headers."""
        lines = [f"HTTP/1.1 {code} X", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def chunk(self, data: bytes) -> None:
        """Write *data* as one chunk; an empty one ends the body."""
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def wait(self, seconds: float = _PATIENCE) -> None:
        """Until the client has left; notes when that was."""
        self._connection.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            if not self._connection.recv(1):
                self.server.note_left()

    def abort(self) -> None:
        """Drop the connection with a reset, at once."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.closes = True
        os.close(self._connection.detach())

    def patience(self, seconds: float) -> None:
        """Let each write take so long at most; then it raises `TimeoutError`."""
        self._connection.settimeout(seconds)


Answer = Callable[[Peer], None]


class Server:
    """Gives the n-th request the n-th answer; the last one again and again.

    Attributes:
        url: Where the API begins, for a client.
        requests: What came, in order.
        left: Set once a client has left in the middle of an answer; *left_at* is when, by the monotonic clock.
    """

    def __init__(self, *answers: Answer) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.requests: list[Request] = []
        self.left = threading.Event()
        self.left_at: float | None = None
        self.sent = 0  # bytes of answers made by `sse`
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._accepting = threading.Thread(target=self._accept)

    @property
    def connections(self) -> int:
        """How many connections were made."""
        return len(self._connections)

    def client(self, **options: Any) -> Client:
        """A client for it."""
        return Client(base_url=self.url, **options)

    def note_left(self) -> None:
        """A client has left."""
        if self.left_at is None:
            self.left_at = time.monotonic()
        self.left.set()

    def __enter__(self) -> Server:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._accepting.join()
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection, len(self._connections)))
            self._connections.append(connection)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(_PATIENCE)
        try:
            with connection.makefile("rb") as file:
                while (request := self._read(file, number)) is not None:
                    with self._lock:
                        place = len(self.requests)
                        self.requests.append(request)
                    peer = Peer(self, connection, request)
                    self._answers[min(place, len(self._answers) - 1)](peer)
                    if peer.closes:
                        break
                    connection.settimeout(_PATIENCE)
        except (BrokenPipeError, ConnectionResetError):
            self.note_left()
        except OSError:
            pass  # too slow, or the server is being closed
        finally:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    @staticmethod
    def _read(file: Any, number: int) -> Request | None:
        line = file.readline().decode()
        if not line:
            return None
        headers: dict[str, str] = {}
        while (header := file.readline().decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        method, path, _ = line.split()
        return Request(method, path, headers, file.read(int(headers.get("content-length", 0))), number)


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
            peer.server.sent += len(data)
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
