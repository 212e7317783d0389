"""What a model is told of a function, and what becomes of what it writes: nothing is repaired, nothing is guessed."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import inspect
import json
import time
import types
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypedDict

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow.errors import ToolError
from eventflow_plugins.tools import Tool, ToolContext, tool
from eventflow_plugins.tools.arguments import InvalidArguments

if TYPE_CHECKING:
    from decimal import Decimal

MOST, DEPTH = 2**20, 64


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Place:
    name: str
    inside: Optional[Place] = None  # noqa: UP045  # a forward reference


@attrs.define
class Range:
    low: int
    high: int = 10


class Point(TypedDict):
    x: float
    y: float


class Circle(msgspec.Struct, tag=True):
    radius: float
    parts: list[Shape] = []


class Square(msgspec.Struct, tag=True):
    side: float
    parts: list[Shape] = []


Shape = Circle | Square


def read(function: Callable[..., Any] | Tool, text: str, **bounds: int) -> dict[str, Any]:
    """The arguments that *text* makes for *function*."""
    tool = function if isinstance(function, Tool) else Tool.of(function)
    return tool.arguments(text, **{"most": MOST, "depth": DEPTH, **bounds})


def refused(function: Callable[..., Any] | Tool, text: str, **bounds: int) -> str:
    """Why *text* makes no arguments for *function*."""
    with pytest.raises(InvalidArguments) as caught:
        read(function, text, **bounds)
    return str(caught.value)


# --- any signature ---------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
places = st.recursive(st.builds(Place, words), lambda inner: st.builds(Place, words, st.none() | inner), max_leaves=3)
Typed = tuple[Any, "st.SearchStrategy[Any]"]
simple: list[Typed] = [
    (str, words),
    (int, st.integers(-(2**200), 2**200)),
    (float, finite),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=8)),
    (datetime, st.datetimes()),
    (Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
    (Unit, st.sampled_from(Unit)),
    (Level, st.sampled_from(Level)),
    (Place, places),
    (Range, st.builds(Range, st.integers(), st.integers())),
    (Point, st.fixed_dictionaries({"x": finite, "y": finite})),
    (Shape, st.builds(Circle, finite) | st.builds(Square, finite, st.lists(st.builds(Circle, finite), max_size=2))),
    (Any, st.none() | st.booleans() | st.lists(words)),
]


def around(typed: Typed) -> st.SearchStrategy[Typed]:
    """Types made of another."""
    kind, values = typed
    return st.sampled_from(
        [
            (list[kind], st.lists(values, max_size=2)),
            (dict[str, kind], st.dictionaries(words, values, max_size=2)),
            (dict[int, kind], st.dictionaries(st.integers(-9, 9), values, max_size=2)),
            (tuple[kind, int], st.tuples(values, st.integers())),
            (kind | None, st.none() | values),
            (Annotated[kind, "said of it"], values),
        ]
    )


typed_values = st.recursive(st.sampled_from(simple), lambda inner: inner.flatmap(around), max_leaves=3)


@st.composite
def signatures(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """A function that gives what it is called with, as a dict; and what to call it with."""
    chosen = draw(st.lists(typed_values, max_size=4))
    kinds = sorted(draw(st.lists(st.sampled_from("/,*"), min_size=len(chosen), max_size=len(chosen))), key="/,*".index)
    optional = draw(st.integers(0, len(chosen)))  # those behind have defaults
    scope: dict[str, Any] = {"DEFAULT": object()}
    written: list[str] = []
    arguments: dict[str, Any] = {}
    for place, ((kind, values), where) in enumerate(zip(chosen, kinds, strict=True)):
        scope[f"T{place}"] = kind
        if where == "*" and "*" not in written:
            written.append("*")
        written.append(f"p{place}: T{place}" + (" = DEFAULT" if place >= optional else ""))
        if where == "/" and (place + 1 == len(chosen) or kinds[place + 1] != "/"):
            written.append("/")
        if place < optional or draw(st.booleans()):
            arguments[f"p{place}"] = draw(values)
    exec(f"def made({', '.join(written)}): return dict(locals())", scope)
    expected = {f"p{place}": arguments.get(f"p{place}", scope["DEFAULT"]) for place in range(len(chosen))}
    return scope["made"], {"given": arguments, "expected": expected}


def encoded(arguments: dict[str, Any]) -> str:
    """Arguments as a model writes them."""
    return json.dumps(msgspec.to_builtins(arguments, str_keys=True), ensure_ascii=False)


@given(signatures())
def test_arguments_when_written_as_the_schema_says(case: tuple[Any, dict[str, Any]]) -> None:
    """Whatever the signature, values written as JSON come back equal, and defaults stand in for what is left out."""
    function, values = case
    made = Tool.of(function)
    arguments = read(made, encoded(values["given"]))
    assert made.call(arguments, context()) == values["expected"]
    schema: Any = made.definition["parameters"]
    assert set(schema["properties"]) == set(values["expected"])
    json.dumps(made.definition, allow_nan=False)


@given(signatures(), st.data())
def test_arguments_when_mutated_are_refused(case: tuple[Any, dict[str, Any]], data: st.DataObject) -> None:
    """Cut anywhere, with a key doubled, added, or dropped though required: refused, and nothing else is raised."""
    function, values = case
    made, text = Tool.of(function), encoded(values["given"])
    refused(made, text[: data.draw(st.integers(0, len(text) - 1))])
    refused(made, text + data.draw(st.sampled_from(["}", "{}", "x", ",", "[]"])))
    refused(made, encoded({**values["given"], "added": 1}))
    refused(made, f"[{text}]")
    schema: Any = made.definition["parameters"]
    for name in values["given"]:
        value = encoded({name: values["given"][name]})[1:-1]
        refused(made, text[:-1] + f", {value}}}")
        if name in schema["required"]:
            refused(made, encoded({each: it for each, it in values["given"].items() if each != name}))


@pytest.mark.parametrize(("kind", "values"), simple[:-1], ids=lambda each: str(each))
def test_arguments_when_a_type_is_changed(kind: Any, values: st.SearchStrategy[Any]) -> None:
    """A value of another type of JSON is refused, not converted."""
    scope: dict[str, Any] = {"T": kind}
    exec("def made(value: T): ...", scope)
    for wrong in ({"no": {}}, [{}], None, "\u0663") if kind is not str else ({}, [], None, 1):
        if kind not in (Point,) or wrong != {"no": {}}:
            refused(scope["made"], json.dumps({"value": wrong}))


@given(st.text(st.characters(exclude_categories=()), max_size=30) | st.binary(max_size=30).map(repr))
def test_arguments_when_they_are_anything(text: str) -> None:
    """Whatever a model writes, it is arguments or refused: nothing else is raised."""

    def made(value: Any = None) -> None: ...

    with contextlib.suppress(InvalidArguments):
        assert set(read(made, text)) <= {"value"}


# --- JSON ------------------------------------------------------------------------------------------------------------


def anything(value: Any = None) -> None:
    """Takes whatever JSON has."""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot be read"),
        ("null", "one JSON object"),
        ("[]", "one JSON object"),
        ("{} {}", "cannot be read"),
        ("{'value': 1}", "cannot be read"),
        ('{"value": 1,}', "cannot be read"),
        ('{"value": NaN}', "NaN"),
        ('{"value": -Infinity}', "Infinity"),
        ('{"value": 1e999}', "too large"),
        ('{"value": ' + "1" * 10_000 + "}", "cannot be read"),
        ('{"value": "\\ud800"}', "surrogate"),
        ('{"value": {"\\udfff": 1}}', "surrogate"),
        ('{"value": "\ud800"}', "surrogate"),
        ('{"value": {"a": 1, "b": 2, "a": 3}}', "'a' twice"),
        ('{"value": ' + "[" * 64 + "]" * 64 + "}", "deeper than 64"),
        ('{"value": ' + "[" * 200_000, "cannot be read"),
        ('{"value": "' + "x" * MOST + '"}', "characters"),
    ],
    ids=lambda text: text[:20],
)
def test_arguments_when_json_is_odd(text: str, why: str) -> None:
    """What is no JSON object, or one too large, too deep or with a key twice, is refused by its name."""
    assert why in refused(anything, text)


def test_arguments_when_nested_as_deep_as_they_may_be() -> None:
    """The bounds themselves are allowed."""
    text = '{"value": ' + "[" * 63 + "]" * 63 + "}"
    assert read(anything, text)
    assert read(anything, text, most=len(text))
    refused(anything, text, most=len(text) - 1)


def test_arguments_when_made_to_take_long() -> None:
    """Many keys, one of them twice, and a union that refers to itself take linear time."""

    def draw(shape: Shape) -> None: ...

    shape: dict[str, Any] = {"type": "Circle", "radius": 1}
    for _ in range(28):
        shape = {"type": "Circle", "radius": 1, "parts": [shape, {"type": "Square", "side": 1}]}
    deep = json.dumps({"shape": shape})
    wide = "{" + ", ".join(f'"{number}": 1' for number in range(50_000)) + ', "49999": 1}'
    began = time.process_time()
    assert read(draw, deep)
    assert "'49999' twice" in refused(anything, wide)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        (Place, {"name": "a", "x": 1}, "$.value"),
        (Place, {"name": "a", "inside": {"name": "b", "x": 1}}, "$.value.inside"),
        (Optional[Place], {"name": "a", "x": 1}, "$.value"),  # noqa: UP045
        (list[Place], [{"name": "a"}, {"name": "a", "x": 1}], "$.value[...]"),
        (dict[str, Place], {"k": {"name": "a", "x": 1}}, "$.value.k"),
        (tuple[int, Place], [1, {"name": "a", "x": 1}], "$.value[...]"),
        (Point, {"x": 1, "y": 1, "z": 1}, "$.value"),
        (Range, {"low": 1, "x": 1}, "$.value"),
        (Shape, {"type": "Circle", "radius": 1, "side": 1}, "$.value"),
        (Shape, {"type": "Circle", "radius": 1, "parts": [{"type": "Square", "side": 1, "x": 1}]}, "parts[...]"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_arguments_when_a_key_is_added_inside(kind: Any, value: Any, path: str) -> None:
    """A key that the schema does not speak of is refused at any depth, though the types would ignore it."""
    scope: dict[str, Any] = {"T": kind}
    exec("def made(value: T): ...", scope)
    why = refused(scope["made"], json.dumps({"value": value}))
    assert "unknown field" in why
    assert path in why


def test_arguments_when_a_type_refuses_them() -> None:
    """What a user's own type raises is for the model to read, whatever it is."""

    @dataclasses.dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise LookupError("it is odd")

    def made(value: Any) -> None: ...

    made.__annotations__["value"] = Even
    assert read(made, '{"value": {"n": 2}}') == {"value": Even(2)}
    assert refused(made, '{"value": {"n": 1}}') == "LookupError: it is odd"


# --- functions of every kind -----------------------------------------------------------------------------------------


def context(**changes: Any) -> ToolContext:
    """A call's context, with *changes*."""
    return ToolContext(
        **{"call_id": "1", "name": "t", "idempotency_key": "k", "granted": None, "progress": print} | changes
    )


class Robot:
    """Moves things."""

    @tool(dangerous=True)
    def __call__(self, what: str) -> str:
        return what

    async def move(self, by: int, unit: list[Unit]) -> int:
        """Move it."""
        return by

    @tool(name="greet_it")
    @staticmethod
    def greet(name: str) -> str:
        """Greet."""
        return name

    @classmethod
    def make(cls, name: str) -> str:
        """Make one."""
        return name


def logged(function: Any) -> Any:
    """A decorator as everybody writes one."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@tool(dangerous=True, timeout=3)
def remove(path: str, user: int, force: bool = False) -> Decimal:  # the checker's alone: nobody needs to know it
    """Remove a file.

    Args:
        path: Where
            it is.
        user (int): Whose it is.
        force: Whether to ask nobody.

    Returns:
        Nothing to speak of.
    """
    raise NotImplementedError


@logged
@tool(name="later", dangerous=True)
async def wrapped(city: Annotated[str, "Which."]) -> str:
    """Wait.

    :param str city: not this
    """
    return city


@pytest.mark.parametrize(
    ("function", "name", "description", "parameters", "is_async", "dangerous"),
    [
        (remove, "remove", "Remove a file.", ["path", "user", "force"], False, True),
        (functools.partial(remove, "x"), "remove", "Remove a file.", ["user", "force"], False, True),
        (functools.partial(remove, user=7), "remove", "Remove a file.", ["path", "force"], False, True),
        (logged(functools.partial(remove, user=7)), None, "Remove a file.", ["path", "force"], False, True),
        (wrapped, "later", "Wait.", ["city"], True, True),
        (Robot(), "Robot", "Moves things.", ["what"], False, True),
        (Robot().move, "move", "Move it.", ["by", "unit"], True, False),
        (functools.partial(Robot().move, 3), "move", "Move it.", ["unit"], True, False),
        (Robot().greet, "greet_it", "Greet.", ["name"], False, False),
        (Robot.make, "make", "Make one.", ["name"], False, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_tool_when_made_of_any_callable(
    function: Any, name: str | None, description: str, parameters: list[str], is_async: bool, dangerous: bool
) -> None:
    """Functions, methods, partials, objects and wrappers: what was said of the function inside still counts."""
    if name is None:
        function = tool(name="named")(function)
    made = Tool.of(function)
    assert (made.name, made.definition["description"]) == (name or "named", description)
    assert list(made.definition["parameters"]["properties"]) == parameters  # type: ignore[call-overload, index]
    assert (made.is_async, made.dangerous) == (is_async, dangerous)


def test_partial_when_it_binds_by_keyword() -> None:
    """What a program has decided is no business of the model: it is not told of it, and cannot change it."""
    made = Tool.of(functools.partial(remove, user=7))
    assert "unknown field `user`" in refused(made, '{"path": "a", "user": 1}')


def test_positional_parameters_when_one_is_left_out() -> None:
    """A default in the middle stands for itself: what comes behind does not take its place."""

    def made(first: int = 1, second: int = 2, /, third: int = 3) -> tuple[int, ...]:
        return first, second, third

    made_tool = Tool.of(made)
    assert made_tool.call(read(made_tool, '{"second": 5}'), context()) == (1, 5, 3)


def test_schema_when_everything_is_said() -> None:
    """Descriptions come from annotations, else from docstrings; defaults are told where JSON has words for them."""

    def made(  # noqa: D417
        a: Annotated[str, "of the annotation"],
        b: Annotated[int, msgspec.Meta(ge=0, description="of the type")],
        c: Unit = Unit.C,
        d: float = float("nan"),
        e: object = print,  # type: ignore[assignment]
    ) -> None:
        """Say it all.

        More of it.

        Args:
            a: of the docstring
            b: of the docstring
            c: of the docstring
            d:
            e : what is no entry
        """

    made.__annotations__["e"] = Any
    definition = Tool.of(made).definition
    schema: Any = definition["parameters"]
    assert definition["description"] == "Say it all.\n\nMore of it."
    told = {name: (each.get("description"), each.get("default")) for name, each in schema["properties"].items()}
    assert told == {
        "a": ("of the annotation", None),
        "b": ("of the type", None),
        "c": ("of the docstring", "celsius"),
        "d": (None, None),
        "e": (None, None),
    }
    assert definition["strict"] is False
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["a", "b"]


def test_schema_when_strict_has_no_words_beside_a_reference() -> None:
    """Where every parameter is required the schema is strict; a described reference is put in its place."""

    def made(place: Place, unit: Unit) -> None:
        """Go.

        Args:
            place: Where to.
            unit: In what.
        """

    definition = Tool.of(made).definition
    assert definition["strict"] is True
    place: Any = definition["parameters"]["properties"]["place"]  # type: ignore[call-overload, index]
    assert place["description"] == "Where to."
    assert "$ref" not in place


def test_context_when_a_parameter_takes_it() -> None:
    """The model is not told of it; the function gets it, wherever it stands."""

    def made(city: str, told: ToolContext | None = None) -> str:
        return f"{city} {told and told.granted}"

    made_tool = Tool.of(made)
    assert list(made_tool.definition["parameters"]["properties"]) == ["city"]  # type: ignore[call-overload, index]
    assert made_tool.call(read(made_tool, '{"city": "a"}'), context(granted="b")) == "a b"


def test_pydantic_when_parameters_are_models() -> None:
    """Models are schema, validated strictly as JSON, and nothing that they would ignore is let through."""
    pydantic = pytest.importorskip("pydantic")

    class City(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        name: str
        founded: Optional[int] = None  # noqa: UP045

    def made(city: Any, count: int = 1, other: Any = None) -> None: ...

    made.__annotations__.update(city=Annotated[City, "Which."], other=list[City])
    made_tool = Tool.of(made)
    schema: Any = made_tool.definition["parameters"]
    assert schema["properties"]["city"]["description"] == "Which."
    assert "default" not in schema["properties"]["other"]
    assert read(made_tool, '{"city": {"name": "a"}}') == {"city": City(name="a")}
    assert read(made_tool, '{"city": {"name": "a"}, "other": [{"name": "b"}], "count": 2}')["count"] == 2
    assert "city.name" in refused(made_tool, '{"city": {"name": 1}}')
    assert "unknown field `x`" in refused(made_tool, '{"city": {"name": "a", "x": 1}}')
    assert refused(made_tool, '{"city": {"name": "a"}, "count": "2"}')
    assert refused(made_tool, '{"city": {"name": "a"}, "more": 2}')


def test_custom_tool_when_it_takes_free_text() -> None:
    """A custom tool gets what the model writes, as it is, if it is text."""

    @tool(kind="custom", format={"type": "grammar"}, description="Runs it.")
    def script(source: Annotated[str, "code"]) -> str:
        return source

    made = Tool.of(script)
    assert made.definition == {
        "type": "custom",
        "name": "script",
        "description": "Runs it.",
        "format": {"type": "grammar"},
    }
    assert read(made, '{"not": json') == {"source": '{"not": json'}
    assert "surrogate" in refused(made, "\ud800")
    refused(made, "x" * 11, most=10)


# --- what cannot be a tool -------------------------------------------------------------------------------------------


def _no_annotation(city) -> None: ...  # type: ignore[no-untyped-def]
def _unknown_annotation(city: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _failing_annotation(city: 1 / 0) -> None: ...  # type: ignore[valid-type]
def _no_schema(city: str, number: complex) -> None: ...
def _keywords(**more: int) -> None: ...
def _two_contexts(a: ToolContext, b: ToolContext) -> None: ...


@tool(kind="custom")
def _two_texts(a: str, b: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("weather", "is a function"),
        (Place, "is a function"),
        (lambda: None, "name it with @tool"),
        (_no_annotation, "'city' has no annotation"),
        (_unknown_annotation, "'Nowhere' is not defined"),
        (_failing_annotation, "cannot be read"),
        (_no_schema, "parameter 'number'"),
        (_keywords, "name each parameter"),
        (print, "name each parameter"),
        (_two_contexts, "a and b"),
        (_two_texts, "takes one str"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_tool_when_there_is_no_schema(function: Any, why: str) -> None:
    """A function that cannot be told of is an error by name when it is defined, not when it is called."""
    with pytest.raises(ToolError, match=why):
        Tool.of(function)


def test_tool_when_a_parameter_beside_a_model_has_no_schema() -> None:
    """With pydantic too, the parameter that is to blame is named."""
    pydantic = pytest.importorskip("pydantic")

    def made(city: Any, shape: Circle) -> None: ...

    made.__annotations__["city"] = pydantic.create_model("City")
    with pytest.raises(ToolError, match="parameter 'shape'"):
        Tool.of(made)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"name": "a b"}, "cannot be called"),
        ({"name": ""}, "cannot be called"),
        ({"timeout": 0}, "seconds"),
        ({"timeout": float("nan")}, "seconds"),
        ({"timeout": float("inf")}, "seconds"),
        ({"timeout": True}, "seconds"),
        ({"dangerous": "no"}, "dangerous"),
        ({"parallel": 1}, "parallel"),
        ({"kind": "shell"}, "kind"),
        ({"format": {}}, "free text"),
        ({"nome": "x"}, "it takes name"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_decorator_when_settings_are_wrong(settings: dict[str, Any], why: str) -> None:
    """A wrong setting is an error where it is written."""
    with pytest.raises(ToolError, match=why):
        tool(**settings)


@pytest.mark.parametrize("function", [3, len, Robot().move], ids=["number", "builtin", "method"])
def test_decorator_when_it_decorates_no_function(function: Any) -> None:
    """What cannot keep the settings, or would keep them for others too, is refused."""
    with pytest.raises(ToolError, match="@tool"):
        tool(function)


def test_decorator_when_plain_leaves_the_function() -> None:
    """The function stays what it is."""

    def double(n: int) -> int:
        return 2 * n

    assert tool(double) is double
    assert isinstance(double, types.FunctionType)
    assert double(4) == 8
    assert inspect.signature(double).parameters.keys() == {"n"}
