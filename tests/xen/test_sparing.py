"""A guest that sends no event when it adds to requests that are still being taken.

Linux does so: it writes a message in pieces, and leaves out the event for a piece when those
before it have not been consumed, for the daemon will see more when it has taken them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import absent
from xen import build as fake
from xen import daemons

from bench.build import build

REQUESTS = 50_000
HANGS_SECONDS = 120.0


@pytest.mark.slow
def test_no_request_waits_for_the_next_event(tmp_path: Path) -> None:
    """All are answered although nothing ever looks at a ring without an event."""
    try:
        fake.library()
    except FileNotFoundError as missing:
        absent(str(missing))
    config = tmp_path / "xsd.toml"
    config.write_text("[xen]\nring-scan-interval = -1\n")
    directory = tmp_path / "x"
    program = str(Path(sys.executable).with_name("xsd"))
    command = [program, "daemon", "--no-fork", "--config", str(config)]
    running = daemons.start(directory, [*command, "--rundir", str(directory / "run")])
    # The race is between two processors; with one it cannot be lost.
    processors = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(running.pid, processors[-1:])
        client = [str(build().load), "write", "--rings", "--sparing", "--ops", str(REQUESTS)]
        client += ["--cpu", str(processors[0])]
        where = ["--xen", str(directory), "--socket", running.socket, "--pid", str(running.pid)]
        done = subprocess.run(
            [*client, *where, "--limit", "100"],
            capture_output=True,
            text=True,
            check=False,
            timeout=HANGS_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["ops"] == REQUESTS
    finally:
        assert running.stop() == 0
