# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Asking a transaction's requests again, on another tree.

A transaction keeps each request with a digest of its answer. Whether it could have run on a
given tree is found out by running it there, through the code that ran it first, on a private
transaction and for a connection that is a stand-in for the real one: same domain, same rights,
own output. Equal digests all the way mean that its client could not have told the difference.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen

from xsd.core.connection cimport message_gone, reply_error
from xsd.core.cxs cimport (
    XS_EINVAL, XS_ENOMEM, XS_HEADER_SIZE, XS_OK, XS_OP_DIRECTORY_PART, cbool, xs_header, xs_node,
    xs_op_info_of, xs_oplog_add, xs_oplog_at, xs_oplog_next, xs_oplog_undo, xs_oprec,
    xs_outq_clear, xs_outq_free, xs_outq_last, xs_outq_release, xs_outq_reserve, xs_tree_share,
    xs_wire_check)
from xsd.core.quota cimport quota_allows, quota_applies, quota_memory
from xsd.core.store cimport tree_op
from xsd.core.transaction cimport tx_count_request, tx_recharge
from xsd.core.types cimport Conn, Core, Q_MEMORY, Tx


cdef uint64_t digest(const Core *core, const char *reply, size_t n) noexcept nogil:
    """Of a reply, its type and payload. A directory part's generation is left out: the number
    tells when, and is different whenever the request is asked again."""
    cdef uint64_t h = core.watches.seed ^ <uint64_t>0x9e3779b97f4a7c15
    cdef uint64_t word
    cdef const char *p = reply + XS_HEADER_SIZE
    cdef size_t i, skip
    cdef uint32_t type
    memcpy(&type, reply, 4)
    n -= XS_HEADER_SIZE
    if type == XS_OP_DIRECTORY_PART:
        skip = strlen(p) + 1
        p += skip
        n -= skip
    h = (h ^ type ^ (<uint64_t>n << 32)) * <uint64_t>0xff51afd7ed558ccd
    while n > 0:
        word = 0
        i = n if n < 8 else 8
        memcpy(&word, p, i)
        h = (h ^ (h >> 29) ^ word) * <uint64_t>0xc4ceb9fe1a85ec53
        p += i
        n -= i
    return h ^ (h >> 32)


cdef int replay_begin(Conn *c, Tx *tx, const xs_header *h, const char *p) noexcept nogil:
    """Keeps a request of a transaction that is about to be handled. XS_OK or XS_ENOMEM."""
    cdef int rc
    c.asked_at = tx.asked.len
    rc = xs_oplog_add(&tx.asked, &c.core.mem, tx.account, h.type, 0, NULL, 0, p, h.len)
    if rc != XS_OK:
        return rc
    c.asking = tx
    tx_recharge(c, tx)
    if quota_applies(c) and not quota_allows(c.dom, Q_MEMORY, quota_memory(c.dom)):
        replay_forget(c)
        return XS_ENOMEM
    return XS_OK


cdef void replay_forget(Conn *c) noexcept nogil:
    """The request was not answered, or only with a lack of memory: it is not to be repeated."""
    xs_oplog_undo(&c.asking.asked, c.asked_at)
    tx_recharge(c, c.asking)
    c.asking = NULL


cdef void replay_end(Conn *c) noexcept nogil:
    """Its reply has been queued: adds the digest."""
    cdef size_t n
    cdef const char *reply = xs_outq_last(&c.out, &n)
    xs_oplog_at(&c.asking.asked, c.asked_at).answer = digest(c.core, reply, n)
    c.asking = NULL


cdef int ask(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil:
    """One request, through what a request of a transaction goes through."""
    cdef uint32_t strings
    cdef int rc = tx_count_request(c, tx)
    if rc != XS_OK:
        return rc
    if not xs_wire_check(xs_op_info_of(h.type), p, h.len, &strings):
        return XS_EINVAL
    return tree_op(c, h, tx, p, strings)


cdef int replay(Conn *c, Tx *tx, xs_node *root, Tx *again, cbool *same) noexcept nogil:
    """Runs the requests of `tx` again on `root`, as transaction `again`, whose owner clears it.

    Stops at the first answer that differs. XS_OK or XS_ENOMEM.
    """
    cdef Core *core = c.core
    cdef Conn stand_in
    cdef xs_header h
    cdef const xs_oprec *rec
    cdef const char *reply
    cdef size_t n
    cdef int rc = XS_OK
    memset(again, 0, sizeof(Tx))
    again.id = tx.id
    again.account = tx.account
    again.replaying = True
    again.base = xs_tree_share(root)
    again.top = xs_tree_share(root)
    memset(&stand_in, 0, sizeof(Conn))
    stand_in.core = core
    stand_in.id = c.id
    stand_in.kind = c.kind
    stand_in.privileged = c.privileged
    stand_in.domid = c.domid
    stand_in.target = c.target
    stand_in.dom = c.dom
    stand_in.dirty = True  # so that it is never put on a list
    stand_in.replaying = True
    stand_in.tx = again
    h.req_id = 0
    h.tx_id = tx.id
    same[0] = True
    rec = xs_oplog_next(&tx.asked, NULL)
    while rec != NULL and same[0]:
        h.type = rec.op
        h.len = rec.data_len
        rc = xs_outq_reserve(&stand_in.out, &core.mem, tx.account, 16, False)
        if rc != XS_OK:
            break
        rc = ask(&stand_in, &h, again, rec.data)
        if rc == XS_ENOMEM:
            break # no request with this answer is kept: it says nothing about the tree
        if rc != XS_OK:
            reply_error(&stand_in, &h, rc)
            rc = XS_OK
        reply = xs_outq_last(&stand_in.out, &n)
        same[0] = digest(core, reply, n) == rec.answer
        xs_outq_clear(&stand_in.out, message_gone, &stand_in)
        xs_outq_release(&stand_in.out)
        rec = xs_oplog_next(&tx.asked, rec)
    xs_outq_free(&stand_in.out, &core.mem, tx.account)
    return rc
