"""The rows as data: complete, unambiguous, with goals that can be decided."""

import re

import pytest

from bench.goals import Goal
from bench.rows import Row, Scale, rows

SCALES: tuple[Scale, ...] = ("tiny", "normal")
CATALOGUE = {
    *("B1", "B1n", "B2", "B2i", "B3", "B3w", "B4", "B5", "B5t", "B6", "B7", "B8", "B9", "B10"),
    *("B11", "B13", "B15", "B15i", "B15p", "B15t", "B16", "B17", "B18", "I"),
}


def figures(all_rows: tuple[Row, ...]) -> list[str]:
    """Ids of all figures."""
    return [
        f"{row.id}:{figure.suffix}" if figure.suffix else row.id
        for row in all_rows
        for figure in row.figures
    ]


@pytest.mark.parametrize("scale", SCALES)
def test_ids_are_unambiguous(scale: Scale) -> None:
    """No two rows, and no two figures, have the same id; ids can be names of files."""
    ids = [row.id for row in rows(scale)]
    assert len(set(ids)) == len(ids)
    assert len(set(figures(rows(scale)))) == len(figures(rows(scale)))
    assert [one for one in ids if not re.fullmatch(r"[A-Za-z0-9.-]+", one)] == []


@pytest.mark.parametrize("scale", SCALES)
def test_every_kind_of_row_is_there(scale: Scale) -> None:
    """Each group of rows has one at least, at toy size too, so that the tests run it."""
    assert {row.id.partition("-")[0] for row in rows(scale)} == CATALOGUE


@pytest.mark.parametrize("scale", SCALES)
def test_goals_refer_to_what_is_measured(scale: Scale) -> None:
    """A goal relative to a figure names one that exists; one relative to the floor has a floor."""
    known = set(figures(rows(scale)))
    for row in rows(scale):
        for figure in row.figures:
            match figure.goal:
                case Goal(of="figure", figure=other):
                    assert other in known, row.id
                    assert other != row.id, row.id
                case Goal(of="floor"):
                    assert row.floor, row.id


@pytest.mark.parametrize("scale", SCALES)
def test_curves_have_points(scale: Scale) -> None:
    """Rows of one curve stand at different places of it, ascending."""
    places: dict[str, list[float]] = {}
    for row in rows(scale):
        assert (row.curve == "") == (row.n is None), row.id
        if row.n is not None:
            places.setdefault(row.curve, []).append(row.n)
    for curve, at in places.items():
        assert len(at) >= (2 if scale == "normal" else 1), curve
        assert sorted(set(at)) == at, curve


def test_goals_are_decided() -> None:
    """Each kind of goal gives a number, or none when what it refers to was not measured."""
    figures = {"B6-0": 5.0}
    assert Goal(2).limit(None, [], {}) == 2
    assert Goal(1.5, "floor").limit(4, [], {}) == 6
    assert Goal(1.5, "floor").limit(None, [3.0], {}) is None
    assert Goal(0.5, "peers").limit(4, [9.0, 8.0], {}) == 4
    assert Goal(0.5, "peers").limit(4, [], {}) is None
    assert Goal(1.2, "figure", "B6-0").limit(None, [], figures) == 6
    assert Goal(1.2, "figure", "B6-1").limit(None, [], figures) is None
    assert Goal(1.2, "figure", "B6-0").text() == "<= 1.2 x B6-0"
