"""Real flights at toy size: reruns, disturbances, peers that are not installed, other daemons."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import flights
import pytest

from bench import baseline, run
from bench.flight import record
from bench.flight.record import Flight
from bench.fly import _both
from bench.options import BASELINE

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    os.environ.get("XSD_FLAVOUR") == "asan", reason="a preloaded library comes after the sanitizers"
)


def fly(output: Path, *words: str, rows: str = "B1-read", **environ: str) -> Flight:
    """One flight at toy size, of our daemon and the floor."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XENSTORED_")}
    command = [sys.executable, "-m", "bench", "--tiny", "--json", str(output), "--rows", rows]
    done = subprocess.run(
        [*command, *words],
        cwd=ROOT,
        check=False,
        env=kept | environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return record.load(output)


def times_faster(flight: Flight, factor: float) -> Flight:
    """The flight with all figures of ours divided: whatever comes after it is a regression."""

    def faster(values: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
        mine = [None if v is None else v / factor for v in values["ours"]]
        return values | {"ours": mine}

    cases = []
    for case in flight.cases:
        values = faster(case.values)
        known = [v for v in values["ours"] if v is not None]
        summary = case.summary | {"ours": record.summary(known)}
        cases.append(replace(case, values=values, summary=summary))
    return replace(flight, cases=cases)


def test_regressions_are_run_again(tmp_path: Path) -> None:
    """Rows that look worse than the baseline, and only those, twice; a flight like it has none."""
    first = fly(tmp_path / "first.json", rows="B1-read,B1-write")
    fast = times_faster(first, 20)
    base = replace(fast, cases=[c for c in fast.cases if c.row == "B1-read"])
    record.save(base, tmp_path / "base.json")
    words = ("--rerun-regressions", str(tmp_path / "base.json"))
    flown = fly(tmp_path / "again.json", *words, rows="B1-read,B1-write")
    reruns = {case.id: [sorted(rerun) for rerun in case.reruns] for case in flown.cases}
    assert reruns["B1-read"] == [["floor", "ours"]] * 2
    assert {name for name, some in reruns.items() if some} <= {c.id for c in base.cases}
    record.save(times_faster(first, 0.01), tmp_path / "base.json")
    assert [case.reruns for case in fly(tmp_path / "third.json", *words).cases] == [[]] * len(
        base.cases
    )


def test_a_wrong_answer_in_a_rerun_is_one() -> None:
    """It does not go with the figure, which excuses the first."""
    first = flights.row("B1-read", ("ours", "floor", "C"))
    assert _both(first, first) == first
    wrong = replace(first, checksums={"ours": ["bad"]})
    assert _both(first, wrong).checksums == {"ours": ["bad", "c0ffee"], "C": ["c0ffee"]}
    assert not _both(first, wrong).checksums_agree
    failed = replace(first, errors={"ours": "no reply"})
    assert _both(first, failed).errors == {"ours": "when run again: no reply"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_flight_that_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """Rows that were done are kept, servers are ended, their directory goes."""
    output, place = tmp_path / "flight.json", tmp_path / "tmp"
    place.mkdir()
    code = (
        "import sys; from bench import fly, run; fly._in_memory = lambda: None;"
        "sys.exit(run.main(sys.argv[1:]))"
    )
    words = [
        sys.executable,
        "-c",
        code,
        "--tiny",
        "--repeats",
        "1000",
        "--rows",
        "B1-read,B1-write",
    ]
    flying = subprocess.Popen(
        [*words, "--json", output],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(place.glob("xsd-bench-*/floor/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    flying.send_signal(number)
    _, said = flying.communicate(timeout=60)
    assert (flying.returncode, said.startswith("bench: interrupted")) == (130, True), said
    assert list(place.iterdir()) == []
    assert not output.exists() or len(record.load(output).rows) < 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rows", ","), "--rows names no row"),
        (("--minutes", "nan"), "--minutes must be more than 0"),
        (("--cpu", "4096"), "--cpu, --client-cpu: this process may use"),
        (("--peers", "C,C"), "two servers of one name among C, C"),
        (("--daemon", "a b", "--socket", "/s"), "two servers of one name among other, other"),
        (("--daemon", "floor=a"), "the name 'floor' is taken"),
        (("--rows", "B1-read", "--json", "/dev/null"), "/dev/null: it exists, and is no regular"),
        (("--rows", "B1-read", "--json", "/proc/x/y"), "No such file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_flown_is_said_first(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started, with the option; 2."""
    try:
        status: object = run.main(["--tiny", *words])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert said in capsys.readouterr().err
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_what_makes_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Toy sizes, planted slowdowns, wrong answers; the baseline stays as it is."""
    before = BASELINE.read_bytes()
    good = flights.flight(flights.case({"ours": [1.0]}))
    for number, bad in enumerate(
        (
            replace(good, settings=replace(good.settings, scale="tiny")),
            replace(good, settings=replace(good.settings, planted_percent=10)),
            flights.with_row(good, "B1-read", errors={"ours": "no reply"}),
            flights.with_row(good, "B1-read", checksums_agree=False),
        )
    ):
        path = tmp_path / f"{number}.json"
        record.save(bad, path)
        assert baseline.baseline([str(path)]) == 2
        assert "baseline" in capsys.readouterr().err
    assert BASELINE.read_bytes() == before


def test_disturbances_leave_the_answers_alone(tmp_path: Path) -> None:
    """With a slowdown planted, and with a load beside, replies are as ever, and the file tells."""
    quiet = fly(tmp_path / "quiet.json", rows="B1-read,B15-read-4")
    planted = fly(tmp_path / "planted.json", "--plant", "50", rows="B1-read,B15-read-4")
    loaded = fly(tmp_path / "loaded.json", "--background-load")
    assert (planted.settings.planted_percent, planted.settings.background_load) == (50, False)
    assert (loaded.settings.planted_percent, loaded.settings.background_load) == (0, True)
    for row in (*planted.rows, *loaded.rows):
        assert row.checksums == quiet.row(row.id).checksums


def test_absent_peers_are_not_run(tmp_path: Path) -> None:
    """With nothing of Debian in the path the others are measured, and the reason is told."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("XENSTORED_")}
    output = tmp_path / "flight.json"
    code = (
        "import sys\nfrom tests.xen import daemons\n"
        "def find(name): raise FileNotFoundError(f'{name} is not installed')\n"
        "daemons.find = find\nfrom bench import run\nsys.exit(run.main(sys.argv[1:]))\n"
    )
    words = ["--tiny", "--peers", "C,O", "--rows", "B1-read", "--json", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        check=False,
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "C: not run: C: xenstored is not installed" in done.stdout
    row = record.load(output).row("B1-read")
    assert (sorted(row.not_run), sorted(row.samples)) == (["C", "O"], ["floor", "ours"])


def test_another_daemon_by_its_command(tmp_path: Path) -> None:
    """It is started, measured beside ours, and named."""
    daemon = f"mine={sys.executable} {Path(sys.executable).parent / 'xsd'} daemon --no-fork"
    flown = fly(tmp_path / "flight.json", "--daemon", daemon, rows="B1-read,B15-read-1")
    assert [sorted(row.samples) for row in flown.rows] == [["floor", "mine", "ours"]] * 2


def test_a_flight_tells_where_it_was(tmp_path: Path) -> None:
    """Machine, versions and settings are there; times are in order."""
    flown = fly(tmp_path / "flight.json")
    assert flown.started <= flown.finished
    assert flown.machine.cores >= 1 and flown.machine.kernel and flown.machine.cpu
    assert flown.software.packages["uvloop"] is not None
    assert flown.settings.scale == "tiny"
    assert (
        flown.row("B1-read").latency["ours"].count == flown.row("B1-read").samples["ours"][0]["ops"]
    )
