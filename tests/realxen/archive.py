"""The archive format a Linux kernel takes its first root file system from ("newc" of cpio)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class Writer(Protocol):
    """A file open for writing, compressed or not."""

    def write(self, data: bytes, /) -> object:
        """Takes all of ``data``."""


def write_archive(tree: Path, out: Writer) -> None:
    """Writes all that is below ``tree``, in a fixed order and as root's, to ``out``.

    Archives may follow each other in one file: the kernel unpacks them in turn.
    """
    for number, path in enumerate(_below(tree), start=1):
        name = path.relative_to(tree).as_posix()
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(path))
        else:
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        _member(out, number, name, status.st_mode, int(status.st_mtime), content)
    _member(out, 0, "TRAILER!!!", 0, 0, b"")


def _below(tree: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(tree):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        if folder != str(tree):
            yield Path(folder)
        for name in sorted([*files, *links]):
            yield Path(folder, name)


def _member(out: Writer, number: int, name: str, mode: int, mtime: int, content: bytes) -> None:
    """One file: a header of 8-digit fields, the name, the content, each padded to 4 bytes."""
    raw = os.fsencode(name) + b"\0"
    owner = group = major = minor = checksum = 0
    fields = (
        number, mode, owner, group, 1, mtime, len(content), major, minor, major, minor,
        len(raw), checksum,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
    out.write(header + b"\0" * (-len(header) % 4))
    out.write(content + b"\0" * (-len(content) % 4))
