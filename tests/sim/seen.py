"""Whether what a transaction saw is something else in another tree."""

from __future__ import annotations

from model import Transaction
from model_tree import Tree, below


def sees_change(tx: Transaction, path: bytes, before: Tree, after: Tree) -> bool:
    """Whether what a transaction saw at a path is something else in the other tree."""
    if path in tx.seen_below:
        paths = {path, *below(before, path), *below(after, path)}
        return any(differs(one, before, after, True) for one in paths)
    return differs(path, before, after, path in tx.seen_kids)


def differs(path: bytes, before: Tree, after: Tree, with_kids: bool) -> bool:
    old, new = before.get(path), after.get(path)
    if old is None or new is None:
        return old is not new
    return old.self_stamp != new.self_stamp or (with_kids and old.kids_stamp != new.kids_stamp)
