"""The fuzz targets hold for all that fuzzing has taught so far, and find what is planted.

The inputs in tests/corpus/fuzz run through each target: those in C as programs of their own,
with sanitizers and whatever compiler there is; those around the engine on the engine that this
run tests. With clang, each target must find a planted bug within a bounded number of
executions. To look for real ones: make fuzz.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from serving import absent

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORPUS = ROOT / "tests" / "corpus" / "fuzz"
RUN = HERE / "run.py"

# Executions within which the planted bug is found; what it takes is a tenth or less.
BOUNDS = {
    "requests": 60_000,
    "ring": 60_000,
    "paths": 3_000_000,
    "perms": 3_000_000,
    "tree": 300_000,
    "watches": 300_000,
    "outq": 600_000,
    "logs": 300_000,
    "history": 300_000,
    "config": 600_000,
}


def module(name: str, path: Path) -> Any:
    """A module that is no part of any package, loaded once."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


builder = module("builder", HERE / "builder.py")
C_TARGETS = [name for name, target in builder.TARGETS.items() if not target.module]
ENGINE_TARGETS = [name for name, target in builder.TARGETS.items() if target.module]
NAMES = [*builder.TARGETS, "config"]


def inputs(name: str) -> list[Path]:
    found = sorted((CORPUS / name).iterdir())
    assert found, f"the corpus of {name} is empty"
    return found


def compiler() -> str:
    found = os.environ.get("CC") or shutil.which("cc")
    assert found, "there is no C compiler"
    return found


@pytest.mark.parametrize("name", C_TARGETS)
def test_the_corpus_holds_in_c(name: str) -> None:
    """No input that fuzzing has kept makes a module of the C library and its twin disagree."""
    program = builder.build_replay(name, compiler())
    env = {key: text for key, text in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(
        [program, *inputs(name)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="session")
def engine_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's targets as plain modules, beside the compiled modules of this run."""
    place = tmp_path_factory.mktemp("fuzz")
    sources = builder.translate(["fuzz_requests", "fuzz_ring"])
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for name, source in sources.items():
        builder.run(
            [
                compiler(),
                *("-shared", "-fPIC", "-O1", "-w", "-D_GNU_SOURCE", f"-I{ROOT / 'csrc'}"),
                f"-I{sysconfig.get_path('include')}",
                source,
                *("-o", place / f"{name}{suffix}"),
            ]
        )
    return place


@pytest.mark.parametrize("name", ENGINE_TARGETS)
def test_the_corpus_holds_in_the_engine(
    name: str, engine_modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that must hold after any events holds after those that fuzzing has kept."""
    monkeypatch.syspath_prepend(engine_modules)
    target = importlib.import_module(builder.TARGETS[name].module)
    for path in inputs(name):
        try:
            target.run(path.read_bytes())
        except Exception as failure:
            raise AssertionError(f"input {path.name}") from failure


def test_the_corpus_holds_for_configuration_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text makes a reader of configuration files fail, or accept what it cannot write."""
    monkeypatch.delenv("XSD_FUZZ_CANARY", raising=False)
    one = module("fuzz_config", HERE / "config.py").load()
    for path in inputs("config"):
        one(path.read_bytes())


def test_the_corpus_is_small_and_named_by_content() -> None:
    """The inputs are the least that reach what is reached, each under its SHA-1."""
    hashlib = importlib.import_module("hashlib")
    files = [path for name in NAMES for path in inputs(name)]
    assert sum(path.stat().st_size for path in files) < 2 << 20
    wrong = [
        path
        for path in files
        if hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest() != path.name
    ]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_planted_bug_is_found(name: str) -> None:
    """With a bug in what it tests each target fails within a bounded number of executions, and
    what it found is harmless without the bug."""
    shutil.rmtree(ROOT / "build" / "fuzz" / "corpus-canary" / name, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, RUN, "fuzz", name, "600", f"-runs={BOUNDS[name]}", "-seed=1"],
        env=os.environ | {"XSD_FUZZ_CANARY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if re.search(r"^fuzzing .* needs ", done.stderr, re.MULTILINE):
        absent(done.stderr.strip())
    units = re.findall(r"Test unit written to (\S+)", done.stdout)
    assert done.returncode != 0 and len(units) == 1, done.stdout + done.stderr
    env = {key: text for key, text in os.environ.items() if key != "XSD_FUZZ_CANARY"}
    again = subprocess.run(
        [sys.executable, RUN, "replay", name, units[0]],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
