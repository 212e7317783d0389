"""The loggers of the library, whose records are safe to show, whatever a model or a peer wrote."""

from __future__ import annotations

import logging
import textwrap
import traceback
from typing import Final

from eventflow.printable import printable

__all__ = ["logger"]


class _Safe(logging.Filter):
    """Escapes the texts of a record. Its traceback is indented: no line of it can pass for another record's."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(printable(each) if isinstance(each, str) else each for each in record.args)
        if record.exc_info:  # which stays, for handlers that make their own of it
            told = printable("".join(traceback.format_exception(*record.exc_info)), newlines=True)
            record.exc_text = textwrap.indent(told.rstrip(), "  ", lambda _: True)  # blank lines too
        return True


_SAFE: Final = _Safe()


def logger(name: str) -> logging.Logger:
    """The logger *name*, for records with texts that are not ours; filters of a logger are not those below it."""
    made = logging.getLogger(name)
    made.addFilter(_SAFE)
    return made
