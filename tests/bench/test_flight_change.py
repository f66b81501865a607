"""Whether a figure got worse: with drift, noise, loads that come and go, and missing peers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from flights import SPEEDS, measured
from hypothesis import given
from hypothesis import strategies as st

from bench.flight.change import UNKNOWN_NOISE, compare, noise

seeds = st.integers(0, 2**32 - 1)


def share(trials: int, happens: Callable[[random.Random], bool]) -> float:
    """How often something happens."""
    return sum(happens(random.Random(seed)) for seed in range(trials)) / trials


def times(values: Mapping[str, Sequence[float | None]], factor: float) -> dict[str, list[float]]:
    """All values of all servers on a machine so many times slower."""
    return {name: [v * factor for v in some if v is not None] for name, some in values.items()}


@given(seeds, st.floats(0.2, 20), st.integers(2, 15))
def test_a_machine_of_another_speed_changes_nothing(seed: int, factor: float, repeats: int) -> None:
    """The same figures, all of them times something, are neither worse nor better."""
    base = measured(random.Random(seed), sigma=0.1, repeats=repeats)
    change = compare(times(base, factor), base)
    assert (change.worse, change.better) == (False, False)
    assert change.corrected == pytest.approx(0, abs=1e-9)


@given(
    seeds, st.floats(1.15, 5), st.floats(0.5, 5), st.sampled_from(["floor", "C,O", "floor,C,O,O*"])
)
def test_a_slowdown_is_found_on_a_machine_of_any_speed(
    seed: int, slower: float, machine: float, others: str
) -> None:
    """15 % and more, with little noise, whoever is there to compare with."""
    chance = random.Random(seed)
    servers = ("ours", *others.split(","))
    base = measured(chance, sigma=0.003, servers=servers)
    new = measured(chance, sigma=0.003, servers=servers, machine=machine, ours=slower)
    assert compare(new, base).worse
    assert compare(base, new).better


def test_ten_percent_are_found_in_noise() -> None:
    """With the noise of a shared machine, almost always; on a slower one as well."""
    for machine in (1.0, 1.5):
        found = share(
            300,
            lambda chance, machine=machine: (
                compare(  # type: ignore[misc]
                    measured(chance, machine=machine, ours=1.10, outliers=0.05, repeats=15),
                    measured(chance, outliers=0.05, repeats=15),
                ).worse
            ),
        )
        assert found > 0.95


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("servers", [("ours",), ("ours", "floor"), tuple(SPEEDS)])
@pytest.mark.parametrize("machine", [1.0, 1.4])
def test_noise_is_not_a_regression(sigma: float, servers: tuple[str, ...], machine: float) -> None:
    """However large: false alarms are rare, and few enough for a rerun to settle them."""
    alone = len(servers) == 1

    def alarm(chance: random.Random) -> bool:
        base = measured(chance, sigma=sigma, servers=servers, outliers=0.05, repeats=7)
        new = measured(
            chance, sigma=sigma, servers=servers, outliers=0.05, repeats=7, machine=machine
        )
        return compare(new, base, elsewhere=machine if alone else None).worse

    assert share(300, alarm) < 0.03


def test_a_load_that_comes_and_goes_is_taken_out_turn_by_turn() -> None:
    """Each turn has a machine of its own: not a regression; and a slowdown is found through it."""

    def flown(chance: random.Random, ours: float) -> dict[str, list[float | None]]:
        made = measured(chance, sigma=0.01, ours=ours)
        speed = [chance.choice((1.0, 1.0, 1.7, 2.5)) for _ in range(9)]
        return {
            n: [v * s for v, s in zip(some, speed, strict=True) if v] for n, some in made.items()
        }

    assert share(200, lambda c: compare(flown(c, 1.0), measured(c, sigma=0.01)).worse) < 0.02
    assert share(200, lambda c: compare(flown(c, 1.25), measured(c, sigma=0.01)).worse) > 0.8


def test_both_must_be_worse() -> None:
    """Worse than the baseline, and than the drift: one of them is not enough."""
    base = {"ours": [5.0] * 5, "floor": [4.0] * 5, "C": [10.0] * 5}
    slow = {"ours": [6.0] * 5, "floor": [4.8] * 5, "C": [12.0] * 5}
    assert not compare(slow, base).worse
    # Peers got faster, ours did not: nobody waits longer than before, unless all agree on it.
    odd = {"ours": [5.0] * 5, "floor": [3.2] * 5, "C": [10.0] * 5}
    assert not compare(odd, base).worse
    fast = {"ours": [5.0] * 5, "floor": [3.2] * 5, "C": [8.0] * 5}
    assert compare(fast, base).worse
    assert compare(base, fast).better


def test_peers_that_disagree_make_the_drift_uncertain() -> None:
    """Between references that say 0 % and 40 %, 20 % are not a regression; 90 % are."""
    base = {"ours": [5.0] * 5, "floor": [4.0] * 5, "C": [10.0] * 5}
    new = {"ours": [6.0] * 5, "floor": [4.0] * 5, "C": [14.0] * 5}
    assert not compare(new, base).worse
    assert compare(new | {"ours": [9.5] * 5}, base).worse


def test_one_repeat_says_little() -> None:
    """A single value has the noise of something unknown, unless it is exact."""
    assert noise([5.0]) == UNKNOWN_NOISE
    assert not compare({"ours": [5.5]}, {"ours": [5.0]}).worse
    assert compare({"ours": [6.0]}, {"ours": [5.0]}).worse
    exact = {"drifts": False, "tolerance": 0.01, "unknown": 0.0}
    assert compare({"ours": [1011.0]}, {"ours": [1000.0]}, **exact).worse  # type: ignore[arg-type]
    assert not compare({"ours": [1009.0]}, {"ours": [1000.0]}, **exact).worse  # type: ignore[arg-type]


def test_one_bad_repeat_is_not_noise() -> None:
    """A repeat that somebody disturbed changes neither the median nor what is believed of it."""
    assert noise([5.0, 5.1, 4.9, 5.05, 4.95]) == noise([5.0, 50.0, 4.9, 5.05, 4.95])


def test_turns_without_a_server_count_for_nothing() -> None:
    """A slow peer that was measured seldom still tells of the drift."""
    base = {"ours": [5.0] * 6, "C": [10.0, None, None, 10.0, None, None]}
    new = {"ours": [7.5] * 6, "C": [15.0, None, None, 15.0, None, None]}
    change = compare(new, base)
    assert (change.worse, change.drift) == (False, 0.5)
    assert compare({**new, "ours": [9.0] * 6}, base).worse


def test_from_nothing_every_repeat_must_be_more() -> None:
    """Retries that were 0: one stray retry is not a regression, some in every repeat are."""
    assert not compare({"ours": [0.0, 1.0, 2.0]}, {"ours": [0.0, 0.0, 0.0]}, drifts=False).worse
    assert compare({"ours": [1.0, 1.0, 2.0]}, {"ours": [0.0, 0.0, 0.0]}, drifts=False).worse
    assert not compare({"ours": [0.0]}, {"ours": [0.0]}, drifts=False).worse
