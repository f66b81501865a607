"""Configuration files with every kind of mistake, given to the daemon itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from peer import Peer
from serving import Daemon

from xsd.client.wire import Op

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
OK = b"OK\0"


class Mistake(NamedTuple):
    """A file, and what must stand in the message: line, key, and the rest."""

    text: str
    line: int
    key: str
    says: tuple[str, ...]


TOML = {
    "unknown key": Mistake("[quota]\nnodez = 1\n", 2, "quota.nodez", ("unknown", "'nodes'")),
    "unknown section": Mistake(
        "\n[quotas]\nnodes = 1\n", 2, "[quotas]", ("unknown section", "'quota'")
    ),
    "no section": Mistake("nodes = 1\n", 1, "nodes", ("[quota]",)),
    "text for integer": Mistake(
        '[quota]\n\nnodes = "many"\n', 3, "quota.nodes", ('"many"', "expected an integer from 0")
    ),
    "number out of range": Mistake(
        "[xen]\nstore-domid = 40000\n", 2, "xen.store-domid",
        ("40000", "expected an integer from 0 to 32751"),
    ),
    "negative": Mistake(
        "[quota]\nnodes = -1\n", 2, "quota.nodes", ("-1", "expected an integer from 0")
    ),
    "fraction for integer": Mistake(
        "[quota]\nnodes = 1.5\n", 2, "quota.nodes", ("1.5", "expected an integer")
    ),
    "integer for truth": Mistake(
        "[socket]\nenabled = 1\n", 2, "socket.enabled", ("bad value 1", "expected true or false")
    ),
    "truth for integer": Mistake(
        "[quota]\nnodes = true\n", 2, "quota.nodes", ("true", "expected an integer")
    ),
    "not a number": Mistake(
        "[conflict]\nburst-limit = nan\n", 2, "conflict.burst-limit", ("expected a number above 0",)
    ),
    "relative path": Mistake(
        '[log]\nfile = "xenstored.log"\n', 2, "log.file", ("expected an absolute path",)
    ),
    "unknown word": Mistake(
        '[log]\nlevel = "loud"\n', 2, "log.level",
        ('"loud"', "expected one of debug, info, warn, error, null"),
    ),
    "unknown facility": Mistake(
        '[log]\nfile = "syslog:kitchen"\n', 2, "log.file", ("syslog:<facility>", "daemon")
    ),
    "list with unknown word": Mistake(
        '[access-log]\nswitches = ["io", "oi"]\n', 2, "access-log.switches",
        ("expected a list of any of obj, io, wrl, acc, tdb",),
    ),
    "table for value": Mistake(
        "[quota.nodes]\nmax = 1\n", 1, "quota.nodes", ("expected an integer",)
    ),
    "value for section": Mistake("quota = 1\n", 1, "quota", ()),
    "no TOML": Mistake("[quota]\nnodes 1000\n", 2, "", ()),
    "key twice": Mistake("[quota]\nnodes = 1\nnodes = 2\n", 3, "", ()),
    "string without end": Mistake('[log]\nfile = "/x\n', 2, "", ()),
    "not text": Mistake("[log]\n# \udcff\n", 2, "", ("UTF-8",)),
    "NUL": Mistake("[log]\nlevel = \0\n", 2, "", ()),
    "nobody to serve": Mistake(
        "[socket]\nenabled = false\n[xen]\nenabled = false\n", 4, "xen.enabled",
        ("neither the socket nor Xen",),
    ),
}  # fmt: skip

OXEN = {
    "unknown key": Mistake("quota-maxentty = 1\n", 1, "quota-maxentty", ("'quota-maxentity'",)),
    "no number": Mistake(
        "# first\nquota-maxentity = lots\n", 2, "quota-maxentity", ("'lots'", "expected an integer")
    ),
    "no truth": Mistake("merge-activate = yes\n", 1, "merge-activate", ("expected true or false",)),
    "no equals sign": Mistake("quota-maxentity\n", 1, "", ("key = value",)),
    "no key": Mistake("\n = 5\n", 2, "", ("no key",)),
    "comment behind value": Mistake(
        "quota-maxentity = 5 # five\n", 1, "quota-maxentity", ("line of its own",)
    ),
    "unsupported": Mistake("persistent = true\n", 1, "persistent", ("memory only",)),
    "level": Mistake("xenstored-log-level = 7\n", 1, "xenstored-log-level", ("debug, info, warn",)),
}


def assert_refused(
    xsd: Run, option: str, mistake: Mistake, file: Path, rundir: Path, *more: str
) -> None:
    file.write_bytes(mistake.text.encode(errors="surrogateescape"))
    for last in ((), ("--config-test",)):
        done = xsd("daemon", "--no-fork", "--rundir", str(rundir), option, str(file), *more, *last)
        text = done.stderr.decode()
        assert (done.returncode, done.stdout) == (1, b"")
        place = f"xsd: {file}, line {mistake.line}"
        key = f": {mistake.key}: " if mistake.key else ""
        assert [
            line
            for line in text.splitlines()
            if line.startswith(place)
            and key in line
            and all(piece in line for piece in mistake.says)
        ] != [], text
        assert "Traceback" not in text
    assert not rundir.exists()


@pytest.mark.parametrize("name", TOML)
def test_mistake(name: str, xsd: Run, tmp_path: Path) -> None:
    """Status 1; the message names file, line and key and says what was expected; no start."""
    more = () if name == "nobody to serve" else ("--no-xen",)
    assert_refused(xsd, "--config", TOML[name], tmp_path / "xsd.toml", tmp_path / "run", *more)


def test_socket_path_that_is_too_long(xsd: Run, tmp_path: Path) -> None:
    """What the system cannot have is refused with the number of bytes."""
    file = tmp_path / "xsd.toml"
    path = "/" + "x" * 200
    file.write_text(f'[socket]\npath = "{path}"\n')
    done = xsd("daemon", "--no-fork", "--no-xen", "--config", str(file))
    expected = f"the socket path has 201 bytes, 107 are possible: {path}"
    assert (done.returncode, done.stderr.decode()) == (
        1, f"xsd: {file}, line 2: socket.path: {expected}\n",
    )  # fmt: skip


@pytest.mark.parametrize("name", OXEN)
def test_mistake_in_oxenstored_conf(name: str, xsd: Run, tmp_path: Path) -> None:
    """The same for the other format."""
    file = tmp_path / "oxenstored.conf"
    assert_refused(xsd, "--config-file", OXEN[name], file, tmp_path / "run", "--no-xen")


def test_all_mistakes_at_once(xsd: Run, tmp_path: Path) -> None:
    """Every mistake is told, not only the first, those of the command line included."""
    file = tmp_path / "xsd.toml"
    file.write_text('[quota]\nnodez = 1\nwatches = "x"\n[log]\nlevel = 3\n')
    done = xsd("daemon", "--no-fork", "--no-xen", "--config", str(file), "-W", "many", "--nonsense")
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1
    for piece in ("line 2: quota.nodez", "line 3: quota.watches", "line 5: log.level", "many",
                  "--nonsense"):  # fmt: skip
        assert len([line for line in lines if piece in line]) == 1, (piece, lines)


@pytest.mark.parametrize("what", ["missing", "directory", "endless"])
def test_file_that_cannot_be_read(what: str, xsd: Run, tmp_path: Path) -> None:
    """The message names it and says why."""
    file = {"missing": str(tmp_path / "none.toml"), "directory": str(tmp_path),
            "endless": "/dev/zero"}[what]  # fmt: skip
    done = xsd("daemon", "--no-fork", "--no-xen", "--config", file, "--rundir", str(tmp_path / "r"))
    text = done.stderr.decode()
    assert (done.returncode, text.startswith(f"xsd: {file}: "), text.count("\n")) == (1, True, 1)


def test_config_test(xsd: Run, tmp_path: Path) -> None:
    """A good file is said to be good, and nothing is started or made."""
    file = tmp_path / "xsd.toml"
    file.write_text("[quota]\nnodes = 5\n")
    run = tmp_path / "run"
    done = xsd("daemon", "--config", str(file), "--config-test", "--rundir", str(run))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"Configuration valid at {file}\n"
    assert not run.exists()


def test_printed_config_is_a_config(xsd: Run, tmp_path: Path) -> None:
    """What --print-config shows can be given back, and then shows the same."""
    file = tmp_path / "xsd.toml"
    first = xsd("daemon", "--print-config", "-E", "77", "--no-xen")
    file.write_bytes(first.stdout)
    again = xsd("daemon", "--print-config", "--config", str(file))
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert b"\nnodes = 77\n" in first.stdout


def test_settings_take_effect(start: Callable[..., Daemon], tmp_path: Path) -> None:
    """What a file sets is what the daemon does; the command line is stronger."""
    file = tmp_path / "xsd.toml"
    file.write_text("[quota]\nnodes = 77\nwatches = 33\n[quota-soft]\nnodes = 66\n")
    daemon = start("--config", str(file), "-W", "44", "-Q", "node-permissions=9")
    with Peer(daemon.socket) as peer:
        names = (b"nodes", b"watches", b"soft-nodes", b"node-permissions", b"transactions")
        values = [peer.ask(Op.GET_QUOTA, name + b"\0") for name in names]
    assert values == [b"77\0", b"44\0", b"66\0", b"9\0", b"10\0"]


def test_settings_of_oxenstored_conf_take_effect(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """The same for the other format."""
    file = tmp_path / "oxenstored.conf"
    file.write_text("# shipped\nquota-maxentity = 8192\n\nquota-maxwatch = 55\n")
    daemon = start("--config-file", str(file))
    with Peer(daemon.socket) as peer:
        values = [peer.ask(Op.GET_QUOTA, name + b"\0") for name in (b"nodes", b"watches")]
    assert values == [b"8192\0", b"55\0"]
