"""Compiles the fake Xen into ``build/``, when its sources are newer than what is there."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(__file__).parents[2] / "build" / "fakexen"
SOURCES = (HERE / "fakexen.c", HERE / "fakexen.h")
FLAGS = (
    "-std=gnu11", "-O2", "-g", "-fPIC", "-shared",
    "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wsign-compare", "-Werror",
)  # fmt: skip

SONAMES = (
    "libxenevtchn.so.1",
    "libxengnttab.so.1",
    "libxenforeignmemory.so.1",
    "libxenctrl.so.4.17",
    "libxenmanage.so.1",
)
"""The libraries that it takes the place of."""


def library() -> Path:
    """The compiled library.

    Raises FileNotFoundError without gcc, CalledProcessError when it does not compile.
    """
    made = CACHE / "libfakexen.so"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(source.stat().st_mtime for source in SOURCES)
        if not made.exists() or made.stat().st_mtime < newest:
            compiler = shutil.which("gcc")
            if compiler is None:
                raise FileNotFoundError("gcc is not installed")
            fresh = made.with_suffix(".new")
            subprocess.run([compiler, *FLAGS, "-o", fresh, SOURCES[0], "-ldl"], check=True)
            os.replace(fresh, made)
    return made


def loader_path(directory: Path, omit: tuple[str, ...] = ("libxenmanage.so.1",)) -> Path:
    """Fills ``directory`` with links named by the sonames, less those in ``omit``."""
    directory.mkdir(parents=True, exist_ok=True)
    for soname in SONAMES:
        (directory / soname).unlink(missing_ok=True)
        if soname not in omit:
            (directory / soname).symlink_to(library())
    return directory
