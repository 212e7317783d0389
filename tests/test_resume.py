"""Streams that are cut and go on by themselves: behind a sequence number, an event id, or a byte."""

from __future__ import annotations

import json
import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from scenarios import JSON, answer, block, body, numbered
from servers import Answer, Peer, Server, silence, sse, status

from eventflow import AsyncClient, Client, Dispatcher, Run, TextDelta, Timeouts
from eventflow.errors import HTTPStatusError, StreamInterrupted, StreamTruncated

pytestmark = pytest.mark.filterwarnings(  # under trio: httpx does not close its own generators
    "ignore:Async generator 'http:ResourceWarning"
)

TEXT = ["a", "b", "c", "d"]
EVENTS = numbered(answer(*TEXT))
WAYS = ("sync", "asyncio", "trio")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr("eventflow.exchange._FIRST_DELAY", 0.001)


def stream(server: Server, way: str, flow: Dispatcher | None = None, **parameters: Any) -> Run:
    """The run of a stream of *server*, in one of three ways."""
    flow = flow or Dispatcher()
    options: dict[str, Any] = {"timeout": parameters.pop("timeouts", None), "max_retries": parameters.pop("tries", 2)}
    options["retry_timeouts"] = parameters.pop("retry_timeouts", False)
    parameters = {"model": "m", "input": "hello", "resume": True, **parameters}
    if way == "sync":
        with Client(base_url=server.url, **options) as client:
            return flow.run(client.responses.create(stream=True, **parameters), check=False)

    async def main() -> Run:
        async with AsyncClient(base_url=server.url, **options) as client:
            return await flow.arun(await client.responses.create(stream=True, **parameters), check=False)

    return anyio.run(main, backend=way)


def cut(events: list[Any], tail: bytes = b"") -> Answer:
    """An answer that breaks off behind *events*, with *tail* of the next one."""
    return sse([*events, tail] if tail else events, end=b"")


def identified(events: list[JSON], start: int = 0) -> list[bytes]:
    """Blocks with ids; no numbers inside."""
    return [b"id: %d\n" % number + block(event) for number, event in enumerate(events, start)]


def heard(flow: Dispatcher) -> list[Any]:
    """What handlers of *flow* are told from now on."""
    events: list[Any] = []
    flow.on("*", events.append)
    return events


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tail", [b"", block(EVENTS[3])[:20], block(EVENTS[3])[:-1]], ids=["between", "within", "end"])
def test_background_response_when_cut_goes_on_behind_its_last_number(way: str, tail: bytes) -> None:
    """Each event comes once, in order; what had not ended is asked for again."""
    flow = Dispatcher()
    events = heard(flow)
    with Server(cut(EVENTS[:3], tail), sse(EVENTS[3:])) as server:
        run = stream(server, way, flow, background=True)
    assert (run.status, run.text, run.warnings) == ("completed", "abcd", ())
    assert [event.sequence_number for event in events] == list(range(len(EVENTS)))
    first, second = server.requests
    assert (first.method, first.path, first.json["background"]) == ("POST", "/v1/responses", True)
    assert (second.method, urlsplit(second.path).path) == ("GET", "/v1/responses/resp_1")
    assert parse_qs(urlsplit(second.path).query) == {"stream": ["true"], "starting_after": ["2"]}
    assert not {"content-type", "idempotency-key"} & set(second.headers)


@pytest.mark.parametrize("way", WAYS)
def test_retrieved_response_when_cut_goes_on(way: str) -> None:
    """A stream that was itself retrieved is resumed as well, as often as it makes progress."""
    answers = [cut([event]) for event in EVENTS[2:-1]]

    async def main(server: Server) -> Any:
        async with AsyncClient(base_url=server.url, max_retries=1) as client:
            stream = await client.responses.retrieve("resp_1", stream=True, starting_after=1, resume=True)
            await stream.collect()
            return stream.run

    def plain(server: Server) -> Any:
        with Client(base_url=server.url, max_retries=1) as client:
            stream = client.responses.retrieve("resp_1", stream=True, starting_after=1, resume=True)
            stream.collect()
            return stream.run

    first = [EVENTS[0] | {"sequence_number": 2, "type": "response.in_progress"}]
    with Server(cut(first), *answers[1:], sse(EVENTS[-1:])) as server:
        run = plain(server) if way == "sync" else anyio.run(main, server, backend=way)
    asked = [parse_qs(urlsplit(request.path).query)["starting_after"] for request in server.requests]
    assert asked == [["1"], *([str(number)] for number in range(2, len(EVENTS) - 1))]
    assert run.status == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_stream_with_ids_when_cut_is_asked_for_again(way: str) -> None:
    """The standard's way: the same request with ``Last-Event-ID``, after the time that the server asked for."""
    blocks = identified(answer(*TEXT))
    begun = time.monotonic()
    with Server(cut([b"retry: 50\n" + blocks[0], *blocks[1:4], blocks[4][:9]]), sse(blocks[4:])) as server:
        run = stream(server, way)
    assert (run.status, run.text, run.warnings) == ("completed", "abcd", ())
    first, second = server.requests
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "3"
    assert (second.method, second.body) == (first.method, first.body)
    assert second.headers["idempotency-key"] == first.headers["idempotency-key"]
    assert time.monotonic() - begun >= 0.05


@pytest.mark.parametrize("way", WAYS)
def test_stream_of_llama_cpp_when_cut_goes_on_behind_its_last_byte(way: str) -> None:
    """Its server keeps the bytes of a stream that has a conversation's id: the body goes on where it was cut."""
    whole = body(answer(*TEXT))
    mark = {"server": "llama.cpp"}
    cuts = (100, 101, 555)

    def piece(start: int, end: int | None) -> Answer:
        return sse([whole[start:end]], headers=mark, end=b"0\r\n\r\n" if end is None else b"")

    places = [0, *cuts]
    with Server(*(piece(start, end) for start, end in zip(places, [*cuts, None], strict=True))) as server:
        run = stream(server, way, tries=3)
    assert (run.status, run.text, run.events, run.warnings) == ("completed", "abcd", 9, ())
    conversation = server.requests[0].headers["x-conversation-id"]
    for place, request in zip(cuts, server.requests[1:], strict=True):
        assert (request.method, urlsplit(request.path).path) == ("GET", "/v1/stream")
        assert parse_qs(urlsplit(request.path).query) == {"conv_id": [conversation], "from": [str(place)]}


@pytest.mark.parametrize("way", WAYS)
def test_resumed_stream_when_it_repeats_events_tells_them_once(way: str) -> None:
    """A server that gives more than was asked for: what has come before is dropped, without a warning."""
    flow = Dispatcher()
    events = heard(flow)
    with Server(cut(EVENTS[:4]), sse(EVENTS)) as server:
        run = stream(server, way, flow)
    assert [event.sequence_number for event in events] == list(range(len(EVENTS)))
    assert (run.text, run.warnings) == ("abcd", ())


def test_resumed_stream_when_events_are_missing_warns() -> None:
    """A gap behind a resumption is a gap."""
    with Server(cut(EVENTS[:4]), sse(EVENTS[5:])) as server:
        run = stream(server, "sync")
    assert [oddity.kind for oddity in run.warnings][:1] == ["gap"]


@pytest.mark.parametrize("way", WAYS)
def test_resumed_stream_when_the_server_begins_anew_is_an_error(way: str) -> None:
    """A server that ignores the id would double the text: that ends the run, with what came before."""
    blocks = identified(answer(*TEXT))
    with Server(cut(blocks[:4]), sse(blocks)) as server:
        run = stream(server, way)
    assert (run.status, run.text) == ("truncated", "ab")
    assert isinstance(run.error, StreamInterrupted)
    assert "anew" in run.error.message


@pytest.mark.parametrize("way", WAYS)
def test_resumption_when_the_server_refuses_is_an_error_with_both_reasons(way: str) -> None:
    """What the server said to the resumption is the cause of the interruption."""
    with Server(cut(EVENTS[:4]), status(404)) as server:
        run = stream(server, way)
    assert (run.status, run.text) == ("truncated", "ab")
    assert isinstance(run.error, StreamInterrupted)
    assert isinstance(run.error.__cause__, HTTPStatusError)
    assert "could not be resumed" in run.error.message
    assert run.error.partial == run.response


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tries", [0, 9])
def test_resumption_when_it_makes_no_progress_ends(way: str, tries: int) -> None:
    """Cuts without an event between them are counted, five at most, whatever ``max_retries`` says."""
    with Server(cut(EVENTS[:4]), cut([])) as server:
        run = stream(server, way, tries=tries)
    assert (run.status, run.text, len(server.requests)) == ("truncated", "ab", 6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "brought",
    [b'id: %d\nevent: ping\ndata: {"type":"ping"}\n\n', b'id: 3\ndata: {"type":"vendor.note","n":%d}\n\n'],
    ids=["pings", "the same place"],
)
def test_resumption_when_what_it_brings_is_no_progress_ends(way: str, brought: bytes) -> None:
    """Neither pings with ever new ids nor events behind which nothing else is asked for forgive a cut."""
    blocks = identified(answer(*TEXT))
    vain = [cut([brought % number]) for number in range(4, 10)]
    with Server(cut(blocks[:4]), *vain, sse(blocks[4:])) as server:
        run = stream(server, way)
    assert (run.status, run.text, len(server.requests)) == ("truncated", "ab", 6)


def test_stream_when_it_asks_for_no_pause_is_not_asked_for_again_at_once() -> None:
    """``retry: 0`` is a tenth of a second, so that a server that cuts every answer is not overrun."""
    blocks = identified(answer(*TEXT))
    begun = time.monotonic()
    with Server(cut([b"retry: 0\n" + blocks[0]]), cut(blocks[1:3]), sse(blocks[3:])) as server:
        assert stream(server, "sync").status == "completed"
    assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize("way", WAYS)
def test_resumption_when_no_retries_are_allowed_goes_on(way: str) -> None:
    """Retries are for requests without an event: a stream goes on without them, and bears with a refusal."""
    with Server(cut(EVENTS[:3]), cut(EVENTS[3:5]), status(503), cut([]), sse(EVENTS[5:])) as server:
        run = stream(server, way, background=True, tries=0)
    assert (run.status, run.text, run.warnings, len(server.requests)) == ("completed", "abcd", (), 5)


@pytest.mark.parametrize("way", WAYS)
def test_resumption_when_the_server_is_gone_ends(way: str) -> None:
    """Refusals of a resumption count as cuts do: there are five requests after the first, and no more."""
    with Server(cut(EVENTS[:4]), status(503)) as server:
        run = stream(server, way, tries=0)
    assert (run.status, run.text, len(server.requests)) == ("truncated", "ab", 6)
    assert isinstance(run.error, StreamInterrupted)
    assert isinstance(run.error.__cause__, HTTPStatusError)


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_it_cannot_be_resumed_is_retried_before_its_first_event_only(way: str) -> None:
    """Without anything to resume by, ``max_retries`` counts, and a cut before the first event is not resumed."""
    for tries in (0, 2):
        with Server(cut([])) as server:
            run = stream(server, way, tries=tries)
        assert (run.status, len(server.requests)) == ("truncated", 1 + tries)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("events", "parameters"),
    [(EVENTS[:4], {"resume": False}), (answer(*TEXT)[:4], {})],
    ids=["unasked", "nothing to ask by"],
)
def test_stream_when_it_cannot_be_resumed_is_truncated(
    way: str, events: list[JSON], parameters: dict[str, Any]
) -> None:
    """Without leave, and without numbers or ids, a cut is a cut."""
    with Server(cut(events)) as server:
        run = stream(server, way, **parameters)
    assert (run.status, run.text, len(server.requests)) == ("truncated", "ab", 1)
    assert isinstance(run.error, StreamInterrupted)


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_it_ends_cleanly_without_a_terminal_event_is_resumed_too(way: str) -> None:
    """A body that ends in peace but too early is a cut like any other."""
    with Server(sse(EVENTS[:4]), sse(EVENTS[4:])) as server:
        assert stream(server, way).status == "completed"
    with Server(sse(EVENTS[:4])) as server:
        run = stream(server, way, resume=False)
    assert type(run.error) is StreamTruncated


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_it_reports_an_error_is_not_resumed(way: str) -> None:
    """What the API has said is its last word."""
    error = {"type": "error", "code": "x", "message": "no", "sequence_number": 4}
    with Server(cut([*EVENTS[:4], error])) as server:
        run = stream(server, way)
    assert (run.status, len(server.requests)) == ("failed", 1)


@pytest.mark.parametrize("way", WAYS)
def test_silent_stream_when_timeouts_may_be_retried_is_resumed(way: str) -> None:
    """A stream that has gone silent is taken up again where that was asked for, and only there."""

    def hanging(peer: Peer) -> None:
        sse(EVENTS[:4], then=silence)(peer)

    timeouts = Timeouts(idle=0.1)
    with Server(hanging, sse(EVENTS[4:])) as server:
        assert stream(server, way, timeouts=timeouts, retry_timeouts=True).status == "completed"
    with Server(hanging, sse(EVENTS[4:])) as server:
        assert stream(server, way, timeouts=timeouts).status == "timeout"


@pytest.mark.parametrize("way", WAYS)
def test_run_when_cancelled_before_it_goes_on_ends_at_once(way: str) -> None:
    """A run that waits to reconnect can be cancelled from another thread."""
    timers: list[threading.Timer] = []
    flow = Dispatcher()

    @flow.on(TextDelta)
    def soon(event: TextDelta, run: Run) -> None:
        if not timers:
            timers.append(threading.Timer(0.1, run.cancel))
            timers[0].start()

    blocks = identified(answer(*TEXT))
    begun = time.monotonic()
    with Server(cut([b"retry: 30000\n" + blocks[0], *blocks[1:4]])) as server:
        run = stream(server, way, flow)
    timers[0].join()
    assert (run.status, run.error, run.text) == ("cancelled", None, "ab")
    assert time.monotonic() - begun < 5


def page(peer: Peer) -> None:
    """An error whose page does not come."""
    peer.head(503, {"content-length": "9"})
    silence(peer)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("again", [silence, page], ids=["head", "page"])
def test_run_when_cancelled_while_it_is_asked_for_again_ends_at_once(way: str, again: Answer) -> None:
    """The request that is under way is cut, wherever it is, and no other is sent."""
    asked = threading.Event()
    runs: list[Run] = []
    flow = Dispatcher()
    flow.on("response.created", lambda event, run: runs.append(run))

    def second(peer: Peer) -> None:
        asked.set()
        again(peer)

    def cancel() -> None:
        assert asked.wait(5)
        time.sleep(0.05)  # until the head, where there is one, has come
        runs[0].cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    begun = time.monotonic()
    with Server(cut(EVENTS[:4]), second, sse(EVENTS[4:])) as server:
        run = stream(server, way, flow)
    canceller.join()
    assert (run.status, run.error, run.text, len(server.requests)) == ("cancelled", None, "ab", 2)
    assert time.monotonic() - begun < 2


def test_relay_when_it_has_no_snapshot_is_resumed_by_ids() -> None:
    """A relay compares no numbers; ids are enough."""
    blocks = identified(answer(*TEXT))
    flow = Dispatcher(snapshot=False)
    texts: list[str] = []
    flow.on(TextDelta, lambda event: texts.append(event.delta))
    with Server(cut(blocks[:4]), sse(blocks[4:])) as server:
        run = stream(server, "sync", flow)
    assert (run.status, texts) == ("completed", TEXT)


@pytest.mark.parametrize("way", WAYS)
def test_translated_stream_when_it_ends_with_its_body_is_not_asked_for_again(way: str) -> None:
    """A chat without an end marker is complete with its reason for finishing, whatever ids its events have."""
    pieces = [({"content": "a"}, None), ({}, "stop")]
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in pieces]
    blocks = [b"id: %d\ndata: %s\n\n" % (n, json.dumps(chunk).encode()) for n, chunk in enumerate(chunks)]
    for answers, expected in (([sse(blocks)], "completed"), ([cut(blocks[:1])], "truncated")):
        with Server(*answers) as server:
            if way == "sync":
                with Client(base_url=server.url, wire="chat") as client:
                    run = Dispatcher().run(client.responses.create(stream=True, model="m", resume=True), check=False)
            else:

                async def main(url: str) -> Run:
                    async with AsyncClient(base_url=url, wire="chat") as client:
                        stream = await client.responses.create(stream=True, model="m", resume=True)
                        return await Dispatcher().arun(stream, check=False)

                run = anyio.run(main, server.url, backend=way)
            assert (run.status, run.text, len(server.requests)) == (expected, "a", 1)


def test_stream_when_it_asks_to_wait_for_ever_is_not_waited_for() -> None:
    """A time to reconnect after more than a minute is none."""
    blocks = identified(answer(*TEXT))
    with Server(cut([b"retry: 86400000\n" + blocks[0], *blocks[1:4]])) as server:
        run = stream(server, "sync")
    assert (run.status, len(server.requests)) == ("truncated", 1)
