# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Fuzz target: pages of hostile domains, served by the code that serves rings in the daemon.

Domains 1 and 2 do with their pages what the input says, between two turns of the daemon and, at
every place where ring.c looks at shared memory, in the middle of one. Domain 3 is a neighbour
that behaves: what it asks for must be answered at once and exactly, nothing else may ever stand
in its page. A privileged client on a socket introduces and releases the hostile ones, which also
die and shut down; mapping a ring may fail.

Each byte of the input names an event, the bytes behind it its arguments:

    word      one of the eight words gets a value: near, far, any
    bytes     any place of the page is overwritten
    message   a request is put into the ring as the protocol wants it
    fetch     the domain takes some of its replies
    between   the next change of a word happens while the daemon is at work
    kick      events on one or several ports
    turn      what the loop would do next; scan; time
    afresh    the domain asks to reconnect
    manage    introduced, released, died, shut down
    fail      an allocation fails
    neighbour writes, reads back, and looks at its page

The bytes of a page that mean nothing, and those around it, are poisoned.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from xsd.core.cxs cimport XS_HEADER_SIZE, xs_ring_page
from xsd.core.engine cimport Engine
from xsd.core.types cimport Conn, Core

from fuzz_requests import Wrong, described

from xsd.core.engine import SOCKET
from xsd.daemon.domains import Domains
from xsd.io.rings import Rings
from xsd.io.turn import Turn
from xsd.xen.api import HostError, Ring

cdef extern from "sanitizer/asan_interface.h" nogil:
    void ASAN_POISON_MEMORY_REGION(const void *at, size_t n)
    void ASAN_UNPOISON_MEMORY_REGION(const void *at, size_t n)

cdef extern from "ring.h" nogil:
    enum:
        XS_RING_SIZE

cdef enum:
    PAGE = 4096
    USED = 2080          # bytes of a page that mean something
    WORDS = 2048         # where its eight words stand
    HOSTILE = 2          # domains 1 and 2
    NEIGHBOUR = 3
    DOMAINS = 4
    CHANGES = 8          # in the middle of one serve
    EVENTS = 300
    TURNS = 40           # of the loop, within which all is done that can be

cdef enum:               # words
    REQ_CONS
    REQ_PROD
    RSP_CONS
    RSP_PROD
    FEATURES
    STATE
    ERROR
    PORT


# ---- the pages, and who changes them while they are looked at ---------------------------

cdef struct Change:
    uint32_t after       # places passed before it happens
    uint32_t domid
    uint32_t word
    uint32_t value
    bint add

cdef uint32_t *pages[DOMAINS]
cdef Change[CHANGES] changes
cdef size_t change_count


cdef uint32_t *word(uint32_t domid, uint32_t i) noexcept nogil:
    return pages[domid] + WORDS // 4 + i


cdef void between_loads(int place) noexcept nogil:
    """Called by ring.c; makes the changes whose time has come."""
    global change_count
    cdef size_t i = 0
    cdef Change *c
    while i < change_count:
        c = &changes[i]
        if c.after > 0:
            c.after -= 1
            i += 1
            continue
        if pages[c.domid] != NULL:
            if c.add:
                word(c.domid, c.word)[0] += c.value
            else:
                word(c.domid, c.word)[0] = c.value
        change_count -= 1
        changes[i] = changes[change_count]


cdef void unmap(uint32_t domid) noexcept:
    if pages[domid] != NULL:
        ASAN_UNPOISON_MEMORY_REGION(pages[domid], PAGE)
        free(pages[domid])
        pages[domid] = NULL


# ---- the world of a daemon --------------------------------------------------------------

class Loop:
    """An event loop that runs when it is told to; timers are the business of who tells it."""

    def __init__(self):
        self.ready = []

    def call_soon(self, function):
        self.ready.append(function)

    def call_later(self, seconds, function):
        return self

    def cancel(self):
        pass

    def run(self):
        for _ in range(TURNS):
            if not self.ready:
                return
            ready, self.ready = self.ready, []
            for function in ready:
                function()


class Host:
    """A hypervisor of three domains; what it is asked for fails when it is told to."""

    def __init__(self):
        self.ports = {}
        self.last = 0
        self.failing = False

    def introduce(self, uint32_t domid, gfn, port):
        if domid >= DOMAINS or domid == 0:
            raise HostError("ENOENT", "no such domain")
        self.ports.pop(domid, None)
        if self.failing:
            raise HostError("EIO", "as told")
        if pages[domid] == NULL:
            pages[domid] = <uint32_t *>malloc(PAGE)
            if pages[domid] == NULL:
                raise MemoryError
            memset(pages[domid], 0, PAGE)
            ASAN_POISON_MEMORY_REGION(<char *>pages[domid] + USED, PAGE - USED)
        self.last = self.last % 60 + 1
        while self.last in self.ports.values():
            self.last = self.last % 60 + 1
        self.ports[domid] = self.last
        return Ring(<size_t>pages[domid], self.last)

    def release(self, uint32_t domid):
        self.ports.pop(domid, None)
        if domid < DOMAINS:
            unmap(domid)

    def exists(self, domid):
        return domid < DOMAINS


cdef class World:
    cdef Engine engine
    cdef object turn, rings, loop, host, domains
    cdef const uint8_t *at
    cdef const uint8_t *end
    cdef int64_t now
    cdef uint32_t socket, req_id
    cdef list others
    cdef bint checked    # in the middle

    # One byte of input, 0 behind its end.
    cdef uint8_t byte(self) noexcept:
        if self.at == self.end:
            return 0
        self.at += 1
        return (self.at - 1)[0]

    cdef uint32_t number(self) noexcept:
        """0 to 255, or more by its own choice."""
        cdef uint32_t a = self.byte()
        if a < 0xf0:
            return a
        if a < 0xf8:
            return (a & 7) << 8 | self.byte()
        if a < 0xfc:
            return -<uint32_t>self.byte()
        a = self.byte()
        return a << 24 | self.byte() << 8

    # -- the daemon's side

    def effects(self):
        """What the daemon does about effects, as far as it matters to rings."""
        while (effect := self.engine.next_effect()) is not None:
            number, kind, conn, args = effect
            if kind == "introduce":
                try:
                    self.domains.introduce(number, *args)
                except HostError as failure:
                    self.engine.complete(self.now, number, failure.errno)
            elif kind == "release":
                self.domains.release(*args)
            elif kind == "domain":
                self.engine.complete(
                    self.now, number, "" if self.host.exists(*args) else "ENOENT")
            elif kind == "control":
                self.engine.complete(self.now, number, "", b"OK\0")

    def clock(self):
        return self.now

    cdef bytes step(self):
        """All that the loop has to do now; what the privileged client gets by it."""
        global change_count
        self.turn.settle()
        self.loop.run()
        if self.engine.feed(self.now, self.socket, b"") & 16:
            raise Wrong("a socket that has done nothing must be closed")
        change_count = 0
        return self.engine.take(self.socket)

    cdef bytes manage(self, uint32_t type, bytes payload):
        """The privileged client asks for something; what it is answered."""
        self.req_id += 1
        self.engine.feed(self.now, self.socket, type.to_bytes(4, "little")
                         + self.req_id.to_bytes(4, "little") + bytes(4)
                         + len(payload).to_bytes(4, "little") + payload)
        return self.step()

    # -- the domains' side

    cdef int put(self, uint32_t domid, bytes data) except -1:
        """Puts as much of a message into the ring as there is room for; how much."""
        cdef uint32_t prod = word(domid, REQ_PROD)[0]
        cdef uint32_t room = XS_RING_SIZE - (prod - word(domid, REQ_CONS)[0])
        cdef uint32_t i, n = <uint32_t>len(data)
        cdef const uint8_t *from_ = data
        if room > XS_RING_SIZE:
            return 0
        n = min(n, room)
        for i in range(n):
            (<uint8_t *>pages[domid])[(prod + i) % XS_RING_SIZE] = from_[i]
        word(domid, REQ_PROD)[0] = prod + n
        return <int>n

    cdef bytes fetch(self, uint32_t domid):
        cdef uint32_t cons = word(domid, RSP_CONS)[0]
        cdef uint32_t n = word(domid, RSP_PROD)[0] - cons, i
        cdef bytearray found = bytearray()
        if n > XS_RING_SIZE:
            raise Wrong(f"{n} bytes of replies")
        for i in range(n):
            found.append((<uint8_t *>pages[domid])[XS_RING_SIZE + (cons + i) % XS_RING_SIZE])
        word(domid, RSP_CONS)[0] = cons + n
        return bytes(found)

    cdef int kick(self, uint32_t port) except -1:
        self.rings.handle(port.to_bytes(4, "little"))
        return 0

    cdef bytes ask(self, uint32_t type, bytes payload):
        """The neighbour asks and is answered, for which it may have to wait a little."""
        cdef bytes head, reply = b""
        cdef int round
        cdef uint32_t req_id
        self.req_id += 1
        req_id = self.req_id
        head = (type.to_bytes(4, "little") + req_id.to_bytes(4, "little") + bytes(4)
                + len(payload).to_bytes(4, "little"))
        if self.put(NEIGHBOUR, head + payload) != len(head) + len(payload):
            raise Wrong("the neighbour's ring is full")
        self.kick(self.host.ports[NEIGHBOUR])
        for round in range(100):
            reply += self.fetch(NEIGHBOUR)
            if len(reply) >= XS_HEADER_SIZE:
                break
            self.now += 100_000_000 # it may have to wait for who has priority
            self.turn.set_time(self.now)
            self.step()
        if reply[:12] != head[:12] or len(reply) != XS_HEADER_SIZE + int.from_bytes(
                reply[12:16], "little"):
            raise Wrong(f"the neighbour asked {head!r} and got {reply!r}")
        return reply[XS_HEADER_SIZE:]

    cdef int neighbour(self) except -1:
        """It writes, and reads what it wrote; its page is as it must be."""
        global change_count
        cdef bytes value = b"%d" % self.req_id
        change_count = 0
        self.engine.fail_allocation(0)
        if self.ask(11, b"data\0" + value) != b"OK\0" or self.ask(2, b"data\0") != value:
            raise Wrong("the neighbour has not read what it wrote")
        if word(NEIGHBOUR, REQ_CONS)[0] != word(NEIGHBOUR, REQ_PROD)[0]:
            raise Wrong("the neighbour's requests have not been taken")
        if (word(NEIGHBOUR, FEATURES)[0], word(NEIGHBOUR, STATE)[0], word(NEIGHBOUR, ERROR)[0],
                word(NEIGHBOUR, PORT)[0]) != (15, 0, 0, 0):
            raise Wrong("words of the neighbour's page have changed")
        return 0

    cdef uint32_t last_tx(self, uint32_t domid) except? 0:
        """The transaction that the domain has begun last."""
        cdef int id = self.engine.domain_conn(domid)
        return 0 if id < 0 else self.engine.conn(id).last_tx

    # -- events

    cdef int change_word(self, uint32_t domid, bint later) except -1:
        global change_count
        cdef uint32_t what = self.byte()
        cdef Change c
        c.domid = domid
        c.word = what & 7
        c.add = what & 8 != 0
        c.value = self.number()
        c.after = (what >> 4) if later else 0
        if later:
            if change_count < CHANGES:
                changes[change_count] = c
                change_count += 1
        elif c.add:
            word(domid, c.word)[0] += c.value
        else:
            word(domid, c.word)[0] = c.value
        return 0

    cdef int event(self) except -1:
        cdef uint8_t what = self.byte()
        cdef uint32_t domid = 1 + (what >> 7), n, offset, i
        cdef bytes text
        cdef bint mapped = pages[domid] != NULL
        what &= 31
        if what < 9:
            if not mapped:
                return 0
            self.req_id += 1
            text, used = described(
                self.at[:min(40, self.end - self.at)], self.req_id, self.last_tx(domid))
            self.at += <size_t>used
            self.put(domid, text)
            if what < 7 and domid in self.host.ports:
                self.kick(self.host.ports[domid])
        elif what < 12:
            if mapped:
                self.change_word(domid, False)
        elif what < 15:
            self.change_word(domid, True)
        elif what == 15:
            offset = self.number() % USED
            n = self.byte() & 63
            n = min(n, <uint32_t>(self.end - self.at), USED - offset)
            if mapped:
                memcpy(<char *>pages[domid] + offset, self.at, n)
            self.at += n
        elif what == 16 or what == 17:
            if mapped:
                word(domid, RSP_CONS)[0] = word(domid, RSP_PROD)[0]
        elif what < 21:
            if domid in self.host.ports:
                self.kick(self.host.ports[domid])
        elif what == 21:
            n = self.byte() & 3
            text = b"".join([self.byte().to_bytes(4, "little") for i in range(n)])
            self.rings.handle(text)
        elif what == 22:
            self.step()
        elif what == 23:
            self.rings.scan()
            self.step()
        elif what == 24:
            self.now += <int64_t>self.number() * 10_000_000
            self.turn.set_time(self.now)
            self.step()
        elif what == 25:
            if mapped:
                word(domid, STATE)[0] = 1
                if domid in self.host.ports:
                    self.kick(self.host.ports[domid])
        elif what == 26:
            self.host.failing = self.byte() & 3 == 0
            self.manage(8, b"%d\x001\x00%d\0" % (domid, 1 + (self.byte() & 3)))
            self.host.failing = False
        elif what == 27:
            self.manage(9, b"%d\0" % domid)
        elif what == 28:
            n = self.byte()
            if n & 1:
                self.domains.domain_died(domid)
            else:
                self.domains.domain_shutdown(domid)
        elif what == 29:
            n = self.byte()
            self.engine.fail_allocation(n & 31, n & 0x80)
        elif what == 30:
            self.neighbour()
        elif not self.checked: # often, that would be most of the work
            self.checked = True
            self.engine.fail_allocation(0)
            self.engine.check()
        return 0

    cdef int begin(self, const uint8_t *data, size_t size) except -1:
        cdef uint32_t domid
        self.at = data
        self.end = data + size
        self.now = self.req_id = 0
        self.others = []
        self.checked = False
        self.engine = Engine(seed=1)
        self.loop = Loop()
        if self.turn is None:
            self.turn = Turn(self.engine, self.loop, self.effects)
            self.rings = Rings(self.turn, -1, 0, 0, self.others.append)
        else: # a table of all domids is not made anew for each input
            self.turn.__init__(self.engine, self.loop, self.effects)
            self.rings.__init__(self.turn, -1, 0, 0, self.others.append)
        self.turn.set_time(0)
        self.host = Host()
        self.domains = Domains(self.engine, self.host, self.clock)
        self.domains.rings = self.rings
        self.domains.changed = self.turn.settle
        self.socket = self.engine.open(0, SOCKET, 0)
        for domid in range(1, DOMAINS):
            for type, payload in ((12, b"/local/domain/%d\0"), (8, b"%d\x001\x001\0"),
                                  (14, b"/local/domain/%d\0n%d\0")):
                answer = self.manage(type, payload.replace(b"%d", b"%d" % domid))
                if not answer.endswith(b"OK\0"):
                    raise Wrong(f"{payload!r}: {answer!r}")
        self.neighbour()
        return 0

    cdef int run(self, const uint8_t *data, size_t size) except -1:
        global change_count
        cdef int i
        cdef uint32_t domid
        self.begin(data, size)
        for i in range(EVENTS):
            if self.at == self.end:
                break
            self.event()
        change_count = 0
        self.neighbour()
        self.step()
        if size % 4 == 0:
            self.engine.check()
        for domid in range(1, DOMAINS):
            self.domains.domain_died(domid)
        self.step()
        for domid in range(1, DOMAINS):
            if self.engine.account(domid) != (0, 0) or pages[domid] != NULL:
                raise Wrong(f"domain {domid} has gone and holds {self.engine.account(domid)}")
        if self.rings.count() != 0:
            raise Wrong(f"{self.rings.count()} rings of domains that have gone")
        self.rings.take_notified()
        return 0


cdef World world = World()


cdef int one(const uint8_t *data, size_t size) except -1:
    cdef uint32_t domid
    global world
    try:
        world.run(data, size)
    except:
        world = World()
        for domid in range(DOMAINS):
            unmap(domid)
        raise
    return 0


address = <size_t>&one
"""Of ``int one(const uint8_t *data, size_t size)``, which returns -1 with an exception set."""

between = <size_t>&between_loads
"""Of ``void between(int place)``, to be called wherever ring.c looks at shared memory."""


def run(bytes data):
    """Runs one input. Raises what the daemon's parts raise, and Wrong."""
    one(data, len(data))
