"""The rows: what is measured, in which tree, with which goal. Data only; `run` does the work.

A row is one pattern of load. It gives one or more figures; each has a goal or none. Sizes come
from a scale: `tiny` runs everything in seconds and measures nothing, `normal` is the usual run,
`full` adds the sizes that take minutes.
"""

from bench.goals import Goal
from bench.rows.row import EMPTY as _EMPTY
from bench.rows.row import Figure, Kind, Row, Scale, create
from bench.rows.row import args as _args
from bench.rows.row import cpu as _cpu
from bench.rows.row import latencies as _latencies

__all__ = ["Figure", "Goal", "Kind", "Row", "Scale", "create", "rows"]

_NO_WIDE = _args("rm --path /bench/w --ops 1")


def _create(leaves: int) -> str:
    return " ".join(create(leaves))


def _memory(leaves: int) -> list[Row]:
    return [
        Row(
            "B13-idle",
            "memory, idle",
            (Figure("MB", "rss_bytes", scale=1e-6, goal=Goal(30)),),
            floor=False,
            repeats=1,
        ),
        Row(
            "B13-node",
            f"memory per node, {leaves} leaves of 16 B",
            (Figure("B/node", "rss_growth_bytes", "tree_nodes", goal=Goal(120)),),
            _args(_create(leaves)),
            before=(_EMPTY,),
            floor=False,
            repeats=1,
        ),
        Row(
            "B13-left",
            "memory above the start, after RM",
            (Figure("MB", "rss_above_start_bytes", scale=1e-6),),
            _EMPTY,
            floor=False,
            repeats=1,
        ),
    ]


def _transactions(label: str, leaves: int, ops: int, many: int) -> list[Row]:
    flat = Goal(1.2, "figure", "B16-1e3") if label != "1e3" else None
    extra = label == "1e6"
    commit = f"commit --nodes {leaves} --warm {ops // 20}"
    return [
        Row(
            f"B16-{label}",
            f"transaction start and abort, 16 at once, tree of {leaves}",
            (_cpu(flat, "ops", "us/tx"),),
            _args(f"abort --depth 16 --ops {many} --nodes {leaves}"),
            leaves=leaves,
            extra=extra,
        ),
        Row(
            f"B5t-{label}",
            f"transaction 2r2w, one synchronous client, tree of {leaves}",
            (_cpu(Goal(1.2, "floor"), "ops", "us/tx"),),
            _args(f"{commit} --ops {ops}"),
            leaves=leaves,
            extra=extra,
        ),
        Row(
            f"B5t-{label}-x16",
            f"transaction 2r2w, 16 at once on one connection, tree of {leaves}",
            (_cpu(Goal(4), "ops", "us/tx"),),
            _args(f"{commit} --depth 16 --keys own --ops {many}"),
            leaves=leaves,
            extra=extra,
        ),
    ]


def _synchronous(leaves: int, ops: int, many: tuple[int, ...]) -> list[Row]:
    common = f"--ops {ops} --warm {ops // 20} --nodes {leaves}"
    rows = [
        Row(
            f"B1-{mode}",
            f"one synchronous client, {mode.upper()}",
            (_cpu(Goal(1.2, "floor")),),
            _args(f"{mode} {common}"),
            leaves=leaves,
        )
        for mode in ("read", "write")
    ]
    rows += [
        Row(
            f"B1n-{clients}",
            f"{clients} synchronous clients, READ",
            (
                _cpu(Goal(1.2, "floor")),
                Figure("us", "latency_ns.p99", None, 1e-3, "p99", Goal(1, "peers")),
            ),
            _args(
                f"read --ops {ops} --warm {4 * clients} --nodes {leaves} --connections {clients}"
            ),
            leaves=leaves,
            extra=clients > 256,
        )
        for clients in many
    ]
    return rows


def _pipelined(leaves: int, ops: int) -> list[Row]:
    shapes = {"1x32": "--connections 1 --depth 32", "16x16": "--connections 16 --depth 16"}
    return [
        Row(
            f"B2-{mode}-{shape}",
            f"pipelined {shape}, {mode.upper()}, tree of {leaves}",
            (_cpu(Goal(0.6)),),
            _args(f"{mode} --ops {ops} --warm {ops // 20} --nodes {leaves} {options}"),
            leaves=leaves,
        )
        for shape, options in shapes.items()
        for mode in ("read", "write", "directory", "perms")
    ]


def _beside(leaves: int, ops: int, idle: tuple[int, ...], watches: int, churn: int) -> list[Row]:
    common = f"--ops {ops} --warm {ops // 20} --nodes {leaves}"
    rows = [
        Row(
            f"B2i-{n}",
            f"one active client, {n} idle connections, READ",
            (_cpu(Goal(1.1, "figure", "B2i-0") if n > 0 else None),),
            _args(f"read {common} --idle {n}"),
            leaves=leaves,
        )
        for n in idle
    ]
    rows += [
        Row(
            f"B6-{n}",
            f"one synchronous writer, {n} unrelated watches",
            (_cpu(Goal(1.2, "figure", "B6-0") if n > 0 else None),),
            _args(f"write {common} --watches {n}"),
            leaves=leaves,
        )
        for n in (0, watches)
    ]
    rows += [
        Row(
            f"B11-{n}",
            f"connect, one READ, close; {n} watches around",
            (_cpu(Goal(1, "peers"), "ops", "us/client"),),
            # Among many watches a peer takes 10 ms for each client.
            _args(f"churn --ops {churn if n == 0 else churn // 6} --watches {n}"),
        )
        for n in (0, watches)
    ]
    return rows


def _sharing(leaves: int, ops: int, same: int) -> list[Row]:
    commit = f"commit --connections 16 --nodes {leaves}"
    retries = Figure("1", "retries", "ops", suffix="retries")
    return [
        Row(
            "B5t-own",
            "transaction 2r2w, 16 clients, each on its own nodes",
            (_cpu(Goal(1.2, "floor"), "ops", "us/tx"), retries),
            _args(f"{commit} --keys own --ops {ops}"),
            leaves=leaves,
        ),
        Row(
            "B5t-same",
            "transaction 2r2w, 16 clients, all on the same nodes",
            (_cpu(None, "ops", "us/tx"), retries),
            _args(f"{commit} --keys same --ops {same}"),
            leaves=leaves,
        ),
    ]


def _growth(leaves: int) -> list[Row]:
    return [
        Row(
            "B3-create",
            f"create {leaves} nodes, pipelined x32",
            (_cpu(Goal(2), "ops", "us/node"),),
            _args(_create(leaves)),
            before=(_EMPTY,),
            leaves=None,
        ),
        Row(
            "B3-remove",
            f"RM of {leaves} nodes beside a synchronous reader",
            (
                Figure("ms", "probe_ns.max", scale=1e-6, suffix="pause", goal=Goal(1)),
                Figure("ms", "latency_ns.max", scale=1e-6, suffix="reply"),
            ),
            _args("rm --path /bench/t --ops 1 --probe"),
            before=(_EMPTY, _args(_create(leaves))),
            floor=False,
        ),
    ]


def _wide(widths: tuple[int, ...], ops: int) -> list[Row]:
    rows = [
        Row(
            f"B3w-{width}",
            f"MKDIR and RM in a directory of {width} children",
            (_cpu(Goal(2, "figure", f"B3w-{widths[0]}") if width > widths[0] else None),),
            _args(f"mkdir-rm --depth 16 --ops {ops}"),
            prepare=(_NO_WIDE, _args(f"flat --ops {width} --depth 16")),
        )
        for width in widths
    ]
    rows.append(
        Row(
            "B3w-list",
            f"list a directory of {widths[-1]} children",
            (Figure("ns/name", "server_cpu_ns", "names"),),
            _args("list --ops 5"),
            prepare=(_NO_WIDE, _args(f"flat --ops {widths[-1]} --depth 16")),
            floor=False,
        )
    )
    return rows


def _storms(machines: tuple[int, ...], clients: tuple[int, ...]) -> list[Row]:
    goals = {300: 150.0, 1000: 500.0}
    retries = Figure("1", "retries", suffix="retries")
    rows = [
        Row(
            f"B4-{n}",
            f"{n} simulated machines start and stop at once",
            (
                Figure(
                    "ms", "server_cpu_ns", None, 1e-6, goal=Goal(goals[n]) if n in goals else None
                ),
                retries,
            ),
            _args(f"storm --depth {n} --ops {n} --window"),
            before=(_EMPTY,),
            leaves=0,
            repeats=1,
            extra=n > 10,
        )
        for n in machines
    ]
    rows += [
        Row(
            f"B5-{n}",
            f"{n} clients create siblings in transactions at once",
            (
                Figure("ms", "server_cpu_ns", None, 1e-6, goal=Goal(2) if n == 50 else None),
                retries,
            ),
            _args(f"siblings --connections {n} --ops {n}"),
            leaves=0,
            extra=n > 50,
        )
        for n in clients
    ]
    return rows


def _rings(ops: int, many: tuple[int, ...], pipelined: tuple[int, ...]) -> list[Row]:
    def args(mode: str, count: int, more: str, per: int = 1) -> tuple[str, ...]:
        warm = max(ops // 20, 2 * count)
        return _args(
            f"{mode} --rings --connections {count} --ops {ops // per} --warm {warm} {more}"
        )

    rows = [
        Row(
            f"B15-{mode}-{guests}",
            f"{guests} guests on rings, one {mode.upper()} at a time each",
            (
                _cpu(Goal(0.5, "peers")),
                *_latencies(Goal(3000) if guests == 256 else None),
            ),
            args(mode, guests, ""),
            leaves=0,
        )
        for mode in ("read", "write")
        for guests in many
    ]
    rows += [
        Row(
            f"B15p-{mode}-{guests}x16",
            f"{guests} guests on rings, 16 {mode.upper()}s at a time each",
            (_cpu(Goal(0.5)), *_latencies()),
            args(mode, guests, "--depth 16"),
            leaves=0,
        )
        for mode in ("read", "write")
        for guests in pipelined
    ]
    rows.append(
        Row(
            "B15t",
            "transaction 2r2w, 16 guests on rings, each on its own nodes",
            (_cpu(Goal(8), "ops", "us/tx"), *_latencies(Goal(3000))),
            args("commit", 16, "", per=4),
            leaves=0,
        )
    )
    return rows


def _idle_rings(ops: int, idle: tuple[int, ...]) -> list[Row]:
    return [
        Row(
            f"B15i-{n}",
            f"one active guest on a ring, {n} idle ones, READ",
            (_cpu(Goal(1.1, "figure", "B15i-0") if n > 0 else None), *_latencies()),
            _args(f"read --rings --ops {ops} --warm {ops // 20} --idle {n}"),
            leaves=0,
            # Making so many guests takes some peers minutes.
            repeats=1 if n > 1000 else None,
            extra=n > 1000,
        )
        for n in idle
    ]


def _times_quiet(who: str, field: str, goal: Goal | None) -> tuple[Figure, ...]:
    def figure(percentile: str, aim: Goal | None) -> Figure:
        return Figure(
            "x quiet",
            f"{field}.{percentile}",
            f"quiet_{field}.{percentile}",
            suffix=f"{who}-{percentile}",
            goal=aim,
        )

    return figure("p50", None), figure("p99", goal)


def _agents(agents: int, every_ms: int, burst: int, quiet: int) -> list[Row]:
    return [
        Row(
            f"B8-{agents}",
            f"{agents} guests with {burst} WRITEs in {every_ms} ms each, dom0 reads beside",
            (
                *_times_quiet("dom0", "probe_ns", Goal(2)),
                Figure("us", "quiet_probe_ns.p99", scale=1e-3, suffix="dom0-quiet-p99"),
                Figure("us", "probe_ns.p99", scale=1e-3, suffix="dom0-with-p99"),
            ),
            _args(
                f"write --rings --connections {agents} --every {every_ms} --burst {burst} "
                f"--ops {agents * burst} --warm {2 * agents} --probe --quiet {quiet}"
            ),
            leaves=0,
        )
    ]


def _hostile(ops: int) -> list[Row]:
    kinds = {
        "flood": ("flood", "--probe", "writes without end"),
        "deaf": ("deaf", "--probe", "watches, writes, and takes no reply"),
        "indices": ("indices", "--probe", "breaks its ring each time it is introduced"),
        "watches": ("watches", "--probe", "asks for 10000 watches and writes what they watch"),
        "rewrite": ("flood", "--probe-tx", "rewrites what a transaction of dom0 reads"),
    }
    return [
        Row(
            f"B9-{name}",
            f"a hostile guest {what}; a neighbour and dom0 read beside",
            (
                *_times_quiet("neighbour", "latency_ns", Goal(2)),
                *_times_quiet("dom0", "probe_ns", Goal(2)),
                Figure("MB", "rss_under_load_bytes", scale=1e-6, suffix="memory", goal=Goal(3)),
            ),
            _args(f"read --rings --ops {ops} --quiet {ops} {probe} --hostile {kind}"),
            leaves=0,
            floor=False,
        )
        for name, (kind, probe, what) in kinds.items()
    ]


def rows(scale: Scale) -> tuple[Row, ...]:
    """All rows of a scale in the order of execution: memory first, then tree by tree."""
    if scale == "tiny":
        tree, churn, watches = 200, 20, 50
        idle: tuple[int, ...] = (0, 5, 10)
        return (
            *_memory(300),
            *_transactions("1e3", 100, 40, 64),
            *_transactions("1e5", 300, 40, 64),
            *_synchronous(tree, 100, (4, 8)),
            *_pipelined(tree, 512),
            *_beside(tree, 100, idle, watches, churn),
            *_sharing(tree, 64, 32),
            *_growth(300),
            *_wide((10, 100), 64),
            *_storms((3,), (5,)),
            *_rings(200, (1, 4), (1, 4)),
            *_idle_rings(50, (0, 5)),
            *_agents(5, 50, 2, 20),
            *_hostile(50),
        )
    tree, ops = 20_000, 20_000
    return (
        *_memory(100_000),
        *_transactions("1e3", 1_000, 3_000, 20_000),
        *_transactions("1e5", 100_000, 3_000, 20_000),
        *_transactions("1e6", 1_000_000, 3_000, 20_000),
        *_synchronous(tree, ops, (16, 256, 1000)),
        *_pipelined(tree, 100_000),
        *_beside(tree, 5_000, (0, 100, 1000), 20_000, 3_000),
        *_sharing(tree, 3_000, 320),
        *_growth(50_000),
        *_wide((10, 100, 1_000, 10_000, 30_000), 5_000),
        *_storms((10, 100, 300, 1000), (50, 200, 1000)),
        *_rings(ops, (1, 16, 256), (1, 100, 256, 1000)),
        *_idle_rings(5_000, (0, 100, 1000, 4000)),
        *_agents(500, 5_000, 20, 5_000),
        *_hostile(5_000),
    )
