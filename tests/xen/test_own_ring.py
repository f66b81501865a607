"""The ring that the daemon finds at its start: whose it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from serving import absent
from xen import build as fake
from xen import daemons

from xsd.client import Client


@pytest.mark.parametrize(("options", "whose"), [([], 0), (["--master-domid", "3"], 3)])
def test_the_ring_that_is_handed_over_belongs_to_the_master(
    tmp_path: Path, options: list[str], whose: int
) -> None:
    """A store in a domain of its own is handed the ring of another domain."""
    try:
        fake.library()
    except FileNotFoundError as missing:
        absent(str(missing))
    directory = tmp_path / "x"
    program = str(Path(sys.executable).with_name("xsd"))
    command = [program, "daemon", "--no-fork", "--rundir", str(directory / "run"), *options]
    running = daemons.start(directory, command)
    try:
        with Client.connect(running.socket) as client:
            assert client.is_domain_introduced(3) == (whose == 3)
        assert f"domain {whose} introduced, our own" in running.output
    finally:
        assert running.stop() == 0
