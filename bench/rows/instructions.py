"""I: instructions of one operation in our engine, counted: a figure that does not wobble."""

from bench.inprocess import COUNTED
from bench.rows.row import Figure, Row

_WHAT = {
    "read": "READ of 16 bytes",
    "write": "WRITE of 16 bytes",
    "directory": "DIRECTORY of 32 children",
    "perms": "GET_PERMS",
    "mkdir-rm": "MKDIR and RM of a child",
    "abort": "a transaction, started and aborted",
    "commit": "a transaction 2r2w, alone",
    "commit-moved": "the same, while another node is written",
    "commit-replayed": "the same, while a node that it read is written with the same value",
    "conflict": "the same, failing because that node got another value, and mended",
    "watched-1": "WRITE of a node that one connection watches",
    "watched-10": "WRITE of a node that 10 connections watch",
    "watched-100": "WRITE of a node that 100 connections watch",
}


def rows(ops: int) -> list[Row]:
    """One row for each operation, done so many times and then more often."""
    return [
        Row(
            f"I-{name}",
            f"instructions of {_WHAT[name]}, in process",
            (Figure("instr", "instructions", "ops"),),
            (name, str(ops)),
            kind="count",
            repeats=1,
        )
        for name in COUNTED
    ]
