"""Fuzzes: builds a target, lets it look for something, keeps what it found.

    run.py fuzz TARGET SECONDS     look; 0: for ever. TARGET may be "all"
    run.py merge TARGET            keep what it has learned in tests/corpus/fuzz, the least of it
    run.py replay TARGET FILE...   run inputs, with every check there is
    run.py cover TARGET            what the corpus reaches, by file
    run.py targets                 which there are

What a run learns stays in build/fuzz/corpus, what it finds goes to build/fuzz/found; the command
that shows it again is printed. With XSD_FUZZ_CANARY=1 a bug is planted that must be found.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder import HERE, OUT, ROOT, TARGETS, MissingError, build, build_coverage

CORPUS = ROOT / "tests" / "corpus" / "fuzz"
CONFIG = "config"
NAMES = (*TARGETS, CONFIG)
CONFIG_MAX_LEN = 400
TIMEOUT_SECONDS = 25
RSS_MB = 2048


def is_canary() -> bool:
    return os.environ.get("XSD_FUZZ_CANARY") == "1"


def environment() -> dict[str, str]:
    """Without what is preloaded into this process, or decides what its children import."""
    foreign = ("LD_PRELOAD", "PYTHONPATH", "ASAN_OPTIONS", "UBSAN_OPTIONS")
    kept = {name: text for name, text in os.environ.items() if name not in foreign}
    return kept | {"UBSAN_OPTIONS": "print_stacktrace=1"}


def atheris() -> Path:
    """The interpreter that has atheris, in an environment of its own. Raises MissingError."""
    python = OUT / "venv" / "bin" / "python"
    if python.exists():
        return python
    place = OUT / "venv.new"
    shutil.rmtree(place, ignore_errors=True)
    steps: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", place],
        [place / "bin/python", "-m", "pip", "install", "-q", "atheris>=2.3"],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MissingError(
                "fuzzing the configuration needs atheris from PyPI, for this Python: "
                + (done.stderr.strip().splitlines() or ["cannot be installed"])[-1]
            )
    place.rename(OUT / "venv")
    return python


def program(name: str) -> list[str | Path]:
    """What runs a target. Raises MissingError."""
    if name == CONFIG:
        return [atheris(), HERE / "config.py"]
    return [build(name, canary=is_canary())]


def options(name: str) -> list[str]:
    """How libFuzzer is to run a target."""
    found = OUT / ("found-canary" if is_canary() else "found") / name
    found.mkdir(parents=True, exist_ok=True)
    max_len = CONFIG_MAX_LEN if name == CONFIG else TARGETS[name].max_len
    dictionary = "config.dict" if name == CONFIG else TARGETS[name].dictionary
    given = [
        f"-max_len={max_len}",
        "-len_control=20",
        f"-timeout={TIMEOUT_SECONDS}",
        f"-rss_limit_mb={RSS_MB}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
    ]
    if dictionary:
        given.append(f"-dict={HERE / dictionary}")
    if name == CONFIG or TARGETS[name].module:
        given.append("-detect_leaks=0")  # the interpreter keeps much until it ends
    return given


def fuzz(name: str, seconds: int, more: Sequence[str] = ()) -> int:
    """One run; its exit status. ``more`` are further options of libFuzzer."""
    learned = OUT / ("corpus-canary" if is_canary() else "corpus") / name
    learned.mkdir(parents=True, exist_ok=True)
    seeds = CORPUS / name
    seeds.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            *program(name),
            *options(name),
            f"-max_total_time={seconds}",
            *more,
            learned,
            *([] if is_canary() else [seeds]),
        ],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(summary(name, done.stderr), flush=True)
    if done.returncode != 0:
        print(done.stderr[-6000:])
        for unit in re.findall(r"Test unit written to (\S+)", done.stderr):
            print(f"to see it again: python tests/fuzz/run.py replay {name} {unit}")
    return done.returncode


def summary(name: str, text: str) -> str:
    """What libFuzzer said in the end, in one line."""
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)", text)
    runs = re.findall(r"stat::number_of_executed_units: *(\d+)", text)
    rate = re.findall(r"stat::average_exec_per_sec: *(\d+)", text)
    edges, features, inputs, size = coverage[-1] if coverage else ("?", "?", "?", "?")
    return (
        f"{name}: {runs[-1] if runs else '?'} executions, {rate[-1] if rate else '?'} a second, "
        f"{edges} edges, {features} features, {inputs} inputs of {size}"
    )


def merge(name: str) -> int:
    """The least of all inputs known that reaches what all of them reach."""
    target = CORPUS / name
    learned = OUT / "corpus" / name
    learned.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT) as place:
        fresh = Path(place) / "corpus"
        fresh.mkdir()
        status = subprocess.run(
            [*program(name), *options(name), "-merge=1", fresh, learned, target],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        if status != 0:
            return status
        shutil.rmtree(target)
        target.mkdir()
        for unit in fresh.iterdir():
            data = unit.read_bytes()
            (target / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    files = list(target.iterdir())
    print(f"{name}: {len(files)} inputs, {sum(file.stat().st_size for file in files)} bytes")
    return 0


def replay(name: str, files: Sequence[str]) -> int:
    return subprocess.run(
        [*program(name), "-runs=1", *options(name), *files], env=environment(), check=False
    ).returncode


def cover(name: str) -> int:
    """Prints what the corpus reaches of each file, in functions that are not glue."""
    llvm = {tool: shutil.which(tool) or shutil.which(f"{tool}-14") for tool in TOOLS}
    if None in llvm.values():
        raise MissingError("coverage needs llvm: apt-get install llvm")
    target = build_coverage(name)
    units = [str(p) for p in [*(OUT / "corpus" / name).glob("*"), *(CORPUS / name).glob("*")]]
    with tempfile.TemporaryDirectory(dir=OUT) as place:
        raw, data = Path(place) / "raw", Path(place) / "data"
        env = environment() | {"LLVM_PROFILE_FILE": str(raw)}
        subprocess.run(
            [target, "-runs=0", *corpora(name)], env=env, check=True, stderr=subprocess.DEVNULL
        )
        subprocess.run([str(llvm["llvm-profdata"]), "merge", raw, "-o", data], check=True)
        exported = subprocess.run(
            [str(llvm["llvm-cov"]), "export", target, f"-instr-profile={data}"],
            check=True,
            capture_output=True,
        ).stdout
    print(f"{name}: {len(units)} inputs")
    for file, (lines, regions) in sorted(reached(json.loads(exported)).items()):
        print(f"  {file:28} {lines:>6} functions, {regions}")
    return 0


TOOLS = ("llvm-profdata", "llvm-cov")


def corpora(name: str) -> list[Path]:
    return [p for p in (OUT / "corpus" / name, CORPUS / name) if p.is_dir()]


def reached(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Per source: functions entered and regions executed, of all there are. Of what Cython made
    only what carries a name of ours counts, and not what the interpreter needs."""
    totals: dict[str, list[int]] = {}
    seen: set[tuple[str, str]] = set()
    for function in report["data"][0]["functions"]:
        file, label = _place(function)
        if not file or (file, label) in seen:
            continue
        seen.add((file, label))
        own = [r for r in function["regions"] if r[5] == 0 and r[7] == 0]
        at = totals.setdefault(file, [0, 0, 0, 0])
        at[0] += function["count"] != 0
        at[1] += 1
        at[2] += sum(r[4] > 0 for r in own)
        at[3] += len(own)
    return {
        file: (f"{a}/{b}", f"{c}/{d} regions, {100 * c / max(1, d):.1f} %")
        for file, (a, b, c, d) in totals.items()
    }


def _place(function: dict[str, Any]) -> tuple[str, str]:
    """The source of a function and its name; nothing if it does not count."""
    file, label = function["filenames"][0], function["name"].rpartition(":")[2]
    if "/csrc/" in file and "tests" not in file:
        return "csrc/" + Path(file).name, label
    if "/cython/xsd/" in file and label.startswith("__pyx_f_"):
        return file.partition("/cython/")[2].replace(".c", ".pyx"), label
    return "", ""


def main(arguments: Sequence[str]) -> int:
    match list(arguments):
        case ["fuzz", "all", seconds]:
            return max(fuzz(name, int(seconds)) for name in NAMES)
        case ["fuzz", name, seconds, *more] if name in NAMES:
            return fuzz(name, int(seconds), more)
        case ["merge", "all"]:
            return max(merge(name) for name in NAMES)
        case ["merge", name] if name in NAMES:
            return merge(name)
        case ["replay", name, *files] if name in NAMES and files:
            return replay(name, files)
        case ["cover", name] if name in TARGETS:
            return cover(name)
        case ["targets"]:
            print(*NAMES)
            return 0
    print(__doc__, file=sys.stderr)
    print("targets:", *NAMES, "all", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MissingError as missing:
        print(missing, file=sys.stderr)
        sys.exit(1)
