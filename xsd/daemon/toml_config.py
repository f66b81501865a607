"""The daemon's own configuration file: TOML, one table per topic.

``tomllib`` gives values without their lines.  A TOML document whose every line has been read
is a sequence of statements (a table header, or ``key = value``), and a statement is the
shortest run of lines that parses by itself.  So :func:`statements` cuts a valid document by
asking ``tomllib`` again and again, and needs no TOML grammar of its own.  It runs only over
documents that are to be reported on or read once at start: 1000 lines cost milliseconds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from xsd.daemon.faults import bad_value, unknown
from xsd.daemon.kinds import BadValueError, to_toml
from xsd.daemon.layer import Layer
from xsd.daemon.table import BY_OXEN, ROWS, SECTIONS, Row

_KEYS: dict[str, dict[str, Row]] = {section: {} for section in SECTIONS}
for _row in ROWS:
    for _spelling in (_row.key, *_row.aliases):
        _KEYS[_row.section][_spelling] = _row

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

_MAX_STATEMENT_LINES = 100
"""Longest value that keeps its line number; guards against a quadratic search."""


def read(text: str, source: str) -> Layer:
    """Everything a TOML document says; mistakes are in the layer's ``faults``."""
    layer = Layer(source)
    text = text.replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as bad:
        place = _PLACE.search(str(bad))
        message = _PLACE.sub("", str(bad))
        if place and place[1]:
            line, column = int(place[1]), int(place[2])
        else:
            line, column = max(1, len(text.splitlines())), 0
            message += " at the end of the file"
        layer.fault(f"not TOML: {message[:1].lower()}{message[1:]}", line, column=column)
        return layer
    except RecursionError:
        layer.fault("not TOML: too many brackets inside each other")
        return layer
    lines = dict(statements(text))
    for section, content in document.items():
        if section in SECTIONS and isinstance(content, dict):
            _read_section(layer, section, content, lines)
        elif section in SECTIONS:
            layer.fault(
                f"expected a table: write [{section}] on a line of its own, its keys below",
                _line_of(lines, (section,)),
                section,
            )
        elif isinstance(content, dict | list) and not _is_scalar_list(content):
            layer.fault(
                unknown("section", section, SECTIONS), _line_of(lines, (section,)), f"[{section}]"
            )
        else:
            layer.fault(_homeless(section), _line_of(lines, (section,)), section)
    layer.faults.sort(key=lambda fault: fault.line)
    return layer


def _is_scalar_list(content: object) -> bool:
    return isinstance(content, list) and not any(isinstance(item, dict) for item in content)


def _read_section(
    layer: Layer, section: str, content: dict[str, object], lines: dict[tuple[str, ...], int]
) -> None:
    known = _KEYS[section]
    seen: dict[str, str] = {}
    for key, value in content.items():
        line = _line_of(lines, (section, key))
        shown = f"{section}.{key}"
        row = known.get(key)
        if row is None:
            layer.fault(_unknown_key(section, key), line, shown)
            continue
        if row.name in seen:
            layer.fault(f"stands here a second time, as '{seen[row.name]}' before", line, shown)
            continue
        seen[row.name] = key
        try:
            layer.put(row.name, row.kind.from_toml(value), line, shown)
        except BadValueError as bad:
            layer.fault(bad_value(_shown(value), row.kind.expected, str(bad)), line, shown)


def _shown(value: object) -> str:
    """The value as the file has it, or at least what sort of thing it is."""
    if isinstance(value, bool | int | float | str):
        text = to_toml(value)
    elif isinstance(value, dict | list):
        text = "(a table)" if isinstance(value, dict) else "(a list)"
    else:
        text = str(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


_MAX_SHOWN = 80
"""Characters of a bad value that are shown."""


def _unknown_key(section: str, key: str) -> str:
    if key in BY_OXEN:
        return f"unknown key: here it is {BY_OXEN[key].name}"
    elsewhere = [row.name for row in ROWS if key in (row.key, *row.aliases)]
    problem = unknown("key", key, _KEYS[section])
    if elsewhere and "did you mean" not in problem:
        problem += f": did you mean '{elsewhere[0]}'?"
    return problem


def _homeless(key: str) -> str:
    """The text about a key that stands before any table header."""
    if key in BY_OXEN:
        return f"unknown key: here it is {BY_OXEN[key].name}"
    homes = [row.section for row in ROWS if key in (row.key, *row.aliases)]
    if homes:
        return "no section: belongs below " + " or ".join(f"[{home}]" for home in homes)
    return unknown("key", key, SECTIONS)


def _line_of(lines: dict[tuple[str, ...], int], path: tuple[str, ...]) -> int:
    """The line of a key, else that of what it is in, else 0."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 0


def statements(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each key of a valid document, as its path from the top, and the line where it starts.

    Table headers count as keys.  Of a table that is opened twice the later line is given last.
    """
    table: tuple[str, ...] = ()
    chunk: list[str] = []
    start = 1
    # TOML ends lines at \n only; splitlines() would also split at characters inside strings.
    for number, line in enumerate(text.split("\n"), 1):
        if not chunk:
            start = number
        chunk.append(line)
        try:
            found = tomllib.loads("\n".join(chunk))
        except tomllib.TOMLDecodeError:
            if len(chunk) > _MAX_STATEMENT_LINES:
                chunk = []
            continue
        is_header = chunk[0].lstrip(" \t").startswith("[")
        chunk = []
        path = () if is_header else table
        inner: object = found
        while isinstance(inner, dict) and len(inner) == 1:
            ((key, inner),) = inner.items()
            path += (key,)
            if isinstance(inner, list) and is_header:
                inner = inner[0]
            yield path, start
        if is_header:
            table = path
