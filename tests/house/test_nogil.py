"""The request path runs without the interpreter: declared so, and compiled so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from checkout import GENERATED, ROOT, cycles, cython_code, files

# Control plane among the functions: it makes Python objects and is called by the class only.
CONTROL_PLANE = {"initial_quotas"}
# A module of such functions only. Nobody but the class may know it.
INVENTORY = "inventory"

# A function at the left margin; what is indented belongs to a class or an extern block.
FUNCTION = re.compile(
    r"^cp?def\s+(?!class\b|enum\b|struct\b|extern\b|ctypedef\b)([^\n(]*?)(\w+)\(", re.M
)

# Words of Python's own API, and of Cython's helpers that use it.
INTERPRETER = re.compile(
    r"\b_?Py[A-Z_]\w*|\b__Pyx_(?!PACKED\b|UNREACHABLE\b)\w+|\b__pyx_L\d+_error\b"
)
# A type, and Cython's macros for plain C: hints for the compiler, and arithmetic.
HARMLESS = re.compile(r"Py_ssize_t|__Pyx_(?:mod|div)_\w+|__Pyx_(?:likely|unlikely|fits)\w*")


def functions(code: str) -> Iterator[tuple[str, str]]:
    """(name, what stands behind its parameters) of each function at the left margin."""
    for match in FUNCTION.finditer(code):
        depth, at = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(code[at], 0)
            at += 1
        end = code.find("\n", at)
        yield match[2], code[at:end].strip().removesuffix(":").strip()


def gil_holders(path: Path) -> list[str]:
    """Functions of a file that are not declared ``noexcept nogil``."""
    return [
        name
        for name, behind in functions(cython_code(path.read_text()))
        if behind != "noexcept nogil" and name not in CONTROL_PLANE
    ]


def test_core_is_declared_nogil() -> None:
    """Each function of the core is ``noexcept nogil``; only the class talks to Python."""
    paths = [
        path for path in files(ROOT, "xsd/core/*.pyx", "xsd/core/*.pxd") if path.stem != INVENTORY
    ]
    found = {path.name: gil_holders(path) for path in paths}
    assert {name: holders for name, holders in found.items() if holders} == {}
    assert sum(len(list(functions(cython_code(path.read_text())))) for path in paths) > 150


def test_only_the_class_takes_the_inventory() -> None:
    """What makes Python objects is out of reach for all that must not."""
    users = {
        path.name
        for path in files(ROOT, "xsd/*/*.pyx", "xsd/*/*.pxd")
        if f"xsd.core.{INVENTORY} cimport" in path.read_text()
    }
    assert users == {"engine.pyx"}


def test_a_function_with_the_gil_is_found(tmp_path: Path) -> None:
    """The canary, over several lines too."""
    path = tmp_path / "a.pyx"
    path.write_text(
        "cdef int fine(Conn *c,\n              int n) noexcept nogil:\n    return 0\n"
        "cdef int one(Conn *c) nogil:\n    return 0\n"
        "cdef void *two(Conn *c,\n               int (*f)(int)) except NULL:\n    return c\n"
        "cdef inline bint three() noexcept:\n    return 1\n"
        "cdef class Shell:\n    cdef int inner(self) except -1:\n        return 0\n"
    )
    assert gil_holders(path) == ["one", "two", "three"]


# -- as compiled ---------------------------------------------------------------------------------


def mangled(path: Path) -> str:
    """The prefix that Cython gives to the functions of a module, by the path of its source."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "__pyx_f_" + "_".join(f"{len(part)}{part}" for part in parts) + "_"


def bodies(generated: str, prefix: str) -> dict[str, str]:
    """Name and C body of each function of a module that is a ``cdef`` function."""
    found = {}
    for match in re.finditer(rf"^[^\n;]*\b{prefix}(\w+)\([^;{{]*\{{\n", generated, re.M):
        end = generated.find("\n}\n", match.end())
        found[match[1]] = generated[match.end() : end]
    return found


def interpreter_words(body: str) -> list[str]:
    """Names of Python's C API in a body, comments aside."""
    code = re.sub(r"/\*.*?\*/", " ", body, flags=re.S)
    return sorted({word for word in INTERPRETER.findall(code) if not HARMLESS.fullmatch(word)})


def compiled(path: Path) -> dict[str, str]:
    """The compiled ``noexcept nogil`` functions of a source, as C."""
    made = GENERATED / path.relative_to(ROOT).with_suffix(".c")
    assert made.exists(), f"{made} is missing: make build"
    wanted = {
        name
        for name, behind in functions(cython_code(path.read_text()))
        if behind == "noexcept nogil"
    }
    found = bodies(made.read_text(), mangled(path))
    assert wanted - set(found) == set()
    return {name: found[name] for name in wanted}


def test_the_compiled_request_path_never_calls_python() -> None:
    """From "bytes have come" to "bytes to send" the C has no word of Python's API."""
    found = {}
    seen: set[str] = set()
    for path in files(ROOT, "xsd/core/*.pyx", "xsd/io/*.pyx"):
        for name, body in compiled(path).items():
            seen.add(name)
            if words := interpreter_words(body):
                found[f"{path.name}:{name}"] = words
    assert found == {}
    assert {"engine_received", "request", "handle", "dispatch", "serve", "flush"} <= seen
    assert len([name for name in seen if name.startswith("op_")]) >= 22


def call_graph() -> dict[str, set[str]]:
    """Who calls whom among the compiled functions of core and io, across modules."""
    graph = {}
    for path in files(ROOT, "xsd/core/*.pyx", "xsd/io/*.pyx"):
        for name, body in compiled(path).items():
            graph[mangled(path) + name] = set(re.findall(r"\b(__pyx_f_\w+)\(", body))
    return graph


def test_the_core_does_not_recurse() -> None:
    """Neither a path nor a tree nor a chain of watches makes the stack deeper."""
    graph = call_graph()
    calls = sum(len(targets & set(graph)) for targets in graph.values())
    assert calls > 200
    assert cycles(graph) == []


def test_a_compiled_call_of_python_is_found() -> None:
    """The canary: bodies end where they end, and calls in them are found."""
    generated = (
        "static int __pyx_f_1a_one(int n); /*proto*/\n"
        "static int __pyx_f_1a_one(CYTHON_UNUSED int n) {\n  /* PyErr_Occurred */\n  return n;\n}\n"
        "static int __pyx_f_1a_two(int n) {\n  if (n) {\n    PyErr_SetNone(n);\n  }\n"
        "  __Pyx_AddTraceback(1);\n  return 0;\n}\n"
    )
    found = bodies(generated, "__pyx_f_1a_")
    assert {name: interpreter_words(body) for name, body in found.items()} == {
        "one": [],
        "two": ["PyErr_SetNone", "__Pyx_AddTraceback"],
    }


def test_python_calls_exist_where_they_may() -> None:
    """The class does call Python, so a search that finds nothing anywhere would be noticed."""
    text = (GENERATED / "xsd" / "core" / "engine.c").read_text()
    body = bodies(text, mangled(ROOT / "xsd" / "core" / "engine.pyx"))["initial_quotas"]
    assert "PyDict_SetItem" in interpreter_words(body)
