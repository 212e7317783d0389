"""Hypothesis strategies that more than one test module draws from; those that users need are in `eventflow.testing`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from eventflow.events import Event
from eventflow.testing.strategies import STREAM_KINDS, WIRE_EVENTS, Told, chunkings, events_of, json_values
from eventflow.testing.strategies import event_streams as streams
from eventflow.testing.strategies import events as wire_events

__all__ = [
    "LINE_ENDS",
    "STREAM_KINDS",
    "WIRE_EVENTS",
    "Told",
    "batches",
    "bodies",
    "canonical_blocks",
    "chunked",
    "chunkings",
    "events_of",
    "frame_ids",
    "frame_names",
    "frame_texts",
    "json_values",
    "streams",
    "wire_events",
]

LINE_ENDS = (b"\n", b"\r", b"\r\n")

_FIELDS = (b"data", b"data:", b"data: ", b"event:", b"event: ", b"id", b"id: ", b"retry:", b"retry: ", b"x: ", b": ")
_VALUES = (b"a", b"b:c", b"{}", b"0", b"1500", b"ping", b" ", b":", b"\0", "\u0663".encode(), "\U0001f600".encode())
_BROKEN = (b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98")
_NO_LINE_ENDS = (b"\x0b", b"\x0c", b"\x1c", "\x85".encode(), "\u2028".encode(), "\u2029".encode())


def canonical_blocks() -> st.SearchStrategy[bytes]:
    """Blocks as servers of language models write them: an event line or none, one data line, a blank line."""
    value = st.lists(st.sampled_from(_VALUES + _BROKEN + _NO_LINE_ENDS), max_size=3).map(b"".join)
    return st.tuples(st.just(b"event: ") | st.none(), value, value).map(
        lambda parts: (b"" if parts[0] is None else parts[0] + parts[1] + b"\n") + b"data: " + parts[2] + b"\n\n"
    )


def _lines() -> st.SearchStrategy[bytes]:
    """Lines of events, so that events have several."""
    value = st.sampled_from(_VALUES + _BROKEN + _NO_LINE_ENDS)
    return st.tuples(st.sampled_from(_FIELDS), value, st.sampled_from(LINE_ENDS)).map(b"".join)


def bodies(max_size: int = 40) -> st.SearchStrategy[bytes]:
    """Bodies full of what decoders get wrong: every line end, marks, colons, NUL, broken UTF-8, canonical blocks."""
    pieces = st.one_of(
        _lines(),
        st.sampled_from(LINE_ENDS),
        st.sampled_from((b"\n\n", b"\r\r", b"\r\n\r\n")),
        st.sampled_from(_FIELDS),
        st.sampled_from(_VALUES + _BROKEN + _NO_LINE_ENDS),
        canonical_blocks(),
    )
    start = st.sampled_from((b"", b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"))
    return st.builds(lambda mark, rest: mark + b"".join(rest), start, st.lists(pieces, max_size=max_size))


@st.composite
def chunked(draw: st.DrawFn, body: st.SearchStrategy[bytes] | None = None) -> tuple[bytes, list[bytes]]:
    """A body (of `bodies` unless told otherwise), and the chunks that it comes in."""
    whole = draw(bodies() if body is None else body)
    return whole, draw(chunkings(whole))


def frame_names() -> st.SearchStrategy[str]:
    """Event types that the wire can carry: anything in one line, and not empty; NUL is left out."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1)


def frame_ids() -> st.SearchStrategy[str]:
    """Event ids that the wire can carry: anything in one line but NUL."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))


def frame_texts() -> st.SearchStrategy[str]:
    """Data as a decoder can return it: any text without CR, rich in LF."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))
    return st.lists(st.just("\n") | text).map("".join)


def batches(events: Sequence[Event]) -> st.SearchStrategy[list[list[Event]]]:
    """Ways to cut a list of events into batches, empty ones in between."""

    def cut(places: list[int]) -> list[list[Event]]:
        return [list(events[start:end]) for start, end in pairwise([0, *sorted(places), len(events)])]

    return st.lists(st.integers(0, len(events)), max_size=8).map(cut)
