"""Xen's own Python binding, in the interpreter it was built for."""

from __future__ import annotations

import glob
import json
import subprocess
from typing import Any

import pytest
from peer import Neighbour
from serving import Daemon, absent

INTERPRETER = "/usr/bin/python3"

PRELUDE = """
import json
from xen.lowlevel import xs as binding

def failure(call, *words):
    try:
        call(*words)
    except binding.Error as error:
        return error.args[0]

store = binding.xs()
said = []
say = said.append
"""

EPILOGUE = """
store.rm("", "/l")
store.close()
print(json.dumps(said, default=lambda data: data.decode()))
"""


@pytest.fixture(scope="session")
def binding() -> str:
    """The directory to import it from."""
    found = sorted(glob.glob("/usr/lib/xen-*/lib/python"))
    for where in found:
        done = subprocess.run(
            [INTERPRETER, "-c", "import xen.lowlevel.xs"],
            env={"PYTHONPATH": where}, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return where
    absent(f"xen.lowlevel.xs is not importable by {INTERPRETER}")


def run(script: str, daemon: Daemon, where: str) -> Any:
    """What a script said, with the binding as ``binding`` and a connection as ``store``."""
    done = subprocess.run(
        [INTERPRETER, "-c", PRELUDE + script + EPILOGUE],
        env=daemon.environ() | {"PYTHONPATH": where},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


NODES = """
store.write("", "/l/a", "one")
store.mkdir("", "/l/b")
say(store.read("", "/l/a"))
say(store.read("", "/l/none"))
say(store.ls("", "/l"))
say(store.ls("", "/l/none"))
store.rm("", "/l/a")
say(store.ls("", "/l"))
say(failure(store.write, "", "/l//a", "x"))
say(failure(store.rm, "", "/"))
"""


def test_nodes(daemon: Daemon, neighbour: Neighbour, binding: str) -> None:
    """write, mkdir, read, ls, rm; what is missing is None, what is wrong an error."""
    assert run(NODES, daemon, binding) == [
        "one", None, ["a", "b"], None, ["b"], 22, 22,
    ]  # fmt: skip


PERMISSIONS = """
store.write("", "/l/a", "")
say(store.get_permissions("", "/l/a"))
store.set_permissions("", "/l/a", [{"dom": 0}, {"dom": 3, "read": True}, {"dom": 4, "write": True}])
say(store.get_permissions("", "/l/a"))
"""


def test_permissions(daemon: Daemon, neighbour: Neighbour, binding: str) -> None:
    """What is set is told."""
    before, after = run(PERMISSIONS, daemon, binding)
    assert before == [{"dom": 0, "read": 0, "write": 0}]
    # The binding shows the bit of a right, not whether it is there.
    assert [(entry["dom"], bool(entry["read"]), bool(entry["write"])) for entry in after] == [
        (0, False, False), (3, True, False), (4, False, True),
    ]  # fmt: skip


WATCHES = """
other = binding.xs()
store.watch("/l/a", "token")
say(store.read_watch())
other.write("", "/l/a", "1")
say(store.read_watch())
other.write("", "/l/a/below", "1")
say(store.read_watch())
other.rm("", "/l")
say(store.read_watch())
store.unwatch("/l/a", "token")
other.write("", "/l/a", "2")
say(store.check_watch())
other.close()
"""


def test_watches(daemon: Daemon, neighbour: Neighbour, binding: str) -> None:
    """The first event is for the watch itself, then one for each change."""
    assert run(WATCHES, daemon, binding) == [
        ["/l/a", "token"], ["/l/a", "token"], ["/l/a/below", "token"], ["/l/a", "token"], None,
    ]  # fmt: skip


TRANSACTIONS = """
store.write("", "/l/a", "1")
tx = store.transaction_start()
store.write(tx, "/l/a", "2")
say([store.read("", "/l/a"), store.read(tx, "/l/a")])
say([store.transaction_end(tx), store.read("", "/l/a")])
tx = store.transaction_start()
store.write(tx, "/l/a", "3")
say([store.transaction_end(tx, abort=1), store.read("", "/l/a")])
tx = store.transaction_start()
seen = store.read(tx, "/l/a")
store.write("", "/l/a", "4")
store.write(tx, "/l/a", "5")
say([store.transaction_end(tx), store.read("", "/l/a")])
say(failure(store.read, tx, "/l/a"))
"""


def test_transactions(daemon: Daemon, neighbour: Neighbour, binding: str) -> None:
    """Commit, abort and conflict, which is False and not an error."""
    *ends, unknown = run(TRANSACTIONS, daemon, binding)
    assert ends == [["1", "2"], [True, "2"], [True, "2"], [False, "4"]]
    # The binding takes a missing node and a missing transaction for the same.
    assert unknown is None


DOMAINS = """
say(store.get_domain_path(5))
store.watch("@introduceDomain", "in")
store.watch("@releaseDomain", "out")
say(sorted([store.read_watch(), store.read_watch()]))
store.introduce_domain(82, 1, 2)
say(store.read_watch())
store.introduce_domain(83, 1, 2)
say(store.read_watch())
store.set_target(82, 83)
store.resume_domain(82)
say(failure(store.introduce_domain, 84, 1, 0))
store.release_domain(82)
say(store.read_watch())
store.release_domain(83)
say(store.read_watch())
say(failure(store.release_domain, 82))
say(failure(store.resume_domain, 82))
say(failure(store.set_target, 82, 83))
"""


def test_domains(daemon: Daemon, neighbour: Neighbour, binding: str) -> None:
    """Introductions and releases, their events and their errors."""
    assert run(DOMAINS, daemon, binding) == [
        "/local/domain/5",
        [["@introduceDomain", "in"], ["@releaseDomain", "out"]],
        ["@introduceDomain", "in"],
        ["@introduceDomain", "in"],
        22,
        ["@releaseDomain", "out"],
        ["@releaseDomain", "out"],
        2,
        2,
        2,
    ]


MANY = """
names = [f"child-{number:04}" for number in range(1000)]
for name in names:
    store.mkdir("", "/l/" + name)
say(sorted(store.ls("", "/l")) == names)
"""


def test_many_children(daemon: Daemon, neighbour: Neighbour, binding: str) -> None:
    """A list of children that fits in no message comes complete."""
    assert run(MANY, daemon, binding) == [True]
