"""Builds the C library and the Cython modules over it.

XSD_BUILD selects a flavour: "release" (default), "debug" (assertions of Cython, no
optimisation), "asan" (address and undefined-behaviour sanitizers) or "coverage" (counts how
often each branch is taken). Warnings are errors in
csrc; the C that Cython generates is compiled with the warnings that say something about ours.
XSD_ANNOTATE=1 writes Cython's annotated HTML beside the C it generates, XSD_JOBS bounds how
many compilers run at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAVOUR = os.environ.get("XSD_BUILD", "release")
JOBS = int(os.environ.get("XSD_JOBS") or len(os.sched_getaffinity(0)))
STRICT = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wsign-compare", "-Werror"]
FLAGS = {
    "release": ["-O2", "-g1"],
    "debug": ["-O0", "-g3"],
    "asan": [
        "-O1",
        "-g",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
    ],
    "coverage": ["-O0", "-g1", "--coverage"],
}[FLAVOUR]
LINK = {"asan": ["-fsanitize=address,undefined"], "coverage": ["--coverage"]}.get(FLAVOUR, [])
COMMON = ["-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden", "-ffunction-sections", "-fPIC"]
# What the generated code does that strict flags dislike; ours is checked by Cython itself.
# -Wno-unused-function: inline helpers of a .pxd come with every module that cimports it.
GENERATED = [
    "-Wall",
    "-Werror",
    "-Wno-unused-function",
    "-Wno-unused-variable",
    "-Wno-maybe-uninitialized",
    "-Wno-array-bounds",
]

C_SOURCES = sorted(str(p) for p in Path("csrc").glob("*.c"))
C_HEADERS = sorted(str(p) for p in Path("csrc").glob("*.h"))

LIBRARY = (
    "xscore",
    {
        "sources": C_SOURCES,
        # Under "": every object depends on every header. There are few, and a stale object
        # that believes in another layout of a struct costs more than a second of compiling.
        "obj_deps": {"": C_HEADERS},
        "include_dirs": ["csrc"],
        "cflags": [*COMMON, *FLAGS, *STRICT],
    },
)


def extension(source: Path) -> Extension:
    """One module per .pyx, with what it needs of the library linked in."""
    return Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        include_dirs=["csrc"],
        # The library is static, so a change in it means linking anew.
        depends=[*C_SOURCES, *C_HEADERS],
        extra_compile_args=[*COMMON, *FLAGS, *GENERATED],
        extra_link_args=[*LINK, "-Wl,--gc-sections"],
    )


class LibraryFirst(build_ext):
    """Extensions link the C library, so it is built before them, also in place."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or JOBS

    def run(self) -> None:
        self.run_command("build_clib")
        super().run()


SOURCES = sorted([*Path("xsd/core").glob("*.pyx"), *Path("xsd/io").glob("*.pyx")])

setup(
    libraries=[LIBRARY],
    cmdclass={"build_ext": LibraryFirst},
    ext_modules=cythonize(
        [extension(s) for s in SOURCES],
        build_dir=f"build/{FLAVOUR}/cython",
        annotate=bool(os.environ.get("XSD_ANNOTATE")),
        compiler_directives={
            "language_level": "3",
            "embedsignature": True,
            # A comparison each, as it is written, where branches are counted.
            "optimize.use_switch": FLAVOUR != "coverage",
        },
    ),
)
