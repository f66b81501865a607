"""The engine and the oracle get the same requests, and must answer the same bytes.

A state machine plays two privileged sockets and two guests over small alphabets of paths, tokens
and values, so that they get in each other's way. After every step all that was queued for every
connection, the tree and the counts must be equal in both worlds, and the engine's own checks hold.

The runs are the same every time. XSD_ORACLE_EXAMPLES sets how many runs there are, and
XSD_ORACLE_SEED chooses others.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import hypothesis.strategies as st
import model
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from model_tree import Op, Perms, Tree, below, children
from world import (
    Client,
    EngineWorld,
    ModelLink,
    ModelWorld,
    Msg,
    Packet,
    World,
    engine_is_built,
    strings,
)

EXAMPLES = int(os.environ.get("XSD_ORACLE_EXAMPLES", "600"))
SEED = int(os.environ.get("XSD_ORACLE_SEED", "0"))
STEPS = 40

SOCKETS = ("socket 0", "socket 1")
GUESTS = {"guest 1": 1, "guest 2": 2}
CLIENTS = (*SOCKETS, *GUESTS)
BYSTANDER = 4  # exists in the hypervisor, never introduced

paths = st.sampled_from(
    [
        b"/a", b"/a", b"/a/b", b"/a/b", b"/a/b/c", b"/a/x", b"/d", b"/d/e", b"/", b"k", b"k/l",
        b"/local/domain/1", b"/local/domain/1/k", b"/local/domain/2/k",
    ]
)  # fmt: skip
odd_paths = st.sampled_from(
    [
        b"", b"/a/", b"//", b"a b", b"/local/domain/", b"@", b"@x", b"@releaseDomain",
        b"@introduceDomain", b"@releaseDomain/1", b"/a/b/c/d/e/f/g/h", b"/a/b/c/d", b"/a-",
        b"/d/f/g", b"/local/domain/1/k/l", b"k-", b"k/m", b"k" * 40, b"/" + b"k" * 40,
    ]
)  # fmt: skip
any_paths = st.one_of([paths] * 9 + [odd_paths])
near_paths = st.sampled_from([b"/a", b"/a/b", b"/a/b/c"])
few_paths = st.sampled_from([b"/a", b"/a/b", b"/d", b"k"])
special_paths = st.sampled_from(
    [b"@releaseDomain", b"@introduceDomain", b"@releaseDomain/1", b"@introduceDomain/2"]
)
values = st.sampled_from([b"", b"v", b"w\0w", b"v" * 20])
tokens = st.sampled_from([b"", b"t", b"u"])
depths = st.sampled_from([b"", b"0", b"1", b"2", b"x", b"-1"])
domids = st.sampled_from([b"0", b"1", b"2", b"4", b"9", b"32757", b"32752", b"", b"x"])
entries = st.builds(
    lambda letter, domid: letter + domid,
    st.sampled_from([b"n", b"r", b"w", b"b"]),
    st.sampled_from([b"0", b"1", b"1", b"2", b"2", b"4", b"9", b"32757", b"0x2", b"01", b""]),
)
own_entries = st.sampled_from([b"n0", b"b0", b"n1", b"r1", b"n2", b"r2"])
tight_quotas = st.sampled_from(
    [
        (b"nodes", 2), (b"nodes", 3), (b"nodes", 4), (b"watches", 1), (b"watches", 2),
        (b"transactions", 1), (b"transaction-nodes", 3), (b"transaction-nodes", 6),
        (b"transaction-requests", 2), (b"node-permissions", 2), (b"node-size", 36),
        (b"node-size", 44), (b"path-max", 3), (b"path-max", 8), (b"watch-events", 1),
    ]
)  # fmt: skip
quotas = st.one_of(
    tight_quotas,
    st.sampled_from(
        [
            (b"path-max", 0), (b"nodes", 0), (b"nodes", 1000), (b"transaction-nodes", 1024),
            (b"transaction-requests", 1024), (b"node-size", 2048), (b"transactions", 10),
            (b"soft-nodes", 3), (b"permissions", 5), (b"bogus", 1),
        ]
    ),
)  # fmt: skip


def terminated(text: bytes) -> bytes:
    return text + b"\0"


Request = tuple[int, bytes]


def request(kind: int, payload: st.SearchStrategy[bytes]) -> st.SearchStrategy[Request]:
    return st.tuples(st.just(kind), payload)


def writes(where: st.SearchStrategy[bytes]) -> st.SearchStrategy[Request]:
    return st.one_of(
        request(Msg.WRITE, st.builds(lambda path, value: terminated(path) + value, where, values)),
        request(Msg.MKDIR, where.map(terminated)),
        request(Msg.RM, where.map(terminated)),
        request(
            Msg.SET_PERMS,
            st.builds(
                lambda path, first, rest: strings(path, first, *rest),
                where,
                own_entries,
                st.lists(entries, max_size=3),
            ),
        ),
    )


def reads(where: st.SearchStrategy[bytes]) -> st.SearchStrategy[Request]:
    return st.one_of(
        request(Msg.READ, where.map(terminated)),
        request(Msg.DIRECTORY, where.map(terminated)),
        request(Msg.GET_PERMS, where.map(terminated)),
        request(
            Msg.DIRECTORY_PART,
            st.builds(strings, where, st.sampled_from([b"0", b"2", b"99", b"x"])),
        ),
    )


tree_requests = st.one_of(writes(any_paths), writes(any_paths), reads(any_paths))
watch_requests = st.one_of(
    request(Msg.WATCH, st.builds(strings, few_paths, tokens)),
    request(Msg.WATCH, st.builds(strings, any_paths, tokens)),
    request(Msg.WATCH, st.builds(strings, special_paths, tokens)),
    request(Msg.WATCH, st.builds(strings, any_paths | special_paths, tokens, depths)),
    request(Msg.UNWATCH, st.builds(strings, few_paths, tokens)),
)
other_requests = st.one_of(
    request(Msg.TRANSACTION_START, st.just(b"\0")),
    request(Msg.GET_DOMAIN_PATH, domids.map(terminated)),
    request(Msg.IS_DOMAIN_INTRODUCED, domids.map(terminated)),
    request(Msg.INTRODUCE, st.builds(strings, domids, st.just(b"1"), st.just(b"7"))),
    request(Msg.RESUME, domids.map(terminated)),
    request(Msg.SET_TARGET, st.builds(strings, domids, domids)),
    request(Msg.GET_FEATURE, st.one_of(st.just(b""), domids.map(terminated))),
    request(
        Msg.SET_FEATURE, st.builds(strings, domids, st.sampled_from([b"3", b"7", b"15", b"16"]))
    ),
    request(Msg.GET_QUOTA, st.builds(strings, domids, quotas.map(lambda quota: quota[0]))),
    request(Msg.CONTROL, st.sampled_from([b"", b"help\0"])),
    request(Msg.RESET_WATCHES, st.just(b"\0")),
    st.tuples(
        st.sampled_from([*Msg, 20, 27, 65535]),
        st.sampled_from([b"", b"\0", b"/a", b"/a\0\0", b"1\0", b"k\0t\0junk"]),
    ).filter(lambda drawn: drawn[0] != Msg.RELEASE),
)
ends = request(Msg.TRANSACTION_END, st.sampled_from([b"T\0"] * 6 + [b"F\0", b"X\0"]))
tx_picks = st.integers(0, 7)


def masked(packets: list[Packet]) -> list[Packet]:
    """The generation in front of a DIRECTORY_PART reply is the server's own business."""
    return [
        packet._replace(payload=b"#\0" + packet.payload.partition(b"\0")[2])
        if packet.type == Msg.DIRECTORY_PART
        else packet
        for packet in packets
    ]


class Duel(RuleBasedStateMachine):
    """The oracle and another world side by side."""

    def __init__(self, other: World) -> None:
        super().__init__()
        self.oracle = ModelWorld()
        self.other = other
        self.pairs: dict[str, tuple[Client, Client]] = {}
        for name in SOCKETS:
            self.pairs[name] = (self.oracle.socket(), other.socket())

    @property
    def worlds(self) -> tuple[World, World]:
        return self.oracle, self.other

    def open_transactions(self, name: str) -> list[int]:
        link = self.pairs[name][0].link
        assert isinstance(link, ModelLink)
        return sorted(link.connection.transactions)

    def send(self, name: str, asked: Request, tx: int = 0) -> None:
        for client in self.pairs.get(name, ()):
            client.send(asked[0], asked[1], tx, 3)

    def pick(self, name: str, pick: int) -> int:
        """An open transaction for most picks, now and then one that does not exist."""
        if name not in self.pairs or pick == 7:
            return 77
        open_ones = self.open_transactions(name)
        return open_ones[pick % len(open_ones)] if open_ones and pick > 2 else 0

    def compare(self) -> None:
        for name, (expected, actual) in self.pairs.items():
            assert (name, masked(actual.drain())) == (name, masked(expected.drain()))
        assert self.other.tree() == self.oracle.tree()
        assert self.other.counts() == self.oracle.counts()
        self.other.check()

    def bring(self, name: str) -> None:
        domid = GUESTS[name]
        self.pairs[name] = (self.oracle.guest(domid), self.other.guest(domid))

    def play_transaction(
        self, name: str, inside: list[Request], outside: list[tuple[str, Request]], end: Request
    ) -> None:
        if name not in self.pairs:
            return
        before = self.open_transactions(name)
        self.send(name, (Msg.TRANSACTION_START, b"\0"))
        started = [tx for tx in self.open_transactions(name) if tx not in before]
        for tx in started:
            for asked in inside:
                self.send(name, asked, tx)
            for other, asked in outside:
                self.send(other, asked)
            self.send(name, end, tx)
        self.compare()

    @initialize(
        shared=st.lists(entries.filter(lambda entry: len(entry) > 1), max_size=3),
        open_to_all=st.booleans(),
        tight=st.lists(st.tuples(st.sampled_from([b"1", b"2"]), tight_quotas), max_size=4),
    )
    def furnish(
        self, shared: list[bytes], open_to_all: bool, tight: list[tuple[bytes, tuple[bytes, int]]]
    ) -> None:
        for world in self.worlds:
            world.domains.add(BYSTANDER)
        for name in GUESTS:
            self.bring(name)
        for domid, (quota, value) in tight:
            self.send(SOCKETS[0], (Msg.SET_QUOTA, strings(domid, quota, b"%d" % value)))
        for path, list_ in (
            (b"/local/domain/1", [b"n1"]),
            (b"/local/domain/2", [b"n2", b"r1"]),
            (b"/a", [b"n0", b"b1", b"b2", *shared] if open_to_all else [b"n0", *shared]),
        ):
            self.send(SOCKETS[0], (Msg.MKDIR, terminated(path)))
            self.send(SOCKETS[0], (Msg.SET_PERMS, strings(path, *list_)))
        self.compare()

    @rule(name=st.sampled_from(CLIENTS), asked=tree_requests, pick=tx_picks)
    def use_tree(self, name: str, asked: Request, pick: int) -> None:
        self.send(name, asked, self.pick(name, pick))
        self.compare()

    @rule(name=st.sampled_from(CLIENTS), asked=watch_requests)
    def use_watches(self, name: str, asked: Request) -> None:
        self.send(name, asked)
        self.compare()

    @rule(name=st.sampled_from(CLIENTS), asked=other_requests, pick=tx_picks)
    def use_others(self, name: str, asked: Request, pick: int) -> None:
        # An INTRODUCE may bring a domain that this machine does not hold as a client yet.
        self.send(name, asked, self.pick(name, pick))
        for guest in GUESTS:
            if guest not in self.pairs and self.oracle.oracle.ring_of(GUESTS[guest]):
                self.bring(guest)
        self.compare()

    @rule(
        name=st.sampled_from(CLIENTS),
        inside=st.lists(st.one_of(reads(few_paths), writes(paths)), min_size=1, max_size=5),
        outside=st.lists(st.tuples(st.sampled_from(CLIENTS), writes(paths)), max_size=3),
        end=ends,
    )
    def transact(
        self, name: str, inside: list[Request], outside: list[tuple[str, Request]], end: Request
    ) -> None:
        """A transaction with others in between, all before anything is fetched."""
        self.play_transaction(name, inside, outside, end)

    @rule(
        first=st.one_of(reads(near_paths), writes(near_paths)),
        meanwhile=st.tuples(st.sampled_from(CLIENTS), writes(near_paths)),
    )
    def race(self, first: Request, meanwhile: tuple[str, Request]) -> None:
        """A transaction looks at one thing and changes another while somebody is busy nearby."""
        self.play_transaction(
            SOCKETS[0],
            [first, (Msg.WRITE, b"/mark\0v")],
            [meanwhile],
            (Msg.TRANSACTION_END, b"T\0"),
        )

    @rule(name=st.sampled_from(CLIENTS), pick=st.integers(3, 7), end=ends)
    def end_transaction(self, name: str, pick: int, end: Request) -> None:
        self.send(name, end, self.pick(name, pick))
        self.compare()

    @rule(
        burst=st.lists(
            st.tuples(st.sampled_from(CLIENTS), tree_requests | watch_requests),
            min_size=1,
            max_size=6,
        ),
        pauses=st.lists(st.sampled_from([0.0, 9.0, 25.0]), min_size=6, max_size=6),
    )
    def let_queues_grow(self, burst: list[tuple[str, Request]], pauses: list[float]) -> None:
        """Nothing is fetched until the end, so events merge and those of guests grow old."""
        for (name, asked), pause in zip(burst, pauses, strict=False):
            self.send(name, asked)
            for world in self.worlds:
                world.advance(pause)
        self.compare()

    @rule(
        what=st.sampled_from(
            ["quota", "kill", "release", "shut", "bring", "bring", "bystander", "close", "misframe"]
        ),
        first=st.booleans(),
        quota=quotas,
    )
    def change_surroundings(self, what: str, first: bool, quota: tuple[bytes, int]) -> None:
        guest = "guest 1" if first else "guest 2"
        domid = GUESTS[guest]
        if what == "quota":
            texts = (b"%d" % domid, quota[0], b"%d" % quota[1])
            self.send(SOCKETS[0], (Msg.SET_QUOTA, strings(*texts)))
        elif what == "kill":
            self.pairs.pop(guest, None)
            self.everywhere(lambda world: world.kill(domid))
        elif what == "release":
            self.pairs.pop(guest, None)
            self.send(SOCKETS[0], (Msg.RELEASE, b"%d\0" % domid))
        elif what == "shut":
            self.everywhere(lambda world: world.shutdown(domid))
        elif what == "bring":
            self.bring(guest)
        elif what == "bystander":
            self.everywhere(lambda world: world.kill(BYSTANDER))
            self.everywhere(lambda world: world.domains.add(BYSTANDER))
        else:
            self.reconnect(SOCKETS[first], misframed=what == "misframe")
        self.compare()

    def everywhere(self, action: Callable[[World], None]) -> None:
        for world in self.worlds:
            action(world)

    def reconnect(self, name: str, misframed: bool) -> None:
        """The client goes away, or is thrown out, and another takes its place."""
        if misframed:
            self.send(name, (Msg.WRITE, b"/a\0" + b"v" * 4096))
        for world, client in zip(self.worlds, self.pairs[name], strict=True):
            world.close(client)
        self.pairs[name] = (self.oracle.socket(), self.other.socket())


def duel(other: Callable[[], World], examples: int, phases: tuple[Phase, ...]) -> None:
    """Run the machine; AssertionError with the shortest run that tells the worlds apart."""

    def factory() -> Duel:
        return Duel(other())

    run_state_machine_as_test(
        seed(SEED)(factory),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            database=None,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.skipif(not engine_is_built(), reason="the engine is not built")
def test_the_engine_answers_as_the_oracle() -> None:
    """Replies, events, tree, counts are equal after every step."""
    duel(EngineWorld, EXAMPLES, (Phase.generate, Phase.shrink))


# --- the harness must be able to fail -----------------------------------------------------------


class BrokenWorld(ModelWorld):
    """The oracle with one planted bug."""

    def __init__(self, plant: Callable[[model.Model], None]) -> None:
        super().__init__()
        plant(self.oracle)


def forget_parent_stamps(oracle: model.Model) -> None:
    """A listing does not conflict with a new child."""
    oracle.touch_kids = lambda tree, path: None  # type: ignore[method-assign]


def tell_everybody(oracle: model.Model) -> None:
    """Events go out without regard to permissions."""
    strict = oracle.rights

    fire, firing = oracle.fire, [False]

    def rights(connection: model.Connection, perms: Perms) -> str:
        return strict(connection, perms) or ("r" if firing[0] else "")

    def generous(op: Op, before: Tree, after: Tree) -> None:
        firing[0] = True
        fire(op, before, after)
        firing[0] = False

    oracle.rights, oracle.fire = rights, generous  # type: ignore[method-assign]


def leave_orphans(oracle: model.Model) -> None:
    """Removal takes the children only, not what is below them."""
    apply = oracle.apply

    def shallow(tree: Tree, op: Op) -> None:
        orphans = {path: tree[path] for path in below(tree, op.path)} if op.kind == Msg.RM else {}
        near = set(children(tree, op.path))
        apply(tree, op)
        tree.update({path: node for path, node in orphans.items() if path not in near})

    oracle.apply = shallow  # type: ignore[method-assign]


def count_one_node_too_few(oracle: model.Model) -> None:
    """The node quota lets one more node through."""
    projected = oracle.projected
    oracle.projected = (  # type: ignore[method-assign]
        lambda base, view, domid: projected(base, view, domid) - 1
    )


def commit_blindly(oracle: model.Model) -> None:
    """No conflict is ever found."""
    oracle.conflicts = lambda transaction: False  # type: ignore[method-assign]


def keep_old_events(oracle: model.Model) -> None:
    """Events of guests do not expire."""
    oracle.advance = lambda nanoseconds: None  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize(
    "plant",
    [
        forget_parent_stamps,
        tell_everybody,
        leave_orphans,
        count_one_node_too_few,
        commit_blindly,
        keep_old_events,
    ],
)
def test_a_planted_bug_is_found(plant: Callable[[model.Model], None]) -> None:
    """Each mutant of the oracle is told apart from the oracle."""
    with pytest.raises((AssertionError, KeyError)):
        duel(lambda: BrokenWorld(plant), 1000, (Phase.generate,))


def test_the_oracle_agrees_with_itself() -> None:
    """The machine itself finds nothing where there is nothing."""
    duel(ModelWorld, 20, (Phase.generate,))
