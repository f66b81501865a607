"""A live server for the tools, and ways to run them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toolrun import Result

from xsd.cli.main import main
from xsd.client.sync import Client

READY = b"xenstored is ready"
READY_SECONDS = 30.0
STOP_SECONDS = 20.0
ROOT = Path(__file__).parents[2]


def await_ready(daemon: subprocess.Popen[bytes], log: list[bytes]) -> None:
    """Read the daemon's stderr until it says that it is ready."""
    assert daemon.stderr is not None
    deadline = time.monotonic() + READY_SECONDS
    while READY not in b"".join(log):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([daemon.stderr], [], [], left)[0]:
            raise TimeoutError(f"not ready within {READY_SECONDS} s, stderr: {b''.join(log)!r}")
        data = os.read(daemon.stderr.fileno(), 65536)
        if not data:
            raise RuntimeError(f"ended with {daemon.wait()}, stderr: {b''.join(log)!r}")
        log.append(data)


@pytest.fixture(scope="session")
def xenstored_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a running server: $XSD_TEST_SOCKET, else a daemon of our own."""
    if given := os.environ.get("XSD_TEST_SOCKET"):
        yield given
        return
    program = Path(sys.executable).with_name("xsd")
    if not program.exists():
        pytest.skip(f"{program} is not built and XSD_TEST_SOCKET is not set")
    rundir = tmp_path_factory.mktemp("run")
    command = [str(program), "daemon", "--no-fork", "--no-xen", "--rundir", str(rundir)]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("XENSTORED_")}
    log: list[bytes] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environ) as daemon:
        assert daemon.stderr is not None
        # Once it is ready nobody looks at its stderr, but it must not fill up.
        drain = threading.Thread(target=daemon.stderr.read)
        try:
            await_ready(daemon, log)
            drain.start()
            yield str(rundir / "socket")
        finally:
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
            if drain.ident is not None:
                drain.join(STOP_SECONDS)


@pytest.fixture
def store(xenstored_socket: str) -> Iterator[Client]:
    """A client of the live server, which leaves nothing below /t behind."""
    with Client.connect(xenstored_socket, timeout=60) as client:
        client.rm("/t")
        yield client
        client.rm("/t")


@pytest.fixture
def run(
    store: Client,
    xenstored_socket: str,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Callable[..., Result]:
    """Run the program in this process: ``run("xsd", "read", "/t/a")``."""
    monkeypatch.setenv("XENSTORED_PATH", xenstored_socket)

    def call(*words: str) -> Result:
        capfdbinary.readouterr()
        status = main(words)
        out, err = capfdbinary.readouterr()
        return Result(status, out, err.decode())

    return call


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the program under each of its names, as separate processes need it."""
    where = tmp_path_factory.mktemp("bin")
    script = where / "xsd"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from xsd.cli.main import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    for tool in ("read", "write", "rm", "exists", "list", "ls", "chmod", "watch", "control"):
        (where / f"xenstore-{tool}").symlink_to(script)
    (where / "xenstore").symlink_to(script)
    return where
