"""Our engine in process, measured by a process of its own: times, and counts of instructions."""

from collections.abc import Sequence


class AbsentError(Exception):
    """What counts instructions is not installed."""


class EngineError(Exception):
    """The measuring process failed."""


def timed(args: Sequence[str], cpu: int) -> dict[str, object]:
    """Nanoseconds, by the engine's own clock."""
    raise AbsentError("not yet")


def counted(args: Sequence[str], cpu: int) -> dict[str, object]:
    """Instructions, by valgrind."""
    raise AbsentError("not yet")
