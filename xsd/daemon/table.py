"""Every setting in one table: names, spellings, kind, default, help.

From these rows come both readers of configuration files, the command line, ``--help`` and
``--print-config``.  A row's ``name`` is ``section.key`` of the TOML file; the same with
underscores is the field of :class:`xsd.daemon.settings.Settings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xsd.daemon.kinds import Bool, Choice, Float, Int, Kind, Target, User, Value, Words
from xsd.daemon.quotas import MAX_QUOTA, NAMES, QUOTAS

MAX_DOMID = 0x7FEF
"""The largest id a domain can have; those above are reserved."""

ACCESS_SWITCHES = ("obj", "io", "wrl", "acc", "tdb")
"""What the control command ``log`` and ``--trace-control`` switch."""

DEFAULT_CONFIG = "/etc/xen/xsd.toml"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting.

    ``options`` are its spellings on the command line; they take an argument named ``metavar``
    or, if ``flag`` is not None, none, and set that value.  ``oxen`` is its key in
    ``oxenstored.conf``, read by ``oxen_kind`` where that file's values mean something else.
    ``env`` is an environment variable that sets it, ``aliases`` further keys in the TOML file.
    ``option_help`` is for ``--help`` where ``help`` only makes sense in the file.
    """

    name: str
    kind: Kind
    default: Value
    help: str
    options: tuple[str, ...] = ()
    metavar: str = "N"
    flag: Value | None = None
    oxen: str = ""
    oxen_kind: Kind | None = None
    env: str = ""
    aliases: tuple[str, ...] = ()
    option_help: str = ""

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]

    @property
    def key(self) -> str:
        return self.name.partition(".")[2]


SECTIONS = {
    "socket": "The unix socket that clients in this domain use.",
    "daemon": "The process.",
    "xen": "How Xen is reached.",
    "domains": "Domains that are gone.",
    "permissions": "Both are for experiments: without them guests are not kept apart.",
    "quota": (
        "What one unprivileged domain can have: 1000 nodes means that the 1000th succeeds. "
        "0 is no limit."
    ),
    "quota-soft": "The same figures, only reported when exceeded. 0 is none.",
    "timeout": "",
    "transaction": "",
    "conflict": (
        "Domains whose writes make transactions of others fail lose credit, and are not served "
        "while they have none."
    ),
    "write-rate": "The other protection: a limit of writes while transactions are open.",
    "log": "What the daemon says about itself.",
    "access-log": "What clients did.",
    "control": "",
}

_TEXT_NUMBER = 10**9
_LEVELS = ("debug", "info", "warn", "error", "null")


def _log_rows(section: str, oxen: str, files: int, chars: int) -> Iterator[Row]:
    limits = (
        ("files", files, "Number of files kept when the log is rotated, this one included."),
        ("lines", 13215, "Lines after which the log is rotated. 0: never."),
        ("chars", chars, "Length to which lines are cut, line end included. 0: no limit."),
    )
    for word, default, text in limits:
        low = 1 if word == "files" else 0
        yield Row(
            f"{section}.max-{word}",
            Int(low, _TEXT_NUMBER),
            default,
            text,
            oxen=f"{oxen}-nb-{word}",
            oxen_kind=Int(1, _TEXT_NUMBER, None if word == "files" else 0),
        )


def _quota_rows() -> Iterator[Row]:
    for quota in QUOTAS:
        yield Row(
            f"quota.{quota.name}",
            Int(0, MAX_QUOTA),
            quota.hard,
            quota.what + ".",
            quota.options,
            oxen=quota.oxen,
            oxen_kind=Int(1, MAX_QUOTA, quota.oxen_none_at),
            aliases=quota.aliases,
        )
    for quota in QUOTAS:
        yield Row(
            f"quota-soft.{quota.name}",
            Int(0, MAX_QUOTA),
            quota.soft,
            quota.what + ".",
            aliases=quota.aliases,
        )


def _rows() -> Iterator[Row]:
    yield Row(
        "socket.enabled",
        Bool(),
        True,
        "Whether there is one.",
        ("--disable-socket",),
        flag=False,
        option_help="No unix socket: serve domains only.",
    )
    yield Row(
        "socket.rundir",
        Target(),
        "/run/xenstored",
        "Directory for what exists at run time.",
        ("--rundir",),
        "DIR",
        env="XENSTORED_RUNDIR",
    )
    yield Row(
        "socket.path",
        Target(("",)),
        "",
        "The socket. Empty: 'socket' in rundir.",
        ("--socket",),
        "PATH",
        env="XENSTORED_PATH",
    )
    yield Row("socket.backlog", Int(1, 65535), 128, "Connections waiting to be accepted.")
    yield Row(
        "socket.output-limit",
        Int(65536, 2**31 - 1),
        4 << 20,
        "Bytes of output that may wait for one client before it is disconnected.",
    )

    yield Row(
        "daemon.fork",
        Bool(),
        True,
        "Go to the background when ready.",
        ("-N", "--no-fork"),
        flag=False,
        option_help="Stay in the foreground.",
    )
    yield Row(
        "daemon.pid-file",
        Target(("", "none")),
        "",
        "File for the process id. Empty: 'xenstored.pid' in rundir; none: no such file.",
        ("-F", "--pid-file"),
        "FILE",
        oxen="pid-file",
    )
    yield Row(
        "daemon.user",
        User(),
        "",
        "User to become, a name or a number, once all that needs root is open. Empty: nobody else.",
        ("--user",),
        "USER",
        option_help="Become this user, by name or number, once all that needs root is open.",
    )

    yield Row(
        "xen.enabled",
        Bool(),
        True,
        "Serve domains; without, only the socket.",
        ("--no-xen",),
        flag=False,
        option_help="Serve the socket only and touch nothing of Xen.",
    )
    yield Row(
        "xen.init-domain-0",
        Bool(),
        True,
        "Introduce domain 0 at start.",
        ("-D", "--no-domain-init"),
        flag=False,
        option_help="Do not introduce domain 0 at start.",
    )
    yield Row(
        "xen.privileged-domid",
        Int(0, MAX_DOMID),
        0,
        "The domain that may do everything.",
        ("--priv-domid",),
        "DOMID",
    )
    yield Row(
        "xen.store-domid",
        Int(0, MAX_DOMID),
        0,
        "The domain this daemon runs in.",
        ("--store-domid",),
        "DOMID",
    )
    yield Row(
        "xen.master-domid",
        Int(0, MAX_DOMID),
        0,
        "The domain whose ring is handed over at start.",
        ("--master-domid",),
        "DOMID",
    )
    yield Row(
        "xen.event-channel",
        Int(0, 2**31 - 1),
        0,
        "Event channel of that ring. 0: as port-file says.",
        ("--event",),
    )
    yield Row(
        "xen.kva-file",
        Target(),
        "/proc/xen/xsd_kva",
        "Where domain 0's ring is mapped.",
        oxen="xenstored-kva",
    )
    yield Row(
        "xen.port-file",
        Target(),
        "/proc/xen/xsd_port",
        "Where the event channel of that ring is read.",
        oxen="xenstored-port",
    )
    yield Row(
        "xen.ring-scan-interval",
        Int(-1, 86400),
        20,
        "Seconds between looks at rings that did not notify. -1: never.",
        oxen="ring-scan-interval",
        oxen_kind=Int(-(2**31), 86400),
    )

    yield Row(
        "domains.keep-orphans",
        Bool(),
        False,
        "Keep nodes whose owner is gone (a security risk: domain ids are used again).",
        ("-K", "--keep-orphans"),
        flag=True,
    )

    yield Row(
        "permissions.active", Bool(), True, "Test permissions of nodes.", oxen="perms-activate"
    )
    yield Row(
        "permissions.watches",
        Bool(),
        True,
        "Send a watch event only to those who may read the node.",
        oxen="perms-watch-activate",
    )

    yield Row(
        "quota.active", Bool(), True, "Test nodes, node-size and watches.", oxen="quota-activate"
    )
    yield from _quota_rows()

    yield Row(
        "timeout.watch-event",
        Int(0, 86400),
        20,
        "Seconds a watch event waits for an unprivileged domain. 0: for ever.",
    )

    yield Row(
        "transaction.merge",
        Bool(),
        True,
        "Run a transaction again on the current tree before it is failed.",
        oxen="merge-activate",
    )
    yield Row(
        "transaction.test-eagain",
        Bool(),
        False,
        "Fail transactions at random, to test clients.",
        oxen="test-eagain",
    )

    yield Row("conflict.active", Bool(), True, "Whether this is done.")
    yield Row(
        "conflict.burst-limit",
        Float(0, 1e6),
        5.0,
        "Credit at first, and at most.",
        oxen="conflict-burst-limit",
    )
    yield Row(
        "conflict.max-history-seconds",
        Float(0, 3600),
        0.05,
        "How old a protected transaction can be, and how often one credit comes back.",
        oxen="conflict-max-history-seconds",
    )
    yield Row(
        "conflict.rate-limit-is-aggregate",
        Bool(),
        True,
        "One credit for the first domain in the queue; false: one for each domain.",
        oxen="conflict-rate-limit-is-aggregate",
    )

    yield Row(
        "conflict.priority-after",
        Int(0, 1_000_000),
        8,
        "Failures in a row after which a connection's next transaction has priority; 0: never.",
    )
    yield Row(
        "conflict.priority-seconds",
        Float(0, 60),
        0.2,
        "How long at most others are held back for a transaction with priority.",
    )

    yield Row("write-rate.active", Bool(), False, "Whether this is done.")
    yield Row(
        "write-rate.writes-per-second", Int(1, 1_000_000), 200, "What all guests earn together."
    )
    yield Row("write-rate.burst", Int(1, 1_000_000), 10, "Writes that one guest can save.")
    yield Row("write-rate.reserve", Int(0, 1_000_000), 1000, "Writes saved by all together.")
    yield Row(
        "write-rate.newcomers",
        Int(0, 1_000_000),
        5,
        "New guests that are equipped even when nothing has been saved.",
    )

    yield Row(
        "log.file",
        Target(("", "stderr"), syslog=True),
        "",
        "Empty: stderr in the foreground, syslog:daemon in the background.",
        ("--log-file",),
        "FILE",
        oxen="xenstored-log-file",
        option_help="The daemon log: a file, stderr, or syslog:<facility>.",
    )
    yield Row(
        "log.level",
        Choice(_LEVELS),
        "info",
        "What is worth a line; null: nothing.",
        ("--log-level",),
        "LEVEL",
        oxen="xenstored-log-level",
        option_help="What is worth a line in the daemon log: debug, info, warn, error, null.",
    )
    yield from _log_rows("log", "xenstored-log", 10, 0)

    yield Row(
        "access-log.active",
        Bool(),
        True,
        "Write it, if file names a place.",
        ("--no-access-log",),
        flag=False,
        option_help="No access log, whatever the configuration file says.",
    )
    yield Row(
        "access-log.file",
        Target(("",), syslog=True),
        "",
        "Empty: no access log.",
        ("--access-log",),
        "FILE",
        oxen="access-log-file",
        option_help="The access log: a file or syslog:<facility>; without, none is kept.",
    )
    yield from _log_rows("access-log", "access-log", 20, 180)
    yield Row(
        "access-log.read-ops", Bool(), False, "With what was read.", oxen="access-log-read-ops"
    )
    yield Row(
        "access-log.transaction-ops",
        Bool(),
        False,
        "With starts and ends of transactions.",
        oxen="access-log-transactions-ops",
    )
    yield Row(
        "access-log.special-ops",
        Bool(),
        False,
        "With introductions, releases and the like.",
        oxen="access-log-special-ops",
    )
    yield Row(
        "access-log.switches",
        Words(ACCESS_SWITCHES),
        ("obj", "io"),
        "Topics: obj (connections), io (requests), wrl (credit), acc (quotas), tdb (tree).",
    )

    yield Row(
        "control.allow-debug",
        Bool(),
        False,
        "Answer control commands of every domain.",
        oxen="allow-debug",
    )


ROWS = tuple(_rows())

BY_NAME = {row.name: row for row in ROWS}

BY_OXEN = {row.oxen: row for row in ROWS if row.oxen}

DEFAULTS: dict[str, Value] = {row.name: row.default for row in ROWS}


def quota_row(section: str, spelling: str) -> Row | None:
    """The row of a quota by any of its spellings; ``section`` is quota or quota-soft."""
    name = NAMES.get(spelling)
    return BY_NAME[f"{section}.{name}"] if name else None
