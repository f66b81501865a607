"""``python -m mutation.simulate SECONDS FIRST``: worlds of the simulator, one after the other.

Ends with status 1 at the first difference, and by a signal if a world does not end. SECONDS are
of the processor, so that a busy machine does not make the check weaker.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from sim.run import play, trace

import xsd.core.engine
from mutation.plugin import MEMORY, arm

STEPS = 10_000
LONGEST = 120.0
"""Seconds that a world may take; it takes one or two."""


def main(seconds: float, first: int) -> int:
    """Plays worlds until the time is over. 1 if one of them fails."""
    assert Path(xsd.core.engine.__file__).is_relative_to(Path.cwd()), "not the copy"
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    seed, played = first, 0
    while time.process_time() < seconds:
        print(f"runs seed {seed}", flush=True)
        arm(LONGEST, 5 * LONGEST)
        outcome = play(seed, trace(seed, STEPS))
        arm(0, 0)
        played += outcome.steps
        if outcome.failure is not None:
            text = " ".join(str(outcome.failure).split())[:300]
            print(f"failed seed {seed} {text}")
            return 1
        seed += 1
    print(f"well {seed - first} seeds, {played} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
