"""The two C programs of the benchmarks, compiled when their sources are newer."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "bench"
FAKE_XEN = ROOT / "tests" / "xen" / "fakexen.h"
OUTPUT = ROOT / "build" / "bench"
FLAGS = ("-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")
PROGRAMS = {
    "load": (
        *("load.c", "base.c", "guests.c", "host.c", "hostile.c", "lane.c", "phase.c"),
        *("result.c", "script.c", "toolstack.c", "transport.c"),
    ),
    "echo": ("echo.c", "echo_rings.c"),
}


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the compiled programs."""

    load: Path
    echo: Path


def build() -> Programs:
    """Compile what is missing or out of date, with $CC or gcc; CalledProcessError if it fails."""
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime_ns for path in (*SOURCES.glob("*.[ch]"), FAKE_XEN))
    for name, sources in PROGRAMS.items():
        program = OUTPUT / name
        if program.exists() and program.stat().st_mtime_ns > newest:
            continue
        # Under another name first: a second runner never starts half a program.
        fresh = OUTPUT / f"{name}.{os.getpid()}"
        paths = [str(SOURCES / source) for source in sources]
        subprocess.run([*compiler, *FLAGS, "-o", str(fresh), *paths], check=True)
        fresh.replace(program)
    return Programs(load=OUTPUT / "load", echo=OUTPUT / "echo")
