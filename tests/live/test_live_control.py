"""Control commands on a running daemon, asked by our tool and by Debian's."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from peer import Neighbour, Peer, message
from serving import Daemon

from xsd.client.wire import Op

OK = b"OK\0"
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

COMMANDS = {
    "check", "compact", "help", "log", "logfile", "memreport", "metrics", "print", "quota",
    "quota-soft", "trim", "txn", "watches",
}  # fmt: skip


@pytest.fixture(params=["xsd", "debian"])
def control(
    request: pytest.FixtureRequest, daemon: Daemon, xsd: Run
) -> Callable[..., tuple[int, str]]:
    """Runs a control command; gives exit status and output."""

    def run(*words: str) -> tuple[int, str]:
        if request.param == "xsd":
            done = xsd("control", *words, environ=daemon.environ())
        else:
            done = request.getfixturevalue("tool")("xenstore-control", *words)
        return done.returncode, done.stdout.decode()

    return run


Control = Callable[..., tuple[int, str]]


def test_check(control: Control, neighbour: Neighbour) -> None:
    """The daemon finds itself consistent."""
    assert control("check") == (0, "OK\n")


def test_help(control: Control) -> None:
    """Every command there is has a line."""
    status, out = control("help")
    names = {line.split()[0] for line in out.splitlines() if line}
    assert (status, COMMANDS - names) == (0, set())


def test_unknown_command(control: Control, neighbour: Neighbour) -> None:
    """Status 3; no command at all is status 2."""
    assert control("bogus")[0] == 3
    assert control()[0] == 2
    assert control("check", "now")[0] == 3


def test_print(control: Control, daemon: Daemon) -> None:
    """The text is in the daemon log."""
    since = len(daemon.stderr)
    assert control("print", "hello there") == (0, "OK\n")
    daemon.await_log("control: hello there", since)


def test_log_switches(control: Control) -> None:
    """Switches are shown and switched; there is no log to switch on without a file."""
    assert control("log") == (
        0,
        "Log switch settings:\nobj     : on\nio      : on\nwrl     : off\nacc     : off\n"
        "tdb     : off\n\n",
    )
    assert control("log", "+wrl") == (0, "OK\n")
    assert "wrl     : on\n" in control("log")[1]
    assert control("log", "-wrl") == (0, "OK\n")
    assert control("log", "+none")[0] == 3
    assert control("log", "sideways")[0] == 3
    assert control("log", "on")[0] == 3
    assert control("memreport")[0] == 3


def test_logfile(control: Control, daemon: Daemon, peer: Peer, tmp_path: Path) -> None:
    """A log can be named, stopped and started while the daemon runs."""
    log = tmp_path / "trace"
    assert control("logfile", str(tmp_path / "none" / "trace"))[0] == 3
    assert control("logfile", str(log)) == (0, "OK\n")

    # What is asked in the turn in which the log begins may still be before it.
    def is_written() -> bool:
        assert peer.ask(Op.WRITE, b"/logged\0one") == OK
        return "/logged one" in log.read_text()

    peer.until(is_written)
    assert control("memreport") == (0, "OK\n")
    peer.until(lambda: "memory: " in log.read_text())
    assert control("log", "off") == (0, "OK\n")
    assert peer.ask(Op.WRITE, b"/logged\0two") == OK
    assert control("log", "on") == (0, "OK\n")
    assert peer.ask(Op.WRITE, b"/logged\0three") == OK
    peer.until(lambda: "/logged three" in log.read_text())
    assert "/logged two" not in log.read_text()
    assert control("log", "off") == (0, "OK\n")
    # Nothing may be left for tests that want no log; there is no way back but this.
    assert control("logfile", "/dev/null") == (0, "OK\n")


def test_memreport(control: Control, tmp_path: Path) -> None:
    """A report goes to a file, and a second one behind it."""
    report = tmp_path / "report"
    assert control("memreport", str(report)) == (0, "OK\n")
    lines = report.read_text().splitlines()
    assert len(lines) > 3
    assert [line for line in lines if not re.fullmatch(r"\S.*: +\d+", line)] == []
    assert control("memreport", str(report)) == (0, "OK\n")
    assert len(report.read_text().splitlines()) == 2 * len(lines)
    assert control("memreport", str(tmp_path / "none" / "report"))[0] == 3


def test_quota(control: Control, peer: Peer) -> None:
    """Global quotas are shown and set; a domain's figures and the greatest ones are shown."""
    status, out = control("quota")
    lines = out.strip().splitlines()
    assert (status, lines[0]) == (0, "Quota settings:")
    shown = re.findall(r"^(\S+) *: +(\d+) \S.*$", out, re.MULTILINE)
    assert len(shown) == len(lines) - 1
    assert {("nodes", "1000"), ("watches", "128"), ("transactions", "10")} <= set(shown)
    assert control("quota", "set", "nodes", "1234") == (0, "OK\n")
    assert peer.ask(Op.GET_QUOTA, b"nodes\0") == b"1234\0"
    assert control("quota", "set", "nodes", "1000") == (0, "OK\n")
    for words in (("set", "nodes", "0"), ("set", "bogus", "5"), ("set", "nodes"), ("set",),
                  ("set", "nodes", "-5"), ("set", "nodes", "4294967295"), ("x",), ("70000",),
                  ("max", "-x")):  # fmt: skip
        assert (words, control("quota", *words)[0]) == (words, 3)
    status, out = control("quota", "0")
    assert (status, out.splitlines()[0]) == (0, "Domain 0:")
    assert re.search(r"^nodes +: +\d+ \(max +\d+\)$", out, re.MULTILINE)
    status, out = control("quota", "max")
    assert (status, out.splitlines()[0]) == (0, "Max. seen accounting values:")
    assert control("quota", "max", "-r")[0] == 0
    assert control("quota", "31000")[0] == 3


def test_soft_quota(control: Control, peer: Peer) -> None:
    """The same for figures that are only reported."""
    status, out = control("quota-soft")
    assert (status, out.splitlines()[0]) == (0, "Quota settings:")
    assert re.search(r"^memory +: +2097152 ", out, re.MULTILINE)
    assert control("quota-soft", "set", "memory", "1000000") == (0, "OK\n")
    assert peer.ask(Op.GET_QUOTA, b"soft-memory\0") == b"1000000\0"
    assert control("quota-soft", "set", "memory", "2097152") == (0, "OK\n")


def test_watches(control: Control, peer: Peer) -> None:
    """Every watch has a line: who, path and token, with what cannot be shown escaped."""
    assert peer.ask(Op.WATCH, b"/some/path\0my\ntoken\0") == OK
    status, out = control("watches")
    lines = [line for line in out.splitlines() if "/some/path" in line]
    assert (status, len(lines)) == (0, 1)
    assert re.fullmatch(r"watch A\d+: /some/path my\\ntoken", lines[0])


def test_more_watches_than_an_answer_can_have(control: Control, peer: Peer) -> None:
    """The answer is cut and says so."""
    for number in range(500):
        assert peer.ask(Op.WATCH, b"/many\0token %d\0" % number) == OK
    status, out = control("watches")
    assert (status, len(out) <= 4097) == (0, True)
    assert re.search(r"^\.\.\. and \d+ more lines$", out, re.MULTILINE)
    peer.events.clear()


def test_transactions(control: Control, peer: Peer) -> None:
    """Open transactions of a domain, and what they did."""
    tx = peer.start()
    assert peer.ask(Op.WRITE, b"/in/tx\0x", tx) == OK
    status, out = control("txn", "0")
    assert status == 0
    assert re.search(rf"^transaction {tx} of A\d+: 1 operations$", out, re.MULTILINE)
    assert re.search(r"^  WRITE /in/tx$", out, re.MULTILINE)
    assert control("txn")[0] == 3
    assert control("txn", "x")[0] == 3
    assert peer.ask(Op.TRANSACTION_END, b"F\0", tx) == OK


def test_upkeep(control: Control, neighbour: Neighbour) -> None:
    """trim and compact answer and harm nothing."""
    assert control("trim") == (0, "trimmed\n")
    assert control("compact") == (0, "Compacted\n")


def test_metrics(control: Control, neighbour: Neighbour) -> None:
    """Counters by name, one per line."""
    status, out = control("metrics")
    lines = [line for line in out.splitlines() if line]
    assert (status, len(lines) > 3) == (0, True)
    assert [line for line in lines if not re.fullmatch(r"\S+ \S+", line)] == []
    assert {"connections", "nodes", "domains"} <= {line.split()[0] for line in lines}


def test_many_who_ask_at_once(daemon: Daemon, neighbour: Neighbour) -> None:
    """Commands of one connection are answered in order, in between requests of other kinds."""
    with Peer(daemon.socket) as peer:
        data = b"".join(
            message(Op.CONTROL, b"check\0", req_id=2 * number)
            + message(Op.READ, b"/neighbour/value\0", req_id=2 * number + 1)
            for number in range(100)
        )
        peer.send(data)
        neighbour.works()
        replies = [peer.reply() for _ in range(200)]
    assert [reply.req_id for reply in replies] == list(range(200))
    assert {reply.payload for reply in replies[::2]} == {OK}
    assert {reply.payload for reply in replies[1::2]} <= {b"0", b"1"}
