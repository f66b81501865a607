"""The build under test is the one that was asked for."""

from __future__ import annotations

import re
from pathlib import Path

import serving
from checkout import FLAVOUR, ROOT

import xsd.core.engine
import xsd.io.sockets

WHERE = ROOT if FLAVOUR == "release" else ROOT / "build" / FLAVOUR / "lib"


def test_modules_come_from_the_flavour() -> None:
    """Compiled modules are in place, or in the directory of the flavour."""
    for module in (xsd.core.engine, xsd.io.sockets):
        assert module.__file__ is not None
        assert Path(module.__file__).parents[2] == WHERE


def test_sanitizers_are_there_if_and_only_if_asked_for() -> None:
    """The engine's code calls the sanitizers in that flavour, and in no other."""
    assert xsd.core.engine.__file__ is not None
    code = Path(xsd.core.engine.__file__).read_bytes()
    found = {name for name in (b"__asan_report_load8", b"__ubsan_handle") if re.search(name, code)}
    expected = {b"__asan_report_load8", b"__ubsan_handle"} if FLAVOUR == "asan" else set()
    assert found == expected


def test_daemons_are_of_the_flavour(tmp_path: Path) -> None:
    """What tests start as a process of its own is the same build, sanitizers included."""
    daemon = serving.start(tmp_path)
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    daemon.stop()
    used = {line.split()[5] for line in maps.splitlines() if "/xsd/" in line and ".so" in line}
    assert [path for path in used if not path.startswith(f"{WHERE}/xsd/")] == []
    assert any("/engine." in path for path in used)
    assert ("libasan" in maps) == (FLAVOUR == "asan")
