# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Fuzz target: a stream of events for a whole engine.

The input is a small program. Each byte names an event, the bytes behind it its arguments:

    request     on one of eight connections, well formed at least in its length
    story       a transaction that another connection disturbs
    raw bytes   on one of them, cut where the input says
    take        some or all of a connection's output
    tick        time passes, little or much
    complete    an effect is carried out, or fails
    domain      dies, shuts down, is introduced
    open/close  of sockets
    fail        one allocation from now on, or all from then on
    settings    quotas, switches
    check       every invariant of the engine

Connections 0 to 3 are sockets of the privileged domain, 4 to 7 rings of four guests. Beside the
engine's own check() it must hold that every complete request is answered once, in order, with its
own id, that what comes out is well formed, and that accounts of domains read zero when they have
gone. Now and then a program runs twice, and must give the same bytes.

With the sanitizers' help the shared input buffer is poisoned behind what was read into it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from xsd.core.connection cimport conn_close, conn_sent, next_dirty, next_runnable
from xsd.core.cxs cimport XS_HEADER_SIZE, XS_PAYLOAD_MAX, xs_outq_bytes
from xsd.core.engine cimport Engine
from xsd.core.request cimport engine_received, engine_rx_space
from xsd.core.types cimport CONN_RING, CONN_SOCKET, Conn, Core, Domain, RX_CLOSE

cdef extern from "sanitizer/asan_interface.h" nogil:
    void ASAN_POISON_MEMORY_REGION(const void *at, size_t n)
    void ASAN_UNPOISON_MEMORY_REGION(const void *at, size_t n)

cdef enum:
    SOCKETS = 4
    SLOTS = 8
    WAITING = 2048       # requests of a connection that may be without an answer
    BUDGET = 256
    EVENTS = 400         # of one program
    ROUNDS = 200         # within which everything must have come to rest
    OP_WATCH_EVENT = 15
    OP_ERROR = 16
    RX_ROOM = 64 * 1024 + 64

cdef uint32_t[4] GUESTS
GUESTS[:] = [1, 2, 3, 500]

cdef list PATHS = [
    b"/", b"/a", b"/a/b", b"/a/b/c", b"/tool", b"/tool/xenstored", b"/local", b"/local/domain",
    b"/local/domain/1", b"/local/domain/2", b"/local/domain/1/data", b"/local/domain/2/data/x",
    b"data", b"data/x", b"x", b"device/vif/0/state", b"@releaseDomain", b"@introduceDomain",
    b"@releaseDomain/1", b"/sharedby1", b"/sharedby2", b"/sharedby", b"/bad//path", b"/a/",
    b"/" + b"d/" * 300 + b"e", b"", b"/a/b/" + b"n" * 250, b"/local/domain/500", b"/b", b"/c",
]
cdef list SHARED = [
    b"/local/domain/1/data", b"/local/domain/2/data", b"/local/domain/1", b"/local/domain/1/data/x",
    b"/local/domain/1/y",
]
cdef list DOMIDS = [b"0", b"1", b"2", b"3", b"500", b"7", b"32752", b"32757", b"65535", b"x", b""]
cdef list TAILS = [
    b"", b"t\0", b"token\0", b"t\x001\0", b"t\x000\0", b"n0\0", b"n1\0", b"n2\0", b"b0\0",
    b"n1\0r2\0", b"n0\0b1\0", b"n0\0w2\0r1\0", b"r3\0n500\0", b"n7\0", b"n1\0b7\0", b"value",
    b"v" * 300, b"v" * 2040, b"v" * 2049, b"v" * 4000, b"0\0", b"10\0", b"1\x007\0", b"0\x007\0",
    b"2\0", b"nodes\0", b"nodes\x0010\0", b"memory\x00900\0", b"watches\x002\0",
    b"outstanding\x001\0", b"transactions\x001\0", b"15\0",
]
cdef list QUOTAS = [
    "nodes", "watches", "outstanding", "memory", "transactions", "transaction-nodes",
    "node-permissions", "path-max", "node-size", "transaction-requests", "watch-events",
    "soft-nodes", "soft-memory",
]
cdef list SWITCHES = [
    {"quota": False}, {"quota": True}, {"perms": False}, {"event_perms": False},
    {"keep_orphans": True}, {"access_log": True}, {"socket_output_max": 5000},
    {"merge": False}, {"merge": True}, {"test_eagain": True}, {"conflict": False},
    {"burst_limit": 1.0}, {"aggregate": False}, {"priority_after": 1}, {"write_rate": True},
    {"writes_per_second": 1, "write_burst": 1, "write_reserve": 2}, {"event_timeout_ns": 1000},
    {"log_debug": True}, {"period_ns": 1_000_000_000}, {"write_rate": False},
]
cdef list ERRORS = ["", "", "", "ENOENT", "EIO", "EINVAL"]
cdef int64_t[8] DELAYS
DELAYS[:] = [0, 1, 1_000_000, 50_000_000, 200_000_000, 1_000_000_000, 21_000_000_000,
             3_600_000_000_000]


class Wrong(Exception):
    """Something does not hold."""


cdef bytes message(bytes data, uint32_t req_id, uint32_t last_tx, size_t *used):
    """A request that input describes: four bytes of choices, and what they take of the rest.

    ``last_tx`` is the transaction that its connection has begun last.
    """
    cdef uint32_t[4] head
    cdef uint8_t[4] choice
    cdef bytes text
    cdef size_t n, at = min(4, len(data))
    memset(choice, 0, 4)
    memcpy(choice, <const char *>data, at)
    head[0] = choice[0] % 30
    if head[0] == 7:
        text = b"F" if choice[2] & 1 else b"T"
    elif head[0] in (8, 9, 10, 17, 18, 19, 23, 24, 25, 26):
        text = DOMIDS[choice[2] % len(DOMIDS)]
    elif choice[2] < 0xf0:
        text = PATHS[choice[2] % len(PATHS)]
    else:
        n = (choice[2] & 15) + 1
        text = data[at:at + n]
        at += len(text)
    if choice[3] >= 0x80:
        text += b"\0" + <bytes>TAILS[choice[3] % len(TAILS)]
    else:
        if not choice[3] & 0x40:
            text += b"\0"
        n = min(<size_t>choice[3] & 31, len(data) - at)
        text += data[at:at + n]
        at += n
    head[1] = req_id
    if choice[1] >= 0xf0:
        head[2] = (choice[1] & 7) + 1
    else:
        head[2] = last_tx if choice[1] & 0x40 else 0
    head[3] = <uint32_t>len(text)
    used[0] = at
    return (<const char *>head)[:XS_HEADER_SIZE] + text


def described(bytes data, uint32_t req_id, uint32_t last_tx):
    """The request that input describes, and how many bytes that took."""
    cdef size_t used
    text = message(data, req_id, last_tx, &used)
    return text, used


cdef struct Asked:
    uint32_t type
    uint32_t req_id
    uint32_t tx_id


# What is known of one connection from outside.
cdef struct Slot:
    uint64_t owner       # identity of the connection; 0: none
    uint32_t id
    bint lost            # it is no longer known what it owes
    uint32_t in_have     # bytes of the message that is on its way in
    uint32_t in_want
    uint32_t[4] in_head
    uint32_t out_have
    uint32_t out_want
    uint32_t[4] out_head
    uint8_t last         # byte that came out
    Asked asked[WAITING]
    size_t first
    size_t count
    uint32_t req_id


cdef class Program:
    cdef Engine engine
    cdef Core *core
    cdef const uint8_t *at
    cdef const uint8_t *end
    cdef int64_t now
    cdef uint64_t digest
    cdef int budget
    cdef bint checked    # in the middle
    cdef Slot *slots
    cdef list effects

    def __cinit__(self):
        self.slots = <Slot *>malloc((SLOTS + 1) * sizeof(Slot)) # one for all the others
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.slots)

    cdef uint8_t byte(self) noexcept:
        if self.at == self.end:
            return 0
        self.at += 1
        return (self.at - 1)[0]

    # -- connections

    cdef void forget(self, Slot *s) noexcept:
        """What a connection owes is nothing any more."""
        s.in_have = s.out_have = 0
        s.in_want = s.out_want = XS_HEADER_SIZE
        s.first = s.count = 0
        s.lost = False

    cdef Conn *conn(self, uint32_t i) noexcept:
        """The connection of a slot, or NULL; notices a new one."""
        cdef Slot *s = &self.slots[i]
        cdef Conn *c = NULL
        if i >= SOCKETS:
            if self.core.domains[GUESTS[i - SOCKETS]] != NULL:
                c = self.core.domains[GUESTS[i - SOCKETS]].conn
        elif s.owner != 0:
            c = self.core.conns[s.id] if s.id < self.core.conn_cap else NULL
            if c != NULL and c.watches.id != s.owner:
                c = NULL
        if c == NULL:
            s.owner = 0
        elif c.watches.id != s.owner:
            s.owner = c.watches.id
            s.id = c.id
            self.forget(s)
        if c != NULL and c.ignored:
            self.forget(s)
            s.lost = True
        return c

    cdef uint32_t slot_of(self, Conn *c) noexcept:
        cdef uint32_t i
        for i in range(SLOTS):
            if self.conn(i) == c:
                return i
        return SLOTS

    cdef int came_in(self, Slot *s, const uint8_t *p, size_t n) except -1:
        """These bytes were taken by the engine: what they ask for must be answered."""
        cdef size_t i
        cdef uint8_t *head = <uint8_t *>s.in_head
        for i in range(n):
            if s.lost:
                return 0
            if s.in_have < XS_HEADER_SIZE:
                head[s.in_have] = p[i]
            s.in_have += 1
            if s.in_have == XS_HEADER_SIZE:
                if s.in_head[3] > XS_PAYLOAD_MAX:
                    s.lost = True
                    return 0
                s.in_want = XS_HEADER_SIZE + s.in_head[3]
            if s.in_have < s.in_want:
                continue
            s.in_have = 0
            s.in_want = XS_HEADER_SIZE
            if s.count == WAITING:
                s.lost = True
                return 0
            s.asked[(s.first + s.count) % WAITING] = Asked(
                s.in_head[0], s.in_head[1], s.in_head[2])
            s.count += 1
        return 0

    cdef int went_out(self, Slot *s, const uint8_t *p, size_t n) except -1:
        cdef size_t i
        cdef uint8_t *head = <uint8_t *>s.out_head
        for i in range(n):
            self.digest = (self.digest ^ p[i]) * <uint64_t>0x100000001b3
            if s.out_have < XS_HEADER_SIZE:
                head[s.out_have] = p[i]
            s.out_have += 1
            if s.out_have == XS_HEADER_SIZE:
                if s.out_head[3] > XS_PAYLOAD_MAX:
                    raise Wrong(f"a message of {s.out_head[3]} bytes")
                s.out_want = XS_HEADER_SIZE + s.out_head[3]
            s.last = p[i]
            if s.out_have == s.out_want:
                s.out_have = 0
                s.out_want = XS_HEADER_SIZE
                self.answered(s)
        return 0

    cdef int answered(self, Slot *s) except -1:
        cdef Asked a
        if s.out_head[0] == OP_WATCH_EVENT:
            if s.out_head[1] or s.out_head[2] or s.last or s.out_head[3] < 2:
                raise Wrong("an event that is none")
            return 0
        if s.lost:
            return 0
        if s.count == 0:
            raise Wrong("an answer that nobody asked for")
        a = s.asked[s.first]
        s.first = (s.first + 1) % WAITING
        s.count -= 1
        if s.out_head[1] != a.req_id or s.out_head[2] != a.tx_id or (
                s.out_head[0] != a.type and s.out_head[0] != OP_ERROR):
            raise Wrong(f"{s.out_head[0]} {s.out_head[1]} {s.out_head[2]} "
                        f"answers {a.type} {a.req_id} {a.tx_id}")
        return 0

    # -- events

    cdef int receive(self, uint32_t i, const uint8_t *p, size_t n) except -1:
        """Bytes come on a connection, unless it is not read now."""
        cdef Conn *c = self.conn(i)
        cdef Slot *s = &self.slots[i]
        cdef char *into
        cdef size_t room, unread
        if c == NULL or c.paused or c.ignored or c.closing:
            return 0
        into = engine_rx_space(c, &room)
        if n > room:
            n = room
        memcpy(into, p, n)
        self.came_in(s, p, n)
        return self.handle(c, s, into, n)

    cdef int handle(self, Conn *c, Slot *s, char *into, size_t n) except -1:
        cdef uint32_t id = c.id
        cdef uint64_t owner = c.watches.id
        cdef char *rx = self.core.rx
        cdef int flags
        ASAN_POISON_MEMORY_REGION(into + n, <size_t>(rx + RX_ROOM - (into + n)))
        flags = engine_received(c, self.now, n, self.budget)
        ASAN_UNPOISON_MEMORY_REGION(rx, RX_ROOM)
        if id >= self.core.conn_cap or self.core.conns[id] != c or c.watches.id != owner:
            raise Wrong("it has closed the connection it works for")
        self.digest = (self.digest ^ <uint64_t>flags) * <uint64_t>0x100000001b3
        if c.unread > 0: # these were not taken, and who sends them again may send others
            s.lost = True
        if flags & RX_CLOSE and s.owner == owner:
            self.close(s)
        return 0

    cdef int close(self, Slot *s) except -1:
        cdef Conn *c = self.core.conns[s.id]
        self.take(s, c, 1 << 30)
        self.engine.close(self.now, s.id)
        s.owner = 0
        return 0

    cdef int take(self, Slot *s, Conn *c, size_t most) except -1:
        cdef size_t n = min(most, xs_outq_bytes(&c.out))
        if c.ignored: # a ring that is not looked at any more
            return 0
        self.went_out(s, <const uint8_t *>c.out.buf + c.out.head, n)
        conn_sent(c, n)
        return 0

    cdef int open(self, uint32_t i) except -1:
        if self.conn(i) != NULL:
            return 0
        try:
            self.slots[i].id = self.engine.open(self.now, CONN_SOCKET, 0)
        except MemoryError:
            return 0
        self.slots[i].owner = self.core.conns[self.slots[i].id].watches.id
        self.forget(&self.slots[i])
        return 0

    cdef int settle(self) except -1:
        """What a transport does after each event, but for the output, which stays."""
        cdef Conn *c
        cdef uint32_t i
        cdef char *into
        cdef size_t room
        cdef int round
        self.fetch_effects()
        for round in range(16):
            c = next_runnable(self.core)
            if c == NULL:
                break
            i = self.slot_of(c)
            into = engine_rx_space(c, &room)
            if i == SLOTS and c.kind == CONN_SOCKET:
                raise Wrong("a socket that nobody has opened")
            self.handle(c, &self.slots[i], into, 0)
        while next_dirty(self.core) != NULL:
            pass
        for i in range(SOCKETS):
            c = self.conn(i)
            if c != NULL and c.closing:
                self.close(&self.slots[i])
        return 0

    cdef int64_t fetch_effects(self) except -1:
        """Takes what the engine wants; the number of the last ring it wants released, or 0."""
        cdef int64_t released = 0
        while True:
            effect = self.engine.next_effect()
            if effect is None:
                return released
            if effect[1] in ("domain", "introduce", "control"):
                self.effects.append(effect)
            elif effect[1] == "release":
                released = effect[0]

    cdef int complete(self, size_t which, str error) except -1:
        cdef uint32_t domid, i
        if not self.effects:
            return 0
        number, kind, conn, args = self.effects.pop(which % len(self.effects))
        self.engine.complete(self.now, number, error, b"OK\0")
        # A ring that was mapped in vain is released under the same number.
        if kind == "introduce" and not error and self.fetch_effects() != number:
            domid = args[0]
            for i in range(SOCKETS, SLOTS): # its ring has begun anew
                if GUESTS[i - SOCKETS] == domid and self.slots[i].owner != 0:
                    self.forget(&self.slots[i])
        return 0

    # -- the program

    cdef int request(self) except -1:
        cdef uint32_t i = self.byte() % SLOTS
        cdef Conn *c = self.conn(i)
        cdef uint32_t last = 0 if c == NULL else c.last_tx
        cdef bytes text
        cdef size_t used
        self.slots[i].req_id += 1
        text = message(self.at[:min(40, self.end - self.at)], self.slots[i].req_id, last, &used)
        self.at += used
        return self.receive(i, text, len(text))

    cdef int ask(self, uint32_t i, uint32_t type, bint within, bytes payload) except -1:
        """A good request, in the last transaction of its connection if wanted."""
        cdef Conn *c = self.conn(i)
        cdef uint32_t[4] head
        cdef bytes text
        if c == NULL:
            return 0
        self.slots[i].req_id += 1
        head[0] = type
        head[1] = self.slots[i].req_id
        head[2] = c.last_tx if within else 0
        head[3] = <uint32_t>len(payload)
        text = (<const char *>head)[:XS_HEADER_SIZE] + payload
        return self.receive(i, text, len(text))

    cdef int story(self) except -1:
        """A transaction that looks at something, which another connection changes meanwhile."""
        cdef uint8_t who = self.byte(), what = self.byte(), where = self.byte()
        cdef uint32_t i = who % SLOTS
        cdef bytes seen = SHARED[where % len(SHARED)], own = SHARED[(where >> 4) % len(SHARED)]
        self.ask(i, 6, False, b"\0")
        self.settle()
        self.ask(i, (2, 1, 3, 11)[what & 3], True, seen + b"\0")
        if what & 4:
            self.ask(i, (11, 12, 13, 11)[what >> 6], True, own + b"\0")
        if what & 8:
            self.settle()
        self.ask((who >> 4) % SLOTS, (11, 12, 13, 11)[what >> 4 & 3], False, seen + b"\0other")
        self.settle()
        if who & 8:
            self.ask(i, 7, True, b"T\0")
        return 0

    cdef int raw(self) except -1:
        cdef uint32_t i = self.byte() % SLOTS
        cdef size_t n = self.byte()
        n = min(n, <size_t>(self.end - self.at))
        self.at += n
        return self.receive(i, self.at - n, n)

    cdef int middle(self) except -1:
        """Checks everything, once: often, that would be most of the work."""
        if not self.checked:
            self.checked = True
            self.engine.fail_allocation(0)
            self.engine.check()
        return 0

    cdef int event(self) except -1:
        cdef uint8_t what = self.byte() & 31
        cdef uint8_t a
        cdef Conn *c
        cdef uint32_t i
        if what < 14:
            self.request()
        elif what < 17:
            self.story()
        elif what < 19:
            self.raw()
        elif what < 21:
            i = self.byte() % SLOTS
            a = self.byte()
            c = self.conn(i)
            if c != NULL:
                self.take(&self.slots[i], c, a if a else 1 << 30)
        elif what < 23:
            self.now += DELAYS[self.byte() & 7]
            self.engine.tick(self.now)
        elif what < 26:
            a = self.byte()
            self.complete(a >> 3, ERRORS[(a & 7) % len(ERRORS)])
        elif what == 26:
            a = self.byte()
            i = GUESTS[a & 3]
            if a & 4:
                self.engine.domain_died(self.now, i)
            elif a & 8:
                self.engine.domain_shutdown(self.now, i)
            else:
                try:
                    self.engine.introduce(self.now, i)
                except MemoryError:
                    return 0
                if self.conn(SOCKETS + (a & 3)) != NULL:
                    self.forget(&self.slots[SOCKETS + (a & 3)])
        elif what == 27:
            a = self.byte()
            i = a % SOCKETS
            if a & 4 and self.conn(i) != NULL:
                self.close(&self.slots[i])
            else:
                self.open(i)
        elif what == 28:
            a = self.byte()
            self.engine.fail_allocation(a & 31, a & 0x80)
        elif what == 29:
            a = self.byte()
            self.engine.set_quota(QUOTAS[a % len(QUOTAS)], self.byte())
        elif what == 30:
            a = self.byte()
            self.engine.configure(**SWITCHES[a % len(SWITCHES)])
        else:
            a = self.byte()
            if a & 1:
                self.middle()
            else:
                self.budget = 1 if a & 2 else BUDGET
        return 0

    cdef int world(self) except -1:
        """A socket, and two guests with a home of their own."""
        cdef uint32_t i
        cdef bytes text
        self.open(0)
        for i in range(2):
            self.engine.introduce(0, GUESTS[i])
            for type, text in ((12, b"/local/domain/%d\0"), (14, b"/local/domain/%d\0n%d\0b1\0b2\0")):
                text = text.replace(b"%d", b"%d" % GUESTS[i])
                text = type.to_bytes(4, "little") + bytes(8) + len(text).to_bytes(4, "little") + text
                self.receive(0, text, len(text))
        self.settle()
        return 0

    cdef int rest(self) except -1:
        """Lets everything come to an end: nothing fails, all is fetched, time passes."""
        cdef uint32_t i
        cdef Conn *c
        cdef int round
        cdef bint busy = True
        self.engine.fail_allocation(0)
        self.engine.configure(quota=False, write_rate=False)
        self.budget = BUDGET
        for round in range(ROUNDS):
            if not busy and not self.effects:
                break
            busy = False
            self.settle()
            while self.effects:
                self.complete(0, "")
            self.now += 10_000_000_000
            self.engine.tick(self.now)
            self.settle()
            for i in range(SLOTS):
                c = self.conn(i)
                if c != NULL:
                    busy = busy or not c.ignored and (c.paused or xs_outq_bytes(&c.out) > 0)
                    self.take(&self.slots[i], c, 1 << 30)
        for i in range(SLOTS):
            c = self.conn(i)
            if c != NULL and not self.slots[i].lost and self.slots[i].count > 0:
                raise Wrong(f"{self.slots[i].count} requests of connection {c.id} without an "
                            f"answer, the first of type {self.slots[i].asked[self.slots[i].first].type}")
        return 0

    cdef int finish(self) except -1:
        """Everybody goes; nothing may stay."""
        cdef size_t i
        cdef Domain *d
        cdef list domids = []
        for i in range(self.core.conn_cap):
            if self.core.conns[i] != NULL and self.core.conns[i].domid == 0:
                self.engine.close(self.now, i)
        d = self.core.domain_list
        while d != NULL:
            domids.append(d.domid)
            d = d.next
        for domid in domids:
            self.engine.domain_died(self.now, domid)
            if self.engine.account(domid) != (0, 0):
                raise Wrong(f"domain {domid} has gone and holds {self.engine.account(domid)}")
        self.settle()
        if self.core.conn_count != 0 or self.core.watches.watch_count != 0 or self.core.open_tx:
            raise Wrong("all have gone and something is left")
        return 0

    cdef uint64_t run(self, const uint8_t *data, size_t size, bint hashed) except? 1:
        cdef int i
        self.engine = Engine(seed=size)
        self.core = self.engine.core
        self.at = data
        self.end = data + size
        self.now = 0
        self.digest = 0
        self.budget = BUDGET
        self.checked = False
        self.effects = []
        memset(self.slots, 0, (SLOTS + 1) * sizeof(Slot))
        self.slots[SLOTS].lost = True
        self.world()
        for i in range(EVENTS):
            if self.at == self.end:
                break
            self.event()
            self.settle()
        self.rest()
        if size % 4 == 0: # of a short program it would be a third of the work
            self.engine.check()
        if hashed:
            self.digest ^= self.engine.state_hash()
        self.finish()
        self.engine = None
        return self.digest


cdef Program program = Program()


cdef int one(const uint8_t *data, size_t size) except -1:
    cdef uint64_t first
    first = program.run(data, size, size % 64 == 0)
    if size % 64 == 0 and program.run(data, size, True) != first:
        raise Wrong("the same events have given other bytes")
    return 0


address = <size_t>&one
"""Of ``int one(const uint8_t *data, size_t size)``, which returns -1 with an exception set."""


def run(bytes data):
    """Runs one input. Raises what the engine raises, and :class:`Wrong`."""
    one(data, len(data))
