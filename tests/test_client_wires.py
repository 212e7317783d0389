"""One program over four APIs: requests in the provider's own words, answers in ours, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from servers import Answer, Server, document, sse
from test_wire_sources import ANTHROPIC, CHAT, GEMINI

from eventflow import AsyncClient, Client, Dispatcher, Response, TextDelta, ToolCall
from eventflow.cli.model_server import ModelServer
from eventflow.errors import APIStreamError, DecodeError, HTTPStatusError, UsageError

WAYS = ("sync", "asyncio", "trio")
TOOL = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]},
}
ASK: dict[str, Any] = {
    "model": "m",
    "input": "Hello!",
    "instructions": "Be brief.",
    "max_output_tokens": 50,
    "tools": [TOOL],
}

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}
DOCUMENTS: dict[str, Any] = {
    "chat": {
        "id": "chat_1", "object": "chat.completion", "model": "m", "created": 1,
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "ab", "reasoning_content": "hmm", "tool_calls": [CALL]}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    },
    "anthropic": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "hmm", "signature": "c2ln"},
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "x"}},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 5},
    },
    "gemini": {
        "candidates": [{"content": {"role": "model", "parts": [
            {"text": "hmm", "thought": True}, {"text": "ab"},
            {"functionCall": {"id": "call_1", "name": "weather", "args": {"city": "x"}}}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 1},
        "responseId": "g_1", "modelVersion": "m",
    },
}  # fmt: skip
STREAMS: dict[str, Answer] = {
    "chat": sse([*(b"data: %s\n\n" % json.dumps(event).encode() for event in CHAT), b"data: [DONE]\n\n"]),
    "anthropic": sse([b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in ANTHROPIC]),
    "gemini": sse([b"data: %s\r\n\r\n" % json.dumps(event).encode() for event in GEMINI]),
}
PATHS = {
    "chat": ("/v1/chat/completions", "/v1/chat/completions"),
    "anthropic": ("/v1/messages", "/v1/messages"),
    "gemini": ("/v1/models/m:streamGenerateContent?alt=sse", "/v1/models/m:generateContent"),
}
KEYS = {"chat": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}


def check(response: Response) -> None:
    """Every provider says the same."""
    assert (response.output_text, response.reasoning_text, response.status) == ("ab", "hmm", "completed")
    (call,) = response.tool_calls
    assert (call.name, json.loads(call.arguments), call.call_id) == ("weather", {"city": "x"}, "call_1")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 5)


def both(server: Server, wire: str, way: str, heard: list[str], **options: Any) -> tuple[Response, Response]:
    """The response of a stream, and that of a document."""
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    flow.on(ToolCall, lambda event: heard.append(event.name))
    options = {"base_url": server.url, "wire": wire, "api_key": "made-up", **options}
    if way == "sync":
        with Client(**options) as client:
            run = flow.run(client.responses.create(stream=True, **ASK))
            return run.response, client.responses.create(**ASK)

    async def main() -> tuple[Response, Response]:
        async with AsyncClient(**options) as client:
            run = await flow.arun(await client.responses.create(stream=True, **ASK))
            return run.response, await client.responses.create(**ASK)

    return anyio.run(main, backend=way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", STREAMS)
def test_program_when_the_provider_is_any(wire: str, way: str) -> None:
    """The same handlers and the same response, streamed and whole; path, key and body are the provider's."""
    heard: list[str] = []
    with Server(STREAMS[wire], document(DOCUMENTS[wire])) as server:
        streamed, whole = both(server, wire, way, heard)
    assert heard == ["a", "b", "weather"]
    check(streamed)
    check(whole)
    assert tuple(request.path for request in server.requests) == PATHS[wire]
    for request in server.requests:
        assert request.headers[KEYS[wire]].removeprefix("Bearer ") == "made-up"
        assert "Be brief." in request.body.decode()
        assert "Hello!" in request.body.decode()
        assert "weather" in request.body.decode()
    assert ("anthropic-version" in server.requests[0].headers) is (wire == "anthropic")
    if wire == "chat":
        assert server.requests[0].json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("wire", STREAMS)
def test_turn_when_outputs_are_sent_back(wire: str) -> None:
    """The items of an answer, and what the tools gave, make the next request."""
    with Server(STREAMS[wire]) as server, server.client(wire=wire, api_key="made-up") as client:
        response = client.responses.create(stream=True, **ASK).collect()
        output = {"type": "function_call_output", "call_id": "call_1", "output": "18 degrees"}
        items = [{"role": "user", "content": "Hello!"}, *response.output, output]
        check(client.responses.create(stream=True, **{**ASK, "input": items}).collect())
    body = server.requests[1].body.decode()
    for said in ("ab", "weather", "18 degrees"):
        assert said in body
    if wire == "anthropic":
        assert "c2ln" in body
    if wire == "chat":
        assert '"reasoning_content":"hmm"' in body


@pytest.mark.parametrize(
    ("wire", "key_name", "url_name"),
    [
        ("chat", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
        ("anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
        ("gemini", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL"),
    ],
)
def test_client_when_the_environment_has_key_and_address(
    wire: str, key_name: str, url_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each provider has variables of its own; without a key, its own server is not even asked."""
    monkeypatch.delenv(key_name, raising=False)
    with pytest.raises(UsageError, match=rf"set {key_name}"):
        Client(wire=wire)
    monkeypatch.setenv(key_name, "made-up")
    with Server(STREAMS[wire]) as server:
        version = "" if wire == "chat" else None
        monkeypatch.setenv(url_name, server.url if version is not None else server.url.removesuffix("/v1"))
        with Client(wire=wire) as client:
            check(client.responses.create(stream=True, **ASK).collect())
    assert server.requests[0].headers[KEYS[wire]].removeprefix("Bearer ") == "made-up"


def test_parameter_when_the_provider_cannot_be_told() -> None:
    """That is an error before the request; leniently, a warning that names it."""
    with Server(STREAMS["anthropic"]) as server:
        with (
            server.client(wire="anthropic") as client,
            pytest.raises(UsageError, match=r"previous_response_id.*lenient"),
        ):
            client.responses.create(previous_response_id="resp_1", **ASK)
        assert server.requests == []
        with server.client(wire="anthropic", lenient=True) as client:
            with pytest.warns(UserWarning, match="previous_response_id"):
                stream = client.responses.create(previous_response_id="resp_1", stream=True, **ASK)
            check(stream.collect())
    assert "previous_response_id" not in server.requests[0].json


@pytest.mark.parametrize("wire", STREAMS)
def test_responses_when_the_provider_keeps_none(wire: str) -> None:
    """There is nothing to retrieve or to cancel."""
    with Client(base_url="http://127.0.0.1:1/v1", wire=wire) as client:
        with pytest.raises(UsageError, match="keeps no responses"):
            client.responses.retrieve("resp_1")
        with pytest.raises(UsageError, match="keeps no responses"):
            client.responses.cancel("resp_1")


@pytest.mark.parametrize("wire", STREAMS)
def test_error_when_the_provider_reports_one(wire: str) -> None:
    """In the stream, in a document, and by HTTP status."""
    fault = {"type": "error", "error": {"type": "overloaded_error", "message": "come back later"}}
    streamed = sse([b"event: error\ndata: %s\n\n" % json.dumps(fault).encode()])
    with Server(streamed) as server, server.client(wire=wire) as client, pytest.raises(APIStreamError) as caught:
        client.responses.create(stream=True, **ASK).collect()
    assert "come back later" in caught.value.message
    with Server(document(fault, 400)) as server, server.client(wire=wire) as client, pytest.raises(HTTPStatusError):
        client.responses.create(**ASK)
    with Server(document(fault)) as server, server.client(wire=wire) as client, pytest.raises(APIStreamError):
        client.responses.create(**ASK)


def test_document_when_it_is_an_array() -> None:
    """Gemini's whole answers may come as an array of one; what is no JSON is told."""
    with Server(document([DOCUMENTS["gemini"]])) as server, server.client(wire="gemini") as client:
        check(client.responses.create(**ASK))
    with Server(document(b"[{]")) as server, server.client(wire="gemini") as client, pytest.raises(DecodeError):
        client.responses.create(**ASK)


@pytest.mark.model
@pytest.mark.parametrize("way", WAYS)
def test_model_when_asked_over_three_apis_gives_the_same_structure(model: ModelServer, way: str) -> None:
    """The real model: handlers written once, a forced tool call, over Responses, Chat and Anthropic."""
    shapes = {wire: _shape(model.base_url, model.model, wire, way) for wire in ("responses", "chat", "anthropic")}
    assert len(set(map(tuple, shapes.values()))) == 1, shapes
    assert "tool" in shapes["chat"]


def _shape(base_url: str, model: str, wire: str, way: str) -> list[str]:
    """What kinds of events came, in order, each once."""
    families: list[str] = []
    flow = Dispatcher()

    @flow.on(ToolCall)
    def hear(event: ToolCall) -> None:
        families.append("tool")
        assert isinstance(json.loads(event.arguments), dict)
        assert event.call_id

    ask = {**ASK, "model": model, "max_output_tokens": 200, "instructions": None, "tool_choice": "required"}
    extra = {"chat_template_kwargs": {"enable_thinking": False, "prefill_tool": True}}
    options: dict[str, Any] = {"base_url": base_url, "wire": wire, "api_key": "made-up"}
    if way == "sync":
        with Client(**options) as client:
            run = flow.run(client.responses.create(stream=True, extra_body=extra, **ask))
    else:

        async def main() -> Any:
            async with AsyncClient(**options) as client:
                return await flow.arun(await client.responses.create(stream=True, extra_body=extra, **ask))

        run = anyio.run(main, backend=way)
    assert run.status == "completed"
    assert run.response.usage is not None
    assert len(run.response.tool_calls) == len(families) > 0
    return families
