"""A worker's own copy of the checkout, and how it is compiled again after one line has changed.

One line concerns one object, so setup.py would do too much: it compiles all modules anew when
the C library has changed. The flags are its own; the objects are kept, without debug
information, in which line numbers and texts would stand.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from mutation.sources import ROOT, Mutant

OUT = ROOT / "build" / "mutation"
BIN = ROOT / ".venv" / "bin"
COPIED = ("csrc", "xsd", "tests", "bench", "setup.py", "pyproject.toml", "Makefile", "README.md")
LONGEST = 180.0
"""Seconds that a compiler may take; one that is started and does not end is no mutant."""


class BuildError(Exception):
    """The compiler refused; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The commands of setup.py: to compile the library, a module, and to link one."""

    library: tuple[str, ...]
    module: tuple[str, ...]
    link: tuple[str, ...]
    libraries: tuple[str, ...]
    suffix: str


def recipe(root: Path = ROOT) -> Recipe:
    """Reads the flags of setup.py without letting it build anything."""
    before = Path.cwd()
    os.chdir(root)
    try:
        with (
            mock.patch("setuptools.setup"),
            mock.patch("Cython.Build.cythonize", lambda modules, **_: modules),
        ):
            said: dict[str, Any] = runpy.run_path("setup.py")
    finally:
        os.chdir(before)
    compiler, flags, position, linker, suffix = (
        shlex.split(sysconfig.get_config_var(name) or "")
        for name in ("CC", "CFLAGS", "CCSHARED", "LDSHARED", "EXT_SUFFIX")
    )
    # -w: a warning about a mutant says nothing about the tests.
    release = [*said["COMMON"], *said["FLAGS"], "-g0", "-w", "-Icsrc"]
    include = f"-I{sysconfig.get_path('include')}"
    return Recipe(
        library=(*compiler, *release),
        module=(*compiler, *flags, *position, include, *release),
        link=tuple(linker),
        libraries=tuple(said["LINK"] + ["-Wl,--gc-sections"]),
        suffix=suffix[0],
    )


def run(command: Sequence[str | Path], cwd: Path) -> None:
    """Runs a compiler. Raises BuildError."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, capture_output=True, text=True, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired as late:
        raise BuildError(f"{words[0]} does not end") from late
    if done.returncode != 0:
        raise BuildError(done.stderr[-2000:])


class Tree:
    """One copy in build/mutation, with its objects."""

    def __init__(self, name: str) -> None:
        self.root = OUT / name
        self.objects = self.root / "build" / "objects"
        self.recipe = recipe()
        self.modules = [
            path.relative_to(self.root).with_suffix("")
            for package in ("core", "io")
            for path in sorted((self.root / "xsd" / package).glob("*.pyx"))
        ]

    def build(self) -> None:
        """Compiles everything that the copy has no object of."""
        for source in sorted((self.root / "csrc").glob("*.c")):
            self.compile(f"csrc/{source.name}", only_missing=True)
        for module in self.modules:
            self.compile(f"{module}.pyx", only_missing=True)

    def object(self, source: str) -> Path:
        return self.objects / Path(source).with_suffix(".o")

    def compile(self, source: str, only_missing: bool = False) -> Path:
        """One .c of the library or one .pyx to its object. Raises BuildError."""
        target = self.object(source)
        if only_missing and target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        if source.endswith(".pyx"):
            generated = target.with_suffix(".c")
            options = ["-3", "-X", "embedsignature=True", "-o", str(generated)]
            run([BIN / "cython", *options, source], self.root)
            run([*self.recipe.module, "-c", generated, "-o", fresh], self.root)
        else:
            run([*self.recipe.library, "-c", source, "-o", fresh], self.root)
        fresh.replace(target)
        return target

    def link(self) -> None:
        """Links in place what is older than its objects. Raises BuildError."""
        archive = self.objects / "libxscore.a"
        objects = sorted((self.objects / "csrc").glob("*.o"))
        if older(archive, objects):
            archive.unlink(missing_ok=True)
            run(["ar", "rcs", archive, *objects], self.root)
        for module in self.modules:
            target = self.root / f"{module}{self.recipe.suffix}"
            parts = [self.object(f"{module}.pyx"), archive]
            if older(target, parts):
                target.unlink(missing_ok=True)
                words = [*self.recipe.link, *parts, *self.recipe.libraries]
                run([*words, "-o", target], self.root)

    def affected(self, file: str) -> list[str]:
        """The sources whose objects a change of a file may change."""
        if not file.endswith(".h"):
            return [file]
        library = [f"csrc/{path.name}" for path in sorted((self.root / "csrc").glob("*.c"))]
        return library + [f"{module}.pyx" for module in self.modules]

    def change(self, mutant: Mutant) -> bool:
        """Writes a mutant into the copy and compiles it: whether any object is another than before.

        Raises BuildError. `restore` undoes it in any case.
        """
        path = self.root / mutant.file
        path.write_text(mutant.apply((ROOT / mutant.file).read_text()))
        differs = False
        for source in self.affected(mutant.file):
            old = self.object(source)
            kept = old.with_suffix(".kept")
            if not kept.exists():
                shutil.copyfile(old, kept)
            differs |= self.compile(source).read_bytes() != kept.read_bytes()
        return differs

    def restore(self, file: str) -> None:
        """The copy is again what the checkout is; what is to be linked, the next link does."""
        # Written now, not copied with its time: other builds in the copy go by times.
        (self.root / file).write_text((ROOT / file).read_text())
        put_back(self.objects)


def put_back(objects: Path) -> None:
    """Objects of mutants go, those of the checkout are there again, and are new."""
    for kept in objects.rglob("*.kept"):
        kept.touch()
        kept.replace(kept.with_suffix(".o"))


def older(target: Path, parts: Sequence[Path]) -> bool:
    """Whether a file is missing, or older than one of its parts."""
    if not target.exists():
        return True
    when = target.stat().st_mtime_ns
    return any(part.stat().st_mtime_ns >= when for part in parts)


def copy(name: str, like: str = "") -> Tree:
    """Makes or renews a worker's copy: sources and tests of the checkout, objects that are kept.

    The objects of another copy, which is idle, save compiling them again.
    """
    root = OUT / name
    root.mkdir(parents=True, exist_ok=True)
    for entry in COPIED:
        source, target = ROOT / entry, root / entry
        if source.is_dir():
            sync(source, target)
        else:
            renew(source, target)
    # Warnings about a mutant are not what the replayed fuzz corpus is asked for.
    builder = root / "tests/fuzz/builder.py"
    quiet = re.sub(r'"-Werror"', '"-w"', (ROOT / "tests/fuzz/builder.py").read_text())
    if builder.read_text() != quiet:
        builder.write_text(quiet)
    if not (root / ".venv").exists():
        (root / ".venv").symlink_to(ROOT / ".venv")
    tree = Tree(name)
    stale(tree, OUT / like / "build" / "objects" if like else None)
    return tree


def sync(source: Path, target: Path) -> None:
    """Files of a directory, without what is compiled; what has gone from it goes."""
    wanted = {
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyc")
    }
    if target.exists():
        for path in [p for p in target.rglob("*") if p.is_file()]:
            if path.relative_to(target) not in wanted and path.suffix not in (".so", ".pyc"):
                path.unlink()
    for name in sorted(wanted):
        renew(source / name, target / name)


def renew(source: Path, target: Path) -> None:
    """Copies a file if it is another."""
    if not target.exists() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        target.touch()


def stale(tree: Tree, other: Path | None) -> None:
    """Throws the objects away when they were made of other sources; takes those of another copy."""
    made_of = tree.objects / "made-of"
    paths = [
        path
        for pattern in ("csrc/*.[ch]", "xsd/*/*.px[yd]", "xsd/*/*.pyx", "setup.py")
        for path in sorted(tree.root.glob(pattern))
    ]
    text = "".join(f"{path.name}\n{path.read_text()}" for path in paths)
    if tree.objects.exists() and made_of.exists() and made_of.read_text() == text:
        put_back(tree.objects)  # after a run that was interrupted
        return
    shutil.rmtree(tree.objects, ignore_errors=True)
    if other is not None and (other / "made-of").read_text() == text:
        shutil.copytree(other, tree.objects, copy_function=shutil.copyfile)
        return
    tree.objects.mkdir(parents=True)
    made_of.write_text(text)
