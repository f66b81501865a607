from libc.stdint cimport int64_t, uint32_t

from xsd.core.cxs cimport xs_header, xs_perms
from xsd.core.types cimport Conn, Core

# The engine's events without Python, for io.
cdef char *engine_rx_space(Conn *c, size_t *room) noexcept nogil
cdef int engine_received(Conn *c, int64_t now, size_t n, int budget) noexcept nogil

cdef class Engine:
    cdef Core *core
    cdef Conn *conn(self, uint32_t id) except NULL
    cdef int plant(self) except -1
    cdef int grow(self, bytes path, xs_perms *perms) except -1
    cdef int recount(self) except -1
    cdef int answer(self, Conn *c, int rc, bytes data) except -1
