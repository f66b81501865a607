"""`python -m bench`, from the top of the checkout."""

import sys

from bench import baseline, canary, report, run

COMMANDS = {
    "report": report.main,
    "baseline": baseline.baseline,
    "table": baseline.tables,
    "beside": baseline.beside,
    "canary": canary.main,
}

command = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
sys.exit(run.main(sys.argv[1:]) if command is None else command(sys.argv[2:]))
