"""The control command ``conflicts``: who failed because of whom, and how that is kept in bounds.

conflicts                   a line per domain with anything to tell
conflicts <domid>           that domain
conflicts explain [<n>]     the last conflicts: which node, seen how, changed by whom, when
conflicts settings          what can be set, and how it stands
conflicts set <key> <value> sets it
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from xsd.daemon.control import Call, ControlError, ControlRegistry
from xsd.daemon.text import escaped
from xsd.daemon.tuning import Tuning
from xsd.xen.api import Clock

if TYPE_CHECKING:
    from xsd.core.engine import Conflict, ConflictFigures, Engine

_logger = logging.getLogger("xsd.daemon.conflicts")

MAX_ANSWER = 4000
"""Bytes of an answer, so that it fits a message."""

DEFAULT_EXPLAINED = 10


def register_conflicts(
    registry: ControlRegistry, engine: Engine, tuning: Tuning, clock: Clock
) -> None:
    """Adds the command to the registry."""

    def conflicts(call: Call) -> str:
        match [word.decode(errors="replace") for word in call.words]:
            case []:
                figures = engine.conflict_figures()
                return _fitting(_line(d, f) for d, f in sorted(figures.items()) if _tells(f))
            case ["explain"]:
                return _explained(engine, clock(), DEFAULT_EXPLAINED)
            case ["explain", count] if count.isdecimal():
                return _explained(engine, clock(), int(count))
            case ["settings"]:
                return _fitting(f"{name} = {_shown(v)}" for name, v in tuning.values().items())
            case ["set", key, value]:
                return _set(tuning, key, value)
            case [domid] if domid.isdecimal():
                found = engine.conflict_figures().get(int(domid))
                if found is None:
                    raise ControlError("ENOENT")
                return _fitting([_line(int(domid), found)])
            case _:
                raise ControlError("EINVAL")

    registry.register("conflicts", "[<domid>|explain [<n>]|settings|set <key> <value>]", conflicts)


def _set(tuning: Tuning, key: str, value: str) -> str:
    try:
        tuning.set(key, value)
    except (KeyError, ValueError) as bad:
        _logger.warning("conflicts set: %s", bad)
        raise ControlError("EINVAL") from None
    _logger.info("conflicts set %s = %s", key, value)
    return "OK"


def _tells(figures: ConflictFigures) -> bool:
    return bool(figures["caused"] or figures["suffered"] or figures["paused_ns"])


def _line(domid: int, figures: ConflictFigures) -> str:
    state = ", paused" if figures["paused"] else ""
    return (
        f"Domain {domid}: caused {figures['caused']}, suffered {figures['suffered']}, "
        f"paused {figures['paused_ns'] / 1e9:.3f} s, credit {figures['credit']:g}{state}"
    )


def _explained(engine: Engine, now: int, count: int) -> str:
    last = engine.conflicts()[-count:] if count else []
    return _fitting(_story(conflict, now) for conflict in reversed(last))


def _story(conflict: Conflict, now: int) -> str:
    path = escaped(conflict["path"]).decode() or "?"
    seen = "+".join(conflict["seen"]) or "?"
    culprit = "nobody who is still known"
    if conflict["known"]:
        culprit = f"connection {conflict['by_conn']} of domain {conflict['by_domid']}"
        if conflict["by_tx"]:
            culprit += f" in transaction {conflict['by_tx']}"
        ago = (conflict["when_ns"] - conflict["by_when_ns"]) / 1e6
        culprit += f" {ago:.3f} ms before"
    charged = ", charged" if conflict["charged"] else ""
    return (
        f"{(now - conflict['when_ns']) / 1e9:.3f} s ago: transaction {conflict['tx']} of "
        f"connection {conflict['conn']}, domain {conflict['domid']}, saw {path} ({seen}); "
        f"changed by {culprit}{charged}"
    )


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fitting(lines: Iterable[str]) -> str:
    """As many whole lines as an answer can hold."""
    text = ""
    for line in lines:
        if len(text) + len(line) + 1 > MAX_ANSWER:
            return text + "...\n"
        text += line + "\n"
    return text
