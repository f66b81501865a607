"""What one source of configuration says: settings with the place that set them."""

from __future__ import annotations

from dataclasses import dataclass, field

from xsd.daemon.faults import Fault, bad_value
from xsd.daemon.kinds import BadValueError, Kind, Value


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and where it was written; ``line`` is 0 outside files, ``key`` as written."""

    value: Value
    source: str
    line: int
    key: str


@dataclass(slots=True)
class Layer:
    """The findings of one source: ``entries`` by row name, faults, and notes for the log."""

    source: str
    entries: dict[str, Entry] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, value: Value, line: int = 0, key: str = "") -> None:
        """Sets a row; the last one wins."""
        self.entries[name] = Entry(value, self.source, line, key or name)

    def fault(self, problem: str, line: int = 0, key: str = "", column: int = 0) -> None:
        self.faults.append(Fault(self.source, line, key, problem, column))

    def put_text(self, name: str, kind: Kind, text: str, line: int = 0, key: str = "") -> None:
        """Sets a row from plain text, or notes the fault; ``key`` is the name to show."""
        try:
            self.put(name, kind.from_text(text), line, key)
        except BadValueError as bad:
            self.fault(bad_value(repr(text), kind.expected, str(bad)), line, key)
