"""`Log`: a line for every event, to the program's log or as JSON Lines to a file.

What a model writes must not forge a line or drive the terminal that shows it (CWE-117, CWE-150): every line is one
line for whoever counts, and has no control character, no mark that turns text around, and no lone surrogate.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

import attrs
import msgspec

from eventflow import Event, HandlerFailed, Plugin, Response, Run, UnknownEvent, configured, on, state
from eventflow.errors import PluginError, UsageError
from eventflow.events import JSON, LifecycleEvent, encode_json
from eventflow.limits import is_count
from eventflow.logs import logger
from eventflow.printable import printable
from eventflow.routing import ErrorPolicy, Selects
from eventflow_plugins.line_file import LineFile

__all__ = ["Log"]

Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"

_LOGGER: Final = "eventflow.events"
_CHARS: Final = 200  # of one field in a line for people
_FIELDS: Final = 30  # in a line for people: a peer's event may have any number
_DELETE: Final = 0x7F  # the one control character that JSON leaves as it is, within ASCII
_BLOCK: Final = 64 * 1024  # bytes written at once where not every line is

# What lifecycle events repeat of the request: words of the user and of the application, and descriptions of its tools.
_ECHOED: Final = dict.fromkeys(
    (
        "input_transformations",
        "instructions",
        "metadata",
        "prompt",
        "prompt_cache_key",
        "safety_identifier",
        "text",
        "tool_choice",
        "tools",
        "user",
    )
)
_ECHOING: Final = frozenset({"lifecycle", "error"})  # the families with such events
_OF_RESPONSE: Final = ("id", "status", "model", "incomplete_details", "error", "usage")  # what a line for people tells
_UNENCODABLE: Final = (TypeError, ValueError, RecursionError)  # somebody's own object in a field of free JSON
_WORD: Final = re.compile(r"[\w.:/-]{1,100}")


class _Line(msgspec.Struct, gc=False):
    """An event's line of JSON; a struct is made and encoded in less time than a dict."""

    time: float
    run: str
    n: int
    event: object


class Log(Plugin):
    """A log of the events that come to this place of the pipeline, one line an event, and of each run's start and end.

    ::

        Dispatcher(Log())  # the logger "eventflow.events", level INFO
        Dispatcher(Log("run.jsonl"))  # JSON Lines, appended

    A line for people, for `logging`::

        run_5f2e61f00c8b1a2d 3 response.output_text.delta delta="Hel" item_id="msg_1" output_index=0

    A line of JSON has ``time`` (Unix seconds) and ``run`` (its id), and either the event or how the run stands::

        {"time":1767225600.0,"run":"run_5f2e61f00c8b1a2d","status":"running"}
        {"time":1767225600.25,"run":"run_5f2e61f00c8b1a2d","n":3,"event":{"type":"response.output_text.delta",...}}
        {"time":1767225601.5,"run":"run_5f2e61f00c8b1a2d","status":"completed","events":9,"seconds":1.5,"error":null}

    ``event`` is the event as `eventflow.events.decode_mapping` reads it, and as any source may yield it. ``n`` counts
    the events received, from 1; what a plugin or handler emits has the number of the event that it followed.
    ``error`` is the class of ``run.error``; it is null where a handler raised, which ``failed`` alone tells.

    A file is opened once per dispatcher, for all its runs in all threads, and closed with it. A line goes to the disk
    in one write, so that several programs may append to one file. No line is lost without a word: one that cannot be
    written is an error, is kept (up to 1 MiB of them), and goes before the next one, or when the file is closed.

    Attributes:
        path: The file to append to; by default, lines go to `logging`.
        logger: A logger or its name; not with a path.
        level: Of the log records.
        events: Which events: a selector, as for `on`, or a tuple or list of them. A run's start and end are always
            logged.
        max_chars: Cut longer texts, and say by how much. By default 200 characters of a field in a log record, and
            never in a file.
        echo: Whether to log what lifecycle events repeat of the request: instructions, tools, prompt, metadata, user.
        flush: Write every line at once; otherwise 64 KiB at a time, and the rest when the file is closed.
        errors: What a line that cannot be written does: ``raise`` ends the run with a `PluginError`; ``isolate`` has
            it logged by "eventflow", reported as a `HandlerFailed` event, and the run goes on. Handlers of `logging`
            treat their failures themselves.

    Raises:
        UsageError: The configuration is none.
        PluginError: When a dispatcher opens it: nothing can be appended to the file.
    """

    path: str | os.PathLike[str] | None = None
    logger: Logger | str | None = attrs.field(default=None, kw_only=True)
    level: int | str = attrs.field(default=logging.INFO, kw_only=True)
    events: Selects = attrs.field(default="*", kw_only=True)
    max_chars: int | None = attrs.field(default=None, kw_only=True)
    echo: bool = attrs.field(default=False, kw_only=True)
    flush: bool = attrs.field(default=True, kw_only=True)
    errors: ErrorPolicy = attrs.field(default="raise", kw_only=True)
    _file: LineFile | None = attrs.field(init=False, repr=False)
    _logger: Logger = attrs.field(init=False, repr=False)
    _level: int = attrs.field(init=False, repr=False)
    _begun: float | None = state(default=None)

    def __attrs_post_init__(self) -> None:
        if self.path is not None and self.logger is not None:
            raise UsageError("Log() writes to a file or to a logger; make two for both: Log(path) | Log(logger=...)")
        if self.path is not None and not isinstance(self.path, str | os.PathLike):
            raise UsageError(f"Log(path) takes the path of a file, not {self.path!r}; a logger is Log(logger=...)")
        if self.max_chars is not None and not is_count(self.max_chars):
            raise UsageError(f"Log(max_chars=...) must be a positive integer, or None, not {self.max_chars!r}")
        self._file = None
        if self.path is not None:
            self._file = LineFile(os.fspath(self.path), owner="Log", what="log", least=1 if self.flush else _BLOCK)
        self._logger = _logger_of(self.logger)
        self._level = _level_of(self.level)

    # --- the file ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file; raises `PluginError` when nothing can be appended to it."""
        if self._file is not None:
            self._file.open()

    def close(self) -> None:
        """Write what waits, and close the file; raises `PluginError` when that cannot be written."""
        if self._file is not None:
            self._file.close()

    # --- the run -----------------------------------------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """Log that the run begins."""
        self._begun = time.monotonic()
        self._log_run(run, {"status": "running"})

    def stop(self, run: Run) -> None:
        """Log how the run ended."""
        seconds = None if self._begun is None else round(time.monotonic() - self._begun, 6)
        error = None if run.error is None else type(run.error).__name__
        self._log_run(run, {"status": run.status, "events": run.events, "seconds": seconds, "error": error})

    def _log_run(self, run: Run, how: dict[str, JSON]) -> None:
        try:
            if self._file is not None:
                self._file.write(encode_json({"time": time.time(), "run": run.id, **how}) + b"\n")
            else:
                self._logger.log(self._level, "%s", _shown(f"{run.id} run", how, _CHARS))
        except PluginError as error:
            if self.errors == "raise":
                raise
            logger("eventflow").error("%s", error)

    # --- its events --------------------------------------------------------------------------------------------------

    @on(configured("events"), errors=configured("errors"))
    def _hear(self, event: Event, run: Run) -> None:
        if not self.echo and event.family in _ECHOING:
            event = _without_echo(event)
        if self._file is None:
            self._log_event(event, run)
            return
        record = _Line(time.time(), run.id, run.events, event)
        try:
            if self.max_chars is not None:
                record.event = _cut(event.to_dict(), self.max_chars)
            elif type(event) is UnknownEvent:  # it is what its data say; every other one is encoded as it is
                record.event = event.to_dict()
            line = encode_json(record)
        except _UNENCODABLE as error:
            record.event = {"type": event.type, **_fault(error)}
            line = encode_json(record)
        if not line.isascii() or _DELETE in line:  # the encoder has escaped every other control character
            line = _escaped(line)
        self._file.write(line + b"\n")

    def _log_event(self, event: Event, run: Run) -> None:
        if not self._logger.isEnabledFor(self._level):
            return
        start, most = f"{run.id} {run.events} {_word(event.type)}", self.max_chars or _CHARS
        try:
            line = _shown(start, _fields(event), most)
        except _UNENCODABLE as error:
            line = _shown(start, _fault(error), most)
        self._logger.log(self._level, "%s", line)


def _logger_of(given: Logger | str | None) -> Logger:
    if given is None or isinstance(given, str):
        return logging.getLogger(given or _LOGGER)
    if not isinstance(given, logging.Logger | logging.LoggerAdapter):
        raise UsageError(f"Log(logger=...) takes a logger or its name, not {given!r}")
    return given


def _level_of(given: int | str) -> int:
    level = logging.getLevelNamesMapping().get(given.upper()) if isinstance(given, str) else given
    if type(level) is not int:
        raise UsageError(f"Log(level=...) takes a level of logging, or its name, not {given!r}")
    return level


# --- what a line says ------------------------------------------------------------------------------------------------


def _without_echo(event: Any) -> Any:
    """*event* without what it repeats of the request."""
    if isinstance(event, LifecycleEvent):
        return event.replace(response=_response(event).replace(**_ECHOED))
    if isinstance(event, HandlerFailed) and event.event is not None:
        return event.replace(event=_without_echo(event.event))
    return event


def _response(event: LifecycleEvent) -> Response:
    return cast("Response", cast("Any", event).response)  # a field of every subclass


def _escaped(line: bytes) -> bytes:
    """JSON with what could do harm as escapes."""
    return printable(line.decode()).encode()


def _fault(error: Exception) -> dict[str, JSON]:
    return {"eventflow_unencodable": f"{type(error).__name__}: {error}"}


def _cut(value: JSON, most: int) -> JSON:
    """JSON with every text in it cut to *most* characters."""
    if isinstance(value, str):
        return _shortened(value, most)
    if isinstance(value, dict):
        return {key: _cut(inner, most) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(inner, most) for inner in value]
    return value


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…+{len(text) - most}"


def _fields(event: Event) -> dict[str, Any]:
    """What a line for people tells of an event; of a response, how it stands."""
    fields: dict[str, Any] = event.to_dict()
    fields.pop("type", None)
    if isinstance(event, LifecycleEvent):
        whole = fields.pop("response")
        fields |= {name: whole[name] for name in _OF_RESPONSE if name in whole}
        fields["output"] = [item.type for item in _response(event).output]
    return fields


def _shown(start: str, fields: Mapping[str, Any], most: int) -> str:
    """A line for people."""
    words = [start]
    for name, value in list(fields.items())[:_FIELDS]:
        if isinstance(value, str):
            shown = json.dumps(value[:most], ensure_ascii=False) + _shortened(value, most)[most:]
        else:
            shown = _shortened(encode_json(value).decode(), most)
        words.append(f"{_word(name)}={shown}")
    if len(fields) > _FIELDS:
        words.append(f"…+{len(fields) - _FIELDS}")
    return printable(" ".join(words))


def _word(name: str) -> str:
    """A name that a peer may have made up, so that it is no more than a name."""
    return name if _WORD.fullmatch(name) else json.dumps(_shortened(name, 100), ensure_ascii=False)
