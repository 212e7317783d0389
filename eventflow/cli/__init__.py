"""The command ``eventflow``; it needs the extra ``cli``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["main"]

_NEEDED = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments* (by default those of the process); returns its exit code."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        print(f"eventflow: the command needs {names}: pip install 'eventflow-stream[cli]'", file=sys.stderr)
        return 2
    from eventflow.cli.command import run  # not before: eventflow.cli.model_server needs none of it

    return run(arguments)
