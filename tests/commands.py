"""The command ``eventflow``: here, which takes a tenth of the time, or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from typing import Any
from unittest import mock

from eventflow.cli import main

__all__ = ["COMMAND", "DEADLINE", "Done", "eventflow", "process"]

COMMAND = (sys.executable, "-W", "error", "-m", "eventflow")
DEADLINE = 20.0  # seconds after which a process is taken for stuck; none of these needs one

Done = subprocess.CompletedProcess[bytes]


def eventflow(*arguments: str, stdin: bytes = b"") -> Done:
    """Run the command here to its end, with streams as a process has them in a pipe."""
    given, out, err = (io.TextIOWrapper(io.BytesIO(data), "utf-8") for data in (stdin, b"", b""))
    with mock.patch("sys.stdin", given), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return Done(arguments, code, *map(_written, (out, err)))


def process(*arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None) -> Done:
    """Run it as a process, to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        timeout=DEADLINE,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def _written(stream: Any) -> bytes:
    stream.flush()
    return bytes(stream.buffer.getvalue())
