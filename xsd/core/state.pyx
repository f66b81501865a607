# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The state as a whole: its hash, and whether it is consistent."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from xsd.core.cxs cimport (
    XS_ENOMEM, XS_OK, xs_node, xs_node_size, xs_node_value, xs_outq_bytes, xs_perms_owner,
    xs_tree_check, xs_walk, xs_walk_end, xs_walk_next, xs_walk_start, xs_watch, xs_watches_check)
from xsd.core.types cimport Conn, Core, Domain, Q_COUNT, Tx


cdef inline uint64_t mix(uint64_t h, uint64_t v) noexcept nogil:
    h = (h ^ v) * <uint64_t>0x9e3779b97f4a7c15
    return h ^ (h >> 29)


cdef uint64_t mix_bytes(uint64_t h, const char *p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        h = (h ^ <unsigned char>p[i]) * <uint64_t>0x100000001b3
    return mix(h, n)


cdef int hash_tree(Core *core, xs_node *top, uint64_t *h) noexcept nogil:
    """Paths, values and permissions. Stamps are left out: they tell when, not what."""
    cdef xs_walk w
    cdef xs_node *n
    cdef uint32_t i
    cdef int rc
    xs_walk_start(&w, &core.tree, top, NULL, 0)
    while True:
        n = xs_walk_next(&w)
        if n == NULL:
            break
        h[0] = mix_bytes(h[0], w.path.buf, w.path.len)
        h[0] = mix_bytes(h[0], xs_node_value(n), n.value_len)
        for i in range(n.perms.count):
            h[0] = mix(h[0], (<uint64_t>n.perms.entry[i].flags << 32)
                       | (<uint64_t>n.perms.entry[i].access << 16) | n.perms.entry[i].domid)
    rc = w.error
    xs_walk_end(&w)
    return rc


cdef int hash_conn(Core *core, Conn *c, uint64_t *h) noexcept nogil:
    """Watches, transactions, input and output that wait, of a connection."""
    cdef xs_watch *watch = c.watches.first
    cdef Tx *tx = c.tx
    cdef uint64_t one, all = 0
    cdef int rc = XS_OK
    h[0] = mix(mix(mix(h[0], c.id), c.kind), (<uint64_t>c.target << 32) | c.domid)
    while watch != NULL:
        h[0] = mix_bytes(h[0], watch.data, watch.path_len)
        h[0] = mix_bytes(h[0], watch.data + watch.path_len, watch.token_len)
        h[0] = mix(h[0], <uint64_t>watch.depth)
        watch = watch.owner_next
    while tx != NULL and rc == XS_OK:
        one = mix(mix(mix(0, tx.id), tx.log.count), tx.poisoned)
        rc = hash_tree(core, tx.top, &one)
        all += one # their order tells which was used last, which is nobody's business
        tx = tx.next
    h[0] = mix(h[0], all)
    h[0] = mix_bytes(h[0], c.inp, c.inp_len)
    h[0] = mix_bytes(h[0], c.out.buf + c.out.head, xs_outq_bytes(&c.out))
    return rc


cdef int state_hash(Core *core, uint64_t *out) noexcept nogil:
    """A hash of all that clients can see. XS_OK or XS_ENOMEM."""
    cdef uint64_t h = 0, one, all = 0
    cdef Domain *d = core.domain_list
    cdef size_t i
    cdef int rc = hash_tree(core, core.top, &h), q
    for i in range(core.conn_cap):
        if core.conns[i] != NULL and rc == XS_OK:
            rc = hash_conn(core, core.conns[i], &h)
    while d != NULL:
        # An object without figures says nothing: whether it exists is our own business.
        if d.nodes != 0 or d.watches != 0 or d.introduced:
            one = mix(mix(mix(0, d.domid), <uint64_t>d.nodes), <uint64_t>d.node_bytes)
            one = mix(mix(mix(one, <uint64_t>d.watches), <uint64_t>d.transactions), d.introduced)
            for q in range(Q_COUNT):
                one = mix(mix(one, d.hard[q]), d.soft[q])
            all += one # their order tells which became known last, which is nobody's business
        d = d.next
    out[0] = mix(h, all)
    return rc


cdef const char *check_nodes(Core *core) noexcept nogil:
    """Whether the counts of nodes are what the tree says."""
    cdef xs_walk w
    cdef xs_node *n
    cdef Domain *d = core.domain_list
    cdef const char *bad = NULL
    while d != NULL:
        d.found_nodes = d.found_bytes = 0
        d = d.next
    xs_walk_start(&w, &core.tree, core.top, NULL, 0)
    while True:
        n = xs_walk_next(&w)
        if n == NULL:
            break
        d = core.domains[xs_perms_owner(n.perms)]
        if d == NULL:
            bad = b"a node of a domain that is not known"
        else:
            d.found_nodes += 1
            d.found_bytes += <int64_t>xs_node_size(n) + w.path.len
    if w.error != XS_OK:
        bad = b"out of memory"
    xs_walk_end(&w)
    d = core.domain_list
    while d != NULL and bad == NULL:
        if d.nodes != d.found_nodes or d.node_bytes != d.found_bytes:
            bad = b"node counts of a domain differ from the tree"
        d = d.next
    return bad


cdef const char *check_conn(Core *core, Conn *c) noexcept nogil:
    cdef uint32_t watches = 0
    cdef xs_watch *watch = c.watches.first
    cdef Tx *tx = c.tx
    while watch != NULL:
        if watch.owner != &c.watches:
            return b"a watch is on the list of another connection"
        watches += 1
        watch = watch.owner_next
    if watches != c.watches.count:
        return b"watch count of a connection"
    while tx != NULL:
        if xs_tree_check(&core.tree, tx.top) != XS_OK:
            return b"tree of a transaction"
        tx = tx.next
    return NULL


cdef const char *check_figures(Core *core) noexcept nogil:
    """Whether watches, transactions and queued bytes of domains add up."""
    cdef Domain *d = core.domain_list
    cdef Conn *c
    cdef xs_watch *watch
    cdef Tx *tx
    cdef int64_t watches, watch_bytes, transactions, tx_bytes, queued
    cdef size_t i
    while d != NULL:
        watches = watch_bytes = transactions = tx_bytes = queued = 0
        for i in range(core.conn_cap):
            c = core.conns[i]
            if c == NULL or c.dom != d:
                continue
            queued += <int64_t>(xs_outq_bytes(&c.out) + c.out.partial)
            watch = c.watches.first
            while watch != NULL:
                watches += 1
                watch_bytes += watch.path_len + watch.token_len
                watch = watch.owner_next
            tx = c.tx
            while tx != NULL:
                transactions += 1
                tx_bytes += tx.charged
                tx = tx.next
        if watches != d.watches or watch_bytes != d.watch_bytes:
            return b"watch figures of a domain"
        if transactions != d.transactions or tx_bytes != d.tx_bytes:
            return b"transaction figures of a domain"
        if queued != d.queued:
            return b"queued bytes of a domain"
        d = d.next
    return NULL


cdef const char *state_check(Core *core) noexcept nogil:
    """NULL when every invariant holds, else what does not. Slow: it looks at everything."""
    cdef const char *bad
    cdef size_t i
    if xs_tree_check(&core.tree, core.top) != XS_OK:
        return b"the tree"
    if not xs_watches_check(&core.watches):
        return b"the watch indexes"
    bad = check_nodes(core)
    if bad == NULL:
        bad = check_figures(core)
    for i in range(core.conn_cap):
        if bad == NULL and core.conns[i] != NULL:
            bad = check_conn(core, core.conns[i])
    return bad
