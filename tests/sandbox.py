"""Runs a command with what a unit file takes away, as far as that needs no service manager.

    python sandbox.py UNIT-FILE COMMAND [ARGUMENT...]

Of the unit's settings: SystemCallFilter=, MemoryDenyWriteExecute=, RestrictAddressFamilies=,
NoNewPrivileges= and, for root, CapabilityBoundingSet=. Needs libseccomp and systemd-analyze.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIBSECCOMP = "libseccomp.so.2"
CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_SYS_ADMIN": 21,
}

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_PROT_WRITE, _PROT_EXEC, _SHM_EXEC = 2, 4, 0o100000
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def settings(unit: str) -> dict[str, list[str]]:
    """All words that a unit file gives to each key."""
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            found.setdefault(key, []).extend(value.split(" "))
    return found


def system_calls(words: Sequence[str]) -> set[str]:
    """What a SystemCallFilter= allows, groups and exceptions resolved."""
    allowed: set[str] = set()
    taken = False
    for word in words:
        taken = word.startswith("~") or (taken and word.startswith("@"))
        names = _members(word.removeprefix("~"))
        allowed = allowed - names if taken else allowed | names
    return allowed


def _members(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    members = [line.strip() for line in listed.splitlines()[1:]]
    return {
        each for word in members if word and not word.startswith("#") for each in _members(word)
    }


class _Filter:
    """A seccomp filter in the making."""

    def __init__(self, otherwise: int) -> None:
        self._lib = ctypes.CDLL(LIBSECCOMP)
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._filter = ctypes.c_void_p(self._lib.seccomp_init(ctypes.c_uint32(otherwise)))

    def rule(self, action: int, call: str, *comparison: int) -> None:
        """Adds a rule for a system call, if this machine has it."""
        number = self._lib.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        compared = _Comparison(*comparison)
        done = self._lib.seccomp_rule_add_array(
            self._filter,
            ctypes.c_uint32(action),
            number,
            1 if comparison else 0,
            ctypes.byref(compared),
        )
        assert done == 0, (call, done)

    def load(self) -> None:
        """Applies it to this process and all that come of it."""
        assert self._lib.seccomp_load(self._filter) == 0


def enter(unit: str) -> None:
    """Takes away from this process what the unit takes away; there is no way back."""
    said = settings(unit)
    libc = ctypes.CDLL(None, use_errno=True)
    kept = {CAPABILITIES[name] for name in said["CapabilityBoundingSet"]}
    calls = system_calls(said["SystemCallFilter"])
    if os.geteuid() == 0:
        for number in range(64):
            if number not in kept and libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
                assert libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0
    assert said["NoNewPrivileges"] == said["MemoryDenyWriteExecute"] == ["yes"]
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0

    refused = _Filter(_ALLOW)
    no = _ERRNO | errno.EPERM
    both = _PROT_WRITE | _PROT_EXEC
    refused.rule(no, "mmap", 2, _MASKED_EQUAL, both, both)
    for call in ("mprotect", "pkey_mprotect"):
        refused.rule(no, call, 2, _MASKED_EQUAL, _PROT_EXEC, _PROT_EXEC)
    refused.rule(no, "shmat", 2, _MASKED_EQUAL, _SHM_EXEC, _SHM_EXEC)
    assert said["RestrictAddressFamilies"] == ["AF_UNIX"]
    refused.rule(_ERRNO | errno.EAFNOSUPPORT, "socket", 0, _NOT_EQUAL, socket.AF_UNIX, 0)
    refused.load()

    allowed = _Filter(_ERRNO | getattr(errno, said["SystemCallErrorNumber"][0]))
    for call in sorted(calls):
        allowed.rule(_ALLOW, call)
    allowed.load()


def main(words: Sequence[str]) -> None:
    """Becomes the command."""
    unit, *command = words
    enter(Path(unit).read_text(encoding="utf-8"))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
