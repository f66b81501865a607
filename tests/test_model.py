"""Directed tests of what a store answers; they hold for the oracle and for the engine alike."""

from __future__ import annotations

import pytest
from world import OK, Client, Msg, World, strings

PATH_OPERATIONS = (
    Msg.DIRECTORY,
    Msg.READ,
    Msg.GET_PERMS,
    Msg.MKDIR,
    Msg.RM,
)
HOME = b"/local/domain/1"
QUOTA_NAMES = (
    b"nodes watches outstanding memory soft-memory transactions transaction-nodes "
    b"node-permissions path-max node-size soft-nodes soft-watches soft-outstanding "
    b"soft-transactions soft-transaction-nodes soft-node-permissions soft-path-max "
    b"soft-node-size transaction-requests soft-transaction-requests watch-events "
    b"soft-watch-events\0"
)


def set_quota(world: World, domid: int, name: bytes, value: int) -> None:
    """Give one domain a quota of its own."""
    client = world.socket()
    assert client.ask(Msg.SET_QUOTA, strings(b"%d" % domid, name, b"%d" % value)) == OK
    world.close(client)


def home(world: World, domid: int = 1) -> tuple[Client, Client]:
    """A toolstack connection and a guest that owns its home directory."""
    dom0 = world.socket()
    guest = world.guest(domid)
    path = b"/local/domain/%d" % domid
    assert dom0.mkdir(path) == OK
    assert dom0.setperms(path, b"n%d" % domid) == OK
    return dom0, guest


# --- requests before the operation ------------------------------------------------------------


@pytest.mark.parametrize("kind", [15, 16, 20, 27, 99, 65535, 2**32 - 1])
def test_unknown_types_are_refused_before_anything_else(world: World, kind: int) -> None:
    """A type nobody serves is ENOSYS for everybody, whatever the transaction id."""
    guest = world.guest(1)
    actual = [client.ask(kind, b"\0", tx) for client in (world.socket(), guest) for tx in (0, 9)]
    assert actual == ["ENOSYS"] * 4


@pytest.mark.parametrize(
    "kind",
    [
        Msg.CONTROL,
        Msg.INTRODUCE,
        Msg.RELEASE,
        Msg.IS_DOMAIN_INTRODUCED,
        Msg.RESUME,
        Msg.SET_TARGET,
        Msg.SET_FEATURE,
        Msg.GET_QUOTA,
        Msg.SET_QUOTA,
    ],
)
def test_privilege_is_tested_before_transaction_and_payload(world: World, kind: int) -> None:
    """A guest gets EACCES even with a bad payload and a bad transaction id."""
    guest = world.guest(1)
    assert [guest.ask(kind, b"", 0), guest.ask(kind, b"", 7)] == ["EACCES", "EACCES"]


@pytest.mark.parametrize(
    "kind", [kind for kind in Msg if kind not in (Msg.WATCH, Msg.UNWATCH, 15, 16)]
)
def test_unknown_transaction_is_enoent_before_the_payload(world: World, kind: int) -> None:
    """Every operation but WATCH and UNWATCH looks for its transaction before its arguments."""
    assert world.socket().ask(kind, b"", 7) == "ENOENT"


def test_watch_and_unwatch_ignore_the_transaction_id(world: World) -> None:
    """They succeed with an id that does not exist and echo it."""
    dom0 = world.socket()
    assert dom0.ask(Msg.WATCH, strings(b"/x", b"t"), 7) == OK
    assert dom0.ask(Msg.UNWATCH, strings(b"/x", b"t"), 7) == OK


@pytest.mark.parametrize("kind", PATH_OPERATIONS)
@pytest.mark.parametrize("payload", [b"", b"\0", b"/tool", b"/tool\0\0", b"/tool\0x", b"/t\0x\0"])
def test_one_argument_means_one_nul_at_the_end(world: World, kind: int, payload: bytes) -> None:
    """Anything but one terminated path is EINVAL."""
    assert world.socket().ask(kind, payload) == "EINVAL"


@pytest.mark.parametrize("kind", PATH_OPERATIONS)
@pytest.mark.parametrize(
    "path", [b"/a/", b"//", b"/a//b", b"a//b", b"/a b", b"/a.b", b"/\xc3\xa4", b"/local/domain/"]
)
def test_bad_paths(world: World, kind: int, path: bytes) -> None:
    """A path outside the syntax is EINVAL."""
    assert world.socket().ask(kind, path + b"\0") == "EINVAL"


@pytest.mark.parametrize("byte", range(1, 256))
def test_path_characters(world: World, byte: int) -> None:
    """Letters, digits and ``-/_@`` are allowed in a path, no other byte."""
    allowed = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@"
    expected = OK if byte in allowed else "EINVAL"
    assert world.socket().write(b"/p" + bytes([byte]) + b"q", b"v") == expected


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (Msg.WRITE, b"", "EINVAL"),
        (Msg.WRITE, b"/a", "EINVAL"),
        (Msg.WRITE, b"@x\0v", "EINVAL"),
        (Msg.READ, b"@releaseDomain\0", "EINVAL"),
        (Msg.DIRECTORY, b"@releaseDomain\0", "EINVAL"),
        (Msg.MKDIR, b"@releaseDomain\0", "EINVAL"),
        (Msg.RM, b"@releaseDomain\0", "EINVAL"),
        (Msg.DIRECTORY_PART, b"@releaseDomain\x000\0", "EINVAL"),
        (Msg.RM, b"/\0", "EINVAL"),
        (Msg.RM, b"/nope\0", OK),
        (Msg.RM, b"/nope/x\0", "ENOENT"),
        (Msg.READ, b"/nope\0", "ENOENT"),
        (Msg.READ, b"/nope/x\0", "ENOENT"),
        (Msg.GET_PERMS, b"@nope\0", "ENOENT"),
        (Msg.GET_PERMS, b"@introduceDomain\0", b"n0\0"),
        (Msg.GET_PERMS, b"@releaseDomain\0", b"n0\0r32757\0"),
        (Msg.READ, b"/tool\0", b""),
        (Msg.DIRECTORY, b"/\0", b"tool\0"),
        (Msg.DIRECTORY, b"/tool/xenstored\0", b""),
        (Msg.DIRECTORY_PART, b"/\0", "EINVAL"),
        (Msg.DIRECTORY_PART, b"/\x000\0x\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0n0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0q0\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0n\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0n0\0r\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0n-1\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0n08\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0n0x\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0n0\0r65536\0", "EINVAL"),
        (Msg.SET_PERMS, b"/tool\0n9\0", "ENOENT"),
        (Msg.SET_PERMS, b"/tool\0n32757\0", "ENOENT"),
        (Msg.SET_PERMS, b"/tool/\0n9\0", "ENOENT"),
        (Msg.SET_PERMS, b"/tool/\0n0\0", "EINVAL"),
        (Msg.SET_PERMS, b"/nope\0n0\0", "ENOENT"),
        (Msg.WATCH, b"/a\0", "EINVAL"),
        (Msg.WATCH, b"/a\0t", "EINVAL"),
        (Msg.WATCH, b"/a/\0t\0", "EINVAL"),
        (Msg.WATCH, b"/a\0t\0-1\0", "EINVAL"),
        (Msg.WATCH, b"/a\0t\x001\x002\0", "EINVAL"),
        (Msg.UNWATCH, b"/a\0", "EINVAL"),
        (Msg.UNWATCH, b"/a\0t\0x\0", "EINVAL"),
        (Msg.UNWATCH, b"/a/\0t\0", "EINVAL"),
        (Msg.UNWATCH, b"/a\0t\0", "ENOENT"),
        (Msg.TRANSACTION_END, b"", "EINVAL"),
        (Msg.TRANSACTION_END, b"X\0", "EINVAL"),
        (Msg.TRANSACTION_END, b"T", "EINVAL"),
        (Msg.TRANSACTION_END, b"T\0", "ENOENT"),
        (Msg.TRANSACTION_END, b"F\0", "ENOENT"),
        (Msg.INTRODUCE, b"5\x001\0", "EINVAL"),
        (Msg.INTRODUCE, b"x\x001\x007\0", "EINVAL"),
        (Msg.INTRODUCE, b"65536\x001\x007\0", "EINVAL"),
        (Msg.INTRODUCE, b"5\x001\x000\0", "EINVAL"),
        (Msg.INTRODUCE, b"5\x001\0x\0", "EINVAL"),
        (Msg.INTRODUCE, b"5\x001\x007\0", "ENOENT"),
        (Msg.RELEASE, b"0\0", "EINVAL"),
        (Msg.RELEASE, b"\0", "EINVAL"),
        (Msg.RELEASE, b"5x\0", "EINVAL"),
        (Msg.RELEASE, b"5\0", "ENOENT"),
        (Msg.RESUME, b"0\0", "EINVAL"),
        (Msg.RESUME, b"5\0", "ENOENT"),
        (Msg.SET_TARGET, b"5\0", "EINVAL"),
        (Msg.SET_TARGET, b"x\x001\0", "EINVAL"),
        (Msg.SET_TARGET, b"5\x006\0", "ENOENT"),
        (Msg.SET_TARGET, b"0\x000\0", "EINVAL"),
        (Msg.IS_DOMAIN_INTRODUCED, b"5\0", b"F\0"),
        (Msg.IS_DOMAIN_INTRODUCED, b"0\0", b"T\0"),
        (Msg.IS_DOMAIN_INTRODUCED, b"32752\0", b"T\0"),
        (Msg.IS_DOMAIN_INTRODUCED, b"5\x006\0", "EINVAL"),
        (Msg.IS_DOMAIN_INTRODUCED, b"-5\0", "EINVAL"),
        (Msg.GET_DOMAIN_PATH, b"5\0", b"/local/domain/5\0"),
        (Msg.GET_DOMAIN_PATH, b"\0", b"/local/domain/0\0"),
        (Msg.GET_DOMAIN_PATH, b"007\0", b"/local/domain/7\0"),
        (Msg.GET_DOMAIN_PATH, b"65535\0", b"/local/domain/65535\0"),
        (Msg.GET_DOMAIN_PATH, b"65536\0", "EINVAL"),
        (Msg.GET_DOMAIN_PATH, b"0x5\0", "EINVAL"),
        (Msg.GET_FEATURE, b"", b"15\0"),
        (Msg.GET_FEATURE, b"0\0", b"15\0"),
        (Msg.GET_FEATURE, b"5\0", "ENOENT"),
        (Msg.GET_FEATURE, b"x\0", "EINVAL"),
        (Msg.GET_FEATURE, b"0\x000\0", "EINVAL"),
        (Msg.SET_FEATURE, b"5\0", "EINVAL"),
        (Msg.SET_FEATURE, b"5\x001\0", "ENOENT"),
        (Msg.SET_FEATURE, b"0\x001\0", "EBUSY"),
        (Msg.GET_QUOTA, b"", QUOTA_NAMES),
        (Msg.GET_QUOTA, b"nodes\0", b"1000\0"),
        (Msg.GET_QUOTA, b"soft-memory\0", b"2097152\0"),
        (Msg.GET_QUOTA, b"soft-nodes\0", b"0\0"),
        (Msg.GET_QUOTA, b"path-length\0", b"2048\0"),
        (Msg.GET_QUOTA, b"permissions\0", b"5\0"),
        (Msg.GET_QUOTA, b"bogus\0", "EINVAL"),
        (Msg.GET_QUOTA, b"5\0nodes\0", "ENOENT"),
        (Msg.GET_QUOTA, b"x\0nodes\0", "EINVAL"),
        (Msg.GET_QUOTA, b"0\0nodes\0x\0", "EINVAL"),
        (Msg.SET_QUOTA, b"nodes\0", "EINVAL"),
        (Msg.SET_QUOTA, b"bogus\x005\0", "EINVAL"),
        (Msg.SET_QUOTA, b"nodes\x004294967295\0", "EINVAL"),
        (Msg.SET_QUOTA, b"5\0nodes\x001\0", "ENOENT"),
        (Msg.SET_QUOTA, b"5\0nodes\x001\0x\0", "EINVAL"),
        (Msg.CONTROL, b"", "EINVAL"),
        (Msg.CONTROL, b"x", "EINVAL"),
        (Msg.RESET_WATCHES, b"", OK),
    ],
)
def test_errors_of_a_privileged_caller(
    world: World, kind: int, payload: bytes, expected: bytes | str
) -> None:
    """Each operation answers each kind of bad input with the documented error."""
    assert world.socket().ask(kind, payload) == expected


def test_refused_requests_change_nothing(world: World) -> None:
    """A run of failing requests leaves tree and counts as they were."""
    dom0, guest = home(world)
    before = (world.tree(), world.counts())
    assert dom0.write(b"/a//b", b"v") == "EINVAL"
    assert guest.write(b"/a/b/c", b"v") == "EACCES"
    assert guest.setperms(HOME, b"n0") == "EPERM"
    assert guest.rm(b"/tool") == "EACCES"
    assert (world.tree(), world.counts()) == before


def test_an_oversized_request_ends_a_socket(world: World) -> None:
    """The connection is closed, its watches are gone, others go on."""
    dom0, other = world.socket(), world.socket()
    assert dom0.watch(b"/a", b"t") == OK
    dom0.send(Msg.WRITE, b"/a\0" + b"v" * 4094)
    dom0.send(Msg.READ, b"/tool\0")
    assert dom0.drain() == []
    assert world.counts()[0].get("watches") is None
    assert other.read(b"/tool") == b""


def test_an_oversized_request_silences_a_ring_until_it_is_introduced_again(world: World) -> None:
    """The domain stays known; INTRODUCE makes its ring useful again."""
    dom0, guest = home(world)
    guest.send(Msg.WRITE, b"x\0" + b"v" * 4095)
    guest.send(Msg.READ, b"x\0")
    assert guest.drain() == []
    assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"1\0") == b"T\0"
    assert dom0.ask(Msg.INTRODUCE, strings(b"1", b"1", b"7")) == OK
    assert guest.write(b"x", b"v") == OK


# --- the tree -------------------------------------------------------------------------------


def test_initial_tree(world: World) -> None:
    """Three nodes and two special ones, all charged to the privileged domain."""
    assert world.tree() == {
        b"/": (b"", b"n0\0"),
        b"/tool": (b"", b"n0\0"),
        b"/tool/xenstored": (b"", b"n0\0"),
        b"@introduceDomain": (b"", b"n0\0"),
        b"@releaseDomain": (b"", b"n0\0r32757\0"),
    }
    assert world.counts()[0]["nodes"] == 5


def test_write_creates_all_ancestors_and_keeps_any_bytes(world: World) -> None:
    """Implicit ancestors are empty; NULs belong to the value."""
    dom0 = world.socket()
    assert dom0.write(b"/a/b/c", b"x\0y") == OK
    assert [dom0.read(path) for path in (b"/a", b"/a/b", b"/a/b/c")] == [b"", b"", b"x\0y"]


def test_children_are_listed_in_bytewise_order(world: World) -> None:
    """The order of creation does not show."""
    dom0 = world.socket()
    for name in (b"b", b"a-", b"a", b"B", b"10", b"9", b"_"):
        assert dom0.mkdir(b"/d/" + name) == OK
    assert dom0.ls(b"/d") == [b"10", b"9", b"B", b"_", b"a", b"a-", b"b"]


def test_mkdir_of_an_existing_node_keeps_it(world: World) -> None:
    """Success, the value stays, nobody is told."""
    dom0 = world.socket()
    assert dom0.write(b"/a", b"v") == OK
    assert dom0.watch(b"/a", b"t") == OK
    assert dom0.mkdir(b"/a") == OK
    assert (dom0.read(b"/a"), dom0.events()) == (b"v", [])


def test_rm_takes_the_subtree(world: World) -> None:
    """Everything below goes, siblings with a common prefix stay."""
    dom0 = world.socket()
    for path in (b"/a/b/c", b"/a/b-c", b"/a/bb"):
        assert dom0.mkdir(path) == OK
    assert dom0.rm(b"/a/b") == OK
    assert dom0.ls(b"/a") == [b"b-c", b"bb"]


def test_a_listing_too_long_for_one_reply(world: World) -> None:
    """DIRECTORY answers E2BIG; DIRECTORY_PART gives all of it in pieces and ends with two NULs."""
    dom0 = world.socket()
    names = [b"n%04d-%s" % (i, b"x" * 40) for i in range(200)]
    for name in names:
        assert dom0.mkdir(b"/d/" + name) == OK
    assert dom0.ls(b"/d") == "E2BIG"
    got, generations = b"", set()
    for _ in range(10):
        part = dom0.ask(Msg.DIRECTORY_PART, strings(b"/d", b"%d" % len(got)))
        assert isinstance(part, bytes)
        assert len(part) <= 4096
        generation, _, run = part.partition(b"\0")
        generations.add(generation)
        got += run
        if got.endswith(b"\0\0"):
            break
    assert got == strings(*names) + b"\0"
    assert len(generations) == 1


def test_directory_part_generation_moves_with_the_node(world: World) -> None:
    """The number in front differs after a change of value, permissions or children."""
    dom0 = world.socket()
    seen = []
    for kind, payload in (
        (Msg.WRITE, b"/d\0v"),
        (Msg.WRITE, b"/d\0v"),
        (Msg.SET_PERMS, b"/d\0r0\0"),
        (Msg.MKDIR, b"/d/x\0"),
        (Msg.RM, b"/d/x\0"),
    ):
        assert dom0.ask(kind, payload) == OK
        part = dom0.ask(Msg.DIRECTORY_PART, strings(b"/d", b"0"))
        assert isinstance(part, bytes)
        seen.append(part.partition(b"\0")[0])
    assert len(set(seen)) == 5
    assert b"0" not in seen


def test_directory_part_beyond_the_end(world: World) -> None:
    """Only the number and one more NUL come back."""
    part = world.socket().ask(Msg.DIRECTORY_PART, strings(b"/", b"99"))
    assert isinstance(part, bytes)
    assert part.partition(b"\0")[2] == b"\0"


def test_relative_paths_stand_below_the_home(world: World) -> None:
    """A guest below its own, a socket below domain 0's."""
    dom0, guest = home(world)
    assert guest.write(b"data/x", b"1") == OK
    assert dom0.write(b"data/x", b"0") == OK
    assert dom0.read(HOME + b"/data/x") == b"1"
    assert guest.read(HOME + b"/data/x") == b"1"
    assert dom0.read(b"/local/domain/0/data/x") == b"0"


def test_path_length_counts_without_the_home_prefix(world: World) -> None:
    """A guest may use 2048 bytes below any home; a privileged caller any length."""
    dom0, guest = home(world)
    names = b"/".join([b"x" * 99] * 20)
    longest = names + b"/" + b"x" * (2047 - len(names))
    assert guest.watch(longest, b"t") == OK
    assert guest.watch(HOME + b"/" + longest, b"u") == OK
    assert guest.watch(b"/local/domain/65535/" + longest, b"u") == OK
    assert guest.ask(Msg.WATCH, strings(b"/local/domain/123456/" + longest, b"u")) == "EINVAL"
    assert guest.ask(Msg.WATCH, strings(longest + b"x", b"t")) == "EINVAL"
    assert guest.ask(Msg.WATCH, strings(b"/y" + longest, b"t")) == "EINVAL"
    assert dom0.write(b"/y" + longest, b"v") == OK


# --- permissions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "reads", "writes"),
    [
        ((b"n0",), False, False),
        ((b"r0",), True, False),
        ((b"w0",), False, True),
        ((b"b0",), True, True),
        ((b"n0", b"r1"), True, False),
        ((b"b0", b"n1"), False, False),
        ((b"n0", b"r1", b"b1"), True, False),
        ((b"n0", b"b2"), False, False),
        ((b"n0", b"b32757"), True, True),
        ((b"n0", b"r32757", b"b1"), True, False),
        ((b"n0", b"w1", b"b32757"), False, True),
        ((b"b0", b"n9"), True, True),
    ],
)
def test_rights_of_a_guest(
    world: World, entries: tuple[bytes, ...], reads: bool, writes: bool
) -> None:
    """The first later entry that matches decides, else the letter of the first."""
    dom0, guest = world.socket(), world.guest(1)
    world.guest(2)
    assert dom0.write(b"/n", b"v") == OK
    assert dom0.setperms(b"/n", *entries) == OK
    assert guest.read(b"/n") == (b"v" if reads else "EACCES")
    assert guest.ls(b"/n") == ([] if reads else "EACCES")
    assert guest.getperms(b"/n") == (list(entries) if reads else "EACCES")
    assert guest.read(b"/n/missing/x") == ("ENOENT" if reads else "EACCES")
    assert guest.mkdir(b"/n") == (OK if writes else "EACCES")
    assert guest.rm(b"/n/missing") == (OK if writes else "EACCES")
    assert guest.rm(b"/n/missing/x") == ("ENOENT" if writes else "EACCES")
    assert guest.setperms(b"/n", b"n1") == "EACCES"
    assert guest.setperms(b"/n/missing", b"n1") == ("ENOENT" if writes else "EACCES")
    assert guest.write(b"/n/x/y", b"v") == (OK if writes else "EACCES")
    assert guest.write(b"/n", b"w") == (OK if writes else "EACCES")
    assert guest.rm(b"/n") == (OK if writes else "EACCES")


def test_the_creator_owns_what_it_creates(world: World) -> None:
    """New nodes copy the parent's list; the owner becomes the guest that asked."""
    dom0, guest = world.socket(), world.guest(1)
    world.guest(2)
    assert dom0.mkdir(b"/n") == OK
    assert dom0.setperms(b"/n", b"r0", b"b1", b"w2") == OK
    assert guest.mkdir(b"/n/x/y") == OK
    assert dom0.mkdir(b"/n/z") == OK
    expected = [[b"r1", b"b1", b"w2"], [b"r1", b"b1", b"w2"], [b"r0", b"b1", b"w2"]]
    assert [dom0.getperms(path) for path in (b"/n/x", b"/n/x/y", b"/n/z")] == expected
    assert world.counts()[1]["nodes"] == 2


def test_only_a_privileged_caller_moves_ownership(world: World) -> None:
    """A guest gets EPERM; the toolstack moves the node and its charge."""
    dom0, guest = home(world)
    world.guest(2)
    assert guest.setperms(HOME, b"n2", b"r1") == "EPERM"
    assert guest.setperms(HOME, b"r1", b"b2") == OK
    assert dom0.setperms(HOME, b"n2") == OK
    assert {1: world.counts().get(1), 2: world.counts()[2]["nodes"]} == {1: None, 2: 1}


def test_numbers_of_entries(world: World) -> None:
    """Hexadecimal and octal are understood, decimal is shown."""
    dom0 = world.socket()
    world.guest(16)
    assert dom0.setperms(b"/tool", b"n0", b"r0x10", b"w020", b"b16") == OK
    assert dom0.getperms(b"/tool") == [b"n0", b"r16", b"w16", b"b16"]


def test_an_entry_for_an_unknown_domain_never_comes_to_life(world: World) -> None:
    """It is shown but gives nothing, also when a domain with that id appears later."""
    dom0 = world.socket()
    assert dom0.mkdir(b"/n") == OK
    assert dom0.setperms(b"/n", b"n0", b"b1") == OK
    guest = world.guest(1)
    assert guest.read(b"/n") == "EACCES"
    assert dom0.getperms(b"/n") == [b"n0", b"b1"]
    assert dom0.setperms(b"/n", b"n0", b"b1") == OK
    assert guest.read(b"/n") == b""


def test_a_domain_without_the_feature_cannot_name_every_domain(world: World) -> None:
    """Its any-domain entry is stored and void."""
    dom0 = world.socket()
    world.domains.add(1)
    assert dom0.ask(Msg.SET_FEATURE, strings(b"1", b"7")) == OK
    guest, other = world.guest(1), world.guest(2)
    assert dom0.mkdir(HOME) == OK
    assert dom0.setperms(HOME, b"n1") == OK
    assert guest.setperms(HOME, b"n1", b"r32757") == OK
    assert other.read(HOME) == "EACCES"
    assert dom0.setperms(HOME, b"n1", b"r32757") == OK
    assert other.read(HOME) == b""


def test_root_is_no_special_case(world: World) -> None:
    """The permissions of the root bind guests as anywhere."""
    dom0, guest = world.socket(), world.guest(1)
    assert guest.mkdir(b"/") == "EACCES"
    assert guest.rm(b"/") == "EACCES"
    assert guest.setperms(b"/", b"n1") == "EACCES"
    assert dom0.setperms(b"/", b"b0") == OK
    assert guest.rm(b"/") == "EINVAL"
    assert guest.mkdir(b"/x") == OK
    assert guest.setperms(b"/", b"n1") == "EACCES"


def test_a_target_lends_its_rights(world: World) -> None:
    """The subject may do what the target may; what it creates is its own."""
    dom0, guest = home(world)
    stub = world.guest(2)
    assert stub.read(HOME) == "EACCES"
    assert dom0.ask(Msg.SET_TARGET, strings(b"2", b"1")) == OK
    assert stub.read(HOME) == b""
    assert stub.setperms(HOME, b"n1", b"r2") == OK
    assert stub.mkdir(HOME + b"/x") == OK
    assert dom0.getperms(HOME + b"/x") == [b"n2", b"r2"]
    assert guest.read(b"x") == "EACCES"


def test_a_target_never_lends_privilege(world: World) -> None:
    """With domain 0 as target a guest may use its nodes, but stays a guest."""
    dom0, guest = world.socket(), world.guest(1)
    world.guest(2)
    assert dom0.ask(Msg.SET_TARGET, strings(b"1", b"0")) == OK
    assert dom0.mkdir(b"/n") == OK
    assert dom0.setperms(b"/n", b"n2") == OK
    assert guest.read(b"/tool") == b""
    assert guest.read(b"/n") == "EACCES"
    assert guest.ask(Msg.RELEASE, b"2\0") == "EACCES"


def test_special_nodes_have_permissions_only(world: World) -> None:
    """They can be opened to a guest and are not children of the root."""
    dom0, guest = world.socket(), world.guest(1)
    assert guest.getperms(b"@introduceDomain") == "EACCES"
    assert guest.setperms(b"@introduceDomain", b"n1") == "EACCES"
    assert dom0.setperms(b"@introduceDomain", b"n0", b"r1") == OK
    assert guest.getperms(b"@introduceDomain") == [b"n0", b"r1"]
    assert dom0.ls(b"/") == [b"tool"]
    assert dom0.setperms(b"/", b"r0") == OK
    assert guest.getperms(b"@nope") == "EACCES"


# --- watches --------------------------------------------------------------------------------


def test_watch_answers_then_fires_once(world: World) -> None:
    """The reply comes first, then one event with the path as the client spelled it."""
    dom0 = world.socket()
    dom0.send(Msg.WATCH, strings(b"nope/x", b"tok"), 0, 5)
    assert [tuple(packet) for packet in dom0.drain()] == [
        (Msg.WATCH, 5, 0, OK),
        (Msg.WATCH_EVENT, 0, 0, strings(b"nope/x", b"tok")),
    ]


def test_own_event_comes_before_the_reply(world: World) -> None:
    """A client that watches what it writes sees the event first."""
    dom0 = world.socket()
    assert dom0.watch(b"/a", b"t") == OK
    for kind, payload in (
        (Msg.WRITE, b"/a\0v"),
        (Msg.SET_PERMS, b"/a\0n0\0"),
        (Msg.RM, b"/a\0"),
        (Msg.MKDIR, b"/a\0"),
    ):
        dom0.send(kind, payload)
        assert [packet.type for packet in dom0.drain()] == [Msg.WATCH_EVENT, kind]


def test_watches_on_all_ancestors_fire_from_the_root_down(world: World) -> None:
    """Whole components count; per path the oldest watch comes first."""
    dom0, writer = world.socket(), world.socket()
    for path, token in (
        (b"/a/b", b"2"), (b"/a", b"1"), (b"/", b"0"), (b"/a/b/c", b"no"), (b"/a/bb", b"no"),
        (b"/a/b", b"1"),
    ):  # fmt: skip
        assert dom0.watch(path, token) == OK
    assert writer.write(b"/a/b", b"v") == OK
    expected = [(b"/a/b", b"0"), (b"/a/b", b"1"), (b"/a/b", b"2"), (b"/a/b", b"1")]
    # The last one repeats path and token of the second while that is still queued.
    assert dom0.events() == expected[:3]


def test_implicit_ancestors_are_not_reported(world: World) -> None:
    """Only the target of a write fires."""
    dom0 = world.socket()
    assert dom0.watch(b"/", b"t") == OK
    assert dom0.write(b"/a/b/c", b"v") == OK
    assert dom0.events() == [(b"/a/b/c", b"t")]


def test_rm_reports_the_deepest_first(world: World) -> None:
    """Descendants fire only for watches exactly on them, then the target for all above."""
    dom0 = world.socket()
    for path in (b"/r/b/c", b"/r/b/a", b"/r/a"):
        assert dom0.mkdir(path) == OK
    for path in (b"/", b"/r", b"/r/b", b"/r/b/c", b"/r/a", b"/r/b/a", b"/r/nope"):
        assert dom0.watch(path, b"w") == OK
    assert dom0.rm(b"/r") == OK
    paths = [b"/r/a", b"/r/b/a", b"/r/b/c", b"/r/b"]
    # The watches on "/" and "/r" have the same token, so their equal events are merged.
    assert dom0.events() == [(path, b"w") for path in [*paths, b"/r"]]


def test_relative_watches_report_relative_paths(world: World) -> None:
    """The spelling of the registration decides; both spellings are the same watch."""
    dom0, guest = home(world)
    assert guest.watch(b"a", b"t") == OK
    assert guest.ask(Msg.WATCH, strings(HOME + b"/a", b"t")) == "EEXIST"
    assert guest.watch(HOME + b"/a", b"u") == OK
    assert dom0.write(HOME + b"/a/b", b"v") == OK
    assert guest.events() == [(b"a/b", b"t"), (HOME + b"/a/b", b"u")]
    assert guest.unwatch(HOME + b"/a", b"t") == OK
    assert guest.unwatch(b"a", b"t") == "ENOENT"


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (b"0", [b"/a"]),
        (b"1", [b"/a", b"/a/b"]),
        (b"2", [b"/a", b"/a/b", b"/a/b/c"]),
        (None, [b"/a", b"/a/b", b"/a/b/c", b"/a/b/c/d"]),
    ],
)
def test_depth_limits_how_far_below(
    world: World, depth: bytes | None, expected: list[bytes]
) -> None:
    """A depth of 0 means the watched node itself."""
    dom0 = world.socket()
    assert dom0.watch(b"/a", b"t", depth) == OK
    for path in (b"/a", b"/a/b", b"/a/b/c", b"/a/b/c/d"):
        assert dom0.write(path, b"v") == OK
    assert dom0.events() == [(path, b"t") for path in expected]


def test_a_guest_without_the_feature_has_no_depth(world: World) -> None:
    """The third argument is EINVAL for it."""
    dom0 = world.socket()
    world.domains.add(1)
    assert dom0.ask(Msg.SET_FEATURE, strings(b"1", b"3")) == OK
    guest = world.guest(1)
    assert guest.ask(Msg.WATCH, strings(b"a", b"t", b"1")) == "EINVAL"
    assert guest.ask(Msg.GET_FEATURE) == b"3\0"
    assert guest.ask(Msg.GET_FEATURE, b"1\0") == "EACCES"
    assert dom0.ask(Msg.GET_FEATURE, b"1\0") == b"3\0"
    assert dom0.ask(Msg.SET_FEATURE, strings(b"1", b"7")) == "EBUSY"


def test_unknown_feature_bits(world: World) -> None:
    """Only bits that are offered can be set."""
    world.domains.add(1)
    assert world.socket().ask(Msg.SET_FEATURE, strings(b"1", b"16")) == "EINVAL"


def test_duplicates(world: World) -> None:
    """Path and token are the key; the depth is not; another token is another watch."""
    dom0 = world.socket()
    assert dom0.watch(b"/a", b"t") == OK
    assert dom0.ask(Msg.WATCH, strings(b"/a", b"t", b"1")) == "EEXIST"
    assert dom0.watch(b"/a", b"") == OK
    assert world.socket().watch(b"/a", b"t") == OK


def test_events_need_the_right_to_read_the_node_or_its_parent(world: World) -> None:
    """A guest hears of nothing it could not read, before or after a change of permissions."""
    dom0, guest = world.socket(), world.guest(1)
    assert dom0.mkdir(b"/n/x") == OK
    assert guest.watch(b"/n", b"t") == OK
    assert dom0.write(b"/n/x", b"secret") == OK
    assert guest.events() == []
    assert dom0.setperms(b"/n/x", b"n0", b"r1") == OK
    assert guest.events() == [(b"/n/x", b"t")]
    assert dom0.write(b"/n/x", b"v") == OK
    assert guest.events() == [(b"/n/x", b"t")]
    assert dom0.setperms(b"/n/x", b"n0") == OK
    assert guest.events() == [(b"/n/x", b"t")]
    assert dom0.write(b"/n/x", b"w") == OK
    assert guest.events() == []
    assert dom0.setperms(b"/n", b"n0", b"r1") == OK
    assert guest.events() == [(b"/n", b"t")]
    assert dom0.write(b"/n/x", b"w") == OK
    assert dom0.rm(b"/n/x") == OK
    assert guest.events() == [(b"/n/x", b"t")]


def test_equal_events_still_queued_are_merged(world: World) -> None:
    """One event per path and token waits; after it was fetched the next one comes."""
    dom0, writer = world.socket(), world.socket()
    assert dom0.watch(b"/a", b"t") == OK
    for value in (b"1", b"2", b"3"):
        assert writer.write(b"/a", value) == OK
    assert writer.write(b"/a/b", b"v") == OK
    assert writer.write(b"/a", b"4") == OK
    assert dom0.events() == [(b"/a", b"t"), (b"/a/b", b"t")]
    assert writer.write(b"/a", b"5") == OK
    assert dom0.events() == [(b"/a", b"t")]


def test_every_watch_gets_its_first_event(world: World) -> None:
    """A watch removed and set again while its event is queued still gets one of its own."""
    dom0 = world.socket()
    for kind in (Msg.WATCH, Msg.UNWATCH, Msg.WATCH):
        dom0.send(kind, strings(b"/a", b"t"))
    kinds = [packet.type for packet in dom0.drain()]
    assert kinds == [Msg.WATCH, Msg.WATCH_EVENT, Msg.UNWATCH, Msg.WATCH, Msg.WATCH_EVENT]


def test_events_too_long_for_the_wire_are_dropped(world: World) -> None:
    """Path and token with their NULs may have 4096 bytes."""
    dom0, writer = world.socket(), world.socket()
    assert dom0.watch(b"/", b"t" * 4000) == OK
    longest = b"/" + b"x" * 93
    assert writer.write(longest, b"v") == OK
    assert writer.write(longest + b"x", b"v") == OK
    assert dom0.events() == [(longest, b"t" * 4000)]


def test_special_events_may_be_as_long_as_others(world: World) -> None:
    """The limit holds for the event as it is, with however many digits the domid has."""
    dom0 = world.socket()
    name = b"@introduceDomain/1"
    token = b"t" * (4096 - len(name) - 2)
    assert dom0.watch(b"@introduceDomain", token, b"1") == OK
    assert dom0.watch(b"@introduceDomain", token[1:], b"1") == OK
    world.guest(1)
    assert dom0.events() == [(name, token), (name, token[1:])]
    world.guest(10)
    assert dom0.events() == [(name + b"0", token[1:])]


def test_unfetched_events_of_a_guest_expire(world: World) -> None:
    """After 20 seconds they are gone; a privileged client keeps its own."""
    dom0, guest = home(world)
    writer = world.socket()
    assert guest.watch(b"a", b"t") == OK
    assert dom0.watch(HOME, b"t") == OK
    assert writer.write(HOME + b"/a", b"1") == OK
    world.advance(15)
    assert writer.write(HOME + b"/a/b", b"2") == OK
    world.advance(10)
    assert guest.events() == [(b"a/b", b"t")]
    assert dom0.events() == [(HOME + b"/a", b"t"), (HOME + b"/a/b", b"t")]


def test_reset_watches_ends_watches_and_transactions(world: World) -> None:
    """Also when it is sent inside the transaction that it ends."""
    guest = world.guest(1)
    assert guest.watch(b"a", b"t") == OK
    first, second = guest.start(), guest.start()
    assert guest.ask(Msg.RESET_WATCHES, b"\0", first) == OK
    assert [guest.end(first), guest.end(second)] == ["ENOENT", "ENOENT"]
    assert guest.unwatch(b"a", b"t") == "ENOENT"
    assert world.counts().get(1) is None


# --- transactions ---------------------------------------------------------------------------


def test_ids_count_up_from_one(world: World) -> None:
    """Ids belong to a connection and are not reused at once."""
    dom0, other = world.socket(), world.socket()
    assert [dom0.start(), dom0.start()] == [1, 2]
    assert dom0.end(1) == OK
    assert [dom0.start(), other.start()] == [3, 1]
    assert other.end(3) == "ENOENT"


def test_transactions_do_not_nest(world: World) -> None:
    """START with a valid id is EBUSY."""
    dom0 = world.socket()
    tx = dom0.start()
    assert dom0.ask(Msg.TRANSACTION_START, b"\0", tx) == "EBUSY"


def test_a_bad_end_leaves_the_transaction_open(world: World) -> None:
    """EINVAL does not destroy it, anything else does."""
    dom0 = world.socket()
    tx = dom0.start()
    assert dom0.ask(Msg.TRANSACTION_END, b"X\0", tx) == "EINVAL"
    assert dom0.end(tx, commit=False) == OK
    assert dom0.end(tx) == "ENOENT"


def test_nothing_is_seen_outside_before_the_commit(world: World) -> None:
    """Inside its own writes show; outside neither writes nor events, until the end."""
    dom0, other = world.socket(), world.socket()
    assert other.watch(b"/a", b"t") == OK
    tx = dom0.start()
    assert dom0.write(b"/a", b"v", tx) == OK
    assert (dom0.read(b"/a", tx), other.read(b"/a"), other.events()) == (b"v", "ENOENT", [])
    assert dom0.end(tx) == OK
    assert (other.read(b"/a"), other.events()) == (b"v", [(b"/a", b"t")])


def test_an_abort_leaves_nothing(world: World) -> None:
    """Tree and counts are as before."""
    dom0 = world.socket()
    before = (world.tree(), world.counts())
    tx = dom0.start()
    assert dom0.write(b"/a/b", b"v", tx) == OK
    assert dom0.rm(b"/tool", tx) == OK
    assert dom0.end(tx, commit=False) == OK
    assert (world.tree(), world.counts()) == before


def test_a_transaction_sees_the_tree_of_its_start(world: World) -> None:
    """Later changes by others stay invisible, also in nodes it looks at for the first time."""
    dom0, other = world.socket(), world.socket()
    assert other.write(b"/a", b"old") == OK
    tx = dom0.start()
    assert other.write(b"/a", b"new") == OK
    assert other.mkdir(b"/b") == OK
    assert (dom0.read(b"/a", tx), dom0.read(b"/b", tx)) == (b"old", "ENOENT")
    assert dom0.ls(b"/", tx) == [b"a", b"tool"]
    assert dom0.end(tx) == OK


@pytest.mark.parametrize(
    ("seen", "disturbance", "conflict"),
    [
        # A value: told by READ, and by nothing else.
        ((Msg.READ, b"/a\0"), (Msg.WRITE, b"/a\0v"), True),
        ((Msg.READ, b"/a\0"), (Msg.WRITE, b"/a\0"), False),
        ((Msg.READ, b"/a\0"), (Msg.SET_PERMS, b"/a\0r0\0"), False),
        ((Msg.READ, b"/a\0"), (Msg.MKDIR, b"/a/new\0"), False),
        ((Msg.READ, b"/a\0"), (Msg.WRITE, b"/a/b\0v"), False),
        ((Msg.READ, b"/a\0"), (Msg.RM, b"/a\0"), True),
        ((Msg.READ, b"/a\0"), (Msg.RM, b"/a/b\0"), False),
        # What is not there: ENOENT stays ENOENT until the node itself comes.
        ((Msg.READ, b"/none\0"), (Msg.MKDIR, b"/none\0"), True),
        ((Msg.READ, b"/none/x\0"), (Msg.MKDIR, b"/none\0"), False),
        ((Msg.READ, b"/none/x\0"), (Msg.MKDIR, b"/none/x/y\0"), True),
        ((Msg.READ, b"/none/x\0"), (Msg.MKDIR, b"/other\0"), False),
        ((Msg.READ, b"/none/x\0"), (Msg.SET_PERMS, b"/\0r0\0"), False),
        # Permissions.
        ((Msg.GET_PERMS, b"/a\0"), (Msg.WRITE, b"/a\0v"), False),
        ((Msg.GET_PERMS, b"/a\0"), (Msg.SET_PERMS, b"/a\0r0\0"), True),
        ((Msg.GET_PERMS, b"/a\0"), (Msg.SET_PERMS, b"/a\0n0\0"), False),
        ((Msg.GET_PERMS, b"/none\0"), (Msg.MKDIR, b"/none\0"), True),
        ((Msg.GET_PERMS, b"@releaseDomain\0"), (Msg.SET_PERMS, b"@releaseDomain\0n0\0"), True),
        # Names of children: a new one or one less, but not what is in them.
        ((Msg.DIRECTORY, b"/a\0"), (Msg.MKDIR, b"/a/new\0"), True),
        ((Msg.DIRECTORY, b"/a\0"), (Msg.RM, b"/a/b\0"), True),
        ((Msg.DIRECTORY, b"/a\0"), (Msg.WRITE, b"/a/b\0v"), False),
        ((Msg.DIRECTORY, b"/a\0"), (Msg.MKDIR, b"/a/b/new\0"), False),
        ((Msg.DIRECTORY, b"/a\0"), (Msg.SET_PERMS, b"/a\0r0\0"), False),
        ((Msg.DIRECTORY, b"/\0"), (Msg.MKDIR, b"/new\0"), True),
        ((Msg.DIRECTORY_PART, b"/a\x000\0"), (Msg.MKDIR, b"/a/new\0"), True),
        ((Msg.DIRECTORY_PART, b"/a\x000\0"), (Msg.WRITE, b"/a\0v"), False),
        ((Msg.DIRECTORY_PART, b"/a\x009\0"), (Msg.MKDIR, b"/a/new\0"), False),
        # A change that is told OK again may be made again, wherever it finds the tree.
        ((Msg.MKDIR, b"/a/x\0"), (Msg.MKDIR, b"/a/y\0"), False),
        ((Msg.MKDIR, b"/a/x\0"), (Msg.MKDIR, b"/a/x\0"), False),
        ((Msg.MKDIR, b"/a/x/y\0"), (Msg.MKDIR, b"/a/x\0"), False),
        ((Msg.MKDIR, b"/a/x\0"), (Msg.SET_PERMS, b"/a\0r0\0"), False),
        ((Msg.MKDIR, b"/a/x\0"), (Msg.RM, b"/a\0"), False),
        ((Msg.MKDIR, b"/a\0"), (Msg.RM, b"/a\0"), False),
        ((Msg.WRITE, b"/a\0v"), (Msg.WRITE, b"/a\0w"), False),
        ((Msg.WRITE, b"/a\0v"), (Msg.WRITE, b"/a/b\0v"), False),
        ((Msg.WRITE, b"/a/b\0v"), (Msg.WRITE, b"/a\0v"), False),
        ((Msg.WRITE, b"/a/b\0v"), (Msg.RM, b"/a\0"), False),
        ((Msg.RM, b"/a\0"), (Msg.WRITE, b"/a/b/c\0v"), False),
        ((Msg.RM, b"/a\0"), (Msg.MKDIR, b"/a/b/c/d\0"), False),
        ((Msg.RM, b"/a/b\0"), (Msg.MKDIR, b"/a/new\0"), False),
        ((Msg.RM, b"/a/b\0"), (Msg.RM, b"/a/b\0"), False),
        ((Msg.RM, b"/a/b\0"), (Msg.RM, b"/a\0"), True),
        ((Msg.RM, b"/none\0"), (Msg.MKDIR, b"/none\0"), False),
        ((Msg.RM, b"/none\0"), (Msg.MKDIR, b"/other\0"), False),
        ((Msg.RM, b"/none/x\0"), (Msg.MKDIR, b"/none\0"), True),
        ((Msg.SET_PERMS, b"/a\0r0\0"), (Msg.WRITE, b"/a\0v"), False),
        ((Msg.SET_PERMS, b"/a\0r0\0"), (Msg.SET_PERMS, b"/a\0b0\0"), False),
        ((Msg.SET_PERMS, b"/a\0r0\0"), (Msg.MKDIR, b"/a/new\0"), False),
        ((Msg.SET_PERMS, b"/a\0r0\0"), (Msg.RM, b"/a\0"), True),
        ((Msg.SET_PERMS, b"/none\0r0\0"), (Msg.MKDIR, b"/none\0"), True),
    ],
)
def test_conflicts(
    world: World, seen: tuple[int, bytes], disturbance: tuple[int, bytes], conflict: bool
) -> None:
    """A commit fails exactly when one of its answers would now be another."""
    dom0, other = world.socket(), world.socket()
    assert dom0.write(b"/a/b/c", b"v") == OK
    tx = dom0.start()
    dom0.ask(*seen, tx)
    assert dom0.write(b"/mark", b"v", tx) == OK
    assert other.ask(*disturbance) == OK
    before = world.tree()
    assert dom0.end(tx) == ("EAGAIN" if conflict else OK)
    assert (world.tree() == before) is conflict


def test_the_later_of_two_blind_writes_stays(world: World) -> None:
    """Who did not look is not in the way; the commit comes after what was written before it."""
    dom0, other = world.socket(), world.socket()
    tx = dom0.start()
    assert dom0.write(b"/a/b", b"in", tx) == OK
    assert dom0.rm(b"/old", tx) == OK
    assert other.write(b"/a/b", b"out") == OK
    assert other.write(b"/old/x", b"v") == OK
    assert dom0.end(tx) == OK
    assert (dom0.read(b"/a/b"), dom0.read(b"/old")) == (b"in", "ENOENT")


def test_a_node_that_has_come_back_as_it_was_is_no_conflict(world: World) -> None:
    """What counts is the answer, not that there was a change."""
    dom0, other = world.socket(), world.socket()
    assert dom0.write(b"/a/b", b"v") == OK
    tx = dom0.start()
    assert (dom0.read(b"/a/b", tx), dom0.ls(b"/a", tx)) == (b"v", [b"b"])
    assert dom0.write(b"/mark", b"", tx) == OK
    assert other.rm(b"/a") == OK
    assert other.write(b"/a/b", b"v") == OK
    assert dom0.end(tx) == OK


@pytest.mark.parametrize(
    ("name", "conflict"), [(b"/a/new", True), (b"/a/b/new", False), (b"/new", False)]
)
def test_a_listing_conflicts_with_a_child_and_making_a_sibling_does_not(
    world: World, name: bytes, conflict: bool
) -> None:
    """DIRECTORY tells which children there are; MKDIR of one says nothing about the others."""
    dom0, other = world.socket(), world.socket()
    assert dom0.mkdir(b"/a/b") == OK
    looking, making = dom0.start(), dom0.start()
    assert dom0.ls(b"/a", looking) == [b"b"]
    assert dom0.mkdir(b"/mark", looking) == OK
    assert dom0.mkdir(b"/a/mine", making) == OK
    assert other.mkdir(name) == OK
    assert dom0.end(looking) == ("EAGAIN" if conflict else OK)
    assert dom0.end(making) == OK
    assert dom0.ls(b"/a") == sorted({b"b", b"mine"} | ({b"new"} if name == b"/a/new" else set()))


@pytest.mark.parametrize(
    ("entries", "conflict"),
    [((b"n0", b"b1"), False), ((b"b0",), False), ((b"n0", b"r1"), True), ((b"w0",), True)],
)
def test_rights_are_seen_as_far_as_they_are_used(
    world: World, entries: tuple[bytes, ...], conflict: bool
) -> None:
    """A guest that has read and made a child needs both rights again, and no others."""
    dom0, guest = world.socket(), world.guest(1)
    assert dom0.write(b"/shared", b"v") == OK
    assert dom0.setperms(b"/shared", b"n0", b"b1", b"r2") == OK
    tx = guest.start()
    assert guest.read(b"/shared", tx) == b"v"
    assert guest.mkdir(b"/shared/mine", tx) == OK
    assert dom0.setperms(b"/shared", *entries) == OK
    assert guest.end(tx) == ("EAGAIN" if conflict else OK)
    assert dom0.ls(b"/shared") == ([] if conflict else [b"mine"])


def test_reading_never_conflicts(world: World) -> None:
    """A transaction that changed nothing ends well, whatever happened meanwhile."""
    dom0, other = world.socket(), world.socket()
    assert dom0.write(b"/a", b"v") == OK
    tx = dom0.start()
    assert dom0.read(b"/a", tx) == b"v"
    assert dom0.ls(b"/a", tx) == []
    assert dom0.rm(b"/nope/x", tx) == "ENOENT"
    assert other.rm(b"/a") == OK
    assert dom0.end(tx) == OK


@pytest.mark.parametrize("looked", [True, False])
def test_ones_own_change_outside_is_like_any_other(world: World, looked: bool) -> None:
    """It conflicts with what the transaction saw, and with nothing else."""
    dom0 = world.socket()
    assert dom0.write(b"/a", b"old") == OK
    tx = dom0.start()
    if looked:
        assert dom0.read(b"/a", tx) == b"old"
    assert dom0.write(b"/a", b"in", tx) == OK
    assert dom0.write(b"/a", b"out") == OK
    assert dom0.end(tx) == ("EAGAIN" if looked else OK)
    assert dom0.read(b"/a") == (b"out" if looked else b"in")


def test_a_commit_cannot_reach_into_what_another_domain_built_meanwhile(world: World) -> None:
    """Creation below a shared node conflicts when a private node took the place in between."""
    dom0, one, two = world.socket(), world.guest(1), world.guest(2)
    assert dom0.mkdir(b"/shared") == OK
    assert dom0.setperms(b"/shared", b"n0", b"b1", b"b2") == OK
    tx = one.start()
    assert one.write(b"/shared/x/mine", b"v", tx) == OK
    assert two.mkdir(b"/shared/x") == OK
    assert two.setperms(b"/shared/x", b"n2") == OK
    assert one.end(tx) == "EAGAIN"
    assert dom0.ls(b"/shared/x") == []


def test_events_of_a_commit_come_in_the_order_of_the_operations(world: World) -> None:
    """Equal ones are merged, and they come before the reply."""
    dom0 = world.socket()
    assert dom0.write(b"/old/x", b"v") == OK
    assert dom0.watch(b"/", b"t") == OK
    assert dom0.watch(b"/old/x", b"u") == OK
    tx = dom0.start()
    for answer in (
        dom0.write(b"/b", b"1", tx), dom0.mkdir(b"/a", tx), dom0.write(b"/b", b"2", tx),
        dom0.rm(b"/old", tx), dom0.setperms(b"/a", b"r0", tx=tx),
    ):  # fmt: skip
        assert answer == OK
    dom0.send(Msg.TRANSACTION_END, b"T\0", tx)
    packets = dom0.drain()
    assert [packet.payload for packet in packets] == [
        strings(b"/b", b"t"), strings(b"/a", b"t"), strings(b"/old/x", b"u"),
        strings(b"/old", b"t"), OK,
    ]  # fmt: skip


def test_created_and_removed_in_one_transaction_is_invisible(world: World) -> None:
    """Nobody is told of a node that never was in the live tree."""
    dom0 = world.socket()
    assert dom0.watch(b"/", b"t") == OK
    tx = dom0.start()
    assert dom0.write(b"/a/b", b"v", tx) == OK
    assert dom0.rm(b"/a", tx) == OK
    assert dom0.end(tx) == OK
    assert dom0.events() == []


@pytest.mark.parametrize("disturbed", [b"", b"/elsewhere", b"/a"])
def test_who_could_read_what_a_commit_replaced_is_told(world: World, disturbed: bytes) -> None:
    """Also if the node that took its place is hidden, as if its permissions had been changed; who
    could not read the first one either is told nothing. The view becomes the tree, is merged into
    it, or is asked for again."""
    dom0, guest, blind = world.socket(), world.guest(1), world.guest(2)
    assert dom0.write(b"/a/b", b"v") == OK
    assert dom0.write(b"/a", b"v") == OK
    for path in (b"/a", b"/a/b"):
        assert dom0.setperms(path, b"n0", b"r1") == OK
    for one in (guest, blind):
        assert one.watch(b"/a", b"t") == OK
        one.events()
    tx = dom0.start()
    assert dom0.rm(b"/a", tx) == OK
    assert dom0.write(b"/a/b", b"v", tx) == OK
    if disturbed:
        assert dom0.write(disturbed, b"w") == OK
    assert guest.events() == ([(b"/a", b"t")] if disturbed == b"/a" else [])
    assert guest.read(b"/a") == (b"w" if disturbed == b"/a" else b"v")
    assert dom0.end(tx) == OK
    assert guest.events() == [(b"/a", b"t"), (b"/a/b", b"t")]
    assert [guest.read(path) for path in (b"/a", b"/a/b")] == ["EACCES", "EACCES"]
    assert blind.events() == []


def test_a_transaction_does_not_give_rights_to_the_dead(world: World) -> None:
    """If a domain that it names in permissions has gone, the commit fails."""
    dom0 = world.socket()
    world.guest(1)
    world.guest(2)
    tx = dom0.start()
    assert dom0.mkdir(b"/a", tx) == OK
    assert dom0.setperms(b"/a", b"n0", b"r1", tx=tx) == OK
    world.kill(1)
    world.kill(2)
    assert dom0.end(tx) == "EAGAIN"


# --- quotas ---------------------------------------------------------------------------------


def test_the_number_is_what_one_can_have_nodes(world: World) -> None:
    """The last node fits, one more does not; a request is charged as a whole."""
    dom0, guest = home(world)
    set_quota(world, 1, b"nodes", 4)
    assert guest.mkdir(b"a") == OK
    assert guest.mkdir(b"b/c/d") == "ENOSPC"
    assert guest.mkdir(b"b/c") == OK
    assert guest.mkdir(b"d") == "ENOSPC"
    assert guest.write(b"a", b"v") == OK
    assert dom0.mkdir(HOME + b"/e") == OK
    assert world.counts()[1]["nodes"] == 5
    assert guest.rm(b"b") == OK
    assert guest.mkdir(b"d") == OK


def test_node_quota_inside_a_transaction(world: World) -> None:
    """Live nodes and the transaction's own count together; the commit counts again."""
    _dom0, guest = home(world)
    set_quota(world, 1, b"nodes", 3)
    tx = guest.start()
    assert guest.mkdir(b"a", tx) == OK
    assert guest.mkdir(b"b/c", tx) == "ENOSPC"
    assert guest.mkdir(b"b", tx) == OK
    assert guest.mkdir(b"c", tx) == "ENOSPC"
    assert guest.rm(b"a", tx) == OK
    assert guest.mkdir(b"c", tx) == OK
    assert guest.mkdir(b"d") == OK
    assert guest.end(tx) == "ENOSPC"
    assert world.counts()[1]["nodes"] == 2


def test_watch_quota(world: World) -> None:
    """A duplicate is found before the quota."""
    guest = world.guest(1)
    set_quota(world, 1, b"watches", 2)
    assert [guest.watch(b"a", b"1"), guest.watch(b"a", b"2")] == [OK, OK]
    assert guest.ask(Msg.WATCH, strings(b"a", b"2")) == "EEXIST"
    assert guest.ask(Msg.WATCH, strings(b"a", b"3")) == "ENOSPC"
    assert guest.unwatch(b"a", b"1") == OK
    assert guest.watch(b"a", b"3") == OK


def test_transaction_quota(world: World) -> None:
    """Ten by default; sockets have no limit."""
    dom0, guest = world.socket(), world.guest(1)
    assert [guest.start() for _ in range(10)] == list(range(1, 11))
    assert guest.ask(Msg.TRANSACTION_START, b"\0") == "ENOSPC"
    assert guest.end(4) == OK
    assert guest.start() == 11
    assert [dom0.start() for _ in range(20)] == list(range(1, 21))
    assert world.counts()[0]["transactions"] == 20


def test_watch_event_quota(world: World) -> None:
    """A guest that fetches nothing gets no more events; the change itself goes on."""
    dom0, guest = home(world)
    set_quota(world, 1, b"watch-events", 2)
    assert guest.watch(HOME, b"t") == OK
    for name in (b"a", b"b", b"c"):
        assert dom0.mkdir(HOME + b"/" + name) == OK
    assert guest.events() == [(HOME + b"/a", b"t"), (HOME + b"/b", b"t")]
    assert dom0.mkdir(HOME + b"/d") == OK
    assert guest.events() == [(HOME + b"/d", b"t")]


def test_permission_quota(world: World) -> None:
    """Five entries by default; no limit for a privileged caller; counted before the owner."""
    dom0, guest = home(world)
    assert guest.setperms(HOME, b"n1", b"r2", b"r3", b"r4", b"r5") == OK
    assert guest.setperms(HOME, b"n99", b"r2", b"r3", b"r4", b"r5", b"r6") == "ENOSPC"
    assert dom0.setperms(HOME, b"n1", b"r2", b"r3", b"r4", b"r5", b"r6") == OK


def test_node_size_quota(world: World) -> None:
    """Header, entries, value and child names count; so does the parent that gains a child."""
    dom0, guest = home(world)
    set_quota(world, 1, b"node-size", 40)
    assert guest.write(b"a", b"v" * 16) == OK
    assert guest.write(b"a", b"v" * 17) == "ENOSPC"
    assert guest.setperms(b"a", b"n1", b"r0") == "ENOSPC"
    assert guest.mkdir(b"a/x") == "ENOSPC"
    assert guest.write(b"a", b"v" * 14) == OK
    assert guest.mkdir(b"a/x") == OK
    assert dom0.write(HOME + b"/a", b"v" * 100) == OK
    assert guest.rm(b"a/x") == OK


def test_accessed_nodes_quota_poisons(world: World) -> None:
    """The request over the limit is ENOSPC; then only an abort is possible."""
    _dom0, guest = home(world)
    for name in (b"a", b"b", b"c"):
        assert guest.mkdir(name) == OK
    set_quota(world, 1, b"transaction-nodes", 2)
    for commit, expected in ((True, "ENOMEM"), (False, OK)):
        tx = guest.start()
        answers = [guest.read(name, tx) for name in (b"a", b"b", b"a", b"c")]
        assert answers == [b"", b"", b"", "ENOSPC"]
        assert guest.end(tx, commit) == expected
        assert guest.end(tx) == "ENOENT"


@pytest.mark.parametrize(
    ("kind", "payload", "looked_at"),
    [
        (Msg.READ, b"a\0", 1),
        (Msg.READ, b"a/none\0", 2),
        (Msg.READ, b"a/none/x\0", 3),
        (Msg.READ, b"a/none/x/y\0", 3),
        (Msg.WRITE, b"a\0v", 1),
        (Msg.MKDIR, b"a/x\0", 2),
        (Msg.MKDIR, b"a/x/y\0", 3),
        (Msg.RM, b"a\0", 2),
        (Msg.RM, b"a/none\0", 2),
        (Msg.SET_PERMS, b"a\0n1\0", 1),
    ],
)
def test_what_counts_as_accessed(world: World, kind: int, payload: bytes, looked_at: int) -> None:
    """The target, around a missing one where the tree ends, the parent that loses a child."""
    _dom0, guest = home(world)
    assert guest.mkdir(b"a") == OK
    for limit, enough in ((looked_at, True), (looked_at - 1, False)):
        if limit > 0:  # 0 would mean no limit
            set_quota(world, 1, b"transaction-nodes", limit)
            tx = guest.start()
            assert (guest.ask(kind, payload, tx) != "ENOSPC") is enough
            assert guest.end(tx, commit=False) == OK


def test_requests_quota_poisons(world: World) -> None:
    """Every request with the id counts, the end does not."""
    _dom0, guest = home(world)
    set_quota(world, 1, b"transaction-requests", 2)
    tx = guest.start()
    assert [guest.read(b"", tx), guest.mkdir(b"x", tx)] == ["EINVAL", OK]
    assert guest.end(tx) == OK
    tx = guest.start()
    answers = [guest.mkdir(b"y", tx), guest.mkdir(b"z", tx), guest.mkdir(b"z", tx)]
    assert answers == [OK, OK, "ENOSPC"]
    assert guest.end(tx) == "ENOMEM"
    assert guest.ls(HOME) == [b"x"]


def test_zero_means_unlimited(world: World) -> None:
    """A quota of 0 does not bind."""
    dom0, guest = home(world)
    set_quota(world, 1, b"node-size", 0)
    set_quota(world, 1, b"path-max", 0)
    assert guest.write(b"a", b"v" * 4000) == OK
    assert guest.write(b"b" * 3000, b"") == OK
    assert dom0.ask(Msg.GET_QUOTA, strings(b"1", b"node-size")) == b"0\0"


def test_global_quotas_reach_domains_named_later(world: World) -> None:
    """A domain keeps the values of the time when it was first named."""
    dom0 = world.socket()
    world.guest(1)
    assert dom0.ask(Msg.SET_QUOTA, strings(b"nodes", b"7")) == OK
    world.guest(2)
    answers = [dom0.ask(Msg.GET_QUOTA, strings(domid, b"nodes")) for domid in (b"1", b"2")]
    assert answers == [b"1000\0", b"7\0"]


def test_memory_is_accounted(world: World) -> None:
    """Nodes with their full path and watches as registered are charged."""
    dom0, guest = home(world)
    assert guest.write(b"ab", b"value") == OK
    assert guest.watch(b"ab", b"token") == OK
    expected = (16 + 8 + 3 + len(HOME)) + (16 + 8 + 5 + len(HOME + b"/ab")) + (2 + 5)
    assert world.counts()[1] == {"nodes": 2, "watches": 1, "memory": expected}
    assert dom0.rm(HOME) == OK
    assert guest.events() == [(b"ab", b"token")]  # while it is queued it counts, too
    assert world.counts()[1] == {"watches": 1, "memory": 7}


# --- domains --------------------------------------------------------------------------------


def test_introduce_fires_the_special_watches(world: World) -> None:
    """Watches with depth and on the domain's own name get the domid, plain ones do not."""
    dom0 = world.socket()
    name = b"@introduceDomain"
    assert dom0.watch(name, b"plain") == OK
    assert dom0.watch(name, b"depth", b"1") == OK
    assert dom0.watch(name, b"never", b"0") == OK
    assert dom0.watch(name + b"/1", b"one") == OK
    assert dom0.watch(name + b"/1", b"deep", b"1") == OK
    assert dom0.watch(name + b"/2", b"two") == OK
    assert dom0.watch(b"/", b"root") == OK
    world.guest(1)
    assert dom0.events() == [
        (name + b"/1", b"depth"),
        (name + b"/1", b"one"),
        (name + b"/1", b"deep"),
        (name, b"plain"),
    ]


def test_special_events_are_not_merged(world: World) -> None:
    """Two new domains are two events."""
    dom0 = world.socket()
    assert dom0.watch(b"@introduceDomain", b"t") == OK
    world.guest(1)
    world.guest(2)
    assert dom0.events() == [(b"@introduceDomain", b"t")] * 2


def test_introducing_again_resets_the_connection(world: World) -> None:
    """Watches, transactions and unread output are gone; nobody is told."""
    dom0, guest = home(world)
    assert dom0.watch(b"@introduceDomain", b"t") == OK
    assert guest.watch(b"a", b"t") == OK
    tx = guest.start()
    assert dom0.write(HOME + b"/a", b"v") == OK
    assert dom0.ask(Msg.INTRODUCE, strings(b"1", b"1", b"7")) == OK
    assert (guest.drain(), dom0.events()) == ([], [])
    assert guest.end(tx) == "ENOENT"
    assert guest.unwatch(b"a", b"t") == "ENOENT"


def test_shutdown_is_told_once_until_resume(world: World) -> None:
    """The domid form, then the plain form; guests may watch it."""
    dom0, one = world.socket(), world.guest(1)
    world.guest(2)
    name = b"@releaseDomain"
    assert one.watch(name, b"plain") == OK
    assert one.watch(name, b"depth", b"1") == OK
    both = [(name + b"/2", b"depth"), (name, b"plain")]
    world.shutdown(2)
    world.shutdown(2)
    assert one.events() == both
    assert dom0.ask(Msg.RESUME, b"2\0") == OK
    world.shutdown(2)
    assert one.events() == both
    world.kill(2)
    assert one.events() == both


def test_the_special_events_need_the_right_to_read(world: World) -> None:
    """A guest sees domains come only if it was allowed to."""
    dom0, guest = world.socket(), world.guest(1)
    assert guest.watch(b"@introduceDomain", b"t") == OK
    world.guest(2)
    assert guest.events() == []
    assert dom0.setperms(b"@introduceDomain", b"n0", b"r1") == OK
    world.guest(3)
    assert guest.events() == [(b"@introduceDomain", b"t")]


@pytest.mark.parametrize("how", ["kill", "release"])
def test_a_domain_that_goes_takes_everything_along(world: World, how: str) -> None:
    """Its nodes go with events, its rights go, its counts go, then the release is told."""
    dom0, guest = home(world)
    assert guest.write(b"a/b", b"v") == OK
    assert dom0.write(b"/other/x", b"v") == OK
    assert dom0.setperms(b"/other", b"r0", b"b1", b"n1") == OK
    assert dom0.setperms(b"/other/x", b"n1") == OK
    assert dom0.setperms(b"@introduceDomain", b"n0", b"r1") == OK
    assert guest.watch(b"@releaseDomain", b"own") == OK
    for path in (HOME + b"/a", HOME, b"/other", b"@releaseDomain"):
        assert dom0.watch(path, b"t") == OK
    if how == "kill":
        world.kill(1)
    else:
        assert dom0.ask(Msg.RELEASE, b"1\0") == OK
    assert dom0.events() == [
        (HOME + b"/a", b"t"), (HOME, b"t"), (b"/other/x", b"t"), (b"@releaseDomain", b"t"),
    ]  # fmt: skip
    assert world.tree()[b"/other"] == (b"", b"r0\0")
    assert world.tree()[b"@introduceDomain"] == (b"", b"n0\0")
    assert [path for path in world.tree() if path.startswith((HOME, b"/other/"))] == []
    assert world.counts().get(1) is None
    assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"1\0") == b"F\0"


def test_the_root_outlives_its_owner(world: World) -> None:
    """Root and special nodes go back to the privileged domain when their owner dies."""
    dom0 = world.socket()
    world.guest(1)
    assert dom0.setperms(b"/", b"b1") == OK
    assert dom0.setperms(b"@introduceDomain", b"r1") == OK
    world.kill(1)
    assert dom0.getperms(b"/") == [b"b0"]
    assert dom0.getperms(b"@introduceDomain") == [b"r0"]
    assert dom0.ls(b"/") == [b"tool"]


def test_a_new_domain_inherits_nothing_from_an_old_one(world: World) -> None:
    """Neither rights nor target nor quota survive the end of a domain."""
    dom0 = world.socket()
    world.guest(1)
    stub = world.guest(2)
    assert dom0.mkdir(b"/n") == OK
    assert dom0.setperms(b"/n", b"n0", b"r1") == OK
    assert dom0.ask(Msg.SET_TARGET, strings(b"2", b"1")) == OK
    set_quota(world, 1, b"nodes", 3)
    world.kill(1)
    guest = world.guest(1)
    assert guest.read(b"/n") == "EACCES"
    assert dom0.setperms(b"/n", b"n0", b"r1") == OK
    assert stub.read(b"/n") == "EACCES"
    assert dom0.ask(Msg.GET_QUOTA, strings(b"1", b"nodes")) == b"1000\0"
    assert guest.start() == 1


def test_a_domain_that_was_only_named_dies_quietly(world: World) -> None:
    """Its nodes go, but nobody saw it come, so no release is told."""
    dom0 = world.socket()
    world.domains.add(5)
    assert dom0.mkdir(b"/n") == OK
    assert dom0.setperms(b"/n", b"n5") == OK
    assert dom0.watch(b"@releaseDomain", b"t") == OK
    world.kill(5)
    assert (dom0.read(b"/n"), dom0.events()) == ("ENOENT", [])


def test_closing_a_socket_frees_what_it_held(world: World) -> None:
    """Watches and transactions go with the connection."""
    dom0 = world.socket()
    before = world.counts()
    assert dom0.watch(b"/a", b"t") == OK
    dom0.start()
    assert world.counts() != before
    world.close(dom0)
    assert world.counts() == before
