"""The host that talks to Xen's libraries, on libraries that stand in for them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from serving import absent

import xsd
from xsd.xen import libraries
from xsd.xen.census import INFO, DomainInfo
from xsd.xen.fake import FakeHost

from .build import library, loader_path
from .hypervisor import (
    DYING,
    EXISTS,
    NO_FOREIGN,
    NO_GRANT,
    NOTHING,
    PORT,
    Held,
    Hypervisor,
    Totals,
)

DRIVER = Path(__file__).parent / "real_driver.py"
KVA, PORT_FILE = "/proc/xen/xsd_kva", "/proc/xen/xsd_port"
SECONDS = 20.0
ALL_CLOSED = Totals(pages=0, ports=0, handles={})

CONTROL, MANAGE = ("libxenmanage.so.1",), ()
"""The libraries to leave out, for each way to ask about domains."""


class RemoteError(Exception):
    """An exception over there: its class, its errno if it has one, its text."""

    def __init__(self, kind: str, name: str, text: str) -> None:
        super().__init__(kind, name, text)
        self.kind, self.errno, self.text = kind, name, text


class RemoteRing(NamedTuple):
    """A ring of the other process."""

    address: int
    port: int


class Remote:
    """A driver in its own process, on the fake Xen."""

    def __init__(self, xen: Hypervisor, libs: Path) -> None:
        environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environ |= {
            "PYTHONPATH": str(Path(xsd.__file__).parents[1]),
            "LD_LIBRARY_PATH": str(libs),
            "LD_PRELOAD": str(library()),
            "XSD_FAKEXEN_DIR": str(xen.directory),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def call(self, name: str, *arguments: object) -> Any:
        """One call over there. Raises RemoteError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the driver has ended"
        answer = json.loads(line)
        if "bad" in answer:
            raise RemoteError(*answer["bad"])
        return answer["good"]

    def open(self, kva: str = KVA, port_file: str = PORT_FILE, event_channel: int = 0) -> None:
        """Opens the host for domain 0."""
        self.call("open", 0, kva, port_file, event_channel)

    def introduce(self, domid: int, gfn: int = 0, port: int = 3) -> RemoteRing:
        """Introduces a domain."""
        return RemoteRing(*self.call("introduce", domid, gfn, port))

    def own_ring(self) -> RemoteRing:
        """The kernel's ring."""
        return RemoteRing(*self.call("own_ring"))

    def news(self) -> list[tuple[str, int]]:
        """What the listener was told since the last call."""
        return [(what, domid) for what, domid in self.call("news")]

    def settle(self, xen: Hypervisor) -> list[tuple[str, int]]:
        """Lets the host look at what is new; returns what the listener was told."""
        self.call("event", xen.virq_port())
        return self.news()

    def end(self) -> None:
        """Ends the process, which must have nothing to say about it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait(SECONDS)
        self._process.stdout.close()
        assert status == 0


Starter = Callable[..., Remote]


@pytest.fixture
def xen(tmp_path: Path) -> Iterator[Hypervisor]:
    """A hypervisor with domain 0."""
    with Hypervisor(tmp_path / "xen") as found:
        yield found


@pytest.fixture
def start(xen: Hypervisor, tmp_path: Path) -> Iterator[Starter]:
    """Starts drivers; ``broken`` libraries are there and cannot be loaded."""
    running: list[Remote] = []

    def starter(omit: tuple[str, ...] = CONTROL, broken: tuple[str, ...] = ()) -> Remote:
        libs = loader_path(tmp_path / "libs", omit)
        for name in broken:
            (libs / name).unlink(missing_ok=True)
            (libs / name).touch()
        running.append(Remote(xen, libs))
        return running[-1]

    yield starter
    for remote in running:
        remote.end()


@pytest.fixture(params=[CONTROL, MANAGE], ids=["libxenctrl", "libxenmanage"])
def host(request: pytest.FixtureRequest, start: Starter) -> Remote:
    """A host that has started, with each way to ask about domains."""
    remote = start(request.param)
    remote.open()
    remote.call("start")
    return remote


# -- what is missing at start ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("soname", "package"),
    [("libxenevtchn.so.1", "libxenevtchn1"), ("libxengnttab.so.1", "libxengnttab1")],
)
def test_a_missing_library_is_named_with_its_package(
    start: Starter, xen: Hypervisor, soname: str, package: str
) -> None:
    """One sentence: which library, why not, what to install, how to run without."""
    remote = start(broken=(soname,))
    with pytest.raises(RemoteError) as raised:
        remote.open()
    assert raised.value.kind == "NoXenError"
    assert raised.value.text.startswith(f"{soname} cannot be loaded (")
    assert raised.value.text.endswith(
        f"): install Xen's libraries (Debian: {package}), "
        "or start with --no-xen to serve the unix socket alone"
    )
    assert xen.totals() == ALL_CLOSED


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            "xenevtchn_open",
            errno.ENOENT,
            "event channels cannot be used through /dev/xen/evtchn (No such file or directory): "
            "load its driver (modprobe xen-evtchn) in a domain of Xen",
        ),
        (
            "xenevtchn_open",
            errno.EACCES,
            "event channels cannot be used through /dev/xen/evtchn (Permission denied): "
            "start as root",
        ),
        (
            "xenevtchn_bind_virq",
            errno.EEXIST,
            "news of domains (VIRQ_DOM_EXC) cannot be had (File exists): stop the other xenstored",
        ),
        (
            "xenevtchn_bind_virq",
            errno.EPERM,
            "news of domains (VIRQ_DOM_EXC) cannot be had (Operation not permitted): "
            "run in the control domain, without another xenstored",
        ),
        (
            "xengnttab_open",
            errno.ENOENT,
            "rings cannot be mapped through /dev/xen/gntdev (No such file or directory): "
            "load its driver (modprobe xen-gntdev) in a domain of Xen",
        ),
    ],
)
def test_a_missing_device_is_one_sentence(
    start: Starter, xen: Hypervisor, call: str, error: int, sentence: str
) -> None:
    """What was tried, the error, what would help; and what was open is closed again."""
    remote = start()
    xen.fail(call, error)
    with pytest.raises(RemoteError) as raised:
        remote.open()
    assert raised.value.text == (
        f"{sentence}, or start with --no-xen to serve the unix socket alone"
    )
    assert xen.totals() == ALL_CLOSED


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        ("xc_interface_open", errno.ENOENT, "modprobe xen-privcmd"),
        ("xc_domain_getinfolist", errno.EACCES, "libxenmisc4.17"),
    ],
)
def test_a_control_library_that_does_not_work_is_named(
    start: Starter, xen: Hypervisor, call: str, error: int, remedy: str
) -> None:
    """Which libxenctrl was tried, and why it was not good enough."""
    remote = start()
    xen.fail(call, error)
    with pytest.raises(RemoteError) as raised:
        remote.open()
    assert raised.value.kind == "NoXenError"
    assert f"libxenctrl.so.4.17 ({os.strerror(error)})" in raised.value.text
    assert remedy in raised.value.text
    assert "--no-xen" in raised.value.text
    assert xen.totals() == ALL_CLOSED


def test_control_libraries_that_cannot_be_loaded_are_passed_over(
    start: Starter, xen: Hypervisor
) -> None:
    """A newer libxenctrl is tried first; that it is broken does no harm."""
    remote = start(broken=("libxenctrl.so.4.99",))
    remote.open()
    assert remote.call("domains") == [0]
    assert xen.totals().handles == {"evtchn": 1, "gnttab": 1, "ctrl": 1}


def test_an_older_hypervisor_is_asked_through_the_other_library(
    start: Starter, xen: Hypervisor
) -> None:
    """libxenmanage is there, the hypervisor has no such call: libxenctrl does it."""
    remote = start(MANAGE)
    xen.fail("xenmanage_get_domain_info", errno.ENOSYS)
    remote.open()
    assert remote.call("exists", 0)
    assert xen.totals().handles == {"evtchn": 1, "gnttab": 1, "ctrl": 1}


def test_the_newer_library_is_used_alone(start: Starter, xen: Hypervisor) -> None:
    """With libxenmanage nobody needs the library whose interface changes."""
    remote = start(MANAGE)
    xen.fail("xc_interface_open", errno.EACCES)
    remote.open()
    assert remote.call("domains") == [0]
    assert xen.totals().handles == {"evtchn": 1, "gnttab": 1, "manage": 1}


# -- event channels ----------------------------------------------------------------------------


def test_events_come_and_go(host: Remote, xen: Hypervisor) -> None:
    """The descriptor is ours alone and does not block; both directions work through the seam."""
    assert host.call("flags") == [False, False]
    guest = xen.create(5)
    ring = host.introduce(5)
    assert host.call("ports", SECONDS) == [ring.port]  # binding is an event of its own
    assert not guest.notified()
    assert host.call("notify", ring.port) == 0
    assert guest.notified()


# -- our own ring ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["kernel", "files", "old kernel", "override"])
def test_the_own_ring_is_the_kernels(start: Starter, xen: Hypervisor, way: str) -> None:
    """From the device, from older kernels' files, from any file; the port likewise."""
    remote = start()
    proc = xen.directory / "proc"
    match way:
        case "kernel":
            (proc / "xsd_port").unlink()  # the device knows it, and has the page
            (proc / "xsd_kva").unlink()
            remote.open()
        case "files":
            (proc / "xsd_port").write_text("1\n")
            (xen.directory / "dev" / "xenbus_backend").unlink()
            (proc / "xsd_kva").rename(xen.directory / "page")
            remote.open(str(xen.directory / "page"), str(proc / "xsd_port"))
        case "old kernel":
            (xen.directory / "dev" / "xenbus_backend").unlink()
            remote.open()
        case "override":
            (proc / "xsd_port").write_text("77")
            (xen.directory / "dev" / "xenbus_backend").unlink()
            xen.set_port(0, 4)
            remote.open(event_channel=4)
    before = remote.call("descriptors")
    ring = remote.own_ring()
    assert remote.call("descriptors") == before
    assert xen.local_port(0) == ring.port
    kernel = xen.guest(0)
    kernel.bytes[:5] = b"hello"
    assert remote.call("peek", ring.address, 5) == "hello"
    remote.call("poke", ring.address + 1024, "good bye")
    assert bytes(kernel.response_bytes[:8]) == b"good bye"
    remote.call("close")
    assert not remote.call("is_mapped", ring.address)
    assert xen.totals() == ALL_CLOSED


@pytest.mark.parametrize(
    ("gone", "content", "said"),
    [
        ("xsd_kva", None, "the kernel's ring cannot be mapped from"),
        ("xsd_port", None, "cannot be read from {port} (No such file or directory): "),
        ("xsd_port", "", "cannot be read from {port} (b'' is no number): "),
        ("xsd_port", "-1", "cannot be read from {port} (-1 is no event channel): "),
    ],
)
def test_an_own_ring_that_is_not_offered(
    start: Starter, xen: Hypervisor, gone: str, content: str | None, said: str
) -> None:
    """The sentence names the file and the remedies; nothing stays bound or mapped."""
    proc = xen.directory / "proc"
    remote = start()
    remote.open(str(proc / "xsd_kva"), str(proc / "xsd_port"))
    before = xen.totals()
    (proc / gone).unlink()
    if content is not None:
        (proc / gone).write_text(content)
    with pytest.raises(RemoteError) as raised:
        remote.own_ring()
    assert (raised.value.kind, raised.value.errno) == ("HostError", "EINVAL")
    assert said.format(port=proc / "xsd_port") in raised.value.text
    assert "mount -t xenfs xenfs /proc/xen" in raised.value.text
    assert xen.totals() == before


def test_the_own_ring_introduced_again(host: Remote, xen: Hypervisor) -> None:
    """The page stays, the channel is bound anew, to the port that is named."""
    first = host.own_ring()
    xen.set_port(0, 9)
    again = host.introduce(0, 0, 9)
    assert again.address == first.address
    assert xen.local_port(0) == again.port
    assert xen.totals().ports == 2  # this and the virtual interrupt


def test_the_own_ring_introduced_first(host: Remote, xen: Hypervisor) -> None:
    """A daemon that did not take its own ring at start gets it by an introduction."""
    ring = host.introduce(0, 1234, xen.port_of(0))
    xen.guest(0).bytes[:2] = b"ok"
    assert host.call("peek", ring.address, 2) == "ok"
    assert xen.held(0) == Held(0, 0, True)  # no grant, no frame


# -- rings of guests ---------------------------------------------------------------------------


def test_a_ring_is_mapped_by_its_grant(host: Remote, xen: Hypervisor) -> None:
    """Both see one page; the frame number is not looked at."""
    guest = xen.create(5)
    ring = host.introduce(5, gfn=1, port=guest.port)
    assert xen.held(5) == Held(1, 0, True)
    assert xen.local_port(5) == ring.port
    guest.bytes[:3] = b"abc"
    assert host.call("peek", ring.address, 3) == "abc"
    host.call("poke", ring.address + 1024, "xyz")
    assert bytes(guest.response_bytes[:3]) == b"xyz"
    assert "foreign" not in xen.totals().handles  # opened when it is needed


def test_without_a_grant_the_frame_is_mapped(host: Remote, xen: Hypervisor) -> None:
    """A toolstack that sets no grant is served by the frame that it names."""
    guest = xen.create(5, flags=NO_GRANT)
    ring = host.introduce(5, gfn=guest.gfn, port=guest.port)
    assert xen.held(5) == Held(0, 1, True)
    guest.bytes[:3] = b"abc"
    assert host.call("peek", ring.address, 3) == "abc"
    host.call("release", 5)
    assert xen.held(5) == NOTHING
    assert not host.call("is_mapped", ring.address)


@pytest.mark.parametrize(
    ("flags", "gfn", "said"),
    [
        (NO_GRANT, 0, "domain 5: its ring cannot be mapped: by grant: "),
        (NO_GRANT, 17, "; by frame 0x11: Invalid argument"),
        (NO_GRANT | NO_FOREIGN, 1005, "; by frame 0x3ed: Invalid argument"),
    ],
)
def test_a_ring_that_cannot_be_mapped(
    host: Remote, xen: Hypervisor, flags: int, gfn: int, said: str
) -> None:
    """The sentence says what was tried; nothing is held."""
    xen.create(5, flags=flags)
    with pytest.raises(RemoteError) as raised:
        host.introduce(5, gfn)
    assert (raised.value.kind, raised.value.errno) == ("HostError", "EINVAL")
    assert said in raised.value.text
    assert xen.held(5) == NOTHING


def test_frames_need_a_library_only_then(start: Starter, xen: Hypervisor) -> None:
    """Without libxenforeignmemory all that have a grant are served, and the rest told why not."""
    remote = start(broken=("libxenforeignmemory.so.1",))
    remote.open()
    xen.create(5)
    remote.introduce(5)
    xen.create(6, flags=NO_GRANT)
    with pytest.raises(RemoteError, match=r"libxenforeignmemory\.so\.1 cannot be loaded") as raised:
        remote.introduce(6, 1006)
    assert raised.value.errno == "EINVAL"


def test_the_port_in_the_page_counts(host: Remote, xen: Hypervisor) -> None:
    """A port that stands in the page is bound, whatever was said."""
    guest = xen.create(5, port=8)
    guest.set_word(PORT, 8)
    assert host.introduce(5, 0, 99).port == xen.local_port(5)
    xen.create(6, port=8).set_word(PORT, 8)
    assert host.introduce(6, 0, 0).port == xen.local_port(6)


def test_garbage_in_the_page_is_no_port(host: Remote, xen: Hypervisor) -> None:
    """Boot firmware may leave ones there: then what was said counts."""
    guest = xen.create(5, port=8)
    guest.set_word(PORT, 0xFFFFFFFF)
    assert host.introduce(5, 0, 8).port == xen.local_port(5)


@pytest.mark.parametrize("port", [0, -1, 1 << 17, 1 << 40])
def test_no_port_at_all(host: Remote, xen: Hypervisor, port: int) -> None:
    """Neither said nor in the page, or impossible: refused, and the page is unmapped."""
    xen.create(5)
    with pytest.raises(RemoteError, match=f"domain 5: there is no event channel {port}") as raised:
        host.introduce(5, 0, port)
    assert raised.value.errno == "EINVAL"
    assert xen.held(5) == NOTHING


def test_a_channel_that_cannot_be_bound(host: Remote, xen: Hypervisor) -> None:
    """The page is unmapped again, and the sentence says who and why."""
    xen.create(5, port=3)
    with pytest.raises(RemoteError) as raised:
        host.introduce(5, 0, 4)
    assert raised.value.errno == "EINVAL"
    assert raised.value.text == "domain 5: its event channel 4 cannot be bound: Invalid argument"
    assert xen.held(5) == NOTHING
    host.introduce(5, 0, 3)
    assert xen.held(5) == Held(1, 0, True)


def test_introduced_again(host: Remote, xen: Hypervisor) -> None:
    """The page stays where it is, the old port is given back, the new one bound."""
    xen.create(5, port=3)
    first = host.introduce(5, 0, 3)
    xen.set_port(5, 4)
    again = host.introduce(5, 0, 4)
    assert again.address == first.address
    assert again.port == xen.local_port(5)
    assert xen.held(5) == Held(1, 0, True)
    assert xen.totals().ports == 2  # this and the virtual interrupt


def test_introduced_again_with_the_same_port(host: Remote, xen: Hypervisor) -> None:
    """The old end is given back before the new one is bound: a port has only one other end."""
    xen.create(5, port=3)
    host.introduce(5, 0, 3)
    assert host.introduce(5, 0, 3).port == xen.local_port(5)


def test_introduced_again_in_vain(host: Remote, xen: Hypervisor) -> None:
    """The old port is gone, the page is still there, and another attempt can succeed."""
    guest = xen.create(5, port=3)
    first = host.introduce(5, 0, 3)
    with pytest.raises(RemoteError) as raised:
        host.introduce(5, 0, 6)
    assert raised.value.errno == "EINVAL"
    assert xen.held(5) == Held(1, 0, False)
    guest.bytes[:2] = b"ok"
    assert host.call("peek", first.address, 2) == "ok"
    again = host.introduce(5, 0, 3)
    assert (again.address, xen.held(5)) == (first.address, Held(1, 0, True))


@pytest.mark.parametrize(
    ("domid", "error"), [(7, "ENOENT"), (0x7FF0, "EINVAL"), (0x7FF4, "EINVAL"), (-1, "EINVAL")]
)
def test_who_cannot_be_introduced(host: Remote, domid: int, error: str) -> None:
    """Nobody there, or an id that no domain has."""
    with pytest.raises(RemoteError) as raised:
        host.introduce(domid)
    assert raised.value.errno == error
    assert raised.value.text.startswith(f"domain {domid}: ")


def test_the_dying_cannot_be_introduced(host: Remote, xen: Hypervisor) -> None:
    """It is as if they were gone; a port that was bound for them is given back."""
    xen.create(5)
    host.introduce(5)
    xen.start_dying(5, virq=False)
    with pytest.raises(RemoteError) as raised:
        host.introduce(5)
    assert raised.value.errno == "ENOENT"
    assert xen.held(5) == Held(1, 0, False)


def test_release(host: Remote, xen: Hypervisor) -> None:
    """Everything is given back; once more, or for nobody, nothing happens."""
    xen.create(5)
    ring = host.introduce(5)
    assert host.call("is_mapped", ring.address)
    for domid in (5, 5, 6, 0x7FF0):
        host.call("release", domid)
    assert xen.held(5) == NOTHING
    assert not host.call("is_mapped", ring.address)
    assert host.introduce(5).port == xen.local_port(5)


def test_release_of_a_dead_domain(host: Remote, xen: Hypervisor) -> None:
    """The page of the dead is there until released: whoever serves it may still look."""
    xen.create(5)
    ring = host.introduce(5)
    xen.destroy(5)
    assert host.settle(xen) == [("died", 5)]
    assert host.call("peek", ring.address, 1) == "\0"
    host.call("release", 5)
    assert not host.call("is_mapped", ring.address)
    assert xen.totals().ports == 1


# -- which domains there are -------------------------------------------------------------------


def test_existence(host: Remote, xen: Hypervisor) -> None:
    """Neither the dying nor impossible ids exist; holes between ids are nobody."""
    for domid in (3, 5, 0x7FEF):
        xen.create(domid)
    xen.create(9, flags=DYING)
    assert [domid for domid in range(12) if host.call("exists", domid)] == [0, 3, 5]
    assert host.call("exists", 0x7FEF)
    assert not any(host.call("exists", domid) for domid in (-1, 0x7FF0, 0xFFFF, 1 << 32))
    assert host.call("domains") == [0, 3, 5, 0x7FEF]


def test_no_answer_is_an_error_of_its_own(start: Starter, xen: Hypervisor) -> None:
    """A question that fails is neither yes nor no."""
    for omit, call in (
        (CONTROL, "xc_domain_getinfolist"),
        (MANAGE, "xenmanage_get_domain_info"),
    ):
        remote = start(omit)
        remote.open()
        xen.fail(call, errno.EIO)
        with pytest.raises(RemoteError, match="Input/output error") as raised:
            remote.call("exists", 0)
        assert raised.value.errno == "EIO"
        xen.fail_no_more()
        remote.call("close")


# -- what becomes of them ----------------------------------------------------------------------


def test_the_end_of_domains_is_told_once(host: Remote, xen: Hypervisor) -> None:
    """Of those with a ring, those that were only asked about, and no others; dying is enough."""
    for domid in (4, 5, 6, 7):
        xen.create(domid)
    host.introduce(4)
    host.introduce(5)
    assert host.call("exists", 6)
    assert host.settle(xen) == []
    xen.destroy(4)
    xen.start_dying(5)
    xen.destroy(6)
    xen.destroy(7)
    assert host.settle(xen) == [("died", 4), ("died", 5), ("died", 6)]
    xen.start_dying(5, dead=True)
    assert host.settle(xen) == []
    xen.destroy(5)
    assert host.settle(xen) == []


def test_the_end_after_a_release(host: Remote, xen: Hypervisor) -> None:
    """Nodes may name a domain that is no client any more: its end matters."""
    xen.create(5)
    host.introduce(5)
    host.call("release", 5)
    xen.destroy(5)
    assert host.settle(xen) == [("died", 5)]


def test_a_shutdown_is_told(host: Remote, xen: Hypervisor) -> None:
    """Also one that follows a resumption that nobody saw; then comes the end."""
    xen.create(5)
    host.introduce(5)
    xen.shutdown(5)
    assert host.settle(xen) == [("shutdown", 5)]
    xen.resume(5)
    xen.shutdown(5)
    assert host.settle(xen) == [("shutdown", 5)]
    xen.destroy(5)
    assert host.settle(xen) == [("died", 5)]


def test_another_domain_of_the_same_id(host: Remote, xen: Hypervisor) -> None:
    """The end of the first is told, although there is a domain of that id, and the second lives."""
    xen.create(5)
    xen.create(6)
    host.introduce(5)
    assert host.call("exists", 6)
    xen.create(5)
    xen.create(6, virq=True)
    assert host.settle(xen) == [("died", 5), ("died", 6)]
    assert host.settle(xen) == []
    host.call("release", 5)
    assert host.call("exists", 5)
    host.introduce(6)
    xen.destroy(5)
    xen.destroy(6)
    assert host.settle(xen) == [("died", 5), ("died", 6)]


def test_nobody_inherits_a_ring(host: Remote, xen: Hypervisor) -> None:
    """Until an earlier domain's end is told and its ring released, its id is not taken."""
    xen.create(5, port=3)
    host.introduce(5)
    xen.create(5, port=4)
    for told in (False, True, True):
        with pytest.raises(RemoteError, match="the earlier domain of this id") as raised:
            host.introduce(5, 0, 4)
        assert raised.value.errno == "EBUSY"
        assert host.settle(xen) == ([] if told else [("died", 5)])
        assert host.call("exists", 5)
    guest = xen.guest(5)
    guest.bytes[:3] = b"new"
    host.call("release", 5)
    ring = host.introduce(5, 0, 4)
    assert xen.held(5) == Held(1, 0, True)
    assert host.call("peek", ring.address, 3) == "new"


def test_other_events_are_not_news(host: Remote, xen: Hypervisor) -> None:
    """An event of a ring that is no longer one has nobody looked at."""
    xen.create(5)
    ring = host.introduce(5)
    xen.destroy(5)
    host.call("event", ring.port)
    host.call("event", 12345)
    assert host.news() == []
    assert host.settle(xen) == [("died", 5)]


def test_what_was_missed_is_told_at_the_start(start: Starter, xen: Hypervisor) -> None:
    """Domains can go between the first look at them and the moment somebody listens."""
    for omit in (CONTROL, MANAGE):
        remote = start(omit)
        remote.open()
        for domid in (5, 6, 7):
            xen.create(domid)
            remote.introduce(domid)
        xen.destroy(5)
        xen.shutdown(6)
        remote.call("event", xen.virq_port())
        assert remote.news() == []
        remote.call("start")
        assert remote.news() == [("died", 5), ("shutdown", 6)]
        remote.call("close")


def test_no_answer_is_no_death(start: Starter, xen: Hypervisor) -> None:
    """A question that fails leaves a domain alive; the next news is another chance."""
    for omit, call in (
        (CONTROL, "xc_domain_getinfolist"),
        (MANAGE, "xenmanage_get_domain_info"),
    ):
        remote = start(omit)
        remote.open()
        remote.call("start")
        xen.create(5)
        remote.introduce(5)
        remote.settle(xen)
        xen.fail(call, errno.EFAULT, times=1)
        xen.set_flags(5, EXISTS)
        assert remote.settle(xen) == []
        xen.destroy(5)
        assert remote.settle(xen) == [("died", 5)]
        remote.call("close")


def test_when_news_cannot_be_had_all_are_looked_at(start: Starter, xen: Hypervisor) -> None:
    """A failing poll costs a look at everybody, not a death that is never told."""
    remote = start(MANAGE)
    remote.open()
    remote.call("start")
    xen.create(5)
    remote.introduce(5)
    xen.fail("xenmanage_poll_changed_domain", errno.ENOMEM)
    xen.destroy(5)
    assert remote.settle(xen) == [("died", 5)]


def test_many_lives_leave_nothing(host: Remote, xen: Hypervisor) -> None:
    """After a hundred domains there are as many pages, ports and descriptors as before."""
    before = host.call("descriptors"), xen.totals()
    for round in range(100):
        domid = 1 + round % 7
        xen.create(domid)
        host.introduce(domid)
        xen.destroy(domid)
        assert host.settle(xen) == [("died", domid)]
        host.call("release", domid)
    assert (host.call("descriptors"), xen.totals()) == before


def test_close_gives_everything_back(host: Remote, xen: Hypervisor) -> None:
    """Rings by grant and by frame, our own, the virtual interrupt, all handles; twice is once."""
    xen.create(5)
    frames = xen.create(6, flags=NO_GRANT)
    rings = [host.own_ring(), host.introduce(5), host.introduce(6, frames.gfn)]
    assert xen.totals().pages == 2
    assert xen.totals().ports == 4
    host.call("close")
    assert xen.totals() == ALL_CLOSED
    assert not any(host.call("is_mapped", ring.address) for ring in rings)
    host.call("close")


# -- without a hypervisor ----------------------------------------------------------------------


UUID, OTHER = b"a" * 16, b"b" * 16


@pytest.mark.parametrize(
    ("earlier", "now", "another"),
    [
        # libxenmanage's number says it all.
        ((4, b"", 0), (4, b"", 0), False),
        ((4, b"", 0), (5, b"", 0), True),
        # A toolstack may rename a domain that lives.
        ((0, UUID, 1000), (0, OTHER, 1000), False),
        ((0, UUID, 1000), (0, OTHER, 1001), False),
        ((0, UUID, 0), (0, OTHER, 1), False),
        # Time on a CPU goes back only with a new domain; one that never ran has only a handle.
        ((0, UUID, 1000), (0, OTHER, 999), True),
        ((0, UUID, 1000), (0, OTHER, 0), True),
        ((0, UUID, 0), (0, OTHER, 0), True),
        # Clocks of CPUs may differ a little: that alone means nothing.
        ((0, UUID, 1000), (0, UUID, 999), False),
    ],
)
def test_who_is_another_domain(
    earlier: tuple[int, bytes, int], now: tuple[int, bytes, int], another: bool
) -> None:
    """A death that did not happen is worse than one that is noticed late."""

    def info(unique: int, handle: bytes, cpu_ns: int) -> DomainInfo:
        return DomainInfo(5, False, False, unique, handle, cpu_ns)

    assert info(*now).succeeds(info(*earlier)) is another


LAYOUT = """
#include <stddef.h>
#include <stdio.h>
#include <xenctrl.h>
int main(void)
{
    printf("%zu %zu %zu %zu %d %d", offsetof(xc_domaininfo_t, domain),
           offsetof(xc_domaininfo_t, flags), offsetof(xc_domaininfo_t, cpu_time),
           offsetof(xc_domaininfo_t, handle), XEN_DOMINF_dying, XEN_DOMINF_shutdown);
    return sizeof(xc_domaininfo_t) > 1024;
}
"""


def test_the_layout_is_that_of_the_headers(tmp_path: Path) -> None:
    """What is read of a domain stands where Xen's headers say."""
    compiler = shutil.which("gcc")
    if compiler is None or not Path("/usr/include/xenctrl.h").exists():
        absent("gcc and libxen-dev")
    source = tmp_path / "layout.c"
    source.write_text(LAYOUT)
    program = tmp_path / "layout"
    subprocess.run([compiler, "-o", program, source], check=True)
    found = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    packed = INFO.pack(0x1111, 0x22222222, 0x3333333333333333, b"\x44" * 16)
    offsets = [packed.index(byte) for byte in (b"\x11", b"\x22", b"\x33", b"\x44")]
    assert found == " ".join(str(number) for number in (*offsets, 1, 4))


def test_where_control_libraries_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running Xen's by soname, then the directories in order, in each the newest first."""
    for name in ("a/libxenctrl.so.4.9", "a/libxenctrl.so.4.17.0", "a/libxenctrl.so.4.17"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("b/libxenctrl.so.4.20", "b/libxenctrl.so", "b/libxenctrlx.so.4.1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}/a:{tmp_path}/none::{tmp_path}/b")
    monkeypatch.setattr(libraries, "running_version", lambda: "4.21")
    names = list(libraries.control_libraries())
    assert names[:5] == [
        "libxenctrl.so.4.21",
        f"{tmp_path}/a/libxenctrl.so.4.17",
        f"{tmp_path}/a/libxenctrl.so.4.17.0",
        f"{tmp_path}/a/libxenctrl.so.4.9",
        f"{tmp_path}/b/libxenctrl.so.4.20",
    ]
    assert not any(name.startswith(str(tmp_path)) for name in names[5:])
    assert [libraries.version_of(name) for name in names[:4]] == [(4, 21), (4, 17), (4, 17), (4, 9)]


def test_the_running_version(tmp_path: Path) -> None:
    """As the kernel tells it, or nothing."""
    assert libraries.running_version(str(tmp_path)) == ""
    (tmp_path / "major").write_text("4\n")
    (tmp_path / "minor").write_text("17\n")
    assert libraries.running_version(str(tmp_path)) == "4.17"


# -- the one in memory -------------------------------------------------------------------------


def test_rings_in_memory() -> None:
    """Both sides see one page; a new introduction keeps it and makes another port."""
    host = FakeHost(rings=True)
    host.create(5)
    first = host.introduce(5, 0, 1)
    assert first is not None
    page = host.page(5)
    page[:3] = b"abc"
    again = host.introduce(5, 0, 1)
    assert again is not None
    assert again.address == first.address
    assert again.port == host.port(5) != first.port
    assert bytes(host.page(5)[:3]) == b"abc"
    assert len(page) == 4096
    host.release(5)
    host.release(5)
    with pytest.raises(KeyError):
        host.page(5)


def test_without_rings_there_are_none() -> None:
    """A daemon without Xen has domains by name only."""
    host = FakeHost(everybody=True)
    assert host.own_ring() is None
    assert host.introduce(5, 0, 1) is None
    assert host.channels is None
    assert list(host.domains()) == [0, 5]
