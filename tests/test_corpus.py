"""Recorded streams of real servers: none raises, and what is collected is what was said."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import Dispatcher, Event, Run, collect
from eventflow.errors import APIStreamError
from eventflow.events import UnknownEvent, decode, decode_mapping
from eventflow.sse import decode as frames_of
from tests.strategies import chunkings

Truth = dict[str, Any]


@functools.cache
def truths(corpus: Path) -> tuple[Truth, ...]:
    """What each recording of the Responses API says, as other programs read it."""
    lines = (corpus / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["file"].startswith("responses/")]
    assert {row["file"] for row in rows} == {f"responses/{path.name}" for path in (corpus / "responses").iterdir()}
    return tuple(rows)


def chunks(body: bytes, size: int) -> list[bytes]:
    """Cut a body into equal chunks."""
    return [body[start : start + size] for start in range(0, len(body), size)]


def said(run: Run) -> Truth:
    """What a run received, in the words of the truths."""
    response = run.response
    usage = None if response.usage is None else response.usage.to_dict()
    return {
        "output_text": response.output_text,
        "refusal": response.refusal,
        "reasoning": response.reasoning_text,
        "tool_calls": [
            {"type": call.type, "name": call.name, "arguments": call.arguments, "call_id": call.call_id}
            for call in response.tool_calls
        ],
        "usage": usage,
        "final_status": response.status,
        "response_id": response.id,
        "model": response.model,
        "error": run.error is not None,
    }


def check(truth: Truth, run: Run) -> None:
    """A run says what the truth says."""
    ours = said(run)
    reasoning = truth["reasoning_text"] or truth["reasoning_summary"]
    expected = {key: truth[key] for key in ours if key not in ("reasoning", "error", "usage")}
    assert {key: ours[key] for key in expected} == expected, truth["file"]
    assert ours["reasoning"] == reasoning
    assert ours["error"] is (truth["error"] is not None)
    assert (ours["usage"] is None) == (truth["usage"] is None)
    for key, value in (ours["usage"] or {}).items():
        if isinstance(value, dict):  # what a server leaves out is None in the truths
            value = {name: number for name, number in value.items() if name in truth["usage"][key]}
            assert value.items() <= truth["usage"][key].items()
        else:
            assert value == truth["usage"][key]


def test_corpus_when_read_whole(corpus: Path) -> None:
    """Text, reasoning, refusal, calls, usage, status, id and model are those of the truth."""
    for truth in truths(corpus):
        run = Dispatcher().run((corpus / truth["file"]).read_bytes(), check=False)
        check(truth, run)
        assert run.status == truth["final_status"]


def test_corpus_when_read_in_chunks(corpus: Path) -> None:
    """Chunks make no difference; nor does reading the response in between."""
    for truth in truths(corpus):
        flow = Dispatcher()
        flow.on("response.output_text.delta", lambda event, run: run.text)
        check(truth, flow.run(chunks((corpus / truth["file"]).read_bytes(), 1000), check=False))


def test_corpus_when_errors_are_raised(corpus: Path) -> None:
    """Only the streams that carry an error raise, with what was received."""
    for truth in truths(corpus):
        path = corpus / truth["file"]
        if truth["error"] is None:
            assert collect(path).output_text == truth["output_text"]
        else:
            with pytest.raises(APIStreamError) as caught:
                collect(path)
            assert caught.value.code == truth["error"]["code"]
            assert caught.value.partial is not None
            assert caught.value.partial.id == truth["response_id"]


@given(data=st.data())
def test_corpus_when_chunks_are_any(corpus: Path, data: st.DataObject) -> None:
    """However a recording is cut, the same events come of it."""
    truth = data.draw(
        st.sampled_from([truth for truth in truths(corpus) if truth["output_text"] or truth["tool_calls"]])
    )
    body = (corpus / truth["file"]).read_bytes()
    if len(body) > 20_000:  # the end is where it gets interesting, and small bodies take small chunks
        places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=30)))
        pieces = [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
    else:
        pieces = data.draw(chunkings(body))
    whole, cut = list[Event](), list[Event]()
    for source, events in (([body], whole), (pieces, cut)):
        flow = Dispatcher()
        flow.on("*", events.append)
        check(truth, flow.run(source, check=False))
    assert cut == whole


def test_corpus_when_events_are_written_and_read_again(corpus: Path) -> None:
    """Every recorded event is known, decodes both ways to the same, and comes back from its own JSON."""
    seen, unknown = 0, set[str]()
    for truth in truths(corpus):
        for frame in frames_of([(corpus / truth["file"]).read_bytes()]):
            if frame.data == "[DONE]":
                continue
            event = decode(frame.data, frame.event)
            assert decode_mapping(json.loads(frame.data), frame.event) == event
            assert decode(event.to_json(), event.type) == event
            seen += 1
            if isinstance(event, UnknownEvent):
                unknown.add(event.type)
    assert seen > 10_000
    patches = {f"response.apply_patch_call_operation_diff.{end}" for end in ("delta", "done")}  # not in the SDK's types
    assert {name for name in unknown if name.startswith("response.")} == patches
