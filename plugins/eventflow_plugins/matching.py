"""`Patterns`: regular expressions over text that comes in pieces, with the same matches as over the whole.

Every pattern is an automaton of its own, which reads each character once. They are run as one: their common states and
the ways between them are made when first met and kept.

What the standard library's own matcher and a matcher with partial matches cannot do: the first needs the whole text;
the second (PyPI, ``regex``) starts again with every piece, needs a time limit against texts that make it slow, and
takes a complete match as final where more text would have changed it.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from eventflow_plugins.automaton import MAX_KEPT, Automaton, Pattern, State

__all__ = ["Pattern", "Patterns", "Scan"]

_TRIMMED: Final = 256  # characters that are done with are forgotten so many at a time

Pick: TypeAlias = Callable[[tuple[int, ...]], tuple[int, ...]]


class _Joint:
    """The states of all automatons at one place of a text, and what leads on from there.

    Attributes:
        ways: For a character at which no match ends, the state after it, and what it makes of the places where threads
            began (None: there are none).
        stops: The characters at which one ends, as far as they are known.
    """

    __slots__ = ("states", "stops", "ways")

    def __init__(self, states: tuple[State, ...]) -> None:
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
        self.automatons = tuple(map(Automaton, patterns))
        self._joints: dict[tuple[State, ...], _Joint] = {}
        self._kept = 0
        self._lock = threading.Lock()
        self.start: _Joint = self.joint(tuple(automaton.idle("") for automaton in self.automatons))

    def joint(self, states: tuple[State, ...]) -> _Joint:
        """The common state that is made of these."""
        joint = self._joints.get(states)
        return joint if joint is not None else self._joints.setdefault(states, _Joint(states))

    def way(self, joint: _Joint, char: str) -> tuple[_Joint, Pick | None] | None:
        """Where *char* leads from *joint*; None where a match ends at it."""
        if char in joint.stops:
            return None
        with self._lock:
            if self._kept > MAX_KEPT:
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

    def _advance(self, index: int, char: str) -> tuple[State, tuple[int, ...]]:
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
