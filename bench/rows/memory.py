"""B13: what a tree takes of memory, and what is given back when it has gone.

The C library keeps freed memory for later. Our daemon gives it back when it is told to: CONTROL
`compact`, which is sent before and after; others refuse, and are none the worse for it.
"""

from bench.goals import Goal
from bench.rows.row import EMPTY, Figure, Row, args, create

_COMPACT = args("control --ops 1 --path compact")
_LEFT = Figure("MB", "rss_left_bytes", scale=1e-6, suffix="left", goal=Goal(1))


def _tree(leaves: int, value: int, goal: float) -> Row:
    return Row(
        f"B13-{value}",
        f"memory of {leaves} nodes of {value} B, and what is left of it after RM",
        (
            Figure("MB", "rss_growth_bytes", scale=1e-6, goal=Goal(goal), whole=True),
            Figure("B/node", "rss_growth_bytes", "tree_nodes", suffix="node", whole=True),
            _LEFT,
        ),
        (*create(leaves), "--value", str(value)),
        before=(EMPTY, _COMPACT),
        after=(EMPTY, _COMPACT),
        floor=False,
        repeats=1,
        fresh=True,
    )


def rows(leaves: int, machines: int) -> list[Row]:
    """Idle, with trees of so many leaves, and after a storm of so many machines."""
    return [
        Row(
            "B13-idle",
            "memory, idle",
            (Figure("MB", "rss_bytes", scale=1e-6, goal=Goal(30)),),
            floor=False,
            repeats=1,
            fresh=True,
        ),
        _tree(leaves, 16, 11),
        _tree(leaves, 200, 30),
        Row(
            "B13-storm",
            f"memory after {machines} simulated machines, 100 at once (cut at 20 s)",
            (Figure("MB", "rss_growth_bytes", scale=1e-6, suffix="grown", whole=True), _LEFT),
            args(f"storm --depth {min(100, machines)} --ops {machines} --window"),
            # What is loaded or made for the first machines ever is not left behind by others.
            before=(EMPTY, args("storm --depth 3 --ops 3 --window"), _COMPACT),
            after=(_COMPACT,),
            leaves=0,
            floor=False,
            repeats=1,
            limit_s=20,
            fresh=True,
        ),
    ]
