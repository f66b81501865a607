"""The quotas by name: their defaults, their other spellings and what they count.

The order is the order in which GET_QUOTA and the control command ``quota`` list them.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_QUOTA = 2**32 - 2
"""The largest quota: 4294967295 is what the protocol refuses."""


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota: ``hard`` and ``soft`` are the defaults, 0 meaning none.

    ``aliases`` are further spellings that are read; ``options`` those of the command line.
    ``oxen`` is the key of ``oxenstored.conf``, where values up to ``oxen_none_at`` mean "no
    limit" (None: no value does).  ``public`` quotas have names that GET_QUOTA of other daemons
    knows; the others are our own.
    """

    name: str
    hard: int
    what: str
    soft: int = 0
    options: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    oxen: str = ""
    oxen_none_at: int | None = None
    public: bool = True


QUOTAS = (
    Quota("nodes", 1000, "Nodes owned by a domain", 0, ("-E", "--entry-nb"), (), "quota-maxentity"),
    Quota("watches", 128, "Watches of a domain", 0, ("-W", "--watch-nb"), (), "quota-maxwatch", 0),
    Quota(
        "outstanding",
        20,
        "Requests of a domain not completely answered",
        0,
        (),
        (),
        "quota-maxoutstanding",
    ),
    Quota("memory", 2_621_440, "Bytes the store keeps for a domain", 2_097_152),
    Quota(
        "transactions",
        10,
        "Open transactions of a domain",
        0,
        ("-t", "--transaction"),
        (),
        "quota-transaction",
        0,
    ),
    Quota("transaction-nodes", 1024, "Nodes accessed in one transaction"),
    Quota(
        "node-permissions",
        5,
        "Permission entries of one node",
        0,
        ("-A", "--perm-nb"),
        ("permissions",),
    ),
    Quota(
        "path-max",
        2048,
        "Length of a path",
        0,
        ("-M", "--path-max"),
        ("path-length",),
        "quota-path-max",
    ),
    Quota("node-size", 2048, "Size of one node", 0, ("-S", "--entry-size"), (), "quota-maxsize"),
    Quota(
        "transaction-requests",
        1024,
        "Requests in one transaction",
        0,
        (),
        (),
        "quota-maxrequests",
        -1,
        False,
    ),
    Quota(
        "watch-events",
        1024,
        "Watch events waiting for one connection",
        0,
        (),
        (),
        "quota-maxwatchevents",
        None,
        False,
    ),
)

BY_NAME = {quota.name: quota for quota in QUOTAS}

NAMES = {spelling: quota.name for quota in QUOTAS for spelling in (quota.name, *quota.aliases)}
"""Every spelling that is read, with the name it stands for."""
