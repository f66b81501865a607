"""The logs of a running daemon: what they say, full disks, reopening."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import serving
from peer import Neighbour, Peer
from serving import Daemon

from xsd.client.wire import Op

OK = b"OK\0"
Meet = Callable[[str], Neighbour]
Start = Callable[..., Daemon]


def await_lines(path: Path, wanted: str, peer: Peer) -> str:
    """The text of a log once ``wanted`` is in it; meanwhile the daemon's loop turns."""
    peer.until(lambda: path.exists() and wanted in path.read_text())
    return path.read_text()


def test_access_log(start: Start, tmp_path: Path) -> None:
    """What a client did is there, line by line, in order, and failures with their error."""
    config = tmp_path / "xsd.toml"
    log = tmp_path / "access.log"
    config.write_text(
        f'[access-log]\nfile = "{log}"\nread-ops = true\ntransaction-ops = true\n'
        "special-ops = true\n"
    )
    daemon = start("--config", str(config))
    with Peer(daemon.socket) as peer:
        assert peer.ask(Op.WRITE, b"/log/a\0one\n\xff") == OK
        assert peer.ask(Op.READ, b"/log/a\0") == b"one\n\xff"
        assert peer.ask(Op.READ, b"/log/none\0") == "ENOENT"
        tx = peer.start()
        assert peer.ask(Op.MKDIR, b"/log/b\0", tx) == OK
        assert peer.ask(Op.TRANSACTION_END, b"T\0", tx) == OK
        assert peer.ask(Op.WATCH, b"/log\0token\0") == OK
        assert peer.ask(Op.UNWATCH, b"/log\0token\0") == OK
        assert peer.ask(Op.SET_PERMS, b"/log/b\0n0\0r1\0") == OK
        assert peer.ask(Op.GET_DOMAIN_PATH, b"3\0") == b"/local/domain/3\0"
        assert peer.ask(Op.RM, b"/log\0") == OK
        assert peer.ask(Op.RM, b"/\0") == "EINVAL"
        assert peer.ask(99, b"what\0") == "ENOSYS"
        text = await_lines(log, "ENOSYS", peer)
    form = re.compile(r"\[\d{8}T\d\d:\d\d:\d\d\.\d{3}Z\]  A\d+(\.\d+)? +\S.*")
    lines = text.splitlines()
    assert [line for line in lines if not form.fullmatch(line)] == []
    # Without the date; blanks that only pad are one blank.
    said = [" ".join(line.split()[1:]) for line in lines]
    who = said[0].split()[0]
    done = [line.removeprefix(who) for line in said if "/tool" not in line]
    done = [line for line in done if not line.strip().startswith(("newconn", "w event"))]
    assert done[: done.index(" error ENOSYS") + 1] == [
        r" write /log/a one\n\255",
        " read /log/a",
        " read /log/none",
        " error ENOENT",
        " t start",
        f".{tx} mkdir /log/b",
        f".{tx} t end T",
        " watch /log token",
        " unwatch /log token",
        " setperms /log/b n0 r1",
        " getdomain 3",
        " rm /log",
        " rm /",
        " error EINVAL",
        " invalid what",
        " error ENOSYS",
    ]


def test_access_log_on_a_full_disk(meet: Meet, start: Start) -> None:
    """Lines that cannot be written are lost and reported once; clients do not notice."""
    daemon = start("--access-log", "/dev/full")
    other = meet(daemon.socket)
    for _ in range(500):
        other.works()
    text = daemon.await_log("lines are being lost")
    assert "/dev/full: No space left on device" in text
    for _ in range(500):
        other.works()
    other.leaves()
    assert daemon.stderr.count("lines are being lost") == 1


def test_daemon_log_on_a_full_disk(meet: Meet, start: Start) -> None:
    """A daemon log that cannot be written is no reason to stop."""
    daemon = start("--log-file", "/dev/full", "--log-level", "debug")
    other = meet(daemon.socket)
    for number in range(100):
        with Peer(daemon.socket) as peer:
            assert peer.ask(Op.CONTROL, b"print\0line %d\0" % number) == OK
        other.works()
    other.leaves()


def test_log_that_cannot_be_opened(tmp_path: Path, xsd: Callable[..., object]) -> None:
    """At the start that is an error which names the file."""
    missing = tmp_path / "none" / "log"
    basic = ("daemon", "--no-fork", "--no-xen", "--rundir", str(tmp_path))
    for option in ("--log-file", "--access-log"):
        refused = xsd(*basic, option, str(missing))
        text = refused.stderr.decode()  # type: ignore[attr-defined]
        assert refused.returncode == 1  # type: ignore[attr-defined]
        assert (str(missing) in text, "No such file" in text, "Traceback" in text) == (
            True, True, False,
        )  # fmt: skip
        assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_hang_up_reopens_both_logs(start: Start, tmp_path: Path) -> None:
    """After SIGHUP both logs go on in new files of the old names, and nothing is lost."""
    log, access = tmp_path / "daemon.log", tmp_path / "access.log"
    daemon = start("--log-file", str(log), "--access-log", str(access))
    with Peer(daemon.socket) as peer:
        assert peer.ask(Op.WRITE, b"/before\0x") == OK
        await_lines(access, "/before", peer)
        log.rename(tmp_path / "daemon.log.old")
        access.rename(tmp_path / "access.log.old")
        assert peer.ask(Op.WRITE, b"/between\0x") == OK
        serving.hang_up(daemon)
        await_lines(log, "logs reopened", peer)
        # Lines that are on their way at the signal still go to the old file.
        peer.until(access.exists)
        assert peer.ask(Op.WRITE, b"/after\0x") == OK
        new = await_lines(access, "/after", peer)
        old = (tmp_path / "access.log.old").read_text()
    assert (old.count("/before"), (old + new).count("/between"), new.count("/after")) == (1, 1, 1)
    assert "serving" in (tmp_path / "daemon.log.old").read_text()


def test_hang_up_when_a_log_cannot_be_opened(meet: Meet, start: Start, tmp_path: Path) -> None:
    """A directory that has gone costs lines, not the daemon; when it is back they come again."""
    where = tmp_path / "logs"
    where.mkdir()
    daemon = start("--access-log", str(where / "access.log"))
    other = meet(daemon.socket)
    (where / "access.log").unlink()
    where.rmdir()
    serving.hang_up(daemon)
    daemon.await_log("logs reopened")
    other.works()
    where.mkdir()

    def is_back() -> bool:
        other.works()
        return (where / "access.log").exists()

    other.peer.until(is_back)
    other.leaves()


def test_everything_is_written_at_the_end(start: Start, tmp_path: Path) -> None:
    """What clients did just before SIGTERM is in the access log."""
    access = tmp_path / "access.log"
    daemon = start("--access-log", str(access))
    with Peer(daemon.socket) as peer:
        for number in range(1000):
            assert peer.ask(Op.WRITE, b"/last/n%d\0x" % number) == OK
        daemon.stop()
    text = access.read_text()
    assert [number for number in range(1000) if f"/last/n{number} " not in text] == []


def test_payloads_cannot_forge_lines(start: Start, tmp_path: Path) -> None:
    """Line ends and control characters that clients choose are escaped in both logs."""
    access = tmp_path / "access.log"
    daemon = start("--access-log", str(access))
    forged = b"x\n[20260101T00:00:00.000Z]  D0  rm  /\r\x1b[2J\x07\x7f"
    with Peer(daemon.socket) as peer:
        assert peer.ask(Op.WRITE, b"/forge\0" + forged) == OK
        assert peer.ask(Op.CONTROL, b"print\0" + forged + b"\0") == OK
        text = await_lines(access, "control: ", peer)
    daemon.await_log("control: x")
    for shown in (text, daemon.stderr):
        assert [line for line in shown.splitlines() if line.startswith("[20260101T")] == []
        assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", shown) == []
