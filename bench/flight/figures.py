"""Cases out of samples: a number for each repeat of each server, and the goal held against it."""

import statistics
from collections.abc import Mapping, Sequence

from bench.flight.record import FLOOR, OURS, Case, Kind, Latency, Row, summary
from bench.rows import Row as Plan
from bench.rows.row import Figure
from bench.sampling import Result, Sample

TURN = "turn"
"""Key in a sample: which turn of the servers it belongs to."""

# Enough for a curve: eight buckets for each power of two.
_FINE_BITS = 3

Measured = tuple[Plan, Result]


def name(row: Plan, figure: Figure) -> str:
    """The id of a case."""
    return f"{row.id}:{figure.suffix}" if figure.suffix else row.id


def kind(row: Plan, figure: Figure) -> Kind:
    """What a figure is made of."""
    if row.kind == "count":
        return "instructions"
    if figure.unit.startswith("x "):
        return "ratio"
    if "cpu" in figure.field or row.kind == "engine":
        return "cpu"
    if "rss" in figure.field:
        return "memory"
    if figure.unit in ("ns", "us", "ms", "s"):
        return "latency"
    return "count"


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


def _values(figure: Figure, samples: Sequence[Sample], turns: int) -> list[float | None]:
    """By turn; None where the server took no part or gave no figure."""
    values: list[float | None] = [None] * turns
    for place, sample in enumerate(samples):
        turn = sample.get(TURN, place)
        values[turn if isinstance(turn, int) else place] = _figure(figure, sample)
    return values


def _turns(result: Result) -> int:
    last = -1
    for samples in result.samples.values():
        for place, sample in enumerate(samples):
            turn = sample.get(TURN, place)
            last = max(last, turn if isinstance(turn, int) else place)
    return last + 1


def known(values: Sequence[float | None]) -> list[float]:
    """The repeats that took place."""
    return [value for value in values if value is not None]


def cut_short(result: Result) -> list[str]:
    """Servers that the time limit stopped."""
    return [
        server
        for server, samples in result.samples.items()
        if any(sample.get("truncated") for sample in samples)
    ]


def _met(mine: float, limit: float, bound: bool) -> bool | None:
    """A lower bound tells only that a goal was missed."""
    return None if bound and mine <= limit else mine <= limit


def cases(results: Sequence[Measured]) -> list[Case]:
    """One for each figure of each row; a goal that refers to what was not measured stays open."""
    gathered: list[tuple[Plan, Figure, dict[str, list[float | None]], list[str]]] = []
    ours: dict[str, float] = {}
    for row, result in results:
        cut = cut_short(result)
        for figure in row.figures:
            values = {}
            for server, samples in result.samples.items():
                taken = _values(figure, samples, _turns(result))
                if known(taken):
                    values[server] = taken
            if OURS in values:
                ours[name(row, figure)] = statistics.median(known(values[OURS]))
            gathered.append((row, figure, values, cut if figure.whole else []))
    made = []
    for row, figure, values, bounds in gathered:
        limit = None
        if figure.goal is not None:
            medians = {server: statistics.median(known(v)) for server, v in values.items()}
            peers = [median for server, median in medians.items() if server not in (OURS, FLOOR)]
            limit = figure.goal.limit(medians.get(FLOOR), peers, ours)
        mine = ours.get(name(row, figure))
        made.append(
            Case(
                id=name(row, figure),
                row=row.id,
                what=row.what,
                unit=figure.unit,
                kind=kind(row, figure),
                goal=None if figure.goal is None else figure.goal.text(),
                limit=limit,
                met=None if limit is None or mine is None else _met(mine, limit, OURS in bounds),
                values=values,
                summary={server: summary(known(v)) for server, v in values.items()},
                bounds=[server for server in bounds if server in values],
            )
        )
    return made


def _coarse(high: int) -> int:
    """The largest value of the eighth of a power of two that `high` is in."""
    shift = max(0, high.bit_length() - 1 - _FINE_BITS)
    return (high >> shift << shift) + (1 << shift) - 1


def latency(samples: Sequence[Sample]) -> Latency | None:
    """The latencies of all samples together; None when there are none."""
    buckets: dict[int, int] = {}
    count = highest = 0
    for sample in samples:
        told = sample.get("latency_ns")
        if not isinstance(told, Mapping):
            continue
        count += told["count"]
        highest = max(highest, told["max"])
        for high, many in told.get("buckets", ()):
            buckets[high] = buckets.get(high, 0) + many
    if count == 0:
        return None
    coarse: dict[int, int] = {}
    for high, many in sorted(buckets.items()):
        place = min(_coarse(high), highest)
        coarse[place] = coarse.get(place, 0) + many
    return Latency(
        count=count,
        p50=_at(buckets, 0.5, highest),
        p99=_at(buckets, 0.99, highest),
        p999=_at(buckets, 0.999, highest),
        max=highest,
        buckets=sorted(coarse.items()),
    )


def _at(buckets: Mapping[int, int], share: float, highest: int) -> int:
    wanted = share * sum(buckets.values())
    seen = 0
    for high, many in sorted(buckets.items()):
        seen += many
        if seen >= wanted:
            return min(high, highest)
    return highest


def row(plan: Plan, result: Result, took_s: Mapping[str, float]) -> Row:
    """What is kept of a row."""
    latencies = {server: latency(samples) for server, samples in result.samples.items()}
    return Row(
        id=plan.id,
        what=plan.what,
        load=list(plan.load),
        curve=plan.curve,
        n=plan.n,
        checksums={server: [str(s) for s in sums] for server, sums in result.checksums().items()},
        checksums_agree=result.agree(),
        errors=dict(result.errors),
        not_run=dict(result.not_run),
        cut_short=cut_short(result),
        took_s={server: round(seconds, 3) for server, seconds in took_s.items()},
        latency={server: found for server, found in latencies.items() if found is not None},
        samples={server: [_slim(s) for s in samples] for server, samples in result.samples.items()},
    )


def _slim(sample: Sample) -> Sample:
    """Without the buckets, which the row keeps for all repeats together."""
    return {
        key: {k: v for k, v in value.items() if k != "buckets"}
        if isinstance(value, dict)
        else value
        for key, value in sample.items()
    }
