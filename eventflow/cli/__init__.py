"""The command ``eventflow``; it needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_NEEDED = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments* (by default those of the process); returns its exit code."""
    # imported here, so that one can say what is missing, and eventflow.cli.model_server needs none of it
    try:
        from eventflow.cli.command import run
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        print(f"eventflow: the command needs {error.name}: pip install 'eventflow-stream[cli]'", file=sys.stderr)
        return 2
    return run(arguments)
