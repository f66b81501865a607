"""The commands in README.md work as they stand there, against a daemon that it tells to start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from serving import READY, READY_SECONDS, Drain, clean_environ, program

# Where README.md puts things; tests have places of their own.
STORE, BIN = "/tmp/store", ".venv/bin/xsd"
# Done by whoever prepares the machine, and by the checks of a clean clone.
ELSEWHERE = ("make ", "pip install", "apt-get ")
SECONDS = 60.0


def blocks(text: str, language: str) -> list[str]:
    """The code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def told(text: str, store: Path) -> Iterator[str]:
    """The shell commands of a document, comments gone and places ours."""
    for line in "".join(blocks(text, "sh")).splitlines():
        command = re.sub(r"\s+#.*", "", line).strip()
        if command and not command.startswith(ELSEWHERE):
            yield command.replace(STORE, str(store)).replace(BIN, str(program()))


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    """Ends a process that was started here; its status."""
    process.send_signal(number)
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def first_line(command: str, environ: dict[str, str], where: Path) -> str:
    """What a command that never ends says first."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}" if "=" not in command else f"exec env {command}"],
        cwd=where,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            return process.stdout.readline()
        finally:
            end(process)


def run(command: str, environ: dict[str, str], where: Path) -> tuple[int, str]:
    """Status and errors of a command."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=where,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=SECONDS,
    )
    return done.returncode, done.stderr


def foreign(command: str) -> bool:
    """Whether it is a tool of Debian's that this machine does not have."""
    found = re.search(r"\bxenstore-\w+", command)
    if not found or shutil.which(found[0]):
        return False
    assert not os.environ.get("XSD_REQUIRE_CLIENTS"), f"{found[0]} is not installed"
    return True


def test_commands_of_the_readme_work(tmp_path: Path) -> None:
    """Each command succeeds; watches tell of their path at once; the daemon ends with 0."""
    text = (ROOT / "README.md").read_text()
    environ = clean_environ(PATH=f"{program().parent}:{os.environ['PATH']}")
    commands = list(told(text, tmp_path / "store"))
    daemon_command = next(c for c in commands if "--no-fork" in c)
    daemon = subprocess.Popen(
        ["bash", "-c", f"exec {daemon_command}"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert daemon.stderr is not None
    log = Drain(daemon.stderr.fileno())
    failures = []
    try:
        log.await_text(READY, READY_SECONDS)
        for command in commands:
            if command == daemon_command or foreign(command):
                continue
            if command.startswith("export "):
                pairs = (word.partition("=") for word in command.split()[1:])
                environ |= {name: value for name, _, value in pairs if name != "PATH"}
            elif "watch" in command:
                if (line := first_line(command, environ, tmp_path)) != "/local\n":
                    failures.append((command, line))
            elif (outcome := run(command, environ, tmp_path))[0] != 0:
                failures.append((command, outcome[1]))
        for code in blocks(text, "python"):
            done = subprocess.run(
                [sys.executable, "-P", "-c", code],
                cwd=tmp_path,
                env=environ,
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=SECONDS,
            )
            if done.returncode:
                failures.append((code, str(done.returncode)))
    finally:
        status = end(daemon)
        log.finish(SECONDS)
        daemon.stderr.close()
    assert failures == []
    assert status == 0
    assert len(commands) > 10


def demo(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """``xsd demo``, with its directory below ours."""
    return subprocess.Popen(
        [program(), "demo", *words],
        env=clean_environ(TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_demo_shows_everything_and_ends(tmp_path: Path) -> None:
    """A write and its event, a conflict, the tree, the cost; then nothing is left."""
    with demo(tmp_path, "--once") as process:
        out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    lines = out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")][1:] == [
        "A write, and a watch that tells another client of it",
        "A transaction, and what happens when somebody is faster",
        "The tree, as xsd ls and xenstore-ls show it",
        "What it cost",
    ]
    assert [line.strip() for line in lines if "EAGAIN" in line or "done" in line] == [
        "commit     EAGAIN: what it had read is no longer true",
        "commit     done, the value is 263168",
    ]
    assert '      mac = "00:16:3e:00:00:07"' in [line[2:] for line in lines]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_serves_until_interrupted(tmp_path: Path, number: int) -> None:
    """Its socket answers others; a signal ends it with 0, and its directory is gone."""
    with demo(tmp_path) as process:
        assert process.stdout is not None and process.stderr is not None
        errors = Drain(process.stderr.fileno())
        said = ""
        try:
            while "Debian's tools" not in said and (line := process.stdout.readline()):
                said += line
            socket = re.search(r"XENSTORED_PATH=(\S+)", said)
            assert socket is not None, said + errors.text()
            environ = clean_environ(XENSTORED_PATH=socket[1])
            assert run(f"{program()} read /local/domain/7/name", environ, tmp_path) == (0, "")
        finally:
            status = end(process, number)
            errors.finish(SECONDS)
    assert status == 0
    assert list(tmp_path.iterdir()) == []


def test_the_demo_says_what_is_wrong(tmp_path: Path) -> None:
    """An unknown word is named with what was expected."""
    with demo(tmp_path, "twice") as process:
        _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (
        1,
        "xsd: demo takes --once, got 'twice'\nUsage: xsd demo [-h] [--once]\n",
    )
