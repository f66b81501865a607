"""Builds the fuzz targets: with clang and libFuzzer to find something, with any compiler to
replay what was found.

    target    what is linked                                      entry
    paths ..  csrc, one program in C with its twin                paths.c ...
    requests  csrc, the core, an interpreter                      engine.c, fuzz_requests.pyx
    ring      the same and the ring code with a hostile other     engine.c, fuzz_ring.pyx

Everything goes to build/fuzz and is built anew only if something it is made of has changed.
What is fuzzed is instrumented for coverage, what judges it is not.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUT = ROOT / "build" / "fuzz"
JOBS = min(2, os.cpu_count() or 1)

COMMON = ("-std=gnu11", "-D_GNU_SOURCE", "-g1", "-fno-omit-frame-pointer", f"-I{ROOT / 'csrc'}")
CHECKED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
FUZZED = ("-fsanitize=fuzzer-no-link,address,undefined", "-fno-sanitize-recover=undefined")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function")


class MissingError(Exception):
    """Something of the system is not there; the text says what to install."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A bug to be planted: in ``file``, ``right`` becomes ``wrong``."""

    file: str
    right: str
    wrong: str


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to fuzz; ``module`` is empty for those that are all C."""

    name: str
    max_len: int
    canary: Canary
    module: str = ""
    dictionary: str = ""


TARGETS = {
    target.name: target
    for target in (
        Target(
            "requests",
            400,
            Canary(
                "csrc/pathset.c",
                "padded(sizeof(struct xs_oprec) + path_len + data_len);",
                "padded(sizeof(struct xs_oprec) + path_len);",
            ),
            module="fuzz_requests",
            dictionary="protocol.dict",
        ),
        Target(
            "ring",
            400,
            Canary("csrc/ring.c", "ready > XS_RING_SIZE", "ready > 64 * XS_RING_SIZE"),
            module="fuzz_ring",
            dictionary="protocol.dict",
        ),
        Target(
            "paths",
            256,
            Canary("csrc/path.c", "prev == SLASH && n > 1", "prev == SLASH && n > 2"),
            dictionary="protocol.dict",
        ),
        Target(
            "perms",
            256,
            Canary("csrc/perms.c", "if (digit >= base)", "if (digit > base)"),
            dictionary="protocol.dict",
        ),
        Target(
            "tree",
            512,
            Canary(
                "csrc/trie.c",
                "(!kids || a->kids_stamp == b->kids_stamp)",
                "(kids || a->kids_stamp == b->kids_stamp)",
            ),
        ),
        Target("watches", 512, Canary("csrc/watchtrie.c", "p->last = x;", "p->last = p->first;")),
        Target(
            "outq",
            512,
            Canary(
                "csrc/outq.c",
                "oldest = q->number + q->first + (q->partial > 0);",
                "oldest = q->number + q->first;",
            ),
        ),
        Target("logs", 256, Canary("csrc/pathset.c", "->flags |= ", "->flags = ")),
        Target("history", 256, Canary("csrc/history.c", ".stamp < stamp)", ".stamp <= stamp)")),
    )
}


def run(command: Sequence[str | Path]) -> None:
    """Runs a compiler. Raises RuntimeError with all it said."""
    # What is preloaded into this process is not meant for compilers.
    env = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [str(part) for part in command], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")


@contextmanager
def alone() -> Iterator[None]:
    """Nobody else builds meanwhile."""
    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clang() -> str:
    """The compiler that has libFuzzer. Raises MissingError."""
    found = shutil.which(os.environ.get("XSD_CLANG", "clang"))
    advice = "fuzzing needs clang with libFuzzer: apt-get install clang libclang-rt-14-dev"
    if found is None:
        raise MissingError(advice)
    probe = OUT / "probe"
    probe.with_suffix(".c").write_text(
        "int LLVMFuzzerTestOneInput(const char *p, unsigned long n);\n"
        "int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n > 9 && 0; }\n"
    )
    if not probe.exists():
        try:
            run([found, "-fsanitize=fuzzer,address", probe.with_suffix(".c"), "-o", probe])
        except RuntimeError as failure:
            raise MissingError(advice) from failure
    return found


@dataclass(frozen=True, slots=True)
class Unit:
    """One source to compile: with what flags, to what object."""

    source: Path
    flags: tuple[str, ...]
    object: Path


def stale(result: Path, parts: Sequence[Path]) -> bool:
    if not result.exists():
        return True
    when = result.stat().st_mtime_ns
    return any(part.stat().st_mtime_ns > when for part in parts)


def compile_all(compiler: str, units: Sequence[Unit]) -> None:
    """Compiles what is older than its source, any header, or this file."""
    headers = [*(ROOT / "csrc").glob("*.h"), *HERE.glob("*.h"), Path(__file__)]
    headers += (ROOT / "tests/csrc").glob("*.c")

    def one(unit: Unit) -> None:
        if stale(unit.object, [unit.source, *headers]):
            unit.object.parent.mkdir(parents=True, exist_ok=True)
            run([compiler, *COMMON, *unit.flags, "-c", unit.source, "-o", unit.object])

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(one, units))


def planted(target: Target) -> tuple[Path, Path]:
    """The source that the canary changes, and its copy with the bug. Raises ValueError."""
    canary = target.canary
    source = ROOT / canary.file
    text = source.read_text()
    if text.count(canary.right) != 1:
        raise ValueError(f"{canary.file}: {canary.right!r} stands there not once")
    copy = OUT / "canary" / target.name / source.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    changed = f'#line 1 "{source}"\n' + text.replace(canary.right, canary.wrong)
    if not copy.exists() or copy.read_text() != changed:
        copy.write_text(changed)
    return source, copy


def library(flags: tuple[str, ...], place: Path, target: Target, canary: bool) -> list[Unit]:
    """The C library as units; with a planted bug in one of them if asked for."""
    found = []
    source, copy = planted(target) if canary else (None, None)
    for path in sorted((ROOT / "csrc").glob("*.c")):
        extra: tuple[str, ...] = ()
        where = place / "csrc"
        if target.module == "fuzz_ring" and path.name == "ring.c":
            extra = ("-include", str(HERE / "between.h"))
            where = place / "between"
        if path == source and copy is not None:
            found.append(Unit(copy, flags + extra, copy.with_suffix(".o")))
        else:
            found.append(Unit(path, flags + extra, where / f"{path.stem}.o"))
    return found


def core_modules() -> dict[str, Path]:
    """Every compiled module that takes part, by name."""
    paths = [*(ROOT / "xsd/core").glob("*.pyx")]
    paths += [ROOT / "xsd/io/rings.pyx", ROOT / "xsd/io/turn.pyx"]
    found = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(paths)}
    found |= {p.stem: p for p in sorted(HERE.glob("*.pyx"))}
    return found


def translate(names: Sequence[str]) -> dict[str, Path]:
    """Has Cython make C of modules; returns where it is."""
    extension: Any = importlib.import_module("setuptools").Extension
    cythonize: Any = importlib.import_module("Cython.Build").cythonize
    modules = core_modules()
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        made = cythonize(
            [extension(name, [str(modules[name].relative_to(ROOT))]) for name in names],
            build_dir=str(OUT / "cython"),
            compiler_directives={"language_level": "3"},
            quiet=True,
        )
    finally:
        os.chdir(before)
    return {module.name: ROOT / module.sources[0] for module in made}


def embedding() -> list[str]:
    """What links an interpreter like this one into a program. Raises MissingError."""
    library_dir = sysconfig.get_config_var("LIBDIR")
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not any(Path(library_dir).glob(f"**/lib{name}.so")):
        raise MissingError(f"fuzzing the engine needs lib{name}.so: apt-get install lib{name}-dev")
    return [f"-L{library_dir}", f"-Wl,-rpath,{library_dir}", f"-l{name}", "-lm", "-ldl"]


def build(name: str, canary: bool = False) -> Path:
    """Builds a target with libFuzzer; returns the program. Raises MissingError."""
    target = TARGETS[name]
    with alone():
        compiler = clang()
        program = OUT / ("canary" if canary else "bin") / f"fuzz-{name}"
        program.parent.mkdir(parents=True, exist_ok=True)
        place = OUT / "obj"
        units = library((*FUZZED, "-O2", *WARNINGS), place, target, canary)
        link: list[str] = []
        if target.module:
            units += engine_units(target, place)
            link = [*embedding(), "-rdynamic"]
        else:
            flags = (*CHECKED, "-O2", *WARNINGS)
            units.append(Unit(HERE / f"{name}.c", flags, place / f"{name}.o"))
        compile_all(compiler, units)
        objects = [unit.object for unit in units]
        if stale(program, objects):
            run([compiler, "-fsanitize=fuzzer,address,undefined", *objects, *link, "-o", program])
        return program


def engine_units(target: Target, place: Path) -> list[Unit]:
    """The core, the ring code and the target's module as units, and what starts them."""
    include = f"-I{sysconfig.get_path('include')}"
    # What Cython compares are mostly pointers with NULL: no hints for inputs, but a fifth of the
    # time. What csrc compares is told to the fuzzer.
    flags = (include, "-O1", "-w", "-fwrapv", "-fno-sanitize-coverage=trace-cmp,indirect-calls")
    modules = core_modules()
    sources = translate(list(modules))
    units = []
    for name, source in sources.items():
        how = CHECKED if name.startswith("fuzz_") or name == "xsd.core.state" else FUZZED
        extra = ("-include", str(HERE / "spare.h")) if name == "xsd.core.engine" else ()
        units.append(Unit(source, (*how, *flags, *extra), place / "cython" / f"{name}.o"))
    header = place / "modules.h"
    lines = [f'MODULE("{name}", PyInit_{name.split(".")[-1]})\n' for name in sources]
    if not header.exists() or header.read_text() != "".join(lines):
        place.mkdir(parents=True, exist_ok=True)
        header.write_text("".join(lines))
    defines = (
        f"-DFUZZ_MODULE={target.module}",
        f"-DFUZZ_ROOT={ROOT}",
        f"-DFUZZ_PYTHON={sys.base_prefix}",
        f"-I{place}",
    )
    start = Unit(HERE / "engine.c", (*CHECKED, *flags, *defines), place / f"{target.name}.o")
    return [*units, start]


def build_coverage(name: str) -> Path:
    """Builds a target that counts what is reached, for the tools of llvm, and checks nothing."""
    target = TARGETS[name]
    counted = ("-fprofile-instr-generate", "-fcoverage-mapping", "-O1")
    with alone():
        compiler = clang()
        place = OUT / "coverage"
        units = library((*counted, *WARNINGS), place, target, False)
        link: list[str] = []
        if target.module:
            for unit in engine_units(target, place):
                flags = tuple(f for f in unit.flags if "sanitize" not in f)
                flags += counted if unit.source.is_relative_to(OUT / "cython" / "xsd") else ()
                units.append(Unit(unit.source, flags, unit.object))
            link = [*embedding(), "-rdynamic"]
        else:
            units.append(Unit(HERE / f"{name}.c", ("-O1", *WARNINGS), place / f"{name}.o"))
        compile_all(compiler, units)
        program = place / f"coverage-{name}"
        objects = [unit.object for unit in units]
        if stale(program, objects):
            run([compiler, "-fsanitize=fuzzer", *counted, *objects, *link, "-o", program])
        return program


def build_replay(name: str, compiler: str) -> Path:
    """Builds a target that is all C as a program that runs the files it is given."""
    target = TARGETS[name]
    with alone():
        place = OUT / "replay"
        flags = (*CHECKED, "-O1", *WARNINGS)
        units = library(flags, place, target, False)
        units += [
            Unit(HERE / file, flags, place / f"{Path(file).stem}.o")
            for file in (f"{name}.c", "replay.c")
        ]
        compile_all(compiler, units)
        program = place / f"replay-{name}"
        objects = [unit.object for unit in units]
        if stale(program, objects):
            run([compiler, *CHECKED, *objects, "-o", program])
        return program
