"""B4, B5, B5t, B16, B17: the storm of virtual machines, and the transactions it is made of."""

from collections.abc import Mapping

from bench.goals import Goal
from bench.rows.row import EMPTY, Figure, Row, args, cpu, latencies, total

_RETRIES = Figure("1", "retries", suffix="retries", goal=Goal(0))
_RETRIES_EACH = Figure("1/tx", "retries", "ops", suffix="retries")


def in_trees(trees: Mapping[str, int], ops: int, many: int) -> list[Row]:
    """B16 and B5t: in trees of so many leaves, by label; the smallest first."""
    first = next(iter(trees))
    rows = []
    for label, leaves in trees.items():
        flat = Goal(1.2, "figure", f"B16-{first}") if label != first else None
        extra = label == "1e6"
        commit = f"commit --nodes {leaves} --warm {ops // 20}"
        rows += [
            Row(
                f"B16-{label}",
                f"transaction start and abort, 16 at once, tree of {leaves}",
                (cpu(flat, "ops", "us/tx"),),
                args(f"abort --depth 16 --ops {many} --nodes {leaves}"),
                leaves=leaves,
                extra=extra,
                curve="B16",
                n=leaves,
            ),
            Row(
                f"B5t-{label}",
                f"transaction 2r2w, one synchronous client, tree of {leaves} (cut at 8 s)",
                (cpu(Goal(1.2, "floor"), "ops", "us/tx"),),
                args(f"{commit} --ops {ops}"),
                leaves=leaves,
                extra=extra,
                limit_s=8,
                curve="B5t",
                n=leaves,
            ),
            Row(
                f"B5t-{label}-x16",
                f"transaction 2r2w, 16 at once on one connection, tree of {leaves} (cut at 8 s)",
                (cpu(Goal(4), "ops", "us/tx"),),
                args(f"{commit} --depth 16 --keys own --ops {many}"),
                leaves=leaves,
                extra=extra,
                limit_s=8,
                curve="B5t-x16",
                n=leaves,
            ),
        ]
    return rows


def sharing(leaves: int, ops: int, same: int) -> list[Row]:
    """B5t: 16 clients, who share nodes or do not."""
    commit = f"commit --connections 16 --nodes {leaves}"
    slowest = Figure("ms", "latency_ns.max", scale=1e-6, suffix="slowest")
    return [
        Row(
            "B5t-own",
            "transaction 2r2w, 16 clients, each on its own nodes",
            (cpu(Goal(1.2, "floor"), "ops", "us/tx"), _RETRIES_EACH, *latencies()),
            args(f"{commit} --keys own --ops {ops} --warm {ops // 20}"),
            leaves=leaves,
        ),
        Row(
            # All of them come to an end, or the run would be cut: that is progress for everybody.
            "B5t-same",
            "transaction 2r2w, 16 clients, all on the same nodes",
            (cpu(Goal(0.5, "peers"), "ops", "us/tx"), _RETRIES_EACH, *latencies(), slowest),
            args(f"{commit} --keys same --ops {same}"),
            leaves=leaves,
        ),
    ]


def storms(machines: tuple[int, ...]) -> list[Row]:
    """B4: the life of so many simulated machines, 141 requests each, all at once."""
    goals = {300: 150.0, 1000: 500.0}
    return [
        Row(
            f"B4-{n}",
            f"{n} simulated machines start and stop at once (cut at the scale's limit: C "
            "xenstored retries about n^2 times)",
            (total(Goal(goals[n]) if n in goals else None), _RETRIES),
            args(f"storm --depth {n} --ops {n} --window"),
            before=(EMPTY,),
            leaves=0,
            repeats=None if n <= 300 else 1,
            extra=n > 1_000,
            curve="B4",
            n=n,
        )
        for n in machines
    ]


def siblings(clients: tuple[int, ...]) -> list[Row]:
    """B5: so many clients create children of one directory at once."""
    return [
        Row(
            f"B5-{n}",
            f"{n} clients create siblings in transactions at once (cut at 20 s)",
            (total(Goal(2) if n == 50 else None), _RETRIES),
            args(f"siblings --connections {n} --ops {n}"),
            leaves=0,
            repeats=None if n <= 200 else 1,
            limit_s=20,
            curve="B5",
            n=n,
        )
        for n in clients
    ]


def failed(records: tuple[int, ...]) -> list[Row]:
    """B17: a commit fails, and the culprit is looked for in so many records of history.

    At most 512 records are looked at, so that four times 1000 must cost no more.
    """
    rows = []
    for i, n in enumerate(records):
        bounded = Goal(1.2, "figure", f"B17-{records[i - 1]}") if n > 2_000 else None
        flat = Goal(1.2, "figure", f"B17-{records[i - 1]}:record") if i > 0 else None
        rows.append(
            Row(
                f"B17-{n}",
                f"a failed commit with {n} records of history, in process",
                (
                    Figure("us", "ns", scale=1e-3, goal=bounded),
                    Figure("ns/record", "ns", "records", suffix="record", goal=flat),
                ),
                args(f"blame {n}"),
                kind="engine",
                curve="B17",
                n=n,
            )
        )
    return rows
