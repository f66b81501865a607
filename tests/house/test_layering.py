"""Dependencies point downwards only; includes, imports and cimports are parsed, not trusted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from checkout import ROOT, c_code, cython_code, files, line_of

# Lower first. Files of one line know each other: the tree and its directories are one thing
# in two files.
CSRC_ORDER = (
    ("proto", "err"),
    ("mem",),
    ("path", "wire", "ring"),
    ("perms",),
    ("node",),
    ("dir", "trie"),
    ("watchtrie", "outq", "pathset", "history"),
)
C_HEADERS = {"limits.h", "stdbool.h", "stddef.h", "stdint.h", "string.h"}
# Besides: sorting; and the allocator, which also says which assertion does not hold.
C_HEADERS_OF = {"mem.c": {"stdio.h", "stdlib.h"}, "watchtrie.c": {"stdlib.h"}}

# What each package may use of the project. Nobody else is below `daemon`, which knows all.
PACKAGES = {
    "xsd.core": {"xsd.core"},
    "xsd.io": {"xsd.io", "xsd.core"},
    "xsd.xen": {"xsd.xen"},
    "xsd.daemon": {"xsd.daemon", "xsd.io", "xsd.core", "xsd.xen"},
    "xsd.client": {"xsd.client"},
    "xsd.cli": {"xsd.cli", "xsd.client"},
}
# The hypervisor is a leaf behind its api: only who composes the daemon picks one of them.
HYPERVISOR, SEAM = "xsd.xen", "xsd.xen.api"
COMPOSER = "xsd/daemon/main.py"
# `xsd daemon` is the same program; it reaches the daemon when asked for it, and not before.
LAZY = {("xsd/cli/main.py", "xsd.daemon.main")}

# The engine is a function of its events, so the core has no use for anything that is not.
CORE_OUTSIDE = ("libc.", "cpython.", "posix.time")
BINDINGS = "xsd/core/cxs.pxd"


class Edge(NamedTuple):
    """A file names something: a header, or a module by its full name."""

    source: str
    line: int
    target: str
    lazy: bool = False


def c_edges(root: Path) -> Iterator[Edge]:
    """Every #include of csrc; system headers in angle brackets."""
    for path in files(root, "csrc/*.[ch]"):
        for match in re.finditer(r'^\s*#\s*include\s+(["<][^">]+)', path.read_text(), re.M):
            text = path.read_text()
            target = match[1].removeprefix('"')
            yield Edge(f"csrc/{path.name}", line_of(text, match.start()), target)


def cython_edges(root: Path) -> Iterator[Edge]:
    """Every import, cimport, include and extern header of .pyx and .pxd files."""
    for path in files(root, "xsd/**/*.pyx", "xsd/**/*.pxd"):
        name = str(path.relative_to(root))
        text = path.read_text()
        code = cython_code(text)
        for match in re.finditer(r"^[ \t]*from\s+([\w.]+)\s+(c?import)\s+([^\n]*)", code, re.M):
            if match[1] == "xsd" or match[1] in PACKAGES:
                # "from xsd.core cimport engine" names a module.
                for part in re.findall(r"\w+", match[3].split(" as ")[0]):
                    yield Edge(name, line_of(code, match.start()), f"{match[1]}.{part}")
            else:
                yield Edge(name, line_of(code, match.start()), match[1])
        for match in re.finditer(r"^[ \t]*c?import\s+([\w., ]+)", code, re.M):
            for part in match[1].split(","):
                yield Edge(name, line_of(code, match.start()), part.split()[0])
        # These are strings, which the code no longer has.
        for match in re.finditer(r'^[ \t]*cdef extern from "([^"]+)"', text, re.M):
            yield Edge(name, line_of(text, match.start()), f'"{match[1]}')
        for match in re.finditer(r'^[ \t]*include "([^"]+)"', text, re.M):
            yield Edge(name, line_of(text, match.start()), f"include {match[1]}")


def python_edges(root: Path) -> Iterator[Edge]:
    """Every import of Python files, also those by ``import_module``."""
    for path in files(root, "xsd/**/*.py", "xsd/**/*.pyi"):
        name = str(path.relative_to(root))
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        package = module.rpartition(".")[0]
        tree = ast.parse(path.read_text())
        inner = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            lazy = id(node) in inner
            for target in _targets(node, package, root):
                yield Edge(name, getattr(node, "lineno", 0), target, lazy)


def _targets(node: ast.AST, package: str, root: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - (node.level - 1)]
        base = ".".join([*above, *([node.module] if node.module else [])] if node.level else [])
        base = base or node.module or ""
        if (root / base.replace(".", "/")).is_dir():
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield base
    elif isinstance(node, ast.Call) and getattr(
        node.func, "id", getattr(node.func, "attr", "")
    ) in ("import_module", "__import__"):
        yield _dynamic(node.args[0], package)


def _dynamic(argument: ast.expr, package: str) -> str:
    """A name made at run time, as far as it can be told: at least its package."""
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    if isinstance(argument, ast.JoinedStr):
        head = argument.values[0]
        if isinstance(head, ast.FormattedValue) and ast.unparse(head.value) == "__package__":
            return f"{package}.*"
    return "a name made at run time"


def edges(root: Path) -> list[Edge]:
    """Everything that any source file of the project names."""
    return [*c_edges(root), *cython_edges(root), *python_edges(root)]


def fault(edge: Edge) -> str | None:
    """Why an edge is forbidden, None if it is not."""
    if edge.source.startswith("csrc/"):
        return _c_fault(edge)
    return _package_fault(edge)


def _c_fault(edge: Edge) -> str | None:
    name = edge.source.removeprefix("csrc/")
    if edge.target.startswith("<"):
        known = C_HEADERS | C_HEADERS_OF.get(name, set())
        return None if edge.target[1:] in known else "a system header that csrc does not need"
    rank = {noun: level for level, nouns in enumerate(CSRC_ORDER) for noun in nouns}
    own, other = (rank.get(file.partition(".")[0]) for file in (name, edge.target))
    if own is None or other is None:
        return "a file without a place in the order"
    return "a lower file includes a higher one" if other > own else None


def _package_fault(edge: Edge) -> str | None:
    own = ".".join(edge.source.split("/")[:2])
    target = edge.target
    if target.startswith("include "):
        return "one module per file: include is not used"
    if target.startswith('"'):
        header = target[1:]
        local = any(header == f"{noun}.h" for nouns in CSRC_ORDER for noun in nouns)
        if own not in ("xsd.core", "xsd.io"):
            return "C below a package that is plain Python"
        return "csrc is declared in one place" if local and edge.source != BINDINGS else None
    if target == "a name made at run time":
        return "an import that cannot be checked"
    if target.partition(".")[0] != "xsd":
        stub = edge.source.endswith(".pyi") and target == "typing"
        if own == "xsd.core" and not stub and not target.startswith(CORE_OUTSIDE):
            return "the core uses nothing outside itself"
        return None
    if own not in PACKAGES:
        return "a package without a place in the order"
    if (edge.source, target) in LAZY:
        return None if edge.lazy else "to be imported only when it is asked for"
    if ".".join(target.split(".")[:2]) not in PACKAGES[own]:
        return "a package that it must not know"
    outside = own != HYPERVISOR and target.startswith(HYPERVISOR)
    if outside and target != SEAM and edge.source != COMPOSER:
        return "a hypervisor by its name and not by its api"
    return None


def forbidden(root: Path) -> list[tuple[str, str, str]]:
    """All forbidden edges: (source, target, why)."""
    return [
        (edge.source, edge.target, why) for edge in edges(root) if (why := fault(edge)) is not None
    ]


def test_dependencies_point_downwards() -> None:
    """No file names anything above it."""
    assert forbidden(ROOT) == []


def test_every_file_is_seen() -> None:
    """The parsers find edges in every kind of file; without them nothing would be forbidden."""
    seen = {edge.source for edge in edges(ROOT)}
    assert {"csrc/trie.h", "csrc/trie.c", "xsd/core/engine.pyx", "xsd/core/store.pxd"} <= seen
    assert {"xsd/io/sockets.pyx", "xsd/daemon/main.py", "xsd/cli/main.py"} <= seen
    assert Edge("xsd/cli/main.py", 0, "xsd.daemon.main", True) in {
        edge._replace(line=0) for edge in edges(ROOT)
    }


@pytest.mark.parametrize(
    ("name", "text", "target", "why"),
    [
        ("csrc/mem.c", '#include "trie.h"\n', "trie.h", "a lower file includes a higher one"),
        ("csrc/node.h", '# include "dir.h"\n', "dir.h", "a lower file includes a higher one"),
        ("csrc/odd.c", '#include "mem.h"\n', "mem.h", "a file without a place in the order"),
        ("csrc/mem.h", "#include <time.h>\n", "<time.h", "a system header that csrc does not need"),
        (
            "xsd/core/store.pyx",
            "from xsd.io.sockets cimport flush\n",
            "xsd.io.sockets",
            "a package that it must not know",
        ),
        ("xsd/core/store.pyx", "import time\n", "time", "the core uses nothing outside itself"),
        (
            "xsd/core/store.pyx",
            'cdef extern from "trie.h":\n    pass\n',
            '"trie.h',
            "csrc is declared in one place",
        ),
        (
            "xsd/core/store.pyx",
            'include "more.pxi"\n',
            "include more.pxi",
            "one module per file: include is not used",
        ),
        (
            "xsd/io/rings.pyx",
            "from xsd.xen cimport fake\n",
            "xsd.xen.fake",
            "a package that it must not know",
        ),
        (
            "xsd/io/listener.py",
            "from xsd.daemon import config\n",
            "xsd.daemon.config",
            "a package that it must not know",
        ),
        (
            "xsd/xen/fake.py",
            "from ..core import engine\n",
            "xsd.core.engine",
            "a package that it must not know",
        ),
        (
            "xsd/daemon/effects.py",
            "from xsd.xen.fake import FakeHost\n",
            "xsd.xen.fake",
            "a hypervisor by its name and not by its api",
        ),
        (
            "xsd/client/sync.py",
            "def f():\n    import xsd.core.engine\n",
            "xsd.core.engine",
            "a package that it must not know",
        ),
        (
            "xsd/cli/main.py",
            "import xsd.daemon.main\n",
            "xsd.daemon.main",
            "to be imported only when it is asked for",
        ),
        (
            "xsd/cli/tree.py",
            "from importlib import import_module\nimport_module('xsd.io.listener')\n",
            "xsd.io.listener",
            "a package that it must not know",
        ),
        (
            "xsd/cli/tree.py",
            "from importlib import import_module as load\nimport importlib\n"
            "importlib.import_module(name)\n",
            "a name made at run time",
            "an import that cannot be checked",
        ),
    ],
)
def test_a_forbidden_edge_is_found(
    tmp_path: Path, name: str, text: str, target: str, why: str
) -> None:
    """The canary: each kind of forbidden edge is named when it is made up."""
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    for package in PACKAGES:
        (tmp_path / package.replace(".", "/")).mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert forbidden(tmp_path) == [(name, target, why)]


def test_comments_are_no_edges(tmp_path: Path) -> None:
    """What only stands in a comment or a docstring is not an import."""
    path = tmp_path / "xsd" / "core" / "a.pyx"
    path.parent.mkdir(parents=True)
    path.write_text('"""\nimport os\n"""\n# import sys\n')
    assert forbidden(tmp_path) == []
    assert c_code('a /* b\n */ c // d\n"e"') == "a  \n c  \n "
