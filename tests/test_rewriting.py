"""Rewriting: one function over a text, consistent wherever a stream repeats it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import events as ef
from eventflow.events import Event, OutputItemAdded, OutputItemDone, Response, ResponseCompleted, TextDelta, TextDone
from eventflow.rewriting import Part, Rewriter
from eventflow.snapshot import TERMINAL
from tests.strategies import Told, streams, wire_events

ALL = ("text", "refusal", "reasoning", "tool")
FAMILY = {"text": "text", "refusal": "refusal", "reasoning": "reasoning", "summary": "reasoning", "call": "tool"}
FAMILY["command"] = "tool"
LOGPROBS = (ef.Logprob("a", -1.0),)

# --- what a stream says, read independently of the code under test ---------------------------------------------------

DELTAS: dict[type[Any], str] = {
    TextDelta: "text",
    ef.RefusalDelta: "refusal",
    ef.ReasoningTextDelta: "reasoning",
    ef.ReasoningSummaryTextDelta: "summary",
    ef.FunctionCallArgumentsDelta: "call",
    ef.CustomToolCallInputDelta: "call",
    ef.McpCallArgumentsDelta: "call",
    ef.CodeInterpreterCallCodeDelta: "call",
    ef.ShellCallCommandDelta: "command",
}
Said = dict[str, dict[tuple[Any, str, int], str]]


def index_of(event: Any) -> int:
    """Find the index of a part, whatever it is called."""
    names = ("content_index", "summary_index", "command_index")
    return next((getattr(event, name) for name in names if hasattr(event, name)), 0) or 0


def texts_of(item: Any) -> dict[tuple[str, int], str]:
    """All texts of an item."""
    found: dict[tuple[str, int], str] = {}
    for field in ("content", "summary"):
        for index, part in enumerate(getattr(item, field, ())):
            kind = {"output_text": "text", "refusal": "refusal", "summary_text": "summary"}.get(part.type, "reasoning")
            found[kind, index] = getattr(part, "refusal", None) or getattr(part, "text", "")
    for field in ("arguments", "input", "code"):
        if field in getattr(item, "__struct_fields__", ()):
            found["call", 0] = getattr(item, field) or ""
    if isinstance(item, ef.ShellCall):
        found |= {("command", index): text for index, text in enumerate(item.action["commands"])}
    return found


def said(events: Iterable[Any]) -> Said:
    """What each level of repetition says, by output index, kind and index."""
    levels: Said = defaultdict(lambda: defaultdict(str))
    for event in events:
        where = getattr(event, "output_index", None)
        if type(event) in DELTAS:
            levels["deltas"][where, DELTAS[type(event)], index_of(event)] += event.delta
        elif isinstance(event, OutputItemDone):
            levels["item"] |= {(where, *key): text for key, text in texts_of(event.item).items()}
        elif isinstance(event, ef.LifecycleEvent):
            for place, item in enumerate(event.response.output):  # type: ignore[attr-defined]
                levels["terminal"] |= {(place, *key): text for key, text in texts_of(item).items()}
        elif isinstance(event, ef.ContentPartDone | ef.ReasoningSummaryPartDone):
            (kind, _), text = next(iter(texts_of(ef.Message((event.part,))).items()))
            levels["part"][where, kind, index_of(event)] = text
        elif event.type.endswith(".done"):
            delta = ef.event_classes()[event.type.removesuffix("done") + "delta"]
            field = next(
                name for name in ("text", "refusal", "arguments", "input", "code", "command") if hasattr(event, name)
            )
            levels["done"][where, DELTAS[delta], index_of(event)] = getattr(event, field)
    return levels


def run(events: Sequence[Event], rewrite: Callable[[str, Part], str], families: tuple[str, ...] = ALL) -> list[Event]:
    """Rewrite a stream, as a run does: only what the rewriter takes is given to it."""
    rewriter = Rewriter(rewrite, families)
    given: list[Event] = []
    for event in events:
        given += rewriter.feed(event) if rewriter.takes(type(event)) else [event]
    return given + rewriter.close()


# --- functions that rewrite ------------------------------------------------------------------------------------------


def swapped(text: str) -> str:
    """Change characters one by one, some into two."""
    return text.upper().replace("A", "4").replace("É", "e!")


def by_letter(text: str, part: Part) -> str:
    """Change characters one by one, however they come."""
    return swapped(text)


def hold_back(count: int) -> Callable[[str, Part], str]:
    """Give each text late by some characters, and changed."""

    def rewrite(text: str, part: Part) -> str:
        part.held += text
        cut = len(part.held) if part.final else max(0, len(part.held) - count)
        given, part.held = part.held[:cut], part.held[cut:]
        return swapped(given)

    return rewrite


def censor(word: str) -> Callable[[str, Part], str]:
    """Replace a word, which may be split over any number of pieces."""

    def rewrite(text: str, part: Part) -> str:
        text = (part.held + text).replace(word, "*")
        hold = 0
        if not part.final:
            hold = next((n for n in range(len(word) - 1, 0, -1) if text.endswith(word[:n])), 0)
        part.held = text[len(text) - hold :]
        return text[: len(text) - hold]

    return rewrite


REWRITES: dict[str, tuple[Callable[[str, Part], str], Callable[[str], str]]] = {
    "letters": (by_letter, swapped),
    "hold back 1": (hold_back(1), swapped),
    "hold back 3": (hold_back(3), swapped),
    "hold back all": (hold_back(1000), swapped),
    "censor": (censor("aab"), lambda text: text.replace("aab", "*")),
    "drop": (lambda text, part: "", lambda text: ""),
    "same": (lambda text, part: text, lambda text: text),
    "sign": (lambda text, part: "." if part.final else text, lambda text: f"{text}."),
}
letters = st.text("aabé\u2028x", max_size=8)


def check(told: Told, given: Sequence[Event], expected: Callable[[str], str], families: tuple[str, ...] = ALL) -> None:
    """Every level says what is expected, in the families; the rest is as it was."""
    before, after = said(told.events), said(given)
    assert {level for level in after if after[level]} <= {level for level in before if before[level]} | {"deltas"}
    for level in ("done", "part", "item", "terminal"):
        assert set(before[level]) == set(after[level])
        for key, text in before[level].items():
            assert after[level][key] == (expected(text) if FAMILY[key[1]] in families else text), (level, key)
    for key, text in before["item"].items():
        assert after["deltas"][key] == (expected(text) if FAMILY[key[1]] in families else text), key


# --- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REWRITES)
@given(told=streams(texts=letters))
def test_rewrite_when_a_stream_is_well_formed(name: str, told: Told) -> None:
    """Deltas, ``done`` event, part, item and terminal event say the same, interleaved or not, held back or not."""
    rewrite, expected = REWRITES[name]
    before = said(told.events)
    given = run(told.events, rewrite)
    if name == "sign":  # only a text that has deltas can be signed when it is empty
        signed = said(given)
        for level in ("done", "part", "item", "terminal"):
            assert {key: signed[level][key] for key in before[level]} == {
                key: signed["deltas"][key] for key in before[level]
            }
        return
    check(told, given, expected)


@given(streams(texts=letters), st.sampled_from(sorted(REWRITES)))
def test_rewrite_when_held_text_must_go_first(told: Told, name: str) -> None:
    """Whatever ends a text comes after all of its deltas, and the terminal event after everything."""
    ended: set[tuple[Any, ...]] = set()
    for event in run(told.events, REWRITES[name][0]):
        if type(event) in DELTAS:
            place = (event.output_index, DELTAS[type(event)], index_of(event))  # type: ignore[attr-defined]
            assert place not in ended
            assert (event.output_index,) not in ended  # type: ignore[attr-defined]
            assert () not in ended
        ended |= set(said([event])["done"]) | set(said([event])["part"])
        if isinstance(event, OutputItemDone):
            ended.add((event.output_index,))
        if isinstance(event, TERMINAL):
            ended.add(())


@given(streams(texts=letters), st.lists(st.sampled_from(ALL), unique=True))
def test_rewrite_when_families_are_chosen(told: Told, families: list[str]) -> None:
    """Texts of other families stay as they are, whether their events are given to the rewriter or not."""
    check(told, run(told.events, by_letter, tuple(families)), swapped, tuple(families))
    rewriter = Rewriter(by_letter, tuple(families))
    given = [given for event in told.events for given in rewriter.feed(event)]
    check(told, given, swapped, tuple(families))


@given(streams(texts=letters), st.sampled_from(["no repetition", "no deltas", "items alone", "terminal alone"]))
def test_rewrite_when_a_stream_repeats_less(told: Told, which: str) -> None:
    """What is there is rewritten, wherever it is."""
    terminal = told.events[-1]
    kept = {
        "no repetition": [event for event in told.events if type(event) in DELTAS],
        "no deltas": [event for event in told.events if type(event) not in DELTAS],
        "items alone": [event for event in told.events if isinstance(event, OutputItemDone)],
        "terminal alone": [event for event in told.events if type(event) in DELTAS or event is terminal],
    }[which]
    for name in ("letters", "hold back 3", "censor"):
        rewrite, expected = REWRITES[name]
        given, whole = said(run(kept, rewrite)), said(told.events)["item"]
        for level, texts in said(kept).items():
            assert {key: given[level][key] for key in texts} == {key: expected(whole[key]) for key in texts}


@given(streams(texts=letters, kinds=("message", "reasoning", "function", "custom", "mcp", "code")))
def test_rewrite_when_items_are_known_by_their_ids_alone(told: Told) -> None:
    """Without an output index the id tells texts apart (llama.cpp), in the terminal event too."""
    events = [
        event.replace(output_index=None) if "output_index" in event.__struct_fields__ else event
        for event in told.events
    ]
    given = run(events, hold_back(2))
    terminal: Any = given[-1]
    indexes = {item.id: index for index, item in enumerate(told.response.output)}
    restored = []
    for event in given:
        if "output_index" in event.__struct_fields__:
            item_id = event.item.id if hasattr(event, "item") else event.item_id  # type: ignore[attr-defined]
            event = event.replace(output_index=indexes[item_id])
        restored.append(event)
    check(told, restored, swapped)
    assert terminal.response.replace(output=()) == told.response.replace(output=())


@given(streams(texts=letters))
def test_rewrite_when_nothing_changes(told: Told) -> None:
    """Every event is the same object, log probabilities and all."""
    given = run(told.events, lambda text, part: text)
    assert list(map(id, given)) == [id(event) for event in told.events]


@given(streams(texts=letters))
def test_rewrite_when_it_changes_text(told: Told) -> None:
    """Log probabilities, which spell the text, are gone wherever it changed; what was put in has no number."""
    given = run(told.events, hold_back(2))
    numbers = [event.sequence_number for event in given if event.sequence_number is not None]  # type: ignore[attr-defined]
    assert numbers == sorted(set(numbers))
    originals = {event.sequence_number: event for event in told.events}
    for event in given:
        original = originals.get(event.sequence_number)  # type: ignore[attr-defined]
        if isinstance(event, TextDelta | TextDone) and event.logprobs is not None:
            assert event == original
        if isinstance(event, OutputItemDone) and isinstance(event.item, ef.Message):
            for part, before in zip(event.item.content, original.item.content, strict=True):  # type: ignore[union-attr]
                assert getattr(part, "logprobs", None) is None or part == before


@given(st.lists(wire_events(), max_size=12), st.sampled_from(sorted(REWRITES)))
def test_rewrite_when_events_are_any(events: list[Event], name: str) -> None:
    """No sequence of events is refused, and none is lost that carries no text."""
    given = run(events, REWRITES[name][0])
    kept = [type(event) for event in given if type(event) not in DELTAS]
    assert kept == [type(event) for event in events if type(event) not in DELTAS]


def test_rewrite_when_it_remembers_what_it_saw() -> None:
    """A text that comes twice is rewritten by its own deltas' outcome wherever it is repeated."""
    count = iter("123456789")

    def number(text: str, part: Part) -> str:
        return "" if part.final else text + next(count)

    messages = [ef.Message((ef.OutputText("a"),), f"msg_{index}") for index in range(2)]
    events: list[Event] = []
    for index, message in enumerate(messages):
        where = {"item_id": message.id, "output_index": index, "content_index": 0}
        events += [TextDelta("a", **where), TextDone("a", **where)]  # type: ignore[arg-type]
    events += [OutputItemDone(message, output_index=index) for index, message in enumerate(messages)]
    events.append(ResponseCompleted(Response(output=tuple(messages))))
    given: list[Any] = run(events, number)
    assert [event.delta for event in given[0:4:2]] == ["a1", "a2"]
    assert [event.text for event in given[1:4:2]] == ["a1", "a2"]
    assert [event.item.content[0].text for event in given[4:6]] == ["a1", "a2"]
    assert given[6].response.output_text == "a1a2"
    shifted = ResponseCompleted(Response(output=messages[:1]))
    given = run([TextDelta("b", output_index=7), TextDone("b", output_index=7), shifted], number)
    assert given[2].response.output_text == "a4"
    elsewhere = ResponseCompleted(Response(output=(ef.Message((ef.OutputText("b"),)),)))
    given = run([TextDelta("b", output_index=7), TextDone("b", output_index=7), elsewhere], number)
    assert [given[0].delta, given[1].text, given[2].response.output_text] == ["b5", "b5", "b5"]


# --- cases -----------------------------------------------------------------------------------------------------------

AT: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def test_rewrite_when_done_has_more_than_the_deltas() -> None:
    """The rest goes through as another delta."""
    events = [TextDelta("ab", **AT, logprobs=LOGPROBS, sequence_number=3), TextDone("abcd", **AT, sequence_number=4)]
    assert run(events, hold_back(1)) == [
        TextDelta("4", **AT, sequence_number=3),
        TextDelta("BC", **AT),
        TextDelta("D", **AT),
        TextDone("4BCD", **AT, sequence_number=4),
    ]


@pytest.mark.parametrize("whole", ["xyz", "xyzw", "ab", "abxy"])
def test_rewrite_when_done_differs_from_the_deltas(whole: str) -> None:
    """What is held goes first; the other text is rewritten on its own, and that is what its repetitions get."""
    part = ef.ContentPartDone(ef.OutputText(whole, (), LOGPROBS), **AT)
    assert run([TextDelta("abc", **AT), TextDone(whole, **AT, logprobs=LOGPROBS), part], hold_back(2)) == [
        TextDelta("4", **AT),
        TextDelta("BC", **AT),
        TextDone(swapped(whole), **AT),
        ef.ContentPartDone(ef.OutputText(swapped(whole)), **AT),
    ]


@pytest.mark.parametrize(
    "end",
    [
        ef.ContentPartDone(ef.OutputText(), **AT),
        ef.ContentPartDone(ef.Untyped({"type": "vendor"}), **AT),
        OutputItemDone(ef.Message((), "msg_1"), output_index=0),
        OutputItemDone(ef.Untyped({"type": "vendor", "id": "msg_1"}), output_index=0),
        OutputItemDone(ef.Message((), "msg_1")),
        ResponseCompleted(Response()),
        ef.ResponseFailed(Response()),
        TextDone("", **AT),
    ],
    ids=repr,
)
def test_rewrite_when_the_end_leaves_the_text_out(end: Any) -> None:
    """What is held goes before it, and it stays as it is."""
    held = TextDelta("abc", **AT) if getattr(end, "output_index", 0) is not None else TextDelta("abc", "msg_1")
    assert run([held, end], hold_back(3)) == [held.replace(delta="4BC"), end]


@pytest.mark.parametrize(
    "event",
    [
        ef.ResponseInProgress(Response()),
        OutputItemAdded(ef.Message(id="msg_2"), output_index=1),
        ef.ContentPartAdded(ef.OutputRefusal(), **{**AT, "content_index": 1}),
        ef.ContentPartDone(ef.OutputText(), **{**AT, "content_index": 1}),
        ef.ReasoningSummaryPartDone(ef.SummaryText(), "msg_1", 0, 0),
        OutputItemDone(ef.Message((), "msg_2"), output_index=1),
    ],
    ids=repr,
)
def test_rewrite_when_another_text_ends(event: Any) -> None:
    """What is held stays held."""
    held = TextDelta("abc", **AT)
    assert run([held, event], hold_back(3)) == [event, held.replace(delta="4BC")]


def test_rewrite_when_kinds_share_an_index() -> None:
    """Text and refusal of one index do not mix."""
    events = [TextDelta("ab", **AT), ef.RefusalDelta("ab", **AT), TextDone("ab", **AT), ef.RefusalDone("ab", **AT)]
    given = run(events, hold_back(1))
    assert said(given)["deltas"] == said(given)["done"] == {(0, "text", 0): "4B", (0, "refusal", 0): "4B"}


def test_rewrite_when_a_text_goes_on_after_its_end() -> None:
    """It is a new text."""
    assert run([TextDelta("a", **AT), TextDone("a", **AT), TextDelta("b", **AT)], hold_back(1))[2:] == [
        TextDelta("B", **AT)
    ]


def test_rewrite_when_an_event_names_no_item() -> None:
    """Its text is known again by what it says."""
    assert run([TextDelta("ab"), TextDone("ab"), ef.ContentPartDone(ef.OutputText("ab"))], hold_back(1)) == [
        TextDelta("4"),
        TextDelta("B"),
        TextDone("4B"),
        ef.ContentPartDone(ef.OutputText("4B")),
    ]
    shifted = ResponseCompleted(Response(output=(ef.Message((ef.OutputText("ab"),)),)))
    given: Any = run([TextDelta("ab", output_index=3), TextDone("ab", output_index=3), shifted], censor("ab"))
    assert given[-1].response.output_text == "*"


def test_rewrite_when_a_call_is_dispatched() -> None:
    """It carries the arguments that its item carries; name and ids stay."""
    item = ef.FunctionCall("f", '{"a":1}', "call_1", "fc_1", "completed")
    where: dict[str, Any] = {"item_id": "fc_1", "output_index": 0}
    call = ef.ToolCall("function", "f", '{"a":1}', "call_1", **where)
    deltas = [ef.FunctionCallArgumentsDelta(piece, **where) for piece in ('{"a"', ":1}")]
    done = [ef.FunctionCallArgumentsDone('{"a":1}', **where), OutputItemDone(item, output_index=0), call]
    given: Any = run([*deltas, *done], hold_back(2), ("tool",))
    assert given[-3].arguments == given[-2].item.arguments == given[-1].arguments == '{"4":1}'
    assert given[-1] == call.replace(arguments='{"4":1}')
    hollow = OutputItemDone(item.replace(arguments=""), output_index=0)
    given = run([*deltas, hollow, call], hold_back(2), ("tool",))
    assert given[-2] == hollow
    assert given[-1].arguments == '{"4":1}'
    assert run([call], by_letter) == [call.replace(arguments='{"4":1}')]
    assert run([call], by_letter, ("text",)) == [call]


def test_rewrite_when_a_tool_asks_for_approval() -> None:
    """Its arguments are rewritten; code that was not sent stays unsent."""
    item = ef.McpApprovalRequest("f", "ab", "mcpr_1")
    assert run([OutputItemDone(item)], by_letter) == [OutputItemDone(item.replace(arguments="4B"))]
    code = OutputItemAdded(ef.CodeInterpreterCall(None, "ci_1"))
    assert run([code], by_letter)[0] is code


def test_rewrite_when_commands_are_in_an_item() -> None:
    """Each is rewritten, of either shell; what is no command stays."""
    shell = ef.ShellCall("sh_1", action={"commands": ["ab", 5, "x"], "timeout_ms": 1})
    local = ef.LocalShellCall("sh_2", action={"type": "exec", "command": ["ls", "a"]})
    given: Any = run([OutputItemDone(shell), OutputItemDone(local)], by_letter)
    assert given[0].item.action == {"commands": ["4B", 5, "X"], "timeout_ms": 1}
    assert given[1].item.action == {"type": "exec", "command": ["LS", "4"]}
    for action in (None, [], {"commands": "ab"}, {"commands": []}):
        event = OutputItemDone(ef.ShellCall("sh_1", action=action))
        assert run([event], by_letter)[0] is event
    assert run([OutputItemDone(shell)], by_letter, ("text",)) == [OutputItemDone(shell)]
    assert run([ef.ShellCallCommandAdded("ab", 0)], by_letter) == [ef.ShellCallCommandAdded("4B", 0)]


def test_rewrite_when_a_response_under_way_has_output() -> None:
    """Texts that are under way stay open."""
    item = ef.Message((ef.OutputText("ab"),), "msg_1")
    progress = ef.ResponseInProgress(Response(output=(item,)))
    again = OutputItemAdded(ef.FunctionCall("f", "ab", "call_2", "fc_2"), output_index=1)
    call: dict[str, Any] = {"item_id": "fc_2", "output_index": 1}
    begun = [TextDelta("ab", **AT), ef.FunctionCallArgumentsDelta("ab", **call)]
    ended = [TextDelta("c", **AT), TextDone("abc", **AT), ef.FunctionCallArgumentsDone("ab", **call)]
    given: Any = run([*begun, progress, again, *ended], hold_back(3))
    assert given[0].response.output_text == given[1].item.arguments == "4B"
    assert given[2:4] == [TextDelta("4BC", **AT), TextDone("4BC", **AT)]
    assert given[4:] == [
        ef.FunctionCallArgumentsDelta("4B", **call),
        ef.FunctionCallArgumentsDone("4B", **call),
    ]


@given(st.sampled_from(sorted(ef.event_classes())), st.sampled_from([(family,) for family in ALL]))
def test_takes_when_classes_are_asked(tag: str, families: tuple[str, ...]) -> None:
    """It takes what carries text of the families: of others, nothing but items, their parts, and responses."""
    cls = ef.event_classes()[tag]
    always = issubclass(cls, ef.LifecycleEvent) or tag.startswith(("response.output_item.", "response.content_part."))
    kind = DELTAS.get(cls) or DELTAS.get(ef.event_classes().get(tag.removesuffix("done") + "delta", cls))
    carries = kind is not None and (FAMILY[kind],) == families
    carries = carries or (families == ("reasoning",) and "summary_part" in tag)
    carries = carries or (families == ("tool",) and tag in ("eventflow.tool_call", "response.shell_call_command.added"))
    assert Rewriter(by_letter, families).takes(cls) == (always or carries)


def test_rewrite_when_texts_are_json() -> None:
    """The part says so of the arguments of function and MCP calls, wherever they are; its memory is the text's own."""

    def marked(text: str, part: Part) -> str:
        assert part.memory is None or part.final
        part.memory = text
        return "" if part.final else "json" if part.is_json else "text"

    items = [
        ef.FunctionCall("f", "1"),
        ef.McpCall("f", "1"),
        ef.McpApprovalRequest("f", "1"),
        ef.CustomToolCall("f", "1"),
    ]
    items.append(ef.CodeInterpreterCall("1"))
    events: list[Event] = [
        *map(OutputItemDone, items),
        *(ef.ToolCall(kind, "f", "1") for kind in ("function", "mcp", "custom")),
    ]
    given: list[Any] = run(events, marked)
    assert [getattr(event.item, "arguments", None) or event.item.code for event in given[:5]] == ["json"] * 3 + [
        "text"
    ] * 2
    assert [event.arguments for event in given[5:]] == ["json", "json", "text"]
    pieces: dict[Any, Any] = {
        ef.FunctionCallArgumentsDelta: ef.FunctionCallArgumentsDone("1", output_index=0),
        ef.McpCallArgumentsDelta: ef.McpCallArgumentsDone("1", output_index=0),
        ef.CustomToolCallInputDelta: ef.CustomToolCallInputDone("1", output_index=0),
    }
    for delta, done in pieces.items():
        kind = "text" if delta is ef.CustomToolCallInputDelta else "json"
        for begun in ([delta("1", output_index=0)], []):
            ended: Any = run([*begun, done], marked)[-1]
            assert (ended.input if kind == "text" else ended.arguments) == kind
