"""Wire names: the spellings that are accepted, and the nearest one to a misspelt name."""

from __future__ import annotations

import difflib

from eventflow.events._base import Event, class_of_tag, event_classes

__all__ = ["nearest", "resolve"]

_ALIASES = {  # names of the OpenAI SDK's pages, modules and older versions that the dot-and-underscore rule does not reach
    "response_text_delta": "response.output_text.delta",
    "response_text_done": "response.output_text.done",
    "response_text_annotation_added": "response.output_text.annotation.added",
    "response_error": "error",
    "response_image_gen_call_in_progress": "response.image_generation_call.in_progress",
    "response_image_gen_call_generating": "response.image_generation_call.generating",
    "response_image_gen_call_partial_image": "response.image_generation_call.partial_image",
    "response_image_gen_call_completed": "response.image_generation_call.completed",
}


def _flat(name: str) -> str:
    return name.replace(".", "_")


def resolve(name: str) -> type[Event] | None:
    """The event class of a wire name, or None.

    Dots and underscores are one: ``response.output_item_added`` is ``response.output_item.added`` (no two of the 59
    names differ in nothing else). The names of the OpenAI SDK page that stray further, and older wire spellings, are
    known too.
    """
    exact = class_of_tag(name)
    if exact is not None:
        return exact
    flat = _flat(name)
    alias = _ALIASES.get(flat)
    if alias is not None:
        return class_of_tag(alias)
    for known, cls in event_classes().items():
        if _flat(known) == flat:
            return cls
    return None


def nearest(name: str, others: tuple[str, ...] = ()) -> str | None:
    """The known wire name, or one of *others*, that *name* was probably meant to be."""
    known = {_flat(candidate): candidate for candidate in (*event_classes(), *others)}
    known.update({flat: target for flat, target in _ALIASES.items() if flat not in known})
    close = difflib.get_close_matches(_flat(name).lower(), known, n=1, cutoff=0.6)
    return known[close[0]] if close else None
