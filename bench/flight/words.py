"""Numbers as people read them."""

from bench.flight.record import Summary


def short(number: float) -> str:
    """Three significant digits or so."""
    if number == 0:
        return "0"
    if abs(number) >= 10_000:
        return f"{number:.3g}" if abs(number) >= 1e6 else f"{number:.0f}"
    if abs(number) >= 100:
        return f"{number:.0f}"
    if abs(number) >= 10:
        return f"{number:.1f}"
    return f"{number:.2f}" if abs(number) >= 0.1 else f"{number:.3f}"


def cell(value: Summary | None, bound: bool = False) -> str:
    """A median; "> " before one that is a lower bound."""
    if value is None:
        return "-"
    return f"> {short(value.median)}" if bound else short(value.median)


def percent(share: float | None) -> str:
    """A relative change with its sign."""
    if share is None:
        return "-"
    return f"{share:+.1%}" if abs(share) < 10 else f"x {share + 1:.0f}"


def verdict(met: bool | None) -> str:
    """Whether a goal was met."""
    return {None: "-", True: "yes", False: "NO"}[met]
