# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Unix sockets: one read and one write per connection and wake-up.

`Poll` tells which descriptors are ready; accepting, reading, the engine, writing and closing then
run without the interpreter, on descriptors that this module owns. What is left for Python is
rare: an effect must be carried out, something is worth a line in the log.

    readable ──> recv ──> engine ──> send            one connection
                            │
                            └──> Turn: what follows for others

Back-pressure goes both ways. What a socket does not take waits and is written when it is
writable again; whoever lets too much wait is not read meanwhile, and past the limit is
disconnected. A connection that the engine pauses is not watched until it may go on.

A descriptor is closed only in its own turn or when nobody is being served, so an event that has
been taken is always about the connection that it was for; a generation in the event's key
checks it.
"""

import logging
import os

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR
from libc.errno cimport errno as c_errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from xsd.core.connection cimport conn_get, conn_open, conn_sent, next_dirty
from xsd.core.cxs cimport xs_outq_bytes
from xsd.core.engine cimport Engine
from xsd.core.request cimport engine_close, engine_received, engine_rx_space
from xsd.core.types cimport CONN_SOCKET, Conn, Core, RX_CLOSE, RX_DIRTY, RX_PAUSE
from xsd.io.poll cimport (
    EPOLLET, EPOLLIN, EPOLLOUT, POLL_LISTENER, Poll, poll_add, poll_change, poll_remove)
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
    ACCEPTS = 64        # connections taken at once, at most
    NEWS = 256          # connections that came or went, remembered for the log
    BROKEN = 1 << 16    # beside the RX_ bits: the peer has gone
    STUCK = 1 << 17     # not everything could be written
    FULL = 1 << 18      # more waits than the limit allows
    ENDED = 1 << 19     # the peer sends no more, but is not done with yet
    COME = 1 << 20      # of news: it is new
    ACCEPT_PAUSE_S = 1  # after descriptors ran out

_log = logging.getLogger("xsd.io")


# What is known of a descriptor.
cdef struct Socket:
    bint open
    bint unread          # is not watched for input
    bint stuck           # is watched for room
    bint waits           # had to wait when it was read last: stands on the list of paused ones
    bint ended           # its peer sends no more
    uint32_t id          # of its connection
    uint32_t generation


# A connection that came (COME) or went, and why.
cdef struct News:
    int what
    uint32_t id
    int64_t pid
    int64_t uid
    size_t waiting       # bytes that were not read


cdef struct Table:
    Core *core
    int epoll
    uint32_t domid
    Socket *sockets      # by descriptor
    int cap
    int *fds             # by connection id; -1: it has no descriptor
    uint32_t id_cap
    int *paused          # descriptors; room for all
    int paused_count
    int count
    int listening        # -1: nobody may come
    int at_once          # connections that are taken at the next wake-up
    int refused          # errno of an accept, until somebody has been told; 0: none
    bint out_of_memory   # for a connection, until somebody has been told
    bint settle          # something follows for others
    bint verbose         # everything that comes and goes is worth a line
    News[NEWS] news
    int news_count
    int64_t accepted
    int64_t wakeups


# ---- bytes ---------------------------------------------------------------------------------

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
    """One wake-up: reads once, handles what has come, writes once. RX_ bits and ours."""
    cdef size_t room
    cdef char *into = engine_rx_space(c, &room)
    cdef ssize_t n
    cdef int flags
    if room == 0: # all of it is requests that have had to wait: nothing fits, and nothing has ended
        return 0
    n = recv(fd, into, room, MSG_DONTWAIT)
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


# ---- coming and going ------------------------------------------------------------------------

cdef void tell(Table *t, int what, const Conn *c) noexcept nogil:
    """For the log."""
    cdef News *news = &t.news[t.news_count]
    if t.news_count < NEWS:
        t.news_count += 1
        news.what = what
        news.id = c.id
        news.pid = c.pid
        news.uid = c.uid
        news.waiting = xs_outq_bytes(&c.out)


cdef int make_room(Table *t, int fd, uint32_t id) noexcept nogil:
    """Room in the tables for a descriptor and a connection. 0, or -1 without memory."""
    cdef int cap = t.cap
    cdef uint32_t ids = t.id_cap
    cdef void *p
    if fd >= cap:
        cap = max(fd + 1, max(64, 2 * cap))
        p = realloc(t.sockets, cap * sizeof(Socket))
        if p == NULL:
            return -1
        t.sockets = <Socket *>p
        p = realloc(t.paused, cap * sizeof(int))
        if p == NULL:
            return -1
        t.paused = <int *>p
        memset(t.sockets + t.cap, 0, (cap - t.cap) * sizeof(Socket))
        t.cap = cap
    if id >= ids:
        ids = max(id + 1, max(<uint32_t>64, 2 * ids))
        p = realloc(t.fds, ids * sizeof(int))
        if p == NULL:
            return -1
        t.fds = <int *>p
        memset(t.fds + t.id_cap, 0xff, (ids - t.id_cap) * sizeof(int))
        t.id_cap = ids
    return 0


cdef inline uint64_t key_of(const Socket *s, int fd) noexcept nogil:
    return <uint64_t>s.generation << 32 | <uint32_t>fd


cdef int adopt(Table *t, int fd, int64_t now) noexcept nogil:
    """Makes a connection of an accepted descriptor. 0, or -1 without memory: it is closed."""
    cdef Conn *c = conn_open(t.core, CONN_SOCKET, t.domid)
    cdef Socket *s
    cdef Socket fresh
    cdef ucred peer
    cdef unsigned length = sizeof(peer)
    if c == NULL:
        c_close(fd)
        return -1
    if make_room(t, fd, c.id) != 0:
        engine_close(c, now)
        c_close(fd)
        return -1
    s = &t.sockets[fd]
    memset(&fresh, 0, sizeof(fresh))
    fresh.generation = s.generation + 1
    fresh.waits = s.waits # it stands there once, whoever has it
    fresh.id = c.id
    s[0] = fresh
    if poll_add(t.epoll, fd, key_of(s, fd), EPOLLIN) != 0:
        engine_close(c, now)
        c_close(fd)
        return -1
    s.open = True
    t.fds[c.id] = fd
    t.count += 1
    t.accepted += 1
    if getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0:
        c.pid = peer.pid
        c.uid = peer.uid
    if t.verbose:
        tell(t, COME, c)
    return 0


cdef void drop(Table *t, int fd, int why, int64_t now) noexcept nogil:
    """Ends a connection: BROKEN, FULL or RX_CLOSE says why."""
    cdef Socket *s = &t.sockets[fd]
    cdef Conn *c = conn_get(t.core, s.id)
    s.open = False
    t.fds[s.id] = -1
    t.count -= 1
    c_close(fd) # which takes it out of the set
    if c == NULL:
        return
    if t.verbose or not why & BROKEN:
        tell(t, why, c)
    if engine_close(c, now):
        t.settle = True


cdef void welcome(Table *t, int64_t now) noexcept nogil:
    """Takes connections that wait to be accepted.

    The first wake-up takes one, and finds out with the next wait whether there are more: who
    comes alone costs no call in vain. While they come in crowds twice as many are taken each
    time.
    """
    cdef int i, fd
    for i in range(t.at_once):
        fd = accept4(t.listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            if adopt(t, fd, now) != 0:
                t.out_of_memory = True
            else:
                # Who connects has something to ask, most often already.
                follow(t, fd, serve(conn_get(t.core, t.sockets[fd].id), fd, False, now), now)
        elif c_errno == EAGAIN:
            t.at_once = 1
            return
        elif c_errno != EINTR and c_errno != ECONNABORTED: # no descriptors, no memory, no right
            t.refused = c_errno
            poll_remove(t.epoll, t.listening)
            return
    t.at_once = min(2 * t.at_once, ACCEPTS)


# ---- what follows ----------------------------------------------------------------------------

cdef void watch(Table *t, int fd, bint unread, bint stuck) noexcept nogil:
    """What it is watched for from now on.

    One that is watched for nothing is told of an edge only: the end of its peer would make it
    ready for ever. It stays in the set, so that coming back needs no memory.
    """
    cdef Socket *s = &t.sockets[fd]
    cdef uint32_t events = (0 if unread else EPOLLIN) | (EPOLLOUT if stuck else 0)
    if s.unread == unread and s.stuck == stuck:
        return
    s.unread = unread
    s.stuck = stuck
    poll_change(t.epoll, fd, key_of(s, fd), events if events else EPOLLET)


cdef void follow(Table *t, int fd, int flags, int64_t now) noexcept nogil:
    """What follows from one wake-up besides bytes."""
    cdef Core *core = t.core
    cdef Socket *s = &t.sockets[fd]
    if flags == 0:
        return
    if flags == BROKEN:
        drop(t, fd, flags, now)
        return
    if flags == RX_DIRTY and core.dirty_first.id == s.id and core.dirty_first.dirty_next == NULL \
            and core.run_first == NULL and core.access_len == 0:
        next_dirty(core)  # only itself, and written already
        return
    t.settle = True
    if flags & (BROKEN | FULL | RX_CLOSE):
        drop(t, fd, flags, now)
        return
    if flags & (STUCK | ENDED):
        s.ended = s.ended or flags & ENDED != 0
        watch(t, fd, s.unread or s.ended, s.stuck or flags & STUCK != 0)
    if flags & RX_PAUSE and not flags & ENDED and not s.waits:
        s.waits = True
        t.paused[t.paused_count] = fd
        t.paused_count += 1


cdef void bury(Table *t, int fd, const Conn *c, int64_t now) noexcept nogil:
    """Closes a connection whose peer has ended, once it has got everything."""
    cdef Socket *s = &t.sockets[fd]
    if s.ended and not s.stuck and not c.runnable and not c.paused:
        drop(t, fd, BROKEN, now)


cdef void handle(Table *t, int fd, uint32_t generation, uint32_t events, int64_t now) noexcept nogil:
    """A descriptor is ready."""
    cdef Socket *s
    cdef Conn *c
    cdef int flags
    if fd >= t.cap:
        return
    s = &t.sockets[fd]
    if not s.open or s.generation != generation:
        return
    t.wakeups += 1
    c = conn_get(t.core, s.id)
    if c == NULL:
        drop(t, fd, BROKEN, now)
        return
    if s.stuck and events != EPOLLIN:
        flags = flush(c, fd)
        if t.core.run_first != NULL: # what has gone lets itself go on, or who caused it
            t.settle = True
        if flags & BROKEN:
            drop(t, fd, BROKEN, now)
            return
        if flags == 0:
            watch(t, fd, s.unread, False)
            bury(t, fd, c, now)
            if not s.open:
                return
    if not s.unread and events != EPOLLOUT:
        follow(t, fd, serve(c, fd, s.stuck, now), now)


cdef class Sockets(Transport):
    """The unix socket connections of an engine; ``domid`` is the domain that they come from."""

    cdef Turn turn
    cdef Engine engine
    cdef Poll poll
    cdef Table *table
    cdef object listening

    def __cinit__(self):
        self.table = <Table *>calloc(1, sizeof(Table))
        if self.table == NULL:
            raise MemoryError

    def __init__(self, Turn turn, uint32_t domid=0):
        cdef Table *t = self.table
        self.turn = turn
        self.engine = turn.engine
        self.poll = Poll(turn) if turn.poll is None else turn.poll
        t.core = self.engine.core
        t.epoll = self.poll.fd
        t.domid = domid
        t.listening = -1
        t.at_once = 1
        turn.sockets = self

    def __dealloc__(self):
        if self.table != NULL:
            free(self.table.sockets)
            free(self.table.paused)
            free(self.table.fds)
            free(self.table)

    @property
    def accepted(self):
        """How many have come."""
        return self.table.accepted

    @property
    def wakeups(self):
        """How often one was ready."""
        return self.table.wakeups

    # -- coming and going

    def listen(self, sock):
        """Accepts connections from a listening, non-blocking socket."""
        self.listening = sock
        self.table.listening = sock.fileno()
        self._accept_again()

    def _accept_again(self):
        if self.listening is None:
            return
        self.table.verbose = _log.isEnabledFor(logging.DEBUG)
        if poll_add(self.table.epoll, self.table.listening, POLL_LISTENER, EPOLLIN) != 0:
            self.refuse(c_errno)

    cdef refuse(self, int error):
        """Nobody can be accepted for the time being."""
        _log.error("cannot accept a connection: %s; trying again in %d s", os.strerror(error),
                   ACCEPT_PAUSE_S)
        self.turn.loop.call_later(ACCEPT_PAUSE_S, self._accept_again)

    cdef report(self):
        """What has happened goes to the log."""
        cdef Table *t = self.table
        cdef int i, count = t.news_count, error = t.refused
        t.news_count = t.refused = 0
        for i in range(count):
            self.say(&t.news[i])
        if t.out_of_memory:
            t.out_of_memory = False
            _log.error("no memory for another connection")
        if error != 0:
            self.refuse(error)

    cdef say(self, const News *news):
        if news.what & COME:
            _log.debug("connection %d: pid %d, uid %d", news.id, news.pid, news.uid)
        elif news.what & BROKEN:
            _log.debug("connection %d has gone", news.id)
        else:
            _log.warning(
                "connection %d (pid %d) closed: %s", news.id, news.pid,
                f"{news.waiting} bytes wait for it to be read" if news.what & FULL else
                "it sent what cannot be a request: more than 4096 bytes announced, "
                "or memory ran out")

    def stop_accepting(self):
        """Leaves the listening socket alone from now on."""
        if self.listening is not None:
            poll_remove(self.table.epoll, self.table.listening)
            self.table.listening = -1
            self.listening = None

    def shut(self):
        """Ends everything, after one last attempt to write what waits."""
        cdef Table *t = self.table
        cdef Conn *c
        cdef int fd
        self.stop_accepting()
        for fd in range(t.cap):
            if t.sockets[fd].open:
                c = conn_get(t.core, t.sockets[fd].id)
                if c != NULL:
                    flush(c, fd)
                drop(t, fd, BROKEN, self.turn.now())
                self.report()

    # -- input and output

    cdef bint ready(self, uint64_t key, uint32_t events, int64_t now) noexcept nogil:
        cdef Table *t = self.table
        if key == POLL_LISTENER:
            if t.listening >= 0:
                welcome(t, now)
        else:
            handle(t, <int><uint32_t>key, <uint32_t>(key >> 32), events, now)
        return t.settle or t.news_count > 0 or t.refused != 0 or t.out_of_memory

    cdef attend(self):
        if self.table.settle:
            self.table.settle = False
            self.turn.settle()
        self.report()

    cdef settled(self):
        cdef Table *t = self.table
        cdef Socket *s
        cdef Conn *c
        cdef int i, fd
        for i in range(t.paused_count): # most have gone on: what they waited for has been done
            fd = t.paused[i]
            s = &t.sockets[fd]
            if s.waits:
                s.waits = False
                c = conn_get(t.core, s.id)
                if s.open and c != NULL and c.paused and not c.runnable:
                    watch(t, fd, True, s.stuck)
        t.paused_count = 0
        if t.news_count > 0:
            self.report()
        t.verbose = _log.isEnabledFor(logging.DEBUG) # an effect may have changed it

    # -- what others caused

    cdef int fd_of(self, const Conn *c) noexcept:
        return self.table.fds[c.id] if c.id < self.table.id_cap else -1

    cdef write(self, Conn *c):
        cdef Table *t = self.table
        cdef int flags = 0, fd = self.fd_of(c)
        if fd < 0:
            return
        with nogil:
            if not t.sockets[fd].stuck:
                flags = flush(c, fd)
                if c.closing:
                    flags |= RX_CLOSE
            elif xs_outq_bytes(&c.out) > t.core.socket_output_max:
                flags = FULL
            follow(t, fd, flags, self.turn.now())
        if t.settle:
            self.attend()

    cdef resume(self, Conn *c):
        cdef Table *t = self.table
        cdef Socket *s
        cdef size_t room
        cdef int64_t now = self.turn.now()
        cdef int flags, fd = self.fd_of(c)
        if fd < 0:
            return
        with nogil:
            s = &t.sockets[fd]
            engine_rx_space(c, &room)
            flags = engine_received(c, now, 0, BUDGET)
            if not s.stuck:
                flags |= flush(c, fd)
            if not flags & RX_PAUSE and s.unread and not s.ended:
                watch(t, fd, False, s.stuck)
            follow(t, fd, flags, now)
            if s.open:
                bury(t, fd, c, now)
        self.turn.settle()
