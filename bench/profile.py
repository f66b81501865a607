"""Where a request's time goes: `make profile ARGS=B1n-16`.

One row's load is put on our daemon and looked at by each tool that is there:

    perf        samples: share of each layer, of the kernel's by system call
    callgrind   instructions of each layer outside of the kernel; they repeat exactly
    strace      system calls of each kind

A share times the CPU time of a run that nobody looked at is the time per request. Printed as
text; the same as JSON, and the stacks folded for a flame graph, in build/bench.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import layers, machine
from bench.build import OUTPUT, build
from bench.rows import Row, create, rows
from tests.xen import daemons

LIMIT_S = 60
PERF_HZ = 10_000
PERF_LOADS = 10
"""Most calls of the load client under perf; it ends earlier with samples enough."""
SECONDS = 2.0
"""CPU time of the daemon under perf that is enough."""
SLOW_OPS = 2000
"""Operations for the tools that make a daemon slow."""
DETAILS = 8
"""Functions or system calls shown of a layer."""
LEAST = 0.002
"""Share below which they are not."""


class ProfileError(Exception):
    """No profile can be made; the message says why."""


class ToolError(Exception):
    """One of the tools cannot be used here."""


@dataclass(slots=True)
class Profile:
    """What was found; whatever a missing tool would have told is empty."""

    row: str
    what: str
    requests: int = 0
    us_per_request: float = 0.0
    user_share: float = 0.0
    samples: int = 0
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share of the samples by layer and, within it, by function or system call."""
    instructions: dict[str, float] = field(default_factory=dict)
    """Per request, by layer."""
    calls: dict[str, float] = field(default_factory=dict)
    """System calls per request."""
    not_used: dict[str, str] = field(default_factory=dict)
    """Tools that could not be used, and why."""


@dataclass(slots=True)
class Daemon:
    """Our daemon under some tool or none, on one CPU, with a load client for it."""

    running: daemons.Running
    load_program: Path
    cpu: int

    def load(self, args: Sequence[str]) -> dict[str, object]:
        """One call of the load client; raises ProfileError when something went wrong."""
        here = str(Path(self.running.socket).parent)
        command = [
            str(self.load_program),
            *(word.replace("{here}", here) for word in args),
            *("--socket", self.running.socket),
            *("--pid", str(self.running.pid)),
            *("--cpu", str(self.cpu)),
            *("--limit", str(LIMIT_S)),
            *("--xen", str(self.running.xen.directory)),
        ]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=4 * LIMIT_S
        )
        try:
            sample = json.loads(done.stdout)
        except ValueError:
            sample = {"error": done.stderr.strip()}
        if not isinstance(sample, dict) or "error" in sample:
            raise ProfileError(f"{args[0]}: {sample}")
        return sample

    def prepare(self, row: Row) -> None:
        """The tree that the row wants."""
        if row.leaves:
            self.load(create(row.leaves))
        for args in row.prepare:
            self.load(args)

    def measured(self, row: Row, ops: int | None = None) -> dict[str, object]:
        """The row's load once, with fewer operations if that is told."""
        return self.load(_shortened(row.load, ops))


def _shortened(load: Sequence[str], ops: int | None) -> tuple[str, ...]:
    """With at most that many operations and none unmeasured, where tools count all of them."""
    words = list(load)
    most = {} if ops is None else {"--ops": ops, "--warm": 0}
    for name, limit in most.items():
        if name in words:
            at = words.index(name) + 1
            words[at] = str(min(int(words[at]), limit))
    return tuple(words)


def _requests(sample: Mapping[str, object]) -> int:
    """Requests, or operations where one is more than its requests: a client that comes and goes."""
    requests = sample.get("requests")
    return requests if isinstance(requests, int) and requests > 0 else 1


def _cpu_times(pid: int) -> tuple[int, int]:
    """Ticks that a process has spent in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


@contextlib.contextmanager
def _running(program: Path, cpu: int, under: Sequence[str] = ()) -> Iterator[Daemon]:
    programs = build()
    with tempfile.TemporaryDirectory(prefix="xsd-profile-") as name:
        rundir = Path(name) / "xsd"
        command = [
            *under,
            # Told by name: under a tool a script is not started by its first line.
            *((str(program.parent / "python"),) if under else ()),
            *(str(program), "daemon", "--no-fork", "--rundir", str(rundir)),
        ]
        try:
            running = daemons.start(Path(name), command, socket_path=rundir / "socket")
        except (OSError, EOFError, ValueError) as error:
            raise ProfileError(f"the daemon does not start: {error}") from error
        try:
            for thread in os.listdir(f"/proc/{running.pid}/task"):
                os.sched_setaffinity(int(thread), {cpu})
            yield Daemon(running, programs.load, cpu)
        finally:
            running.stop()


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ToolError(f"{name} is not installed (apt-get install {package})")
    return found


# ---- the tools ---------------------------------------------------------------------------------


class _Perf:
    """perf record on a CPU, sampling only between `on` and `off`.

    On the CPU and not on the process: a clock that starts anew with each switch of processes
    would count switches, not time.
    """

    def __init__(self, cpu: int, output: Path) -> None:
        perf = _tool("perf", "linux-perf")
        told, self._tell = os.pipe()
        self._hear, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                *(perf, "record", "-q", "-F", str(PERF_HZ), "-e", "cpu-clock", "-g"),
                *("-D", "-1", "--control", f"fd:{told},{answers}"),
                *("-C", str(cpu), "-o", str(output)),
            ],
            pass_fds=(told, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(told)
        os.close(answers)

    def _ask(self, what: bytes) -> None:
        try:
            os.write(self._tell, what + b"\n")
            heard = os.read(self._hear, 16)
        except OSError:
            heard = b""
        if not heard:
            _, said = self._process.communicate(timeout=30)
            lines = said.strip().splitlines() or ["it ended"]
            raise ToolError(f"perf cannot be used here: {lines[-1]}")

    def on(self) -> None:
        self._ask(b"enable")

    def off(self) -> None:
        self._ask(b"disable")

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.communicate(timeout=60)
        os.close(self._tell)
        os.close(self._hear)


def _sample(daemon: Daemon, row: Row, profile: Profile, stacks: Path) -> None:
    """The shares of the layers, by perf."""
    with tempfile.TemporaryDirectory(prefix="xsd-profile-") as name:
        data = Path(name) / "perf.data"
        perf = _Perf(daemon.cpu, data)
        try:
            spent = 0.0
            for _ in range(PERF_LOADS):
                for args in row.before:
                    daemon.load(args)
                perf.on()
                sample = daemon.measured(row)
                perf.off()
                spent += float(str(sample["server_cpu_ns"])) / 1e9
                if spent > SECONDS:
                    break
        finally:
            perf.end()
        script = subprocess.run(
            [
                *("perf", "script", "-i", str(data), "-F", "ip,sym,dso"),
                *("--pid", str(daemon.running.pid)),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
    found = list(layers.stacks(script.stdout))
    if not found:
        raise ToolError(f"perf took no samples: {script.stderr.strip()[:200]}")
    counted = Counter(layers.place(stack) for stack in found)
    profile.samples = len(found)
    for (where, inner), count in counted.most_common():
        profile.shares.setdefault(where, {})[inner] = count / len(found)
    stacks.write_text("\n".join(layers.folded(found)) + "\n")


def _count_calls(daemon: Daemon, row: Row, profile: Profile) -> None:
    """System calls per request, by strace."""
    strace = _tool("strace", "strace")
    for args in row.before:
        daemon.load(args)
    with tempfile.NamedTemporaryFile(prefix="xsd-profile-") as output:
        tracer = subprocess.Popen(
            [strace, "-c", "-f", "-o", output.name, "-p", str(daemon.running.pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _await(lambda: _traced(daemon.running.pid, tracer), "strace")
            sample = daemon.measured(row, SLOW_OPS)
        finally:
            tracer.terminate()
            tracer.communicate(timeout=60)
        counted = layers.system_calls(Path(output.name).read_text())
    for name, count in counted.most_common():
        profile.calls[name] = count / _requests(sample)


def _traced(pid: int, tracer: subprocess.Popen[str]) -> bool:
    if tracer.poll() is not None:
        said = tracer.stderr.read().strip() if tracer.stderr else ""
        raise ToolError(f"strace cannot be used here: {said}")
    status = Path(f"/proc/{pid}/status").read_text()
    return f"TracerPid:\t{tracer.pid}\n" in status


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise ToolError(f"{what} does not begin")
        time.sleep(0.01)


def _count_instructions(program: Path, cpu: int, row: Row, profile: Profile) -> None:
    """Instructions per request outside of the kernel, by callgrind."""
    valgrind = _tool("valgrind", "valgrind")
    control = _tool("callgrind_control", "valgrind")
    with tempfile.TemporaryDirectory(prefix="xsd-profile-") as name:
        output = Path(name) / "callgrind"
        under = [valgrind, "-q", "--tool=callgrind", "--instr-atstart=no"]
        with _running(program, cpu, [*under, f"--callgrind-out-file={output}"]) as daemon:

            def instrument(word: str) -> None:
                command = [control, "-i", word, str(daemon.running.pid)]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                if done.returncode != 0:
                    raise ToolError(f"callgrind_control: {done.stdout.strip()}")

            daemon.prepare(row)
            for args in row.before:
                daemon.load(args)
            instrument("on")
            try:
                sample = daemon.measured(row, SLOW_OPS)
            except ProfileError as error:
                # It does not stand mapped ring pages that go.
                raise ToolError(f"callgrind did not last: {error}") from error
            instrument("off")
        counted = layers.instructions(output.read_text())
    for frame, count in counted.items():
        where = layers.layer(frame)
        profile.instructions[where] = profile.instructions.get(where, 0.0) + count / _requests(
            sample
        )


# ---- the profile -------------------------------------------------------------------------------


def make(program: Path, cpu: int, row: Row, stacks: Path) -> Profile:
    """Profile one row with all tools that are there; raises ProfileError."""
    profile = Profile(row.id, row.what)

    def attempt(name: str, use: Callable[[], None]) -> None:
        try:
            use()
        except ToolError as error:
            profile.not_used[name] = str(error)

    with _running(program, cpu) as daemon:
        daemon.prepare(row)
        for args in row.before:
            daemon.load(args)
        before = _cpu_times(daemon.running.pid)
        sample = daemon.measured(row)
        after = _cpu_times(daemon.running.pid)
        profile.requests = _requests(sample)
        profile.us_per_request = float(str(sample["server_cpu_ns"])) / profile.requests / 1e3
        user, system = after[0] - before[0], after[1] - before[1]
        profile.user_share = user / (user + system) if user + system else 0.0
        attempt("perf", lambda: _sample(daemon, row, profile, stacks))
        attempt("strace", lambda: _count_calls(daemon, row, profile))
    attempt("callgrind", lambda: _count_instructions(program, cpu, row, profile))
    return profile


def _by_ticks(profile: Profile) -> str:
    return f"in user mode {profile.user_share:.0%} of it, as far as clock ticks can tell"


def text(profile: Profile) -> str:
    """The profile for people."""
    lines = [
        f"{profile.row}: {profile.what}",
        f"{profile.us_per_request:.2f} us of CPU per request, {profile.requests} requests",
        *(() if profile.samples else (_by_ticks(profile),)),
        "",
        f"{'layer':<32}{'share':>8}{'us/req':>9}{'instr/req':>11}",
    ]
    for where in layers.LAYERS:
        inner = profile.shares.get(where, {})
        share = sum(inner.values())
        if where not in profile.shares and where not in profile.instructions:
            continue
        count = profile.instructions.get(where)
        lines.append(
            f"{where:<32}"
            + (f"{share:>8.1%}{share * profile.us_per_request:>9.3f}" if profile.samples else "")
            + (f"{count:>11.0f}" if count is not None else "")
        )
        for name, part in list(inner.items())[:DETAILS]:
            if part >= LEAST:
                lines.append(f"  {name[:29]:<30}{part:>8.1%}{part * profile.us_per_request:>9.3f}")
    if profile.calls:
        shown = [f"{name} {count:.2f}" for name, count in profile.calls.items() if count >= 0.005]
        lines += ["", "System calls per request: " + ", ".join(shown)]
    lines += [f"Not used: {why}" for why in profile.not_used.values()]
    return "\n".join(lines)


def document(profile: Profile, cpu: int) -> dict[str, object]:
    """The profile for machines, with where it was made."""
    return {
        "machine": asdict(machine.machine(cpu)),
        "software": asdict(machine.software()),
        "row": profile.row,
        "requests": profile.requests,
        "us_per_request": profile.us_per_request,
        "user_share": profile.user_share,
        "samples": profile.samples,
        "shares": profile.shares,
        "instructions_per_request": profile.instructions,
        "system_calls_per_request": profile.calls,
        "not_used": profile.not_used,
    }


def main(argv: Sequence[str]) -> int:
    """The command; exit code 0 done, 1 no profile could be made, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile", description="Where a request's time goes, layer by layer."
    )
    parser.add_argument("row", nargs="?", default="B1-read", help="as python -m bench --list")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: does it still run?")
    parser.add_argument("--cpu", type=int, help="CPU of daemon and client (default: the last)")
    parser.add_argument("--xsd", type=Path, default=Path(sys.executable).parent / "xsd")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="directory of what is written")
    given = parser.parse_args(argv)
    known = {row.id: row for row in rows("tiny" if given.tiny else "full")}
    row = known.get(given.row)
    if row is None or not row.load:
        print(f"profile: no row '{given.row}' with a load: {' '.join(known)}", file=sys.stderr)
        return 2
    cpu = max(os.sched_getaffinity(0)) if given.cpu is None else given.cpu
    given.output.mkdir(parents=True, exist_ok=True)
    stacks = given.output / f"profile-{row.id}.folded"
    written = given.output / f"profile-{row.id}.json"
    try:
        profile = make(given.xsd, cpu, row, stacks)
    except ProfileError as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    written.write_text(json.dumps(document(profile, cpu), indent=1) + "\n")
    print(text(profile))
    print(f"Written: {written}" + (f", {stacks}" if profile.samples else ""))
    if {"perf", "callgrind"} <= set(profile.not_used):
        print("profile: neither perf nor callgrind could be used", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
