# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Quotas: their names, what counts against them, whether something more is allowed.

A quota is the number one can have; 0 is unlimited. Limits bind guests only; everything is
counted for everybody. Each hard quota has a soft one, which never refuses anything: going
over it is told to the log once, and counted.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp, memcpy, strlen

from xsd.core.connection cimport conn_wake
from xsd.core.cxs cimport XS_ENOMEM, XS_ENOSPC, XS_OK, xs_tally
from xsd.core.domain cimport domain_get
from xsd.core.effects cimport effect_notice
from xsd.core.types cimport (
    Conn, Core, Domain, Q_COUNT, Q_MEMORY, Q_NODES, Q_NODE_PERMISSIONS, Q_PATH_MAX)

# A guest decides how often it crosses a line; the log hears of one crossing in this time.
cdef int64_t NOTICE_NS = 10_000_000_000

# Order of the enum in types.pxd.
cdef const char *NAMES[11]
NAMES = [
    b"nodes", b"watches", b"outstanding", b"memory", b"transactions", b"transaction-nodes",
    b"node-permissions", b"path-max", b"node-size", b"transaction-requests", b"watch-events"]

# Order in which clients are shown the names: what other daemons have comes first.
cdef const char *LISTING = (
    b"nodes watches outstanding memory soft-memory transactions transaction-nodes "
    b"node-permissions path-max node-size soft-nodes soft-watches soft-outstanding "
    b"soft-transactions soft-transaction-nodes soft-node-permissions soft-path-max "
    b"soft-node-size transaction-requests soft-transaction-requests watch-events "
    b"soft-watch-events")


cdef const char *quota_name(int index) noexcept nogil:
    return NAMES[index]


cdef size_t quota_list(char *out) noexcept nogil:
    """Writes all names, blank separated, with a NUL; returns the bytes written."""
    cdef size_t n = strlen(LISTING) + 1
    memcpy(out, LISTING, n)
    return n


cdef bint is_name(const char *p, size_t n, const char *name) noexcept nogil:
    return strlen(name) == n and memcmp(p, name, n) == 0


cdef int quota_find(const char *name, size_t n, bint *soft) noexcept nogil:
    """Index of a quota by name, also in the spellings of older documents; -1 if unknown."""
    cdef int i
    soft[0] = n > 5 and memcmp(name, b"soft-", 5) == 0
    if soft[0]:
        name += 5
        n -= 5
    for i in range(Q_COUNT):
        if is_name(name, n, NAMES[i]):
            return i
    if is_name(name, n, b"path-length"):
        return Q_PATH_MAX
    if is_name(name, n, b"permissions"):
        return Q_NODE_PERMISSIONS
    return -1


cdef int64_t quota_memory(const Domain *d) noexcept nogil:
    """Bytes that count against the memory quota: nodes, watches, transactions, output."""
    return d.node_bytes + d.watch_bytes + d.tx_bytes + d.queued


cdef void quota_note(Core *core, Domain *d, int index, int64_t value) noexcept nogil:
    """Remembers the peak of a figure and reports when it crosses its soft quota."""
    cdef uint32_t bit = 1u << index
    if value > d.peak[index]:
        d.peak[index] = value
    if d.soft[index] == 0:
        return
    if value > d.soft[index]:
        if not d.over_soft & bit:
            d.over_soft |= bit
            core.soft_hits += 1
            if core.now - d.notice_ns[index] >= NOTICE_NS:
                d.notice_ns[index] = core.now
                d.told_soft |= bit
                effect_notice(core, d.domid, NAMES[index], True)
    elif d.over_soft & bit:
        d.over_soft &= ~bit
        if d.told_soft & bit:
            d.told_soft &= ~bit
            effect_notice(core, d.domid, NAMES[index], False)


cdef int64_t delta_nodes(const xs_tally *delta, size_t count, uint32_t domid,
                         int64_t *bytes) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if delta[i].domid == domid:
            bytes[0] = delta[i].bytes
            return delta[i].nodes
    bytes[0] = 0
    return 0


cdef int quota_check_tally(Conn *c, const xs_tally *delta, size_t count) noexcept nogil:
    """Whether the prepared change keeps every domain that it charges within its quota.

    `delta` is what the transaction has gained already. XS_OK, XS_ENOSPC or XS_ENOMEM.
    """
    cdef Core *core = c.core
    cdef size_t i
    cdef xs_tally *t
    cdef Domain *d
    cdef int64_t nodes, bytes
    if not quota_applies(c):
        return XS_OK
    for i in range(core.tree.tally_count):
        t = &core.tree.tally[i]
        d = core.domains[t.domid]
        if d == NULL or d.domid == core.priv_domid:
            continue
        nodes = delta_nodes(delta, count, t.domid, &bytes)
        if t.nodes > 0 and not quota_allows(d, Q_NODES, d.nodes + nodes + t.nodes):
            return XS_ENOSPC
        if t.bytes > 0 and not quota_allows(d, Q_MEMORY, quota_memory(d) + bytes + t.bytes):
            return XS_ENOMEM
    return XS_OK


cdef int quota_prepare_tally(Core *core) noexcept nogil:
    """Makes sure that every domain of the prepared change has an object to be charged on."""
    cdef size_t i
    for i in range(core.tree.tally_count):
        if domain_get(core, core.tree.tally[i].domid) == NULL:
            return XS_ENOMEM
    return XS_OK


cdef void quota_apply(Core *core, const xs_tally *tally, size_t count) noexcept nogil:
    """Charges a change of the live tree."""
    cdef size_t i
    cdef Domain *d
    for i in range(count):
        d = core.domains[tally[i].domid]
        d.nodes += tally[i].nodes
        d.node_bytes += tally[i].bytes
        if tally[i].nodes > 0:
            quota_note(core, d, Q_NODES, d.nodes)
        if tally[i].bytes > 0:
            quota_note(core, d, Q_MEMORY, quota_memory(d))
        elif d.conn != NULL:
            conn_wake(d.conn) # it may have waited for its memory to become less
