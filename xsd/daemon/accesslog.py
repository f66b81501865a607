"""The access log: what clients did, written by a thread of its own.

::

    main loop ── submit(batch) ──▶ queue, bounded in bytes ──▶ thread: choose, format, write

``submit`` takes a lock, appends one object and is done; it never waits for a disk, and what the
engine noted is looked into only by the thread.  The thread
sleeps while the queue is empty, gathers for a moment when it is not, and then works in small
pieces with a system call after each, so that the main loop gets the interpreter back quickly.
When the queue is full or the disk is, lines are lost and counted and the daemon goes on; the
daemon log says so once when it begins and once, with the number, when it is over.

A line is ``[<date>]  <who> <what> <data>`` with *who* padded to 12 and *what* to 9; to syslog
it goes without the date.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from xsd.daemon import sinks
from xsd.daemon.logs import tell_kept
from xsd.daemon.requests import Block
from xsd.daemon.settings import AccessLogSettings
from xsd.daemon.table import ACCESS_SWITCHES
from xsd.daemon.text import cut, escaped, stamp

_logger = logging.getLogger("xsd.daemon.accesslog")

Record = tuple[int, str, int, str, bytes]
"""One line to be: time in ns since 1970, connection, transaction id or 0, what, payload.

The connection is ``D<domid>`` or ``A<number of the socket connection>``; *what* is one of
:data:`WORDS`, other words are always written.
"""

MAX_QUEUE_BYTES = 8 << 20
"""Bytes of lines that wait for the disk at most."""

RECORD_BYTES = 200
"""What a record is reckoned to cost beside its payload."""

GATHER_SECONDS = 0.05
"""How long the thread waits for more before it writes."""

SETTLE_SECONDS = 5.0
"""How long nothing must have been lost before the trouble is called over."""

PIECE = 64
"""Lines formatted between two system calls."""

PAUSE_SECONDS = 0.0001
"""How long the thread rests after a piece, so that it takes no long turns on a busy processor.

When the queue is filling or somebody waits it does not rest, but gives the processor away. Where
both are scheduled in real time, on one processor, the main loop would have to wait for a tenth of
a second otherwise.
"""

_READ = ("directory", "read", "getperms")
_TRANSACTION = ("t start", "t end")
_SPECIAL = ("introduce", "release", "getdomain", "is introduced", "resume")
_REQUEST = (
    "watch", "unwatch", "write", "mkdir", "rm", "setperms", "reset watches", "settarget",
    "debug", "error", "w event", "w notfired", "invalid", "commit", "conflict", "coalesce",
)  # fmt: skip

WORDS: dict[str, tuple[str, str]] = (
    dict.fromkeys(_READ, ("io", "read"))
    | dict.fromkeys(_TRANSACTION, ("io", "transaction"))
    | dict.fromkeys(_SPECIAL, ("io", "special"))
    | dict.fromkeys(_REQUEST, ("io", ""))
    | dict.fromkeys(("newconn", "endconn"), ("obj", ""))
    | {"credit": ("wrl", ""), "quota": ("acc", ""), "tree": ("tdb", "")}
)
"""Each *what* with the switch it belongs to and the setting it needs."""

_ENOENT = b"ENOENT"

NOTE = "note"
"""The *what* of lines that the daemon adds by itself."""


def wanted_words(switches: Sequence[str], gates: Sequence[str]) -> frozenset[str]:
    """The *what* words that are written; ``gates`` are those of read, transaction, special."""
    return frozenset(
        word
        for word, (switch, gate) in WORDS.items()
        if switch in switches and (not gate or gate in gates)
    )


def format_line(record: Record, max_chars: int = 0, with_date: bool = True) -> bytes:
    """The record as one line with its newline, cut to ``max_chars`` bytes unless that is 0."""
    time_ns, who, tx, what, data = record
    name = f"{who}.{tx}" if tx else who
    date = f"[{stamp(time_ns)}]  " if with_date else ""
    head = f"{date}{name:<12} {what:<9} ".encode(errors="replace")
    # What cannot survive the cut need not be escaped first.
    shown = data[:max_chars] if max_chars else data
    return cut(head + escaped(shown) + b"\n", max_chars)


Batch = Sequence[Record] | Block | bytes


@dataclass(frozen=True, slots=True)
class _Queued:
    """A batch, its reckoned size, and what was wanted when it came."""

    batch: Batch
    size: int
    wanted: frozenset[str]


class AccessLog:
    """The access log of one daemon.

    The thread starts with the first :meth:`submit`, so that a daemon that still has to fork may
    make the object before.  Raises OSError if the file cannot be opened.  All methods may be
    called from any thread.
    """

    def __init__(
        self,
        settings: AccessLogSettings,
        *,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        gather_seconds: float = GATHER_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._max_bytes = max_queue_bytes
        self._gather = gather_seconds
        self._settle = settle_seconds
        self._monotonic = monotonic

        self._gates = tuple(
            gate
            for gate, is_on in (
                ("read", settings.read_ops),
                ("transaction", settings.transaction_ops),
                ("special", settings.special_ops),
            )
            if is_on
        )
        self._switches = {name: name in settings.switches for name in ACCESS_SWITCHES}
        self._wanted: frozenset[str] = frozenset()
        self._sink = self._open(settings.file) if settings.file else None
        self._enabled = self._sink is not None and settings.active
        self._choose()

        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._queue: deque[_Queued] = deque()
        self._bytes = 0
        self._hurry = False
        self._worked = 0
        self._reopens = 0
        self._stop = False
        self._replaced: list[sinks.Sink] = []
        # The trouble that is going on: lines lost in it, when the last one was.
        self._lost = 0
        self._lost_total = 0
        self._lost_at = 0.0
        self._writable = True

    # -- what the main loop calls ------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether lines are written at all; if not, there is no need to submit any."""
        return self._enabled

    @property
    def wanted(self) -> frozenset[str]:
        """The words of :data:`WORDS` that are written now; empty when nothing is."""
        return self._wanted

    @property
    def lost_total(self) -> int:
        """Lines lost since the start."""
        return self._lost_total

    def submit(self, batch: Batch) -> None:
        """Hands over records, or lines that are formatted already; never blocks.

        Records are chosen by ``wanted``, formatted lines are all written.  The batch must not be
        changed afterwards.
        """
        if not self._enabled or not batch:
            return
        if isinstance(batch, bytes):
            size = len(batch)
        elif isinstance(batch, Block):
            size = len(batch.data)
        else:
            size = len(batch) * RECORD_BYTES + sum([len(record[4]) for record in batch])
        with self._changed:
            if self._bytes + size <= self._max_bytes and not self._stop:
                was_empty = not self._queue
                self._queue.append(_Queued(batch, size, self._wanted))
                self._bytes += size
                if self._bytes > self._max_bytes // 2:
                    self._hurry = True
                if was_empty or self._hurry:
                    self._changed.notify_all()
                if self._thread is None:
                    self._start()
                return
        if isinstance(batch, bytes):
            lines = max(1, batch.count(b"\n"))
        else:
            lines = self._count(batch, self._wanted)
        if lines:
            self._lose(lines, "the queue is full")

    def append(self, text: bytes) -> None:
        """Writes a line that no client's request made, whatever is switched off."""
        self.submit([(time.time_ns(), "=======>", 0, NOTE, text)])

    # -- what signals and control commands call ----------------------------------------------

    def reopen(self) -> None:
        """Goes on in whatever now has the file's name, after what is queued was written."""
        with self._changed:
            if self._thread is None:
                if self._sink is not None:
                    tell_kept(self._sink.reopen())
                return
            self._reopens += 1
            self._hurry = True
            self._changed.notify_all()

    def hand_over(self, uid: int, gid: int) -> None:
        """Gives the file to a user, who is to go on; at the start.  Raises OSError."""
        if self._sink is not None:
            self._sink.hand_over(uid, gid)

    def set_file(self, path: str) -> None:
        """Goes on in another file, now; raises OSError, and nothing changes, if it cannot."""
        fresh = self._open(path)
        with self._changed:
            if self._sink is not None:
                self._replaced.append(self._sink)
            self._sink = fresh
            if self._thread is None:
                self._close_replaced()
        self.enable(True)

    def enable(self, on: bool) -> None:
        """Starts or stops writing; raises OSError when there is no file to write to."""
        if on and self._sink is None:
            raise FileNotFoundError(errno.ENOENT, "no access log file is named")
        self._enabled = on
        self._choose()

    def switches(self) -> dict[str, bool]:
        """The topics, and whether each is written."""
        return dict(self._switches)

    def set_switch(self, name: str, on: bool) -> None:
        """Switches a topic; raises KeyError if there is no such one."""
        if name not in self._switches:
            raise KeyError(name)
        self._switches[name] = on
        self._choose()

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until what was submitted is written or lost and what was asked for is done.

        False if that took too long.
        """
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not (self._bytes or self._reopens), timeout_seconds
            )

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Writes what is queued and ends the thread.

        A thread that a disk holds is left alone after the timeout; it does not keep the process.
        """
        with self._changed:
            self._stop = self._hurry = True
            self._changed.notify_all()
            thread = self._thread
        self._enabled = False
        self._choose()
        if thread is not None:
            thread.join(timeout_seconds)
            if thread.is_alive():
                _logger.error("access log: not finished, the last lines may be missing")
                return
        if self._sink is not None:
            self._sink.close()

    # -- the thread --------------------------------------------------------------------------

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="accesslog", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._queue or self._stop or self._reopens or self._replaced):
                    if not self._changed.wait(self._patience()):
                        break
                if self._queue and not self._hurry:
                    self._changed.wait_for(lambda: self._hurry, self._gather)
                taken, self._queue = self._queue, deque()
                reopens = self._reopens
                stop = self._stop
                self._hurry = False
                sink = self._sink
            for queued in taken:
                if sink is not None:
                    self._write(sink, queued)
                with self._changed:
                    self._bytes -= queued.size
                    if not self._bytes:
                        self._changed.notify_all()
            if reopens and sink is not None:
                tell_kept(sink.reopen())
            with self._changed:
                self._reopens -= reopens
                self._close_replaced()
                self._changed.notify_all()
            self._settled()
            if stop and not self._queue:
                return

    def _patience(self) -> float | None:
        """Seconds until a trouble may be called over; None if none is going on, or it still is."""
        if not self._lost or not self._writable:
            return None
        return max(0.0, self._lost_at + self._settle - self._monotonic())

    def _write(self, sink: sinks.Sink, queued: _Queued) -> None:
        is_syslog = isinstance(sink, sinks.SyslogSink)
        batch, wanted = queued.batch, queued.wanted
        records = iter(()) if isinstance(batch, bytes) else iter(batch)
        piece: list[Record] = []
        try:
            if isinstance(batch, bytes):
                sink.write([line + b"\n" for line in batch.removesuffix(b"\n").split(b"\n")])
            while taken := list(islice(records, PIECE)):
                piece = [record for record in taken if self._is_wanted(record, wanted)]
                if piece:
                    sink.write(self._format(piece, with_date=not is_syslog))
                self._rest(len(taken))
            self._writable = True
        except sinks.LinesLostError as loss:
            self._writable = False
            self._lose(loss.lost + self._count(records, wanted), loss.reason)
        except Exception:
            # A record that cannot be formatted is our mistake, and no reason to end the log.
            lost = len(piece) + self._count(records, wanted)
            _logger.exception("access log: a batch of %d lines was dropped", lost)
            self._lost_total += lost

    def _rest(self, done: int) -> None:
        """After a piece of work, of however many batches it was made."""
        self._worked += done
        if self._worked >= PIECE:
            self._worked = 0
            if self._hurry:
                os.sched_yield()
            else:
                time.sleep(PAUSE_SECONDS)

    def _count(self, records: Iterable[Record], wanted: frozenset[str]) -> int:
        return sum(self._is_wanted(record, wanted) for record in records)

    def _format(self, records: Sequence[Record], with_date: bool) -> list[bytes]:
        max_chars = self._settings.max_chars
        return [format_line(record, max_chars, with_date) for record in records]

    def _is_wanted(self, record: Record, wanted: frozenset[str]) -> bool:
        what = record[3]
        if what == "error" and "read" not in self._gates and record[4].startswith(_ENOENT):
            # The usual answer to looking whether something is there.
            return False
        return what in wanted or what not in WORDS

    # -- common ------------------------------------------------------------------------------

    def _open(self, target: str) -> sinks.Sink:
        if target.startswith(sinks.SYSLOG_PREFIX):
            return sinks.SyslogSink(target, sinks.SYSLOG_INFO)
        path = os.path.abspath(target)
        return sinks.FileSink(path, self._settings.max_lines, self._settings.max_files)

    def _choose(self) -> None:
        switches = [name for name, is_on in self._switches.items() if is_on]
        self._wanted = wanted_words(switches, self._gates) if self._enabled else frozenset()

    def _close_replaced(self) -> None:
        while self._replaced:
            self._replaced.pop().close()

    def _lose(self, lines: int, reason: str) -> None:
        with self._changed:
            is_first = not self._lost
            self._lost += lines
            self._lost_total += lines
            self._lost_at = self._monotonic()
        if is_first:
            _logger.warning("access log: lines are being lost: %s", reason)

    def _settled(self) -> None:
        """Ends a trouble when lines are written again and none was lost for a while."""
        with self._changed:
            if not self._lost or not self._writable:
                return
            if self._monotonic() - self._lost_at < self._settle:
                return
            lost, self._lost = self._lost, 0
        _logger.warning("access log: complete again, %d lines were lost", lost)
