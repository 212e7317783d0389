"""Recorded streams of real servers through the wires: none raises, all are in order, and all say what was said."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from wiring import feed, listen

from eventflow import Limits
from eventflow.events import Response, ResponseFailed
from eventflow.snapshot import TERMINAL
from eventflow.sse import Frame
from eventflow.sse import decode as frames_of
from eventflow.wires.anthropic import AnthropicWire
from eventflow.wires.chat import ChatWire
from eventflow.wires.gemini import GeminiWire

JSON = dict[str, Any]
WIRES: dict[str, Any] = {"chat": ChatWire, "anthropic": AnthropicWire, "gemini": GeminiWire}

EXCEPTIONS = {  # where the truths are wrong or silent, and of what
    "vercel__anthropic_anthropic-web-fetch-tool-20260209.1__0": {"calls"},  # the SDK drops input sent with the block
    "vercel__anthropic_spliced-message-start__0": {"calls"},  # the SDK joins two attempts to one call
    "pydai__test_mistral_test_mistral_model_thinking_part_iter__0": {"reasoning"},  # the SDK reads no lists of content
    "pydai__test_snowflake_test_snowflake_thinking_streaming__0": {"reasoning", "status"},  # nor details of reasoning;
    "pydai__test_snowflake_test_snowflake_model_streaming__0": {"status"},  # and ends with the mark, without a reason,
    "oaidotnet__chattests_chatwithbasicaudiooutput__0": {"status"},  # as OpenAI's audio does
    "oaidotnet__chattests_chatwithbasicaudiooutputasync__0": {"status"},
    "pydai__test_groq_test_groq_model_web_search_tool_stream__0": {"usage"},  # it is in x_groq
    "openllmetry__traces_test_chat_tracing_test_chat_streaming_legacy__0": {"usage"},  # the SDK's state drops it
}
STATUSES = {
    "length": "incomplete",
    "max_tokens": "incomplete",
    "pause_turn": "incomplete",
    "refusal": "incomplete",
    "error": "failed",
}


def frames(path: Path) -> list[Frame]:
    """The frames of a recording; some end without the blank line."""
    return list(frames_of([path.read_bytes(), b"\n\n"]))


def recordings(corpus: Path, name: str) -> list[Path]:
    """The recordings of a wire."""
    paths = sorted((corpus / name).iterdir())
    assert paths
    return paths


def arguments(text: str) -> Any:
    """What a call's arguments say; none are an empty object, for that is what the SDK makes of no pieces."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def words(text: str) -> str:
    """A text of several pieces without what joins them."""
    return re.sub(r"\n\n", "", text)


def ours(response: Response) -> JSON:
    """What a response says, to be compared."""
    usage = response.usage
    return {
        "text": response.output_text,
        "refusal": response.refusal,
        "reasoning": words(response.reasoning_text),
        "calls": [(call.name, arguments(call.arguments), call.call_id) for call in response.tool_calls],
        "status": response.status,
        "usage": None if usage is None else (usage.input_tokens, usage.output_tokens),
    }


def of_truth(truth: JSON) -> JSON:
    """What a truth says; of several choices all of them, as a response has them."""
    choices = truth.get("choices") or {"0": truth}
    usage = truth["usage"]
    return {
        "text": "".join(choice["output_text"] for choice in choices.values()),
        "refusal": truth.get("refusal") or "",
        "reasoning": words(truth["reasoning_text"]),
        "calls": [
            (call["name"], arguments(call["arguments"]), call["call_id"])
            for choice in choices.values()
            for call in choice["tool_calls"]
        ],
        "status": STATUSES.get(truth["final_status"], "completed"),
        "usage": usage
        and (
            usage.get("prompt_tokens", usage.get("input_tokens")),
            usage.get("completion_tokens", usage.get("output_tokens")),
        ),
    }


def of_gemini(path: Path) -> JSON:
    """What a recording of Gemini says, read by hand: there are no truths of another program."""
    chunks = [json.loads(frame.data) for frame in frames(path)]
    candidates = [candidate for chunk in chunks for candidate in chunk.get("candidates", ())]
    parts = [part for candidate in candidates for part in candidate.get("content", {}).get("parts", ())]
    used: JSON = {}
    for chunk in chunks:
        used |= chunk.get("usageMetadata", {})
    return {
        "text": "".join(part.get("text", "") for part in parts if not part.get("thought")),
        "reasoning": words("".join(part.get("text", "") for part in parts if part.get("thought"))),
        "names": [part["functionCall"]["name"] for part in parts if part.get("functionCall", {}).get("name")],
        "whole": [part["functionCall"]["args"] for part in parts if part.get("functionCall", {}).get("args")],
        "status": "completed" if candidates[-1]["finishReason"] == "STOP" else "incomplete",
        "usage": (used["promptTokenCount"], used["candidatesTokenCount"] + used.get("thoughtsTokenCount", 0)),
        "model": chunks[0].get("modelVersion"),
    }


@functools.cache
def truths(corpus: Path) -> dict[str, JSON]:
    """What each recording says, as other programs read it."""
    lines = (corpus / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["file"]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize("name", ["chat", "anthropic"])
def test_recordings_when_compared_with_the_truths(corpus: Path, name: str) -> None:
    """Text, refusal, reasoning, calls, status and usage are those of the SDKs, but where those are wrong."""
    different: dict[str, set[str]] = {}
    for path in recordings(corpus, name):
        truth = truths(corpus)[f"{name}/{path.name}"]
        told = listen(WIRES[name], *frames(path))
        mine, theirs = ours(told.response), of_truth(truth)
        wrong = {key for key in theirs if mine[key] != theirs[key]}
        if truth["final_status"] is None:
            wrong.add("status")
        if wrong:
            different[path.stem] = wrong
        if "response_id" in truth:
            assert (told.response.id, told.response.model) == (truth["response_id"], truth["model"]), path.name
        if "error" in truth:
            assert isinstance(told.events[-1], ResponseFailed)
            assert told.response.error is not None
            assert (told.response.error.message, told.response.error.code) == (
                truth["error"]["message"],
                truth["error"]["code"],
            )
    kinds = {path.stem for path in recordings(corpus, name)}
    assert different == {stem: wrong for stem, wrong in EXCEPTIONS.items() if stem in kinds}


def test_recordings_when_the_truths_are_wrong(corpus: Path) -> None:
    """What is said there instead."""

    def response(name: str, stem: str) -> Response:
        return listen(WIRES[name], *frames(corpus / name / f"{stem}.sse")).response

    fetch = response("anthropic", "vercel__anthropic_anthropic-web-fetch-tool-20260209.1__0").tool_calls[1]
    assert (fetch.name, fetch.arguments) == ("web_fetch", '{"url":"https://example.com"}')
    spliced = response("anthropic", "vercel__anthropic_spliced-message-start__0").tool_calls
    assert [(call.arguments, call.status) for call in spliced] == [
        ('{"value":"Spark', "incomplete"),
        ('{"value":"Sparkle Day"}', "completed"),
    ]
    thinking = response("chat", "pydai__test_mistral_test_mistral_model_thinking_part_iter__0").reasoning_text
    assert thinking.startswith("Okay, the user is asking how to cross the street.")
    snowflake = response("chat", "pydai__test_snowflake_test_snowflake_thinking_streaming__0")
    assert (snowflake.reasoning_text, snowflake.status) == ("15 * 27 = 405", "completed")
    used = response("chat", "pydai__test_groq_test_groq_model_web_search_tool_stream__0").usage
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (5003, 359)


def test_recordings_when_they_are_of_gemini(corpus: Path) -> None:
    """Text, thoughts, calls, status and usage are what the chunks say."""
    for path in recordings(corpus, "gemini"):
        told = listen(GeminiWire, *frames(path))
        said, expected = ours(told.response), of_gemini(path)
        calls = said["calls"]
        for key in ("text", "reasoning", "status", "usage"):
            assert said[key] == expected[key], (path.name, key)
        assert [name for name, _, _ in calls] == expected["names"], path.name
        given = [arguments for _, arguments, _ in calls if arguments]
        assert all(isinstance(each, dict) for each in given)
        assert all(whole in given for whole in expected["whole"])
        assert told.response.model == expected["model"]


@pytest.mark.parametrize("name", WIRES)
def test_recordings_when_detected(corpus: Path, name: str) -> None:
    """The first frame tells the wire, and tells no other."""
    for path in recordings(corpus, name):
        first = next(frame for frame in frames(path) if frame.data)
        assert [other for other, wire in WIRES.items() if wire.fits(first)] == [name], path.name


def end_of(whole: list[Frame]) -> int:
    """The place of the frame that ends the answer: by a mark, an error, or the last reason that was to come."""
    heard, ended = set[int](), set[int]()
    for place, frame in enumerate(whole):
        if not frame.data:
            continue
        if frame.data.strip() == "[DONE]":
            return place
        data = json.loads(frame.data)
        if data.get("error") or data.get("type") == "message_stop" or (data.get("delta") or {}).get("stop_reason"):
            return place
        for choice in data.get("choices") or data.get("candidates") or ():
            heard.add(choice.get("index", 0))
            if choice.get("finish_reason") or choice.get("finishReason"):
                ended.add(choice.get("index", 0))
        if ended and heard == ended:
            return place
    return len(whole)


@pytest.mark.parametrize("name", WIRES)
def test_recordings_when_they_are_cut(corpus: Path, name: str) -> None:
    """At any frame nothing raises, and before the answer ends no event says that it did."""
    for path in recordings(corpus, name):
        whole = frames(path)
        end = end_of(whole)
        for place in sorted({*range(0, len(whole), max(1, len(whole) // 8)), end}):
            events = feed(WIRES[name](Limits()), whole[:place], short=True)
            if place <= end:
                assert not any(isinstance(event, TERMINAL) for event in events), path.name
        assert isinstance(feed(WIRES[name](Limits()), whole[: end + 1])[-1], TERMINAL) is (end < len(whole)), path.name
