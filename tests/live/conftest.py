"""Live daemons and the clients that others made for xenstored."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serving
from peer import Neighbour, Peer
from serving import Daemon, absent

SECONDS = 150.0  # more than the longest client runs by itself: a minute, before sanitizers

Run = Callable[..., subprocess.CompletedProcess[bytes]]
Start = Callable[..., Daemon]
Meet = Callable[[str], Neighbour]


@pytest.fixture(scope="session")
def installed() -> None:
    """Without the built program there is nothing to test."""
    if not serving.program().exists():
        absent(f"{serving.program()} is not there")


@pytest.fixture(scope="module")
def daemon(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that the tests of a module share.

    After them it must find itself consistent, and stop in good order.
    """
    running = serving.start(tmp_path_factory.mktemp("run"))
    yield running
    assert running.is_alive()
    check = subprocess.run(
        [str(serving.program()), "control", "check"],
        env=running.environ(), capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (check.returncode, check.stdout, check.stderr) == (0, b"OK\n", b"")
    running.stop()


@pytest.fixture
def start(installed: None, tmp_path: Path) -> Iterator[Start]:
    """Starts daemons that differ: ``start("--option", ...)``; each must stop in good order."""
    running: list[Daemon] = []

    def call(*arguments: str, rundir: Path | None = None, **more: object) -> Daemon:
        where = rundir or tmp_path / f"run{len(running)}"
        running.append(serving.start(where, *arguments, **more))  # type: ignore[arg-type]
        return running[-1]

    yield call
    for one in running:
        if one.process.returncode is None:
            one.stop()


@pytest.fixture
def neighbour(daemon: Daemon) -> Iterator[Neighbour]:
    """Somebody else on the shared daemon, who must not notice anything."""
    other = Neighbour(daemon.socket)
    yield other
    other.leaves()


@pytest.fixture
def meet() -> Iterator[Meet]:
    """Makes neighbours on other daemons: ``meet(path)``; a test that is done lets them leave."""
    met: list[Neighbour] = []

    def call(path: str) -> Neighbour:
        met.append(Neighbour(path))
        return met[-1]

    yield call
    for one in met:
        one.peer.close()


@pytest.fixture
def peer(daemon: Daemon) -> Iterator[Peer]:
    """A raw connection to the shared daemon."""
    with Peer(daemon.socket) as connection:
        yield connection


@pytest.fixture(scope="session")
def debian() -> Callable[[str], str]:
    """Where a program of Debian's Xen packages is: ``debian("xenstore-ls")``."""

    def find(name: str) -> str:
        for found in (*sorted(glob.glob(f"/usr/lib/xen-*/bin/{name}")), shutil.which(name)):
            # In the general directory some are wrappers that want a hypervisor.
            if found and os.access(found, os.X_OK):
                return found
        absent(f"Debian's {name} is not installed")

    return find


@pytest.fixture
def tool(debian: Callable[[str], str], daemon: Daemon) -> Run:
    """Runs one of Debian's programs on the shared daemon: ``tool("xenstore-read", "/a")``."""

    def run(name: str, *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [debian(name), *words],
            env=daemon.environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )

    return run


@pytest.fixture
def xsd() -> Run:
    """Runs our own program: ``xsd("read", "/a", environ=...)``."""

    def run(
        *words: str, environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(serving.program()), *words],
            env=environ or serving.clean_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )

    return run
