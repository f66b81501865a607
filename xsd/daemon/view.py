"""The engine as control commands and the log see it: names for people, text for operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from xsd.daemon.control import TransactionView

if TYPE_CHECKING:
    from xsd.core.engine import Engine

Figures = Mapping[str, int]


class View:
    """What :class:`xsd.daemon.control.EngineView` promises, over an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def name(self, conn: int) -> str:
        """A connection as logs call it: ``D<domid>`` or ``A<number>``."""
        for number, kind, domid, *_ in self._engine.connections():
            if number == conn:
                return f"D{domid}" if kind == "ring" else f"A{number}"
        return f"A{conn}"

    def counts(self) -> Mapping[int, Figures]:
        """What each domain is charged with."""
        return {
            domid: {"nodes": 0, "watches": 0, "outstanding": 0, "memory": 0, "transactions": 0}
            | figures
            for domid, figures in self._engine.counts().items()
        }

    def maxima(self) -> Mapping[int, Figures]:
        """The greatest figures seen, per domain."""
        return {domid: self._engine.domain_peaks(domid) for domid in self._engine.counts()}

    def quota_max(self, reset: bool) -> Figures:
        """The greatest figures seen of any guest; ``reset`` forgets them first."""
        if reset:
            self._engine.peaks(reset=True)
        return self._engine.peaks()

    def quotas(self, soft: bool) -> Figures:
        """Quotas of domains to come."""
        return {
            name.removeprefix("soft-"): value
            for name, value in self._engine.quotas().items()
            if name.startswith("soft-") == soft
        }

    def set_quota(self, name: str, value: int, soft: bool) -> None:
        """Sets a quota of domains to come."""
        self._engine.set_quota(f"soft-{name}" if soft else name, value)

    def check(self) -> Sequence[str]:
        """What does not hold; nothing, if all is well."""
        try:
            self._engine.check()
        except AssertionError as bad:
            return [str(bad)]
        return []

    def watches(self) -> Iterable[tuple[str, bytes, bytes]]:
        """Connection, path and token of every watch."""
        names: dict[int, str] = {}
        for conn, path, token in self._engine.watches():
            if conn not in names:
                names[conn] = self.name(conn)
            yield names[conn], path, token

    def transactions(self, domid: int) -> Sequence[TransactionView]:
        """The open transactions of a domain, with what they changed."""
        return [
            TransactionView(tx, self.name(conn), tuple(changes), poisoned)
            for conn, owner, tx, _, changes, poisoned in self._engine.transactions()
            if owner == domid
        ]

    def memory(self) -> Figures:
        """Bytes and blocks by what they are for."""
        return self._engine.memory()

    def trim(self) -> None:
        """Nothing is kept beyond what open transactions need, so nothing is dropped."""

    def compact(self) -> None:
        """Frees at once what would be freed little by little."""
        self._engine.collect()

    def metrics(self) -> str:
        """All counters, one per line."""
        return "\n".join(_lines("", self._engine.counters()))


def _lines(prefix: str, figures: Mapping[str, object]) -> Iterable[str]:
    import json

    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _lines(f"{prefix}{name}.", value)
        elif value:
            yield f"{prefix}{name} {json.dumps(value)}"
