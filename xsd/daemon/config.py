"""From all sources of configuration to one :class:`Settings`, or to all that is wrong with them.

Built-in defaults, then one file (our TOML, or ``oxenstored.conf``), then the environment, then
the command line: the later source wins.  A source that names ``rundir`` but no socket also
discards an earlier source's socket path, so that ``--rundir DIR`` alone always means
``DIR/socket``.
"""

from __future__ import annotations

import os
import os.path
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

from xsd.daemon import options, units
from xsd.daemon.faults import ENVIRONMENT, ConfigError, Fault
from xsd.daemon.kinds import Target, Value
from xsd.daemon.layer import Entry, Layer
from xsd.daemon.options import Action
from xsd.daemon.settings import Settings
from xsd.daemon.table import ACCESS_SWITCHES, BY_NAME, DEFAULT_CONFIG, DEFAULTS, ROWS
from xsd.daemon.template import render

MAX_SOCKET_PATH = 107
"""Bytes of a unix socket's path: the address has 108, one of them for the NUL."""

MAX_CONFIG_BYTES = 1 << 20
"""Bytes of a configuration file; whatever is longer was named by mistake."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of the sources: ``file`` is the one that was read, empty if none.

    ``values`` are all rows as written, before empty words were replaced by what they stand for.
    ``notes`` are for the log: what was accepted but does nothing.  ``unit`` is the unit file to
    print.
    """

    settings: Settings
    action: Action
    file: str
    values: Mapping[str, Value]
    notes: tuple[str, ...]
    unit: str = ""


def load(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    base: str | None = None,
    default_config: str = DEFAULT_CONFIG,
) -> Loaded:
    """Reads every source and checks the result.

    ``arguments`` are those behind ``xsd daemon``; relative paths in them are taken from
    ``base``, the current directory if None.  Raises :class:`ConfigError` with all faults of all
    sources.  A request for help wins over faults, as nobody who asks for it wants to start.
    """
    here = os.getcwd() if base is None else base
    line = options.parse(arguments, here)
    if line.action is Action.HELP:
        return Loaded(build(resolve(DEFAULTS)), Action.HELP, "", DEFAULTS, ())
    file, layer = _file_layer(line, default_config)
    layers = [layer, _environment(environ, here), line.layer]
    merged = _merge(layers)
    if line.switches:
        before = merged.get("access-log.switches")
        on = set(before.value if before and isinstance(before.value, tuple) else _switches())
        on |= {name for name, state in line.switches.items() if state}
        on -= {name for name, state in line.switches.items() if not state}
        value = tuple(name for name in ACCESS_SWITCHES if name in on)
        merged["access-log.switches"] = Entry(value, line.layer.source, 0, "--trace-control")
    faults = [fault for layer in layers for fault in layer.faults]
    notes = [note for layer in layers for note in layer.notes]
    values = DEFAULTS | {name: entry.value for name, entry in merged.items()}
    settings = build(resolve(values))
    faults += _contradictions(settings, merged)
    if faults:
        raise ConfigError(faults)
    notes += _doubts(settings, merged)
    return Loaded(settings, line.action, file, values, tuple(notes), line.unit)


def startup(
    arguments: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    *,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    default_config: str = DEFAULT_CONFIG,
) -> Loaded | int:
    """What the daemon begins with: its settings, or an exit status if it is not to start.

    Answers ``--help``, ``--config-test``, ``--print-config`` and ``--print-unit`` on ``stdout``,
    and shows faults on ``stderr``, one per line.
    """
    out = stdout or sys.stdout
    err = stderr or sys.stderr
    try:
        loaded = load(arguments, environ, default_config=default_config)
    except ConfigError as bad:
        for fault in bad.faults:
            err.write(f"xsd: {fault}\n")
        return 1
    match loaded.action:
        case Action.HELP:
            out.write(options.usage())
        case Action.PRINT:
            out.write(render(loaded.values))
        case Action.UNIT:
            out.write(units.render(loaded.unit))
        case Action.TEST:
            for note in loaded.notes:
                err.write(f"xsd: {note}\n")
            where = f"at {loaded.file}" if loaded.file else "(no configuration file)"
            out.write(f"Configuration valid {where}\n")
        case Action.RUN:
            return loaded
    return 0


def _switches() -> tuple[str, ...]:
    default = DEFAULTS["access-log.switches"]
    return default if isinstance(default, tuple) else ()


def _file_layer(line: options.CommandLine, default_config: str) -> tuple[str, Layer]:
    """The layer of the one file that is read, and its name; the default one may be absent."""
    file = line.config_file or line.config
    if not file:
        if not os.path.exists(default_config):
            return "", Layer(default_config)
        file = default_config
    # What reads a file is not needed where there is none.
    reader: Callable[[str, str], Layer]
    if line.config_file:
        from xsd.daemon.oxen_config import read as reader
    else:
        from xsd.daemon.toml_config import read as reader
    layer = Layer(file)
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as bad:
        reason = bad.strerror if isinstance(bad, OSError) else str(bad)
        layer.fault(f"cannot be read: {reason}")
        return file, layer
    if len(content) > MAX_CONFIG_BYTES:
        layer.fault(f"longer than {MAX_CONFIG_BYTES} bytes: not a configuration file")
        return file, layer
    try:
        return file, reader(content.decode(), file)
    except UnicodeDecodeError as bad:
        layer.fault("not UTF-8 text", content.count(b"\n", 0, bad.start) + 1)
        return file, layer


def _environment(environ: Mapping[str, str], base: str) -> Layer:
    layer = Layer(ENVIRONMENT)
    for row in ROWS:
        text = environ.get(row.env, "") if row.env else ""
        if text and isinstance(row.kind, Target):
            absolute = row.kind.made_absolute(text, base)
            layer.put_text(row.name, row.kind, absolute, key=row.env)
    return layer


def _merge(layers: Sequence[Layer]) -> dict[str, Entry]:
    merged: dict[str, Entry] = {}
    for layer in layers:
        if "socket.rundir" in layer.entries:
            merged.pop("socket.path", None)
        merged |= layer.entries
    return merged


def resolve(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values with every empty word replaced by what it stands for."""
    resolved = dict(values)
    rundir = str(values["socket.rundir"])
    if not values["socket.path"]:
        resolved["socket.path"] = str(Path(rundir, "socket"))
    if not values["daemon.pid-file"]:
        resolved["daemon.pid-file"] = str(Path(rundir, "xenstored.pid"))
    elif values["daemon.pid-file"] == "none":
        resolved["daemon.pid-file"] = ""
    if not values["log.file"]:
        resolved["log.file"] = "syslog:daemon" if values["daemon.fork"] else "stderr"
    return resolved


def field_name(name: str) -> str:
    """The field of a section or a row's key."""
    return name.replace("-", "_")


def build(values: Mapping[str, Value]) -> Settings:
    """The settings out of one value for each row."""
    sections: dict[str, dict[str, Value]] = {}
    for name, value in values.items():
        row = BY_NAME[name]
        sections.setdefault(field_name(row.section), {})[field_name(row.key)] = value
    types = typing.get_type_hints(Settings)
    return Settings(
        **{part.name: types[part.name](**sections[part.name]) for part in fields(Settings)}
    )


def _contradictions(settings: Settings, merged: Mapping[str, Entry]) -> list[Fault]:
    """What no single value shows."""
    faults = []
    path = settings.socket.path
    size = len(os.fsencode(path))
    if settings.socket.enabled and size > MAX_SOCKET_PATH:
        entry = merged.get("socket.path") or merged["socket.rundir"]
        problem = f"the socket path has {size} bytes, {MAX_SOCKET_PATH} are possible: {path}"
        faults.append(Fault(entry.source, entry.line, entry.key, problem))
    if not settings.socket.enabled and not settings.xen.enabled:
        entry = merged["xen.enabled"]
        problem = "with neither the socket nor Xen nobody could talk to the daemon"
        faults.append(Fault(entry.source, entry.line, entry.key, problem))
    if settings.daemon.user and settings.xen.enabled and not settings.xen.init_domain_0:
        entry = merged["daemon.user"]
        problem = "only root could map domain 0's ring later: introduce it at start"
        faults.append(Fault(entry.source, entry.line, entry.key, problem))
    if settings.daemon.fork and settings.log.file == "stderr":
        entry = merged["log.file"]
        problem = "stderr is closed in the background: name a file, or use --no-fork"
        faults.append(Fault(entry.source, entry.line, entry.key, problem))
    return faults


def _doubts(settings: Settings, merged: Mapping[str, Entry]) -> list[str]:
    """What is allowed but deserves a line in the log."""
    notes = []
    for part in fields(settings.quota_soft):
        soft = getattr(settings.quota_soft, part.name)
        hard = getattr(settings.quota, part.name)
        name = "quota-soft." + part.name.replace("_", "-")
        if name in merged and 0 < hard < soft:
            notes.append(f"{name}: {soft} is above the hard quota {hard} and never reached")
    if settings.domains.keep_orphans:
        notes.append("domains.keep-orphans: a new domain can own what another one left behind")
    if not settings.permissions.active:
        notes.append("permissions.active: off, every domain can do everything to every node")
    return notes
