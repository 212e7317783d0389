"""`eventflow.printable`: foreign text that is safe to show."""

from __future__ import annotations

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import DIRECTION

from eventflow.printable import printable


def anything() -> st.SearchStrategy[str]:
    """Text that is full of what must be escaped, lone surrogates included."""
    unsafe = st.sampled_from("\x00\x07\b\t\n\x0b\r\x1b\x7f\x85\x9b\x9d\u2028\u2029\ud800\udfff\\" + DIRECTION)
    return st.text(unsafe | st.characters(), max_size=60)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße 👩‍🚀 \u00a0日本語 שלום", "Grüße 👩‍🚀 \u00a0日本語 שלום"),
        ("C:\\new", "C:\\new"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x1b]52;c;aGk=\x07", "\\u001b]52;c;aGk=\\u0007"),
        ("\x9b2J\x7f\x00", "\\u009b2J\\u007f\\u0000"),
        ("\u202eevil\u2028", "\\u202eevil\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_text_is_shown_with_visible_escapes(text: str, shown: str) -> None:
    """Controls, direction marks, line separators and lone surrogates are escaped; everything else stays."""
    assert printable(text) == shown


def test_newlines_and_tabs_stay_when_asked_for() -> None:
    """Text of several lines keeps them, and nothing else that moves the cursor."""
    assert printable("a\n\tb\r\x1b[A\x0bc", newlines=True) == "a\n\tb\\r\\u001b[A\\u000bc"


def test_every_unsafe_character_is_escaped_and_no_other() -> None:
    """All of Unicode, one by one, against the categories and the list of direction marks."""
    for code in range(0x110000):
        character = chr(code)
        unsafe = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in DIRECTION
        assert (printable(character) != character) == unsafe, hex(code)


@given(anything())
def test_what_is_shown_is_one_harmless_line(text: str) -> None:
    """It can be encoded, has one line whoever counts, and escaping twice is once."""
    shown = printable(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in shown)
    assert printable(shown) == shown


@given(anything(), anything())
def test_pieces_are_escaped_as_the_whole_is(first: str, second: str) -> None:
    """A stream's deltas can be escaped one by one."""
    for newlines in (False, True):
        pieces = [printable(piece, newlines=newlines) for piece in (first, second)]
        assert printable(first + second, newlines=newlines) == "".join(pieces)


@given(
    st.recursive(
        anything() | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(anything(), inner)
    )
)
def test_escaped_json_is_the_same_json(value: object) -> None:
    """One function serves JSON Lines too; two halves of a character are joined, as JSON itself joins them."""
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == json.loads(json.dumps(value))


def test_time_is_linear_in_the_text() -> None:
    """Ten million characters take well under the time of a quadratic pass."""
    began = time.perf_counter()
    assert printable("a" * 10_000_000 + "\x1b").endswith("a\\u001b")
    assert time.perf_counter() - began < 5
