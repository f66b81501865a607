"""The rows: what is measured, in which tree, with which goal. Data only; `sampling` does the work.

A row is one pattern of load. It gives one or more figures; each has a goal or none. Sizes come
from a scale: `tiny` runs everything in seconds and measures nothing, `normal` is the usual run,
`full` adds the sizes that take minutes.

    sockets        B1, B1n, B2, B2i, B11     clients on sockets, one request at a time or many
    transactions   B4, B5, B5t, B16, B17     the storm, and its parts
    trees          B3, B3w, B10              trees that grow, are listed and removed
    watches        B6, B7                    watches that must cost nothing, and that must fire
    guests         B8, B9, B15               on rings: at work, idle, hostile
    memory         B13                       what a tree takes, and what is given back
    pauses         B18                       the longest wait, logs on
    instructions   I                         counted, in process
"""

from bench.goals import Goal
from bench.rows import guests, instructions, memory, pauses, sockets, transactions, trees, watches
from bench.rows.row import Figure, Kind, Row, Scale, create

__all__ = ["Figure", "Goal", "Kind", "Row", "Scale", "create", "rows"]


def _tiny() -> tuple[Row, ...]:
    tree = 200
    return (
        *memory.rows(300, machines=3),
        *transactions.in_trees({"1e3": 100, "1e5": 300}, 40, 64),
        *sockets.synchronous(tree, 40, 40),
        *sockets.many(tree, 100, (4, 8)),
        *sockets.pipelined(tree, 512, ((1, 32), (4, 4))),
        *sockets.beside_idle(tree, 100, (0, 5, 10)),
        *watches.unrelated(tree, 100, (0, 50)),
        *sockets.short_lived(20, watches=50, idle=10, crowd=20),
        *transactions.sharing(tree, 64, 32),
        *trees.growth((1, 3)),
        *trees.wide((10, 100), 64),
        *trees.listing((100, 200)),
        *transactions.storms((3,)),
        *transactions.siblings((5,)),
        *transactions.failed((10, 20)),
        *watches.broad((2, 5)),
        *guests.synchronous(200, (1, 4)),
        *guests.pipelined(200, (1, 4)),
        *guests.transactions(200),
        *guests.beside_idle(50, (0, 5)),
        *guests.agents(5, 50, 2, 20),
        *guests.hostile(50),
        *pauses.rows(300, 200, 3),
        *instructions.rows(5),
    )


def rows(scale: Scale) -> tuple[Row, ...]:
    """All rows of a scale in the order of execution: memory first, then tree by tree."""
    if scale == "tiny":
        return _tiny()
    tree, ops = 20_000, 20_000
    return (
        *memory.rows(100_000, machines=2_000),
        *transactions.in_trees({"1e3": 1_000, "1e5": 100_000, "1e6": 1_000_000}, 3_000, 20_000),
        *sockets.synchronous(tree, ops, 5_000),
        *sockets.many(tree, ops, (16, 256, 1_000)),
        *sockets.pipelined(tree, 100_000, ((1, 64), (16, 16), (1_000, 16))),
        *sockets.beside_idle(tree, 5_000, (0, 100, 1_000, 5_000)),
        *watches.unrelated(tree, 5_000, (0, 1_000, 10_000, 200_000)),
        *sockets.short_lived(10_000, watches=20_000, idle=10_000, crowd=10_000),
        *transactions.sharing(tree, 3_000, 320),
        *trees.growth((10, 100, 1_000)),
        *trees.wide((10, 100, 1_000, 10_000, 100_000), 5_000),
        *trees.listing((1_000, 10_000, 54_000, 100_000)),
        *transactions.storms((10, 100, 300, 1_000, 3_000)),
        *transactions.siblings((50, 200, 1_000)),
        *transactions.failed((10, 100, 1_000, 4_000)),
        *watches.broad((30, 100, 300)),
        *guests.synchronous(ops, (1, 16, 256)),
        *guests.pipelined(ops, (1, 100, 256, 1_000)),
        *guests.transactions(ops),
        *guests.beside_idle(5_000, (0, 100, 1_000, 4_000)),
        *guests.agents(500, 5_000, 20, 5_000),
        *guests.hostile(5_000),
        *pauses.rows(100_000, 100_000, 100),
        *instructions.rows(25),
    )
