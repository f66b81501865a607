"""The allow list: regressions that are known and accepted, each with a reason and an end.

A line is  PATTERN DATE REASON:  which cases (`*` and `?` as in file names), the last day on which
it excuses, and why. What follows `#` at the start of a line is for people.
"""

from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

from bench.flight.record import BrokenError


@dataclass(frozen=True, slots=True)
class Allowance:
    """One line."""

    pattern: str
    until: date
    """The last day on which it excuses."""
    reason: str
    line: int

    def matches(self, case: str) -> bool:
        """Whether it is about this case."""
        return fnmatchcase(case, self.pattern)

    def expired(self, today: date) -> bool:
        """Whether it excuses no longer."""
        return today > self.until


def parse(text: str, source: str = "allow list") -> list[Allowance]:
    """The lines of an allow list; raises BrokenError, which names the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split(maxsplit=2)
        if len(words) < 3:
            raise BrokenError(f"{source}:{number}: expected PATTERN DATE REASON")
        try:
            until = date.fromisoformat(words[1])
        except ValueError:
            raise BrokenError(f"{source}:{number}: '{words[1]}' is not a date") from None
        found.append(Allowance(words[0], until, words[2].strip(), number))
    return found


def load(path: Path) -> list[Allowance]:
    """The allow list in a file; raises BrokenError."""
    try:
        return parse(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenError(f"{path}: {error}") from error
