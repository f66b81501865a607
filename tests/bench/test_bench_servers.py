"""Any xenstored can be measured: by the command that starts it, or by its socket."""

import mmap
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import servers
from bench.build import build
from bench.fly import Pilot
from bench.options import parse
from bench.progress import telling
from bench.sampling import Conditions, LoadError, Runner, SlowError
from tests.xen import daemons
from tests.xen.hypervisor import Hypervisor
from xsd.client.sync import Client

XSD = f"{sys.executable} {Path(sys.executable).parent / 'xsd'} daemon --no-fork"


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a name short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="xsd-"))
    yield made
    shutil.rmtree(made)


def test_a_daemon_by_its_command(directory: Path) -> None:
    """It is told where to be, is on a fake Xen, and its socket alone tells its process."""
    server = servers.start_other(f"mine={XSD}", directory)
    try:
        assert (server.name, server.xen) == ("mine", directory)
        assert server.socket == directory / "run" / "socket"
        found = servers.attach(str(server.socket))
        assert (found.name, found.pid, found.xen) == ("other", server.pid, None)
        named = servers.attach(f"it={server.socket}:{server.pid}")
        assert (named.name, named.socket, named.pid) == ("it", server.socket, server.pid)
        with Client.connect(str(server.socket)) as client:
            client.write("/bench/precious", b"data")
            with pytest.raises(servers.ServerError, match="a /bench in it, which would be lost"):
                servers.attach(str(server.socket))
            assert client.read("/bench/precious") == b"data"
            servers.stop(named)
            assert not client.exists("/bench")
    finally:
        servers.stop(server)


def test_what_does_not_start_is_said(directory: Path) -> None:
    """No such program, a program that ends, a name that is taken, no socket."""
    with pytest.raises(servers.AbsentError, match="there is no program 'no-such-xenstored'"):
        servers.start_other("no-such-xenstored -N", directory)
    with pytest.raises(servers.ServerError, match="mine: ended with 3"):
        servers.start_other(f"mine={sys.executable} -c 'raise SystemExit(3)'", directory)
    with pytest.raises(servers.ServerError, match="the name 'ours' is taken"):
        servers.start_other(f"ours={XSD}", directory)
    with pytest.raises(servers.ServerError, match="no socket"):
        servers.attach(str(directory / "nothing"))


def test_too_slow_is_not_wrong(directory: Path) -> None:
    """Another server that is not ready in time does not take part; ours has failed then."""
    programs = build()
    runner = Runner(
        programs, Conditions(client_cpu=min(os.sched_getaffinity(0)), limit_s=5, repeats=1)
    )
    server = servers.start_floor(programs.echo, directory)
    try:
        with pytest.raises(SlowError, match="10 watches: not placed within 0 s"):
            runner.load(server, ["write", "--watches", "10"], 0)
        server.name = servers.OURS
        with pytest.raises(LoadError, match="10 watches: not placed within 0 s"):
            runner.load(server, ["write", "--watches", "10"], 0)
    finally:
        servers.stop(server)


def test_the_limit_on_realtime_is_put_back(directory: Path) -> None:
    """Also when what is measured fails; where it cannot be changed, that is no reason to stop."""
    limit = directory / "sched_rt_runtime_us"
    with servers.unthrottled(limit):  # there is none
        assert not limit.exists()
    limit.write_text("950000")
    lifted = "950000" if os.cpu_count() == 1 else "-1"
    with pytest.raises(KeyError), servers.unthrottled(limit):
        assert limit.read_text() == lifted
        raise KeyError
    assert limit.read_text() == "950000"


def test_a_server_that_has_ended_is_started_again(directory: Path) -> None:
    """It is another process, with nothing of what the first was told."""
    server = servers.start_floor(build().echo, directory)
    try:
        servers.pin(server, min(os.sched_getaffinity(0)))
        server.leaves = 32
        assert not servers.has_ended(server)
        os.kill(first := server.pid, signal.SIGKILL)
        assert server.running is not None
        server.running.process.wait(20)
        assert servers.has_ended(server)
        servers.revive(server)
        assert not servers.has_ended(server)
        assert (server.pid != first, server.leaves, server.affinity) == (True, None, {})
        assert servers._listener(str(server.socket)) == server.pid
    finally:
        servers.stop(server)


def test_who_ended_takes_part_in_the_next_row(directory: Path) -> None:
    """A peer is started again, and pinned; for a row that wants fresh servers ours is, too."""
    server = servers.start_floor(build().echo, directory)
    with telling(1, quiet=True) as teller:
        pilot = Pilot(parse(["--tiny"])[0], build(), [server], {}, teller)
    try:
        pids = [server.pid]
        for name, fresh, again in (("C", False, False), ("C", True, True), ("ours", True, True)):
            server.name = name
            assert pilot.revive([server], fresh) == {}
            assert (server.pid not in pids) == again
            pids.append(server.pid)
        assert server.running is not None
        server.running.stop()
        server.name = "C"
        assert pilot.revive([server], fresh=False) == {}
        assert server.pid not in pids
        assert set(server.affinity) == {server.pid}
    finally:
        servers.stop(server)


def test_who_does_not_start_again_is_left_out(directory: Path) -> None:
    """Of a peer it is said, and the flight goes on; without ours there is none."""

    def never() -> daemons.Running:
        raise FileNotFoundError("it has been removed")

    server = servers.start_floor(build().echo, directory)
    server.start = never
    with telling(1, quiet=True) as teller:
        pilot = Pilot(parse(["--tiny"])[0], build(), [server], {}, teller)
    servers.stop(server)
    server.name = "C"
    lost = pilot.revive([server], fresh=False)
    assert lost == {"C": "it did not start again: C: it has been removed"}
    server.name = servers.OURS
    with pytest.raises(servers.ServerError, match="ours: it has been removed"):
        pilot.revive([server], fresh=True)


def test_machines_of_a_storm_exist(directory: Path) -> None:
    """As many domains as there are machines at once have lived, and none is left."""
    conditions = Conditions(client_cpu=min(os.sched_getaffinity(0)), limit_s=5, repeats=1)
    server = servers.start_floor(build().echo, directory)
    try:
        assert server.xen is not None
        Runner(build(), conditions).load(server, ["storm", "--depth", "3", "--ops", "6"], 5)
        with Hypervisor(server.xen) as xen:
            lived = [domid for domid in range(90, 110) if xen.unique(domid) > 0]
            assert lived == [*range(90, 103)]
            assert [domid for domid in lived if xen.flags(domid) != 0] == []
    finally:
        servers.stop(server)


def test_memory_shared_with_the_hypervisor_does_not_count() -> None:
    """Private memory counts as soon as it is touched, a shared file never."""
    size = 8 << 20
    before = servers.rss_bytes(os.getpid())
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        shared, own = mmap.mmap(file.fileno(), size), mmap.mmap(-1, size, mmap.MAP_PRIVATE)
        for at in range(0, size, mmap.PAGESIZE):
            shared[at] = 1
        assert servers.rss_bytes(os.getpid()) - before < size
        for at in range(0, size, mmap.PAGESIZE):
            own[at] = 1
        assert size <= servers.rss_bytes(os.getpid()) - before < 2 * size
        shared.close()
        own.close()


def test_memory_of_nobody() -> None:
    """A process that has gone is an error that says so."""
    with pytest.raises(servers.ServerError, match="no memory of process"):
        servers.rss_bytes(2**22)
