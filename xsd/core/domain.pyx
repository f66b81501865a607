# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Domain objects: what we know and count per domid.

An object comes into being when a domid is first of interest, which may be before its
INTRODUCE: a toolstack writes a domain's nodes first. It takes its own copy of the quotas
when the domain is known to exist, and goes when the domain dies.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from xsd.core.cxs cimport XS_RING_FEATURES, xs_mem_free, xs_mem_zalloc
from xsd.core.credit cimport credit_welcome
from xsd.core.types cimport Core, Domain, Q_COUNT

cdef int64_t LONG_AGO = -(1 << 62)


cdef void take_quotas(Core *core, Domain *d) noexcept nogil:
    memcpy(d.hard, core.hard, sizeof(d.hard))
    memcpy(d.soft, core.soft, sizeof(d.soft))


cdef Domain *domain_get(Core *core, uint32_t domid) noexcept nogil:
    """The object of a domid, made if there is none; NULL when memory ran out."""
    cdef Domain *d = core.domains[domid]
    cdef int i
    if d != NULL:
        return d
    d = <Domain *>xs_mem_zalloc(&core.mem, NULL, sizeof(Domain))
    if d == NULL:
        return NULL
    d.domid = domid
    d.features = XS_RING_FEATURES
    credit_welcome(core, d)
    for i in range(Q_COUNT):
        d.notice_ns[i] = LONG_AGO
    take_quotas(core, d)
    d.next = core.domain_list
    core.domain_list = d
    core.domains[domid] = d
    return d


cdef void domain_found(Core *core, Domain *d) noexcept nogil:
    """It exists: what was set before cannot have been meant for it.

    A commit may have made the object, as it charges who owned a node before its death.
    """
    if not d.exists:
        take_quotas(core, d)
        d.exists = True


cdef void domain_forget(Core *core, Domain *d) noexcept nogil:
    cdef Domain **link = &core.domain_list
    while link[0] != d:
        link = &link[0].next
    link[0] = d.next
    core.domains[d.domid] = NULL
    xs_mem_free(&core.mem, NULL, d, sizeof(Domain))


cdef void domain_tidy(Core *core, uint32_t domid) noexcept nogil:
    """Lets go of the object of a domain that does not exist, once nothing is charged to it.

    A transaction charges whom its nodes belonged to when it began, who may be dead by its end.
    """
    cdef Domain *d = core.domains[domid]
    if (d != NULL and not (d.exists or d.introduced or d.dying or d.conn != NULL
                           or d.nodes or d.node_bytes or d.watches or d.transactions
                           or d.queued or d.outstanding or d.targeted or d.account.blocks
                           or d.in_paused or d.in_penalised or d.write_waits)):
        domain_forget(core, d)
