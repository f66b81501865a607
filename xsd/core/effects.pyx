# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Effects: what the engine cannot do itself and asks Python for.

An effect goes out through next_effect(); a completion with its id comes back as an event.
Until then the connection waits and everybody else goes on. Effects that nobody waits for
(release a ring, tell the log) end when they are taken.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from xsd.core.cxs cimport xs_mem_alloc, xs_mem_free, xs_mem_zalloc
from xsd.core.types cimport Conn, Core, EFFECT_LOG, EFFECT_NOTICE, Effect

cdef enum:
    NOBODY = 0xffffffff


cdef Effect *effect_push(Core *core, uint32_t kind, Conn *c, uint32_t domid, const char *data,
                         size_t len) noexcept nogil:
    """Appends an effect; NULL when memory ran out."""
    cdef Effect *e = <Effect *>xs_mem_zalloc(&core.mem, NULL, sizeof(Effect))
    if e == NULL:
        return NULL
    if len > 0:
        e.data = <char *>xs_mem_alloc(&core.mem, NULL, len)
        if e.data == NULL:
            xs_mem_free(&core.mem, NULL, e, sizeof(Effect))
            return NULL
        memcpy(e.data, data, len)
        e.len = len
    core.effect_ids += 1
    e.id = core.effect_ids
    e.kind = kind
    e.conn = NOBODY if c == NULL else c.id
    e.domid = domid
    if core.effects_last == NULL:
        core.effects = e
    else:
        core.effects_last.next = e
    core.effects_last = e
    return e


cdef void effect_notice(Core *core, uint32_t domid, const char *quota, bint over) noexcept nogil:
    """Asks for a line in the log; lost when memory is short, which the counter survives."""
    cdef Effect *e = effect_push(core, EFFECT_NOTICE, NULL, domid, quota, strlen(quota))
    if e != NULL:
        e.gfn = over


cdef void effect_log(Core *core, bint debug, const char *format, int64_t a, int64_t b,
                     int64_t c) noexcept nogil:
    """Asks for a line in the log, of at most three figures. Details only when wanted."""
    cdef char[256] text
    cdef Effect *e
    cdef int n
    if debug and not core.log_debug:
        return
    n = snprintf(text, sizeof(text), format, <long long>a, <long long>b, <long long>c)
    e = effect_push(core, EFFECT_LOG, NULL, 0, text, <size_t>n)
    if e != NULL:
        e.gfn = debug


cdef Effect *effect_next(Core *core) noexcept nogil:
    """The oldest effect not taken yet, or NULL."""
    cdef Effect *e = core.effects
    while e != NULL and e.taken:
        e = e.next
    return e


cdef Effect *effect_find(Core *core, uint64_t id) noexcept nogil:
    cdef Effect *e = core.effects
    while e != NULL and e.id != id:
        e = e.next
    return e


cdef void effect_turn(Effect *e, uint32_t kind) noexcept nogil:
    """Makes of a completed effect a new one that nobody waits for. Needs no memory."""
    e.kind = kind
    e.conn = NOBODY
    e.taken = False


cdef void effect_remove(Core *core, Effect *e) noexcept nogil:
    cdef Effect *prev = NULL
    cdef Effect *at = core.effects
    while at != e:
        prev = at
        at = at.next
    if prev == NULL:
        core.effects = e.next
    else:
        prev.next = e.next
    if core.effects_last == e:
        core.effects_last = prev
    xs_mem_free(&core.mem, NULL, e.data, e.len)
    xs_mem_free(&core.mem, NULL, e, sizeof(Effect))


cdef void effects_forget(Core *core, Conn *c) noexcept nogil:
    """A connection goes: what it waits for may complete, but for nobody."""
    cdef Effect *e = core.effects
    while e != NULL:
        if e.conn == c.id:
            e.conn = NOBODY
        e = e.next


cdef void effects_free(Core *core) noexcept nogil:
    while core.effects != NULL:
        effect_remove(core, core.effects)
