from libc.stdint cimport uint32_t

from xsd.core.cxs cimport xs_header, xs_outmsg
from xsd.core.types cimport Conn, Core

cdef Conn *conn_get(Core *core, uint32_t id) noexcept nogil
cdef Conn *conn_open(Core *core, uint32_t kind, uint32_t domid) noexcept nogil
cdef void conn_close(Conn *c) noexcept nogil
cdef void conn_reset(Conn *c) noexcept nogil
cdef void conn_give_up(Conn *c, uint32_t error) noexcept nogil
cdef void retry_later(Core *core) noexcept nogil
cdef void conn_owe(Conn *c, int rc) noexcept nogil
cdef void conn_pay(Conn *c) noexcept nogil
cdef void conn_reconnect(Conn *c) noexcept nogil
cdef void conn_reset_watches(Conn *c) noexcept nogil

cdef void mark_dirty(Conn *c) noexcept nogil
cdef Conn *next_dirty(Core *core) noexcept nogil
cdef bint conn_blocked(Conn *c) noexcept nogil
cdef void conn_wake(Conn *c) noexcept nogil
cdef Conn *next_runnable(Core *core) noexcept nogil

cdef int cause_begin(Conn *c) noexcept nogil
cdef void cause_end(Conn *c) noexcept nogil
cdef void message_gone(void *context, const xs_outmsg *msg) noexcept nogil

cdef int reply_room(Conn *c, size_t n) noexcept nogil
cdef char *reply_put(Conn *c, const xs_header *request, size_t n) noexcept nogil
cdef int reply(Conn *c, const xs_header *request, const char *data, size_t n) noexcept nogil
cdef void reply_ok(Conn *c, const xs_header *request) noexcept nogil
cdef void reply_error(Conn *c, const xs_header *request, int error) noexcept nogil
cdef int reply_number(Conn *c, const xs_header *request, uint32_t value) noexcept nogil

cdef int save_input(Conn *c, const char *data, size_t n) noexcept nogil
cdef void conn_sent(Conn *c, size_t n) noexcept nogil
