"""Boots Xen with a real dom0 and the chosen xenstored under QEMU, and judges what happens.

The exit status is 0 if everything required held, 1 if not, 2 if it could not be tried.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import machine
from image import CHECKOUT, ImageError, make_image
from verdict import Result, judge

BUILD = CHECKOUT / "build" / "realxen"
BREAKAGES = ("leak-nodes", "leak-rings", "no-release")


def main(argv: Sequence[str] | None = None) -> int:
    """One run, from the command line's words to the exit status."""
    options = _options(argv)
    # So that the machine ends with us, whoever ends us.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    artefacts: Path = options.artefacts or BUILD / f"artefacts-{options.store}"
    artefacts.mkdir(parents=True, exist_ok=True)
    if not machine.is_there():
        print(f"{machine.QEMU} is missing: apt-get install qemu-system-x86", file=sys.stderr)
        return 2
    settings = {
        "store": options.store,
        "guest2": options.guest2,
        "cycles": str(options.cycles),
        "boots": str(min(options.boots, options.cycles)),
        "break": options.breakage,
        "user": str(options.user or ""),
        # Early enough to be told and sent, and for the boot before.
        "limit": str(max(10, int(options.timeout) - 30)),
    }
    try:
        image = make_image(BUILD, options.store, settings)
    except ImageError as failure:
        print(failure, file=sys.stderr)
        return 2
    print(f"booting Xen with {options.store}", flush=True)
    outcome = machine.boot(image, artefacts, options.timeout)
    result = judge(options.store, options.guest2, outcome)
    (artefacts / "result.json").write_text(json.dumps(result.as_json(), indent=2) + "\n")
    _summary(result, artefacts)
    return 0 if result.passed else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    parser.add_argument(
        "--store",
        choices=("xsd", "c", "ocaml"),
        default="xsd",
        help="the xenstored: this one, Xen's C one or Xen's OCaml one [xsd]",
    )
    parser.add_argument(
        "--guest2",
        choices=("pv", "pvh"),
        default="pv",
        help="type of the second guest; a PVH one is reported, not required [pv]",
    )
    parser.add_argument(
        "--cycles",
        type=int,
        default=20,
        metavar="N",
        help="guests created and destroyed in search of leaks [20]",
    )
    parser.add_argument(
        "--boots",
        type=int,
        default=4,
        metavar="N",
        help="how many of those run until their first write [4]",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="when the machine is turned off [600]",
    )
    parser.add_argument(
        "--artefacts",
        type=Path,
        metavar="DIR",
        help="where logs and result.json go [build/realxen/artefacts-STORE]",
    )
    parser.add_argument(
        "--user",
        type=int,
        metavar="UID",
        help="the daemon, xsd, is to become this user, who owns the directory of its log [root]",
    )
    parser.add_argument(
        "--break",
        dest="breakage",
        choices=BREAKAGES,
        default="",
        help="do something wrong on purpose, with xsd: the run must fail",
    )
    options = parser.parse_args(argv)
    if options.breakage and options.store != "xsd":
        parser.error("--break is for --store xsd: the leaks of other stores are not judged")
    if options.user and options.store != "xsd":
        parser.error("--user is for --store xsd")
    return options


def _summary(result: Result, artefacts: Path) -> None:
    held = sum(check.verdict == "pass" for check in result.checks)
    print(f"\n{result.store}: {held} of {len(result.checks)} checks held, {result.seconds:.0f} s")
    for check in result.checks:
        if check.verdict not in ("pass", "missing"):
            needed = "" if check.required else " (not required)"
            print(f"  {check.verdict:<8}{check.name}{needed}: {check.detail}")
    missing = [check.name for check in result.checks if check.verdict == "missing"]
    if missing:
        print(f"  missing {len(missing)}, the first: {missing[0]}")
    print(f"logs and result.json are in {artefacts}")
    print(f"FAILED: {result.why}" if result.why else "PASSED")


if __name__ == "__main__":
    sys.exit(main())
