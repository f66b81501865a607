"""Builds the C tests with sanitizers and all warnings, and runs them.

Each program works on one module of the C library beside a trivially correct twin. XSD_STEPS
sets how many random steps each takes, XSD_SEED the first of the seeds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
PROGRAMS = (
    *("tree", "watchtrie", "outq", "logs", "path", "wire", "history", "ring"),
    *("checks", "scarce"),
)
# Those whose twin can be told to be wrong: the harness must notice.
WITH_CANARY = ("tree", "watchtrie", "outq", "logs", "path", "history", "ring")
STEPS = int(os.environ.get("XSD_STEPS", "2000"))
FIRST_SEED = int(os.environ.get("XSD_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + 2)
# `make coverage` counts branches, and that only: its figures are to be those of the code.
COUNTED = os.environ.get("XSD_FLAVOUR") == "coverage"
CHECKED = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
FLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-g",
    "-fno-omit-frame-pointer",
    *(["-O0", "--coverage"] if COUNTED else CHECKED),
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wsign-compare",
    "-Werror",
    f"-I{CSRC}",
    f"-I{HERE}",
]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    # Whatever is preloaded into this process is not meant for compilers and their products.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    env["ASAN_OPTIONS"] = "detect_leaks=1"
    return subprocess.run(
        [str(part) for part in command], env=env, capture_output=True, text=True, check=False
    )


def build(*command: str | Path) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The C library, compiled once; where gcov finds the counts, if they are wanted."""
    place = tmp_path_factory.mktemp("csrc")
    if COUNTED:
        place = CSRC.parent / "build" / "coverage" / "twins"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    compiler = os.environ.get("CC") or shutil.which("cc")
    assert compiler, "there is no C compiler"
    found = []
    for source in sorted(CSRC.glob("*.c")):
        found.append(place / f"{source.stem}.o")
        build(compiler, *FLAGS, "-c", source, "-o", found[-1])
    return found


def link(objects: list[Path], name: str, *flags: str) -> Path:
    program = objects[0].parent / "_".join([name, *flags])
    compiler = os.environ.get("CC") or "cc"
    if not program.exists():
        build(compiler, *FLAGS, *flags, HERE / f"test_{name}.c", *objects, "-o", program)
    return program


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_module_and_its_twin_agree(objects: list[Path], name: str, seed: int) -> None:
    """Random work leaves both equal, also without memory; all memory is given back.

    Those without a twin say at their top what they do.
    """
    done = run(link(objects, name), str(seed), str(STEPS))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", WITH_CANARY)
def test_a_wrong_twin_is_noticed(objects: list[Path], name: str) -> None:
    """With a mistake planted in the twin the program fails, with a place and a seed."""
    done = run(link(objects, name, "-DCANARY"), "1", "2000")
    assert done.returncode == 1
    assert "(seed 1, step" in done.stderr


def test_every_module_has_a_test() -> None:
    """A module of the library that no program includes has been forgotten."""
    text = "".join((HERE / f"test_{name}.c").read_text() for name in PROGRAMS)
    reached = {"node", "proto", "dir"}  # through trie.h
    for header in CSRC.glob("*.h"):
        assert header.stem in reached or f'"{header.name}"' in text, header.name
