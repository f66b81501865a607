"""Sinks keep whole lines or say how many they lost."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xsd.daemon import sinks
from xsd.daemon.sinks import FileSink, LinesLostError, SyslogSink

ROOT = Path(sinks.__file__).parents[2]


def lines(*numbers: int) -> list[bytes]:
    """Lines that can be told apart."""
    return [b"line %d\n" % number for number in numbers]


def contents(path: Path) -> dict[str, bytes]:
    """The log's files by name, with their numbers."""
    return {
        file.name: b"".join(file.read_bytes().splitlines()).replace(b"line ", b"")
        for file in sorted(path.parent.iterdir())
    }


def test_appends_and_keeps_to_the_administrator(tmp_path: Path) -> None:
    """What was there stays, a new file is for its owner only."""
    path = tmp_path / "log"
    sink = FileSink(str(path))
    sink.write(lines(1))
    sink.close()
    sink = FileSink(str(path))
    sink.write(lines(2, 3))
    sink.close()
    assert path.read_bytes() == b"line 1\nline 2\nline 3\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("max_files", "expected"),
    [
        (1, {"log": b"7"}),
        (2, {"log": b"7", "log.1": b"56"}),
        (3, {"log": b"7", "log.1": b"56", "log.2": b"34"}),
        (9, {"log": b"7", "log.1": b"56", "log.2": b"34", "log.3": b"12"}),
    ],
)
def test_rotation(tmp_path: Path, max_files: int, expected: dict[str, bytes]) -> None:
    """No file has more lines than allowed, there are no more files than allowed."""
    path = tmp_path / "log"
    sink = FileSink(str(path), 2, max_files)
    sink.write(lines(1, 2, 3, 4, 5))
    sink.write(lines(6))
    sink.write(lines(7))
    sink.close()
    assert contents(path) == expected


def test_reopen_follows_the_name(tmp_path: Path) -> None:
    """After the file was moved away, reopen makes a new one."""
    path = tmp_path / "log"
    sink = FileSink(str(path), 3, 2)
    sink.write(lines(1))
    path.rename(tmp_path / "old")
    sink.write(lines(2))
    sink.reopen()
    sink.write(lines(3, 4))
    sink.close()
    assert contents(path) == {"log": b"34", "old": b"12"}


def test_reopen_of_the_same_file_keeps_the_count(tmp_path: Path) -> None:
    """A reopen without a new file does not put off the rotation."""
    path = tmp_path / "log"
    sink = FileSink(str(path), 2, 2)
    sink.write(lines(1))
    sink.reopen()
    sink.write(lines(2, 3))
    sink.close()
    assert contents(path) == {"log": b"3", "log.1": b"12"}


def test_a_file_that_cannot_be_opened_again_is_kept(tmp_path: Path) -> None:
    """Lines go on into the old one, and into a new one as soon as that can be made."""
    where = tmp_path / "logs"
    where.mkdir()
    sink = FileSink(str(where / "log"), 3, 2)
    sink.write(lines(1))
    where.rename(tmp_path / "moved")
    assert "No such file" in sink.reopen()
    sink.write(lines(2, 3))
    sink.write(lines(4))
    assert contents(tmp_path / "moved" / "log") == {"log": b"1234"}
    where.mkdir()
    sink.write(lines(5))
    sink.close()
    assert contents(where / "log") == {"log": b"5"}


def test_hand_over(tmp_path: Path) -> None:
    """A file of the own user's stays, a device or a FIFO too; a link is refused."""
    path = tmp_path / "log"
    sink = FileSink(str(path))
    uid = os.getuid()
    sink.hand_over(uid, os.getgid())
    assert path.stat().st_uid == uid
    os.link(path, tmp_path / "other")
    with pytest.raises(PermissionError, match="a link, or a file of somebody else"):
        sink.hand_over(uid + 1, os.getgid())
    sink.close()
    null = FileSink(os.devnull)
    null.hand_over(uid + 1, os.getgid())
    assert os.stat(os.devnull).st_uid == 0
    null.close()


def test_cannot_be_opened(tmp_path: Path) -> None:
    """A file that cannot be made is an error at once, a FIFO nobody reads too."""
    with pytest.raises(FileNotFoundError):
        FileSink(str(tmp_path / "no" / "log"))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="No such device"):
        FileSink(str(fifo))


def test_full_disk() -> None:
    """A disk that takes nothing loses every line and is never renamed."""
    sink = FileSink("/dev/full", 2, 2)
    for _ in range(3):
        with pytest.raises(LinesLostError, match="No space left on device") as caught:
            sink.write(lines(1, 2, 3))
        assert caught.value.lost == 3
    sink.close()
    assert not os.path.exists("/dev/full.1")


FULL_IN_THE_MIDDLE = """
import resource, signal, sys
from xsd.daemon.sinks import FileSink, LinesLostError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = FileSink(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (17, 1000))
try:
    sink.write([b"line 1\\n", b"line 2\\n", b"line 3\\n", b"line 4\\n"])
except LinesLostError as loss:
    print(loss.lost, end="")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sink.write([b"line 5\\n"])
"""


def test_full_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """No half line stays behind, and the number of lost lines is exact."""
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", FULL_IN_THE_MIDDLE, str(path)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "2"
    assert path.read_bytes() == b"line 1\nline 2\nline 5\n"


def test_rotation_that_is_not_possible_loses_nothing(tmp_path: Path) -> None:
    """If the older name is taken by something, lines go on where they went."""
    path = tmp_path / "log"
    (tmp_path / "log.1").mkdir()
    (tmp_path / "log.1" / "x").touch()
    sink = FileSink(str(path), 1, 2)
    sink.write(lines(1, 2, 3))
    sink.close()
    assert path.read_bytes() == b"line 1\nline 2\nline 3\n"


@pytest.fixture
def syslogd(tmp_path: Path) -> socket.socket:
    """A socket where a syslog daemon would listen."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(tmp_path / "syslog"))
    server.settimeout(10)
    return server


def test_syslog(tmp_path: Path, syslogd: socket.socket) -> None:
    """One message per line, with facility and severity in front."""
    sink = SyslogSink("syslog:local0", 6, str(tmp_path / "syslog"))
    sink.write([b"one\n", b"two\n"])
    sink.write_as([b"three\n"], 3)
    head = b"xenstored[%d]: " % os.getpid()
    got = [syslogd.recv(100) for _ in range(3)]
    assert got == [b"<134>" + head + b"one", b"<134>" + head + b"two", b"<131>" + head + b"three"]
    sink.close()
    syslogd.close()


def test_syslog_comes_and_goes(tmp_path: Path, syslogd: socket.socket) -> None:
    """Without a syslog daemon lines are lost; with a new one they arrive again."""
    path = tmp_path / "syslog"
    sink = SyslogSink("syslog:daemon", 6, str(path))
    sink.write([b"one\n"])
    assert syslogd.recv(100).endswith(b"one")
    syslogd.close()
    with pytest.raises(LinesLostError) as caught:
        sink.write([b"two\n", b"three\n"])
    assert caught.value.lost == 2
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(str(path))
        again.settimeout(10)
        sink.write([b"four\n"])
        assert again.recv(100).endswith(b"four")
    sink.close()


def test_syslog_is_never_waited_for(tmp_path: Path, syslogd: socket.socket) -> None:
    """A syslog daemon that does not read loses lines instead of stopping us."""
    sink = SyslogSink("syslog:daemon", 6, str(tmp_path / "syslog"))
    with pytest.raises(LinesLostError):
        sink.write([b"x" * 1000 + b"\n"] * 10_000)
    sink.close()
    syslogd.close()


def test_hand_over_refuses_what_a_link_led_to(tmp_path: Path) -> None:
    """Root opens whatever a name leads to; a user who may put a link there must not get it."""
    path = tmp_path / "log"
    path.symlink_to(os.devnull)
    sink = FileSink(str(path))
    with pytest.raises(PermissionError, match="a link, or a file of somebody else"):
        sink.hand_over(os.getuid() + 1, os.getgid())
    sink.close()


def test_lines_for_a_file_without_a_name_count_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one file a rotation leaves none; if none can be made the lines are lost, and told."""
    path = tmp_path / "log"
    sink = FileSink(str(path), 1, 1)
    sink.write([b"rotated away\n"])

    def full(path: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    with monkeypatch.context() as patched:
        patched.setattr(sinks, "open_append", full)
        with pytest.raises(LinesLostError) as told:
            sink.write([b"nowhere\n"])
        assert told.value.lost == 1
    sink.write([b"afterwards\n"])
    sink.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away, which only root can")
def test_a_link_in_a_directory_of_somebody_else_is_not_followed(tmp_path: Path) -> None:
    """Root makes no file where somebody else's link leads; links of root are as good as files."""
    theirs, ours, target = tmp_path / "theirs", tmp_path / "ours", tmp_path / "target"
    for directory in (theirs, ours):
        directory.mkdir()
        (directory / "log").symlink_to(target)
    os.chown(theirs, 65534, 65534)
    with pytest.raises(PermissionError, match="a link, or a file of somebody else"):
        FileSink(str(theirs / "log"))
    assert not target.exists()
    FileSink(str(ours / "log")).close()
    assert target.exists()
