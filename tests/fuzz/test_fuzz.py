"""What is fuzzed, on a few inputs of every run of the tests; and what was found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from environments import UNMEASURED
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import CUTS, TARGETS, seeds

from eventflow.testing.strategies import faults, streams

FEW = settings(max_examples=settings().max_examples // 3)  # of each target
WIRES = ("responses", "chat", "anthropic", "gemini")

FOUND: list[tuple[str, bytes]] = [  # inputs that the fuzzer has found: target, bytes
    ("sse", b"}\n\nevent:\x00\ndata\n\n"),
    ("arguments", b'{"city":"","days":2,"scale":77777777777777777}'),
    ("gemini", b'\r\r\r\r[{"candidates"}\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00ageMetadata": '),
]

_VALUES = st.sampled_from([None, True, 0, -1, 2**63, 0.5, 1e300, "", "x", "\ud800", [], {}, [{}], {"a": []}, [[0]]])


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a value something stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in _paths(each, (*path, key)))]


@st.composite
def _retyped(draw: st.DrawFn, name: str) -> bytes:
    """A recording of a wire in which a few values are others."""
    body = draw(st.sampled_from(seeds(name)))
    blocks = re.split(rb"(?<=data: )(\{.*\})", body)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(range(1, max(len(blocks), 2), 2)))
        if place >= len(blocks):  # one array of JSON
            return body
        value = [json.loads(blocks[place])]
        *above, last = draw(st.sampled_from(_paths(value)[1:]))
        target: Any = value
        for key in above:
            target = target[key]
        target[last] = draw(_VALUES)
        blocks[place] = json.dumps(value[0]).encode()
    return b"".join(blocks)


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_target_when_an_input_was_found(name: str, data: bytes) -> None:
    """What was found once holds."""
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_target_when_the_input_is_a_seed(name: str) -> None:
    """What the fuzzer begins with holds, whole and cut short; and so does nothing."""
    for seed in seeds(name):
        TARGETS[name](seed)
        TARGETS[name](seed[: len(seed) // 2])
    for length in range(CUTS + 2):
        TARGETS[name](bytes(length))


@FEW
@pytest.mark.parametrize("name", WIRES)
@given(st.data())
def test_wire_when_a_stream_is_broken(name: str, data: st.DataObject) -> None:
    """Bytes and events dropped, doubled, swapped, cut; errors and garbage in between: all that a run promises holds."""
    fault = data.draw(faults(streams(wires=[name])))
    TARGETS[name](data.draw(st.binary(min_size=CUTS, max_size=CUTS)) + fault.body)


@FEW
@pytest.mark.parametrize("name", WIRES)
@given(st.data())
def test_wire_when_types_are_changed(name: str, data: st.DataObject) -> None:
    """Whatever stands in the place of a value, all that a run promises holds."""
    TARGETS[name](data.draw(_retyped(name)))


@FEW
@pytest.mark.parametrize("name", [name for name in TARGETS if name not in WIRES])
@given(st.data())
def test_target_when_the_input_is_any(name: str, data: st.DataObject) -> None:
    """Any bytes, and seeds with any bytes in them."""
    seed = data.draw(st.sampled_from(seeds(name)))
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, min(len(seed), start + 8)))
    TARGETS[name](seed[:start] + data.draw(st.binary(max_size=8)) + seed[end:])


def test_fuzzer_when_it_runs(tmp_path: Path) -> None:
    """It says how much it has tried; what it does not know, it says."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(Path(__file__).parent), "--kept", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=UNMEASURED)

    done = run("--seconds", "1", "--random", "json_array")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"json_array: [\d,]+ inputs in 1 s\nfound nothing", done.stdout)
    done = run("nonsense")
    assert done.returncode == 2
    assert "no target is called 'nonsense'" in done.stderr
