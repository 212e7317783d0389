"""`Patterns` and `Scan`: the matches of `re`, however the text is cut; and what is refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventflow.errors import UsageError
from eventflow_plugins.matching import Pattern, Patterns, Scan

# --- the reference: `re` over the whole text -------------------------------------------------------------------------


def reference(sources: Sequence[str], text: str) -> str:
    """Replace what any of the patterns finds in the whole text; what overlaps is replaced as one."""
    given, shown, covered = "", 0, -1
    for start, end in sorted(match.span() for source in sources for match in re.finditer(source, text)):
        if start >= covered:
            given += text[shown:start] + "#"
        shown, covered = max(shown, end), max(covered, end)
    return given + text[shown:]


def cut(text: str, places: Sequence[int]) -> list[str]:
    """The text in pieces, empty ones among them."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def scanned(patterns: Patterns, pieces: Sequence[str], limit: int = 1000) -> str:
    """What comes out of the pieces."""
    scan = Scan(patterns, "#", limit)
    return "".join(scan.feed(piece) for piece in pieces) + scan.finish()


def compiled(*sources: str) -> Patterns:
    """Patterns without flags."""
    return Patterns([Pattern(source) for source in sources])


texts = st.text("aabbcd1 \n\u00e9\u0130", max_size=24)
places = st.lists(st.integers(0, 100), max_size=24)
NASTY = [
    r"abcd|ab",
    r"ab|abcd",
    r"\d{3,}",
    r"\bab\b",
    r"\B1",
    r"a(?:b*c)?",
    r"[ab](?:b*c)??",
    r"ab(?:cd)?",
    r"a.*?b",
    r"a.*b",
    r"(?s)b.+1",
    r"(?<!a)b+(?!c)",
    r"(?<=[a1])b(?=\d)",
    r"(?i)AB|\u00e9|i",
    r"(?a)\w\W",
    r"\Aa|b\Z",
    r"^a",
    r"(?m)^a|b$",
    r"(?:a|ab)(?:c|bcd)",
    r"[^a]b{2,3}?",
    r"a+b|a+c|ba",
    r"(?:ab|a)+1",
    r"(?i:a)[^\s\d]c|\S\D",
    r"(?x) a b  # spaces do not count",
    r"(a){2}|(?P<name>b){,2}c",
]


def leaves() -> st.SearchStrategy[str]:
    """What matches one character."""
    return st.sampled_from(["a", "b", "c", ".", r"\d", r"\w", "[ab]", "[^a]", "1"])


def expressions() -> st.SearchStrategy[str]:
    """Expressions that match no empty text, with repeats of every kind."""
    optional = st.tuples(leaves(), st.sampled_from(["*", "?", "*?", "??", "{0,2}", "{0,2}?"])).map("".join)
    repeat = st.sampled_from(["", "", "+", "+?", "{1,2}", "{2}", "{2,}?"])

    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        either = st.lists(inner, min_size=2, max_size=3).map("|".join)
        row = st.lists(inner | optional, max_size=2).map("".join)
        return st.tuples(st.one_of(either, st.tuples(inner, row).map("".join)), repeat).map(
            lambda parts: f"(?:{parts[0]}){parts[1]}"
        )

    core = st.recursive(leaves(), grown, max_leaves=5)
    around = st.sampled_from(["", "", "", r"\b", r"\B", "(?<!a)", "(?<=b)", "^", "(?m:^)"])
    behind = st.sampled_from(["", "", "", r"\b", r"\B", "(?!a)", "(?=b)", r"\Z", "(?m:$)"])
    return st.tuples(around, core, behind).map("".join)


# --- properties ------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(NASTY), min_size=1, max_size=3, unique=True), texts, places)
@example([r"abcd|ab"], "xabcabcd", [3, 4, 7])
@example([r"a(?:b*c)?", r"\bab\b"], "abbbb ab", [1, 2, 3, 4, 5, 6])
def test_scan_when_patterns_are_nasty(sources: list[str], text: str, cuts: list[int]) -> None:
    """However the text is cut, what comes out is what `re` would have left of the whole."""
    assert scanned(compiled(*sources), cut(text, cuts)) == reference(sources, text)


@given(st.lists(expressions(), min_size=1, max_size=2), texts, places)
def test_scan_when_patterns_are_any(sources: list[str], text: str, cuts: list[int]) -> None:
    """The same for patterns made up at random."""
    assert scanned(compiled(*sources), cut(text, cuts)) == reference(sources, text)


@given(st.lists(st.sampled_from(NASTY), min_size=1, max_size=3), texts, places, st.integers(1, 6))
@example([r"a.*b"], "aaaaaaab" * 3, [3, 9, 10], 4)
def test_scan_when_the_limit_is_reached(sources: list[str], text: str, cuts: list[int], limit: int) -> None:
    """It comes to the same however the text is cut; and never more is held than the limit."""
    patterns = compiled(*sources)
    whole = scanned(patterns, [text], limit)
    assert scanned(patterns, cut(text, cuts), limit) == whole
    scan = Scan(patterns, "", limit)
    for end in range(len(text)):
        scan.feed(text[end])
        assert end + 1 - scan._shown <= limit


@given(texts, places)
def test_scan_when_it_is_held_back(text: str, cuts: list[int]) -> None:
    """Only what could begin a match is: everything before the last such place has come out."""
    scan, fed, out = Scan(compiled("ab+c"), "#", 1000), "", ""
    for piece in cut(text, cuts):
        out += scan.feed(piece)
        fed += piece
        begun = re.search(r"a(b*\Z|b+c\Z)", fed)
        assert out == reference(["ab+c"], fed[: begun.start()] if begun else fed)


@given(st.lists(st.text("ab", max_size=5), max_size=400))
def test_scan_when_a_text_is_long(pieces: list[str]) -> None:
    """What is done with is forgotten, and nothing changes by that."""
    pieces = [piece + " filler" * 9 for piece in pieces]
    scan = Scan(compiled(r"\bab+\b"), "#", 100)
    out = ""
    for piece in pieces:
        out += scan.feed(piece)
        assert len(scan._text) < 1000
    assert out + scan.finish() == reference([r"\bab+\b"], "".join(pieces))


# --- the limit, exactly ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text", "given"),
    [
        (r"a+b", "xaaab.", "x#."),  # one less than the limit
        (r"a+b", "xaaaaaaaaab.", "x#."),  # it comes true: all of it goes
        (r"a+b", "xaaaaaax.", "x#aax."),  # it does not: what was held is gone, the rest goes on
        (r"a+", "aaaaaaaaaaaa a", "# #"),
        (r"a{2,5}", "aaaaaaaaaaaa", "###"),
        (r"a[ab]*c|b", "aaaabbb", "###"),  # the first of the second kind is next to what was replaced
    ],
)
def test_scan_when_a_match_is_longer_than_the_limit(source: str, text: str, given: str) -> None:
    """It is replaced as far as it has come, and what follows as if it had begun there."""
    for pieces in ([text], list(text)):
        assert scanned(compiled(source), pieces, 4) == given


def test_scan_when_a_match_is_no_match() -> None:
    """What a check refuses goes on, and the search goes on a character behind its start."""
    patterns = Patterns([Pattern(r"\d{2}", check=lambda text: text in ("23", "56"))])
    for pieces in (["12345 6 56 1 23"], list("12345 6 56 1 23")):
        assert scanned(patterns, pieces) == "1#45 6 # 1 #"


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "matches the empty text"),
        ("a*", "matches the empty text"),
        (r"\b", "matches the empty text"),
        ("(", "does not compile: missing"),
        ("a{2,1}", "does not compile"),
        ("a" + "{1000}" + "{1000}", "does not compile"),
        ("(?:a{1000}){1000}", "is too large"),
        ("(" * 3000 + "a" + ")" * 3000, "does not compile"),
        (r"(a)\1", "a backreference"),
        (r"(a)?b(?(1)c|d)", "a condition on a group"),
        ("a++", "a possessive repeat"),
        ("(?>a)", "an atomic group"),
        ("a(?:b?)*", "a repeat of something that may be empty"),
        ("a$", r"$ without MULTILINE, which looks at two characters; write \Z"),
        ("a(?=bc)", "a look ahead or behind at anything but one character"),
        (r"(?<!^)a", "a look ahead or behind at anything but one character"),
    ],
)
def test_patterns_when_they_cannot_be(source: str, why: str) -> None:
    """The message names the pattern and what is wrong with it."""
    with pytest.raises(UsageError) as caught:
        compiled("fine", source)
    assert why in str(caught.value)
    assert f"the pattern {repr(source)[:100]}" in str(caught.value)


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_patterns_when_a_text_would_make_others_slow() -> None:
    """A character costs no more for what came before it: the states are few."""
    patterns = compiled(r"(?:a|b|ab)+c", r"(?:a+)+d")
    assert scanned(patterns, ["ab" * 5000], 10**6) == "ab" * 5000
    assert len(patterns._joints) < 20


def test_patterns_when_a_text_invents_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is thrown away when it gets too much, by threads at the same time too; and nothing changes."""
    for module in ("automaton", "matching"):
        monkeypatch.setattr(f"eventflow_plugins.{module}.MAX_KEPT", 20)
    patterns = compiled(r"\w{2}-\w", r"b.d")
    text = "".join(map(chr, range(0x4E00, 0x4E80))) + "ab-c bcd " * 20
    want, failures = reference([r"\w{2}-\w", r"b.d"], text), list[str]()

    def work() -> None:
        for size in (1, 7, 500):
            given = scanned(patterns, [text[start : start + size] for start in range(0, len(text), size)])
            if given != want:
                failures.append(given)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert patterns._kept < 40
    assert sum(len(joint.ways) for joint in patterns._joints.values()) < 40
    assert all(len(automaton._states) < 60 for automaton in patterns.automatons)
