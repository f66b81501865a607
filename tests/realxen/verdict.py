"""Which checks a run consists of, and what follows from what dom0 reported about them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from machine import Outcome

Verdict = Literal["pass", "fail", "skip", "missing"]

DOM0 = (
    "socket", "answers", "xen-init-dom0", "xenconsoled", "kernel-ring", "kernel-ring-writes",
    "kernel-watches", "special-watches",
)  # fmt: skip
INSIDE = (
    "reads", "writes", "removes", "long-value", "by-hand", "foreign-tree", "foreign-read",
    "own-name", "too-long", "harmless",
)  # fmt: skip
LIFE = (
    "introduced", "first-create", *(f"first-{name}" for name in INSIDE), "first-ready",
    "first-watch", "save", "save-gone", "save-released", "restore", "restore-domid",
    "restore-watch", "shutdown", "shutdown-gone", "shutdown-released",
)  # fmt: skip
SECOND = (
    "second-create", *(f"second-{name}" for name in INSIDE), "second-ready", "second-watch",
    "destroy-gone", "destroy-released",
)  # fmt: skip
CYCLES = (
    "cycles", "leak-nodes", "leak-watches", "leak-descriptors", "leak-mappings", "leak-channels",
    "leak-memory",
)  # fmt: skip
DAEMON = ("alive",)
XSD = ("log-reopen", "rights", "structure", "stops", "log-clean", "no-output")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: whether it held, and whether the run's result depends on it."""

    name: str
    verdict: Verdict
    required: bool
    at: float | None
    """Seconds since dom0's kernel started."""
    detail: str


@dataclass(frozen=True, slots=True)
class Result:
    """A judged run."""

    store: str
    second: str
    passed: bool
    why: str
    seconds: float
    checks: tuple[Check, ...]

    def as_json(self) -> dict[str, object]:
        """As plain data, the checks by their names."""
        data = asdict(self)
        data["checks"] = {check.pop("name"): check for check in data["checks"]}
        return data


def plan(store: str, second: str) -> dict[str, bool]:
    """The checks a run with ``store`` must report, and whether each is required.

    Leaks are ours to answer for in our own store only. A PVH guest depends on QEMU's emulation of
    SVM, which is not always right.
    """
    checks = dict.fromkeys((*DOM0, *LIFE), True)
    checks |= dict.fromkeys(SECOND, second == "pv")
    checks |= dict.fromkeys(CYCLES, store == "xsd")
    checks |= dict.fromkeys((*DAEMON, *(XSD if store == "xsd" else ())), True)
    return checks


def judge(store: str, second: str, outcome: Outcome) -> Result:
    """Compares what was reported with the plan; what was not reported has not held."""
    expected = plan(store, second)
    reported = _parse(outcome.report)
    checks = [
        Check(name, verdict, required, at, detail)
        for name, required in expected.items()
        for verdict, at, detail in [reported.get(name, ("missing", None, "not reported"))]
    ]
    checks += [
        Check(name, verdict, True, at, f"unexpected; {detail}")
        for name, (verdict, at, detail) in reported.items()
        if name not in expected
    ]
    bad = [check for check in checks if check.required and check.verdict != "pass"]
    # What never came is told apart: most of it is what followed the first failure.
    failed = [check.name for check in bad if check.verdict != "missing"]
    missing = [check.name for check in bad if check.verdict == "missing"]
    why = ""
    if outcome.timed_out:
        why = f"still running after {outcome.seconds:.0f} s; "
    elif outcome.status != 0:
        why = f"QEMU ended with status {outcome.status}; "
    if failed:
        why += f"did not hold: {', '.join(failed)}; "
    if missing:
        why += f"not reached: {', '.join(missing)}; "
    why = why.removesuffix("; ")
    return Result(store, second, not why, why, round(outcome.seconds, 1), tuple(checks))


def _parse(report: str) -> dict[str, tuple[Verdict, float | None, str]]:
    """The last word on each check, except that a failure is never taken back."""
    found: dict[str, tuple[Verdict, float | None, str]] = {}
    for line in report.splitlines():
        name, _, rest = line.partition("\t")
        word, _, rest = rest.partition("\t")
        at, _, detail = rest.partition("\t")
        if word not in ("pass", "fail", "skip") or found.get(name, ("",))[0] == "fail":
            continue
        seconds = float(at) if at.replace(".", "", 1).isdigit() else None
        verdict: Verdict = "pass" if word == "pass" else "skip" if word == "skip" else "fail"
        found[name] = (verdict, seconds, detail)
    return found
