"""A daemon on a fake Xen that has given up root: guests come and go as before."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import absent
from xen import build, daemons
from xen.hypervisor import NO_GRANT, message

from xsd.client import Client, Permission
from xsd.client.wire import Op

UID = 64123


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can give up root")
    try:
        build.library()
    except FileNotFoundError as missing:
        absent(str(missing))
    path = Path(tempfile.mkdtemp(prefix="xsd-user-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("manage", [False, True])
@pytest.mark.parametrize("flags", [0, NO_GRANT])
def test_guests_that_come_later(place: Path, manage: bool, flags: int) -> None:
    """Rings are mapped, by grant or by frame, served, and given back at the guest's end, by a
    daemon that is not root any more."""
    program = str(Path(sys.executable).with_name("xsd"))
    directory = place / "x"
    running = daemons.start(
        directory,
        [program, "daemon", "--no-fork", "--user", str(UID), "--rundir", str(directory / "run")],
        manage=manage,
    )
    try:
        said = Path(f"/proc/{running.pid}/status").read_text()
        assert f"\nUid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in said
        with Client.connect(running.socket) as client:
            for domid in (5, 6):
                client.watch("@releaseDomain", b"t")
                client.next_event(timeout=10.0)
                guest = running.xen.create(domid, gfn=77, flags=flags)
                home = f"/local/domain/{domid}"
                client.write(home, b"")
                client.set_perms(home, [Permission.parse(f"n{domid}")])
                client.introduce(domid, guest.gfn, guest.port)
                guest.send(message(Op.WRITE, b"data\0x", req_id=1))
                assert guest.reply().payload == b"OK\0"
                assert client.read(f"{home}/data") == b"x"
                running.xen.destroy(domid)
                client.next_event(timeout=10.0)
                client.unwatch("@releaseDomain", b"t")
                assert client.exists(home) is False
    finally:
        assert running.stop() == 0
