"""Shell completion, made by shtab from the catalogue of tools."""

from __future__ import annotations

import argparse
import sys

from .catalogue import COMMON, TOOLS, Option, Tool

_DAEMON = "run xenstored"


def run(program: str, shell: str) -> int:
    """Print a completion script for ``shell``."""
    try:
        import shtab
    except ImportError:
        sys.stderr.write(f"{program}: --print-completion needs the Python package shtab\n")
        return 1
    if shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        sys.stderr.write(f"{program}: expected a shell, one of {known}, got '{shell}'\n")
        return 1
    sys.stdout.write(shtab.complete(_parser(), shell=shell) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xsd", add_help=False)
    commands = parser.add_subparsers()
    commands.add_parser("daemon", help=_DAEMON, add_help=False)
    for tool in TOOLS:
        _add(commands.add_parser(tool.name, help=tool.summary, add_help=False), tool)
    return parser


def _add(parser: argparse.ArgumentParser, tool: Tool) -> None:
    for option in (*tool.options, *COMMON):
        _add_option(parser, option)
    parser.add_argument("arguments", nargs="*")


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    names = [f"-{option.short}"] if option.short else []
    if option.long:
        names.append(f"--{option.long}")
    if option.metavar:
        parser.add_argument(*names, help=option.help, metavar=option.metavar)
    else:
        parser.add_argument(*names, help=option.help, action="store_true")
