"""The whole of it on a real Xen, if asked for; and the judge of such runs, always."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from machine import Outcome
from verdict import judge, plan

RUN = Path(__file__).with_name("run.py")


def outcome(*, but: str = "", status: int = 0, timed_out: bool = False) -> Outcome:
    """A run in which all held; ``but`` are lines that come after, or replace those of its name."""
    lines = [f"{name}\tpass\t1.0\tfine" for name in plan("xsd", "pv")]
    replaced = but.partition("\t")[0]
    lines = [line for line in lines if line.partition("\t")[0] != replaced] + [but] * bool(but)
    return Outcome(status, 100.0, timed_out, "\n".join(lines))


def test_a_run_in_which_all_held_passes() -> None:
    """Every check of the plan reported as passed, and QEMU ended well."""
    result = judge("xsd", "pv", outcome())
    assert (result.passed, result.why) == (True, "")
    assert {check.verdict for check in result.checks} == {"pass"}
    assert json.loads(json.dumps(result.as_json()))["checks"]["socket"]["at"] == 1.0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{}\tfail\t1.0\twrong", "did not hold"),
        ("{}\tskip\t1.0\tunknown", "did not hold"),
        ("{}", "not reached"),
    ],
)
def test_each_check_can_fail_a_run(line: str, why: str) -> None:
    """One that failed, was left out or never reported is named in the result."""
    for name in plan("xsd", "pv"):
        result = judge("xsd", "pv", outcome(but=line.format(name)))
        assert (result.passed, result.why) == (False, f"{why}: {name}")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (outcome(status=1), "QEMU ended with status 1"),
        (outcome(timed_out=True, status=-9), "still running after 100 s"),
        (outcome(but="surprise\tfail\t1.0\twhat"), "did not hold: surprise"),
        (outcome(but="socket\tfail\t1.0\twhat\nsocket\tpass\t2.0\tno"), "did not hold: socket"),
    ],
)
def test_a_bad_end_fails_a_run_whatever_was_reported(bad: Outcome, why: str) -> None:
    """A machine that crashed or hung, a check nobody planned, a failure that is taken back."""
    result = judge("xsd", "pv", bad)
    assert (result.passed, result.why) == (False, why)


def test_what_depends_on_qemu_or_on_other_stores_is_not_required() -> None:
    """PVH guests are for information; leaks count in this store alone."""
    assert not plan("xsd", "pvh")["second-watch"]
    assert plan("xsd", "pvh")["leak-nodes"]
    assert not plan("ocaml", "pv")["leak-watches"]
    assert plan("c", "pv")["second-watch"]


@pytest.mark.slow
def test_xsd_serves_domain_0_and_guests_on_a_real_xen(tmp_path: Path) -> None:
    """A dom0's kernel and toolstack, and guests through their lives, as tests/realxen says."""
    if os.environ.get("XSD_REALXEN") != "1":
        pytest.skip("boots a machine, which takes minutes: set XSD_REALXEN=1, or make realxen")
    command = [sys.executable, str(RUN), "--store", "xsd", "--artefacts", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
