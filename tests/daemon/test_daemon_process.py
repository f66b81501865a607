"""The daemon as a process: background, readiness, limits, signals."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xsd.daemon import process

ROOT = Path(process.__file__).parents[2]

DAEMON = """
import os, sys, time
from xsd.daemon import process
report, order = sys.argv[1:]
started_in = os.getsid(0)
sys.stdout.write("before\\n")
readiness = process.daemonise()
print("in the daemon", file=sys.stderr)
if order == "fail":
    readiness.failed("no store today")
if order == "unneeded":
    readiness.unneeded("another one")
if order == "vanish":
    os._exit(0)
if order == "raise":
    raise RuntimeError("not caught")
readiness.ready()
print("to nobody", file=sys.stderr, flush=True)
with open(report + ".tmp", "w") as out:
    umask = os.umask(0)
    print(os.getpid(), os.getppid(), os.getsid(0) not in (started_in, os.getpid()), os.getcwd(),
          oct(umask), *[os.readlink(f"/proc/self/fd/{n}") for n in range(3)],
          sep="\\n", file=out)
os.rename(report + ".tmp", report)
# Until the test closes the FIFO.
with open(order) as fifo:
    fifo.read()
os.rename(report, report + ".ended")
"""


def run(report: Path, order: str) -> subprocess.CompletedProcess[str]:
    """Starts the daemon above and waits for the command, not for the daemon."""
    return subprocess.run(
        [sys.executable, "-c", DAEMON, str(report), order],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_background(tmp_path: Path) -> None:
    """The command ends with 0 when the daemon is ready, which goes on apart from everything."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # capture_output ends when nobody has the pipes any more: the daemon has let them go.
    done = run(tmp_path / "report", str(fifo))
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\n", "in the daemon\n")
    # Opening waits for the daemon, which by then has written its report.
    with fifo.open("w"):
        lines = (tmp_path / "report").read_text().splitlines()
    pid, _, is_new_session, directory, umask, *files = lines
    assert (is_new_session, directory, umask) == ("True", "/", "0o22")
    assert files == ["/dev/null"] * 3
    wait_for_end(int(pid))
    assert (tmp_path / "report.ended").exists()


def test_closed_standard_files(tmp_path: Path) -> None:
    """A daemon that is started without any has none of its own in their place."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    report = tmp_path / "r"
    script = DAEMON.replace('sys.stdout.write("before\\n")', "")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script, report, fifo],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    with fifo.open("w"):
        pid, *_, stdin, stdout, stderr = report.read_text().splitlines()
    assert [stdin, stdout, stderr] == ["/dev/null"] * 3
    wait_for_end(int(pid))


def wait_for_end(pid: int) -> None:
    """Waits until a process that is no child of ours has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with open(fd, "rb") as watched:
        assert select.select([watched], [], [], 60)[0]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("fail", "in the daemon\nxsd: no store today\n"),
        ("vanish", "in the daemon\nxsd: the daemon ended before it was ready\n"),
    ],
)
def test_failed_start(tmp_path: Path, order: str, message: str) -> None:
    """The command ends with 1 and the reason."""
    done = run(tmp_path / "report", order)
    assert (done.returncode, done.stderr) == (1, message)


def test_unneeded_start(tmp_path: Path) -> None:
    """Where another one serves the command succeeds, and says nothing about it."""
    done = run(tmp_path / "report", "unneeded")
    assert (done.returncode, done.stderr) == (0, "in the daemon\n")


def test_start_with_an_exception(tmp_path: Path) -> None:
    """An exception that nobody caught is shown, and the command fails."""
    done = run(tmp_path / "report", "raise")
    assert done.returncode == 1
    assert "RuntimeError: not caught" in done.stderr
    assert "xsd: the daemon ended before it was ready\n" in done.stderr


def test_foreground(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a fork the message goes straight to stderr."""
    here = process.Foreground()
    here.ready()
    with pytest.raises(SystemExit) as caught:
        here.failed("no store today")
    assert (caught.value.code, capsys.readouterr().err) == (1, "xsd: no store today\n")
    with pytest.raises(SystemExit) as caught:
        here.unneeded("another one")
    assert (caught.value.code, capsys.readouterr().err) == (0, "xsd: another one\n")


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_notify(tmp_path: Path, kind: str) -> None:
    """The service manager gets the state on either kind of socket."""
    name = f"@xsd-test-{os.getpid()}" if kind == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(60)
        assert process.notify(process.ready_state(), {"NOTIFY_SOCKET": name})
        assert process.notify(process.STOPPING, {"NOTIFY_SOCKET": name})
        assert manager.recv(100) == f"READY=1\nMAINPID={os.getpid()}".encode()
        assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/nonexistent"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "@nobody-has-this"},
    ],
)
def test_nobody_to_notify(environ: dict[str, str]) -> None:
    """Without a manager nothing happens."""
    assert not process.notify("READY=1", environ)


LIMIT = """
import contextlib, resource, sys
from xsd.daemon import process
nr_open = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
limit = process.raise_descriptor_limit(nr_open)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limit, limit)
# Whether this process may raise its hard limit, and so should have.
permitted = True
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 1, limit + 1))
except (OSError, ValueError):
    permitted = False
print(limit, permitted)
"""


@pytest.mark.parametrize(
    ("nr_open", "privileged", "unprivileged"),
    [("300\n", 300, 200), ("10000000000\n", 200, 200), ("150\n", 200, 200), (None, 200, 200)],
)
def test_descriptor_limit(
    tmp_path: Path, nr_open: str | None, privileged: int, unprivileged: int
) -> None:
    """The limit becomes what the system allows if we may do that, else the hard limit."""
    file = tmp_path / "nr_open"
    if nr_open:
        file.write_text(nr_open)
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, str(file)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    limit, permitted = done.stdout.split()
    assert int(limit) == (privileged if permitted == "True" else unprivileged)


def test_signals() -> None:
    """Each signal calls what it stands for, from the loop; the others are ignored."""
    calls: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGUSR1)}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        all_came = loop.create_future()

        def note(name: str) -> None:
            calls.append(name)
            if len(calls) == 4:
                all_came.set_result(None)

        process.install_signals(
            loop,
            stop=lambda: note("stop"),
            reopen=lambda: note("reopen"),
            dump=lambda: note("dump"),
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.raise_signal(number)
        signal.raise_signal(signal.SIGPIPE)
        await asyncio.wait_for(all_came, 60)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            loop.remove_signal_handler(number)
        process.install_signals(loop, stop=lambda: None, reopen=lambda: None)
        signal.raise_signal(signal.SIGUSR1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)

    try:
        asyncio.run(main())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert sorted(calls) == ["dump", "reopen", "stop", "stop"]
