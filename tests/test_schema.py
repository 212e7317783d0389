"""Structured output: the schema that a request asks for, and text made into the type."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import Response, collect
from eventflow.errors import DecodeError, UsageError
from eventflow.schema import ParsedResponse, parsing, text_format_of

T = TypeVar("T")


@dataclasses.dataclass
class Data:
    city: str
    degrees: int = 0


@attrs.define
class Attrs:
    city: str
    degrees: int = 0


class Struct(msgspec.Struct):
    city: str
    degrees: int = 0


class Typed(TypedDict, total=False):
    city: str
    degrees: int


def pydantic_model() -> Any:
    """The same as a pydantic model, where that is installed."""
    pydantic = pytest.importorskip("pydantic")
    return pydantic.create_model("Model", city=(str, ...), degrees=(int, 0))


KINDS: dict[str, Callable[[], Any]] = {
    "dataclass": lambda: Data,
    "attrs": lambda: Attrs,
    "struct": lambda: Struct,
    "TypedDict": lambda: Typed,
    "pydantic": pydantic_model,
}


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


@dataclasses.dataclass
class Home:
    pet: Cat | Dog
    other: Cat | None = None


class Tree(msgspec.Struct):
    name: str
    children: list[Tree]


class Described(msgspec.Struct):
    children: list[Annotated[Described, msgspec.Meta(description="a child")]]


class Box(msgspec.Struct, Generic[T]):
    value: T


@dataclasses.dataclass
class Reserved:
    """Fields with the names of the schema's own words."""

    default: int
    discriminator: str
    properties: Data
    oneOf: list[Data]  # noqa: N815
    type: str = "object"


class Empty(msgspec.Struct):
    pass


@dataclasses.dataclass
class Free:
    labels: dict[str, int]


@dataclasses.dataclass
class FreeWithin:
    inner: list[Free | None]


def text(content: str) -> Response:
    """A response with this text."""
    part = {"type": "output_text", "text": content}
    message = {"type": "message", "id": "msg_1", "content": [part] if content else []}
    return collect(
        [{"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": [message]}}]
    )


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema in a schema; what is named by a user is no word of it."""
    if isinstance(schema, list):
        for part in schema:
            yield from nodes(part)
    if isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            if key in ("properties", "$defs"):
                for field in value.values():
                    yield from nodes(field)
            elif key not in ("enum", "const", "required", "title", "description", "examples"):
                yield from nodes(value)


def check_strict(form: dict[str, Any]) -> None:
    """Hold *form* against what the API's strict mode asks for."""
    schema = form["schema"]
    definitions = schema.get("$defs", {})
    used = set()
    assert (form["type"], form["strict"], schema["type"]) == ("json_schema", True, "object")
    for node in nodes(schema):
        assert not {"default", "oneOf", "discriminator"} & set(node)
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
        if "$ref" in node:
            assert set(node) == {"$ref"}
            used.add(node["$ref"])
    assert used == {f"#/$defs/{name}" for name in definitions}
    json.dumps(schema)


# --- the schema ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_format_when_the_kind_is(kind: str) -> None:
    """Dataclass, attrs class, struct, TypedDict and pydantic model make the same schema, but for titles."""
    form = text_format_of(KINDS[kind]())
    check_strict(form)
    fields = {name: field["type"] for name, field in form["schema"]["properties"].items()}
    assert fields == {"city": "string", "degrees": "integer"}
    assert form["name"] == KINDS[kind]().__name__
    assert "$defs" not in form["schema"]


def test_format_when_it_has_unions() -> None:
    """A choice between objects is ``anyOf``, its discriminator left out; each object is defined once."""
    form = text_format_of(Home)
    check_strict(form)
    assert form["schema"]["properties"] == {
        "pet": {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]},
        "other": {"anyOf": [{"$ref": "#/$defs/Cat"}, {"type": "null"}]},
    }
    assert set(form["schema"]["$defs"]) == {"Cat", "Dog"}


def test_format_when_the_kind_contains_itself() -> None:
    """A tree refers to its definition, which stays; its top has no reference."""
    form = text_format_of(Tree)
    check_strict(form)
    assert form["schema"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert set(form["schema"]["$defs"]) == {"Tree"}


def test_format_when_a_reference_to_itself_has_a_description() -> None:
    """What stands beside a reference must not be followed round and round."""
    check_strict(text_format_of(Described))


def test_format_when_a_pydantic_model_contains_itself() -> None:
    """Pydantic puts the reference at the top, and descriptions beside references."""
    pydantic = pytest.importorskip("pydantic")

    class Node(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        label: str = pydantic.Field("x", description="what it says")
        child: Node | None = pydantic.Field(None, description="the next one")

    Node.model_rebuild(_types_namespace={"Node": Node})
    form = text_format_of(Node)
    check_strict(form)
    assert form["schema"]["properties"]["child"]["description"] == "the next one"


def test_format_when_a_pydantic_reference_has_more_beside_it() -> None:
    """A reference must stand alone: where a field says more, what it refers to is put in its place."""
    pydantic = pytest.importorskip("pydantic")

    class Inner(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        value: int = 1

    class Outer(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        inner: Inner = pydantic.Field(Inner(), description="the one")

    Outer.model_rebuild(_types_namespace={"Inner": Inner})
    form = text_format_of(Outer)
    check_strict(form)
    inner = form["schema"]["properties"]["inner"]
    assert (inner["description"], list(inner["properties"])) == ("the one", ["value"])
    assert "$defs" not in form["schema"]


def test_format_when_a_pydantic_union_has_a_discriminator() -> None:
    """Pydantic says ``oneOf`` and ``discriminator``, which the strict mode does not know."""
    pydantic = pytest.importorskip("pydantic")
    a = pydantic.create_model("A", kind=(Literal["a"], ...))
    b = pydantic.create_model("B", kind=(Literal["b"], ...))
    union = Annotated[a | b, pydantic.Field(discriminator="kind")]
    form = text_format_of(pydantic.create_model("C", item=(union, ...)))
    check_strict(form)
    assert form["schema"]["properties"]["item"]["anyOf"] == [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]


def test_format_when_fields_are_called_like_words_of_schemas() -> None:
    """A field may be called as it likes."""
    form = text_format_of(Reserved)
    check_strict(form)
    assert form["schema"]["required"] == ["default", "discriminator", "properties", "oneOf", "type"]


def test_format_when_there_are_no_fields() -> None:
    """An object without fields is closed as well."""
    form = text_format_of(Empty)
    check_strict(form)
    assert form["schema"]["properties"] == {}


@pytest.mark.parametrize("kind", [Free, FreeWithin, dict[str, int], dict])
def test_format_when_keys_are_free(kind: Any) -> None:
    """Strict that cannot be: the schema is sent as it is, as a wish."""
    form = text_format_of(kind)
    whole = msgspec.json.schema(kind)
    assert form["strict"] is False
    assert sorted(map(str, filter(_is_free, nodes(form["schema"])))) == sorted(map(str, filter(_is_free, nodes(whole))))
    assert all("required" not in node or node["required"] for node in nodes(form["schema"]))


def _is_free(node: dict[str, Any]) -> bool:
    return node.get("type") == "object" and "properties" not in node


@pytest.mark.parametrize("kind", [int, str, list[Data], Data | None, Cat | Dog])
def test_format_when_it_is_no_object(kind: Any) -> None:
    """The API gives objects only; the message says what to do."""
    with pytest.raises(UsageError, match=r"is no object in JSON.*put it into a field"):
        text_format_of(kind)


@pytest.mark.parametrize("kind", [object, object(), complex, Callable, "Data", None])
def test_format_when_there_is_no_schema(kind: Any) -> None:
    """A type that nobody can describe is the caller's error."""
    with pytest.raises(UsageError, match="text_format="):
        text_format_of(kind)


def test_format_when_pydantic_has_no_schema() -> None:
    """Pydantic's own error is the cause."""
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", __config__={"arbitrary_types_allowed": True}, thing=(object, ...))
    odd = pydantic.create_model("Odd", thing=(Callable[[], int], ...))
    assert text_format_of(model)["name"] == "Model"
    with pytest.raises(UsageError, match="text_format=Odd has no JSON schema") as caught:
        text_format_of(odd)
    assert type(caught.value.__cause__).__module__.startswith("pydantic")


@pytest.mark.parametrize(
    ("name", "sent"), [("Größe 2", "Gr_e_2"), ("a.b-c_d", "a_b-c_d"), ("x" * 65, "x" * 64), ("!?", "_")]
)
def test_format_when_the_name_is_none_for_the_api(name: str, sent: str) -> None:
    """A name has at most 64 characters, of few kinds."""
    assert text_format_of(msgspec.defstruct(name, [("a", int)]))["name"] == sent


@pytest.mark.parametrize("kind", [Box[int], Annotated[Data, msgspec.Meta(title="x")]])
def test_format_when_the_kind_has_no_plain_name(kind: Any) -> None:
    """Generic and annotated types have a name that can be sent all the same."""
    form = text_format_of(kind)
    check_strict(form)
    assert 0 < len(form["name"]) <= 64


def _fields(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        inner.map(lambda kind: list[kind])
        | inner.map(lambda kind: kind | None)
        | st.lists(inner, max_size=3).map(lambda kinds: _struct(kinds, "struct"))
        | st.lists(inner, min_size=1, max_size=3).map(lambda kinds: _struct(kinds, "dataclass"))
    )


def _struct(kinds: list[Any], form: str) -> Any:
    """A class with fields of *kinds*, each second one with a default."""
    name = f"Made{next(_numbers)}"
    names = [
        ("default", "a", "type", "properties", "b", "c")[place % 6] + str(place // 6 or "")
        for place in range(len(kinds))
    ]
    if form == "struct":
        fields = [(name, kind) for name, kind in zip(names, kinds, strict=True)]
        return msgspec.defstruct(name, fields, kw_only=True)
    return dataclasses.make_dataclass(
        name,
        [
            (name, kind) if place % 2 else (name, kind, dataclasses.field(default=None))
            for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
        ],
        kw_only=True,
    )


_numbers = iter(range(10**9))
CLOSED = st.recursive(st.sampled_from([int, str, bool, float, Literal["a", "b"]]), _fields, max_leaves=6)
OPEN = st.recursive(st.sampled_from([int, dict[str, int], dict[str, Any]]), _fields, max_leaves=6)


@given(st.lists(CLOSED, max_size=4), st.sampled_from(["struct", "dataclass"]))
def test_format_when_it_is_any_closed_kind(kinds: list[Any], form: str) -> None:
    """Every object is closed and needs all its fields, references stand alone and lead somewhere."""
    kind = _struct(kinds, form)
    check_strict(text_format_of(kind))
    assert len(text_format_of(kind)["schema"]["properties"]) == len(kinds)


@given(st.lists(OPEN, max_size=4))
def test_format_when_it_may_have_free_keys(kinds: list[Any]) -> None:
    """Strict is what has no mapping in it, and nothing else."""
    form = text_format_of(_struct(kinds, "struct"))
    schema = msgspec.json.schema(_struct(kinds, "struct"))
    free = any(map(_is_free, nodes(schema)))
    assert form["strict"] is not free
    if not free:
        check_strict(form)


# --- the text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_parsed_when_the_text_is_of_the_kind(kind: str) -> None:
    """An object of the type, made once."""
    cls = KINDS[kind]()
    response = parsing(cls)(text('{"city": "Bergen", "degrees": 7}'))
    assert response.parsed == (cls(city="Bergen", degrees=7))
    assert response.parsed is response.parsed


def test_parsed_when_the_object_is_false() -> None:
    """A text that means nothing much is a text."""
    assert parsing(int)(text("0")).parsed == 0
    assert parsing(dict)(text("{}")).parsed == {}


def test_parsed_when_there_is_no_text() -> None:
    """None: nothing has come, or the model refused."""
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    response = collect(
        [{"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [refusal]}}]
    )
    assert parsing(Data)(response).parsed is None
    assert parsing(Data)(Response()).parsed is None
    assert parsing(Data)(text("")).parsed is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "content", ["Bergen", '{"city": 7}', '{"city": "Bergen", "degrees": "warm"}', '{"city": "Be', "[]"]
)
def test_parsed_when_the_text_is_not_of_the_kind(kind: str, content: str) -> None:
    """The peer's bytes are to blame; the message names the type and shows the text. Asked again it says so again."""
    cls = KINDS[kind]()
    response = parsing(cls)(text(content))
    for _ in range(2):
        with pytest.raises(DecodeError, match=f"the text is no {cls.__name__}: ") as caught:
            _ = response.parsed
    assert content[:5] in caught.value.message
    assert caught.value.__cause__ is not None
    assert (response.output_text, response.id) == (content, "resp_1")


def test_parsed_when_the_text_is_long_or_wild() -> None:
    """What is shown of it is short and harmless."""
    with pytest.raises(DecodeError) as caught:
        _ = parsing(Data)(text("\x1b[2J" + "x" * 5000)).parsed
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 500


def test_parsed_response_when_it_is_compared() -> None:
    """It has the fields of the response, is equal to its like, and is no plain response."""
    plain = text('{"city": "Bergen"}')
    parse = parsing(Data)
    response = parse(plain)
    assert isinstance(response, Response)
    assert response == parse(plain)
    assert response != parse(plain.replace(id="resp_2"))
    assert response.to_dict() == plain.to_dict()
    assert all(getattr(response, name) == getattr(plain, name) for name in Response.__struct_fields__)
    assert repr(response) == repr(plain).replace("Response", "ParsedResponse", 1)
    with pytest.raises(AttributeError):
        response.id = "resp_3"  # type: ignore[misc]


def test_parsed_response_when_nobody_said_of_what() -> None:
    """One without a text has nothing to parse."""
    assert ParsedResponse(id="resp_1").parsed is None


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), lambda one: one.replace(id="resp_2")],
    ids=["copy", "deepcopy", "pickle", "replace"],
)
def test_parsed_response_when_it_is_copied(again: Callable[[Any], Any]) -> None:
    """A copy can do what the original can."""
    response = parsing(Data)(text('{"city": "Bergen"}'))
    assert again(response).parsed == Data("Bergen")


def test_parsed_response_when_it_was_read_is_let_go_of() -> None:
    """It holds what was parsed, which may hold it: the garbage collector sees both."""
    response: Any = parsing(Data)(text('{"city": "Bergen"}'))
    parsed = response.parsed
    parsed.owner = response
    gone = weakref.ref(parsed)
    del response, parsed
    gc.collect()
    assert gone() is None
