"""A server on loopback that plays a script: each request takes the next turn.

::

    with Server(stream(tools=[("get_weather", {"city": "Paris"})]), stream("It is sunny."), 503) as server:
        client = Client(base_url=server.url, api_key="sk-made-up")
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
from http import HTTPStatus
from typing import Any, Literal, Self, TypeAlias, cast, final

import attrs

from eventflow import sse
from eventflow.errors import UsageError, excerpt
from eventflow.events import encode_json
from eventflow.testing.streams import FakeStream

__all__ = ["Peer", "Reply", "Request", "Script", "ScriptError", "Server", "Turn"]

_LAST_CHUNK = b"0\r\n\r\n"


class ScriptError(AssertionError):
    """The server was asked for what its script does not have, or a turn of it failed; the message says which."""


@final
@attrs.frozen
class Request:
    """What a client has sent.

    Attributes:
        method: In capitals.
        path: With its query.
        headers: Their names in small letters.
        body: As it came.
        connection: Which connection it came by, counted from 0.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        """The body, decoded; raises `ValueError` where it is no JSON."""
        return json.loads(self.body)


@final
@attrs.frozen
class Reply:
    """One answer, and how it goes.

    Attributes:
        body: A stream, or pieces of one (bytes, or mappings, which become server-sent events of the Responses API); a
            mapping or list, which is sent as JSON; text or bytes; None for no answer at all.
        status: The HTTP status.
        headers: More headers, or others.
        pace: Seconds between the chunks of a stream.
        then: What comes behind it: its ``end``; or that is missing, because the connection is closed (``cut``) or
            reset (``reset``), or because nothing more is said (``hang``) until the client leaves, the server's
            patience is over or its block ends.
    """

    body: Any
    status: int = attrs.field(default=200, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    pace: float = attrs.field(default=0.0, kw_only=True)
    then: Literal["end", "cut", "reset", "hang"] = attrs.field(default="end", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.then not in _ENDS:
            raise UsageError(f"Reply(then={self.then!r}): give 'end', 'cut', 'reset' or 'hang'")
        if self.body is None and self.then == "end":
            raise UsageError(
                "Reply(None) has no end: give then='cut', 'reset' or 'hang', or a body, which may be b\"\""
            )
        if not isinstance(self.body, str | bytes | Mapping | Iterable | None):
            kind = type(self.body).__name__
            raise UsageError(f"Reply({kind}): give a stream, a mapping or list, text, bytes or None")

    def play(self, peer: Peer) -> None:
        """Write it."""
        body = self.body
        if isinstance(body, str | bytes):
            self._whole(peer, body.encode() if isinstance(body, str) else body, "text/plain")
        elif isinstance(body, Mapping | list):
            self._whole(peer, encode_json(cast("Any", body)), "application/json")
        elif body is not None:
            self._head(peer, "text/event-stream", "transfer-encoding", "chunked")
            for number, piece in enumerate(cast("Iterable[Any]", body)):
                if number and self.pace:
                    peer.pause(self.pace)
                data = piece if isinstance(piece, bytes) else _block(piece)
                if data:
                    peer.chunk(data)
            if self.then == "end":
                peer.send(_LAST_CHUNK)
        _ENDS[self.then](peer)

    def _whole(self, peer: Peer, data: bytes, kind: str) -> None:
        """A document; one that is to be broken off promises more than comes."""
        self._head(peer, kind, "content-length", str(len(data) + (self.then != "end")))
        peer.send(data)

    def _head(self, peer: Peer, kind: str, framing: str, value: str) -> None:
        given = {name.lower(): value for name, value in self.headers.items()}
        peer.head(self.status, {"content-type": kind, framing: value, **given})


def _block(event: Mapping[str, Any]) -> bytes:
    kind = event.get("type")
    return sse.encode(event=kind if isinstance(kind, str) else None, data=encode_json(event).decode())


@final
@attrs.frozen
class Script:
    """An answer written by hand, byte by byte: for what a `Reply` cannot say.

    Attributes:
        play: Called with the `Peer` in the connection's thread; what it raises is raised again where the block ends.
    """

    play: Callable[[Peer], None]


Turn: TypeAlias = (
    FakeStream | Reply | Script | int | Mapping[str, Any] | list[Any] | str | bytes | Callable[[Request], Any]
)
"""An answer: a stream, a document as JSON, text, bytes; an HTTP status for an error; a function of the request that
gives one of these; or a `Reply` or `Script`."""


class Peer:
    """The client's side of one request: what an answer writes to.

    Attributes:
        server: Who answers.
        request: What came.
        closes: Set it where the connection is not good for another request.
    """

    def __init__(self, server: Server, connection: socket.socket, request: Request) -> None:
        self.server = server
        self.request = request
        self.closes = False
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Write *data* as it is."""
        self._connection.sendall(data)

    def head(self, code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Write the status line and the headers."""
        try:
            phrase = HTTPStatus(code).phrase
        except ValueError:  # one of somebody's own
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {code} {phrase}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def chunk(self, data: bytes) -> None:
        """Write *data* as one chunk; an empty one ends the body."""
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.server.note_sent(len(data))

    def pause(self, seconds: float) -> None:
        """Wait so long; raises `ConnectionError` where the server stops meanwhile."""
        if self.server.stopping.wait(seconds):
            raise ConnectionAbortedError("the server stops")

    def wait(self, seconds: float | None = None) -> None:
        """Until the client has left, at most so many *seconds*; notes when that was."""
        self._connection.settimeout(self.server.patience if seconds is None else seconds)
        with contextlib.suppress(TimeoutError):
            if not self._connection.recv(1):
                self.server.note_left()

    def close(self) -> None:
        """Close the connection when the answer is over."""
        self.closes = True

    def hang(self) -> None:
        """Say nothing more until the client has left."""
        self.closes = True
        self.wait()

    def abort(self) -> None:
        """Drop the connection with a reset, at once."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.closes = True
        os.close(self._connection.detach())

    def patience(self, seconds: float) -> None:
        """Let each write take so long at most; then it raises `TimeoutError`."""
        self._connection.settimeout(seconds)


_ENDS: dict[str, Callable[[Peer], None]] = {
    "end": lambda peer: None,
    "cut": Peer.close,
    "reset": Peer.abort,
    "hang": Peer.hang,
}


class Server:
    """Gives the n-th request the n-th turn of its script, by HTTP on loopback, for the time of a ``with`` block.

    Any number of clients may ask, in any threads and tasks. A request beyond the script is answered with a 500 that
    says so, and raises `ScriptError` where the block ends; so does a turn that fails. Where the block ends with an
    exception of its own, that has a note of it.

    Args:
        turns: The script.
        repeat: Give the last turn again and again.
        patience: Seconds that a client may take for a request, or to take in what is sent. Nothing waits longer.

    Attributes:
        requests: What came, in order.
        problems: What was asked beyond the script, and what failed.
        sent: Bytes of streams that were sent.
        left: Set once a client has left in the middle of an answer.
        left_at: When that was, by the monotonic clock.
        patience: As given.
        stopping: Set when the block ends.
    """

    def __init__(self, *turns: Turn, repeat: bool = False, patience: float = 5.0) -> None:
        for turn in turns:
            _check_turn(turn)
        if repeat and not turns:
            raise UsageError("Server(repeat=True): there is no turn to repeat; give one")
        self.patience = patience
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self.sent = 0
        self.left = threading.Event()
        self.left_at: float | None = None
        self.stopping = threading.Event()
        self._turns = turns
        self._repeat = repeat
        self._failure: Exception | None = None
        self._listener: socket.socket | None = None
        self._address: tuple[str, int] | None = None
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the API begins, for a client; raises `UsageError` before the block."""
        if self._address is None:
            raise UsageError("this server has no address yet: with Server(...) as server: ...")
        return f"http://127.0.0.1:{self._address[1]}/v1"

    @property
    def connections(self) -> int:
        """How many connections were made."""
        return len(self._connections)

    @property
    def remaining(self) -> int:
        """How many turns have not been asked for."""
        return max(len(self._turns) - len(self.requests), 0)

    def note_sent(self, count: int) -> None:
        """So many bytes of a stream were sent."""
        with self._lock:
            self.sent += count

    def note_left(self) -> None:
        """A client has left."""
        if self.left_at is None:
            self.left_at = time.monotonic()
        self.left.set()

    def __enter__(self) -> Self:
        if self._address is not None:
            raise UsageError("this server has played already; make another: Server(...)")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._address = self._listener.getsockname()
        self._accepting.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        assert self._listener is not None
        assert self._address is not None
        self.stopping.set()
        with contextlib.suppress(OSError):  # wakes accept()
            socket.create_connection(self._address, timeout=self.patience).close()
        self._accepting.join(self.patience)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(self.patience)
            if thread.is_alive():
                self.problems.append(f"a turn is still at work {self.patience:g} s after the end of the block")
        for connection in self._connections:
            connection.close()
        self._listener.close()
        if not self.problems:
            return
        told = "; ".join(self.problems)
        if error is not None:
            error.add_note(f"the server says: {told}")
        else:
            raise ScriptError(told) from self._failure

    # --- in its threads ----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            connection, _ = self._listener.accept()
            if self.stopping.is_set():
                connection.close()
                return
            with contextlib.suppress(OSError):  # the client has left already
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection, len(self._connections)), daemon=True)
            self._connections.append(connection)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(self.patience)
        try:
            with connection.makefile("rb") as file:
                while (request := _read(file, number)) is not None:
                    peer = Peer(self, connection, request)
                    self._answer(peer)
                    if peer.closes:
                        break
                    connection.settimeout(self.patience)
        except (BrokenPipeError, ConnectionResetError):
            self.note_left()
        except OSError:
            pass  # too slow, or the server stops
        except ValueError as error:
            self.problems.append(f"connection {number} brought no request that is read here: {error}")
        finally:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _answer(self, peer: Peer) -> None:
        request = peer.request
        with self._lock:
            place = len(self.requests)
            self.requests.append(request)
        if self._repeat:
            place = min(place, len(self._turns) - 1)
        where = f"request {place} ({request.method} {request.path})"
        if place >= len(self._turns):
            self._refuse(peer, f"{where} is beyond the script, which has {len(self._turns)} turns")
            return
        try:
            turn: Any = self._turns[place]
            if callable(turn):
                turn = turn(request)
                _check_turn(turn)
            _reply_of(turn).play(peer)
        except OSError:
            raise
        except Exception as error:  # raised again where the block ends
            self._failure = error
            self._refuse(peer, f"the turn for {where} failed: {type(error).__name__}: {error}")

    def _refuse(self, peer: Peer, problem: str) -> None:
        self.problems.append(problem)
        peer.closes = True
        fault = {"message": problem, "type": "script_error", "code": None, "param": None}
        Reply({"error": fault}, status=500, headers={"x-should-retry": "false"}).play(peer)


def _read(file: Any, number: int) -> Request | None:
    line = file.readline().decode("latin-1")
    if not line:
        return None
    headers: dict[str, str] = {}
    while (header := file.readline().decode("latin-1").strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    method, path, _ = line.split()
    if "transfer-encoding" in headers:
        raise ValueError(f"{method} {path} has a body without content-length; send it whole")
    return Request(method, path, headers, file.read(int(headers.get("content-length", 0))), number)


def _check_turn(turn: object) -> None:
    if isinstance(turn, bool) or not (
        isinstance(turn, FakeStream | Reply | Script | int | Mapping | list | str | bytes) or callable(turn)
    ):
        raise UsageError(
            f"{excerpt(repr(turn))} is no turn of a server; give a stream(...), a mapping or list, text, bytes, the "
            "number of an HTTP status, a Reply(...), or a function of the request that gives one of these"
        )


def _reply_of(turn: Any) -> Reply | Script:
    if isinstance(turn, Reply | Script):
        return turn
    if isinstance(turn, int):
        fault = {"message": f"the script answers {turn}", "type": "scripted", "code": None, "param": None}
        return Reply({"error": fault}, status=turn)
    return Reply(turn)
