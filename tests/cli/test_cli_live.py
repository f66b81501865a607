"""Every tool against a running server."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from toolrun import Result

from xsd.client import requests
from xsd.client.perms import Permission
from xsd.client.sync import Client

Run = Callable[..., Result]
SECONDS = 20.0


def fill(store: Client, nodes: dict[str, bytes]) -> None:
    outcomes = list(store.pipeline(requests.write(path, value) for path, value in nodes.items()))
    assert outcomes == [None] * len(nodes)


def tree(run: Run, path: str = "/t") -> list[str]:
    result = run("xsd", "ls", "-fp", path)
    assert (result.status, result.err) == (0, "")
    return [entry.replace("   (", " (") for entry in result.out.decode().splitlines()]


def test_read(store: Client, run: Run) -> None:
    """Values come escaped, raw, or after their path."""
    fill(store, {"/t/a": b"one\n\xff", "/t/b": b""})
    assert run("xsd", "read", "/t/a") == Result(0, b"one\\n\\xff\n", "")
    assert run("xenstore-read", "-R", "/t/a", "/t/b") == Result(0, b"one\n\xff", "")
    assert run("xenstore", "read", "-p", "/t/a", "/t/b") == Result(
        0, b"/t/a: one\\n\\xff\n/t/b: \n", ""
    )


def test_read_missing(store: Client, run: Run) -> None:
    """What was read before the first missing node is shown, what comes after it is not."""
    fill(store, {"/t/a": b"1", "/t/c": b"3"})
    assert run("xenstore-read", "/t/a", "/t/b", "/t/c") == Result(
        1, b"1\n", "xenstore-read: couldn't read path /t/b: no such node (ENOENT)\n"
    )


def test_read_bad_path(store: Client, run: Run) -> None:
    """The message says what is wrong with the path and what was expected."""
    assert run("xsd", "read", "/t//a").err == (
        "xsd: couldn't read path /t//a: "
        "not a valid path, it contains //, expected one / between names (EINVAL)\n"
    )


def test_relative_path(store: Client, run: Run) -> None:
    """A path without leading slash belongs to the domain of the server."""
    assert run("xsd", "write", "t-relative", "here") == Result(0, b"", "")
    assert run("xsd", "read", "/local/domain/0/t-relative") == Result(0, b"here\n", "")
    assert run("xsd", "rm", "t-relative") == Result(0, b"", "")


def test_write(store: Client, run: Run) -> None:
    """Escapes are undone unless raw; bytes that are no text pass through."""
    assert run("xenstore-write", "/t/a", "x\\x41\\n", "/t/b", os.fsdecode(b"\xff")).status == 0
    assert [store.read("/t/a"), store.read("/t/b")] == [b"xA\n", b"\xff"]
    assert run("xsd", "write", "-R", "--", "/t/a", "-\\n").status == 0
    assert store.read("/t/a") == b"-\\n"


def test_write_is_one_transaction(store: Client, run: Run) -> None:
    """When one of several pairs fails none is written."""
    result = run("xsd", "write", "/t/a", "1", "/t/b//c", "2")
    assert result.status == 1
    assert result.err.startswith("xsd: could not write path /t/b//c: not a valid path")
    assert store.exists("/t/a") is False


def test_write_odd(store: Client, run: Run) -> None:
    """A path without value is named."""
    assert run("xsd", "write", "/t/a", "1", "/t/b").err.startswith(
        "xsd: expected a value for each path, the last path '/t/b' has none\n"
    )


def test_write_too_big(store: Client, run: Run) -> None:
    """A value that cannot be sent is refused without a word to the server."""
    result = run("xsd", "write", "/t/a", "x" * 4096)
    assert result == Result(
        1,
        b"",
        "xsd: could not write path /t/a: "
        "too large: path and value together may have 4095 bytes (E2BIG)\n",
    )


def test_exists(store: Client, run: Run) -> None:
    """The status says whether all exist; nothing is printed."""
    fill(store, {"/t/a": b"", "/t/b": b""})
    assert run("xsd", "exists", "/t/a", "/t/b") == Result(0, b"", "")
    assert run("xsd", "exists", "/t/a", "/t/c", "/t/b") == Result(1, b"", "")
    assert run("xsd", "exists", "/t//a") == Result(1, b"", "")


def test_rm(store: Client, run: Run) -> None:
    """A node goes with all below it; one missing below an existing parent is no error."""
    fill(store, {"/t/a/b/c": b"", "/t/d": b"", "/t/e": b""})
    assert run("xsd", "rm", "/t/a", "/t/d", "/t/nothing") == Result(0, b"", "")
    assert store.ls("/t") == ["e"]


def test_rm_fails_as_a_whole(store: Client, run: Run) -> None:
    """When one of several paths cannot be removed none is."""
    fill(store, {"/t/a": b""})
    assert run("xsd", "rm", "/t/a", "/t/x/y") == Result(
        1,
        b"",
        "xsd: could not remove path /t/x/y: neither it nor its parent exists (ENOENT)\n",
    )
    assert store.exists("/t/a") is True


def test_rm_tidy(store: Client, run: Run) -> None:
    """Parents left without children and value go too; the first other one stops it."""
    fill(store, {"/t/v": b"value", "/t/v/a/b/c": b"", "/t/x/y/1": b"", "/t/x/y/2": b""})
    assert run("xsd", "rm", "-t", "/t/v/a/b/c", "/t/x/y/1").status == 0
    assert [entry.split(" ")[0] for entry in tree(run)] == ["/t/v", "/t/x", "/t/x/y", "/t/x/y/2"]
    assert run("xsd", "rm", "-t", "/t/x/y/2").status == 0
    assert store.ls("/t") == ["v"]


def test_list(store: Client, run: Run) -> None:
    """One name per line, or full paths; below the root without a double slash."""
    fill(store, {"/t/a": b"", "/t/b/c": b""})
    assert run("xsd", "list", "/t", "/t/b") == Result(0, b"a\nb\nc\n", "")
    assert run("xsd", "list", "-p", "/t") == Result(0, b"/t/a\n/t/b\n", "")
    assert b"\n/t\n" in b"\n" + run("xsd", "list", "-p", "/").out


def test_list_missing(store: Client, run: Run) -> None:
    """What was listed before the failure is shown."""
    fill(store, {"/t/a": b""})
    assert run("xsd", "list", "/t", "/t/b", "/t") == Result(
        1, b"a\n", "xsd: could not list path /t/b: no such node (ENOENT)\n"
    )


def test_chmod(store: Client, run: Run) -> None:
    """The node alone, with -r what is below, with -u what is above."""
    fill(store, {"/t/a/b/c": b"", "/t/a/d": b""})
    assert run("xsd", "chmod", "/t/a/b", "n0", "r1").status == 0
    assert run("xsd", "chmod", "-r", "/t/a/b", "n0", "w2", "b3").status == 0
    assert tree(run) == [
        '/t/a = "" (n0)',
        '/t/a/b = "" (n0,w2,b3)',
        '/t/a/b/c = "" (n0,w2,b3)',
        '/t/a/d = "" (n0)',
    ]
    assert run("xsd", "chmod", "-u", "/t/a/b", "r0").status == 0
    assert tree(run) == [
        '/t/a = "" (r0)',
        '/t/a/b = "" (r0)',
        '/t/a/b/c = "" (n0,w2,b3)',
        '/t/a/d = "" (n0)',
    ]
    assert store.get_perms("/t") == [Permission("r", 0)]
    assert store.get_perms("/") != [Permission("r", 0)]


def test_chmod_missing(store: Client, run: Run) -> None:
    """The path that could not be changed is named."""
    complaint = (
        "xsd: Error occurred setting permissions on '/t/x': "
        "no such node, or the owner is no such domain (ENOENT)\n"
    )
    store.mkdir("/t")
    assert run("xsd", "chmod", "/t/x", "n0") == Result(1, b"", complaint)


def test_ls(store: Client, run: Run) -> None:
    """A tree without a terminal is 80 columns wide; with full paths it has no width."""
    fill(store, {"/t/a/b": b"x" * 100, "/t/c": b"\x00"})
    assert run("xsd", "ls", "/t") == Result(
        0, b'a = ""\n b = "' + b"x" * 70 + b'\\..."\nc = "\\000"\n', ""
    )
    assert tree(run) == ['/t/a = "" (n0)', f'/t/a/b = "{"x" * 100}" (n0)', '/t/c = "\\000" (n0)']


def test_ls_missing(store: Client, run: Run) -> None:
    """The path that could not be listed is named; trees before it are shown."""
    fill(store, {"/t/a": b"1"})
    assert run("xsd", "ls", "/t", "/t/x") == Result(
        1, b'a = "1"\n', "xsd: could not list path /t/x: no such node (ENOENT)\n"
    )


def test_ls_large(store: Client, run: Run) -> None:
    """50 000 nodes and a directory of 3000 children come out complete, in order, once each."""
    fill(store, {f"/t/deep/{n // 500}/{n // 10}/key{n % 10}": b"%d" % n for n in range(44900)})
    fill(store, {f"/t/wide/a-child-with-a-long-name-{n:05d}": b"" for n in range(3000)})
    wide = run("xsd", "list", "/t/wide").out.decode().split()
    assert sorted(wide) == [f"a-child-with-a-long-name-{n:05d}" for n in range(3000)]
    paths = re.findall(rb"^(\S+) = ", run("xsd", "ls", "-f", "/t").out, re.MULTILINE)
    listed = [path.decode() for path in paths]
    assert len(listed) == len(set(listed)) == 44900 + 4490 + 90 + 1 + 3000 + 1
    assert [path.rpartition("/")[2] for path in listed if path.startswith("/t/wide/")] == wide
    known = {"/t"}
    for path in listed:
        assert path.rpartition("/")[0] in known
        known.add(path)


def test_control(store: Client, run: Run) -> None:
    """Answers are printed; a command nobody knows is a failure with a status of its own."""
    assert run("xenstore-control", "check") == Result(0, b"OK\n", "")
    assert run("xsd", "control", "help").out != b""
    unknown = run("xsd", "control", "no-such-command")
    assert (unknown.status, unknown.out) == (3, b"")
    assert unknown.err.startswith("xsd: Command not supported")


def test_watch_number(store: Client, run: Run) -> None:
    """The events at the start count; none at all are asked for with 0."""
    assert run("xsd", "watch", "-n", "2", "/t/a", "t-relative") == Result(
        0, b"/t/a\nt-relative\n", ""
    )
    assert run("xsd", "watch", "-n", "0", "/t/a") == Result(0, b"", "")


def test_watch_bad_path(store: Client, run: Run) -> None:
    """A path that cannot be watched is named."""
    assert run("xsd", "watch", "/t/").err == (
        "xsd: Unable to add watch on /t/: not a valid path, it ends with /, expected a name"
        " (EINVAL)\n"
    )


@contextmanager
def running(
    programs: Path, where: str, *words: str
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """A tool as a process of its own, ended at the latest with the block."""
    process = subprocess.Popen(
        [str(programs / "xsd"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "XENSTORED_PATH": where},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            yield process, process.stdout, process.stderr
        finally:
            process.kill()


def next_line(stream: IO[bytes]) -> bytes:
    assert select.select([stream], [], [], SECONDS)[0], "nothing was printed"
    return os.read(stream.fileno(), 4096)


def test_watch_shows_events_at_once(store: Client, programs: Path, xenstored_socket: str) -> None:
    """Each event is visible before the next one happens; an interrupt ends it without a word."""
    with running(programs, xenstored_socket, "watch", "/t") as (process, out, err):
        assert next_line(out) == b"/t\n"
        store.write("/t/a", b"")
        assert next_line(out) == b"/t/a\n"
        store.write("/t/b", b"")
        assert next_line(out) == b"/t/b\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == -signal.SIGINT
        assert err.read() == b""


def test_reader_goes_away(store: Client, programs: Path, xenstored_socket: str) -> None:
    """A tool whose output nobody reads any more ends without a word."""
    fill(store, {f"/t/{n}": b"x" * 1000 for n in range(300)})
    with running(programs, xenstored_socket, "ls", "-f", "/t") as (process, out, err):
        assert next_line(out).startswith(b"/t/")
        out.close()
        assert process.wait(SECONDS) == -signal.SIGPIPE
        assert err.read() == b""


def test_output_cannot_be_written(store: Client, programs: Path, xenstored_socket: str) -> None:
    """A full disk is an error, not a success with half a value."""
    fill(store, {"/t/a": b"value"})
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [str(programs / "xsd"), "read", "/t/a"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "XENSTORED_PATH": xenstored_socket},
            check=False,
            timeout=SECONDS,
        )
    assert (result.returncode, result.stderr) == (1, b"xsd: No space left on device\n")


@pytest.mark.parametrize("name", ["xenstore-read", "xenstore"])
def test_called_by_its_other_names(
    name: str, store: Client, programs: Path, xenstored_socket: str
) -> None:
    """The name of the file decides which tool it is."""
    fill(store, {"/t/a": b"value"})
    words = [str(programs / name), *(["read"] if name == "xenstore" else []), "/t/a"]
    environ = {**os.environ, "XENSTORED_PATH": xenstored_socket}
    assert subprocess.check_output(words, env=environ, timeout=SECONDS) == b"value\n"
