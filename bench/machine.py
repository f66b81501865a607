"""Where a run takes place: without it no figure can be compared with another."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from bench.build import ROOT
from bench.flight.record import Machine, Software

PACKAGES = ("xsd", "uvloop", "cffi", "cython", "pytest-benchmark")
DEBIAN = ("xen-utils-4.17", "xenstore-utils", "libxenstore4", "gcc", "valgrind")
GOVERNOR = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"


def _output(*command: str) -> str | None:
    """What a command prints; None when it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _git(*words: str) -> str | None:
    return _output("git", "-C", str(ROOT), *words)


def _cpu_lines() -> dict[str, str]:
    """/proc/cpuinfo of the first processor."""
    found: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _debian_version(package: str) -> str | None:
    return _output("dpkg-query", "-W", "-f", "${Version}", package) or None


def _virtualised(cpu: dict[str, str]) -> str | None:
    told = _output("systemd-detect-virt", "--vm")
    if told and told != "none":
        return told
    flags = cpu.get("flags")
    if flags is None:
        return told
    return "unknown" if "hypervisor" in flags.split() else "none"


def _governor(cpu: int) -> str | None:
    try:
        return Path(GOVERNOR.format(cpu)).read_text().strip()
    except OSError:
        return None


def software() -> Software:
    """Commit, Python, packages of Python and of Debian."""
    changes = _git("status", "--porcelain")
    return Software(
        commit=_git("rev-parse", "HEAD"),
        dirty=None if changes is None else bool(changes),
        python=platform.python_version(),
        packages=_versions(),
        debian={package: _debian_version(package) for package in DEBIAN},
    )


def machine(server_cpu: int) -> Machine:
    """Processor, hypervisor, kernel; the governor is that of `server_cpu`."""
    cpu = _cpu_lines()
    return Machine(
        cpu=cpu.get("model name", platform.processor()),
        architecture=platform.machine(),
        cores=os.cpu_count() or 0,
        governor=_governor(server_cpu),
        virtualised=_virtualised(cpu),
        kernel=platform.release(),
        load_average=os.getloadavg(),
    )
