"""The long haul for a few seconds, and that it finds what is left behind."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import serving
from peer import Peer

from haul.acts import TINY
from haul.figures import MEBIBYTE, WARM_ROUNDS, Bound, bounds, grown, kept, rising
from haul.house import LOG_FILES, LOG_LINES, HaulError, House
from haul.run import BREAKAGES, Plan, haul, leave_behind
from xsd.client.wire import Op

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 0.3
SECONDS = 120

LEFT = {
    "watch": {"watches", "dom0_memory"},
    "connection": {"connections", "descriptors"},
    "transaction": {"transactions"},
    "node": {"nodes", "tree_blocks"},
    "permission": {"permission_lists"},
    "domain": {"domains", "domains_introduced", "ring_pages", "xen_pages", "xen_ports"},
}
"""What each breakage must be found by, at least."""


@pytest.fixture(autouse=True)
def installed() -> None:
    """Without the built program there is nothing to test."""
    if not serving.program().exists():
        serving.absent(f"{serving.program()} is not there")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A daemon that nobody has asked anything yet."""
    made = House(tmp_path)
    yield made
    made.kill()


# -- what is judged ------------------------------------------------------------------------------


@pytest.mark.parametrize("access_log", [False, True])
def test_growth_is_found(access_log: bool) -> None:
    """A figure may be as far above the warm rounds as was stated, and not a byte further."""
    for name, bound in bounds(access_log).items():
        warm = [100, 300, 200]
        assert grown(name, bound, [*warm, 300 + bound.growth]) == ""
        assert name in grown(name, bound, [*warm, 100, 301 + bound.growth])
        assert grown(name, bound, [100, 300, 300 + 2 * bound.growth]) == ""


def test_a_trend_is_found() -> None:
    """Slow growth shows before any single round is too large; noise and plateaus do not."""
    bound = Bound(4 * MEBIBYTE, MEBIBYTE, 0, "")
    leak = [50 * MEBIBYTE + 30_000 * number for number in range(130)]
    assert all(grown("rss_bytes", bound, leak[: n + 1]) == "" for n in range(130))
    assert "rises" in rising("rss_bytes", bound, leak)
    noise = [50 * MEBIBYTE + number * 7919 % 31 * (MEBIBYTE // 10) for number in range(130)]
    assert rising("rss_bytes", bound, noise) == ""
    plateau = [min(number, 30) * MEBIBYTE for number in range(130)]
    assert rising("rss_bytes", bound, plateau) == ""
    assert rising("rss_bytes", bound, leak[: WARM_ROUNDS + 8]) == ""


def test_what_is_not_given_back_is_found() -> None:
    """In the end, beside the start."""
    bound = bounds(False)["total_bytes"]
    start, most = {"total_bytes": 7}, {"total_bytes": 7 + bound.above_start}
    assert kept("total_bytes", bound, start, most) == ""
    assert kept("total_bytes", bound, start, {"total_bytes": most["total_bytes"] + 1})


# -- on a daemon ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("access_log", [False, True])
def test_a_few_rounds(access_log: bool) -> None:
    """Everything comes back, each kind of load had its turn, and it was a load."""
    seed = 1 + access_log
    plan = Plan(seed, TINY, 0, rounds=2, first=WARM_ROUNDS - 1, load=1, access_log=access_log)
    lines: list[str] = []
    run, wrong = haul(plan, lines.append)
    assert (wrong, len(lines)) == ("", 3)
    assert run is not None
    assert len(run.rounds[0].acts) == len(set(run.rounds[0].acts)) == 13
    assert len(run.rounds[1].acts) < 13
    assert min(made.births for made in run.rounds) > 10
    for name in ("requests", "commits", "aborts", "events_queued", "nodes_swept"):
        assert run.rounds[-1].figures[name] > 200, name
    for name in ("transactions", "watches", "domains", "descriptors", "xen_pages"):
        assert run.most[name] > run.house.start[name] + 5, name
    assert not run.house.directory.exists()


@pytest.mark.slow
def test_what_is_left_behind_is_found(house: House) -> None:
    """The canaries: a watch, a connection and so on that somebody forgot, one after the other."""
    assert house.back(PATIENCE)[1] == []
    known: set[str] = set()
    keepers = []
    for what in BREAKAGES:
        keepers.append(leave_behind(house, what))
        _, wrong = house.back(PATIENCE)
        found = {text.partition(":")[0] for text in wrong}
        assert found >= LEFT[what] | known, what
        assert not LEFT[what] & known, what
        known = found
    for keeper in keepers:
        if isinstance(keeper, Peer):
            keeper.close()


@pytest.mark.slow
def test_what_the_daemon_cannot_give_back_is_found(house: House) -> None:
    """A page that stays mapped and a channel that stays bound after the end of their domain."""
    for call, figures in (
        ("xengnttab_unmap", {"ring_pages", "xen_pages"}),
        ("xenevtchn_unbind", {"xen_ports"}),
    ):
        before = house.back(PATIENCE)[1]
        house.xen.fail(call, errno.EINVAL)
        leave_behind(house, "domain")
        house.sweep()
        house.xen.fail_no_more()
        _, wrong = house.back(PATIENCE)
        assert {text.partition(":")[0] for text in wrong if text not in before} >= figures
        with pytest.raises(HaulError, match="cannot be un"):
            house.reopen_logs()


@pytest.mark.slow
def test_bad_logs_are_found(house: House) -> None:
    """A warning that no load explains; an access log of a file too many, or too long."""
    house.reopen_logs()
    assert house.operator.ask(Op.CONTROL, b"conflicts\0set\0bogus\0yes\0") == "EINVAL"
    with pytest.raises(HaulError, match="conflicts set"):
        house.reopen_logs()
    log = house.directory / "access.log"
    log.write_text("line\n" * LOG_LINES)
    house.judge_access_log()
    log.write_text("line\n" * (LOG_LINES + 1))
    with pytest.raises(HaulError, match="access log"):
        house.judge_access_log()
    log.write_text("")
    for number in range(LOG_FILES):
        Path(f"{log}.{number + 1}").touch()
    with pytest.raises(HaulError, match="access log"):
        house.judge_access_log()


@pytest.mark.slow
def test_a_bad_end_is_found(house: House) -> None:
    """A daemon that does not stop in good order."""
    house.running.process.kill()
    with pytest.raises(HaulError, match="status -9"):
        house.finish()


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    """A run that fails says with which seed and round, and its figures are kept."""
    file = tmp_path / "run.json"
    words = ["--size", "tiny", "--load", "1", "--seed", "5", "--first", "4", "--rounds", "1",
             "--break", "transaction", "--patience", str(PATIENCE), "--json",
             str(file)]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "haul", *words],
        cwd=ROOT, env=serving.clean_environ(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}"),
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nFAILED: seed 5, round 4: transactions: 0 at the start, 1 now" in done.stdout
    assert "\nagain: make soak SEED=5 ARGS='--first 4 --rounds 1" in done.stdout
    kept_there = json.loads(file.read_text())
    assert [made["number"] for made in kept_there["rounds"]] == [4]
    assert kept_there["rounds"][0]["figures"]["transactions"] == 1
