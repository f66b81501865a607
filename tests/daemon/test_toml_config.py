"""Our configuration file: what is read, and every kind of mistake with its place."""

from __future__ import annotations

import pytest

from xsd.daemon import toml_config


def faults(text: str) -> list[str]:
    """The faults of a file, as shown."""
    return [str(fault) for fault in toml_config.read(text, "f.toml").faults]


def test_good_file() -> None:
    """Values reach their rows with the lines they stand on."""
    layer = toml_config.read(
        '# mine\n[quota]\nnodes = 8192\n\n"path-max" = 1024 # short\n[log]\nlevel = "warn"\n', "f"
    )
    assert layer.faults == []
    assert {name: (entry.value, entry.line) for name, entry in layer.entries.items()} == {
        "quota.nodes": (8192, 3),
        "quota.path-max": (1024, 5),
        "log.level": ("warn", 7),
    }


@pytest.mark.parametrize(
    "text",
    [
        "quota.nodes = 5\n",
        "quota = { nodes = 5 }\n",
        "[quota]\r\nnodes = 5\r\n",
        "[ quota ]\nnodes=0x5",
        '["quota"]\n"nodes" = +5\n',
    ],
)
def test_every_spelling_of_toml(text: str) -> None:
    """Whatever TOML allows for one setting means the same."""
    layer = toml_config.read(text, "f")
    assert layer.faults == []
    assert {name: entry.value for name, entry in layer.entries.items()} == {"quota.nodes": 5}


def test_both_spellings_of_two_quotas() -> None:
    """path-length and permissions are other names of path-max and node-permissions."""
    layer = toml_config.read(
        "[quota]\npath-length = 7\npermissions = 8\n[quota-soft]\npermissions = 6\n", "f"
    )
    assert {name: entry.value for name, entry in layer.entries.items()} == {
        "quota.path-max": 7,
        "quota.node-permissions": 8,
        "quota-soft.node-permissions": 6,
    }


QUOTA_RANGE = "an integer from 0 to 4294967294"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # no TOML
        ("[quota]\nnodes = \n", "f.toml, line 2, column 9: not TOML: invalid value"),
        ("[quota\n", "f.toml, line 1, column 7: not TOML: expected ']' at the end of a table"),
        ("a = '", "f.toml, line 1: not TOML: "),
        ("[quota]\nnodes = 1\nnodes = 2\n", "f.toml, line 3"),
        ("[quota]\n[quota]\n", "f.toml, line 2"),
        ("x = " + "[" * 5000, "f.toml: not TOML: too many brackets inside each other"),
        # names
        ("[qouta]\nnodes = 1\n", "f.toml, line 1: [qouta]: unknown section: did you mean 'quota'?"),
        (
            "[quota]\n\nnoeds = 1\n",
            "f.toml, line 3: quota.noeds: unknown key: did you mean 'nodes'?",
        ),
        ("[quota]\nxyzzy = 1\n", "f.toml, line 2: quota.xyzzy: unknown key"),
        (
            "[quota]\nquota-maxentity = 1\n",
            "f.toml, line 2: quota.quota-maxentity: unknown key: here it is quota.nodes",
        ),
        (
            "[log]\nburst-limit = 1\n",
            "f.toml, line 2: log.burst-limit: unknown key: did you mean 'conflict.burst-limit'?",
        ),
        (
            "nodes = 5\n",
            "f.toml, line 1: nodes: no section: belongs below [quota] or [quota-soft]",
        ),
        (
            "\nquota-maxwatch = 5\n",
            "f.toml, line 2: quota-maxwatch: unknown key: here it is quota.watches",
        ),
        ("frobnicate = 1\n", "f.toml, line 1: frobnicate: unknown key"),
        (
            "quota = 1\n",
            "f.toml, line 1: quota: expected a table: write [quota] on a line of its own, "
            "its keys below",
        ),
        (
            "[[quota]]\nnodes = 1\n",
            "f.toml, line 1: quota: expected a table: write [quota] on a line of its own, "
            "its keys below",
        ),
        (
            "[quota]\npath-max = 1\npath-length = 1\n",
            "f.toml, line 3: quota.path-length: stands here a second time, as 'path-max' before",
        ),
        # types and ranges
        ("[quota]\nnodes = true\n", f"quota.nodes: bad value true: expected {QUOTA_RANGE}"),
        ('[quota]\nnodes = "5"\n', f'quota.nodes: bad value "5": expected {QUOTA_RANGE}'),
        ("[quota]\nnodes = 5.0\n", f"quota.nodes: bad value 5.0: expected {QUOTA_RANGE}"),
        ("[quota]\nnodes = -1\n", f"quota.nodes: bad value -1: expected {QUOTA_RANGE}"),
        (
            "[quota]\nnodes = 4294967295\n",
            f"quota.nodes: bad value 4294967295: expected {QUOTA_RANGE}",
        ),
        ("[quota]\nnodes = []\n", f"quota.nodes: bad value (a list): expected {QUOTA_RANGE}"),
        ("[quota.nodes]\n", f"quota.nodes: bad value (a table): expected {QUOTA_RANGE}"),
        (
            "[quota]\nnodes = 2020-01-01\n",
            f"quota.nodes: bad value 2020-01-01: expected {QUOTA_RANGE}",
        ),
        ("[daemon]\nfork = 1\n", "daemon.fork: bad value 1: expected true or false"),
        ('[daemon]\nfork = "yes"\n', 'daemon.fork: bad value "yes": expected true or false'),
        (
            "[conflict]\nburst-limit = 0\n",
            "conflict.burst-limit: bad value 0: expected a number above 0 and up to 1e+06",
        ),
        ("[conflict]\nburst-limit = nan\n", "conflict.burst-limit: bad value nan: expected"),
        ("[conflict]\nburst-limit = true\n", "conflict.burst-limit: bad value true: expected"),
        (
            f"[conflict]\nburst-limit = 1{'0' * 400}\n",
            "conflict.burst-limit: bad value 1000",
        ),
        (
            '[log]\nlevel = "loud"\n',
            'log.level: bad value "loud": expected one of debug, info, warn, error, null',
        ),
        ("[log]\nlevel = 1\n", "log.level: bad value 1: expected one of"),
        (
            '[log]\nfile = "log.txt"\n',
            'log.file: bad value "log.txt": expected an absolute path or "" or stderr '
            "or syslog:<facility>",
        ),
        (
            '[log]\nfile = "syslog:loacl0"\n',
            'log.file: bad value "syslog:loacl0": expected an absolute path or "" or stderr '
            "or syslog:<facility> (facilities: auth authpriv",
        ),
        (
            '[socket]\nrundir = "/a\\nb"\n',
            'socket.rundir: bad value "/a\\nb": expected an absolute path '
            "(with characters that cannot be shown)",
        ),
        ('[socket]\nrundir = ""\n', 'socket.rundir: bad value "": expected an absolute path'),
        (
            '[access-log]\nswitches = ["io", "x"]\n',
            "access-log.switches: bad value (a list): expected a list of any of obj, io, wrl",
        ),
        ('[access-log]\nswitches = "io"\n', 'access-log.switches: bad value "io": expected'),
    ],
)
def test_each_mistake(text: str, expected: str) -> None:
    """A mistake gives one fault, which names place, key, value and expected form."""
    found = faults(text)
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith("f.toml")


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    """The first mistake hides none of the others."""
    text = "[log]\nlevel = 1\n[qouta]\n[quota]\nnodes = true\nnodez = 1\nwatches = 5\n"
    assert [line.partition(":")[0] for line in faults(text)] == [
        "f.toml, line 2",
        "f.toml, line 3",
        "f.toml, line 5",
        "f.toml, line 6",
    ]


def test_lines_are_right_behind_values_of_many_lines() -> None:
    """Strings and lists over several lines do not shift the lines of what follows."""
    text = (
        '[access-log]\nswitches = [\n  "io", # requests\n\n  "obj",\n]\n'
        'file = """\n/a\n= [x]\n"""\nread-ops = 1\n'
    )
    assert [(fault.line, fault.key) for fault in toml_config.read(text, "f").faults] == [
        (7, "access-log.file"),
        (11, "access-log.read-ops"),
    ]
