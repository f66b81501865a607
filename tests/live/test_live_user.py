"""A daemon that gives up root: what is left to it, and what goes on working."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serving
from peer import Neighbour, Peer
from serving import Daemon

from xsd.client.wire import Op

OK = b"OK\0"
UID = 64123
"""Of nobody that this system knows."""
Meet = Callable[[str], Neighbour]
Start = Callable[..., Daemon]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can give up root")
    path = Path(tempfile.mkdtemp(prefix="xsd-user-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def logs(place: Path) -> Path:
    """A directory of the user's own."""
    path = place / "logs"
    path.mkdir()
    os.chown(path, UID, UID)
    return path


def status(pid: int) -> list[dict[str, str]]:
    """What the kernel says of each thread of a process."""
    return [
        {
            name: " ".join(words.split())
            for name, _, words in (line.partition(":") for line in text.splitlines())
        }
        for text in (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
    ]


def assert_harmless(daemon: Daemon, uid: int, gid: int) -> None:
    """It is this user and nothing else, in every thread."""
    for said in status(daemon.pid):
        assert said["Uid"] == " ".join([str(uid)] * 4)
        assert said["Gid"] == " ".join([str(gid)] * 4)
        assert (said["Groups"], said["NoNewPrivs"]) == ("", "1")
        sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        assert {name: said[name] for name in sets} == dict.fromkeys(sets, "0" * 16)


def test_what_is_left(meet: Meet, start: Start, place: Path, logs: Path) -> None:
    """No other group, no capability in any thread, no way to gain one; clients are served, by a
    socket that is still root's and root's only, and others of that user cannot look inside."""
    daemon = start("--user", str(UID), "--access-log", str(logs / "access"), rundir=place / "run")
    neighbour = meet(daemon.socket)
    neighbour.works()
    with Peer(daemon.socket) as peer:
        assert peer.ask(Op.WRITE, b"/seen\0x") == OK
        peer.until(lambda: "/seen" in (logs / "access").read_text())  # its thread runs
    assert len(status(daemon.pid)) > 1
    assert_harmless(daemon, UID, UID)
    socket = os.stat(daemon.socket)
    assert (socket.st_uid, socket.st_mode & 0o777) == (0, 0o600)
    assert (logs / "access").stat().st_uid == UID
    other = subprocess.run(
        ["cat", f"/proc/{daemon.pid}/environ"],
        user=UID, group=UID, extra_groups=[], capture_output=True, check=False,
    )  # fmt: skip
    assert (other.returncode, other.stdout) == (1, b"")
    neighbour.leaves()
    assert daemon.end() == 0
    assert "Traceback" not in daemon.stderr
    # What only root could remove says that nobody is there.
    assert (place / "run" / "xenstored.pid").read_text() == ""
    again = start("--user", str(UID), rundir=place / "run")
    meet(again.socket).works()
    assert again.end() == 0


def test_by_name(start: Start, place: Path) -> None:
    """A name stands for a user and the group that the system gives it."""
    daemon = start("--user", "nobody", rundir=place / "run")
    assert_harmless(daemon, 65534, 65534)
    assert "goes on as nobody (user 65534, group 65534)" in daemon.stderr
    assert daemon.end() == 0


def test_in_the_background(place: Path, logs: Path) -> None:
    """A daemon that goes to the background gives up root too, and is stopped by its pid file."""
    done = subprocess.run(
        [str(serving.program()), "daemon", "--no-xen", "--rundir", str(place / "run"),
         "--user", str(UID), "--log-file", str(logs / "log")],
        env=serving.clean_environ(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "xenstored is ready\n")
    pid = int((place / "run" / "xenstored.pid").read_text())
    try:
        assert {said["Uid"].split()[0] for said in status(pid)} == {str(UID)}
        with Peer(str(place / "run" / "socket")) as peer:
            assert peer.ask(Op.WRITE, b"/a\0b") == OK
    finally:
        os.kill(pid, 15)


def test_logs_go_on(start: Start, place: Path, logs: Path) -> None:
    """In a directory of the user's, logs rotate and are opened again at SIGHUP."""
    config = place / "xsd.toml"
    config.write_text("[access-log]\nmax-lines = 4\nmax-files = 2\n")
    log, access = logs / "log", logs / "access"
    daemon = start(
        "--config", str(config), "--log-file", str(log), "--access-log", str(access),
        "--user", str(UID), rundir=place / "run",
    )  # fmt: skip
    with Peer(daemon.socket) as peer:
        log.rename(logs / "old")
        serving.hang_up(daemon)
        peer.until(lambda: log.exists() and "logs reopened" in log.read_text())
        for _ in range(8):
            assert peer.ask(Op.WRITE, b"/a\0b") == OK
        peer.until((logs / "access.1").exists)
    assert {path.stat().st_uid for path in logs.iterdir()} == {UID}
    assert "|warn" not in (logs / "old").read_text().replace(" ", "")
    assert daemon.end() == 0


def test_logs_that_cannot_go_on(start: Start, place: Path) -> None:
    """In a directory of root's the start says so, and SIGHUP and rotation keep the old file."""
    config = place / "xsd.toml"
    config.write_text("[access-log]\nmax-lines = 2\n")
    access = place / "access"
    daemon = start(
        "--config", str(config), "--access-log", str(access), "--user", str(UID),
        rundir=place / "run",
    )  # fmt: skip
    daemon.await_log(f"{access}: can neither be rotated nor opened again, for {UID} may not write")
    access.rename(place / "moved")
    with Peer(daemon.socket) as peer:
        serving.hang_up(daemon)
        daemon.await_log(f"{access}: Permission denied: cannot be opened again, the old file")
        for _ in range(5):
            assert peer.ask(Op.WRITE, b"/kept\0b") == OK
        peer.until(lambda: (place / "moved").read_text().count("/kept") == 5)
        assert peer.ask(Op.CONTROL, b"memreport\0%b\0" % bytes(place / "report")) == "EACCES"
    assert daemon.end() == 0
    assert not access.exists()


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("no-such-user", "there is no user 'no-such-user': expected a name that this system knows"),
        ("4294967295", "there is no user '4294967295': expected a name"),
        ("root", "root has root's rights: expected another user"),
        ("0", "0 has root's rights"),
    ],
)
def test_who_is_nobody(place: Path, user: str, says: str) -> None:
    """One sentence says what is wrong with the user, and nothing was made."""
    done = refused(place, "--user", user)
    assert done.startswith(f"xsd: daemon.user: {says}")
    assert (done.count("\n"), list(place.iterdir())) == (1, [])


def test_links_are_not_followed(place: Path, logs: Path) -> None:
    """A log that the user has made a link does not become the user's."""
    secret = place / "secret"
    secret.write_text("x")
    (logs / "log").symlink_to(secret)
    said = refused(place, "--user", str(UID), "--log-file", str(logs / "log"))
    assert said == f"xsd: {logs / 'log'}: a link, or a file of somebody else\n"
    (logs / "log").unlink()
    os.link(secret, logs / "log")
    assert "a link" in refused(place, "--user", str(UID), "--log-file", str(logs / "log"))
    assert (secret.stat().st_uid, secret.read_text()) == (0, "x")


def refused(place: Path, *arguments: str) -> str:
    """What a daemon says that does not start."""
    done = subprocess.run(
        [str(serving.program()), "daemon", "--no-fork", "--no-xen", "--rundir",
         str(place / "run"), *arguments],
        env=serving.clean_environ(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_a_program_that_the_user_may_not_read(place: Path) -> None:
    """What would fail at some later import is refused at the start."""
    hidden = place / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "main.py").touch()
    script = (
        "import sys; import xsd.daemon.main as main; main.__file__ = sys.argv[1]; "
        "sys.exit(main.main(sys.argv[2:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(hidden / "main.py"), "--no-fork", "--no-xen",
         "--rundir", str(place / "run"), "--user", str(UID)],
        env=serving.clean_environ(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    wanted = f"xsd: daemon.user: {UID} may not read the program itself, {hidden / 'main.py'}: "
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1, wanted + "install it where everybody can",
    )  # fmt: skip
