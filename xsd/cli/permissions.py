"""The tool chmod."""

from __future__ import annotations

from xsd.client import requests
from xsd.client.errors import XenstoreError
from xsd.client.perms import Permission
from xsd.client.sync import Transaction

from .failure import ToolError, UsageError, refused
from .invocation import Invocation
from .nodes import parents
from .walk import walk


def run(call: Invocation) -> int:
    """Set the permissions of a node and of those above or below that were asked for."""
    path, *words = call.arguments
    try:
        perms = [Permission.parse(word) for word in words]
    except ValueError as error:
        raise UsageError(str(error)) from None
    recurse, upto = "recurse" in call.options, "upto" in call.options
    with call.connect() as client:

        def change_all(tx: Transaction) -> None:
            try:
                paths = (
                    [node.path for node in walk(client, path, tx_id=tx.id)] if recurse else [path]
                )
            except XenstoreError as error:
                raise _failure(error.path, error) from error
            if upto:
                paths += parents(path)
            changes = (requests.set_perms(each, perms) for each in paths)
            for each, outcome in zip(paths, tx.pipeline(changes), strict=True):
                if outcome is not None:
                    raise _failure(each, outcome)

        if recurse or upto:
            client.atomically(change_all)
        else:
            try:
                client.set_perms(path, perms)
            except XenstoreError as error:
                raise _failure(path, error) from error
    return 0


def _failure(path: str, error: XenstoreError) -> ToolError:
    return refused(f"Error occurred setting permissions on '{path}'", error)
