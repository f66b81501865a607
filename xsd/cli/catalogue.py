"""Every tool's command line, described once: parsing, help and completion read it from here."""

from __future__ import annotations

from typing import NamedTuple


class Option(NamedTuple):
    """An option: ``short`` is one letter or empty, ``metavar`` is empty for a flag.

    ``aliases`` are further long names that are understood and not shown.
    """

    short: str
    long: str
    help: str
    metavar: str = ""
    aliases: tuple[str, ...] = ()


class Tool(NamedTuple):
    """A tool: where its code is and what its command line looks like.

    ``module`` has a function ``run(invocation) -> exit status``. ``least`` is the number of
    arguments it needs. ``verbatim`` ends the options at the first argument.
    """

    name: str
    module: str
    arguments: str
    summary: str
    details: str
    options: tuple[Option, ...]
    least: int = 1
    verbatim: bool = False


COMMON = (
    Option("h", "help", "show this and exit"),
    Option("", "socket", "connect to this unix socket, or use this device", "PATH"),
    Option("s", "socket-only", "do not use the kernel's device in place of the socket"),
)

_RAW_OUT = Option("R", "raw", "print the bytes of the values only, no escapes and no newline")
_ATOMIC = "Several paths are one transaction, repeated until it does not conflict."

TOOLS: tuple[Tool, ...] = (
    Tool(
        "read",
        "values",
        "path ...",
        "print the values of nodes",
        "Unprintable bytes are shown as \\t \\n \\r \\\\ \\ooo or \\xhh.\n" + _ATOMIC,
        (Option("p", "prefix", "print the path and a colon before each value"), _RAW_OUT),
    ),
    Tool(
        "write",
        "values",
        "path value ...",
        "set the values of nodes",
        "Nodes that are missing are created. The escapes that read prints are undone in values.\n"
        "Several pairs are one transaction, repeated until it does not conflict.\n"
        "Put -- before the first path if a value starts with -.",
        (Option("R", "raw", "write the values as they are, without undoing escapes"),),
        least=2,
    ),
    Tool(
        "rm",
        "nodes",
        "path ...",
        "remove nodes and everything below them",
        "A node that is missing is no error if its parent exists.\n" + _ATOMIC,
        (Option("t", "tidy", "also remove parents that are left without children and value"),),
    ),
    Tool(
        "exists",
        "values",
        "path ...",
        "exit with 0 if all nodes exist and can be read, else with 1",
        "Prints nothing.",
        (),
    ),
    Tool(
        "list",
        "nodes",
        "path ...",
        "print the names of the children of nodes",
        _ATOMIC,
        (Option("p", "prefix", "print full paths"),),
    ),
    Tool(
        "ls",
        "tree",
        "[path ...]",
        "print everything below nodes, by default below /",
        "Values are escaped as read does, and cut (\\...) to the width of the terminal; without a\n"
        "terminal to 80 columns, or not at all with -f. Nodes that vanish meanwhile are skipped.",
        (
            Option("f", "flat", "print full paths instead of a tree"),
            Option("p", "permissions", "print permissions too", aliases=("prefix",)),
        ),
        least=0,
    ),
    Tool(
        "chmod",
        "permissions",
        "path permission ...",
        "set the permissions of a node",
        "A permission is a letter and a domid: n none, r read, w write, b both. The domain of the\n"
        "first one owns the node, and its letter holds for all domains that are not named.",
        (
            Option("r", "recurse", "also set them on everything below"),
            Option("u", "upto", "also set them on the parents, except /"),
        ),
        least=2,
    ),
    Tool(
        "watch",
        "watching",
        "path ...",
        "print the path of each change at or below nodes",
        "Each path is printed once at the start. Ends after N events, else never.",
        (
            Option("n", "number", "end after N events, those at the start included", "N"),
            Option("d", "depth", "only changes at most DEPTH names below the path", "DEPTH"),
        ),
    ),
    Tool(
        "control",
        "control",
        "command [argument ...]",
        "ask the daemon about itself, or tell it something",
        "The command 'help' lists what the daemon knows.\n"
        "Exit status: 2 without a command, 1 without a daemon, 3 if the command fails.",
        (),
        least=0,
        verbatim=True,
    ),
)

_BY_NAME = {tool.name: tool for tool in TOOLS}


def find(name: str) -> Tool | None:
    """The tool of that name."""
    return _BY_NAME.get(name)


def usage(tool: Tool, called: str) -> str:
    """One line; ``called`` is what the user typed, as in "xsd read"."""
    words = [f"Usage: {called}"]
    for option in (*COMMON[:1], *tool.options):
        name = f"-{option.short}" if option.short else f"--{option.long}"
        words.append(f"[{name} {option.metavar}]" if option.metavar else f"[{name}]")
    words.append(tool.arguments)
    return " ".join(words)


def help_text(tool: Tool, called: str) -> str:
    """Usage, purpose and options; ends with a newline."""
    lines = [usage(tool, called), "", f"{tool.summary[0].upper()}{tool.summary[1:]}."]
    lines += [*tool.details.splitlines(), ""]
    lines += [_option_line(option) for option in (*tool.options, *COMMON)]
    return "\n".join(lines) + "\n"


def _option_line(option: Option) -> str:
    names = [f"-{option.short}"] if option.short else []
    if option.long:
        names.append(f"--{option.long}")
    label = ", ".join(names) + (f" {option.metavar}" if option.metavar else "")
    return f"  {label:<22} {option.help}"
