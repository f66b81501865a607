from libc.stdint cimport int64_t, uint32_t

from xsd.core.cxs cimport xs_header, xs_node, xs_oplog, xs_path, xs_perms
from xsd.core.types cimport Conn, Core

cdef void events_begin(Core *core) noexcept nogil
cdef int events_for_path(Core *core, const xs_path *path, const char *text,
                         const xs_perms *own, const xs_perms *parent,
                         const xs_perms *before, const Conn *skip) noexcept nogil
cdef int events_below(Core *core, xs_node *old, const xs_path *path,
                      const Conn *skip) noexcept nogil
cdef int events_for_log(Core *core, xs_node *old, xs_node *fresh, const xs_oplog *log,
                        const Conn *skip) noexcept nogil
cdef int events_special(Core *core, xs_node *top, const char *name, int64_t domid,
                        const Conn *skip) noexcept nogil
cdef void events_publish(Core *core, Conn *requester) noexcept nogil
cdef void events_abort(Core *core) noexcept nogil

cdef int op_watch(Conn *c, const xs_header *h, const char *p, uint32_t strings) noexcept nogil
cdef int op_unwatch(Conn *c, const xs_header *h, const char *p) noexcept nogil
cdef int op_reset_watches(Conn *c, const xs_header *h) noexcept nogil
cdef int64_t events_expire(Core *core) noexcept nogil
