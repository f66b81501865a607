"""The client through the kernel's device, here by a kernel of the test's own.

What matters of the real one is how it takes writes: it collects them in 4096 bytes until a request
is complete, forgets what the same write has behind the end, and says no by the error of the write.
"""

from __future__ import annotations

import errno
import os
import pty
import socket
import tty
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from xsd.client import address, requests, stream
from xsd.client.address import DEVICES, addresses
from xsd.client.errors import ConnectError, ProtocolError, XenstoreError
from xsd.client.stream import DeviceStream, SocketStream
from xsd.client.sync import Client, Survey
from xsd.client.wire import HEADER, Op, Packet, WatchEvent, pack

LONG = 20.0
ROOM = 4096
PATH = "/dev/of/the/test"


class Kernel:
    """A device's other side: ``writes`` are those that came, ``requests`` what they made.

    A request is answered by the next of ``answers``: bytes to be read, or an error of the write.
    ``system`` is what the stream has in place of the module ``os``.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._buffer = b""
        self.writes: list[bytes] = []
        self.requests: list[Packet] = []
        self.answers: list[bytes | int] = []
        self.device = DeviceStream(os.dup(self._theirs.fileno()), PATH)
        self.client = Client(self.device, timeout=LONG)
        self.system = SimpleNamespace(read=os.read, write=self.write, close=os.close)

    def write(self, fd: int, data: bytes | bytearray) -> int:
        """In place of write(2)."""
        assert fd == self.device.fileno()
        self.writes.append(bytes(data))
        if len(self._buffer) + len(data) > ROOM:
            raise self._forgetting(errno.EINVAL)
        self._buffer += data
        if len(self._buffer) < HEADER.size:
            return len(data)
        kind, req_id, tx_id, length = HEADER.unpack_from(self._buffer)
        if HEADER.size + length > ROOM:
            raise self._forgetting(errno.E2BIG)
        if len(self._buffer) >= HEADER.size + length:
            payload = self._buffer[HEADER.size : HEADER.size + length]
            self.requests.append(Packet(kind, req_id, tx_id, payload))
            self._buffer = b""
            answer = self.answers.pop(0)
            if isinstance(answer, int):
                raise self._forgetting(answer)
            self.says(answer)
        return len(data)

    def _forgetting(self, number: int) -> OSError:
        self._buffer = b""
        return OSError(number, os.strerror(number))

    def says(self, data: bytes) -> None:
        """Makes bytes readable."""
        self._ours.sendall(data)

    def ends(self) -> None:
        """The device has nothing more to say."""
        self._ours.close()

    def close(self) -> None:
        """Frees everything."""
        self.client.close()
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel, whose write(2) only the device's stream sees."""
    made = Kernel()
    monkeypatch.setattr(stream, "os", made.system)
    yield made
    made.close()


def reply(op: Op, payload: bytes, req_id: int = 1, tx_id: int = 0) -> bytes:
    return pack(Packet(op, req_id, tx_id, payload))


def event(path: bytes, token: bytes) -> bytes:
    # Nobody promises anything about the two numbers of an event.
    return pack(Packet(Op.WATCH_EVENT, 0xDEADBEEF, 0xCAFE, path + b"\0" + token + b"\0"))


# -- which one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("explicit", "environ", "expected"),
    [
        ("/x", {"XENSTORED_PATH": "/p"}, ("/x",)),
        (None, {"XENSTORED_PATH": "/p", "XENSTORED_RUNDIR": "/r"}, ("/p",)),
        (None, {"XENSTORED_RUNDIR": "/r"}, ("/r/socket",)),
        (None, {}, ("/run/xenstored/socket", *DEVICES)),
        ("", {"XENSTORED_PATH": "", "XENSTORED_RUNDIR": ""}, ("/run/xenstored/socket", *DEVICES)),
    ],
)
def test_addresses(
    explicit: str | None, environ: dict[str, str], expected: tuple[str, ...]
) -> None:
    """What somebody named is the only place; otherwise the socket comes before the devices."""
    assert addresses(explicit, environ) == expected
    assert addresses(explicit, environ, socket_only=True) == expected[:1]


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without socket and devices: both would be in the directory."""
    for name in ("XENSTORED_PATH", "XENSTORED_RUNDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(address, "DEFAULT_RUNDIR", str(tmp_path))
    monkeypatch.setattr(address, "DEVICES", (str(tmp_path / "one"), str(tmp_path / "two")))
    return tmp_path


def test_all_that_was_tried(nowhere: Path) -> None:
    """One message has every place and why it would not do."""
    (nowhere / "two").write_text("no device")
    with pytest.raises(ConnectError) as caught:
        Client.connect()
    assert str(caught.value) == (
        f"cannot connect to xenstored, tried {nowhere}/socket: No such file or directory; "
        f"{nowhere}/one: No such file or directory; {nowhere}/two: Connection refused"
    )
    with pytest.raises(ConnectError) as caught:
        Client.connect(socket_only=True)
    assert [path for path, _ in caught.value.tried] == [f"{nowhere}/socket"]


def test_device_when_there_is_no_socket(nowhere: Path) -> None:
    """The first device that can be opened is used."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    (nowhere / "two").symlink_to(os.ttyname(theirs))
    os.write(ours, reply(Op.READ, b"value"))
    with Client.connect(timeout=LONG) as client:
        assert client.read("/a") == b"value"
    assert os.read(ours, 100) == pack(Packet(Op.READ, 1, 0, b"/a\0"))
    os.close(theirs)
    os.close(ours)


def test_dead_server(nowhere: Path) -> None:
    """A socket that nobody listens on any more is the end: its device would wait for ever."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(nowhere / "socket"))
    (nowhere / "one").symlink_to("/dev/null")
    with pytest.raises(ConnectError) as caught:
        Client.connect()
    assert (
        str(caught.value) == f"cannot connect to xenstored at {nowhere}/socket: Connection refused"
    )


def test_socket_comes_first(nowhere: Path) -> None:
    """With both there the socket is used."""
    (nowhere / "one").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(nowhere / "socket"))
        server.listen(1)
        Client.connect().close()
        server.setblocking(False)
        server.accept()[0].close()


def test_kind_by_file_type(tmp_path: Path) -> None:
    """A named path is a device if it is a character device, and else has to be a socket."""
    with closing(stream.connect("/dev/null")) as device:
        assert isinstance(device, DeviceStream)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen(1)
        with closing(stream.connect(str(tmp_path / "socket"))) as called:
            assert isinstance(called, SocketStream)
    precious = tmp_path / "file"
    precious.write_text("precious")
    with pytest.raises(ConnectError, match=f"{precious}: Connection refused"):
        Client.connect(str(precious))
    assert precious.read_text() == "precious"


def test_well_known_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In /proc and /kern the device is a regular file, so its name says what it is."""
    path = tmp_path / "xenbus"
    path.write_text("")
    monkeypatch.setattr(stream, "DEVICES", (str(path),))
    with closing(stream.connect(str(path))) as device:
        assert isinstance(device, DeviceStream)


def test_device_that_may_not_be_opened(nowhere: Path) -> None:
    """What the system says about the device is in the message, as about a socket."""
    (nowhere / "one").symlink_to(nowhere / "one")
    with pytest.raises(ConnectError, match="Too many levels of symbolic links"):
        Client.connect()


# -- requests -----------------------------------------------------------------------------------


def test_one_request_per_write(kernel: Kernel) -> None:
    """A pipeline's requests go out one by one, each when the one before it has its reply."""
    asked_at_read: list[int] = []

    def read(fd: int, size: int) -> bytes:
        asked_at_read.append(len(kernel.writes))
        return os.read(fd, 1)

    kernel.system.read = read
    kernel.answers = [reply(Op.READ, b"%d" % number, number) for number in (1, 2, 3)]
    outcomes = list(kernel.client.pipeline(requests.read(f"/{number}") for number in range(3)))
    assert outcomes == [b"1", b"2", b"3"]
    assert asked_at_read == [1] * 17 + [2] * 17 + [3] * 17
    assert kernel.writes == [
        pack(Packet(Op.READ, number + 1, 0, b"/%d\0" % number)) for number in range(3)
    ]


def test_pieces(kernel: Kernel) -> None:
    """A write that takes only a part is followed by one with the rest."""
    kernel.system.write = lambda fd, data: kernel.write(fd, data[:5])
    kernel.answers = [reply(Op.WRITE, b"OK\0")]
    kernel.client.write("/a", b"0123456789")
    assert kernel.requests == [Packet(Op.WRITE, 1, 0, b"/a\x000123456789")]
    assert [len(data) for data in kernel.writes] == [5, 5, 5, 5, 5, 4]


def test_longest_request(kernel: Kernel) -> None:
    """What just fits is written at once; what does not is refused as too large, not as wrong."""
    kernel.answers = [reply(Op.WRITE, b"OK\0"), reply(Op.READ, b"", 3)]
    kernel.client.write("/a", bytes(ROOM - 16 - 3))
    assert [len(data) for data in kernel.writes] == [ROOM]
    with pytest.raises(XenstoreError) as caught:
        kernel.client.write("/a", bytes(ROOM - 16 - 2))
    assert str(caught.value).startswith("WRITE /a: too large")
    assert (kernel.client.read("/a"), len(kernel.requests)) == (b"", 2)


def test_too_long_for_the_protocol(kernel: Kernel) -> None:
    """More than a packet carries is refused without a word to the kernel."""
    with pytest.raises(XenstoreError) as caught:
        kernel.client.write("/a", bytes(4096))
    assert (caught.value.name, kernel.writes) == ("E2BIG", [])


@pytest.mark.parametrize("size", [1, 3, 17])
def test_partial_reads(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Replies and events may be cut anywhere."""
    monkeypatch.setattr(stream, "_RECEIVE_BYTES", size)
    value = bytes(range(256)) * 16
    kernel.answers = [event(b"/w", b"t") + reply(Op.READ, value) + event(b"/w/x", b"t")]
    assert kernel.client.read("/a") == value
    assert kernel.client.next_event(LONG) == WatchEvent("/w", b"t")
    assert kernel.client.next_event(LONG) == WatchEvent("/w/x", b"t")


def test_kernel_answers_watches(kernel: Kernel) -> None:
    """Replies to WATCH and UNWATCH may have no numbers; their first event may come before them."""
    kernel.answers = [
        event(b"/w", b"t") + reply(Op.WATCH, b"OK\0", 0),
        reply(Op.READ, b"", 2),
        reply(Op.UNWATCH, b"OK\0", 0),
    ]
    kernel.client.watch("/w", b"t")
    assert kernel.client.next_event(LONG) == WatchEvent("/w", b"t")
    kernel.client.read("/a")
    kernel.client.unwatch("/w", b"t")


def test_only_watches_come_without_numbers(kernel: Kernel) -> None:
    """Any other reply has to say which request it belongs to."""
    kernel.answers = [reply(Op.READ, b"", 0)]
    with pytest.raises(ProtocolError, match="expected the reply to request 1"):
        kernel.client.read("/a")
    assert kernel.client.fileno() == -1


def test_waiting_for_events(kernel: Kernel) -> None:
    """Without an event in time the client goes on; the descriptor can be waited for."""
    with pytest.raises(TimeoutError):
        kernel.client.next_event(0)
    kernel.says(event(b"/w", b"t"))
    assert kernel.client.next_event() == WatchEvent("/w", b"t")
    assert kernel.client.fileno() == kernel.device.fileno()


# -- what the kernel refuses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (errno.EINVAL, "EINVAL"),
        (errno.EEXIST, "EEXIST"),
        (errno.ENOSPC, "ENOSPC"),
        (errno.EACCES, "EACCES"),
        (errno.ENOMEM, "ENOMEM"),
        (errno.EILSEQ, "EINVAL"),
    ],
)
def test_refusal(kernel: Kernel, number: int, name: str) -> None:
    """An error of the write is the request's error reply; the client goes on."""
    kernel.answers = [number, reply(Op.READ, b"value", 2)]
    with pytest.raises(XenstoreError) as caught:
        kernel.client.watch("/w", b"t")
    assert (caught.value.name, caught.value.operation, caught.value.path) == (name, "WATCH", "/w")
    assert kernel.client.read("/a") == b"value"


def test_refusal_in_a_pipeline(kernel: Kernel) -> None:
    """The refused request has its error at its place, and those after it are sent."""
    kernel.answers = [reply(Op.READ, b"1"), errno.EINVAL, errno.ENOMEM, reply(Op.READ, b"4", 4)]
    outcomes = list(
        kernel.client.pipeline(requests.read(path) for path in ("/a", "b b", "/c", "/d"))
    )
    assert [getattr(outcome, "name", outcome) for outcome in outcomes] == [
        b"1", "EINVAL", "ENOMEM", b"4",
    ]  # fmt: skip


def test_refusal_in_a_survey(kernel: Kernel) -> None:
    """The refused request has its error at its place, and those after it are sent."""
    kernel.answers = [reply(Op.READ, b"1"), errno.EINVAL, reply(Op.READ, b"3", 3)]
    survey = Survey(kernel.client, [Op.READ])
    survey.ask(["/a", "b b", "/c"])
    answers = []
    while survey.in_flight:
        answers += survey.answers()
    assert answers == [(b"1",), ("EINVAL",), (b"3",)]


def test_refusal_within_an_event(kernel: Kernel) -> None:
    """Half an event that has come before is not disturbed by it."""
    whole = event(b"/w", b"t")
    kernel.says(whole[:20])
    with pytest.raises(TimeoutError):
        kernel.client.next_event(0.001)
    kernel.answers = [errno.EEXIST]
    with pytest.raises(XenstoreError, match="EEXIST"):
        kernel.client.watch("/w", b"t")
    kernel.says(whole[20:])
    assert kernel.client.next_event(LONG) == WatchEvent("/w", b"t")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda client: client.watch("/w", b"t", 1), "WATCH /w: .* have no depth \\(ENOSYS\\)"),
        (lambda client: client.reset_watches(), "RESET_WATCHES: .* end the kernel's .*\\(EPERM\\)"),
    ],
)
def test_what_the_device_cannot_do(
    kernel: Kernel, ask: Callable[[Client], None], message: str
) -> None:
    """What a kernel would take and make something else of is refused here, and not written."""
    with pytest.raises(XenstoreError, match=message):
        ask(kernel.client)
    assert kernel.writes == []


# -- broken devices -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN, errno.ENODEV, errno.EBADF])
def test_broken_on_write(kernel: Kernel, number: int) -> None:
    """An error that is not about the request closes the client and names the device."""
    kernel.answers = [number]
    with pytest.raises(ConnectionError) as caught:
        kernel.client.read("/a")
    assert str(caught.value) == f"{PATH}: {os.strerror(number)}"
    assert kernel.client.fileno() == -1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN])
def test_broken_on_read(kernel: Kernel, number: int) -> None:
    """So does an error of reading."""

    def broken(fd: int, size: int) -> bytes:
        raise OSError(number, os.strerror(number))

    kernel.system.read = broken
    kernel.answers = [reply(Op.READ, b"")]
    with pytest.raises(ConnectionError) as caught:
        kernel.client.read("/a")
    assert str(caught.value) == f"{PATH}: {os.strerror(number)}"
    assert kernel.client.fileno() == -1


def test_end(kernel: Kernel) -> None:
    """A device that ends is like a server that hangs up."""
    kernel.answers = [b""]
    kernel.ends()
    with pytest.raises(ConnectionError):
        kernel.client.next_event()
    assert kernel.client.fileno() == -1


def test_write_that_takes_nothing(kernel: Kernel) -> None:
    """A device that never takes a byte is broken; the client does not try for ever."""
    kernel.system.write = lambda fd, data: 0
    with pytest.raises(ConnectionError, match=f"{PATH}: takes nothing"):
        kernel.client.read("/a")


def test_full_device() -> None:
    """A real device that refuses every write."""
    with Client.connect("/dev/full") as client:
        with pytest.raises(XenstoreError) as caught:
            client.write("/a", b"")
        assert (caught.value.name, client.fileno() >= 0) == ("ENOSPC", True)


def test_terminal_that_hung_up() -> None:
    """A real device whose other side goes away in the middle."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    with Client.connect(name, timeout=LONG) as client:
        os.write(ours, reply(Op.READ, b""))
        assert client.read("/a") == b""
        os.close(theirs)
        os.close(ours)
        with pytest.raises(ConnectionError, match=f"{name}: Input/output error"):
            client.read("/a")
        assert client.fileno() == -1
