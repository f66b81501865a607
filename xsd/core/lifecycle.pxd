from libc.stdint cimport uint32_t

from xsd.core.cxs cimport xs_header
from xsd.core.types cimport Conn, Core, Effect

cdef int domain_exists(Conn *c, uint32_t domid) noexcept nogil
cdef int introduce(Core *core, Conn *requester, uint32_t domid) noexcept nogil
cdef void complete_domain(Core *core, Conn *c, const Effect *e, int error) noexcept nogil
cdef void complete_introduce(Core *core, Conn *c, Effect *e, int error) noexcept nogil
cdef void domain_died(Core *core, uint32_t domid) noexcept nogil
cdef bint domain_was_shut_down(Core *core, uint32_t domid) noexcept nogil
cdef void deaths_retry(Core *core) noexcept nogil

cdef int op_introduce(Conn *c, const xs_header *h, const char *p) noexcept nogil
cdef int op_release(Conn *c, const xs_header *h, const char *p) noexcept nogil
cdef int op_resume(Conn *c, const xs_header *h, const char *p) noexcept nogil
cdef int op_set_target(Conn *c, const xs_header *h, const char *p) noexcept nogil
cdef int op_is_introduced(Conn *c, const xs_header *h, const char *p) noexcept nogil
cdef int op_get_domain_path(Conn *c, const xs_header *h, const char *p) noexcept nogil
cdef int op_get_feature(Conn *c, const xs_header *h, const char *p,
                        uint32_t strings) noexcept nogil
cdef int op_set_feature(Conn *c, const xs_header *h, const char *p) noexcept nogil
cdef int op_get_quota(Conn *c, const xs_header *h, const char *p,
                      uint32_t strings) noexcept nogil
cdef int op_set_quota(Conn *c, const xs_header *h, const char *p,
                      uint32_t strings) noexcept nogil
cdef int op_control(Conn *c, const xs_header *h, const char *p) noexcept nogil
