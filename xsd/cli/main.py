"""The entry point: which tool was meant, by name or by first argument."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from . import catalogue

_DAEMON_NAME = "xenstored"
_DROP_IN = "xenstore"
_DROP_IN_PREFIX = "xenstore-"

_HELP = """\
Usage: xsd COMMAND [argument ...]

The daemon:
  daemon       run xenstored; 'xsd daemon --help' lists its options
  demo         run one in a directory of its own and show what it does

The tools, each with its own --help:
{tools}
Options:
  --version                   print the version and exit
  --print-completion SHELL    print a completion script for bash, zsh or tcsh and exit

The tools connect to $XENSTORED_PATH (a socket or a device), else to 'socket' in $XENSTORED_RUNDIR,
else to /run/xenstored/socket, else to the kernel's device, which is /dev/xen/xenbus on Linux: so
they work in guests too. The same program called xenstore-read, xenstore-ls and so on is that tool,
called xenstored it is the daemon.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status.

    ``argv`` starts with the program's name, as ``sys.argv`` does, which is used when it is not
    given. Then this is the whole process, and a tool ends silently on an interrupt or when
    nobody reads its output any more.
    """
    words = list(sys.argv if argv is None else argv)
    program = words[0].rpartition("/")[2] if words else "xsd"
    rest = words[1:]
    if program == _DAEMON_NAME:
        return _daemon(rest)
    if program.startswith(_DROP_IN_PREFIX):
        name, called = program.removeprefix(_DROP_IN_PREFIX), program
    elif not rest:
        return _no_command(program)
    else:
        name, called = rest.pop(0), f"{program} {words[1]}"
        if program != _DROP_IN:
            if name == "daemon":
                return _daemon(rest)
            if name == "demo":
                return int(import_module(f"{__package__}.demo").run(rest))
            if name.startswith("-") or name == "help":
                return _about_itself(program, name, rest)
    tool = catalogue.find(name)
    if tool is None:
        return _unknown(program, name)
    if argv is None:
        _die_silently()
    return _run(tool, called, rest, drop_in=program.startswith(_DROP_IN))


def _run(tool: catalogue.Tool, called: str, words: Sequence[str], *, drop_in: bool) -> int:
    from xsd.client.errors import ConnectError, ProtocolError, XenstoreError

    from . import invocation, output
    from .failure import ToolError, UsageError, reason

    try:
        call = invocation.parse(tool, words)
        if "help" in call.options:
            stream = sys.stderr if drop_in else sys.stdout
            stream.write(catalogue.help_text(tool, called))
            return 0
        module = import_module(f"{__package__}.{tool.module}")
        try:
            status = int(module.run(call))
        finally:
            output.flush()
        return status
    except UsageError as error:
        message, status = f"{error.message}\n{catalogue.usage(tool, called)}", error.status
    except ToolError as error:
        message, status = error.message, error.status
    except XenstoreError as error:
        message, status = f"{error.operation} {error.path}: {reason(error)}", 1
    except (ConnectError, ProtocolError, ValueError) as error:
        message, status = str(error), 1
    except OSError as error:
        message, status = error.strerror or str(error), 1
    name = called.partition(" ")[0]
    sys.stderr.write(f"{name}: {message}\n")
    return status


def _unknown(program: str, name: str) -> int:
    known = [tool.name for tool in catalogue.TOOLS]
    what = "mode"
    if not program.startswith(_DROP_IN):
        known[:0] = ["daemon", "demo"]
        what = "command"
    sys.stderr.write(f"{program}: unknown {what} '{name}', expected one of {', '.join(known)}\n")
    return 1


def _daemon(words: Sequence[str]) -> int:
    return int(import_module("xsd.daemon.main").main(words))


def _no_command(program: str) -> int:
    if program == _DROP_IN:
        sys.stderr.write(f"{program}: Usage: {program} <mode> [-h] [...]\n")
    else:
        sys.stderr.write(_help())
    return 1


def _about_itself(program: str, word: str, rest: Sequence[str]) -> int:
    if word in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if word == "--version":
        from importlib.metadata import PackageNotFoundError, version

        try:
            sys.stdout.write(f"xsd {version('xsd')}\n")
        except PackageNotFoundError:
            sys.stdout.write("xsd (run from its sources, not installed)\n")
        return 0
    if word.partition("=")[0] == "--print-completion":
        from . import completion

        return completion.run(program, word.partition("=")[2] or (rest[0] if rest else ""))
    sys.stderr.write(f"{program}: unknown option '{word}', see {program} --help\n")
    return 1


def _help() -> str:
    return _HELP.format(tools="".join(f"  {t.name:<12} {t.summary}\n" for t in catalogue.TOOLS))


def _die_silently() -> None:
    """Leave an interrupt and a closed pipe to the system, so that callers see the signal."""
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
