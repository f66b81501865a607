"""The access log: its lines, its bounds, and that the daemon never waits for it."""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsd.daemon import accesslog, requests
from xsd.daemon.accesslog import WORDS, AccessLog, Record, format_line, wanted_words
from xsd.daemon.config import load
from xsd.daemon.requests import Block
from xsd.daemon.settings import AccessLogSettings

PATIENCE = 30.0
"""Seconds after which a test gives up; nothing here waits for time to pass."""

TIME = 1_792_153_669_692_999_999
DATE = "20261016T12:27:49.692Z"


def settings_for(path: object, **changes: object) -> AccessLogSettings:
    """The default settings with a file and some changes."""
    arguments = ["--access-log", str(path)]
    plain = load(arguments, {}, default_config="/nonexistent").settings.access_log
    return replace(plain, **changes)  # type: ignore[arg-type]


def quick(settings: AccessLogSettings, max_queue_bytes: int = 1 << 20) -> AccessLog:
    """An access log that neither gathers nor settles."""
    return AccessLog(settings, max_queue_bytes=max_queue_bytes, gather_seconds=0, settle_seconds=0)


def record(what: str, data: bytes = b"", who: str = "A1", tx: int = 0) -> Record:
    """A record of some moment."""
    return (TIME, who, tx, what, data)


@pytest.mark.parametrize(
    ("given_record", "line"),
    [
        (record("newconn"), b"  A1           newconn   \n"),
        (record("write", b"/c xxxx"), b"  A1           write     /c xxxx\n"),
        (record("read", b"/a\0", "D5", 3), b"  D5.3         read      /a \n"),
        (record("w event", b"/a\0tok\0", "D32"), b"  D32          w event   /a tok \n"),
        (record("is introduced", b"1\0"), b"  A1           is introduced 1 \n"),
        (
            record("write", b'/b\0q"\\\t\r\x01\x7f\xc3\xa9z\x08\n'),
            rb"  A1           write     /b q\"\\\t\r\001\127\195\169z\b\n" + b"\n",
        ),
        (record("rm", b"/a", "r(1):A2", 7), b"  r(1):A2.7    rm        /a\n"),
    ],
)
def test_form_of_lines(given_record: Record, line: bytes) -> None:
    """Date, connection, word and payload, in their columns."""
    assert format_line(given_record) == b"[" + DATE.encode() + b"]" + line
    assert format_line(given_record, with_date=False) == line.lstrip()


@pytest.mark.parametrize(
    ("size", "end"),
    [(6, b"xxxxxx\n"), (7, b"xxxxxxx\n"), (8, b"xxxxx..\n"), (5000, b"xxxxx..\n")],
)
def test_long_lines_are_cut(size: int, end: bytes) -> None:
    """At the limit, line end included, the text ends in two dots."""
    line = format_line(record("write", b"/c\0" + b"x" * size), 60)
    assert len(line) <= 60
    assert line.endswith(b"/c " + end)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_payload_is_one_line(data: bytes, max_chars: int) -> None:
    """Nothing a guest sends ends a line or leaves ASCII."""
    line = format_line(record("write", data), max_chars)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line[:-1].isascii()
    assert line[:-1].decode().isprintable()
    assert len(line) <= max(max_chars, 3) or not max_chars


def test_what_is_wanted() -> None:
    """Reads, transactions and special operations each need their setting, all a topic."""
    everything = wanted_words(
        ("obj", "io", "wrl", "acc", "tdb"), ("read", "transaction", "special")
    )
    assert everything == set(WORDS)
    usual = wanted_words(("obj", "io"), ())
    assert everything - usual == {
        *("directory", "read", "getperms", "t start", "t end", "introduce", "release"),
        *("getdomain", "is introduced", "resume", "credit", "quota", "tree"),
    }
    assert wanted_words(("obj",), ("read",)) == {"newconn", "endconn"}


def written(path: Path) -> list[str]:
    """Word and payload of each line."""
    return [line[39:].strip() for line in path.read_text().splitlines()]


def test_records_are_chosen_and_written(tmp_path: Path) -> None:
    """Only what is wanted is written, in order; ENOENT counts as reading."""
    path = tmp_path / "log"
    log = quick(settings_for(path))
    log.submit([record("newconn"), record("read", b"/a"), record("write", b"/a")])
    log.submit([record("error", b"ENOENT"), record("error", b"EACCES"), record("credit", b"x")])
    log.submit(b"[date]  ready made\n[date]  two\n")
    log.append(b"by hand")
    assert log.flush(PATIENCE)
    log.close()
    assert [line.partition("]  ")[2].strip() for line in path.read_text().splitlines()] == [
        "A1           newconn",
        "A1           write     /a",
        "A1           error     EACCES",
        "ready made",
        "two",
        "=======>     note      by hand",
    ]
    assert log.lost_total == 0


def test_the_thread_rests_by_lines_not_by_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn of a single request is a batch: a rest after each would let the thread fall behind."""
    rests = []
    monkeypatch.setattr(accesslog.time, "sleep", rests.append)
    log = AccessLog(settings_for(tmp_path / "log"), gather_seconds=0.05, settle_seconds=0)
    for _ in range(10 * accesslog.PIECE):
        log.submit([record("write", b"/a")])
    written = log.flush(PATIENCE)
    log.close()
    assert written and log.lost_total == 0
    assert len(rests) <= 10


def test_a_thread_in_a_hurry_lets_others_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not rest, but gives the processor away as often as it would."""
    batch = [record("write", b"/a")] * (10 * accesslog.PIECE)
    most = int(1.5 * len(batch) * accesslog.RECORD_BYTES)
    log = AccessLog(settings_for(tmp_path / "log"), max_queue_bytes=most, gather_seconds=0)
    rests, yields, begun = [], [], threading.Event()

    def rest(seconds: float) -> None:
        rests.append(seconds)
        log.submit(batch[:1])  # while the queue is more than half full
        begun.set()

    monkeypatch.setattr(accesslog.time, "sleep", rest)
    monkeypatch.setattr(accesslog.os, "sched_yield", lambda: yields.append(None))
    log.submit(batch)
    assert begun.wait(PATIENCE)
    log.close()
    assert log.lost_total == 0
    assert (len(rests), len(yields)) == (1, 9)


def test_switches(tmp_path: Path) -> None:
    """Topics are switched while the log runs."""
    path = tmp_path / "log"
    log = quick(settings_for(path, read_ops=True))
    assert log.switches() == {"obj": True, "io": True, "wrl": False, "acc": False, "tdb": False}
    log.set_switch("obj", False)
    log.set_switch("wrl", True)
    assert log.wanted == wanted_words(("io", "wrl"), ("read",))
    with pytest.raises(KeyError):
        log.set_switch("nope", True)
    log.submit([record("newconn"), record("credit"), record("error", b"ENOENT")])
    log.close()
    assert written(path) == ["credit", "error     ENOENT"]


def test_off_and_on(tmp_path: Path) -> None:
    """While it is off nothing is wanted and nothing written."""
    path = tmp_path / "log"
    log = quick(settings_for(path))
    log.enable(False)
    assert (log.enabled, log.wanted) == (False, frozenset())
    log.submit([record("write", b"lost on purpose")])
    log.enable(True)
    log.submit([record("write", b"kept")])
    log.close()
    assert written(path) == ["write     kept"]
    assert log.lost_total == 0


def test_without_a_file(tmp_path: Path) -> None:
    """It is off, cannot be switched on, and can be given a file later."""
    log = quick(settings_for(tmp_path / "x", file=""))
    assert not log.enabled
    with pytest.raises(FileNotFoundError):
        log.enable(True)
    log.submit([record("write")])
    log.reopen()
    assert log.flush(PATIENCE)
    log.set_file(str(tmp_path / "log"))
    log.submit([record("write", b"x")])
    log.close()
    assert written(tmp_path / "log") == ["write     x"]


def test_not_active(tmp_path: Path) -> None:
    """--no-access-log leaves it off, until a control command switches it on."""
    log = quick(settings_for(tmp_path / "log", active=False))
    assert not log.enabled
    log.enable(True)
    assert log.enabled
    log.close()


def test_other_file(tmp_path: Path) -> None:
    """After set_file lines go there; a file that cannot be opened changes nothing."""
    log = quick(settings_for(tmp_path / "one"))
    log.submit([record("write", b"1")])
    assert log.flush(PATIENCE)
    with pytest.raises(FileNotFoundError):
        log.set_file(str(tmp_path / "no" / "where"))
    log.submit([record("write", b"2")])
    assert log.flush(PATIENCE)
    log.set_file(str(tmp_path / "two"))
    log.submit([record("write", b"3")])
    log.close()
    assert written(tmp_path / "one") == ["write     1", "write     2"]
    assert written(tmp_path / "two") == ["write     3"]


def test_reopen(tmp_path: Path) -> None:
    """After the file was moved away, lines go to a new one."""
    path = tmp_path / "log"
    log = quick(settings_for(path))
    log.submit([record("write", b"1")])
    assert log.flush(PATIENCE)
    path.rename(tmp_path / "old")
    log.reopen()
    assert log.flush(PATIENCE)
    log.submit([record("write", b"2")])
    log.close()
    assert written(tmp_path / "old") == ["write     1"]
    assert written(path) == ["write     2"]


def test_rotation(tmp_path: Path) -> None:
    """Files have the number of lines they may have, whatever the batches were."""
    path = tmp_path / "log"
    log = quick(settings_for(path, max_lines=100, max_files=3))
    log.submit([record("write", b"%d" % number) for number in range(333)])
    log.close()
    numbers = {
        file.name: [int(line.split()[1]) for line in written(file)] for file in tmp_path.iterdir()
    }
    assert numbers == {
        "log": list(range(300, 333)),
        "log.1": list(range(200, 300)),
        "log.2": list(range(100, 200)),
    }


def test_syslog_target(tmp_path: Path) -> None:
    """The target may be syslog, which is not opened before there is a line."""
    log = quick(settings_for("syslog:local3"))
    assert log.enabled
    log.close()


def test_cannot_be_opened(tmp_path: Path) -> None:
    """A file that cannot be made is an error at start."""
    with pytest.raises(FileNotFoundError):
        quick(settings_for(tmp_path / "no" / "log"))


def noted(*asked: tuple[int, int, bytes]) -> Block:
    """What the engine notes of requests: type, result, payload."""
    header = struct.Struct("=q8I")
    data = b"".join(
        header.pack(0, 7, 0, 0, op, 0, result, len(payload), 0) + payload
        for op, result, payload in asked
    )
    return Block(data, ("", "EINVAL"), 0)


def test_block_of_the_engine(tmp_path: Path) -> None:
    """All requests of a block are written in order, errors behind theirs, however many."""
    path = tmp_path / "log"
    log = quick(settings_for(path))
    count = 5 * accesslog.PIECE + 3
    log.submit(noted(*((11, number % 2, b"%d" % number) for number in range(count))))
    log.submit(noted((2, 0, b"unwanted"), (13, 0, b"last")))
    log.close()
    expected = []
    for number in range(count):
        expected.append(f"write     {number}")
        if number % 2:
            expected.append("error     EINVAL")
    assert written(path) == [*expected, "rm        last"]
    assert log.lost_total == 0


def test_block_is_looked_into_by_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main loop hands a block over as it is."""
    threads = set()
    make = requests._records

    def watched(*words: Any) -> Iterator[accesslog.Record]:
        for each in make(*words):
            threads.add(threading.current_thread().name)
            yield each

    monkeypatch.setattr(requests, "_records", watched)
    log = quick(settings_for(tmp_path / "log"))
    log.submit(noted((11, 0, b"x")))
    log.close()
    assert threads == {"accesslog"}


def test_lost_lines_of_blocks_are_counted(tmp_path: Path) -> None:
    """Those that no disk takes and those for which the queue has no room; no unwanted ones."""
    link = tmp_path / "log"
    link.symlink_to("/dev/full")
    many = noted(*[(11, 0, b"x"), (2, 0, b"unwanted"), (11, 1, b"y")] * 100)
    log = quick(settings_for(link), max_queue_bytes=len(many.data))
    log.submit(noted((2, 0, b"unwanted")))
    assert log.flush(PATIENCE)
    log.submit(many)
    assert log.flush(PATIENCE)
    assert log.lost_total == 300
    log.submit(noted(*[(11, 0, b"x")] * 1000))
    assert log.lost_total == 1300
    log.close()


def test_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lost lines are counted; one warning when it begins, one with their number at the end."""
    link = tmp_path / "log"
    link.symlink_to("/dev/full")
    with caplog.at_level(logging.INFO, "xsd"):
        log = quick(settings_for(link))
        for _ in range(5):
            log.submit([record("write"), record("read"), record("rm")])
            assert log.flush(PATIENCE)
        log.submit(b"one\ntwo\n")
        assert log.flush(PATIENCE)
        link.unlink()
        log.reopen()
        assert log.flush(PATIENCE)
        log.submit([record("write", b"again")])
        log.close()
    assert written(link) == ["write     again"]
    assert log.lost_total == 12
    assert [message.getMessage() for message in caplog.records] == [
        f"access log: lines are being lost: {link}: No space left on device",
        "access log: complete again, 12 lines were lost",
    ]


def test_stuck_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that blocks fills the queue, then lines are lost; submit never waits."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with caplog.at_level(logging.INFO, "xsd"):
        log = quick(settings_for(fifo, max_chars=0), max_queue_bytes=500_000)
        batch = [record("write", b"x" * 1000)] * 20
        unwanted = [record("read", b"y" * 1000)] * 20
        submitted = 0
        # 64 KiB of FIFO and the queue: full after some 30 of these.
        while not log.lost_total:
            assert submitted < 1000
            log.submit(unwanted)
            log.submit(batch)
            submitted += 1
        assert len(caplog.records) == 1
        assert caplog.records[0].getMessage() == (
            "access log: lines are being lost: the queue is full"
        )
        os.set_blocking(reader, True)
        received = bytearray()

        def drain() -> None:
            while data := os.read(reader, 65536):
                received.extend(data)

        drainer = threading.Thread(target=drain)
        drainer.start()
        assert log.flush(PATIENCE)
        log.close()
        drainer.join(PATIENCE)
    os.close(reader)
    assert received.count(b"\n") + log.lost_total == submitted * len(batch)
    assert [message.getMessage() for message in caplog.records][1:] == [
        f"access log: complete again, {log.lost_total} lines were lost"
    ]


def test_close_does_not_wait_for_a_stuck_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the daemon is not put off by its log."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = quick(settings_for(fifo, max_chars=0))
    log.submit([record("write", b"x" * 4000)] * 40)
    with caplog.at_level(logging.INFO, "xsd"):
        log.close(timeout_seconds=0.01)
        assert [message.getMessage() for message in caplog.records] == [
            "access log: not finished, the last lines may be missing"
        ]
        # Lets the thread go: its write fails when nobody reads.
        os.close(reader)
        log.close(PATIENCE)


def test_a_bad_record_does_not_end_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours costs its batch, not the log."""
    path = tmp_path / "log"
    with caplog.at_level(logging.INFO, "xsd"):
        log = quick(settings_for(path))
        log.submit([("no time", "A1", 0, "write", b"")])  # type: ignore[list-item]
        assert log.flush(PATIENCE)
        log.submit([record("write", b"fine")])
        log.close()
    assert written(path) == ["write     fine"]
    assert log.lost_total == 1
    assert [message.getMessage() for message in caplog.records] == [
        "access log: a batch of 1 lines was dropped"
    ]


def test_trouble_is_told_once_when_it_comes_and_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Losses in quick succession are one trouble, over when none came for the settling time."""
    now = [100.0]
    link = tmp_path / "log"
    link.symlink_to("/dev/full")
    with caplog.at_level(logging.INFO, "xsd"):
        log = AccessLog(
            settings_for(link), gather_seconds=0, settle_seconds=5, monotonic=lambda: now[0]
        )
        for target in ("/dev/full", "/dev/null", "/dev/full", "/dev/null"):
            log.set_file(target)
            log.submit([record("write")])
            assert log.flush(PATIENCE)
            now[0] += 1
        assert len(caplog.records) == 1
        now[0] += 10
        log.submit([record("write")])
        log.close()
    assert [message.getMessage() for message in caplog.records][1:] == [
        "access log: complete again, 2 lines were lost"
    ]
