"""The daemon log: the standard library's ``logging`` below the name ``xsd``.

Lines have the form ``[<date>|<level>|<module>] text``; syslog, which adds its own date, gets
``[<module>] text``.  Every line of a message, of a traceback too, carries that prefix.  A log
that cannot be written loses lines; when it can again, the first line says how many.
"""

from __future__ import annotations

import logging

from xsd.daemon import sinks
from xsd.daemon.settings import LogSettings
from xsd.daemon.text import cut, printable, stamp

ROOT = "xsd"

_logger = logging.getLogger(f"{ROOT}.daemon")

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    # Above everything that is ever logged.
    "null": logging.CRITICAL + 1,
}

_SYSLOG_WARNING = 4

_NAMES = (
    # From this level on: the name in the line, the severity for syslog.
    (logging.ERROR, "error", 3),
    (logging.WARNING, "warn", _SYSLOG_WARNING),
    (logging.INFO, "info", 6),
    (logging.NOTSET, "debug", 7),
)


def _level(number: int) -> tuple[str, int]:
    return next((name, severity) for least, name, severity in _NAMES if number >= least)


def format_record(record: logging.LogRecord, max_chars: int, with_date: bool) -> list[bytes]:
    """The lines of one message, each with its newline."""
    name, _ = _level(record.levelno)
    module = record.name.rpartition(".")[2]
    date = stamp(int(record.created * 1_000_000) * 1000)
    prefix = f"[{date}|{name:>5}|{module}] " if with_date else f"[{module}] "
    # What guests choose may be in the message, so its line ends are not believed.
    lines = [printable(record.getMessage())]
    if record.exc_info:
        trace = logging.Formatter().formatException(record.exc_info)
        lines += [printable(line) for line in trace.splitlines()]
    return [cut(f"{prefix}{line}\n".encode(), max_chars) for line in lines]


class SinkHandler(logging.Handler):
    """Writes log messages to a sink and survives whatever happens to it."""

    def __init__(self, sink: sinks.Sink, max_chars: int) -> None:
        super().__init__()
        self.sink = sink
        self.lost = 0
        self._max_chars = max_chars

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one message."""
        is_syslog = isinstance(self.sink, sinks.SyslogSink)
        try:
            lines = format_record(record, self._max_chars, with_date=not is_syslog)
        except Exception:
            # Arguments that do not fit their message: logging's own complaint on stderr.
            self.handleError(record)
            return
        try:
            if self.lost:
                self._write(self._confession(with_date=not is_syslog), logging.WARNING)
                self.lost = 0
            self._write(lines, record.levelno)
        except sinks.LinesLostError as loss:
            self.lost += len(lines) if self.lost else loss.lost

    def _write(self, lines: list[bytes], level: int) -> None:
        if isinstance(self.sink, sinks.SyslogSink):
            self.sink.write_as(lines, _level(level)[1])
        else:
            self.sink.write(lines)

    def _confession(self, with_date: bool) -> list[bytes]:
        text = f"{self.lost} lines of this log were lost"
        record = logging.LogRecord(f"{ROOT}.logs", logging.WARNING, __file__, 0, text, None, None)
        return format_record(record, self._max_chars, with_date)


def tell_kept(trouble: str) -> None:
    """Says that a log stays with the file it had, if there is a reason."""
    if trouble:
        _logger.warning("%s: cannot be opened again, the old file is kept", trouble)


class DaemonLog:
    """The running log; ``reopen`` on SIGHUP, ``close`` at the end."""

    def __init__(self, handler: SinkHandler) -> None:
        self._handler = handler

    @property
    def lost(self) -> int:
        """Lines lost since the log could last be written."""
        return self._handler.lost

    def reopen(self) -> None:
        """Goes on in whatever now has the file's name; in the old file if that cannot be opened."""
        self._handler.acquire()
        try:
            trouble = self._handler.sink.reopen()
        finally:
            self._handler.release()
        tell_kept(trouble)

    def hand_over(self, uid: int, gid: int) -> None:
        """Gives the file to a user, who is to go on; raises OSError."""
        self._handler.sink.hand_over(uid, gid)

    def close(self) -> None:
        """Ends the log; later messages go nowhere."""
        logging.getLogger(ROOT).removeHandler(self._handler)
        self._handler.sink.close()
        self._handler.close()


def setup(settings: LogSettings) -> DaemonLog:
    """Directs everything logged below ``xsd`` to the place the settings name.

    Raises OSError if that is a file that cannot be opened.  Replaces what an earlier call set.
    """
    sink: sinks.Sink
    if settings.file == "stderr":
        sink = sinks.StderrSink()
    elif settings.file.startswith(sinks.SYSLOG_PREFIX):
        sink = sinks.SyslogSink(settings.file, _SYSLOG_WARNING)
    else:
        sink = sinks.FileSink(settings.file, settings.max_lines, settings.max_files)
    handler = SinkHandler(sink, settings.max_chars)
    logger = logging.getLogger(ROOT)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(LEVELS[settings.level])
    # The root logger's handlers belong to whoever embeds us.
    logger.propagate = False
    return DaemonLog(handler)
