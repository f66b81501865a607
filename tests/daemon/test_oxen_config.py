"""oxenstored.conf: every key, and every kind of mistake with its line."""

from __future__ import annotations

import pytest

from xsd.daemon import oxen_config

# The keys that distributions ship switched on, with their values.
SHIPPED = """\
# default xenstored config

pid-file = /var/run/xen/xenstored.pid
test-eagain = false
merge-activate = true
conflict-burst-limit = 5.0
conflict-max-history-seconds = 0.05
conflict-rate-limit-is-aggregate = true
perms-activate = true
perms-watch-activate = true
quota-activate = true
quota-maxentity = 1000
quota-maxsize = 2048
quota-maxwatch = 100
quota-transaction = 10
quota-maxrequests = 1024
quota-path-max = 1024
quota-maxoutstanding = 1024
quota-maxwatchevents = 1024
persistent = false
# xenstored-log-file = /var/log/xen/xenstored.log
# acesss-log-nb-chars = 180
xenstored-kva = /proc/xen/xsd_kva
xenstored-port = /proc/xen/xsd_port
"""


def test_shipped_file() -> None:
    """The file that every installation has is understood completely."""
    layer = oxen_config.read(SHIPPED, "conf")
    assert (layer.faults, layer.notes) == ([], [])
    assert {name: entry.value for name, entry in layer.entries.items()} == {
        "daemon.pid-file": "/var/run/xen/xenstored.pid",
        "transaction.test-eagain": False,
        "transaction.merge": True,
        "conflict.burst-limit": 5.0,
        "conflict.max-history-seconds": 0.05,
        "conflict.rate-limit-is-aggregate": True,
        "permissions.active": True,
        "permissions.watches": True,
        "quota.active": True,
        "quota.nodes": 1000,
        "quota.node-size": 2048,
        "quota.watches": 100,
        "quota.transactions": 10,
        "quota.transaction-requests": 1024,
        "quota.path-max": 1024,
        "quota.outstanding": 1024,
        "quota.watch-events": 1024,
        "xen.kva-file": "/proc/xen/xsd_kva",
        "xen.port-file": "/proc/xen/xsd_port",
    }


def test_every_key_is_known() -> None:
    """The keys that file can have, all of them."""
    names = """
        pid-file test-eagain merge-activate conflict-burst-limit conflict-max-history-seconds
        conflict-rate-limit-is-aggregate perms-activate perms-watch-activate quota-activate
        quota-maxentity quota-maxsize quota-maxwatch quota-transaction quota-maxrequests
        quota-path-max quota-maxoutstanding quota-maxwatchevents gc-max-overhead persistent
        xenstored-log-file xenstored-log-level xenstored-log-nb-files xenstored-log-nb-lines
        xenstored-log-nb-chars access-log-file access-log-nb-files access-log-nb-lines
        access-log-nb-chars access-log-read-ops access-log-transactions-ops
        access-log-special-ops allow-debug ring-scan-interval xenstored-kva
        xenstored-port"""
    assert set(oxen_config.KEYS) == set(names.split())


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("quota-maxwatch = 0", "quota.watches", 0),
        ("quota-maxwatch = -3", "quota.watches", 0),
        ("quota-transaction = -1", "quota.transactions", 0),
        ("quota-maxrequests = -1", "quota.transaction-requests", 0),
        ("xenstored-log-nb-chars = -1", "log.max-chars", 0),
        ("access-log-nb-lines = 0", "access-log.max-lines", 0),
        ("ring-scan-interval = -7", "xen.ring-scan-interval", -7),
        ("quota-maxentity=0x10", "quota.nodes", 16),
        ("  quota-maxentity\t=  16  ", "quota.nodes", 16),
        ("quota-maxentity = 16\r", "quota.nodes", 16),
        ("conflict-burst-limit = 5", "conflict.burst-limit", 5.0),
        ("access-log-file = syslog:local0", "access-log.file", "syslog:local0"),
        ("xenstored-log-file = /a = b", "log.file", "/a = b"),
        ("xenstored-log-level = null", "log.level", "null"),
    ],
)
def test_meanings(line: str, name: str, value: object) -> None:
    """Numbers that mean "no limit" there become 0 here; blanks do not matter."""
    layer = oxen_config.read(line, "conf")
    assert layer.faults == []
    assert {key: entry.value for key, entry in layer.entries.items()} == {name: value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nfoo = 1", "conf, line 2: foo: unknown key"),
        (
            "acesss-log-nb-chars = 1",
            "conf, line 1: acesss-log-nb-chars: unknown key: did you mean 'access-log-nb-chars'?",
        ),
        ("nonsense", "conf, line 1: expected 'key = value' or '# comment', not 'nonsense'"),
        ("= 3", "conf, line 1: no key before '='"),
        (
            "quota-maxentity = x",
            "conf, line 1: quota-maxentity: bad value 'x': "
            "expected an integer from 1 to 4294967294",
        ),
        # there 0 forbids everything, here it would allow everything
        ("quota-maxentity = 0", "conf, line 1: quota-maxentity: bad value '0': expected"),
        (
            "quota-maxrequests = 0",
            "conf, line 1: quota-maxrequests: bad value '0': "
            "expected an integer from 1 to 4294967294, or -1 for no limit",
        ),
        ("quota-maxentity = 1_000", "conf, line 1: quota-maxentity: bad value '1_000': expected"),
        ("quota-maxentity =", "conf, line 1: quota-maxentity: bad value '': expected"),
        (
            "quota-maxentity = 99999999999999999999999",
            "conf, line 1: quota-maxentity: bad value '99999999999999999999999': expected",
        ),
        (
            "quota-activate = yes",
            "conf, line 1: quota-activate: bad value 'yes': expected true or false",
        ),
        (
            "access-log-nb-chars = 180 # wide",
            "conf, line 1: access-log-nb-chars: bad value '180 # wide': expected an integer from "
            "1 to 1000000000, or 0 for no limit (a comment must stand on a line of its own)",
        ),
        ("conflict-burst-limit = much", "conf, line 1: conflict-burst-limit: bad value 'much'"),
        ("conflict-burst-limit = inf", "conf, line 1: conflict-burst-limit: bad value 'inf'"),
        ("xenstored-log-level = loud", "conf, line 1: xenstored-log-level: bad value 'loud'"),
        ("xenstored-log-file = syslog:x", "conf, line 1: xenstored-log-file: bad value"),
        ("pid-file = here", "conf, line 1: pid-file: bad value 'here': expected an absolute path"),
        (
            "persistent = true",
            "conf, line 1: persistent: not supported: the store is kept in memory only; "
            "write false or remove the line",
        ),
        ("persistent = 1", "conf, line 1: persistent: bad value '1': expected true or false"),
        ("gc-max-overhead = big", "conf, line 1: gc-max-overhead: bad value 'big': expected"),
    ],
)
def test_each_mistake(text: str, expected: str) -> None:
    """A mistake gives one fault, which names line, key, value and expected form."""
    found = [str(fault) for fault in oxen_config.read(text, "conf").faults]
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_notes() -> None:
    """What is accepted but does nothing, or twice there, is said."""
    layer = oxen_config.read(
        "gc-max-overhead = 120\nquota-maxwatch = 1\nquota-maxwatch = 2\n", "conf"
    )
    assert layer.faults == []
    assert layer.entries["quota.watches"].value == 2
    assert layer.notes == [
        "conf, line 1: gc-max-overhead: ignored, nothing needs it",
        "conf, line 3: quota-maxwatch: replaces line 2",
    ]
