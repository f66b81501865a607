"""The sources under test, as files: where they are, and their text without comments."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

FLAVOUR = os.environ.get("XSD_FLAVOUR", "release")
"""Which build this run is about: release, debug or asan."""

GENERATED = ROOT / "build" / FLAVOUR / "cython"
"""The C that Cython made for that build."""

_C_NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
_PYX_NOISE = re.compile(
    r'[bfru]*"""(?:\\.|.)*?"""|#[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S
)


def _blank(match: re.Match[str]) -> str:
    """As many lines as before, so that line numbers stay true."""
    return " " + "\n" * match[0].count("\n")


def c_code(text: str) -> str:
    """C without comments, strings and characters."""
    return _C_NOISE.sub(_blank, text)


def cython_code(text: str) -> str:
    """Cython without comments and strings."""
    return _PYX_NOISE.sub(_blank, text)


def files(root: Path, *patterns: str) -> list[Path]:
    """All files below ``root`` that match, in order."""
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def line_of(text: str, position: int) -> int:
    """The number of the line at ``position``."""
    return text.count("\n", 0, position) + 1


def cycles(graph: Mapping[str, set[str]]) -> list[str]:
    """The functions that can come back to themselves."""
    found = []
    for start in graph:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for target in graph.get(todo.pop(), ()):
                if target == start:
                    found.append(start)
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
    return sorted(set(found))


def project_files(root: Path = ROOT) -> list[Path]:
    """The files that belong to the project: tracked, or new and not ignored."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        names: Iterable[Path] = (root / os.fsdecode(name) for name in done.stdout.split(b"\0"))
        return sorted({path for path in names if path.is_file()})
    # Not a clone: an unpacked archive, say.
    skipped = {"build", "dist"}
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and path.suffix not in (".so", ".pyc")
        and not any(
            part in skipped or part.endswith(".egg-info") or (part[0] == "." and part != ".ci")
            for part in path.relative_to(root).parts[:-1]
        )
    )
