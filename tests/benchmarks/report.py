"""Plain text: the tables, and which targets are met."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from measure import Race, Row

__all__ = ["Target", "render", "render_targets"]

_NAME = 48  # characters


@attrs.frozen
class Target:
    """What the project promises of a ratio, or of a delay.

    Attributes:
        words: Of what to what.
        ratio: What was measured; None where it was not.
        minimum: The least that keeps the promise, if that is how it goes.
        maximum: The most that keeps it.
        aim: What it should be one day.
    """

    words: str
    ratio: float | None
    minimum: float | None = None
    maximum: float | None = None
    aim: float | None = None

    @property
    def met(self) -> bool:
        """Whether the promise holds; what was not measured breaks none."""
        if self.ratio is None:
            return True
        return (self.minimum is None or self.ratio >= self.minimum) and (
            self.maximum is None or self.ratio <= self.maximum
        )

    @property
    def bound(self) -> str:
        """The promise itself."""
        bound = f"at least {self.minimum:g}" if self.minimum is not None else f"at most {self.maximum:g}"
        return bound if self.aim is None else f"{bound}, aim {self.aim:g}"


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
    lines = ["", "Targets (CPU time or memory, of what to what; delays)"]
    for target in targets:
        verdict = f"{target.ratio:8.2f}  {'met' if target.met else 'NOT met'}" if target.ratio else "not measured"
        lines.append(f"  {target.words:{_NAME + 8}} {target.bound:22} {verdict}")
    return "\n".join(lines)
