"""The Responses API: nothing is translated."""

from __future__ import annotations

from collections.abc import Mapping

from eventflow.events import encode_json
from eventflow.providers.parameters import Cannot
from eventflow.sse import Frame

__all__ = ["body", "frames", "headers", "path", "query"]

_EVENTS = {  # by status; of every other one the response is as complete as it will be
    "queued": "response.queued",
    "in_progress": "response.in_progress",
    "incomplete": "response.incomplete",
    "cancelled": "response.incomplete",
    "failed": "response.failed",
}


def path(model: str, stream: bool) -> str:
    """Where requests go, behind the base address."""
    return "/responses"


def query(stream: bool) -> dict[str, str]:
    """What the address ends with."""
    return {}


def headers(key: str | None) -> dict[str, str]:
    """The key's header."""
    return {} if key is None else {"authorization": f"Bearer {key}"}


def body(parameters: Mapping[str, object], stream: bool, cannot: Cannot, base_url: str) -> dict[str, object]:
    """The parameters as they are; None leaves one out."""
    made = {name: value for name, value in parameters.items() if value is not None}
    return {**made, "stream": True} if stream else made


def frames(value: Mapping[str, object]) -> list[Frame]:
    """A response that came whole, as the frame that ends its stream."""
    name = _EVENTS.get(str(value.get("status")), "response.completed")
    return [Frame(name, encode_json({"type": name, "response": value}).decode())]
