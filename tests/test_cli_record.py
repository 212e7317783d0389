"""``eventflow record``, ``eventflow replay``, ``eventflow run --record``: shown as `tail` does, kept as it came."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scenarios import answer, body, created, delta, error
from servers import Server, sse

from eventflow import plugin as plugins
from eventflow.cli import main

Command = Callable[..., tuple[int, bytes, bytes]]

ENDS = {
    "good": body(answer("Hello, ", "\x1b[2J wörld")),
    "cut": body([created(), delta("a")]),
    "error": body([created(), delta("a"), error()]),
    "none": b"<html>no stream</html>",
}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """Runs the command here; gives its exit code and what it wrote to stdout and stderr."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(list(map(str, arguments)))
        written = capfdbinary.readouterr()
        return code, written.out, written.err

    return run


@pytest.mark.parametrize("flags", [(), ("--json",), ("--events", "text")], ids=["text", "json", "events"])
@pytest.mark.parametrize("end", ENDS)
def test_recording_when_shown_and_replayed_is_what_tail_shows(
    tmp_path: Path, command: Command, end: str, flags: tuple[str, ...]
) -> None:
    """The same on stdout, the same line on stderr, the same exit code, from a pipe, a file and the recording."""
    stream, out = tmp_path / "stream.sse", tmp_path / "run.jsonl"
    stream.write_bytes(ENDS[end])
    shown = command("tail", *flags, stream)
    if end == "none":  # what may help with a stream does not help with a recording
        shown = (*shown[:2], shown[2].replace(b"; --raw shows frames as they stand", b""))
    assert command("record", *flags, out, stdin=ENDS[end]) == shown
    assert command("record", *flags, tmp_path / "again.jsonl", stream) == shown
    assert command("replay", *flags, out) == shown
    assert command("replay", "--raw", out) == (0, ENDS[end], b"")


def test_recording_when_its_file_exists_or_cannot_be_read(tmp_path: Path, command: Command) -> None:
    """One line and exit code 2; nothing is written over, nothing is taken for a recording that is none."""
    out = tmp_path / "run.jsonl"
    out.write_bytes(b"precious")
    code, stdout, stderr = command("record", out, stdin=ENDS["good"])
    assert (code, stdout, stderr.count(b"\n")) == (2, b"", 1)
    assert b"does not write over" in stderr
    assert out.read_bytes() == b"precious"
    code, stdout, stderr = command("replay", out)
    assert (code, stdout, stderr.count(b"\n")) == (2, b"", 1)
    assert b"is no recording" in stderr
    assert command("replay", tmp_path / "nothing")[0] == 2


def test_recording_when_it_is_cut_shows_what_there_is(tmp_path: Path, command: Command) -> None:
    """Exit code 1 and the reason, as for any stream that was cut; with ``--raw`` too."""
    out = tmp_path / "run.jsonl"
    command("record", out, stdin=ENDS["cut"])
    out.write_bytes(out.read_bytes()[:-50])
    for flags in ((), ("--raw",)):
        code, stdout, stderr = command("replay", *flags, out)
        assert (code, stdout.startswith(ENDS["cut"] if flags else b"a\n")) == (1, True)
        assert (b"is cut in the middle of line 3" in stderr, stderr.count(b"\n")) == (True, 1)


def test_raw_when_there_are_no_bytes_or_too_many_options(tmp_path: Path, command: Command) -> None:
    """``--raw`` writes bytes and nothing else; a source that gave none has none."""
    out = tmp_path / "run.jsonl"
    command("record", out, stdin=ENDS["good"])
    for flags in (("--json",), ("--events", "text"), ("--wire", "chat")):
        code, _, stderr = command("replay", "--raw", *flags, out)
        assert (code, b"leave --json, --events and --wire out" in stderr) == (2, True)
    header = out.read_bytes().splitlines(keepends=True)[0]
    out.write_bytes(header + b'{"t":0,"text":"a"}\n{"t":0,"anew":true}\n{"t":0,"mapping":{"type":"x"}}\n')
    code, stdout, stderr = command("replay", "--raw", out)
    assert (code, stdout) == (2, b"a")
    assert b"has dicts, for its source gave no bytes" in stderr


def test_speed_when_it_is_given_keeps_the_times(tmp_path: Path, command: Command) -> None:
    """Ten times faster than 0.5 s is 0.05 s, by a real clock; what is no speed is wrong use."""
    out = tmp_path / "run.jsonl"
    command("record", out, stdin=ENDS["good"])
    *lines, last = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines, json.dumps({**json.loads(last), "t": 0.5}).encode()]))
    began = time.monotonic()
    assert command("replay", "--speed", "10", "--raw", out)[0] == 0
    assert 0.05 <= time.monotonic() - began < 0.5
    assert command("replay", "--speed", "-1", out)[0] == 2


def test_stdin_when_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be recorded from it, which is said."""
    monkeypatch.setattr("sys.stdin", None)
    assert main(["record", str(tmp_path / "run.jsonl")]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("allowed", ["log", None])
def test_replay_when_the_plugin_is_not_there(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, allowed: str | None
) -> None:
    """The commands find it by name, and say so when they may not, or when another has its name."""
    if allowed is not None:
        monkeypatch.setenv("EVENTFLOW_PLUGINS", allowed)
        code, _, stderr = command("record", tmp_path / "a", stdin=b"")
        assert (code, b"is not in EVENTFLOW_PLUGINS" in stderr) == (2, True)
    else:
        monkeypatch.setattr("eventflow.cli.replay.load", lambda name: plugins.Plugin)
    code, _, stderr = command("replay", tmp_path / "a")
    assert (code, stderr.count(b"\n")) == (2, 1)
    assert (b"is not in EVENTFLOW_PLUGINS" if allowed else b"has no replay()") in stderr


def test_run_when_it_records_keeps_the_answer(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``eventflow run --record`` keeps what the server sent; a file that exists is told before anything is asked."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
    out = tmp_path / "run.jsonl"
    asked: list[Any] = ["run", "--model", "m", "--record", out, "hello"]
    with Server(sse(answer("a", "b"))) as server:
        asked += ["--base-url", server.url]
        code, stdout, _ = command(*asked)
        assert (code, stdout.splitlines()[0]) == (0, b"ab")
        assert command(*asked)[0] == 2
        assert len(server.requests) == 1
    assert command("replay", out)[1].splitlines()[0] == b"ab"
    assert command("replay", "--raw", out)[1] == body(answer("a", "b"))
    assert b"sk-made-up" not in out.read_bytes()


def test_recording_when_interrupted_has_its_end(tmp_path: Path) -> None:
    """Ctrl-C ends the command with 130; what had come is recorded, and that it was left."""
    out = tmp_path / "run.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "eventflow", "record", str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(ENDS["cut"])
        process.stdin.flush()
        assert process.stdout.read(1) == b"a"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    header, chunk, last = map(json.loads, out.read_bytes().splitlines())
    assert header["format"] == "eventflow-recording"
    assert chunk["text"].encode() == ENDS["cut"]
    assert (last["status"], last["error"]) == ("cancelled", None)
