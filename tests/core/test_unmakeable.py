"""What no request can bring about: an engine for which there is no memory, and wrong figures."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from world import OK, EngineWorld

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# Engines are made with one allocation failing after the other, until none does.
MAKE = """
import ctypes, sys
from xsd.core.engine import Engine
let_fail = ctypes.CDLL(sys.argv[1]).let_fail
first = Engine().state_hash()
for nth in range(1, 1000):
    let_fail(nth)
    try:
        engine = Engine()
    except MemoryError:
        let_fail(0)
        continue
    let_fail(0)
    engine.check()
    assert engine.state_hash() == Engine().state_hash() == first
    if engine.memory()["failures"] == 0:
        break
print(nth - 1)
"""


def compile_c(source: Path, into: Path, *flags: str) -> Path:
    """A shared object that can be loaded beside the modules under test."""
    command = ["gcc", "-shared", "-fPIC", "-O0", "-w", "-D_GNU_SOURCE", *flags]
    # Whatever is preloaded into this process is not meant for compilers.
    env = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run([*command, str(source), "-o", str(into)], env=env, check=True)
    return into


@pytest.mark.skipif(os.environ.get("XSD_FLAVOUR") == "asan", reason="sanitizers have a malloc")
def test_an_engine_without_memory_is_a_memory_error(tmp_path: Path) -> None:
    """Whichever allocation fails: what was made goes again, and the next engine is as any."""
    shim = compile_c(HERE / "scarce_malloc.c", tmp_path / "scarce.so", "-ldl")
    done = subprocess.run(
        [sys.executable, "-P", "-c", MAKE, str(shim)],
        env=os.environ | {"LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 20


@pytest.fixture(scope="module")
def breaker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module that makes figures wrong."""
    place = tmp_path_factory.mktemp("breaker")
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", "-I", ".", "tests/core/breaker.pyx", "-o",
         str(place / "breaker.c")],
        cwd=ROOT, check=True,
    )  # fmt: skip
    module = compile_c(
        place / "breaker.c",
        place / f"breaker{sysconfig.get_config_var('EXT_SUFFIX')}",
        f"-I{ROOT / 'csrc'}",
        f"-I{sysconfig.get_path('include')}",
    )
    spec = importlib.util.spec_from_file_location("breaker", module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


FIGURES = {
    "nodes": "node counts of a domain",
    "node bytes": "node counts of a domain",
    "watches": "watch figures of a domain",
    "watch bytes": "watch figures of a domain",
    "transactions": "transaction figures of a domain",
    "transaction bytes": "transaction figures of a domain",
    "queued": "queued bytes of a domain",
    "watches of a connection": "watch count of a connection",
    "watches of all": "the watch indexes",
    "owner": "a watch is on the list of another connection",
}


@pytest.mark.slow
@pytest.mark.parametrize("figure", FIGURES)
def test_the_check_finds_a_wrong_figure(breaker: Any, figure: str) -> None:
    """Of each kind, by its name; and nothing is wrong before and after."""
    world = EngineWorld()
    engine, one, two = world.engine, world.socket(), world.socket()
    first, second = one.link.cid, two.link.cid  # type: ignore[attr-defined]
    assert one.watch(b"/a", b"token") == OK
    assert one.write(b"/a/b", b"v") == OK
    tx = one.start()
    assert one.read(b"/a/b", tx) == b"v"
    engine.check()
    breaker.add(engine, figure, first, second, 1)
    with pytest.raises(AssertionError, match=FIGURES[figure]):
        engine.check()
    breaker.add(engine, figure, first, second, -1)
    engine.check()
