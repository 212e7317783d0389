"""`Writer`: text as it comes, and lines between its pieces, to a terminal or whatever else a person reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias, cast

from eventflow.errors import PluginError
from eventflow.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from eventflow_plugins.board import Board

__all__ = ["CUT", "Part", "Voice", "Writer", "console_of"]

Voice: TypeAlias = Literal["text", "reasoning", "refusal"]
Part: TypeAlias = tuple[object, ...]
"""Which text: its item, and its place in it."""

CUT: Final = 1000
"""Characters of a line that is not the answer itself."""

_MARKS: Final[dict[Voice, str]] = {"text": "", "reasoning": "| ", "refusal": "! "}
_VOICES: Final[dict[Voice, str]] = {"text": "", "reasoning": "dim", "refusal": "yellow"}
_CODES: Final = {"dim": 2, "red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}  # ECMA-48, SGR
_CLOSED: Final = "Terminal cannot write: its output is closed; close it after the last run, or give another one"


class Writer:
    """Writes what is foreign so that no character of it drives a terminal, each piece at once.

    Belongs to the thread that drives the run. Once the output has failed nothing more is tried.

    Args:
        console: Where to; None for nowhere.
        colour: Whether to style; None where the console can.
        standing: Gives the lines that stand below the text in a terminal, and change; None for no such lines.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        colour: bool | None = None,
        standing: Callable[[], list[str]] | None = None,
    ) -> None:
        self._file: TextIO | None = None
        self._styled = False
        self._board: Board | None = None
        self._fresh = True  # at the start of a line
        self._speaking: tuple[Voice, Part] | None = None  # whose text is being written
        self._heard: dict[tuple[Voice, Part], list[str]] = {}
        if console is None:
            return
        self._file = cast("TextIO", console.file)
        able = console.is_terminal and not console.is_dumb_terminal and not console.legacy_windows
        self._styled = (able and not console.no_color) if colour is None else colour
        if able and standing is not None:
            from eventflow_plugins.board import Board

            style = "cyan" if self._styled else ""
            self._board = Board(console, lambda: [(line, style) for line in standing()])

    @property
    def writes(self) -> bool:
        """Whether there is something to write to."""
        return self._file is not None

    @property
    def changes(self) -> bool:
        """Whether there is room for lines that change."""
        return self._board is not None

    @property
    def voices(self) -> set[Voice]:
        """Those that have said something."""
        return {voice for voice, _ in self._heard}

    def say(self, voice: Voice, part: Part, text: str) -> None:
        """The next piece of a text."""
        if not text:
            return
        if self._speaking != (voice, part):
            self.end_line()
            self._speaking = (voice, part)
        self._heard.setdefault((voice, part), []).append(text)
        mark, shown = _MARKS[voice], printable(text, newlines=True)
        if mark:
            lines = [mark + line if fresh else line for fresh, line in _lines(shown, self._fresh)]
            shown = "".join(lines)
        self._fresh = shown.endswith("\n")
        self._write(self._style(shown, _VOICES[voice]))

    def say_whole(self, voice: Voice, part: Part, text: str) -> None:
        """A text is complete: show what has not come in deltas, or all of it where they said something else."""
        heard = "".join(self._heard.get((voice, part), ()))
        if text.startswith(heard):
            self.say(voice, part, text[len(heard) :])
        else:
            self.end_line()
            self._heard[voice, part] = []
            self.say(voice, part, text)

    def line(self, label: str, text: str, style: str) -> None:
        """A line of its own, behind a label."""
        self.end_line()
        cut = text[:CUT] + "…" if len(text) > CUT else text
        self._write(self._style(f"[{printable(label)}]", style) + (f" {printable(cut)}\n" if cut else "\n"))

    def conclude(self, text: str, style: str) -> None:
        """The last line, all of it in one style."""
        self.end_line()
        self._write(self._style(printable(text), style) + "\n")

    def end_line(self) -> None:
        """Go to the start of a line."""
        if not self._fresh:
            self._fresh = True
            self._write("\n")
        self._speaking = None

    def stand(self) -> None:
        """Show the lines that change, unless a text is being written there."""
        if self._board is not None and self._fresh and self._speaking is None:
            self._guarded(self._board.show)

    def _style(self, text: str, style: str) -> str:
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._styled and style else text

    def _write(self, text: str) -> None:
        """Write at once."""
        if self._board is not None and self._board.stands:
            self._guarded(self._board.hide)
        if self._file is not None:
            self._guarded(self._put, text)

    def _put(self, text: str) -> None:
        file = cast("TextIO", self._file)
        try:
            file.write(text)
        except UnicodeEncodeError:  # a locale that lacks a character must not end a stream
            encoding = file.encoding or "ascii"
            file.write(text.encode(encoding, "backslashreplace").decode(encoding))
        file.flush()

    def _guarded(self, act: Any, *arguments: Any) -> None:
        try:
            act(*arguments)
        except ValueError as error:
            self._file = self._board = None
            raise PluginError(_CLOSED) from error
        except OSError:
            self._file = self._board = None  # nothing more is tried: `stop` would fail as well
            raise


def console_of(output: TextIO | Console | None, width: int | None) -> Console | None:
    """The console to write to; None where stdout is closed."""
    from rich.console import Console

    if isinstance(output, Console):
        return output
    file = sys.stdout if output is None else output
    if file is None:
        return None
    if getattr(file, "closed", False):
        raise PluginError(_CLOSED)
    # told by itself, for rich takes a pipe for a terminal where the environment asks for colour
    terminal = bool(getattr(file, "isatty", bool)())
    return Console(file=file, width=width, force_terminal=terminal, highlight=False, emoji=False, markup=False)


def _lines(text: str, fresh: bool) -> list[tuple[bool, str]]:
    """The lines of *text*, and whether each begins one."""
    lines = text.splitlines(keepends=True)
    return [(fresh or index > 0, line) for index, line in enumerate(lines)]
