"""The documentation's code blocks run, and its tables say what the code says."""

from __future__ import annotations

import ast
import functools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenarios import answer, call, closed, completed, created, opened
from servers import Peer, Server, document, sse
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from eventflow.events import Event, event_classes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECORDING = ROOT / "eventflow" / "cli" / "demo-answer.sse"


def respond(peer: Peer) -> None:
    """What the documentation's requests are answered with."""
    request = peer.request
    if request.path.endswith("/chat/completions"):
        pieces = [({"content": "Hello"}, None), ({}, "stop")]
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in pieces]
        sse([*(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks), b"data: [DONE]\n\n"])(peer)
        return
    asked = request.json if request.body else {}
    streams = asked.get("stream", "stream=true" in request.path)
    items = [{}] if isinstance(asked.get("input"), str) else asked.get("input") or [{}]
    if "tools" in asked and items[-1].get("type") != "function_call_output":
        item = call(json.dumps({"city": "Paris"}), name=asked["tools"][0].get("name", "weather"))
        events = [created(), opened(item), closed(item), completed(item)]
    elif "text" in asked:
        events = answer(json.dumps({"city": "Paris", "celsius": 18.0}))
    else:
        events = answer("Hello", ", ", "world")
    (sse(events) if streams else document(events[-1]["response"]))(peer)


@pytest.fixture
def reader_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as a reader of the documentation has it: with a recorded stream, a key, and a server that answers."""
    shutil.copy(RECORDING, tmp_path / "stream.sse")
    monkeypatch.chdir(tmp_path)
    with Server(respond) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
        yield tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_run_from_top_to_bottom(page: Path, reader_folder: Path) -> None:
    """Every python block of a page runs, each after the ones before it."""
    document = Sybil(parsers=[PythonCodeBlockParser()], path=str(page.parent)).parse(page)
    for example in document.examples():
        example.evaluate()


def events_table() -> list[str]:
    """The rows of docs/events.md, from the classes."""

    def fields(cls: type[Any]) -> str:
        return ", ".join(name for name in cls.__struct_fields__ if name not in ("sequence_number", "extra"))

    ours: dict[str, type[Event]] = {
        name: cls for name, cls in event_classes().items() if cls.__module__.startswith("eventflow.events.")
    }
    return [f"| `{name}` | `{cls.__name__}` | {cls.family} | {fields(cls)} |" for name, cls in ours.items()]


def test_events_table_lists_every_class() -> None:
    """The table of docs/events.md has exactly the rows that the classes give, in their order."""
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == events_table()


def guarantees() -> list[tuple[str, str]]:
    """The rows of docs/guarantees.md that promise something: what, and the test."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    promises = text[: text.index("## Versions")]
    rows = [line.strip("|").split("|") for line in promises.splitlines() if line.startswith("| ")]
    return [(what.strip(), test.strip()) for what, test in rows if what.strip() != "what is promised"]


@functools.cache
def functions_of(module: str) -> frozenset[str]:
    """The names of a module's functions."""
    functions = ast.parse((ROOT / "tests" / module).read_text(encoding="utf-8")).body
    return frozenset(each.name for each in functions if isinstance(each, ast.FunctionDef))


def test_guarantees_name_tests_that_exist() -> None:
    """Every promise has its test, by module and name; no test is told to show two."""
    rows = guarantees()
    assert len(rows) > 40
    assert len({test for _, test in rows}) == len(rows)
    for what, test in rows:
        named = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", test)
        assert named, f"{what}: {test} names no test"
        module, name = named.groups()
        assert name in functions_of(module), f"{what}: no {test}"
