"""B3, B3w, B10: trees that grow, are read, written, listed and removed."""

from bench.goals import Goal
from bench.rows.row import EMPTY, Figure, Row, args, cpu

_NO_WIDE = args("rm --path /bench/w --ops 1")
_PER_DOMAIN = 100


def growth(domains: tuple[int, ...]) -> list[Row]:
    """B3: a hundred nodes for each of so many domains."""
    rows = []
    for n in domains:
        nodes = _PER_DOMAIN * n
        grow = args(f"grow --ops {nodes} --depth 32")
        repeats = None if n < 1_000 else 1
        rows += [
            Row(
                f"B3-create-{n}",
                f"create {nodes} nodes, {_PER_DOMAIN} of each domain, pipelined x32",
                (cpu(Goal(2), "ops", "us/node"),),
                grow,
                before=(EMPTY,),
                repeats=repeats,
                curve="B3-create",
                n=n,
            ),
            *(
                Row(
                    f"B3-{name}-{n}",
                    f"{name} these {nodes} nodes, pipelined x32",
                    (cpu(None, "ops", "us/node"),),
                    args(f"{mode} --ops {nodes} --depth 32"),
                    prepare=(EMPTY, grow),
                    repeats=repeats,
                    curve=f"B3-{name}",
                    n=n,
                )
                for name, mode in (("read", "grown"), ("write", "grow"))
            ),
            Row(
                f"B3-remove-{n}",
                f"RM of these {nodes} nodes beside a synchronous reader",
                (
                    Figure("ms", "probe_served_ns.max", scale=1e-6, suffix="blocks", goal=Goal(1)),
                    Figure("ms", "probe_ns.max", scale=1e-6, suffix="pause"),
                    Figure("ms", "latency_ns.max", scale=1e-6, suffix="reply"),
                ),
                args("rm --path /bench/d --ops 1 --probe"),
                before=(EMPTY, grow),
                floor=False,
                repeats=repeats,
                curve="B3-remove",
                n=n,
            ),
        ]
    return rows


LISTED = 20_000
"""Names in all that are listed, in small directories; large ones are listed five times."""


def wide(widths: tuple[int, ...], ops: int) -> list[Row]:
    """B3w: a directory with so many children."""
    rows = []
    for n in widths:
        flat = Goal(2, "figure", f"B3w-{widths[0]}") if n != widths[0] else None
        fill = args(f"flat --ops {n} --depth 16")
        repeats = None if n <= 10_000 else 1
        rows += [
            Row(
                f"B3w-create-{n}",
                f"create the {n} children of a directory, pipelined x16 (cut at 20 s)",
                (cpu(None, "ops", "us/node"),),
                fill,
                before=(_NO_WIDE,),
                limit_s=20,
                repeats=repeats,
                curve="B3w-create",
                n=n,
            ),
            Row(
                f"B3w-{n}",
                f"MKDIR and RM in a directory of {n} children (cut at 8 s)",
                (cpu(flat),),
                args(f"mkdir-rm --depth 16 --ops {ops}"),
                prepare=(_NO_WIDE, fill),
                limit_s=8,
                repeats=repeats,
                curve="B3w",
                n=n,
            ),
            Row(
                f"B3w-list-{n}",
                f"list a directory of {n} children",
                (Figure("ns/name", "server_cpu_ns", "names"),),
                args(f"list --ops {max(5, LISTED // n)}"),
                prepare=(_NO_WIDE, fill),
                floor=False,
                repeats=repeats,
                curve="B3w-list",
                n=n,
            ),
            Row(
                f"B3w-remove-{n}",
                f"remove the {n} children of a directory one by one, pipelined x16 (cut at 20 s)",
                (cpu(None, "ops", "us/node"),),
                args(f"flat-rm --ops {n} --depth 16"),
                before=(_NO_WIDE, fill),
                limit_s=20,
                repeats=repeats,
                curve="B3w-remove",
                n=n,
            ),
        ]
    return rows


def listing(sizes: tuple[int, ...]) -> list[Row]:
    """B10: a tool lists a tree of so many leaves with paths and permissions.

    `work` is the CPU time of tool and server together: what a person waits on a machine that has
    nothing else to do.
    """
    rows = []
    for n in sizes:
        for name, tool, what in (
            ("ours", "xsd", "xsd ls -fp"),
            ("debian", "xenstore-ls", "Debian's xenstore-ls -fp"),
        ):
            goal = Goal(0.3) if (tool, n) == ("xsd", 54_000) else None
            rows.append(
                Row(
                    f"B10-{name}-{n}",
                    f"{what} lists a tree of {n} leaves with permissions",
                    (
                        Figure("ms", "server_cpu_ns", scale=1e-6),
                        Figure("s", "wall_ns", scale=1e-9, suffix="wall", goal=goal),
                        Figure("s", "work_ns", scale=1e-9, suffix="work", goal=goal),
                    ),
                    (tool, "/bench"),
                    leaves=n,
                    floor=False,
                    kind="listing",
                    repeats=None if n < 50_000 else 1,
                    extra=n > 54_000,
                    curve=f"B10-{name}",
                    n=n,
                )
            )
    return rows
