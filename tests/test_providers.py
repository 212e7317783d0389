"""Providers: what a request in the words of the Responses API becomes, and whole answers as frames."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import Limits
from eventflow.errors import UsageError
from eventflow.events import (
    CodeInterpreterCall,
    CustomToolCall,
    FunctionCall,
    ImageGenerationCall,
    McpCall,
    Message,
    OutputRefusal,
    OutputText,
    Reasoning,
    ReasoningText,
    Response,
    SummaryText,
    Untyped,
    WebSearchCall,
)
from eventflow.providers import Provider, provider_named
from eventflow.snapshot import Snapshot
from eventflow.sse import Frame
from eventflow.sse import decode as frames_of
from eventflow.wires.anthropic import AnthropicWire
from eventflow.wires.chat import ChatWire
from eventflow.wires.gemini import GeminiWire
from eventflow.wires.responses import ResponsesWire
from tests.conftest import CORPUS, FIXTURES

WIRES: dict[str, Any] = {
    "responses": ResponsesWire,
    "chat": ChatWire,
    "anthropic": AnthropicWire,
    "gemini": GeminiWire,
}
TRANSLATED = ("chat", "anthropic", "gemini")
OPENAI, ANTHROPIC, LOCAL = "https://api.openai.com/v1", "https://api.anthropic.com/v1", "http://127.0.0.1:8080/v1"

PNG = "iVBORw0KGgo="
PDF = base64.b64encode(b"%PDF-1.7").decode()
TEXT = base64.b64encode("naïve".encode()).decode()
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
NESTED = {"type": "function", "function": {key: value for key, value in WEATHER.items() if key != "type"}}
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
FORMAT = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
CALL = FunctionCall(name="weather", arguments='{"city":"Kiel"}', call_id="c1")
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "12 degrees"}


def refuse(message: str) -> None:
    """Be the strict way."""
    raise UsageError(message)


def body(name: str, base_url: str = LOCAL, *, stream: bool = False, **parameters: Any) -> Any:
    """Give the body that *parameters* make, where all can be said, as JSON."""
    return json.loads(json.dumps(provider_named(name).body(parameters, stream, refuse, base_url)))


def part_of(made: Any, expected: Any) -> Any:
    """*made*, without the fields that *expected* says nothing of."""
    return {key: value for key, value in made.items() if key in expected}


def leniently(name: str, base_url: str = LOCAL, **parameters: Any) -> tuple[Any, list[str]]:
    """Give the body of what can be said, and what was told of the rest."""
    told: list[str] = []
    made = provider_named(name).body(parameters, False, told.append, base_url)
    return json.loads(json.dumps(made)), told


def told_by(name: str, frames: list[Frame]) -> Response:
    """The response that frames make."""
    wire, snapshot = WIRES[name](Limits()), Snapshot()
    for frame in frames:
        snapshot.add(wire.feed(frame))
    snapshot.add(wire.close())
    snapshot.close()
    return snapshot.response


# --- what all have ---------------------------------------------------------------------------------------------------


def test_provider_named_when_nobody_knows_it() -> None:
    """The message names those that there are."""
    with pytest.raises(UsageError, match=r"'cohere'; there is responses, chat, anthropic, gemini"):
        provider_named("cohere")


@pytest.mark.parametrize(
    ("name", "stream", "path", "query"),
    [
        ("responses", True, "/responses", {}),
        ("chat", True, "/chat/completions", {}),
        ("anthropic", False, "/messages", {}),
        ("gemini", True, "/models/a%2Fb%3F:streamGenerateContent", {"alt": "sse"}),
        ("gemini", False, "/models/a%2Fb%3F:generateContent", {}),
    ],
)
def test_path_when_asked_for(name: str, stream: bool, path: str, query: dict[str, str]) -> None:
    """The model is quoted where it is part of it."""
    provider = provider_named(name)
    assert provider.path("a/b?", stream) == path
    assert provider.query(stream) == query


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-3", "/models/gemini-3:generateContent"),
        ("tunedModels/mine", "/tunedModels/mine:generateContent"),
        ("../files", "/models/..%2Ffiles:generateContent"),
    ],
)
def test_path_of_gemini_when_the_model_has_a_collection(model: str, path: str) -> None:
    """The API's own names of models are taken; nothing leads out of them."""
    assert provider_named("gemini").path(model, False) == path


def test_path_of_gemini_when_there_is_no_model() -> None:
    """That is told before anything is sent."""
    with pytest.raises(UsageError, match="model: "):
        provider_named("gemini").path("", True)


@pytest.mark.parametrize(
    ("name", "with_key", "without"),
    [
        ("responses", {"authorization": "Bearer k"}, {}),
        ("chat", {"authorization": "Bearer k"}, {}),
        (
            "anthropic",
            {"anthropic-version": "2023-06-01", "x-api-key": "k"},
            {"anthropic-version": "2023-06-01"},
        ),
        ("gemini", {"x-goog-api-key": "k"}, {}),
    ],
)
def test_headers_when_there_is_a_key_or_none(name: str, with_key: Any, without: Any) -> None:
    """The key is where the provider looks for it."""
    provider = provider_named(name)
    assert provider.headers("k") == with_key
    assert provider.headers(None) == without


@pytest.mark.parametrize(
    ("name", "given_url", "url"),
    [
        ("chat", "http://here/", "http://here"),
        ("anthropic", "http://here", "http://here/v1"),
        ("anthropic", "http://here/a/", "http://here/a/v1"),
        ("anthropic", "http://here/v1/", "http://here/v1"),
        ("gemini", "http://here", "http://here/v1beta"),
    ],
)
def test_base_of_when_the_address_is_of_the_environment(name: str, given_url: str, url: str) -> None:
    """It means what the provider's own package takes it for."""
    assert provider_named(name).base_of(given_url) == url


@pytest.mark.parametrize("name", WIRES)
def test_base_url_when_nothing_else_is_said(name: str) -> None:
    """It has the version that the environment's may lack."""
    provider = provider_named(name)
    assert provider.base_of(provider.base_url) == provider.base_url


def test_responses_when_asked() -> None:
    """Nothing is changed, and nothing refused."""
    item = Message(role="user")
    assert provider_named("responses").body({"input": [item], "user": None, "background": True}, True, refuse, "") == {
        "input": [item],
        "background": True,
        "stream": True,
    }
    assert body("responses", model="m") == {"model": "m"}


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize(
    "parameters",
    [
        {"input": 7},
        {"input": {"role": "user"}},
        {"input": ["Hello!"]},
        {"input": [{"content": "Hello!"}]},
        {"input": [{"role": "critic", "content": "Hello!"}]},
        {"input": [{"type": "function_call", "name": "f"}]},
        {"input": [object()]},
        {"instructions": ["Be brief."]},
        {"reasoning": "high"},
        {"tools": ["weather"]},
        {"tools": {"weather": {}}},
        {"tools": [{"type": 7}]},
        {"text": {"format": "json"}},
        {"include": "logprobs"},
        {"reasoning": {"effort": 7}},
        {"tools": [{"type": "function"}]},
    ],
)
def test_body_when_parameters_are_malformed(name: str, parameters: Any) -> None:
    """That is the caller's error, strict or not."""
    with pytest.raises(UsageError):
        leniently(name, **parameters)


@pytest.mark.parametrize("name", TRANSLATED)
def test_body_when_an_item_is_a_stranger_s_object(name: str) -> None:
    """Pydantic's objects are what they dump; others are refused by their type."""
    item = SimpleNamespace(model_dump=lambda **_: {"role": "user", "content": "Hello!"})
    assert body(name, input=[item]) == body(name, input="Hello!")
    with pytest.raises(UsageError, match="of type SimpleNamespace cannot be sent"):
        body(name, input=[SimpleNamespace()])


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize(
    "parameters",
    [
        {"store": False},
        {"background": False},
        {"truncation": "disabled"},
        {"include": []},
        {"include": ["reasoning.encrypted_content"]},
        {"parallel_tool_calls": True},
        {"parallel_tool_calls": False},  # of no tools
        {"tool_choice": "auto"},
        {"tools": []},
        {"text": {}},
        {"text": {"format": {"type": "text"}}},
        {"reasoning": {}},
        {"previous_response_id": None},
        {"prompt": {}},
        {"stream_options": {"include_obfuscation": False}},
    ],
)
def test_body_when_a_parameter_means_nothing(name: str, parameters: Any) -> None:
    """It is left out without a word."""
    assert body(name, input="Hello!", **parameters) == body(name, input="Hello!")


NOWHERE: dict[str, Any] = {
    "previous_response_id": "resp_1",
    "conversation": "conv_1",
    "prompt": {"id": "pmpt_1"},
    "background": True,
    "max_tool_calls": 3,
    "truncation": "auto",
    "store": True,
    "context_management": [{"type": "compaction"}],
    "include": ["file_search_call.results"],
    "reasoning.mode": {"reasoning": {"mode": "pro"}},
    "text.shape": {"text": {"shape": "round"}},
    "input[0]": {"input": [WebSearchCall(id="ws_1")]},
    "tools[0]": {"tools": [{"type": "web_search"}]},
    "tool_choice": {"tools": [WEATHER], "tool_choice": {"type": "file_search"}},
}
CANNOT: dict[str, dict[str, Any]] = {
    "chat": {
        **NOWHERE,
        "reasoning.summary": {"reasoning": {"summary": "auto"}},
        "n": 2,
        "input[0]": {"input": [{"type": "item_reference", "id": "x"}]},
        "input[0].content[0]": {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[1]": {
            "input": [{"role": "user", "content": ["a", {"type": "input_file", "file_url": "http://x/a.pdf"}]}]
        },
        "input[0].output[0]": {
            "input": [{**RESULT, "output": [{"type": "input_image", "image_url": "http://x/a.png"}]}]
        },
        "input[1]": {"input": [CALL, Untyped({"type": "fallback"})]},
    },
    "anthropic": {
        **NOWHERE,
        "reasoning.effort": {"reasoning": {"effort": "utmost"}},
        "max_output_tokens": {"max_output_tokens": 1000, "reasoning": {"effort": "low"}},
        "text.verbosity": {"text": {"verbosity": "low"}},
        "text.format": {"text": {"format": {"type": "json_object"}}},
        "temperature": 1.5,
        "service_tier": "flex",
        "top_logprobs": 3,
        "moderation": {"model": "m"},
        "metadata": {"run": "7"},
        "prompt_cache_retention": "24h",
        "tools[1]": {"tools": [WEATHER, {"type": "custom", "name": "shell"}]},
        "input[0].content[0].detail": {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "http://x/a.png", "detail": "low"}],
                }
            ]
        },
        "input[0].content[0]": {"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "input[1].content[0]": {
            "input": [CALL, {"role": "user", "content": [{"type": "input_file", "file_data": PDF}]}]
        },
        "input[1]": {"input": [CALL, Reasoning(summary=(SummaryText("Hm."),), encrypted_content="of OpenAI's")]},
        "input[2]": {"input": [CALL, RESULT, McpCall(name="f", id="mcp_1", output="text of OpenAI's")]},
    },
    "gemini": {
        **NOWHERE,
        "reasoning.effort": {"reasoning": {"effort": "none"}},
        "text.verbosity": {"text": {"verbosity": "low"}},
        "text.format": {"text": {"format": {"type": "grammar"}}},
        "service_tier": "scale",
        "user": "me",
        "safety_identifier": "me",
        "moderation": {"model": "m"},
        "metadata": {"run": "7"},
        "prompt_cache_retention": "24h",
        "parallel_tool_calls": {"parallel_tool_calls": False, "tools": [WEATHER]},
        "tools[1]": {"tools": [WEATHER, {"type": "custom", "name": "shell"}]},
        "input[0].content[0].detail": {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "http://x/a.png", "detail": "low"}],
                }
            ]
        },
        "input[0].content[0]": {"input": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "input[0].output[0]": {"input": [RESULT]},
        "input[1].output[0]": {"input": [CALL, {**RESULT, "output": [{"type": "image_url"}]}]},
        "input[1]": {"input": [{"role": "user", "content": "a"}, {"role": "developer", "content": "Be brief."}]},
    },
}
NAMED_OTHERWISE = {  # what the message begins with, where that is not what the table says
    ("gemini", "input[0].output[0]"): "input[0]",
    ("anthropic", "max_output_tokens"): "reasoning.effort",
}


@pytest.mark.parametrize(("name", "place"), [(name, place) for name in TRANSLATED for place in CANNOT[name]])
def test_body_when_a_provider_has_no_word_for_it(name: str, place: str) -> None:
    """The message begins with the parameter, and says what to do; strictly it is raised, leniently left out."""
    parameters = CANNOT[name][place]
    if not isinstance(parameters, dict) or place in ("prompt", "moderation", "metadata"):
        parameters = {place: parameters}
    made, told = leniently(name, **parameters)
    assert len(told) == 1
    assert told[0].startswith(f"{NAMED_OTHERWISE.get((name, place), place)}: ")
    assert "; " in told[0]
    assert not set(made) & {"previous_response_id", "prompt", "background", "store", "n", "truncation"}
    with pytest.raises(UsageError):
        body(name, **parameters)


@pytest.mark.parametrize("name", TRANSLATED)
def test_body_when_a_parameter_is_the_provider_s_own(name: str) -> None:
    """It is sent as it is; of an object that both have, its fields win."""
    own: dict[str, Any] = {"something": {"a": 1}, "safetySettings": []}
    assert part_of(body(name, input="Hello!", **own), own) == own


# --- chat ------------------------------------------------------------------------------------------------------------


def chat(base_url: str = LOCAL, **parameters: Any) -> Any:
    """The messages of a chat."""
    return body("chat", base_url, **parameters)["messages"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"model": "m", "temperature": 0.5, "top_p": 1, "user": "u"}, {"model": "m", "temperature": 0.5, "top_p": 1}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"metadata": {"a": "b"}, "safety_identifier": "s"}, {"metadata": {"a": "b"}, "safety_identifier": "s"}),
        ({"service_tier": "flex", "stop": ["."], "n": 1}, {"service_tier": "flex", "stop": ["."]}),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": FORMAT},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"tools": [WEATHER]}, {"tools": [NESTED]}),
        ({"tools": [NESTED]}, {"tools": [NESTED]}),
        (
            {"tools": [{"type": "custom", "name": "shell", "format": {"type": "text"}}]},
            {"tools": [{"type": "custom", "custom": {"name": "shell", "format": {"type": "text"}}}]},
        ),
        (
            {
                "tools": [
                    {
                        "type": "custom",
                        "name": "sums",
                        "format": {"type": "grammar", "syntax": "regex", "definition": "1"},
                    }
                ]
            },
            {
                "tools": [
                    {
                        "type": "custom",
                        "custom": {
                            "name": "sums",
                            "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "1"}},
                        },
                    }
                ]
            },
        ),
        (
            {"tools": [{"type": "web_search", "web_search": {"enable": True}}]},
            {"tools": [{"type": "web_search", "web_search": {"enable": True}}]},
        ),
        (
            {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "custom", "custom": {"name": "shell"}}},
            {"tool_choice": {"type": "custom", "custom": {"name": "shell"}}},
        ),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"name": "weather"}]},
            },
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": "weather"}}],
                    },
                }
            },
        ),
    ],
)
def test_chat_when_parameters_are_given(parameters: Any, expected: Any) -> None:
    """Each has its name in Chat Completions."""
    made = body("chat", input="Hello!", **parameters)
    assert part_of(made, expected) == expected
    assert made["messages"] == [{"role": "user", "content": "Hello!"}]


def test_chat_when_it_streams() -> None:
    """Usage is asked for, unless the caller says otherwise."""
    made = body("chat", stream=True, input="Hello!", stream_options={"include_obfuscation": False})
    assert made["stream"] is True
    assert made["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert body("chat", stream=True, stream_options={"include_usage": False})["stream_options"] == {
        "include_usage": False
    }


def test_chat_when_it_is_openai_s() -> None:
    """Its names are used that others do not know; reasoning, which it refuses, is left out."""
    made = body("chat", OPENAI, max_output_tokens=9, store=False, input=[{"role": "developer", "content": "Be brief."}])
    assert made == {
        "messages": [{"role": "developer", "content": "Be brief."}],
        "max_completion_tokens": 9,
        "store": False,
    }
    thought = Reasoning(content=(ReasoningText("Hm."),))
    assert chat(OPENAI, input=[thought]) == chat("https://api.groq.com/openai/v1", input=[thought]) == []


def test_chat_when_a_conversation_is_sent() -> None:
    """What the assistant says, thinks and calls in a row is one message; outputs are the tool's."""
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Kiel?"}]},
        Reasoning(content=(ReasoningText("Hm."),)),
        Message(role="assistant", content=(OutputText("Let me "), OutputText("see."))),
        Reasoning(summary=(SummaryText("A summary."),)),
        CALL,
        CustomToolCall(name="shell", input="ls", call_id="c2"),
        Message(role="assistant", content=(OutputRefusal("No."),)),
        RESULT,
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "a b"}]},
        Message(role="assistant"),
        {"role": "user", "content": ""},
    ]
    assert chat(instructions="Be kind.", input=items) == [
        {"role": "system", "content": "Be kind."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Kiel?"},
        {
            "role": "assistant",
            "content": "Let me see.\n\nNo.",
            "reasoning_content": "Hm.\n\nA summary.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Kiel"}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
        {"role": "tool", "tool_call_id": "c2", "content": "a b"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": ""},
    ]


def test_chat_when_a_call_is_all_that_is_said() -> None:
    """There is no content then, and arguments are always JSON."""
    (message,) = chat(input=[FunctionCall(name="f", call_id="c")])
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


def test_chat_when_the_user_shows_something() -> None:
    """Images, files, sounds and what is the server's own are parts of the message."""
    parts = [
        {"type": "input_text", "text": "Look."},
        {"type": "input_image", "image_url": "http://x/a.png", "detail": "low"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
        {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
    ]
    (message,) = chat(input=[{"role": "user", "content": parts}])
    assert message["content"] == [
        {"type": "text", "text": "Look."},
        {"type": "image_url", "image_url": {"url": "http://x/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
    ]


def test_chat_when_the_assistant_showed_an_image() -> None:
    """It goes back as it came."""
    (message,) = chat(input=[ImageGenerationCall(result="/9j/AAAA")])
    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/AAAA"}}]


# --- anthropic -------------------------------------------------------------------------------------------------------


def blocks(**parameters: Any) -> Any:
    """Roles and blocks of the messages."""
    return [(message["role"], message["content"]) for message in body("anthropic", **parameters)["messages"]]


CLAUDE = "claude-opus-4-7"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"model": "m"}, {"model": "m", "max_tokens": 4096}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 3}, {"temperature": 0.5, "top_p": 0.9, "top_k": 3}),
        ({"stop": "."}, {"stop_sequences": ["."]}),
        ({"stop": [".", "!"]}, {"stop_sequences": [".", "!"]}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"user": "u", "safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"metadata": {"user_id": "u"}}, {"metadata": {"user_id": "u"}}),
        ({"prompt_cache_key": "k", "context_management": {"edits": []}}, {"context_management": {"edits": []}}),
        ({"instructions": "Be brief."}, {"system": "Be brief."}),
        ({"text": FORMAT}, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (
            {"model": CLAUDE, "reasoning": {"effort": "high"}},
            {"max_tokens": 4096 + 16384, "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        (
            {"model": CLAUDE, "reasoning": {"effort": "minimal", "summary": "auto"}, "text": FORMAT},
            {
                "thinking": {"type": "adaptive", "display": "summarized"},
                "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
            },
        ),
        (
            {"model": CLAUDE, "reasoning": {"generate_summary": "auto"}},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
        ),
        ({"model": CLAUDE, "reasoning": {"effort": "none"}}, {"max_tokens": 4096, "thinking": {"type": "disabled"}}),
        (
            {"model": "claude-sonnet-4-5", "reasoning": {"effort": "low"}},
            {"max_tokens": 4096 + 2048, "thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        (
            {"model": "claude-sonnet-4-20250514", "reasoning": {"effort": "high"}, "max_output_tokens": 2000},
            {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1999}},
        ),
        (
            {"model": "local", "reasoning": {"summary": "auto"}},
            {"thinking": {"type": "enabled", "budget_tokens": 8192}},
        ),
        (
            {"reasoning": {"effort": "low"}, "thinking": {"type": "enabled", "budget_tokens": 5000}},
            {"thinking": {"type": "enabled", "budget_tokens": 5000}},
        ),
        (
            {"tools": [{**WEATHER, "cache_control": {"type": "ephemeral"}}]},
            {
                "tools": [
                    {
                        "name": "weather",
                        "description": "The weather.",
                        "input_schema": WEATHER["parameters"],
                        "strict": True,
                        "cache_control": {"type": "ephemeral"},
                    }
                ]
            },
        ),
        (
            {"tools": [{"type": "function", "name": "now", "strict": False}]},
            {"tools": [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]},
        ),
        (
            {
                "tools": [
                    {"type": "web_search_20250305", "name": "web_search"},
                    {"type": "custom", "name": "f", "input_schema": {}},
                    {"name": "g", "input_schema": {}},
                ]
            },
            {
                "tools": [
                    {"type": "web_search_20250305", "name": "web_search"},
                    {"type": "custom", "name": "f", "input_schema": {}},
                    {"name": "g", "input_schema": {}},
                ]
            },
        ),
        ({"tools": [WEATHER], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ({"tools": [WEATHER], "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
        (
            {"tools": [WEATHER], "tool_choice": "none", "parallel_tool_calls": False},
            {"tool_choice": {"type": "none"}},
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}, "parallel_tool_calls": False},
            {"tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
        ),
        (
            {"tools": [WEATHER], "parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ({"tools": [WEATHER], "tool_choice": {"type": "any"}}, {"tool_choice": {"type": "any"}}),
    ],
)
def test_anthropic_when_parameters_are_given(parameters: Any, expected: Any) -> None:
    """Each has its name in the Messages API."""
    made = body("anthropic", input="Hello!", **parameters)
    assert part_of(made, expected) == expected
    assert made["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hello!"}]}]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("claude-3-7-sonnet-latest", "enabled"),
        ("claude-2.1", "enabled"),
        ("claude-sonnet-4", "enabled"),
        ("claude-opus-4-1-20250805", "enabled"),
        ("claude-sonnet-4@20250514", "enabled"),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "enabled"),
        ("claude-opus-4-6", "adaptive"),
        ("claude-opus-4-10", "adaptive"),
        ("claude-sonnet-5", "adaptive"),
        ("claude-fable-5", "adaptive"),
        ("glm-5", "enabled"),
    ],
)
def test_anthropic_when_a_model_is_to_think(model: str, kind: str) -> None:
    """New models of Claude think as they see fit; older ones and others have a budget."""
    assert body("anthropic", model=model, reasoning={"effort": "medium"})["thinking"]["type"] == kind


def test_anthropic_when_tools_are_allowed_that_it_cannot_choose_among() -> None:
    """What is left of the choice is sent; without tools nothing is."""
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "a"}, {"name": "b"}]}
    made, told = leniently("anthropic", tools=[WEATHER], tool_choice=choice)
    assert made["tool_choice"] == {"type": "auto"}
    assert "give the allowed ones alone as tools" in told[0]
    for value in ("sometimes", {"type": "function"}):
        made, told = leniently("anthropic", tools=[WEATHER], tool_choice=value)
        assert ("tool_choice" in made) == (not told) == (value != "sometimes")


def test_anthropic_when_a_conversation_is_sent() -> None:
    """Roles are in turn, results first, ids in the characters that it takes; a late instruction keeps its place."""
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Kiel?"},
        {"role": "user", "content": [{"type": "input_text", "text": "Now!", "cache_control": {"type": "ephemeral"}}]},
        Reasoning(content=(ReasoningText("Hm."),), encrypted_content="sig"),
        Reasoning(encrypted_content="sealed"),
        Reasoning(),
        Message(role="assistant", content=(OutputText("Let me see."), OutputText(""))),
        FunctionCall(name="weather", arguments="{", call_id="f.weather:0", caller={"type": "direct"}),
        CustomToolCall(name="shell", input="ls", call_id="c2"),
        {"role": "user", "content": "Well?"},
        {"type": "function_call_output", "call_id": "f.weather:0", "output": "no JSON"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": ["a", {"type": "input_image", "image_url": "http://x/a"}],
        },
        {"type": "function_call_output", "call_id": "c3"},
        {"role": "system", "content": "Be quick."},
    ]
    made = body("anthropic", instructions="Be kind.", input=items)
    assert made["system"] == "Be kind.\n\nBe brief."
    assert [(message["role"], message["content"]) for message in made["messages"]] == [
        (
            "user",
            [
                {"type": "text", "text": "Kiel?"},
                {"type": "text", "text": "Now!", "cache_control": {"type": "ephemeral"}},
            ],
        ),
        (
            "assistant",
            [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "redacted_thinking", "data": "sealed"},
                {"type": "text", "text": "Let me see."},
                {
                    "type": "tool_use",
                    "id": "f_weather_0",
                    "name": "weather",
                    "input": {"INVALID_JSON": "{"},
                    "caller": {"type": "direct"},
                },
                {"type": "tool_use", "id": "c2", "name": "shell", "input": {"input": "ls"}},
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "f_weather_0", "content": "no JSON"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image", "source": {"type": "url", "url": "http://x/a"}},
                    ],
                },
                {"type": "tool_result", "tool_use_id": "c3"},
                {"type": "text", "text": "Well?"},
            ],
        ),
        ("system", [{"type": "text", "text": "Be quick."}]),
    ]


def test_anthropic_when_its_own_calls_are_sent_back() -> None:
    """They stand as they came, each with its result behind it; so do blocks of no known type."""
    result = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    items = [
        McpCall(name="web_search", arguments='{"query":"x"}', id="s1", output=result),
        McpCall(name="find", arguments="", id="m1", server_label="maps"),
        Untyped({"type": "compaction", "content": "A summary."}),
    ]
    assert blocks(input=items) == [
        (
            "assistant",
            [
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
                result,
                {"type": "mcp_tool_use", "id": "m1", "name": "find", "input": {}, "server_name": "maps"},
                {"type": "compaction", "content": "A summary."},
            ],
        )
    ]


def test_anthropic_when_reasoning_has_no_signature() -> None:
    """Anthropic's own servers refuse it; others take it."""
    thought = Reasoning(content=(ReasoningText("Hm."),))
    assert blocks(input=[thought]) == [("assistant", [{"type": "thinking", "thinking": "Hm.", "signature": ""}])]
    made, told = leniently("anthropic", ANTHROPIC, input=[thought])
    assert made["messages"] == []
    assert told[0].startswith("input[0]: ")


def test_anthropic_when_the_user_shows_something() -> None:
    """Images and documents are blocks, by what they are and where they are."""
    shown: list[tuple[Any, Any]] = [
        (
            {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
        (
            {"type": "input_image", "image_url": {"url": "http://x/a.png"}},
            {"type": "image", "source": {"type": "url", "url": "http://x/a.png"}},
        ),
        ({"type": "input_image", "file_id": "f"}, {"type": "image", "source": {"type": "file", "file_id": "f"}}),
        (
            {"type": "input_file", "file_data": PDF, "filename": "a.PDF"},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "a.PDF",
            },
        ),
        (
            {"type": "input_file", "file_data": f"data:text/plain;charset=utf-8;base64,{TEXT}"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "naïve"}},
        ),
        (
            {"type": "input_file", "file_data": PNG, "filename": "a.png"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
        (
            {"type": "input_file", "file_url": "http://x/a.pdf?b"},
            {"type": "document", "source": {"type": "url", "url": "http://x/a.pdf?b"}},
        ),
        (
            {"type": "search_result", "source": "http://x", "title": "x", "content": []},
            {"type": "search_result", "source": "http://x", "title": "x", "content": []},
        ),
    ]
    ((_, made),) = blocks(input=[{"role": "user", "content": [part for part, _ in shown]}])
    assert made == [block for _, block in shown]
    _, told = leniently(
        "anthropic",
        input=[{"role": "user", "content": [{"type": "input_file", "file_data": PNG, "filename": "a.mp4"}]}],
    )
    assert "not video/mp4" in told[0]


def test_anthropic_when_it_streams() -> None:
    """It is told so."""
    assert body("anthropic", stream=True)["stream"] is True


# --- gemini ----------------------------------------------------------------------------------------------------------


def contents(**parameters: Any) -> Any:
    """Roles and parts of the contents, for a model that needs no signatures."""
    made = body("gemini", **{"model": "gemini-2.5-flash", **parameters})
    return [(content["role"], content["parts"]) for content in made["contents"]]


DECLARED = {
    "name": "weather",
    "description": "The weather.",
    "parametersJsonSchema": WEATHER["parameters"],
}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 4, "stop": "."},
            {
                "generationConfig": {
                    "maxOutputTokens": 9,
                    "temperature": 0.5,
                    "topP": 0.9,
                    "topK": 3,
                    "seed": 4,
                    "stopSequences": ["."],
                }
            },
        ),
        (
            {"temperature": 0.5, "stop": ["."], "generationConfig": {"candidateCount": 1}},
            {"generationConfig": {"temperature": 0.5, "stopSequences": ["."], "candidateCount": 1}},
        ),
        ({"instructions": "Be brief."}, {"systemInstruction": {"parts": [{"text": "Be brief."}]}}),
        (
            {"text": FORMAT},
            {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}},
        ),
        (
            {"text": {"format": {"type": "json_object"}}},
            {"generationConfig": {"responseMimeType": "application/json"}},
        ),
        (
            {"model": "gemini-2.5-pro", "reasoning": {"effort": "high", "summary": "auto"}},
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 24576, "includeThoughts": True}}},
        ),
        (
            {"model": "gemini-3-pro-preview", "reasoning": {"effort": "low"}},
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}},
        ),
        (
            {"reasoning": {"generate_summary": "auto"}},
            {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
        ),
        ({"include": ["message.output_text.logprobs"]}, {"generationConfig": {"responseLogprobs": True}}),
        ({"top_logprobs": 2}, {"generationConfig": {"responseLogprobs": True, "logprobs": 2}}),
        ({"service_tier": "auto"}, {}),
        ({"service_tier": "default", "prompt_cache_key": "k"}, {"serviceTier": "standard"}),
        ({"tools": [WEATHER]}, {"tools": [{"functionDeclarations": [DECLARED]}]}),
        (
            {"tools": [{"googleSearch": {}}, NESTED]},
            {"tools": [{"functionDeclarations": [DECLARED]}, {"googleSearch": {}}]},
        ),
        (
            {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": True},
            {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
        ),
        (
            {"tools": [WEATHER], "tool_choice": "none"},
            {"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}},
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}},
            {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}},
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "tools": [{"name": "weather"}]}},
            {"toolConfig": {"functionCallingConfig": {"mode": "VALIDATED", "allowedFunctionNames": ["weather"]}}},
        ),
    ],
)
def test_gemini_when_parameters_are_given(parameters: Any, expected: Any) -> None:
    """Each has its name in Gemini's API; the model is in the address."""
    made = body("gemini", input="Hello!", **parameters)
    assert part_of(made, expected) == expected
    assert made["contents"] == [{"role": "user", "parts": [{"text": "Hello!"}]}]
    assert "model" not in made
    assert ("serviceTier" in made) == ("serviceTier" in expected)


def test_gemini_when_a_conversation_is_sent() -> None:
    """Outputs have the names of their calls, and a turn of their own; ids that nobody gave are left out."""
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Kiel?"},
        Reasoning(content=(ReasoningText("Hm."),), encrypted_content="sig"),
        Reasoning(summary=(SummaryText("A summary."),)),
        Message(role="assistant", content=(OutputText("Let me see."), OutputText(""))),
        CALL,
        CustomToolCall(name="shell", input="ls", call_id="call_7"),
        RESULT,
        {
            "type": "custom_tool_call_output",
            "call_id": "call_7",
            "output": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
            ],
        },
        {"type": "function_call_output", "call_id": "c9", "name": "other", "output": {"a": 12345678901234567890}},
        {"role": "user", "content": "Well?"},
    ]
    assert contents(input=items) == [
        ("user", [{"text": "Kiel?"}]),
        (
            "model",
            [
                {"text": "Hm.", "thought": True, "thoughtSignature": "sig"},
                {"text": "A summary.", "thought": True},
                {"text": "Let me see."},
                {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Kiel"}}},
                {"functionCall": {"name": "shell", "args": {"input": "ls"}}},
            ],
        ),
        (
            "user",
            [
                {"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "12 degrees"}}},
                {
                    "functionResponse": {
                        "name": "shell",
                        "response": {"output": "a"},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}],
                    }
                },
                {
                    "functionResponse": {
                        "id": "c9",
                        "name": "other",
                        "response": {"output": '{"a": 12345678901234567890}'},
                    }
                },
            ],
        ),
        ("user", [{"text": "Well?"}]),
    ]


def test_gemini_when_signatures_are_sent_back() -> None:
    """One that stands alone is of the part behind it, or a part of its own where the model says no more."""
    sealed = Reasoning(encrypted_content="sig")
    again = Reasoning(encrypted_content="other")
    said = Message(role="assistant", content=(OutputText("Hi!"),))
    call = {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Kiel"}}}
    assert contents(input=[sealed, CALL]) == [("model", [{**call, "thoughtSignature": "sig"}])]
    assert contents(input=[sealed, said]) == [("model", [{"text": "Hi!", "thoughtSignature": "sig"}])]
    assert contents(input=[said, sealed]) == [("model", [{"text": "Hi!"}, {"text": "", "thoughtSignature": "sig"}])]
    assert contents(input=[sealed, {"role": "user", "content": "So?"}]) == [
        ("model", [{"text": "", "thoughtSignature": "sig"}]),
        ("user", [{"text": "So?"}]),
    ]
    assert contents(input=[sealed, again, Reasoning(), CALL]) == [
        ("model", [{"text": "", "thoughtSignature": "sig"}, {**call, "thoughtSignature": "other"}])
    ]


def test_gemini_when_calls_have_no_signature() -> None:
    """For models that insist, the first call of a turn says that there is none."""
    model, other = "gemini-3-flash", FunctionCall(name="f", call_id="call_2")
    ((_, parts),) = contents(model=model, input=[Message(role="assistant"), CALL, other])
    assert [part.get("thoughtSignature") for part in parts] == ["skip_thought_signature_validator", None]
    ((_, parts),) = contents(model=model, input=[Reasoning(encrypted_content="sig"), CALL, other])
    assert [part.get("thoughtSignature") for part in parts] == ["sig", None]


def test_gemini_when_its_own_items_are_sent_back() -> None:
    """Code and its results, images, and parts of no known type stand as they came."""
    ran = CodeInterpreterCall(code="1+1", status="completed", outputs=[{"type": "logs", "logs": "2"}])
    failed = CodeInterpreterCall(status="failed", outputs=[{"type": "logs"}])
    items = [ran, failed, ImageGenerationCall(result=PNG), Untyped({"type": "toolCall", "toolCall": {"id": "t"}})]
    assert contents(input=items) == [
        (
            "model",
            [
                {"executableCode": {"language": "PYTHON", "code": "1+1"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": ""}},
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"toolCall": {"id": "t"}},
            ],
        )
    ]


def test_gemini_when_the_user_shows_something() -> None:
    """What is given is inline; what is elsewhere is named."""
    parts = [
        {"type": "input_image", "image_url": "http://x/a.webp", "detail": "auto"},
        {"type": "input_file", "file_id": "https://generativelanguage.googleapis.com/v1beta/files/a"},
        {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        {"type": "input_file", "file_data": "data:,plain"},
    ]
    assert contents(input=[{"role": "user", "content": parts}]) == [
        (
            "user",
            [
                {"fileData": {"mimeType": "image/webp", "fileUri": "http://x/a.webp"}},
                {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a"}},
                {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
                {"inlineData": {"mimeType": "audio/wav", "data": "UklG"}},
                {"fileData": {"fileUri": "data:,plain"}},
            ],
        )
    ]


def test_gemini_when_an_instruction_comes_late() -> None:
    """Leniently it is moved to the others."""
    items = [{"role": "user", "content": "a"}, {"role": "system", "content": "Be brief."}]
    made, _ = leniently("gemini", input=items, instructions="Be kind.")
    assert made["systemInstruction"] == {"parts": [{"text": "Be kind."}, {"text": "Be brief."}]}


# --- there and back --------------------------------------------------------------------------------------------------


def outputs_for(response: Response) -> list[dict[str, Any]]:
    """Outputs of the calls that are the caller's to answer."""
    kinds = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
    return [
        {"type": kinds[call.type], "call_id": call.call_id, "output": f"output of {call.call_id}"}
        for call in response.tool_calls
        if call.type in kinds
    ]


def leaves(value: Any) -> Iterator[Any]:
    """Every text within JSON, and every object."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, str):
        yield value


def as_object(arguments: str) -> Any:
    """The arguments of a call; a recorded one may have been cut."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return {"INVALID_JSON": arguments}


def calls_in(name: str, made: Any) -> list[tuple[str | None, str, Any]]:
    """The calls of a body: id, name, arguments."""
    objects = [value for value in leaves(made) if isinstance(value, dict)]
    if name == "chat":
        return [
            (value["id"], value["function"]["name"], as_object(value["function"]["arguments"]))
            for value in objects
            if value.get("type") == "function" and "id" in value
        ]
    if name == "anthropic":
        kinds = ("tool_use", "server_tool_use", "mcp_tool_use")
        return [(value["id"], value["name"], value["input"]) for value in objects if value.get("type") in kinds]
    found = [value["functionCall"] for value in objects if "functionCall" in value]
    return [(value.get("id"), value["name"], value["args"]) for value in found]


def check_sent_back(name: str, response: Response) -> None:
    """What was answered and the outputs of its calls are all in the next request."""
    made = body(name, input=[*response.output, *outputs_for(response)], model="gemini-2.5-flash")
    texts = [value for value in leaves(made) if isinstance(value, str)]
    joined = "\n".join(texts)
    for item in response.output:
        if isinstance(item, Message | Reasoning):
            for part in item.content:
                assert getattr(part, "text", getattr(part, "refusal", "")) in joined
        if isinstance(item, Reasoning) and item.encrypted_content and name != "chat":
            assert item.encrypted_content in texts
    for answer in outputs_for(response):
        assert answer["output"] in texts
    expected = [(call.call_id, call.name, as_object(call.arguments)) for call in response.tool_calls]
    if name == "gemini":
        expected = [(None if str(call_id).startswith("call_") else call_id, *rest) for call_id, *rest in expected]
    assert calls_in(name, made) == expected


def recordings(name: str) -> list[Path]:
    """The recorded streams of one API."""
    here = sorted(FIXTURES.glob(f"{name}-*.sse"))
    return here + sorted((CORPUS / name).glob("*.sse"))


@pytest.mark.parametrize("name", TRANSLATED)
def test_body_when_recorded_answers_are_sent_back(name: str) -> None:
    """Every text, call and signature of every recorded stream is in the next request."""
    for path in recordings(name):
        response = told_by(name, list(frames_of([path.read_bytes()])))
        try:
            check_sent_back(name, response)
        except Exception as error:
            error.add_note(path.name)
            raise


ids = st.text("abcXYZ019_-", min_size=1, max_size=6)
texts = st.text(max_size=12)
objects = st.dictionaries(texts, texts | st.integers(-9, 9) | st.booleans(), max_size=3)
items = st.one_of(
    st.builds(lambda text: Message(role="assistant", content=(OutputText(text),)), texts),
    st.builds(
        lambda text, seal: Reasoning(content=(ReasoningText(text),), encrypted_content=seal), texts.filter(bool), ids
    ),
    st.builds(
        lambda name, given, call_id: FunctionCall(name=name, arguments=json.dumps(given), call_id=call_id),
        ids,
        objects,
        ids,
    ),
)


@given(st.sampled_from(TRANSLATED), st.lists(items, max_size=6))
def test_body_when_any_items_are_sent_back(name: str, output: list[Any]) -> None:
    """Nothing of them is lost; records and their JSON are the same."""
    check_sent_back(name, Response(output=tuple(output)))
    plain = [item.to_dict() for item in output]
    assert body(name, input=output) == body(name, input=plain)


@given(
    st.sampled_from(TRANSLATED),
    st.dictionaries(
        st.sampled_from(["input", "tools", "tool_choice", "text", "reasoning", "metadata", "include", "temperature"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["function", "message", "auto", "user"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["type", "role", "content", "name", "call_id", "format", "output", "effort", "id"]),
                    inner,
                    max_size=4,
                )
            ),
        ),
    ),
)
def test_body_when_parameters_are_anything(name: str, parameters: Any) -> None:
    """Malformed ones are a usage error; nothing else is ever raised."""
    with contextlib.suppress(UsageError):
        provider_named(name).body(parameters, True, lambda _: None, LOCAL)


# --- whole answers ---------------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
CHAT_STREAM: list[Any] = [
    {"id": "x", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]},
    {"id": "x", "choices": [{"index": 0, "delta": {"content": "Let me see."}}]},
    {
        "id": "x",
        "choices": [
            {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}}
        ],
    },
    {
        "id": "x",
        "choices": [
            {"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"name": "g", "arguments": "{}"}}]}}
        ],
    },
    {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": USAGE},
]
CHAT_DOCUMENT: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "reasoning_content": "Hm.",
                "content": "Let me see.",
                "tool_calls": [
                    {"type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": USAGE,
}
RESPONSE = {"id": "r", "status": "completed", "output": [{"type": "message", "id": "m", "role": "assistant"}]}


def test_frames_of_chat_when_compared_to_a_stream() -> None:
    """The whole answer means the same as its stream, be its calls without ids."""
    streamed = told_by("chat", [Frame(data=json.dumps(chunk)) for chunk in CHAT_STREAM])
    assert streamed.status == "completed"
    assert told_by("chat", provider_named("chat").frames(CHAT_DOCUMENT)) == streamed


def document_of(frames: list[Frame]) -> dict[str, Any] | None:
    """The message that a stream of Anthropic's means; None for streams that are no whole message."""
    document: dict[str, Any] = {}
    open_blocks: dict[int, Any] = {}
    pieces: dict[int, str] = {}
    for frame in frames:
        event = json.loads(frame.data)
        match event["type"]:
            case "message_start" if not document:
                document = {**event["message"], "content": []}
            case "content_block_start":
                open_blocks[event["index"]] = event["content_block"]
                document["content"].append(event["content_block"])
            case "content_block_delta":
                delta, block = event["delta"], open_blocks[event["index"]]
                match delta["type"]:
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        block["thinking"] += delta["thinking"]
                    case "signature_delta":
                        block["signature"] = block.get("signature", "") + delta["signature"]
                    case "citations_delta":
                        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
                    case "input_json_delta":
                        pieces[event["index"]] = pieces.get(event["index"], "") + delta["partial_json"]
                    case _:
                        return None
            case "content_block_stop" if pieces.get(event["index"]):
                open_blocks[event["index"]]["input"] = json.loads(pieces[event["index"]])
            case "message_delta":
                document.update(event["delta"], usage={**(document.get("usage") or {}), **event.get("usage", {})})
            case "message_start" | "error":
                return None
            case _:
                pass
    return document if document.get("stop_reason") else None


def comparable(response: Response) -> Any:
    """A response, its calls' arguments as objects: a stream has them as the model wrote them."""
    value = response.to_dict()
    for item in value.get("output", ()):  # type: ignore[union-attr]
        if isinstance(item, dict) and isinstance(item.get("arguments"), str):
            item["arguments"] = as_object(item["arguments"])  # type: ignore[arg-type]
    return value


def test_frames_of_anthropic_when_compared_to_streams() -> None:
    """The whole message means the same as each recorded stream of it."""
    compared = 0
    for path in recordings("anthropic"):
        frames = list(frames_of([path.read_bytes()]))
        try:
            document = document_of(frames)
        except (ValueError, KeyError):  # a recording of something broken
            continue
        if document is None:
            continue
        ours, theirs = told_by("anthropic", provider_named("anthropic").frames(document)), told_by("anthropic", frames)
        assert comparable(ours) == comparable(theirs), path.name
        compared += 1
    assert compared >= 2


def test_frames_of_anthropic_when_a_thought_has_no_signature() -> None:
    """Then there is none; one that is empty is told."""
    thoughts = [{"type": "thinking", "thinking": "a"}, {"type": "thinking", "thinking": "b", "signature": ""}]
    message = {"id": "m", "type": "message", "content": thoughts, "stop_reason": "end_turn"}
    response = told_by("anthropic", provider_named("anthropic").frames(message))
    assert [getattr(item, "encrypted_content", "?") for item in response.output] == [None, ""]


def test_frames_of_gemini_when_compared_to_a_stream() -> None:
    """The whole answer is the one chunk of a stream."""
    call = {"functionCall": {"name": "f", "args": {"a": 1}}}
    pieces: list[Any] = [
        {"candidates": [{"content": {"parts": [{"text": "Hm.", "thought": True}]}}], "responseId": "x"},
        {"candidates": [{"content": {"parts": [{"text": "Hel"}]}}]},
        {"candidates": [{"content": {"parts": [{"text": "lo!"}]}}]},
        {"candidates": [{"content": {"parts": [call]}, "finishReason": "STOP"}]},
    ]
    parts = [{"text": "Hm.", "thought": True}, {"text": "Hello!"}, call]
    document = {"responseId": "x", "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    streamed = told_by("gemini", [Frame(data=json.dumps(piece)) for piece in pieces])
    assert streamed.status == "completed"
    assert told_by("gemini", provider_named("gemini").frames(document)) == streamed


@pytest.mark.parametrize(
    ("status", "event"),
    [
        ("completed", "response.completed"),
        ("incomplete", "response.incomplete"),
        ("cancelled", "response.incomplete"),
        ("failed", "response.failed"),
        ("queued", "response.queued"),
    ],
)
def test_frames_of_responses_when_it_has_a_status(status: str, event: str) -> None:
    """The frame is the one that a stream would end with."""
    (frame,) = provider_named("responses").frames({**RESPONSE, "status": status})
    assert frame.event == event
    assert status == "queued" or told_by("responses", [frame]).status == status  # which no stream ends with


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("chat", {"error": {"message": "No.", "type": "t"}}),
        ("anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "No."}}),
        ("anthropic", {"error": {"message": "No."}}),
        ("gemini", {"error": {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT"}}),
    ],
)
def test_frames_when_the_answer_is_an_error(name: str, error: Any) -> None:
    """It is one in the stream, too."""
    response = told_by(name, provider_named(name).frames(error))
    assert response.error is not None
    assert response.error.message == "No."


def test_provider_when_it_is_shown() -> None:
    """It says who it is, and no functions."""
    provider: Provider = provider_named("chat")
    assert "function" not in repr(provider)
