"""A daemon that may open no more descriptors."""

from __future__ import annotations

import resource
from collections.abc import Callable

from peer import Neighbour, Packet, Peer, message
from serving import Daemon

from xsd.client.wire import Op


def test_who_comes_when_descriptors_ran_out_is_served_later(
    start: Callable[..., Daemon], meet: Callable[[str], Neighbour]
) -> None:
    """It is said once a second; who was there is served, who came meanwhile waits and is."""
    daemon = start()
    other = meet(daemon.socket)
    daemon.expected.append("cannot accept a connection: Too many open files")
    limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    # Any descriptor's number would be too high.
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (0, limits[1]))
    since = len(daemon.stderr)
    late = Peer(daemon.socket)
    try:
        late.send(message(Op.READ, b"/\0", req_id=7))
        daemon.await_log("cannot accept a connection", since)
        other.works()
    finally:
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
    assert late.reply() == Packet(Op.READ, 7, 0, b"")
    late.close()
    other.works()
    other.leaves()
