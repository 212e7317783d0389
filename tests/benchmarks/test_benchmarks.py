"""The benchmarks themselves, on a few events: that they run, not what they measure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from environments import UNMEASURED


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, in a process of its own."""
    command = [sys.executable, str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=UNMEASURED)


NAMES = ("decode", "handle", "async", "wires", "quiet", "types", "three", "pipeline", "linear", "memory")


@pytest.mark.bench
def test_benchmarks_when_events_are_few() -> None:
    """Every lap handles all of its events, every table has its first row, missing peers are said to be missing."""
    done = run("--events", "100", "--rounds", "1", *NAMES)
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^  (\S.*?) {2,}(.+)$", done.stdout.partition("\nTargets")[0], re.MULTILINE)
    assert len(rows) > 40
    for _name, measured in rows:
        assert re.fullmatch(r"[\d,.]+ +[\d.]+ +[\d.]+|not installed \(\w+\)", measured), measured
    assert "Dispatcher.run " in done.stdout


@pytest.mark.bench
def test_live_when_events_are_few() -> None:
    """Every subject gets all events of a real server, or is said to be missing; the server ends with the program."""
    done = run("--events", "100", "--rounds", "1", "live")
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^  (\S.*?) {2,}(.+)$", done.stdout.partition("\nTargets")[0], re.MULTILINE)
    assert len(rows) > 20
    for _name, measured in rows:
        assert re.fullmatch(r"[\d,.]+ +[\d.]+ +[\d.]+|not installed \(\w+\)", measured), measured


def test_targets_when_strict() -> None:
    """What is not measured breaks no promise."""
    assert run("--strict", "--events", "100", "--rounds", "1", "three").returncode == 0


def test_benchmark_when_its_name_is_unknown() -> None:
    """It is named, with those that there are; nothing runs."""
    done = run("decode", "nosuch")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "'nosuch'" in done.stderr
    assert "pipeline" in done.stderr
