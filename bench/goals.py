"""Goals: what a figure should be, as something that a program can decide and a person can read."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """At most `factor` times what `of` says: 1, the floor, the best peer, or another figure.

    `figure` is the id of that other figure, of our daemon in the same run.
    """

    factor: float
    of: Literal["value", "floor", "peers", "figure"] = "value"
    figure: str = ""

    def text(self) -> str:
        """The goal as the table shows it."""
        match self.of:
            case "value":
                return f"<= {self.factor:g}"
            case "floor":
                return f"<= {self.factor:g} x floor"
            case "peers":
                return "<= peers" if self.factor == 1 else f"<= {self.factor:g} x peers"
            case "figure":
                return f"<= {self.factor:g} x {self.figure}"

    def limit(
        self, floor: float | None, peers: list[float], figures: dict[str, float]
    ) -> float | None:
        """The number that a figure may not exceed; None when what it refers to was not measured."""
        match self.of:
            case "value":
                return self.factor
            case "floor":
                return None if floor is None else self.factor * floor
            case "peers":
                return self.factor * min(peers) if peers else None
            case "figure":
                other = figures.get(self.figure)
                return None if other is None else self.factor * other
