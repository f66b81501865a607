"""The listening socket: made safely, refused clearly, removed only when ours."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from xsd.io import listener
from xsd.io.listener import Listener, ListenError


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the socket is to be."""
    return str(tmp_path / "run" / "socket")


@pytest.fixture
def listening(path: str) -> Iterator[Listener]:
    """A socket that listens."""
    made = listener.listen(path)
    yield made
    made.close()


def test_listens(listening: Listener, path: str) -> None:
    """Clients can connect; the socket does not block; modes are as they should be."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        accepted, _ = listening.sock.accept()
        accepted.close()
    with pytest.raises(BlockingIOError):
        listening.sock.accept()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o755
    assert not os.get_inheritable(listening.fileno())


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(path: str, umask: int) -> None:
    """The socket is 0600 and its directory 0755 whatever was set."""
    before = os.umask(umask)
    try:
        made = listener.listen(path)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(os.stat(name).st_mode) for name in (path, os.path.dirname(path))]
    made.close()
    assert modes == [0o600, 0o755]


def test_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    """Only a directory we make gets our mode."""
    tmp_path.chmod(0o700)
    listener.listen(str(tmp_path / "socket")).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_backlog(path: str) -> None:
    """As many clients as the backlog says wait without being accepted."""
    made = listener.listen(path, backlog=3)
    clients = []
    waiting = 0
    for _ in range(20):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        clients.append(client)
        waiting += client.connect_ex(path) == 0
    for client in clients:
        client.close()
    made.close()
    # The kernel lets one more wait than asked for.
    assert waiting == 4


def test_live_socket(listening: Listener, path: str) -> None:
    """Where a daemon answers no second one starts, and the first one is not disturbed."""
    with pytest.raises(ListenError, match="another daemon answers there") as caught:
        listener.listen(path)
    assert str(caught.value).startswith(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_live_socket_with_a_full_queue(path: str) -> None:
    """A daemon too busy to accept is alive, too."""
    made = listener.listen(path, backlog=1)
    clients = []
    for _ in range(5):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        client.connect_ex(path)
        clients.append(client)
    with pytest.raises(ListenError, match="another daemon answers there"):
        listener.listen(path)
    for client in clients:
        client.close()
    made.close()


def test_stale_socket(path: str) -> None:
    """What a dead daemon left behind is replaced."""
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    assert os.path.exists(path)
    made = listener.listen(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    made.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_something_else(path: str, kind: str) -> None:
    """What is no socket is not removed."""
    os.makedirs(os.path.dirname(path))
    if kind == "file":
        Path(path).write_text("precious")
    elif kind == "directory":
        os.mkdir(path)
    else:
        os.symlink("/nonexistent", path)
    with pytest.raises(ListenError, match="exists and is not a socket"):
        listener.listen(path)
    assert os.path.lexists(path)


def test_datagram_socket(path: str) -> None:
    """A socket of another sort belongs to somebody else."""
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(ListenError, match="cannot tell whether it is in use"):
            listener.listen(path)
    assert os.path.exists(path)


def test_path_too_long(tmp_path: Path) -> None:
    """The longest possible path works, one byte more is refused with both numbers."""
    room = 107 - len(str(tmp_path)) - 1
    assert room > 0
    longest = str(tmp_path / ("s" * room))
    listener.listen(longest).close()
    with pytest.raises(ListenError, match="the path has 108 bytes, a socket's can have 107"):
        listener.listen(longest + "s")


def test_directory_cannot_be_made(tmp_path: Path) -> None:
    """The reason is told."""
    (tmp_path / "file").touch()
    with pytest.raises(ListenError, match=r"cannot be made: (Not a directory|File exists)"):
        listener.listen(str(tmp_path / "file" / "socket"))


def test_close_removes_only_our_own(path: str) -> None:
    """A socket that another daemon made meanwhile stays."""
    first = listener.listen(path)
    os.unlink(path)
    second = listener.listen(path)
    first.close()
    assert os.path.exists(path)
    second.close()
    assert not os.path.exists(path)
    second.close()
