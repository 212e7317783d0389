"""Finding plugins by name: the entry points of whatever is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

import attrs

from eventflow.errors import PluginError

if TYPE_CHECKING:
    from eventflow.plugin import Plugin

__all__ = ["Available", "available", "hint", "load"]

ENTRY_POINTS = "eventflow.plugins"


@attrs.frozen
class Available:
    """A plugin that can be used by name.

    Attributes:
        name: The name of its entry point.
        target: Where it is: ``module:attribute``.
        distribution: The package that brings it, with its version.
        allowed: Whether ``EVENTFLOW_PLUGINS`` lets it be loaded.
    """

    name: str
    target: str
    distribution: str
    allowed: bool = True
    entry: Any = attrs.field(default=None, repr=False, eq=False)


def available() -> tuple[Available, ...]:
    """The plugins that can be used by name, sorted; nothing is imported.

    Entry points of the group ``eventflow.plugins``. The environment variable ``EVENTFLOW_PLUGINS`` (a comma list of
    names) limits what may be loaded.
    """
    from importlib.metadata import entry_points  # a third of the whole import, and needed for plugins by name only

    limit = os.environ.get("EVENTFLOW_PLUGINS")
    names = None if limit is None else {name.strip() for name in limit.split(",") if name.strip()}
    found: list[Available] = []
    for entry in entry_points(group=ENTRY_POINTS):
        distribution = (
            f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown distribution"
        )
        found.append(Available(entry.name, entry.value, distribution, names is None or entry.name in names, entry))
    unique = {(plugin.name, plugin.target, plugin.distribution): plugin for plugin in found}  # seen twice on one path
    return tuple(sorted(unique.values(), key=lambda plugin: (plugin.name, plugin.distribution)))


def load(name: str) -> Callable[..., Plugin]:
    """The class, or maker, of the plugin called *name*.

    Raises:
        PluginError: No plugin, or more than one, has the name; it may not be loaded; it does not import; it is none.
    """
    plugins = available()
    named = [plugin for plugin in plugins if plugin.name == name]
    if not named:
        known = hint(name, dict.fromkeys(plugin.name for plugin in plugins))
        raise PluginError(f"no plugin is called {name!r}; {known} Is its package installed?")
    if len(named) > 1:
        owners = " and ".join(f"{plugin.distribution} ({plugin.target})" for plugin in named)
        raise PluginError(
            f"two plugins are called {name!r}: {owners}; import the class that you mean, or uninstall one"
        )
    chosen = named[0]
    if not chosen.allowed:
        raise PluginError(f"plugin {name!r} of {chosen.distribution} is not in EVENTFLOW_PLUGINS; add it there")
    try:
        target = chosen.entry.load()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"plugin {name!r} of {chosen.distribution} does not import ({chosen.target}): {reason}"
        ) from error
    if not callable(target):
        raise PluginError(f"plugin {name!r} of {chosen.distribution}: {chosen.target} is neither class nor function")
    return cast("Callable[..., Plugin]", target)


def hint(name: str, names: Collection[str]) -> str:
    """What was probably meant by a *name* that is none of *names*; where nothing is near, what there is."""
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there is: {', '.join(names) or 'none'}."
