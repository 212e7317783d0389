"""Plugins in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from eventflow.errors import UsageError
from eventflow.plugin import Plugin

if TYPE_CHECKING:
    from eventflow.run import Run

__all__ = ["Pipeline"]


@final
class Pipeline(Plugin):
    """Plugins in order, each seeing what the one before it lets through; itself a plugin.

    ``Pipeline(a, b)`` is ``a | b``. In a dispatcher its plugins stand in its place.

    Attributes:
        plugins: The plugins; pipelines among them are unrolled.
    """

    plugins: tuple[Plugin, ...]

    def __init__(self, *plugins: Plugin) -> None:
        self.plugins = tuple(unrolled(plugins))

    def run(self, source: Any, **options: Any) -> Run:
        """Run *source* through a dispatcher of this pipeline alone; see `Dispatcher.run`."""
        from eventflow.dispatcher import Dispatcher

        with Dispatcher(self) as flow:
            return flow.run(source, **options)

    async def arun(self, source: Any, **options: Any) -> Run:
        """`run`, async; see `Dispatcher.arun`."""
        from eventflow.dispatcher import Dispatcher

        with Dispatcher(self) as flow:
            return await flow.arun(source, **options)


def unrolled(plugins: tuple[Plugin, ...]) -> list[Plugin]:
    """The plugins in order, pipelines replaced by what they hold; raises `UsageError` for what is no plugin."""
    flat: list[Plugin] = []
    for plugin in plugins:
        if isinstance(plugin, Pipeline):
            flat.extend(plugin.plugins)
        elif isinstance(plugin, Plugin):
            flat.append(plugin)
        else:
            hint = f"; write {plugin.__name__}()" if isinstance(plugin, type) else ""
            raise UsageError(f"a pipeline is made of plugins, not {plugin!r}{hint}")
    return flat
