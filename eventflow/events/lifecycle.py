"""The life of a response: each event carries the whole `Response` as it stands.

``response.completed``, ``response.incomplete`` and ``response.failed`` are the terminal events.
"""

from __future__ import annotations

from eventflow.events._base import WireEvent
from eventflow.events.error import ErrorEvent
from eventflow.events.response import Response

__all__ = [
    "LifecycleEvent",
    "ResponseCompleted",
    "ResponseCreated",
    "ResponseFailed",
    "ResponseInProgress",
    "ResponseIncomplete",
    "ResponseQueued",
]


class LifecycleEvent(WireEvent, family="lifecycle"):
    """The life of the response; as a selector, the family ``lifecycle``."""


class ResponseCreated(LifecycleEvent, tag="response.created"):
    """The response exists; its output is empty yet."""

    response: Response


class ResponseQueued(LifecycleEvent, tag="response.queued"):
    """A background response waits for its turn."""

    response: Response


class ResponseInProgress(LifecycleEvent, tag="response.in_progress"):
    """The model works."""

    response: Response


class ResponseCompleted(LifecycleEvent, tag="response.completed"):
    """The response is whole, with its usage. Terminal."""

    response: Response


class ResponseIncomplete(LifecycleEvent, tag="response.incomplete"):
    """The response ended early; ``response.incomplete_details.reason`` says why. Terminal."""

    response: Response


class ResponseFailed(ErrorEvent, LifecycleEvent, tag="response.failed"):
    """The response failed; ``response.error`` says why. Terminal; of the family ``error``, and ``lifecycle`` too."""

    response: Response
