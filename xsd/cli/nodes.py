"""The tools that deal with nodes as such: rm and list."""

from __future__ import annotations

from collections.abc import Iterator

from xsd.client.errors import XenstoreError
from xsd.client.sync import Client, Transaction

from .failure import ToolError, attempting, refused
from .invocation import Invocation
from .output import put


def run(call: Invocation) -> int:
    """Run the tool that was asked for."""
    with call.connect() as client:
        return _rm(client, call) if call.tool.name == "rm" else _list(client, call)


def parents(path: str) -> Iterator[str]:
    """The ancestors of a path, nearest first, without / and without a relative path's base."""
    while (cut := path.rfind("/")) > 0:
        path = path[:cut]
        yield path


def child(path: str, name: str) -> str:
    """The path of a child."""
    return f"{path}{name}" if path.endswith("/") else f"{path}/{name}"


def _rm(client: Client, call: Invocation) -> int:
    tidy = "tidy" in call.options

    def remove_all(target: Client | Transaction) -> None:
        for path in call.arguments:
            with attempting(f"could not remove path {path}"):
                target.rm(path)
                if tidy:
                    _tidy(target, path)

    if len(call.arguments) == 1 and not tidy:
        remove_all(client)
    else:
        client.atomically(remove_all)
    return 0


def _tidy(target: Client | Transaction, path: str) -> None:
    for parent in parents(path):
        if target.read(parent) or target.ls(parent):
            return
        target.rm(parent)


def _list(client: Client, call: Invocation) -> int:
    paths = call.arguments

    def list_all(target: Client | Transaction) -> tuple[list[list[str]], ToolError | None]:
        listed = []
        for path in paths:
            try:
                listed.append(target.ls(path))
            except XenstoreError as error:
                return listed, refused(f"could not list path {path}", error)
        return listed, None

    listed, failure = list_all(client) if len(paths) == 1 else client.atomically(list_all)
    full = "prefix" in call.options
    # On failure fewer were listed than asked for; what there is is shown all the same.
    for path, names in zip(paths, listed, strict=False):
        for name in names:
            put((child(path, name) if full else name) + "\n")
    if failure is not None:
        raise failure
    return 0
