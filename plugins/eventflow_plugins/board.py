"""`Board`: lines at the bottom of a terminal that change while they stand there. Imports rich; import it late."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.errors import LiveError
from rich.live import Live
from rich.text import Text

__all__ = ["Board"]

_A_SECOND = 4  # times that the lines are drawn, for the seconds in them


class _Display(Live):
    """A live display whose thread keeps what it fails with for whoever writes next."""

    failure: OSError | ValueError | None = None

    def refresh(self) -> None:
        if self.failure is None:
            try:
                super().refresh()
            except (OSError, ValueError) as error:  # the terminal is gone, or the file closed
                self.failure = error


class Board:
    """Lines at the bottom of a terminal.

    Belongs to the thread that drives the run; another one, of rich, draws the lines while they stand, and calls
    *lines* for it.

    Args:
        console: Writes to a terminal.
        lines: Gives the lines as they are now; each is cut to the terminal's width.
    """

    def __init__(self, console: Console, lines: Callable[[], list[tuple[str, str]]]) -> None:
        self._console = console
        self._lines = lines
        self._display: _Display | None = None

    @property
    def stands(self) -> bool:
        """Whether the lines are shown."""
        return self._display is not None

    def show(self) -> None:
        """Draw the lines, or draw them anew. The cursor must stand at the start of a line."""
        if self._display is None:
            display = _Display(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=_A_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            try:
                display.start()
            except LiveError:  # the program has a live display of its own here: the calls are told when they end
                return
            except (OSError, ValueError):
                self._console.clear_live()  # it did not come to hide the cursor, nor to start its thread
                raise
            self._display = display
        self._display.refresh()
        if self._display.failure is not None:
            self.hide()

    def hide(self) -> None:
        """Take the lines away; the cursor stands where they began."""
        display, self._display = self._display, None
        if display is not None:
            display.stop()
            if display.failure is not None:
                raise display.failure

    def _render(self) -> Text:
        lines = [Text(line, style, no_wrap=True, overflow="ellipsis", end="") for line, style in self._lines()]
        return Text("\n", no_wrap=True, overflow="ellipsis", end="").join(lines)
