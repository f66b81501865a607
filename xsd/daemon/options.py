"""The command line: the options of C xenstored, those of oxenstored, and our own.

Most options are rows of the table; the few that are not stand in :data:`SPECIALS`.  The parser
reads short options singly or together (``-NK``), with their argument attached or behind, and
long ones also cut short as far as they stay unique, as getopt does.  Unlike getopt it goes on
after a mistake, so that all of them are shown at once.
"""

from __future__ import annotations

import enum
import os.path
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xsd.daemon.faults import COMMAND_LINE, bad_value, unknown
from xsd.daemon.kinds import Target
from xsd.daemon.layer import Layer
from xsd.daemon.quotas import NAMES
from xsd.daemon.table import ACCESS_SWITCHES, BY_NAME, DEFAULT_CONFIG, ROWS, quota_row
from xsd.daemon.units import UNITS

TRACE_DIRECTORY = "/var/lib/xen/xenstore"
"""Where a trace file with a relative name goes."""


class Action(enum.Enum):
    """What the command line asks for."""

    RUN = "run"
    HELP = "help"
    TEST = "config-test"
    PRINT = "print-config"
    UNIT = "print-unit"


@dataclass(slots=True)
class CommandLine:
    """What the command line says; the files are empty if not named.

    ``switches`` are changes of ``access-log.switches``, ``base`` is where relative paths start,
    ``unit`` is the unit file to print.
    """

    layer: Layer
    action: Action = Action.RUN
    config: str = ""
    config_file: str = ""
    switches: dict[str, bool] = field(default_factory=dict)
    base: str = "/"
    unit: str = ""


Apply = Callable[[CommandLine, str, str], None]
"""Takes what is being built, the option as written, and its argument (empty for flags)."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option by its spellings; without ``metavar`` it takes no argument."""

    names: tuple[str, ...]
    metavar: str
    help: str
    apply: Apply


def _action(action: Action) -> Apply:
    def apply(line: CommandLine, option: str, text: str) -> None:
        line.action = action

    return apply


def _file(attribute: str) -> Apply:
    def apply(line: CommandLine, option: str, text: str) -> None:
        if not text:
            line.layer.fault(bad_value("''", "a file name"), key=option)
        setattr(line, attribute, os.path.join(line.base, text))

    return apply


def _assignment(section: str) -> Apply:
    """``name=value`` for a row of a section."""

    def apply(line: CommandLine, option: str, text: str) -> None:
        name, equals, value = text.partition("=")
        if not equals:
            line.layer.fault(bad_value(repr(text), "NAME=VALUE"), key=option)
            return
        if section == "timeout":
            what, row = "timeout", BY_NAME.get(f"timeout.{name}")
            known = [row.key for row in ROWS if row.section == "timeout"]
        else:
            what, row = "quota", quota_row(section, name)
            known = list(NAMES)
        if row is None:
            line.layer.fault(unknown(what, name, known), key=f"{option} {text}")
        else:
            line.layer.put_text(row.name, row.kind, value, key=f"{option} {name}")

    return apply


def _trace_file(line: CommandLine, option: str, text: str) -> None:
    """As C's trace file, it has everything: what was read, transactions, introductions."""
    row = BY_NAME["access-log.file"]
    path = os.path.join(TRACE_DIRECTORY, text) if text else text
    line.layer.put_text(row.name, row.kind, path, key=option)
    for what in ("read-ops", "transaction-ops", "special-ops"):
        line.layer.put(f"access-log.{what}", True, key=option)


def _trace_control(line: CommandLine, option: str, text: str) -> None:
    if text[:1] not in ("+", "-") or text[1:] not in ACCESS_SWITCHES:
        expected = "+ or - and one of " + ", ".join(ACCESS_SWITCHES)
        line.layer.fault(bad_value(repr(text), expected), key=option)
        return
    line.switches[text[1:]] = text[0] == "+"


def _refuse(reason: str) -> Apply:
    def apply(line: CommandLine, option: str, text: str) -> None:
        line.layer.fault(f"not supported: {reason}", key=option)

    return apply


def _ignore(reason: str) -> Apply:
    def apply(line: CommandLine, option: str, text: str) -> None:
        line.layer.notes.append(f"{COMMAND_LINE}: {option}: ignored, {reason}")

    return apply


def _unit(line: CommandLine, option: str, text: str) -> None:
    if text not in UNITS:
        line.layer.fault(bad_value(repr(text), " or ".join(UNITS)), key=option)
        return
    line.action, line.unit = Action.UNIT, text


def _internal_db(line: CommandLine, option: str, text: str) -> None:
    if text == "on":
        line.layer.notes.append(
            f"{COMMAND_LINE}: {option}: ignored, the store is always kept in memory"
        )
    elif text == "off":
        line.layer.fault("not supported: the store is kept in memory only", key=option)
    else:
        line.layer.fault(bad_value(repr(text), "on or off"), key=option)


_RESTORE = "a running store cannot be taken over yet"

SPECIALS = (
    Option(("-H", "-h", "--help"), "", "Show this and stop.", _action(Action.HELP)),
    Option(
        ("--config",), "FILE", f"Settings in TOML [{DEFAULT_CONFIG}, if there].", _file("config")
    ),
    Option(
        ("--config-file",),
        "FILE",
        "Settings in the format of oxenstored.conf.",
        _file("config_file"),
    ),
    Option(("--config-test",), "", "Check the settings and stop.", _action(Action.TEST)),
    Option(
        ("--print-config",),
        "",
        "Show the settings in force as a TOML file and stop.",
        _action(Action.PRINT),
    ),
    Option(
        ("--print-unit",),
        "UNIT",
        f"Show a unit file for systemd ({' or '.join(UNITS)}) and stop.",
        _unit,
    ),
    Option(("-Q", "--quota"), "NAME=N", "Set any quota.", _assignment("quota")),
    Option(
        ("-q", "--quota-soft"),
        "NAME=N",
        "Report when a domain exceeds this.",
        _assignment("quota-soft"),
    ),
    Option(
        ("-w", "--timeout"),
        "watch-event=N",
        "Seconds a watch event waits for an unprivileged domain.",
        _assignment("timeout"),
    ),
    Option(
        ("-T", "--trace-file"),
        "FILE",
        f"Access log of everything; relative names are below {TRACE_DIRECTORY}.",
        _trace_file,
    ),
    Option(
        ("--trace-control",),
        "+NAME|-NAME",
        "Switch a topic of the access log: " + " ".join(ACCESS_SWITCHES) + ".",
        _trace_control,
    ),
    Option(("-U", "--live-update"), "", "Reserved.", _refuse(_RESTORE)),
    Option(("--live",), "", "Reserved.", _refuse(_RESTORE)),
    Option(("--restart",), "", "Reserved.", _refuse(_RESTORE)),
    Option(("--reraise-top-level",), "", "Ignored.", _ignore("errors are always reported")),
    Option(("-I", "--internal-db"), "on|off", "Ignored.", _internal_db),
    Option(("-L",), "", "Ignored.", _ignore("it has no meaning any more")),
    Option(("-P", "--output-pid"), "", "Ignored.", _ignore("the pid is in the pid file")),
    Option(("-R", "--no-recovery"), "", "Ignored.", _ignore("nothing is stored on disk")),
    Option(("-V", "--verbose"), "", "Ignored.", _ignore("use --log-level")),
)


def _from_row(name: str) -> Option:
    row = BY_NAME[name]

    def apply(line: CommandLine, option: str, text: str) -> None:
        if row.flag is not None:
            line.layer.put(row.name, row.flag, key=option)
            return
        if isinstance(row.kind, Target):
            text = row.kind.made_absolute(text, line.base)
        line.layer.put_text(row.name, row.kind, text, key=option)

    help_text = row.option_help or row.help
    if row.flag is None and row.default != "":
        help_text += f" [{row.default}]"
    return Option(row.options, "" if row.flag is not None else row.metavar, help_text, apply)


OPTIONS = (
    *(_from_row(row.name) for row in ROWS if row.options),
    *SPECIALS,
)

_BY_SPELLING = {name: option for option in OPTIONS for name in option.names}


def parse(arguments: Sequence[str], base: str) -> CommandLine:
    """Reads the arguments behind ``xsd daemon``; relative paths are taken from ``base``.

    Mistakes are in the layer's ``faults``.
    """
    line = CommandLine(Layer(COMMAND_LINE), base=base)
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            for extra in rest:
                _positional(line, extra)
            break
        if word.startswith("--"):
            _long(line, word, rest)
        elif word.startswith("-") and len(word) > 1:
            _short(line, word, rest)
        else:
            _positional(line, word)
    if line.config and line.config_file:
        line.layer.fault("cannot be used together with --config", key="--config-file")
    return line


def _positional(line: CommandLine, word: str) -> None:
    line.layer.fault("unexpected: options start with '-'", key=word)


def _long(line: CommandLine, word: str, rest: list[str]) -> None:
    name, equals, text = word.partition("=")
    longs = [known for known in _BY_SPELLING if known.startswith("--")]
    fitting = [name] if name in _BY_SPELLING else [k for k in longs if k.startswith(name)]
    if len({id(_BY_SPELLING[known]) for known in fitting}) > 1:
        line.layer.fault("ambiguous: could be " + " or ".join(sorted(fitting)), key=name)
        _skip_argument(rest)
        return
    if not fitting:
        line.layer.fault(unknown("option", name, longs), key=name)
        _skip_argument(rest)
        return
    option = _BY_SPELLING[fitting[0]]
    if not option.metavar:
        if equals:
            line.layer.fault("takes no argument", key=name)
        else:
            option.apply(line, name, "")
    elif equals:
        option.apply(line, name, text)
    else:
        _with_next(line, option, name, rest)


def _short(line: CommandLine, word: str, rest: list[str]) -> None:
    for position in range(1, len(word)):
        name = "-" + word[position]
        option = _BY_SPELLING.get(name)
        if option is None:
            line.layer.fault("unknown option", key=name if word == name else f"{name} in {word}")
            _skip_argument(rest)
            return
        if option.metavar:
            attached = word[position + 1 :]
            if attached:
                option.apply(line, name, attached)
            else:
                _with_next(line, option, name, rest)
            return
        option.apply(line, name, "")


def _skip_argument(rest: list[str]) -> None:
    """Passes over what is probably the argument of an option we do not know."""
    if rest and not rest[0].startswith("-"):
        rest.pop(0)


def _with_next(line: CommandLine, option: Option, name: str, rest: list[str]) -> None:
    if rest:
        option.apply(line, name, rest.pop(0))
    else:
        line.layer.fault(f"expected an argument: {name} {option.metavar}", key=name)


def usage() -> str:
    """The text of ``--help``."""
    lines = [
        "usage: xsd daemon [option...]",
        "",
        "Settings come from the built-in defaults, then the configuration file, then the",
        "environment (XENSTORED_RUNDIR, XENSTORED_PATH), then these options; the last one wins.",
        "--print-config shows all settings there are, with what they mean.",
        "",
    ]
    for option in OPTIONS:
        head = "  " + ", ".join(option.names) + (f" {option.metavar}" if option.metavar else "")
        if len(head) > _HELP_COLUMN - 2:
            lines.append(head)
            head = ""
        width = 100 - _HELP_COLUMN
        for text in textwrap.wrap(option.help, width):
            lines.append(head.ljust(_HELP_COLUMN) + text)
            head = ""
    return "\n".join(lines) + "\n"


_HELP_COLUMN = 32
