"""The one object that holds the daemon's configuration: frozen, typed, one section per topic.

Nothing here reads a file or knows an option's name.  Every field belongs to exactly one row of
:mod:`xsd.daemon.table` (``SocketSettings.output_limit`` to ``socket.output-limit``), which holds
its default, its range and its help.  So a section cannot be built without naming every field,
and no default can be written down twice.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """The listening unix socket; ``output_limit`` in bytes per connection."""

    enabled: bool
    rundir: str
    path: str
    backlog: int
    output_limit: int


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """How the process lives; ``pid_file`` is empty when none is wanted, ``user`` when it is to
    stay who it is."""

    fork: bool
    pid_file: str
    user: str


@dataclass(frozen=True, slots=True)
class XenSettings:
    """How Xen is reached; ``event_channel`` 0 means "ask ``port_file``", the interval is in
    seconds and negative switches the scan off."""

    enabled: bool
    init_domain_0: bool
    privileged_domid: int
    store_domid: int
    master_domid: int
    event_channel: int
    kva_file: str
    port_file: str
    ring_scan_interval: int


@dataclass(frozen=True, slots=True)
class DomainsSettings:
    """What happens to what a domain leaves behind."""

    keep_orphans: bool


@dataclass(frozen=True, slots=True)
class PermissionsSettings:
    """Whether permissions are tested, for requests and for watch events."""

    active: bool
    watches: bool


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """Limits of an unprivileged domain: the number is what it can have, 0 is no limit.

    ``memory``, ``node_size`` and ``path_max`` are in bytes.  ``active`` switches the tests of
    ``nodes``, ``node_size`` and ``watches``.
    """

    active: bool
    nodes: int
    watches: int
    outstanding: int
    memory: int
    transactions: int
    transaction_nodes: int
    node_permissions: int
    path_max: int
    node_size: int
    transaction_requests: int
    watch_events: int


@dataclass(frozen=True, slots=True)
class SoftQuotaSettings:
    """Figures that are reported when exceeded but not enforced; 0 is none."""

    nodes: int
    watches: int
    outstanding: int
    memory: int
    transactions: int
    transaction_nodes: int
    node_permissions: int
    path_max: int
    node_size: int
    transaction_requests: int
    watch_events: int


@dataclass(frozen=True, slots=True)
class TimeoutSettings:
    """``watch_event``: seconds an event waits for an unprivileged reader; 0 is for ever."""

    watch_event: int


@dataclass(frozen=True, slots=True)
class TransactionSettings:
    """``merge``: replay instead of failing; ``test_eagain``: fail at random, to test clients."""

    merge: bool
    test_eagain: bool


@dataclass(frozen=True, slots=True)
class ConflictSettings:
    """Credit of domains whose writes make transactions of others fail.

    A connection gets priority after ``priority_after`` failures in a row (0: never), and for
    ``priority_seconds`` at most others are held back for it.
    """

    active: bool
    burst_limit: float
    max_history_seconds: float
    rate_limit_is_aggregate: bool
    priority_after: int
    priority_seconds: float


@dataclass(frozen=True, slots=True)
class WriteRateSettings:
    """Limit of writes while transactions are open: what all guests share, what one may save,
    what all together, and for how many newcomers the common reserve may go into debt."""

    active: bool
    writes_per_second: int
    burst: int
    reserve: int
    newcomers: int


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The daemon log: ``file`` is a path, ``stderr`` or ``syslog:<facility>``; empty means
    stderr in the foreground and ``syslog:daemon`` otherwise.  0 for a ``max_*`` is no limit."""

    file: str
    level: str
    max_files: int
    max_lines: int
    max_chars: int


@dataclass(frozen=True, slots=True)
class AccessLogSettings:
    """The access log: ``file`` is a path or ``syslog:<facility>``; there is none if empty or if
    ``active`` is false.  0 for a ``max_*`` is no limit.  ``switches`` are those of the
    ``log`` control command that are on."""

    active: bool
    file: str
    max_files: int
    max_lines: int
    max_chars: int
    read_ops: bool
    transaction_ops: bool
    special_ops: bool
    switches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """``allow_debug``: CONTROL is answered for everybody, not only for privileged callers."""

    allow_debug: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration of one daemon.

    Built by :func:`xsd.daemon.config.load`; complete and checked when it exists.
    """

    socket: SocketSettings
    daemon: DaemonSettings
    xen: XenSettings
    domains: DomainsSettings
    permissions: PermissionsSettings
    quota: QuotaSettings
    quota_soft: SoftQuotaSettings
    timeout: TimeoutSettings
    transaction: TransactionSettings
    conflict: ConflictSettings
    write_rate: WriteRateSettings
    log: LogSettings
    access_log: AccessLogSettings
    control: ControlSettings
