"""Giving up root, as far as it can be tried without doing it."""

from __future__ import annotations

import os

import pytest

from xsd.daemon import config, privileges
from xsd.daemon.faults import ConfigError
from xsd.daemon.privileges import PrivilegesError, User


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs this test says to be root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_who() -> None:
    """A name and its number are the same user; a number without a name has its own group."""
    assert privileges.find("nobody") == User("nobody", 65534, 65534)
    assert privileges.find("65534") == User("65534", 65534, 65534)
    assert privileges.find("64123") == User("64123", 64123, 64123)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no-such-user", "there is no user 'no-such-user': expected a name that this system"),
        (str(privileges.MAX_ID + 1), "there is no user '4294967295'"),
        ("9999999999", "there is no user '9999999999'"),
        ("root", "root has root's rights: expected another user"),
        ("0", "0 has root's rights"),
    ],
)
def test_who_cannot_be(name: str, says: str) -> None:
    """Unknown users and root are refused, each with its reason."""
    with pytest.raises(PrivilegesError, match=says):
        privileges.find(name)


def test_only_root_becomes_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root is told so."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PrivilegesError, match="only root can become nobody: start the daemon as"):
        privileges.find("nobody")


def test_what_is_left_is_found() -> None:
    """The canary: of a process that has given up nothing, all that is wrong is told."""
    nobody = User("nobody", 65534, 65534)
    if os.getuid() != 0:
        pytest.skip("who is not root has nothing to give up")
    found = " ".join(privileges.left_over(nobody))
    assert [name for name in ("Uid", "Gid", "CapPrm", "CapEff") if name not in found] == []


def test_domain_0_must_be_introduced_at_start() -> None:
    """What would need root later is refused before the start."""
    words = ["--user", "nobody", "--no-domain-init"]
    with pytest.raises(ConfigError, match="--user: only root could map domain 0's ring"):
        config.load(words, {}, default_config="/nonexistent")
    config.load([*words, "--no-xen"], {}, default_config="/nonexistent")
