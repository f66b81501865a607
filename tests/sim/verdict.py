"""What it means that engine and oracle disagree."""

from __future__ import annotations


class DifferenceError(AssertionError):
    """Engine and oracle disagree."""


def expect(holds: bool, what: str, *details: object) -> None:
    """Raises DifferenceError, with the details, unless something holds."""
    if not holds:
        raise DifferenceError(what + "".join(f"\n    {detail!r}" for detail in details))
