from libc.stdint cimport int64_t

from xsd.core.cxs cimport xs_tally
from xsd.core.types cimport Conn, Core, Domain

cdef int quota_find(const char *name, size_t n, bint *soft) noexcept nogil
cdef const char *quota_name(int index) noexcept nogil
cdef size_t quota_list(char *out) noexcept nogil

# Whether a domain may have `value` of something; 0 means unlimited.
cdef inline bint quota_allows(const Domain *d, int index, int64_t value) noexcept nogil:
    return d.hard[index] == 0 or value <= d.hard[index]

cdef inline bint quota_applies(const Conn *c) noexcept nogil:
    """Only guests are limited: sockets and the privileged domain are counted."""
    return c.kind != 0 and not c.privileged and c.core.quota_on

cdef int64_t quota_memory(const Domain *d) noexcept nogil
cdef void quota_note(Core *core, Domain *d, int index, int64_t value) noexcept nogil
cdef int quota_check_tally(Conn *c, const xs_tally *delta, size_t count) noexcept nogil
cdef int quota_prepare_tally(Core *core) noexcept nogil
cdef void quota_apply(Core *core, const xs_tally *tally, size_t count) noexcept nogil
