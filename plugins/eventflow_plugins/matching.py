"""`Patterns`: regular expressions over text that comes in pieces, with the same matches as over the whole.

Every pattern is compiled to an automaton of its own, which reads each character once: it knows at any time where a
match could have begun that may still come true, and no text makes it slow. Its matches are those that
`re.Pattern.finditer` gives for the whole text. The automatons are run as one: their common states and the ways between
them are made when first met and kept.

What the standard library's own matcher and a matcher with partial matches cannot do: the first needs the whole text;
the second (PyPI, ``regex``) starts again with every piece, needs a time limit against texts that make it slow, and
takes a complete match as final where more text would have changed it.
"""

from __future__ import annotations

import importlib
import operator
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from eventflow.errors import UsageError

__all__ = ["Pattern", "Patterns", "Scan"]

_MAX_SIZE: Final = 20_000  # instructions of one pattern: counted repeats are written out
_MAX_KEPT: Final = 200_000  # threads in the states that are kept; a text can invent states without end
_TRIMMED: Final = 256  # characters that are done with are forgotten so many at a time
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
Pick: TypeAlias = Callable[[tuple[int, ...]], tuple[int, ...]]


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


# --- one pattern -----------------------------------------------------------------------------------------------------


class _Step:
    """What one character does to one automaton."""

    __slots__ = ("final", "matched", "sources", "state")

    def __init__(self, state: _State, sources: tuple[int, ...], matched: int | None, *, final: bool) -> None:
        self.state = state  # after it
        self.sources = sources  # which thread of before each thread continues; -1: it began here
        self.matched = matched  # the thread whose match ends before this character, or None
        self.final = final  # the best match is known: nothing that could change it goes on


class _State:
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


class _Automaton:
    """One pattern, compiled; its states are made when first met."""

    def __init__(self, pattern: Pattern) -> None:
        self.check = pattern.check
        self._states: dict[tuple[tuple[int, ...], tuple[bool, ...], bool], _State] = {}
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

    def idle(self, before: str) -> _State:
        """The state in which nothing has begun, behind the character *before* (``""`` at the start)."""
        return self._state((), before, pending=False)

    def step(self, state: _State, char: str) -> _Step:
        """What *char* does in *state*; ``""`` is the end of the text."""
        step = state.steps.get(char)
        if step is None:
            if self._kept > _MAX_KEPT:
                self._forget()
            step = state.steps[char] = self._find(state, char)
            self._kept += 1 + len(step.sources)
        return step

    def _forget(self) -> None:
        self._kept = 0
        for state in list(self._states.values()):  # other threads may add some meanwhile
            state.steps.clear()
        self._states.clear()

    def _state(self, threads: tuple[int, ...], before: str, *, pending: bool) -> _State:
        behind = tuple(bool(leaf(before)) for leaf in self._behind)
        key = threads, behind, pending
        return self._states.get(key) or self._states.setdefault(key, _State(threads, behind, pending=pending))

    def _find(self, state: _State, char: str) -> _Step:
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


# --- all of them -----------------------------------------------------------------------------------------------------


class _Joint:
    """The states of all automatons at one place of a text, and what leads on from there.

    Attributes:
        ways: For a character at which no match ends, the state after it, and what it makes of the places where threads
            began (None: there are none).
        stops: The characters at which one ends, as far as they are known.
    """

    __slots__ = ("states", "stops", "ways")

    def __init__(self, states: tuple[_State, ...]) -> None:
        self.states = states
        self.ways: dict[str, tuple[_Joint, Pick | None]] = {}
        self.stops: set[str] = set()


class Patterns:
    """Patterns to look for at once. What it keeps is bounded; any number of threads may use it.

    Args:
        patterns: Each is searched on its own: a match of one hides none of another.

    Raises:
        UsageError: A pattern does not compile, matches the empty text, or cannot be found in pieces: it has a
            backreference, a possessive repeat, an atomic group, a repeat of what may be empty, ``$`` without
            MULTILINE, or looks at more than one character ahead or behind.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.automatons = tuple(map(_Automaton, patterns))
        self._joints: dict[tuple[_State, ...], _Joint] = {}
        self._kept = 0
        self._lock = threading.Lock()
        self.start: _Joint = self.joint(tuple(automaton.idle("") for automaton in self.automatons))

    def joint(self, states: tuple[_State, ...]) -> _Joint:
        """The common state that is made of these."""
        joint = self._joints.get(states)
        return joint if joint is not None else self._joints.setdefault(states, _Joint(states))

    def way(self, joint: _Joint, char: str) -> tuple[_Joint, Pick | None] | None:
        """Where *char* leads from *joint*; None where a match ends at it."""
        if char in joint.stops:
            return None
        with self._lock:
            if self._kept > _MAX_KEPT:
                self._forget()
            steps = [
                automaton.step(state, char) for automaton, state in zip(self.automatons, joint.states, strict=True)
            ]
            self._kept += 1 + sum(len(step.sources) for step in steps)
            if any(step.matched is not None or step.final for step in steps):
                joint.stops.add(char)
                return None
            sources: list[int] = []
            first, new = 0, sum(len(state.threads) for state in joint.states)
            for state, step in zip(joint.states, steps, strict=True):
                sources.extend(new if source < 0 else first + source for source in step.sources)
                first += len(state.threads)
            way = self.joint(tuple(step.state for step in steps)), _picking(sources) if sources or new else None
            joint.ways[char] = way
            return way

    def _forget(self) -> None:
        self._kept = 0
        for joint in list(self._joints.values()):  # other threads may add some meanwhile
            joint.ways.clear()
            joint.stops.clear()
        self._joints.clear()


def _picking(places: list[int]) -> Pick:
    if len(places) > 1:
        return operator.itemgetter(*places)
    if places:
        place = places[0]
        return lambda starts: (starts[place],)
    return lambda starts: ()


class Scan:
    """One text on its way: pieces in, the same without its matches out; what could still become one is held back.

    However the text is cut, what comes out is the same. Matches of different patterns that overlap are replaced as
    one. A match that has been under way for *limit* characters is replaced as far as it has come; what follows is
    treated as if it had begun there: it is replaced too if the match comes true.

    Args:
        patterns: What to look for.
        replacement: What stands in the place of a match.
        limit: Characters held back at most.
    """

    __slots__ = (  # places count from the start of the whole text
        "_at",
        "_base",
        "_covered",
        "_held",
        "_joint",
        "_limit",
        "_matches",
        "_patterns",
        "_replacement",
        "_shown",
        "_spans",
        "_starts",
        "_text",
    )

    def __init__(self, patterns: Patterns, replacement: str, limit: int) -> None:
        self._patterns = patterns
        self._replacement = replacement
        self._limit = limit
        self._text = ""  # what is held, and at least a character before it
        self._base = 0  # where it begins
        self._at = 0  # where the automatons are
        self._held = 0  # where the first match that may come true has begun; else where the automatons are
        self._shown = 0  # up to where everything has been given out or replaced
        self._covered = -1  # the end of the last match: one that begins before it overlaps it
        self._joint: _Joint = patterns.start
        self._starts: tuple[int, ...] = ()  # where the threads of all automatons began
        self._matches: dict[int, tuple[int, int]] = {}  # by automaton: a match that may still be bettered
        self._spans: list[tuple[int, int]] = []  # matches that wait for others which began before

    def feed(self, text: str) -> str:
        """The next piece: what is certain to go on of the text so far."""
        begin, joint, starts = self._at, self._joint, self._starts
        end = begin + len(text)
        if self._matches or self._spans or end - self._held >= self._limit:
            return self._feed(text, end)
        try:  # the common way: no match ends here
            for at, char in enumerate(text, begin):
                joint, pick = joint.ways[char]
                if pick is not None:
                    starts = pick((*starts, at))
        except KeyError:  # a way not met before, or none: once more, with care
            return self._feed(text, end)
        shown = self._shown
        self._joint, self._starts, self._at = joint, starts, end
        if not starts and shown == begin:
            self._shown = self._held = end
            if text:
                self._text, self._base = text, shown
            return text
        self._text += text
        self._held = hold = min(starts) if starts else end
        if shown >= hold:
            return ""
        self._shown = hold
        given = self._text[shown - self._base : hold - self._base]
        self._trim(hold)
        return given

    def finish(self) -> str:
        """The text has ended: the rest of it. Nothing may be fed after it."""
        for index in range(len(self._patterns.automatons)):
            self._advance(index, "")
        return self._decided(self._at)

    def _hold(self) -> int:
        hold = min(self._starts) if self._starts else self._at
        return min(hold, *(start for start, _ in self._matches.values())) if self._matches else hold

    def _trim(self, hold: int) -> None:
        """Forget what is done with, but for a character that patterns may look back at."""
        if hold - self._base > _TRIMMED:
            self._text = self._text[hold - self._base - 1 :]
            self._base = hold - 1

    # --- where a match ends ------------------------------------------------------------------------------------------

    def _feed(self, text: str, end: int) -> str:
        self._text += text
        given: list[str] = []
        hold = self._held
        while self._at < end:
            self._read(min(end, hold + self._limit))
            hold = self._hold()
            given.append(self._decided(hold))
            if self._at - hold >= self._limit:
                given.append(self._overrun(hold))
                hold = self._at
        self._held = hold
        self._trim(hold)
        return "".join(given)

    def _read(self, end: int) -> None:
        joint, starts = self._joint, self._starts
        for at, char in enumerate(self._text[self._at - self._base : end - self._base], self._at):
            way = joint.ways.get(char) or self._patterns.way(joint, char)
            if way is None:
                self._joint, self._starts, self._at = joint, starts, at
                self._slowly(char)
                joint, starts = self._joint, self._starts
            else:
                joint, pick = way
                if pick is not None:
                    starts = pick((*starts, at))
        self._joint, self._starts, self._at = joint, starts, end

    def _slowly(self, char: str) -> None:
        """One character, automaton by automaton."""
        done = [self._advance(index, char) for index in range(len(self._patterns.automatons))]
        self._joint = self._patterns.joint(tuple(state for state, _ in done))
        self._starts = tuple(start for _, starts in done for start in starts)

    def _advance(self, index: int, char: str) -> tuple[_State, tuple[int, ...]]:
        """Have one automaton read the character under way; where that ends a match, what came after it once more."""
        automaton = self._patterns.automatons[index]
        text, base = self._text, self._base
        state, cursor = self._joint.states[index], self._at
        first = sum(len(before.threads) for before in self._joint.states[:index])
        starts = self._starts[first : first + len(state.threads)]
        while cursor <= self._at:
            step = automaton.step(state, char if cursor == self._at else text[cursor - base])
            if step.matched is not None:
                self._matches[index] = starts[step.matched], cursor
            if not step.final:
                state = step.state
                starts = tuple(cursor if source < 0 else starts[source] for source in step.sources)
                cursor += 1
                continue
            start, end = self._matches.pop(index)
            cursor = end
            if start == end:  # it became too long, and all of it was replaced
                pass
            elif automaton.check is None or automaton.check(text[start - base : end - base]):
                self._spans.append((start, end))
            else:
                cursor = start + 1
            state, starts = automaton.idle(text[cursor - 1 - base]), ()
        return state, starts

    def _decided(self, hold: int) -> str:
        """The text up to *hold*, which no match can change any more."""
        pieces: list[str] = []
        self._spans.sort()
        while self._spans and self._spans[0][0] < hold:
            start, end = self._spans.pop(0)
            if start >= self._covered:
                pieces += [self._text[self._shown - self._base : start - self._base], self._replacement]
            self._covered = max(self._covered, end)
            self._shown = max(self._shown, end)
        if self._shown < hold:
            pieces.append(self._text[self._shown - self._base : hold - self._base])
            self._shown = hold
        return "".join(pieces)

    def _overrun(self, hold: int) -> str:
        """More is held than may be: it is replaced, and what began in it begins here."""
        at = self._at
        given = self._replacement if hold >= self._covered else ""
        self._shown, self._covered = at, at + 1  # a match that begins here is the rest of this one
        self._starts = (at,) * len(self._starts)
        self._matches = dict.fromkeys(self._matches, (at, at))
        self._spans.clear()
        return given
