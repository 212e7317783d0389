"""The vocabulary: every event, and the records that events carry.

One vocabulary for every model: the 59 stream events of OpenAI's Responses API (types of the public package openai
3.54.0, read November 2026), five of eventflow's own, and those that users define. A class is named after its wire
name: ``response.output_text.delta`` is `TextDelta`. Fields that servers leave out default to None.
"""

from eventflow.events import audio, error, item, lifecycle, reasoning, response, text, tool, turn
from eventflow.events._base import (
    JSON,
    Event,
    Record,
    Tagged,
    UnknownEvent,
    Untyped,
    WireEvent,
    encode_json,
    event_classes,
)
from eventflow.events._decode import decode, decode_mapping
from eventflow.events._names import nearest, resolve
from eventflow.events.audio import *
from eventflow.events.error import *
from eventflow.events.item import *
from eventflow.events.lifecycle import *
from eventflow.events.reasoning import *
from eventflow.events.response import *
from eventflow.events.text import *
from eventflow.events.tool import *
from eventflow.events.turn import *

__all__ = [
    "JSON",
    "Event",
    "Record",
    "Tagged",
    "UnknownEvent",
    "Untyped",
    "WireEvent",
    "decode",
    "decode_mapping",
    "encode_json",
    "event_classes",
    "nearest",
    "resolve",
]
__all__ += audio.__all__
__all__ += error.__all__
__all__ += item.__all__
__all__ += lifecycle.__all__
__all__ += reasoning.__all__
__all__ += response.__all__
__all__ += text.__all__
__all__ += tool.__all__
__all__ += turn.__all__
