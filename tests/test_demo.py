"""``eventflow demo``: with the recording always, with the real model where its wheels are installed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import Done, eventflow

from eventflow import Dispatcher, EventflowError, collect, sse
from eventflow.cli import model_server
from eventflow.cli.demo import PROMPT
from eventflow.cli.model_server import ModelServer
from eventflow.cli.recording import ANSWER, CALL, recording_server
from eventflow.plugin import available

DEADLINE = 60.0  # seconds after which a process is taken for stuck; the model takes some 5
TEXT = collect(ANSWER).output_text
EVENTS = [Dispatcher().run(recording).events for recording in (CALL, ANSWER)]
CALLS = collect(CALL).tool_calls
CONVERSATION = (
    f"\n> {PROMPT}\n\n[turn 1] "
    + "".join(f"\n  get_weather {' '.join(call.arguments.split())}" for call in CALLS)
    + "\n  get_weather -> Sunny, 18 °C, light wind." * len(CALLS)
    + f"\n[turn 2] {TEXT}\n"
)

NO_MODEL = """
import sys
from eventflow.cli import main, model_server
model_server.available = lambda: False
sys.exit(main())
"""
PROGRAM = (sys.executable, "-W", "error", "-c", NO_MODEL, "demo")
Play = Callable[..., Done]


@contextlib.contextmanager
def refusing(**options: Any) -> Iterator[ModelServer]:
    """A model server at which nobody listens."""
    yield ModelServer("http://127.0.0.1:9/v1", "none")


@contextlib.contextmanager
def dead(**options: Any) -> Iterator[ModelServer]:
    """One that does not start."""
    raise EventflowError("the model server died\nat \x1b[31mnight")
    yield


@contextlib.contextmanager
def cut_off(**options: Any) -> Iterator[ModelServer]:
    """One whose answer has no end."""
    short = b"\n\n".join(ANSWER.read_bytes().split(b"\n\n")[:10]) + b"\n\n"
    with tempfile.TemporaryDirectory() as folder:
        (cut := Path(folder) / "cut.sse").write_bytes(short)
        with recording_server(CALL, cut, pace=0) as url:
            yield ModelServer(url, "smollm2")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One in which the bundled plugins are found by name, from a checkout too."""
    variables = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }
    for name in ("EVENTFLOW_PLUGINS", "PYTHONUNBUFFERED"):  # as where users are
        variables.pop(name, None)
        monkeypatch.delenv(name, raising=False)
    if not {"accumulate", "log"} <= {plugin.name for plugin in available()}:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
        metadata = tmp_path / "site" / "eventflow_stream-0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
        points = [f"{name} = {target}" for name, target in project["entry-points"]["eventflow.plugins"].items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[eventflow.plugins]", *points, ""]))
        monkeypatch.syspath_prepend(metadata.parent)
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(metadata.parent), os.environ.get("PYTHONPATH"))))
    return variables


@pytest.fixture
def play(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays the demo to its end, here, as fast as it goes; with this model server, or with none."""

    def run(*arguments: str, server: Any = None, **variables: str) -> Done:
        monkeypatch.setattr("tempfile.tempdir", environment["TMPDIR"])
        monkeypatch.setattr(model_server, "available", lambda: server is not None)
        monkeypatch.setattr(model_server, "model_server", server)
        monkeypatch.setattr("eventflow.exchange._FIRST_DELAY", 0.001)
        monkeypatch.setattr("eventflow.cli.demo.recording_server", functools.partial(recording_server, pace=0))
        for name, value in (environment | variables).items():
            monkeypatch.setenv(name, value)
        return eventflow("demo", *arguments)

    return run


def rows(stdout: str) -> dict[str, str]:
    """The closing table."""
    found = re.findall(r"^ (\w+) {2,}(.+)$", stdout, re.MULTILINE)
    return dict(found)


def check_log(path: Path, events: list[int], calls: int, runs: int = 2) -> None:
    """One JSON object a line: every event of both turns, received or not, and how each run went."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = list(dict.fromkeys(line["run"] for line in lines))
    assert len(names) == runs
    for name, count, more in zip(names[-2:], events, (1 + 2 * calls, 1), strict=True):  # a turn, calls and outputs
        run = [line for line in lines if line["run"] == name]
        assert len([line for line in run if "event" in line]) == count + more
        assert run[-1]["status"] == "completed"


# --- the recording ---------------------------------------------------------------------------------------------------


def test_without_a_model_the_recording_is_streamed(environment: dict[str, str]) -> None:
    """It says so, shows question, calls, outputs, the whole answer and a table, and the log is where that says."""
    done = subprocess.run(PROGRAM, capture_output=True, text=True, timeout=DEADLINE, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_ = done.stdout.splitlines()
    assert "recording" in first
    assert "cannot answer" not in done.stdout
    assert CONVERSATION in done.stdout
    table = rows(done.stdout)
    assert table["outcome"] == "completed"
    assert table["turns"] == "2"
    assert table["tools"] == ", ".join(["get_weather: ok"] * len(CALLS))
    assert table["events"] == " + ".join(map(str, EVENTS))
    assert table["accumulated"] == f"{len(TEXT)} characters of text"
    assert re.fullmatch(r"\d+ in, \d+ out", table["tokens"])
    assert table["warnings"] == "none"
    assert table["code"].endswith("demo.py")
    check_log(Path(table["log"]), EVENTS, len(CALLS))


def test_log_goes_where_it_is_told(play: Play, tmp_path: Path) -> None:
    """``--log FILE``."""
    path = tmp_path / "my.jsonl"
    done = play("--log", str(path))
    assert rows(done.stdout.decode())["log"] == str(path)
    check_log(path, EVENTS, len(CALLS))


def test_text_is_shown_as_it_comes(environment: dict[str, str]) -> None:
    """The first words are on the screen while the rest is still to come; Ctrl-C ends it at once and quietly."""
    process = subprocess.Popen(PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = b""
        while b"The weather" not in seen:
            assert select.select([process.stdout], [], [], DEADLINE)[0]
            read = os.read(process.stdout.fileno(), 4096)
            assert read, seen  # it has not ended
            seen += read
        assert b"light wind." not in seen.partition(b"[turn 2]")[2]
        assert process.poll() is None
        interrupted = time.monotonic()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=DEADLINE)
        assert time.monotonic() - interrupted < 2
        assert (process.returncode, errors) == (130, b"")
        assert b"light wind." not in rest
    finally:
        process.kill()
        process.communicate()


def test_broken_pipe_ends_quietly(environment: dict[str, str]) -> None:
    """The reader has left: no traceback, and the exit code says why."""
    process = subprocess.Popen(PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE) == 141
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    ("server", "said", "runs"),
    [
        (refusing, r"no answer came", 2),  # no run began
        (dead, r"the model server died\\nat \\u001b\[31mnight\. This", 2),
        (cut_off, r"before a terminal event", 4),
    ],
    ids=["refuses", "dies", "is-cut-off"],
)
def test_a_model_that_fails_is_replaced_by_the_recording(play: Play, server: Any, said: str, runs: int) -> None:
    """Whatever happens to it is said in one line; then the recording is played to its end."""
    done = play(server=server)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode()
    (line,) = re.findall(r"^The model cannot answer: .*$", shown, re.MULTILINE)
    assert re.search(said, line)
    assert line.endswith("This is a recording of one.")
    assert f"{line}\n{CONVERSATION}" in shown
    assert rows(shown)["outcome"] == "completed"
    check_log(Path(rows(shown)["log"]), EVENTS, len(CALLS), runs)


def test_missing_plugins_are_told(play: Play) -> None:
    """The bundled plugins are found by name like a stranger's, and may be forbidden like one."""
    done = play(EVENTFLOW_PLUGINS="log")
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(
        r"eventflow: plugin 'accumulate' of .* is not in EVENTFLOW_PLUGINS; add it there\n", done.stderr.decode()
    )


def test_log_that_cannot_be_written_is_one_line(play: Play, tmp_path: Path) -> None:
    """Before anything is asked."""
    done = play("--log", str(tmp_path / "nowhere" / "log.jsonl"))
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("eventflow: ")
    assert "log.jsonl" in line


# --- its server ------------------------------------------------------------------------------------------------------


def test_server_plays_the_recordings_event_by_event() -> None:
    """As a model's server sends them: a write for every event, in all the same bytes; one for each turn."""
    with recording_server(pace=0.005) as base_url, httpx.Client(trust_env=False) as client:
        for asked, recording in (({}, CALL), ({"input": [{"type": "function_call_output"}]}, ANSWER), ({}, CALL)):
            with client.stream("POST", f"{base_url}/responses", json=asked) as response:
                chunks = list(response.iter_raw())
            assert response.headers["content-type"] == "text/event-stream"
            assert b"".join(chunks) == recording.read_bytes()
            assert len(chunks) > len(list(sse.decode(chunks))) / 2


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.skipif(not model_server.available(), reason="the model's wheels are not installed (see make demo)")
def test_the_real_model_calls_a_tool_and_answers(environment: dict[str, str]) -> None:
    """A real language model's two turns stream through the same program; nothing is left running."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "eventflow", "demo"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "recording" not in done.stdout
    table: dict[str, Any] = rows(done.stdout)
    assert table["outcome"] == "completed"
    assert table["turns"] == "2"
    assert table["warnings"] == "none"
    calls = table["tools"].split(", ")
    assert set(calls) == {"get_weather: ok"}
    check_log(Path(table["log"]), [int(count) for count in table["events"].split(" + ")], len(calls))
