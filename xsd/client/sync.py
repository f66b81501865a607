"""A blocking client over the unix socket or the kernel's device.

Thin: one method per operation, each one request and one reply. Nothing is cached, nothing is
retried except where the name says so. A client belongs to one thread.

    with Client.connect() as store:
        store.write("/local/domain/5/name", b"guest")
        store.atomically(lambda tx: tx.write("/counter", b"%d" % (int(tx.read("/counter")) + 1)))

Every operation raises ``XenstoreError`` when the server answers with an error,
``ConnectionError`` when it hangs up, ``ProtocolError`` when it does not speak the protocol, and
``TimeoutError`` when a reply takes longer than the client's timeout. After the last three the
client is closed. What the kernel's device does differently is said in ``stream``.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from . import requests
from . import stream as streams
from .address import addresses
from .errors import ConnectError, XenstoreError
from .perms import Permission
from .stream import RefusedError, SocketStream, Stream
from .wire import Op, Request, Series, Session, WatchEvent, encode_text

T = TypeVar("T")

#: Requests in flight that ``pipeline`` allows unless told otherwise.
WINDOW = 256
#: Paths that are asked about at a time in a ``Survey``.
SURVEYED = 256


class Client:
    """A connection to the server."""

    __slots__ = ("_awaits_reply", "_poll", "_session", "_stream", "_timeout")

    def __init__(self, connected: socket.socket | Stream, *, timeout: float | None = None) -> None:
        """Take over a connection; ``timeout`` in seconds bounds each reply.

        The kernel's device may wait for the server before a reply is waited for, without bound.
        """
        self._stream: Stream
        self._stream = (
            SocketStream(connected) if isinstance(connected, socket.socket) else connected
        )
        self._awaits_reply = False  # and sends nothing before it has come; serial streams only
        self._session = Session()
        self._timeout = timeout
        self._poll = select.poll()

    @classmethod
    def connect(
        cls, path: str | None = None, *, timeout: float | None = None, socket_only: bool = False
    ) -> Client:
        """Connect to the server at ``path``, or where the environment says it is.

        ``path`` is a socket or a device. When neither names a place, the default socket is tried,
        then the kernel's device unless ``socket_only``. Raises ``ConnectError`` if all fail.
        """
        tried: list[tuple[str, OSError]] = []
        for address in addresses(path, socket_only=socket_only):
            try:
                return cls(streams.connect(address), timeout=timeout)
            except OSError as failure:
                tried.append((address, failure))
            if isinstance(tried[-1][1], ConnectionRefusedError):
                break  # Its server has died; the device would wait for it for ever.
        raise ConnectError(*tried) from tried[-1][1]

    def close(self) -> None:
        """Hang up; the server drops this connection's watches and transactions."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The connection's descriptor, to wait for watch events together with other things."""
        return self._stream.fileno()

    # -- nodes ----------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """The value of a node."""
        return self.call(requests.read(path))

    def write(self, path: str, value: bytes) -> None:
        """Set the value of a node; it and missing ancestors are created."""
        self.call(requests.write(path, value))

    def mkdir(self, path: str) -> None:
        """Create a node with an empty value, and missing ancestors; no change if it exists."""
        self.call(requests.mkdir(path))

    def rm(self, path: str) -> None:
        """Remove a node and everything below it."""
        self.call(requests.rm(path))

    def exists(self, path: str) -> bool:
        """Whether a node exists."""
        return _exists(self, path, 0)

    def ls(self, path: str) -> list[str]:
        """The names of all children of a node, however many, in the server's order."""
        return list_children(self, path, 0)

    def get_perms(self, path: str) -> list[Permission]:
        """The permission list of a node, the owner's entry first."""
        return self.call(requests.get_perms(path))

    def set_perms(self, path: str, perms: Iterable[Permission]) -> None:
        """Replace the permission list of a node."""
        self.call(requests.set_perms(path, perms))

    # -- watches --------------------------------------------------------------------------------

    def watch(self, path: str, token: bytes, depth: int | None = None) -> None:
        """Ask for events at and below ``path``, at most ``depth`` components below it.

        The server sends one event at once, so that the caller looks at the present state too.
        """
        self.call(requests.watch(path, token, depth))

    def unwatch(self, path: str, token: bytes) -> None:
        """Remove a watch; its events that have arrived and were not fetched are dropped."""
        self.call(requests.unwatch(path, token))
        self._session.forget(path, token)

    def reset_watches(self) -> None:
        """Remove all watches and all transactions of this connection."""
        self.call(requests.reset_watches())
        self._session.events.clear()

    def next_event(self, timeout: float | None = None) -> WatchEvent:
        """Wait for a watch event; ``TimeoutError`` after ``timeout`` seconds, client still open."""
        self._must_be_idle()
        deadline = _deadline(timeout)
        try:
            while (event := self._session.next_event()) is None:
                if not self._exchange(deadline):
                    break
        except BaseException:
            self.close()
            raise
        if event is None:
            raise TimeoutError(f"no watch event within {timeout} seconds")
        return event

    # -- transactions ---------------------------------------------------------------------------

    def transaction(self) -> Transaction:
        """Start a transaction.

        Used with ``with`` it is committed at the end of the block, or aborted if the block
        raises. A commit that conflicts raises ``XenstoreError`` EAGAIN: see ``atomically``.
        """
        return Transaction(self, self.call(requests.transaction_start()))

    def atomically(self, work: Callable[[Transaction], T], attempts: int | None = None) -> T:
        """Run ``work`` in a transaction and commit, again from the start when it conflicts.

        ``work`` must have no effect but on the transaction, since it can run several times. With
        ``attempts`` the EAGAIN of the last one is raised.
        """
        done = 0
        while True:
            try:
                with self.transaction() as tx:
                    return work(tx)
            except XenstoreError as error:
                done += 1
                if error.name != "EAGAIN" or done == attempts:
                    raise

    # -- domains and the daemon -----------------------------------------------------------------

    def get_domain_path(self, domid: int) -> str:
        """The base path of a domain, to which its relative paths refer."""
        return self.call(requests.get_domain_path(domid))

    def is_domain_introduced(self, domid: int) -> bool:
        """Whether the server knows a domain."""
        return self.call(requests.is_domain_introduced(domid))

    def introduce(self, domid: int, gfn: int, port: int) -> None:
        """Make a domain known: its ring page and its event channel."""
        self.call(requests.introduce(domid, gfn, port))

    def release(self, domid: int) -> None:
        """Disconnect a domain."""
        self.call(requests.release(domid))

    def resume(self, domid: int) -> None:
        """Say that a suspended domain runs again."""
        self.call(requests.resume(domid))

    def set_target(self, domid: int, target: int) -> None:
        """Give a domain the rights of the domain it works for."""
        self.call(requests.set_target(domid, target))

    def get_feature(self, domid: int | None = None) -> int:
        """Feature bits offered to this connection or to a domain."""
        return self.call(requests.get_feature(domid))

    def set_feature(self, domid: int, value: int) -> None:
        """Set the feature bits offered to a domain that is not introduced yet."""
        self.call(requests.set_feature(domid, value))

    def quota_names(self) -> list[str]:
        """The names of all quotas."""
        return self.call(requests.quota_names())

    def get_quota(self, name: str, domid: int | None = None) -> int:
        """A quota of a domain, or the value for all domains; 0 is unlimited."""
        return self.call(requests.get_quota(name, domid))

    def set_quota(self, name: str, value: int, domid: int | None = None) -> None:
        """Set a quota of a domain, or the value for all domains; 0 is unlimited."""
        self.call(requests.set_quota(name, value, domid))

    def control(self, command: str, *arguments: str) -> str:
        """Ask the daemon something about itself; the reply is text."""
        return self.call(requests.control(command, *arguments))

    # -- requests -------------------------------------------------------------------------------

    def call(self, request: Request[T], tx_id: int = 0) -> T:
        """Send one request and wait for its reply."""
        self._must_be_idle()
        self._session.send(request, tx_id)
        _, outcome = self._next_reply(flush=True)
        if isinstance(outcome, XenstoreError):
            raise outcome
        result: T = outcome
        return result

    def pipeline(
        self, batch: Iterable[Request[T]], *, tx_id: int = 0, window: int = WINDOW
    ) -> Generator[T | XenstoreError, None, None]:
        """Send many requests without waiting for each; yields their outcomes in order.

        An error reply is yielded, not raised. ``batch`` is taken as room arises, with at most
        ``window`` requests in flight. Closing the iterator early discards the outcomes of those.
        """
        line = Pipeline(self, tx_id=tx_id, window=window)
        source = iter(batch)
        try:
            more = True
            while True:
                while more and line.room:
                    request = next(source, None)
                    if request is None:
                        more = False
                    else:
                        line.add(request)
                if not line.in_flight:
                    return
                yield line.next()[1]
        finally:
            if self._stream.fileno() >= 0:
                line.drain()

    def _must_be_idle(self) -> None:
        if self._stream.fileno() < 0:
            raise ConnectionError("this client is closed")
        if self._session.in_flight:
            raise RuntimeError("requests of a pipeline are still in flight on this client")

    def _next_reply(self, *, flush: bool = False) -> tuple[Any, Any]:
        """The oldest request's outcome. Without ``flush`` requests wait until replies run out."""
        return self._awaited(self._session.next_reply, flush=flush)

    def _awaited(self, arrived: Callable[[], T | None], *, flush: bool = False) -> T:
        try:
            if flush:
                self._flush()
            if (reply := arrived()) is None:
                deadline = _deadline(self._timeout)
                while (reply := arrived()) is None:
                    if not self._exchange(deadline):
                        raise TimeoutError(f"no reply within {self._timeout} seconds")
        except BaseException:  # an interrupt too: whose reply comes next is unknown now
            self.close()
            raise
        self._awaits_reply = False
        return reply

    def _flush(self) -> bool:
        """Write what fits now; False if a request was refused, which is its reply."""
        outgoing = self._session.outgoing
        if outgoing and not self._awaits_reply:
            try:
                del outgoing[: self._stream.send(outgoing)]
            except BlockingIOError:
                return True
            except RefusedError as refused:
                self._session.refused(refused.name)
                return False
            self._awaits_reply = self._stream.serial
        return True

    def _exchange(self, deadline: float | None) -> bool:
        """Write what fits and wait for bytes to arrive; False if the deadline passes first.

        Never waits for room without also reading, so a server that stops reading until its
        replies are fetched cannot lock both sides.
        """
        outgoing = self._session.outgoing
        while self._flush():
            unsent = bool(outgoing) and not self._awaits_reply
            if (unsent or deadline is not None) and not self._wait(unsent, deadline):
                return False
            try:
                data = self._stream.receive(wait=not unsent)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionResetError("xenstored closed the connection")
            self._session.received(data)
            break
        return True

    def _wait(self, writable: bool, deadline: float | None) -> bool:
        events = select.POLLIN | (select.POLLOUT if writable else 0)
        self._poll.register(self._stream, events)
        if deadline is None:
            return bool(self._poll.poll())
        return bool(self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


class Transaction:
    """Operations that take effect together, or not at all, when committed."""

    __slots__ = ("_client", "_open", "id")

    def __init__(self, client: Client, tx_id: int) -> None:
        self._client = client
        self._open = True
        #: The number the server gave it.
        self.id = tx_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._open:
            return
        if kind is None:
            self.commit()
        elif self._client.fileno() >= 0:
            with suppress(XenstoreError):  # the error that ended the block matters more
                self.abort()

    def commit(self) -> None:
        """Make the changes visible; EAGAIN if they conflict with somebody else's."""
        self._open = False
        self._client.call(requests.transaction_end(commit=True), self.id)

    def abort(self) -> None:
        """Forget the changes."""
        self._open = False
        self._client.call(requests.transaction_end(commit=False), self.id)

    def read(self, path: str) -> bytes:
        """The value of a node."""
        return self._client.call(requests.read(path), self.id)

    def write(self, path: str, value: bytes) -> None:
        """Set the value of a node; it and missing ancestors are created."""
        self._client.call(requests.write(path, value), self.id)

    def mkdir(self, path: str) -> None:
        """Create a node with an empty value, and missing ancestors; no change if it exists."""
        self._client.call(requests.mkdir(path), self.id)

    def rm(self, path: str) -> None:
        """Remove a node and everything below it."""
        self._client.call(requests.rm(path), self.id)

    def exists(self, path: str) -> bool:
        """Whether a node exists."""
        return _exists(self._client, path, self.id)

    def ls(self, path: str) -> list[str]:
        """The names of all children of a node, however many, in the server's order."""
        return list_children(self._client, path, self.id)

    def get_perms(self, path: str) -> list[Permission]:
        """The permission list of a node, the owner's entry first."""
        return self._client.call(requests.get_perms(path), self.id)

    def set_perms(self, path: str, perms: Iterable[Permission]) -> None:
        """Replace the permission list of a node."""
        self._client.call(requests.set_perms(path, perms), self.id)

    def pipeline(
        self, batch: Iterable[Request[T]], *, window: int = WINDOW
    ) -> Generator[T | XenstoreError, None, None]:
        """Send many requests in this transaction; see ``Client.pipeline``."""
        return self._client.pipeline(batch, tx_id=self.id, window=window)


class Pipeline:
    """Many requests in flight on one client, for callers whose requests depend on replies.

    ``add`` while there is ``room``, ``next`` gives the outcomes in the order of the requests. The
    client cannot be used for anything else until ``in_flight`` is 0.
    """

    __slots__ = ("_client", "_session", "_tx_id", "_window")

    def __init__(self, client: Client, *, tx_id: int = 0, window: int = WINDOW) -> None:
        if window < 1:
            raise ValueError(f"a pipeline needs a window of at least 1, got {window}")
        self._client = client
        self._session = client._session
        self._tx_id = tx_id
        self._window = window

    @property
    def in_flight(self) -> int:
        """Number of requests whose outcome was not fetched yet."""
        return self._session.in_flight

    @property
    def room(self) -> int:
        """How many requests may be added before the next outcome is fetched."""
        return self._window - self._session.in_flight

    def add(self, request: Request[Any], tag: object = None) -> None:
        """Queue a request; ``tag`` comes back with its outcome."""
        if self.room <= 0:
            raise RuntimeError(f"{self._window} requests are in flight already")
        self._session.send(request, self._tx_id, tag)

    def next(self) -> tuple[Any, Any]:
        """Wait for the oldest request's outcome: (tag, value or ``XenstoreError``)."""
        if not self._session.in_flight:
            raise RuntimeError("no request is in flight")
        return self._client._next_reply()

    def drain(self) -> None:
        """Fetch and discard all outcomes that are missing."""
        while self._session.in_flight:
            self.next()


class Survey:
    """The same few operations about many paths, with many requests in flight on one client.

    For trees of many thousand nodes: nothing is made for each request but its bytes. As with a
    ``Pipeline``, the client cannot be used for anything else until ``in_flight`` is 0.
    """

    __slots__ = ("_client", "_replies", "_series", "_session", "_window")

    def __init__(
        self, client: Client, ops: Sequence[Op], *, tx_id: int = 0, window: int = SURVEYED
    ) -> None:
        if not ops or window < 1:
            raise ValueError(f"expected operations and a window of at least 1, got {window}")
        self._client = client
        self._session = client._session
        self._series = Series(tuple(ops), tx_id)
        self._replies: list[bytes | str] = []
        self._window = window

    @property
    def in_flight(self) -> int:
        """Number of requests without a reply."""
        return self._session.in_flight

    @property
    def room(self) -> int:
        """How many paths may be asked about before the next answers are fetched."""
        return self._window + -self._session.in_flight // len(self._series.ops)

    def ask(self, paths: Iterable[str]) -> None:
        """Queue the operations for each path; paths contain no NUL."""
        self._session.send_series(self._series, (encode_text(path) + b"\0" for path in paths))

    def answers(self) -> list[tuple[bytes | str, ...]]:
        """Wait for replies: those about each path that is answered, in the order of asking.

        A success is its payload, an error its name. May be empty, if no path has all replies.
        """
        if not self._session.in_flight:
            raise RuntimeError("nothing was asked")
        replies = self._replies + self._client._awaited(self._session.next_replies)
        size = len(self._series.ops)
        whole = len(replies) - len(replies) % size
        self._replies = replies[whole:]
        return list(zip(*(replies[place:whole:size] for place in range(size)), strict=True))

    def drain(self) -> None:
        """Fetch and discard all answers that are missing."""
        while self._session.in_flight:
            self.answers()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _exists(client: Client, path: str, tx_id: int) -> bool:
    try:
        client.call(requests.read(path), tx_id)
    except XenstoreError as error:
        if error.name != "ENOENT":
            raise
        return False
    return True


def list_children(client: Client, path: str, tx_id: int = 0) -> list[str]:
    """The names of all children of a node, however many, in the server's order."""
    try:
        return client.call(requests.directory(path), tx_id)
    except XenstoreError as error:
        if error.name != "E2BIG":
            raise
        too_long = error
    try:
        return list_by_parts(client, path, tx_id)
    except XenstoreError as error:
        if error.name == "ENOSYS":  # a server that cannot list it at all
            raise too_long from None
        raise


def list_by_parts(client: Client, path: str, tx_id: int = 0) -> list[str]:
    """The names of all children of a node of which DIRECTORY says E2BIG."""
    listing = requests.ChildListing(path)
    while (names := listing.received(client.call(listing.request(), tx_id))) is None:
        pass
    return names
