"""How log lines are written: dates, escapes, and where long lines are cut."""

from __future__ import annotations

import functools
import time

_SPELLED = {0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0D: b"\\r", 0x22: b'\\"', 0x5C: b"\\\\"}
_PRINTABLE = range(0x20, 0x7F)

_ESCAPES = [
    _SPELLED.get(byte) or (bytes((byte,)) if byte in _PRINTABLE else b"\\%03d" % byte)
    for byte in range(256)
]
_PLAIN = bytes(byte for byte in range(256) if _ESCAPES[byte] == bytes((byte,)))

_ENDING = b"..\n"


def escaped(data: bytes) -> bytes:
    """``data`` on one line of printable ASCII: NUL as blank, the rest with backslashes.

    Payloads separate their strings by NUL; a blank reads better than \\000.
    """
    data = data.replace(b"\0", b" ")  # nearly all payloads have one, and most nothing worse
    if not data.translate(None, _PLAIN):
        return data
    return b"".join([_ESCAPES[byte] for byte in data])


def printable(text: str) -> str:
    """``text`` with everything that could end a line or drive a terminal escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(line: bytes, max_chars: int) -> bytes:
    """``line``, with its line end at most ``max_chars`` bytes long; 0 is no limit.

    A line that was longer ends in two dots.
    """
    if not 0 < max_chars < len(line):
        return line
    return line[: max(0, max_chars - len(_ENDING))] + _ENDING


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H:%M:%S", time.gmtime(seconds))


@functools.lru_cache(maxsize=4)
def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


def stamp(time_ns: int) -> str:
    """The time, in nanoseconds since 1970, as ``YYYYMMDDThh:mm:ss.mmmZ`` in UTC."""
    return _stamp(time_ns // 1_000_000)
