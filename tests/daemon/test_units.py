"""The unit files: that systemd understands them, and what they promise."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import serving

from xsd.daemon import config, options, units

SERVICE, MOUNT = units.UNITS

#: Upper bound of what systemd calls the exposure, of 10.0. Without all restrictions it is 9.6.
EXPOSURE = 2.0


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs systemd-analyze."""
    program = shutil.which("systemd-analyze")
    if program is None:
        serving.absent("systemd-analyze of the package systemd is not installed")
    return subprocess.run(
        [program, *words], capture_output=True, text=True, timeout=60, check=False
    )


def written(where: Path, program: str) -> list[Path]:
    """The unit files in a directory, for a program there."""
    paths = []
    for name in units.UNITS:
        paths.append(where / name)
        paths[-1].write_text(units.render(name, program))
    return paths


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A program, for systemd looks whether it is there."""
    path = tmp_path / "xsd"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_verify(tmp_path: Path, program: str) -> None:
    """systemd accepts both files without a word."""
    done = analyze("verify", "--man=no", *written(tmp_path, program))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_finds_mistakes(tmp_path: Path, program: str) -> None:
    """The canary: an unknown key and a program that is not there are found."""
    service, mount = written(tmp_path, program)
    service.write_text(service.read_text().replace("ProtectHome=", "ProtectHouse="))
    done = analyze("verify", "--man=no", service, mount)
    assert "ProtectHouse" in done.stderr
    service, mount = written(tmp_path, program + "-not")
    assert analyze("verify", "--man=no", service, mount).returncode != 0


def test_exposure(tmp_path: Path, program: str) -> None:
    """What systemd thinks of the restrictions stays below the bound."""
    service, _ = written(tmp_path, program)
    done = analyze("security", "--offline=true", "--no-pager", service)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert 0 < float(found[1]) <= EXPOSURE


def test_what_the_service_says() -> None:
    """The lines that others rely on are there."""
    text = units.render(SERVICE, "/usr/local/bin/xsd")
    assert {
        "ExecStart=/usr/local/bin/xsd daemon --no-fork --pid-file /run/xen/xenstored.pid "
        "$XENSTORED_ARGS",
        "Type=notify",
        "Requires=proc-xen.mount",
        "ConditionPathExists=/proc/xen/capabilities",
        "EnvironmentFile=-/etc/default/xencommons",
        "RefuseManualStop=yes",
        "OOMScoreAdjust=-500",
    } <= set(text.splitlines())


def test_arguments_of_the_service() -> None:
    """The daemon takes the options that the service gives it, and stays in the foreground."""
    command = re.search(r"^ExecStart=\S+ daemon (.*)$", units.render(SERVICE), re.M)
    assert command
    words = command[1].replace("$XENSTORED_ARGS", "-T /var/log/xen/trace.log").split()
    line = options.parse(words, "/")
    assert line.layer.faults == []
    values = {name: entry.value for name, entry in line.layer.entries.items()}
    assert values["daemon.fork"] is False
    assert values["daemon.pid-file"] == "/run/xen/xenstored.pid"


def test_directories_of_the_service() -> None:
    """Where the daemon writes by itself is where the service lets it write."""
    text = units.render(SERVICE)
    settings = config.load(["--no-fork"], {}, default_config="/nonexistent").settings
    assert settings.socket.rundir == "/run/xenstored"
    assert "\nRuntimeDirectory=xenstored xen\n" in text
    assert "--pid-file /run/xen/" in text
    assert options.TRACE_DIRECTORY.startswith("/var/lib/xen/")
    assert "\nReadWritePaths=-/var/log/xen -/var/lib/xen\n" in text


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/usr/local/bin/xsd", "/usr/local/bin/xsd"),
        ("/my programs/xsd", '"/my programs/xsd"'),
        ("/50%/xsd", '"/50%%/xsd"'),
        ('/a"b\\c/xsd', '"/a\\"b\\\\c/xsd"'),
    ],
)
def test_path_of_the_program(path: str, word: str) -> None:
    """A path of any characters is one word for systemd."""
    assert f"\nExecStart={word} daemon --no-fork " in units.render(SERVICE, path)
    assert "ExecStart" not in units.render(MOUNT, path)


def test_odd_path_is_accepted(tmp_path: Path) -> None:
    """systemd finds a program whose path needs quoting."""
    where = tmp_path / "50% odd"
    where.mkdir()
    program = where / "xsd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = analyze("verify", "--man=no", *written(tmp_path, str(program)))
    assert (done.returncode, done.stderr) == (0, "")


def test_path_with_a_line_break() -> None:
    """What would be another line of the file is refused."""
    with pytest.raises(ValueError, match="line break"):
        units.render(SERVICE, "/a\nExecStartPre=/b")


def test_own_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program finds itself through links of other names, else where programs are put."""
    real = tmp_path / "xsd"
    real.write_text("")
    link = tmp_path / "xenstored"
    link.symlink_to(real)
    monkeypatch.setattr(sys, "argv", [str(link)])
    assert units.program() == str(real)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest"])
    assert os.path.basename(units.program()) == "xsd"
    assert os.path.isabs(units.program())


@pytest.mark.parametrize("name", units.UNITS)
def test_print_unit(name: str) -> None:
    """The option prints the file for the program that runs, and the daemon does not start."""
    out, err = io.StringIO(), io.StringIO()
    status = config.startup(
        ["--print-unit", name], {}, stdout=out, stderr=err, default_config="/nonexistent"
    )
    assert (status, err.getvalue(), out.getvalue()) == (0, "", units.render(name))


def test_print_unknown_unit() -> None:
    """Another name is a mistake that says which names there are."""
    out, err = io.StringIO(), io.StringIO()
    status = config.startup(["--print-unit", "x"], {}, stdout=out, stderr=err)
    assert (status, out.getvalue(), err.getvalue()) == (
        1,
        "",
        "xsd: command line: --print-unit: bad value 'x': "
        "expected xenstored.service or proc-xen.mount\n",
    )
