"""Makes what the machine boots, out of Debian 12's packages: hypervisor, kernel, dom0, guest.

Everything lies below one directory. Packages are downloaded once, what is made of them is made
again only when they or the files here change. Nothing is installed and nobody need be root.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from archive import write_archive

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
LIBDIR = "usr/lib/x86_64-linux-gnu"

KERNEL = "linux-image-amd64"  # which depends on the one there is at present
HYPERVISOR = "xen-hypervisor-4.17-amd64"
DOM0 = (
    "busybox-static", "libc6", "libgcc-s1",
    # Xen's tools, both xenstoreds, and their libraries
    "xen-utils-4.17", "xen-utils-common", "xenstore-utils",
    "libxenmisc4.17", "libxencall1", "libxendevicemodel1", "libxenevtchn1", "libxengnttab1",
    "libxenforeignmemory1", "libxenhypfs1", "libxenstore4", "libxentoolcore1", "libxentoollog1",
    "libbz2-1.0", "libcom-err2", "libext2fs2", "liblzma5", "liblzo2-2", "libncurses6",
    "libnl-3-200", "libnl-route-3-200", "libtinfo6", "libuuid1", "libyajl2", "libzstd1", "zlib1g",
    # Python
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib",
    "libexpat1", "libffi8", "libssl3",
)  # fmt: skip
MODULES = ("xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs/xenfs")

# Not needed there, and each megabyte has to be unpacked by an emulated processor.
USELESS = (
    "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/lintian", "usr/share/bug",
    "usr/share/perl5", "usr/share/python3", "usr/share/bash-completion", "usr/share/apparmor",
    "usr/lib/xen-4.17/boot", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/perl5",
    "usr/lib/x86_64-linux-gnu/engines-3", "usr/lib/x86_64-linux-gnu/ossl-modules",
    "usr/lib/python3.11/pydoc_data", "usr/lib/python3.11/idlelib", "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/test", "usr/lib/python3.11/unittest", "usr/lib/python3.11/distutils",
)  # fmt: skip
DIRECTORIES = (
    "proc", "sys", "dev", "run", "tmp", "root", "etc", "sbin", "var/lib/xen", "var/lib/xenstored",
    "var/log/xen/console", "realxen/modules",
)  # fmt: skip
PROGRAMS_TO_CHECK = ("xl", "xenstored", "oxenstored", "xenconsoled", "xen-init-dom0", "lsevtchn")


class ImageError(Exception):
    """The image cannot be made; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Image:
    """What QEMU is given; the paths of files in one directory."""

    directory: Path
    hypervisor: str
    kernel: str
    dom0: str


def make_image(build: Path, store: str, settings: Mapping[str, str]) -> Image:
    """The image for a run with ``store``; ``settings`` become shell variables of dom0's init.

    Raises :class:`ImageError`.
    """
    _require_tools(("apt-get", "apt-cache", "dpkg-deb"))
    base = _base(build, _packages(build / "packages"))
    run = build / f"run-{store}"
    shutil.rmtree(run, ignore_errors=True)
    top = run / "top"
    _dom0_part(top, settings)
    _guest_part(base, top)
    if store == "xsd":
        _store_part(build, base, top)
    (run / "xen").hardlink_to(base / "xen")
    (run / "vmlinux").hardlink_to(base / "vmlinux")
    with (run / "dom0.cpio").open("wb") as out:
        with (base / "dom0.cpio").open("rb") as packed:
            shutil.copyfileobj(packed, out, 1 << 20)
        write_archive(top, out)
    return Image(run, "xen", "vmlinux", "dom0.cpio")


# -- Debian's packages --------------------------------------------------------------------------


def _require_tools(names: Iterable[str]) -> None:
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise ImageError(f"this needs a Debian 12 on amd64: there is no {', '.join(missing)}")


def _packages(cache: Path) -> dict[str, Path]:
    """Every package by name as a file, downloaded where the cache lacks its present version."""
    cache.mkdir(parents=True, exist_ok=True)
    told = _output("apt-cache", "depends", "--important", KERNEL)
    kernels = [word for word in told.split() if word.startswith("linux-image-6")]
    wanted = [*kernels[:1], HYPERVISOR, *DOM0]
    # A line for each: 'URI' file size SHA256:digest
    offers = [line.split() for line in _apt("--print-uris", "download", *wanted)]
    found = {file.partition("_")[0]: (file, checksum) for _, file, _, checksum in offers}
    if not kernels or set(found) != set(wanted):
        lacking = sorted(set(wanted) - set(found)) or [KERNEL]
        raise ImageError(
            f"apt knows no {', '.join(lacking)}: run apt-get update, on Debian 12 for amd64"
        )
    missing = [name for name, (file, _) in found.items() if not (cache / file).exists()]
    if missing:
        print(f"downloading {len(missing)} packages", flush=True)
        _apt("download", *missing, cwd=cache)
    for file, checksum in found.values():
        if "SHA256:" + hashlib.sha256((cache / file).read_bytes()).hexdigest() != checksum:
            (cache / file).unlink()
            raise ImageError(f"{file} was damaged; run this again")
    packages = {name: cache / file for name, (file, _) in found.items()}
    packages[KERNEL] = packages.pop(kernels[0])
    return packages


def _apt(*arguments: str, cwd: Path | None = None) -> list[str]:
    # Downloading as another user needs a directory that user can write to: stay who we are.
    sandbox = "APT::Sandbox::User=root"
    try:
        return _output("apt-get", "-qq", "-o", sandbox, *arguments, cwd=cwd).splitlines()
    except ImageError as failure:
        raise ImageError(f"{failure}\nrun apt-get update, then this again") from None


def _output(*command: str | Path, cwd: Path | None = None, **environ: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd, env=os.environ | {"LC_ALL": "C.UTF-8"} | environ,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ImageError(f"{command[0]} failed: {said}")
    return done.stdout


# -- what does not depend on the store ----------------------------------------------------------


def _base(build: Path, packages: Mapping[str, Path]) -> Path:
    """A directory with xen, vmlinux, dom0.cpio and the unpacked root, made if need be."""
    # Their names hold their versions.
    key = _digest([Path(__file__), HERE / "archive.py"], *sorted(p.name for p in packages.values()))
    base = build / f"base-{key}"
    if base.exists():
        return base
    for old in build.glob("base-*"):
        shutil.rmtree(old)
    print("unpacking", flush=True)
    making = build / "making-base"
    shutil.rmtree(making, ignore_errors=True)
    root = making / "root"
    for name in DOM0:
        _unpack(packages[name], root)
    _unpack(packages[HYPERVISOR], making / "hypervisor")
    _unpack(packages[KERNEL], making / "linux")
    # QEMU loads an ELF file, not a compressed one.
    (making / "xen").write_bytes(
        gzip.decompress((making / "hypervisor/boot/xen-4.17-amd64.gz").read_bytes())
    )
    (making / "vmlinux").write_bytes(_payload(next(making.glob("linux/boot/vmlinuz-*"))))
    _furnish(root, making)
    _check_libraries(root)
    _python(root, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
            "-s", str(root), str(root / "usr/lib/python3.11"))  # fmt: skip
    with (making / "dom0.cpio").open("wb") as out:
        write_archive(root, out)
    for folder in ("hypervisor", "linux"):
        shutil.rmtree(making / folder)
    making.rename(base)
    return base


def _digest(files: Iterable[Path], *words: str) -> str:
    digest = hashlib.sha256()
    for piece in (*(file.read_bytes() for file in files), *(word.encode() for word in words)):
        digest.update(hashlib.sha256(piece).digest())
    return digest.hexdigest()[:16]


def _unpack(package: Path, where: Path) -> None:
    where.mkdir(parents=True, exist_ok=True)
    _output("dpkg-deb", "-x", package, where)


def _payload(bzimage: Path) -> bytes:
    """The kernel within a compressed one: emulated processors take seconds for what xz does.

    The offsets are those of Linux's boot protocol on x86; behind the compressed data stand four
    bytes that are not part of it.
    """
    data = bzimage.read_bytes()
    (sectors,) = struct.unpack_from("<B", data, 0x1F1)
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (sectors + 1) * 512 + offset
    return lzma.decompress(data[start : start + length - 4])


def _furnish(root: Path, making: Path) -> None:
    for name in USELESS:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, target in (("var/run", "/run"), ("var/lock", "/run/lock")):
        if not (root / name).is_symlink():
            (root / name).symlink_to(target)
    (root / "bin/sh").symlink_to("busybox")
    (root / "usr/bin/python3").unlink(missing_ok=True)
    (root / "usr/bin/python3").symlink_to("python3.11")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (drivers,) = making.glob("linux/lib/modules/*/kernel/drivers/xen")
    for name in MODULES:
        shutil.copy(drivers / f"{name}.ko", root / "realxen/modules")
    shutil.copy(making / "vmlinux", root / "realxen/guest-kernel")


def _loader(root: Path) -> list[str]:
    """What runs a program of the image here, with the image's libraries alone."""
    places = f"{root}/lib/x86_64-linux-gnu:{root}/{LIBDIR}"
    return [f"{root}/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "--library-path", places]


def _check_libraries(root: Path) -> None:
    """Raises ImageError if a program would be short of a library in the image."""
    programs = [root / "usr/lib/xen-4.17/bin" / name for name in PROGRAMS_TO_CHECK]
    programs += [root / "usr/bin/xenstore-ls", root / "usr/bin/python3.11"]
    programs += sorted((root / LIBDIR).glob("libxen*.so.*"))
    programs += sorted((root / "usr/lib/python3.11/lib-dynload").glob("_ctypes*.so"))
    for program in programs:
        for line in _output(*_loader(root), "--list", program).splitlines():
            library, arrow, place = line.partition(" => ")
            if arrow and not place.startswith(str(root)) and "ld-linux" not in library:
                raise ImageError(f"{program.name} needs {library.strip()}, which the image lacks")


def _python(root: Path, *arguments: str, path: str = "") -> str:
    """Runs the image's Python here and returns what it prints."""
    command = [*_loader(root), f"{root}/usr/bin/python3.11", *arguments]
    home = f"{root}/usr"
    return _output(*command, PYTHONHOME=home, PYTHONPATH=path, PYTHONNOUSERSITE="1")


# -- what comes on top --------------------------------------------------------------------------


def _dom0_part(top: Path, settings: Mapping[str, str]) -> None:
    (top / "realxen").mkdir(parents=True)
    _install(HERE / "dom0/init", top / "init")
    shutil.copytree(HERE / "dom0/breakage", top / "realxen/breakage")
    lines = [f"{name}='{value}'\n" for name, value in settings.items()]
    (top / "realxen/settings").write_text("".join(lines))


def _install(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    target.chmod(0o755)


def _guest_part(base: Path, top: Path) -> None:
    """The guests' root file system: busybox, the xenstore tools, an init."""
    root = base / "root"
    guest = top.with_name("guest")
    for name in ("proc", "sys", "dev", "tmp", "lib64"):
        (guest / name).mkdir(parents=True)
    _install(root / "bin/busybox", guest / "bin/busybox")
    (guest / "bin/sh").symlink_to("busybox")
    for tool in sorted((root / "usr/bin").glob("xenstore*")):
        (guest / "usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy(tool, guest / "usr/bin", follow_symlinks=False)
    loader = _loader(root)
    needed = [
        line.split(" => ")[1].split()[0]
        for line in _output(*loader, "--list", root / "usr/bin/xenstore").splitlines()
        if " => " in line and "ld-linux" not in line
    ]
    for library in needed:
        _install(Path(library), guest / "lib/x86_64-linux-gnu" / Path(library).name)
    _install(Path(loader[0]), guest / "lib64/ld-linux-x86-64.so.2")
    _install(HERE / "guest/init", guest / "init")
    _install(HERE / "guest/poweroff", guest / "sbin/poweroff")
    with gzip.open(top / "realxen/guest-initrd", "wb", compresslevel=1) as out:
        write_archive(guest, out)


# -- xsd itself ---------------------------------------------------------------------------------

PACKAGES_OF_PYTHON = "usr/lib/python3/dist-packages"
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "csrc", "xsd")
NOT_SOURCES = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")


def _store_part(build: Path, base: Path, top: Path) -> None:
    """xsd and what it depends on, as pip installs them, in the image's Python."""
    if sys.version_info[:2] != (3, 11):
        raise ImageError("the image's Python is 3.11, so run this with Python 3.11")
    installed = _installed(build)
    target = top / PACKAGES_OF_PYTHON
    shutil.copytree(installed, target, symlinks=True)
    root = base / "root"
    _python(root, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
            "-s", str(top), str(target))  # fmt: skip
    # pip's script names the Python that pip ran under.
    script = top / "usr/bin/xsd"
    script.parent.mkdir(parents=True)
    lines = (installed / "bin/xsd").read_text().splitlines(keepends=True)
    script.write_text("".join(["#!/usr/bin/python3\n", *lines[1:]]))
    script.chmod(0o755)
    # Anything that dom0 would lack is better missed now.
    _python(root, str(script), "daemon", "--config-test", path=str(target))


def _installed(build: Path) -> Path:
    """A directory with the wheel of the checkout and all it needs, made if need be."""
    files = [
        file
        for name in SOURCES
        for file in ([CHECKOUT / name] if "." in name else sorted((CHECKOUT / name).rglob("*")))
        if file.is_file() and file.suffix not in (".so", ".pyc")
    ]
    key = _digest(files, *(str(file.relative_to(CHECKOUT)) for file in files))
    target = build / f"installed-{key}"
    if target.exists():
        return target
    for old in build.glob("installed-*"):
        shutil.rmtree(old)
    print("building xsd's wheel", flush=True)
    # A copy, because building leaves its traces; kept, because then only what changed is compiled.
    source = build / "source"
    _mirror(source)
    wheels = build / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    making = build / "making-installed"
    shutil.rmtree(making, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    _output(*pip, "wheel", "--no-deps", "-w", wheels, source, XSD_BUILD="release")
    (wheel,) = wheels.glob("xsd-*.whl")
    _output(*pip, "install", "--only-binary", ":all:", "--no-compile", "--target", making, wheel)
    making.rename(target)
    return target


def _mirror(source: Path) -> None:
    """Brings the copy of the sources up to date, with their times, as compilers go by those."""
    source.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        origin, copy = CHECKOUT / name, source / name
        if origin.is_dir():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(origin, copy, ignore=NOT_SOURCES)
        else:
            shutil.copy2(origin, copy)
