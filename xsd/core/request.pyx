# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Requests: from bytes that have come to bytes to be sent.

A batch of bytes is cut into requests, each goes through the checks that all have in common and
then to its operation; what is left over, half a request or one that must wait, is kept. All of
it runs without the interpreter.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from xsd.core.connection cimport (
    cause_begin, cause_end, conn_blocked, conn_close, conn_give_up, conn_wake, reply_error,
    retry_later, save_input)
from xsd.core.cxs cimport (
    XS_EACCES, XS_EINVAL, XS_ENOENT, XS_ENOMEM, XS_ENOSYS, XS_HEADER_SIZE, XS_OK, XS_OP_CONTROL,
    XS_OP_GET_DOMAIN_PATH, XS_OP_GET_FEATURE, XS_OP_GET_QUOTA, XS_OP_INTRODUCE,
    XS_OP_IS_DOMAIN_INTRODUCED, XS_OP_RELEASE, XS_OP_RESET_WATCHES, XS_OP_RESUME,
    XS_OP_SET_FEATURE, XS_OP_SET_QUOTA, XS_OP_SET_TARGET, XS_OP_TRANSACTION_END,
    XS_OP_TRANSACTION_START, XS_OP_UNWATCH, XS_OP_WATCH, XS_OPF_IGNORES_TX, XS_OPF_PRIVILEGED,
    XS_OPF_TREE, XS_PAYLOAD_MAX, XS_RING_ERROR_PROTOCOL, xs_header, xs_header_load, xs_mem_grow,
    xs_op_info, xs_op_info_of, xs_outq_release, xs_outq_reserve, xs_tree_collect, xs_wire_check)
from xsd.core.effects cimport effect_next
from xsd.core.lifecycle cimport (
    op_control, op_get_domain_path, op_get_feature, op_get_quota, op_introduce, op_is_introduced,
    op_release, op_resume, op_set_feature, op_set_quota, op_set_target)
from xsd.core.replay cimport replay_begin, replay_end, replay_forget
from xsd.core.store cimport tree_op
from xsd.core.transaction cimport (
    op_transaction_end, op_transaction_start, tx_count_request, tx_find)
from xsd.core.types cimport (
    CONN_SOCKET, Conn, Core, RC_REPLIED, RC_WAIT, RX_CLOSE, RX_DIRTY, RX_EFFECTS, RX_MORE,
    RX_PAUSE, RX_TICK, Tx)
from xsd.core.watches cimport op_reset_watches, op_unwatch, op_watch

cdef enum:
    ACCESS_MAX = 1 << 20   # bytes of access records that may wait for Python


# ---- one request ---------------------------------------------------------------------

cdef int dispatch(Conn *c, const xs_header *h, Tx *tx, const char *p,
                  uint32_t strings) noexcept nogil:
    if h.type == XS_OP_TRANSACTION_START:
        return op_transaction_start(c, h, tx)
    if h.type == XS_OP_TRANSACTION_END:
        return op_transaction_end(c, h, tx, p)
    if h.type == XS_OP_WATCH:
        return op_watch(c, h, p, strings)
    if h.type == XS_OP_UNWATCH:
        return op_unwatch(c, h, p)
    if h.type == XS_OP_RESET_WATCHES:
        return op_reset_watches(c, h)
    if h.type == XS_OP_GET_DOMAIN_PATH:
        return op_get_domain_path(c, h, p)
    if h.type == XS_OP_IS_DOMAIN_INTRODUCED:
        return op_is_introduced(c, h, p)
    if h.type == XS_OP_INTRODUCE:
        return op_introduce(c, h, p)
    if h.type == XS_OP_RELEASE:
        return op_release(c, h, p)
    if h.type == XS_OP_RESUME:
        return op_resume(c, h, p)
    if h.type == XS_OP_SET_TARGET:
        return op_set_target(c, h, p)
    if h.type == XS_OP_GET_FEATURE:
        return op_get_feature(c, h, p, strings)
    if h.type == XS_OP_SET_FEATURE:
        return op_set_feature(c, h, p)
    if h.type == XS_OP_GET_QUOTA:
        return op_get_quota(c, h, p, strings)
    if h.type == XS_OP_SET_QUOTA:
        return op_set_quota(c, h, p, strings)
    if h.type == XS_OP_CONTROL:
        return op_control(c, h, p)
    return XS_ENOSYS


cdef int handle(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """What every request goes through before its own checks, in this order."""
    cdef const xs_op_info *op = xs_op_info_of(h.type)
    cdef Tx *tx = NULL
    cdef uint32_t strings
    cdef int rc
    if op == NULL:
        return XS_ENOSYS
    if op.flags & XS_OPF_PRIVILEGED and not c.privileged:
        return XS_EACCES
    if h.tx_id != 0 and not op.flags & XS_OPF_IGNORES_TX:
        tx = tx_find(c, h.tx_id)
        if tx == NULL:
            return XS_ENOENT
        if h.type != XS_OP_TRANSACTION_END:
            rc = tx_count_request(c, tx)
            if rc != XS_OK:
                return rc
    if not xs_wire_check(op, p, h.len, &strings):
        return XS_EINVAL
    if tx != NULL and op.flags & XS_OPF_TREE:
        rc = replay_begin(c, tx, h, p)
        if rc != XS_OK:
            return rc
    if op.flags & XS_OPF_TREE:
        rc = tree_op(c, h, tx, p, strings)
    else:
        rc = dispatch(c, h, tx, p, strings)
    if rc == RC_WAIT and tx != NULL and h.type != XS_OP_TRANSACTION_END:
        tx.requests -= 1 # it comes again, and is one request
    return rc


cdef void record(Core *core, Conn *c, const xs_header *h, const char *p, int rc) noexcept nogil:
    """Notes a request for the access log; Python fetches and formats it later."""
    cdef size_t size = 40 + h.len
    cdef char *at
    cdef uint32_t[10] words
    if core.access_len + size > ACCESS_MAX or xs_mem_grow(
            &core.mem, NULL, <void **>&core.access, &core.access_cap,
            core.access_len + size, 1) != XS_OK:
        core.access_lost += 1
        return
    at = core.access + core.access_len
    memcpy(words, &core.now, 8)
    words[2] = c.id
    words[3] = c.kind
    words[4] = c.domid
    words[5] = h.type
    words[6] = h.tx_id
    words[7] = <uint32_t>rc
    words[8] = h.len
    words[9] = 0
    memcpy(at, words, 40)
    memcpy(at + 40, p, h.len)
    core.access_len += size


cdef int request(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """Handles one whole request. RC_WAIT: it must be tried again; XS_OK otherwise."""
    cdef Core *core = c.core
    cdef int rc
    # Room for an error or an OK comes first: whatever happens, there is an answer.
    if xs_outq_reserve(&c.out, &core.mem, &c.dom.account, 16, False) != XS_OK:
        return XS_ENOMEM
    if cause_begin(c) != XS_OK:
        xs_outq_release(&c.out)
        return XS_ENOMEM
    c.asking = NULL
    rc = handle(c, h, p)
    if c.asking != NULL and (rc == RC_WAIT or rc == XS_ENOMEM):
        replay_forget(c)
    if rc == RC_WAIT:
        cause_end(c)
        xs_outq_release(&c.out)
        return RC_WAIT
    if rc != XS_OK and rc != RC_REPLIED:
        reply_error(c, h, rc)
    if c.asking != NULL:
        replay_end(c)
    c.absent_count = 0
    c.hold_until = 0
    c.requests += 1
    core.requests[h.type if h.type < 32 else 31] += 1
    if core.access_on:
        record(core, c, h, p, rc)
    xs_outq_release(&c.out)
    cause_end(c)
    return XS_OK


# ---- bytes ---------------------------------------------------------------------------

cdef char *engine_rx_space(Conn *c, size_t *room) noexcept nogil:
    """Where to read a connection's next bytes into; what is half read stands before it."""
    if c.inp_len > 0:
        memcpy(c.core.rx, c.inp, c.inp_len)
    room[0] = RX_SIZE - c.inp_len
    return c.core.rx + c.inp_len


cdef void keep_less(Conn *c, const char *left, size_t size, size_t n) noexcept nogil:
    """No memory for the `size` bytes that are left over, the last `n` of which have just come.

    What has come on a ring can stay there. On a socket it would be lost: its peer must know.
    """
    if c.kind == CONN_SOCKET:
        conn_give_up(c, XS_RING_ERROR_PROTOCOL)
        return
    c.unread = n if n < size else size
    save_input(c, left, size - c.unread) # less than there was before, so there is room
    c.paused = c.starved = True
    retry_later(c.core)


cdef int engine_received(Conn *c, int64_t now, size_t n, int budget) noexcept nogil:
    """n bytes have come where engine_rx_space said; handles up to `budget` requests.

    Returns RX_ bits. Of a ring, the last `c.unread` of these bytes must be handed in again.
    """
    cdef Core *core = c.core
    cdef const char *buf = core.rx
    cdef size_t total = c.inp_len + n, at = 0
    cdef xs_header h
    cdef int flags = 0, rc
    core.now = now
    core.bytes_in += n
    c.paused = False
    while total - at >= XS_HEADER_SIZE:
        if conn_blocked(c):
            c.paused = True
            break
        if budget == 0:
            flags |= RX_MORE
            c.paused = True
            conn_wake(c)
            break
        xs_header_load(&h, buf + at)
        if h.len > XS_PAYLOAD_MAX:
            conn_give_up(c, XS_RING_ERROR_PROTOCOL) # nothing it sends can be trusted any more
            break
        if total - at < XS_HEADER_SIZE + h.len:
            break
        rc = request(c, &h, buf + at + XS_HEADER_SIZE)
        if rc != XS_OK:
            # An effect must complete, or memory be freed, before it is tried again.
            c.paused = True
            c.starved = rc == XS_ENOMEM
            if c.starved:
                retry_later(core)
            break
        at += XS_HEADER_SIZE + h.len
        budget -= 1
        if core.tree.made > COLLECT_NOW: # what it cost to make pays for what must be freed
            xs_tree_collect(&core.tree, 0)
    if c.ignored:
        at = total
    c.unread = 0
    if save_input(c, buf + at, total - at) != XS_OK:
        keep_less(c, buf + at, total - at, n)
    if conn_blocked(c):
        c.paused = True
    if c.closing:
        flags |= RX_CLOSE
    if c.paused and not c.runnable:
        flags |= RX_PAUSE
    if core.effects != NULL and effect_next(core) != NULL:
        flags |= RX_EFFECTS
    if core.dirty_first != NULL:
        flags |= RX_DIRTY
    if xs_tree_collect(&core.tree, COLLECT_NOW) or core.tick_wanted or core.starved:
        core.tick_wanted = False
        flags |= RX_TICK
    return flags


cdef bint engine_close(Conn *c, int64_t now) noexcept nogil:
    """A connection has gone, and what it had goes with it. Whether others notice: settle then."""
    cdef Core *core = c.core
    cdef bint noticed = c.tx_count > 0 or c.waiting != 0 or c.held or c.causes != NULL
    core.now = now
    conn_close(c)
    if xs_tree_collect(&core.tree, COLLECT_NOW) or core.tick_wanted:
        noticed = True
    return noticed or core.dirty_first != NULL or core.run_first != NULL or core.access_len > 0
