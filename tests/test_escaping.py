"""What a model or a peer wrote never drives a terminal, turns text around, or forges a line: wherever it is shown."""

from __future__ import annotations

import io
import json
import logging
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scenarios import DIRECTION, answer, attached, body, call, closed, completed, created, delta, opened
from servers import Server, raw, sse, status

from eventflow import Client, Dispatcher, Event, EventflowError, HandlerFailed, Plugin, errors, signals
from eventflow.cli import main
from eventflow.cli import plugins as command_plugins
from eventflow.errors import HTTPStatusError, UnexpectedContentType
from eventflow.logs import logger
from eventflow.plugin import Available
from eventflow.printable import printable
from eventflow.sse import Frame
from eventflow_plugins import Log, Terminal, Tools, tool

FORGED = "2026-01-01 INFO all is well"
C0 = "".join(map(chr, range(0x20)))
C1 = "".join(map(chr, range(0x7F, 0xA0)))
MARKS = DIRECTION + "\u2028\u2029"
EVIL = f"\x1b]52;c;aGk=\x07\x1b]8;;http://a\x1b\\\x9b2J{C0}{C1}{MARKS}evil\n{FORGED}\r\n{FORGED}"


def harm(text: str) -> list[str]:
    """The characters of *text* that do harm; the tabs and ends of line of a text of several lines do none."""
    return sorted(
        {each for each in text if each not in "\n\t" and (unicodedata.category(each) == "Cc" or each in MARKS)}
    )


def check(text: str, *, answer: bool = False) -> None:
    """Something evil is shown, and harmless; only an *answer* itself keeps its lines."""
    assert "evil" in text
    assert harm(text) == []
    assert answer or not any(line.startswith(FORGED) for line in text.splitlines())


def test_check_when_something_is_wrong() -> None:
    """It finds each character, and a forged line."""
    for character in {*C0, *C1, *MARKS} - {"\n", "\t"}:
        assert harm(f"a{character}b") == [character]
    with pytest.raises(AssertionError):
        check(f"evil\n{FORGED}")
    with pytest.raises(AssertionError):
        check("nothing")


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*errors.__all__} - {"Phase", "excerpt"}))
def test_error_when_its_message_is_foreign(name: str) -> None:
    """Every class: message, `str`, `repr` and notes are one line each."""
    error: EventflowError = getattr(errors, name)(EVIL)
    error.add_note(EVIL)
    for text in (str(error), error.message, repr(error), *error.__notes__):
        check(text)
        assert "\n" not in text


def boom(_: object) -> None:
    """A handler that fails."""
    raise ValueError("no")


def reads(data: bytes) -> Callable[[], object]:
    """A run of a stream that fails."""
    return lambda: Dispatcher().run([data])


def frame(name: str, data: str) -> bytes:
    """A block of the wire, whatever it holds."""
    return f"event: {name}\ndata: {data}\n\n".encode()


LINE = EVIL.replace("\n", "").replace("\r", "")  # what fits into a line of the wire
ERROR = {"type": "error", "code": EVIL, "message": EVIL, "param": EVIL}
FAILED = {
    "type": "response.failed",
    "response": {"id": EVIL, "status": "failed", "error": {"code": EVIL, "message": EVIL}},
}
FAILING: dict[str, Callable[[], object]] = {
    "no JSON": reads(body([created()]) + frame("response.output_text.delta", f"{{{LINE}")),
    "an error event": reads(body([created(), ERROR])),
    "a failed response": reads(body([created(), FAILED])),
    "a wrong shape": reads(body([created(), {"type": "response.output_text.delta", "delta": {"evil": EVIL}}])),
    "a name": lambda: Dispatcher().on(EVIL, boom),
    "a wire": lambda: Dispatcher().run([b""], wire=EVIL),
    "a plugin": lambda: Dispatcher().use(EVIL),
    "a tool": lambda: tool(boom, name=EVIL),
    "a source that fails": lambda: Dispatcher().run(failing()),
}


def failing() -> Iterator[Any]:
    """A source that says something of its own at the end."""
    yield from answer("a")[:3]
    raise ConnectionResetError(EVIL)


@pytest.mark.parametrize("what", FAILING)
def test_error_when_it_quotes(what: str) -> None:
    """What an error quotes of its cause is escaped, in the message and in every note."""
    with pytest.raises(EventflowError) as caught:
        FAILING[what]()
    text = "\n".join([str(caught.value), repr(caught.value), *getattr(caught.value, "__notes__", ())])
    assert harm(text) == []
    assert not any(line.startswith(FORGED) for line in text.splitlines())


@pytest.mark.parametrize("code", [200, 500])
def test_error_when_a_page_is_foreign(code: int) -> None:
    """An error page, and a page where a stream should be."""
    page = raw(b"HTTP/1.1 %d x\r\ncontent-type: text/html\r\n\r\n<p>evil %s" % (code, EVIL.encode()))
    with (
        Server(page) as server,
        Client(base_url=server.url, max_retries=0) as client,
        pytest.raises((HTTPStatusError, UnexpectedContentType)) as caught,
    ):
        Dispatcher().run(client.responses.create(model="m", input="x", stream=True))
    check(str(caught.value))
    check(repr(caught.value))
    check(caught.value.excerpt)


def test_note_when_an_event_has_a_foreign_name() -> None:
    """The note on a handler's own exception tells of the event; the exception's text stays the handler's."""
    flow = Dispatcher()
    flow.on("*", boom)
    with pytest.raises(ValueError, match="no") as caught:
        flow.run([{"type": f"x.{EVIL}"}])
    check("".join(caught.value.__notes__))


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that "eventflow" and what is below it writes, as a plain handler shows it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("LOG %(name)s %(message)s"))
    with attached(handler):
        yield written


class Stops(Plugin):
    """Fails at its end."""

    def stop(self, run: object) -> None:
        raise ValueError(EVIL)


def evil(_: object) -> None:
    """A handler that fails with what the model wrote."""
    raise ValueError(EVIL)


def isolated(flow: Dispatcher) -> None:
    """A handler that fails alone."""
    flow.on("*", evil, errors="isolate")


def beside(flow: Dispatcher) -> None:
    """One in the background."""
    flow.on("*", evil, errors="isolate", background=True)


def again(flow: Dispatcher) -> None:
    """And one that fails of that."""
    isolated(flow)
    flow.on(HandlerFailed, evil)


FAILURES: dict[str, Callable[[Dispatcher], object]] = {
    "isolated": isolated,
    "in the background": beside,
    "of a failure": again,
    "at the stop": lambda flow: (flow.use(Stops()), flow.use(Stops())),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_log_when_something_fails(failure: str, log: io.StringIO) -> None:
    """Event, message and traceback are shown so that no line of them passes for a record."""
    flow = Dispatcher()
    FAILURES[failure](flow)
    try:
        flow.run([created(), {"type": f"x.{EVIL}"}, completed()], check=False)
    except ValueError:
        assert failure == "at the stop"
    check(log.getvalue())
    assert "  Traceback (most recent call last):\n" in log.getvalue()
    assert all(line.startswith(("LOG eventflow ", "  ")) for line in log.getvalue().splitlines() if line)


def test_log_when_a_receiver_fails(log: io.StringIO) -> None:
    """A receiver of a signal."""

    def receive(_: object, **__: object) -> None:
        raise ValueError(EVIL)

    flow = Dispatcher()
    with signals.run_started.connected_to(receive, sender=flow):
        flow.run(answer("a"))
    check(log.getvalue())


def test_log_when_records_have_other_arguments(log: io.StringIO) -> None:
    """Numbers, mappings and none at all are formatted as ever; the exception is there for other handlers."""
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    ours, error = logger("eventflow"), ValueError(EVIL)
    with attached(handler):
        ours.error("%s of %d", EVIL, 3, exc_info=error)
        ours.info("%(a)s", {"a": 1})
        ours.info("plain")
    assert seen[0].exc_info == (ValueError, error, None)
    check(log.getvalue())
    assert [record.getMessage() for record in seen] == [f"{printable(EVIL)} of 3", "1", "plain"]
    assert log.getvalue().endswith("LOG eventflow 1\nLOG eventflow plain\n")


def test_audit_when_a_call_is_foreign(log: io.StringIO) -> None:
    """Names and ids of calls are a model's words; so is what a tool says of its arguments."""

    def weather(city: str) -> str:
        """The weather."""
        raise ValueError(f"no {city}")

    item = {**call(json.dumps({"city": EVIL}), name="weather"), "call_id": EVIL}
    other = {**call("{}", name=EVIL, number=2), "call_id": f"2{EVIL}"}
    turn = [
        created(),
        opened(item),
        closed(item),
        opened(other, index=1),
        closed(other, index=1),
        completed(item, other),
    ]
    run = Dispatcher(Tools([weather])).run(turn)
    assert len(run.outbox) == 2
    check(log.getvalue())
    assert all(line.startswith(("LOG eventflow", "  ")) for line in log.getvalue().splitlines() if line)


def stream() -> list[dict[str, Any]]:
    """A stream that is evil in every way."""
    item = {**call(json.dumps({"city": EVIL}), name=EVIL), "call_id": EVIL, "id": EVIL}
    reasoning = {"type": "response.reasoning_text.delta", "item_id": EVIL, "output_index": 0, "delta": EVIL}
    refusal = {"type": "response.refusal.delta", "item_id": "r", "output_index": 3, "content_index": 0, "delta": EVIL}
    strange = {"type": f"x.{EVIL}", EVIL: {EVIL: EVIL}}
    search = {"type": EVIL, "id": EVIL, "status": EVIL}
    end: dict[str, Any] = completed(item)
    end["response"] |= {"model": EVIL, "service_tier": EVIL}
    return [
        created(EVIL),
        reasoning,
        delta(EVIL),
        refusal,
        opened(item),
        closed(item),
        closed(search, index=2),
        strange,
        end,
    ]


@pytest.mark.parametrize("form", ["logger", "file", "cut"])
def test_plugin_log_when_a_stream_is_foreign(form: str, log: io.StringIO, tmp_path: Path) -> None:
    """Both forms have as many lines as records, and a file's are JSON with the same values."""
    path = tmp_path / "log.jsonl"
    plugin = Log() if form == "logger" else Log(path, max_chars=3000 if form == "cut" else None)
    with Dispatcher(plugin) as flow:
        flow.run(stream(), check=False)
    text = log.getvalue() if form == "logger" else path.read_text(encoding="utf-8")
    check(text)
    if form == "logger":
        assert all(line.startswith("LOG eventflow.events run_") for line in text.splitlines())
    else:
        lines = [json.loads(line) for line in text.splitlines()]
        assert any(line.get("event", {}).get("delta") == EVIL for line in lines)


# --- terminals -------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The evil stream in a file."""
    path = tmp_path / "evil.sse"
    path.write_bytes(body(stream()) + f"event: {LINE}\ndata: {LINE}\n\n".encode())
    return path


COMMANDS: dict[str, tuple[str, ...]] = {
    "tail": ("tail", "{file}"),
    "tail --events": ("tail", "--events", "*", "{file}"),
    "tail --json": ("tail", "--json", "{file}"),
    "tail --raw": ("tail", "--raw", "{file}"),
    "tail --raw --json": ("tail", "--raw", "--json", "{file}"),
    "record": ("record", "{out}", "{file}"),
    "record --json": ("record", "--json", "{out}", "{file}"),
    "replay": ("replay", "{out}"),
    "replay --json": ("replay", "--json", "{out}"),
    "replay --events": ("replay", "--events", "*", "{out}"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_when_a_stream_is_foreign(
    command: str, recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever a command shows, on either stream, is text; JSON and frames have a line each."""
    out = tmp_path / "out.jsonl"
    if command.startswith("replay"):
        main(["record", str(out), str(recorded)])
        capfd.readouterr()
    main([word.format(file=recorded, out=out) for word in COMMANDS[command]])
    shown = capfd.readouterr()
    check(shown.out, answer=not ("--json" in command or "--raw" in command))
    assert harm(shown.err) == []
    if out.exists():
        check(out.read_text(encoding="utf-8"))


def test_command_when_a_plugin_has_a_foreign_name(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eventflow plugins` shows what strangers' distributions call themselves, and why they fail."""
    monkeypatch.setattr(command_plugins, "available", lambda: (Available(EVIL, EVIL, EVIL, True),))
    assert main(["plugins", "--check"]) == 1
    shown = capfd.readouterr()
    check(shown.out)
    check(shown.err)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_command_when_it_asks(
    options: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eventflow run`, answered and refused."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
    page = status(400, page=f"evil\x1b]52;c;aGk=\x07\u202e\n{FORGED}".encode())
    with Server(sse(stream()), sse([created(), ERROR]), page) as server:
        for code in (0, 1, 1):
            assert main(["run", "--model", "m", "--base-url", server.url, *options, "x"]) == code
            shown = capfd.readouterr()
            check(shown.out + shown.err, answer=code == 0 and not options)
            assert not any(line.startswith(FORGED) for line in shown.err.splitlines())


def test_demo_when_the_model_is_evil(capfd: pytest.CaptureFixture[str]) -> None:
    """The handlers of the demo's agent: calls and outputs are a line each."""
    from eventflow import Pipeline
    from eventflow.cli.demo import make_agent

    item = {**call(json.dumps({"city": EVIL}), name=EVIL), "call_id": EVIL}
    turn = sse([created(), opened(item), closed(item), completed(item)])
    with (
        Server(turn, sse(answer(EVIL))) as server,
        Client(base_url=server.url) as client,
        make_agent(client, "m", Pipeline(Tools([boom_tool]))) as agent,
    ):
        agent.run("x")
    check(capfd.readouterr().out, answer=True)


def boom_tool(city: str) -> str:
    """A tool."""
    return city


@pytest.mark.parametrize("everything", [False, True])
def test_terminal_when_a_stream_is_foreign(everything: bool) -> None:
    """Into a pipe there is no escape at all, the plugin's own colours included."""
    written = io.StringIO()
    with Dispatcher(Terminal(written, everything=everything)) as flow:
        flow.run(stream(), check=False)
    check(written.getvalue(), answer=True)


# --- reprs -----------------------------------------------------------------------------------------------------------


class Note(Event, tag="tests.note"):
    """An event of our own."""

    text: str = ""


def test_repr_when_a_record_is_foreign() -> None:
    """Events, responses, frames, runs, outputs and warnings are one line each, as a log has them."""
    run = Dispatcher(Tools([boom_tool])).run([*stream()[:-1], Note(EVIL), stream()[-1]], check=False)
    events: list[Event] = []
    flow = Dispatcher()
    flow.on("*", events.append)
    flow.run(stream(), check=False)
    failed = HandlerFailed(ValueError(EVIL), EVIL, Note(EVIL))
    things = [*events, run, run.response, run.outbox, run.warnings, Frame(LINE, EVIL, LINE), failed, run.plugins]
    check(" ".join(map(repr, things)))
    for thing in things:
        assert harm(repr(thing)) == []
        assert "\n" not in repr(thing)
