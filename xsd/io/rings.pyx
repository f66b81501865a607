# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Rings: pages shared with domains, and the event channels that tell of them.

    event channels readable ──> read up to 64 ports
                                  │
                                  ├──> each ring: take in · engine · put out · notify
                                  ├──> unmask all of these ports with one write
                                  └──> what follows for others: other rings at once, the rest
                                       once a turn

All of that runs without the interpreter. What a domain puts into its page is read once,
checked, and never believed twice; whatever it puts there harms its own connection only. Its
ring is then ignored, and its port stays masked, until it is introduced again or dies.

No ring is looked at that has not sent an event, but for a slow scan that catches domains that
have forgotten to.
"""

import logging

from libc.errno cimport EAGAIN, EINTR
from libc.errno cimport errno as c_errno
from libc.stdint cimport int64_t, intptr_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset, strerror

from xsd.core.connection cimport (
    conn_blocked, conn_give_up, conn_reconnect, conn_sent, conn_wake, mark_dirty, next_dirty)
from xsd.core.credit cimport credit_paused
from xsd.core.cxs cimport (
    XS_RING_BAD, XS_RING_ERROR, XS_RING_ERROR_CHANNEL, XS_RING_ERROR_INDICES, XS_RING_RECONNECT,
    xs_outq_bytes, xs_ring_fail, xs_ring_page, xs_ring_read, xs_ring_reconnecting, xs_ring_reset,
    xs_ring_taken, xs_ring_write)
from xsd.core.engine cimport Engine
from xsd.core.request cimport engine_received, engine_rx_space
from xsd.core.types cimport CONN_RING, Conn, Core, RX_DIRTY, RX_MORE
from xsd.io.poll cimport EPOLLIN, POLL_RINGS, Poll, poll_add, poll_remove
from xsd.io.turn cimport Transport, Turn

cdef extern from "unistd.h" nogil:
    ssize_t read(int fd, void *buf, size_t n)
    ssize_t write(int fd, const void *buf, size_t n)

ctypedef int (*notify_t)(void *handle, uint32_t port) noexcept nogil

cdef enum:
    PORTS = 64          # events taken at once
    SCAN_ANYWAY_S = 1   # when events cannot be read
    LOOKS = 4           # at a ring that is filled as fast as it is emptied
    DOMAINS = 65536
    PORTS_MAX = 1 << 20 # far more than a domain of Xen can have
    MOVED = 1 << 16     # beside the RX_ bits: the other side must be told
    IGNORED = 1 << 17   # it is not served any more

_log = logging.getLogger("xsd.io")


cdef struct Ring:
    uint32_t domid
    uint32_t port        # 0: no event channel
    xs_ring_page *page


cdef struct Table:
    int budget           # requests of one ring before others have their turn
    notify_t notify
    void *channels
    Ring **by_port
    uint32_t port_cap
    uint32_t count
    Ring *by_domid[DOMAINS]
    uint32_t *notified   # with no notify: ports that would have been told
    size_t notified_count
    size_t notified_cap
    int64_t notifications
    int64_t faults


# ---- one ring ----------------------------------------------------------------------------

cdef inline Conn *conn_of(Core *core, const Ring *r) noexcept nogil:
    """The connection of a ring; NULL when the domain has gone and its page not yet."""
    return NULL if core.domains[r.domid] == NULL else core.domains[r.domid].conn


cdef int broken(Conn *c) noexcept nogil:
    """Its indices cannot be: it is not looked at again."""
    conn_give_up(c, XS_RING_ERROR_INDICES)
    return IGNORED


cdef int put_out(Conn *c, Ring *r) noexcept nogil:
    """Puts out as much as there is room for. 0, MOVED or IGNORED."""
    cdef size_t n
    cdef int done, flags = 0
    if not c.privileged and credit_paused(c.core, c.dom):
        return 0
    while True: # until it is seen full: only then does the domain tell that it has made room
        n = xs_outq_bytes(&c.out)
        if n == 0:
            return flags
        done = xs_ring_write(r.page, c.out.buf + c.out.head, n)
        if done == XS_RING_BAD:
            return broken(c)
        if done == 0:
            return flags
        conn_sent(c, <size_t>done)
        flags = MOVED


cdef int take_in(Conn *c, Ring *r, int64_t now, int budget) noexcept nogil:
    """Has the engine handle what is there. RX_ bits, MOVED, IGNORED."""
    cdef size_t room
    cdef char *into = engine_rx_space(c, &room)
    cdef uint32_t at
    cdef int n = xs_ring_read(r.page, into, room, &at)
    cdef int flags
    if n == XS_RING_BAD:
        return broken(c)
    if n == 0:
        return 0
    flags = engine_received(c, now, <size_t>n, budget)
    if c.ignored:
        return flags | IGNORED
    xs_ring_taken(r.page, at, <size_t>n - c.unread)
    return flags | MOVED


cdef int start_afresh(Conn *c, Ring *r) noexcept nogil:
    """If the domain asks for a fresh start, it has one. 0 or MOVED."""
    if not xs_ring_reconnecting(r.page) or not c.dom.features & XS_RING_RECONNECT:
        return 0
    conn_reconnect(c)
    xs_ring_reset(r.page, c.dom.features)
    return MOVED


cdef int serve(Conn *c, Ring *r, int64_t now, int budget) noexcept nogil:
    """All that there is to do for one ring: in, and out. RX_ bits, MOVED, IGNORED."""
    cdef int flags, taken, looks = LOOKS
    if c == NULL or c.ignored:
        return IGNORED
    flags = start_afresh(c, r)
    flags |= put_out(c, r) # what has room now keeps nobody from asking
    if c.ignored:
        return flags
    if not c.paused and conn_blocked(c):
        c.paused = True # what it asks stays in its ring
    while not c.paused and not c.ignored:
        # Until it is seen empty: a domain that adds to what is there sends no event.
        if looks == 0:
            c.paused = True
            conn_wake(c) # goes on after others
            flags |= RX_MORE
            break
        looks -= 1
        taken = take_in(c, r, now, budget)
        flags |= taken
        if not c.ignored:
            flags |= put_out(c, r)
        if not taken & MOVED:
            break
    return flags


# ---- many rings --------------------------------------------------------------------------

cdef void tell(Table *t, Ring *r) noexcept nogil:
    """Notifies the domain of a ring."""
    cdef size_t cap
    cdef uint32_t *more
    t.notifications += 1
    if r.port == 0:
        return
    if t.notify != NULL:
        t.notify(t.channels, r.port) # a domain that has gone meanwhile is no news here
        return
    if t.notified_count == t.notified_cap:
        cap = 2 * t.notified_cap + 64
        more = <uint32_t *>realloc(t.notified, cap * sizeof(uint32_t))
        if more == NULL:
            return
        t.notified = more
        t.notified_cap = cap
    t.notified[t.notified_count] = r.port
    t.notified_count += 1


cdef void finish(Table *t, Conn *c, Ring *r, int flags) noexcept nogil:
    """What the domain must be told after its ring was served."""
    if flags & IGNORED and c != NULL and c.error != 0:
        t.faults += 1
        if c.dom.features & XS_RING_ERROR:
            xs_ring_fail(r.page, c.error)
        c.error = 0 # told
        tell(t, r)
    elif flags & MOVED:
        tell(t, r)


cdef int serve_ports(Table *t, Core *core, const uint32_t *ports, size_t n, uint32_t *unmask,
                     uint32_t *others, size_t *counts, int64_t now) noexcept nogil:
    """Serves the rings of these ports. RX_ bits.

    `unmask` gets the ports that may send events again, `others` those that are no ring's;
    counts[0] and counts[1] say how many.
    """
    cdef Ring *r
    cdef Conn *c
    cdef int flags, every = 0
    cdef size_t i
    counts[0] = counts[1] = 0
    for i in range(n):
        r = t.by_port[ports[i]] if ports[i] < t.port_cap else NULL
        if r == NULL:
            others[counts[1]] = ports[i]
            counts[1] += 1
            unmask[counts[0]] = ports[i]
            counts[0] += 1
            continue
        c = conn_of(core, r)
        flags = serve(c, r, now, t.budget)
        every |= flags
        finish(t, c, r, flags)
        if not flags & IGNORED:
            unmask[counts[0]] = ports[i]
            counts[0] += 1
    return every


cdef void write_rings(Table *t, Core *core) noexcept nogil:
    """Puts out what rings have got through others, until a socket is next."""
    cdef Conn *c
    cdef Ring *r
    while core.dirty_first != NULL and core.dirty_first.kind == CONN_RING:
        c = next_dirty(core)
        r = t.by_domid[c.domid]
        if r != NULL:
            finish(t, c, r, IGNORED if c.ignored else put_out(c, r))


cdef class Rings(Transport):
    """The rings of an engine's domains.

    ``fd``, ``notify`` and ``handle`` are those of the hypervisor's channels; ``other`` is
    called with each port that is no ring's. With a descriptor of -1 nothing is read: `handle`
    is then told of events, and with no ``notify`` `take_notified` tells of notifications.
    ``budget`` requests of a ring are handled before others have their turn.
    """

    cdef Turn turn
    cdef Engine engine
    cdef object other
    cdef object timer
    cdef double scan_seconds
    cdef int fd
    cdef bint listening
    cdef bint events     # have come
    cdef Table *table
    cdef readonly int64_t wakeups

    def __cinit__(self):
        self.table = <Table *>calloc(1, sizeof(Table))
        if self.table == NULL:
            raise MemoryError

    def __init__(self, Turn turn, int fd, intptr_t notify, intptr_t handle, other,
                 int budget=16):
        self.table.budget = budget
        self.turn = turn
        self.engine = turn.engine
        self.fd = fd
        self.table.notify = <notify_t><void *>notify
        self.table.channels = <void *>handle
        self.other = other
        turn.rings = self

    def __dealloc__(self):
        cdef int i
        if self.table != NULL:
            for i in range(DOMAINS):
                free(self.table.by_domid[i])
            free(self.table.by_port)
            free(self.table.notified)
            free(self.table)

    @property
    def notifications(self):
        """How many have been sent."""
        return self.table.notifications

    @property
    def faults(self):
        """How often a domain broke the rules of its ring."""
        return self.table.faults

    def count(self):
        """How many rings there are."""
        return self.table.count

    # -- coming and going

    def listen(self, double scan_seconds=-1):
        """Serves events from now on, and looks at all rings every so often; -1: never."""
        cdef Poll poll = self.turn.poll
        if poll is None:
            self.turn.loop.add_reader(self.fd, self._readable)
        elif poll_add(poll.fd, self.fd, POLL_RINGS, EPOLLIN) != 0:
            raise OSError(c_errno, strerror(c_errno).decode())
        self.listening = True
        self.scan_seconds = scan_seconds
        self.rest()

    def shut(self):
        """Stops serving; the pages are not touched any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.deaf()
        for domid in range(DOMAINS):
            self.detach(domid)

    cdef Ring *ring(self, uint32_t domid) except? NULL:
        """The ring of a domid, made if there is none. Raises ValueError, MemoryError."""
        cdef Table *t = self.table
        if domid >= DOMAINS:
            raise ValueError(f"domid {domid}: expected less than {DOMAINS}")
        if t.by_domid[domid] == NULL:
            t.by_domid[domid] = <Ring *>calloc(1, sizeof(Ring))
            if t.by_domid[domid] == NULL:
                raise MemoryError
            t.by_domid[domid].domid = domid
            t.count += 1
        return t.by_domid[domid]

    cdef int bind(self, Ring *r, uint32_t port) except -1:
        """Events of this port mean this ring from now on, and those of an earlier one do not."""
        cdef Table *t = self.table
        cdef Ring **more
        cdef uint32_t cap
        if port >= PORTS_MAX:
            raise ValueError(f"port {port}: expected less than {PORTS_MAX}")
        if port >= t.port_cap:
            cap = max(port + 1, 2 * t.port_cap)
            more = <Ring **>realloc(t.by_port, cap * sizeof(Ring *))
            if more == NULL:
                raise MemoryError
            memset(more + t.port_cap, 0, (cap - t.port_cap) * sizeof(Ring *))
            t.by_port = more
            t.port_cap = cap
        self.unbind(r)
        if port != 0:
            t.by_port[port] = r
        r.port = port
        return 0

    cdef void unbind(self, Ring *r) noexcept:
        if r.port != 0 and self.table.by_port[r.port] == r:
            self.table.by_port[r.port] = NULL
        r.port = 0

    def reserve(self, uint32_t domid, uint32_t port):
        """Takes the memory that `attach` will need. Raises MemoryError, ValueError."""
        self.bind(self.ring(domid), port)

    def attach(self, uint32_t domid, intptr_t address, uint32_t port):
        """A domain has been introduced: its page is at this address, its events come by this port.

        The rings in the page are emptied, and the domain is told that it is connected. Raises
        MemoryError, and KeyError when the engine has no connection for the domain.
        """
        cdef Ring *r
        cdef Conn *c = self.engine.conn(self.engine.domain_conn(domid))
        r = self.ring(domid)
        self.bind(r, port)
        r.page = <xs_ring_page *>address
        xs_ring_reset(r.page, c.dom.features)
        tell(self.table, r)
        if xs_outq_bytes(&c.out):
            mark_dirty(c)

    def unbound(self, uint32_t domid):
        """The event channel of a known domain has gone, and no other could be bound."""
        cdef Ring *r = self.table.by_domid[domid] if domid < DOMAINS else NULL
        cdef Conn *c
        if r == NULL:
            return
        self.unbind(r)
        c = conn_of(self.engine.core, r)
        if c != NULL and c.dom.features & XS_RING_ERROR:
            xs_ring_fail(r.page, XS_RING_ERROR_CHANNEL)

    def detach(self, uint32_t domid):
        """A domain's page is about to go; nothing happens when it has none."""
        cdef Ring *r = self.table.by_domid[domid] if domid < DOMAINS else NULL
        if r == NULL:
            return
        self.unbind(r)
        self.table.by_domid[domid] = NULL
        self.table.count -= 1
        free(r)

    # -- events

    cdef deaf(self):
        """Events are not waited for any more."""
        cdef Poll poll = self.turn.poll
        if not self.listening:
            return
        self.listening = False
        if poll is None:
            self.turn.loop.remove_reader(self.fd)
        else:
            poll_remove(poll.fd, self.fd)

    cdef bint ready(self, uint64_t key, uint32_t events, int64_t now) noexcept nogil:
        self.events = True
        return True

    cdef attend(self):
        if self.events:
            self.events = False
            self._readable()

    def _readable(self):
        cdef uint32_t[PORTS] ports
        cdef ssize_t n
        with nogil:
            n = read(self.fd, ports, sizeof(ports))
        if n < 0:
            if c_errno != EAGAIN and c_errno != EINTR:
                self.do_without_events(strerror(c_errno).decode())
            return
        self.take(ports, <size_t>n // sizeof(uint32_t))

    def handle(self, bytes ports):
        """Events have come by these ports, unsigned 32-bit numbers, at most 64."""
        cdef const char *p = ports
        cdef size_t n = len(ports)
        if n > PORTS * sizeof(uint32_t) or n % sizeof(uint32_t):
            raise ValueError(f"{n} bytes: expected up to 64 numbers of 4")
        self.take(<const uint32_t *>p, n // sizeof(uint32_t))

    cdef take(self, const uint32_t *ports, size_t n):
        cdef uint32_t[PORTS] unmask
        cdef uint32_t[PORTS] others
        cdef size_t[2] counts
        cdef Core *core = self.engine.core
        cdef int64_t now = self.turn.now()
        cdef int flags
        cdef size_t i
        self.wakeups += 1
        with nogil:
            flags = serve_ports(self.table, core, ports, n, unmask, others, counts, now)
            write_rings(self.table, core)
            if counts[0] > 0 and self.fd >= 0:
                write(self.fd, unmask, counts[0] * sizeof(uint32_t))
        for i in range(counts[1]):
            self.other(others[i])
        if (flags & ~(RX_DIRTY | MOVED) or core.dirty_first != NULL or core.run_first != NULL
                or core.access_len > 0):
            self.turn.settle()

    def take_notified(self):
        """The ports that were to be notified since the last time, when there is no `notify`."""
        found = [self.table.notified[i] for i in range(self.table.notified_count)]
        self.table.notified_count = 0
        return found

    # -- what others caused

    cdef resume(self, Conn *c):
        cdef Ring *r = self.table.by_domid[c.domid]
        cdef size_t room
        cdef int64_t now = self.turn.now()
        cdef int flags
        if r == NULL:
            return
        with nogil:
            engine_rx_space(c, &room)
            flags = engine_received(c, now, 0, self.table.budget)
            flags |= serve(c, r, now, self.table.budget)
            finish(self.table, c, r, flags)

    cdef write(self, Conn *c):
        cdef Ring *r = self.table.by_domid[c.domid]
        if r != NULL:
            finish(self.table, c, r, IGNORED if c.ignored else put_out(c, r))

    # -- the safety net

    def scan(self):
        """Serves every ring, whether it has sent an event or not."""
        cdef Ring *r
        cdef Conn *c
        cdef int64_t now = self.turn.now()
        cdef int flags
        cdef uint32_t i
        with nogil:
            for i in range(self.table.port_cap):
                r = self.table.by_port[i]
                if r != NULL:
                    c = conn_of(self.engine.core, r)
                    flags = serve(c, r, now, self.table.budget)
                    finish(self.table, c, r, flags)
        self.turn.settle()

    cdef do_without_events(self, why):
        """Slow, and better than nothing: rings are looked at every so often instead."""
        _log.error("cannot read events: %s; looking at all rings every %d s instead", why,
                   SCAN_ANYWAY_S)
        self.deaf()
        if self.timer is not None:
            self.timer.cancel()
        self.scan_seconds = SCAN_ANYWAY_S
        self._scan()

    cdef rest(self):
        if self.scan_seconds >= 0:
            self.timer = self.turn.loop.call_later(self.scan_seconds or 1, self._scan)

    def _scan(self):
        self.scan()
        self.rest()
