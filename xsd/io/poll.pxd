from libc.stdint cimport int64_t, uint32_t, uint64_t

from xsd.io.turn cimport Turn

cdef extern from "sys/epoll.h" nogil:
    enum:
        EPOLLET
        EPOLLIN
        EPOLLOUT
    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data

cdef enum:
    POLL_LISTENER = 0xfffffffe # keys beside those of connections
    POLL_RINGS = 0xffffffff

# A descriptor in a set: 0, or -1 and errno.
cdef int poll_add(int epoll, int fd, uint64_t key, uint32_t events) noexcept nogil
cdef int poll_change(int epoll, int fd, uint64_t key, uint32_t events) noexcept nogil
cdef void poll_remove(int epoll, int fd) noexcept nogil

cdef class Poll:
    cdef Turn turn
    cdef int fd
    cdef int alarm
    cdef int64_t stay
    cdef int64_t served
    cdef readonly int64_t wakeups
    cdef readonly int64_t rounds
    cdef run(self, int64_t until)
    cdef int wait(self, int64_t until, bint block) noexcept nogil
    cdef int serve(self, const epoll_event *events, int n, int64_t now) noexcept nogil
    cdef void ring(self, int64_t when) noexcept nogil
