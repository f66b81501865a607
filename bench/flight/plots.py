"""Plots of flights: rows beside each other, latencies, growth, and how figures went over flights.

Colours are those of Okabe and Ito, which people with any kind of colour vision can tell apart;
each server has a mark of its own besides.
"""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.flight.record import FLOOR, OURS, Case, Flight, Latency, Row

STYLES = {
    OURS: ("#0072B2", "o"),
    FLOOR: ("#7f7f7f", "|"),
    "C": ("#E69F00", "s"),
    "O": ("#D55E00", "^"),
    "O*": ("#CC79A7", "v"),
}
OTHERS = (("#009E73", "D"), ("#56B4E9", "P"), ("#000000", "X"))
NAMES = {OURS: "xsd", FLOOR: "echo floor", "C": "C xenstored", "O": "oxenstored",
         "O*": "oxenstored without access log"}  # fmt: skip
GOAL = "#009E73"
# An axis that spans more than this is logarithmic.
SPAN = 8.0
PERCENTILES = (0, 50, 90, 99, 99.9, 99.99)

TITLES = {
    "B1": "one synchronous client",
    "B1n": "many synchronous clients",
    "B2": "pipelined clients",
    "B2i": "one active client among idle ones",
    "B3": "a tree that grows, is read and removed",
    "B3w": "a wide directory",
    "B4": "machines start and stop at once",
    "B5": "siblings created in transactions at once",
    "B5t": "transactions of 2 reads and 2 writes",
    "B6": "a writer beside unrelated watches",
    "B7": "many watchers of one directory",
    "B8": "guest agents, and dom0 beside them",
    "B9": "a hostile guest, and its neighbours",
    "B10": "listing a tree",
    "B11": "short-lived clients",
    "B13": "memory",
    "B15": "guests on rings",
    "B15i": "one active guest among idle ones",
    "B15p": "pipelined guests on rings",
    "B15t": "transactions over rings",
    "B16": "transactions started and aborted",
    "B17": "failed commits",
    "B18": "the longest wait",
    "I": "instructions of one operation, in process",
}

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, to be searched
    "svg.hashsalt": "xsd",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.dpi": 110,
}


def _style(server: str, servers: Sequence[str]) -> tuple[str, str]:
    if server in STYLES:
        return STYLES[server]
    others = [name for name in servers if name not in STYLES]
    return OTHERS[others.index(server) % len(OTHERS)]


def _label(server: str) -> str:
    return NAMES.get(server, server)


def _ordered(servers: Iterable[str]) -> list[str]:
    """Ours, floor, peers, others."""
    rank = {name: place for place, name in enumerate(STYLES)}
    return sorted(servers, key=lambda name: (rank.get(name, len(rank)), name))


def _number(value: float, _place: int | None = None) -> str:
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        return f"{value:.10g}"
    return f"{value:.0e}"


def _scale(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis where the values span much; one that begins at 0 otherwise."""
    positive = [value for value in values if value > 0]
    axis = axes.xaxis if which == "x" else axes.yaxis
    if positive and len(positive) == len(values) and max(positive) / min(positive) > SPAN:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        decades = math.log10(max(positive) / min(positive))
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    else:
        (axes.set_xlim if which == "x" else axes.set_ylim)(0, 1.08 * max(values, default=1) or 1)
    axis.set_major_formatter(FuncFormatter(_number))


def _foot(figure: Figure, flight: Flight) -> None:
    """Where the figures are from: a plot without that is a rumour."""
    commit = (flight.software.commit or "unknown")[:10]
    figure.text(
        0.01,
        0.005,
        f"{flight.machine.cpu}, Linux {flight.machine.kernel}, {flight.started[:10]}, {commit}",
        fontsize=6.5,
        color="#555555",
        va="bottom",
    )


def _finish(figure: Figure, flight: Flight, path: Path, formats: Sequence[str]) -> list[Path]:
    """Writes it in each format."""
    _foot(figure, flight)
    written = []
    for name in formats:
        target = path.with_name(f"{path.name}.{name}")
        # Without a date the same flight makes the same file.
        figure.savefig(target, metadata={"Date": None} if name == "svg" else None)
        written.append(target)
    return written


def _figure(height: float) -> tuple[Figure, Axes]:
    """A figure of the usual width, with room for a line below."""
    engine = ConstrainedLayoutEngine(rect=(0, 0.2 / height, 1, 1 - 0.2 / height))
    figure = Figure(figsize=(8.0, height), layout=engine)
    return figure, figure.add_subplot()


def _legend(axes: Axes) -> None:
    """Above the plot, where nothing is hidden by it."""
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    axes.get_figure(root=True).legend(  # type: ignore[union-attr]
        found.values(), found.keys(), loc="outside upper left", ncols=6, fontsize=8
    )


def _group(case: Case) -> str:
    """The catalogue's name of a row: B15i of B15i-1000:p99."""
    return re.split(r"[-:]", case.id)[0]


# ---- rows --------------------------------------------------------------------------------------


def _row_lines(axes: Axes, cases: Sequence[Case], servers: Sequence[str]) -> None:
    values: list[float] = []
    for place, case in enumerate(cases):
        for server in _ordered(case.summary):
            colour, mark = _style(server, servers)
            value = case.summary[server]
            axes.plot(
                [value.low, value.high], [place, place], color=colour, linewidth=2, alpha=0.35
            )
            axes.plot(
                value.median,
                place,
                marker=mark,
                color=colour,
                markersize=9 if server == FLOOR else 6.5,
                markeredgewidth=2.2 if server == FLOOR else 0.5,
                linestyle="none",
                label=_label(server),
                zorder=4 if server == OURS else 3,
            )
            values += [value.low, value.high]
        if case.limit is not None:
            axes.plot(
                case.limit,
                place,
                marker=4,
                color=GOAL,
                markersize=8,
                linestyle="none",
                label="goal: at most",
                zorder=2,
            )
            values.append(case.limit)
    _scale(axes, "x", values)
    axes.set_yticks(range(len(cases)), [case.id for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)


def rows(
    flight: Flight, name: str, cases: Sequence[Case], out: Path, formats: Sequence[str], title: str
) -> list[Path]:
    """Cases of one unit beside each other: medians, ranges of the repeats, goals."""
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure(1.6 + 0.34 * len(cases))
        _row_lines(axes, cases, flight.servers)
        axes.set_title(title)
        axes.set_xlabel(f"{cases[0].unit}, less is better; lines: range of the repeats")
        _legend(axes)
        return _finish(figure, flight, out / name, formats)


def _all_rows(flight: Flight, out: Path, formats: Sequence[str]) -> list[Path]:
    written = []
    rows_by_id = {row.id: row for row in flight.rows}
    shown = [case for case in flight.cases if case.summary]
    for (group, unit), found in groupby(
        sorted(shown, key=lambda c: (_group(c), c.unit)), key=lambda c: (_group(c), c.unit)
    ):
        cases = sorted(found, key=lambda c: flight.cases.index(c))
        # Percentiles are drawn from histograms.
        cases = [c for c in cases if c.kind != "latency" or not rows_by_id[c.row].latency] or cases
        name = f"row-{group}-{re.sub('[^a-z]+', '-', unit.lower()).strip('-') or 'count'}"
        title = f"{group}: {TITLES[group]}" if group in TITLES else group
        written += rows(flight, name, cases, out, formats, title)
    return written


# ---- latencies ---------------------------------------------------------------------------------


def _tail(percentile: float) -> float:
    """Where a percentile stands on the axis: 90, 99, 99.9 are one step apart."""
    return -math.log10(1 - percentile / 100)


def _curve(latency: Latency) -> tuple[list[float], list[float]]:
    """Places on the axis and microseconds, up to what so many samples can tell."""
    places, values = [], []
    seen = 0
    for high, many in latency.buckets:
        places.append(_tail(100 * seen / latency.count))
        values.append(high / 1000)
        seen += many
    # The last step has a width too.
    return [*places, places[-1] + 0.05], [*values, values[-1]]


def latencies(flight: Flight, row: Row, out: Path, formats: Sequence[str]) -> list[Path]:
    """What share of the clients waited how long, for one row and all servers."""
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure(4.2)
        values: list[float] = []
        last = 1.0
        for server in _ordered(row.latency):
            colour, mark = _style(server, flight.servers)
            places, times = _curve(row.latency[server])
            axes.step(
                places,
                times,
                where="post",
                color=colour,
                linewidth=2 if server == OURS else 1.4,
                label=_label(server),
                marker=mark if server != FLOOR else None,
                markevery=max(1, len(places) // 6),
                markersize=5,
            )
            values += [time for time in times if time > 0]
            last = max(last, places[-1])
        _scale(axes, "y", values)
        axes.set_xticks([_tail(p) for p in PERCENTILES], [f"{p:g} %" for p in PERCENTILES])
        axes.set_xlim(0, last * 1.02)
        axes.set_title(f"{row.id}: {row.what}")
        axes.set_xlabel("this share of the operations ...")
        axes.set_ylabel("... took at most, in microseconds")
        _legend(axes)
        return _finish(figure, flight, out / f"latency-{row.id}", formats)


# ---- growth ------------------------------------------------------------------------------------


def growth(
    flight: Flight,
    curve: str,
    cases: Sequence[tuple[float, Case]],
    out: Path,
    formats: Sequence[str],
) -> list[Path]:
    """One figure as N grows."""
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure(4.2)
        ends: list[float] = []
        for server in _ordered({name for _, case in cases for name in case.summary}):
            colour, mark = _style(server, flight.servers)
            points = [(n, case.summary[server]) for n, case in cases if server in case.summary]
            axes.errorbar(
                [n for n, _ in points],
                [value.median for _, value in points],
                yerr=[
                    [value.median - value.low for _, value in points],
                    [value.high - value.median for _, value in points],
                ],
                color=colour,
                marker=mark if server != FLOOR else ".",
                markersize=5,
                linewidth=2 if server == OURS else 1.3,
                elinewidth=0.8,
                label=_label(server),
            )
            ends += [v for _, value in points for v in (value.low, value.high)]
        goals = [(n, case.limit) for n, case in cases if case.limit is not None]
        if goals:
            axes.plot(
                [n for n, _ in goals],
                [limit for _, limit in goals],
                color=GOAL,
                linestyle="--",
                marker=1,
                linewidth=1.2,
                label="goal: at most",
            )
            ends += [limit for _, limit in goals]
        numbers = [n for n, _ in cases]
        if min(numbers) > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=min(n for n in numbers if n > 0))
        axes.set_xticks(numbers, [_number(n) for n in numbers])
        axes.xaxis.set_minor_formatter(NullFormatter())
        _scale(axes, "y", ends)
        what = TITLES.get(curve.partition(":")[0], "")
        axes.set_title(f"{curve}: {what}, as N grows" if what else f"{curve}, as N grows")
        axes.set_xlabel("N")
        axes.set_ylabel(cases[0][1].unit)
        _legend(axes)
        return _finish(figure, flight, out / f"growth-{_file(curve)}", formats)


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def _all_growth(flight: Flight, out: Path, formats: Sequence[str]) -> list[Path]:
    rows_by_id = {row.id: row for row in flight.rows}
    curves: dict[str, list[tuple[float, Case]]] = {}
    for case in flight.cases:
        row = rows_by_id[case.row]
        if row.curve and row.n is not None and case.summary:
            suffix = case.id.partition(":")[2]
            name = f"{row.curve}: {suffix}" if suffix else row.curve
            curves.setdefault(name, []).append((row.n, case))
    written = []
    for curve, cases in curves.items():
        if len({n for n, _ in cases}) > 1:
            cases.sort(key=lambda pair: pair[0])
            written += growth(flight, curve, cases, out, formats)
    return written


# ---- flights -----------------------------------------------------------------------------------


def _when(flight: Flight) -> str:
    return f"{flight.started[:16].replace('T', ' ')}\n{(flight.software.commit or '')[:8]}"


def over_flights(
    flights: Sequence[Flight], case: Case, out: Path, formats: Sequence[str]
) -> list[Path]:
    """One case, flight by flight."""
    found = [(place, c) for place, f in enumerate(flights) for c in f.cases if c.id == case.id]
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure(3.6)
        ends: list[float] = []
        for server in _ordered({name for _, c in found for name in c.summary}):
            colour, mark = _style(server, flights[-1].servers)
            points = [(place, c.summary[server]) for place, c in found if server in c.summary]
            axes.errorbar(
                [place for place, _ in points],
                [value.median for _, value in points],
                yerr=[
                    [value.median - value.low for _, value in points],
                    [value.high - value.median for _, value in points],
                ],
                color=colour,
                marker=mark if server != FLOOR else ".",
                markersize=5,
                linewidth=2 if server == OURS else 1.2,
                elinewidth=0.8,
                label=_label(server),
            )
            ends += [v for _, value in points for v in (value.low, value.high)]
        _scale(axes, "y", ends)
        names = [
            f"{f.started[:16].replace('T', ' ')}\n{(f.software.commit or '')[:8]}" for f in flights
        ]
        axes.set_xticks(range(len(flights)), names, fontsize=7)
        axes.set_xlim(-0.4, len(flights) - 0.6)
        axes.set_title(f"{case.id}: {case.what}"[:95])
        axes.set_ylabel(case.unit)
        _legend(axes)
        return _finish(figure, flights[-1], out / f"flights-{_file(case.id)}", formats)


def write_all(
    flights: Sequence[Flight], base: Flight | None, out: Path, formats: Sequence[str]
) -> list[Path]:
    """Every plot of the last flight; with several also each case over all of them, the baseline
    first. Returns the files."""
    new = flights[-1]
    written = _all_rows(new, out, formats)
    told = {case.row for case in new.cases if case.kind == "latency"}
    for row in new.rows:
        if row.id in told and any(latency.buckets for latency in row.latency.values()):
            written += latencies(new, row, out, formats)
    written += _all_growth(new, out, formats)
    history = list(flights)
    if base is not None and all(base.started != flight.started for flight in flights):
        history.append(base)
    history.sort(key=lambda flight: flight.started)
    if len(history) > 1:
        for case in new.cases:
            if case.summary:
                written += over_flights(history, case, out, formats)
    return written
