"""What a model is told of a function, and how what it writes becomes the function's arguments."""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, cast, overload

import attrs
import msgspec

from eventflow.errors import ToolError
from eventflow.events import JSON, encode_json
from eventflow.routing import is_async, name_of
from eventflow.schema import schema_of
from eventflow_plugins.tools.arguments import InvalidArguments, check_known, check_text, read_object
from eventflow_plugins.tools.docstring import read_docstring

__all__ = ["Tool", "ToolContext", "is_seconds", "tool"]

F = TypeVar("F", bound=Callable[..., Any])
Reader: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes of what a JSON object holds the arguments of a function; what it raises is the model's fault."""
Parameters: TypeAlias = "list[tuple[inspect.Parameter, Any]]"
"""Parameters with the types that their annotations mean."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what the providers let a tool be called
_SETTINGS = "__eventflow_tool__"
_SHOWN = 300  # characters of what a validator says


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
        bound = isinstance(function, types.MethodType)  # of one object: the settings would be those of all
        target: Any = None if bound else getattr(function, "__func__", function)  # of a staticmethod
        if not callable(target):
            raise ToolError(f"@tool decorates a function where it is defined, not {function!r}")
        try:
            setattr(target, _SETTINGS, said)
        except AttributeError as error:  # a builtin
            raise ToolError(f"@tool cannot decorate {function!r}; decorate a function that calls it") from error
        return function

    return decorate if function is None else decorate(function)


def _check_settings(settings: _Settings) -> None:
    if settings.name is not None and not (isinstance(settings.name, str) and _NAME.fullmatch(settings.name)):
        raise ToolError(f"a tool cannot be called {settings.name!r}: 1 to 64 letters, digits, _ and -")
    if settings.timeout is not None and not is_seconds(settings.timeout):
        raise ToolError(f"@tool(timeout=...) takes seconds, more than 0, not {settings.timeout!r}")
    for name in ("dangerous", "parallel"):
        if type(getattr(settings, name)) is not bool:
            raise ToolError(f"@tool({name}=...) is True or False, not {getattr(settings, name)!r}")
    if settings.kind not in ("function", "custom"):
        raise ToolError(f'@tool(kind=...) is "function" or "custom", not {settings.kind!r}')
    if settings.format is not None and settings.kind != "custom":
        raise ToolError('@tool(format=...) is for free text; add kind="custom"')


def is_seconds(value: object) -> bool:
    """Whether *value* can be waited for: a number, more than 0, and finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


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
        is_async: Whether it must be awaited: it, or what it is a plain wrapper of, is async.
    """

    function: Callable[..., Any]
    name: str
    definition: dict[str, JSON]
    dangerous: bool
    parallel: bool
    timeout: float | None
    is_async: bool
    _decode: Reader = attrs.field(alias="decode", repr=False)
    _positional: tuple[inspect.Parameter, ...] = attrs.field(alias="positional", default=())
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
        if not callable(function) or isinstance(function, type):
            raise ToolError(f"a tool is a function, not {function!r}")
        layers = tuple(_layers(function))
        said = [each for layer in layers if isinstance(each := getattr(layer, _SETTINGS, None), _Settings)]
        settings = said[0] if said else _Settings()
        name = settings.name or name_of(function).rpartition(".")[2]
        if not _NAME.fullmatch(name):
            raise ToolError(f"a tool cannot be called {name!r}: name it with @tool(name=...)")
        parameters = _parameters(function, layers, name)
        contexts = [parameter.name for parameter, kind in parameters if _is_context(kind)]
        if len(contexts) > 1:
            raise ToolError(f"tool {name!r}: one parameter takes the ToolContext, not {' and '.join(contexts)}")
        taken = [(parameter, kind) for parameter, kind in parameters if not _is_context(kind)]
        texts = (inspect.getdoc(layer) for layer in layers if layer.__doc__ != functools.partial.__doc__)
        about, explained = read_docstring(next(filter(None, texts), ""))
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
            dangerous=any(each.dangerous for each in said),  # what is around a function does not make it harmless
            parallel=settings.parallel,
            timeout=settings.timeout,
            is_async=any(map(is_async, layers)),
            decode=decode,
            positional=tuple(p for p, _ in parameters if p.kind is p.POSITIONAL_ONLY),
            context=contexts[0] if contexts else None,
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
            check_text(text)
            return self._decode({"": text})
        given = read_object(text, depth)
        try:
            return self._decode(given)
        except InvalidArguments:
            raise
        except msgspec.ValidationError as error:
            raise InvalidArguments(str(error)[:_SHOWN]) from error
        except Exception as error:  # of the user's own types, which look at what they are made of
            raise InvalidArguments(f"{type(error).__name__}: {error}"[:_SHOWN]) from error

    def call(self, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Call the function, with what `arguments` gave."""
        given = dict(arguments)
        if self._context is not None:
            given[self._context] = context
        return self.function(*[given.pop(each.name, each.default) for each in self._positional], **given)


# --- signatures ------------------------------------------------------------------------------------------------------


def _layers(function: Any) -> Iterator[Any]:
    """What is called, and what that calls in turn, down to the function whose signature counts."""
    while True:
        yield function
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__") and not hasattr(function, "__signature__"):
            function = function.__wrapped__
        elif inspect.isroutine(function):
            return
        else:
            function = type(function).__call__


def _parameters(function: Callable[..., Any], layers: tuple[Any, ...], name: str) -> Parameters:
    try:
        signature = inspect.signature(function)
        annotated = {**getattr(layers[-1], "__annotations__", {})}
        annotated.pop("return", None)  # nobody needs to know it, and it may be known to type checkers alone
        inner: Any = types.SimpleNamespace(__annotations__=annotated)
        hints = typing.get_type_hints(inner, getattr(layers[-1], "__globals__", {}), include_extras=True)
    except Exception as error:  # annotations are code of any kind
        raise ToolError(f"tool {name!r}: its signature cannot be read: {error}") from error
    bound = {each for layer in layers if isinstance(layer, functools.partial) for each in layer.keywords}
    found: Parameters = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ToolError(f"tool {name!r}: a model cannot be told of {parameter}; name each parameter")
        if parameter.name in bound:  # the program has decided: the model must not
            continue
        kind = hints.get(parameter.name, parameter.annotation)
        if kind is parameter.empty:
            raise ToolError(
                f"tool {name!r}: parameter {parameter.name!r} has no annotation, so that there is no schema for it; "
                f"write {parameter.name}: str"
            )
        found.append((parameter, kind))
    return found


def _is_context(kind: Any) -> bool:
    return kind is ToolContext or ToolContext in typing.get_args(kind)


def _custom(name: str, taken: Parameters, settings: _Settings) -> tuple[dict[str, JSON], Reader]:
    if len(taken) != 1 or (taken[0][1] is not str and getattr(taken[0][1], "__origin__", None) is not str):
        raise ToolError(f"tool {name!r}: a custom tool takes one str, the text that the model writes")
    parameter = taken[0][0].name
    definition: dict[str, JSON] = {} if settings.format is None else {"format": dict(settings.format)}
    return definition, lambda given: {parameter: given[""]}


def _function(name: str, taken: Parameters, explained: Mapping[str, str]) -> tuple[dict[str, JSON], Reader]:
    optional = {p.name: p.default for p, _ in taken if p.default is not p.empty}
    build = _by_pydantic if any(_is_pydantic(kind) for _, kind in taken) else _by_msgspec
    try:
        kind, read = build(name, [(p, kind, _description(kind, explained.get(p.name))) for p, kind in taken])
        schema, strict = schema_of(kind, strict=not optional)  # strict mode has no words for what may be left out
        loose, _ = schema_of(kind, strict=False)
    except Exception as error:  # TypeError of msgspec; pydantic's own
        raise ToolError(f"tool {name!r}: {_blame(name, taken, build)}: {_line(error)}") from error
    schema.pop("title", None)
    properties = cast("dict[str, dict[str, JSON]]", schema.setdefault("properties", {}))
    schema["additionalProperties"] = False
    for parameter, value in properties.items():
        value.pop("title", None)
        value.pop("default", None)
        if parameter in optional and (default := _as_json(optional[parameter])) is not None:
            value["default"] = default

    def decode(given: dict[str, Any]) -> dict[str, Any]:
        arguments = read(given)
        check_known(given, loose)
        return arguments

    return {"parameters": schema, "strict": strict}, decode


def _blame(name: str, taken: Parameters, build: Callable[..., tuple[Any, Reader]]) -> str:
    """What has no schema: the first parameter that has none of its own, else the signature."""
    for parameter, kind in taken:
        try:
            schema_of(build(name, [(parameter, kind, None)])[0])
        except Exception:
            return f"there is no JSON schema of parameter {parameter.name!r}"
    return "there is no JSON schema of its signature"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN]


def _description(kind: Any, explained: str | None) -> str | None:
    """What the model is told of a parameter: what its annotation says, else the docstring."""
    said = (each if isinstance(each, str) else getattr(each, "description", None) for each in _metadata(kind))
    return next((each for each in said if isinstance(each, str)), explained)


def _metadata(kind: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", getattr(kind, "__metadata__", ()))


Described: TypeAlias = "list[tuple[inspect.Parameter, Any, str | None]]"


def _by_msgspec(name: str, taken: Described) -> tuple[Any, Reader]:
    fields: list[Any] = []
    for parameter, kind, text in taken:
        told = kind if text is None else Annotated[kind, msgspec.Meta(description=text)]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, told))
        else:
            fields.append((parameter.name, told | msgspec.UnsetType, msgspec.UNSET))
    struct = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    msgspec.json.Decoder(struct)  # reads its fields now: msgspec crashes where threads that run tools do that at once

    def read(given: dict[str, Any]) -> dict[str, Any]:
        values = msgspec.convert(given, struct, str_keys=True)
        found = ((parameter.name, getattr(values, parameter.name)) for parameter, _, _ in taken)
        return {parameter: value for parameter, value in found if value is not msgspec.UNSET}

    return struct, read


def _is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "model_json_schema") or any(map(_is_pydantic, typing.get_args(kind)))


def _by_pydantic(name: str, taken: Described) -> tuple[Any, Reader]:
    import pydantic

    fields: dict[str, Any] = {}
    for parameter, kind, text in taken:
        told = kind if text is None else Annotated[kind, pydantic.Field(description=text)]
        # not the default itself: what a call leaves out is left out of the arguments, and it need not be JSON
        fields[parameter.name] = (told, ... if parameter.default is parameter.empty else None)
    model = pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)

    def read(given: dict[str, Any]) -> dict[str, Any]:
        try:  # as JSON, in which a date is a text
            values = model.model_validate_json(json.dumps(given), strict=True)
        except pydantic.ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise InvalidArguments("; ".join(faults)[:_SHOWN]) from error
        return {parameter: getattr(values, parameter) for parameter in values.model_fields_set}

    return model, read


def _as_json(value: object) -> Any:
    """A default as the schema tells it, None where it cannot."""
    try:
        return json.loads(encode_json(msgspec.to_builtins(value, str_keys=True)))
    except (TypeError, ValueError, RecursionError):
        return None
