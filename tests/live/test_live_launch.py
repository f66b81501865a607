"""The daemon as the start scripts of Xen's packages start it."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serving
from peer import Neighbour
from serving import Daemon

Meet = Callable[[str], Neighbour]
Start = Callable[..., Daemon]
LAUNCH = "/etc/xen/scripts/launch-xenstore"
OWN_SCORE = Path("/proc/self/oom_score_adj")
SECONDS = 120.0

# The script's paths are fixed, so it runs among directories of its own. What it leaves is shown
# from there, as nobody else can see it.
AROUND = """
for place in /run /etc/default /var/log/xen; do mount -t tmpfs tmpfs $place || exit 77; done
cat >/etc/default/xencommons
mkdir -p /run/xen
"$1" || exit 1
pid=$(cat /run/xen/xenstored.pid)
echo "pid $pid"
echo "oom $(cat /proc/$pid/oom_score_adj)"
echo "files $(grep 'Max open files' /proc/$pid/limits)"
echo "trace $(ls /var/log/xen)"
"$1" || exit 2
echo "again $(cat /run/xen/xenstored.pid)"
"""


@contextmanager
def ended(pid: int) -> Iterator[None]:
    """Ends a daemon that is no child of ours, and waits until it has gone."""
    watched = os.pidfd_open(pid)
    try:
        yield
    finally:
        signal.pidfd_send_signal(watched, signal.SIGTERM)
        gone = select.select([watched], [], [], serving.STOP_SECONDS)[0]
        if not gone:
            signal.pidfd_send_signal(watched, signal.SIGKILL)
        os.close(watched)
        assert gone


def in_surroundings(xencommons: str) -> subprocess.CompletedProcess[str]:
    """Runs the script twice, with that as ``/etc/default/xencommons``."""
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", AROUND, "sh", LAUNCH],
        input=xencommons,
        env=serving.clean_environ(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def may_mount() -> bool:
    """Whether this process can have directories of its own."""
    words = ["unshare", "--mount", "--propagation", "private"]
    words += ["mount", "-t", "tmpfs", "tmpfs", "/run"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def score_is_fixed() -> bool:
    """Whether nobody here may make a process less likely to be killed for memory."""
    words = ["sh", "-c", f"echo -300 >{OWN_SCORE}"]
    return subprocess.run(words, capture_output=True, check=False).returncode != 0


def test_launch_script(installed: None, meet: Meet, tmp_path: Path) -> None:
    """Debian's script starts it, finds its pid file, sets its score; once is enough."""
    if not os.path.exists(LAUNCH):
        serving.absent(f"{LAUNCH} of Debian's xen-utils-common is not installed")
    if not may_mount():
        pytest.skip("needs to mount")
    program = tmp_path / "xenstored"
    program.symlink_to(serving.program())
    run, log = tmp_path / "run", tmp_path / "log"
    done = in_surroundings(
        f"XENSTORED={program}\n"
        f'XENSTORED_ARGS="--no-xen --rundir {run} --log-file {log}"\n'
        "XENSTORED_TRACE=yes\n"
        "XENSTORED_MAX_OPEN_FDS=5000\n"
        "XENSTORED_OOM_MEM_THRESHOLD=30\n"
    )
    said = re.findall(r"^(pid|oom|files|trace|again) (.*)$", done.stdout, re.M)
    pid = next((int(text) for word, text in said if word == "pid"), 0)
    assert pid, done
    with ended(pid):
        assert done.returncode == 0, done
        shown = {word: text.split() for word, text in said}
        assert shown["again"] == [str(pid)]
        assert shown["oom"] == [OWN_SCORE.read_text().strip() if score_is_fixed() else "-300"]
        assert shown["trace"] == ["xenstored-trace.log"]
        # At least what the script gave; the daemon raises it where it may.
        assert int(shown["files"][3]) >= 5000
        meet(str(run / "socket")).leaves()
    assert "|error|" not in log.read_text()


def test_pid_file_before_readiness(start: Start, tmp_path: Path) -> None:
    """Who was told that it is ready finds the pid file."""
    where = tmp_path / "other" / "xenstored.pid"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environ = serving.clean_environ(NOTIFY_SOCKET=str(tmp_path / "notify"))
        daemon = start("-F", str(where), environ=environ)
        assert manager.recv(1000).startswith(b"READY=1\n")
        assert where.read_text() == f"{daemon.pid}\n"
        daemon.stop()
    assert not where.exists()


def test_limits_of_the_process(start: Start) -> None:
    """It has as many descriptors as it may have; its score is its starter's business."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
    try:
        daemon = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    proc = Path(f"/proc/{daemon.pid}")
    limits = re.search(r"Max open files +(\S+) +(\S+)", (proc / "limits").read_text())
    assert limits and limits[1] == limits[2]
    assert (proc / "oom_score_adj").read_text() == OWN_SCORE.read_text()
