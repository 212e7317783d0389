"""Plain text: the tables, and which targets are met."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from measure import Race, Row

__all__ = ["Target", "render", "render_targets"]

_NAME = 48  # characters


@attrs.frozen
class Target:
    """What the project promises of a ratio.

    Attributes:
        words: The promise.
        ratio: What was measured; None where it was not.
        bound: The promise holds up to it, or from it on.
        at_least: Whether the bound is a lower one.
        aim: What it should be one day.
    """

    words: str
    ratio: float | None
    bound: float
    at_least: bool = False
    aim: float | None = None

    @property
    def met(self) -> bool:
        """Whether the promise holds; what was not measured breaks none."""
        if self.ratio is None:
            return True
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound


def render(race: Race) -> str:
    """The table of a race: the best round of each row, and its ratio to the first row's."""
    head = f"{race.title}: {race.unit}"
    lines = ["", head, f"{'':{_NAME}} {'best':>12} {'ratio':>8}  (of medians)"]
    base = next((row for row in race.rows if row.values), None)
    lines += [_line(row, base) for row in race.rows]
    return "\n".join(lines)


def _line(row: Row, base: Row | None) -> str:
    name = f"  {row.name:{_NAME - 2}}"
    if not row.values or base is None:
        return f"{name} {row.absent:>12}"
    return f"{name} {row.best:12,.{_decimals(row.best)}f} {row.best / base.best:8.2f} {row.median / base.median:10.2f}"


def _decimals(value: float) -> int:
    return 1 if value < 1000 and value != int(value) else 0


def render_targets(targets: Iterable[Target]) -> str:
    """The promises, one a line."""
    lines = ["", "Targets"]
    for target in targets:
        sign = "at least" if target.at_least else "at most"
        aim = f", aim {target.aim:g}" if target.aim is not None else ""
        verdict = "not measured" if target.ratio is None else "met" if target.met else "NOT met"
        seen = "" if target.ratio is None else f"{target.ratio:.2f}"
        lines.append(f"  {target.words:{_NAME + 12}} {f'{sign} {target.bound:g}{aim}':24} {seen:>8}  {verdict}")
    return "\n".join(lines)
