"""What can be changed in a line of code: the classic mutations, each one token or statement.

Lines are given twice: as they are, and masked, with blanks of the same length where comments,
strings and characters stand, so that an index in one is an index in the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One way to change a line: of what kind, and the line that comes of it."""

    kind: str
    line: str


# Operators have blanks around them, in the C library by its formatter, in the core by habit; so
# casts, pointers and signs are left alone.
SWAPS: tuple[tuple[str, dict[str, str]], ...] = (
    ("relation", {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}),
    (
        "arithmetic",
        {
            "+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "&": "|", "|": "&", "^": "&",
            "<<": ">>", ">>": "<<", "+=": "-=", "-=": "+=", "|=": "&=", "&=": "|=",
        },
    ),
    ("logic", {"&&": "||", "||": "&&", "and": "or", "or": "and"}),
)  # fmt: skip
OPERATOR = re.compile(r"(?<= )(?:[<>=!]=|&&|\|\||<<|>>|[-+|&]=|[-+*/%&|^<>]|and|or)(?= |$)")
PLUS_ONE = re.compile(r" [-+] 1\b(?![.\w])")
STEP = re.compile(r"\+\+|--")
NUMBER = re.compile(r"(?<![\w.])\d+(?=[uUlL]*(?![\w.]))")
TRUTH = {"true": "false", "false": "true", "True": "False", "False": "True"}
TRUTHS = re.compile(r"\b(?:true|false|True|False)\b")
ERROR = re.compile(r"\bXS_E[A-Z0-9]+\b")
LEAVE = re.compile(r"\b(?:break|continue)\b")

C_CONDITION = re.compile(r"(?:^|\belse )\s*(?:if|while) (\(.*\))(?: \{)?\s*$")
C_RETURN = re.compile(r"\s*return (.+);\s*$")
C_STATEMENT = re.compile(
    r"\s*(?:[*(]*\w[\w.>\[\]()* +-]*? (?:[-+*/|&^]|<<|>>)?= .*|[\w.>-]+\(.*\)"
    r"|(?:\+\+|--)?[\w.>\[\]-]+(?:\+\+|--)?);\s*$"
)
C_KEYWORD = re.compile(
    r"\s*(?:return|break|continue|goto|else|do|if|while|for|case|default|const|static|struct|enum"
    r"|bool|char|int|unsigned|size_t|u?int\d+_t)\b"
)
PYX_CONDITION = re.compile(r"\s*(?:if|elif|while) (.+):\s*$")
PYX_RETURN = re.compile(r"\s*return (.+?)\s*$")
PYX_STATEMENT = re.compile(r"\s*(?:[\w.\[\]&, ()<>*]+? [-+*/|&^<>]*= .+|[\w.]+\(.*\))\s*$")
PYX_KEYWORD = re.compile(
    r"\s*(?:return|break|continue|pass|raise|if|elif|else|while|for|cdef|def|class|assert|try"
    r"|except|finally|with|yield|cimport|import|from|global|del)\b"
)


def balanced(text: str) -> bool:
    """Whether every bracket is closed on its line."""
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def changes(line: str, masked: str, cython: bool, whole: bool = True) -> Iterator[Change]:
    """Every mutation of a line. `whole`: a statement may begin here, so it may be deleted."""

    def put(kind: str, start: int, end: int, text: str) -> Change:
        return Change(kind, line[:start] + text + line[end:])

    for match in OPERATOR.finditer(masked):
        for kind, pairs in SWAPS:
            if match[0] in pairs:
                yield put(kind, *match.span(), pairs[match[0]])
    for match in PLUS_ONE.finditer(masked):
        yield put("arithmetic", *match.span(), "")
    if not cython:
        for match in STEP.finditer(masked):
            yield put("arithmetic", *match.span(), "--" if match[0] == "++" else "++")
    yield from conditions(line, masked, cython)
    for match in NUMBER.finditer(masked):
        value = int(match[0])
        for other in {0, 1, value + 1, max(0, value - 1)} - {value}:
            yield put("constant", *match.span(), str(other))
    for match in TRUTHS.finditer(masked):
        yield put("constant", *match.span(), TRUTH[match[0]])
    for match in ERROR.finditer(masked):
        other_error = "XS_EINVAL" if match[0] != "XS_EINVAL" else "XS_ENOENT"
        yield put("error", *match.span(), other_error)
    for match in LEAVE.finditer(masked):
        yield put("loop", *match.span(), "continue" if match[0] == "break" else "break")
    found = (PYX_RETURN if cython else C_RETURN).match(masked)
    if found is not None and balanced(found[1]) and found[1] not in ("0", "NULL", "XS_OK", *TRUTH):
        yield put("return", *found.span(1), "0")
    if whole and balanced(masked):
        keyword, statement = (PYX_KEYWORD, PYX_STATEMENT) if cython else (C_KEYWORD, C_STATEMENT)
        if statement.match(masked) and not keyword.match(masked):
            indent = len(line) - len(line.lstrip())
            yield Change("deleted", line[:indent] + ("pass" if cython else ";"))


def conditions(line: str, masked: str, cython: bool) -> Iterator[Change]:
    """Conditions that begin and end on the line, negated; and negations, dropped."""
    match = (PYX_CONDITION if cython else C_CONDITION).search(masked)
    if match is not None and balanced(match[1]):
        start, end = match.span(1)
        inner = line[start:end]
        negated = f"not ({inner})" if cython else f"(!{inner})"
        yield Change("logic", line[:start] + negated + line[end:])
    dropped = r"\bnot (?!in\b)" if cython else r"!(?=[\w(])"
    for match in re.finditer(dropped, masked):
        if not masked[: match.start()].endswith("is "):
            yield Change("logic", line[: match.start()] + line[match.end() :])
