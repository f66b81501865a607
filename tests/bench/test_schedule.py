"""How the time of a flight is given to rows and servers."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import canary, schedule
from bench.flight import figures, table
from bench.fly import choose, wanted
from bench.options import QUICK, parse
from bench.rows import Row, rows
from bench.rows.row import Figure, args, total

costs = st.dictionaries(
    st.sampled_from(["ours", "floor", "C", "O", "O*"]), st.floats(0.01, 100), min_size=1
)


@given(costs, st.floats(0, 200), st.integers(1, 15))
def test_repeats_fit(cost: dict[str, float], slice_s: float, most: int) -> None:
    """Everybody is measured at least once and at most so often; what is beyond the least fits."""
    given_ = schedule.repeats(cost, slice_s, most)
    assert given_.keys() == cost.keys()
    assert all(1 <= n <= most for n in given_.values())
    more = sum(cost[name] * n for name, n in given_.items() if n > schedule.LEAST)
    assert more <= slice_s * 1.001


def test_what_a_cheap_server_leaves_goes_to_others() -> None:
    """Ours takes milliseconds: the peers get the rest, and a very slow one is measured once."""
    found = schedule.repeats({"ours": 0.1, "C": 1.0, "O": 2.0}, 21.5, 15)
    assert found == {"ours": 15, "C": 10, "O": 5}
    assert schedule.repeats({"ours": 1.0, "floor": 1.0, "C": 1.0}, 21, 15) == {
        "ours": 12,
        "floor": 6,
        "C": 3,
    }
    assert schedule.repeats({"ours": 0.1, "C": 80.0}, 20, 15) == {"ours": 15, "C": 1}


@given(st.integers(1, 40), st.data())
def test_turns_are_spread(turns: int, data: st.DataObject) -> None:
    """Each server gets its number of turns, the first one among them, evenly."""
    wanted = data.draw(st.integers(1, turns))
    taken = [turn for turn in range(turns) if schedule.takes_part(turn, turns, wanted)]
    assert (len(taken), taken[0]) == (wanted, 0)
    gaps = [b - a for a, b in zip(taken, [*taken[1:], turns], strict=True)]
    assert max(gaps) - min(gaps) <= 1


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=60), st.floats(1, 5000))
def test_slices_fill_the_budget(least: list[float], budget: float) -> None:
    """When each row takes its slice, all of the budget is used; nobody gets less than the least."""
    left = budget
    for place, needed in enumerate(least):
        found = schedule.slice_s(left, least[place:])
        assert found >= needed
        left -= found
    assert left == pytest.approx(min(0.0, budget - sum(least)), abs=1e-6 * budget)


def test_rows_are_chosen() -> None:
    """By id, by what stands before a '-', by a pattern; a name that fits nothing is an error."""
    plans = [Row(name, "", ()) for name in ("B1-read", "B1-read-1", "B15-read", "B4-10")]

    def names(*chosen: str) -> list[str]:
        return [row.id for row in choose(plans, "normal", chosen)]

    assert names("B1-read") == ["B1-read"]
    assert names("B1") == ["B1-read", "B1-read-1"]
    assert names("B1*") == ["B1-read", "B1-read-1", "B15-read"]
    assert names("B4", "B15-read") == ["B15-read", "B4-10"]
    with pytest.raises(ValueError, match="no row 'B7'"):
        names("B7")


def test_rows_are_divided() -> None:
    """The same load in more and shorter samples; not below some for each client, and not where
    the figure is of a whole."""

    def load(row: Row, parts: int) -> tuple[str, int]:
        finer = row.finer(parts)
        return " ".join(finer.load), finer.parts

    short = (Figure("us/req", "server_cpu_ns", "requests"),)
    one = Row("B1-read", "", short, args("read --ops 20000 --warm 1000 --nodes 20000"))
    assert load(one, 1) == (" ".join(one.load), 1)
    assert load(one, 20) == ("read --ops 1000 --warm 50 --nodes 20000", 20)
    many = Row("B2", "", short, args("read --ops 20000 --connections 16 --depth 16 --warm 4000"))
    assert load(many, 20) == ("read --ops 5120 --connections 16 --depth 16 --warm 512", 20)
    assert load(Row("B3", "", short, args("create --ops 20000")), 20)[1] == 1
    assert load(Row("B4", "", (total(),), args("storm --ops 20000")), 20)[1] == 1
    assert load(Row("B8", "", short, args("read --ops 20000"), repeats=1), 20)[1] == 1
    options, _ = parse(["--fine", "20", "--rows", "B1-read"])
    (row,) = wanted(rows("normal"), options)
    assert (row.parts, row.load[:3]) == (20, ("read", "--ops", "1000"))
    with pytest.raises(SystemExit):
        parse(["--fine", "0"])


def test_rows_and_cases_that_are_named_exist() -> None:
    """Those of the quick run, of the README's table, and of the canary."""
    plans = rows("normal")
    assert choose(plans, "normal", QUICK)
    assert len(choose(plans, "normal", canary.ROWS.split(","))) == 4
    cases = [figures.name(row, figure) for row in plans for figure in row.figures]
    assert [n for n in table.HEADLINES if not any(fnmatchcase(case, n) for case in cases)] == []
