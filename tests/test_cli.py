"""The command ``eventflow``: `tail`, `plugins`, and, as a process of its own, how it behaves among other commands."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, DEADLINE, eventflow, process

from eventflow import Dispatcher, TextDelta, sse
from eventflow.cli import main
from eventflow.printable import printable
from eventflow_plugins import Terminal

HOSTILE = "\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\x7f\r\b\u202eevil\u2066\u2028\u2029\u200f\x00end"


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is buffered, as where users are: some machines that run tests have set otherwise."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def body(*events: dict[str, Any]) -> bytes:
    """A stream of *events*, made by hand."""
    return b"".join(sse.encode(event=event["type"], data=json.dumps(event)) for event in events)


def created() -> dict[str, Any]:
    """How every stream begins."""
    return {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}


def added(kind: str = "message", identity: str = "msg_1") -> dict[str, Any]:
    """An item begins."""
    return {"type": "response.output_item.added", "item": {"type": kind, "id": identity}}


def delta(text: str, **fields: Any) -> dict[str, Any]:
    """The next piece of the message's text."""
    return {"type": "response.output_text.delta", "item_id": "msg_1", "content_index": 0, "delta": text, **fields}


def item_done(**item: Any) -> dict[str, Any]:
    """An item is complete."""
    return {"type": "response.output_item.done", "output_index": 0, "item": {"id": "item_1", **item}}


def completed(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """How a good stream ends."""
    response = {"id": "resp_1", "status": "completed", "output": list(output), **fields}
    return {"type": "response.completed", "response": response}


def shown(*events: dict[str, Any], arguments: tuple[str, ...] = ()) -> list[str]:
    """The lines that `tail` shows of a good stream with *events*, the closing one left out."""
    done = eventflow("tail", *arguments, "-", stdin=body(created(), *events, completed()))
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert lines.pop().startswith("-- completed")
    return lines


class Child:
    """The command with its three ends in our hands."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None, **streams: Any) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=streams.get("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        self.seen = b""

    def send(self, data: bytes) -> None:
        """Write to its stdin, which stays open."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read_until(self, wanted: bytes) -> None:
        """Read its stdout until *wanted* has come."""
        assert self.process.stdout is not None
        until = time.monotonic() + DEADLINE
        while wanted not in self.seen:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{wanted!r} did not come; there was {self.seen!r}"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, f"it ended without {wanted!r}; there was {self.seen!r}, {self.process.stderr}"
            self.seen += chunk

    def end(self) -> tuple[int, bytes]:
        """Its exit code and what it wrote to stderr; the rest of its stdout is added to ``seen``."""
        self.process.wait(DEADLINE)
        assert self.process.stderr is not None
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.seen += self.process.stdout.read()
        return self.process.returncode, self.process.stderr.read()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("tail", "responses-text.sse"), ("tail", "--json", "responses-error.sse"), ("tail", "no-such-file"), ("tali",)],
)
def test_command_when_it_is_a_process_does_what_it_does_here(
    fixtures: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """The same on stdout, on stderr, and as its exit code: most tests need no process."""
    monkeypatch.chdir(fixtures)
    one, other = process(*arguments), eventflow(*arguments)
    assert (one.stdout, one.stderr, one.returncode) == (other.stdout, other.stderr, other.returncode)
    assert one.stdout or one.stderr


def test_help_names_the_commands() -> None:
    """``--help`` goes to stdout and is no error."""
    done = eventflow("--help")
    assert (done.returncode, done.stderr) == (0, b"")
    for name in (b"demo", b"plugins", b"record", b"replay", b"tail"):
        assert re.search(rb"^  %s " % name, done.stdout, re.MULTILINE)


def test_help_of_tail_documents_its_exit_codes() -> None:
    """Scripts rely on them, so they are written down."""
    text = " ".join(eventflow("tail", "--help").stdout.decode().split())
    assert "Exit codes: 0 the response is completed or incomplete; 1 the stream failed" in text


def test_version_is_that_of_the_distribution() -> None:
    """``--version`` says it, or that there is none when it runs from its sources."""
    done = process("--version")
    assert done.returncode == 0
    assert re.fullmatch(rb"eventflow (\d+\.\d+\S*|\(not installed.*\))\n", done.stdout)


def test_version_without_a_distribution(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkout on the path has no metadata, and says so."""
    import importlib.metadata

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "eventflow (not installed: run from its sources)\n"


@pytest.mark.parametrize("arguments", [(), ("tali",), ("tail",), ("tail", "--colour", "x"), ("plugins", "x")])
def test_wrong_use_is_told_on_stderr(arguments: tuple[str, ...]) -> None:
    """Usage goes to stderr, the exit code is 2."""
    done = eventflow(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"Usage: eventflow")


@pytest.mark.parametrize("missing", [("rich",), ("click", "rich")])
def test_missing_extra_is_one_clear_line(missing: tuple[str, ...]) -> None:
    """Without click or rich the command says what to install, and imports neither before it has looked."""
    program = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {missing} else find(name, package)
from eventflow.cli import main
assert not {{"click", "rich"}} & set(sys.modules)
sys.exit(main(["--help"]))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=DEADLINE)
    names = " and ".join(missing)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"eventflow: the command needs {names}: pip install 'eventflow-stream[cli]'\n"


# --- tail: what it shows ---------------------------------------------------------------------------------------------


def test_text_is_shown_with_a_closing_line(fixtures: Path) -> None:
    """A recorded answer: its text, then the status, the events and the tokens."""
    done = eventflow("tail", str(fixtures / "responses-text.sse"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == (
        "An event stream is a type of data that is generated by a single event, such as a video or audio stream, "
        "and is used to analyze and process it.\n-- completed, 41 events, tokens: 41 in (24 cached), 34 out\n"
    )


def test_reasoning_is_marked(fixtures: Path) -> None:
    """Every line of it begins with a bar, wherever the deltas were cut; the answer begins on a line of its own."""
    assert shown(
        added("reasoning", "rs_1"),
        {"type": "response.reasoning_text.delta", "item_id": "rs_1", "content_index": 0, "delta": "Hm"},
        {"type": "response.reasoning_text.delta", "item_id": "rs_1", "content_index": 0, "delta": "m,\n"},
        {"type": "response.reasoning_text.delta", "item_id": "rs_1", "content_index": 0, "delta": "\nwell"},
        {"type": "response.reasoning_text.done", "item_id": "rs_1", "content_index": 0, "text": "Hmm,\n\nwell"},
        {"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "summary_index": 0, "delta": "In short"},
        {"type": "response.reasoning_summary_text.done", "item_id": "rs_1", "summary_index": 0, "text": "In short"},
        added(),
        delta("An"),
        delta("swer\n"),
    ) == ["| Hmm,", "| ", "| well", "| In short", "Answer"]


def test_refusal_is_marked() -> None:
    """A refusal is not the answer, and does not look like it."""
    part = {"item_id": "msg_1", "content_index": 0}
    assert shown(
        added(),
        {"type": "response.refusal.delta", "delta": "I can't.", **part},
        {"type": "response.refusal.done", "refusal": "I can't.", **part},
    ) == ["! I can't."]


def test_parts_are_shown_on_lines_of_their_own() -> None:
    """Two texts do not run together; an empty delta is nothing."""
    lines = shown(added(), delta("one"), delta("", content_index=1), delta("two", content_index=1))
    assert lines == ["one", "two"]


def test_text_without_deltas_is_shown_from_its_done_event() -> None:
    """Some servers send whole texts only."""
    part = {"item_id": "msg_1", "content_index": 0}
    assert shown(
        added("reasoning", "rs_1"),
        {"type": "response.reasoning_text.done", "text": "thought", "item_id": "rs_1", "content_index": 0},
        {"type": "response.reasoning_summary_text.done", "text": "summary", "item_id": "rs_1", "summary_index": 0},
        added(),
        {"type": "response.output_text.done", "text": "whole", **part},
        {"type": "response.refusal.done", "refusal": "no", "item_id": "msg_1", "content_index": 1},
    ) == ["| thought", "| summary", "whole", "! no"]


def test_text_that_differs_from_its_deltas_is_shown_anew() -> None:
    """What was missing at the end is added; where the deltas were wrong, the whole text follows them."""

    def done(text: str) -> dict[str, Any]:
        return {"type": "response.output_text.done", "item_id": "msg_1", "content_index": 0, "text": text}

    lines = shown(added(), delta("a"), done("ab"), done("ab"))
    assert lines[0] == "ab"
    assert lines[1].startswith("[warning] mismatch: ")
    lines = shown(added(), delta("a"), done("b"))
    assert lines[:2] == ["a", "b"]


def test_text_of_the_terminal_event_alone_is_shown() -> None:
    """And some send it nowhere else."""
    content = [{"type": "output_text", "text": "answer"}, {"type": "refusal", "refusal": "but no"}]
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "thought"}]}
    message = {"type": "message", "id": "msg_1", "content": content}
    done = eventflow("tail", "-", stdin=body(created(), completed(thought, message)))
    assert done.stdout == b"| thought\n! but no\nanswer\n-- completed, 2 events\n"


def test_calls_and_items_take_one_line_each() -> None:
    """Calls with name and arguments, others with type, status and id; messages were shown as text."""
    arguments = '{"city":\n"Paris"}'
    assert shown(
        item_done(type="function_call", name="get_weather", arguments=arguments, call_id="c"),
        item_done(type="custom_tool_call", name="shell", input="ls", call_id="d"),
        item_done(type="web_search_call", status="completed"),
        item_done(type="acme_widget"),
        item_done(type="message", content=[]),
        item_done(type="reasoning", summary=[]),
        {"type": "response.web_search_call.searching", "item_id": "item_1"},
    ) == [
        '[tool] get_weather {"city":\\n"Paris"}',
        "[tool] shell ls",
        "[web_search_call] completed item_1",
        "[acme_widget] item_1",
    ]


def test_long_lines_are_cut_where_they_are_not_the_answer() -> None:
    """Arguments may have megabytes; ``--json`` has them all. The answer is never cut."""
    call = item_done(type="function_call", name="f", arguments="x" * 5000, call_id="c")
    line, text = shown(call, added(), delta("y" * 5000))
    assert line == "[tool] f " + "x" * 998 + "…"
    assert text == "y" * 5000


def test_unknown_events_are_shown_by_type() -> None:
    """A vendor's own events are seen, with what they carry."""
    lines = shown({"type": "acme.thing", "a": 1}, {"type": "acme.bare"})
    assert lines == ['[acme.thing] {"a": 1}', "[acme.bare]"]


def test_warnings_come_before_the_closing_line() -> None:
    """What the run survived is told."""
    lines = shown({**added(), "sequence_number": 1}, delta("a", sequence_number=2), delta("b", sequence_number=5))
    assert lines[0] == "ab"
    assert lines[1].startswith("[warning] gap: ")


def test_closing_line_tells_why_a_response_is_incomplete() -> None:
    """And counts what the server counted."""
    response = {"id": "r", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    response["usage"] = {"output_tokens": 12345}
    done = eventflow("tail", "-", stdin=body(created(), {"type": "response.incomplete", "response": response}))
    assert done.returncode == 0
    assert done.stdout == b"-- incomplete (max_output_tokens), 2 events, tokens: ? in, 12,345 out\n"


def test_events_filters_by_selector() -> None:
    """Families, names and patterns; what has no form of its own is shown too when it was asked for."""
    events = (
        added(),
        delta("text"),
        item_done(type="function_call", name="f", arguments="{}", call_id="c"),
        {"type": "response.output_text.done", "item_id": "msg_1", "content_index": 0, "text": "text"},
    )
    assert shown(*events, arguments=("--events", "text")) == ["text"]
    assert shown(*events, arguments=("--events", "eventflow.tool_call")) == ["[tool] f {}"]
    assert shown(*events, arguments=("--events", "response.text_delta", "--events", "tool")) == ["text", "[tool] f {}"]
    assert shown(*events, arguments=("--events", "response.output_text.done")) == ["text"]
    assert shown(*events, arguments=("--events", "audio")) == []
    assert shown(*events, arguments=("--events", "response.c*d"))[0] == (
        '[response.created] {"response": {"id": "resp_1", "status": "in_progress"}}'
    )


def test_every_recorded_stream_is_shown(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them: the text that was recorded, nothing that drives a terminal, and the exit code of the status."""
    truths = [json.loads(line) for line in (corpus / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    told = [truth for truth in truths if truth["file"].startswith("responses/")]
    assert told
    for truth in told:
        code = main(["tail", "--events", "response.output_text.d*", str(corpus / truth["file"])])
        out, err = capsys.readouterr()
        assert_harmless(out)
        assert (code == 0) == (truth["final_status"] in ("completed", "incomplete")), (truth["file"], code, err)
        text = "".join(line for line in out.splitlines() if not line.startswith(("-- ", "[warning]", "[error]")))
        whole = "".join(printable(truth["output_text"] or "", newlines=True).splitlines())
        if code == 0:
            assert text == whole or ("[warning] mismatch" in out and text.endswith(whole)), truth["file"]


# --- tail: as JSON, and raw ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["responses-text", "responses-tool", "responses-reasoning", "responses-error"])
def test_json_is_one_event_a_line(fixtures: Path, name: str) -> None:
    """Every event that a handler gets, with all of its fields, and no closing line."""
    path = fixtures / f"{name}.sse"
    expected: list[Any] = []
    flow = Dispatcher()
    flow.on("*", lambda event: expected.append(json.loads(event.to_json())))
    flow.run(path, check=False)
    done = eventflow("tail", "--json", str(path))
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
    assert len(expected) > 2


def test_json_is_utf_8_whatever_the_locale() -> None:
    """A pipe into another program has one encoding."""
    stream = body(created(), delta("Grüße \ud83d\ude00"), completed())
    done = process("tail", "--json", "-", stdin=stream, environment={"PYTHONIOENCODING": "latin-1"})
    assert "Grüße 😀" in done.stdout.decode()
    assert json.loads(done.stdout.splitlines()[1])["delta"] == "Grüße 😀"


def test_text_survives_a_locale_that_lacks_its_characters() -> None:
    """They are escaped; the stream goes on."""
    stream = body(created(), added(), delta("€é"), completed())
    done = process("tail", "-", stdin=stream, environment={"PYTHONIOENCODING": "latin-1"})
    assert (done.returncode, done.stdout) == (0, b"\\u20ac\xe9\n-- completed, 4 events\n")


def test_raw_shows_the_frames_of_any_stream(fixtures: Path) -> None:
    """One line a frame, whosever it is; controls escaped."""
    done = eventflow("tail", "--raw", "-", stdin=b"event: tick\nid: 7\ndata: a\x1b\ndata: b\n\ndata: c\n\n")
    assert (done.returncode, done.stdout) == (0, b"[tick] a\\u001b\\nb\n[message] c\n")
    done = eventflow("tail", "--raw", "--json", "-", stdin=b"event: tick\nid: 7\ndata: a\x1b\ndata: b\n\n")
    assert json.loads(done.stdout) == {"event": "tick", "data": "a\x1b\nb", "id": "7"}
    assert b"\x1b" not in done.stdout
    done = eventflow("tail", "--raw", str(fixtures / "chat-text.sse"))
    assert done.stdout.endswith(b"[message] [DONE]\n")


# --- tail: exit codes and errors -------------------------------------------------------------------------------------

FAULT = {"code": "server_error", "message": "it broke"}
FAILED = {"type": "response.failed", "response": {"id": "r", "status": "failed", "error": FAULT}}


@pytest.mark.parametrize(
    ("stream", "code", "said", "closing"),
    [
        (body(created(), FAILED), 1, "the API reported an error in the stream: server_error: it broke", "failed"),
        (body(created(), {"type": "error", **FAULT}), 1, "it broke", "failed"),
        (body(created(), delta("partial")), 1, "before a terminal event", "truncated"),
        (
            body(created()) + b"event: response.output_text.delta\ndata: {\n\n",
            1,
            "response.output_text.delta",
            "failed",
        ),
        (b"", 1, "before a terminal event", None),
        (b"<!doctype html>\n<p>no", 2, "no event stream", None),
        (b"data: hello\n\n", 2, "--raw shows frames", None),
    ],
    ids=["failed", "error", "truncated", "garbled", "empty", "html", "foreign"],
)
def test_bad_streams_end_with_one_line_and_a_code(stream: bytes, code: int, said: str, closing: str | None) -> None:
    """1 where the stream went wrong, 2 where it is none; the reason on stderr, what was received on stdout."""
    done = eventflow("tail", "-", stdin=stream)
    assert done.returncode == code
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("eventflow: ")
    assert said in line
    lines = done.stdout.decode().splitlines()
    assert [line.split(",")[0] for line in lines[-1:]] == ([f"-- {closing}"] if closing else [])


@pytest.mark.parametrize("arguments", [("--raw",), ("--raw", "--json"), ()])
@pytest.mark.parametrize(
    "stream", [b"<!doctype html>\n<p>no" + b"x" * 70_000, b'{"error": {}}\n\n'], ids=["html", "json"]
)
def test_what_is_no_stream_ends_alike_raw_or_not(arguments: tuple[str, ...], stream: bytes) -> None:
    """A page instead of a stream is called so, with its size and its beginning, whatever is to be shown of it."""
    done = eventflow("tail", *arguments, "-", stdin=stream)
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    said = f"eventflow: no server-sent event in {len(stream):,} bytes: this is no event stream. It begins with "
    assert line.startswith(said + repr(stream[:9].decode())[:-1])


@pytest.mark.parametrize("stream", [b"", b": only a comment\n\n", b"<p>\ndata: all the same\n\n"])
def test_raw_when_it_may_be_a_stream_is_no_error(stream: bytes) -> None:
    """Without frames it is an empty stream; with frames its beginning does not matter."""
    done = eventflow("tail", "--raw", "-", stdin=stream)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (b"[message] all the same\n" if b"data" in stream else b"")


def test_error_events_are_shown_where_they_come() -> None:
    """In the stream's order, by code and message; an error without words too."""
    done = eventflow("tail", "-", stdin=body(added(), delta("par"), {"type": "error", **FAULT}, FAILED))
    assert done.stdout.decode().splitlines() == [
        "par",
        "[error] server_error: it broke",
        "[response.failed] server_error: it broke",
        "-- failed, 4 events",
    ]
    bare = {"type": "response.failed", "response": {"id": "r", "status": "failed"}}
    assert eventflow("tail", "-", stdin=body(bare)).stdout == b"[response.failed]\n-- failed, 1 event\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-file",), "cannot open the source 'no-such-file': No such file or directory"),
        (("line\nbreak",), "cannot open the source 'line\\nbreak'"),
        (("--events", "tol", "-"), "did you mean 'tool'?"),
        (("--wire", "morse", "-"), "no wire is called 'morse'"),
        (("--raw", "--events", "text", "-"), "leave --events and --wire out"),
        (("--raw", "--wire", "responses", "-"), "leave --events and --wire out"),
        (("--raw", "no-such-file"), "cannot open the source"),
    ],
)
def test_wrong_arguments_of_tail_are_one_line(arguments: tuple[str, ...], said: str) -> None:
    """The library's own words, exit code 2, nothing on stdout."""
    done = eventflow("tail", *arguments, stdin=body(created(), completed()))
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("eventflow: ")
    assert said in line


def test_known_wire_can_be_named(fixtures: Path) -> None:
    """``--wire`` spares the detection."""
    done = eventflow("tail", "--wire", "responses", str(fixtures / "responses-tool.sse"))
    assert done.returncode == 0
    assert done.stdout.count(b"[tool] get_weather") == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("tail", "{}"), ("tail", "--json", "{}"), ("--help",), ("plugins",)])
def test_full_disk_is_one_line(fixtures: Path, arguments: tuple[str, ...]) -> None:
    """What cannot be written is told once, with exit code 1."""
    path = str(fixtures / "responses-text.sse")
    with open("/dev/full", "wb") as full:
        command = [*COMMAND, *(argument.format(path) for argument in arguments)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (1, b"eventflow: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(("closing", "code", "said"), [(">&-", 0, b""), ("<&-", 2, b"stdin is closed")])
def test_closed_streams_are_no_crash(fixtures: Path, closing: str, code: int, said: bytes) -> None:
    """A parent may have closed stdout or stdin."""
    source = "-" if closing == "<&-" else str(fixtures / "responses-text.sse")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *COMMAND, "tail", source], capture_output=True, timeout=DEADLINE
    )
    assert done.returncode == code
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


# --- tail: among other programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("-",), ("--json", "-"), ("--raw", "-")])
def test_events_are_shown_before_the_next_arrive(arguments: tuple[str, ...]) -> None:
    """Stdin is read as it comes, and stdout written at once; Ctrl-C ends quietly although stdin is still open."""
    with Child("tail", *arguments) as child:
        child.send(body(created(), delta("first")))
        child.read_until(b"first")
        child.send(body(delta("second")))
        child.read_until(b"second")
        assert child.process.poll() is None
        child.process.send_signal(signal.SIGINT)
        assert child.end() == (130, b"")
        assert child.seen.endswith(b"\n")  # the shell's prompt does not follow the text


def test_terminal_event_ends_it_although_stdin_stays_open() -> None:
    """What writes the stream may linger."""
    with Child("tail", "-") as child:
        child.send(body(added(), delta("all"), completed()))
        assert child.end() == (0, b"")
        assert child.seen == b"all\n-- completed, 3 events\n"


@pytest.mark.parametrize("arguments", [("--json",), ("--raw",), ("--events", "*")])
def test_broken_pipe_ends_quietly(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """``| head -1``: the exit code of SIGPIPE and not a word."""
    path = tmp_path / "long.sse"
    path.write_bytes(body(created(), *(delta(f"word {n}\n") for n in range(5000)), completed()))
    with Child("tail", *arguments, str(path)) as child:
        assert child.process.stdout is not None
        child.process.stdout.readline()
        child.process.stdout.close()
        assert child.end() == (141, b"")


def test_pipeline_of_a_shell_works(fixtures: Path) -> None:
    """As a user types it."""
    line = f"cat '{fixtures / 'responses-text.sse'}' | \"$@\" tail --json - | head -1"
    done = subprocess.run(["sh", "-c", line, "sh", *COMMAND], capture_output=True, timeout=DEADLINE, check=True)
    assert json.loads(done.stdout)["type"] == "response.created"
    assert done.stderr == b""


# --- colour, and text that would drive the terminal ------------------------------------------------------------------


def assert_harmless(text: str) -> None:
    """Nothing but text, newlines and tabs."""
    bad = {c for c in text if c not in "\n\t" and (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp"))}
    assert not bad | (set(text) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"))


def hostile_stream(text: str = HOSTILE) -> bytes:
    """*text* wherever a peer can put it."""
    part = {"item_id": text, "content_index": 0}
    reasons = {"incomplete_details": {"reason": text}, "usage": {"input_tokens": 1}}
    return body(
        {**created(), "sequence_number": 0},
        {"type": "response.output_text.delta", "delta": text, **part},
        {"type": "response.reasoning_text.delta", "delta": text, **part},
        {"type": "response.reasoning_summary_text.delta", "delta": text, "item_id": text},
        {"type": "response.refusal.delta", "delta": text, **part},
        item_done(type="function_call", name=text, arguments=text, call_id=text),
        item_done(type="x" + text, status=text),
    ) + body(
        {"type": "response.web_search_call.searching", "item_id": text, "sequence_number": 9},
        {"type": "response.incomplete", "response": {"id": text, "status": "incomplete", **reasons}},
    ).replace(b"event: response.web_search_call.searching", b"event: vendor." + b"\x1b]0;x\x07").replace(
        b'"type": "response.web_search_call.searching"', b'"type": "vendor.' + json.dumps(text).encode()[1:]
    )


def hostile_error(text: str = HOSTILE) -> bytes:
    """*text* in every field of an error."""
    return body(created(), {"type": "error", "code": text, "message": text, "param": text})


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--raw",), ("--raw", "--json"), ("--events", "*")])
@pytest.mark.parametrize("stream", [hostile_stream(), hostile_error()], ids=["stream", "error"])
def test_hostile_text_reaches_no_terminal(arguments: tuple[str, ...], stream: bytes) -> None:
    """Whatever a peer writes, and wherever: stdout and stderr are plain text in lines."""
    done = eventflow("tail", *arguments, "-", stdin=stream)
    assert_harmless(done.stdout.decode())
    assert_harmless(done.stderr.decode())
    assert len(done.stderr.decode().splitlines()) <= 1
    assert b"end" in done.stdout


def read_terminal(*arguments: str, environment: dict[str, str]) -> str:
    """What the command writes to a terminal."""
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    ours, theirs = pty.openpty()
    try:
        with Child(*arguments, stdout=theirs, environment={"TERM": "xterm", **environment}) as child:
            os.close(theirs)
            written = b""
            while select.select([ours], [], [], DEADLINE)[0]:
                try:
                    chunk = os.read(ours, 65536)
                except OSError:  # Linux: the other end is closed
                    break
                if not chunk:
                    break
                written += chunk
            child.end()
    finally:
        os.close(ours)
    return written.decode().replace("\r\n", "\n")


SGR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """A stream with something of every style, hostile."""
    path = tmp_path / "hostile.sse"
    path.write_bytes(hostile_stream())
    return path


def test_a_terminal_gets_colour_and_nothing_else(coloured: Path) -> None:
    """Reasoning is dimmed, calls and refusals coloured; every style is switched off again; no other escape is ours."""
    text = read_terminal("tail", str(coloured), environment={"NO_COLOR": ""})
    assert "\x1b[2m| " in text
    assert "\x1b[36m[tool]\x1b[0m" in text
    assert "\x1b[33m! " in text
    assert text.count("\x1b[0m") * 2 == len(SGR.findall(text))
    assert_harmless(SGR.sub("", text))


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colour_gets_none(coloured: Path, environment: dict[str, str]) -> None:
    """NO_COLOR and a dumb terminal are respected."""
    assert_harmless(read_terminal("tail", str(coloured), environment=environment))


def test_a_pipe_gets_no_colour(coloured: Path) -> None:
    """Even where the environment asks for it."""
    done = process("tail", str(coloured), environment={"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm"})
    assert b"\x1b" not in done.stdout


# --- plugins ---------------------------------------------------------------------------------------------------------


def install(folder: Path, distribution: str, plugins: dict[str, str], modules: dict[str, str] | None = None) -> None:
    """Put a distribution with entry points into *folder*."""
    metadata = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    lines = [f"{name} = {target}" for name, target in plugins.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[eventflow.plugins]", *lines, ""]))
    for name, source in (modules or {}).items():
        (folder / f"{name}.py").write_text(source)


GOOD = "from eventflow import Plugin\nclass Good(Plugin): pass\n"


@pytest.fixture
def strangers(tmp_path: Path) -> dict[str, str]:
    """An environment with plugins of strangers, some of which fail."""
    install(tmp_path, "nice-plugins", {"good": "nice_module:Good"}, {"nice_module": GOOD})
    install(tmp_path, "sad-plugins", {"sad": "sad_module:Sad"}, {"sad_module": "raise RuntimeError('no\\x1b luck')\n"})
    install(tmp_path, "odd-plugins", {"[red]odd": "nowhere_module:Odd"})
    for number in (1, 2):
        install(tmp_path, f"twin-{number}", {"twin": "nice_module:Good"})
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path}


def row_of(table: bytes, name: str) -> list[str]:
    """The cells of a plugin's row."""
    lines = [line for line in table.decode().splitlines() if line.strip().startswith(name + " ")]
    assert len(lines) == 1, table.decode()
    return re.split(r"\s{2,}", lines[0].strip())


def test_plugins_are_listed_without_being_imported(strangers: dict[str, str]) -> None:
    """Name, distribution, target, allowed; one that cannot be imported is no trouble here."""
    done = process("plugins", environment=strangers)
    assert (done.returncode, done.stderr) == (0, b"")
    assert row_of(done.stdout, "good") == ["good", "nice-plugins 1.2", "nice_module:Good", "yes"]
    assert row_of(done.stdout, "sad") == ["sad", "sad-plugins 1.2", "sad_module:Sad", "yes"]
    assert row_of(done.stdout, "[red]odd")[0] == "[red]odd"


def test_check_imports_all_and_reports_those_that_fail(strangers: dict[str, str]) -> None:
    """Each failure is one line with its distribution's name; the others are not stopped by it."""
    done = process("plugins", "--check", environment=strangers)
    assert done.returncode == 1
    assert row_of(done.stdout, "good")[-1] == "ok"
    assert row_of(done.stdout, "sad")[-1] == "failed"
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 3
    sad, odd, twin = (next(line for line in lines if name in line) for name in ("'sad'", "'[red]odd'", "'twin'"))
    assert "of sad-plugins 1.2 does not import (sad_module:Sad): RuntimeError: no\\u001b luck" in sad
    assert "of odd-plugins 1.2 does not import (nowhere_module:Odd): ModuleNotFoundError" in odd
    assert "twin-1 1.2" in twin
    assert "twin-2 1.2" in twin


def test_check_leaves_out_what_is_not_allowed(strangers: dict[str, str]) -> None:
    """EVENTFLOW_PLUGINS says what may be loaded; the rest is neither imported nor a failure."""
    done = process("plugins", "--check", environment={**strangers, "EVENTFLOW_PLUGINS": "good"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert row_of(done.stdout, "good")[-2:] == ["yes", "ok"]
    assert row_of(done.stdout, "sad")[-2:] == ["no", "not loaded"]


def test_no_plugins_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table would be a riddle."""
    monkeypatch.setattr("eventflow.cli.plugins.available", lambda: ())
    assert main(["plugins"]) == 0
    assert capsys.readouterr().out == "No plugins are installed (entry points of the group eventflow.plugins).\n"


def test_table_fits_a_terminal_and_is_never_cut_in_a_pipe(tmp_path: Path, strangers: dict[str, str]) -> None:
    """A narrow terminal folds long cells; ``| grep`` gets whole lines."""
    install(tmp_path, "long-" + "x" * 100, {"long": "nice_module:" + "Y" * 100})
    line = next(line for line in process("plugins", environment=strangers).stdout.splitlines() if b" long " in line)
    assert b"Y" * 100 in line
    narrow = read_terminal("plugins", environment={**strangers, "COLUMNS": "60", "NO_COLOR": "1"})
    assert max(map(len, narrow.splitlines())) <= 60
    assert narrow.count("Y") == 100


# --- in one process, where an error has to be made -------------------------------------------------------------------


def test_handlers_error_is_not_swallowed(monkeypatch: pytest.MonkeyPatch, fixtures: Path) -> None:
    """A bug of ours shows as one: only what the library and the system report becomes a line."""

    def broken(self: Terminal, event: TextDelta) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Terminal, "_show", broken)
    with pytest.raises(ZeroDivisionError):
        main(["tail", str(fixtures / "responses-text.sse")])
