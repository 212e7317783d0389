"""eventflow.sse against a naive reading of the standard (WHATWG HTML, 9.2.6, read November 2026)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from eventflow import sse
from eventflow.errors import LimitExceeded, UsageError
from eventflow.sse import MAX_EVENT_BYTES, Decoder, Frame, adecode, decode, encode
from tests.strategies import bodies, canonical_blocks, chunked, chunkings, frame_ids, frame_names, frame_texts

BOM = b"\xef\xbb\xbf"
thorough = settings(max_examples=4 * settings().max_examples)


class Reading(NamedTuple):
    frames: list[Frame]
    retry: int | None
    last_event_id: str


def reference(body: bytes) -> Reading:
    """Read a whole *body* with the words of the standard: decode it, cut it into lines, process each."""
    lines = re.split("\r\n|\r|\n", body.decode("utf-8", "replace").removeprefix("\ufeff"))[:-1]
    frames: list[Frame] = []
    event_type, data, last_id, id_buffer, retry = "", "", "", "", None
    for line in lines:
        if line == "":
            last_id = id_buffer
            if data != "":
                frames.append(Frame(event=event_type or "message", data=data[:-1], id=last_id))
            event_type = data = ""
            continue
        field, value = line.split(":", 1) if ":" in line else (line, "")
        if value.startswith(" "):
            value = value[1:]
        if field == "event":
            event_type = value
        elif field == "data":
            data = data + value + "\n"
        elif field == "id" and "\0" not in value:
            id_buffer = value
        elif field == "retry" and re.fullmatch("[0-9]{1,18}", value):
            retry = int(value)
    return Reading(frames, retry, last_id)


def fitting(body: bytes, maximum: int) -> tuple[int, bool]:
    """Count the events of *body* before the first line that does not fit into *maximum*; and is there such a line?"""
    events = kept = 0
    if BOM.startswith(body):  # whether these bytes are part of a line is still open
        return 0, False
    for line in re.split(rb"\r\n|\r|\n", body.removeprefix(BOM)):
        if kept + len(line) > maximum:
            return events, True
        if line == b"":
            events += kept > 0
            kept = 0
        elif line == b"data" or line.startswith(b"data:"):
            kept += len(line[5:].removeprefix(b" ")) + 1
    return events, False


def read(chunks: Iterable[bytes], maximum: int | None = MAX_EVENT_BYTES) -> tuple[list[Frame], Decoder]:
    """Feed *chunks* to a decoder until it fails or they are used up."""
    decoder, frames = Decoder(max_event_bytes=maximum), list[Frame]()
    with contextlib.suppress(LimitExceeded):
        for chunk in chunks:
            frames += decoder.feed(chunk)
    return frames, decoder


def single(body: bytes) -> list[bytes]:
    """Cut *body* into chunks of one byte."""
    return [body[place : place + 1] for place in range(len(body))]


def data_of(body: bytes) -> list[str]:
    """Decode a whole *body* and, to be sure, byte by byte; return what its events carry."""
    whole, bytewise = read([body])[0], read(single(body))[0]
    assert whole == bytewise
    return [frame.data for frame in whole]


# --- properties ------------------------------------------------------------------------------------------------------


@thorough
@given(chunked())
@example((b"event: a\ndata: b\n\ndata: \n\n\ndata: c\n\n", [b"event: a\ndata: b\n\ndata: \n\n\ndata: c\n\n"]))
@example((b"event: a\nevent: \ndata: b\n\n", [b"event: a\nevent: \ndata: b\n\n"]))
@example((b"event: a\n\xef\xbb\xbfdata: b\n\n", [b"event: a\n\xef", b"\xbb\xbfdata: b\n\n"]))
def test_frames_equal_reference_in_any_chunking(case: tuple[bytes, list[bytes]]) -> None:
    """However a body is cut, frames, reconnection time and last event id are those of the standard."""
    body, chunks = case
    frames, decoder = read(chunks)
    assert Reading(frames, decoder.retry, decoder.last_event_id) == reference(body)
    assert decoder.close() == []


@thorough
@given(st.binary(max_size=60).flatmap(lambda body: st.tuples(st.just(body), chunkings(body))))
def test_frames_equal_reference_in_arbitrary_bytes(case: tuple[bytes, list[bytes]]) -> None:
    """Bytes that were never meant to be a stream raise nothing and are read as the standard says."""
    body, chunks = case
    assert read(chunks)[0] == reference(body).frames


@thorough
@given(st.lists(canonical_blocks() | st.sampled_from((b"\n", b": ping\n\n", b"id: 7\n", b"data: x\n"))).map(b"".join))
def test_canonical_path_equals_line_machine(body: bytes) -> None:
    """Blocks taken whole, taken line by line (one byte a chunk never shows a whole one) and with CRLF are the same."""
    expected = read(single(body))[0]
    assert read([body])[0] == expected
    assert read([body.replace(b"\n", b"\r\n")])[0] == expected
    assert expected == reference(body).frames


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_machine_is_not_used_when_blocks_are_canonical(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    """The fast path is really taken, also where line ends are CRLF, so the property above compares two things."""
    body = b"event: a\ndata: b\n\ndata: c\n\nevent: d\ndata: \n\n".replace(b"\n", end)

    def refuse(*_: object) -> None:
        raise AssertionError("line machine")

    monkeypatch.setattr(Decoder, "_read", refuse)
    assert [frame.event for frame in Decoder().feed(body)] == ["a", "message", "d"]
    with pytest.raises(AssertionError, match="line machine"):
        read(single(body))


@thorough
@given(chunked(), st.integers(1, 40))
@example((b"data: a\ndata: bcdef", single(b"data: a\ndata: bcdef")), 10)
def test_limit_strikes_at_the_same_place_in_any_chunking(case: tuple[bytes, list[bytes]], maximum: int) -> None:
    """Under a limit the same events come out, and the same bodies fail, however they are cut."""
    body, chunks = case
    count, fails = fitting(body, maximum)
    frames, decoder = read(chunks, maximum)
    assert frames == reference(body).frames[:count]
    assert (decoder.error is not None) is fails
    assert decoder.unfinished == read([body], maximum)[1].unfinished
    if decoder.error is not None:
        assert (decoder.error.limit, decoder.error.maximum) == ("event_bytes", maximum)
        assert decoder.error.seen > maximum


def test_iterators_when_an_event_is_too_large_behind_others() -> None:
    """The frames before it are out, and no more is asked for."""
    asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number, chunk in enumerate([b"data: a\n\n" + LARGE, b"data: b\n\n"]):
            asked.append(number)
            yield chunk

    async def achunks() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    async def collect() -> None:
        async for frame in adecode(achunks(), max_event_bytes=50):
            frames.append(frame)

    frames: list[Frame] = []
    with pytest.raises(LimitExceeded):
        frames.extend(decode(chunks(), max_event_bytes=50))
    with pytest.raises(LimitExceeded):
        asyncio.run(collect())
    assert frames == [Frame("message", "a")] * 2
    assert asked == [0, 0]


@thorough
@given(chunked())
def test_unfinished_is_what_a_blank_line_would_have_ended(case: tuple[bytes, list[bytes]]) -> None:
    """The unfinished event is what the body would have ended with, had its last line and block ended there."""
    body, chunks = case
    frames, decoder = read(chunks)
    decoder.close()
    first, second = decoder.unfinished, decoder.unfinished
    assert first == second  # asking changes nothing
    assert frames + ([] if first is None else [first]) == reference(body + b"\n\n").frames
    assert frames + decoder.feed(b"\n\n") == reference(body + b"\n\n").frames


@thorough
@given(bodies(), bodies())
def test_idle_decoder_equals_new_one_after_any_prefix(before: bytes, after: bytes) -> None:
    """All that an idle decoder carries on is the last event id: a new one that is given it reads the same frames."""
    decoder = Decoder()
    decoder.feed(before)
    assume(decoder.idle)
    new = Decoder()
    if before:
        new.feed(encode(id=decoder.last_event_id))
    assert decoder.feed(after) == new.feed(after)


@thorough
@given(st.lists(canonical_blocks().map(lambda block: (True, block)) | bodies(4).map(lambda body: (False, body))))
def test_decoder_may_be_bypassed_when_idle(parts: list[tuple[bool, bytes]]) -> None:
    """A caller that reads canonical blocks itself while the decoder is idle gets the frames of the whole body."""
    decoder, frames = Decoder(), list[Frame]()
    body = b"".join(part for _, part in parts)
    if not body.startswith(b"\xef"):
        decoder.feed(b"\n")
    for canonical, part in parts:
        if canonical and decoder.idle:
            frames += [Frame(frame.event, frame.data, decoder.last_event_id) for frame in reference(part).frames]
        else:
            frames += decoder.feed(part)
    assert frames == reference(body).frames


@thorough
@given(bodies())
def test_encode_round_trips_what_a_decoder_returned(body: bytes) -> None:
    """Every frame of any body can be sent on; only an event type with NUL in it is refused."""
    for frame in reference(body).frames:
        if "\0" in frame.event:
            with pytest.raises(UsageError, match=r"event '.*NUL"):
                encode(event=frame.event, data=frame.data, id=frame.id)
        else:
            assert read([encode(event=frame.event, data=frame.data, id=frame.id)])[0] == [frame]


@thorough
@given(frame_names(), frame_texts(), frame_ids(), st.booleans())
@example("\ufeff", "\ufeff", "\ufeff", False)
def test_encode_round_trips_any_frame(event: str, data: str, id: str, bytewise: bool) -> None:
    """Whatever text a frame holds, one block of bytes carries it, and nothing of it is read as anything else."""
    block = encode(event=event, data=data, id=id)
    assert read(single(block) if bytewise else [block])[0] == [Frame(event, data, id)]
    assert reference(block).frames == [Frame(event, data, id)]


@thorough
@given(
    event=st.none() | st.text("a: \r\n\0\ufeff\ud800"),
    data=st.none() | st.text("a: \r\n\0\u2028\ufeff\ud800"),
    id=st.none() | st.text("a: \r\n\0\ufeff\ud800"),
    retry=st.none() | st.integers(-1, 10**19),
    comment=st.none() | st.text("a: \r\n\0\ufeff\ud800"),
)
def test_encode_never_writes_more_than_one_event(
    event: str | None, data: str | None, id: str | None, retry: int | None, comment: str | None
) -> None:
    """No argument can smuggle in a second event or a field: it is refused, or it arrives as what it is."""
    try:
        block = encode(event=event, data=data, id=id, retry=retry, comment=comment)
    except UsageError:
        return
    text = None if data is None else data.replace("\r\n", "\n").replace("\r", "\n")
    frames = [] if text is None else [Frame(event or "message", text, id or "")]
    assert reference(block) == Reading(frames, retry, id or "")
    assert reference(block + b"data: next\n\n").frames == [*frames, Frame("message", "next", id or "")]


@thorough
@given(chunked(), st.integers(1, 60) | st.none())
def test_decode_and_adecode_agree(case: tuple[bytes, list[bytes]], maximum: int | None) -> None:
    """Both iterators give the frames of the decoder, in order, and fail where it fails."""

    async def source(chunks: list[bytes]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collect() -> tuple[list[Frame], bool]:
        frames = list[Frame]()
        try:
            async for frame in adecode(source(case[1]), max_event_bytes=maximum):
                frames.append(frame)
        except LimitExceeded:
            return frames, True
        return frames, False

    frames, failed = list[Frame](), False
    try:
        for frame in decode(case[1], max_event_bytes=maximum):
            frames.append(frame)
    except LimitExceeded:
        failed = True
    expected, decoder = read(case[1], maximum)
    assert (frames, failed) == (expected, decoder.error is not None)
    assert asyncio.run(collect()) == (frames, failed)


# --- lines, marks, characters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_line_ends_are_equal_when_used_alone(end: bytes) -> None:
    """LF, CR and CRLF each end lines and blocks."""
    assert data_of(b"event: x\ndata: a\ndata: b\n\ndata: c\n\n".replace(b"\n", end)) == ["a\nb", "c"]


def test_line_ends_are_equal_when_mixed() -> None:
    """Each line may have its own line end, a blank one too."""
    assert data_of(b"data: a\rdata: b\r\ndata: c\n\rdata: d\n\r\ndata: e\r\r\n") == ["a\nb\nc", "d", "e"]


def test_line_end_is_one_when_crlf_is_cut_between_chunks() -> None:
    """An LF at the start of a chunk belongs to the CR that ended the chunk before, empty chunks in between or not."""
    assert read([b"data: a\r", b"\ndata: b\r", b"", b"\ndata: c\r", b"\n\r", b"\n"])[0] == [Frame("message", "a\nb\nc")]


def test_event_is_out_at_once_when_ended_by_cr_cr() -> None:
    """A CR that ends a block does not wait for an LF, which is swallowed when it comes."""
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\r") == [Frame("message", "a")]
    assert not decoder.idle
    assert decoder.feed(b"\n") == []
    assert decoder.idle
    assert decoder.feed(b"data: b\n\n") == [Frame("message", "b")]


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_line_goes_on_at_other_separators(char: str) -> None:
    """What str.splitlines takes for line ends are ordinary characters here."""
    assert data_of(f"data: a{char}data: b\n\ndata: {char}\ndata: c\n\n".encode()) == [f"a{char}data: b", f"{char}\nc"]


def test_mark_is_dropped_when_first() -> None:
    """One byte order mark at the very start is no part of the first line."""
    assert data_of(BOM + b"data: a\n\n") == ["a"]


def test_mark_is_kept_when_second_or_later() -> None:
    """A second mark is part of its line, whose field is then unknown; inside of a value it is data."""
    assert data_of(BOM + BOM + b"data: a\n\n" + BOM + b"data: b\n\ndata: " + BOM + b"\n\n") == ["\ufeff"]
    assert data_of(b"\n" + BOM + b"data: a\ndata: b\n\n") == ["b"]


def test_mark_is_none_when_incomplete() -> None:
    """The first bytes of a mark alone are broken UTF-8 at the start of a field name."""
    assert data_of(b"\xef\xbbdata: a\ndata: b\n\n") == ["b"]
    assert read([b"\xef", b"\xbb"])[1].unfinished is None


def test_characters_are_replaced_when_not_utf8() -> None:
    """Broken sequences become U+FFFD in data, type and id, as many as in the decoding of the whole body."""
    body = b"event: \xff\nid: \xc3\ndata: \xe2\x82\ndata: \xed\xa0\x80\xf0\x9f\x98\n\nevent: \xfe\ndata: \x80\n\n"
    expected = [Frame("�", "�\n" + "�" * 4, "�"), Frame("�", "�", "�")]
    assert read([body])[0] == read(single(body))[0] == expected


def test_character_is_whole_when_cut_between_chunks() -> None:
    """A character of several bytes survives any cut through it."""
    assert read([b"data: \xf0\x9f", b"\x98", b"\x80\n\n"])[0] == [Frame("message", "\U0001f600")]


# --- fields ----------------------------------------------------------------------------------------------------------


def test_first_example_of_the_standard_is_one_event() -> None:
    """Three data lines are one event."""
    assert data_of(b"data: YHOO\ndata: +2\ndata: 10\n\n") == ["YHOO\n+2\n10"]


def test_second_example_of_the_standard_is_two_events_and_an_unfinished_one() -> None:
    """A comment is skipped, an empty id resets the last one, the last block is discarded without its blank line."""
    body = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n"
    frames, decoder = read([body])
    assert frames == [Frame("message", "first event", "1"), Frame("message", "second event", "")]
    assert decoder.close() == []
    assert decoder.unfinished == Frame("message", " third event", "")


def test_third_example_of_the_standard_is_two_events() -> None:
    """A field without colon has an empty value: first an empty event, then one with a single LF, the last not ended."""
    assert data_of(b"data\n\ndata\ndata\n\ndata:") == ["", "\n"]


def test_fourth_example_of_the_standard_is_two_equal_events() -> None:
    """The space after the colon is optional."""
    assert data_of(b"data:test\n\ndata: test\n\n") == ["test", "test"]


def test_space_is_removed_once() -> None:
    """One space after the colon goes, a second one and a tab are data."""
    assert data_of(b"data:  a\n\ndata:\tb\n\ndata:\n\ndata: \n\n") == [" a", "\tb", "", ""]


def test_event_type_is_message_when_none_or_empty() -> None:
    """No event line and an empty one both mean the type that browsers call message; the last event line counts."""
    none = b"data\n\nevent\ndata\n\nevent: \ndata: \n\nevent: x\nevent: \ndata: \n\n"
    frames, _ = read([none, b"event: x\nevent: y\ndata\n\n"])
    assert [frame.event for frame in frames] == ["message", "message", "message", "message", "y"]


def test_event_type_is_forgotten_when_block_has_no_data() -> None:
    """A block without data dispatches nothing and leaves no type to the next one."""
    assert read([b"event: x\n\ndata: a\n\n"])[0] == [Frame("message", "a")]


def test_field_is_ignored_when_unknown() -> None:
    """Names are compared as they are: case, spaces and longer names make another field."""
    assert data_of(b"Data: a\n data: b\ndata : c\ndatax: d\nfoo\n:data: e\ndata: f\n\n") == ["f"]


def test_id_is_kept_when_later_events_have_none() -> None:
    """The last event id goes with each event until another comes, also from a block without data."""
    frames, decoder = read([b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\nid:\ndata: d\n\n"])
    assert [frame.id for frame in frames] == ["1", "1", "2", ""]
    assert decoder.last_event_id == ""


def test_id_is_ignored_when_it_has_nul() -> None:
    """An id with NUL in it leaves the one before; NUL in data and type is kept."""
    assert read([b"id: 1\n\nid: 2\0\nevent: x\0\ndata: \0\n\n"])[0] == [Frame("x\0", "\0", "1")]


def test_last_event_id_waits_when_block_is_unfinished() -> None:
    """The id to reconnect with is that of the last block which ended; the event under way already shows its own."""
    frames, decoder = read([b"id: 1\ndata: a\n\nid: 2\ndata: b\n"])
    assert (frames, decoder.last_event_id) == ([Frame("message", "a", "1")], "1")
    assert decoder.unfinished == Frame("message", "b", "2")
    assert decoder.last_event_id == "1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"1500", 1500),
        (b"007", 7),
        (b"9" * 18, 10**18 - 1),
        (b"9" * 19, None),
        (b"9" * 10_000, None),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.5", None),
        (b"1 ", None),
        (b"1_000", None),
        ("\u0663".encode(), None),
        ("\xb2".encode(), None),
    ],
)
def test_retry_is_taken_when_all_ascii_digits(value: bytes, expected: int | None) -> None:
    """Only ASCII digits, and at most 18 of them, set the reconnection time."""
    assert read([b"retry: " + value + b"\n"])[1].retry == expected


def test_retry_stays_when_a_bad_one_follows() -> None:
    """A value that is no number leaves the time that was set before."""
    assert read([b"retry: 10\nretry: x\nretry\n"])[1].retry == 10


# --- the end, idle ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", None),
        (b"data: a\n\n", None),
        (b"event: x\n", None),
        (b": comment", None),
        (b"dat", None),
        (b"data: [DONE]", Frame("message", "[DONE]")),
        (b"event: x\ndata: a\nid: 3", Frame("x", "a", "3")),
        (b"event: x\ndata: a\ndat", Frame("x", "a")),
        (b"event: x\r\ndata: a\r", Frame("x", "a")),
    ],
)
def test_unfinished_holds_the_last_event_when_body_is_cut(body: bytes, expected: Frame | None) -> None:
    """What a cut leaves behind is no frame of the stream, but it is there for who asks."""
    decoder = Decoder()
    assert [frame.data for frame in decoder.feed(body)] in ([], ["a"])
    assert decoder.close() == []
    assert decoder.unfinished == expected


@pytest.mark.parametrize("body", [b"", b"\n", BOM, b"data: a\n\n", b": ping\n\n", b"retry: 1\r\n\r\n", b"id: 1\n\n\n"])
def test_idle_is_true_between_blocks(body: bytes) -> None:
    """Before the first byte, after a blank line and after the mark a block could start."""
    assert read([body])[1].idle
    assert read(single(body))[1].idle


@pytest.mark.parametrize(
    "body", [b"\xef", b"\xef\xbb", b"d", b"data\n", b"event: x\n", b"id: 1\n", b"data: a\r\r", b"\n\n:", b"a" * 20]
)
def test_idle_is_false_when_anything_is_under_way(body: bytes) -> None:
    """Held bytes, a block that has begun, a lone CR and a failure each keep canonical blocks from going elsewhere."""
    assert not read([body], maximum=10)[1].idle
    assert not read(single(body), maximum=10)[1].idle


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_feed_takes_any_buffer(kind: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
    """Buffers of all three kinds are read, copied where needed, so that the caller may use them again."""
    decoder, first = Decoder(), bytearray(b"data: a")
    assert decoder.feed(kind(first)) == []  # type: ignore[arg-type]
    first[:] = b"-------"
    assert decoder.feed(kind(b"\n\n")) == [Frame("message", "a")]


@pytest.mark.parametrize("wrong", ["data: a\n\n", 5, None])
def test_feed_refuses_what_is_no_buffer(wrong: object) -> None:
    """Text and numbers are a mistake that is not read as bytes."""
    with pytest.raises(UsageError):
        Decoder().feed(wrong)  # type: ignore[arg-type]


def test_frame_defaults_are_those_of_the_standard() -> None:
    """An empty frame is a message, and frames cannot be changed."""
    assert Frame() == Frame(event="message", data="", id="")
    with pytest.raises(AttributeError):
        Frame().data = "x"  # type: ignore[misc]


# --- limits ----------------------------------------------------------------------------------------------------------

LARGE = b"event: big\ndata: " + b"x" * 100 + b"\n\n"


def test_limit_is_reached_when_one_byte_too_many() -> None:
    """The longest line of an event may be as long as the limit, not longer; canonical or not."""
    assert len(read([LARGE], maximum=106)[0]) == 1
    assert len(read(single(LARGE), maximum=106)[0]) == 1
    for chunks in ([LARGE], [LARGE[11:]], single(LARGE), [b"id: 1\n" + LARGE]):
        frames, decoder = read(chunks, maximum=105)
        assert frames == []
        assert decoder.error is not None
        assert "106" in str(decoder.error)


def test_limit_is_reached_when_data_lines_add_up() -> None:
    """The lines of one event count together, with their LF, and the next event starts from nothing."""
    event = b"data:aaaa\n" * 3 + b"\n"  # 15 bytes kept, and a line of 9 beside 10 of them
    assert len(read([event * 5], maximum=19)[0]) == 5
    assert read([event * 5], maximum=18)[0] == []
    assert read([event[:-2]], maximum=18)[1].error is not None  # no need to wait for the end of the line


def test_limit_is_not_reached_when_lines_are_ignored() -> None:
    """Comments and fields without data may go on for ever, as long as each line fits."""
    body = b": keep-alive\nfoo: bar\nretry: 5\nevent: x\nid: 1\n" * 1000 + b"data: a\n\n"
    assert read([body], maximum=16)[0] == read(single(body), maximum=16)[0] == [Frame("x", "a", "1")]


def test_limit_is_reached_when_a_comment_does_not_end() -> None:
    """A line under way counts whatever it is."""
    frames, decoder = read([b"data: a\n\n:"] + [b"x"] * 20, maximum=16)
    assert frames == [Frame("message", "a")]
    assert decoder.error is not None
    assert decoder.error.seen == 17


def test_limit_is_off_when_none() -> None:
    """Without a limit an event may be of any size."""
    body = b"data: " + b"x" * MAX_EVENT_BYTES + b"\n\n"
    assert read([body])[1].error is not None
    assert [len(frame.data) for frame in read([body], maximum=None)[0]] == [MAX_EVENT_BYTES]


def test_failure_lasts_once_it_has_come() -> None:
    """Frames before it are returned first; feed and close raise the same error, and nothing is read any more."""
    decoder = Decoder(max_event_bytes=50)
    assert decoder.feed(b"id: 1\ndata: a\n\ndata: part\n" + LARGE + b"data: b\n\n") == [Frame("message", "a", "1")]
    assert decoder.error is not None
    assert decoder.error.__traceback__ is None  # it would keep the chunk and everything else in the call alive
    for _ in range(2):
        with pytest.raises(LimitExceeded) as fed:
            decoder.feed(b"data: c\n\n")
        with pytest.raises(LimitExceeded) as closed:
            decoder.close()
        assert fed.value is closed.value is decoder.error
    assert not decoder.idle
    assert decoder.last_event_id == "1"
    assert decoder.unfinished == Frame("big", "part", "1")


def test_failure_stops_reading_when_chunk_is_huge() -> None:
    """What follows the offending line in the same call is not read, however far away it is."""
    decoder = Decoder(max_event_bytes=50)
    with pytest.raises(LimitExceeded):
        decoder.feed(LARGE + b"\n" * 200_000 + b"retry: 5\ndata: b\n\n")
    assert decoder.retry is None


# --- lazy iterators --------------------------------------------------------------------------------------------------


def pulled(log: list[str], chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield *chunks* and log each when it is asked for."""
    for number, chunk in enumerate(chunks):
        log.append(f"chunk {number}")
        yield chunk


async def apulled(log: list[str], chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield *chunks* and log each when it is asked for."""
    for chunk in pulled(log, chunks):
        yield chunk


CHUNKS = [b"data: a\n\ndata: b\n\nda", b"ta: c\r\r", b"data: " + b"x" * 50, b"data: never\n\n"]


def test_decode_yields_before_it_pulls_the_next_chunk() -> None:
    """An event is out before the next chunk is asked for, and after a failure none is."""
    log = list[str]()

    def main() -> None:
        for frame in decode(pulled(log, CHUNKS), max_event_bytes=40):
            log.append(frame.data)

    with pytest.raises(LimitExceeded):
        main()
    assert log == ["chunk 0", "a", "b", "chunk 1", "c", "chunk 2"]


def test_adecode_yields_before_it_pulls_the_next_chunk() -> None:
    """The same holds for the asynchronous iterator."""
    log = list[str]()

    async def main() -> None:
        async for frame in adecode(apulled(log, CHUNKS), max_event_bytes=40):
            log.append(frame.data)

    with pytest.raises(LimitExceeded):
        asyncio.run(main())
    assert log == ["chunk 0", "a", "b", "chunk 1", "c", "chunk 2"]


# --- encode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (encode(event="ping", data="{}"), b"event: ping\ndata: {}\n\n"),
        (encode(data="a\nb\r\nc\rd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (encode(data=""), b"data:\n\n"),
        (encode(data="\n"), b"data:\ndata:\n\n"),
        (encode(data=" é"), b"data:  \xc3\xa9\n\n"),
        (encode(event="", data="a"), b"data: a\n\n"),
        (encode(id=""), b"id:\n\n"),
        (encode(id="7"), b"id: 7\n\n"),
        (encode(retry=0), b"retry: 0\n\n"),
        (encode(comment="ping"), b": ping\n\n"),
        (encode(comment=""), b":\n\n"),
        (encode(), b"\n"),
        (encode(comment="c", id="i", retry=1, event="e", data="d"), b": c\nid: i\nretry: 1\nevent: e\ndata: d\n\n"),
    ],
)
def test_encode_writes_one_block(block: bytes, expected: bytes) -> None:
    """Fields stand in one order, data splits at each line end, and a blank line ends the block."""
    assert block == expected


def test_encode_writes_what_the_fast_path_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type and one line of data make a canonical block."""
    monkeypatch.delattr(Decoder, "_read")
    assert Decoder().feed(encode(event="x", data="a") + encode(data="b")) == [Frame("x", "a"), Frame("message", "b")]


@pytest.mark.parametrize("char", ["\r", "\n", "\r\n", "\0"])
def test_encode_refuses_line_ends_and_nul_in_one_line_fields(char: str) -> None:
    """What would end the line, or be dropped by the reader, is a usage error that names the field."""
    for position in (f"{char}a", f"a{char}b", f"a{char}"):
        with pytest.raises(UsageError, match=r"event .*line end or NUL"):
            encode(event=position, data="x")
        with pytest.raises(UsageError, match=r"id .*line end or NUL"):
            encode(id=position, data="x")
        with pytest.raises(UsageError, match=r"comment .*line end or NUL"):
            encode(comment=position, data="x")


@pytest.mark.parametrize("field", ["event", "id", "comment", "data"])
@pytest.mark.parametrize("value", [b"x", b"", 0, bytearray(b"x"), ["x"]])
def test_encode_refuses_what_is_no_text(field: str, value: Any) -> None:
    """Bytes and all else that is no text are a named error in every field, also where they are empty."""
    with pytest.raises(UsageError, match=f"{field} takes text, not {type(value).__name__}"):
        encode(**{field: value})


def test_encode_refuses_lone_surrogates_anywhere() -> None:
    """Half a character cannot be sent as UTF-8; the message shows where it stands."""
    with pytest.raises(UsageError, match=r"surrogate in '.*a\\ud800b"):
        encode(data="x" * 1000 + "a\ud800b")
    with pytest.raises(UsageError, match="surrogate"):
        encode(event="\udfff")
    with pytest.raises(UsageError, match="surrogate"):
        encode(id="\ud800")
    with pytest.raises(UsageError, match="surrogate"):
        encode(comment="\ud800")


@pytest.mark.parametrize("retry", [-1, True, False, 1.5, "5", 10**18])
def test_encode_refuses_retry_that_is_no_time(retry: int) -> None:
    """A reconnection time is a whole number of milliseconds that readers accept."""
    with pytest.raises(UsageError, match=r"retry is .*whole milliseconds"):
        encode(retry=retry)
    assert encode(retry=10**18 - 1) == b"retry: 999999999999999999\n\n"


# --- cost ------------------------------------------------------------------------------------------------------------


def scanned(monkeypatch: pytest.MonkeyPatch, chunks: Iterable[bytes], frames: int) -> int:
    """Count the bytes that the regular expression walks over while *chunks* are read; what is joined counts again."""
    total, scan = 0, sse._SCAN

    def counting(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
        nonlocal total
        total += len(data)
        return scan(data)

    monkeypatch.setattr(sse, "_SCAN", counting)
    assert len(read(chunks)[0]) == frames
    return total


@pytest.mark.parametrize(
    "body",
    [
        b"data: " + b"x" * 2**18 + b"\n\n",
        b"event: x\n" + b"data: line\n" * 20_000 + b"\n",
        b": " + b"x" * 2**18 + b"\ndata: a\r\r",
    ],
    ids=["line", "lines", "comment"],
)
@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("size", [1, 7, 4096, 2**20])
def test_work_is_linear_in_any_chunk_size(monkeypatch: pytest.MonkeyPatch, body: bytes, size: int) -> None:
    """Every byte is searched at most twice, once when its chunk comes and once when its line has ended."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    assert scanned(monkeypatch, chunks, frames=1) <= 2 * len(body)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    "piece", [b"data: ", b"event: ", b"event: a\n", b"event: a\ndata: b\n", b"data: a\n", b"\n", b"\r", b":", b"id\n\n"]
)
def test_time_is_linear_in_hostile_bodies(piece: bytes) -> None:
    """Eight times the bytes take about eight times as long (sixty-four, were it quadratic), also within one call."""

    def cost(size: int) -> float:
        body, best = piece * (size // len(piece)) + b"\n\n", float("inf")
        for _ in range(3):
            start = time.process_time()
            Decoder().feed(body)
            best = min(best, time.process_time() - start)
        return best

    cost(2**14)
    assert cost(2**19) < 30 * max(cost(2**16), 1e-4)


def peak(work: Callable[[], object]) -> int:
    """Run *work* and return how many bytes it had allocated at most, in all."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("piece", [b":", b"data: ", b"data: \n", b"data\n", b"data:xx\n", b"\xff"])
def test_memory_is_bounded_when_an_event_does_not_end(piece: bytes) -> None:
    """An endless event ends at the limit, having taken a small multiple of it, however short its lines are."""
    maximum, chunk = 2**17, piece * (2**12 // len(piece))

    def endless() -> None:
        decoder = Decoder(max_event_bytes=maximum)
        fed = 0
        with contextlib.suppress(LimitExceeded):
            while fed <= 10 * maximum:
                assert decoder.feed(chunk) == []
                fed += len(chunk)
        assert decoder.error is not None

    assert peak(endless) < 3 * maximum


@pytest.mark.usefixtures("untraced")
def test_memory_is_bounded_when_one_chunk_has_many_lines() -> None:
    """A huge chunk is read in pieces: half a million blank lines do not make as many matches at once."""
    chunk = b"\n" * 2**19
    assert peak(lambda: Decoder().feed(chunk)) < 8 * 2**20
