"""Boots an image under QEMU and keeps what it says."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from image import Image

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 1792
DOM0_MIB = 1024

# Two features that QEMU 7.2 emulates wrongly in ways that matter to Xen. With SMAP the kernel's
# IRET in ring 3, where Xen puts paravirtual kernels, faults. With XSAVE processes die at random,
# their memory damaged, seldom enough that a single good run proves nothing.
PROCESSOR = "max,-smap,-xsave"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left: how QEMU ended, after how long, and what dom0 reported."""

    status: int
    """QEMU's exit status; negative: the signal that ended it."""
    seconds: float
    timed_out: bool
    report: str
    """The lines about checks, as dom0 wrote them."""


def is_there() -> bool:
    """Whether QEMU is installed."""
    return shutil.which(QEMU) is not None


def boot(image: Image, artefacts: Path, timeout: float) -> Outcome:
    """Runs the machine until it turns itself off, at most ``timeout`` seconds.

    Writes ``serial.log``, each line with the seconds since the start, and the files dom0 sends
    into ``artefacts``. Shows the lines that begin with a verdict as they come.
    """
    channel = image.directory / "report"
    console = f"{image.kernel} console=hvc0 panic=5,{image.dom0}"
    command = [
        QEMU, "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", "2",
        "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none", "-monitor", "none",
        "-no-reboot", "-serial", "stdio", "-serial", "file:report", "-kernel", image.hypervisor,
        "-append", f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M loglvl=all "
        "guest_loglvl=all",
        "-initrd", console,
    ]  # fmt: skip
    start = time.monotonic()
    # In the image's directory, because a comma or a space in a path would part QEMU's -initrd.
    process = subprocess.Popen(
        command, cwd=image.directory, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    reader = threading.Thread(
        target=_stamp, args=(process.stdout, artefacts / "serial.log", start), daemon=True
    )
    timed_out = False
    try:
        reader.start()
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join(10)
        process.stdout.close()
    seconds = time.monotonic() - start
    lines, _, files = (channel.read_bytes() if channel.exists() else b"").partition(b"files\n")
    _keep(files, artefacts / "dom0")
    return Outcome(process.returncode, seconds, timed_out, lines.decode(errors="replace"))


def _stamp(pipe: IO[bytes], log: Path, start: float) -> None:
    """Copies lines with the time before each; the verdicts among them are shown as well."""
    with log.open("w") as out:
        for raw in pipe:
            line = raw.decode(errors="replace").replace("\r", "").rstrip("\n")
            stamped = f"{time.monotonic() - start:7.2f} {line}"
            print(stamped, file=out, flush=True)
            if line.startswith(("[pass]", "[fail]", "[skip]")):
                print(stamped, flush=True)


def _keep(archive: bytes, where: Path) -> None:
    """Unpacks the logs dom0 sent; a run that was cut short sent none or not all."""
    shutil.rmtree(where, ignore_errors=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as logs:
            for member in logs:
                file = logs.extractfile(member) if member.isfile() else None
                path = (where / member.name.lstrip("/")).resolve()
                if file is not None and path.is_relative_to(where.resolve()):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(file.read())
    except (tarfile.TarError, OSError):
        return
