"""The group of commands, and what becomes of errors: one line on stderr and an exit code."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import cast

import click

from eventflow.cli.output import complain
from eventflow.errors import DecodeError, EventflowError, PluginError, UsageError

__all__ = ["run"]

_COMMANDS = ("demo", "plugins", "record", "replay", "run", "tail")  # each a module with a command of its name
_FAILED, _WRONG_USE = 1, 2
_INTERRUPTED, _BROKEN_PIPE = 128 + 2, 128 + 13  # as a shell reports SIGINT and SIGPIPE


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # imported when it is called: httpx, which one of them needs, takes longer than the others do in all
        return cast("click.Command", getattr(importlib.import_module(f"eventflow.cli.{cmd_name}"), cmd_name))


def _exit_code(error: EventflowError) -> int:
    """2 where the caller asked for what cannot be, or gave what is no event stream; 1 where a stream went wrong."""
    no_stream = isinstance(error, DecodeError) and (error.run is None or error.run.events == 0)
    return _WRONG_USE if no_stream or isinstance(error, UsageError | PluginError) else _FAILED


def _abandon_stdout() -> None:
    """Let what is still buffered go nowhere: the interpreter would complain at its end (Python's docs of SIGPIPE)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        try:
            version = importlib.metadata.version("eventflow-stream")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed: run from its sources)"
        click.echo(f"eventflow {version}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
def _eventflow() -> None:
    """Look into the streams of language models."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # stdout may be closed, or a stand-in
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # a locale that lacks a character must not end a stream
    try:
        # not main(), which has exit codes of its own for Ctrl-C and a broken pipe
        with _eventflow.make_context("eventflow", list(sys.argv[1:] if arguments is None else arguments)) as context:
            return int(_eventflow.invoke(context) or 0)
    except click.exceptions.Exit as error:  # --help and --version
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except EventflowError as error:
        complain("; ".join((str(error), *getattr(error, "__notes__", ()))))
        return _exit_code(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return _BROKEN_PIPE
    except OSError as error:  # a full disk, a terminal that is gone
        _abandon_stdout()
        complain(str(error))
        return _FAILED
