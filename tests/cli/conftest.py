"""A live server for the tools, and ways to run them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serving
from toolrun import Result

from xsd.cli.main import main
from xsd.client.sync import Client

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def xenstored_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a running server: $XSD_TEST_SOCKET, else a daemon of our own."""
    if given := os.environ.get("XSD_TEST_SOCKET"):
        yield given
        return
    if not serving.program().exists():
        serving.absent(f"{serving.program()} is not built and XSD_TEST_SOCKET is not set")
    daemon = serving.start(tmp_path_factory.mktemp("run"))
    yield daemon.socket
    daemon.stop()


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
