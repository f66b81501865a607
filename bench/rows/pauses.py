"""B18: the longest wait that a synchronous reader sees beside loads of all kinds, logs on.

`server` is how much of its CPU time the server used while the reader waited: that part of a pause
that is its own, whatever else the machine does.

The access log is on where it can be switched on, and long enough to be rotated meanwhile. Client
and server share a processor by default, so that the wait has the other clients' work in it too.
"""

from bench.goals import Goal
from bench.rows.row import Figure, Row, args, create

_BEGIN = args("control --ops 1 --path logfile,{here}/access.log")
_END = args("control --ops 1 --path log,off")


def rows(leaves: int, ops: int, machines: int) -> list[Row]:
    """In a tree of so many leaves: so many requests, a storm of so many machines, a removal."""
    shape = f"--nodes {leaves} --connections 16 --depth 16"
    loads = {
        "read": (f"read --ops {ops} {shape}", "16x16 READs"),
        "write": (f"write --ops {ops} {shape}", "16x16 WRITEs"),
        "commit": (
            f"commit --ops {ops // 10} --nodes {leaves} --connections 16 --keys own",
            "transactions 2r2w of 16 clients",
        ),
        "storm": (f"storm --depth {machines} --ops {machines} --window", f"{machines} machines"),
        "remove": ("rm --path /bench/t --ops 1", "RM of all of it"),
    }
    return [
        Row(
            f"B18-{name}",
            f"longest wait of a reader in a tree of {leaves}, access log on, beside {what} "
            "(cut at 20 s)",
            (
                Figure("ms", "probe_ns.max", scale=1e-6, goal=Goal(2)),
                Figure("ms", "probe_served_ns.max", scale=1e-6, suffix="server", goal=Goal(2)),
                Figure("ms", "probe_ns.p999", scale=1e-6, suffix="p99.9"),
            ),
            (*args(words), "--probe"),
            leaves=None if name == "remove" else leaves,
            before=(*((create(leaves),) if name == "remove" else ()), _BEGIN),
            after=(_END,),
            floor=False,
            limit_s=20,
        )
        for name, (words, what) in loads.items()
    ]
