"""``eventflow run``: ask a model, and see its answer as it comes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from eventflow.cli.output import show_json
from eventflow.client import Client
from eventflow.dispatcher import Dispatcher
from eventflow.errors import UsageError
from eventflow.timers import Timeouts

__all__ = ["run"]


@click.command()
@click.argument("prompt", metavar="PROMPT|-")
@click.option("--model", envvar="EVENTFLOW_MODEL", required=True, help="The model; by default EVENTFLOW_MODEL.")
@click.option("--base-url", metavar="URL", help="Where the API begins; by default OPENAI_BASE_URL, or OpenAI's.")
@click.option(
    "--wire", metavar="NAME", default="responses", help="Whose API it is: responses, chat, anthropic, gemini."
)
@click.option("--instructions", metavar="TEXT", help="What the model is told before the prompt.")
@click.option("--param", "-p", "pairs", metavar="NAME=JSON", multiple=True, help="Any parameter; may be repeated.")
@click.option("--plugin", "plugins", metavar="NAME", multiple=True, help="Use an installed plugin; may be repeated.")
@click.option(
    "--record", metavar="OUT", type=click.Path(path_type=Path), help="Keep the answer as it came, for eventflow replay."
)
@click.option("--json", "as_json", is_flag=True, help="Write one event a line, as JSON.")
@click.option("--idle", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="The longest silence; 120.")
def run(
    prompt: str,
    model: str,
    base_url: str | None,
    wire: str,
    instructions: str | None,
    pairs: tuple[str, ...],
    plugins: tuple[str, ...],
    record: Path | None,
    as_json: bool,
    idle: float | None,
) -> int:
    """Ask a model, and see its answer as it comes.

    PROMPT is the question, or - to read it from stdin. The key is taken from OPENAI_API_KEY,
    ANTHROPIC_API_KEY or GEMINI_API_KEY. The answer is shown as
    text; reasoning behind "|", refusals behind "!"; tool calls, other items, errors and unknown events one line each;
    at the end a line with the status, the tokens, the time to the first text and the speed. Control characters are
    shown as escapes. It is the plugin "terminal" that shows it, behind those that --plugin names.

    \b
        eventflow run --model smollm2 --base-url http://127.0.0.1:8091/v1 "Why do stars twinkle?"
        eventflow run --model ... -p 'reasoning={"effort": "low"}' -p temperature=0 - < question.txt

    Exit codes: 0 the response is completed or incomplete; 1 the server refused, or the stream failed or was cut off; 2
    wrong use; 130 interrupted.
    """  # noqa: D301  # click looks for the character
    if prompt == "-":
        if sys.stdin is None:
            raise UsageError("stdin is closed; give the prompt as an argument, or through a pipe")
        prompt = sys.stdin.read()
    flow = Dispatcher()
    for name in plugins:
        flow.use(name)
    if record is not None:
        flow.use("record", path=record)
    timeouts = Timeouts() if idle is None else Timeouts(first_event=max(idle, 120.0), idle=idle)
    with flow, Client(base_url=base_url, wire=wire, timeout=timeouts) as client:
        if as_json:
            flow.on("*", show_json)
        else:
            flow.use("terminal", began=time.monotonic())
        stream = client.responses.create(
            stream=True, model=model, input=prompt, instructions=instructions, extra_body=dict(map(_parameter, pairs))
        )
        done = flow.run(stream, check=False)
    if done.error is not None:
        raise done.error
    return 0


def _parameter(pair: str) -> tuple[str, object]:
    """``name=value``, the value as JSON, or as text where it is none."""
    name, sign, value = pair.partition("=")
    if not (name and sign):
        raise UsageError(f"--param {pair!r} has no value: give NAME=JSON")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
