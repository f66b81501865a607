"""Flights and reports as files: what is written can be read, and what is broken is said to be."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from flights import case, flight, measured, row, with_row

from bench import baseline, report, run
from bench.flight import record
from bench.flight.record import BrokenError

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ("ours", "floor", "C", "O", "O*")
BASE = flight(case(measured(random.Random(1))))
SLOW = flight(case(measured(random.Random(2), ours=1.3)), started="2026-11-21T10:00:00Z")

instrumented = pytest.mark.skipif(
    os.environ.get("XSD_FLAVOUR") == "asan", reason="sanitizers are for what we built"
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The baseline's file."""
    path = tmp_path / "base.json"
    record.save(BASE, path)
    return path


def judged(tmp_path: Path, base: Path, new: record.Flight, *words: str) -> int:
    """The exit code of a report on `new`."""
    path = tmp_path / "new.json"
    record.save(new, path)
    return report.main([str(path), "--baseline", str(base), *words])


def test_a_flight_comes_back_as_it_was(tmp_path: Path) -> None:
    """Saved and loaded, with reruns, gaps, bounds and samples."""
    values = measured(random.Random(3)) | {"C": [1.0, None, 2.0]}
    made = flight(case(values, "B4-300", limit=3.0, reruns=[values]))
    made = with_row(made, "B4-300", samples={"ours": [{"ops": 3, "latency_ns": {"p50": 1}}]})
    path = tmp_path / "deep" / "flight.json"
    record.save(made, path)
    assert record.load(path) == made
    assert record.baseline(made).rows[0].samples == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a flight"),
        ("{}", "missing required field"),
        ("[1, 2", "not a flight"),
        (json.dumps({"schema": "other"}), "missing required field"),
    ],
)
def test_what_is_no_flight_is_said_to_be_none(tmp_path: Path, text: str, said: str) -> None:
    """The file is named, with what is wrong; the report ends with 2."""
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(BrokenError, match=f"broken.json: .*{said}"):
        record.load(path)
    assert report.main([str(path), "--baseline", str(path)]) == 2


def test_another_schema_is_refused(tmp_path: Path, base: Path) -> None:
    """A flight of another version is not compared; nor is one whose figures are not numbers."""
    other = tmp_path / "other.json"
    other.write_text(base.read_text().replace(record.SCHEMA, "xsd-bench/0"))
    with pytest.raises(BrokenError, match="schema 'xsd-bench/0'"):
        record.load(other)
    text = base.read_text()
    other.write_text(re.sub(r'"median": [\d.]+', '"median": "fast"', text, count=1))
    with pytest.raises(BrokenError, match=r"cases\[0\].summary"):
        record.load(other)


def test_partial_flights_become_one() -> None:
    """A row and its cases are those of the last that has it, in the place where it was first."""
    one = flight(*(case(measured(random.Random(n)), name) for n, name in enumerate("abc")))
    two = flight(*(case(measured(random.Random(9)), name) for name in ("b", "d")))
    both = record.together([one, two])
    assert [row.id for row in both.rows] == ["a", "b", "c", "d"]
    assert both.cases == [one.cases[0], two.cases[0], one.cases[2], two.cases[1]]
    assert record.together([one]) == one


def test_flights_of_two_builds_do_not_become_one() -> None:
    """Nor those of two machines, or flown otherwise."""
    for other in (
        replace(BASE, software=replace(BASE.software, commit="another")),
        replace(BASE, machine=replace(BASE.machine, kernel="another")),
        replace(BASE, settings=replace(BASE.settings, realtime=not BASE.settings.realtime)),
    ):
        with pytest.raises(BrokenError, match="differ in machine, software, settings or servers"):
            record.together([BASE, other])


def test_exit_codes(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 tolerable, 1 regressions, 2 blocked or unreadable; the last line says it in words."""
    assert judged(tmp_path, base, BASE) == 0
    assert "tolerable: 1 like baseline" in capsys.readouterr().out
    assert judged(tmp_path, base, SLOW) == 1
    said = capsys.readouterr().out
    assert "REGRESSIONS: 1 regression" in said
    assert re.search(r"B1-read +regression +us/req", said)
    wrong = with_row(BASE, "B1-read", errors={"ours": "wrong [value]"})
    assert judged(tmp_path, base, wrong) == 2
    said = capsys.readouterr().out
    assert "BROKEN: 1 blocked" in said and "wrong [value]" in said
    assert judged(tmp_path, tmp_path / "none.json", BASE) == 2
    assert "none.json" in capsys.readouterr().err


def test_the_allow_list_is_a_file(tmp_path: Path, base: Path) -> None:
    """It excuses until its day; one that is malformed breaks the report."""
    allowed = tmp_path / "allow.txt"
    allowed.write_text("B1-* 2026-12-01 known\n")
    words = ("--allow", str(allowed), "--today")
    assert judged(tmp_path, base, SLOW, *words, "2026-12-01") == 0
    assert judged(tmp_path, base, SLOW, *words, "2026-12-02") == 1
    allowed.write_text("B1-*\n")
    assert judged(tmp_path, base, SLOW, *words, "2026-12-01") == 2


def test_json_and_junit(tmp_path: Path, base: Path) -> None:
    """Each case is in both, with its verdict; JUnit counts what failed."""
    out = tmp_path / "out"
    new = flight(case(measured(random.Random(4), ours=1.3)), case(measured(random.Random(5)), "B9"))
    assert judged(tmp_path, base, new, "--out", str(out), "--no-plots") == 1
    document = json.loads((out / "report.json").read_text())
    assert document["schema"] == "xsd-bench-report/1"
    assert document["exit_code"] == 1
    verdicts = {j["case"]: j["verdict"] for j in document["judgements"]}
    assert verdicts == {"B1-read": "regression", "B9": "untested"}
    (suite,) = ET.parse(out / "report.xml").getroot()
    assert [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] == [
        "2",
        "1",
        "0",
        "1",
    ]
    failure = suite.find("testcase[@name='B1-read']/failure")
    assert failure is not None and "us/req, was" in failure.get("message", "")
    assert suite.find("testcase[@name='B9']/skipped") is not None
    assert "REGRESSIONS" in (out / "report.txt").read_text()


def test_flights_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of time; each figure with its spread, and as multiples of floor and peers."""
    late, early, broken = (tmp_path / f"{name}.json" for name in ("late", "early", "broken"))
    figures = {"ours": [2.0, 2.0, 3.0], "floor": [1.6] * 3, "C": [8.0] * 3, "O": [4.0] * 3}
    record.save(flight(case(figures), started="2026-11-23T10:00:00Z"), late)
    alone = {"ours": [1.0]}
    record.save(flight(case(alone), started="2026-11-22T10:00:00Z"), early)
    assert baseline.beside([str(late), str(early)]) == 0
    said = capsys.readouterr().out
    assert "| 2026-11-22 10:00 | 2026-11-23 10:00 |" in said
    assert "| **1.00**, spread 0% | **2.00**, spread 50%, 1.25 x floor, 0.50 x peer |\n" in said
    broken.write_text("{}")
    assert baseline.beside([str(early), str(broken)]) == 2
    assert "broken.json" in capsys.readouterr().err


def test_formats_of_plots(capsys: pytest.CaptureFixture[str]) -> None:
    """Another one than those that can be written is refused, before anything is read."""
    with pytest.raises(SystemExit):
        report.main(["none.json", "--plots-in", "svg,xyz"])
    assert "--plots-in: 'xyz': not one of svg, png, pdf" in capsys.readouterr().err


def test_the_flight_before_the_last_is_kept(tmp_path: Path) -> None:
    """A flight of some rows does not take that of all with it."""
    last = tmp_path / run.LAST
    for new in (BASE, SLOW):
        assert run._save(new, last) == last
    assert record.load(tmp_path / "previous.json") == BASE
    assert record.load(last) == SLOW
    other = tmp_path / "other.json"
    for new in (BASE, SLOW):
        run._save(new, other)
    assert len(list(tmp_path.iterdir())) == 3


@instrumented
def test_plots(tmp_path: Path, base: Path) -> None:
    """Rows, latencies, growth and flights are drawn, as SVG with its text, and as PNG."""
    cases = [
        case(measured(random.Random(i)), f"B2i-{n}", limit=6.0) for i, n in enumerate((0, 10, 90))
    ]
    rows = {c.id: row(c.id, SERVERS, float(c.id[4:])) for c in cases}
    cases += [
        case(measured(random.Random(9)), "B1-read"),
        case({"ours": [3.0, 9.0]}, "B1-read:p99", kind="latency"),
    ]
    new = flight(*cases, started="2026-11-22T10:00:00Z", **rows)
    slow, last, out = tmp_path / "slow.json", tmp_path / "last.json", tmp_path / "out"
    record.save(SLOW, slow)
    record.save(new, last)
    # In a process of its own: a library of that size is no business of other tests.
    done = subprocess.run(
        [sys.executable, "-m", "bench", "report", slow, last, "--baseline", base, "--out", out],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    drawn = {path.name for path in out.iterdir() if path.suffix in (".svg", ".png")}
    names = {"row-B1-us-req", "row-B2i-us-req", "growth-B2i", "latency-B1-read", "flights-B1-read"}
    assert {f"{name}.{ending}" for name in names for ending in ("svg", "png")} - drawn == set()
    for path in out.glob("*.svg"):
        assert path.stat().st_size < 100_000, path.name
        assert "Some CPU" in ET.tostring(ET.parse(path).getroot(), "unicode"), path.name
    growth = (out / "growth-B2i.svg").read_text()
    assert all(text in growth for text in ("oxenstored", "echo floor", "goal: at most", "us/req"))
    for path in out.glob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
