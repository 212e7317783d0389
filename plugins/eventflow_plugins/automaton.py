"""`Automaton`: one regular expression, compiled so that it reads each character of a text once.

It knows at any time where a match could have begun that may still come true, and no text makes it slow. Its matches
are those that `re.Pattern.finditer` gives for the whole text.
"""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs

from eventflow.errors import UsageError

__all__ = ["MAX_KEPT", "Automaton", "Pattern", "State"]

MAX_KEPT: Final = 200_000
"""Threads in the states that are kept: a text can invent states without end."""

_MAX_SIZE: Final = 20_000  # instructions of one pattern: counted repeats are written out
_LEAF_FLAGS: Final = re.IGNORECASE | re.ASCII | re.DOTALL
_CLASSES: Final = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_REFUSED: Final = {
    "GROUPREF": "a backreference",
    "GROUPREF_EXISTS": "a condition on a group",
    "POSSESSIVE_REPEAT": "a possessive repeat",
    "ATOMIC_GROUP": "an atomic group",
    "FAILURE": "a part that never matches",
}
_DOLLAR: Final = r"$ without MULTILINE, which looks at two characters; write \Z"

Leaf: TypeAlias = Callable[[str], Any]  # whether one character fits


@attrs.frozen
class Pattern:
    """A regular expression.

    Attributes:
        source: As `re` writes it.
        flags: Of `re`.
        check: Whether a match is one; after one that is not, the search goes on a character behind its start.
    """

    source: str
    flags: int = 0
    check: Callable[[str], bool] | None = None


class _Step:
    """What one character does to one automaton."""

    __slots__ = ("final", "matched", "sources", "state")

    def __init__(self, state: State, sources: tuple[int, ...], matched: int | None, *, final: bool) -> None:
        self.state = state  # after it
        self.sources = sources  # which thread of before each thread continues; -1: it began here
        self.matched = matched  # the thread whose match ends before this character, or None
        self.final = final  # the best match is known: nothing that could change it goes on


class State:
    """Threads of a search, the one to be preferred first; each is a place in the program and began at a character.

    Attributes:
        threads: Their places.
        behind: What the patterns that look behind say of the character before.
        pending: A match is known; the threads left are to be preferred to it.
    """

    __slots__ = ("behind", "pending", "steps", "threads")

    def __init__(self, threads: tuple[int, ...], behind: tuple[bool, ...], *, pending: bool) -> None:
        self.threads = threads
        self.behind = behind
        self.pending = pending
        self.steps: dict[str, _Step] = {}


class Automaton:
    """One pattern, compiled; its states are made when first met."""

    def __init__(self, pattern: Pattern) -> None:
        self.check = pattern.check
        self._states: dict[tuple[tuple[int, ...], tuple[bool, ...], bool], State] = {}
        self._kept = 0
        self._name = f"the pattern {repr(pattern.source)[:100]}"
        self._program: list[tuple[str, Any, Any]] = [("match", None, None)]
        self._behind: list[Leaf] = []
        try:
            re.compile(pattern.source, pattern.flags)  # its own errors first
            self._parser: Any = importlib.import_module("re._parser")  # the only one that always agrees with `re`
            tree: Any = self._parser.parse(pattern.source, pattern.flags)
            if tree.getwidth()[0] == 0:
                raise UsageError(f"{self._name} matches the empty text, which is everywhere")
            self._start = self._sequence(tree, tree.state.flags, 0)
        except (re.error, OverflowError, RecursionError, ValueError) as error:
            raise UsageError(f"{self._name} does not compile: {error}") from error

    def idle(self, before: str) -> State:
        """The state in which nothing has begun, behind the character *before* (``""`` at the start)."""
        return self._state((), before, pending=False)

    def step(self, state: State, char: str) -> _Step:
        """What *char* does in *state*; ``""`` is the end of the text."""
        step = state.steps.get(char)
        if step is None:
            if self._kept > MAX_KEPT:
                self._forget()
            step = state.steps[char] = self._find(state, char)
            self._kept += 1 + len(step.sources)
        return step

    def _forget(self) -> None:
        self._kept = 0
        for state in list(self._states.values()):  # other threads may add some meanwhile
            state.steps.clear()
        self._states.clear()

    def _state(self, threads: tuple[int, ...], before: str, *, pending: bool) -> State:
        behind = tuple(bool(leaf(before)) for leaf in self._behind)
        key = threads, behind, pending
        return self._states.get(key) or self._states.setdefault(key, State(threads, behind, pending=pending))

    def _find(self, state: State, char: str) -> _Step:
        going: dict[int, int] = {}  # place: which thread goes on there, the one to be preferred
        matched: int | None = None
        seen: set[int] = set()
        threads = [*enumerate(state.threads)]
        if not state.pending:
            threads.append((-1, self._start))
        for thread, place in threads:
            stack = [place]
            while stack and matched is None:
                place = stack.pop()
                if place in seen:
                    continue
                seen.add(place)
                kind, what, then = self._program[place]
                if kind == "char":
                    if char and what(char):
                        going.setdefault(then, thread)
                elif kind == "split":
                    stack.extend(reversed(what))
                elif kind == "assert":
                    if what(state.behind, char):
                        stack.append(then)
                else:
                    matched = thread
            if matched is not None:  # what comes behind is not preferred to it
                break
        pending = state.pending or matched is not None
        return _Step(
            self._state(tuple(going), char, pending=pending),
            tuple(going.values()),
            matched,
            final=pending and not going,
        )

    # --- compiling: from the end to the start ------------------------------------------------------------------------

    def _refuse(self, what: str) -> UsageError:
        return UsageError(f"{self._name} has {what}: that cannot be found in text that comes in pieces")

    def _add(self, kind: str, what: Any, then: Any = None) -> int:
        if len(self._program) >= _MAX_SIZE:
            raise UsageError(f"{self._name} is too large: its counted repeats take more than {_MAX_SIZE:,} steps")
        self._program.append((kind, what, then))
        return len(self._program) - 1

    def _sequence(self, items: Any, flags: int, then: int) -> int:
        for operation, about in reversed(list(items)):
            then = self._item(operation.name, about, flags, then)
        return then

    def _item(self, name: str, about: Any, flags: int, then: int) -> int:
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._add("char", _leaf(name, about, flags), then)
        if name == "BRANCH":
            return self._add("split", tuple(self._sequence(branch, flags, then) for branch in about[1]))
        if name == "SUBPATTERN":
            _, added, removed, items = about
            return self._sequence(items, (flags | added) & ~removed, then)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(about, flags, then, greedy=name == "MAX_REPEAT")
        if name == "AT":
            return self._add("assert", self._position(about.name, flags), then)
        if name in ("ASSERT", "ASSERT_NOT"):
            return self._add("assert", self._look(about, flags, wanted=name == "ASSERT"), then)
        raise self._refuse(_REFUSED.get(name, name))

    def _repeat(self, about: Any, flags: int, then: int, *, greedy: bool) -> int:
        low, high, items = about
        if high > 1 and items.getwidth()[0] == 0:
            raise self._refuse("a repeat of something that may be empty")
        if high == self._parser.MAXREPEAT:
            place = self._add("split", ())
            inner = self._sequence(items, flags, place)
            self._program[place] = "split", (inner, then) if greedy else (then, inner), None
        else:
            place = then
            for _ in range(high - low):
                inner = self._sequence(items, flags, place)
                place = self._add("split", (inner, then) if greedy else (then, inner))
        for _ in range(low):
            place = self._sequence(items, flags, place)
        return place

    def _position(self, name: str, flags: int) -> Callable[[tuple[bool, ...], str], bool]:
        if name in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
            word = _leaf("IN", [("CATEGORY", "CATEGORY_WORD")], flags)
            before, wanted = self._looking_behind(word), name == "AT_BOUNDARY"
            return lambda behind, char: (behind[before] != bool(word(char))) is wanted
        multiline = bool(flags & re.MULTILINE)
        if name == "AT_BEGINNING_STRING" or (name == "AT_BEGINNING" and not multiline):
            before = self._looking_behind(operator.not_)
            return lambda behind, char: behind[before]
        if name == "AT_BEGINNING":
            before = self._looking_behind(lambda char: char in ("", "\n"))
            return lambda behind, char: behind[before]
        if name == "AT_END_STRING":
            return lambda behind, char: not char
        if not multiline:
            raise self._refuse(_DOLLAR)
        return lambda behind, char: char in ("", "\n")

    def _look(self, about: Any, flags: int, *, wanted: bool) -> Callable[[tuple[bool, ...], str], bool]:
        direction, items = about
        if len(items) != 1 or items[0][0].name not in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            raise self._refuse("a look ahead or behind at anything but one character")
        leaf = _leaf(items[0][0].name, items[0][1], flags)
        if direction > 0:
            return lambda behind, char: bool(char and leaf(char)) is wanted
        before = self._looking_behind(leaf)
        return lambda behind, char: behind[before] is wanted

    def _looking_behind(self, leaf: Leaf) -> int:
        self._behind.append(leaf)
        return len(self._behind) - 1


def _leaf(name: str, about: Any, flags: int) -> Leaf:
    """What matches one character, by `re` itself: it knows the case of letters, and what a digit is."""
    if name == "ANY":
        source = "."
    elif name == "IN":
        source = "[" + "".join(_member(getattr(kind, "name", kind), what) for kind, what in about) + "]"
    else:
        source = f"[{'^' if name == 'NOT_LITERAL' else ''}{_character(about)}]"
    return re.compile(source, flags & _LEAF_FLAGS).fullmatch


def _member(kind: str, what: Any) -> str:
    if kind == "NEGATE":
        return "^"
    if kind == "LITERAL":
        return _character(what)
    if kind == "RANGE":
        return f"{_character(what[0])}-{_character(what[1])}"
    return _CLASSES[getattr(what, "name", what)]


def _character(code: int) -> str:
    return f"\\U{code:08x}"
