"""`eventflow.testing.Server`: turns are played in order, requests are noted, and nothing of it hangs or is lost."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from eventflow import AsyncClient, Client, Dispatcher, Run, Timeouts
from eventflow.errors import HTTPStatusError, StreamInterrupted, StreamTimeout, UsageError
from eventflow.testing import Peer, Reply, Request, Script, ScriptError, Server, stream
from eventflow.testing.frames import WIRES

ASK: Any = {"model": "m", "input": "Hello"}
SOON = 2.0  # seconds: far more than anything here takes
WHOLE = {"id": "resp_7", "object": "response", "status": "completed", "output": []}


def client_of(server: Server, **options: Any) -> Client:
    """A client that asks once."""
    return Client(base_url=server.url, api_key="sk-made-up", **{"max_retries": 0, **options})


def run_over(server: Server, **options: Any) -> Run:
    """The run over one answer."""
    with client_of(server, **options) as client:
        return Dispatcher().run(client.responses.create(**ASK, stream=True), check=False)


def get(server: Server, path: str = "/v1/x") -> tuple[int, str | None, bytes]:
    """The status, content type and body of an answer, as the standard library has them."""
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=SOON)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read()
    finally:
        connection.close()


def connected(server: Server) -> socket.socket:
    """A connection, for requests by hand."""
    host, port = server.url.split("/")[2].split(":")
    return socket.create_connection((host, int(port)), timeout=SOON)


def told_by(server: Server, use: Callable[[Server], object]) -> ScriptError:
    """What the block of a server that is used so ends with."""
    with pytest.raises(ScriptError) as caught, server:
        use(server)
    return caught.value


# --- turns -----------------------------------------------------------------------------------------------------------


def test_server_when_asked_plays_its_turns_in_order() -> None:
    """Each request takes the next turn; what was asked is noted as it came."""
    with (
        Server(stream(tools=[("weather", {"city": "Paris"})]), stream("It is sunny."), WHOLE) as server,
        client_of(server) as client,
    ):
        first = client.responses.create(**ASK, stream=True).collect()
        assert [call.name for call in first.tool_calls] == ["weather"]
        assert server.remaining == 2
        assert client.responses.create(**ASK, stream=True).collect().output_text == "It is sunny."
        assert client.responses.create(**ASK).id == "resp_7"
    assert [request.json for request in server.requests] == [{**ASK, "stream": True}] * 2 + [ASK]
    request = server.requests[0]
    assert (request.method, request.path, request.connection) == ("POST", "/v1/responses", 0)
    assert request.headers["authorization"] == "Bearer sk-made-up"
    assert (server.remaining, server.connections, server.problems) == (0, 1, [])


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_server_when_asked_async(way: str) -> None:
    """It serves the async client as the sync one."""

    async def main(url: str) -> str:
        async with AsyncClient(base_url=url, api_key="sk-made-up") as client:
            return (await (await client.responses.create(**ASK, stream=True)).collect()).output_text

    with Server(stream("Hello")) as server:
        assert anyio.run(main, server.url, backend=way) == "Hello"


@pytest.mark.parametrize("wire", WIRES)
def test_server_when_it_plays_another_wire(wire: Any) -> None:
    """A client of any provider gets what the stream says."""
    with Server(stream("Hello", tools=[("weather", {})], wire=wire)) as server:
        run = run_over(server, wire=wire)
    assert (run.status, run.text, [call.name for call in run.response.tool_calls]) == (
        "completed",
        "Hello",
        ["weather"],
    )


def test_turn_when_it_is_a_function_sees_the_request() -> None:
    """A function of the request gives the turn."""

    def echo(request: Request) -> Any:
        return stream(request.json["input"].upper())

    with Server(echo, lambda request: 404) as server:
        assert run_over(server).text == "HELLO"
        with client_of(server) as client, pytest.raises(HTTPStatusError, match="404"):
            client.responses.create(**ASK)


def test_turn_when_it_is_a_status_is_an_error_that_can_be_retried() -> None:
    """A number is an HTTP error; a reply has headers of its own; a client that retries comes to the turn after them."""
    refusal = Reply({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
    with Server(503, refusal, stream("at last")) as server:
        assert run_over(server, max_retries=2).text == "at last"
    assert len(server.requests) == 3


def test_turn_when_it_is_a_document_text_or_bytes() -> None:
    """JSON, text and bytes are sent whole, with their types; a reply may name another type and status."""
    page = Reply("<p>", status=299, headers={"Content-Type": "text/html"})
    with Server({"a": 1}, [2], "text", b"\x00", page, Reply([], status=503)) as server:
        assert get(server) == (200, "application/json", b'{"a":1}')
        assert get(server) == (200, "application/json", b"[2]")
        assert get(server) == (200, "text/plain", b"text")
        assert get(server) == (200, "text/plain", b"\x00")
        assert get(server) == (299, "text/html", b"<p>")
        assert get(server)[0] == 503


def test_reply_when_it_has_pieces_is_a_stream_of_them() -> None:
    """Bytes go as they are, mappings as server-sent events; an empty piece does not end the body."""
    pieces = [b": hello\n\n", b"", {"type": "a", "n": 1}, {"n": 2}]
    with Server(Reply(iter(pieces))) as server:
        expected = b': hello\n\nevent: a\ndata: {"type":"a","n":1}\n\ndata: {"n":2}\n\n'
        assert get(server) == (200, "text/event-stream", expected)
    assert server.sent == len(expected)


def test_turn_when_the_last_is_repeated() -> None:
    """The last turn answers all further requests."""
    with Server("a", "b", repeat=True) as server:
        assert [get(server)[2] for _ in range(4)] == [b"a", b"b", b"b", b"b"]


def test_script_when_it_writes_by_hand() -> None:
    """An answer may be written byte by byte."""

    def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        peer.send(peer.request.path.encode()[:4])
        peer.close()

    with Server(Script(play)) as server:
        assert get(server)[2] == b"/v1/"


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["cut", "reset"])
def test_stream_when_its_connection_breaks(then: Any) -> None:
    """A stream that is cut or reset after some events is interrupted, with what had come."""
    with Server(Reply(stream("a b c", cut_at=6), pace=0.01, then=then)) as server:
        run = run_over(server)
    assert isinstance(run.error, StreamInterrupted)
    assert (run.status, run.text) == ("truncated", "a b")


def test_stream_when_it_hangs_is_left() -> None:
    """A stream that says nothing more lets the client run into its own timer, and notes when it has left."""
    with Server(Reply(stream("a b c", cut_at=6), then="hang")) as server:
        run = run_over(server, timeout=Timeouts(idle=0.1))
        assert isinstance(run.error, StreamTimeout)
        assert server.left.wait(SOON)
    assert server.left_at is not None


@pytest.mark.parametrize("then", ["cut", "reset"])
def test_document_when_its_connection_breaks(then: Any) -> None:
    """A document that is broken off is no answer, and neither is none at all."""
    with Server(Reply(WHOLE, then=then), Reply(None, then=then)) as server:
        for _ in range(2):
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                get(server)


def test_block_when_it_ends_in_the_middle_of_answers_ends_at_once() -> None:
    """Pauses and hanging answers do not outlast the block."""
    started = time.monotonic()
    pacing = Server(Reply(stream("a b c"), pace=60))
    hanging = Server(Reply(stream("a b c", cut_at=1), then="hang"), patience=60)
    for server in (pacing, hanging):
        with server:
            peer = connected(server)
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
            received = b""
            while b"response.created" not in received:
                received += peer.recv(1000)
        peer.close()
    assert time.monotonic() - started < SOON


def test_client_when_it_sends_nothing_is_not_waited_for() -> None:
    """A connection without a request is closed when the patience is over."""
    with Server("a", patience=0.05) as server:
        with connected(server) as peer:
            assert peer.recv(1) == b""
        assert get(server)[2] == b"a"


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_request_when_it_is_beyond_the_script_is_answered_and_told() -> None:
    """It gets a 500 that says so and that is not to be retried; the block ends with an error that says it again."""

    def use(server: Server) -> None:
        with client_of(server, max_retries=2) as client:
            client.responses.create(**ASK)
            with pytest.raises(HTTPStatusError, match="beyond the script") as caught:
                client.responses.create(**ASK)
            assert caught.value.status == 500

    server = Server(WHOLE)
    error = told_by(server, use)
    assert str(error) == "request 1 (POST /v1/responses) is beyond the script, which has 1 turns"
    assert server.problems == [str(error)]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("turn", "message"),
    [(lambda request: 1 / 0, "ZeroDivisionError"), (lambda request: 1.5, "1.5 is no turn of a server")],
)
def test_turn_when_it_fails_is_told_with_its_cause(turn: Any, message: str) -> None:
    """What a function of the request raises, or gives that is no turn, is a 500, and the cause of the error."""
    error = told_by(Server(turn), lambda server: get(server)[0] == 500 or pytest.fail("no 500"))
    assert message in str(error)
    assert error.__cause__ is not None


def test_block_when_it_raises_keeps_its_exception_with_a_note() -> None:
    """The exception of the test itself comes first; what the server has to say is a note of it."""

    def use(server: Server) -> None:
        assert get(server)[0] == 500
        raise KeyError("the test's own")

    with pytest.raises(KeyError) as caught, Server() as server:
        use(server)
    (note,) = caught.value.__notes__
    assert "the server says: request 0 (GET /v1/x) is beyond the script" in note


def test_turn_when_it_does_not_end_is_told() -> None:
    """A function that waits for ever does not hang the test; the error says so."""
    forever = threading.Event()

    def use(server: Server) -> None:
        with connected(server) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert begun.wait(SOON)

    def turn(request: Request) -> int:
        begun.set()
        forever.wait(SOON)
        return 200

    begun = threading.Event()
    assert "a turn is still at work" in str(told_by(Server(turn, patience=0.05), use))
    forever.set()


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"hello\r\n\r\n", "no request that is read here"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "send it whole"),
    ],
)
def test_request_when_it_cannot_be_read_is_told(sent: bytes, message: str) -> None:
    """What is no request, or has a body of unknown length, is reported."""

    def use(server: Server) -> None:
        with connected(server) as peer:
            peer.sendall(sent)
            assert peer.recv(1) == b""

    assert message in str(told_by(Server("a"), use))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Server(None), "None is no turn of a server; give a stream"),  # type: ignore[arg-type]
        (lambda: Server(True), "True is no turn"),
        (lambda: Server(repeat=True), "no turn to repeat"),
        (lambda: Server("a").url, "has no address yet: with Server"),
        (lambda: Reply("a", then="stop"), "give 'end', 'cut', 'reset' or 'hang'"),  # type: ignore[arg-type]
        (lambda: Reply(None), "Reply(None) has no end"),
        (lambda: Reply(5), "Reply(int): give a stream"),
    ],
)
def test_server_when_it_is_made_wrongly_says_what_to_give(make: Any, message: str) -> None:
    """What is no turn is refused where it is given."""
    with pytest.raises(UsageError) as caught:
        make()
    assert message in str(caught.value)


def test_server_when_it_has_played_is_not_played_again() -> None:
    """One block a server."""
    with Server() as server:
        pass
    with pytest.raises(UsageError, match="make another"), server:
        pass
