"""One mutant, or none, in a worker's copy: built, tried by one of the two stages, and undone.

A job is a process of its own, ``python -m mutation.job`` with the job as JSON on its input and
the result on its output. Whatever a test leaves behind becomes its child, and is ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mutation.sources import Mutant
from mutation.tree import BIN, BuildError, Tree

PR_SET_CHILD_SUBREAPER = 36
QUICK_SECONDS = 3000.0
"""All quick tests together, on a busy machine; each has a bound of its own."""

# What `make quick` runs, but for the house rules, which read sources, and for ourselves.
QUICK = (
    "-q", "-x", "-m", "not slow", "--hypothesis-profile=quick", "-p", "mutation.plugin",
    "-p", "no:cacheprovider", "--tb=short", "--seed=1", "--ignore=tests/live",
    "--ignore=tests/bench", "--ignore=tests/csrc", "--ignore=tests/house",
    "--ignore=tests/mutation",
)  # fmt: skip
EARLY = ("tests/core", "tests/test_oracle.py", "tests/test_model.py")


@dataclass(frozen=True, slots=True)
class Result:
    """How it went: killed | survived | invalid | equivalent, by what, in how long."""

    result: str
    by: str
    seconds: float


def children(pid: int) -> list[int]:
    """The processes that a process is the parent of."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def sweep() -> None:
    """Ends what is left of a run: our children, and theirs, which become ours. Only in a job."""
    for _ in range(100):
        left = children(os.getpid())
        if not left:
            return
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def confined(command: Sequence[str | Path], root: Path, log: Path, seconds: float) -> int | None:
    """Runs a command in the copy; its status, or None if it had to be ended."""
    paths = os.pathsep.join([str(root), str(root / "tests")])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "XSD_ORACLE_EXAMPLES": "20",
        "XSD_MUTATION_LOG": str(log),
    }
    log.unlink(missing_ok=True)
    log.touch()
    with log.with_suffix(".out").open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def last(lines: Sequence[str], kind: str) -> str:
    """What the last line of a kind says, or nothing."""
    return next((line.partition(" ")[2] for line in reversed(lines) if line.startswith(kind)), "")


def how(status: int | None) -> str:
    """What an end by anything but an exit means."""
    if status is None or status in (-signal.SIGPROF, -signal.SIGALRM):
        return "does not end"
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def quick(tree: Tree) -> tuple[bool, str]:
    """The quick tests: whether all passed, and which did not.

    In two parts, since collecting all takes longer than the first ones take to find something.
    """
    well, by = passes(tree, EARLY)
    if well:
        well, by = passes(tree, ["tests", *(f"--ignore={place}" for place in EARLY)])
    return well, by


def passes(tree: Tree, arguments: Sequence[str]) -> tuple[bool, str]:
    """Runs tests: whether all passed, and which did not.

    A test with daemons must fail twice, the second time alone: the machine may be busy, and some
    have deadlines. The early ones are functions of their seed.
    """
    log = tree.root / "quick.log"
    pytest = [BIN / "python", "-m", "pytest", *QUICK]
    for _ in range(3):
        status = confined([*pytest, *arguments], tree.root, log, QUICK_SECONDS)
        sweep()
        if status == 0:
            return True, ""
        lines = log.read_text().splitlines()
        failed = last(lines, "failed ")
        if not failed:
            return False, f"{last(lines, 'runs ') or 'collection'}: {how(status)}"
        if failed.startswith(EARLY):
            return False, failed.replace("\t", "  ")
        name = failed.partition("\t")[0]
        again = confined([*pytest, name], tree.root, log.with_name("again.log"), QUICK_SECONDS)
        sweep()
        if again != 0:
            return False, failed.replace("\t", "  ")
    return True, "a test failed once, and not again"


def simulate(tree: Tree, seconds: float, first: int) -> tuple[bool, str]:
    """The simulator: whether all was well, and which seed was not."""
    log = tree.root / "sim.log"
    words = [BIN / "python", "-m", "mutation.simulate", str(seconds), str(first)]
    status = confined(words, tree.root, log, 12 * seconds + 60)
    sweep()
    lines = log.with_suffix(".out").read_text().splitlines()
    if status == 0:
        return True, last(lines, "well ")
    if failed := last(lines, "failed "):
        return False, failed
    return False, f"{last(lines, 'runs ')}: {how(status)} {' '.join(lines[-1:])[:200]}"


def work(job: dict[str, Any]) -> Result:
    """Carries a job out: {"tree", "mutant" or null, "stage", "seconds", "first"}."""
    began = time.monotonic()

    def done(result: str, by: str = "") -> Result:
        return Result(result, by, round(time.monotonic() - began, 1))

    tree = Tree(job["tree"])
    mutant = Mutant(**job["mutant"]) if job["mutant"] else None
    try:
        tree.build()
        if mutant is not None:
            try:
                if not tree.change(mutant):
                    return done("equivalent", "the same object code")
            except BuildError as problem:
                return done("invalid", " ".join(str(problem).split())[-200:])
        tree.link()
        if job["stage"] == "sim":
            well, by = simulate(tree, job["seconds"], job["first"])
        else:
            well, by = quick(tree)
        return done("survived" if well else "killed", by)
    finally:
        if mutant is not None:
            tree.restore(mutant.file)


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print(json.dumps(asdict(work(json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
