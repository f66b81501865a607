"""How the daemon of a world is set up: each world draws its own settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from xsd.core.engine import Engine

MS, S = 1_000_000, 1_000_000_000
QUOTAS = {
    "nodes": (2, 6, 20), "watches": (1, 3), "outstanding": (1, 2, 4), "transactions": (1, 2),
    "transaction-nodes": (3, 8, 20), "transaction-requests": (2, 6), "watch-events": (1, 2, 5),
    "node-size": (44, 80), "memory": (200, 350, 600, 1200, 2500, 6000),
}  # fmt: skip
"""Small ones, for domains to come."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon is told at its start; as it comes unless a world says otherwise."""

    conflict: bool = True
    burst_limit: float = 5.0
    period_ns: int = 50 * MS
    aggregate: bool = True
    priority_after: int = 8
    priority_hold_ns: int = 200 * MS
    write_rate: bool = False
    writes_per_second: int = 200
    write_burst: int = 10
    write_reserve: int = 1000
    write_newcomers: int = 5
    event_timeout_ns: int = 20 * S
    quotas: tuple[tuple[str, int], ...] = ()

    def with_one(self, name: str, value: Any) -> Settings:
        """The same but for one."""
        return replace(self, **{name: value})

    @property
    def tight(self) -> bool:
        """Whether guests have little memory."""
        return "memory" in dict(self.quotas)

    @property
    def fair(self) -> bool:
        """Whether anybody has to wait because of others."""
        return self.conflict or self.write_rate or self.priority_after > 0

    def configure(self, engine: Engine) -> None:
        given = asdict(self)
        for name, value in given.pop("quotas"):
            engine.set_quota(name, value)
        engine.configure(**given)

    def as_plain(self) -> tuple[tuple[str, Any], ...]:
        """What is not as it comes."""
        usual = asdict(Settings())
        found = {name: getattr(self, name) for name in usual}
        return tuple((name, value) for name, value in found.items() if value != usual[name])


def from_plain(pairs: tuple[tuple[str, Any], ...]) -> Settings:
    return replace(Settings(), **dict(pairs))


TUNABLE = (
    "conflict", "burst_limit", "period_ns", "aggregate", "priority_after", "priority_hold_ns",
    "write_rate", "writes_per_second", "write_burst", "write_reserve", "write_newcomers",
)  # fmt: skip
"""What can be changed while the daemon runs."""


def draw_one(random: Random) -> tuple[str, Any]:
    name = random.choice(TUNABLE)
    return name, getattr(draw(random), name)


def draw(random: Random) -> Settings:
    """Any mixture; what there is for small worlds to reach is drawn more often than what is not."""
    pick = random.choice
    names = random.sample(sorted(set(QUOTAS) - {"memory"}), pick((0, 0, 1, 2)))
    names += ["memory"] * (random.random() < 0.35)
    return Settings(
        conflict=pick((True, True, False)),
        burst_limit=pick((5.0, 1.0, 2.5)),
        period_ns=pick((50 * MS, 50 * MS, 1 * MS, 1 * S)),
        aggregate=pick((True, False)),
        priority_after=pick((0, 1, 1, 2, 8)),
        priority_hold_ns=pick((200 * MS, 200 * MS, 1 * MS, 2 * S, 0)),
        write_rate=pick((True, False)),
        writes_per_second=pick((200, 1, 20, 3000)),
        write_burst=pick((10, 0, 1, 3)),
        write_reserve=pick((1000, 0, 5)),
        write_newcomers=pick((5, 0, 1)),
        event_timeout_ns=pick((20 * S, 20 * S, 20 * S, 1 * S, 0)),
        quotas=tuple((name, pick(QUOTAS[name])) for name in names),
    )
