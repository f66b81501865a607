"""The tools that deal with values: read, write, exists."""

from __future__ import annotations

import os
from collections.abc import Sequence

from xsd.client import requests
from xsd.client.errors import XenstoreError
from xsd.client.sync import Client, Transaction

from .escape import escape, unescape
from .failure import UsageError, attempting, refused
from .invocation import Invocation
from .output import put, put_bytes


def run(call: Invocation) -> int:
    """Run the tool that was asked for."""
    with call.connect() as client:
        if call.tool.name == "write":
            return _write(client, call)
        outcomes = _read_all(client, call.arguments)
        if call.tool.name == "exists":
            return 1 if any(isinstance(outcome, XenstoreError) for outcome in outcomes) else 0
        return _print(outcomes, call)


def _read_all(client: Client, paths: Sequence[str]) -> list[bytes | XenstoreError]:
    """What each path holds at one moment. One path alone needs no transaction for that."""
    asked = [requests.read(path) for path in paths]
    if len(asked) == 1:
        return list(client.pipeline(asked))
    return client.atomically(lambda tx: list(tx.pipeline(asked)))


def _print(outcomes: Sequence[bytes | XenstoreError], call: Invocation) -> int:
    raw = "raw" in call.options
    prefix = "prefix" in call.options
    for path, outcome in zip(call.arguments, outcomes, strict=True):
        if isinstance(outcome, XenstoreError):
            raise refused(f"couldn't read path {path}", outcome)
        if prefix:
            put(f"{path}: ")
        if raw:
            put_bytes(outcome)
        else:
            put(escape(outcome) + "\n")
    return 0


def _write(client: Client, call: Invocation) -> int:
    words = call.arguments
    if len(words) % 2:
        raise UsageError(f"expected a value for each path, the last path '{words[-1]}' has none")
    values = [os.fsencode(word) for word in words[1::2]]
    if "raw" not in call.options:
        values = [unescape(value) for value in values]
    pairs = list(zip(words[::2], values, strict=True))

    def put_all(target: Client | Transaction) -> None:
        for path, value in pairs:
            with attempting(f"could not write path {path}"):
                target.write(path, value)

    if len(pairs) == 1:
        put_all(client)
    else:
        client.atomically(put_all)
    return 0
