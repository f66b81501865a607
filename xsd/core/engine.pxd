from libc.stdint cimport uint32_t

from xsd.core.cxs cimport xs_perms
from xsd.core.types cimport Conn, Core

cdef class Engine:
    cdef Core *core
    cdef Conn *conn(self, uint32_t id) except NULL
    cdef int plant(self) except -1
    cdef int grow(self, bytes path, xs_perms *perms) except -1
    cdef int recount(self) except -1
    cdef int answer(self, Conn *c, int rc, bytes data) except -1
