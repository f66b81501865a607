"""Giving up root: the process goes on as another user, with nothing that leads back.

In the order of a start::

    who = privileges.find(name)    # before anything is opened: a mistake is told at once
    privileges.seal()              # before any thread: what the kernel keeps for each of them
    ...                            # open what only root may
    privileges.drop(who)           # for good, and verified

Afterwards the process has no capability at all. Not one is needed: Xen's drivers look at who
opens a device, not at who uses the descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_ID = 2**32 - 2
"""The greatest number of a user; the one above means "leave it as it is"."""

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64
"""More than there are; the kernel says no to those it does not know."""

_EMPTY = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class PrivilegesError(Exception):
    """Root cannot be given up; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class User:
    """Who to become; ``name`` as it was written."""

    name: str
    uid: int
    gid: int


def find(name: str) -> User:
    """The user of this name or number, which may be one without a name.

    Such a one has the group of the same number.  Raises :class:`PrivilegesError` when there is
    none, when it is root, or when we are not root and cannot become anybody.
    """
    number = int(name) if name.isdigit() else -1
    try:
        entry = pwd.getpwuid(number) if number >= 0 else pwd.getpwnam(name)
        user = User(name, entry.pw_uid, entry.pw_gid)
    except (KeyError, OverflowError):
        if not 0 <= number <= MAX_ID:
            raise PrivilegesError(
                f"daemon.user: there is no user {name!r}: expected a name that this system knows, "
                f"or a number from 1 to {MAX_ID}"
            ) from None
        user = User(name, number, number)
    if user.uid == 0 or user.gid == 0:
        raise PrivilegesError(f"daemon.user: {name} has root's rights: expected another user")
    if os.geteuid() != 0:
        raise PrivilegesError(f"daemon.user: only root can become {name}: start the daemon as root")
    return user


def seal() -> None:
    """Sees to it that whatever is given up cannot come back by executing a program.

    For this thread and all that it starts; what it may do itself stays as it is.  Raises
    :class:`PrivilegesError`.
    """
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)
    _prctl("ambient capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(_CAPABILITIES):
        if _libc().prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _prctl("the bounding set, for which CAP_SETPCAP is needed,", _PR_CAPBSET_DROP, number)


def drop(user: User) -> None:
    """Becomes the user, without other groups and capabilities, and makes sure of it.

    Nobody else of that user can look into the process, and no core is written.  Raises
    :class:`PrivilegesError`.
    """
    try:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as failure:
        raise PrivilegesError(
            f"daemon.user: cannot become {user.name}: {failure.strerror}"
        ) from None
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if _libc().capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise PrivilegesError(f"daemon.user: capabilities cannot be given up: {_error()}")
    _prctl("dumpable", _PR_SET_DUMPABLE, 0)
    left = [*_ways_back(), *left_over(user)]
    if left:
        raise PrivilegesError(f"daemon.user: root was not given up: {', '.join(left)}")


def _ways_back() -> Iterator[str]:
    """What should fail and does not."""
    ways: dict[str, Callable[[], None]] = {
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "seteuid": lambda: os.seteuid(0),
        "setegid": lambda: os.setegid(0),
        "setgroups": lambda: os.setgroups([0]),
    }
    for name, way in ways.items():
        with contextlib.suppress(PermissionError):
            way()
            yield f"{name} works"


def left_over(user: User) -> Iterator[str]:
    """What the kernel says of any of our threads that is not as it must be."""
    wanted = {
        "Uid": [str(user.uid)] * 4,
        "Gid": [str(user.gid)] * 4,
        "Groups": [],
        "NoNewPrivs": ["1"],
    } | {name: ["0" * 16] for name in _EMPTY}
    try:
        for thread in Path("/proc/self/task").iterdir():
            said = dict(
                line.split(":", 1) for line in Path(thread, "status").read_text().splitlines()
            )
            for name, words in wanted.items():
                if said[name].split() != words:
                    yield f"{name} is {said[name].strip()!r}"
    except (OSError, KeyError) as failure:
        yield f"/proc/self does not tell ({failure})"


def _prctl(what: str, *words: int) -> None:
    padded = [ctypes.c_ulong(word) for word in (*words, 0, 0, 0)[1:5]]
    if _libc().prctl(words[0], *padded) != 0:
        raise PrivilegesError(f"daemon.user: {what} cannot be set: {_error()}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _error() -> str:
    return os.strerror(ctypes.get_errno())
