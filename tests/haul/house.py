"""One real daemon on a fake Xen: asked as an operator asks, its logs read, its end judged."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import serving
from peer import Peer
from xen import daemons
from xen.hypervisor import PAGE

from haul.figures import EXACT, GROWING, Figures, changed
from xsd.client.wire import Op

_LIBC = ctypes.CDLL(None, use_errno=True)
_PUNCH_HOLE = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

SECONDS = 60.0
"""How long the daemon has to do anything that it has to do in the end."""
PAUSE = 0.02

LOG_LINES, LOG_FILES = 3000, 3

CONFIG = """
[log]
file = "{directory}/xsd.log"
max-lines = 0
[access-log]
active = {access_log}
file = "{directory}/access.log"
max-lines = {lines}
max-files = {files}
[timeout]
watch-event = 3
[socket]
output-limit = 1048576
"""
"""Short times and low limits, so that a round meets all of them."""

EXPECTED = (
    re.compile(r"\|warn\|effects\] (introduce|domain) \d+: "),
    re.compile(r"\|warn\|effects\] domain \d+: \S+ (above its|no longer above its) soft quota"),
    re.compile(r"\|warn\|accesslog\] access log: "),
    re.compile(r"\|warn\|io\] connection \d+ \(pid -?\d+\) closed: "),
)
"""What a daemon may say of this load at the levels warn and error; lines lost in a log that is
too slow are lost by design."""


class HaulError(Exception):
    """Something did not hold."""


class House:
    """The daemon, the hypervisor below it, and an operator who is connected all the time."""

    def __init__(self, directory: Path, *, access_log: bool = False) -> None:
        self.directory = directory
        self.access_log = access_log
        config = directory / "xsd.toml"
        directory.mkdir(parents=True, exist_ok=True)
        config.write_text(
            CONFIG.format(
                directory=directory,
                access_log=str(access_log).lower(),
                lines=LOG_LINES,
                files=LOG_FILES,
            )
        )
        rundir = directory / "xsd"
        command = [str(serving.program()), "daemon", "--no-fork", "--rundir", str(rundir),
                   "--config", str(config)]  # fmt: skip
        self.running = daemons.start(directory / "xen", command, socket_path=rundir / "socket")
        self.xen = self.running.xen
        self.socket = self.running.socket
        try:
            self.operator = Peer(self.socket)
            self.tree = set(self.walk())
            self.log_lines = 0
            self.start = self.settled()
        except BaseException:
            self.running.stop()
            raise

    # -- asking

    def control(self, *words: str) -> str:
        """The answer to a control command; raises HaulError when there is none."""
        payload = b"".join(word.encode() + b"\0" for word in words)
        answer = self.operator.ask(Op.CONTROL, payload)
        if isinstance(answer, str):
            raise HaulError(f"control {' '.join(words)}: {answer}")
        return answer.rstrip(b"\0").decode()

    def figures(self) -> Figures:
        """What the daemon holds now."""
        report = self.directory / "memreport"
        report.unlink(missing_ok=True)
        self.control("memreport", str(report))
        found = _pairs(report.read_text().replace(":", " "))
        metrics = _pairs(self.control("metrics"))
        found |= metrics
        found["requests"] = sum(v for k, v in metrics.items() if k.startswith("requests."))
        found["dom0_memory"] = _pairs(self.control("quota", "0").replace(":", " "))["memory"]
        proc = Path(f"/proc/{self.running.pid}")
        maps = (proc / "maps").read_text().splitlines()
        found["mappings"] = len(maps)
        found["ring_pages"] = sum(line.endswith("/xen/pages") for line in maps)
        found["threads"] = len(os.listdir(proc / "task"))
        found["descriptors"] = self.running.descriptors()
        totals = self.xen.totals()
        found["xen_pages"], found["xen_ports"] = totals.pages, totals.ports
        found["rss_bytes"] = _resident(proc)
        found["cpu_ms"] = _cpu_ms(proc)
        return {name: found.get(name, 0) for name in (*EXACT, *GROWING)} | found

    def settled(self) -> Figures:
        """What the daemon holds when it is done with what it had put off."""
        last = self.figures()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            time.sleep(PAUSE)
            now = self.figures()
            if not changed(last, now):
                return now
            last = now
        raise HaulError(f"the daemon is not at rest after {SECONDS} s: {last}")

    def back(self, patience: float) -> tuple[Figures, list[str]]:
        """What it holds once all is as at the start, or what is not after that many seconds."""
        deadline = time.monotonic() + patience
        while True:
            now = self.figures()
            wrong = changed(self.start, now)
            if not wrong or time.monotonic() > deadline:
                return now, wrong
            time.sleep(PAUSE)

    def walk(self, top: str = "/") -> Iterator[str]:
        """All paths from there on, as far as lists fit a message: at rest they do."""
        yield top
        for name in self.names(top):
            yield from self.walk(f"{top.rstrip('/')}/{name}")

    def names(self, path: str) -> list[str]:
        """The children of a node, of which there must not be many."""
        answer = self.operator.ask(Op.DIRECTORY, path.encode() + b"\0")
        if isinstance(answer, str):
            raise HaulError(f"children of {path}: {answer}")
        return [name.decode() for name in answer.split(b"\0")[:-1]]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Waits for something; raises HaulError when it takes too long."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise HaulError(f"not within {SECONDS} s: {what}")
            time.sleep(PAUSE)

    # -- sweeping

    def sweep(self) -> None:
        """All domains die, and all nodes go that were not there at the start."""
        for domid in range(1, 256):
            if self.xen.flags(domid):
                self.xen.destroy(domid, virq=False)
        self.xen.virq()
        at_start = self.start["domains_introduced"]
        self.until(
            lambda: _pairs(self.control("metrics")).get("domains_introduced", 0) == at_start,
            "the end of all domains",
        )
        for path in sorted(self.tree):
            for name in self.names(path):
                child = f"{path.rstrip('/')}/{name}"
                if child not in self.tree:
                    self.operator.ask(Op.RM, child.encode() + b"\0")
        self._scrap_pages()

    def _scrap_pages(self) -> None:
        """The pages of the dead go: each life had one of its own, and the file would only grow."""
        begin = self.xen.unique(0) * PAGE
        with open(self.xen.directory / "pages", "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            offset, length = ctypes.c_long(begin), ctypes.c_long(size - begin)
            if size > begin and _LIBC.fallocate(file.fileno(), _PUNCH_HOLE, offset, length):
                raise OSError(ctypes.get_errno(), "pages of the dead cannot be given back")

    # -- logs

    def reopen_logs(self) -> None:
        """As logrotate does: the log is renamed, the daemon told, the old one read and judged."""
        log, old = self.directory / "xsd.log", self.directory / "xsd.log.old"
        os.replace(log, old)
        os.kill(self.running.pid, signal.SIGHUP)
        self.until(log.exists, "a new log after SIGHUP")
        self.judge_log(old)
        old.unlink()

    def judge_log(self, log: Path) -> None:
        """Raises HaulError for a line that nothing of this load explains."""
        for line in log.read_text(errors="replace").splitlines():
            self.log_lines += 1
            level = line.split("|")[1].strip() if line.count("|") > 1 else "none"
            plain = line.replace("| warn|", "|warn|")
            if level in ("info", "debug"):
                continue
            if level != "warn" or not any(known.search(plain) for known in EXPECTED):
                raise HaulError(f"in the log: {line}")

    def judge_access_log(self) -> None:
        """There are not more files and lines than were asked for."""
        logs = sorted(self.directory.glob("access.log*"))
        lines = [log.read_bytes().count(b"\n") for log in logs]
        if len(logs) > LOG_FILES or any(count > LOG_LINES for count in lines):
            raise HaulError(f"access log: {len(logs)} files with {lines} lines")

    def last_words(self) -> list[str]:
        """The last lines of its log, and what it has written to its standard error."""
        log = self.directory / "xsd.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        said = self.running.output.removeprefix(serving.READY)
        return [*lines[-10:], *said.splitlines()[-20:]]

    # -- the end

    def finish(self) -> None:
        """Ends the daemon by SIGTERM; raises HaulError when that was not in good order."""
        self.operator.close()
        status = self.running.stop()
        if status != 0:
            raise HaulError(f"ended with status {status}: {self.running.output}")
        if (said := self.running.output) != f"{serving.READY}\n":
            raise HaulError(f"on its standard error: {said}")
        self.judge_log(self.directory / "xsd.log")
        if Path(self.socket).exists():
            raise HaulError("its socket is still there")

    def kill(self) -> None:
        """Ends the daemon, however that goes."""
        self.operator.close()
        self.running.stop()


def _pairs(text: str) -> dict[str, int]:
    """The lines that begin with a name and a whole number."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def _resident(proc: Path) -> int:
    for line in (proc / "smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise HaulError("no resident memory in smaps_rollup")


def _cpu_ms(proc: Path) -> int:
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")
