"""The incremental JSON parser: `json.loads` is the oracle of the end, a relation "is a start of" that of the way."""

from __future__ import annotations

import copy
import gc
import json
import re
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventflow.errors import DecodeError, EventflowError, LimitExceeded, UsageError
from eventflow.partial_json import PartialParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from eventflow.events import JSON

unhurried = settings(deadline=None)  # the machine may be busy; the tests of time are below

# --- what is fed ---

characters = st.one_of(st.characters(exclude_categories=()), st.sampled_from('"\\/\n\t\x00\x7fué😀\ud83d\ude00'))
strings = st.text(characters, max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[JSON] = st.recursive(
    st.none() | st.booleans() | numbers | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=12,
)
indents = st.sampled_from([None, 0, 2, "\t", " \r\n"])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """The text of one JSON value, in some layout."""
    space = st.text(" \t\r\n", max_size=2)
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()), indent=draw(indents))
    return draw(space) + text + draw(space)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The text of one JSON value with a few characters removed, replaced or put in."""
    text = draw(documents())
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(fragments) + text[start + draw(st.integers(0, 2)) :]
    return text


words = ["true", "false", "null", "NaN", "-Infinity", "E+", "\\u", "\\ud83d", "\\ude00", "[]", '":']
marks = [*'{}[]:,"01-.e', *" \n\x01\x0b\ufeff", *"abdnrtuxDE\\/éé²"]
fragments = st.lists(st.sampled_from(words + marks), max_size=8).map("".join)
garbage = fragments | damaged() | st.text(max_size=8)


def cut(text: str, places: Iterable[int]) -> list[str]:
    """*text* in pieces, cut at *places* (any order, any range, doubled places make empty pieces)."""
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


places = st.lists(st.integers(0, 10_000), max_size=12)


# --- what is expected ---


def loads(text: str) -> JSON:
    """`json.loads` without its extensions: what RFC 8259 does not know is a ValueError."""

    def refuse(constant: str) -> JSON:
        raise ValueError(constant)

    value: JSON = json.loads(text, parse_constant=refuse)
    return value


def same(left: JSON, right: JSON) -> bool:
    """Whether two values are equal in type, in the order of keys and in the sign of zeros."""
    return repr(left) == repr(right)


def is_start_of(part: JSON, whole: JSON) -> bool:
    """Whether *part* may be shown while *whole* arrives: equal but for the last entry, which is itself a start."""
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and starts_in_order(part, whole)
    if isinstance(part, dict) and isinstance(whole, dict):
        in_order = list(part) == list(whole)[: len(part)]
        return in_order and starts_in_order(list(part.values()), list(whole.values()))
    return same(part, whole)


def starts_in_order(parts: list[JSON], wholes: list[JSON]) -> bool:
    """Whether all *parts* but the last stand first in *wholes*, and the last is a start of what stands at its place."""
    return same(parts[:-1], wholes[: len(parts[:-1])]) and (not parts or is_start_of(parts[-1], wholes[len(parts) - 1]))


def parse(*pieces: str, max_depth: int | None = 128) -> PartialParser:
    """A parser that was fed *pieces* and not closed."""
    parser = PartialParser(max_depth)
    for piece in pieces:
        parser.feed(piece)
    return parser


def outcome(pieces: Iterable[str]) -> tuple[str, str | None, bool, bool]:
    """Everything a user can see after feeding *pieces*: value, the error without its excerpt, started, complete."""
    parser = PartialParser(max_depth=6)
    error = None
    try:
        for piece in pieces:
            parser.feed(piece)
    except EventflowError as raised:
        error = f"{type(raised).__name__}: {raised.message.partition(', got')[0]}"
    return repr(parser.value), error, parser.started, parser.complete


def offset(error: EventflowError) -> int:
    """The offset that the message names."""
    found = re.search(r"at offset (\d+)", error.message)
    assert found
    return int(found[1])


# --- properties ---


@unhurried
@given(documents(), places)
def test_value_is_that_of_json_loads_when_the_text_is_whole(text: str, places: list[int]) -> None:
    """Any value in any layout, cut anywhere, ends as `json.loads` reads it."""
    parser = parse(*cut(text, places))
    assert same(parser.close(), loads(text))
    assert same(parser.value, loads(text))
    assert (parser.complete, parser.started) == (True, True)


@unhurried
@given(documents())
def test_value_is_a_start_of_the_final_value_after_every_character(text: str) -> None:
    """What is shown never has to be taken back: it is a start of what is shown later, and so of the whole."""
    later = loads(text)
    parser = PartialParser()
    shown: list[JSON] = []
    for character in text:
        parser.feed(character)
        if parser.started:
            shown.append(copy.deepcopy(parser.value))
        assert parser.started or parser.value is None
    assert same(parser.close(), later)
    for value in reversed(shown):
        assert is_start_of(value, later)
        later = value


@unhurried
@given(st.data())
def test_value_shows_all_that_is_certain_when_the_text_stops_anywhere(data: st.DataObject) -> None:
    """The parser holds nothing back that the module's docstring calls certain."""
    text = data.draw(documents())
    text = text[: data.draw(st.integers(0, len(text) - 1))]
    parser = parse(text)
    assert same([parser.value] if parser.started else [], certain(text))


def certain(text: str) -> list[JSON]:
    """The value of the start of a document by brute force, in a list that is empty while nothing is known.

    Close all that is open behind *text*, and cut its end back until that parses: what goes is what is not certain.
    """
    if not in_string(text):
        text = re.sub(r"(?<![-+.0-9eE])-?[0-9][-+.0-9eE]*\Z", "", text)  # a number at the very end may go on
    for end in range(len(text), -1, -1):
        start, closers = text[:end], closing(text[:end])
        if in_string(start):
            start = re.sub(r"(?<!\\)((?:\\\\)*)\\u[dD][89abAB]..\Z", r"\1", start) + '"'
        if is_json(start + closers):
            return [loads(start + closers)]
    return []


def without_strings(text: str) -> str:
    """*text* without its strings; of one that is not closed its quote stays."""
    return re.sub(r'"(?:[^"\\]|\\.)*("|\\?\Z)', lambda found: "" if found[1] == '"' else '"', text, flags=re.DOTALL)


def in_string(text: str) -> bool:
    """Whether a string is under way at the end of *text*."""
    return without_strings(text).endswith('"')


def closing(text: str) -> str:
    """The brackets that close what *text* leaves open."""
    closers = ""
    for mark in re.findall(r"[][{}]", without_strings(text)):
        closers = {"{": "}", "[": "]"}[mark] + closers if mark in "[{" else closers[1:]
    return closers


def is_json(text: str) -> bool:
    """Whether *text* is JSON."""
    try:
        loads(text)
    except ValueError:
        return False
    return True


@unhurried
@given(garbage, places)
@example("[truth", [4])
@example('"\\ud83d\\u', [7])
@example("[1.5.", [4])
@example("[[[[[[[", [6])
def test_outcome_is_the_same_however_the_text_is_cut(text: str, places: list[int]) -> None:
    """Value, error and its offset depend on the characters, not on the pieces they came in."""
    assert outcome([text]) == outcome(cut(text, places)) == outcome(text)


@unhurried
@given(garbage, places)
@example("\ufeff1", [])
@example("1e999", [])
@example('"\x7f\u2028"', [])
@example("٣", [])
@example("1٣", [])
@example('{"a":1,"a":"2"}', [])
def test_text_is_refused_exactly_when_json_loads_refuses_it(text: str, places: list[int]) -> None:
    """The grammar is RFC 8259: what `json.loads` takes (but for its constants) passes, all else is a DecodeError."""
    parser = PartialParser(max_depth=10_000)
    try:
        expected = loads(text)
    except ValueError:
        with pytest.raises(DecodeError):
            close(parser, cut(text, places))
        assert not parser.complete
    else:
        assert same(close(parser, cut(text, places)), expected)


def close(parser: PartialParser, pieces: Iterable[str]) -> JSON:
    """The value of *parser* after *pieces* and the end of the text."""
    for piece in pieces:
        parser.feed(piece)
    return parser.close()


# What can end any literal, escape, key or number, and what an object needs after it.
ENDS = [
    "",
    *("rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l", "0"),
    *(zeros + '"' for zeros in ("", "0", "00", "000", "0000", "n", '"')),
]
ENDS += [end + after for end in ENDS for after in (":0", "0")]


@unhurried
@given(garbage)
@example('{"a":"\\u12')
@example("[-")
@example("1.5e-")
@example("trx")
def test_what_feed_lets_through_can_still_become_json(text: str) -> None:
    """An error comes with the first character that no JSON text goes on with, not later."""
    parser = PartialParser()
    for count, character in enumerate(text, 1):
        try:
            parser.feed(character)
        except DecodeError:
            return
        assert any(is_json(text[:count] + end + closing(text[:count])) for end in ENDS)


@unhurried
@given(garbage, places)
@example("[[[[[", [])
@example("9" * 5_000, [])
def test_error_is_raised_again_when_more_is_fed(text: str, places: list[int]) -> None:
    """After an error every further call raises the same one, and the value stays as it was."""
    parser = PartialParser(max_depth=4)
    try:
        close(parser, cut(text, places))
    except EventflowError as raised:
        error, before = raised, repr(parser.value)
        for again in (lambda: parser.feed("]"), parser.close, lambda: parser.feed("")):
            with pytest.raises(type(error)) as repeated:
                again()
            assert repeated.value is error
        assert repr(parser.value) == before
        assert not parser.complete


@unhurried
@given(st.integers(0, 20), st.integers(0, 20), st.sampled_from(["[", '{"a":']))
def test_depth_is_limited_when_more_is_open_than_allowed(depth: int, maximum: int, opening: str) -> None:
    """As many containers as allowed may be open at once; one more is an error that says how many there were."""
    parser = PartialParser(maximum)
    if depth <= maximum:
        parser.feed(opening * depth)
    else:
        with pytest.raises(LimitExceeded, match="json_depth") as raised:
            parser.feed(opening * depth)
        assert (raised.value.limit, raised.value.maximum, raised.value.seen) == ("json_depth", maximum, maximum + 1)


@pytest.mark.parametrize(
    "around", ['"%s"', '"\\%s"', '"\\u00%s0"', '"\\ud8%s0"', "%s1", "1%s", "[1%s]", "{%s}", "tr%se"]
)
def test_every_character_is_taken_when_json_loads_takes_it(around: str) -> None:
    """All of Latin and its neighbours, in every place where the grammar asks for one of a set of characters."""
    for character in map(chr, range(0x300)):
        text = around % character
        assert ends_well([text]) == ends_well(text) == is_json(text), text


def ends_well(pieces: Iterable[str]) -> bool:
    """Whether a parser takes *pieces* as a whole text."""
    try:
        close(PartialParser(), pieces)
    except DecodeError:
        return False
    return True


# --- the time it takes ---


def seconds(work: Callable[[int], object], size: int) -> float:
    """The processor time of *work*, the best of three: others use the machine too."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work(size)
        times.append(time.process_time() - start)
    return min(times)


def growing(begin: str, *pieces: str, read: bool = True) -> Callable[[int], None]:
    """What feeds *pieces* again and again behind *begin*, and looks at the value each time."""

    def work(size: int) -> None:
        parser = parse(begin)
        for _ in range(size):
            for piece in pieces:
                parser.feed(piece)
            if read:
                parser.value  # noqa: B018

    return work


WORK = {
    "a string that nobody looks at": growing('{"code": "', "0123456789", read=False),
    "a string": growing('{"code": "', "0123456789"),
    "escapes and four bytes a character": growing('"', "é😀\\n\\u00e9"),
    "a number": growing("[0.", "0123456789"),
    "a key": growing('{"', "0123456789"),
    "an array of small objects": growing("[", '{"a": [true, 1', "]}, "),
    "a string in one piece": lambda size: parse('"' + "\\n12345678" * size + '"'),
}


@pytest.fixture
def undisturbed(untraced: None) -> Iterator[None]:
    """Neither garbage collection nor tracing: under a trace function CPython 3.11 copies a str that it extends."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("what", WORK)
def test_time_is_linear_when_the_text_grows(what: str) -> None:
    """Eight times the text takes about eight times the time; quadratic it would be 64."""
    work = WORK[what]
    assert any(seconds(work, 40_000) / seconds(work, 5_000) < 24 for _ in range(3))


# --- examples ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        (" ", None),
        ("tru", None),
        ("12", None),
        ('"', ""),
        ("{", {}),
        ('{"ci', {}),
        ('{"city"', {}),
        ('{"city": ', {}),
        ('{"city": "', {"city": ""}),
        ('{"city": "Par', {"city": "Par"}),
        ('{"city": "Paris", "days": [1, 2', {"city": "Paris", "days": [1]}),
        ('{"city": "Paris", "days": [1, 2 ', {"city": "Paris", "days": [1, 2]}),
        ('{"a": {"b": [[', {"a": {"b": [[]]}}),
        ("[1, -", [1]),
        ("[1, 1.5e", [1]),
        ("[nul", []),
        ("[null", [None]),
        ("[true, fals", [True]),
        ('["a\\', ["a"]),
        ('["a\\u00e', ["a"]),
        ('["a\\u00e9', ["aé"]),
        ('["a\\ud83d', ["a"]),
        ('["a\\ud83d\\', ["a"]),
        ('["a\\ud83d\\uDe0', ["a"]),
        ('["a\\ud83d\\ude00', ["a😀"]),
        ('["a\\ud83d\\ud8', ["a\ud83d"]),
        ('["a\\ud83dx', ["a\ud83dx"]),
        ('["a\\ud83d"', ["a\ud83d"]),
        ('["a\\ud83d\\n', ["a\ud83d\n"]),
        ('["a\\ud83d\\ud83d', ["a\ud83d"]),
        ('["a\\ud83d\\u00e9', ["a\ud83dé"]),
        ('["a\\ude00', ["a\ude00"]),
        ('["\\\\ud83d', ["\\ud83d"]),
        ('{"a": 1, "b": 2, "a": "x', {"a": "x", "b": 2}),
    ],
)
def test_value_shows_what_is_certain_when_the_text_stops(text: str, value: JSON) -> None:
    """The rules of the module's docstring, one by one, in one piece and character by character."""
    assert same(parse(text).value, value)
    assert same(parse(*text).value, value)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("", False),
        ("12", False),
        ("12 ", True),
        ("null", True),
        ("true \n", True),
        ('"a', False),
        ('"a"', True),
        ("[1", False),
        ("[1]", True),
        ("{} ", True),
    ],
)
def test_complete_is_true_when_one_whole_value_was_read(text: str, complete: bool) -> None:
    """A number at the top level may go on; everything else is complete with its last character."""
    assert parse(text).complete is complete


def test_complete_is_true_when_close_ends_a_number() -> None:
    """The end of the text ends a bare number, and only then is it known."""
    parser = parse("-12.5", "e1")
    assert (parser.value, parser.started, parser.complete) == (None, False, False)
    assert parser.close() == -125.0
    assert (parser.value, parser.started, parser.complete) == (-125.0, True, True)


def test_started_tells_null_from_nothing_when_value_is_none() -> None:
    """None is the value of ``null`` and of no value at all: `started` is the difference."""
    parser = parse(" nul")
    assert (parser.value, parser.started) == (None, False)
    parser.feed("l")
    assert (parser.value, parser.started) == (None, True)


def test_containers_are_the_same_objects_when_read_again() -> None:
    """Reading does not copy: an array or object that was read before grows in place."""
    parser = parse('{"a": [1, ')
    value = parser.value
    assert isinstance(value, dict)
    inner = value["a"]
    parser.feed('2, "x')
    assert parser.value is value
    assert value["a"] is inner
    assert inner == [1, 2, "x"]


def test_strings_read_before_stay_as_they_were_when_more_comes() -> None:
    """A str is never changed under its reader, although the parser extends its own in place."""
    parser = parse('["a')
    seen = []
    for _ in range(3):
        parser.feed("b")
        value = parser.value
        assert isinstance(value, list)
        seen.append(value[0])
    assert seen == ["ab", "abb", "abbb"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "bad JSON at offset 0: expected a value, got 'x'"),
        ("[nulx", "bad JSON at offset 1: expected a value or ']', got 'nulx'"),
        ("[1,]", "bad JSON at offset 3: expected a value, got ']'"),
        ("[,", "bad JSON at offset 1: expected a value or ']', got ','"),
        ("[1}", "bad JSON at offset 2: expected ',' or ']', got '}'"),
        ("{1", "bad JSON at offset 1: expected a key or '}', got '1'"),
        ('{"a":1,}', "bad JSON at offset 7: expected a key, got '}'"),
        ('{"a";', "bad JSON at offset 4: expected ':', got ';'"),
        ('{"a":1]', "bad JSON at offset 6: expected ',' or '}', got ']'"),
        ('{"a\n', "bad JSON at offset 3: expected the rest of a key, got '\\n'"),
        ('"a\\x"', "bad JSON at offset 2: expected the rest of a string, got '\\\\x\"'"),
        ("[01", "bad JSON at offset 2: expected the rest of a number, got '1'"),
        ("[1.]", "bad JSON at offset 3: expected the rest of a number, got ']'"),
        ("[1.e5", "bad JSON at offset 3: expected the rest of a number, got 'e5'"),
        ("[+1", "bad JSON at offset 1: expected a value or ']', got '+1'"),
        ("1 2", "bad JSON at offset 2: expected nothing but whitespace, got '2'"),
        ("NaN", "bad JSON at offset 0: expected a value, got 'NaN'"),
        ("<html>" + "é" * 99, "bad JSON at offset 0: expected a value, got '<html>" + "\\xe9" * 34 + "…'"),
    ],
)
def test_message_says_where_and_what_when_the_text_is_bad(text: str, message: str) -> None:
    """What was expected, where, and the text that stood there instead, safe to print and short."""
    with pytest.raises(DecodeError) as raised:
        parse(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad JSON at offset 0: expected a value, but the text ends"),
        ("tru", "bad JSON at offset 3: expected a value, but the text ends"),
        ("-", "bad JSON at offset 1: expected the rest of a number, but the text ends"),
        ("[12", "bad JSON at offset 3: expected the rest of a number, but the text ends"),
        ('{"a": "b', "bad JSON at offset 8: expected the rest of a string, but the text ends"),
        ('["\\ud83d', "bad JSON at offset 8: expected the rest of a string, but the text ends"),
        ('{"a": "b"', "bad JSON at offset 9: expected ',' or '}', but the text ends"),
    ],
)
def test_close_raises_when_the_value_is_not_complete(text: str, message: str) -> None:
    """The offset is that of the end, also when the last characters were still held back; the value is not completed."""
    parser = parse(*text)
    before = repr(parser.value)
    with pytest.raises(DecodeError) as raised:
        parser.close()
    assert str(raised.value) == message
    assert repr(parser.value) == before


def test_offset_counts_over_all_pieces_when_an_escape_was_cut() -> None:
    """The offset is that of the whole text, and of the backslash for an escape."""
    with pytest.raises(DecodeError) as raised:
        parse(' ["abc', "\\", "u00", "zz")
    assert offset(raised.value) == 6


def test_value_stays_readable_when_the_text_is_bad() -> None:
    """All that came before the error is there, the string under way too."""
    parser = PartialParser()
    with pytest.raises(DecodeError):
        parser.feed('{"a": [1, 2], "b": "xy\x00z')
    assert parser.value == {"a": [1, 2], "b": "xy"}


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("end", ["", " ", "]"])
def test_integer_is_refused_when_python_does_not_convert_it(sign: str, end: str) -> None:
    """Python's limit on the digits of an integer is a DecodeError with the integer's offset, never a ValueError."""
    digits = sys.get_int_max_str_digits()
    start = "[" if end == "]" else ""
    assert close(PartialParser(), [start, sign + "9" * digits, end]) is not None
    parser = parse(start + sign + "9" * digits, "9")
    with pytest.raises(
        DecodeError, match=f"offset {len(start)}: an integer of {digits + len(sign) + 1} characters"
    ) as raised:
        close(parser, [end])
    assert isinstance(raised.value.__cause__, ValueError)
    assert parser.value == ([] if start else None)


def test_float_is_read_when_it_has_more_digits_than_an_integer_may() -> None:
    """The limit is one of integers; a float of any length is read in linear time."""
    assert close(PartialParser(), ["0." + "1" * 10_000, "1" * 10_000]) == 0.1111111111111111


@pytest.mark.parametrize("count", [998, 999, 1000, 1001, 1999, 2000])
@pytest.mark.parametrize("head", ["", "\\n"])
def test_surrogate_pair_is_joined_when_it_comes_after_many_escapes(count: int, head: str) -> None:
    """A run of escapes is read in portions, and no portion ends inside a pair."""
    text = f'"{head}' + "\\n" * count + '\\ud83d\\ude00"'
    assert parse(text).value == json.loads(text)


def test_depth_is_not_limited_when_the_limit_is_none() -> None:
    """None is what `Limits` calls no limit; nothing in the parser recurses."""
    assert parse("[" * 100_000, "]" * 100_000, max_depth=None).complete


def test_feed_is_wrong_use_when_the_parser_is_closed() -> None:
    """One parser reads one text; closing again is fine and gives the same value."""
    parser = parse("[1]")
    assert parser.close() == [1]
    assert parser.close() == [1]
    with pytest.raises(UsageError, match="after close"):
        parser.feed(" ")


def test_feed_does_nothing_when_the_piece_is_empty() -> None:
    """An empty delta is common on the wire; it changes nothing, in the middle of an escape either."""
    parser = parse("", '["\\u00', "", "e9", "", '"')
    assert parser.value == ["é"]


def test_parsers_share_nothing_when_there_are_two() -> None:
    """Calls stream interleaved: each has its parser."""
    first, second = parse('["a'), parse('{"b": "c')
    first.feed("x")
    second.feed("y")
    assert (first.value, second.value) == (["ax"], {"b": "cy"})
