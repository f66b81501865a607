# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Unix sockets: one read and one write per connection and wake-up.

uvloop tells which descriptors are ready; reading, the engine and writing then run without the
interpreter, on descriptors that this module owns. What is left for Python is rare: a
connection comes or goes, an effect must be carried out, a queue is full.

    readable ──> recv ──> engine ──> send            one connection
                            │
                            └──> Turn: what follows for others

Back-pressure goes both ways. What a socket does not take waits and is written when it is
writable again; whoever lets too much wait is not read meanwhile, and past the limit is
disconnected. A connection that the engine pauses is not watched until it may go on.
"""

import logging
import os

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM
from libc.errno cimport errno as c_errno
from libc.stdint cimport int64_t, uint32_t

from xsd.core.connection cimport conn_get, conn_open, conn_sent, next_dirty
from xsd.core.cxs cimport xs_outq_bytes
from xsd.core.engine cimport Engine
from xsd.core.request cimport engine_received, engine_rx_space
from xsd.core.types cimport CONN_SOCKET, Conn, RX_CLOSE, RX_DIRTY, RX_EFFECTS, RX_PAUSE, RX_TICK
from xsd.io.turn cimport Transport, Turn

cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_NOSIGNAL
        MSG_DONTWAIT
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_PEERCRED
    struct ucred:
        int pid
        unsigned uid
    int accept4(int fd, void *address, void *length, int flags)
    int getsockopt(int fd, int level, int name, void *value, unsigned *length)
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t send(int fd, const void *buf, size_t n, int flags)

cdef enum:
    BUDGET = 256        # requests of one connection before others have their turn
    ACCEPTS = 64        # connections taken at once
    BROKEN = 1 << 16    # beside the RX_ bits: the peer has gone
    STUCK = 1 << 17     # not everything could be written
    FULL = 1 << 18      # more waits than the limit allows
    ENDED = 1 << 19     # the peer sends no more, but is not done with yet
    ACCEPT_PAUSE_S = 1  # after descriptors ran out

_log = logging.getLogger("xsd.io")


cdef int flush(Conn *c, int fd) noexcept nogil:
    """Writes what waits, once. 0, STUCK, FULL or BROKEN."""
    cdef size_t n = xs_outq_bytes(&c.out)
    cdef ssize_t sent
    if n == 0:
        return 0
    sent = send(fd, c.out.buf + c.out.head, n, MSG_NOSIGNAL | MSG_DONTWAIT)
    if sent < 0:
        if c_errno != EAGAIN and c_errno != EINTR:
            return BROKEN
        sent = 0
    if sent > 0:
        conn_sent(c, <size_t>sent)
    if <size_t>sent == n:
        return 0
    return FULL if n - <size_t>sent > c.core.socket_output_max else STUCK


cdef int serve(Conn *c, int fd, bint stuck, int64_t now) noexcept nogil:
    """One wake-up: read, handle all that has come, write once. RX_ bits and ours."""
    cdef int flags = take_in(c, fd, stuck, now)
    if c.inp_len > 0 and not c.paused and xs_outq_bytes(&c.out) == 0 \
            and not flags & ~(RX_DIRTY | RX_EFFECTS | RX_TICK):
        # Half a request and nothing to write. If its peer has gone and left replies unread
        # this was the only wake-up, as the loop forgets a descriptor with an error.
        flags |= take_in(c, fd, stuck, now)
    return flags


cdef int take_in(Conn *c, int fd, bint stuck, int64_t now) noexcept nogil:
    """Reads once, handles what has come, writes once."""
    cdef size_t room
    cdef char *into = engine_rx_space(c, &room)
    cdef ssize_t n = recv(fd, into, room, MSG_DONTWAIT)
    cdef int flags
    if n == 0:
        # A peer may stop sending and still want what it asked for.
        flags = 0 if stuck else flush(c, fd)
        if c.runnable or stuck or flags == STUCK:
            return flags | ENDED
        return BROKEN
    if n < 0:
        if c_errno == EAGAIN or c_errno == EINTR:
            return 0
        return BROKEN
    flags = engine_received(c, now, <size_t>n, BUDGET)
    if not stuck:
        flags |= flush(c, fd)
    return flags


cdef class Sockets(Transport):
    """The unix socket connections of an engine; ``domid`` is the domain that they come from."""

    cdef Turn turn
    cdef Engine engine
    cdef object loop
    cdef uint32_t domid
    cdef dict fds          # connection id -> descriptor
    cdef dict ids          # descriptor -> connection id
    cdef set unread        # descriptors that are not watched for input
    cdef set stuck         # descriptors that are watched for room
    cdef list paused       # descriptors that had to wait when they were read last
    cdef set ended         # descriptors whose peers send no more
    cdef object listening
    cdef readonly int64_t accepted
    cdef readonly int64_t wakeups

    def __init__(self, Turn turn, uint32_t domid=0):
        self.turn = turn
        self.engine = turn.engine
        self.loop = turn.loop
        self.domid = domid
        self.fds = {}
        self.ids = {}
        self.unread = set()
        self.stuck = set()
        self.paused = []
        self.ended = set()
        turn.sockets = self

    # -- coming and going

    def listen(self, sock):
        """Accepts connections from a listening, non-blocking socket."""
        self.listening = sock
        self.loop.add_reader(sock.fileno(), self._accept)

    def _accept(self):
        cdef int listening = self.listening.fileno(), fd, i
        for i in range(ACCEPTS):
            fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                self.open(fd)
            elif c_errno in (EMFILE, ENFILE, ENOMEM, ENOBUFS):
                _log.error("cannot accept a connection: %s; trying again in %d s",
                           os.strerror(c_errno), ACCEPT_PAUSE_S)
                self.loop.remove_reader(listening)
                self.loop.call_later(ACCEPT_PAUSE_S, self._accept_again)
                return
            elif c_errno != EINTR and c_errno != ECONNABORTED:
                return

    def _accept_again(self):
        if self.listening is not None:
            self.loop.add_reader(self.listening.fileno(), self._accept)

    cdef open(self, int fd):
        """Makes a connection of an accepted descriptor."""
        cdef Conn *c = conn_open(self.engine.core, CONN_SOCKET, self.domid)
        cdef ucred peer
        cdef unsigned length = sizeof(peer)
        if c == NULL:
            c_close(fd)
            _log.error("no memory for another connection")
            return
        if getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0:
            c.pid = peer.pid
            c.uid = peer.uid
        self.fds[c.id] = fd
        self.ids[fd] = c.id
        self.accepted += 1
        self.loop.add_reader(fd, self._readable, fd)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("connection %d: pid %d, uid %d", c.id, c.pid, c.uid)

    cdef close(self, int fd, why):
        """Ends a connection; `why` is None when its peer has gone."""
        id = self.ids.pop(fd)
        del self.fds[id]
        pid = self.engine.conn(id).pid
        if fd not in self.unread:
            self.loop.remove_reader(fd)
        if fd in self.stuck:
            self.loop.remove_writer(fd)
        self.unread.discard(fd)
        self.stuck.discard(fd)
        self.ended.discard(fd)
        c_close(fd)
        self.engine.close(self.turn.now(), id)
        if why is not None:
            _log.warning("connection %d (pid %d) closed: %s", id, pid, why)
        elif _log.isEnabledFor(logging.DEBUG):
            _log.debug("connection %d has gone", id)

    def stop_accepting(self):
        """Leaves the listening socket alone from now on."""
        if self.listening is not None:
            self.loop.remove_reader(self.listening.fileno())
            self.listening = None

    def shut(self):
        """Ends everything, after one last attempt to write what waits."""
        self.stop_accepting()
        for fd in list(self.ids):
            flush(self.engine.conn(self.ids[fd]), fd)
            self.close(fd, None)

    # -- input and output

    def _readable(self, int fd):
        cdef Conn *c = conn_get(self.engine.core, self.ids[fd])
        cdef bint stuck = fd in self.stuck if self.stuck else False
        cdef int64_t now = self.turn.now()
        cdef int flags
        self.wakeups += 1
        with nogil:
            flags = serve(c, fd, stuck, now)
        if flags == 0:
            return
        if (flags == RX_DIRTY and self.engine.core.dirty_first == c and c.dirty_next == NULL
                and self.engine.core.access_len == 0):
            next_dirty(self.engine.core)  # only itself, and written already
            return
        self.after(c, fd, flags)

    cdef after(self, Conn *c, int fd, int flags):
        """What follows from one wake-up besides bytes."""
        if flags & BROKEN:
            self.close(fd, None)
        elif flags & FULL:
            self.close(fd, f"{xs_outq_bytes(&c.out)} bytes wait for it to be read")
        elif flags & RX_CLOSE:
            self.close(fd, "it sent what cannot be a request: more than 4096 bytes announced, "
                           "or memory ran out")
        else:
            if flags & STUCK and fd not in self.stuck:
                self.stuck.add(fd)
                self.loop.add_writer(fd, self._writable, fd)
            if flags & ENDED:
                self.ended.add(fd)
                self.leave_alone(fd)
            elif flags & RX_PAUSE:
                self.paused.append(fd)
        self.turn.settle()

    cdef leave_alone(self, int fd):
        """Does not watch it for input."""
        if fd not in self.unread:
            self.unread.add(fd)
            self.loop.remove_reader(fd)

    cdef settled(self):
        cdef Conn *c
        for fd in self.paused: # most of them have gone on: what they waited for has been done
            id = self.ids.get(fd)
            if id is not None:
                c = conn_get(self.engine.core, id)
                if c.paused and not c.runnable:
                    self.leave_alone(fd)
        self.paused.clear()

    def _writable(self, int fd):
        cdef Conn *c = conn_get(self.engine.core, self.ids[fd])
        cdef int flags
        self.wakeups += 1
        with nogil:
            flags = flush(c, fd)
        if flags & BROKEN:
            self.close(fd, None)
        elif not flags:
            self.stuck.discard(fd)
            self.loop.remove_writer(fd)
            self.bury(fd, c)
        self.turn.settle()

    cdef bury(self, int fd, Conn *c):
        """Closes a connection whose peer has ended, once it has got everything."""
        if fd in self.ended and fd not in self.stuck and not c.runnable and not c.paused:
            self.close(fd, None)

    # -- what others caused

    cdef write(self, Conn *c):
        cdef int flags, fd
        known = self.fds.get(c.id)
        if known is None:
            return
        fd = known
        if fd in self.stuck:
            if xs_outq_bytes(&c.out) > c.core.socket_output_max:
                self.after(c, fd, FULL)
            return
        with nogil:
            flags = flush(c, fd)
        if c.closing:
            flags |= RX_CLOSE
        if flags:
            self.after(c, fd, flags)

    cdef resume(self, Conn *c):
        cdef size_t room
        cdef int flags, fd
        cdef int64_t now = self.turn.now()
        known = self.fds.get(c.id)
        if known is None:
            return
        fd = known
        with nogil:
            engine_rx_space(c, &room)
            flags = engine_received(c, now, 0, BUDGET)
        if fd not in self.stuck:
            with nogil:
                flags |= flush(c, fd)
        if not flags & RX_PAUSE and fd in self.unread and fd not in self.ended:
            self.unread.discard(fd)
            self.loop.add_reader(fd, self._readable, fd)
        self.after(c, fd, flags)
        if fd in self.ended:
            self.bury(fd, c)
