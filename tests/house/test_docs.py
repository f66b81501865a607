"""The documents are true: what they name exists, and they speak of the project only."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from checkout import ROOT, project_files

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")

# Directories of this or that machine, and what only its owner knows. Those that every Debian
# has (/usr, /etc, /run, /proc, /dev, /tmp, /var) are the program's business.
ELSEWHERE = re.compile(r"(?<![\w.:~])/(?:root|home|work|Users|mnt|opt|media|srv|workspace)(?:/|\b)")
# A number of a tracker means nothing to those who have only the sources.
TRACKER = re.compile(r"(?i)\b(?:issue|ticket|pull request|PR)s? ?#?\d+\b|\b(?:fixes|closes) #\d+")
# Package registries have their ordinary clients, which know the way.
HOSTS = re.compile(r"(?i)\b(?:files\.pythonhosted|pypi\.(?:org|io|python)|proxy\.golang)\b")

# What is written down for machines, and what the rules themselves look like.
UNREAD = {".png", ".svg", ".ico"}
RULES = "tests/house/test_docs.py"


def targets(makefile: str) -> set[str]:
    """The targets that people may call: those declared phony."""
    return {word for line in re.findall(r"^\.PHONY:(.*)$", makefile, re.M) for word in line.split()}


def commands(text: str) -> set[str]:
    """Every ``make x`` in a document, in code: other makings are prose."""
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.S)
    return {name for piece in code for name in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", piece)}


def unknown_words(text: str) -> list[str]:
    """What must not stand in any file of the project."""
    return [match[0] for pattern in (ELSEWHERE, TRACKER, HOSTS) for match in pattern.finditer(text)]


def listed(help_text: str) -> set[str]:
    """The targets that ``make help`` lists, each with something said about it."""
    return set(re.findall(r"^  make ([\w-]+) +\S", help_text, re.M))


def paths_in(text: str) -> set[str]:
    """Files and directories of the project that a document names in code."""
    code = re.sub(r"```.*?```", "", text, flags=re.S)
    names = re.findall(r"`((?:\.ci|csrc|xsd|tests|bench)/[\w./*-]*|[\w-]+\.(?:md|toml|cfg))`", code)
    return {name.rstrip("/") for name in names}


def missing(names: set[str], root: Path) -> list[str]:
    """Those that do not exist; stars stand for anything."""
    return sorted(name for name in names if not any(root.glob(name)))


def test_documents_exist_and_say_something() -> None:
    """All documents are there."""
    assert [name for name in DOCUMENTS if len((ROOT / name).read_text()) < 500] == []


def test_make_help_lists_every_target() -> None:
    """What can be called is listed with a line, and what is listed can be called."""
    # Not what an outer make passes on: its variables would change what this one prints.
    done = subprocess.run(
        ["env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "make", "-s", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    known = targets((ROOT / "Makefile").read_text())
    assert listed(done.stdout) == known
    promised = "help run build debug asan test quick bench annotate tidy lint clean"
    assert set(promised.split()) - known == set()


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md", "TESTING.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_in_documents_exist(name: str) -> None:
    """Each ``make`` command that a document tells to type is a target."""
    told = commands((ROOT / name).read_text())
    assert told - targets((ROOT / "Makefile").read_text()) == set()


def test_readme_names_the_two_commands_first() -> None:
    """Nothing has to be done before `make run` and `make test`: no command stands above them."""
    code = "\n".join(re.findall(r"```\w*\n(.*?)```", (ROOT / "README.md").read_text(), re.S))
    lines = [line.split("#")[0].strip() for line in code.splitlines()]
    assert [line for line in lines if line][:2] == ["make run", "make test"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_named_in_documents_exist(name: str) -> None:
    """No document sends anybody to a file that is not there."""
    assert missing(paths_in((ROOT / name).read_text()), ROOT) == []


def layout(text: str) -> dict[str, set[str]]:
    """The directories of the layout in ARCHITECTURE.md, with the nouns named behind each."""
    block = next(b for b in re.findall(r"```\n(.*?)```", text, re.S) if b.startswith("csrc/"))
    found: dict[str, set[str]] = {}
    parent = where = ""
    for line in block.splitlines():
        head = re.match(r"( *)(\w+)/", line)
        if head and len(head[1]) <= 2:
            where = f"{parent}/{head[2]}" if head[1] else head[2]
            parent = parent if head[1] else head[2]
            line = line[head.end() :]
        found.setdefault(where, set()).update(re.findall(r"\b\w+\.(?:pyx|pxd|py|h)\b", line))
    return found


def test_the_layout_is_the_layout() -> None:
    """Directories and files in the layout of ARCHITECTURE.md exist; no package is left out."""
    shown = layout((ROOT / "ARCHITECTURE.md").read_text())
    names = {f"{where}/{file}" for where, files in shown.items() for file in files} | set(shown)
    assert missing(names, ROOT) == []
    packages = {f"xsd/{p.parent.name}" for p in (ROOT / "xsd").glob("*/__init__.py")}
    assert packages - set(shown) == set()


def test_the_changelog_knows_the_version() -> None:
    """The version in pyproject.toml has an entry, which is the newest one."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project: Mapping[str, object] = tomllib.load(file)["project"]
    entries = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert entries[:1] == [project["version"]]


def test_files_speak_of_the_project_only() -> None:
    """No path of one machine, no number of a tracker, no host of a registry, in any file."""
    found = {}
    seen = 0
    for path in project_files():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in UNREAD or name == RULES:
            continue
        seen += 1
        if words := unknown_words(path.read_text(errors="replace")):
            found[name] = words
    assert found == {}
    assert seen > 100


def test_the_rules_find_what_they_forbid() -> None:
    """The canaries."""
    assert unknown_words("see /home/me/x, /root and ./work/x or http://a/home/b") == [
        "/home/",
        "/root",
    ]
    assert unknown_words("as in issue 12; 3 issues; fixes #4") == ["issue 12", "fixes #4"]
    assert unknown_words("from pypi.org") == ["pypi.org"]
    assert commands("make tea; `make run` and\n```\nmake test  # x\n```\n") == {"run", "test"}
    assert targets(".PHONY: a b\nc: a\n") == {"a", "b"}
    assert listed("  make a   something\n  make b\n") == {"a"}
    assert missing(paths_in("`csrc/none.h` and `xsd/core/` and `README.md`"), ROOT) == [
        "csrc/none.h"
    ]
    assert layout("```\ncsrc/   x\n  proto.h a\nxsd/\n  io/   b.py, c.pyx\n```") == {
        "csrc": {"proto.h"},
        "xsd": set(),
        "xsd/io": {"b.py", "c.pyx"},
    }
