"""A plugin for the tests of a mutant: those that find most come first, and each has its bounds.

XSD_MUTATION_LOG names a file that learns which test runs and which has failed: a mutant may
well end the process. A bound that is passed ends it by a signal, as nothing else can while a
loop without the interpreter runs.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

FIRST = (
    "tests/test_model.py", "tests/core", "tests/test_oracle.py", "tests/io", "tests/sim",
    "tests/advisories", "tests/daemon", "tests/client", "tests/cli", "tests/xen", "tests/fuzz",
    "tests/witness",
)  # fmt: skip
CPU_SECONDS = 20.0
WALL_SECONDS = 400.0
MEMORY = 6 << 30
# Their programs have sanitizers, which reserve most of the address space.
UNBOUND = ("tests/fuzz", "tests/witness", "tests/xen")


def rank(nodeid: str) -> int:
    """The place of a test's directory among those that are tried first."""
    return next((i for i, place in enumerate(FIRST) if nodeid.startswith(place)), len(FIRST))


def note(kind: str, text: str) -> None:
    with Path(os.environ["XSD_MUTATION_LOG"]).open("a", encoding="utf-8") as log:
        log.write(f"{kind} {text}\n")


def bound_memory(limited: bool) -> None:
    """Bounds the address space of this process and of those it starts, or lets it go."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if limited else hard, hard))


def arm(cpu: float, wall: float) -> None:
    """The process ends by a signal when it has used so much; 0 disarms."""
    signal.setitimer(signal.ITIMER_PROF, cpu)
    signal.setitimer(signal.ITIMER_REAL, wall)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is tested is the copy, whatever else is installed."""
    import xsd.core.engine

    assert Path(xsd.core.engine.__file__).is_relative_to(session.config.rootpath)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart(nodeid: str) -> None:
    note("runs", nodeid)
    bound_memory(not nodeid.startswith(UNBOUND))
    arm(CPU_SECONDS, WALL_SECONDS)


def pytest_runtest_logfinish(nodeid: str) -> None:
    arm(0, 0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = " ".join(str(crash.message if crash else report.longrepr).split())[:200]
        note("failed", f"{report.nodeid}\t{text}")
