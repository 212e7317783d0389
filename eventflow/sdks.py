"""What the SDKs of providers make of a stream, known by its shape: none of them is imported. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from eventflow.events import StreamError
from eventflow.plain import as_mapping

__all__ = ["error_event_in", "wire_object"]

_ADDED = frozenset(  # by the helpers ``chat.completions.stream`` (openai 3.54) and ``messages.stream`` (anthropic 2.12)
    {
        "citation",
        "compaction",
        "content.delta",
        "content.done",
        "input_json",
        "logprobs.content.delta",
        "logprobs.content.done",
        "logprobs.refusal.delta",
        "logprobs.refusal.done",
        "refusal.delta",
        "refusal.done",
        "signature",
        "text",
        "thinking",
        "tool_calls.function.arguments.delta",
        "tool_calls.function.arguments.done",
    }
)


def wire_object(item: Any) -> Mapping[str, Any] | None:
    """What a pydantic object of an SDK was on the wire; None for an event that a helper made of others.

    Raises what its ``model_dump`` raises.
    """
    kind = getattr(item, "type", None)
    if kind in _ADDED:
        return None
    if kind == "chunk" and hasattr(getattr(item, "chunk", None), "model_dump"):  # a helper's, around what came
        item = item.chunk
    sent = item.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    if not isinstance(sent, Mapping):
        raise TypeError(f"model_dump() gave {type(sent).__name__}, not a mapping")
    return cast("Mapping[str, Any]", sent)


def error_event_in(error: Exception) -> StreamError | None:
    """The event that an SDK has made an exception of, or None: ``APIError`` of openai and all its kin of anthropic."""
    body: Any = getattr(error, "body", None)
    if body is None or not any(kind.__name__ == "APIError" for kind in type(error).__mro__):
        return None
    return StreamError.from_wire(body if "error" in as_mapping(body) else {"error": body})
