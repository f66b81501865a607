"""Names, options, help and complaints: everything before a connection is made."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from xsd.cli import catalogue, invocation
from xsd.cli.failure import UsageError, path_flaw
from xsd.cli.main import main

NAMES = ["read", "write", "rm", "exists", "list", "ls", "chmod", "watch", "control"]
ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should one of these tests connect after all, it finds nobody."""
    monkeypatch.setenv("XENSTORED_PATH", "/nonexistent/socket")


def tool(name: str) -> catalogue.Tool:
    found = catalogue.find(name)
    assert found is not None
    return found


def test_catalogue() -> None:
    """Exactly the tools that are promised."""
    assert [each.name for each in catalogue.TOOLS] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str, capsys: Capture) -> None:
    """--help goes to stdout, names every option, and is a success."""
    assert main(["/usr/bin/xsd", name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: xsd {name} [-h]")
    assert [f"--{o.long}" in out for o in tool(name).options] == [True] * len(tool(name).options)
    assert err == ""


@pytest.mark.parametrize("name", NAMES)
def test_drop_in_help(name: str, capsys: Capture) -> None:
    """Under its other name a tool's help goes to stderr, as that of the tool it stands in for."""
    assert main([f"/usr/bin/xenstore-{name}", "-h"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Usage: xenstore-{name} [-h]")


def test_own_help(capsys: Capture) -> None:
    """The program's help lists every tool."""
    assert main(["xsd", "--help"]) == 0
    out = capsys.readouterr().out
    assert [f"\n  {name} " in out for name in ["daemon", *NAMES]] == [True] * 10


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["xsd", "foo"], "xsd: unknown command 'foo', expected one of daemon, demo, read, write, "),
        (["xenstore", "foo"], "xenstore: unknown mode 'foo', expected one of read, write, "),
        (["xenstore-foo"], "xenstore-foo: unknown mode 'foo', expected one of read, "),
        (["xsd", "--foo"], "xsd: unknown option '--foo', see xsd --help"),
        (["xsd"], "Usage: xsd COMMAND"),
        (["xenstore"], "xenstore: Usage: xenstore <mode> [-h] [...]"),
        (["xsd", "read"], "xsd: expected path ..., got nothing\nUsage: xsd read "),
        (["xenstore-write", "/a"], "xenstore-write: expected path value ..., got 1\n"),
        (["xenstore-chmod", "/a"], "xenstore-chmod: expected path permission ..., got 1\n"),
        (["xsd", "read", "-x", "/a"], "xsd: option -x not recognized\nUsage: xsd read "),
        (["xsd", "write", "/a", "-1"], "xsd: option -1 not recognized (put -- before "),
        (["xsd", "watch", "/a", "-n"], "xsd: option -n requires argument\n"),
        (["xsd", "chmod", "/a", "x5"], "xsd: invalid permission 'x5': expected a letter n, r, "),
        (["xsd", "read", "/a"], "xsd: cannot connect to xenstored at /nonexistent/socket"),
        (["xsd", "ls", "--socket", "/no/where"], "xsd: cannot connect to xenstored at /no/where"),
    ],
)
def test_complaints(words: list[str], complaint: str, capsys: Capture) -> None:
    """Bad use is exit status 1 and says what was expected."""
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert err[: len(complaint)] == complaint
    assert out == ""


def test_control_without_command(capsys: Capture) -> None:
    """Control has an exit status of its own for this."""
    assert main(["xenstore-control"]) == 2
    assert "expected a command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-c"], "Missing command line value"),
        (["-t"], "Missing timeout value"),
        (["-F"], "Missing binary specification"),
        (["-t", "soon", "/bin/x"], "expected a timeout in seconds, got 'soon'"),
        (["/bin/x", "more"], "expected [-c arguments] [-F] [-t seconds] file, got '/bin/x more'"),
    ],
)
def test_live_update_arguments(words: list[str], complaint: str, capsys: Capture) -> None:
    """A live update is checked before anything is asked of the daemon."""
    assert main(["xenstore-control", "live-update", *words]) == 2
    assert capsys.readouterr().err == f"xenstore-control: {complaint}\n"


def test_options_anywhere() -> None:
    """Options may follow arguments, be joined, abbreviated, and end with --."""
    call = invocation.parse(tool("ls"), ["/a", "-fp", "--", "-f"])
    assert (list(call.options), list(call.arguments)) == (["flat", "permissions"], ["/a", "-f"])
    call = invocation.parse(tool("watch"), ["--num=3", "/a", "-d", "2"])
    assert (call.number("number"), call.number("depth")) == (3, 2)


def test_other_name_of_an_option() -> None:
    """The long option that ls always had for -p still works."""
    assert list(invocation.parse(tool("ls"), ["--prefix"]).options) == ["permissions"]


def test_control_passes_arguments_on() -> None:
    """What follows the command belongs to the daemon, dashes or not."""
    call = invocation.parse(tool("control"), ["quota", "max", "-r", "--help"])
    assert list(call.arguments) == ["quota", "max", "-r", "--help"]


def test_number_expected() -> None:
    """A count that is none says so."""
    call = invocation.parse(tool("watch"), ["-n", "x", "/a"])
    with pytest.raises(UsageError, match="--number expects a whole number, got 'x'"):
        call.number("number")


@pytest.mark.parametrize(
    ("path", "flaw"),
    [
        ("/a/b-c_D@9", None),
        ("/", None),
        ("", "it is empty"),
        ("/a b", "character 3 is ' '"),
        ("/a//b", "it contains //"),
        ("/a/", "it ends with /"),
        ("/" + "a" * 3072, "it has 3073 characters"),
    ],
)
def test_path_flaw(path: str, flaw: str | None) -> None:
    """What is wrong with a path is named; nothing is wrong with a good one."""
    found = path_flaw(path)
    assert (found and found[: len(flaw or "")]) == flaw


@pytest.mark.parametrize("words", [["xsd", "daemon"], ["/usr/sbin/xenstored"]])
def test_daemon(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon gets the rest of the command line as it is."""
    seen: list[list[str]] = []

    def daemon_main(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    stub = types.ModuleType("xsd.daemon.main")
    monkeypatch.setattr(stub, "main", daemon_main, raising=False)
    monkeypatch.setitem(sys.modules, "xsd.daemon.main", stub)
    assert main([*words, "--no-fork", "-h"]) == 7
    assert seen == [["--no-fork", "-h"]]


def test_tools_load_little() -> None:
    """A tool is run often and for one value, so what it imports is part of its cost."""
    code = (
        "import sys; from xsd.cli.main import main; main(['xsd', 'read', '/a']);print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "cannot connect" in result.stderr
    heavy = {"asyncio", "argparse", "dataclasses", "inspect", "logging", "subprocess", "uvloop"}
    assert heavy & set(result.stdout.split()) == set()
    assert [name for name in result.stdout.split() if name.startswith("xsd.daemon")] == []


def test_completion(capsys: Capture) -> None:
    """The completion script knows every tool and its options."""
    pytest.importorskip("shtab")
    assert main(["xsd", "--print-completion", "bash"]) == 0
    out = capsys.readouterr().out
    assert [name for name in ["daemon", *NAMES] if name not in out] == []
    assert "--permissions" in out
    assert main(["xsd", "--print-completion=nosuch"]) == 1
    assert "expected a shell, one of bash" in capsys.readouterr().err
