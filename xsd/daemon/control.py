"""Control commands: the registry, and the commands themselves.

A command gets the NUL-separated words behind its name and answers with text, to which the
registry adds the closing NUL.  Whether the caller may use CONTROL at all was decided before.
What a command needs of the engine it takes from :class:`EngineView`, of the logs from
:class:`TraceLog`; neither is imported.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from xsd.daemon.options import TRACE_DIRECTORY
from xsd.daemon.quotas import BY_NAME, MAX_QUOTA, NAMES, QUOTAS
from xsd.daemon.text import escaped

_logger = logging.getLogger("xsd.daemon.control")

MAX_ANSWER = 4096
"""Bytes of an answer with its NUL: the payload a message can have."""

MAX_DOMID = 0x7FF4
"""The largest number that can be meant as a domain id in a command."""


class ControlError(Exception):
    """A command failed; ``errno`` is the name of the error on the wire, as ``EINVAL``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.errno = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ControlError) and other.errno == self.errno

    def __hash__(self) -> int:
        return hash(self.errno)


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a command: its words, and the connection that asked (0 if none did)."""

    words: tuple[bytes, ...]
    conn: int


Handler = Callable[[Call], str]
"""Answers a call with text, or raises :class:`ControlError`."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: ``usage`` are its parameters as ``help`` shows them."""

    name: str
    usage: str
    handler: Handler


class ControlRegistry:
    """The commands by name; ``help`` is there from the start."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}
        self.register("help", "", self._help)

    def register(self, name: str, usage: str, handler: Handler) -> None:
        """Adds a command; raises ValueError if there is one of that name."""
        if name in self._commands:
            raise ValueError(f"control command {name} exists")
        self._commands[name] = Command(name, usage, handler)

    def names(self) -> tuple[str, ...]:
        """The names of all commands, in the order of ``help``."""
        return tuple(command.name for command in self._sorted())

    def dispatch(self, args: Sequence[bytes], conn: int = 0) -> bytes | ControlError:
        """The answer to ``args``, the command's name and its words, without their NULs.

        The answer ends with NUL.  Unknown commands are ``EINVAL``.  A command that fails in a
        way nobody thought of is reported in the log, answers ``EIO`` and harms nothing else.
        """
        name = args[0].decode(errors="replace") if args else ""
        command = self._commands.get(name)
        if command is None:
            return ControlError("EINVAL")
        try:
            text = command.handler(Call(tuple(args[1:]), conn))
        except ControlError as failure:
            return failure
        except Exception:
            _logger.exception("control command %s failed", name)
            return ControlError("EIO")
        answer = text.encode(errors="surrogateescape") + b"\0"
        return answer if len(answer) <= MAX_ANSWER else ControlError("E2BIG")

    def _sorted(self) -> list[Command]:
        # help last: it is the line that the terminal still shows.
        return sorted(self._commands.values(), key=lambda c: (c.name == "help", c.name))

    def _help(self, call: Call) -> str:
        _expect(call, 0)
        return _lines(f"{command.name:<15} {command.usage}" for command in self._sorted())


# -- what commands need ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TransactionView:
    """An open transaction: its id and connection, and what it did so far.

    ``operations`` are pairs of operation and path, the latter as on the wire.
    """

    tx: int
    conn: str
    operations: tuple[tuple[str, bytes], ...]
    quota_reached: bool


class EngineView(Protocol):
    """The few things commands ask of the engine.  Quotas go by their names in ``quotas.py``."""

    def counts(self) -> Mapping[int, Mapping[str, int]]:
        """For each known domid, what is counted for it now, by quota name."""

    def maxima(self) -> Mapping[int, Mapping[str, int]]:
        """The same, the largest figures seen."""

    def quota_max(self, reset: bool) -> Mapping[str, int]:
        """The largest figures seen of any unprivileged domain; ``reset`` forgets them first."""

    def quotas(self, soft: bool) -> Mapping[str, int]:
        """The global quotas that exist; 0 is no limit."""

    def set_quota(self, name: str, value: int, soft: bool) -> None:
        """Sets a global quota."""

    def check(self) -> Sequence[str]:
        """Tests the whole structure; returns a line for each problem found."""

    def watches(self) -> Iterable[tuple[str, bytes, bytes]]:
        """Connection, path and token of every watch."""

    def transactions(self, domid: int) -> Sequence[TransactionView]:
        """The open transactions of a domain."""

    def memory(self) -> Mapping[str, int]:
        """Bytes and counts by what they are used for, in the order to show them."""

    def trim(self) -> None:
        """Drops history that no transaction needs."""

    def compact(self) -> None:
        """Gives unused memory back."""

    def metrics(self) -> str:
        """All counters as text, one per line."""


class TraceLog(Protocol):
    """The part of the access log that commands change."""

    @property
    def enabled(self) -> bool:
        """Whether lines are written at all."""

    def switches(self) -> Mapping[str, bool]:
        """The topics and whether they are written."""

    def set_switch(self, name: str, on: bool) -> None:
        """Switches a topic; raises KeyError if there is no such one."""

    def enable(self, on: bool) -> None:
        """Starts or stops writing; raises OSError if there is nothing to write to."""

    def set_file(self, path: str) -> None:
        """Goes on in another file; raises OSError."""

    def append(self, text: bytes) -> None:
        """Writes a line that no client's request made."""


def register_all(registry: ControlRegistry, engine: EngineView, trace: TraceLog) -> None:
    """Registers every command there is."""
    register_logs(registry, trace)
    register_engine(registry, engine, trace)


# -- logs ------------------------------------------------------------------------------------


def register_logs(registry: ControlRegistry, trace: TraceLog) -> None:
    """Registers the commands that need no engine: print, log, logfile."""

    def show(call: Call) -> str:
        _expect(call, 1)
        text = b"control: " + call.words[0]
        _logger.info("%s", _text(text))
        trace.append(text)
        return "OK"

    def log(call: Call) -> str:
        _expect(call, 0, 1)
        if not call.words:
            switches = trace.switches().items()
            states = (f"{name:<8}: {'on' if state else 'off'}" for name, state in switches)
            return "Log switch settings:\n" + _lines(states)
        word = _word(call, 0)
        try:
            if word in ("on", "off"):
                trace.enable(word == "on")
            elif word[:1] in ("+", "-"):
                trace.set_switch(word[1:], word[0] == "+")
            else:
                raise ControlError("EINVAL")
        except KeyError:
            raise ControlError("EINVAL") from None
        except OSError as failure:
            raise _errno_of(failure) from None
        return "OK"

    def logfile(call: Call) -> str:
        _expect(call, 1)
        try:
            trace.set_file(_path(call, 0))
        except OSError as failure:
            raise _errno_of(failure) from None
        return "OK"

    registry.register("print", "<string>", show)
    registry.register("log", "[on|off|+<switch>|-<switch>]", log)
    registry.register("logfile", "<file>", logfile)


# -- engine ----------------------------------------------------------------------------------


def register_engine(registry: ControlRegistry, engine: EngineView, trace: TraceLog) -> None:
    """Registers the commands that ask or change the engine."""

    def check(call: Call) -> str:
        _expect(call, 0)
        for problem in engine.check():
            _logger.error("check: %s", problem)
        return "OK"

    def quota(call: Call) -> str:
        words = call.words
        if words and words[0] == b"set":
            return _set_quota(call, engine, soft=False)
        if words and words[0] == b"max":
            _expect(call, 1, 2)
            reset = len(words) > 1
            if reset and words[1] != b"-r":
                raise ControlError("EINVAL")
            seen = engine.quota_max(reset)
            return "Max. seen accounting values:\n" + _lines(
                f"{name:<17}: {seen[name]:8d}" for name in _known(seen)
            )
        _expect(call, 0, 1)
        return _domain_quotas(_domid(call, 0), engine) if words else _quotas(engine, soft=False)

    def quota_soft(call: Call) -> str:
        if call.words and call.words[0] == b"set":
            return _set_quota(call, engine, soft=True)
        _expect(call, 0)
        return _quotas(engine, soft=True)

    def watches(call: Call) -> str:
        _expect(call, 0)
        return _fitting(
            f"watch {conn}: {_text(path)} {_text(token)}" for conn, path, token in engine.watches()
        )

    def txn(call: Call) -> str:
        _expect(call, 1)
        return _fitting(_transaction_lines(engine.transactions(_domid(call, 0))))

    def memreport(call: Call) -> str:
        _expect(call, 0, 1)
        lines = [f"{name:<24}: {value:12d}" for name, value in engine.memory().items()]
        try:
            if call.words:
                _append_report(_path(call, 0), lines)
            elif not trace.enabled:
                raise ControlError("EINVAL")
            else:
                for line in lines:
                    trace.append(b"memory: " + line.encode())
        except OSError as failure:
            raise _errno_of(failure) from None
        return "OK"

    def trim(call: Call) -> str:
        engine.trim()
        return "trimmed"

    def compact(call: Call) -> str:
        engine.compact()
        return "Compacted"

    def metrics(call: Call) -> str:
        _expect(call, 0)
        return _fitting(engine.metrics().splitlines())

    registry.register("check", "", check)
    registry.register("quota", "[set <name> <val>|<domid>|max [-r]]", quota)
    registry.register("quota-soft", "[set <name> <val>]", quota_soft)
    registry.register("watches", "", watches)
    registry.register("txn", "<domid>", txn)
    registry.register("memreport", "[<file>]", memreport)
    registry.register("trim", "", trim)
    registry.register("compact", "", compact)
    registry.register("metrics", "", metrics)


def _known(figures: Mapping[str, int]) -> list[str]:
    """The names there are, in the order in which quotas are always listed."""
    return [quota.name for quota in QUOTAS if quota.name in figures]


def _quotas(engine: EngineView, soft: bool) -> str:
    values = engine.quotas(soft)
    return "Quota settings:\n" + _lines(
        f"{name:<17}: {values[name]:8d} {BY_NAME[name].what}" for name in _known(values)
    )


def _domain_quotas(domid: int, engine: EngineView) -> str:
    counts = engine.counts().get(domid)
    if counts is None:
        raise ControlError("ENOENT")
    seen = engine.maxima().get(domid, {})
    return f"Domain {domid}:\n" + _lines(
        f"{name:<17}: {counts[name]:8d} (max {seen.get(name, counts[name]):8d})"
        for name in _known(counts)
    )


def _set_quota(call: Call, engine: EngineView, soft: bool) -> str:
    _expect(call, 3)
    name = NAMES.get(_word(call, 1), "")
    if name not in engine.quotas(soft):
        raise ControlError("EINVAL")
    engine.set_quota(name, _number(call, 2, 1, MAX_QUOTA), soft)
    return "OK"


def _transaction_lines(transactions: Sequence[TransactionView]) -> Iterable[str]:
    for view in transactions:
        state = ", quota reached" if view.quota_reached else ""
        yield f"transaction {view.tx} of {view.conn}: {len(view.operations)} operations{state}"
        for operation, path in view.operations:
            yield f"  {operation} {_text(path)}"


def _append_report(path: str, lines: Sequence[str]) -> None:
    # os.open, for the mode and so that a FIFO nobody reads cannot stop the daemon.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    with os.fdopen(fd, "w") as report:
        report.write(_lines(lines))


# -- words and answers -----------------------------------------------------------------------


def _expect(call: Call, *counts: int) -> None:
    if len(call.words) not in counts:
        raise ControlError("EINVAL")


def _word(call: Call, position: int) -> str:
    return call.words[position].decode(errors="replace")


def _number(call: Call, position: int, low: int, high: int) -> int:
    """A decimal number; what is none, or out of range, is EINVAL."""
    word = call.words[position]
    digits = len(str(high))
    if not word.isdigit() or len(word) > digits or not low <= int(word) <= high:
        raise ControlError("EINVAL")
    return int(word)


def _domid(call: Call, position: int) -> int:
    return _number(call, position, 0, MAX_DOMID)


def _path(call: Call, position: int) -> str:
    """A file name; relative ones are below the directory of trace files."""
    word = call.words[position]
    if not word:
        raise ControlError("EINVAL")
    return os.path.join(TRACE_DIRECTORY, os.fsdecode(word))


def _text(data: bytes) -> str:
    return escaped(data).decode()


def _lines(lines: Iterable[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _fitting(lines: Iterable[str]) -> str:
    """As many lines as an answer can have, and a last one that says how many more there are."""
    reserve = 40
    kept: list[str] = []
    size = 0
    left_out = 0
    for line in lines:
        size += len(line.encode()) + 1
        if left_out or size > MAX_ANSWER - reserve:
            left_out += 1
        else:
            kept.append(line)
    if left_out:
        kept.append(f"... and {left_out} more lines")
    return _lines(kept)


_WIRE_NAMES = frozenset(
    (
        "EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO", "EROFS",
        "EBUSY", "EAGAIN", "EPERM",
    )
)  # fmt: skip
"""Errors of the file system that clients have a name for."""


def _errno_of(failure: OSError) -> ControlError:
    name = errno.errorcode.get(failure.errno or 0, "")
    return ControlError(name if name in _WIRE_NAMES else "EIO")
