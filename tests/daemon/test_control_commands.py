"""Control commands: their answers to the byte, and what each refuses."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xsd.daemon import control
from xsd.daemon.accesslog import AccessLog
from xsd.daemon.config import load
from xsd.daemon.control import ControlError, ControlRegistry, TransactionView
from xsd.daemon.quotas import QUOTAS

EINVAL = ControlError("EINVAL")


@dataclass(slots=True)
class FakeEngine:
    """An engine with figures a test can choose."""

    hard: dict[str, int] = field(default_factory=lambda: {q.name: q.hard for q in QUOTAS})
    soft: dict[str, int] = field(default_factory=lambda: {"memory": 2097152})
    problems: list[str] = field(default_factory=list)
    watch_list: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    open_transactions: list[TransactionView] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def counts(self) -> Mapping[int, Mapping[str, int]]:
        return {7: {"memory": 132, "nodes": 3, "watches": 0}}

    def maxima(self) -> Mapping[int, Mapping[str, int]]:
        return {7: {"nodes": 12345, "memory": 200}}

    def quota_max(self, reset: bool) -> Mapping[str, int]:
        return {"nodes": 0 if reset else 9, "memory": 1}

    def quotas(self, soft: bool) -> Mapping[str, int]:
        return self.soft if soft else self.hard

    def set_quota(self, name: str, value: int, soft: bool) -> None:
        (self.soft if soft else self.hard)[name] = value

    def check(self) -> Sequence[str]:
        return self.problems

    def watches(self) -> Iterable[tuple[str, bytes, bytes]]:
        return self.watch_list

    def transactions(self, domid: int) -> Sequence[TransactionView]:
        return self.open_transactions if domid == 7 else []

    def memory(self) -> Mapping[str, int]:
        return {"nodes": 5, "watches": 60}

    def trim(self) -> None:
        self.calls.append("trim")

    def compact(self) -> None:
        self.calls.append("compact")

    def metrics(self) -> str:
        return "requests 1\nevents 2\n"


@dataclass(slots=True)
class FakeTrace:
    """An access log that remembers what it was told."""

    enabled: bool = True
    state: dict[str, bool] = field(default_factory=lambda: {"obj": True, "wrl": False})
    file: str = ""
    lines: list[bytes] = field(default_factory=list)
    failure: OSError | None = None

    def switches(self) -> Mapping[str, bool]:
        return self.state

    def set_switch(self, name: str, on: bool) -> None:
        if name not in self.state:
            raise KeyError(name)
        self.state[name] = on

    def enable(self, on: bool) -> None:
        if self.failure:
            raise self.failure
        self.enabled = on

    def set_file(self, path: str) -> None:
        if self.failure:
            raise self.failure
        self.file = path

    def append(self, text: bytes) -> None:
        self.lines.append(text)


@pytest.fixture
def engine() -> FakeEngine:
    """An engine."""
    return FakeEngine()


@pytest.fixture
def trace() -> FakeTrace:
    """An access log."""
    return FakeTrace()


@pytest.fixture
def registry(engine: FakeEngine, trace: FakeTrace) -> ControlRegistry:
    """All commands."""
    made = ControlRegistry()
    control.register_all(made, engine, trace)
    return made


def ask(registry: ControlRegistry, text: str) -> str | ControlError:
    """The answer to a command line, without its NUL, which must be there."""
    answer = registry.dispatch([word.encode() for word in text.split()])
    if isinstance(answer, ControlError):
        return answer
    assert answer.endswith(b"\0")
    assert answer.count(b"\0") == 1
    return answer[:-1].decode()


def test_help(registry: ControlRegistry) -> None:
    """A line per command, its parameters in column 17; xenstore-control prints this."""
    assert ask(registry, "help") == (
        "check           \n"
        "compact         \n"
        "log             [on|off|+<switch>|-<switch>]\n"
        "logfile         <file>\n"
        "memreport       [<file>]\n"
        "metrics         \n"
        "print           <string>\n"
        "quota           [set <name> <val>|<domid>|max [-r]]\n"
        "quota-soft      [set <name> <val>]\n"
        "trim            \n"
        "txn             <domid>\n"
        "watches         \n"
        "help            \n"
    )


def test_quota(registry: ControlRegistry) -> None:
    """Name, value and what it counts, in columns."""
    answer = ask(registry, "quota")
    assert isinstance(answer, str)
    assert answer.splitlines()[:3] == [
        "Quota settings:",
        "nodes            :     1000 Nodes owned by a domain",
        "watches          :      128 Watches of a domain",
    ]
    assert len(answer.splitlines()) == 1 + len(QUOTAS)
    assert ask(registry, "quota-soft") == (
        "Quota settings:\nmemory           :  2097152 Bytes the store keeps for a domain\n"
    )


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("quota set nodes 1500", "nodes", 1500),
        ("quota set path-length 7", "path-max", 7),
        ("quota set permissions 7", "node-permissions", 7),
        ("quota set memory 4294967294", "memory", 4294967294),
    ],
)
def test_quota_set(
    registry: ControlRegistry, engine: FakeEngine, command: str, name: str, value: int
) -> None:
    """A hard quota is set by any of its names."""
    assert ask(registry, command) == "OK"
    assert engine.hard[name] == value


def test_quota_soft_set(registry: ControlRegistry, engine: FakeEngine) -> None:
    """A soft quota is set, if there is one of that name."""
    assert ask(registry, "quota-soft set memory 5") == "OK"
    assert ask(registry, "quota-soft set nodes 5") == EINVAL
    assert (engine.soft, engine.hard["memory"]) == ({"memory": 5}, 2621440)


def test_quota_of_a_domain(registry: ControlRegistry) -> None:
    """Current and largest figures; a domain nobody knows is ENOENT."""
    assert ask(registry, "quota 7") == (
        "Domain 7:\n"
        "nodes            :        3 (max    12345)\n"
        "watches          :        0 (max        0)\n"
        "memory           :      132 (max      200)\n"
    )
    assert ask(registry, "quota 8") == ControlError("ENOENT")


def test_quota_max(registry: ControlRegistry) -> None:
    """The largest figures of all; -r forgets them first."""
    head = "Max. seen accounting values:\n"
    assert ask(registry, "quota max") == (
        f"{head}nodes            :        9\nmemory           :        1\n"
    )
    assert ask(registry, "quota max -r") == (
        f"{head}nodes            :        0\nmemory           :        1\n"
    )


def test_check(
    registry: ControlRegistry, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """OK, and problems in the log."""
    engine.problems = ["a", "b"]
    with caplog.at_level(logging.INFO, "xsd"):
        assert ask(registry, "check") == "OK"
    assert [entry.getMessage() for entry in caplog.records] == ["check: a", "check: b"]


def test_print(
    registry: ControlRegistry, trace: FakeTrace, caplog: pytest.LogCaptureFixture
) -> None:
    """The text is in both logs, and cannot forge lines."""
    with caplog.at_level(logging.INFO, "xsd"):
        assert registry.dispatch([b"print", b"hello\nthere"]) == b"OK\0"
    assert trace.lines == [b"control: hello\nthere"]
    assert [entry.getMessage() for entry in caplog.records] == ["control: hello\\nthere"]


def test_log(registry: ControlRegistry, trace: FakeTrace) -> None:
    """Shows the switches and sets them."""
    assert ask(registry, "log") == "Log switch settings:\nobj     : on\nwrl     : off\n"
    assert [ask(registry, f"log {word}") for word in ("+wrl", "-obj", "off")] == ["OK"] * 3
    assert (trace.state, trace.enabled) == ({"obj": False, "wrl": True}, False)
    assert ask(registry, "log on") == "OK"
    assert trace.enabled


def test_logfile(registry: ControlRegistry, trace: FakeTrace) -> None:
    """A relative name is below the directory of trace files."""
    assert ask(registry, "logfile x.log") == "OK"
    assert trace.file == "/var/lib/xen/xenstore/x.log"
    assert ask(registry, "logfile /x.log") == "OK"
    assert trace.file == "/x.log"


@pytest.mark.parametrize(
    ("number", "name"), [(2, "ENOENT"), (13, "EACCES"), (28, "ENOSPC"), (40, "EIO")]
)
def test_log_that_cannot_be_opened(
    registry: ControlRegistry, trace: FakeTrace, number: int, name: str
) -> None:
    """The error goes to the caller, if clients have a name for it."""
    trace.failure = OSError(number, "text")
    assert ask(registry, "logfile x") == ControlError(name)
    assert ask(registry, "log on") == ControlError(name)


def test_watches(registry: ControlRegistry, engine: FakeEngine) -> None:
    """A line per watch."""
    engine.watch_list = [("A2", b"/local", b"tok\x01"), ("D7", b"@releaseDomain", b"")]
    assert ask(registry, "watches") == ("watch A2: /local tok\\001\nwatch D7: @releaseDomain \n")


def test_answers_that_are_too_long(registry: ControlRegistry, engine: FakeEngine) -> None:
    """A list that does not fit is cut at a line and says how much is missing."""
    engine.watch_list = [("A1", b"/path/%04d" % number, b"t") for number in range(1000)]
    answer = ask(registry, "watches")
    assert isinstance(answer, str)
    lines = answer.splitlines()
    assert 4000 < len(answer) < 4096
    assert lines[-1] == f"... and {1000 - (len(lines) - 1)} more lines"
    registry.register("long", "", lambda call: "x" * 4095)
    registry.register("longer", "", lambda call: "x" * 4096)
    assert ask(registry, "long") == "x" * 4095
    assert ask(registry, "longer") == ControlError("E2BIG")


def test_txn(registry: ControlRegistry, engine: FakeEngine) -> None:
    """What each open transaction did."""
    engine.open_transactions = [
        TransactionView(3, "D7", (("write", b"/a"), ("read", b"/b")), False),
        TransactionView(4, "D7", (), True),
    ]
    assert ask(registry, "txn 7") == (
        "transaction 3 of D7: 2 operations\n"
        "  write /a\n"
        "  read /b\n"
        "transaction 4 of D7: 0 operations, quota reached\n"
    )
    assert ask(registry, "txn 8") == ""


def test_memreport(registry: ControlRegistry, trace: FakeTrace, tmp_path: Path) -> None:
    """Into the log or, appended, a file; without a log EINVAL."""
    report = tmp_path / "report"
    text = "nodes                   :            5\nwatches                 :           60\n"
    assert [ask(registry, f"memreport {report}") for _ in range(2)] == ["OK", "OK"]
    assert report.read_text() == text * 2
    assert ask(registry, "memreport") == "OK"
    assert trace.lines == [b"memory: " + line.encode() for line in text.splitlines()]
    trace.enabled = False
    assert ask(registry, "memreport") == EINVAL
    assert ask(registry, f"memreport {tmp_path}/no/file") == ControlError("ENOENT")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert ask(registry, f"memreport {fifo}") == ControlError("EIO")


def test_full_disk_under_memreport(registry: ControlRegistry) -> None:
    """A full disk is the caller's error."""
    assert ask(registry, "memreport /dev/full") == ControlError("ENOSPC")


def test_the_others(registry: ControlRegistry, engine: FakeEngine) -> None:
    """trim, compact, metrics."""
    assert ask(registry, "trim") == "trimmed"
    assert ask(registry, "compact") == "Compacted"
    assert ask(registry, "metrics") == "requests 1\nevents 2\n"
    assert engine.calls == ["trim", "compact"]


@pytest.mark.parametrize(
    "command",
    [
        "bogus",
        "QUOTA",
        "help me",
        "check it",
        "print",
        "print a b",
        "log sideways",
        "log +nope",
        "log on off",
        "logfile",
        "logfile a b",
        "memreport a b",
        "metrics all",
        "quota x",
        "quota -1",
        "quota 99999",
        "quota 7 8",
        "quota max -x",
        "quota max -r -r",
        "quota set nodes",
        "quota set nodes 0",
        "quota set nodes -1",
        "quota set nodes 4294967295",
        "quota set nodes 99999999999999999999",
        "quota set nodes 1x",
        "quota set nope 5",
        "quota set nodes 10 11",
        "quota-soft 7",
        "quota-soft max",
        "watches all",
        "txn",
        "txn x",
        "mfn 1",
        "live-update -s",
    ],
)
def test_wrong_use(registry: ControlRegistry, command: str) -> None:
    """Unknown commands and wrong parameters are EINVAL, as clients expect."""
    assert ask(registry, command) == EINVAL


@pytest.mark.parametrize(
    "args",
    [
        [],
        [b""],
        [b"\xff\xfe"],
        [b"quota", b"\xff"],
        [b"quota", b""],
        [b"logfile", b""],
        [b"log", b""],
    ],
)
def test_strange_bytes(registry: ControlRegistry, args: list[bytes]) -> None:
    """Bytes that are no text and words that are empty are wrong use, too."""
    assert registry.dispatch(args) == EINVAL


def test_command_that_fails(registry: ControlRegistry, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in a command is reported and harms nobody else."""

    def broken(call: control.Call) -> str:
        raise ZeroDivisionError

    registry.register("broken", "", broken)
    with caplog.at_level(logging.INFO, "xsd"):
        assert ask(registry, "broken") == ControlError("EIO")
    assert [entry.getMessage() for entry in caplog.records] == ["control command broken failed"]
    assert ask(registry, "trim") == "trimmed"


def test_names_are_unique(registry: ControlRegistry) -> None:
    """A second command of a name is a mistake."""
    with pytest.raises(ValueError, match="control command quota exists"):
        registry.register("quota", "", lambda call: "")


def test_with_the_real_access_log(engine: FakeEngine, tmp_path: Path) -> None:
    """The access log is what the commands expect."""
    settings = load([], {}, default_config="/nonexistent").settings.access_log
    log = AccessLog(settings)
    registry = ControlRegistry()
    control.register_all(registry, engine, log)
    assert ask(registry, "log on") == ControlError("ENOENT")
    assert ask(registry, f"logfile {tmp_path}/log") == "OK"
    assert ask(registry, "print hello") == "OK"
    assert ask(registry, "memreport") == "OK"
    log.close()
    assert [line.split("]  ")[1] for line in (tmp_path / "log").read_text().splitlines()] == [
        "=======>     note      control: hello",
        "=======>     note      memory: nodes                   :            5",
        "=======>     note      memory: watches                 :           60",
    ]
