"""The pid file: who holds it, and that it goes with its holder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xsd.daemon import pidfile
from xsd.daemon.pidfile import AnotherRunsError

ROOT = Path(pidfile.__file__).parents[2]

HOLDER = """
import sys
from xsd.daemon import pidfile
held = pidfile.acquire(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
if sys.argv[2] == "release":
    held.release()
"""


@contextmanager
def holder(path: Path, end: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the file, until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), end],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.communicate(timeout=60)


def test_content_and_mode(tmp_path: Path) -> None:
    """The pid and a newline, for the owner only; the directory is made; gone after release."""
    path = tmp_path / "run" / "x.pid"
    held = pidfile.acquire(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o755
    held.release()
    held.release()
    assert not path.exists()


def test_second_instance(tmp_path: Path) -> None:
    """While one process holds the file, another one is refused by name and changes nothing."""
    path = tmp_path / "x.pid"
    with holder(path, "release") as first:
        with pytest.raises(AnotherRunsError) as caught:
            pidfile.acquire(str(path))
        assert str(caught.value) == (
            f"another xenstored (pid {first.pid}) is running: it holds {path}"
        )
        assert path.read_text() == f"{first.pid}\n"
    assert not path.exists()


def test_stale_file(tmp_path: Path) -> None:
    """What a process left behind that ended without a word is taken over."""
    path = tmp_path / "x.pid"
    with holder(path, "crash") as first:
        pass
    assert path.read_text() == f"{first.pid}\n"
    held = pidfile.acquire(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    held.release()


def test_longer_old_content(tmp_path: Path) -> None:
    """Nothing of the old content stays."""
    path = tmp_path / "x.pid"
    path.write_text("123456789012\nmore\n")
    held = pidfile.acquire(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    held.release()


def test_only_our_own_file_is_removed(tmp_path: Path) -> None:
    """If somebody put another file there meanwhile, it stays."""
    path = tmp_path / "x.pid"
    held = pidfile.acquire(str(path))
    path.unlink()
    path.write_text("other")
    held.release()
    assert path.read_text() == "other"


def test_link_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link could lead to any file: it is refused."""
    target, path = tmp_path / "target", tmp_path / "x.pid"
    target.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        pidfile.acquire(str(path))
    assert target.read_text() == "precious"
