"""The soak test itself, short: a few streams at once for a moment, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from environments import UNMEASURED


@pytest.mark.parametrize("face", ["threads", "asyncio"])
def test_streams_when_many_have_faults(face: str) -> None:
    """Each ends as its fault says, within its timers; no socket, thread, task or memory is left."""
    command = [sys.executable, str(Path(__file__).parent), "--seconds", "1.5", "--streams", "20", "--face", face]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=UNMEASURED)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    ended = re.search(rf"^{face}: (\d+) streams", done.stdout, re.MULTILINE)
    assert ended is not None
    assert int(ended[1]) > 20
