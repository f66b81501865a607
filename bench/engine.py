"""Our engine in process, measured by a process of its own: times, and counts of instructions.

Instructions are counted by valgrind between the engine's entry and its return only, neither in the
interpreter around it nor while it starts. The difference between two runs of different length is
divided by the operations that one did more: what happens once cancels out. The figures repeat.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.build import ROOT
from bench.inprocess import COUNTED

ENTRY = "__pyx_f_3xsd_4core_*_engine_received"
"""All requests go through it: `engine_received`, by the name that Cython gives it."""
MARK = "__pyx_pw_3xsd_4core_*allocations"
STILL = {"PYTHONHASHSEED": "0", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=60000"}
"""What happened in the interpreter before shall not be felt: with lists as long as that, the C
library finds a block of the right size without looking for it, whoever freed blocks before."""
LIMIT_S = 300
_TOTAL = re.compile(r"^(?:summary|totals): (\d+)$", re.MULTILINE)


class AbsentError(Exception):
    """What counts instructions is not installed."""


class EngineError(Exception):
    """The measuring process failed."""


def _run(command: Sequence[str], cpu: int) -> Any:
    # Nothing else: what is preloaded or built for sanitizers is not what is to be measured.
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env=environment | STILL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"still running after {LIMIT_S} s") from error
    finally:
        os.sched_setaffinity(0, mine)
    if done.returncode != 0:
        raise EngineError(done.stderr.strip()[-2000:] or f"ended with {done.returncode}")
    return json.loads(done.stdout)


def timed(args: Sequence[str], cpu: int) -> dict[str, object]:
    """A job of `bench.inprocess` on processor `cpu`; raises EngineError."""
    said = _run([sys.executable, "-m", "bench.inprocess", *args], cpu)
    assert isinstance(said, dict)
    return said


def unmoved() -> list[str]:
    """What makes a program find its memory at the same addresses each time, where that is allowed.

    How long the allocator looks for a block depends on where others lie, by a few parts in 1000.
    """
    setarch = shutil.which("setarch")
    if setarch is None:
        return []
    words = [setarch, "--addr-no-randomize"]
    tried = subprocess.run([*words, "true"], check=False, capture_output=True, timeout=10)
    return words if tried.returncode == 0 else []


def _dumped(path: Path) -> int:
    found = _TOTAL.search(path.read_text())
    return int(found[1]) if found else 0


@functools.cache
def counts(ops: int, turn: int, cpu: int) -> Mapping[str, Mapping[str, object]]:
    """Instructions of all operations there are, by name; each `turn` counts anew.

    Raises AbsentError without valgrind, EngineError.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise AbsentError("valgrind is not installed (Debian's package valgrind)")
    with tempfile.TemporaryDirectory(prefix="xsd-count-") as name:
        out = Path(name) / "out"
        options = [
            "--tool=callgrind",
            "--quiet",
            f"--toggle-collect={ENTRY}",
            f"--dump-before={MARK}",
            f"--callgrind-out-file={out}",
        ]
        job = [sys.executable, "-m", "bench.inprocess", "count", str(ops)]
        _run([*job[:-1], "1"], cpu)  # so that nothing is left for Python to compile
        said = _run([*unmoved(), valgrind, *options, *job], cpu)
        # Three marks for each operation: up to the first, it was made ready.
        files = [out.with_name(f"out.{i + 1}") for i in range(3 * len(COUNTED))]
        if not all(file.exists() for file in files):
            raise EngineError("valgrind has not seen the engine: is this a release build?")
        totals = [_dumped(file) for file in files]
    for i, sample in enumerate(said.values()):
        sample["instructions"] = totals[3 * i + 2] - totals[3 * i + 1]
    assert isinstance(said, dict)
    return said


def counted(args: Sequence[str], cpu: int, turn: int = 0) -> dict[str, object]:
    """Instructions of the operation args[0], done args[1] times; see `counts`."""
    return dict(counts(int(args[1]), turn, cpu)[args[0]])
