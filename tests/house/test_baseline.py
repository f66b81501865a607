"""The tables and pictures of the benchmarks are what the baseline flight makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkout import ROOT

from bench.flight import allow, record, table
from bench.flight.record import BrokenError
from bench.options import BASELINE
from bench.report import ALLOWED


def test_tables_are_those_of_the_baseline() -> None:
    """`python -m bench table` would change no document."""
    made = table.documents(record.load(BASELINE), ROOT)
    assert [path.name for path, text in made.items() if path.read_text() != text] == []
    assert len(made) == 2


def test_a_table_that_is_not_is_found(tmp_path: Path) -> None:
    """The canary: a figure that somebody wrote by hand; and a document that lost its marks."""
    flight = record.load(BASELINE)
    made = table.block(flight, flight.cases)
    assert table.insert(f"a\n{made.replace('**', '**0', 1)}\nb\n", made) == f"a\n{made}\nb\n"
    with pytest.raises(BrokenError):
        table.insert("no marks", made)


def test_the_baseline_is_whole() -> None:
    """It is of a commit, planted nothing, and small enough to be kept."""
    flight = record.load(BASELINE)
    assert flight.software.commit is not None
    assert (flight.settings.planted_percent, flight.settings.background_load) == (0, False)
    assert BASELINE.stat().st_size < 4_000_000


def test_pictures_in_the_readme_exist_and_are_small() -> None:
    """Each is below 100 kB."""
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert shown
    assert [name for name in shown if not 0 < (ROOT / name).stat().st_size < 100_000] == []


def test_the_allow_list_can_be_read() -> None:
    """A malformed line would break every report."""
    allow.load(ALLOWED)
