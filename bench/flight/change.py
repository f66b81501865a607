"""Whether a figure got worse: the arithmetic, without knowing what a flight is.

A machine is never as fast twice. What the peers, or the echo floor, share with us in a flight is
the machine's doing, the *drift*; what remains is ours. There are two of it: a machine short of
cache slows peers, which compute, more than the floor; one that schedules otherwise, so that more
or fewer requests are there at each wake-up, moves the floor. A regression is beyond both. The
servers take turns, so the n-th repeats of all were measured within seconds, and drift is taken
out repeat by repeat: a load that comes and goes during a flight goes with it.

    drift of repeat n    value[n] / median in the baseline; of several peers the median
    corrected[n]         ours[n] / drift of repeat n
    worse                median(ours) beyond the baseline, and median(corrected) too, for both
                         kinds of drift, each by more than the tolerance

The tolerance is 5 %, or the noise if that is larger. Noise is what the medians may be wrong by:
three of their standard errors, estimated from the quartiles, which one bad repeat leaves alone.
Where peers disagree about the drift, it is known only as well as they agree.

A machine that got faster hides a slowdown only as far as peers and floor do not agree on it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOLERANCE = 0.05
# The interquartile range of a normal distribution is 1.35 sigma, a median's standard error 1.25
# sigma / sqrt(n); three of these.
_SIGMAS = 3 * 1.2533 / 1.349
UNKNOWN_NOISE = 0.10
"""What a single repeat may be wrong by: nobody knows, so no small change is believed."""

Values = Sequence[float]
Turns = Sequence[float | None]
Servers = Mapping[str, Turns]


@dataclass(frozen=True, slots=True)
class Change:
    """A figure beside its baseline; all of it relative, so 0.1 is 10 %."""

    change: float
    """Of our median."""
    drift: float | None
    """Of peers and floor; None: there were none, or a machine's speed does not matter."""
    corrected: float
    """Our change without the drift."""
    noise: float
    tolerance: float
    worse: bool
    better: bool


def _quartiles(values: Values) -> tuple[float, float]:
    ordered = sorted(values)

    def at(place: float) -> float:
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    last = len(ordered) - 1
    return at(last / 4), at(last * 3 / 4)


def noise(values: Values, unknown: float = UNKNOWN_NOISE) -> float:
    """What the median may be wrong by, relative to it: three standard errors.

    One value says nothing about that, and gets `unknown`.
    """
    median = statistics.median(values)
    if median == 0:
        return 0.0
    if len(values) == 1:
        return unknown
    low, high = _quartiles(values)
    return _SIGMAS * (high - low) / abs(median) / math.sqrt(len(values))


def _known(values: Turns) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Turns) -> float:
    return statistics.median(_known(values))


def _positive(values: Turns) -> bool:
    found = _known(values)
    return len(found) > 0 and min(found) > 0


@dataclass(frozen=True, slots=True)
class _Beside:
    """Ours as seen from one kind of reference; 1 is no change."""

    drift: float
    corrected: float
    noise: float
    unsure: float
    """The noise, and what the references disagree by."""


def _references(new: Servers, base: Servers, ours: str, floor: str) -> list[list[str]]:
    """Who tells of the drift: the peers and the floor, as far as they were there both times and
    have figures to divide by."""
    there = [
        name
        for name, values in base.items()
        if name != ours and _positive(values) and _positive(new.get(name, ()))
    ]
    groups = [[name for name in there if name != floor], [name for name in there if name == floor]]
    return [names for names in groups if names]


def _corrected(new: Servers, base: Servers, ours: str, names: Sequence[str]) -> list[float]:
    """Our values with the drift of each repeat taken out; `base` gives the references' medians.

    A repeat that a reference took no part in has that reference's median drift instead: leaving it
    out would make repeats unlike each other.
    """
    standard = {name: _median(base[name]) for name in names}
    overall = {name: _median(new[name]) / standard[name] for name in names}

    def drift(name: str, turn: int) -> float:
        value = new[name][turn] if turn < len(new[name]) else None
        return overall[name] if value is None else value / standard[name]

    return [
        value / statistics.median(drift(name, turn) for name in names)
        for turn, value in enumerate(new[ours])
        if value is not None
    ]


def _beside(
    new: Servers, base: Servers, ours: str, names: Sequence[str], unknown: float
) -> _Beside:
    steady = _corrected(new, base, ours, names)
    before = _corrected(base, base, ours, names)
    each = [_median(new[name]) / _median(base[name]) for name in names]
    low, high = _quartiles(each)
    noisy = math.hypot(noise(steady, unknown), noise(before, unknown))
    return _Beside(
        drift=statistics.median(each),
        corrected=statistics.median(steady) / statistics.median(before),
        noise=noisy,
        unsure=math.hypot(noisy, (high - low) / statistics.median(each)),
    )


def _from_nothing(mine: Values, before: Values, tolerance: float, least: float) -> Change:
    """Beside a baseline of 0 nothing is relative: any value above `least` and all of the baseline's
    counts."""
    median = statistics.median(mine)
    worse = median > least and min(mine) > max(before)
    change = math.inf if median > 0 else 0.0
    return Change(change, None, change, 0.0, tolerance, worse, False)


def compare(
    new: Servers,
    base: Servers,
    *,
    ours: str = "ours",
    floor: str = "floor",
    drifts: bool = True,
    tolerance: float = TOLERANCE,
    unknown: float = UNKNOWN_NOISE,
    elsewhere: float | None = None,
    least: float = 0.0,
) -> Change:
    """Ours in `new` beside ours in `base`, each with at least one value; lower is better.

    `drifts`: whether the machine's speed matters to this figure. `unknown`: the noise of a single
    repeat. `elsewhere`: the drift that other figures of the flight show, for one that has neither
    peers nor floor. `least`: what counts as nothing beside a baseline of 0.
    """
    mine, before = _known(new[ours]), _known(base[ours])
    standard = statistics.median(before)
    if standard <= 0:
        return _from_nothing(mine, before, tolerance, least)
    ratio = statistics.median(mine) / standard
    raw_noise = math.hypot(noise(mine, unknown), noise(before, unknown))
    groups = _references(new, base, ours, floor) if drifts else []
    seen = [_beside(new, base, ours, names, unknown) for names in groups]
    known = bool(seen) or (drifts and elsewhere is not None)
    if not seen:
        drift = elsewhere if drifts and elsewhere is not None else 1.0
        seen = [_Beside(drift, ratio / drift, raw_noise, raw_noise)]
    # Pairing takes out what the machine did to all; where it did nothing, it only adds the
    # references' own noise.
    limit = max(tolerance, min(raw_noise, *(one.noise for one in seen)))
    fast = min(1.0, max(one.drift for one in seen))
    slow = max(1.0, min(one.drift for one in seen))
    worse = ratio > fast * (1 + limit) and all(
        one.corrected > 1 + max(tolerance, one.unsure) for one in seen
    )
    better = ratio < slow * (1 - limit) and all(
        one.corrected < 1 - max(tolerance, one.unsure) for one in seen
    )
    # What is told is the view that decides: the one that goes least beyond its tolerance.
    told = min(seen, key=lambda one: abs(one.corrected - 1) - max(tolerance, one.unsure))
    return Change(
        change=ratio - 1,
        drift=told.drift - 1 if known else None,
        corrected=told.corrected - 1,
        noise=told.unsure,
        tolerance=max(tolerance, told.unsure),
        worse=worse,
        better=better,
    )
