"""How often each branch was taken, by the lines of our sources.

A build of the flavour "coverage" counts; gcov tells the counts by lines of C. Objects that hold the
same code (inline functions of headers, the library in the programs of tests/csrc) add up.

**Which branches count.** Of csrc: all, but for those of an `xs_assert`, which is meant never to
fail. Of xsd/core: Cython's C says by comments which line of ours it is at, and spells what we wrote
as one of

    if (NAME) {     if (!NAME) {     if (!NAME) break;     if (unlikely(NAME)) {     for (NAME = ...

with a name (a field or a temporary) for the value of a condition: our `if`, `while`, `for` over
numbers, `and`, `or`, `x if y else z`. Only these count, and only in the bodies of our functions.
What else branches there is Cython's own: checks for exceptions, unpacking of arguments, counting
of references, iteration over Python's objects, the start of a module.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = re.compile(r"(csrc/\w+\.[ch]|xsd/core/\w+\.p(yx|xd))")
_AT = re.compile(r'\s*/\* "(xsd/[\w/]+\.p(?:yx|xd))":(\d+)$')
_NAME = r"__pyx_[tv]_[\w.\[\]>-]*"
_CONDITION = re.compile(
    rf"if \(!?\(?{_NAME}\)?\) (\{{|break;)"
    rf"|if \(unlikely\({_NAME}\)\) \{{"
    rf"|for \({_NAME} = .*\{{"
)
_BODY = ("__pyx_f_", "__pyx_pf_")
_DEFINITION = re.compile(r"\s*(?:cdef|cpdef|def)\b[^=(]*?(\w+)\(")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of ours that branches: for each branch, in gcov's order, how often it was taken."""

    file: str
    number: int
    function: str
    text: str
    taken: tuple[int, ...]

    @property
    def unreached(self) -> int:
        """How many of its branches were never taken."""
        return self.taken.count(0)

    @property
    def place(self) -> str:
        """What names it, wherever it moves inside its function."""
        return f"{self.file} {self.function}: {self.text}"


@dataclass(frozen=True, slots=True)
class Source:
    """A file of ours, or the C that Cython made of one, with its place below the root."""

    name: str
    lines: list[str]

    def text(self, number: int) -> str:
        return self.lines[number - 1].strip()


def origins(source: Source) -> list[tuple[str, int]]:
    """For each line of a generated file, the file and line of ours that it was made of."""
    found, at = [], ("", 0)
    for line in source.lines:
        match = _AT.match(line)
        if match:
            at = match[1], int(match[2])
        found.append(at)
    return found


def function_at(source: Source, number: int) -> str:
    """The function of a .pyx that a line is in."""
    for line in reversed(source.lines[:number]):
        match = _DEFINITION.match(line)
        if match:
            return match[1]
    return ""


def reports(objects: Sequence[Path], root: Path) -> Iterator[dict[str, Any]]:
    """What gcov says of objects: a report for each."""
    command = ["gcov", "--json-format", "--branch-probabilities", "--stdout", *map(str, objects)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    yield from map(json.loads, done.stdout.splitlines())


class Counts:
    """Adds up reports. Raises ValueError when two disagree on what branches a line has."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sources: dict[str, Source] = {}
        self._origins: dict[str, list[tuple[str, int]]] = {}
        self._taken: dict[tuple[str, int, str], tuple[int, ...]] = {}

    def source(self, name: str) -> Source:
        if name not in self._sources:
            text = (self.root / name).read_text()
            self._sources[name] = Source(name, text.split("\n"))
        return self._sources[name]

    def _add(self, key: tuple[str, int, str], taken: tuple[int, ...]) -> None:
        before = self._taken.get(key, (0,) * len(taken))
        if len(before) != len(taken):
            raise ValueError(f"{key}: {len(before)} branches in one object, {len(taken)} in other")
        self._taken[key] = tuple(a + b for a, b in zip(before, taken, strict=True))

    def add(self, report: dict[str, Any]) -> None:
        """Adds what gcov said of one object."""
        for file in report["files"]:
            path = Path(report["current_working_directory"]) / file["file"]
            if not path.is_relative_to(self.root):
                continue
            name = str(path.relative_to(self.root))
            lines = [line for line in file["lines"] if line["branches"]]
            if OURS.fullmatch(name):
                self._add_c(name, lines)
            elif "/cython/" in name:
                self._add_generated(name, lines)

    def _add_c(self, name: str, lines: Iterable[dict[str, Any]]) -> None:
        source = self.source(name)
        for line in lines:
            number = line["line_number"]
            if not source.text(number).startswith("xs_assert("):
                self._add((name, number, line["function_name"]), taken(line))

    def _add_generated(self, name: str, lines: Iterable[dict[str, Any]]) -> None:
        source = self.source(name)
        if name not in self._origins:
            self._origins[name] = origins(source)
        gathered: dict[tuple[str, int, str], tuple[int, ...]] = {}
        for line in lines:
            number = line["line_number"]
            function = line.get("function_name", "")
            at = self._origins[name][number - 1]
            if (
                function.startswith(_BODY)
                and OURS.fullmatch(at[0])
                and _CONDITION.match(source.text(number))
            ):
                key = (*at, function)
                gathered[key] = gathered.get(key, ()) + taken(line)
        for key, counts in gathered.items():
            self._add(key, counts)

    def lines(self) -> list[Line]:
        """All lines that branch, in order."""
        found = []
        for (name, number, function), counts in sorted(self._taken.items()):
            source = self.source(name)
            if not name.startswith("csrc/"):
                function = function_at(source, number)
            found.append(Line(name, number, function, source.text(number), counts))
        return found


def taken(line: dict[str, Any]) -> tuple[int, ...]:
    """How often each branch of a line of C was taken."""
    return tuple(branch["count"] for branch in line["branches"])


def count(root: Path, build: Path) -> list[Line]:
    """All branches of the objects below ``build``. Raises FileNotFoundError if it has none."""
    objects = sorted(build.rglob("*.gcno"))
    if not objects:
        raise FileNotFoundError(f"{build}: nothing was built there to count branches")
    counts = Counts(root)
    for report in reports(objects, root):
        counts.add(report)
    return counts.lines()
