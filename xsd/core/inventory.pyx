# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""What there is and what has happened, as Python objects: for operators and for tests.

Nothing here changes anything, but for `peaks`, which may start anew. What each function gives is
told where `Engine` offers it.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t

from xsd.core.cxs cimport (
    XS_OK, XS_OP_COUNT, XS_SEEN_KIDS, XS_SEEN_SELF, XS_SEEN_SUBTREE, XS_PAYLOAD_MAX,
    xs_error_name, xs_node, xs_node_value, xs_oplog_next, xs_oprec, xs_op_info, xs_op_info_of,
    xs_perms_text, xs_perms_text_len, xs_walk, xs_walk_end, xs_walk_next, xs_walk_start, xs_watch)
from xsd.core.credit cimport credit_paused
from xsd.core.quota cimport quota_memory, quota_name
from xsd.core.types cimport BLAMES, Blame, CONN_SOCKET, Conn, Core, Domain, Q_COUNT, Tx


cdef dict tree_of(Core *core):
    cdef xs_walk w
    cdef xs_node *n
    cdef char[XS_PAYLOAD_MAX * 2] text
    found = {}
    xs_walk_start(&w, &core.tree, core.top, NULL, 0)
    while True:
        n = xs_walk_next(&w)
        if n == NULL:
            break
        xs_perms_text(n.perms, text)
        found[w.path.buf[:w.path.len]] = (
            PyBytes_FromStringAndSize(xs_node_value(n), n.value_len),
            text[:xs_perms_text_len(n.perms)])
    failed = w.error
    xs_walk_end(&w)
    if failed != XS_OK:
        raise MemoryError
    return found


cdef dict counts_of(Core *core):
    cdef Domain *d = core.domain_list
    found = {}
    while d != NULL:
        figures = {"nodes": d.nodes, "watches": d.watches, "transactions": d.transactions,
                   "outstanding": d.outstanding, "memory": quota_memory(d)}
        figures = {k: v for k, v in figures.items() if v}
        if figures:
            found[d.domid] = figures
        d = d.next
    return found


cdef dict peaks_of(Core *core, bint reset):
    cdef Domain *d = core.domain_list
    cdef int i
    found = {quota_name(i).decode(): 0 for i in range(Q_COUNT)}
    while d != NULL:
        for i in range(Q_COUNT):
            name = quota_name(i).decode()
            if d.domid != core.priv_domid:
                found[name] = max(found[name], d.peak[i])
            if reset:
                d.peak[i] = 0
        d = d.next
    return found


cdef dict domain_peaks_of(Core *core, uint32_t domid):
    cdef Domain *d = core.domains[domid & 0xffff]
    cdef int i
    if d == NULL:
        raise KeyError(f"no domain {domid}")
    return {quota_name(i).decode(): d.peak[i] for i in range(Q_COUNT)}


cdef list watches_of(Core *core):
    cdef xs_watch *w
    cdef size_t i
    found = []
    for i in range(core.conn_cap):
        w = core.conns[i].watches.first if core.conns[i] != NULL else NULL
        while w != NULL:
            found.append((i, w.data[:w.path_len],
                          (w.data + w.path_len)[:w.token_len]))
            w = w.owner_next
    return found


cdef list transactions_of(Core *core):
    cdef Tx *tx
    cdef const xs_oprec *rec
    cdef size_t i
    found = []
    for i in range(core.conn_cap):
        tx = core.conns[i].tx if core.conns[i] != NULL else NULL
        while tx != NULL:
            changes = []
            rec = xs_oplog_next(&tx.log, NULL)
            while rec != NULL:
                changes.append((xs_op_info_of(rec.op).name.decode(),
                                rec.data[:rec.path_len]))
                rec = xs_oplog_next(&tx.log, rec)
            found.append((i, core.conns[i].domid, tx.id, tx.start_ns, changes,
                          bool(tx.poisoned)))
            tx = tx.next
    return found


cdef dict conflict_figures_of(Core *core):
    cdef Domain *d = core.domain_list
    found = {}
    while d != NULL:
        paused = credit_paused(core, d)
        found[d.domid] = {
            "caused": d.caused, "suffered": d.suffered, "credit": d.credit,
            "paused_ns": d.paused_ns + (core.now - d.paused_since if paused else 0),
            "paused": bool(paused)}
        d = d.next
    return found


cdef list conflicts_of(Core *core):
    cdef Blame *b
    cdef uint64_t i, first = 0
    found = []
    if core.blame_count > BLAMES:
        first = core.blame_count - BLAMES
    for i in range(first, core.blame_count):
        b = &core.blames[i % BLAMES]
        seen = [name for bit, name in ((XS_SEEN_SELF, "self"), (XS_SEEN_KIDS, "children"),
                                       (XS_SEEN_SUBTREE, "subtree")) if b.seen & bit]
        found.append({
            "when_ns": b.when_ns, "conn": b.conn, "domid": b.domid, "tx": b.tx,
            "path": b.path[:b.path_len] if b.path != NULL else b"", "seen": seen,
            "known": bool(b.known), "by_conn": b.culprit.conn, "by_domid": b.culprit.domid,
            "by_tx": b.culprit.tx, "by_when_ns": b.culprit.when_ns,
            "charged": bool(b.guilty)})
    return found


cdef list connections_of(Core *core):
    cdef Conn *c
    cdef size_t i
    found = []
    for i in range(core.conn_cap):
        c = core.conns[i]
        if c != NULL:
            found.append((c.id, "socket" if c.kind == CONN_SOCKET else "ring", c.domid,
                          c.pid, c.uid, c.requests))
    return found


cdef dict counters_of(Core *core):
    cdef Domain *d = core.domain_list
    cdef const xs_op_info *op
    nodes = domains = introduced = 0
    while d != NULL:
        nodes += d.nodes
        domains += 1
        introduced += d.introduced
        d = d.next
    requests = {}
    for i in range(XS_OP_COUNT):
        op = xs_op_info_of(i)
        if op != NULL:
            requests[op.name.decode()] = core.requests[i]
    requests["unknown"] = core.requests[31]
    errors = {xs_error_name(i).decode(): core.errors[i]
              for i in range(1, 17) if core.errors[i]}
    return {
        "requests": requests, "errors": errors,
        "connections": core.conn_count, "watches": core.watches.watch_count,
        "transactions": core.open_tx,
        "nodes": nodes, "domains": domains, "domains_introduced": introduced,
        "events_queued": core.events_queued, "events_merged": core.events_merged,
        "events_dropped": core.events_dropped, "events_expired": core.events_expired,
        "commits": core.commits, "commits_swap": core.commits_swap,
        "commits_merge": core.commits_merge, "commits_replay": core.commits_replay,
        "conflicts": core.conflicts, "history_records": core.history.count,
        "requests_held": core.holds,
        "aborts": core.aborts, "bytes_in": core.bytes_in, "bytes_out": core.bytes_out,
        "soft_quota_hits": core.soft_hits, "nodes_swept": core.nodes_swept,
        "access_records_lost": core.access_lost,
    }
