"""Verdicts on flights that never took place: each kind, what excuses, what the exit code is."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date

import pytest
from flights import case, flight, measured, with_row

from bench.flight import allow
from bench.flight.allow import Allowance
from bench.flight.record import BrokenError, Flight
from bench.flight.verdict import Judgement, Report, judge

TODAY = date(2026, 11, 20)
BASE = measured(random.Random(1))
SAME = measured(random.Random(2))
SLOW = measured(random.Random(3), ours=1.2)
FAST = measured(random.Random(4), ours=0.8)
LOADED = measured(random.Random(5), machine=1.6)


def report(new: Flight, base: Flight | None = None, *lines: str) -> Report:
    """The report beside `base`, else beside a flight of `BASE`."""
    return judge(new, base or flight(case(BASE)), allow.parse("\n".join(lines)), TODAY)


def only(said: Report) -> Judgement:
    """The one judgement."""
    (judgement,) = said.judgements
    return judgement


def test_like_baseline() -> None:
    """Nothing happened."""
    said = report(flight(case(SAME)))
    assert (only(said).verdict, said.exit_code) == ("like baseline", 0)


def test_a_slower_program_is_a_regression() -> None:
    """20 % more for ours alone."""
    said = report(flight(case(SLOW)))
    assert (only(said).verdict, said.exit_code) == ("regression", 1)


def test_a_slower_machine_is_not() -> None:
    """60 % more for all; the report says so."""
    said = report(flight(case(LOADED)))
    assert (only(said).verdict, said.exit_code) == ("like baseline", 0)
    assert said.drift == pytest.approx(1.6, rel=0.05)


def test_latencies_of_other_rules_are_not_compared() -> None:
    """A flight that let other work go first waits longer; its CPU time is what it is."""
    waits = case({"ours": [30.0, 31.0, 30.5]}, "B1-read:p99", kind="latency")
    slow = case({"ours": [90.0, 93.0, 91.5]}, "B1-read:p99", kind="latency")
    base, new = flight(case(BASE), waits), flight(case(SAME), slow)
    assert report(new, base).count()["regression"] == 1
    ahead = replace(new, settings=replace(new.settings, realtime=not base.settings.realtime))
    said = {j.case: (j.verdict, j.note) for j in report(ahead, base).judgements}
    assert said == {
        "B1-read": ("like baseline", ""),
        "B1-read:p99": ("untested", "one of the two flights was realtime"),
    }


def test_a_slower_machine_excuses_no_slower_program() -> None:
    """Both at once."""
    both = measured(random.Random(6), machine=1.6, ours=1.2)
    assert only(report(flight(case(both)))).verdict == "regression"


def test_improved() -> None:
    """20 % less."""
    assert only(report(flight(case(FAST)))).verdict == "improved"


def test_a_figure_without_references_uses_the_drift_of_others() -> None:
    """Where neither peer nor floor took part, the machine is judged by the other cases."""
    alone = {"ours": BASE["ours"]}
    base = flight(case(BASE), case(alone, "B3-remove"))
    slow = {"ours": [v * 1.6 for v in BASE["ours"] if v is not None]}
    new = flight(case(LOADED), case(slow, "B3-remove"))
    assert [j.verdict for j in report(new, base).judgements] == ["like baseline"] * 2
    quiet = flight(case(SAME), case(slow, "B3-remove"))
    assert [j.verdict for j in report(quiet, base).judgements] == ["regression", "like baseline"]


def test_memory_does_not_drift() -> None:
    """A slow machine needs no more of it."""
    base = flight(case(BASE), case({"ours": [10.0] * 3, "C": [5.0] * 3}, "B13", kind="memory"))
    new = flight(case(LOADED), case({"ours": [16.0] * 3, "C": [8.0] * 3}, "B13", kind="memory"))
    found = {j.case: j.verdict for j in report(new, base).judgements}
    assert found == {"B1-read": "like baseline", "B13": "regression"}


def test_instructions_are_exact() -> None:
    """2 % more instructions are a regression, 2 % more time are not."""
    for kind, verdict in (("instructions", "regression"), ("cpu", "like baseline")):
        base = flight(case({"ours": [1000.0]}, "I-read", kind=kind))  # type: ignore[arg-type]
        new = flight(case({"ours": [1020.0]}, "I-read", kind=kind))  # type: ignore[arg-type]
        assert only(report(new, base)).verdict == verdict


def test_never_reached_is_reported_and_blocks_nothing() -> None:
    """A goal that was not met then either; but a regression comes first."""
    base = flight(case(BASE, limit=1.0))
    said = report(flight(case(SAME, limit=1.0)), base)
    assert (only(said).verdict, said.exit_code) == ("never reached", 0)
    assert only(report(flight(case(SLOW, limit=1.0)), base)).verdict == "regression"


def test_a_goal_that_is_lost_by_little_is_said() -> None:
    """Within the tolerance it is like the baseline, with a word about the goal."""
    said = report(flight(case(SAME, limit=1.0)), flight(case(BASE, limit=6.0)))
    assert (only(said).verdict, only(said).note) == ("like baseline", "goal <= 1 was met")


def test_untested() -> None:
    """New figures, other loads, and all figures when there is no baseline."""
    new = flight(case(SAME), case(SAME, "B99"))
    found = {j.case: j.verdict for j in report(new).judgements}
    assert found == {"B1-read": "like baseline", "B99": "untested"}
    other = with_row(flight(case(SLOW)), "B1-read", load=["read", "--ops", "1"])
    assert only(report(other)).verdict == "untested"
    said = judge(flight(case(SLOW)), None, [], TODAY)
    assert (only(said).verdict, said.exit_code) == ("untested", 0)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"errors": {"ours": "wrong value"}}, "wrong value"),
        (
            {"checksums": {"ours": ["1"], "C": ["2"]}, "checksums_agree": False},
            "replies differ: ours 1, C 2",
        ),
        ({"checksums": {"ours": ["1"]}}, "replies are 1, in the baseline c0ffee"),
    ],
)
def test_wrong_answers_block(change: dict[str, object], note: str) -> None:
    """However fast: who answers wrongly, or otherwise than before, has no figures."""
    said = report(with_row(flight(case(FAST)), "B1-read", **change))
    assert (only(said).verdict, only(said).note, said.exit_code) == ("blocked", note, 2)


def test_a_peer_that_fails_is_only_noted() -> None:
    """Its failure is not ours."""
    said = report(with_row(flight(case(SAME)), "B1-read", errors={"C": "gone"}))
    assert (only(said).verdict, said.exit_code) == ("like baseline", 0)
    assert "B1-read: C failed: gone" in said.notes


def test_a_rerun_that_passes_excuses() -> None:
    """One that does not, does not."""
    said = report(flight(case(SLOW, reruns=[SLOW, SAME])))
    assert (only(said).verdict, said.exit_code) == ("intermittent", 0)
    assert only(report(flight(case(SLOW, reruns=[SLOW, SLOW])))).verdict == "regression"


def test_an_allowed_regression() -> None:
    """The line's pattern, date and reason are those of the report; the last day still counts."""
    said = report(flight(case(SLOW)), None, "B1-* 2026-11-20 the new index is not built yet")
    assert (only(said).verdict, said.exit_code, said.notes) == ("allowed", 0, ())
    assert only(said).note == "until 2026-11-20: the new index is not built yet"


def test_an_expired_line_excuses_nothing() -> None:
    """The day after, and the report says why."""
    said = report(flight(case(SLOW)), None, "B1-* 2026-11-19 soon")
    assert (only(said).verdict, said.exit_code) == ("regression", 1)
    assert said.notes == ("allow list, line 1 (B1-*) expired on 2026-11-19 and excuses nothing",)


def test_a_line_that_nothing_needs_is_stale() -> None:
    """Because there is no such case, or because it is no regression any more."""
    lines = "# known", "B7-* 2027-01-01 gone", "B1-* 2027-01-01 mended"
    assert report(flight(case(SAME)), None, *lines).notes == (
        "allow list, line 2 (B7-*) is stale: it matches no case of this flight",
        "allow list, line 3 (B1-*) is stale: nothing that it matches needs an excuse",
    )


def test_a_line_does_not_excuse_wrong_answers() -> None:
    """Only figures can be allowed."""
    wrong = with_row(flight(case(SLOW)), "B1-read", errors={"ours": "wrong value"})
    assert only(report(wrong, None, "* 2027-01-01 everything")).verdict == "blocked"


@pytest.mark.parametrize(
    "line", ["B1-*", "B1-* 2027-01-01", "B1-* soon because", "B1-* 2027-13-01 x"]
)
def test_a_malformed_line_is_an_error(line: str) -> None:
    """It names the line."""
    with pytest.raises(BrokenError, match="list:2: "):
        allow.parse(f"\n{line}\n", "list")


def test_the_allow_list_is_parsed() -> None:
    """Comments and empty lines are for people."""
    assert allow.parse("# x\n\n  B2 2027-01-01 a  b\n") == [
        Allowance("B2", date(2027, 1, 1), "a  b", 3)
    ]


def test_a_figure_that_is_no_more_blocks() -> None:
    """Ours took part and gave none; or its row has lost one, which is said."""
    gone = {name: values for name, values in SAME.items() if name != "ours"}
    others = with_row(flight(case(gone)), "B1-read", checksums={"ours": ["c0ffee"]})
    assert only(report(others)).verdict == "untested"
    said = report(replace(others, servers=[*others.servers, "ours"]))
    assert (only(said).verdict, only(said).note) == (
        "blocked",
        "no figure, and the baseline has one",
    )
    assert said.exit_code == 2
    both = flight(case(BASE), case(BASE, "B1-read:p99"))
    assert "B1-read:p99 is in the baseline, and no figure of its row any more" in (
        report(flight(case(SAME)), both).notes
    )


def test_replies_without_a_checksum_block() -> None:
    """Where the baseline has one."""
    new = with_row(flight(case(SAME)), "B1-read", checksums={"C": ["c0ffee"]})
    assert "not there" in only(report(new)).note


def test_what_is_cut_short_is_not_improved() -> None:
    """Ours was stopped by the time limit: less was done, not done better."""
    new = flight(replace(case(FAST), bounds=["ours"]))
    assert only(report(new)).verdict == "untested"


def test_a_page_of_memory_is_nothing() -> None:
    """Beside a baseline of 0; a megabyte is something."""

    def grown(megabytes: float) -> Flight:
        made = case({"ours": [megabytes] * 3}, "B9-flood:memory", kind="memory")
        return flight(replace(made, unit="MB"))

    assert only(report(grown(0.004), grown(0))).verdict == "like baseline"
    assert only(report(grown(1.0), grown(0))).verdict == "regression"


def test_toy_sizes_are_noted() -> None:
    """Such a flight is beside the baseline only by name."""
    new = flight(case(SAME))
    tiny = replace(new, settings=replace(new.settings, scale="tiny"))
    assert any(note.startswith("sizes: tiny") for note in report(tiny).notes)


def test_what_is_lower_bound_tells_nothing_of_the_machine() -> None:
    """A peer that the time limit stopped is no reference."""
    base = flight(replace(case({"ours": [5.0] * 5, "C": [9.0] * 5}), bounds=["C"]))
    new = flight(replace(case({"ours": [7.0] * 5, "C": [12.6] * 5}), bounds=["C"]))
    assert only(report(new, base)).verdict == "regression"


def test_missing_peers_do_not_hide_a_regression() -> None:
    """On a machine without Debian's daemons the floor alone tells of the drift."""

    def few(values: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
        return {name: values[name] for name in ("ours", "floor")}

    assert only(report(flight(case(few(LOADED))))).verdict == "like baseline"
    assert only(report(flight(case(few(SLOW))))).verdict == "regression"
