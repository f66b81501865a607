"""Protection of transactions: its settings in the engine's terms, at start and at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from xsd.daemon.kinds import BadValueError, Value
from xsd.daemon.settings import Settings
from xsd.daemon.table import BY_NAME

if TYPE_CHECKING:
    from xsd.core.engine import Engine


def _same(value: Value) -> object:
    return value


def _nanoseconds(value: Value) -> object:
    return int(cast(float, value) * 1e9)


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting: its row in the table, the engine's name for it, and how it is converted."""

    row: str
    argument: str
    convert: Callable[[Value], object] = _same


KNOBS = {
    knob.row: knob
    for knob in (
        Knob("transaction.merge", "merge"),
        Knob("transaction.test-eagain", "test_eagain"),
        Knob("conflict.active", "conflict"),
        Knob("conflict.burst-limit", "burst_limit"),
        Knob("conflict.max-history-seconds", "period_ns", _nanoseconds),
        Knob("conflict.rate-limit-is-aggregate", "aggregate"),
        Knob("conflict.priority-after", "priority_after"),
        Knob("conflict.priority-seconds", "priority_hold_ns", _nanoseconds),
        Knob("write-rate.active", "write_rate"),
        Knob("write-rate.writes-per-second", "writes_per_second"),
        Knob("write-rate.burst", "write_burst"),
        Knob("write-rate.reserve", "write_reserve"),
        Knob("write-rate.newcomers", "write_newcomers"),
    )
}
"""What can be set, by the name it has in the TOML file."""


class Tuning:
    """The knobs of one engine and where they stand."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._values: dict[str, Value] = {}
        for row in KNOBS:
            section, _, field = row.partition(".")
            part = getattr(settings, section.replace("-", "_"))
            self._apply(row, getattr(part, field.replace("-", "_")))

    def values(self) -> Mapping[str, Value]:
        """All knobs by name."""
        return self._values

    def set(self, row: str, text: str) -> None:
        """Turns a knob. Raises KeyError for an unknown one, ValueError saying what is expected."""
        kind = BY_NAME[KNOBS[row].row].kind
        try:
            self._apply(row, kind.from_text(text))
        except BadValueError:
            raise ValueError(f"{row}: {text!r} is not {kind.expected}") from None

    def _apply(self, row: str, value: Value) -> None:
        knob = KNOBS[row]
        # The table has checked the type; only it knows which knob has which.
        setting: dict[str, Any] = {knob.argument: knob.convert(value)}
        self._engine.configure(**setting)
        self._values[row] = value
