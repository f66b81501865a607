"""Effects: what the engine asks for, carried out.

The engine names what it cannot do itself; here it is done and the result handed back. A
failure of one of these is the answer to one request, never more.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xsd.daemon.control import ControlError, ControlRegistry
from xsd.daemon.domains import Domains
from xsd.xen.api import Clock, HostError

if TYPE_CHECKING:
    from xsd.core.engine import Engine

_logger = logging.getLogger("xsd.daemon.effects")

MAX_EFFECTS_A_TURN = 1024
"""Effects carried out before sockets have their turn again."""


class Effects:
    """Carries out what an engine asks for, with its domains and a set of control commands."""

    def __init__(
        self, engine: Engine, domains: Domains, control: ControlRegistry, clock: Clock
    ) -> None:
        self._engine = engine
        self._domains = domains
        self._control = control
        self._clock = clock

    def run(self) -> None:
        """Carries out all effects that are waiting."""
        for _ in range(MAX_EFFECTS_A_TURN):
            effect = self._engine.next_effect()
            if effect is None:
                return
            number, kind, conn, args = effect
            try:
                if kind == "introduce":
                    self._domains.introduce(number, *args)
                    continue
                error, data = self._carry_out(kind, conn, args)
            except HostError as failure:
                _logger.warning("%s %s: %s", kind, args[0], failure)
                error, data = failure.errno, b""
            except Exception:
                _logger.exception("effect %s failed", kind)
                error, data = "EIO", b""
            if kind not in ("release", "notice", "log"):
                self._engine.complete(self._clock(), number, error, data)

    def _carry_out(self, kind: str, conn: int, args: tuple[object, ...]) -> tuple[str, bytes]:
        """The name of the error, or "", and the data of the answer."""
        match kind, args:
            case "domain", (int(domid),):
                return ("" if self._domains.exists(domid) else "ENOENT"), b""
            case "release", (int(domid),):
                self._domains.release(domid)
            case "control", (bytes(payload),):
                # What stands behind the last NUL does not count.
                answer = self._control.dispatch(payload.split(b"\0")[:-1], conn)
                return (answer.errno, b"") if isinstance(answer, ControlError) else ("", answer)
            case "log", (str(text), detail):
                _logger.log(logging.DEBUG if detail else logging.INFO, "%s", text)
            case "notice", (int(domid), str(quota), over):
                _logger.warning(
                    "domain %d: %s %s soft quota",
                    domid,
                    quota,
                    "above its" if over else "no longer above its",
                )
        return "", b""
