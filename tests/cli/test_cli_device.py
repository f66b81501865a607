"""The tools through a character device, as in a guest, against a running server."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serving
from chardevice import CharacterDevice
from toolrun import Result

from xsd.client import address, requests, stream
from xsd.client.errors import XenstoreError
from xsd.client.sync import Client
from xsd.client.wire import Op, WatchEvent

Run = Callable[..., Result]
SECONDS = 20.0


@pytest.fixture
def device(store: Client, xenstored_socket: str) -> Iterator[CharacterDevice]:
    """A device that leads to the live server."""
    with CharacterDevice(xenstored_socket) as made:
        yield made


# Each line is a call; together they use every tool, and many ways of failing.
SESSION = [
    ("xsd", "write", "/t/a", "one", "/t/b/c", "two\\n"),
    ("xenstore-write", "/t/long", "x" * 4088),
    ("xsd", "write", "/t/long", "x" * 4089),
    ("xsd", "read", "/t/a", "/t/b/c"),
    ("xenstore-read", "-R", "/t/long"),
    ("xsd", "read", "/t/none"),
    ("xsd", "read", "/t//a"),
    ("xsd", "exists", "/t/a"),
    ("xsd", "exists", "/t/none"),
    ("xsd", "list", "-p", "/t", "/t/b"),
    ("xsd", "chmod", "-r", "/t/b", "n0", "r1"),
    ("xenstore-chmod", "/t/none", "n0"),
    ("xsd", "ls", "-fp", "/t"),
    ("xenstore-ls", "/t"),
    ("xsd", "watch", "-n", "2", "/t/a", "/t/b"),
    ("xsd", "rm", "-t", "/t/b/c"),
    ("xenstore", "rm", "/t/x/y"),
    ("xsd", "control", "check"),
    ("xenstore-control", "nonsense"),
    ("xsd", "ls", "/t"),
]


def test_every_tool(
    store: Client, run: Run, xenstored_socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session through the device has the outputs, complaints and statuses of the socket's."""
    through_socket = [run(*words) for words in SESSION]
    store.rm("/t")
    through_device = []
    for words in SESSION:
        with CharacterDevice(xenstored_socket) as device:
            monkeypatch.setenv("XENSTORED_PATH", device.path)
            through_device.append(run(*words))
        # All but the request that is too long for anybody.
        assert (device.seen == []) == ("E2BIG" in through_device[-1].err)
    assert through_device == through_socket
    assert [result.status for result in through_socket].count(0) == 13
    assert {result.status for result in through_socket} == {0, 1, 3}


def test_one_byte_at_a_time(
    run: Run, device: CharacterDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tools do not care how replies are cut."""
    monkeypatch.setattr(stream, "_RECEIVE_BYTES", 1)
    monkeypatch.setenv("XENSTORED_PATH", device.path)
    assert run("xsd", "write", "/t/a/b", "1", "/t/a/c", "2").status == 0
    assert run("xsd", "ls", "-f", "/t") == Result(0, b'/t/a = ""\n/t/a/b = "1"\n/t/a/c = "2"\n', "")


def test_big_values_and_events_between_replies(store: Client, device: CharacterDevice) -> None:
    """Values as long as they can be come whole; events among replies wait for their turn."""
    value = (bytes(range(256)) * 16)[: 4096 - len("/t/a") - 1]
    store.mkdir("/t")
    with Client.connect(device.path, timeout=SECONDS) as client:
        client.watch("/t", b"t")
        client.write("/t/a", value)
        client.write("/t/b", b"")
        assert client.read("/t/a") == value
        events = [client.next_event(SECONDS).path for _ in range(3)]
        assert events == ["/t", "/t/a", "/t/b"]
        store.write("/t/a", b"")
        assert client.next_event(SECONDS) == WatchEvent("/t/a", b"t")
        client.unwatch("/t", b"t")
        store.write("/t/a", b"")
        assert client.read("/t/a") == b""
        with pytest.raises(TimeoutError):
            client.next_event(0)


def test_pipeline_and_transactions(store: Client, device: CharacterDevice) -> None:
    """Many requests at a time, wide directories, transactions."""
    names = [f"a-child-with-a-long-name-{number:04d}" for number in range(300)]
    with Client.connect(device.path, timeout=SECONDS) as client:
        outcomes = client.pipeline(requests.mkdir(f"/t/w/{name}") for name in names)
        assert list(outcomes) == [None] * 300
        assert sorted(client.ls("/t/w")) == names
        assert Op.DIRECTORY_PART in device.seen
        client.write("/t/n", b"0")
        with client.transaction() as tx:
            tx.write("/t/n", b"1")
            assert (tx.read("/t/n"), store.read("/t/n")) == (b"1", b"0")
        assert store.read("/t/n") == b"1"


def test_refusals(store: Client, device: CharacterDevice) -> None:
    """Error replies are what they are on the socket."""
    asked = (
        (requests.read("/t/none"), "ENOENT"),
        (requests.watch("//", b"t"), "EINVAL"),
        (requests.unwatch("/t", b"t"), "ENOENT"),
    )
    with Client.connect(device.path, timeout=SECONDS) as client:
        for request, name in asked:
            with pytest.raises(XenstoreError) as caught:
                client.call(request)
            assert caught.value.name == name


def test_watch_tool_in_a_process(store: Client, device: CharacterDevice, programs: Path) -> None:
    """The tool prints each change as it happens."""
    store.mkdir("/t")
    environ = serving.clean_environ(XENSTORED_PATH=device.path)
    watcher = subprocess.Popen(
        [programs / "xenstore-watch", "/t"], env=environ, stdout=subprocess.PIPE
    )
    assert watcher.stdout is not None
    try:
        for expected, following in (("/t", "/t/a"), ("/t/a", "/t/b"), ("/t/b", "/t")):
            assert select.select([watcher.stdout], [], [], SECONDS)[0]
            assert os.read(watcher.stdout.fileno(), 100).decode() == f"{expected}\n"
            store.write(following, b"")
    finally:
        watcher.terminate()
        watcher.wait(SECONDS)
        watcher.stdout.close()


def test_depth_is_refused(store: Client, run: Run, device: CharacterDevice) -> None:
    """A watch with a depth, which the kernel would drop, is refused with the reason."""
    result = run("xsd", "watch", "--socket", device.path, "-d", "1", "-n", "1", "/t")
    assert (result.status, result.err) == (
        1,
        "xsd: Unable to add watch on /t: watches through the kernel's device have no depth "
        "(ENOSYS)\n",
    )


def test_nothing_there(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a server the tool says where it has looked; -s looks at the socket only."""
    monkeypatch.delenv("XENSTORED_PATH")
    monkeypatch.delenv("XENSTORED_RUNDIR", raising=False)
    monkeypatch.setattr(address, "DEFAULT_RUNDIR", str(tmp_path))
    monkeypatch.setattr(address, "DEVICES", (str(tmp_path / "device"),))
    missing = "No such file or directory"
    assert run("xsd", "read", "/a").err == (
        f"xsd: cannot connect to xenstored, tried {tmp_path}/socket: {missing}; "
        f"{tmp_path}/device: {missing}\n"
    )
    assert run("xenstore-read", "-s", "/a") == Result(
        1, b"", f"xenstore-read: cannot connect to xenstored at {tmp_path}/socket: {missing}\n"
    )


def test_device_of_the_test(store: Client, device: CharacterDevice) -> None:
    """The canary: a tool made for kernels' devices gets on with this one."""
    tool = shutil.which("xenstore-read")
    if tool is None:
        serving.absent("Debian's xenstore-read is not installed")
    store.write("/t/a", b"value")
    theirs = subprocess.run(
        [tool, "/t/a"],
        env=serving.clean_environ(XENSTORED_PATH=device.path),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert (theirs.returncode, theirs.stdout) == (0, b"value\n")
    assert Op.READ in device.seen
