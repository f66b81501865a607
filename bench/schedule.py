"""Time: how much a row may take, and who is measured how often in it.

A flight has a budget. Each row gets what it needs at the least and an equal share of the rest;
what a row leaves over goes to those after it. Within a row, cheap servers are measured more often
than expensive ones: ours takes milliseconds where another one takes seconds, and the repeats of
ours are what a verdict stands on: it gets most of the time. Whoever is measured less often is
spread over the turns.
"""

from collections.abc import Mapping, Sequence

LEAST = 3
"""Repeats of a server that is not too slow for it."""


WEIGHT: Mapping[str, float] = {"ours": 4.0, "floor": 2.0}
"""Shares of a row's time; of all others 1."""


def repeats(costs: Mapping[str, float], slice_s: float, most: int) -> dict[str, int]:
    """Repeats of each server, 1 to `most`, given what one costs in seconds.

    Each gets its share of the time, but what a cheap server cannot use goes to the others. A
    server whose repeats do not fit is measured once all the same, and `LEAST` times if that takes
    no longer than the slice.
    """
    left = slice_s
    weights = {name: WEIGHT.get(name, 1.0) for name in costs}
    given: dict[str, int] = {}
    for name in sorted(costs, key=lambda n: costs[n] / weights[n]):
        cost = max(costs[name], 1e-3)
        share = left * weights[name] / sum(weights[n] for n in weights if n not in given)
        least = LEAST if LEAST * cost <= slice_s else 1
        given[name] = max(min(least, most), min(most, int(share / cost)))
        left = max(0.0, left - given[name] * cost)
    return given


def takes_part(turn: int, turns: int, wanted: int) -> bool:
    """Whether a server wanted `wanted` times is measured in this turn of `turns`, evenly spread.

    All are measured in turn 0.
    """
    return turn == 0 or (turn * wanted) // turns != ((turn - 1) * wanted) // turns


def slice_s(left_s: float, least: Sequence[float]) -> float:
    """Seconds for the next row, given those that are left for it and all behind it, and what each
    of them takes at the least."""
    surplus = left_s - sum(least)
    return least[0] + max(0.0, surplus) / len(least)
