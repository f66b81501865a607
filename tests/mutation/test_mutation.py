"""The mutation check itself: it changes code and nothing else, and what it plants is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checkout import FLAVOUR

from mutation.job import BIN, confined, last
from mutation.operators import changes
from mutation.plugin import rank
from mutation.sources import ROOT, Mutant, candidates, draws, masked_lines, sources
from mutation.tree import BuildError, copy, recipe


def mutations(line: str, cython: bool = False) -> set[str]:
    """What can become of a line, without its kinds and indentation."""
    masked = masked_lines(line, cython)[0]
    return {change.line.strip() for change in changes(line, masked, cython)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    if (a < b)", {"if (a <= b)", "if (!(a < b))"}),
        ("    n += size;", {"n -= size;", ";"}),
        ("    free_all(t->mem, p);", {";"}),
        ("    return XS_ENOMEM;", {"return XS_EINVAL;", "return 0;"}),
        ("    return false;", {"return true;"}),
        ("    q->first++;", {"q->first--;", ";"}),
        ("    } else if (!a && b) {", {
            "} else if (!a || b) {", "} else if (a && b) {", "} else if (!(!a && b)) {",
        }),
        ("    a = b + 1; /* + 1 */", {
            "a = b - 1; /* + 1 */", "a = b; /* + 1 */", "a = b + 0; /* + 1 */",
            "a = b + 2; /* + 1 */", ";",
        }),
        ("    struct xs_node *n = *link;", set()),
        ('    put(")+ 1 < 2");', {";"}),
        ("        break;", {"continue;"}),
    ],
)  # fmt: skip
def test_c_lines(line: str, expected: set[str]) -> None:
    """Exactly the classic mutations; comments and strings stay."""
    assert mutations(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    if not a and b:", {"if not a or b:", "if a and b:", "if not (not a and b):"}),
        ("    d = <Domain *>find(core, x) # < 3", {"pass"}),
        ("    core.open_tx -= 1", {
            "core.open_tx += 1", "core.open_tx -= 0", "core.open_tx -= 2", "pass",
        }),
        ("    return XS_EINVAL", {"return XS_ENOENT", "return 0"}),
        ("    if a is not None:", {"if not (a is not None):"}),
        ("    tx.poisoned = True", {"tx.poisoned = False", "pass"}),
        ("    raise KeyError(f'no effect {1 + 2}')", set()),
    ],
)  # fmt: skip
def test_cython_lines(line: str, expected: set[str]) -> None:
    """The same for the core, where casts look like comparisons."""
    assert mutations(line, cython=True) == expected


C = """\
/* a < b */
static int table[] = {1, 2};
int f(int n)
{
    int some[8];
    /* n = n + 1;
       n = n + 2; */
    xs_assert(n > 1);
    n = n *
        other;
    return n;
}
"""

CYTHON = '''\
"""a = 1"""
cdef int64_t LONG = 10
cdef enum:
    FEW = 8
cdef int f(int n,
           int m=2) noexcept nogil:
    """Returns 1 + 2."""
    cdef int some[8]
    assert n > 1
    call(n,
         m)
    return n
class Shell:
    size = 3
    def g(self, n=4):
        self.n = n
'''


def test_only_code_is_changed() -> None:
    """Bodies of functions; no declarations, documentation, assertions, signatures, tables."""
    assert sorted(candidates("a.c", C)) == [8, 10]
    assert {change.kind for change in candidates("a.c", C)[8]} == {"arithmetic"}
    assert sorted(candidates("a.pyx", CYTHON)) == [11, 15]


def test_a_seed_is_one_order() -> None:
    """The same mutants in every run, of every source, one of a line; another seed, others."""
    texts = sources()
    first = draws(3, texts)
    assert first == draws(3, texts)
    assert first[:50] != draws(4, texts)[:50]
    assert len({(mutant.file, mutant.line) for mutant in first}) == len(first)
    assert {mutant.file for mutant in first} >= {"csrc/trie.c", "csrc/path.h", "xsd/core/store.pyx"}
    for mutant in first:
        assert mutant.mutated != mutant.original
    one = first[0]
    changed = one.apply(texts[one.file])
    differ = [a != b for a, b in zip(changed.split("\n"), texts[one.file].split("\n"), strict=True)]
    assert (sum(differ), differ.index(True)) == (1, one.line - 1)


def test_the_flags_are_those_of_the_build() -> None:
    """What is compiled is what setup.py compiles, but for debug information and warnings."""
    said = recipe()
    assert {"-O2", "-std=c11", "-fvisibility=hidden", "-g0", "-w"} <= set(said.library)
    assert "-Wl,--gc-sections" in said.libraries


def test_likely_killers_come_first() -> None:
    """The core's tests before daemons, and whatever is new at the end."""
    names = ["tests/new/test_x.py::a", "tests/xen/test_real.py::a", "tests/core/test_oom.py::a"]
    assert sorted(names, key=rank) == names[::-1]


@pytest.mark.slow
@pytest.mark.skipif(FLAVOUR != "release", reason="copies are built as releases")
def test_what_is_planted_is_found() -> None:
    """A fault fails a test in the copy; what changes no object or does not compile is told."""
    tree = copy("tree-test")
    for module in tree.modules:
        name = f"{module}{tree.recipe.suffix}"
        shutil.copy(ROOT / name, tree.root / name)
    tree.modules = [Path("xsd/core/quota")]
    tree.build()
    tree.link()
    file = "xsd/core/quota.pyx"
    lines = (ROOT / file).read_text().split("\n")
    at = next(i for i, line in enumerate(lines) if "return XS_ENOSPC" in line)
    log = tree.root / "test.log"
    words = [BIN / "python", "-m", "pytest", "-q", "-x", "-p", "mutation.plugin"]
    words += ["-p", "no:cacheprovider", "tests/test_model.py", "-k", "quota and engine"]

    def planted(text: str) -> Mutant:
        return Mutant(file, at + 1, "planted", lines[at], text)

    try:
        assert not tree.change(planted(lines[at] + " # the same"))
        with pytest.raises(BuildError):
            tree.change(planted("    cdef"))
        tree.restore(file)
        tree.link()
        assert confined(words, tree.root, log, 300) == 0
        assert tree.change(planted(lines[at].replace("XS_ENOSPC", "XS_OK")))
        tree.link()
        assert confined(words, tree.root, log, 300) == 1
        assert last(log.read_text().splitlines(), "failed ").startswith("tests/test_model.py")
    finally:
        tree.restore(file)
