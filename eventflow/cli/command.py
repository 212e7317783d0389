"""The group of commands, and what becomes of errors: one line on stderr and an exit code."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from eventflow.cli.demo import demo
from eventflow.cli.output import complain
from eventflow.cli.plugins import plugins
from eventflow.cli.tail import tail
from eventflow.errors import DecodeError, EventflowError, PluginError, UsageError

__all__ = ["run"]

_FAILED, _WRONG_USE = 1, 2
_INTERRUPTED, _BROKEN_PIPE = 128 + 2, 128 + 13  # as a shell reports SIGINT and SIGPIPE


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EventflowError as error:
            complain("; ".join((error.message, *getattr(error, "__notes__", ()))))
            return _exit_code(error)
        except KeyboardInterrupt:
            return _INTERRUPTED
        except BrokenPipeError:
            _abandon_stdout()
            return _BROKEN_PIPE
        except OSError as error:  # a full disk, a terminal that is gone
            _abandon_stdout()
            complain(f"cannot write: {error.strerror or error}")
            return _FAILED


def _exit_code(error: EventflowError) -> int:
    """2 where the caller asked for what cannot be, or gave what is no event stream; 1 where a stream went wrong."""
    no_stream = isinstance(error, DecodeError) and (error.run is None or error.run.events == 0)
    return _WRONG_USE if no_stream or isinstance(error, UsageError | PluginError) else _FAILED


def _abandon_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains at its end (Python's signal docs, SIGPIPE)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        try:
            version = importlib.metadata.version("eventflow-stream")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed: run from its sources)"
        click.echo(f"eventflow {version}")
        ctx.exit()


@click.group(
    cls=_Commands,
    commands=[demo, plugins, tail],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
def _eventflow() -> None:
    """Look into the streams of language models."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale that lacks a character must not end a stream
    try:
        return int(_eventflow.main(arguments, prog_name="eventflow", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _INTERRUPTED
