"""``eventflow plugins``: what can be used by name."""

from __future__ import annotations

import click
from rich import box
from rich.table import Table
from rich.text import Text

from eventflow.cli.output import complain, echo, echo_table
from eventflow.errors import PluginError
from eventflow.plugin import Available, available, load
from eventflow.printable import printable

__all__ = ["plugins"]


@click.command()
@click.option("--check", is_flag=True, help="Import each plugin, and say which ones fail.")
def plugins(check: bool) -> int:
    """List the plugins that a program can use by name.

    They are the entry points of the group eventflow.plugins. The environment variable EVENTFLOW_PLUGINS, a comma list,
    limits which may be loaded. Nothing is imported unless --check asks for it.

    Exit codes: 0; 1 when a plugin fails to import.
    """
    found = available()
    if not found:
        echo("No plugins are installed (entry points of the group eventflow.plugins).\n")
        return 0
    failures = {plugin: failure for plugin in found if check and (failure := _failure(plugin)) is not None}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "distribution", "target", "allowed", *(("check",) if check else ())):
        table.add_column(heading, overflow="fold")
    for plugin in found:
        cells = [plugin.name, plugin.distribution, plugin.target, "yes" if plugin.allowed else "no"]
        if check:
            cells.append("failed" if plugin in failures else "ok" if plugin.allowed else "not loaded")
        table.add_row(*(Text(printable(cell)) for cell in cells))
    echo_table(table)
    for message in dict.fromkeys(failures.values()):
        complain(message)
    return 1 if failures else 0


def _failure(plugin: Available) -> str | None:
    """Why *plugin* cannot be used although it is allowed, or None."""
    if not plugin.allowed:
        return None
    try:
        load(plugin.name)
    except PluginError as error:
        return error.message
    return None
