r"""JSON that arrives in pieces: the value as far as it is certain, in linear total time.

The arguments of a tool call come as text deltas, cut anywhere. To parse the whole text again at every delta is
quadratic; this parser looks at every character once::

    >>> from eventflow.partial_json import PartialParser
    >>> parser = PartialParser()
    >>> parser.feed('{"city": "Par')
    >>> parser.value
    {'city': 'Par'}
    >>> parser.feed('is", "days": [1, 2')
    >>> parser.value, parser.complete
    ({'city': 'Paris', 'days': [1]}, False)
    >>> parser.feed('0]}')
    >>> parser.close()
    {'city': 'Paris', 'days': [1, 20]}

What counts as certain, at any point of the text and however it was cut:

- a string under way: its characters so far, without an escape that is not whole, and without the escape of a high
  surrogate whose partner may still come (alone it is kept, as the `json` module keeps it);
- a number: once the character after it has come (``2`` may go on to ``20``), or with `close` at the top level;
- ``true``, ``false``, ``null``: with their last letter;
- an array or object: with its bracket;
- a key of an object: with its value, so once that is certain or has begun as a string, array or object.

The grammar is RFC 8259 without extensions: no ``NaN``, no comments, no trailing commas, no control characters in
strings. The values are those of `json.loads`: integers are int, the last of doubled keys wins, ``1e999`` is infinite.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, cast, final

import attrs

from eventflow.errors import DecodeError, LimitExceeded, UsageError, excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventflow.events import JSON

    _Reader = Callable[["PartialParser", str, int], int]

__all__ = ["PartialParser"]

_DEPTH: Final = 128  # that of `Limits.json_depth`; serde_json stops there too
_EXCERPT: Final = 40  # characters of the text in a message

# The states, each named by what has to come next: the words of the error message.
_VALUE: Final = "a value"
_FIRST_ITEM: Final = "a value or ']'"
_NEXT_ITEM: Final = "',' or ']'"
_FIRST_KEY: Final = "a key or '}'"
_KEY: Final = "a key"
_COLON: Final = "':'"
_NEXT_KEY: Final = "',' or '}'"
_IN_KEY: Final = "the rest of a key"
_IN_STRING: Final = "the rest of a string"
_IN_NUMBER: Final = "the rest of a number"
_END: Final = "nothing but whitespace"

_SPACE: Final = re.compile(r"[ \t\n\r]+")
_LITERALS: Final[dict[str, JSON]] = {"true": True, "false": False, "null": None}

_HEX = "[0-9a-fA-F]"
# The text ends where the escape of a low surrogate may begin or go on.
_LOW_BEGUN = rf"(?:\\(?:u(?:[dD](?:[c-fC-F]{_HEX}?)?)?)?)?\Z"
# Whole characters and escapes. Bounded, because every round of the group keeps a frame: a million escapes took 114 MB.
# Not possessive, because Python before 3.11.5 matches too much then (https://github.com/python/cpython/issues/106052).
_CHARACTERS: Final = re.compile(
    rf"""(?: [^"\\\x00-\x1f]+
           | \\["\\/bfnrt]
           | \\u(?![dD][89abAB]){_HEX}{{4}}
           | \\u[dD][89abAB]{_HEX}{{2}}(?:\\u[dD][c-fC-F]{_HEX}{{2}}|(?!{_LOW_BEGUN}))
         ){{1,1000}}""",
    re.VERBOSE,
)
_ESCAPE_BEGUN: Final = re.compile(rf"\\(?:u(?:{_HEX}{{0,3}}\Z|{_HEX}{{4}}{_LOW_BEGUN})|\Z)")

_NUMBER_RUN: Final = re.compile(r"[-+.0-9eE]+")
# A number or the start of one; the starts that end with a digit are whole numbers, the others are not.
_NUMBER: Final = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:(?<=[0-9])[eE][-+]?[0-9]*)?)?")
_DIGITS: Final = re.compile(r"([0-9])[0-9]+")


def _end_of(pattern: re.Pattern[str], text: str, pos: int) -> int:
    """Where a match of *pattern* at *pos* ends; *pos* itself when there is none."""
    match = pattern.match(text, pos)
    return match.end() if match else pos


@final
@attrs.define(eq=False, repr=False)
class PartialParser:
    """Parse one JSON value that arrives in pieces.

    One thread at a time. Characters are counted from 0 over all pieces. After an error `value` stays readable and every
    further `feed` or `close` raises the same error again.

    Attributes:
        max_depth: How many arrays and objects may be open at once, None for no limit. Parsing does not recurse, but
            whoever walks, prints or compares the value does, and Python's stack is finite.
    """

    max_depth: int | None = _DEPTH
    _root: list[JSON] = attrs.field(init=False, factory=list["JSON"])  # holds the value, once anything is known of it
    _open: list[dict[str, JSON] | list[JSON]] = attrs.field(  # containers under way, the root first
        init=False, default=attrs.Factory(lambda self: [self._root], takes_self=True)
    )
    _state: str = attrs.field(init=False, default=_VALUE)
    _key: str = attrs.field(init=False, default="")  # where the next value of the innermost object goes
    _pieces: list[str] = attrs.field(
        init=False, factory=list[str]
    )  # of the string, key or number under way, not yet joined
    _shape: str = attrs.field(init=False, default="")  # the number under way, every run of digits cut to one
    _held: str = attrs.field(init=False, default="")  # an escape or literal that was cut: up to 11 characters
    _offset: int = attrs.field(init=False, default=0)  # characters read so far, those held not counted
    _error: DecodeError | LimitExceeded | None = attrs.field(init=False, default=None)
    _closed: bool = attrs.field(init=False, default=False)

    @property
    def value(self) -> JSON:
        """The value as far as it is certain; None when nothing is known yet (see `started`) and for ``null``.

        Not a copy: arrays and objects are the parser's own; they grow in place and must not be changed
        (`copy.deepcopy` makes one to keep). The string under way is brought up to date by reading this property, which
        costs what came since the last read; its older characters are copied only when someone still holds it as it was.
        """
        if self._state == _IN_STRING:
            self._join_string()
        return self._root[0] if self._root else None

    @property
    def started(self) -> bool:
        """Whether anything of the value is known: tells a `value` that is ``null`` from one that has yet to come."""
        return bool(self._root)

    @property
    def complete(self) -> bool:
        """Whether one whole value has been read, and nothing but whitespace after it.

        A number at the top level is complete only after whitespace or `close`.
        """
        return self._state == _END and self._error is None

    def feed(self, text: str) -> None:
        """Read the next piece of the text, of any length.

        Raises:
            DecodeError: At the first character that no JSON text goes on with, and at the end of an integer that is
                longer than Python converts (`sys.get_int_max_str_digits`). The message has the offset.
            LimitExceeded: ``json_depth``, when more than `max_depth` arrays and objects are open.
            UsageError: After `close`.
        """
        if self._error is not None:
            raise self._error
        if self._closed:
            raise UsageError("feed() after close(): a PartialParser reads one text; make a new one for the next")
        text = self._held + text
        self._held = ""
        pos, end = 0, len(text)
        while pos < end:
            read = _INSIDE.get(self._state)
            if read is None:
                pos = _end_of(_SPACE, text, pos)
                if pos == end:
                    break
                read = _MOVES[self._state].get(text[pos])
                if read is None:
                    raise self._failure(text, pos)
            pos = read(self, text, pos)
        self._offset += end - len(self._held)

    def close(self) -> JSON:
        """Say that the text ends here, and return the whole value. Closing twice is fine.

        Raises:
            DecodeError: When the value is not complete, and whatever `feed` raised before.
        """
        if self._error is not None:
            raise self._error
        self._closed = True
        if self._state == _IN_NUMBER and len(self._open) == 1:
            self._end_number("", 0)
        if self._state != _END:
            raise self._failure(self._held, len(self._held))
        return self.value

    # The readers take the text and where to begin, and return how far they came; the tables at the end call them.

    def _read_separator(self, text: str, pos: int) -> int:
        self._state = _KEY if self._state == _NEXT_KEY else _VALUE
        return pos + 1

    def _read_open(self, text: str, pos: int) -> int:
        depth = len(self._open)  # the root counts for the one about to open
        if self.max_depth is not None and depth > self.max_depth:
            self._error = LimitExceeded(limit="json_depth", maximum=self.max_depth, seen=depth)
            raise self._error
        is_object = text[pos] == "{"
        container: dict[str, JSON] | list[JSON] = {} if is_object else []
        self._put(container)
        self._open.append(container)
        self._state = _FIRST_KEY if is_object else _FIRST_ITEM
        return pos + 1

    def _read_close(self, text: str, pos: int) -> int:
        self._open.pop()
        self._state = self._after_value()
        return pos + 1

    def _read_literal(self, text: str, pos: int) -> int:
        rest = text[pos : pos + 5]
        for literal, value in _LITERALS.items():
            if rest.startswith(literal):
                self._put(value)
                return pos + len(literal)
            if literal.startswith(rest):  # the piece ends within it
                self._held = rest
                return len(text)
        raise self._failure(text, pos)

    def _read_quote(self, text: str, pos: int) -> int:
        if self._state in (_FIRST_KEY, _KEY):
            self._state = _IN_KEY
        else:
            self._put("")
            self._state = _IN_STRING
        return pos + 1

    def _read_characters(self, text: str, pos: int) -> int:
        end = _end_of(_CHARACTERS, text, pos)
        if end > pos:
            run = text[pos:end]
            self._pieces.append(json.loads(f'"{run}"') if "\\" in run else run)
            return end
        if text[pos] == '"':
            if self._state == _IN_STRING:
                self._join_string()
                self._state = self._after_value()
            else:
                self._key = self._take_pieces()
                self._state = _COLON
            return pos + 1
        if _ESCAPE_BEGUN.match(text, pos):
            self._held = text[pos:]
            return len(text)
        raise self._failure(text, pos)

    def _read_number(self, text: str, pos: int) -> int:
        end = _end_of(_NUMBER_RUN, text, pos)
        shape = self._shape + text[pos:end]
        if excess := len(shape) - _end_of(_NUMBER, shape, 0):
            self._state = _IN_NUMBER
            raise self._failure(text, end - excess)
        self._pieces.append(text[pos:end])
        if end < len(text):
            self._end_number(text, end)
        else:
            self._state = _IN_NUMBER
            self._shape = _DIGITS.sub(r"\1", shape)
        return end

    def _end_number(self, text: str, end: int) -> None:
        number = self._take_pieces()
        self._shape = ""
        if not number[-1].isdigit():
            self._state = _IN_NUMBER
            raise self._failure(text, end)
        try:
            self._put(int(number) if number.lstrip("-").isdigit() else float(number))
        except ValueError as error:  # Python converts no more than sys.get_int_max_str_digits()
            start = self._offset + end - len(number)
            self._error = DecodeError(f"bad JSON at offset {start}: an integer of {len(number)} characters is too long")
            raise self._error from error

    def _put(self, value: JSON) -> None:
        """Place *value* where the text stands, and expect what follows a value."""
        innermost = self._open[-1]
        if isinstance(innermost, dict):
            innermost[self._key] = value
        else:
            innermost.append(value)
        self._state = self._after_value()

    def _after_value(self) -> str:
        if len(self._open) == 1:
            return _END
        return _NEXT_KEY if isinstance(self._open[-1], dict) else _NEXT_ITEM

    def _take_pieces(self) -> str:
        text = "".join(self._pieces)
        self._pieces.clear()
        return text

    def _join_string(self) -> None:
        """Add the pieces to the string under way, in place: CPython extends a str that one local name alone holds.

        1 MB in 100,000 pieces, read after each: 0.1 s this way, 2 to 16 s when the container still holds the string.
        """
        innermost = self._open[-1]
        slot = self._key if isinstance(innermost, dict) else -1
        strings = cast("dict[str | int, str]", innermost)
        text = strings[slot]
        strings[slot] = ""
        text += self._take_pieces()
        strings[slot] = text

    def _failure(self, text: str, pos: int) -> DecodeError:
        got = f"got '{excerpt(text[pos : pos + _EXCERPT + 1], _EXCERPT)}'" if pos < len(text) else "but the text ends"
        self._error = DecodeError(f"bad JSON at offset {self._offset + pos}: expected {self._state}, {got}")
        return self._error


_INSIDE: Final[dict[str, _Reader]] = {  # states in the middle of a token
    _IN_KEY: PartialParser._read_characters,
    _IN_STRING: PartialParser._read_characters,
    _IN_NUMBER: PartialParser._read_number,
}
_BEGIN_VALUE: Final[dict[str, _Reader]] = {
    '"': PartialParser._read_quote,
    **dict.fromkeys("{[", PartialParser._read_open),
    **dict.fromkeys("-0123456789", PartialParser._read_number),
    **dict.fromkeys("tfn", PartialParser._read_literal),
}
_MOVES: Final[dict[str, dict[str, _Reader]]] = {  # states between tokens: what each character does; the rest are errors
    _VALUE: _BEGIN_VALUE,
    _FIRST_ITEM: {**_BEGIN_VALUE, "]": PartialParser._read_close},
    _NEXT_ITEM: {",": PartialParser._read_separator, "]": PartialParser._read_close},
    _FIRST_KEY: {'"': PartialParser._read_quote, "}": PartialParser._read_close},
    _KEY: {'"': PartialParser._read_quote},
    _COLON: {":": PartialParser._read_separator},
    _NEXT_KEY: {",": PartialParser._read_separator, "}": PartialParser._read_close},
    _END: {},
}
