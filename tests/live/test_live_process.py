"""The daemon as a process: start, second start, background, signals, environment."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serving
from peer import Neighbour, Peer
from serving import Daemon

from xsd.client.wire import Op
from xsd.daemon import process

OK = b"OK\0"
Meet = Callable[[str], Neighbour]
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
Start = Callable[..., Daemon]
BASIC = ("daemon", "--no-fork", "--no-xen")


def test_what_a_start_makes(start: Start) -> None:
    """A socket of mode 0600, a pid file with the pid, and the line that says ready."""
    daemon = start()
    assert sorted(path.name for path in daemon.rundir.iterdir()) == ["socket", "xenstored.pid"]
    mode = os.stat(daemon.socket).st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
    pid_file = daemon.rundir / "xenstored.pid"
    assert pid_file.read_text() == f"{daemon.pid}\n"
    assert stat.S_IMODE(pid_file.stat().st_mode) == 0o600
    assert daemon.stderr.splitlines()[0] == "xenstored is ready"


def test_what_it_does_not_load(start: Start) -> None:
    """Libraries that it has no use for, and modules that only a mistake or an option needs."""
    maps = (Path("/proc") / str(start().pid) / "maps").read_text()
    assert "loop.cpython" in maps  # what is mapped can be seen
    unwanted = ("libssl", "libcrypto", "_cffi_backend", "_lzma", "_pickle", "_json", "_datetime")
    assert [name for name in unwanted if name in maps] == []


def test_tls_is_there_for_who_wants_it() -> None:
    """The stand-in that keeps OpenSSL out is gone when the loop has been made."""
    code = (
        "import sys\n"
        "from xsd.daemon.loop import new_event_loop\n"
        "new_event_loop().close()\n"
        "assert 'ssl' not in sys.modules and '_ssl' not in sys.modules\n"
        "import ssl\n"
        "ssl.create_default_context()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(number: signal.Signals, start: Start) -> None:
    """A signal to stop ends it with status 0; socket and pid file go, clients see the end."""
    daemon = start()
    with Peer(daemon.socket) as idle, Peer(daemon.socket) as half:
        assert idle.ask(Op.WRITE, b"/a\0b") == OK
        half.send(b"half of a"[:9])
        os.kill(daemon.pid, number)
        assert daemon.process.wait(serving.STOP_SECONDS) == 0
        assert idle.is_closed()
    assert list(daemon.rundir.iterdir()) == []
    daemon.stop()


EARLY = """
import os, signal, uvloop
from xsd.daemon import process
loop = uvloop.new_event_loop()
process.install_signals(loop, stop=loop.stop, reopen=lambda: print("reopen", flush=True))
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGTERM)
loop.run_forever()
loop.close()
print("stopped")
"""


def test_signal_before_the_loop_runs() -> None:
    """A signal that comes while the daemon says that it is ready is not lost."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY],
        env=os.environ | {"PYTHONPATH": str(Path(process.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, sorted(done.stdout.split())) == (0, ["reopen", "stopped"])


def test_stop_at_once(start: Start) -> None:
    """A daemon that is told to stop in the moment it is ready does stop."""
    for _ in range(10):
        start().stop()


def test_stop_with_clients_that_do_not_read(meet: Meet, start: Start) -> None:
    """A client for whom output waits does not hold up the end."""
    daemon = start()
    other = meet(daemon.socket)
    with Peer(daemon.socket) as lazy:
        assert lazy.ask(Op.WATCH, b"/w\0" + b"t" * 3000 + b"\0") == OK
        for number in range(300):
            assert other.peer.ask(Op.WRITE, b"/w/n%d\0x" % number) == OK
        daemon.stop()
    other.peer.close()


def test_second_instance(meet: Meet, start: Start, xsd: Run) -> None:
    """It ends with 0, in the foreground with who runs, for scripts without a word.

    The first one does not notice.
    """
    daemon = start()
    other = meet(daemon.socket)
    message = (
        f"xsd: another xenstored (pid {daemon.pid}) is running: "
        f"it holds {daemon.rundir / 'xenstored.pid'}\n"
    )
    for fork, expected in ((["--no-fork"], message), ([], "")):
        second = xsd("daemon", *fork, "--no-xen", "--rundir", str(daemon.rundir))
        assert (second.returncode, second.stderr.decode()) == (0, expected)
    other.leaves()
    assert (daemon.rundir / "xenstored.pid").read_text() == f"{daemon.pid}\n"


def test_second_instance_without_pid_file(meet: Meet, start: Start, xsd: Run) -> None:
    """Without pid files the socket that answers tells that another one runs."""
    daemon = start("--pid-file", "none")
    other = meet(daemon.socket)
    refused = xsd(*BASIC, "--pid-file", "none", "--rundir", str(daemon.rundir))
    expected = f"xsd: {daemon.socket}: another daemon answers there\n"
    assert (refused.returncode, refused.stderr.decode()) == (1, expected)
    other.leaves()


def test_stale_files(meet: Meet, start: Start) -> None:
    """What a killed daemon leaves behind is taken over."""
    daemon = start()
    daemon.process.kill()
    daemon.end()
    left = sorted(path.name for path in daemon.rundir.iterdir())
    assert left == ["socket", "xenstored.pid"]
    again = start(rundir=daemon.rundir)
    meet(again.socket).leaves()
    assert (again.rundir / "xenstored.pid").read_text() == f"{again.pid}\n"


def test_socket_path_that_is_something_else(tmp_path: Path, xsd: Run) -> None:
    """A file in the socket's place is left alone and named."""
    (tmp_path / "socket").write_text("precious")
    refused = xsd(*BASIC, "--rundir", str(tmp_path))
    expected = f"xsd: {tmp_path / 'socket'}: exists and is not a socket\n"
    assert (refused.returncode, refused.stderr.decode()) == (1, expected)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("socket", "precious")
    ]


def test_rundir_that_cannot_be_made(tmp_path: Path, xsd: Run) -> None:
    """The message names what could not be made."""
    (tmp_path / "file").write_text("")
    refused = xsd(*BASIC, "--rundir", str(tmp_path / "file" / "run"))
    text = refused.stderr.decode()
    assert refused.returncode == 1
    assert text.startswith("xsd: ")
    assert (str(tmp_path / "file") in text, "Traceback" in text) == (True, False)


def test_without_no_xen(tmp_path: Path, xsd: Run) -> None:
    """Where there is no Xen the message says so and what to do."""
    if os.path.exists("/proc/xen/capabilities") or os.path.exists("/dev/xen"):
        pytest.skip("this machine has Xen")
    refused = xsd("daemon", "--no-fork", "--rundir", str(tmp_path))
    assert (refused.returncode, b"--no-xen" in refused.stderr) == (1, True)
    assert b"Traceback" not in refused.stderr


# -- environment -----------------------------------------------------------------------------


def test_environment(start: Start, xsd: Run, tmp_path: Path) -> None:
    """$XENSTORED_PATH is where the daemon listens and the tools call."""
    where = tmp_path / "elsewhere" / "store.sock"
    run = tmp_path / "run"
    environ = serving.clean_environ(XENSTORED_PATH=str(where), XENSTORED_RUNDIR=str(run))
    daemon = start(environ=environ, socket=where)
    assert sorted(path.name for path in run.iterdir()) == ["xenstored.pid"]
    assert xsd("write", "/env", "seen", environ=environ).returncode == 0
    with Peer(daemon.socket) as peer:
        assert peer.ask(Op.READ, b"/env\0") == b"seen"


def test_environment_rundir(
    start: Start, xsd: Run, tmp_path: Path, debian: Callable[[str], str]
) -> None:
    """$XENSTORED_RUNDIR alone means the socket in it, for the daemon, our tools and others'."""
    environ = serving.clean_environ(XENSTORED_RUNDIR=str(tmp_path))
    start(environ=environ, socket=tmp_path / "socket")
    assert xsd("write", "/env", "seen", environ=environ).returncode == 0
    assert xsd("read", "/env", environ=environ).stdout == b"seen\n"
    theirs = subprocess.run(
        [debian("xenstore-read"), "/env"], env=environ, capture_output=True, timeout=60, check=False
    )
    assert (theirs.returncode, theirs.stdout) == (0, b"seen\n")


def test_option_wins_over_environment(meet: Meet, start: Start, tmp_path: Path) -> None:
    """--rundir is stronger than both variables."""
    away = str(tmp_path / "away")
    daemon = start(environ=serving.clean_environ(XENSTORED_PATH=away, XENSTORED_RUNDIR=away))
    meet(daemon.socket).leaves()
    assert not os.path.exists(away)


# -- service manager and background ----------------------------------------------------------


def test_notify_socket(start: Start, tmp_path: Path) -> None:
    """The service manager is told when it is ready, when it listens already, and at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environ = serving.clean_environ(NOTIFY_SOCKET=str(tmp_path / "notify"))
        daemon = start(environ=environ)
        assert manager.recv(1000) == f"READY=1\nMAINPID={daemon.pid}".encode()
        Peer(daemon.socket).close()
        daemon.stop()
        assert manager.recv(1000) == b"STOPPING=1"


@contextlib.contextmanager
def background(pid_file: Path) -> Iterator[int]:
    """The pid of a daemon in the background, which is ended and waited for."""
    pid = int(pid_file.read_text())
    watched = os.pidfd_open(pid)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(watched, signal.SIGTERM)
        ended = select.select([watched], [], [], serving.STOP_SECONDS)[0]
        if not ended:
            signal.pidfd_send_signal(watched, signal.SIGKILL)
        os.close(watched)
        assert ended


def test_background(meet: Meet, tmp_path: Path, xsd: Run) -> None:
    """Without --no-fork the command ends with 0 when all is ready, and the pid file is right."""
    run = tmp_path / "run"
    log = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environ = serving.clean_environ(NOTIFY_SOCKET=str(tmp_path / "notify"))
        started = xsd(
            "daemon", "--no-xen", "--rundir", str(run), "--log-file", str(log), environ=environ
        )
        assert (started.returncode, started.stderr) == (0, b"xenstored is ready\n")
        with background(run / "xenstored.pid") as pid:
            assert manager.recv(1000) == f"READY=1\nMAINPID={pid}".encode()
            # At once, without another try: it listened before the command ended.
            other = meet(str(run / "socket"))
            assert os.getsid(pid) != os.getsid(0)
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
            assert b"xsd" in Path(f"/proc/{pid}/cmdline").read_bytes()
            other.leaves()
    assert list(run.iterdir()) == []
    text = log.read_text()
    assert ("serving" in text, "Traceback" in text, "|error|" in text) == (True, False, False)


def test_background_that_fails(tmp_path: Path, xsd: Run) -> None:
    """The command ends with 1 and the reason, although another process found it."""
    (tmp_path / "socket").write_text("precious")
    started = xsd("daemon", "--no-xen", "--rundir", str(tmp_path))
    expected = f"xsd: {tmp_path / 'socket'}: exists and is not a socket\n"
    assert (started.returncode, started.stderr.decode()) == (1, expected)


# -- who is there ----------------------------------------------------------------------------


def test_peer_credentials(start: Start) -> None:
    """The debug log says of each connection which process and user it is, and when it has gone."""
    daemon = start("--log-level", "debug")
    since = len(daemon.stderr)
    script = (
        "import os, socket, sys\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "client.connect(sys.argv[1])\n"
        "print(os.getpid(), os.getuid())\n"
    )
    client = subprocess.run(
        [sys.executable, "-c", script, daemon.socket],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    pid, uid = client.stdout.split()
    daemon.await_log(f"pid {int(pid)}, uid {int(uid)}", since)
    daemon.await_log("has gone", since)


def test_standard_error_that_cannot_be_written(meet: Meet, tmp_path: Path) -> None:
    """A stderr on a full disk, or one that is closed, is no reason not to serve."""
    for redirection in ("2>/dev/full", "2>&-"):
        run = tmp_path / redirection[-4:].strip("/&-")
        shell = f'exec "$@" {redirection}'
        words = [str(serving.program()), *BASIC, "--rundir", str(run)]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / redirection.replace("/", "")))
            manager.settimeout(60)
            environ = serving.clean_environ(NOTIFY_SOCKET=manager.getsockname())
            daemon = subprocess.Popen(
                ["sh", "-c", shell, "sh", *words], env=environ, stdin=subprocess.DEVNULL
            )
            try:
                assert manager.recv(1000).startswith(b"READY=1")
                other = meet(str(run / "socket"))
                # Something to say on stderr, and more than once.
                for _ in range(3):
                    assert other.peer.ask(Op.CONTROL, b"print\0to nobody\0") == OK
                other.leaves()
            finally:
                daemon.terminate()
                status = daemon.wait(serving.STOP_SECONDS)
            assert (redirection, status) == (redirection, 0)
