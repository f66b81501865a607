"""The command line: every option of both older daemons and ours, and every kind of mistake."""

from __future__ import annotations

import pytest

from xsd.daemon import options
from xsd.daemon.options import Action


def parsed(*arguments: str) -> dict[str, object]:
    """The rows that good arguments set."""
    line = options.parse(arguments, "/here")
    assert line.layer.faults == []
    return {name: entry.value for name, entry in line.layer.entries.items()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-E 5", {"quota.nodes": 5}),
        ("--entry-nb 5", {"quota.nodes": 5}),
        ("-F x.pid", {"daemon.pid-file": "/here/x.pid"}),
        ("--pid-file=/x.pid", {"daemon.pid-file": "/x.pid"}),
        ("--pid-file none", {"daemon.pid-file": "none"}),
        ("-N", {"daemon.fork": False}),
        ("--no-fork", {"daemon.fork": False}),
        ("-S 5", {"quota.node-size": 5}),
        ("--entry-size=5", {"quota.node-size": 5}),
        ("-W5", {"quota.watches": 5}),
        ("--watch-nb 5", {"quota.watches": 5}),
        ("-t 5", {"quota.transactions": 5}),
        ("--transaction 0", {"quota.transactions": 0}),
        ("-A 5", {"quota.node-permissions": 5}),
        ("--perm-nb 5", {"quota.node-permissions": 5}),
        ("-M 5", {"quota.path-max": 5}),
        ("--path-max 5", {"quota.path-max": 5}),
        ("-Q outstanding=5", {"quota.outstanding": 5}),
        ("--quota path-length=5", {"quota.path-max": 5}),
        ("-Q permissions=5 -Qpath-max=6", {"quota.node-permissions": 5, "quota.path-max": 6}),
        ("-Q transaction-requests=5", {"quota.transaction-requests": 5}),
        ("-q memory=5", {"quota-soft.memory": 5}),
        ("--quota-soft nodes=5", {"quota-soft.nodes": 5}),
        ("-w watch-event=5", {"timeout.watch-event": 5}),
        ("--timeout=watch-event=5", {"timeout.watch-event": 5}),
        ("-K", {"domains.keep-orphans": True}),
        ("--keep-orphans", {"domains.keep-orphans": True}),
        ("--event 5", {"xen.event-channel": 5}),
        ("--master-domid 5", {"xen.master-domid": 5}),
        ("--priv-domid 5", {"xen.privileged-domid": 5}),
        ("-D", {"xen.init-domain-0": False}),
        ("--no-domain-init", {"xen.init-domain-0": False}),
        ("--no-access-log", {"access-log.active": False}),
        ("--disable-socket", {"socket.enabled": False}),
        ("--user _xsd", {"daemon.user": "_xsd"}),
        ("--user 65534", {"daemon.user": "65534"}),
        ("--no-xen", {"xen.enabled": False}),
        ("--rundir run/x", {"socket.rundir": "/here/run/x"}),
        ("--socket /s", {"socket.path": "/s"}),
        ("--log-level debug", {"log.level": "debug"}),
        ("--log-file stderr", {"log.file": "stderr"}),
        ("--access-log a.log", {"access-log.file": "/here/a.log"}),
        ("--access-log syslog:local1", {"access-log.file": "syslog:local1"}),
        ("--store-domid 7", {"xen.store-domid": 7}),
        # several at once, cut short, the last one wins
        ("-NK", {"daemon.fork": False, "domains.keep-orphans": True}),
        ("-NE5", {"daemon.fork": False, "quota.nodes": 5}),
        ("--entry-n 5", {"quota.nodes": 5}),
        ("-E 5 -Q nodes=6 --entry-nb 7", {"quota.nodes": 7}),
        ("", {}),
        ("--", {}),
    ],
)
def test_each_option(arguments: str, expected: dict[str, object]) -> None:
    """An option sets its row."""
    assert parsed(*arguments.split()) == expected


@pytest.mark.parametrize("option", ["-T", "--trace-file"])
def test_trace_file(option: str) -> None:
    """The trace file has everything, and its relative names are in a place of their own."""
    everything = dict.fromkeys(
        ("access-log.read-ops", "access-log.transaction-ops", "access-log.special-ops"), True
    )
    assert (
        parsed(option, "t.log") == {"access-log.file": "/var/lib/xen/xenstore/t.log"} | everything
    )
    assert parsed(option, "/t.log") == {"access-log.file": "/t.log"} | everything


def test_trace_control() -> None:
    """Switches are collected, the last one of a name wins."""
    line = options.parse(["--trace-control=+acc", "--trace-control", "-io"], "/")
    assert (line.layer.faults, line.switches) == ([], {"acc": True, "io": False})


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        ("", Action.RUN),
        ("--help", Action.HELP),
        ("-H", Action.HELP),
        ("-h", Action.HELP),
        ("--config-test", Action.TEST),
        ("--print-config", Action.PRINT),
    ],
)
def test_actions(arguments: str, action: Action) -> None:
    """What is to be done."""
    assert options.parse(arguments.split(), "/").action == action


@pytest.mark.parametrize(
    "arguments", ["--reraise-top-level", "-I on", "--internal-db=on", "-P", "-R", "-V", "-L"]
)
def test_accepted_and_ignored(arguments: str) -> None:
    """Options without meaning here do no harm, and the log will say so."""
    line = options.parse(arguments.split(), "/")
    assert (line.layer.faults, line.layer.entries) == ([], {})
    assert len(line.layer.notes) == 1
    assert "ignored" in line.layer.notes[0]


QUOTA_RANGE = "an integer from 0 to 4294967294"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--entry-bn 5 ", "--entry-bn: unknown option: did you mean '--entry-nb'?"),
        ("-x", "-x: unknown option"),
        ("-Nx", "-x in -Nx: unknown option"),
        ("-E", "-E: expected an argument: -E N"),
        ("--entry-nb", "--entry-nb: expected an argument: --entry-nb N"),
        ("-E x", f"-E: bad value 'x': expected {QUOTA_RANGE}"),
        ("-E -1", f"-E: bad value '-1': expected {QUOTA_RANGE}"),
        ("--entry-nb=", f"--entry-nb: bad value '': expected {QUOTA_RANGE}"),
        ("-E 4294967295", f"-E: bad value '4294967295': expected {QUOTA_RANGE}"),
        ("--no-fork=1", "--no-fork: takes no argument"),
        ("--entry 5", "--entry: ambiguous: could be --entry-nb or --entry-size"),
        ("stray", "stray: unexpected: options start with '-'"),
        ("- ", "-: unexpected: options start with '-'"),
        ("-- -N", "-N: unexpected: options start with '-'"),
        ("-Q noeds=5", "-Q noeds=5: unknown quota: did you mean 'nodes'?"),
        ("-Q nodes", "-Q: bad value 'nodes': expected NAME=VALUE"),
        ("-Q nodes=x", f"-Q nodes: bad value 'x': expected {QUOTA_RANGE}"),
        ("-Q active=true", "-Q active=true: unknown quota"),
        ("-q watches=-1", f"-q watches: bad value '-1': expected {QUOTA_RANGE}"),
        ("-w nothing=5", "-w nothing=5: unknown timeout"),
        ("-w watch-event=x", "-w watch-event: bad value 'x': expected an integer from 0 to 86400"),
        (
            "--trace-control=io",
            "--trace-control: bad value 'io': expected + or - and one of obj, io, wrl, acc, tdb",
        ),
        ("--trace-control=+x", "--trace-control: bad value '+x': expected + or - and one of"),
        ("-U", "-U: not supported: a running store cannot be taken over yet"),
        ("--live-update", "--live-update: not supported"),
        ("--live", "--live: not supported"),
        ("--restart", "--restart: not supported"),
        ("-I off", "-I: not supported: the store is kept in memory only"),
        ("-I maybe", "-I: bad value 'maybe': expected on or off"),
        ("--priv-domid 32752", "--priv-domid: bad value '32752': expected an integer from 0"),
        ("--user a:b", "--user: bad value 'a:b': expected a user's name or number"),
        ("--log-level loud", "--log-level: bad value 'loud': expected one of"),
        ("--log-file syslog:x", "--log-file: bad value 'syslog:x': expected"),
        ("--config a --config-file b", "--config-file: cannot be used together with --config"),
    ],
)
def test_each_mistake(arguments: str, expected: str) -> None:
    """A mistake gives one fault, which names option, value and expected form."""
    found = [str(fault) for fault in options.parse(arguments.split(), "/").layer.faults]
    assert len(found) == 1
    assert found[0].startswith(f"command line: {expected}")


def test_all_mistakes_at_once() -> None:
    """Reading goes on behind a mistake."""
    line = options.parse(["-E", "x", "stray", "--nope", "-N", "-W", "y"], "/")
    assert [fault.key for fault in line.layer.faults] == ["-E", "stray", "--nope", "-W"]
    assert line.layer.entries["daemon.fork"].value is False


@pytest.mark.parametrize("option", ["--rundir=", "--config=", "--socket=a\nb"])
def test_names_that_are_none(option: str) -> None:
    """An empty or unprintable file name is a mistake, not the current directory."""
    assert len(options.parse([option], "/").layer.faults) == 1
