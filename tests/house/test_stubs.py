"""The type stubs beside the compiled modules say what is really there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from checkout import ROOT, files

MODULES = ["xsd.core.engine", "xsd.io.poll", "xsd.io.rings", "xsd.io.sockets", "xsd.io.turn"]
# What Cython adds to every module and class.
CYTHON = {"__pyx_capi__", "__test__", "__pyx_vtable__", "__reduce_cython__", "__setstate_cython__"}
# What a class makes for itself, and the construction that no signature tells of.
OWN = {"__new__", "__init__", "__doc__", "__module__", "__reduce__", "__setstate__"}


def stub_names(text: str) -> Iterator[str]:
    """``name`` and ``Class.name`` of everything public, functions with their parameters."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id == "TypedDict" for base in node.bases
        ):
            continue  # the shape of what a method returns: only types know of it
        if isinstance(node, ast.ClassDef):
            yield node.name
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name not in OWN:
                    yield f"{node.name}.{_described(inner)}"
        elif isinstance(node, ast.FunctionDef):
            yield _described(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _described(function: ast.FunctionDef) -> str:
    if any(
        isinstance(name, ast.Name) and name.id == "property" for name in function.decorator_list
    ):
        return function.name
    a = function.args
    words = [arg.arg for arg in (*a.posonlyargs, *a.args)]
    first_default = len(words) - len(a.defaults)
    words = [f"{word}=" if i >= first_default else word for i, word in enumerate(words)]
    if a.kwonlyargs:
        words.append("*")
        words += [
            arg.arg if default is None else f"{arg.arg}="
            for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)
        ]
    return f"{function.name}({', '.join(words)})"


def module_names(name: str) -> Iterator[str]:
    """The same of a compiled module."""
    module = import_module(name)
    for key, value in vars(module).items():
        if key.startswith("_") or inspect.ismodule(value):
            continue
        home = getattr(value, "__module__", name)
        if home != name:
            continue  # imported
        if not inspect.isclass(value):
            yield key + _signature(value)
            continue
        yield key
        for inner, member in vars(value).items():
            if not inner.startswith("_"):
                yield f"{key}.{inner}{_signature(member)}"


def _signature(value: object) -> str:
    if not callable(value):
        return ""
    words: list[str] = []
    star = False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            words.append("*")
        words.append(
            f"{parameter.name}=" if parameter.default is not parameter.empty else parameter.name
        )
    return f"({', '.join(words)})"


def stub_of(name: str) -> Path:
    """The stub of a module."""
    return ROOT / (name.replace(".", "/") + ".pyi")


@pytest.mark.parametrize("name", MODULES)
def test_stubs_equal_the_modules(name: str) -> None:
    """Names, and names and defaults of parameters, are those of the compiled module."""
    assert sorted(stub_names(stub_of(name).read_text())) == sorted(module_names(name))


def test_a_forgotten_name_is_found() -> None:
    """The canary: without one method, or with another parameter, they differ."""
    text = stub_of(MODULES[0]).read_text()
    shorter = text.replace("    def state_hash(self) -> int: ...\n", "")
    renamed = text.replace("seed", "salt").replace(
        "def close(self, now: int, id", "def close(self, now: int, no"
    )
    real = set(module_names(MODULES[0]))
    assert real - set(stub_names(shorter)) == {"Engine.state_hash(self)"}
    assert set(stub_names(renamed)) - real == {"Engine.close(self, now, no)"}


def test_construction_is_typed_as_written() -> None:
    """What ``__cinit__`` or ``__init__`` takes by name is in the stub, which signatures hide."""
    for name in MODULES:
        source = (ROOT / (name.replace(".", "/") + ".pyx")).read_text()
        head = re.search(r"    def __c?init__\((self, [^)]*)\):", source)
        assert head is not None
        given = head[1].split(",")
        expected = [word.partition("=")[0].split()[-1] for word in given]
        stub = ast.parse(stub_of(name).read_text())
        found = next(node for node in ast.walk(stub) if getattr(node, "name", "") == "__init__")
        assert isinstance(found, ast.FunctionDef)
        assert [arg.arg for arg in found.args.args] == expected


def test_every_module_that_python_uses_has_a_stub() -> None:
    """A ``def`` or class in a .pyx that Python code imports needs a .pyi, and py.typed stands."""
    imported = {
        node.module
        for path in files(ROOT, "xsd/**/*.py", "bench/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
    }
    compiled = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files(ROOT, "xsd/**/*.pyx")
    }
    assert sorted(imported & compiled) == MODULES
    assert (ROOT / "xsd" / "py.typed").exists()
