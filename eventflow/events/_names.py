"""Wire names: the spellings that are accepted, and the nearest one to a misspelt name."""

from __future__ import annotations

from eventflow.events._base import Event, class_of_spelling, class_of_tag, event_classes

__all__ = ["nearest", "resolve"]

_ALIASES = {  # of the OpenAI SDK's pages, modules and older versions, where dots and underscores are not the difference
    "response_text_delta": "response.output_text.delta",
    "response_text_done": "response.output_text.done",
    "response_text_annotation_added": "response.output_text.annotation.added",
    "response_error": "error",
    "response_image_gen_call_in_progress": "response.image_generation_call.in_progress",
    "response_image_gen_call_generating": "response.image_generation_call.generating",
    "response_image_gen_call_partial_image": "response.image_generation_call.partial_image",
    "response_image_gen_call_completed": "response.image_generation_call.completed",
}


def resolve(name: str) -> type[Event] | None:
    """The event class of a wire name, or None.

    Dots and underscores are one: ``response.output_item_added`` is ``response.output_item.added`` (no two of the 59
    names differ in nothing else). The names of the OpenAI SDK page that stray further, and older wire spellings, are
    known too.
    """
    cls = class_of_spelling(name)
    if cls is None:
        alias = _ALIASES.get(_flat(name))
        cls = class_of_tag(alias) if alias is not None else None
    return cls


def nearest(name: str, others: tuple[str, ...] = ()) -> str | None:
    """The known wire name, or one of *others*, that *name* was probably meant to be; None when nothing is near."""
    import difflib  # costs as much as the rest of this package, and only a mistake needs it

    classes = event_classes()
    known = {cls.__name__.lower(): tag for tag, cls in classes.items()}  # who writes the class's name in quotes
    known.update(_ALIASES)
    known.update({_flat(candidate): candidate for candidate in (*classes, *others)})
    close = difflib.get_close_matches(_flat(name).lower(), known, n=1, cutoff=0.6)
    return known[close[0]] if close else None


def _flat(name: str) -> str:
    return name.replace(".", "_")
