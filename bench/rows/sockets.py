"""B1, B1n, B2, B2i, B11: clients on sockets."""

from bench.goals import Goal
from bench.rows.row import Figure, Row, args, cpu, latencies

_CASES = {
    "read-1": ("one-read --value 1", "READ of 1 byte"),
    "read-2000": ("one-read --value 2000", "READ of 2000 bytes"),
    "write-1": ("one-write --value 1", "WRITE of 1 byte"),
    "write-2000": ("one-write --value 2000", "WRITE of 2000 bytes"),
    "dir": ("ten-list", "DIRECTORY of ten children"),
    "rm-node": ("one-rm", "a node written and removed"),
    "rm-dir": ("ten-rm", "a directory of ten nodes written and removed"),
    "ta-empty": ("nothing", "an empty transaction"),
    "ta-empty-x": ("abort", "the same, aborted"),
    "ta-rmw": ("change", "a transaction that reads and writes"),
    "ta-rmw-x": ("change-abort", "the same, aborted"),
    "ta-err": ("conflict", "a transaction that must fail"),
}
"""What Debian's test-xenstore does, by the names that it has there."""


def synchronous(leaves: int, ops: int, case_ops: int) -> list[Row]:
    """B1: one request at a time."""
    common = f"--ops {ops} --warm {ops // 20} --nodes {leaves}"
    rows = [
        Row(
            f"B1-{mode}",
            f"one synchronous client, {mode.upper()}",
            (cpu(Goal(1.15, "floor")), *latencies()),
            args(f"{mode} {common}"),
            leaves=leaves,
        )
        for mode in ("read", "write")
    ]
    rows += [
        Row(
            f"B1-{name}",
            f"one synchronous client, {what}",
            (cpu(Goal(1.15, "floor")),),
            args(f"{mode} --path /bench/one --ops {case_ops} --warm {case_ops // 20}"),
        )
        for name, (mode, what) in _CASES.items()
    ]
    return rows


def many(leaves: int, ops: int, counts: tuple[int, ...]) -> list[Row]:
    """B1n: so many synchronous clients."""
    return [
        Row(
            f"B1n-{n}",
            f"{n} synchronous clients, READ",
            (cpu(Goal(1.2, "floor")), *latencies(Goal(1, "peers"))),
            args(f"read --ops {ops} --warm {4 * n} --nodes {leaves} --connections {n}"),
            leaves=leaves,
            curve="B1n",
            n=n,
        )
        for n in counts
    ]


def pipelined(leaves: int, ops: int, shapes: tuple[tuple[int, int], ...]) -> list[Row]:
    """B2: so many clients with so many requests under way each."""
    return [
        Row(
            f"B2-{mode}-{clients}x{depth}",
            f"pipelined {clients}x{depth}, {mode.upper()}, tree of {leaves}",
            (cpu(Goal(0.5)),),
            args(
                f"{mode} --ops {ops} --warm {max(ops // 20, clients * depth)} --nodes {leaves} "
                f"--connections {clients} --depth {depth}"
            ),
            leaves=leaves,
        )
        for clients, depth in shapes
        for mode in ("read", "write", "directory", "perms")
    ]


def beside_idle(leaves: int, ops: int, idle: tuple[int, ...]) -> list[Row]:
    """B2i: one synchronous client beside so many that do nothing."""
    return [
        Row(
            f"B2i-{n}",
            f"one active client, {n} idle connections, READ (cut at 8 s)",
            (cpu(Goal(1.1, "figure", "B2i-0") if n > 0 else None),),
            args(f"read --ops {ops} --warm {min(ops // 20, 100)} --nodes {leaves} --idle {n}"),
            leaves=leaves,
            limit_s=8,
            # One of the peers takes half a minute to accept as many.
            repeats=1 if n > 1_000 else None,
            extra=n > 1_000,
            curve="B2i",
            n=n,
        )
        for n in idle
    ]


def short_lived(ops: int, watches: int, idle: int, crowd: int) -> list[Row]:
    """B11: connect, one READ, close; alone, among so many watches or idle ones, or all at once.

    Peers may take 10 ms for each client, so they are cut short; `flat` is the same figure beside
    that of clients who are alone.
    """
    alone = cpu(Goal(1, "peers"), "ops", "us/client")
    goal = Goal(1.2, "figure", "B11-0")
    flat = Figure(alone.unit, alone.field, alone.per, alone.scale, "flat", goal)
    among = (
        (str(watches), f"{watches} watches around", f"churn --ops {ops} --watches {watches}"),
        ("idle", f"{idle} idle connections", f"churn --ops {ops} --idle {idle}"),
        ("crowd", f"{crowd} open at once", f"crowd --ops {crowd}"),
    )
    return [
        Row(
            "B11-0",
            "connect, one READ, close; nothing else (cut at 8 s)",
            (alone, *latencies()),
            args(f"churn --ops {ops}"),
            limit_s=8,
        ),
        *(
            Row(
                f"B11-{name}",
                f"connect, one READ, close; {what} (cut at 10 s)",
                (alone, flat, *latencies()),
                args(words),
                limit_s=10,
                repeats=1,
                # One of the peers takes minutes to accept so many.
                extra=name == "idle",
            )
            for name, what, words in among
        ),
    ]
