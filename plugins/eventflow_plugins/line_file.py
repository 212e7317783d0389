"""`LineFile`: a file that lines are appended to, each in one write; none is lost without a word."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from eventflow.errors import PluginError
from eventflow.forks import PerProcess

if TYPE_CHECKING:
    import io

__all__ = ["LineFile", "exists"]

_WAITING: Final = 2**20  # bytes kept for a disk that takes nothing


class _Waiting:
    """What a process has still to write; who has the lock may touch it, and the file."""

    __slots__ = ("lines", "lock", "size")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lines: list[bytes] = []
        self.size = 0  # bytes of them


class LineFile:
    """A file that runs in any threads append lines to, and forked processes too.

    A line that cannot be written is kept, up to 1 MiB of them, and goes before the next one, or when the file is
    closed. What waits when a process is forked is written by the parent alone.

    Attributes:
        path: Where it is.
        lost: Whether the last line was lost, because too many waited.
    """

    def __init__(self, path: str, *, owner: str, what: str, new: bool = False, least: int = 1) -> None:
        """Nothing is opened yet.

        Args:
            path: Where it is.
            owner: The plugin that messages name.
            what: What messages call it: a log, a recording.
            new: Whether it must not exist yet; it is then readable by its owner alone. Otherwise it is appended to.
            least: Bytes written at once.
        """
        self.path = path
        self.lost = False
        self._owner = owner
        self._what = what
        self._new = new
        self._least = least
        self._waiting = PerProcess(_Waiting)
        self._file: io.FileIO | None = None
        self._descriptor = -1
        self._users = 0  # who opened it

    def open(self) -> None:
        """Open it, or count one more who did; raises `PluginError` when nothing can be written to it."""
        with self._waiting.here().lock:
            if self._file is None:
                try:
                    self._file = self._opened()
                except FileExistsError as error:
                    raise exists(self._owner, self.path) from error
                except (OSError, ValueError) as error:
                    verb = "create" if self._new else "append to"
                    raise PluginError(
                        f"{self._owner} cannot {verb} {self.path!r}: {_reason(error)}. Name a file in a folder that "
                        "exists, and that this user may write to"
                    ) from error
                self._descriptor = self._file.fileno()
            self._users += 1

    def _opened(self) -> io.FileIO:
        if self._new:
            return open(self.path, "xb", buffering=0, opener=_private)
        return open(self.path, "ab", buffering=0)

    def write(self, line: bytes) -> None:
        """Append *line*, which ends with a newline; raises `PluginError` when the disk does not take it."""
        waiting = self._waiting.here()
        with waiting.lock:  # not acquire() and try: an interrupt between them would leave it held
            if self._file is None:
                raise PluginError(f"the {self._what} {self.path!r} is closed, as is the dispatcher that opened it")
            if not waiting.size and len(line) >= self._least:  # nothing waits, and neither need this line
                line = line[self._written(line) :]
                if not line:
                    return
            if waiting.size >= _WAITING:
                self.lost = True
                self._drain(waiting, "The last line is lost")
                self.lost = False
            waiting.lines.append(line)
            waiting.size += len(line)
            if waiting.size >= self._least:
                self._drain(waiting, "{} bytes wait for the next line")

    def close(self) -> None:
        """Write what waits, and close it once everybody who opened it has; raises `PluginError` when bytes are lost."""
        waiting = self._waiting.here()
        with waiting.lock:
            self._users -= 1
            if self._users > 0 or self._file is None:
                return
            file, self._file = self._file, None
            try:
                with file:
                    self._drain(waiting, "{} bytes are lost")
            finally:
                waiting.lines.clear()
                waiting.size = 0

    def _written(self, line: bytes) -> int:
        """How many bytes of a line the disk takes at once; what it refuses is seen where the rest is written."""
        try:
            return os.write(self._descriptor, line)
        except OSError:
            return 0

    def _drain(self, waiting: _Waiting, consequence: str) -> None:
        rest = b"".join(waiting.lines)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            waiting.lines[:], waiting.size = [rest], len(rest)
            raise PluginError(
                f"{self._owner} cannot write to {self.path!r}: {_reason(error)}. {consequence.format(waiting.size)}; "
                f'make room, or let runs go on without their {self._what}: {self._owner}(..., errors="isolate")'
            ) from error
        waiting.lines.clear()
        waiting.size = 0


def exists(owner: str, path: str) -> PluginError:
    """What a plugin says of a file that must not exist yet."""
    return PluginError(
        f"{owner} does not write over {path!r}, which exists. Name another file, move it, or have a file for each run, "
        "with {run} in its name"
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
