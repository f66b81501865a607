from libc.stdint cimport int64_t

from xsd.core.types cimport Core, Domain

cdef bint credit_paused(const Core *core, const Domain *d) noexcept nogil
cdef void credit_welcome(Core *core, Domain *d) noexcept nogil
cdef void credit_charge(Core *core, Domain *d) noexcept nogil
cdef void credit_forget(Core *core, Domain *d) noexcept nogil
cdef int64_t credit_tick(Core *core) noexcept nogil
cdef void credit_reset(Core *core) noexcept nogil
