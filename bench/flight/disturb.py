"""Disturbances made on purpose: a slowdown of our daemon alone, and a load that slows everything.

Both stand outside of the daemon. The slowdown is a library that is preloaded by a script which
stands in for the program; the load is a process of its own.
"""

import contextlib
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.build import FLAGS, OUTPUT, SOURCES

HERE = SOURCES / "flight"


def _compile(name: str, source: str, *more: str) -> Path:
    target, path = OUTPUT / name, HERE / source
    if not target.exists() or target.stat().st_mtime_ns <= path.stat().st_mtime_ns:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", *FLAGS, *more, "-o", str(target), str(path), "-ldl"], check=True)
    return target


def slowed(program: Path, percent: int) -> Path:
    """A program like `program` whose event loop burns `percent` more CPU time.

    Raises CalledProcessError when the library does not compile.
    """
    library = _compile("plant.so", "plant.c", "-shared", "-fPIC")
    script = OUTPUT / f"slowed-{percent}"
    preload = f'LD_PRELOAD="$LD_PRELOAD "{shlex.quote(str(library))}'
    command = f'env BENCH_PLANT_PERCENT={percent} {preload} {shlex.quote(str(program))} "$@"'
    script.write_text(f"#!/bin/sh\nexec {command}\n")
    script.chmod(0o755)
    return script


@contextlib.contextmanager
def background_load(cpus: Iterable[int]) -> Iterator[None]:
    """Half of each of `cpus` is taken away meanwhile, and all caches are cold again and again."""
    program = _compile("burn", "burn.c")
    with contextlib.ExitStack() as undo:
        for cpu in cpus:
            process = undo.enter_context(subprocess.Popen([str(program), str(cpu)]))
            undo.callback(process.kill)
        yield
