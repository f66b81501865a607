"""What is wrong with a configuration: one :class:`Fault` per mistake, all shown at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COMMAND_LINE = "command line"
ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake: where it stands and what was expected there.

    ``source`` is a file name, ``command line`` or ``environment``; ``line`` and ``column`` count
    from 1, 0 when there is none; ``key`` is as the user wrote it, empty if no key is at fault.
    """

    source: str
    line: int
    key: str
    problem: str
    column: int = 0

    def __str__(self) -> str:
        place = [self.source]
        if self.line:
            place.append(f"line {self.line}")
        if self.column:
            place.append(f"column {self.column}")
        head = ", ".join(place)
        return f"{head}: {self.key}: {self.problem}" if self.key else f"{head}: {self.problem}"


class ConfigError(Exception):
    """The configuration cannot be used; ``faults`` is never empty."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


def bad_value(shown: str, expected: str, hint: str = "") -> str:
    """The text of a fault about a value, ``shown`` as the user wrote it."""
    return f"bad value {shown}: expected {expected}" + (f" ({hint})" if hint else "")


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """The text of a fault about a name nobody knows, with the nearest known one if it is near."""
    import difflib  # only for who has made a mistake

    near = difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)
    return f"unknown {what}" + (f": did you mean '{near[0]}'?" if near else "")
