from libc.stdint cimport int64_t

from xsd.core.types cimport Conn, Core, Domain

cdef void write_rate_join(Core *core, Domain *d) noexcept nogil
cdef void write_rate_leave(Core *core, Domain *d) noexcept nogil
cdef void write_rate_charge(Conn *c, int64_t units) noexcept nogil
cdef bint write_rate_waits(Conn *c) noexcept nogil
cdef int64_t write_rate_tick(Core *core) noexcept nogil
