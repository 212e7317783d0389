"""`Record`: what a source gives, kept in a file as it came, and when; `replay` gives it again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from eventflow import HandlerFailed, Plugin, Run, state
from eventflow.errors import PluginError, UsageError
from eventflow.logs import logger
from eventflow.routing import ErrorPolicy
from eventflow_plugins.line_file import LineFile, exists
from eventflow_plugins.recording import Header, header_line, item_line, last_line
from eventflow_plugins.replaying import replay

__all__ = ["Record"]

_RUN: Final = "{run}"


class Record(Plugin):
    """A recording of what the source gives: the bytes as they came, when each chunk came, and how it ended.

    ::

        Dispatcher(Record("run.jsonl")).run(source)
        Dispatcher().run(replay("run.jsonl"))  # the same events, and the same end

    A recording holds what was received, **unredacted**, wherever the plugin stands in the pipeline; its file can be
    read by its owner alone. It is JSON Lines: a header, a line for each item of the source, and a last line that tells
    how the run ended. Each is written at once, so that the recording of a program that crashed has all but that.

    A file has one run, and what exists is never written over. For several runs, the path has ``{run}`` in it, which
    stands for the run's id, or is a folder, where each run has a file of that name.

    Attributes:
        path: The file, with ``{run}`` in its name or not; or a folder that exists.
        clock: Gives seconds, never goes back.
        errors: What a line, or file, that cannot be written does: ``raise`` ends the run with a `PluginError`;
            ``isolate`` has it logged by "eventflow", reported as a `HandlerFailed` event, and the run goes on. Lines
            are kept, up to 1 MiB of them, and go before the next one; where one is lost, the recording ends before it.
        file: Of a run: the file that it is recorded in, or None where there is none.

    Raises:
        UsageError: The configuration is none.
        PluginError: When a dispatcher opens it: the file exists, or its folder does not.
    """

    path: str | os.PathLike[str]
    clock: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True, repr=False)
    errors: ErrorPolicy = attrs.field(default="raise", kw_only=True)
    file: str | None = state(default=None)
    _lines: LineFile | None = state(default=None)
    _began: float = state(default=0.0)

    replay = staticmethod(replay)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike):
            raise UsageError(f"Record(path) takes the path of a file or folder, not {self.path!r}")
        if self.errors not in ("raise", "isolate"):
            raise UsageError(f'Record(errors=...) must be "raise" or "isolate", not {self.errors!r}')

    def open(self) -> None:
        """See whether a run can be recorded; raises `PluginError` where it cannot, before anything is asked for."""
        path = Path(self._path_of("run"))
        if _RUN not in os.fspath(self.path) and path.exists():
            raise exists("Record", os.fspath(self.path))
        if not path.parent.is_dir():
            raise PluginError(f"Record cannot create {os.fspath(self.path)!r}: {os.fspath(path.parent)!r} is no folder")

    def _path_of(self, run: str) -> str:
        path = os.fspath(self.path)
        return os.path.join(path, run + ".jsonl") if os.path.isdir(path) else path.replace(_RUN, run)

    # --- the run -----------------------------------------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """Begin the recording."""
        self._began = self.clock()
        lines = LineFile(self._path_of(run.id), owner="Record", what="recording", new=True)
        try:
            lines.open()
            self._lines, self.file = lines, lines.path
            lines.write(header_line(Header(round(time.time(), 6), run.id, run.wire)))
        except PluginError as error:
            self._failed(error, run)

    def receive(self, item: object, run: Run) -> None:
        """Record *item*."""
        if self._lines is None or self._lines.lost:
            return
        try:
            self._lines.write(item_line(self.clock() - self._began, item))
        except PluginError as error:
            self._failed(error, run)

    def stop(self, run: Run) -> None:
        """Record how the run ended."""
        lines, self._lines = self._lines, None
        if lines is None:
            return
        at = self.clock() - self._began
        try:
            try:
                if not lines.lost:
                    lines.write(last_line(at, run.status, run.events, run.wire, run.error, run.source_error))
            finally:
                lines.close()
        except PluginError as error:
            self._failed(error, run, over=True)

    def _failed(self, error: PluginError, run: Run, *, over: bool = False) -> None:
        if self.errors == "raise":
            raise error
        logger("eventflow").error("%s", error)
        if not over:
            run.emit(HandlerFailed(error, "Record.receive"))
