"""`Pieces`: a text that grows. Pure."""

from __future__ import annotations

__all__ = ["Pieces"]

_BATCH = 256  # short pieces joined into one: a string of its own for every token takes many times the text
_LONG = 4096  # characters of a piece that waits for no others
_SHARE = 8  # the text is made longer by an eighth at least: time stays linear, and little is there twice


class Pieces:  # a plain class: attrs would take a twentieth of the package's import for it
    """A text that comes in pieces. To append each to the text as it stands would take quadratic time.

    Attributes:
        size: Characters so far.
    """

    __slots__ = ("_joined", "_pieces", "_text", "size")

    def __init__(self, *pieces: str) -> None:
        self._text = ""
        self._joined: list[str] = []  # behind the text, of many pieces each
        self._pieces: list[str] = []  # behind those
        self.size = 0
        for piece in pieces:
            self.add(piece)

    def __bool__(self) -> bool:
        return self.size > 0

    def __str__(self) -> str:
        if self.size > len(self._text):
            self._gather(share=self.size)
        return self._text

    def add(self, piece: str) -> int:
        """Append *piece*; returns the growth in characters."""
        pieces, size = self._pieces, len(piece)
        pieces.append(piece)
        self.size += size
        if size >= _LONG or len(pieces) == _BATCH:
            self._gather()
        return size

    def settle(self, text: str) -> int:
        """Replace what has come by the whole; returns the growth in characters."""
        growth = len(text) - self.size
        self._text, self._joined, self._pieces, self.size = text, [], [], len(text)
        return growth

    def equal(self, text: str) -> bool:
        """Whether they make up *text*; nothing is joined for that."""
        if self.size != len(text):
            return False
        at = 0
        for piece in (self._text, *self._joined, *self._pieces):
            if not text.startswith(piece, at):
                return False
            at += len(piece)
        return True

    def since(self, start: int) -> str:
        """The text behind its first *start* characters, in time that its length alone takes."""
        missing, found = self.size - start, list[str]()
        for pieces in (self._pieces, self._joined, [self._text]):
            for piece in reversed(pieces):
                if missing <= 0:
                    break
                found.append(piece[-missing:])
                missing -= len(piece)
        return "".join(reversed(found))

    def _gather(self, share: int = _SHARE) -> None:
        """Join the pieces, and make the text longer when they are such a share of it."""
        self._joined.append("".join(self._pieces))
        self._pieces = []
        text = self._text
        if (self.size - len(text)) * share >= len(text):
            self._text = ""  # else it could not grow where it stands, which CPython does when nobody else holds it
            text += "".join(self._joined)
            self._text = text
            self._joined = []
