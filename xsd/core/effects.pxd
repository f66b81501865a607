from libc.stdint cimport int64_t, uint32_t, uint64_t

from xsd.core.types cimport Conn, Core, Effect

cdef Effect *effect_push(Core *core, uint32_t kind, Conn *c, uint32_t domid, const char *data,
                         size_t len) noexcept nogil
cdef void effect_notice(Core *core, uint32_t domid, const char *quota, bint over) noexcept nogil
cdef void effect_log(Core *core, bint debug, const char *format, int64_t a, int64_t b,
                     int64_t c) noexcept nogil
cdef Effect *effect_next(Core *core) noexcept nogil
cdef Effect *effect_find(Core *core, uint64_t id) noexcept nogil
cdef void effect_turn(Effect *e, uint32_t kind) noexcept nogil
cdef void effect_remove(Core *core, Effect *e) noexcept nogil
cdef void effects_forget(Core *core, Conn *c) noexcept nogil
cdef void effects_free(Core *core) noexcept nogil
