"""Figures out of samples, goals held against them, and the table for people."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.rows import Figure, Goal, Row
from bench.servers import FLOOR, OURS

Sample = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Value:
    """Median of a figure over the repeats, and how far they lie apart: (max - min) / median."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """(high - low) / median; 0 for a single repeat."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one row, for all servers that gave it."""

    id: str
    what: str
    unit: str
    values: Mapping[str, Value]
    goal: Goal | None
    limit: float | None
    met: bool | None
    not_run: tuple[str, ...] = ()
    """Servers that could not take part."""


def _number(sample: Sample, path: str) -> float | None:
    value: object = sample
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return float(value) if isinstance(value, int | float) else None


def _figure(figure: Figure, sample: Sample) -> float | None:
    value = _number(sample, figure.field)
    per = 1.0 if figure.per is None else _number(sample, figure.per)
    return None if value is None or not per else value * figure.scale / per


def _value(figure: Figure, samples: Sequence[Sample]) -> Value | None:
    found = [v for v in (_figure(figure, sample) for sample in samples) if v is not None]
    if not found:
        return None
    return Value(statistics.median(found), min(found), max(found))


def _limit(goal: Goal, values: Mapping[str, Value], ours: Mapping[str, Value]) -> float | None:
    floor = values.get(FLOOR)
    peers = [value.median for name, value in values.items() if name not in (OURS, FLOOR)]
    medians = {name: value.median for name, value in ours.items()}
    return goal.limit(None if floor is None else floor.median, peers, medians)


def lines(
    results: Sequence[tuple[Row, Mapping[str, Sequence[Sample]], Collection[str]]],
) -> list[Line]:
    """One line for each figure of each row; goals that refer to a figure not measured are open.

    A result is a row, its samples by server, and the servers that could not take part.
    """
    ours: dict[str, Value] = {}
    gathered: list[tuple[str, Row, Figure, dict[str, Value], tuple[str, ...]]] = []
    for row, samples, absent in results:
        for figure in row.figures:
            name = f"{row.id}:{figure.suffix}" if figure.suffix else row.id
            values: dict[str, Value] = {}
            for server, taken in samples.items():
                value = _value(figure, taken)
                if value is not None:
                    values[server] = value
            if OURS in values:
                ours[name] = values[OURS]
            gathered.append((name, row, figure, values, tuple(absent)))
    made = []
    for name, row, figure, values, not_run in gathered:
        limit = None if figure.goal is None else _limit(figure.goal, values, ours)
        mine = values.get(OURS)
        met = None if limit is None or mine is None else mine.median <= limit
        made.append(Line(name, row.what, figure.unit, values, figure.goal, limit, met, not_run))
    return made


def _short(number: float) -> str:
    if number == 0:
        return "0"
    if abs(number) >= 100:
        return f"{number:.0f}"
    if abs(number) >= 10:
        return f"{number:.1f}"
    return f"{number:.2f}" if abs(number) >= 0.1 else f"{number:.3f}"


def _cell(value: Value | None) -> str:
    return "-" if value is None else _short(value.median)


def table(made: Sequence[Line], servers: Sequence[str]) -> str:
    """The lines as a text table: ours, its spread, the floor, the ratio, the others, the goal."""
    others = [name for name in servers if name not in (OURS, FLOOR)]
    head = ["row", "unit", OURS, "spread", FLOOR, "x floor", *others, "goal", "met", "what"]
    body = []
    for line in made:
        mine, floor = line.values.get(OURS), line.values.get(FLOOR)
        ratio = "-"
        if mine is not None and floor is not None and floor.median > 0:
            ratio = f"{mine.median / floor.median:.2f}"
        body.append(
            [
                line.id,
                line.unit,
                _cell(mine),
                "-" if mine is None else f"{mine.spread:.0%}",
                _cell(floor),
                ratio,
                *("not run" if n in line.not_run else _cell(line.values.get(n)) for n in others),
                "-" if line.goal is None else line.goal.text(),
                {None: "-", True: "yes", False: "NO"}[line.met],
                line.what,
            ]
        )
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    left = {0, 1, len(head) - 3, len(head) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *body]
    )
