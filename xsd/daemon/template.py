"""Settings written as a TOML file that explains itself."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from xsd.daemon.kinds import Bool, Value, to_toml
from xsd.daemon.table import DEFAULT_CONFIG, ROWS, SECTIONS

_WIDTH = 92


def render(values: Mapping[str, Value]) -> str:
    """A TOML document with a comment and a line for every row; ``values`` are those written."""
    lines = [f"# Settings of xsd daemon; read from {DEFAULT_CONFIG} or the file behind --config."]
    for section, about in SECTIONS.items():
        lines += ["", *_comment(about), f"[{section}]"]
        for row in ROWS:
            if row.section != section:
                continue
            lines += ["", *_comment(row.help)]
            if not isinstance(row.kind, Bool):
                lines += _comment(f"({row.kind.expected})")
            lines.append(f"{row.key} = {to_toml(values[row.name])}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return ["# " + line for line in textwrap.wrap(text, _WIDTH)]
