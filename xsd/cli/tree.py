"""The tool ls: a whole tree, as a tree or with full paths."""

from __future__ import annotations

import os
import sys
from functools import lru_cache

from xsd.client.errors import XenstoreError
from xsd.client.perms import Permission

from .escape import escape
from .failure import refused
from .invocation import Invocation
from .output import put
from .walk import Node, walk

#: Columns of a tree that does not go to a terminal.
_COLUMNS = 80
#: What surrounds a name and a value: ' = "', '\\..."' less the quote's own column.
_FRAME = 8
#: Permissions stand in a column of their own, here or at the width of a narrow terminal.
_PERMISSIONS_COLUMN = 60
_TERMINAL_MARGIN = 2


def run(call: Invocation) -> int:
    """Print the trees below the paths that were asked for."""
    flat = "flat" in call.options
    perms = "permissions" in call.options
    width = _width(flat)
    with call.connect() as client:
        for path in call.arguments or ("/",):
            try:
                for node in walk(client, path, values=True, perms=perms):
                    if node.depth:
                        put(line(node, flat=flat, perms=perms, width=width))
            except XenstoreError as error:
                raise refused(f"could not list path {error.path}", error) from error
    return 0


def _width(flat: bool) -> int | None:
    """Columns to use, None for no limit."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return None if flat else _COLUMNS
    return columns - _TERMINAL_MARGIN if columns >= _TERMINAL_MARGIN else None


def line(node: Node, *, flat: bool, perms: bool, width: int | None) -> str:
    """A node's line, its newline included.

    The tree form is indented by one blank per level. A value with more bytes than there is room
    for is cut in its escaped form and ends in ``\\...``; a name is cut too. Where not even the
    first column is left, neither is cut: at such a depth the text matters more than the width.
    """
    name, used = node.path, 0
    if not flat:
        indent = node.depth - 1
        name = _cut(node.name, None if width is None else width - _FRAME - indent)
        used = indent + len(name)
        name = " " * indent + name
    value = node.value
    if value is None:
        return f"{name}:\n"
    text = escape(value)
    room = None if width is None else width - _FRAME - used
    if room is not None and len(value) > room:
        shown = f'{name} = "{_cut(text, room)}\\..."'
        return f"{shown}  {_entries(node)}\n" if perms else f"{shown}\n"
    shown = f'{name} = "{text}"'
    if not perms:
        return f"{shown}\n"
    filler = " " if flat or width is None else _filler(len(shown), min(width, _PERMISSIONS_COLUMN))
    return f"{shown}{filler}  {_entries(node)}\n"


def _cut(text: str, room: int | None) -> str:
    return text if room is None or room < 0 else text[:room]


def _filler(start: int, end: int) -> str:
    """A blank, then dots in every odd column up to ``end``."""
    return " " + "".join("." if column % 2 else " " for column in range(start + 1, end))


def _entries(node: Node) -> str:
    return _shown(node.perms or ())


@lru_cache(maxsize=1024)
def _shown(perms: tuple[Permission, ...]) -> str:
    return "(" + ",".join(map(str, perms)) + ")"
