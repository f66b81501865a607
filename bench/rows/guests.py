"""B8, B9, B15: guests on rings, at work, idle and hostile."""

from bench.goals import Goal
from bench.rows.row import Figure, Row, args, cpu, latencies


def _on_rings(mode: str, guests: int, ops: int, more: str = "") -> tuple[str, ...]:
    warm = max(ops // 20, 2 * guests)
    return args(f"{mode} --rings --connections {guests} --ops {ops} --warm {warm} {more}")


def synchronous(ops: int, many: tuple[int, ...]) -> list[Row]:
    """B15: so many guests, one request at a time each."""
    return [
        Row(
            f"B15-{mode}-{guests}",
            f"{guests} guests on rings, one {mode.upper()} at a time each",
            (cpu(Goal(0.5, "peers")), *latencies(Goal(3000) if guests == 256 else None)),
            _on_rings(mode, guests, ops),
            leaves=0,
            curve=f"B15-{mode}",
            n=guests,
        )
        for mode in ("read", "write")
        for guests in many
    ]


def pipelined(ops: int, many: tuple[int, ...]) -> list[Row]:
    """B15p: so many guests, 16 requests at a time each."""
    return [
        Row(
            f"B15p-{mode}-{guests}x16",
            f"{guests} guests on rings, 16 {mode.upper()}s at a time each",
            (cpu(Goal(0.5)), *latencies()),
            _on_rings(mode, guests, ops, "--depth 16"),
            leaves=0,
            curve=f"B15p-{mode}",
            n=guests,
        )
        for mode in ("read", "write")
        for guests in many
    ]


def transactions(ops: int) -> list[Row]:
    """B15t: transactions of guests."""
    return [
        Row(
            "B15t",
            "transaction 2r2w, 16 guests on rings, each on its own nodes",
            (cpu(Goal(8), "ops", "us/tx"), *latencies(Goal(3000))),
            _on_rings("commit", 16, ops // 4),
            leaves=0,
        )
    ]


def beside_idle(ops: int, idle: tuple[int, ...]) -> list[Row]:
    """B15i: one synchronous guest beside so many that do nothing."""
    return [
        Row(
            f"B15i-{n}",
            f"one active guest on a ring, {n} idle ones, READ",
            (cpu(Goal(1.1, "figure", "B15i-0") if n > 0 else None), *latencies()),
            args(f"read --rings --ops {ops} --warm {ops // 20} --idle {n}"),
            leaves=0,
            # Making so many guests takes some peers minutes.
            repeats=1 if n > 1000 else None,
            extra=n > 1000,
            curve="B15i",
            n=n,
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


def agents(guests: int, every_ms: int, burst: int, quiet: int) -> list[Row]:
    """B8: so many guests, each with a burst of WRITEs in each period, and dom0 beside."""
    return [
        Row(
            f"B8-{guests}",
            f"{guests} guests with {burst} WRITEs in {every_ms} ms each, dom0 reads beside",
            (
                *_times_quiet("dom0", "probe_ns", Goal(2)),
                Figure("us", "quiet_probe_ns.p99", scale=1e-3, suffix="dom0-quiet-p99"),
                Figure("us", "probe_ns.p99", scale=1e-3, suffix="dom0-with-p99"),
            ),
            args(
                f"write --rings --connections {guests} --every {every_ms} --burst {burst} "
                f"--ops {guests * burst} --warm {2 * guests} --probe --quiet {quiet}"
            ),
            leaves=0,
        )
    ]


def hostile(ops: int) -> list[Row]:
    """B9: what a guest that means harm does to its neighbour, to dom0, and to memory."""
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
            args(f"read --rings --ops {ops} --quiet {ops} {probe} --hostile {kind}"),
            leaves=0,
            floor=False,
        )
        for name, (kind, probe, what) in kinds.items()
    ]
