# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""All descriptors of sockets and rings in one set, which the loop watches as one descriptor.

    the loop: something in the set is ready
        └──> take up to 64 events ──> each: its transport, without the interpreter
             │                   └──> what needs it, and what follows for others
             └──< stay for more, as long as they come quickly

A callback of the loop costs several times what a request does, so there is one for all who are
ready, not one for each. While requests come fast it does not even return in between, but waits
for the next itself, and for the deadline of the turn. The loop has signals, timers and calls
from other threads to see to: it gets its turn after a stay of at most some milliseconds, and at
once when a signal interrupts.

Descriptors are watched level-triggered: what is left unread, because a connection had its
budget of requests, is simply ready again, behind all others that are.
"""

import os

from libc.errno cimport errno as c_errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int how, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout_ms)

cdef extern from "sys/timerfd.h" nogil:
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
        TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *when, itimerspec *before)

cdef extern from "time.h" nogil:
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    struct itimerspec:
        timespec it_interval
        timespec it_value

cdef extern from "unistd.h" nogil:
    int c_close "close"(int fd)
    ssize_t read(int fd, void *buf, size_t n)

cdef enum:
    EVENTS = 64              # taken at once: rings wait for no more sockets than that
    LEAVE = 1                # the loop is to have its turn
    ATTEND = 2               # the interpreter is needed
    BUSY_NS = 1_000_000      # who was needed so short ago is likely to be needed again soon
    STAY_NS = 5_000_000      # how long the loop waits at most

cdef uint64_t ALARM = 0xffffffffffffffff


cdef int control(int epoll, int how, int fd, uint64_t key, uint32_t events) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = key
    return epoll_ctl(epoll, how, fd, &event)


cdef int poll_add(int epoll, int fd, uint64_t key, uint32_t events) noexcept nogil:
    """0, or -1 and errno."""
    return control(epoll, EPOLL_CTL_ADD, fd, key, events)


cdef int poll_change(int epoll, int fd, uint64_t key, uint32_t events) noexcept nogil:
    """0, or -1 and errno."""
    return control(epoll, EPOLL_CTL_MOD, fd, key, events)


cdef void poll_remove(int epoll, int fd) noexcept nogil:
    control(epoll, EPOLL_CTL_DEL, fd, 0, 0)


cdef class Poll:
    """The set of a turn's transports; made by whoever needs it first.

    ``stay_ns``: how long the loop may have to wait while requests come fast; 0: not at all.
    Raises OSError.
    """

    def __cinit__(self):
        self.fd = self.alarm = -1

    def __init__(self, Turn turn, int64_t stay_ns=STAY_NS):
        self.turn = turn
        self.stay = stay_ns
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        self.alarm = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0 or self.alarm < 0 or poll_add(self.fd, self.alarm, ALARM, EPOLLIN) != 0:
            raise OSError(c_errno, os.strerror(c_errno))
        turn.poll = self
        turn.loop.add_reader(self.fd, self._ready)

    def __dealloc__(self):
        if self.alarm >= 0:
            c_close(self.alarm)
        if self.fd >= 0:
            c_close(self.fd)

    def shut(self):
        """Serves nobody any more."""
        self.turn.loop.remove_reader(self.fd)

    def _ready(self):
        cdef int64_t now = self.turn.now()
        self.wakeups += 1
        self.turn.attend()
        try:
            self.run(now + self.stay if now - self.served < BUSY_NS else now)
        finally:
            self.served = self.turn.now()
            self.turn.release()

    cdef run(self, int64_t until):
        """Serves who is ready, and until then those who become ready."""
        cdef int found = 0
        cdef bint first = True
        while not found & LEAVE:
            with nogil:
                found = self.wait(until, not first and not self.turn.scheduled)
            if found & ATTEND:
                if self.turn.sockets is not None:
                    self.turn.sockets.attend()
                if self.turn.rings is not None:
                    self.turn.rings.attend()
            if self.turn.scheduled:
                self.turn._settle()
            if not found & LEAVE and (first or self.turn.due < until):
                until = min(until, self.turn.due)
                self.ring(until)
            first = False

    cdef int wait(self, int64_t until, bint block) noexcept nogil:
        """Takes events until something else must be done. ATTEND, LEAVE."""
        cdef epoll_event[EVENTS] events
        cdef int64_t now
        cdef int n, found
        while True:
            n = epoll_wait(self.fd, events, EVENTS, -1 if block else 0)
            if n < 0:
                return LEAVE
            now = self.turn.now()
            found = self.serve(events, n, now)
            if now >= until:
                found |= LEAVE
            if found or not block:
                return found

    cdef int serve(self, const epoll_event *events, int n, int64_t now) noexcept nogil:
        """Serves the owners of these events."""
        cdef uint64_t expired, key
        cdef int i, found = 0
        self.rounds += 1
        for i in range(n):
            key = events[i].data.u64
            if key == ALARM:
                read(self.alarm, &expired, sizeof(expired))
                found |= LEAVE
            elif key == POLL_RINGS:
                if self.turn.rings.ready(key, events[i].events, now):
                    found |= ATTEND
            elif self.turn.sockets.ready(key, events[i].events, now):
                found |= ATTEND
        return found

    cdef void ring(self, int64_t when) noexcept nogil:
        """The alarm rings then: a stay ends, whether something happens or not."""
        cdef itimerspec at
        at.it_interval.tv_sec = at.it_interval.tv_nsec = 0
        at.it_value.tv_sec = when // 1_000_000_000
        at.it_value.tv_nsec = when % 1_000_000_000
        timerfd_settime(self.alarm, TFD_TIMER_ABSTIME, &at, NULL)
