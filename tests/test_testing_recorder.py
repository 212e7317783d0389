"""`eventflow.testing.Recorder`: it notes what came to its place, and says what did not."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings

from eventflow import Dispatcher, Event, Plugin, ResponseCompleted, Run, TextDelta, TextDone, rewrite, transform
from eventflow.errors import UsageError
from eventflow.testing import FakeStream, Recorder, stream
from eventflow.testing.strategies import streams


class Shout(Plugin):
    """Changes text, and drops what is done."""

    @rewrite("text")
    def shout(self, text: str) -> str:
        return text.upper()

    @transform(TextDone)
    def drop(self, event: TextDone) -> Event | None:
        return None


def recorder_of(run: Run) -> Recorder:
    """The recorder of a run."""
    return run[Recorder]


@settings(max_examples=30)
@given(streams())
def test_recorder_when_it_hears_a_stream_has_all_of_it(made: FakeStream) -> None:
    """It has the events that the dispatcher's handlers hear, in order, the hooks around them."""
    heard: list[Event] = []
    flow = Dispatcher(Recorder())
    flow.on("*", heard.append)
    recorder = flow.run(made)[Recorder]
    assert recorder.events == heard
    assert recorder.types == [event.type for event in heard]
    assert recorder.calls == ["start", *recorder.types, "finish", "stop"]
    assert recorder.of(TextDelta) == [event for event in heard if isinstance(event, TextDelta)]
    assert recorder.text == "".join(event.delta for event in recorder.of(TextDelta))


def test_recorder_when_it_stands_anywhere_sees_what_comes_there() -> None:
    """Before a plugin it sees what that sees, after it what that lets through."""
    run = Dispatcher(Recorder() | Shout() | Recorder()).run(stream("Hello there"))
    before, after = (plugin for plugin in run.plugins if isinstance(plugin, Recorder))
    assert (before.text, after.text) == ("Hello there", "HELLO THERE")
    before.assert_saw(TextDone)
    after.assert_saw_no(TextDone)


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_recorder_when_runs_are_many_tells_them_apart(way: str) -> None:
    """Each run has its own; the one given to the dispatcher knows all of them."""
    template = Recorder()
    flow = Dispatcher(template)
    runs = [flow.run(stream("a")), anyio.run(flow.arun, stream("b"), backend=way)]
    assert [recorder.text for recorder in template.runs] == ["a", "b"]
    assert [recorder_of(run) for run in runs] == template.runs
    assert template.events == []
    assert repr(template.runs[0]) == "Recorder(9 events)"


def test_recorder_when_a_run_is_left_has_no_finish() -> None:
    """The hooks are noted as they were called."""
    template = Recorder()
    for event in Dispatcher(template).stream(stream("a b c")):
        if isinstance(event, TextDelta):
            break
    (recorder,) = template.runs
    assert recorder.calls[0] == "start"
    assert recorder.calls[-1] == "stop"
    assert "finish" not in recorder.calls


def test_saw_when_they_came_gives_them() -> None:
    """Classes, names, families and patterns, in order, others between them."""
    recorder = recorder_of(Dispatcher(Recorder()).run(stream("a b", tools=[("f", {})])))
    found = recorder.assert_saw("response.created", TextDelta, TextDelta, "*.done", "tool", ResponseCompleted)
    assert [event.type for event in found][1:4] == ["response.output_text.delta"] * 2 + ["response.output_text.done"]
    assert recorder.assert_saw() == []
    recorder.assert_saw_no("refusal", "error", "x.*")


def test_saw_when_they_did_not_come_says_what_did() -> None:
    """The message names what is missing, after what, and everything that came."""
    recorder = recorder_of(Dispatcher(Recorder()).run(stream("a b")))
    with pytest.raises(AssertionError) as caught:
        recorder.assert_saw(TextDone, TextDelta)
    assert str(caught.value).startswith("no TextDelta came after response.output_text.done; what came: response.cre")
    assert "response.output_text.delta (2 times), response.output_text.done, " in str(caught.value)
    with pytest.raises(AssertionError, match=r"no TextDelta came after response\.output_text\.delta"):
        recorder.assert_saw(TextDelta, TextDelta, TextDelta)  # two came: each is seen once
    with pytest.raises(AssertionError, match="no 'tool' came; what came"):
        recorder.assert_saw("tool")
    with pytest.raises(AssertionError, match=r"'text' came, as event 4: TextDelta\(delta='a'.*; what came"):
        recorder.assert_saw_no("error", "text")
    many = recorder_of(Dispatcher(Recorder()).run(stream(tools=[("f", {"a": 1})] * 20)))
    with pytest.raises(AssertionError, match=r", \.\.\.$"):
        many.assert_saw("text")


def test_saw_when_nothing_came_says_why() -> None:
    """A template hears nothing, and a run may have been silent."""
    template = Recorder()
    run = Dispatcher(template).run([b""], check=False)
    with pytest.raises(AssertionError, match="no 'text' came; nothing came"):
        recorder_of(run).assert_saw("text")
    with pytest.raises(AssertionError, match=r"a dispatcher's template and hears nothing: ask run\[Recorder\]"):
        template.assert_saw("text")


def test_saw_when_a_selector_can_never_match_is_refused() -> None:
    """A misspelt selector is an error, and no event that did not come."""
    recorder = recorder_of(Dispatcher(Recorder()).run(stream("a")))
    for check in (recorder.assert_saw, recorder.assert_saw_no):
        with pytest.raises(UsageError, match="did you mean 'text'"):
            check("txet")
