"""In process: what a failed commit costs, by the number of commits it has to look at.

The victim reads a node, many guests in turn commit something else, one of them changes the node,
and the victim's commit fails. The clock stands around that one request: replay, blame, charge.
"""

import statistics

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import inprocess

ROUNDS = 15


@pytest.mark.benchmark(group="a failed commit, by commits since its start")
@pytest.mark.parametrize("commits", [10, 100, 1000])
def test_failed_commit(benchmark: BenchmarkFixture, commits: int) -> None:
    """END of a transaction of 20 requests that lost to one of many commits."""
    place = inprocess.arena()
    times: list[int] = []
    rounds = 0

    def prepare() -> tuple[tuple[int], dict[str, object]]:
        nonlocal rounds
        rounds += 1
        return (inprocess.losing(place, commits, rounds),), {}

    def end(tx: int) -> None:
        times.append(inprocess.lose(place, tx))

    benchmark.pedantic(end, setup=prepare, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info["us_per_failed_commit"] = statistics.median(times) / 1000
    figures = place.engine.conflict_figures()
    assert figures[1]["caused"] == rounds
    assert sum(f["caused"] for f in figures.values()) == rounds
