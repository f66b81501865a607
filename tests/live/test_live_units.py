"""The daemon with the restrictions of its unit file."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import sandbox
import serving
from peer import Neighbour, Peer
from serving import Daemon

from xsd.client.wire import Op
from xsd.daemon import units

Meet = Callable[[str], Neighbour]
SANDBOX = sandbox.__file__
SECONDS = 60.0
UID = 64123


@pytest.fixture
def unit(installed: None, tmp_path: Path) -> Path:
    """The unit file."""
    if shutil.which("systemd-analyze") is None:
        serving.absent("systemd-analyze of the package systemd is not installed")
    try:
        ctypes.CDLL(sandbox.LIBSECCOMP)
    except OSError:
        serving.absent(f"{sandbox.LIBSECCOMP} is not installed")
    path = tmp_path / "xenstored.service"
    path.write_text(units.render(units.UNITS[0]))
    return path


def restricted(unit: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python script with what the unit leaves."""
    return subprocess.run(
        [sys.executable, SANDBOX, str(unit), sys.executable, "-c", script],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


TAKEN = """
import errno, mmap, os, socket
def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except OSError as failure:
        return errno.errorcode[failure.errno]
    return None
print(refused(socket.socket, socket.AF_INET), refused(socket.socket, socket.AF_UNIX))
print(refused(mmap.mmap, -1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC))
print(refused(os.chroot, "/"), refused(os.setgroups, [1]))
with open("/proc/self/status") as status:
    said = dict(line.split(":\\t") for line in status.read().splitlines() if ":\\t" in line)
print(said["NoNewPrivs"], said["Seccomp"], int(said["CapBnd"], 16) & ~(1 << 21))
"""


def test_what_is_taken(unit: Path) -> None:
    """The canary: what the unit forbids does not work in the test's surroundings either."""
    done = restricted(unit, TAKEN)
    lines = done.stdout.splitlines()
    assert (done.stderr, lines[:3]) == ("", ["EAFNOSUPPORT None", "EPERM", "EPERM EPERM"])
    assert lines[3].startswith("1 2 ")


FOREIGN = """
import cffi
ffi = cffi.FFI()
ffi.cdef("int getpid(void); int ioctl(int, unsigned long, ...); long strtol(char *, char **, int);")
libc = ffi.dlopen(None)
assert libc.getpid() > 0
assert libc.strtol(b"42", ffi.NULL, 10) == 42
# Variadic, as ioctl(2) is, and a function by its address.
assert libc.ioctl(-1, 0, ffi.cast("int", 0)) == -1
assert ffi.cast("int (*)(void)", ffi.addressof(libc, "getpid"))() == libc.getpid()
print("called")
"""


def test_foreign_functions(unit: Path) -> None:
    """Calling libraries needs no memory that is writable and executable."""
    pytest.importorskip("cffi")
    done = restricted(unit, FOREIGN)
    assert (done.stdout, done.stderr) == ("called\n", "")


def test_daemon(unit: Path, meet: Meet, tmp_path: Path) -> None:
    """The daemon serves, writes its logs, reopens them and stops, all with what it is left."""
    run, trace, report = tmp_path / "run", tmp_path / "trace", tmp_path / "report"
    process = subprocess.Popen(
        [sys.executable, SANDBOX, str(unit), str(serving.program()), "daemon", "--no-fork",
         "--no-xen", "--rundir", str(run), "-T", str(trace)],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=serving.clean_environ(),
    )  # fmt: skip
    assert process.stderr is not None
    daemon = Daemon(process, run, str(run / "socket"), serving.Drain(process.stderr.fileno()))
    try:
        daemon.log.await_text(serving.READY, serving.READY_SECONDS)
        meet(daemon.socket).leaves()
        with Peer(daemon.socket) as peer:
            for command in (b"help\0", b"check\0", b"memreport\0%b\0" % bytes(report)):
                assert isinstance(peer.ask(Op.CONTROL, command), bytes)
            trace.unlink()
            serving.hang_up(daemon)
            daemon.await_log("logs reopened")
            assert peer.ask(Op.WRITE, b"/a\0b") == b"OK\0"
    except BaseException:
        daemon.end()
        raise
    daemon.stop()
    assert "/a" in trace.read_text()
    assert report.stat().st_size > 0


def test_daemon_that_gives_up_root(unit: Path, meet: Meet) -> None:
    """With what the unit's comments add, the daemon becomes another user, twice in a row: what
    the first one has left behind is no hindrance."""
    if os.geteuid() != 0:
        pytest.skip("only root can give up root")
    text = unit.read_text()
    comment = text.partition("systemctl edit xenstored` and")[2]
    added = re.findall(r"^#     (\[?[A-Z].*)$", comment, re.M)
    assert [line.partition("=")[0] for line in added] == [
        "[Service]", "Environment", "CapabilityBoundingSet", "SystemCallFilter",
    ]  # fmt: skip
    unit.write_text(text + "\n".join(added))
    place = Path(tempfile.mkdtemp(prefix="xsd-unit-"))
    place.chmod(0o755)
    logs, run = place / "logs", place / "run"
    logs.mkdir()
    os.chown(logs, UID, UID)
    try:
        for _ in range(2):
            process = subprocess.Popen(
                [sys.executable, SANDBOX, str(unit), str(serving.program()), "daemon", "--no-fork",
                 "--no-xen", "--rundir", str(run), "-T", str(logs / "trace"), f"--user={UID}"],
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=serving.clean_environ(),
            )  # fmt: skip
            assert process.stderr is not None
            log = serving.Drain(process.stderr.fileno())
            daemon = Daemon(process, run, str(run / "socket"), log)
            try:
                daemon.log.await_text(serving.READY, serving.READY_SECONDS)
                meet(daemon.socket).works()
            finally:
                assert daemon.end() == 0
            assert "warn" not in daemon.stderr
        assert (logs / "trace").stat().st_uid == UID
    finally:
        shutil.rmtree(place)
