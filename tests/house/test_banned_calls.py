"""What must not be called, and what must not exist, in csrc and on the request path."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from checkout import ROOT, c_code, cycles, cython_code, files, line_of

# -- csrc, by its text ---------------------------------------------------------------------------

ALLOCATION = ("malloc", "calloc", "realloc", "free", "strdup", "alloca", "posix_memalign")
UNBOUNDED = ("strcpy", "strcat", "sprintf", "vsprintf", "gets", "strtok", "scanf", "sscanf")
OUTSIDE_WORLD = (
    *("time", "clock", "clock_gettime", "gettimeofday", "rand", "random", "srand", "getrandom"),
    *("getenv", "setenv", "read", "write", "open", "close", "fopen", "printf", "puts", "syslog"),
    *("signal", "fork", "exit", "usleep", "nanosleep", "setjmp", "longjmp"),
)
# The allocator allocates, and says which assertion does not hold before it ends the process.
MEM_ONLY = (*ALLOCATION, "fprintf", "abort")

BANNED = re.compile(
    rf"(?<![\w.>])({'|'.join((*ALLOCATION, *UNBOUNDED, *OUTSIDE_WORLD, 'fprintf', 'abort'))})\s*\("
)

# What the objects may need from outside: nothing that allocates, waits, asks or tells.
LIBC = {"memchr", "memcmp", "memcpy", "memmove", "memset", "strlen"}
LIBC_OF = {
    "mem": {"malloc", "calloc", "realloc", "free", "abort", "fprintf", "stderr"},
    "watchtrie": {"qsort"},
}


def banned_calls(path: Path) -> list[tuple[int, str]]:
    """(line, function) of each banned call of a C file."""
    code = c_code(path.read_text())
    allowed = MEM_ONLY if path.name == "mem.c" else ()
    return [
        (line_of(code, match.start()), match[1])
        for match in BANNED.finditer(code)
        if match[1] not in allowed
    ]


def test_csrc_calls_nothing_banned() -> None:
    """Memory comes from mem.c only; no unbounded copies; no clock, chance, environment or I/O."""
    found = {path.name: banned_calls(path) for path in files(ROOT, "csrc/*.[ch]")}
    assert {name: calls for name, calls in found.items() if calls} == {}
    assert len(found) > 10


def test_a_banned_call_is_found(tmp_path: Path) -> None:
    """The canary: calls are found, mentions and fields of that name are not."""
    path = tmp_path / "planted.c"
    path.write_text('/* free(p) */\nx = "malloc(1)";\nfree (p);\nq->free(p);\nxs_mem_free(p);\n')
    assert banned_calls(path) == [(3, "free")]


# -- csrc, by its objects ------------------------------------------------------------------------


def compile_all(sources: Iterable[Path], into: Path) -> None:
    """Compiles without inlining, so that each call is still one; GCC writes call graphs beside."""
    for source in sources:
        command = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-O0", "-fPIC", "-fcallgraph-info"]
        command += [f"-I{source.parent}", "-c", str(source), "-o", f"{into / source.stem}.o"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The objects of csrc and their call graphs."""
    where = tmp_path_factory.mktemp("objects")
    compile_all(files(ROOT, "csrc/*.c"), where)
    return where


def output(*command: str | Path) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needs(where: Path) -> dict[str, set[str]]:
    """For each object, the symbols of the C library that it needs."""
    return {
        path.stem: {
            name
            for name in output("nm", "-u", "-P", path).split()
            if name != "U" and not name.startswith(("xs_", "_GLOBAL_OFFSET"))
        }
        for path in files(where, "*.o")
    }


def mutable(where: Path) -> list[tuple[str, str]]:
    """(object, section) of writable data; pointers that only the loader fills in are constant."""
    found = []
    for path in files(where, "*.o"):
        rows = re.findall(r"^\s*\d+\s+(\.\S+)\s+([0-9a-f]{8})", output("objdump", "-h", path), re.M)
        for section, size in rows:
            writable = section.startswith((".data", ".bss", ".tdata", ".tbss", ".common"))
            if writable and not section.startswith(".data.rel.ro") and int(size, 16):
                found.append((path.stem, section))
    return found


def calls(where: Path) -> dict[str, set[str]]:
    """The call graph of all objects together."""
    graph: dict[str, set[str]] = {}
    for path in files(where, "*.ci"):
        for source, target in re.findall(
            r'^edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', path.read_text(), re.M
        ):
            graph.setdefault(source, set()).add(target)
    return graph


def test_csrc_needs_little_of_the_library(objects: Path) -> None:
    """Nothing but copying, comparing and sorting comes from outside, memory aside."""
    surplus = {
        name: symbols - LIBC - LIBC_OF.get(name, set()) for name, symbols in needs(objects).items()
    }
    assert {name: symbols for name, symbols in surplus.items() if symbols} == {}


def test_csrc_has_no_mutable_globals(objects: Path) -> None:
    """All state hangs on what the caller passes."""
    assert mutable(objects) == []


def test_csrc_does_not_recurse(objects: Path) -> None:
    """Clients choose the depth of the tree, so the stack must not depend on it."""
    graph = calls(objects)
    assert len(graph) > 100
    assert cycles(graph) == []


def test_objects_are_really_looked_at(tmp_path: Path) -> None:
    """The canary: a global, a static, a call of the library and recursion over two files."""
    (tmp_path / "one.c").write_text(
        'void two(int n);\nint shared = 1;\nconst char *const names[] = {"a"};\n'
        "void one(int n) { static int count; if (n + shared + count++) two(n - 1); }\n"
    )
    (tmp_path / "two.c").write_text(
        "#include <stdlib.h>\nvoid one(int n);\nvoid two(int n) { srand(n); one(n - 1); }\n"
    )
    compile_all(files(tmp_path, "*.c"), tmp_path)
    assert mutable(tmp_path) == [("one", ".data"), ("one", ".bss")]
    assert needs(tmp_path) == {"one": {"two"}, "two": {"srand", "one"}}
    assert cycles(calls(tmp_path)) == ["one", "two"]


# -- core and io ---------------------------------------------------------------------------------

ASKING = ("time", "clock", "clock_gettime", "gettimeofday", "rand", "random", "getenv")
CORE_BANNED = re.compile(rf"(?<![\w.>])({'|'.join((*ALLOCATION, *ASKING))})\s*\(")
# The shell of the engine allocates the one struct that holds the allocator.
SHELL = {("engine.pyx", "calloc"), ("engine.pyx", "free")}
# A benchmark of the engine has its clock around the engine, not in it.
CLOCKED = {("engine.pyx", "bench_feed")}


def function_at(code: str, position: int) -> str:
    """The name of the function that a position is in."""
    heads = re.findall(r"^\s*(?:cp?def|def)\b[^\n(=]*?(\w+)\(", code[:position], re.M)
    return heads[-1] if heads else ""


def core_faults(path: Path) -> list[str]:
    """What the core must not do: take the GIL back, allocate by itself, ask for the time."""
    code = cython_code(path.read_text())
    found = [f"{match[0]}" for match in re.finditer(r"\bwith\s+gil\b", code)]
    for match in CORE_BANNED.finditer(code):
        function = function_at(code, match.start())
        if (path.name, match[1]) in SHELL and function in ("__cinit__", "__dealloc__"):
            continue
        if match[1] == "clock_gettime" and (path.name, function) in CLOCKED:
            continue
        found.append(f"{match[1]} in {function}")
    return found


def test_core_asks_nobody() -> None:
    """The core takes the interpreter back nowhere, allocates through csrc, and has no clock."""
    found = {path.name: core_faults(path) for path in files(ROOT, "xsd/core/*.p[yx][xd]")}
    assert {name: faults for name, faults in found.items() if faults} == {}
    assert "engine.pyx" in found


def test_a_fault_of_the_core_is_found(tmp_path: Path) -> None:
    """The canary."""
    path = tmp_path / "engine.pyx"
    path.write_text(
        "cdef int op_read(Conn *c) noexcept nogil:\n    p = malloc(3)\n"
        "    with gil:\n        pass\n    clock_gettime(0, &t)\n    c.rx = calloc(1, 2)\n"
    )
    assert core_faults(path) == [
        "with gil",
        "malloc in op_read",
        "clock_gettime in op_read",
        "calloc in op_read",
    ]


TASKS = {"create_task", "ensure_future", "Task", "Future", "create_future", "gather", "TaskGroup"}
COROUTINE = re.compile(rf"\b(async\s+def|await|{'|'.join(sorted(TASKS))})\b")


def coroutine_words(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """(file, word) wherever something makes or awaits a task, future or coroutine."""
    found = []
    for path in paths:
        if path.suffix == ".py":
            code = ast.unparse(ast.parse(path.read_text()))
        else:
            code = path.read_text()
        found += [(path.name, match[1]) for match in COROUTINE.finditer(cython_code(code))]
    return found


def test_no_task_per_request_or_connection() -> None:
    """Between a ready descriptor and the engine there are callbacks only."""
    paths = files(ROOT, "xsd/io/*.py", "xsd/io/*.pyx", "xsd/daemon/*.py")
    assert coroutine_words(paths) == []
    assert len(paths) > 10


def test_a_task_is_found(tmp_path: Path) -> None:
    """The canary."""
    (tmp_path / "a.py").write_text("# await\nasync def f():\n    loop.create_task(g())\n")
    assert coroutine_words([tmp_path / "a.py"]) == [("a.py", "async def"), ("a.py", "create_task")]
