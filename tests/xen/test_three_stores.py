"""The same ring tests for three daemons: ours, and Debian's xenstored and oxenstored.

A scenario does something with guests and says what was seen. What ours must show stands with it;
where another daemon shows something else, that stands there too, with the reason why ours does
not follow. A peer with no entry is expected to do what ours does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from serving import absent
from xen import build, daemons
from xen.daemons import Running
from xen.hypervisor import (
    CONNECTED,
    ERROR,
    EXISTS,
    FEATURES,
    NO_GRANT,
    NOTHING,
    PORT,
    REQ_CONS,
    REQ_PROD,
    STATE,
    Guest,
    Hypervisor,
    message,
)

from xsd.client import Client, Permission, XenstoreError
from xsd.client.wire import Op

STORES = ("xsd", "c", "o")
HOME = "/local/domain/{}"
QUIET = 0.3  # how long nothing must come where nothing is to come


@dataclass(slots=True)
class Stage:
    """A daemon, somebody in domain 0, and guests."""

    running: Running
    client: Client
    guests: list[Guest] = field(default_factory=list)

    @property
    def xen(self) -> Hypervisor:
        return self.running.xen

    def guest(self, domid: int, introduce: bool = True) -> Guest:
        """A domain with a home of its own."""
        guest = self.xen.create(domid)
        self.guests.append(guest)
        home = HOME.format(domid)
        self.client.write(home, b"")
        self.client.set_perms(home, [Permission.parse(f"n{domid}")])
        if introduce:
            self.introduce(guest)
        return guest

    def introduce(self, guest: Guest) -> str:
        """The answer to INTRODUCE: "OK", or the name of the error."""
        return answer(lambda: self.client.introduce(guest.domid, guest.gfn, guest.port))

    def again(self, domid: int) -> Client:
        """Another client in domain 0, for watches of its own."""
        return Client.connect(self.running.socket)


def answer(call: Callable[[], object]) -> str:
    """ "OK" or the name of the error."""
    try:
        call()
    except XenstoreError as error:
        return error.name
    return "OK"


def events_of(client: Client, until: bytes) -> list[bytes]:
    """Paths of events up to one that is waited for."""
    seen: list[bytes] = []
    for _ in range(50):
        seen.append(os.fsencode(client.next_event(timeout=10.0).path))
        if seen[-1] == until:
            return seen
    raise AssertionError(seen)


def silent(guest: Guest) -> bool:
    """Whether a guest gets no answer to a question that it may ask."""
    guest.send(message(Op.GET_DOMAIN_PATH, b"1\0", req_id=99))
    try:
        guest.reply(QUIET)
    except TimeoutError:
        return True
    return False


# -- what guests do ------------------------------------------------------------------------------


def connected(stage: Stage) -> object:
    """State and error words after INTRODUCE, and who was told."""
    with stage.again(0) as other:
        other.watch("@introduceDomain", b"t")
        assert events_of(other, b"@introduceDomain") == [b"@introduceDomain"]
        guest = stage.guest(5)
        told = events_of(other, b"@introduceDomain")
    return guest.word(STATE), guest.word(ERROR), told, stage.client.is_domain_introduced(5)


def features(stage: Stage) -> object:
    return stage.guest(5).word(FEATURES)


def reads_and_writes(stage: Stage) -> object:
    guest = stage.guest(5)
    return guest.write("data", b"x"), guest.read("data"), guest.read(HOME.format(5) + "/data")


def refusals(stage: Stage) -> object:
    guest = stage.guest(5)
    stage.client.write("/local/domain/0/secret", b"x")
    return (
        guest.read("/local/domain/0/secret"),
        guest.write("/local/domain/0/mine", b"x"),
        guest.write("/mine", b"x"),
        guest.ask(Op.INTRODUCE, b"6\0001\0001\0"),
        guest.ask(Op.RELEASE, b"5\0"),
        guest.ask(Op.IS_DOMAIN_INTRODUCED, b"5\0"),
        guest.ask(Op.SET_TARGET, b"5\0000\0"),
        guest.ask(Op.RESUME, b"5\0"),
    )


def byte_by_byte(stage: Stage) -> object:
    guest = stage.guest(5)
    for byte in message(Op.WRITE, b"data\0value", req_id=7):
        guest.send(bytes([byte]))
    got = guest.reply()
    return got.op == Op.WRITE, got.req_id, guest.read("data")


def several_at_once(stage: Stage) -> object:
    guest = stage.guest(5)
    batch = b"".join(message(Op.WRITE, b"n%d\0v" % i, req_id=i) for i in range(20))
    assert guest.put(batch) == len(batch)
    guest.kick()
    return [guest.reply().req_id for _ in range(20)]


def larger_than_the_ring(stage: Stage) -> object:
    guest = stage.guest(5)
    value = bytes(i % 251 for i in range(1900))
    return guest.write("big", value), guest.read("big") == value


def around_the_ring(stage: Stage) -> object:
    """Messages of all lengths, so that each byte of both rings is a boundary at some time."""
    guest = stage.guest(5)
    good = 0
    for i in range(150):
        value = b"%d" % i * (1 + i % 7)
        good += guest.write("data", value) == b"OK\0" and guest.read("data") == value
    return good


def replies_wait(stage: Stage) -> object:
    """A guest that asks for more than its ring holds, and reads late."""
    guest = stage.guest(5)
    guest.write("data", b"v" * 200)
    question = message(Op.READ, b"data\0", req_id=1)
    asked = 0
    while asked < 12 and guest.put(question) == len(question):
        asked += 1
    guest.kick()
    return [len(guest.reply().payload) for _ in range(asked)]


def does_not_read(stage: Stage) -> object:
    """One guest never reads; another one is served all the same."""
    deaf, other = stage.guest(5), stage.guest(6)
    deaf.write("data", b"v" * 500)
    for _ in range(10):
        deaf.put(message(Op.READ, b"data\0"))
        deaf.kick()
    return [other.write("data", b"%d" % i) for i in range(5)]


def watch_from_outside(stage: Stage) -> object:
    guest = stage.guest(5)
    first = guest.watch("data", "tok"), guest.event()
    stage.client.write(HOME.format(5) + "/data/x", b"1")
    return first, guest.event()


def own_event_and_reply(stage: Stage) -> object:
    """What comes first to a guest that changes what it watches itself."""
    guest = stage.guest(5)
    guest.watch("data", "tok")
    guest.event()
    guest.send(message(Op.WRITE, b"data\0x", req_id=9))
    return [Op(guest.next_message().op).name for _ in range(2)]


def reset_watches(stage: Stage) -> object:
    guest = stage.guest(5)
    guest.watch("data", "tok")
    guest.event()
    return guest.ask(Op.RESET_WATCHES, b"\0"), guest.unwatch("data", "tok")


def transaction(stage: Stage) -> object:
    guest = stage.guest(5)
    got = guest.ask(Op.TRANSACTION_START, b"\0")
    assert isinstance(got, bytes)
    tx = int(got[:-1])
    inside = guest.ask(Op.WRITE, b"data\0x", tx)
    before = answer(lambda: stage.client.read(HOME.format(5) + "/data"))
    end = guest.ask(Op.TRANSACTION_END, b"T\0", tx)
    return inside, before, end, guest.read("data")


def conflict(stage: Stage) -> object:
    """A transaction whose node somebody else changed is to be tried again."""
    guest = stage.guest(5)
    guest.write("data", b"1")
    got = guest.ask(Op.TRANSACTION_START, b"\0")
    assert isinstance(got, bytes)
    tx = int(got[:-1])
    guest.ask(Op.READ, b"data\0", tx)
    guest.ask(Op.WRITE, b"out\0x", tx)
    stage.client.write(HOME.format(5) + "/data", b"2")
    return guest.ask(Op.TRANSACTION_END, b"T\0", tx)


def unknown_operation(stage: Stage) -> object:
    return stage.guest(5).ask(77, b"")


def empty_payload(stage: Stage) -> object:
    guest = stage.guest(5)
    return guest.ask(Op.READ, b""), guest.read("nothing")


# -- introduced again ----------------------------------------------------------------------------


def introduced_again(stage: Stage) -> object:
    """INTRODUCE of a known domain: its watches, and whether it is served."""
    guest = stage.guest(5)
    guest.write("data", b"x")
    guest.watch("data", "tok")
    guest.event()
    said = stage.introduce(guest)
    guest.events.clear()
    return said, guest.unwatch("data", "tok"), guest.read("data")


def reconnect(stage: Stage) -> object:
    """A guest that asks for a fresh start: its state word afterwards, and its watch."""
    guest = stage.guest(5)
    guest.watch("data", "tok")
    guest.event()
    guest.request_reconnect()
    try:
        guest.until(lambda: guest.word(STATE) == CONNECTED, "connection", QUIET * 3)
    except TimeoutError:
        return "not answered"
    return guest.unwatch("data", "tok"), guest.ask(Op.TRANSACTION_START, b"\0")


def half_a_message_then_reconnect(stage: Stage) -> object:
    guest = stage.guest(5)
    guest.send(message(Op.WRITE, b"data\0lost", req_id=1)[:20])
    guest.request_reconnect()
    try:
        guest.until(lambda: guest.word(STATE) == CONNECTED, "connection", QUIET * 3)
    except TimeoutError:
        return "not answered"
    return guest.read("data"), guest.write("data", b"new")


# -- broken rings --------------------------------------------------------------------------------


def impossible_index(stage: Stage) -> object:
    """Error word, whether it is still served, whether another guest is."""
    guest, other = stage.guest(5), stage.guest(6)
    guest.set_word(REQ_PROD, guest.word(REQ_CONS) + 5000)
    guest.kick()
    fine = other.write("data", b"x")
    stage.client.ls("/")
    guest.set_word(REQ_PROD, guest.word(REQ_CONS))
    return silent(guest), guest.word(ERROR), fine


def revived(stage: Stage) -> object:
    """INTRODUCE after an impossible index."""
    guest = stage.guest(5)
    guest.set_word(REQ_PROD, guest.word(REQ_CONS) + 5000)
    guest.kick()
    stage.client.ls("/")
    guest.until(lambda: True, "")
    stage.client.ls("/")
    guest.set_word(REQ_PROD, guest.word(REQ_CONS))
    said = stage.introduce(guest)
    return said, silent(guest), guest.word(ERROR)


def too_long(stage: Stage) -> object:
    """A request that announces more than 4096 bytes: error word, whether it is still served."""
    guest, other = stage.guest(5), stage.guest(6)
    guest.send(Op.WRITE.to_bytes(4, sys.byteorder) + bytes(8) + (4097).to_bytes(4, sys.byteorder))
    fine = other.write("data", b"x")
    stage.client.ls("/")
    return silent(guest), guest.word(ERROR), fine


# -- going ---------------------------------------------------------------------------------------


def death(stage: Stage) -> object:
    """Its nodes, entries that name it, who was told, and what is still held of it."""
    guest = stage.guest(5)
    guest.write("data", b"x")
    stage.client.write("/shared", b"x")
    stage.client.set_perms("/shared", [Permission.parse("n0"), Permission.parse("r5")])
    with stage.again(0) as other:
        other.watch("@releaseDomain", b"t")
        other.next_event(timeout=10.0)
        guest.close()
        stage.xen.destroy(5)
        told = events_of(other, b"@releaseDomain")
    for _ in range(20):  # the page may be given back after that
        stage.client.ls("/")
    perms = [str(entry) for entry in stage.client.get_perms("/shared")]
    return (
        told,
        stage.client.exists(HOME.format(5) + "/data"),
        perms,
        stage.client.is_domain_introduced(5),
        stage.xen.held(5) == NOTHING,
    )


def shutdown(stage: Stage) -> object:
    """Told when it shuts down; its nodes stay, and it is still introduced."""
    guest = stage.guest(5)
    guest.write("data", b"x")
    with stage.again(0) as other:
        other.watch("@releaseDomain", b"t")
        other.next_event(timeout=10.0)
        stage.xen.shutdown(5)
        told = events_of(other, b"@releaseDomain")
    return told, stage.client.exists(HOME.format(5) + "/data"), stage.client.is_domain_introduced(5)


def shutdown_told_once(stage: Stage) -> object:
    """Another event of the hypervisor while a domain stays shut down."""
    stage.guest(5)
    with stage.again(0) as other:
        other.watch("@releaseDomain", b"t")
        other.next_event(timeout=10.0)
        stage.xen.shutdown(5)
        events_of(other, b"@releaseDomain")
        stage.xen.virq()
        try:
            other.next_event(timeout=QUIET * 2)
        except TimeoutError:
            return True
        return False


def resumed(stage: Stage) -> object:
    """After RESUME the next shutdown is news."""
    stage.guest(5)
    with stage.again(0) as other:
        other.watch("@releaseDomain", b"t")
        other.next_event(timeout=10.0)
        stage.xen.shutdown(5)
        events_of(other, b"@releaseDomain")
        stage.xen.resume(5)
        stage.client.resume(5)
        stage.xen.shutdown(5)
        return events_of(other, b"@releaseDomain")


def release(stage: Stage) -> object:
    """RELEASE of a domain that lives."""
    guest = stage.guest(5)
    guest.write("data", b"x")
    with stage.again(0) as other:
        other.watch("@releaseDomain", b"t")
        other.next_event(timeout=10.0)
        stage.client.release(5)
        told = events_of(other, b"@releaseDomain")
    return told, stage.client.is_domain_introduced(5), silent(guest)


def port_given_back(stage: Stage) -> object:
    stage.guest(5)
    stage.client.release(5)
    for _ in range(20):  # it may be done after the answer
        stage.client.ls("/")
        if stage.xen.held(5) == NOTHING:
            return True
    return False


def id_used_again(stage: Stage) -> object:
    """A new domain of a dead one's id has none of its nodes, watches and rights."""
    guest = stage.guest(5)
    guest.write("data", b"x")
    guest.watch("data", "tok")
    stage.client.write("/shared", b"secret")
    stage.client.set_perms("/shared", [Permission.parse("n0"), Permission.parse("r5")])
    with stage.again(0) as other:
        other.watch("@releaseDomain", b"t")
        other.next_event(timeout=10.0)
        guest.close()
        stage.xen.destroy(5)
        events_of(other, b"@releaseDomain")
    new = stage.guest(5)
    return new.read("data"), new.unwatch("data", "tok"), new.read("/shared")


# -- how it is introduced ------------------------------------------------------------------------


def port_in_the_page(stage: Stage) -> object:
    """The argument of INTRODUCE is wrong, the page has the right one."""
    guest = stage.guest(5, introduce=False)
    guest.set_word(PORT, guest.port)
    said = answer(lambda: stage.client.introduce(5, guest.gfn, guest.port + 1000))
    return said, said == "OK" and guest.write("data", b"x")


def without_grant(stage: Stage) -> object:
    guest = stage.guest(5, introduce=False)
    stage.xen.set_flags(5, EXISTS | NO_GRANT)
    return stage.introduce(guest)


def wrong_port(stage: Stage) -> object:
    guest = stage.guest(5, introduce=False)
    said = answer(lambda: stage.client.introduce(5, guest.gfn, guest.port + 1000))
    return said, stage.client.is_domain_introduced(5), stage.introduce(guest)


def no_such_domain(stage: Stage) -> object:
    return (
        answer(lambda: stage.client.introduce(77, 1, 1)) != "OK",
        stage.client.is_domain_introduced(77),
    )


def acts_for_another(stage: Stage) -> object:
    """SET_TARGET: a device model's domain may do what its target may."""
    model, target = stage.guest(5), stage.guest(6)
    target.write("data", b"x")
    before = model.read(HOME.format(6) + "/data")
    stage.client.set_target(5, 6)
    return before, model.read(HOME.format(6) + "/data"), model.write(HOME.format(6) + "/y", b"")


OK = b"OK\0"

# Why ours does not follow.
NEWER = "a newer xenstored does what ours does"
OFFERED = "a domain that starts another kernel needs a fresh start, as oxenstored offers it"
REVIVED = "the toolstack has asked for service, and the domain may have been started anew"
RESET = "INTRODUCE means a new client on that ring; what an earlier one left must not answer it"
FAULT_TOLD = "a guest can find out why it is no longer served"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done, what ours shows, and what others show instead, with the reason."""

    act: Callable[[Stage], object]
    ours: object
    others: dict[str, tuple[object, str]] = field(default_factory=dict)
    stores: tuple[str, ...] = STORES


SCENARIOS: list[Scenario] = [
    Scenario(connected, (0, 0, [b"@introduceDomain"], True)),
    Scenario(features, 15, {"c": (0, NEWER), "o": (1, NEWER)}),
    Scenario(reads_and_writes, (OK, b"x", b"x")),
    Scenario(refusals, ("EACCES",) * 8),
    Scenario(byte_by_byte, (True, 7, b"value")),
    Scenario(several_at_once, list(range(20))),
    Scenario(larger_than_the_ring, (OK, True)),
    Scenario(around_the_ring, 150),
    Scenario(replies_wait, [200] * 12),
    Scenario(does_not_read, [OK] * 5),
    Scenario(watch_from_outside, ((OK, (b"data", b"tok")), (b"data/x", b"tok"))),
    Scenario(
        own_event_and_reply,
        ["WATCH_EVENT", "WRITE"],
        {
            "o": (
                ["WRITE", "WATCH_EVENT"],
                "events are queued with their change, as by xenstored",
            )
        },
    ),
    Scenario(reset_watches, (OK, "ENOENT")),
    Scenario(transaction, (OK, "ENOENT", OK, b"x")),
    Scenario(conflict, "EAGAIN"),
    Scenario(unknown_operation, "ENOSYS"),
    Scenario(empty_payload, ("EINVAL", "ENOENT"), stores=("xsd",)),
    Scenario(reconnect, ("ENOENT", b"1\0"), {"c": ("not answered", OFFERED)}),
    Scenario(half_a_message_then_reconnect, ("ENOENT", OK), {"c": ("not answered", OFFERED)}),
    Scenario(impossible_index, (True, 2, OK), {"o": ((True, 0, OK), FAULT_TOLD)}),
    Scenario(
        revived,
        ("OK", False, 0),
        {"c": (("OK", True, 2), REVIVED), "o": (("OK", True, 0), REVIVED)},
    ),
    Scenario(too_long, (True, 3, OK), {"o": ((True, 0, OK), FAULT_TOLD)}),
    Scenario(
        death,
        ([b"@releaseDomain"], False, ["n0"], False, True),
        {
            "c": (
                ([b"@releaseDomain"], False, ["n0", "r5"], False, True),
                "an entry that outlives its domain gives the next one of that id its rights",
            )
        },
    ),
    Scenario(shutdown, ([b"@releaseDomain"], True, True)),
    Scenario(shutdown_told_once, True, {"o": (False, "what has been told is no news")}),
    Scenario(resumed, [b"@releaseDomain"]),
    Scenario(release, ([b"@releaseDomain"], False, True)),
    Scenario(
        port_given_back,
        True,
        {"o": (False, "a channel that nobody serves is a leak, one for each released domain")},
    ),
    Scenario(id_used_again, ("ENOENT", "ENOENT", "EACCES")),
    Scenario(
        port_in_the_page,
        ("OK", OK),
        {"c": (("EINVAL", False), NEWER), "o": (("EINVAL", False), NEWER)},
    ),
    Scenario(without_grant, "OK", {"c": ("EINVAL", "old toolstacks set no grant for PV domains")}),
    Scenario(wrong_port, ("EINVAL", False, "OK")),
    Scenario(no_such_domain, (True, False)),
    Scenario(acts_for_another, ("EACCES", b"x", OK)),
]


@pytest.fixture
def stage(store: str, tmp_path: Path) -> Iterator[Stage]:
    """One of the daemons, fresh."""
    try:
        build.library()
        running = start(store, tmp_path / "xen")
    except FileNotFoundError as missing:
        absent(str(missing))
    with Client.connect(running.socket) as client:
        found = Stage(running, client)
        yield found
        for guest in found.guests:
            guest.close()
    assert running.is_alive(), running.output
    if store == "xsd":
        assert running.stop() == 0
    else:
        running.stop(signal.SIGKILL)  # how others end is not what these tests are about


def start(store: str, directory: Path) -> Running:
    if store == "c":
        return daemons.start_c(directory)
    if store == "o":
        return daemons.start_o(directory)
    program = str(Path(sys.executable).with_name("xsd"))
    command = [program, "daemon", "--no-fork", "--rundir", str(directory / "run")]
    return daemons.start(directory, command)


def runs() -> list[tuple[Scenario, str]]:
    """Each scenario with each daemon that it is for."""
    everything = [(scenario, store) for scenario in SCENARIOS for store in STORES]
    return [(scenario, store) for scenario, store in everything if store in scenario.stores]


@pytest.mark.parametrize(
    ("scenario", "store"), runs(), ids=[f"{store}-{run.act.__name__}" for run, store in runs()]
)
def test_rings_of_three_stores(scenario: Scenario, store: str, stage: Stage) -> None:
    """Each shows what ours must show, or the difference that stands in the table."""
    expected, _why = scenario.others.get(store, (scenario.ours, ""))
    assert scenario.act(stage) == expected


def test_every_difference_has_a_reason() -> None:
    """The table names peers only, differences only, and says why."""
    for scenario in SCENARIOS:
        for store, (shown, why) in scenario.others.items():
            assert store in STORES[1:], scenario.act
            assert shown != scenario.ours, scenario.act
            assert len(why) > 10, scenario.act
