from libc.stdint cimport uint32_t

from xsd.core.types cimport Core, Domain

cdef Domain *domain_get(Core *core, uint32_t domid) noexcept nogil
cdef void domain_found(Core *core, Domain *d) noexcept nogil
cdef void domain_forget(Core *core, Domain *d) noexcept nogil
cdef void domain_tidy(Core *core, uint32_t domid) noexcept nogil
