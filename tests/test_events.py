"""eventflow.events: the classes, their names, families and fields, what records can do, users' own events."""

from __future__ import annotations

import copy
import gc
import json
import math
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import events as ef
from eventflow.errors import UsageError
from eventflow.events import (
    Event,
    FunctionCall,
    HandlerFailed,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Response,
    StreamError,
    SummaryText,
    TextDelta,
    TextDone,
    ToolCall,
    ToolOutput,
    ToolProgress,
    UnknownEvent,
    Untyped,
    decode,
    encode_json,
    event_classes,
    nearest,
    resolve,
)
from tests.strategies import WIRE_EVENTS, events_of, json_values

# wire name, family, fields besides type and sequence_number; of openai 3.54.0, read November 2026
CATALOGUE = """
response.created lifecycle response
response.queued lifecycle response
response.in_progress lifecycle response
response.completed lifecycle response
response.incomplete lifecycle response
response.failed error response
error error code message param
response.output_item.added item item output_index
response.output_item.done item item output_index
response.content_part.added item content_index item_id output_index part
response.content_part.done item content_index item_id output_index part
response.output_text.delta text content_index delta item_id logprobs output_index
response.output_text.done text content_index item_id logprobs output_index text
response.output_text.annotation.added text annotation annotation_index content_index item_id output_index
response.refusal.delta refusal content_index delta item_id output_index
response.refusal.done refusal content_index item_id output_index refusal
response.reasoning_text.delta reasoning content_index delta item_id output_index
response.reasoning_text.done reasoning content_index item_id output_index text
response.reasoning_summary_part.added reasoning item_id output_index part summary_index
response.reasoning_summary_part.done reasoning item_id output_index part summary_index status
response.reasoning_summary_text.delta reasoning delta item_id output_index summary_index
response.reasoning_summary_text.done reasoning item_id output_index summary_index text
response.function_call_arguments.delta tool delta item_id output_index
response.function_call_arguments.done tool arguments item_id output_index
response.custom_tool_call_input.delta tool delta item_id output_index
response.custom_tool_call_input.done tool input item_id output_index
response.web_search_call.in_progress tool item_id output_index
response.web_search_call.searching tool item_id output_index
response.web_search_call.completed tool item_id output_index
response.file_search_call.in_progress tool item_id output_index
response.file_search_call.searching tool item_id output_index
response.file_search_call.completed tool item_id output_index
response.code_interpreter_call.in_progress tool item_id output_index
response.code_interpreter_call_code.delta tool delta item_id output_index
response.code_interpreter_call_code.done tool code item_id output_index
response.code_interpreter_call.interpreting tool item_id output_index
response.code_interpreter_call.completed tool item_id output_index
response.image_generation_call.in_progress tool item_id output_index
response.image_generation_call.generating tool item_id output_index
response.image_generation_call.partial_image tool item_id output_index partial_image_b64 partial_image_index \
 background output_format quality size
response.image_generation_call.completed tool item_id output_index
response.mcp_list_tools.in_progress tool item_id output_index
response.mcp_list_tools.completed tool item_id output_index
response.mcp_list_tools.failed tool item_id output_index
response.mcp_call.in_progress tool item_id output_index
response.mcp_call_arguments.delta tool delta item_id output_index
response.mcp_call_arguments.done tool arguments item_id output_index
response.mcp_call.completed tool item_id output_index
response.mcp_call.failed tool item_id output_index
response.shell_call_command.added tool command command_index output_index
response.shell_call_command.delta tool command_index delta output_index obfuscation
response.shell_call_command.done tool command command_index output_index
response.shell_call_output_content.delta tool command_index delta item_id output_index
response.shell_call_output_content.done tool command_index item_id output output_index
response.audio.delta audio delta
response.audio.done audio
response.audio.transcript.delta audio delta
response.audio.transcript.done audio
response.compaction.compacting item item_id output_index
"""
ROWS = [line.split() for line in CATALOGUE.split("\n") if line]

SEED_PAGE = """
response.created=response.created response.in_progress=response.in_progress
response.output_item_added=response.output_item.added response.content_part_added=response.content_part.added
response.text_delta=response.output_text.delta response.text_done=response.output_text.done
response.output_item_done=response.output_item.done response.completed=response.completed
response.failed=response.failed response.error=error response.incomplete=response.incomplete
response.function_call_arguments_delta=response.function_call_arguments.delta
response.function_call_arguments_done=response.function_call_arguments.done
response.web_search_call_searching=response.web_search_call.searching
response.web_search_call_completed=response.web_search_call.completed
response.file_search_call_searching=response.file_search_call.searching
response.file_search_call_completed=response.file_search_call.completed
response.code_interpreter_call_interpreting=response.code_interpreter_call.interpreting
response.code_interpreter_call_code_delta=response.code_interpreter_call_code.delta
response.code_interpreter_call_code_done=response.code_interpreter_call_code.done
response.code_interpreter_call_completed=response.code_interpreter_call.completed
response.reasoning_text_delta=response.reasoning_text.delta
response.reasoning_text_done=response.reasoning_text.done
response.reasoning_summary_part_added=response.reasoning_summary_part.added
response.reasoning_summary_text_delta=response.reasoning_summary_text.delta
response.reasoning_summary_text_done=response.reasoning_summary_text.done
response.reasoning_summary_part_done=response.reasoning_summary_part.done
response.code_interpreter_call.code.delta=response.code_interpreter_call_code.delta
response.image_gen_call.partial_image=response.image_generation_call.partial_image
"""
SPELLINGS = [pair.split("=") for pair in SEED_PAGE.split()]
OWN = [
    "eventflow.handler_failed",
    "eventflow.tool_call",
    "eventflow.tool_output",
    "eventflow.tool_progress",
    "eventflow.turn_started",
]


def class_name(wire_name: str) -> str:
    """Follow the rule that names are made by."""
    if wire_name == "error":
        return "StreamError"
    words = wire_name.removeprefix("response.").replace("output_text", "text").replace(".", "_").split("_")
    lifecycle = wire_name.count(".") == 1
    return "Response" * lifecycle + "".join(word.capitalize() for word in words)


# --- the vocabulary --------------------------------------------------------------------------------------------------


def test_vocabulary_when_counted() -> None:
    """It has the 59 events of the catalogue and eventflow's own five, and no other."""
    names = sorted(cls.type for cls in WIRE_EVENTS)
    assert len(ROWS) == 59
    assert names == sorted([*(row[0] for row in ROWS), *OWN])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_class_when_compared_with_the_catalogue(row: list[str]) -> None:
    """Every event has exactly the documented fields, its family, and the name that the rule gives it."""
    name, family, *fields = row
    cls = event_classes()[name]
    assert cls.__name__ == class_name(name)
    assert getattr(ef, cls.__name__) is cls
    assert cls.__name__ in ef.__all__
    assert cls.type == name
    assert cls.family == family
    own = set(cls.__struct_fields__) - {"sequence_number", "extra"}
    if name == "error":
        own -= {"error_type", "status"}  # of the shapes that the documented one is not
    assert own == set(fields)
    assert cls.__doc__


@pytest.mark.parametrize("name", OWN)
def test_class_when_it_is_eventflows_own(name: str) -> None:
    """They are named after their wire name too."""
    words = name.removeprefix("eventflow.").split("_")
    assert event_classes()[name].__name__ == "".join(word.capitalize() for word in words)


def test_public_names_when_listed() -> None:
    """Every public name of the package exists and has a docstring of its own, types of JSON aside."""
    for name in ef.__all__:
        value = getattr(ef, name)
        if isinstance(value, type):
            assert value.__dict__.get("__doc__"), name
    assert len(set(ef.__all__)) == len(ef.__all__)


@pytest.mark.parametrize("cls", WIRE_EVENTS, ids=lambda cls: cls.type)
def test_family_when_a_class_is_asked(cls: type[Event]) -> None:
    """The base class of its family answers to every event of it, and to no other but the failed response."""
    bases = {
        "text": ef.TextEvent,
        "refusal": ef.RefusalEvent,
        "reasoning": ef.ReasoningEvent,
        "tool": ef.ToolEvent,
        "item": ef.ItemEvent,
        "lifecycle": ef.LifecycleEvent,
        "error": ef.ErrorEvent,
        "audio": ef.AudioEvent,
    }
    answering = {family for family, base in bases.items() if issubclass(cls, base)}
    if cls is ef.TurnStarted:  # which tells of a loop, and of no stream
        assert (cls.family, answering) == ("custom", set())
        return
    assert answering == ({"error", "lifecycle"} if cls is ef.ResponseFailed else {cls.family})
    assert bases[cls.family].__struct_fields__ == ("sequence_number", "extra")


@given(st.sampled_from(WIRE_EVENTS))
def test_fields_when_servers_leave_them_out(cls: type[Any]) -> None:
    """What places an event in the stream or in the response may be missing."""
    places = {"sequence_number", "output_index", "content_index", "summary_index", "item_id", "annotation_index"}
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    assert all(fields[name].default is None for name in places & set(fields))


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS)
def test_resolve_when_the_name_is_of_the_sdk_page(spelling: str, name: str) -> None:
    """Names of the SDK's page and modules, with dots or underscores, mean the true wire name."""
    cls = event_classes()[name]
    assert resolve(spelling) is cls
    assert resolve(spelling.replace(".", "_")) is cls


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_resolve_when_dots_are_underscores(row: list[str]) -> None:
    """Every wire name is found with underscores for dots."""
    assert resolve(row[0].replace(".", "_")) is resolve(row[0]) is event_classes()[row[0]]


@given(st.text(max_size=30))
def test_resolve_when_nobody_knows_the_name(name: str) -> None:
    """Any text may be asked for."""
    cls = resolve(name)
    assert cls is None or resolve(cls.type) is cls is resolve(name.replace(".", "_"))


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("response.output_text.detla", "response.output_text.delta"),
        ("output_text.delta", "response.output_text.delta"),
        ("response.text_dleta", "response.output_text.delta"),
        ("response.function_call_argument.delta", "response.function_call_arguments.delta"),
        ("Response.Completed", "response.completed"),
        ("TextDelta", "response.output_text.delta"),
        ("ResponseFailed", "response.failed"),
        ("toool", "tool"),
        ("zzz", None),
    ],
)
def test_nearest_when_a_name_is_misspelt(misspelt: str, meant: str | None) -> None:
    """The nearest spelling is a name that would have worked."""
    assert nearest(misspelt, ("tool", "text")) == meant


# --- records ---------------------------------------------------------------------------------------------------------

any_event = st.sampled_from(WIRE_EVENTS).flatmap(events_of)


@given(any_event)
def test_record_when_pickled_or_copied(event: Event) -> None:
    """A copy is equal, and of the same class."""
    for twin in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):
        assert type(twin) is type(event)
        assert twin == event


@given(events_of(Response))
def test_response_when_pickled(response: Response) -> None:
    """A copy of a response is equal, untyped items included."""
    assert pickle.loads(pickle.dumps(response)) == response


def test_unknown_when_pickled() -> None:
    """What nobody knows survives too."""
    event = UnknownEvent("vendor.thing", {"type": "vendor.thing", "n": [1]}, sequence_number=4)
    assert pickle.loads(pickle.dumps(event)) == event
    item = Untyped({"type": "vendor", "n": 1})
    assert pickle.loads(pickle.dumps(item)) == item


def test_repr_when_fields_are_at_their_default() -> None:
    """The repr shows the fields that say something."""
    assert repr(TextDelta("Hi", output_index=0)) == "TextDelta(delta='Hi', output_index=0)"
    assert repr(UnknownEvent("a.b", {"n": 1})) == "UnknownEvent(type='a.b', data={'n': 1})"
    assert repr(Untyped({"type": "x"})) == "Untyped({'type': 'x'})"


def test_match_when_an_event_is_taken_apart() -> None:
    """Events match by class, position and keyword."""
    match ToolCall("function", "f", "{}", "call_1"):
        case ToolCall(kind, "f", arguments, call_id=call_id):
            assert (kind, arguments, call_id) == ("function", "{}", "call_1")
        case _:
            pytest.fail("no match")


def test_replace_when_fields_exist() -> None:
    """The copy has the change, the original has not."""
    event = TextDelta("a", output_index=3)
    assert event.replace(delta="b") == TextDelta("b", output_index=3)
    assert event.delta == "a"


def test_replace_when_a_field_does_not_exist() -> None:
    """The error names the fields that do."""
    with pytest.raises(UsageError, match=r"TextDelta\.replace: .*'text'.*its fields are delta, item_id"):
        TextDelta("a").replace(text="b")


def test_event_when_changed_in_place() -> None:
    """Events are frozen."""
    with pytest.raises(AttributeError):
        TextDelta("a").delta = "b"  # type: ignore[misc]


def test_event_when_compared() -> None:
    """Equal fields make equal events of one class, which can be members of a set."""
    assert TextDelta("a") == TextDelta("a") != TextDelta("b")
    assert len({TextDelta("a"), TextDelta("a"), TextDone("a")}) == 2


def test_untyped_when_read() -> None:
    """An untyped item is a mapping with the three fields that all items have."""
    item = Untyped({"type": "computer_call", "id": "cu_1", "status": "completed", "action": {"type": "click"}})
    assert (item.type, item.id, item.status) == ("computer_call", "cu_1", "completed")
    assert item["action"] == {"type": "click"}
    assert list(item) == ["type", "id", "status", "action"]
    assert len(item) == 4
    assert item == {**item}
    odd = Untyped({"type": None, "id": 5, "status": []})
    assert (odd.type, odd.id, odd.status) == ("", None, None)


def test_collector_when_an_event_can_be_part_of_a_cycle() -> None:
    """Events that hold foreign objects are seen by the garbage collector; those from JSON need not be."""
    assert gc.is_tracked(HandlerFailed(ValueError()))
    assert gc.is_tracked(ToolProgress("call_1", []))
    assert not gc.is_tracked(TextDelta("a"))


# --- JSON out --------------------------------------------------------------------------------------------------------


def test_to_json_when_fields_are_at_their_default() -> None:
    """They are left out, the type is not."""
    assert TextDelta("é").to_json() == '{"type":"response.output_text.delta","delta":"é"}'.encode()
    assert TextDelta("é").to_dict() == {"type": "response.output_text.delta", "delta": "é"}


def test_to_json_when_an_event_is_unknown() -> None:
    """It is written as it came."""
    data = {"type": "vendor.thing", "n": [1, {"m": None}]}
    event = UnknownEvent("vendor.thing", data, sequence_number=1)
    assert json.loads(event.to_json()) == event.to_dict() == data
    assert event.to_dict() is not data


def test_to_json_when_an_item_is_untyped() -> None:
    """It is written as it came."""
    event = ef.OutputItemAdded(Untyped({"type": "vendor", "id": "x"}))
    assert event.to_dict()["item"] == {"type": "vendor", "id": "x"}
    assert json.loads(event.to_json()) == event.to_dict()


def test_to_json_when_an_event_holds_foreign_objects() -> None:
    """Exceptions are named, and whatever is no JSON is shown."""
    failure = HandlerFailed(ValueError("no"), "handler", TextDelta("a"))
    assert json.loads(failure.to_json()) == {
        "type": "eventflow.handler_failed",
        "error": {"type": "ValueError", "message": "no"},
        "handler": "handler",
        "event": {"type": "response.output_text.delta", "delta": "a"},
    }
    progress = ToolProgress("call_1", {1: complex(1, 2), "\ud800": ({1},)})
    assert json.loads(progress.to_json())["progress"] == {"1": "(1+2j)", "\ud800": [[1]]}


@given(st.text(st.characters(categories=["Cs", "Lu"]), max_size=5), json_values())
def test_encode_json_when_there_are_lone_surrogates(text: str, value: Any) -> None:
    """They are escaped, and nothing else changes; NaN and infinities are null with and without them."""
    plain = {"text": text, "value": value, "odd": [math.nan, (math.inf,), {"n": -math.inf}]}
    paired = json.loads(json.dumps(text))  # a high and a low surrogate in a row are one character in JSON
    assert json.loads(encode_json(plain)) == {"text": paired, "value": value, "odd": [None, [None], {"n": None}]}
    assert b"\n" not in encode_json(plain)


# --- users' own events -----------------------------------------------------------------------------------------------


class Tick(Event, tag="tests_events.tick"):
    n: int
    note: str = ""


def test_own_event_when_defined() -> None:
    """It is an event of the family custom, known by its tag."""
    assert (Tick(1).type, Tick(1).family) == ("tests_events.tick", "custom")
    assert resolve("tests_events_tick") is Tick
    assert pickle.loads(pickle.dumps(Tick(1, "x"))) == Tick(1, "x")
    assert decode(Tick(1, "x").to_json()) == Tick(1, "x")


def test_own_event_when_its_name_differs_in_dots_alone() -> None:
    """Each of two such names is found as written, and the first by any other spelling."""

    class Late(Event, tag="tests.events_tick"):
        pass

    assert resolve("tests.events_tick") is Late
    assert resolve("tests_events.tick") is Tick
    assert resolve("tests.events.tick") is Tick


def test_own_event_when_it_extends_one_of_ours() -> None:
    """It is of that one's family, and has its fields."""

    class Loud(TextDelta, tag="tests_events.loud"):
        volume: int = 11

    assert (Loud("a").family, Loud("a").type, Loud("a").volume) == ("text", "tests_events.loud", 11)


def test_own_event_when_it_has_no_tag() -> None:
    """The definition fails, and says what to write."""
    with pytest.raises(UsageError, match=r'Tock has no tag; write class Tock\(Event, tag="yourapp\.tock"\)'):

        class Tock(Event):
            pass


def test_own_event_when_its_base_class_has_no_tag() -> None:
    """A base class for several events says its family instead of a tag."""

    class Base(Event, family="custom"):
        n: int = 0

    class Child(Base, tag="tests_events.child"):
        pass

    assert (Child(n=2).n, Child.family) == (2, "custom")


@pytest.mark.parametrize("tag", ["", "a b", "a.*", 5, True])
def test_own_event_when_its_tag_is_no_name(tag: Any) -> None:
    """The definition fails."""
    with pytest.raises(UsageError, match="the tag must be a name like"):

        class Tock(Event, tag=tag):
            pass


@pytest.mark.parametrize("tag", ["tests_events.tick", "response.output_text.delta", "error"])
def test_own_event_when_its_tag_is_taken(tag: str) -> None:
    """The definition fails, and names the owner."""
    with pytest.raises(UsageError, match=r"belongs to \S+\.(Tick|TextDelta|StreamError)"):

        class Tock(Event, tag=tag):
            pass


def test_own_event_when_its_tag_is_reserved() -> None:
    """The names of eventflow's own events cannot be taken, nor those it may have one day."""
    with pytest.raises(UsageError, match="begins eventflow's own"):

        class Tock(Event, tag="eventflow.tock"):
            pass


def test_own_event_when_its_family_is_misspelt() -> None:
    """The definition fails, and names the families."""
    with pytest.raises(UsageError, match="no family is called 'tol'; there is text, refusal"):

        class Tock(Event, tag="tests_events.tock", family="tol"):
            pass


def test_own_event_when_its_module_is_reloaded() -> None:
    """The new class takes the place of the one with the same name."""

    def define() -> type[Event]:
        class Again(Event, tag="tests_events.again"):
            pass

        return Again

    first, second = define(), define()
    assert resolve("tests_events.again") is resolve("tests_events_again") is second is not first


def test_own_event_when_its_class_is_gone() -> None:
    """Its tag is free again, even if it has been decoded."""

    def one() -> None:
        class One(Event, tag="tests_events.short"):
            pass

        assert type(decode(b'{"type":"tests_events.short"}')) is One
        assert type(decode(b'{"type":"tests_events.short"}', "tests_events.short")) is One

    def two() -> str:
        class Two(Event, tag="tests_events.short"):
            pass

        return type(decode(b'{"type":"tests_events.short"}')).__name__

    one()
    assert two() == "Two"


# --- responses -------------------------------------------------------------------------------------------------------

RESPONSE = Response(
    output=(
        Reasoning((SummaryText("in"), SummaryText("short")), (ReasoningText("at"), ReasoningText("length"))),
        Message((OutputText("Hel"), ef.OutputRefusal("I "), Untyped({"type": "image"}), OutputText("lo"))),
        FunctionCall("f", "{}", "call_1"),
        Untyped({"type": "computer_call"}),
        ef.CustomToolCall("g", "free text", "call_2"),
        Reasoning((SummaryText("sum"), SummaryText(""))),
        Reasoning(),
        ef.McpCall("h", "[]", "mcp_1"),
        Message((ef.OutputRefusal("won't"), OutputText("!"))),
    )
)


def test_response_when_its_words_are_read() -> None:
    """Text and refusals are those of all messages; reasoning is the text, or the summary where there is none."""
    assert RESPONSE.output_text == "Hello!"
    assert RESPONSE.refusal == "I won't"
    assert RESPONSE.reasoning_text == "at\n\nlength\n\nsum"
    assert RESPONSE.reasoning_summary == "in\n\nshort\n\nsum"
    assert Response().output_text == Response().refusal == Response().reasoning_text == ""


def test_response_when_its_calls_are_read() -> None:
    """Calls of all three kinds have the same three names."""
    calls = [(call.name, call.arguments, call.call_id) for call in RESPONSE.tool_calls]
    assert calls == [("f", "{}", "call_1"), ("g", "free text", "call_2"), ("h", "[]", "mcp_1")]
    assert Response().tool_calls == ()


# --- errors in every shape -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"type": "error", "message": "slow down", "code": "rate_limit", "param": None}, ("slow down", "rate_limit")),
        ({"type": "error", "error": {"type": "requests", "code": "c", "message": "m"}}, ("m", "c", None, "requests")),
        ({"error": {"message": "m", "param": "input"}}, ("m", None, "input")),
        ({"error": {}}, ("",)),
        ({"error": None, "message": "m"}, ("m",)),
        ({"error": "out of memory"}, ("out of memory",)),
        ({"error": "too_many", "message": "m", "code": 429}, ("m", "429")),
        ({"error": {"message": "m", "code": 429}}, ("m", "429")),
        ({"error": {"message": None, "detail": ["x"], "code": True}}, ('["x"]', "true")),
        ({"type": "overloaded_error", "message": "m"}, ("m", None, None, "overloaded_error")),
        ({"type": "error", "status": 400, "error": {"type": "t", "message": "m"}}, ("m", None, None, "t", 400)),
        ({"type": "error", "error": {"message": "m", "status": 503}}, ("m", None, None, None, 503)),
        ({"error": {"message": "m", "status": "UNAVAILABLE"}}, ("m",)),
        ({"status": True, "error": {"message": "m"}}, ("m",)),
        ("out of memory", ("out of memory",)),
        (["a", 1], ('["a",1]',)),
        (None, ("",)),
        ({}, ("",)),
    ],
)
def test_stream_error_when_it_comes_in_any_shape(data: Any, expected: tuple[Any, ...]) -> None:
    """Message, code, param, type and status are found wherever they are."""
    assert StreamError.from_wire(data, 7) == StreamError(*expected, sequence_number=7)


@given(json_values(12))
def test_stream_error_when_it_is_any_json(data: Any) -> None:
    """No shape is refused."""
    error = StreamError.from_wire(data)
    assert isinstance(error.message, str)
    assert isinstance(error.status, int | None)


def test_tool_output_when_made_in_short() -> None:
    """The common case needs two arguments."""
    assert ToolOutput("call_1", "4").outcome == "ok"
