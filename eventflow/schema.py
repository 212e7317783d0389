"""Structured output: the JSON schema of a Python type for a request, and text made into that type. Pure.

Types are msgspec structs, attrs classes, dataclasses, TypedDicts and whatever else msgspec takes, and pydantic models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from eventflow.errors import DecodeError, UsageError, excerpt
from eventflow.events import Response
from eventflow.events._decode import BUILDING

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ParsedResponse", "parsing", "schema_of", "text_format_of"]

T = TypeVar("T")

_NAME = re.compile(r"[^a-zA-Z0-9_-]+")  # what a format's name must not have; it has at most 64 characters


class ParsedResponse(Response, Generic[T], dict=True, gc=True):
    """A response whose text was asked for as a type.

    Equal to another one with the same fields, not to a plain `Response`.
    """

    @property
    def parsed(self) -> T | None:
        """The text as an object of the type; None where there is none: a refusal, or nothing has come yet.

        Raises:
            DecodeError: The text is not of that type; an incomplete answer's seldom is.
        """
        state = vars(self)
        if "parsed" not in state:
            text = self.output_text
            state["parsed"] = _read(text, state["kind"]) if text else None
        return cast("T | None", state["parsed"])

    def replace(self, **changes: object) -> Self:
        """A copy with *changes*; a field that does not exist is a `UsageError`."""
        return self._of(super().replace(**changes))

    def __copy__(self) -> Self:
        return self._of(self)

    def __deepcopy__(self, memo: object) -> Self:
        return self._of(self)  # records do not change

    def __reduce__(self) -> tuple[object, ...]:
        fields = tuple(getattr(self, name) for name in _FIELDS)
        return (_rebuilt, (fields, vars(self).get("kind")))

    def _of(self, response: Response) -> Self:
        return cast("Self", parsing(vars(self).get("kind"))(response))


def parsing(kind: type[T] | None) -> Callable[[Response], ParsedResponse[T]]:
    """A function that makes of a response one whose text is a *kind*."""

    def parse(response: Response) -> ParsedResponse[T]:
        return _rebuilt(tuple(getattr(response, name) for name in _FIELDS), kind)

    return parse


def _rebuilt(fields: tuple[Any, ...], kind: type[T] | None) -> ParsedResponse[T]:
    parsed: ParsedResponse[T] = ParsedResponse(**dict(zip(_FIELDS, fields, strict=True)))
    vars(parsed)["kind"] = kind
    return parsed


_FIELDS = Response.__struct_fields__


def _read(text: str, kind: Any) -> Any:
    validate = getattr(kind, "model_validate_json", None)
    try:
        if validate is not None:
            return validate(text)
        with BUILDING:
            return msgspec.json.decode(text, type=kind)
    except Exception as error:  # of msgspec, or of pydantic, which is not imported here
        raise DecodeError(f"the text is no {_name_of(kind)}: {error}; it begins with {excerpt(text)}") from error


def text_format_of(kind: Any) -> dict[str, Any]:
    """The ``text.format`` of a request that asks for a *kind*.

    The API's strict mode wants every object closed and every field required (the guide "Structured Outputs", November
    2026); where the type has mappings with free keys, that cannot be, and the schema is sent as a wish.

    Raises:
        UsageError: There is no schema for the type, or it is not one of an object.
    """
    try:
        schema, strict = schema_of(kind)
    except Exception as error:  # TypeError of msgspec; pydantic's own
        raise UsageError(f"text_format={_name_of(kind)} has no JSON schema: {error}") from error
    if schema.get("type") != "object":
        raise UsageError(
            f"text_format={_name_of(kind)} is no object in JSON, which is all that the API gives; put it into a field "
            "of a dataclass"
        )
    return {"type": "json_schema", "name": _NAME.sub("_", _name_of(kind))[:64], "schema": schema, "strict": strict}


def schema_of(kind: Any, *, strict: bool = True) -> tuple[dict[str, Any], bool]:
    """The JSON schema of a type, no reference at its top; and whether it is as the API's strict mode wants it.

    Args:
        kind: A type that msgspec has a schema for, or a pydantic model.
        strict: Whether to make it so, where that can be.

    Raises:
        Exception: Whatever msgspec or pydantic raises where there is no schema.
    """
    schema = kind.model_json_schema() if hasattr(kind, "model_json_schema") else msgspec.json.schema(kind)
    definitions = schema.pop("$defs", {})
    schema = _resolved(schema, definitions)
    strict = strict and not any(map(_is_open, (schema, *definitions.values())))
    if strict:
        schema = _closed(schema, definitions)
        definitions = {name: _closed(definition, definitions) for name, definition in definitions.items()}
    used = {name: value for name, value in definitions.items() if _refers((schema, definitions), name)}
    if used:
        schema = {**schema, "$defs": used}
    return schema, strict


def _name_of(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """*schema* without a reference at its top."""
    while "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _refers(schema: Any, name: str) -> bool:
    """Whether something in *schema* refers to the definition with this name."""
    if isinstance(schema, list | tuple):
        return any(_refers(part, name) for part in cast("list[Any]", schema))
    if not isinstance(schema, dict):
        return False
    node = cast("dict[str, Any]", schema)
    return node.get("$ref") == f"#/$defs/{name}" or any(_refers(part, name) for part in node.values())


def _is_open(schema: Any) -> bool:
    """Whether something in *schema* is left open: free keys, elements of any kind, tuples; strict mode has no words."""
    node = cast("dict[str, Any]", schema) if isinstance(schema, dict) else {}
    options = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    if options:
        return any(map(_is_open, options))
    if "$ref" in node or "enum" in node or "const" in node:
        return False
    if node.get("type") == "object":
        fields = cast("dict[str, Any]", node.get("properties", {}))
        free = "properties" not in node or bool(node.get("additionalProperties"))
        return free or any(map(_is_open, fields.values()))
    if node.get("type") == "array":
        return "prefixItems" in node or _is_open(node.get("items"))
    return "type" not in node


def _closed(schema: Any, definitions: dict[str, Any], inside: frozenset[str] = frozenset()) -> Any:
    """*schema* as the strict mode wants it; *inside* are the references that it is put in the place of."""
    if isinstance(schema, list):
        return [_closed(part, definitions, inside) for part in cast("Any", schema)]
    if not isinstance(schema, dict):
        return schema
    node = cast("dict[str, Any]", schema)
    target = node.get("$ref")
    if target is not None and len(node) > 1:  # a reference must stand alone
        if target in inside:
            return {"$ref": target}
        node, inside = _resolved(node, definitions), inside | {target}
    closed: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            closed[key] = {name: _closed(field, definitions, inside) for name, field in value.items()}
        elif key not in ("default", "discriminator"):
            closed["anyOf" if key == "oneOf" else key] = _closed(value, definitions, inside)
    if "properties" in closed:
        closed.update(additionalProperties=False, required=list(closed["properties"]))
    return closed
