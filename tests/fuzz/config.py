"""Fuzz target: the readers of configuration files, under atheris.

The first byte says which file it is, the rest is its text. Whatever stands there, reading it
gives values or faults, never an exception; faults name a line that exists; and every value that
was accepted, written as TOML below its own key, is read again as the same value.

Run with the options of libFuzzer by the interpreter that has atheris.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("tomllib", "xsd.daemon.kinds", "xsd.daemon.toml_config", "xsd.daemon.oxen_config")


def check(text: str, reader: Any, toml_config: Any, kinds: Any) -> None:
    """Raises AssertionError if one of the properties does not hold."""
    layer = reader(text, "file")
    lines = max(1, text.count("\n") + 1, len(text.splitlines()))
    for fault in layer.faults:
        assert 0 <= fault.line <= lines, fault
        assert str(fault), fault
    for name, entry in layer.entries.items():
        assert 0 <= entry.line <= lines, entry
        section, _, key = name.partition(".")
        again = toml_config.read(f"[{section}]\n{key} = {kinds.to_toml(entry.value)}\n", "again")
        assert not again.faults, (name, entry, again.faults)
        value = again.entries[name].value
        assert (type(value), value) == (type(entry.value), entry.value), (name, entry, value)
        assert again.entries[name].line == 2, (name, entry)


def load() -> Any:
    """The target as a function of bytes."""
    toml_config = importlib.import_module("xsd.daemon.toml_config")
    oxen_config = importlib.import_module("xsd.daemon.oxen_config")
    kinds: Any = importlib.import_module("xsd.daemon.kinds")

    def to_toml(value: Any) -> str:
        """Writes numbers above one wrongly: the bug that is planted."""
        if type(value) is int and value > 1:
            value += 1
        return str(kinds_to_toml(value))

    kinds_to_toml = kinds.to_toml
    if os.environ.get("XSD_FUZZ_CANARY") == "1":
        kinds.to_toml = to_toml

    def one(data: bytes) -> None:
        text = data[1:].decode("utf-8", "replace")
        reader = oxen_config.read if data[:1] < b"\x80" else toml_config.read
        check(text, reader, toml_config, kinds)

    return one


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=list(MODULES)):
        one = load()
    # To merge, libFuzzer runs itself as a shell command that begins with this.
    command = f"{shlex.quote(sys.executable)} {shlex.quote(__file__)}"
    atheris.Setup([command, *sys.argv[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
