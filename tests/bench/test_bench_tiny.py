"""The benchmarks at toy size against our daemon, so that they cannot rot."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import serving
from xen import daemons

from bench import engine

ROOT = Path(__file__).resolve().parents[2]


def bench(output: Path, *words: str) -> str:
    """One run at toy size that succeeds and has nothing to complain of; what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XENSTORED_")}
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--tiny", "--json", str(output), *words],
        cwd=ROOT,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def run_tiny(output: Path) -> Mapping[str, Any]:
    """One run over all tiny rows; the document that it wrote."""
    bench(output)
    document = json.loads(output.read_text())
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, Any]]:
    """Two runs, each with a daemon of its own."""
    for program, package in (("valgrind", "valgrind"), ("xenstore-ls", "xenstore-utils")):
        if shutil.which(program) is None:
            serving.absent(f"Debian's package {package}")
    directory = tmp_path_factory.mktemp("bench")
    return [run_tiny(directory / f"{turn}.json") for turn in (1, 2)]


def checksums(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """Checksums of our replies by row."""
    return {
        row["id"]: row["checksums"]["ours"]
        for row in document["rows"]
        if "ours" in row["checksums"]
    }


def test_every_row_gives_a_figure(documents: list[Mapping[str, Any]]) -> None:
    """Each row is measured on our daemon, completely and without an error."""
    for document in documents:
        silent = [case["id"] for case in document["cases"] if "ours" not in case["values"]]
        assert silent == []
        assert [row["id"] for row in document["rows"] if row["errors"]] == []
        cut = [
            row["id"]
            for row in document["rows"]
            for sample in row["samples"]["ours"]
            if sample.get("truncated", False)
        ]
        assert cut == []


def test_the_floor_runs_beside_it(documents: list[Mapping[str, Any]]) -> None:
    """The echo floor answers every pattern that it is meant to answer."""
    for document in documents:
        rows = {row["id"]: sorted(row["samples"]) for row in document["rows"]}
        assert rows["B1-read"] == ["floor", "ours"]
        assert rows["B4-3"] == ["floor", "ours"]


def test_rings_are_measured(documents: list[Mapping[str, Any]]) -> None:
    """Guests are on rings where a row says so, of our daemon and of the floor alike."""
    rows = {row["id"]: row["samples"] for row in documents[0]["rows"]}
    for row in ("B15-read-1", "B15-write-4", "B15p-read-4x16", "B15i-5", "B15t", "B8-5"):
        assert sorted(rows[row]) == ["floor", "ours"], row
        for (sample,) in rows[row].values():
            assert (sample["rings"], sample["truncated"]) == (True, False), row
            assert sample["latency_ns"]["count"] == sample["ops"] > 0, row
    assert rows["B8-5"]["ours"][0]["quiet_probe_ns"]["count"] >= 20


def test_hostile_guests_do_harm(documents: list[Mapping[str, Any]]) -> None:
    """Each hostile guest gets to do what it is there for, and its neighbours are measured."""
    samples = {
        row["id"].removeprefix("B9-"): row["samples"]["ours"][0]
        for row in documents[0]["rows"]
        if row["id"].startswith("B9-")
    }
    assert set(samples) == {"flood", "deaf", "indices", "watches", "rewrite"}
    harm = {kind: sample["hostile"] for kind, sample in samples.items()}
    assert harm["flood"]["replies"] > 50 < harm["rewrite"]["replies"]
    assert (harm["deaf"]["requests"] > 50, harm["deaf"]["replies"]) == (True, 0)
    assert harm["indices"]["requests"] > 0 < harm["indices"]["introductions"]
    assert harm["watches"]["replies"] > 50
    for sample in samples.values():
        for field in ("latency_ns", "probe_ns", "quiet_latency_ns", "quiet_probe_ns"):
            assert sample[field]["count"] > 0
        assert sample["hostile"]["account"].startswith("Domain 1:")


def instructions(document: Mapping[str, Any]) -> dict[str, int]:
    """Instructions counted, by row."""
    return {
        row["id"]: row["samples"]["ours"][0]["instructions"]
        for row in document["rows"]
        if row["id"].startswith("I-")
    }


def test_instructions_repeat(documents: list[Mapping[str, Any]]) -> None:
    """Two counts of the same build are the same, and more work is more instructions."""
    first, second = map(instructions, documents)
    # Where addresses cannot be held still the allocator takes other ways at times.
    tolerated = 0.001 if engine.unmoved() else 0.03
    moved = {
        row: (count, second[row])
        for row, count in first.items()
        if abs(second[row] - count) > tolerated * count
    }
    assert moved == {}
    order = ("I-read", "I-write", "I-mkdir-rm", "I-commit", "I-commit-moved", "I-commit-replayed")
    assert sorted(order, key=first.__getitem__) == list(order)
    assert 0 < first["I-watched-1"] < first["I-watched-10"] < first["I-watched-100"]


def test_watchers_get_all_events(documents: list[Mapping[str, Any]]) -> None:
    """A broad watch is measured until every watcher has had an event for every write."""
    (row,) = (row for row in documents[0]["rows"] if row["id"] == "B7-5")
    (sample,) = row["samples"]["ours"]
    assert (sample["ops"], sample["requests"], sample["events"]) == (5, 20, 100)


def test_what_is_left_is_measured(documents: list[Mapping[str, Any]]) -> None:
    """Rows of memory look again after the tree has been removed; listings list all of it."""
    samples = {row["id"]: row["samples"].get("ours", [{}])[0] for row in documents[0]["rows"]}
    for row in ("B13-16", "B13-200", "B13-storm"):
        assert isinstance(samples[row]["rss_left_bytes"], int), row
    # 200 leaves in 7 directories, 1 above, and the two at the top, of which one is not listed.
    assert samples["B10-ours-200"]["lines"] == samples["B10-debian-200"]["lines"] >= 200
    assert samples["B10-ours-200"]["checksum"] == samples["B10-debian-200"]["checksum"]


def test_a_failed_commit_is_timed(documents: list[Mapping[str, Any]]) -> None:
    """The row of failed commits says how many records there were and what one took."""
    samples = {row["id"]: row["samples"].get("ours", [{}])[0] for row in documents[0]["rows"]}
    assert samples["B17-20"]["records"] == 20 and samples["B17-20"]["ns"] > 0


def test_what_cannot_take_part_is_said(tmp_path: Path) -> None:
    """A server on no fake Xen of ours is left out of the rows with rings, in so many words."""
    other = serving.start(tmp_path)
    output = tmp_path / "other.json"
    try:
        address = f"other={other.socket}"
        said = bench(output, "--without-ours", "--rows", "B15-read-1", "--socket", address)
    finally:
        other.stop()
    assert "other: not run: not on a fake Xen of ours" in said
    (row,) = json.loads(output.read_text())["rows"]
    assert (sorted(row["samples"]), sorted(row["not_run"])) == (["floor"], ["other"])


def test_peers_take_part(tmp_path: Path) -> None:
    """Debian's daemons are started on the same fake Xen, and answer as ours does."""
    try:
        daemons.find("xenstored")
        daemons.find("oxenstored")
    except FileNotFoundError as missing:
        serving.absent(str(missing))
    output = tmp_path / "peers.json"
    bench(output, "--peers", "--rows", "B1-read,B15-write-1,B15t,B8-5")
    for row in json.loads(output.read_text())["rows"]:
        assert sorted(row["samples"]) == ["C", "O", "O*", "floor", "ours"], row["id"]
        assert row["checksums_agree"], row["checksums"]


def test_checksums_do_not_change(documents: list[Mapping[str, Any]]) -> None:
    """The same load gets the same replies from two daemons, in every row that sends requests."""
    first, second = map(checksums, documents)
    assert first == second
    silent = {"B13-idle", "B17-10", "B17-20"}
    assert {row["id"] for row in documents[0]["rows"]} - set(first) == silent
    assert [row for row, sums in first.items() if len(sums) != 1] == []


def test_a_wrong_reply_is_noticed(documents: list[Mapping[str, Any]], tmp_path: Path) -> None:
    """The canary: the floor's made-up values are an error when they are checked."""
    programs = ROOT / "build" / "bench"
    socket = tmp_path / "floor"
    floor = subprocess.Popen([programs / "echo", socket], stderr=subprocess.PIPE, text=True)
    assert floor.stderr is not None
    with floor.stderr:
        assert floor.stderr.readline() == "echo is ready\n"
        done = subprocess.run(
            [programs / "load", "read", "--socket", socket, "--nodes", "1", "--ops", "1"],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        floor.terminate()
    floor.wait(30)
    assert (done.returncode, json.loads(done.stdout)) == (
        1,
        {
            "error": "read, step 0, request type 2, path '/bench/t/0/0/0': "
            "wrong value: 'xxxxxxxxxxxxxxxx'"
        },
    )
