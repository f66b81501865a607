"""The table of a baseline flight, in Markdown, and where it is kept between two marks."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bench.flight.record import FLOOR, OURS, BrokenError, Case, Flight
from bench.flight.words import cell, short, verdict

BEGIN = "<!-- made by `python -m bench table`: begin -->"
END = "<!-- end -->"

HEADLINES = (
    *(
        "B1-read",
        "B1-write",
        "B1n-256",
        "B1n-256:p99",
        "B2-read-16x16",
        "B2-write-16x16",
        "B2i-1000",
    ),
    *("B3-create-1000", "B3-remove-1000:blocks", "B3w-100000", "B4-10", "B4-300", "B4-1000"),
    *("B5-50", "B5t-own", "B5t-1e5-x16", "B6-10000", "B7-100", "B8-500:dom0-p99"),
    *("B9-*:dom0-p99", "B10-ours-54000:wall", "B11-0", "B11-20000", "B13-idle", "B13-16"),
    *("B15-read-16", "B15-write-16", "B15-write-256", "B15-write-256:p99", "B15p-read-256x16"),
    *("B15i-1000", "B15t", "B15t:p99", "B16-1e5", "B17-1000", "B18-storm:server"),
)
"""Cases that a person looks at first."""


def headlines(flight: Flight) -> list[Case]:
    """The cases of `HEADLINES`, in the order of the flight; a row's first figure stands for it."""
    return [
        case
        for case in flight.cases
        if case.summary and any(fnmatchcase(case.id, name) for name in HEADLINES)
    ]


def markdown(flight: Flight, cases: Sequence[Case]) -> str:
    """A table; a row of it for each case."""
    others = [name for name in flight.servers if name not in (OURS, FLOOR)]
    head = ["row", "what", "unit", "xsd", "spread", *others, "floor", "goal", "met"]
    lines = [
        head,
        ["---", "---", "---", "---:", "---:", *["---:"] * len(others), "---:", "---", "---"],
    ]
    for case in cases:
        mine = case.summary.get(OURS)
        lines.append(
            [
                case.id,
                case.what,
                case.unit,
                f"**{cell(mine, OURS in case.bounds)}**",
                "-" if mine is None else f"{mine.spread:.0%}",
                *(cell(case.summary.get(n), n in case.bounds) for n in others),
                cell(case.summary.get(FLOOR)),
                (case.goal or "-").replace("<=", "≤"),
                verdict(case.met),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _standing(case: Case | None) -> str:
    """Ours, its spread, and how many times the floor and the best of the peers it is."""
    mine = None if case is None else case.summary.get(OURS)
    if case is None or mine is None:
        return "-"
    floor = case.summary.get(FLOOR)
    peers = [value.median for name, value in case.summary.items() if name not in (OURS, FLOOR)]
    parts = [f"**{cell(mine, OURS in case.bounds)}**, spread {mine.spread:.0%}"]
    if floor is not None and floor.median > 0:
        parts.append(f"{short(mine.median / floor.median)} x floor")
    if peers and min(peers) > 0:
        parts.append(f"{short(mine.median / min(peers))} x peer")
    return ", ".join(parts)


def beside(flights: Sequence[Flight]) -> str:
    """The `HEADLINES` of several flights, the columns in the order of time.

    On different machines only the ratios tell something.
    """
    flights = sorted(flights, key=lambda flight: flight.started)
    found = [{case.id: case for case in flight.cases} for flight in flights]
    head = ["row", "what", "unit", *(flight.started[:16].replace("T", " ") for flight in flights)]
    lines = [head, ["---"] * len(head)]
    lines += [
        [case.id, case.what, case.unit, *(_standing(cases.get(case.id)) for cases in found)]
        for case in headlines(flights[-1])
    ]
    feet = "".join(foot(flight) for flight in flights)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n" + feet


def foot(flight: Flight) -> str:
    """Where and how it was measured."""
    machine, settings = flight.machine, flight.settings
    debian = flight.software.debian.get("xen-utils-4.17")
    pinned = (
        f"server and client on the same CPU ({settings.server_cpu})"
        if settings.server_cpu == settings.client_cpu
        else f"server on CPU {settings.server_cpu}, client on CPU {settings.client_cpu}"
    )
    peers = f"Peers of Debian's xen-utils {debian or '-'}."
    realtime = ", realtime" if settings.realtime else ""
    virtual = "" if machine.virtualised in (None, "none") else f", virtual ({machine.virtualised})"
    return (
        f"\n{flight.started[:10]}, commit {(flight.software.commit or 'unknown')[:10]}, "
        f"{machine.cpu}, {machine.cores} CPUs{virtual}, Linux {machine.kernel}, "
        f"Python {flight.software.python}; {pinned}{realtime}. {peers}\n"
    )


def block(flight: Flight, cases: Sequence[Case]) -> str:
    """What stands between the marks, with them."""
    return f"{BEGIN}\n\n{markdown(flight, cases)}{foot(flight)}\n{END}"


def insert(text: str, made: str, source: str = "text") -> str:
    """`text` with what stands between the marks replaced; raises BrokenError without marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BrokenError(f"{source}: there is no table to replace, between {BEGIN} and {END}")
    return before + made + after


def documents(flight: Flight, root: Path) -> dict[Path, str]:
    """Every document that shows the baseline, as it should be."""
    readme, full = root / "README.md", root / "bench" / "results" / "README.md"
    return {
        readme: insert(readme.read_text(), block(flight, headlines(flight)), str(readme)),
        full: insert(full.read_text(), block(flight, flight.cases), str(full)),
    }
