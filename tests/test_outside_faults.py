"""The clients against LLMock, a chaos server that is not ours: it breaks answers on demand, and judges who asked.

Its own verdict is asked for at the end of every test; what the answers' errors are and keep is asserted here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import attrs
import httpx
import pytest
from peers import llmock, why_no_llmock

from eventflow import AsyncClient, Client, Dispatcher, Run, Timeouts
from eventflow.errors import (
    DecodeError,
    EventflowError,
    HTTPStatusError,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
)
from eventflow_plugins import Tools

TEXT = "one two three four five six seven eight"
BASES = {"responses": "/v1", "chat": "/v1", "anthropic": "/anthropic/v1", "gemini": "/gemini/v1beta"}
FACES = ("sync", "async")
SILENCE = 0.2  # seconds that our timer allows; the server is told to be silent for longer
STALL = 1.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the server is."""
    reason = why_no_llmock()
    if reason is not None:
        pytest.skip(reason)
    with llmock() as url:
        yield url


@attrs.frozen
class Chaos:
    """What the server is to do next, and what it saw."""

    url: str
    http: httpx.Client

    def plan(self, *behaviours: dict[str, Any]) -> None:
        """Do this to the next requests."""
        self.http.post(f"{self.url}/_llmock/scenario", json={"behaviors": list(behaviours)}).raise_for_status()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests that came, with the fault that each got."""
        seen = self.http.get(f"{self.url}/_llmock/requests").raise_for_status().json()
        return list(seen["requests"] if isinstance(seen, dict) else seen)

    @property
    def findings(self) -> list[str]:
        """What it holds against the client."""
        verdict = self.http.get(f"{self.url}/_llmock/verdict").raise_for_status().json()
        return [finding["code"] for finding in verdict["findings"]]


@pytest.fixture
def chaos(address: str) -> Iterator[Chaos]:
    """The server, as if it were new."""
    with httpx.Client(trust_env=False) as http:
        http.post(f"{address}/_llmock/reset").raise_for_status()
        yield Chaos(address, http)


def ask(face: str, chaos: Chaos, wire: str, *plugins: Tools, max_retries: int = 0, idle: float = 5.0) -> Run:
    """Ask for a stream, and read it to whatever end it has."""
    options: dict[str, Any] = {
        "api_key": "sk-made-up",
        "base_url": chaos.url + BASES[wire],
        "wire": wire,
        "max_retries": max_retries,
        "timeout": Timeouts(idle=idle, first_event=max(idle, SILENCE)),
    }
    parameters: dict[str, Any] = {"model": "m", "input": "Count.", "max_output_tokens": 100, "stream": True}
    parameters["tools"] = [each for plugin in plugins for each in plugin.definitions] or None
    flow = Dispatcher(*plugins)

    async def aask() -> Run:
        async with AsyncClient(**options) as client:
            return await flow.arun(await client.responses.create(**parameters), check=False)

    if face == "async":
        return asyncio.run(aask())
    with Client(**options) as client:
        return flow.run(client.responses.create(**parameters), check=False)


def fault(kind: str, after: int = 4, **more: Any) -> dict[str, Any]:
    """A stream that breaks."""
    return {"type": "stream_fault", "kind": kind, "after_chunks": after, **more}


REPLY = {"type": "reply", "text": TEXT}

every_way = pytest.mark.parametrize("face", FACES)
every_wire = pytest.mark.parametrize(
    ("face", "wire"),
    [("sync", "responses"), ("async", "responses"), ("sync", "chat"), ("async", "anthropic"), ("sync", "gemini")],
)


@every_wire
def test_answer_when_nothing_is_wrong(chaos: Chaos, face: str, wire: str) -> None:
    """All of it arrives, and the run is completed."""
    chaos.plan(REPLY)
    run = ask(face, chaos, wire)
    assert (run.status, run.text, run.error, run.warnings) == ("completed", TEXT, None, ())
    assert chaos.findings == []


@every_wire
@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("truncate", "truncated", StreamTruncated),
        ("disconnect", "truncated", StreamInterrupted),
        ("malformed", "failed", DecodeError),
        ("stall", "timeout", StreamTimeout),
    ],
)
def test_stream_when_it_breaks(
    chaos: Chaos, face: str, wire: str, kind: str, status: str, expected: type[EventflowError]
) -> None:
    """It has its name, and everything received is kept; asked again where the error says so, the answer is whole."""
    stall = {"stall_seconds": STALL} if kind == "stall" else {}
    after = 7 if wire in ("responses", "anthropic") else 4  # these two begin with events that have no text
    chaos.plan(REPLY, fault(kind, after, **stall))
    run = ask(face, chaos, wire, max_retries=2, idle=SILENCE if stall else 5.0)
    assert (run.status, type(run.error)) == (status, expected)
    assert run.text
    assert TEXT.startswith(run.text)
    assert run.text != TEXT
    assert run.error is not None
    assert run.error.partial == run.response
    assert run.response.output_text == run.text
    assert len(chaos.requests) == 1  # it has begun: to send it again by itself would say its beginning twice
    if run.error.retryable:
        chaos.plan(REPLY)
        assert ask(face, chaos, wire).text == TEXT
        assert chaos.findings == []  # before that it took the error, which it cannot see, for an accepted stump


@every_wire
def test_error_when_it_will_not_pass(chaos: Chaos, face: str, wire: str) -> None:
    """It is raised at once, with its status and the server's words, and nothing is sent again."""
    chaos.plan({"type": "fail", "status": 400, "message": "no such model"})
    with pytest.raises(HTTPStatusError, match="no such model") as caught:
        ask(face, chaos, wire, max_retries=2)
    assert (caught.value.status, caught.value.retryable) == (400, False)
    assert len(chaos.requests) == 1
    assert chaos.findings == []


@pytest.mark.parametrize(
    ("face", "wire", "code"),
    [("sync", "responses", 429), ("async", "chat", 503), ("sync", "anthropic", 529), ("async", "gemini", 500)],
)
def test_error_when_it_passes(chaos: Chaos, face: str, wire: str, code: int) -> None:
    """The request is sent again, not before the server wants it, and the answer is whole."""
    wait = {"retry_after": 0.2} if code == 429 else {}
    chaos.plan({"type": "fail", "status": code, **wait}, REPLY)
    run = ask(face, chaos, wire, max_retries=1)
    assert (run.status, run.text) == ("completed", TEXT)
    assert len(chaos.requests) == 2
    assert chaos.findings == []


@every_way
def test_error_when_it_stays(chaos: Chaos, face: str) -> None:
    """After the retries the last answer is raised, with what the server asks to wait."""
    chaos.plan({"type": "fail", "status": 429, "retry_after": 0.1, "times": None})
    with pytest.raises(HTTPStatusError) as caught:
        ask(face, chaos, "responses", max_retries=2)
    assert (caught.value.status, caught.value.retry_after, caught.value.retryable) == (429, 0.1, True)
    assert len(chaos.requests) == 3


@every_way
def test_first_event_when_it_is_late(chaos: Chaos, face: str) -> None:
    """Our timer ends the wait."""
    chaos.plan(REPLY, {"type": "slow_first_token", "seconds": STALL})
    run = ask(face, chaos, "responses", idle=SILENCE)
    assert (run.status, type(run.error), run.events) == ("timeout", StreamTimeout, 0)


@every_wire
def test_call_when_its_arguments_are_cut(chaos: Chaos, face: str, wire: str) -> None:
    """What the model wrote is kept as it is; that it is no JSON is not the stream's failure, and no tool runs."""
    ran: list[str] = []

    def weather(city: str) -> None:
        """The weather."""
        ran.append(city)

    chaos.plan({"type": "tool_fault", "kind": "malformed_arguments"})
    run = ask(face, chaos, wire, Tools([weather]))
    assert run.status == "completed"
    (call,) = run.response.tool_calls
    assert call.name == "weather"
    assert call.arguments == ("{}" if wire == "gemini" else '{"city": "')  # there they are an object, and it is empty
    assert ran == []
