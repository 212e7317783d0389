"""Signals for host applications that watch runs without touching their dispatchers.

Connect with ``run_finished.connect(receiver)``; the sender is the `Dispatcher`. A receiver that raises is logged and
does not disturb the run or the other receivers. Signals tell of runs, never of single events: a send costs as much as
several events do.
"""

from __future__ import annotations

from typing import Any

from blinker import NamedSignal

from eventflow.logs import logger

__all__ = ["handler_failed", "plugin_loaded", "run_finished", "run_started"]

_log = logger("eventflow")

run_started = NamedSignal("eventflow.run_started", "A run begins. Keyword: ``run``.")
run_finished = NamedSignal("eventflow.run_finished", "A run has ended, on whatever path. Keyword: ``run``.")
handler_failed = NamedSignal(
    "eventflow.handler_failed", "An isolated handler raised. Keywords: ``run``, ``failure`` (a `HandlerFailed`)."
)
plugin_loaded = NamedSignal(
    "eventflow.plugin_loaded", "A plugin was loaded by name; the sender is its class. Keywords: ``name``, ``plugin``."
)


def send(signal: NamedSignal, sender: Any, **keywords: Any) -> None:
    """Call each receiver of *signal*; one that raises is logged."""
    if not signal.receivers:
        return
    for receiver in tuple(signal.receivers_for(sender)):
        try:
            receiver(sender, **keywords)
        except Exception:
            _log.exception("a receiver of the signal %s raised", signal.name)
