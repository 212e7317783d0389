"""Texts that grow."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow.pieces import Pieces

LONG = st.tuples(st.sampled_from("aé\U0001f600"), st.integers(4_000, 5_000)).map(lambda drawn: drawn[0] * drawn[1])
PIECE: st.SearchStrategy[str] = st.text(max_size=3) | LONG


@given(st.lists(PIECE), st.lists(PIECE), st.lists(st.integers(0, 600), max_size=3))
def test_pieces_when_any_are_added(first: list[str], added: list[str], repeats: list[int]) -> None:
    """They are the text that all of them make up, read at any moment; each says how much longer it became."""
    pieces, text = Pieces(*first), "".join(first)
    for number in [*repeats, 1]:
        for piece in added:
            for each in [piece] * number if len(piece) < 4_000 else [piece]:
                assert pieces.add(each) == len(each)
                text += each
        assert (pieces.size, bool(pieces)) == (len(text), bool(text))
        assert pieces.equal(text)
        assert str(pieces) == text
        assert pieces.equal(text)


@given(st.lists(PIECE, min_size=1), st.data())
def test_pieces_when_compared_with_another_text(added: list[str], data: st.DataObject) -> None:
    """A text that differs anywhere, or is longer or shorter, is not equal."""
    pieces, text = Pieces(*added), "".join(added)
    if text:
        place = data.draw(st.integers(0, len(text) - 1))
        assert not pieces.equal(text[:place] + ("b" if text[place] == "c" else "c") + text[place + 1 :])
        assert not pieces.equal(text[:-1])
    assert not pieces.equal(text + "x")
    assert pieces.equal(text)


@given(st.lists(PIECE), st.text(), st.text(min_size=1))
def test_pieces_when_settled(added: list[str], whole: str, more: str) -> None:
    """The whole takes the place of what came before, and what comes after it goes behind."""
    pieces = Pieces(*added)
    assert pieces.settle(whole) == len(whole) - sum(map(len, added))
    assert str(pieces) is whole
    pieces.add(more)
    assert str(pieces) == whole + more


@pytest.mark.parametrize("size", [4, 100, 5_000])
def test_memory_when_pieces_are_many(size: int) -> None:
    """What is held is little more than the text; strings of their own for all tokens would be many times that."""
    pieces, count = Pieces(), 400_000 // size
    tracemalloc.start()
    try:
        for number in range(count):
            pieces.add(str(number % 10) * size)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 400_000 <= held < 1.1 * 400_000
    assert pieces.size == 400_000
