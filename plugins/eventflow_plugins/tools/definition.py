"""What a model is told of a function, and how what it writes becomes the function's arguments."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, cast, overload

import attrs
import msgspec

from eventflow.errors import ToolError
from eventflow.events import JSON
from eventflow.routing import is_async, name_of
from eventflow.schema import schema_of

__all__ = ["InvalidArguments", "Tool", "ToolContext", "tool"]

F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what the providers let a tool be called
_SETTINGS = "__eventflow_tool__"
_SHOWN = 300  # characters of what a validator says


class InvalidArguments(ValueError):
    """What a model wrote is not what a tool takes; the message is for the model."""


@attrs.frozen
class ToolContext:
    """What a tool may know of the call that it is, by a parameter with this annotation; the model is not told of it.

    Attributes:
        call_id: The id of the call.
        name: The name of the tool.
        idempotency_key: The same for the same call of the same response, and for no other: for services that do a
            thing once however often they are asked.
        granted: What `Tools` was given as ``context``: who the user is, what the tool may use.
        progress: Report progress: dispatched as a `ToolProgress`.
    """

    call_id: str
    name: str
    idempotency_key: str
    granted: Any = attrs.field(repr=False)
    progress: Callable[[object], None] = attrs.field(repr=False)


@attrs.frozen
class _Settings:
    """What ``@tool(...)`` says of a function; see `tool`."""

    name: str | None = None
    description: str | None = None
    dangerous: bool = False
    parallel: bool = True
    timeout: float | None = None
    kind: Literal["function", "custom"] = "function"
    format: Mapping[str, JSON] | None = None


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    dangerous: bool = False,
    parallel: bool = True,
    timeout: float | None = None,
    kind: Literal["function", "custom"] = "function",
    format: Mapping[str, JSON] | None = None,
) -> Callable[[F], F]: ...
def tool(function: Any = None, /, **settings: Any) -> Any:  # noqa: D417  # the overloads spell them out
    """Say more of a function that models may call: ``@tool`` or ``@tool(...)``. The function stays what it is.

    Args:
        function: A plain or async function, or a generator, which reports progress.
        name: What the model calls it; by default the function's name.
        description: What the model is told; by default the docstring up to its arguments.
        dangerous: Whether no call may run unless ``Tools(approve=...)`` allows it.
        parallel: Whether it may run beside other calls of its response.
        timeout: Seconds that a call may take; by default those of `Tools`.
        kind: ``custom``: the model writes free text, which is the function's one argument.
        format: Of a custom tool: the grammar that its text must follow, in the words of the API.

    Raises:
        ToolError: The settings are none.
    """
    try:
        said = _Settings(**settings)
    except TypeError as error:
        raise ToolError(f"@tool: {error}; it takes {', '.join(attrs.fields_dict(_Settings))}") from error
    _check_settings(said)

    def decorate(function: F) -> F:
        if not callable(function):
            raise ToolError(f"@tool decorates a function, not {function!r}")
        setattr(function, _SETTINGS, said)
        return function

    return decorate if function is None else decorate(function)


def _check_settings(settings: _Settings) -> None:
    if settings.name is not None and not (isinstance(settings.name, str) and _NAME.fullmatch(settings.name)):
        raise ToolError(f"a tool cannot be called {settings.name!r}: 1 to 64 letters, digits, _ and -")
    seconds: object = settings.timeout
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0):
        raise ToolError(f"@tool(timeout=...) takes seconds, more than 0, not {seconds!r}")
    if settings.kind not in ("function", "custom"):
        raise ToolError(f'@tool(kind=...) is "function" or "custom", not {settings.kind!r}')
    if settings.format is not None and settings.kind != "custom":
        raise ToolError('@tool(format=...) is for free text; add kind="custom"')


@attrs.frozen(eq=False)
class Tool:
    """A function that models may call. Made of a function by `of`.

    Attributes:
        function: What is called.
        name: What the model calls it.
        definition: What the model is told, in the words of the Responses API.
        dangerous: Whether each call needs approval.
        parallel: Whether it may run beside other calls of its response.
        timeout: Seconds that a call may take, or None for those of `Tools`.
        is_async: Whether it must be awaited.
    """

    function: Callable[..., Any]
    name: str
    definition: dict[str, JSON]
    dangerous: bool
    parallel: bool
    timeout: float | None
    is_async: bool
    _decode: Callable[[dict[str, Any]], dict[str, Any]] = attrs.field(alias="decode", repr=False)
    _positional: tuple[str, ...] = attrs.field(alias="positional", default=())
    _context: str | None = attrs.field(alias="context", default=None)  # the parameter that takes the `ToolContext`

    @property
    def kind(self) -> str:
        """``function`` or ``custom``."""
        return str(self.definition["type"])

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """Read a function's signature, docstring and settings.

        Raises:
            ToolError: It has no schema; the message names parameter and reason.
        """
        if not callable(function):
            raise ToolError(f"a tool is a function, not {function!r}")
        settings: _Settings = getattr(function, _SETTINGS, _Settings())
        name = settings.name or name_of(function).rpartition(".")[2]
        if not _NAME.fullmatch(name):
            raise ToolError(f"a tool cannot be called {name!r}: name it with @tool(name=...)")
        parameters = _parameters(function, name)
        context = next((parameter.name for parameter, kind in parameters if kind is ToolContext), None)
        taken = [(parameter, kind) for parameter, kind in parameters if kind is not ToolContext]
        about, explained = _read_docstring(inspect.getdoc(function) or "")
        described: dict[str, JSON] = {"name": name}
        if settings.description or about:
            described["description"] = settings.description or about
        if settings.kind == "custom":
            definition, decode = _custom(name, taken, settings)
        else:
            definition, decode = _function(name, taken, explained)
        return cls(
            function=function,
            name=name,
            definition={"type": settings.kind, **described, **definition},
            dangerous=settings.dangerous,
            parallel=settings.parallel,
            timeout=settings.timeout,
            is_async=is_async(function),
            decode=decode,
            positional=tuple(p.name for p, _ in parameters if p.kind is p.POSITIONAL_ONLY),
            context=context,
        )

    def arguments(self, text: str, *, most: int, depth: int) -> dict[str, Any]:
        """What the model wrote, as the function's arguments by name.

        Args:
            text: One JSON object; of a custom tool, free text.
            most: Characters that it may have.
            depth: How deep it may be nested.

        Raises:
            InvalidArguments: It is not what the function takes. Nothing is repaired.
        """
        if len(text) > most:
            raise InvalidArguments(f"the arguments have {len(text)} characters; at most {most} are taken")
        if self.kind == "custom":
            return self._decode({"": text})
        return self._decode(_read_object(text, depth))

    def call(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Call the function, with what `arguments` gave."""
        given = dict(arguments)
        if self._context is not None:
            given[self._context] = context
        return self.function(*(given.pop(name) for name in self._positional if name in given), **given)


# --- signatures ------------------------------------------------------------------------------------------------------


def _parameters(function: Callable[..., Any], name: str) -> list[tuple[inspect.Parameter, Any]]:
    try:
        signature = inspect.signature(function)
        target = function if inspect.isroutine(function) else type(function).__call__
        hints = typing.get_type_hints(getattr(function, "func", target), include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise ToolError(f"tool {name!r}: its signature cannot be read: {error}") from error
    found: list[tuple[inspect.Parameter, Any]] = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ToolError(f"tool {name!r}: a model cannot be told of {parameter}; name each parameter")
        if parameter.name not in hints:
            raise ToolError(
                f"tool {name!r}: parameter {parameter.name!r} has no annotation, so that there is no schema for it; "
                f"write {parameter.name}: str"
            )
        found.append((parameter, hints[parameter.name]))
    return found


def _custom(
    name: str, taken: list[tuple[inspect.Parameter, Any]], settings: _Settings
) -> tuple[dict[str, JSON], Callable[[dict[str, Any]], dict[str, Any]]]:
    if len(taken) != 1 or taken[0][1] is not str:
        raise ToolError(f"tool {name!r}: a custom tool takes one str, the text that the model writes")
    parameter = taken[0][0].name
    definition: dict[str, JSON] = {} if settings.format is None else {"format": dict(settings.format)}
    return definition, lambda given: {parameter: given[""]}


def _function(
    name: str, taken: list[tuple[inspect.Parameter, Any]], explained: Mapping[str, str]
) -> tuple[dict[str, JSON], Callable[[dict[str, Any]], dict[str, Any]]]:
    optional = {p.name: p.default for p, _ in taken if p.default is not p.empty}
    try:
        kind, decode = (_by_pydantic if any(map(_is_pydantic, (t for _, t in taken))) else _by_msgspec)(name, taken)
        schema, strict = schema_of(kind, strict=not optional)  # strict mode has no words for what may be left out
    except ToolError:
        raise
    except Exception as error:  # TypeError of msgspec; pydantic's own
        raise ToolError(f"tool {name!r}: there is no JSON schema of its signature: {error}") from error
    schema.pop("title", None)
    properties = cast("dict[str, dict[str, JSON]]", schema.setdefault("properties", {}))
    schema["additionalProperties"] = False
    for parameter, value in properties.items():
        if parameter in explained:
            value.setdefault("description", explained[parameter])
        value.pop("title", None)
        if parameter in optional and (default := _as_json(optional[parameter])) is not None:
            value["default"] = default
    return {"parameters": schema, "strict": strict}, decode


def _by_msgspec(
    name: str, taken: list[tuple[inspect.Parameter, Any]]
) -> tuple[Any, Callable[[dict[str, Any]], dict[str, Any]]]:
    fields: list[Any] = [
        (p.name, kind) if p.default is p.empty else (p.name, kind | msgspec.UnsetType, msgspec.UNSET)
        for p, kind in taken
    ]
    struct = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    schema, _ = schema_of(struct, strict=False)
    definitions = cast("dict[str, Any]", schema.get("$defs", {}))

    def decode(given: dict[str, Any]) -> dict[str, Any]:
        unknown = _unknown(given, schema, definitions, "$")
        if unknown is not None:
            raise InvalidArguments(unknown)
        try:
            values = msgspec.convert(given, struct)
        except msgspec.ValidationError as error:
            raise InvalidArguments(str(error)[:_SHOWN]) from error
        read = ((p.name, getattr(values, p.name)) for p, _ in taken)
        return {parameter: value for parameter, value in read if value is not msgspec.UNSET}

    return struct, decode


def _unknown(value: Any, schema: Any, definitions: Mapping[str, Any], path: str) -> str | None:
    """What *value* has that *schema* does not speak of: msgspec ignores it in dataclasses and typed dicts."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for options in (schema.get("anyOf"), schema.get("oneOf")):
        if options:
            faults = [_unknown(value, option, definitions, path) for option in options]
            return None if None in faults else faults[0]
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        elements = cast("Any", value)
        inner = ((element, schema["items"], f"{path}[...]") for element in elements)
    elif isinstance(value, dict) and "properties" in schema:
        mapping, properties = cast("dict[str, Any]", value), schema["properties"]
        for key in mapping:
            if key not in properties:
                return f"Object contains unknown field `{key[:_SHOWN]}` - at `{path}`"
        inner = ((mapping[key], properties[key], f"{path}.{key}") for key in mapping)
    else:
        return None
    return next((fault for each in inner if (fault := _unknown(*each[:2], definitions, each[2])) is not None), None)


def _is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "model_json_schema") or any(map(_is_pydantic, typing.get_args(kind)))


def _by_pydantic(
    name: str, taken: list[tuple[inspect.Parameter, Any]]
) -> tuple[Any, Callable[[dict[str, Any]], dict[str, Any]]]:
    import pydantic

    fields: dict[str, Any] = {p.name: (kind, ... if p.default is p.empty else p.default) for p, kind in taken}
    model = pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)

    def decode(given: dict[str, Any]) -> dict[str, Any]:
        try:  # as JSON, in which a date is a text
            values = model.model_validate_json(json.dumps(given), strict=True)
        except pydantic.ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise InvalidArguments("; ".join(faults)[:_SHOWN]) from error
        return {parameter: getattr(values, parameter) for parameter in values.model_fields_set}

    return model, decode


def _as_json(value: object) -> Any:
    """A default as the schema tells it, None where it cannot."""
    try:
        return msgspec.to_builtins(value, str_keys=True)
    except TypeError:
        return None


# --- JSON ------------------------------------------------------------------------------------------------------------


def _read_object(text: str, depth: int) -> dict[str, Any]:
    """One JSON object, read strictly: no key twice, no NaN, not too deep."""
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except InvalidArguments:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"the arguments are no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArguments("the arguments must be one JSON object")
    read = cast("dict[str, Any]", value)
    level: list[Any] = [read]
    for _ in range(depth):
        level = [inner for each in level for inner in _inside(each)]
    if level:
        raise InvalidArguments(f"the arguments are nested deeper than {depth}")
    return read


def _inside(value: Any) -> list[Any]:
    """The collections right in a collection."""
    elements: Any = cast("dict[str, Any]", value).values() if isinstance(value, dict) else value
    return [element for element in elements if isinstance(element, dict | list)]


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise InvalidArguments(f"the arguments have the key {double[:_SHOWN]!r} twice")
    return read


def _no_constant(name: str) -> Any:
    raise InvalidArguments(f"the arguments have {name}, which is no JSON")


# --- docstrings ------------------------------------------------------------------------------------------------------

_END = re.compile(r"(?m)^(?:(?:Args|Arguments|Returns|Raises|Yields|Examples?|Notes?|Attributes):\s*$|:\w)")
_ARGS = re.compile(r"(?m)^(?:Args|Arguments):[ \t]*\n((?:[ \t]+.*\n?|[ \t]*\n)*)")
_GOOGLE = re.compile(r"(?m)^\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*(?:\n[ \t]+.*)*)")
_SPHINX = re.compile(r"(?m)^:param (?:.*? )?(\w+): *(.*(?:\n[ \t]+.*)*)")


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each parameter, in the style of Google or of Sphinx."""
    end = _END.search(text)
    block = _ARGS.search(text)
    entries = _SPHINX.findall(text) + ([] if block is None else _GOOGLE.findall(inspect.cleandoc("\n" + block[1])))
    return text[: end.start() if end else None].strip(), {name: " ".join(said.split()) for name, said in entries}
