"""``eventflow run`` against a scripted server on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import Any

import pytest
from commands import COMMAND, DEADLINE, Done, eventflow, process
from scenarios import answer, call, closed, completed, created, delta, error, incomplete, message, opened
from servers import Peer, Server, sse, status

RUN = ("run", "--model", "m")
KEY = "sk-made-up-4711"
CLOSING = re.compile(
    r"^-- (?P<status>\w+), (?P<events>\d+) events, tokens: 3 in, 5 out, first text after \d+\.\d\d s, \d+ tokens/s$"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and nothing else that counts."""
    for name in os.environ:
        if name.startswith(("OPENAI_", "EVENTFLOW_MODEL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def ask(server: Server, *arguments: str, stdin: bytes = b"") -> Done:
    """Run the command against *server*, to its end."""
    return eventflow(*RUN, "--base-url", server.url, *arguments, stdin=stdin)


def test_answer_when_it_comes_is_text_and_a_closing_line() -> None:
    """In a process of its own: the text as it is, and at the end how it went; the request says what was asked."""
    with Server(sse(answer("Hello, ", "world"), pace=0.02)) as server:
        said = ("Who are you?", "--instructions", "Be short.", "-p", "temperature=0", "-p", "user=me")
        done = process(*RUN, "--base-url", server.url, *said)
    assert (done.returncode, done.stderr) == (0, b"")
    text, closing = done.stdout.decode().splitlines()
    assert text == "Hello, world"
    assert CLOSING.match(closing), closing
    request = server.requests[0]
    assert request.json == {
        "model": "m",
        "input": "Who are you?",
        "instructions": "Be short.",
        "temperature": 0,
        "user": "me",
        "stream": True,
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_prompt_when_it_is_read_from_stdin() -> None:
    """A dash reads the question from a pipe."""
    with Server(sse(answer("a"))) as server:
        done = ask(server, "-", stdin=b"many\nlines")
    assert done.returncode == 0
    assert server.requests[0].json["input"] == "many\nlines"


def test_reasoning_and_tools_when_they_come_are_marked() -> None:
    """Reasoning is quoted, a call has a line."""
    reasoning = {"type": "response.reasoning_text.delta", "item_id": "rs_1", "output_index": 0, "delta": "hmm"}
    tool = call('{"city": "Paris"}')
    with Server(sse([created(), reasoning, closed(tool, index=1), completed(tool)])) as server:
        done = ask(server, "x")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "| hmm"
    assert '[tool] weather {"city": "Paris"}' in lines
    assert lines[-1].startswith("-- completed")


def test_json_when_asked_for_is_an_event_a_line() -> None:
    """Every event, as JSON, and nothing else."""
    events = answer("a", "b")
    with Server(sse(events)) as server:
        done = ask(server, "x", "--json")
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == [event["type"] for event in events]


def test_plugin_when_named_is_used() -> None:
    """An installed plugin by its name; an unknown one is wrong use."""
    with Server(sse(answer("a"))) as server:
        assert ask(server, "x", "--plugin", "accumulate").returncode == 0
        done = ask(server, "x", "--plugin", "nonesuch")
    assert done.returncode == 2
    assert b"nonesuch" in done.stderr
    assert len(server.requests) == 1


HOSTILE = "\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\x7f\r\b\u202eevil\x00end\x1b]0;title\x07"


def test_text_when_hostile_cannot_drive_the_terminal() -> None:
    """No control of the model's reaches the terminal: no cursor, no title, no clipboard."""
    tool = call(json.dumps(HOSTILE), name=HOSTILE)
    with Server(
        sse([created(), opened(), delta(HOSTILE), closed(tool, index=1), completed(message(HOSTILE))])
    ) as server:
        done = ask(server, "x")
    shown = done.stdout.decode()
    assert not set(shown) & set("\x1b\x07\x9b\x7f\r\b\x00\u202e")
    assert r"\u001b]52;c;aGk=\u0007" in shown


@pytest.mark.parametrize(
    ("events", "code", "said"),
    [
        ([created(), opened(), delta("a"), incomplete(message("a"))], 0, "-- incomplete (max_output_tokens)"),
        ([created(), opened(), delta("a"), error()], 1, "-- failed"),
        ([created(), opened(), delta("a")], 1, "-- truncated"),
    ],
    ids=["incomplete", "error", "truncated"],
)
def test_stream_when_it_does_not_end_well(events: list[Any], code: int, said: str) -> None:
    """What has come is shown; then how it ended, and why on stderr."""
    with Server(sse(events)) as server:
        done = ask(server, "x")
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, lines[0]) == (code, "a")
    assert lines[-1].startswith(said)
    assert bool(done.stderr) is bool(code)
    assert b"Traceback" not in done.stderr


def test_server_when_it_refuses() -> None:
    """The server's reason in one line, without the key."""
    page = b'{"error": {"message": "Incorrect API key provided"}}'
    with Server(status(401, page=page)) as server:
        done = ask(server, "x")
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "HTTP 401" in line
    assert "Incorrect API key" in line
    assert KEY not in line


def test_server_when_there_is_none() -> None:
    """A connection that is refused is said in one line."""
    with Server(status(500)) as server:
        pass
    done = ask(server, "x")
    assert done.returncode == 1
    assert b"no answer came from" in done.stderr


def test_silence_when_it_lasts_is_a_timeout() -> None:
    """--idle bounds the silence between two events."""

    def hanging(peer: Peer) -> None:
        sse([created(), opened(), delta("a")], then=Peer.wait)(peer)

    with Server(hanging) as server:
        done = ask(server, "x", "--idle", "0.2")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines()[-1].startswith("-- timeout")
    assert b"Timeouts(idle=...)" in done.stderr


def test_command_when_interrupted_leaves_quietly() -> None:
    """Ctrl-C ends the line and the connection."""

    def hanging(peer: Peer) -> None:
        sse([created(), opened(), delta("a")], then=Peer.wait)(peer)

    with Server(hanging) as server:
        command = [*COMMAND, *RUN, "--base-url", server.url, "x"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.read(1) == b"a"
            child.send_signal(signal.SIGINT)
            rest, complaint = child.communicate(timeout=DEADLINE)
        assert server.left.wait(2)
    assert (child.returncode, rest, complaint) == (130, b"\n", b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x", "-p", "temperature"), b"NAME=JSON"),
        (("x", "--idle", "0"), b"--idle"),
        ((), b"PROMPT"),
    ],
)
def test_command_when_used_wrongly(arguments: tuple[str, ...], said: bytes) -> None:
    """Wrong use is said, and nothing is sent."""
    with Server(sse(answer("a"))) as server:
        done = ask(server, *arguments)
        assert not server.requests
    assert done.returncode == 2
    assert said in done.stderr


def test_key_when_missing_for_openai_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, OpenAI's server is not even asked."""
    monkeypatch.setenv("OPENAI_API_KEY", "")
    done = eventflow(*RUN, "x")
    assert done.returncode == 2
    assert b"OPENAI_API_KEY" in done.stderr
