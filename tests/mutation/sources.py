"""Which lines are code: bodies of functions in csrc and the core, and what can be done to them."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutation.operators import Change, balanced, changes

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = ("csrc/*.c", "csrc/*.h", "xsd/core/*.pyx")

_C_NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
_PYX_NOISE = re.compile(
    r'[bfru]*"""(?:\\.|.)*?"""|#[^\n]*|[bfru]*"(?:\\.|[^"\\\n])*"|[bfru]*\'(?:\\.|[^\'\\\n])*\'',
    re.S,
)
# Functions at any depth; not types, enumerations and what comes from elsewhere.
_PYX_FUNCTION = re.compile(
    r"\s*(?:def|cp?def)\s+(?!class\b|enum\b|struct\b|extern\b|ctypedef\b)[^=]*?\w+\("
)
# Assertions, directives, decorators, and declarations without a value.
_NOT_CODE = re.compile(
    r"\s*(?:xs_assert|_Static_assert|assert)\b|\s*[#@]"
    r"|\s*(?:cdef|(?:const |static )*(?:struct \w+|bool|char|int|unsigned|size_t|u?int\d+_t))\s"
    r"[^=]*$"
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One line changed: where (1-based), how, and the line before and after."""

    file: str
    line: int
    kind: str
    original: str
    mutated: str

    def apply(self, text: str) -> str:
        """The file's text with the line changed. Raises ValueError if the line is another."""
        lines = text.split("\n")
        if lines[self.line - 1] != self.original:
            raise ValueError(f"{self.file}:{self.line} is not {self.original.strip()!r}")
        lines[self.line - 1] = self.mutated
        return "\n".join(lines)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def masked_lines(text: str, cython: bool) -> list[str]:
    """Lines with blanks for comments and strings."""
    return (_PYX_NOISE if cython else _C_NOISE).sub(_blank, text).split("\n")


def c_bodies(lines: list[str]) -> Iterator[int]:
    """Indices of lines in bodies of functions, which stand between braces at the margin."""
    inside = False
    for index, line in enumerate(lines):
        if line.startswith("{"):
            inside = True
        elif line.startswith("}"):
            inside = False
        elif inside:
            yield index


def pyx_bodies(lines: list[str]) -> Iterator[int]:
    """Indices of lines in bodies of functions: indented deeper than a finished signature."""
    indent: int | None = None
    signature = ""
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if signature:
            signature += line
        elif _PYX_FUNCTION.match(line):
            indent, signature = depth, line
        elif indent is not None and depth <= indent:
            indent = None
        elif indent is not None:
            yield index
        if signature and balanced(signature):
            if not signature.rstrip().endswith(":"):
                indent = None  # a declaration, or a variable with a value
            signature = ""


def candidates(file: str, text: str) -> dict[int, list[Change]]:
    """For each line of code that can be changed, by index: all that can be done to it."""
    cython = file.endswith(".pyx")
    lines, masked = text.split("\n"), masked_lines(text, cython)
    found: dict[int, list[Change]] = {}
    last = ""
    for index in (pyx_bodies if cython else c_bodies)(masked):
        code = masked[index].rstrip()
        if not code.strip():
            continue
        # A line that carries on the one before cannot be deleted alone.
        whole = last == "" or (
            balanced(last) and last[-1] not in "(,\\"
            if cython
            else last[-1] in ";{}:"
            or re.match(r"\s*(?:\} )?(?:if|else|while|for)\b", last) is not None
        )
        last = code
        if _NOT_CODE.match(code):
            continue
        some = [c for c in changes(lines[index], masked[index], cython, whole) if c.line.strip()]
        if some:
            found[index] = some
    return found


def sources(root: Path = ROOT) -> dict[str, str]:
    """The texts that are mutated, by name."""
    paths = sorted(path for pattern in PATTERNS for path in root.glob(pattern))
    return {str(path.relative_to(root)): path.read_text() for path in paths}


def draws(seed: int, texts: dict[str, str]) -> list[Mutant]:
    """Mutants in the order of a seed: one of each line, lines of all files alike.

    The order is that of digests of the lines, so that most of it outlives a change of the sources.
    """
    seen: Counter[str] = Counter()
    found = []
    for file, text in sorted(texts.items()):
        lines = text.split("\n")
        for index, some in sorted(candidates(file, text).items()):
            line = lines[index].strip()
            digest = hashlib.sha256(f"{seed} {seen[line]} {line}".encode()).hexdigest()
            seen[line] += 1
            chance = random.Random(digest)
            # Kinds first: an expression has many operators, and a call may only be deleted.
            kind = chance.choice(sorted({change.kind for change in some}))
            change = chance.choice([change for change in some if change.kind == kind])
            found.append((digest, Mutant(file, index + 1, kind, lines[index], change.line)))
    return [mutant for _, mutant in sorted(found, key=lambda pair: pair[0])]
