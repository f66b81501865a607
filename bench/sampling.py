"""How a sample is taken: the server brought into the state that a row wants, load put on it."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import engine, listing
from bench.build import Programs
from bench.rows import Row, create
from bench.servers import FLOOR, OURS, Server, ServerError, rss_bytes

# What a call of the load client may take beside what it measures: setting up, draining, resting.
SLACK_S = 180
PREPARING = 3
"""How many times what may be measured it may take to make a server ready."""

Sample = dict[str, object]


class LoadError(Exception):
    """The load client found a wrong reply, or none."""


class SlowError(Exception):
    """A server could not be brought into the state that a row wants, in the time there is."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all samples of a run have in common."""

    client_cpu: int
    limit_s: int
    """Time for what is measured; a row may allow less."""
    repeats: int
    """Samples of each row; a row may want fewer."""


@dataclass(slots=True)
class Result:
    """All samples of one row, by server, and what went wrong."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    """Servers that could not take part, and why."""

    def checksums(self) -> dict[str, list[object]]:
        """Checksums of the replies by server; every server must have the same one, once."""
        found: dict[str, list[object]] = {}
        for name, samples in self.samples.items():
            sums = {sample.get("checksum") for sample in samples} - {None}
            if sums:
                found[name] = sorted(sums, key=str)
        return found

    def agree(self) -> bool:
        """Whether all repeats on all servers were answered alike."""
        return len({str(sum_) for sums in self.checksums().values() for sum_ in sums}) <= 1


def _nobody(_server: str) -> None:
    pass


class Runner:
    """Knows the load client and puts one load after the other on the servers."""

    def __init__(self, programs: Programs, conditions: Conditions) -> None:
        self._programs = programs
        self._conditions = conditions

    def load(self, server: Server, args: Sequence[str], limit_s: int) -> Sample:
        """One call of the load client; raises LoadError when a reply was wrong, SlowError when a
        server of others could not be made ready in time."""
        command = [
            str(self._programs.load),
            *(word.replace("{here}", str(server.socket.parent)) for word in args),
            *("--socket", str(server.socket)),
            *("--pid", str(server.pid)),
            *("--cpu", str(self._conditions.client_cpu)),
            *("--limit", str(limit_s)),
            *(("--xen", str(server.xen)) if server.xen is not None else ()),
            *(("--floor",) if server.name == FLOOR else ()),
        ]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=limit_s + SLACK_S
            )
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"{args[0]}: still running after {error.timeout} s") from error
        try:
            sample = json.loads(done.stdout)
        except ValueError as error:
            raise LoadError(f"{args[0]}: {done.stderr.strip() or error}") from error
        if isinstance(sample, dict) and sample.get("late") and server.name != OURS:
            raise SlowError(str(sample["error"]))
        if not isinstance(sample, dict) or "error" in sample or done.returncode != 0:
            raise LoadError(str(sample))
        return sample

    def _unmeasured(self, server: Server, loads: Sequence[Sequence[str]]) -> None:
        limit_s = self._conditions.limit_s * PREPARING
        for args in loads:
            if self.load(server, args, limit_s)["truncated"]:
                late = f"{args[0]}, before what is measured: not done in time"
                raise LoadError(late) if server.name == OURS else SlowError(late)

    def prepare(self, server: Server, row: Row) -> None:
        """Bring the server's tree into the state that the row wants; raises SlowError."""
        if server.name == FLOOR:
            return
        if row.leaves is not None and row.leaves != server.leaves:
            server.leaves = None
            self._unmeasured(server, [("rm", "--path", "/bench", "--ops", "1")])
            if row.leaves > 0:
                self._unmeasured(server, [create(row.leaves)])
            server.leaves = row.leaves
        self._unmeasured(server, row.prepare)

    def sample(self, server: Server, row: Row) -> Sample:
        """One repeat: the load client's figures, and the server's memory around them."""
        real = server.name != FLOOR
        if row.changes_tree:
            server.leaves = None
        if real:
            self._unmeasured(server, row.before)
        before = rss_bytes(server.pid)
        if row.kind == "listing":
            sample = listing.measure(server, row.load, self._conditions.client_cpu)
        else:
            most = self._conditions.limit_s
            limit_s = most if row.limit_s is None else min(row.limit_s, most)
            sample = self.load(server, row.load, limit_s) if row.load else {}
        after = rss_bytes(server.pid)
        sample["rss_bytes"] = after
        sample["rss_growth_bytes"] = after - before
        sample["rss_above_start_bytes"] = after - server.rss_at_start
        leaves = sample.get("nodes")
        if isinstance(leaves, int):
            # The leaves, their directories, those above, and the two at the top.
            sample["tree_nodes"] = leaves + -(-leaves // 32) + -(-leaves // 1024) + 2
        if real and row.after:
            self._unmeasured(server, row.after)
            sample["rss_left_bytes"] = rss_bytes(server.pid) - before
        return sample

    def _in_process(self, row: Row, result: Result) -> None:
        cpu = self._conditions.client_cpu
        try:
            for turn in range(row.repeats or self._conditions.repeats):
                if row.kind == "count":
                    sample = engine.counted(row.load, cpu, turn)
                else:
                    sample = engine.timed(row.load, cpu)
                result.samples.setdefault(OURS, []).append(sample)
        except engine.AbsentError as error:
            result.not_run[OURS] = str(error)
        except engine.EngineError as error:
            result.errors[OURS] = str(error)

    def row(
        self, row: Row, servers: Sequence[Server], begins: Callable[[str], None] = _nobody
    ) -> Result:
        """All repeats of a row, the servers taking turns; `begins` hears who is measured next."""
        result = Result(row)
        if row.kind in ("engine", "count"):
            if any(server.name == OURS for server in servers):
                begins(OURS)
                self._in_process(row, result)
            return result
        taking_part = [s for s in servers if row.floor or s.name != FLOOR]
        if row.rings:
            for server in taking_part:
                if server.xen is None:
                    result.not_run[server.name] = "not on a fake Xen of ours"
        for turn in range(row.repeats or self._conditions.repeats):
            for server in taking_part:
                if server.name in result.errors or server.name in result.not_run:
                    continue
                begins(server.name)
                try:
                    if turn == 0:
                        self.prepare(server, row)
                    result.samples.setdefault(server.name, []).append(self.sample(server, row))
                except (SlowError, listing.AbsentError) as error:
                    result.not_run[server.name] = str(error)
                except (LoadError, ServerError, OSError) as error:
                    result.errors[server.name] = str(error)
        return result
