"""The page of the documentation that says what comes of each fault: docs/faults.md, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from answers import APIS, Api
from catalogue import FAULTS, Expected, Fault
from leaving import LEAVINGS
from weigh import LOADS, Load

__all__ = ["PAGE", "render"]

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"

_HEAD = """\
# Faults

What a server, a network or a model does wrong, and what you get then. The tests play each of these faults on a real
socket: to streams of `Client` and `AsyncClient` over each API that can have it, and to plain responses of httpx. This
page is written by that bench (`make faults`), and a test fails where it is not what the bench says.

Whatever happens, it ends in time, the connection is closed, and what was received is in your hands: in `run.text` and
`run.response`, in the error's `.partial`, and your handlers were told of it. A tool runs only for an answer that is
whole. [Runs](runs.md) says what the words of the second column mean.

- **status** is that of the run; *no run* where the request itself raises.
- **error** is what `run()` raises and `check=False` leaves in `run.error`. *Retryable* is its `.retryable`.
- **sent** is how often a client with `max_retries=1` sends the request.
- APIs are named where not all four behave alike, or not all can have the fault. Nothing that Gemini sends ends an
  answer but the end of the body: what comes behind the reason of the end still counts, and if the connection is cut
  there, or stays open, it is not known whether anything is missing.
"""

_LOADS = """
## Costs

Each in a process of its own, the whole load and a quarter of it. Memory grows by less than 40 MB beyond the text that
is received, and the time is in proportion. While arguments come over a translated wire they are there twice: at the
wire, which ends them with the whole, and in the response so far.

| what comes | API | read | ends |
|---|---|---|---|
"""

_LEAVINGS = """
## Consumers

Over each API, sync and async, with the garbage collector off: the server sees the connection go at once. While a slow
one takes its time, the server cannot send: nothing is read ahead.

| the consumer | status | what comes to the caller |
|---|---|---|
"""

_COLUMNS = """\
| fault | what the server does | status | error | text | sent |
|---|---|---|---|---|---|
"""

_NAMES: dict[Api, str] = {"responses": "Responses", "chat": "Chat", "anthropic": "Anthropic", "gemini": "Gemini"}


def render() -> str:
    """All of the page."""
    parts = [_HEAD]
    for group, faults in groupby(FAULTS.values(), key=lambda fault: fault.group):
        parts += [f"\n## {group}\n\n{_COLUMNS}", *(f"{row}\n" for fault in faults for row in _rows(fault))]
    parts += [_LEAVINGS, *(f"| {each.what} | `{each.status}` | {each.comes} |\n" for each in LEAVINGS.values())]
    parts += [_LOADS, *(f"{_weighed(name, load)}\n" for name, load in LOADS.items())]
    return "".join(parts)


def _rows(fault: Fault) -> Iterator[str]:
    """One for all APIs, or one for each outcome."""
    outcomes: dict[str, list[Api]] = {}
    for api in fault.apis:
        outcomes.setdefault(" | ".join(_cells(fault.expected[api])), []).append(api)
    for outcome, apis in outcomes.items():
        where = "" if len(apis) == len(APIS) else f" ({', '.join(map(_NAMES.__getitem__, apis))})"
        yield f"| {fault.name} | {fault.what}{where} | {outcome} |"


def _cells(expected: Expected) -> Iterator[str]:
    yield f"`{expected.status}`" if expected.status else "*no run*"
    if expected.error is None:
        yield ", ".join(["none", *(f"warning `{kind}`" for kind in sorted(expected.warnings))])
    else:
        known = [f"`{name}={value!r}`" for name, value in expected.says.items() if name in ("limit", "timer", "status")]
        told = [f"`{expected.error.__name__}`", *known, *(["retryable"] if expected.retryable else [])]
        yield ", ".join(told)
    yield _text_of(expected)
    yield {1: "once", 2: "twice"}[expected.tries]


def _text_of(expected: Expected) -> str:
    if expected.tool == "runs":
        return "all; the tool runs" if expected.heard is None else "all, by the event that has it whole; the tool runs"
    if expected.error is None and expected.text:
        return "all; no tool runs"
    return "what came" if expected.text else "none came"


def _weighed(name: str, load: Load) -> str:
    status, limit = load.ends
    ends = f"`{status}`" + (f", `LimitExceeded`, `limit={limit!r}`" if limit else "")
    return f"| {load.what} | {_NAMES[load.api]} | {load.way} | {ends} |"
