"""A stranger's package: built, installed beside the wheel, found by name, and at work with the bundled plugins."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from environments import CLEAN, ROOT, environment, run
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "stream-words"
version = "1.2"
dependencies = ["eventflow-stream"]

[project.entry-points."eventflow.plugins"]
quiet = "stream_words:Quiet"
word-count = "stream_words:WordCount"

[tool.setuptools]
packages = ["stream_words"]
package-data = { stream_words = ["py.typed"] }
"""

MODULE = '''
"""Words of streams."""

from eventflow import Event, Plugin, Run, TextDelta, ToolOutput, on, rewrite, state, transform


class WordCount(Plugin):
    """Count the words that begin with a letter, and what tools gave."""

    letter: str = ""
    words: int = state(default=0)
    outputs: list[str] = state(factory=list[str])
    hooks: list[str] = state(factory=list[str])

    def start(self, run: Run) -> None:
        self.hooks.append("start")

    @on(TextDelta)
    def count(self, event: TextDelta) -> None:
        self.words += sum(word.startswith(self.letter) for word in event.delta.split())

    @on(ToolOutput)
    def note(self, event: ToolOutput) -> None:
        self.outputs.append(event.output)

    def stop(self, run: Run) -> None:
        self.hooks.append("stop")


class Quiet(Plugin):
    """No thoughts while they come, and no shouting."""

    @transform("reasoning")
    def think(self, event: Event) -> None:
        return None

    @rewrite("text")
    def lower(self, text: str) -> str:
        return text.lower()
'''

PIPELINE = """
import asyncio, json, pathlib
from eventflow import Dispatcher
from eventflow.plugin import load
from eventflow.testing import stream
from eventflow_plugins import Accumulate, Log, Tools, Usage

def stock(article: str) -> str:
    "What there is."
    return f"no {article}"

def look(run):
    words = run[load("word-count")]
    return {
        "status": run.status, "words": words.words, "outputs": words.outputs, "hooks": words.hooks,
        "text": run[Accumulate].text, "received": run.text, "tokens": run[Usage].tokens.output,
        "outbox": [item["output"] for item in run.outbox],
    }

source = stream("BIG trees Bend", reasoning="Hm.", tools=[("stock", {"article": "tea"})])
with Dispatcher() as flow:
    flow.use("quiet")
    flow.use("word-count", letter="b")
    flow.use(Accumulate() | Log("run.jsonl") | Tools([stock]) | Usage())
    seen = [look(flow.run(source)), look(asyncio.run(flow.arun(source)))]
lines = map(json.loads, pathlib.Path("run.jsonl").read_text().splitlines())
logged = {line["event"]["type"] for line in lines if "event" in line}
print(json.dumps({"seen": seen, "logged": sorted(logged)}))
"""

TYPED = """
from typing import assert_type

from eventflow import Dispatcher
from stream_words import Quiet, WordCount

run = Dispatcher(Quiet() | WordCount(letter="b")).run("stream.sse")
assert_type(run[WordCount], WordCount)
assert_type(run[WordCount].outputs, list[str])
WordCount(letter=1)  # type: ignore[arg-type]
WordCount(words=1)  # type: ignore[call-arg]
"""


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who has followed the tutorial: what its blocks have written."""
    folder = tmp_path_factory.mktemp("tutorial")
    page = ROOT / "docs" / "tutorial-plugin.md"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for example in Sybil(parsers=[PythonCodeBlockParser()], path=str(page.parent)).parse(page).examples():
            example.evaluate()
    return folder


@pytest.fixture(scope="module")
def installed(wheel: Path, reader_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment with the wheel, the stranger's package, and that of the tutorial."""
    folder = tmp_path_factory.mktemp("strangers")
    package = folder / "stream-words"
    (package / "stream_words").mkdir(parents=True)
    (package / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (package / "stream_words" / "__init__.py").write_text(MODULE.lstrip(), encoding="utf-8")
    (package / "stream_words" / "py.typed").touch()
    return environment(folder, f"{wheel}[cli]", package, reader_folder / "eventflow-mask")


def test_plugin_of_a_stranger_when_the_command_lists_it(installed: Path, tmp_path: Path) -> None:
    """It is found with its distribution and target, and imports; so does the tutorial's."""
    listed = run(installed.parent / "eventflow", "plugins", "--check", cwd=tmp_path, COLUMNS="200")
    rows = {words[0]: words[1:] for words in map(str.split, listed.splitlines()) if words}
    assert rows["word-count"] == ["stream-words", "1.2", "stream_words:WordCount", "yes", "ok"]
    assert rows["quiet"] == ["stream-words", "1.2", "stream_words:Quiet", "yes", "ok"]
    assert rows["mask"] == ["eventflow-mask", "0.1.0", "eventflow_mask:Mask", "yes", "ok"]
    assert rows["accumulate"][0] == "eventflow-stream"


def test_plugin_of_a_stranger_when_it_is_not_allowed(installed: Path, tmp_path: Path) -> None:
    """What `EVENTFLOW_PLUGINS` leaves out is listed and not imported, and using it is an error that says so."""
    code = """
import sys
from eventflow import Dispatcher
from eventflow.errors import PluginError
from eventflow.plugin import available
print([plugin.name for plugin in available() if plugin.allowed])
try:
    Dispatcher().use("quiet")
except PluginError as error:
    print("EVENTFLOW_PLUGINS" in str(error), "stream_words" in sys.modules)
"""
    said = run(installed, "-c", code, cwd=tmp_path, EVENTFLOW_PLUGINS="word-count, log")
    assert said.splitlines() == ["['log', 'word-count']", "True False"]


def test_plugin_of_a_stranger_when_it_is_used_by_name_among_bundled_ones(installed: Path, tmp_path: Path) -> None:
    """Configuration, state, hooks, transform and rewrite hold before Accumulate, Log, Tools, Usage; sync and async."""
    said = json.loads(run(installed, "-W", "error", "-c", PIPELINE, cwd=tmp_path))
    expected = {
        "status": "completed",
        "words": 2,
        "outputs": ["no tea"],
        "hooks": ["start", "stop"],
        "text": "big trees bend",
        "received": "BIG trees Bend",
        "tokens": 5,
        "outbox": ["no tea"],
    }
    assert said["seen"] == [expected, expected]
    assert {"response.completed", "eventflow.tool_call", "eventflow.tool_output"} <= set(said["logged"])
    assert not any("reasoning" in name for name in said["logged"])


def test_plugin_of_a_stranger_when_mypy_checks_its_user(installed: Path, tmp_path: Path) -> None:
    """Its fields are the arguments of its class, state is not, and a run gives it by its class: all in the types."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    (tmp_path / "user.py").write_text(TYPED, encoding="utf-8")
    run(sys.executable, "-m", "mypy", "--strict", "--python-executable", installed, "user.py", cwd=tmp_path)


def test_package_of_the_tutorial_when_its_reader_goes_on(installed: Path, reader_folder: Path, tmp_path: Path) -> None:
    """Its tests pass, and it works by its name."""
    tests = reader_folder / "eventflow-mask" / "tests"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=tmp_path,
        env=CLEAN | {"PYTHONPATH": str(tests.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    code = """
from eventflow import Dispatcher
from eventflow.testing import stream
from eventflow_plugins import Accumulate
flow = Dispatcher()
flow.use("mask", word="secret")
flow.use(Accumulate())
print(flow.run(stream(["a sec", "ret"]))[Accumulate].text)
"""
    assert run(installed, "-c", code, cwd=tmp_path).strip() == "a ******"
