"""The count of branches: what counts, how objects add up, and what an explanation is worth."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from branches.counts import Line, Source, count, function_at, origins
from branches.explained import Tally, judge, load

ROOT = Path(__file__).parents[2]
UNREACHED = Path(__file__).with_name("unreached.toml")

HEADER = """
static inline int above(int x, int y)
{
    if (x > y)
        return 1;
    return 0;
}
"""
FIRST = """
#include "both.h"
#define xs_assert(cond) ((cond) ? (void)0 : __builtin_abort())
int second(int x);
int main(int n, char **words)
{
    xs_assert(n > 0 && words);
    if (n > 1 || above(n, 7))
        return 3;
    return second(n);
}
"""
SECOND = """
#include "both.h"
int second(int x)
{
    return above(9, x) - 1;
}
"""


def counted(root: Path) -> list[Line]:
    """The branches of a program of two objects, that was run once."""
    (root / "csrc").mkdir()
    for name, text in (("both.h", HEADER), ("first.c", FIRST), ("second.c", SECOND)):
        (root / "csrc" / name).write_text(text)
    objects = []
    for name in ("first", "second"):
        objects.append(f"build/{name}.o")
        (root / "build").mkdir(exist_ok=True)
        compiler = ["gcc", "-O0", "--coverage", "-c", f"csrc/{name}.c", "-o", objects[-1]]
        subprocess.run(compiler, cwd=root, check=True)
    subprocess.run(["gcc", "--coverage", *objects, "-o", "program"], cwd=root, check=True)
    subprocess.run(["./program"], cwd=root, check=True)
    return count(root, root / "build")


def test_a_line_is_counted_once_whatever_holds_its_code(tmp_path: Path) -> None:
    """Inline functions of two objects add up; what an assertion guards is no branch."""
    lines = {(line.file, line.text): line for line in counted(tmp_path)}
    shared = lines["csrc/both.h", "if (x > y)"]
    assert (sorted(shared.taken), shared.function) == ([1, 1], "above")
    assert lines["csrc/first.c", "if (n > 1 || above(n, 7))"].unreached == 2
    assert len(lines) == 2


def test_nothing_built_is_not_everything_reached(tmp_path: Path) -> None:
    """Without objects there is no report."""
    with pytest.raises(FileNotFoundError):
        count(tmp_path, tmp_path)


GENERATED = """
static int __pyx_f_one(void) {
  /* "xsd/core/one.pyx":7
 *     cdef int rc = 0
 *     if rc:             # <<<<<<<<<<<<<<
 */
  if (__pyx_v_rc) {

    /* "xsd/core/types.pxd":9
 *     return q
 */
"""
MODULE = '''
cdef int one(Core *core,
             int n) noexcept nogil:
    """What it does."""
    return 1 if n else 2


    def two(self, x=f(1)):
        return x
'''


def test_generated_code_is_known_by_its_comments() -> None:
    """Each line belongs to the last line of ours that a comment names."""
    places = origins(Source("one.c", GENERATED.split("\n")))
    assert places[0] == places[1] == ("", 0)
    assert places[6] == ("xsd/core/one.pyx", 7)
    assert places[-1] == ("xsd/core/types.pxd", 9)


def test_a_line_of_cython_is_named_by_its_function() -> None:
    """Whatever its kind, over how many lines its head goes, and at which depth it stands."""
    source = Source("one.pyx", MODULE.split("\n"))
    assert [function_at(source, number) for number in (1, 3, 5, 9)] == ["", "one", "one", "two"]


LINES = [
    Line("csrc/a.c", 3, "f", "if (x)", (5, 0)),
    Line("csrc/a.c", 9, "f", "if (x)", (0, 0)),
    Line("csrc/b.c", 2, "g", "if (x)", (1, 1)),
]


def test_what_is_not_explained_stands_out() -> None:
    """Each branch needs its own share of an explanation; one for a reached branch is stale."""
    verdict = judge(LINES, {"csrc/a.c f: if (x)": 2, "csrc/b.c g: if (x)": 1})
    assert verdict.files == {"csrc/a.c": Tally(4, 1, 2), "csrc/b.c": Tally(2, 2, 0)}
    assert [line.number for line in verdict.unexplained] == [9]
    assert verdict.stale == ["csrc/b.c g: if (x) (1 too many)"]
    assert verdict.files["csrc/a.c"].unexplained == 1


def test_an_explanation_has_a_reason(tmp_path: Path) -> None:
    """An entry that does not say why is refused."""
    file = tmp_path / "unreached.toml"
    file.write_text('[[unreached]]\nwhy = ""\n[unreached.branches]\n"csrc/a.c f: x" = 1\n')
    with pytest.raises(ValueError, match="needs why"):
        load(file)


def test_explained_lines_exist() -> None:
    """Every explained line still stands in its file: an explanation must not outlive its code."""
    gone = []
    for place in load(UNREACHED):
        file, _, rest = place.partition(" ")
        text = rest.partition(": ")[2]
        lines = [line.strip() for line in (ROOT / file).read_text().split("\n")]
        if text not in lines:
            gone.append(place)
    assert gone == []
