from libc.stdint cimport int64_t, uint32_t, uint64_t

from xsd.core.engine cimport Engine
from xsd.core.types cimport Conn

cdef class Transport:
    cdef bint ready(self, uint64_t key, uint32_t events, int64_t now) noexcept nogil
    cdef attend(self)
    cdef resume(self, Conn *c)
    cdef write(self, Conn *c)
    cdef settled(self)

cdef class Turn:
    cdef Engine engine
    cdef object loop
    cdef object effects
    cdef object end
    cdef object poll
    cdef Transport sockets
    cdef Transport rings
    cdef bint scheduled
    cdef bint attended
    cdef bint called     # by the loop, soon
    cdef object timer
    cdef int64_t due
    cdef int64_t frozen
    cdef int64_t now(self) noexcept nogil
    cdef attend(self)
    cdef release(self)
    cdef soon(self)
    cdef disarm(self)
    cdef Transport of(self, Conn *c)
    cdef run_paused(self)
    cdef write_dirty(self)
    cdef arm(self)
