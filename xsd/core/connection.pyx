# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Connections: their life, their replies, and when they may be read.

A connection waits, and its input stays where it is, while an effect is under way for it,
while too much of its output has not been fetched, and, for a guest, while it has too many
requests outstanding or too much memory in use. Whatever ends the wait puts it on the list
of runnable connections; nothing looks at it in between.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy, memset, strlen

from xsd.core.cxs cimport (
    XS_DOMID_INVALID, XS_E2BIG, XS_ENOMEM, XS_HEADER_SIZE, XS_OK, XS_OP_ERROR,
    XS_PAYLOAD_MAX, xs_error_name, xs_header, xs_mem_free, xs_mem_grow, xs_mem_resize,
    xs_mem_zalloc, xs_outmsg, xs_outq_bytes, xs_outq_clear, xs_outq_free, xs_outq_put,
    xs_outq_release, xs_outq_reserve, xs_outq_sent, xs_pathset_free, xs_watches_remove,
    xs_wire_put_number)
from xsd.core.credit cimport credit_paused
from xsd.core.domain cimport domain_get
from xsd.core.effects cimport effects_forget
from xsd.core.quota cimport quota_allows, quota_applies, quota_memory, quota_note
from xsd.core.transaction cimport tx_abort_all
from xsd.core.types cimport (
    CONN_RING, CONN_SOCKET, Cause, Conn, Core, Domain, Q_MEMORY, Q_OUTSTANDING)
from xsd.core.writerate cimport write_rate_waits

cdef enum:
    # Output waiting on a socket beyond which its requests are no longer read.
    OUTPUT_HIGH = 256 * 1024
    RING_OUTPUT_HIGH = 2 * 1024  # the same for a ring, which has room for half of that
    RETRY_NS = 10_000_000  # how soon to come back when memory ran out


# ---- life -----------------------------------------------------------------------

cdef Conn *conn_get(Core *core, uint32_t id) noexcept nogil:
    return core.conns[id] if id < core.conn_cap else NULL


cdef int take_id(Core *core, uint32_t *id) noexcept nogil:
    """Reserves the lowest id that was given back last, or the next new one."""
    cdef size_t cap = core.conn_cap, old = core.conn_cap
    if core.free_count > 0:
        core.free_count -= 1
        id[0] = core.free_ids[core.free_count]
        return XS_OK
    if core.conn_count == cap:
        if xs_mem_grow(&core.mem, NULL, <void **>&core.conns, &cap, cap + 1,
                       sizeof(Conn *)) != XS_OK:
            return XS_ENOMEM
        memset(core.conns + old, 0, (cap - old) * sizeof(Conn *))
        core.conn_cap = cap
    # Room to give every id back, so that closing cannot fail.
    if xs_mem_grow(&core.mem, NULL, <void **>&core.free_ids, &core.free_cap, core.conn_cap,
                   sizeof(uint32_t)) != XS_OK:
        return XS_ENOMEM
    id[0] = <uint32_t>core.conn_count
    return XS_OK


cdef Conn *conn_open(Core *core, uint32_t kind, uint32_t domid) noexcept nogil:
    """A new connection of a domain, or NULL when memory ran out."""
    cdef Domain *d = domain_get(core, domid)
    cdef Conn *c
    cdef uint32_t id
    if d == NULL:
        return NULL
    c = <Conn *>xs_mem_zalloc(&core.mem, &d.account, sizeof(Conn))
    if c == NULL:
        return NULL
    if take_id(core, &id) != XS_OK:
        xs_mem_free(&core.mem, &d.account, c, sizeof(Conn))
        return NULL
    core.conns[id] = c
    core.conn_count += 1
    core.owner_ids += 1
    c.core = core
    c.id = id
    c.kind = <unsigned char>kind
    c.domid = domid
    c.target = XS_DOMID_INVALID
    c.dom = d
    c.privileged = domid == core.priv_domid
    c.watches.id = core.owner_ids
    c.watches.account = &d.account
    c.watches.context = c
    c.pid = c.uid = -1
    return c


cdef void conn_reset_watches(Conn *c) noexcept nogil:
    """Removes all watches of a connection."""
    cdef Core *core = c.core
    while c.watches.first != NULL:
        c.dom.watch_bytes -= c.watches.first.path_len + c.watches.first.token_len
        c.dom.watches -= 1
        xs_watches_remove(&core.watches, c.watches.first)


cdef void conn_reset(Conn *c) noexcept nogil:
    """Forgets watches, transactions, queued output and partial input."""
    conn_reset_watches(c)
    tx_abort_all(c)
    c.failures = 0
    c.hold_until = 0
    xs_outq_clear(&c.out, message_gone, c)
    xs_mem_free(&c.core.mem, &c.dom.account, c.inp, c.inp_cap)
    c.inp = NULL
    c.inp_len = c.inp_cap = 0
    if c.waiting != 0:
        effects_forget(c.core, c)
        c.waiting = 0
    c.owed = False
    c.absent_count = 0


cdef void conn_give_up(Conn *c, uint32_t error) noexcept nogil:
    """It can no longer be served.

    A socket is closed. A ring cannot be: it is told the error and ignored until it is
    introduced again.
    """
    if c.kind == CONN_SOCKET:
        c.closing = True
        return
    conn_reset(c)
    c.ignored = True
    c.error = error
    mark_dirty(c)


cdef void retry_later(Core *core) noexcept nogil:
    """Memory ran out: some connection waits until there may be more."""
    if not core.starved:
        core.starved = True
        core.retry_ns = core.now + RETRY_NS


cdef void conn_owe(Conn *c, int rc) noexcept nogil:
    """No memory even for the answer to the request that an effect has carried out.

    A socket is closed: its client knows that something went wrong. A ring gets the answer when
    there is memory again, and nothing else is read from it before.
    """
    if c.kind == CONN_SOCKET:
        c.closing = True
        return
    c.owed = True
    c.owed_rc = rc
    c.starved = True
    retry_later(c.core)


cdef void conn_pay(Conn *c) noexcept nogil:
    """Answers what it is owed, if there is memory now."""
    if not c.owed:
        return
    if xs_outq_reserve(&c.out, &c.core.mem, &c.dom.account, 16, False) != XS_OK:
        conn_owe(c, c.owed_rc)
        return
    c.owed = False
    if c.owed_rc == XS_OK:
        reply_ok(c, &c.pending)
    else:
        reply_error(c, &c.pending, c.owed_rc)
    xs_outq_release(&c.out)


cdef void conn_reconnect(Conn *c) noexcept nogil:
    """A domain asks for a fresh start on its ring: as new, and its transactions count anew."""
    conn_reset(c)
    c.last_tx = 0
    c.core.tick_wanted = True # history that was kept for its transactions may go
    conn_wake(c)


cdef void unlink_lists(Conn *c) noexcept nogil:
    cdef Core *core = c.core
    cdef Conn *at
    cdef Conn **link
    cdef Conn *prev = NULL
    if c.dirty:
        link = &core.dirty_first
        while link[0] != c:
            prev = link[0]
            link = &link[0].dirty_next
        link[0] = c.dirty_next
        if core.dirty_last == c:
            core.dirty_last = prev
    if c.runnable:
        prev = NULL
        link = &core.run_first
        while link[0] != c:
            prev = link[0]
            link = &link[0].run_next
        link[0] = c.run_next
        if core.run_last == c:
            core.run_last = prev
    if c.held:
        link = &core.held
        while link[0] != c:
            link = &link[0].held_next
        link[0] = c.held_next
    if c.aging:
        link = &core.aging
        while link[0] != c:
            link = &link[0].aging_next
        link[0] = c.aging_next


cdef void conn_close(Conn *c) noexcept nogil:
    """Frees a connection with everything that is its own."""
    cdef Core *core = c.core
    cdef Domain *d = c.dom
    cdef Cause *cause
    conn_reset(c)
    cause = c.causes
    while cause != NULL:
        cause.conn = NULL
        cause = cause.next
        d.outstanding -= 1
    unlink_lists(c)
    xs_pathset_free(&c.foreseen, &core.mem, &d.account)
    xs_outq_free(&c.out, &core.mem, &d.account)
    core.conns[c.id] = NULL
    core.free_ids[core.free_count] = c.id
    core.free_count += 1
    core.conn_count -= 1
    if d.conn == c:
        d.conn = NULL
    xs_mem_free(&core.mem, &d.account, c, sizeof(Conn))


# ---- lists ----------------------------------------------------------------------

cdef void mark_dirty(Conn *c) noexcept nogil:
    """It has output that nobody has been told of."""
    cdef Core *core = c.core
    if c.dirty:
        return
    c.dirty = True
    c.dirty_next = NULL
    if core.dirty_last == NULL:
        core.dirty_first = c
    else:
        core.dirty_last.dirty_next = c
    core.dirty_last = c


cdef Conn *next_dirty(Core *core) noexcept nogil:
    cdef Conn *c = core.dirty_first
    if c != NULL:
        core.dirty_first = c.dirty_next
        if core.dirty_first == NULL:
            core.dirty_last = NULL
        c.dirty = False
    return c


cdef bint conn_blocked(Conn *c) noexcept nogil:
    """Whether its requests must wait."""
    cdef Domain *d = c.dom
    if c.waiting != 0 or c.owed or c.ignored or c.closing or c.held:
        return True
    if c.kind == CONN_RING and not c.privileged and (
            credit_paused(c.core, d) or write_rate_waits(c)):
        return True
    if c.kind == CONN_RING and xs_outq_bytes(&c.out) > RING_OUTPUT_HIGH:
        return True
    if quota_applies(c):
        # What its transactions need is given back when they end, so it must be able to end them.
        return ((d.hard[Q_OUTSTANDING] != 0 and d.outstanding >= d.hard[Q_OUTSTANDING])
                or not quota_allows(d, Q_MEMORY, quota_memory(d) - d.tx_bytes))
    return xs_outq_bytes(&c.out) > OUTPUT_HIGH


cdef void conn_wake(Conn *c) noexcept nogil:
    """Puts a paused connection that may go on, or must be closed, onto the list of runnable."""
    cdef Core *core = c.core
    if not c.paused or c.runnable or (conn_blocked(c) and not c.closing):
        return
    c.runnable = True
    c.run_next = NULL
    if core.run_last == NULL:
        core.run_first = c
    else:
        core.run_last.run_next = c
    core.run_last = c


cdef Conn *next_runnable(Core *core) noexcept nogil:
    cdef Conn *c = core.run_first
    if c != NULL:
        core.run_first = c.run_next
        if core.run_first == NULL:
            core.run_last = NULL
        c.runnable = False
    return c


# ---- causes: what a guest's request still has under way --------------------------

cdef int cause_begin(Conn *c) noexcept nogil:
    """Starts counting a guest's request as outstanding. XS_OK or XS_ENOMEM."""
    cdef Cause *cause
    if not quota_applies(c):
        return XS_OK
    cause = <Cause *>xs_mem_zalloc(&c.core.mem, NULL, sizeof(Cause))
    if cause == NULL:
        return XS_ENOMEM
    cause.refs = 1
    cause.conn = c
    cause.next = c.causes
    if c.causes != NULL:
        c.causes.prev = cause
    c.causes = cause
    c.cause = cause
    c.dom.outstanding += 1
    quota_note(c.core, c.dom, Q_OUTSTANDING, c.dom.outstanding)
    return XS_OK


cdef void cause_unref(Core *core, Cause *cause) noexcept nogil:
    cdef Conn *c = cause.conn
    cause.refs -= 1
    if cause.refs > 0:
        return
    if c != NULL:
        if cause.prev != NULL:
            cause.prev.next = cause.next
        else:
            c.causes = cause.next
        if cause.next != NULL:
            cause.next.prev = cause.prev
        c.dom.outstanding -= 1
        conn_wake(c)
    xs_mem_free(&core.mem, NULL, cause, sizeof(Cause))


cdef void cause_end(Conn *c) noexcept nogil:
    """The request has been handled; its messages keep the cause alive."""
    if c.cause != NULL:
        cause_unref(c.core, c.cause)
        c.cause = NULL


cdef void message_gone(void *context, const xs_outmsg *msg) noexcept nogil:
    """A queued message was sent or thrown away."""
    cdef Conn *c = <Conn *>context
    c.dom.queued -= msg.len
    if msg.cause != NULL:
        cause_unref(c.core, <Cause *>msg.cause)


# ---- replies --------------------------------------------------------------------

cdef int reply_room(Conn *c, size_t n) noexcept nogil:
    """Reserves room for a reply of n bytes. XS_OK, XS_E2BIG or XS_ENOMEM."""
    if n > XS_PAYLOAD_MAX:
        return XS_E2BIG
    if n > 16 and quota_applies(c) and not quota_allows(
            c.dom, Q_MEMORY, quota_memory(c.dom) + <int64_t>n + XS_HEADER_SIZE):
        return XS_ENOMEM
    return xs_outq_reserve(&c.out, &c.core.mem, &c.dom.account, n, False)


cdef char *put(Conn *c, const xs_header *h) noexcept nogil:
    if c.cause != NULL:
        c.cause.refs += 1
    c.dom.queued += XS_HEADER_SIZE + h.len
    mark_dirty(c)
    return xs_outq_put(&c.out, h, c.core.now, c.cause)


cdef char *reply_put(Conn *c, const xs_header *request, size_t n) noexcept nogil:
    """Queues a success reply into reserved room; returns where its payload goes."""
    cdef xs_header h = request[0]
    h.len = <uint32_t>n
    return put(c, &h)


cdef int reply(Conn *c, const xs_header *request, const char *data, size_t n) noexcept nogil:
    cdef int rc = reply_room(c, n)
    if rc == XS_OK:
        memcpy(reply_put(c, request, n), data, n)
    return rc


cdef void reply_ok(Conn *c, const xs_header *request) noexcept nogil:
    """Queues OK; there is always room for it."""
    memcpy(reply_put(c, request, 3), b"OK", 3)


cdef void reply_error(Conn *c, const xs_header *request, int error) noexcept nogil:
    """Queues an error; there is always room for it."""
    cdef const char *name = xs_error_name(error)
    cdef xs_header h = request[0]
    c.core.errors[error & 31] += not c.replaying
    h.type = XS_OP_ERROR
    h.len = <uint32_t>(strlen(name) + 1)
    memcpy(put(c, &h), name, h.len)


cdef int reply_number(Conn *c, const xs_header *request, uint32_t value) noexcept nogil:
    cdef char text[24]
    return reply(c, request, text, xs_wire_put_number(text, value))


# ---- bytes ----------------------------------------------------------------------

cdef int save_input(Conn *c, const char *data, size_t n) noexcept nogil:
    """Keeps input for later, in place of what was kept. XS_OK or XS_ENOMEM."""
    cdef Core *core = c.core
    cdef char *p
    if n == 0:
        xs_mem_free(&core.mem, &c.dom.account, c.inp, c.inp_cap)
        c.inp = NULL
        c.inp_len = c.inp_cap = 0
        return XS_OK
    if n > c.inp_cap:
        p = <char *>xs_mem_resize(&core.mem, &c.dom.account, c.inp, c.inp_cap, n)
        if p == NULL:
            return XS_ENOMEM
        c.inp = p
        c.inp_cap = n
    memcpy(c.inp, data, n)
    c.inp_len = n
    return XS_OK


cdef void conn_sent(Conn *c, size_t n) noexcept nogil:
    """The first n bytes of its output have been written."""
    c.core.bytes_out += n
    xs_outq_sent(&c.out, &c.core.mem, &c.dom.account, n, message_gone, c)
    conn_wake(c)
