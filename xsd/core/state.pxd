from libc.stdint cimport uint64_t

from xsd.core.types cimport Core

cdef int state_hash(Core *core, uint64_t *out) noexcept nogil
cdef const char *state_check(Core *core) noexcept nogil
