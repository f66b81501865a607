"""B6, B7: watches that must cost nothing, and watches that must fire."""

from bench.goals import Goal
from bench.rows.row import Figure, Row, args, cpu


def unrelated(leaves: int, ops: int, counts: tuple[int, ...]) -> list[Row]:
    """B6: a writer beside so many watches on what it does not write."""
    return [
        Row(
            f"B6-{n}",
            f"one synchronous writer, {n} unrelated watches (cut at 8 s)",
            (cpu(Goal(1.2, "figure", f"B6-{counts[0]}") if n != counts[0] else None),),
            args(f"write --ops {ops} --warm {ops // 20} --nodes {leaves} --watches {n}"),
            leaves=leaves,
            limit_s=8,
            repeats=1 if n > 10_000 else None,
            # What placing them takes grows with the square for one of the peers.
            extra=n > 10_000,
            curve="B6",
            n=n,
        )
        for n in counts
    ]


def broad(counts: tuple[int, ...]) -> list[Row]:
    """B7: so many watch one directory, into which as many devices come, four WRITEs each."""
    return [
        Row(
            f"B7-{n}",
            f"{n} connections watch a directory, {n} devices of four nodes come",
            (Figure("us/event", "server_cpu_ns", "events", 1e-3, goal=Goal(1)),),
            args(f"device --path /bench/backend --ops {n} --watchers {n}"),
            before=(args("rm --path /bench/backend --ops 1"),),
            floor=False,
            curve="B7",
            n=n,
        )
        for n in counts
    ]
