"""The benchmarks at toy size against our daemon, so that they cannot rot."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_tiny(output: Path) -> Mapping[str, Any]:
    """One run over all tiny rows; the document that it wrote."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XENSTORED_")}
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--tiny", "--json", str(output)],
        cwd=ROOT,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(output.read_text())
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, Any]]:
    """Two runs, each with a daemon of its own."""
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
        silent = [figure["id"] for figure in document["figures"] if "ours" not in figure["values"]]
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


def test_checksums_do_not_change(documents: list[Mapping[str, Any]]) -> None:
    """The same load gets the same replies from two daemons, in every row that sends requests."""
    first, second = map(checksums, documents)
    assert first == second
    assert {row["id"] for row in documents[0]["rows"]} - set(first) == {"B13-idle"}
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
