"""Traces: everything an engine was told, written down so that it can be told again.

A trace is text, one call of the engine a line, as a JSON array: the method, then its
arguments, bytes as "x:" and hexadecimal digits, text as "s:" and itself:

    ["open", 0, 0, 0]
    ["feed", 12, 1, "x:0b000000..."]
    ["complete", 20, 1, "s:ENOENT"]

The engine is a function of its trace: replaying gives the same answers, bytes, effects and
state every time and everywhere. Run as a program with the name of a file, this module
replays it and prints what came of it as one digest.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from model_tree import OK, SOCKET, Msg

__all__ = ["Recorder", "Wander", "digest", "engine", "generate", "replay"]

# What a call may raise without anything being wrong.
EXPECTED = (KeyError, MemoryError, BlockingIOError, ValueError)


def engine(seed: int = 0) -> Any:
    """A new engine; the compiled module has no annotations to check against."""
    return importlib.import_module("xsd.core.engine").Engine(seed=seed)


def encoded(argument: Any) -> Any:
    if isinstance(argument, bytes):
        return "x:" + argument.hex()
    return "s:" + argument if isinstance(argument, str) else argument


def decoded(argument: Any) -> Any:
    if not isinstance(argument, str):
        return argument
    kind, text = argument[:2], argument[2:]
    return bytes.fromhex(text) if kind == "x:" else text


@dataclass(slots=True)
class Recorder:
    """An engine whose calls are written down, with what each of them returned."""

    engine: Any
    lines: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a method of the engine; None when it raised what it may raise."""
        self.lines.append(json.dumps([name, *map(encoded, arguments)]))
        try:
            found = getattr(self.engine, name)(*arguments)
        except EXPECTED as failure:
            self.results.append(type(failure).__name__)
            return None
        self.results.append(repr(found))
        return found


def replay(lines: Iterable[str], seed: int = 0) -> Recorder:
    """Tells a new engine all that stands in a trace."""
    recorder = Recorder(engine(seed))
    for line in lines:
        name, *arguments = json.loads(line)
        recorder.call(name, *map(decoded, arguments))
    recorder.engine.fail_allocation(0)
    return recorder


def digest(recorder: Recorder) -> str:
    """All that an engine has answered and what has become of it, as one number."""
    last = recorder.engine
    state = (last.state_hash(), last.tree(), last.counters(), last.memory(), last.counts())
    return hashlib.sha256(repr((recorder.results, state)).encode()).hexdigest()


# ---- making one up ---------------------------------------------------------------------

NAMES = ("a", "b", "data", "device", "local", "state", "x" * 30, "sharedby1", "sharedby2")
GUESTS = (1, 2, 3, 500)
TOKENS = (b"", b"t", b"token", b"\xff" * 9)


@dataclass(slots=True)
class Wander:
    """Random events that make some sense: most of what is fed are good requests."""

    recorder: Recorder
    random: Random
    now: int = 0
    short: bool = False  # of memory
    conns: list[int] = field(default_factory=list)
    effects: list[tuple[int, str, tuple[Any, ...]]] = field(default_factory=list)
    transactions: dict[int, list[int]] = field(default_factory=dict)
    started: dict[int, int] = field(default_factory=dict)
    partial: dict[int, bytes] = field(default_factory=dict)

    def step(self) -> None:
        pick = self.random.random()
        self.now += self.random.randrange(1_000_000)
        if self.short and self.random.random() < 0.3:
            self.recorder.call("fail_allocation", 0, False)
            self.short = False
        if not self.conns or (pick < 0.02 and len(self.conns) < 12):
            self.open()
        elif pick < 0.70:
            self.feed()
        elif pick < 0.80:
            self.take()
        else:
            self.rest(pick)
        self.drain_lists()

    def rest(self, pick: float) -> None:
        call = self.recorder.call
        if pick < 0.86:
            self.now += self.random.choice((0, 0, 0, 21_000_000_000))
            call("tick", self.now)
        elif pick < 0.97:
            self.complete()
        elif pick < 0.975:
            cid = self.random.choice(self.conns)
            call("close", self.now, cid)
            self.forget(cid)
        elif pick < 0.98:
            call("domain_died", self.now, self.random.choice(GUESTS))
        elif pick < 0.985:
            call("domain_shutdown", self.now, self.random.choice(GUESTS))
        elif pick < 0.99:
            call("set_quota", self.random.choice(("nodes", "memory", "watches")), 3000)
        else:
            call("fail_allocation", self.random.randrange(1, 8), self.random.random() < 0.2)
            self.short = True

    def open(self) -> None:
        cid = self.recorder.call("open", self.now, SOCKET, 0)
        if cid is not None:
            self.conns.append(cid)

    def forget(self, cid: int) -> None:
        self.conns = [other for other in self.conns if other != cid]
        self.transactions.pop(cid, None)
        self.started.pop(cid, None)
        self.partial.pop(cid, None)

    def feed(self) -> None:
        cid = self.random.choice(self.conns)
        data = self.partial.pop(cid, b"")
        for _ in range(self.random.choice((1, 1, 1, 3, 20))):
            data += self.message(cid)
        if self.random.random() < 0.1:
            cut = self.random.randrange(len(data))
            data, self.partial[cid] = data[:cut], data[cut:]
        budget = self.random.choice((1, 4, 1 << 30))
        flags = self.recorder.call("feed", self.now, cid, data, budget)
        if flags is None or flags & 16:
            self.recorder.call("close", self.now, cid)
            self.forget(cid)

    def message(self, cid: int) -> bytes:
        if self.random.random() < 0.002:
            return self.random.randbytes(30)
        kind, payload = self.request()
        known = self.transactions.get(cid, [])
        tx = 0
        if known and self.random.random() < 0.2:
            kind, payload = Msg.TRANSACTION_END, b"T\0"
        if kind == Msg.TRANSACTION_END or (known and self.random.random() < 0.4):
            tx = self.random.choice(known) if known else self.random.randrange(3)
        if kind == Msg.TRANSACTION_END and tx in known:
            known.remove(tx)
        if kind == Msg.TRANSACTION_START and tx == 0:
            self.started[cid] = self.started.get(cid, 0) + 1  # ids are counted up
            self.transactions.setdefault(cid, []).append(self.started[cid])
        if self.random.random() < 0.02:
            kind, payload = self.random.randrange(30), self.random.randbytes(9)
        return struct.pack("=4I", kind, self.random.randrange(1000), tx, len(payload)) + payload

    def path(self) -> bytes:
        depth = self.random.choice((1, 1, 2, 3, 5))
        names = "/".join(self.random.choice(NAMES) for _ in range(depth))
        kind = self.random.random()
        if kind < 0.3:
            return names.encode()
        if kind < 0.6:
            return b"/local/domain/%d/" % self.random.choice(GUESTS) + names.encode()
        if kind < 0.65:
            return self.random.choice((b"/", b"@releaseDomain", b"@introduceDomain", b"/bad//x"))
        return b"/" + names.encode()

    def request(self) -> tuple[int, bytes]:
        path, domid = self.path(), b"%d" % self.random.choice(GUESTS)
        entries = [
            self.random.choice((b"n", b"r", b"w", b"b")) + b"%d" % self.random.choice((0, *GUESTS))
            for _ in range(self.random.randrange(1, 4))
        ]
        token = self.random.choice(TOKENS)
        return self.random.choice(
            (
                (Msg.READ, path + b"\0"),
                (Msg.DIRECTORY, path + b"\0"),
                (Msg.DIRECTORY_PART, path + b"\0%d\0" % self.random.randrange(30)),
                (Msg.GET_PERMS, path + b"\0"),
                (Msg.WRITE, path + b"\0" + self.random.randbytes(self.random.randrange(40))),
                (Msg.WRITE, path + b"\0" + b"v" * self.random.choice((1, 500))),
                (Msg.WRITE, path + b"\0"),
                (Msg.MKDIR, path + b"\0"),
                (Msg.RM, path + b"\0"),
                (Msg.SET_PERMS, b"\0".join([path, *entries]) + b"\0"),
                (Msg.WATCH, path + b"\0" + token + b"\0"),
                (Msg.WATCH, path + b"\0" + token + b"\x001\0"),
                (Msg.UNWATCH, path + b"\0" + token + b"\0"),
                (Msg.TRANSACTION_START, b"\0"),
                (Msg.TRANSACTION_END, self.random.choice((b"T\0", b"T\0", b"F\0"))),
                (Msg.INTRODUCE, domid + b"\x001\x007\0"),
                (Msg.RELEASE, domid + b"\0"),
                (Msg.SET_TARGET, domid + b"\x001\0"),
                (Msg.GET_QUOTA, domid + b"\0nodes\0"),
                (Msg.SET_QUOTA, domid + b"\0soft-nodes\x003\0"),
                (Msg.GET_FEATURE, domid + b"\0"),
                (Msg.CONTROL, b"print\0text\0"),
                (Msg.RESET_WATCHES, b"\0"),
            )
        )

    def take(self) -> None:
        cid = self.random.choice(self.conns)
        self.recorder.call("take", cid, self.random.choice((7, 100, 1 << 20, 1 << 20)))

    def complete(self) -> None:
        if self.effects:
            number, kind, args = self.effects.pop(self.random.randrange(len(self.effects)))
            error = self.random.choice(("", "", "", "ENOENT"))
            self.recorder.call(
                "complete", self.now, number, error, OK if kind == "control" else b""
            )
            if kind == "introduce" and not error:
                cid = self.recorder.call("domain_conn", args[0])
                if cid is not None and cid >= 0 and cid not in self.conns:
                    self.conns.append(cid)

    def drain_lists(self) -> None:
        call = self.recorder.call
        while (effect := call("next_effect")) is not None:
            number, kind, _, args = effect
            if kind in ("domain", "introduce", "control"):
                self.effects.append((number, kind, args))
        for _ in range(self.random.randrange(4)):
            cid = call("next_runnable")
            if cid is None or cid < 0:
                break
            flags = call("feed", self.now, cid, b"")
            if flags is not None and flags & 16:
                call("close", self.now, cid)
                self.forget(cid)
        while (dirty := call("next_dirty")) is not None and dirty >= 0:
            pass
        known = {found[0] for found in self.recorder.engine.connections()}
        for cid in [cid for cid in self.conns if cid not in known]:
            self.forget(cid)


def generate(seed: int, steps: int) -> Recorder:
    """A recorder that has seen so many random events; its trace is in `lines`."""
    recorder = Recorder(engine())
    wander = Wander(recorder, Random(seed))
    for _ in range(steps):
        wander.step()
    recorder.engine.fail_allocation(0)
    return recorder


if __name__ == "__main__":
    print(digest(replay(Path(sys.argv[1]).read_text().splitlines())))
