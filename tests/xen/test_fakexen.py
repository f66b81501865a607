"""The fake Xen keeps Xen's rules, and daemons that others made for Xen live on it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import absent
from xen import build, daemons
from xen.daemons import Running
from xen.hypervisor import (
    BOUND,
    CRASH,
    DEAD,
    DYING,
    ERROR,
    EXISTS,
    HVM,
    MASKED,
    NO_FOREIGN,
    NO_GRANT,
    NOTHING,
    PENDING,
    PORT,
    REQ_PROD,
    RING,
    RSP_CONS,
    RSP_PROD,
    SHUTDOWN,
    Held,
    Hypervisor,
    message,
)
from xen.puppet import Puppet

from xsd.client import Client, Permission
from xsd.client.wire import Op

SECONDS = 20.0

Start = Callable[[], Running]


@pytest.fixture(scope="module", autouse=True)
def library() -> Path:
    """Nothing here works without a compiler."""
    try:
        return build.library()
    except FileNotFoundError as missing:
        absent(str(missing))


# -- daemons that others made -------------------------------------------------------------------


@pytest.fixture(params=["c", "o", "o with its access log"])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """Debian's daemons, one after the other."""
    directory = tmp_path / "xen"
    try:
        if request.param == "c":
            running = daemons.start_c(directory)
        else:
            running = daemons.start_o(directory, access_log="access" in request.param)
    except FileNotFoundError as missing:
        absent(str(missing))
    yield running
    assert running.is_alive()
    assert running.stop() in (0, -signal.SIGTERM)


@pytest.fixture
def client(peer: Running) -> Iterator[Client]:
    """Somebody in domain 0."""
    with Client.connect(peer.socket, timeout=SECONDS) as connected:
        yield connected


def _event(client: Client, path: str) -> None:
    while client.next_event(SECONDS).path != path:
        pass


def test_a_guest_lives_and_dies_on_a_ring(peer: Running, client: Client) -> None:
    """Introduced, it reads, writes and watches; values longer than the ring go both ways.

    When it dies, the others are told and nothing of it is held any more.
    """
    before = peer.xen.totals()
    guest = peer.xen.create(5)
    client.watch("@introduceDomain", b"in")
    client.watch("@releaseDomain", b"out")
    client.introduce(guest.domid, guest.gfn, guest.port)
    _event(client, "@introduceDomain")
    assert peer.xen.held(5).bound

    client.write("/local/domain/5/name", b"guest")
    client.set_perms("/local/domain/5", [Permission("n", 5)])
    client.set_perms("/local/domain/5/name", [Permission("n", 0), Permission("r", 5)])
    assert guest.read("name") == b"guest"
    assert guest.write("name", b"another") == "EACCES"

    value = bytes(range(1, 251)) * 8
    assert len(value) > RING
    assert guest.write("long", value) == b"OK\0"
    assert guest.read("long") == value
    assert client.read("/local/domain/5/long") == value

    assert guest.watch("long", "token") == b"OK\0"
    assert guest.event() == (b"long", b"token")
    client.write("/local/domain/5/long", b"")
    assert guest.event() == (b"long", b"token")

    _event(client, "@releaseDomain")  # the one that every watch begins with
    peer.xen.destroy(5)
    _event(client, "@releaseDomain")
    assert peer.xen.held(5) == NOTHING
    assert peer.xen.totals() == before


def test_a_domain_that_shuts_down_is_noticed_and_stays(peer: Running, client: Client) -> None:
    """Shutting down is told by @releaseDomain too, but the guest can go on."""
    guest = peer.xen.create(6)
    client.introduce(guest.domid, guest.gfn, guest.port)
    client.watch("@releaseDomain", b"out")
    _event(client, "@releaseDomain")
    peer.xen.shutdown(6)
    _event(client, "@releaseDomain")
    assert client.is_domain_introduced(6)
    peer.xen.resume(6)
    assert guest.read("/tool") in (b"", "EACCES")


def test_many_guests_are_served_at_the_same_time(peer: Running, client: Client) -> None:
    """Each gets its own answers, and no event is lost between them."""
    guests = [peer.xen.create(domid) for domid in range(10, 40)]
    for guest in guests:
        client.introduce(guest.domid, guest.gfn, guest.port)
        client.mkdir(f"/local/domain/{guest.domid}")
        client.set_perms(f"/local/domain/{guest.domid}", [Permission("n", guest.domid)])
    for turn in range(5):
        for guest in guests:
            guest.send(message(Op.WRITE, b"turn\0%d" % turn, req_id=turn))
        for guest in guests:
            assert guest.reply()[:2] == (Op.WRITE, turn)
    assert peer.xen.counters().notifications > 0
    for guest in guests:
        assert client.read(f"/local/domain/{guest.domid}/turn") == b"4"


def test_a_broken_ring_breaks_nobody_else(peer: Running, client: Client) -> None:
    """The guest writes what it wants into its page; the daemon and a neighbour go on."""
    bad, good = peer.xen.create(7), peer.xen.create(8)
    for guest in (bad, good):
        client.introduce(guest.domid, guest.gfn, guest.port)
    bad.set_word(REQ_PROD, 12345)
    bad.kick()
    assert good.read("/tool") in (b"", "EACCES")
    assert client.ls("/")
    assert bad.word(ERROR) in (0, 2)


def test_domain_0_has_a_ring_as_well(peer: Running) -> None:
    """What its kernel writes there is served as the socket is."""
    kernel = peer.xen.guest(0)
    assert kernel.write("/from/the/kernel", b"1") == b"OK\0"
    with Client.connect(peer.socket, timeout=SECONDS) as client:
        assert client.read("/from/the/kernel") == b"1"


# -- the libraries ------------------------------------------------------------------------------


@pytest.fixture
def xen(tmp_path: Path) -> Iterator[Hypervisor]:
    """A hypervisor with domain 0."""
    with Hypervisor(tmp_path / "xen") as made:
        yield made
        assert made.counters()  # which asserts that no event was lost


@pytest.fixture
def puppet(xen: Hypervisor) -> Iterator[Puppet]:
    """A daemon on it, with the libraries of Xen 4.17 open."""
    with Puppet(daemons.environ(xen.directory)) as made:
        for name in ("evtchn", "gnttab", "foreign", "ctrl"):
            made("open", name)
        yield made


def _fails(call: Callable[[], object]) -> str:
    with pytest.raises(OSError) as failure:
        call()
    return errno.errorcode[failure.value.errno or 0]


def test_an_event_masks_its_port_until_it_is_unmasked(xen: Hypervisor, puppet: Puppet) -> None:
    """Queued once, however often it is raised; unmasking a pending port queues it again."""
    guest = xen.create(5)
    port = puppet("bind", 5, guest.port)
    assert puppet("ports") == [port]  # every new channel begins with an event
    assert xen.port_state(port) == BOUND | MASKED

    guest.kick()
    guest.kick()
    assert puppet("ports") == []
    assert xen.port_state(port) == BOUND | MASKED | PENDING

    assert puppet("unmask", [port]) == 4
    assert puppet("ports") == [port]
    assert xen.port_state(port) == BOUND | MASKED

    assert puppet("unmask", [port]) == 4
    assert xen.port_state(port) == BOUND
    assert puppet("ports") == []


def test_one_read_gives_many_ports_and_one_write_unmasks_them(
    xen: Hypervisor, puppet: Puppet
) -> None:
    """As many as there are, in the order of their events, and at most as many as one asks for."""
    guests = [xen.create(domid) for domid in range(1, 71)]
    ports = [puppet("bind", guest.domid, guest.port) for guest in guests]
    assert puppet("ports") == ports[:64]
    assert puppet("ports") == ports[64:]
    before = xen.counters()
    assert puppet("unmask", ports) == 4 * 70
    after = xen.counters()
    assert after.unmask_calls - before.unmask_calls == 1
    assert after.unmasked_ports - before.unmasked_ports == 70
    for guest in reversed(guests[:3]):
        guest.kick()
    assert puppet("ports") == ports[2::-1]


def test_unmasking_what_is_no_port_does_nothing(xen: Hypervisor, puppet: Puppet) -> None:
    """Neither ports that are not bound nor numbers out of range."""
    assert puppet("unmask", [0, 9, 0xFFFFFFFF]) == 12
    assert puppet("ports") == []


def test_notifications_of_the_daemon_wait_in_the_guests_mailbox(
    xen: Hypervisor, puppet: Puppet
) -> None:
    """Several before the guest looks are one for it, and all are counted."""
    guest = xen.create(5)
    port = puppet("bind", 5, guest.port)
    assert not guest.notified()
    puppet("notify", port)
    puppet("notify", port)
    assert guest.wait(SECONDS)
    assert not guest.notified()
    assert xen.notifications(5) == 2
    puppet("notify", port)
    assert guest.notified()


def test_several_guests_share_a_mailbox(xen: Hypervisor, puppet: Puppet) -> None:
    """What comes out of it says who they are."""
    guests = [xen.create(domid) for domid in (5, 6, 7)]
    box = xen.mailbox(1000)
    for guest in guests:
        xen.set_mailbox(guest.domid, 1000)
    ports = [puppet("bind", guest.domid, guest.port) for guest in guests]
    for port in (ports[2], ports[0], ports[2]):
        puppet("notify", port)
    assert xen.take(box) == [7, 5]
    assert xen.take(box) == []
    os.close(box)


def test_only_the_port_that_a_domain_offers_can_be_bound(xen: Hypervisor, puppet: Puppet) -> None:
    """Once, and not of a domain that is dying or is not there."""
    xen.create(5, port=3)
    assert _fails(lambda: puppet("bind", 4, 3)) == "ESRCH"
    assert _fails(lambda: puppet("bind", 5, 4)) == "EINVAL"
    port = puppet("bind", 5, 3)
    assert xen.local_port(5) == port
    assert _fails(lambda: puppet("bind", 5, 3)) == "EINVAL"
    puppet("unbind", port)
    assert xen.local_port(5) == 0
    assert puppet("bind", 5, 3) == port  # the lowest that is free
    puppet("unbind", port)
    xen.start_dying(5)
    assert _fails(lambda: puppet("bind", 5, 3)) == "EINVAL"
    assert _fails(lambda: puppet("unbind", port)) == "ENOTCONN"
    assert _fails(lambda: puppet("notify", port)) == "ENOTCONN"


def test_a_dead_domains_port_hears_nothing_and_says_nothing(
    xen: Hypervisor, puppet: Puppet
) -> None:
    """Its daemon still has it bound; the next domain of that id has nothing to do with it."""
    old = xen.create(5)
    port = puppet("bind", 5, old.port)
    puppet("unmask", puppet("ports"))
    xen.destroy(5)
    new = xen.create(5)
    new.kick()
    puppet("notify", port)
    assert puppet("ports") == []
    assert not new.notified()
    assert xen.held(5) == NOTHING
    assert xen.totals().ports == 1
    again = puppet("bind", 5, new.port)
    assert again != port
    assert puppet("ports") == [again]


def test_the_virtual_interrupt_is_had_by_one(xen: Hypervisor, puppet: Puppet) -> None:
    """It arrives on a port of its own."""
    xen.virq()  # nobody listens
    port = puppet("bind_virq")
    assert xen.virq_port() == port
    assert puppet("ports") == []
    xen.virq()
    assert puppet("ports") == [port]
    assert _fails(lambda: puppet("bind_virq")) == "EEXIST"
    assert _fails(lambda: puppet("notify", port)) == "ENOTCONN"


def test_pages_are_shared_and_counted(xen: Hypervisor, puppet: Puppet) -> None:
    """By grant reference 1 or by the frame: both sides see the same bytes."""
    guest = xen.create(5, gfn=77)
    guest.bytes[:3] = b"abc"
    granted = puppet("map_grant", 5, 1)
    framed, error = puppet("map_frame", 5, 77)
    assert error == 0
    assert xen.held(5) == Held(1, 1, False)
    assert puppet("peek", granted, 3) == puppet("peek", framed, 3) == b"abc".hex()
    puppet("poke", granted, b"xyz".hex())
    assert bytes(guest.bytes[:3]) == b"xyz"
    puppet("unmap_grant", granted)
    assert xen.held(5) == Held(0, 1, False)
    assert _fails(lambda: puppet("unmap_grant", framed)) == "EINVAL"
    puppet("unmap_frame", framed)
    assert xen.held(5) == NOTHING
    assert xen.totals().pages == 0


def test_pages_that_cannot_be_had(xen: Hypervisor, puppet: Puppet) -> None:
    """Other references, other frames, domains that are not there, and what a test forbids."""
    xen.create(5, gfn=77)
    assert _fails(lambda: puppet("map_grant", 5, 2)) == "EINVAL"
    assert _fails(lambda: puppet("map_grant", 4, 1)) == "EINVAL"
    assert _fails(lambda: puppet("map_frame", 4, 77)) == "ESRCH"
    address, error = puppet("map_frame", 5, 78)
    assert error == -errno.EINVAL
    puppet("unmap_frame", address)

    xen.create(6, gfn=77, flags=NO_GRANT)
    assert _fails(lambda: puppet("map_grant", 6, 1)) == "EINVAL"
    assert puppet("map_frame", 6, 77)[1] == 0
    xen.create(7, gfn=77, flags=NO_FOREIGN)
    assert puppet("map_frame", 7, 77)[1] == -errno.EINVAL
    assert puppet("map_grant", 7, 1)


def test_a_new_domain_has_a_new_page(xen: Hypervisor, puppet: Puppet) -> None:
    """Whoever still maps the page of the domain before sees that one's bytes."""
    old = xen.create(5)
    old.set_word(PORT, 9)
    first = puppet("map_grant", 5, 1)
    new = xen.create(5)
    assert new.word(PORT) == 0
    assert xen.unique(5) > 0
    second = puppet("map_grant", 5, 1)
    assert puppet("peek", first + 2076, 4) == "09000000"
    assert puppet("peek", second + 2076, 4) == "00000000"
    assert xen.held(5).granted == 1
    assert xen.totals().pages == 2
    puppet("unmap_grant", first)
    assert xen.held(5).granted == 1
    assert xen.totals().pages == 1


def test_domains_are_listed_as_xen_4_17_does(xen: Hypervisor, puppet: Puppet) -> None:
    """From the lowest id on, with their flags, their time and their handles."""
    for domid in (5, 64, 200):
        xen.create(domid)
    xen.set_flags(64, EXISTS | HVM | DYING)
    xen.shutdown(200, CRASH)
    xen.set_cpu_ns(5, 1234)
    xen.set_handle(5, b"0123456789abcdef")
    listed = puppet("domains", 1, 10)
    assert [one[0] for one in listed] == [5, 64, 200]
    assert listed[0] == [5, 0, 1234, b"0123456789abcdef".hex()]
    assert listed[1][1] == 1 << 0 | 1 << 1
    assert listed[2][1] == 1 << 2 | CRASH << 16
    assert listed[1][3] != listed[2][3]
    assert [one[0] for one in puppet("domains", 0, 2)] == [0, 5]
    xen.destroy(200)
    assert puppet("domains", 65, 1) == []


def test_newer_libraries_tell_of_each_change_once(xen: Hypervisor) -> None:
    """To whoever bound the interrupt all domains are new."""
    xen.create(5)
    with Puppet(daemons.environ(xen.directory, manage=True)) as puppet:
        puppet("open", "evtchn")
        puppet("open", "manage")
        assert puppet("state", 5) == [1, 0, xen.unique(5)]
        assert puppet("state", 0)[1] == 7
        assert _fails(lambda: puppet("state", 6)) == "ESRCH"
        puppet("bind_virq")
        assert [puppet("changed"), puppet("changed")] == [[0, 1], [5, 1]]
        assert _fails(lambda: puppet("changed")) == "ENOENT"
        xen.shutdown(5)
        assert puppet("changed") == [5, 1 | 2]
        xen.start_dying(5, dead=True)
        assert xen.flags(5) == EXISTS | SHUTDOWN | DYING | DEAD
        assert puppet("changed") == [5, 1 | 2 | 4 | 8]
        xen.destroy(5)
        assert puppet("changed") == [5, 0]
        assert _fails(lambda: puppet("changed")) == "ENOENT"


def test_the_newer_library_is_there_only_when_asked_for(xen: Hypervisor, puppet: Puppet) -> None:
    """Where no such library is installed, that is: Debian 12 has none."""
    with pytest.raises(OSError, match="libxenmanage"):
        puppet("open", "manage")


def test_domain_0_offers_its_ring_by_device_and_by_file(xen: Hypervisor, puppet: Puppet) -> None:
    """And a test can take these away."""
    xen.guest(0).bytes[:4] = b"ring"
    assert puppet("own_ring") == [1, 1, b"ring".hex()]
    (xen.directory / "dev" / "xenbus_backend").unlink()
    assert _fails(lambda: puppet("own_ring")) == "ENOENT"


def test_calls_fail_when_they_are_told_to(xen: Hypervisor, puppet: Puppet) -> None:
    """So many times, after so many good ones."""
    xen.create(5)
    xen.fail("xengnttab_map_grant_ref", errno.ENOMEM, times=2, after=1)
    assert puppet("map_grant", 5, 1)
    assert _fails(lambda: puppet("map_grant", 5, 1)) == "ENOMEM"
    assert _fails(lambda: puppet("map_grant", 5, 1)) == "ENOMEM"
    assert puppet("map_grant", 5, 1)
    xen.fail("xenevtchn_bind_interdomain", errno.ENOSPC)
    xen.fail("open", errno.EACCES)
    assert _fails(lambda: puppet("bind", 5, 3)) == "ENOSPC"
    assert _fails(lambda: puppet("own_ring")) == "EACCES"
    xen.fail_no_more()
    assert puppet("bind", 5, 3)


def test_the_environment_makes_calls_fail(xen: Hypervisor) -> None:
    """From the first call on."""
    fail = "xenevtchn_open:ENODEV:1,xengnttab_open:EACCES"
    with Puppet(daemons.environ(xen.directory, fail=fail)) as puppet:
        assert _fails(lambda: puppet("open", "evtchn")) == "ENODEV"
        puppet("open", "evtchn")
        assert _fails(lambda: puppet("open", "gnttab")) == "EACCES"
        assert _fails(lambda: puppet("open", "gnttab")) == "EACCES"


def test_handles_are_counted_and_closing_one_gives_its_ports_back(
    xen: Hypervisor, puppet: Puppet
) -> None:
    """After all are closed the daemon holds nothing."""
    guest = xen.create(5)
    puppet("bind", 5, guest.port)
    puppet("bind_virq")
    assert xen.totals().handles == {"evtchn": 1, "gnttab": 1, "foreign": 1, "ctrl": 1}
    assert xen.totals().ports == 2
    assert _fails(lambda: puppet("open", "evtchn")) == "EBUSY"
    for name in ("evtchn", "gnttab", "foreign", "ctrl"):
        puppet("close", name)
    assert xen.totals() == (0, 0, {})
    assert (xen.local_port(5), xen.virq_port()) == (0, 0)


def test_a_daemon_takes_over_from_one_that_was_killed(xen: Hypervisor, puppet: Puppet) -> None:
    """What that one had bound and mapped is free again, and its events are gone."""
    guest = xen.create(5)
    puppet("bind", 5, guest.port)
    puppet("map_grant", 5, 1)
    os.kill(puppet.pid, signal.SIGKILL)
    with Puppet(daemons.environ(xen.directory)) as successor:
        successor("open", "evtchn")
        assert xen.held(5) == NOTHING
        assert successor("ports") == []
        assert successor("bind", 5, guest.port)


# -- guests -------------------------------------------------------------------------------------


def test_a_guests_bytes_wrap_around_in_its_ring(xen: Hypervisor) -> None:
    """In both rings, with indices that wrap around as well; nothing is sent beyond what fits."""
    guest = xen.create(5)
    for word in (REQ_PROD, REQ_PROD - 1, RSP_PROD, RSP_CONS):
        guest.set_word(word, 2**32 - 10)
    data = bytes(index % 251 for index in range(RING + 7))
    assert guest.put(data) == RING
    assert guest.room() == 0
    assert guest.word(REQ_PROD) == RING - 10
    assert bytes(guest.request_bytes[-10:]) == data[:10]
    assert bytes(guest.request_bytes[: RING - 10]) == data[10:RING]
    guest.response_bytes[:] = guest.request_bytes
    guest.set_word(RSP_PROD, RING - 10)
    assert guest.get(3) == data[:3]
    assert guest.get() == data[3:RING]
    assert guest.available() == 0


def test_a_guest_that_gets_no_answer_says_so(xen: Hypervisor) -> None:
    """Its waits end."""
    guest = xen.create(5)
    with pytest.raises(TimeoutError):
        guest.ask(Op.READ, b"/\0", seconds=0)


def test_the_library_is_compiled_only_when_it_is_old(library: Path) -> None:
    """Asking again leaves it as it is."""
    before = library.stat().st_mtime_ns
    assert build.library() == library
    assert library.stat().st_mtime_ns == before


def test_the_header_can_be_used_by_itself(tmp_path: Path) -> None:
    """With the compiler's strictest mood, by a program that plays guests."""
    compiler = shutil.which("gcc")
    if compiler is None:
        absent("gcc is not installed")
    source = tmp_path / "guests.c"
    source.write_text(
        "#define _GNU_SOURCE\n"
        '#include "fakexen.h"\n'
        "int main(int argc, char **argv)\n"
        "{\n"
        "    struct fakexen fx;\n"
        "    uint32_t domid;\n"
        "    int box;\n"
        "    struct fakexen_ring *ring;\n"
        "    if (argc != 2 || fakexen_open(&fx, argv[1]) != 0)\n"
        "        return 1;\n"
        "    box = fakexen_mailbox(&fx, 7);\n"
        "    if (box < 0 || fakexen_create(&fx, 5, 3, 1000, 7) != 0)\n"
        "        return 2;\n"
        "    ring = fakexen_page(&fx, 5);\n"
        "    if (!ring)\n"
        "        return 3;\n"
        "    ring->port = 3;\n"
        "    if (fakexen_kick(&fx, 5) != 0 || fakexen_take(&fx, box, &domid, 1) != 0)\n"
        "        return 4;\n"
        "    return 0;\n"
        "}\n"
    )
    flags = (
        "-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wsign-compare", "-Werror",
    )  # fmt: skip
    made = tmp_path / "guests"
    code = _run(compiler, *flags, f"-I{build.HERE}", "-o", str(made), str(source))
    assert code == 0
    with Hypervisor(tmp_path / "xen") as xen:
        assert _run(str(made), str(xen.directory)) == 0
        assert xen.guest(5).word(PORT) == 3


def _run(*command: str) -> int:
    return subprocess.run(command, timeout=SECONDS, check=False).returncode
