"""Standard output as bytes: values are not text, and a tree is too much for a write per line."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from .failure import ToolError

_CHUNK_BYTES = 64 * 1024

_pending = bytearray()


def put(text: str) -> None:
    """Write text, as the bytes that it came from."""
    put_bytes(text.encode("utf-8", "surrogateescape"))


def put_bytes(data: bytes) -> None:
    """Write bytes; they appear at the next ``flush``, or sooner."""
    _pending.extend(data)
    if len(_pending) >= _CHUNK_BYTES:
        flush()


def flush() -> None:
    """Make everything written visible now."""
    if not _pending:
        return
    data = bytes(_pending)
    _pending.clear()
    if sys.stdout is None:
        raise ToolError("standard output is closed")
    stream = sys.stdout.buffer
    # An unbuffered interpreter has a stream here that may take less than it is given.
    try:
        while data:
            data = data[stream.write(data) :]
        stream.flush()
    except OSError:
        _discard(stream)
        raise


def _discard(stream: BinaryIO) -> None:
    """What could not be written must not be tried again when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
