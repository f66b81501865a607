from libc.stdint cimport int64_t

from xsd.core.engine cimport Engine
from xsd.core.types cimport Conn

cdef class Transport:
    cdef resume(self, Conn *c)
    cdef write(self, Conn *c)
    cdef settled(self)

cdef class Turn:
    cdef Engine engine
    cdef object loop
    cdef object effects
    cdef object end
    cdef Transport sockets
    cdef Transport rings
    cdef bint scheduled
    cdef object timer
    cdef int64_t frozen
    cdef int64_t now(self) noexcept
    cdef Transport of(self, Conn *c)
    cdef run_paused(self)
    cdef write_dirty(self)
    cdef arm(self)
