"""The unit files for systemd that come with the package, for the program that is installed.

They are files beside this module, readable without it by
``importlib.resources.files("xsd.daemon") / "units"``.
"""

from __future__ import annotations

import os.path
import re
import sys

UNITS = ("xenstored.service", "proc-xen.mount")

_PROGRAM = "/usr/bin/xsd"
"""Where the files say that the program is."""

_PLAIN = re.compile(r"[\w/.,+@:=-]+", re.ASCII)


def program() -> str:
    """The absolute path of the program that runs, under its own name."""
    path = os.path.realpath(sys.argv[0])
    if os.path.basename(path) == "xsd":
        return path
    # Python was started in another way: where the installation puts programs.
    import sysconfig

    return os.path.join(sysconfig.get_path("scripts"), "xsd")


def render(name: str, path: str | None = None) -> str:
    """A unit file that starts the program at ``path``, or the one that runs.

    Raises ValueError if the path has a line break, which no unit file can hold.
    """
    from importlib.resources import files

    text = files("xsd.daemon").joinpath("units", name).read_text(encoding="utf-8")
    word = _word(program() if path is None else path)
    return text.replace(f"\nExecStart={_PROGRAM} ", f"\nExecStart={word} ")


def _word(path: str) -> str:
    """The path as the first word of a command: quoted where the service manager would cut it."""
    if "\n" in path:
        raise ValueError(f"{path!r} has a line break")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if _PLAIN.fullmatch(path) else f'"{escaped}"'
