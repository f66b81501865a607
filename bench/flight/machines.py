"""The report for machines: JSON, and JUnit for whatever shows test results."""

import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path

import msgspec

from bench.flight.record import Flight
from bench.flight.text import where
from bench.flight.verdict import Judgement, Report
from bench.flight.words import percent, short

REPORT_SCHEMA = "xsd-bench-report/1"


def write_json(path: Path, flight: Flight, base: Flight | None, report: Report) -> None:
    """One object: what was compared, counts, exit code, a judgement for each case, notes."""
    document = {
        "schema": REPORT_SCHEMA,
        "flight": where(flight),
        "commit": flight.software.commit,
        "baseline": None if base is None else where(base),
        "baseline_commit": None if base is None else base.software.commit,
        "drift": report.drift,
        "exit_code": report.exit_code,
        "counts": report.count(),
        "judgements": [asdict(judgement) for judgement in report.judgements],
        "notes": list(report.notes),
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def _said(judgement: Judgement) -> str:
    said: str = judgement.verdict
    if judgement.ours is not None and judgement.before is not None:
        said += f": {short(judgement.ours)} {judgement.unit}, was {short(judgement.before)}"
    if judgement.change is not None:
        change = judgement.change
        said += (
            f"; change {percent(change.change)}, drift {percent(change.drift)}, "
            f"corrected {percent(change.corrected)}, tolerance {change.tolerance:.1%}"
        )
    return f"{said}. {judgement.note}" if judgement.note else said


def write_junit(path: Path, flight: Flight, report: Report) -> None:
    """A test for each case: regressions fail, what is blocked is an error, what is excused or has
    no baseline is skipped, with the reason."""
    counted = report.count()
    skipped = counted["intermittent"] + counted["allowed"] + counted["untested"]
    suite = ET.Element(
        "testsuite",
        name="bench",
        tests=str(len(report.judgements)),
        failures=str(counted["regression"]),
        errors=str(counted["blocked"]),
        skipped=str(skipped),
        timestamp=flight.started.removesuffix("Z"),
    )
    for judgement in report.judgements:
        test = ET.SubElement(
            suite, "testcase", classname=f"bench.{judgement.row}", name=judgement.case
        )
        match judgement.verdict:
            case "regression":
                ET.SubElement(test, "failure", message=_said(judgement), type="regression")
            case "blocked":
                ET.SubElement(test, "error", message=_said(judgement), type="blocked")
            case "intermittent" | "allowed" | "untested":
                ET.SubElement(test, "skipped", message=_said(judgement))
            case _:
                ET.SubElement(test, "system-out").text = _said(judgement)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
