"""`Redact`: what is taken out is out, wherever a stream says it and however it is cut; the rest goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import FACES, drive

from eventflow import Dispatcher, Event, Plugin, ResponseCompleted, TextDelta, ToolCall, ToolOutput, on, state
from eventflow import events as ef
from eventflow.errors import UsageError
from eventflow_plugins import Accumulate, Redact
from tests.strategies import Told, events_of, json_values, streams
from tests.test_rewriting import said

SECRET = "sk-made-up-0123456789"
OUT = "[redacted]"
READY = Redact()


class Seen(Plugin):
    """What comes through to this place."""

    events: list[Any] = state(factory=list[Any])

    @on("*")
    def see(self, event: Event) -> None:
        self.events.append(event)


def through(redact: Redact, events: Iterable[Event]) -> list[Any]:
    """What goes on behind a plugin."""
    return Dispatcher(redact, Seen()).run(list(events), check=False)[Seen].events


def cut(text: str, places: Sequence[int]) -> list[str]:
    """The text in pieces."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


# --- what comes ready ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        SECRET,
        "sk-ant-api03-made_up-made_up",
        "sk-proj-MadeUpMadeUpMadeUp",
        "ghp_0123456789abcdefghij",
        "github_pat_0123456789abcdefghij",
        "AKIA0123456789ABCDEF",
        "AIza" + "x" * 35,
        "ya29.made-up-made-up-made-up",
        "xoxb-0123456789-made",
        "eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl",
        "Bearer made.up/made+up~made-up",
        "bearer  madeupmadeupmadeupmadeup==",
        "john.smith+tag@mail.example.co.uk",
        "o'neil@b\u00fccher.example",
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "3782 822463 10005",
        "378282246310005",
        "6304 0000 0000 0000 000",
    ],
)
def test_redact_when_a_ready_pattern_matches(secret: str) -> None:
    """It is gone, whatever stands around it; with any letter of it in a delta of its own."""
    for before, after in (("", ""), ("the (", ") is"), ("=", ", "), ("\u8bf7", "\u3002")):
        text = before + secret + after
        assert READY.redact(text) == before + OUT + after
        deltas = [TextDelta(char, output_index=0) for char in text]
        assert "".join(event.delta for event in through(READY, deltas)) == before + OUT + after


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),  # the check digit is wrong
        ("1234567890123", "1234567890123"),
        ("order 12345678901234567890123", "order 12345678901234567890123"),  # longer than any card
        ("1234 4111 1111 1111 1111", f"1234 {OUT}"),  # a number before it
        ("4111 1111 1111 1111 123", f"{OUT} 123"),  # a code behind it
        (
            "sk-short, @home, a@b, Bearer of good news, task-force",
            "sk-short, @home, a@b, Bearer of good news, task-force",
        ),
        (f"write to a@b.example or c@d.example: {SECRET}", f"write to {OUT} or {OUT}: {OUT}"),
        (f"{SECRET}@mail.example", OUT),  # two that overlap
    ],
)
def test_redact_when_it_looks_alike(text: str, given: str) -> None:
    """What is none goes on as it was."""
    assert READY.redact(text) == given


def test_redact_when_patterns_are_ones_own() -> None:
    """Expressions as text or compiled, words of any case; all of them or these alone."""
    redact = Redact(r"ACME-\d{2,}", re.compile("x+", re.I), patterns=r"q\d", words="Project A.", ready=())
    assert redact.redact("ACME-12 XxX Q1 q1 project a. project ab a@b.com") == (
        f"{OUT} {OUT} Q1 {OUT} {OUT} project ab a@b.com"
    )
    assert Redact(words=["b", "ab"], ready="email", replacement="").redact("cabBc x@y.example") == "cc "
    assert Dispatcher().use("redact", words=["cat"], ready=[])  # by its entry point
    assert "Project" not in repr(redact)
    assert "3 patterns, 1 words" in repr(redact)


@pytest.mark.parametrize("kind", [list, tuple])
def test_redact_when_its_patterns_are_a_list(kind: Any) -> None:
    """A list or tuple alone means what is in it; more than one, or something else, is a named error."""
    given = kind(["a1", re.compile("B2", re.I)])
    redact = Redact(given, patterns=["c3"], words=["d4"], ready=())
    assert redact.patterns == (*given, "c3")
    assert redact.redact("a1 b2 c3 d4 e5") == f"{OUT} {OUT} {OUT} {OUT} e5"
    assert Redact(kind(), words="d4", ready=()).patterns == ()
    for wrong in ((given, "a"), (given, given), (kind([given]),), ({"a1"},)):
        with pytest.raises(UsageError, match="takes patterns as text or compiled from text, not"):
            Redact(*wrong)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"patterns": ["("]}, "'(' does not compile"),
        ({"patterns": "a*"}, "'a*' matches the empty text"),
        ({"patterns": [5]}, "not 5"),
        ({"patterns": [re.compile(b"a")]}, "compiled from text, not re.compile(b'a')"),
        ({"words": [""]}, "not ''"),
        ({"words": [None]}, "not None"),
        ({"ready": "phone"}, "'phone' does not come ready; there is api-keys, cards, email"),
        ({"ready": ()}, "nothing to take out"),
        ({"replacement": None}, "takes text, not None"),
        ({"limit": 10}, "at least 100, not 10"),
        ({"limit": True}, "at least 100, not True"),
    ],
)
def test_redact_when_it_is_configured_wrongly(options: dict[str, Any], why: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(UsageError, match=re.escape(why)):
        Redact(**options)


# --- streams ---------------------------------------------------------------------------------------------------------

NASTY = Redact(r"abcd|ab", r"\d{3,}", r"\bx\b", r"c(?:a*d)?", ready=())
letters = st.text('abcdx1 "\\', max_size=10)


def expected(redact: Redact, kind: str, text: str) -> str:
    """What a text is to become: *kind* tells whether it is JSON."""
    return redact._arguments(text) if kind == "json" else redact.redact(text)


@given(streams(texts=letters | json_values().map(json.dumps)))
def test_redact_when_a_stream_is_well_formed(told: Told) -> None:
    """Deltas, done event, part, item and terminal event say what `redact` makes of the whole text."""
    before, after = said(told.events), said(through(NASTY, told.events))
    kinds = {
        place: "json" if isinstance(item, ef.FunctionCall | ef.McpCall) else ""
        for place, item in enumerate(told.response.output)
    }
    for level in ("done", "part", "item", "terminal"):
        assert {key: expected(NASTY, kinds[key[0]], text) for key, text in before[level].items()} == after[level]
    for key, text in before["item"].items():
        assert after["deltas"][key] == expected(NASTY, kinds[key[0]], text)


@given(st.text("abcdx123 ", max_size=30), st.lists(st.integers(0, 100), max_size=30))
def test_redact_when_a_text_is_cut(text: str, places: list[int]) -> None:
    """However it is cut, the deltas joined are the whole redacted; with or without an end."""
    deltas: list[Event] = [TextDelta(piece, output_index=0) for piece in cut(text, places)]
    for end in ([], [ResponseCompleted(ef.Response())]):
        given = through(NASTY, [*deltas, *end])
        assert "".join(event.delta for event in given if isinstance(event, TextDelta)) == NASTY.redact(text)


@pytest.mark.parametrize("face", FACES)
def test_redact_when_it_runs_in_any_face(face: str) -> None:
    """All come to the same: the answer is redacted behind it, and not in ``run.response``."""
    pieces = ["my key is sk-ma", "de-up-01234", "56789, and ", "that is it"]
    item = ef.Message((ef.OutputText("".join(pieces)),), "msg_1")
    events: list[Any] = [TextDelta(piece, item_id="msg_1", output_index=0, content_index=0) for piece in pieces]
    events += [ef.OutputItemDone(item, output_index=0), ResponseCompleted(ef.Response(output=(item,)))]
    flow = Dispatcher(Redact(), Accumulate(), Seen())
    done = drive(face, events, flow)
    assert done.run.status == "completed"
    assert done.run[Accumulate].text == f"my key is {OUT}, and that is it"
    assert SECRET in done.run.text
    assert next(event.delta for event in done.run[Seen].events if isinstance(event, TextDelta)) == "my key is "


def test_redact_when_a_match_gets_too_long() -> None:
    """It is replaced before its end is known, and the rest of it with it."""
    redact = Redact(r"<secret>[^<]*</secret>", ready=(), limit=100)
    text = "a <secret>" + "x" * 500 + "</secret> b <secret>" + "y" * 150 + "<"
    for size in (1, 7, 1000):
        deltas = [TextDelta(text[start : start + size], output_index=0) for start in range(0, len(text), size)]
        assert "".join(event.delta for event in through(redact, deltas)) == f"a {OUT} b {OUT}" + "y" * 58 + "<"


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"to": "a@b.example", "n": 1.50}', '{"to": "[redacted]", "n": 1.50}'),
        (r'{"to":"a\u0040b.example"}', '{"to":"[redacted]"}'),
        ('{"card":4111111111111111}', '{"card":"[redacted]"}'),
        ("[4.111111111111111e15, 4111111111111111.00, 1e300]", '["[redacted]", "[redacted]", 1e300]'),
        ("[-4111111111111111, 1E-9, 0.0]", '["[redacted]", 1E-9, 0.0]'),
        ('{"a@b.example":{"a@b.example":null}}', '{"[redacted]":{"[redacted]":null}}'),
        (r'{"inner": "{\"to\": \"a\\u0040b.example\"}"}', '{"inner": "[redacted]"}'),
        ('{"text": "two\nlines, a@b.example"}', '{"text": "two\\nlines, [redacted]"}'),
        ('{"path": "C:\\\\new \\u00e9"}', '{"path": "C:\\\\new \\u00e9"}'),  # as it was written
        ('"a@b.example"', '"[redacted]"'),
        ("4111111111111111", '"[redacted]"'),
        ("", ""),
        ('{"to": "a@b.example', '{"to": "[redacted]'),  # cut off: a text
        (r'{"to": "a\u0040b.example', "[redacted]"),  # and of that nothing is sure
        ("[NaN, a@b.example]", "[NaN, [redacted]]"),
        ("[" * 5000 + "a@b.example", "[" * 5000 + OUT),
        ("[" + "1" * 5000 + "]", "[" + "1" * 5000 + "]"),
    ],
)  # fmt: skip
def test_redact_when_arguments_are_json(arguments: str, given: str) -> None:
    """Strings, keys and numbers are redacted one by one; JSON stays JSON, and what does not change is as written."""
    where: dict[str, Any] = {"item_id": "fc_1", "output_index": 0}
    item = ef.FunctionCall("send", arguments, "call_1", "fc_1")
    call = ToolCall("function", "send", arguments, "call_1", "fc_1", output_index=0)
    deltas = [ef.FunctionCallArgumentsDelta(char, **where) for char in arguments[:200]]
    deltas += [ef.FunctionCallArgumentsDelta(arguments[200:], **where)]
    events = [*deltas, ef.FunctionCallArgumentsDone(arguments, **where), ef.OutputItemDone(item, output_index=0)]
    after = through(READY, events)
    pieces = [event.delta for event in after if isinstance(event, ef.FunctionCallArgumentsDelta)]
    assert [piece for piece in pieces if piece] == [given] * bool(given)  # they come in one
    assert after[-3].arguments == after[-2].item.arguments == after[-1].arguments == given
    assert after[-1] == call.replace(arguments=given)


def test_redact_when_a_tool_takes_text() -> None:
    """The input of a custom tool and code are texts, though they look like JSON; approvals are JSON."""
    text = '{"n":4111111111111111}'
    items = [ef.CustomToolCall("t", text, "call_1"), ef.CodeInterpreterCall(text), ef.McpApprovalRequest("t", text)]
    after = through(READY, [*map(ef.OutputItemDone, items), ToolCall("custom", "t", text)])
    custom, called, code, asked, emitted = after
    assert custom.item.input == called.arguments == code.item.code == emitted.arguments == f'{{"n":{OUT}}}'
    assert asked.item.arguments == f'{{"n":"{OUT}"}}'
    assert code.item.id is None


def test_redact_when_a_tool_stands_behind_it() -> None:
    """It is given redacted arguments, and its output is redacted where it passes."""
    item = ef.FunctionCall("send", json.dumps({"to": "a@b.example"}), "call_1", "fc_1")
    given: list[str] = []
    flow = Dispatcher(Redact(), Seen())

    @flow.on(ToolCall)
    def run_tool(event: ToolCall) -> Iterable[Event]:
        given.append(event.arguments)
        yield ToolOutput(event.call_id, f"sent with {SECRET}", event.name)

    run = flow.run([ef.OutputItemDone(item, output_index=0), ResponseCompleted(ef.Response(output=(item,)))])
    assert given == ['{"to": "[redacted]"}']
    outputs = [event for event in run[Seen].events if isinstance(event, ToolOutput)]
    assert outputs == [ToolOutput("call_1", f"sent with {OUT}", "send")]


# --- everything else -------------------------------------------------------------------------------------------------

KEPT = {"type", "id", "name", "model", "object", "role", "status", "kind", "phase", "outcome"}
KEPT |= {"encrypted_content", "result", "partial_image_b64", "handler", "obfuscation"}


def leaks(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where the secret still stands, but for fields that are documented to stay."""
    if isinstance(value, dict):
        return [
            leak for key, inner in value.items() for leak in leaks(inner, (*path, key)) + leaks(key, (*path, "key"))
        ]
    if isinstance(value, list | tuple):
        return [leak for inner in value for leak in leaks(inner, path)]
    stays = path and (path[-1] in KEPT or path[-1].endswith("_id"))
    return [path] if isinstance(value, str) and SECRET in value and not stays else []


SAYING_IT = st.just(f"<{SECRET}>")
SENT = [cls for tag, cls in sorted(ef.event_classes().items()) if cls.__module__.startswith("eventflow.events.")]


@pytest.mark.parametrize("cls", SENT, ids=lambda cls: cls.__name__)
@settings(max_examples=8)
@given(data=st.data())
def test_redact_when_any_field_of_any_event_has_it(cls: type[Any], data: st.DataObject) -> None:
    """Of all events of the vocabulary, no string that is not documented to stay still says it."""
    event = data.draw(events_of(cls, SAYING_IT))
    if cls is ef.AudioDelta or (cls is ef.UnknownEvent and event.type in ef.event_classes()):
        return
    for after in through(READY, [event]):
        assert isinstance(event, ef.HandlerFailed) or not leaks(after.to_dict()), after


def test_redact_when_free_json_has_it() -> None:
    """In what nobody spells out every string, key and number is redacted, but for types and what is encrypted."""
    secret: dict[str, Any] = {SECRET: [SECRET, 4111111111111111, 4111111111111111.0, 1, True, None, float("inf")]}
    data = {"type": "vendor", "id": SECRET, **secret, f"{SECRET}": secret, "encrypted_content": SECRET}
    inner = {OUT: [OUT, OUT, OUT, 1, True, None, float("inf")]}
    unknown, untyped = through(
        READY,
        [ef.UnknownEvent("vendor", data | {f"{SECRET}x": 1}), ef.OutputItemDone(ef.Untyped(data), output_index=0)],
    )
    clean = {"type": "vendor", "id": OUT, OUT: inner, "encrypted_content": SECRET}
    assert unknown.data == clean | {f"{OUT}_2": 1}
    assert untyped.item.data == clean


@pytest.mark.parametrize("digits", [308, 310, 4300])
def test_redact_when_a_number_is_too_large_for_a_float(digits: int) -> None:
    """An integer of any length that JSON is read with is looked at like every other."""
    data: dict[str, Any] = {"n": 10 ** (digits - 1), "m": [1 - 10**digits]}
    (event,) = through(READY, [ef.UnknownEvent("vendor", data)])
    assert event.data == data
    (event,) = through(Redact("7{300}", ready=()), [ef.UnknownEvent("vendor", {"n": int("7" * 400)})])
    assert event.data == {"n": OUT}


@given(
    st.lists(
        st.sampled_from([OUT, "x", f"{OUT}_2", f"{OUT}_3", "x_2", *(f"{n}@a.example" for n in range(5))]), unique=True
    )
)
def test_redact_when_keys_become_the_same(keys: list[str]) -> None:
    """Every value is kept, in its order, and keys that had nothing to hide keep their names unless they are taken."""
    (event,) = through(READY, [ef.UnknownEvent("vendor", {key: index for index, key in enumerate(keys)})])
    assert list(event.data.values()) == list(range(len(keys)))
    assert len(set(event.data)) == len(keys)
    assert all(key.startswith((OUT, "x")) for key in event.data)
    assert [key for key in event.data if key.startswith("x")] == [key for key in keys if key.startswith("x")]


def test_redact_when_very_many_keys_become_the_same() -> None:
    """Each costs the same, and what comes out is no longer than their number and names: no suffix grows with each."""
    count = 400
    (event,) = through(READY, [ef.UnknownEvent("vendor", {f"{n}@a.example": n for n in range(count)})])
    assert list(event.data)[:3] == [OUT, f"{OUT}_2", f"{OUT}_3"]
    assert list(event.data.values()) == list(range(count))
    assert max(map(len, event.data)) == len(f"{OUT}_{count}")


def test_redact_when_events_carry_more() -> None:
    """Citations, searches, errors, echoes of the request; the pieces of a shell's output do not go on."""
    search = ef.WebSearchCall("ws_1", action={"type": "search", "query": f"who has {SECRET}"})
    shell = ef.ShellCall(
        "sh_1", action={"commands": [f"echo {SECRET}"], "env": {"KEY": SECRET}, "timeout_ms": 4111111111111}
    )
    code = ef.CodeInterpreterCall("1", outputs=[{"type": "logs", "logs": SECRET}])
    events: list[Event] = [
        ef.ResponseCreated(
            ef.Response(id="resp_1", created_at=4111111111111111.0, instructions=SECRET, text={"f": SECRET})
        ),
        TextDelta(".. ", output_index=0, extra={"piece": "sk-"}),
        ef.TextAnnotationAdded(ef.URLCitation(f"https://a.example/{SECRET}", SECRET, 1, 2)),
        *(ef.OutputItemDone(item, output_index=index) for index, item in enumerate([search, shell, code])),
        ef.ShellCallOutputContentDelta({"stdout": "sk-"}),
        ef.ShellCallOutputContentDone([{"stdout": SECRET}]),
        ef.StreamError(f"no {SECRET}", code=SECRET),
    ]
    created, delta, annotated, searched, shelled, ran, output, error = through(READY, events)
    assert created.response == ef.Response(
        id="resp_1", created_at=4111111111111111.0, instructions=OUT, text={"f": OUT}
    )
    assert delta == TextDelta(".. ", output_index=0)
    assert annotated.annotation == ef.URLCitation(f"https://a.example/{OUT}", OUT, 1, 2)
    assert searched.item.action == {"type": "search", "query": f"who has {OUT}"}
    assert shelled.item.action == {"commands": [f"echo {OUT}"], "env": {"KEY": OUT}, "timeout_ms": 4111111111111}
    assert ran.item.outputs == [{"type": "logs", "logs": OUT}]
    assert output.output == [{"stdout": OUT}]
    assert error == ef.StreamError(f"no {OUT}", code=OUT)


@pytest.mark.parametrize("end", [[ef.AudioTranscriptDone()], []])
def test_redact_when_it_is_spoken(end: list[Event]) -> None:
    """The transcript is redacted as a text is; the audio itself goes on."""
    pieces = ["my key: ", "sk-", "made-up-0123", "456789"]
    given = through(READY, [ef.AudioDelta("c2st"), *map(ef.AudioTranscriptDelta, pieces), *end])
    assert given == [ef.AudioDelta("c2st"), *map(ef.AudioTranscriptDelta, ["my key: ", OUT]), *end]


def test_redact_when_a_handler_before_it_fails() -> None:
    """The event that the handler was given does not go on."""

    class Failing(Plugin):
        @on(TextDelta, errors="isolate")
        def fail(self, event: TextDelta) -> None:
            raise ValueError("no")

    run = Dispatcher(Failing(), Redact(), Seen()).run([TextDelta(SECRET, output_index=0)], check=False)
    (failure,) = (event for event in run[Seen].events if isinstance(event, ef.HandlerFailed))
    assert failure.event is None


def bare(record: Any) -> Any:
    """The record as JSON, without log probabilities."""
    if isinstance(record, dict):
        return {name: bare(value) for name, value in record.items() if name != "logprobs"}
    return [bare(value) for value in record] if isinstance(record, list) else record


@given(streams(texts=st.text("efg \u00e9", max_size=8)))
def test_redact_when_there_is_nothing_to_take_out(told: Told) -> None:
    """Events go on as they were, but that arguments come in one, and log probabilities not at all."""
    given = through(NASTY, told.events)
    pieces = (ef.FunctionCallArgumentsDelta, ef.McpCallArgumentsDelta)
    want = [bare(event.to_dict()) for event in told.events if not isinstance(event, pieces)]
    assert [event.to_dict() for event in given if not isinstance(event, (*pieces, ToolCall))] == want
    assert said(given) == said(told.events)


def test_redact_when_log_probabilities_spell_it() -> None:
    """They are left out, of texts that do not change too."""
    logprobs = (ef.Logprob("sk-", -1.0), ef.Logprob("made-up-0123456789", -1.0))
    item = ef.Message((ef.OutputText(". ", logprobs=logprobs),))
    events = [TextDelta(". ", output_index=0, logprobs=logprobs), ef.OutputItemDone(item, output_index=0)]
    assert through(READY, events) == [
        TextDelta(". ", output_index=0),
        ef.OutputItemDone(ef.Message((ef.OutputText(". "),)), output_index=0),
    ]
