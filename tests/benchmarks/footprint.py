"""What importing costs, and what a long stream leaves in memory: measured in processes of their own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from measure import Measure, Race, turns

__all__ = ["AFTER_DELTAS", "AFTER_END", "IMPORTS", "import_memory", "import_time", "stream_memory"]

IMPORTS = ("eventflow", "openai", "httpx", "msgspec", "pluggy", "httpx_sse", "ld_eventsource")
AFTER_DELTAS = "held by the run after the last delta"
AFTER_END = "held by the run after the end"
_PROBE = Path(__file__).with_name("probe.py")


def import_time(_events: int, rounds: int) -> list[Race]:
    """CPU time of ``import``, each in a new process, with its byte code already compiled."""
    return [turns("import time", "ms of CPU", _imports("milliseconds"), max(rounds, 5))]


def import_memory(_events: int, rounds: int) -> list[Race]:
    """By how much ``import`` makes a new process grow."""
    return [turns("memory after import", "KiB resident", _imports("kibibytes"), max(rounds, 3))]


def stream_memory(deltas: int, _rounds: int) -> list[Race]:
    """What a run holds of a long text, beside that text as one Python string."""
    probed = _probe("stream", str(deltas))
    names = {
        "text": "the text, as one str",
        "after_deltas": AFTER_DELTAS,
        "after_end": AFTER_END,
        "peak": "at most, with the frames that repeat the text",
    }
    contenders = {words: functools.partial(_constant, probed[name]) for name, words in names.items()}
    return [turns("memory of a long text", f"bytes, of {deltas:,} deltas", contenders, 1)]


def _imports(what: str) -> dict[str, Callable[[], Measure]]:
    return {f"import {module}": functools.partial(_import_probe, module, what) for module in IMPORTS}


def _import_probe(module: str, what: str) -> Measure:
    if find_spec(module) is None:
        raise ModuleNotFoundError(name=module)
    _probe("import", module)  # compiles its byte code
    return lambda: _probe("import", module)[what]


def _constant(value: float) -> Measure:
    return lambda: value


def _probe(*arguments: str) -> dict[str, float]:
    command = [sys.executable, str(_PROBE), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured
