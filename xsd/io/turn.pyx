# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""What follows from input, once a turn of the loop: for everybody but who sent it.

    input on a connection ──> engine ──> its own output, at once
                                │
                                └──> settle, once a turn: effects, paused connections that may
                                     go on, output for others, the next deadline

Sockets and rings are transports: they bring input to the engine themselves, and are told here
which of their connections may go on and which have output.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from xsd.core.connection cimport next_dirty, next_runnable
from xsd.core.effects cimport effect_next
from xsd.core.engine cimport Engine
from xsd.core.types cimport CONN_RING, Conn


cdef class Transport:
    """What carries the bytes of some connections."""

    cdef bint ready(self, uint64_t key, uint32_t events, int64_t now) noexcept nogil:
        """A descriptor is ready that `Poll` watches for us; True: `attend` must be called."""
        return False

    cdef attend(self):
        """What `ready` left to be done with the interpreter, after all that were ready."""

    cdef resume(self, Conn *c):
        """A connection that had to wait may go on."""

    cdef write(self, Conn *c):
        """A connection has got output that it did not ask for just now."""

    cdef settled(self):
        """All that could go on has gone on."""


cdef class Turn:
    """Has everything that others caused take effect, once a turn of the loop.

    ``effects`` is called to carry out what the engine asks for, ``settled`` at the end.
    """

    def __init__(self, Engine engine, loop, effects, settled=None):
        self.engine = engine
        self.loop = loop
        self.effects = effects
        self.end = settled
        self.frozen = -1
        self.due = INT64_MAX

    def set_time(self, int64_t now):
        """Time is what it is told to be from now on, in nanoseconds: for a simulation."""
        self.frozen = now

    cdef int64_t now(self) noexcept nogil:
        cdef timespec t
        if self.frozen >= 0:
            return self.frozen
        clock_gettime(CLOCK_MONOTONIC, &t)
        return <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec

    def settle(self):
        """Has whatever the engine was told take effect soon."""
        if not self.scheduled:
            self.scheduled = True
            if not self.attended:
                self.soon()

    cdef soon(self):
        """One call by the loop is waiting at most, whoever settles before it comes."""
        if not self.called:
            self.called = True
            self.loop.call_soon(self._called)

    def _called(self):
        self.called = False
        if self.scheduled:
            self._settle()

    cdef attend(self):
        """Until `release`, whoever calls sees itself that what is scheduled happens."""
        self.attended = True

    cdef release(self):
        """The loop does it again."""
        self.attended = False
        if self.scheduled:
            self.soon()

    def stop(self):
        """Asks for no more time, and leaves the loop."""
        if self.poll is not None:
            self.poll.shut()
        self.disarm()

    cdef disarm(self):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.due = INT64_MAX

    def _settle(self):
        self.scheduled = False
        self.effects()
        self.run_paused()
        self.write_dirty()
        if self.sockets is not None:
            self.sockets.settled()
        self.arm()
        if effect_next(self.engine.core) != NULL:
            self.settle()
        if self.end is not None:
            self.end()

    cdef Transport of(self, Conn *c):
        return self.rings if c.kind == CONN_RING else self.sockets

    cdef run_paused(self):
        """Lets those go on who had to wait, each with one budget of requests."""
        cdef Conn *c
        cdef Conn *last = self.engine.core.run_last
        cdef Transport transport
        cdef size_t i
        for i in range(self.engine.core.conn_count): # also when the last is closed meanwhile
            c = next_runnable(self.engine.core)
            if c == NULL:
                return
            done = c == last
            transport = self.of(c)
            if transport is not None:
                transport.resume(c)
            if done:
                return

    cdef write_dirty(self):
        """Writes to those who have got output from requests of others."""
        cdef Conn *c
        cdef Transport transport
        while True:
            c = next_dirty(self.engine.core)
            if c == NULL:
                return
            transport = self.of(c)
            if transport is not None:
                transport.write(c)

    cdef arm(self):
        """Asks the engine when it wants to be called again, and sees to it."""
        cdef int64_t now = self.now()
        deadline = self.engine.tick(now)
        if self.engine.core.run_first != NULL or self.engine.core.dirty_first != NULL:
            self.settle()
        if deadline is None:
            self.disarm()
        elif deadline < self.due: # one that comes too early finds out that it has
            self.disarm()
            self.due = deadline
            self.timer = self.loop.call_later(max(0, deadline - now) / 1e9, self._tick)

    def _tick(self):
        self.timer = None
        self.due = INT64_MAX
        self.settle()
