"""Which layer of the daemon a moment belongs to, told from samples, instructions and calls.

Layers are told apart by the file that the code is in, and within our compiled modules by the
name: what Cython makes begins with `__pyx`, all else there is the C library, which is linked
into each of them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

KERNEL = "kernel"
LOOP = "uvloop, libuv"
PYTHON = "CPython"
IO = "xsd/io"
CORE = "xsd/core"
CSRC = "csrc"
LIBC = "libc"
OTHER = "other"
LAYERS = (KERNEL, LOOP, PYTHON, IO, CORE, CSRC, LIBC, OTHER)

SYSTEM_CALL = re.compile(r"__(?:x64|ia32|arm64|se|riscv)_sys_(\w+)")
_FRAME = re.compile(r"\s*[0-9a-f]+ (?P<name>.*?) \((?P<file>.*)\)$")
_OURS = re.compile(r"/xsd/(?P<part>core|io)/[^/]*\.so")
_LIBC = re.compile(r"/(?:libc|libm|libpthread|ld-linux[\w-]*)[.-][^/]*$|^\[vdso\]$")
_PYTHON = re.compile(r"/(?:libpython[\d.]+\.so[\d.]*|python[\d.]*)$")


@dataclass(frozen=True, slots=True)
class Frame:
    """A function and the file that it is in."""

    name: str
    file: str


def layer(frame: Frame) -> str:
    """The layer that a function belongs to."""
    if frame.file.startswith("[kernel") or frame.file.endswith(".ko"):
        return KERNEL
    if ours := _OURS.search(frame.file):
        if not frame.name.startswith(("__pyx", "__Pyx")):
            return CSRC
        return CORE if ours["part"] == "core" else IO
    if "/uvloop/" in frame.file:
        return LOOP
    if _PYTHON.search(frame.file):
        return PYTHON
    return LIBC if _LIBC.search(frame.file) else OTHER


def stacks(text: str) -> Iterator[tuple[Frame, ...]]:
    """The stacks in what `perf script -F ip,sym,dso` prints, the innermost function first."""
    found: list[Frame] = []
    for line in (*text.splitlines(), ""):
        if match := _FRAME.match(line):
            found.append(Frame(re.sub(r"\+0x[0-9a-f]+$", "", match["name"]), match["file"]))
        elif found:
            yield tuple(found)
            found = []


def place(stack: Sequence[Frame]) -> tuple[str, str]:
    """The layer of a stack's innermost function, and the system call or the function itself."""
    where = layer(stack[0])
    if where != KERNEL:
        return where, stack[0].name
    for frame in stack:
        if match := SYSTEM_CALL.fullmatch(frame.name):
            return where, match[1]
    if any(frame.name == "schedule" for frame in stack):
        return where, "others had their turn"
    return where, "on the way in and out"


def folded(samples: Iterable[Sequence[Frame]]) -> list[str]:
    """One line for each different stack, outermost first, as flame graphs are drawn from."""
    counted = Counter(
        ";".join([layer(stack[0]), *(frame.name.replace(";", ":") for frame in reversed(stack))])
        for stack in samples
    )
    return [f"{stack} {count}" for stack, count in sorted(counted.items())]


def instructions(text: str) -> Counter[Frame]:
    """Instructions of each function itself, out of a file that callgrind has written."""
    names: dict[str, str] = {}
    counted: Counter[Frame] = Counter()
    file = name = ""
    called = False

    def resolve(kind: str, word: str) -> str:
        number, _, rest = word.partition(" ")
        if not number.startswith("("):
            return word
        if rest:
            names[kind + number] = rest
        return names.get(kind + number, number)

    for line in text.splitlines():
        key, equals, word = line.partition("=")
        if equals and key in ("ob", "fn", "cob", "cfn"):
            found = resolve(key.removeprefix("c"), word)
            if key == "ob":
                file = found
            elif key == "fn":
                name = found
        elif equals and key == "calls":
            called = True  # the next line has what the callee cost
        elif line[:1] in tuple("0123456789+-*"):
            words = line.split()
            if not called and len(words) > 1:
                counted[Frame(name.partition("'")[0], file)] += int(words[1])
            called = False
    return counted


def system_calls(text: str) -> Counter[str]:
    """How often each system call was made, out of the table that `strace -c` writes."""
    counted: Counter[str] = Counter()
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdecimal() and words[-1] != "total":
            counted[words[-1]] += int(words[3])
    return counted
