"""What running a tool gives."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """What a tool did; ``err`` is text because it is written for people."""

    status: int
    out: bytes
    err: str
