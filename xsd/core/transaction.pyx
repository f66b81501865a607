# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Transactions: a snapshot, a private view of it, and the commit.

START takes two references to the live tree: the base, which stays, and the view, which the
transaction's changes copy as they go. What it looked at is kept as a set of paths, what it
changed as a log. END tries the cheapest thing that is right:

    nothing was changed                     done
    the live tree is still the base         the view becomes the live tree
    all that was seen is as it was          the log is applied to the live tree
    all requests, asked again on the live
    tree, would be answered alike           what that led to becomes the live tree
    otherwise                               EAGAIN, and nothing has happened

"As it was" compares stamps between base and live tree, path by path of what was seen; what
the two trees still share is not even looked into. Transactions that touch different things
therefore never fail each other.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from xsd.core.connection cimport reply_number, reply_ok
from xsd.core.cxs cimport (
    XS_EAGAIN, XS_EBUSY, XS_EINVAL, XS_ENOENT, XS_ENOMEM, XS_ENOSPC, XS_OK, XS_OP_RM,
    XS_OP_SET_PERMS, XS_OP_WRITE, XS_SEEN_KIDS, XS_SEEN_SELF, XS_SEEN_SUBTREE, cbool,
    xs_found, xs_header, xs_mem_free, xs_mem_grow, xs_mem_zalloc, xs_node, xs_oplog_free,
    xs_oplog_next, xs_oprec, xs_path_parent_len, xs_path_set, xs_pathset_add,
    xs_pathset_free, xs_pathset_has, xs_pathset_next, xs_perm, xs_perms, xs_perms_intern,
    xs_perms_unref, xs_seen, xs_tally, xs_tree_abort, xs_tree_commit, xs_tree_drop,
    xs_tree_prepare_perms, xs_tree_prepare_remove, xs_tree_prepare_write, xs_tree_same,
    xs_tree_same_subtree, xs_tree_seek, xs_tree_share)
from xsd.core.domain cimport domain_get, domain_tidy
from xsd.core.history cimport (
    history_commit, history_conflict, history_reserve, history_tx_begins, history_tx_ends,
    priority_breaks, priority_hold)
from xsd.core.quota cimport (
    quota_allows, quota_applies, quota_apply, quota_memory, quota_note, quota_prepare_tally)
from xsd.core.replay cimport replay
from xsd.core.store cimport creation_perms
from xsd.core.types cimport (
    Conn, Core, Domain, Q_MEMORY, Q_NODES, Q_TRANSACTIONS, Q_TRANSACTION_NODES,
    Q_TRANSACTION_REQUESTS, RC_WAIT, Tx)
from xsd.core.watches cimport events_abort, events_begin, events_for_log, events_publish
from xsd.core.writerate cimport write_rate_charge


cdef enum:
    FEW = 8 # transactions of one connection that are found without a table


# ---- life --------------------------------------------------------------------------

cdef Tx *tx_find(Conn *c, uint32_t id) noexcept nogil:
    """The open transaction of this id: by table, or in a list while they are few."""
    cdef Tx *tx
    if c.tx_table != NULL:
        tx = c.tx_table[id & (c.tx_buckets - 1)]
        while tx != NULL and tx.id != id:
            tx = tx.chain
        return tx
    tx = c.tx
    while tx != NULL and tx.id != id:
        tx = tx.next
    return tx


cdef void tabulate(Conn *c, Tx *tx) noexcept nogil:
    cdef Tx **bucket = &c.tx_table[tx.id & (c.tx_buckets - 1)]
    tx.chain = bucket[0]
    bucket[0] = tx


cdef void grow_table(Conn *c) noexcept nogil:
    """Doubles the table of a connection with many transactions. Failing is harmless."""
    cdef Core *core = c.core
    cdef size_t want = 4 * FEW if c.tx_table == NULL else 2 * c.tx_buckets
    cdef Tx **fresh = <Tx **>xs_mem_zalloc(&core.mem, &c.dom.account, want * sizeof(Tx *))
    cdef Tx *tx = c.tx
    if fresh == NULL:
        return
    xs_mem_free(&core.mem, &c.dom.account, c.tx_table, c.tx_buckets * sizeof(Tx *))
    c.tx_table = fresh
    c.tx_buckets = want
    while tx != NULL:
        tabulate(c, tx)
        tx = tx.next


cdef void join(Conn *c, Tx *tx) noexcept nogil:
    """Adds a transaction to its connection."""
    tx.next = c.tx
    if c.tx != NULL:
        c.tx.prev = tx
    c.tx = tx
    c.tx_count += 1
    if c.tx_table != NULL:
        tabulate(c, tx)
    if c.tx_count > FEW and c.tx_count > c.tx_buckets:
        grow_table(c)


cdef void leave(Conn *c, Tx *tx) noexcept nogil:
    """Takes a transaction from its connection; the table goes with the last one."""
    cdef Tx **link
    if tx.prev != NULL:
        tx.prev.next = tx.next
    else:
        c.tx = tx.next
    if tx.next != NULL:
        tx.next.prev = tx.prev
    c.tx_count -= 1
    if c.tx_table == NULL:
        return
    link = &c.tx_table[tx.id & (c.tx_buckets - 1)]
    while link[0] != tx:
        link = &link[0].chain
    link[0] = tx.chain
    if c.tx_count == 0:
        xs_mem_free(&c.core.mem, &c.dom.account, c.tx_table, c.tx_buckets * sizeof(Tx *))
        c.tx_table = NULL
        c.tx_buckets = 0


cdef void tx_clear(Core *core, Tx *tx) noexcept nogil:
    """Lets go of everything a transaction holds, but for the struct itself."""
    xs_tree_drop(&core.tree, tx.base)
    xs_tree_drop(&core.tree, tx.top)
    xs_pathset_free(&tx.seen, &core.mem, tx.account)
    xs_oplog_free(&tx.log, &core.mem, tx.account)
    xs_oplog_free(&tx.asked, &core.mem, tx.account)
    xs_mem_free(&core.mem, tx.account, tx.delta, tx.delta_cap * sizeof(xs_tally))
    tx.base = tx.top = NULL
    tx.delta = NULL
    tx.delta_count = tx.delta_cap = 0


cdef void tx_free(Conn *c, Tx *tx) noexcept nogil:
    cdef Core *core = c.core
    cdef size_t i
    leave(c, tx)
    if tx.all_prev != NULL:
        tx.all_prev.all_next = tx.all_next
    else:
        core.all_tx = tx.all_next
    if tx.all_next != NULL:
        tx.all_next.all_prev = tx.all_prev
    history_tx_ends(core, tx) # off the list, or it might be found there
    for i in range(tx.delta_count):
        domain_tidy(core, tx.delta[i].domid)
    tx_clear(core, tx)
    core.open_tx -= 1
    c.dom.transactions -= 1
    c.dom.tx_bytes -= tx.charged
    xs_mem_free(&core.mem, tx.account, tx, sizeof(Tx))


cdef void tx_abort_all(Conn *c) noexcept nogil:
    while c.tx != NULL:
        c.core.aborts += 1
        tx_free(c, c.tx)


cdef int op_transaction_start(Conn *c, const xs_header *h, Tx *tx) noexcept nogil:
    """TRANSACTION_START: a new id. O(1) in a tree of any size."""
    cdef Core *core = c.core
    cdef Domain *d = c.dom
    cdef uint32_t id = c.last_tx
    cdef int rc
    if tx != NULL:
        return XS_EBUSY
    if quota_applies(c) and not quota_allows(d, Q_TRANSACTIONS, d.transactions + 1):
        return XS_ENOSPC
    id += 1
    # Ids are reused after 2^32; as many tries as transactions are open, and one, will do.
    while id == 0 or tx_find(c, id) != NULL:
        id += 1
    tx = <Tx *>xs_mem_zalloc(&core.mem, &d.account, sizeof(Tx))
    if tx == NULL:
        return XS_ENOMEM
    rc = reply_number(c, h, id)
    if rc != XS_OK:
        xs_mem_free(&core.mem, &d.account, tx, sizeof(Tx))
        return rc
    tx.id = id
    tx.account = &d.account
    tx.base = xs_tree_share(core.top)
    tx.top = xs_tree_share(core.top)
    tx.start_ns = core.now
    tx.conn = c
    join(c, tx)
    c.last_tx = id
    tx.all_next = core.all_tx
    if core.all_tx != NULL:
        core.all_tx.all_prev = tx
    core.all_tx = tx
    history_tx_begins(core, tx)
    core.open_tx += 1
    d.transactions += 1
    quota_note(core, d, Q_TRANSACTIONS, d.transactions)
    return XS_OK


# ---- what it sees -------------------------------------------------------------------

cdef void tx_recharge(Conn *c, Tx *tx) noexcept nogil:
    """Charges what the transaction's records have grown by."""
    cdef int64_t bytes = <int64_t>(tx.seen.len + tx.log.len + tx.asked.len)
    if tx.replaying:
        return # a trial is over before anybody could pay
    if bytes != tx.charged:
        c.dom.tx_bytes += bytes - tx.charged
        tx.charged = bytes
        quota_note(c.core, c.dom, Q_MEMORY, quota_memory(c.dom))


cdef int tx_count_request(Conn *c, Tx *tx) noexcept nogil:
    """Counts a request against the transaction's limit; beyond it only an end is possible."""
    tx.requests += 1
    if not quota_applies(c):
        return XS_OK
    if not quota_allows(c.dom, Q_TRANSACTION_REQUESTS, <int64_t>tx.requests):
        tx.poisoned = True
        return XS_ENOSPC
    quota_note(c.core, c.dom, Q_TRANSACTION_REQUESTS, <int64_t>tx.requests)
    return XS_OK


cdef bint tx_affords(Conn *c, const Tx *tx, size_t bytes) noexcept nogil:
    """Whether the records of a transaction may grow by so much.

    Nothing but its own requests makes them smaller again, so a guest that went over its
    memory quota with them would wait for itself.
    """
    return not quota_applies(c) or quota_allows(
        c.dom, Q_MEMORY, quota_memory(c.dom) - tx.charged
        + <int64_t>(tx.seen.len + tx.log.len + tx.asked.len + bytes))


cdef int note(Conn *c, Tx *tx, uint32_t len, unsigned flags) noexcept nogil:
    """Adds the first `len` bytes of the current path to what was seen."""
    if (not tx_affords(c, tx, sizeof(xs_seen) + len + 7)
            and not xs_pathset_has(&tx.seen, c.core.path.buf, len)):
        return XS_ENOMEM
    return xs_pathset_add(&tx.seen, &c.core.mem, tx.account, c.core.path.buf, len, flags)


cdef int noted(Conn *c, Tx *tx, int rc) noexcept nogil:
    """Settles what noting has cost."""
    tx_recharge(c, tx)
    if rc != XS_OK or not quota_applies(c):
        return rc
    if not quota_allows(c.dom, Q_TRANSACTION_NODES, <int64_t>tx.seen.count):
        tx.poisoned = True
        return XS_ENOSPC
    quota_note(c.core, c.dom, Q_TRANSACTION_NODES, <int64_t>tx.seen.count)
    return XS_OK


cdef int tx_note(Conn *c, Tx *tx, const xs_found *found, unsigned flags) noexcept nogil:
    """Remembers that the transaction looked at the current path.

    When there is no node, the answer came from its nearest ancestor and from the absence of
    the first node that is missing below it, so both were seen. XS_OK, XS_ENOSPC, XS_ENOMEM.
    """
    cdef const char *p = c.core.path.buf
    cdef uint32_t len = c.core.path.len, end
    cdef int rc = note(c, tx, len, flags)
    if rc == XS_OK and found.node == NULL and found.near_len > 0:
        rc = note(c, tx, found.near_len, XS_SEEN_SELF)
        end = found.near_len + (0 if found.near_len == 1 else 1)
        while end < len and p[end] != b'/':
            end += 1
        if rc == XS_OK and end < len:
            rc = note(c, tx, end, XS_SEEN_SELF)
    return noted(c, tx, rc)


cdef int tx_note_creation(Conn *c, Tx *tx, uint32_t near_len) noexcept nogil:
    """Ancestors are created along with the node: they count as looked at."""
    cdef const char *p = c.core.path.buf
    cdef uint32_t end = near_len + (0 if near_len == 1 else 1), len = c.core.path.len
    cdef int rc = XS_OK
    while rc == XS_OK and end < len:
        if p[end] == b'/':
            rc = note(c, tx, end, 0)
        end += 1
    return noted(c, tx, rc)


cdef int tx_note_removal(Conn *c, Tx *tx) noexcept nogil:
    """A removal takes all there is below; its parent is counted, but was not looked at."""
    cdef int rc = note(c, tx, c.core.path.len, XS_SEEN_SELF | XS_SEEN_SUBTREE)
    if rc == XS_OK:
        rc = note(c, tx, xs_path_parent_len(&c.core.path), 0)
    return noted(c, tx, rc)


cdef int unchanged(Core *core, Tx *tx, cbool *same) noexcept nogil:
    """Whether the live tree would still show the transaction what it saw."""
    cdef const xs_seen *seen = xs_pathset_next(&tx.seen, NULL)
    cdef int rc = XS_OK
    same[0] = True
    while seen != NULL and same[0] and rc == XS_OK:
        xs_path_set(&core.path, seen.path, seen.len)
        if seen.flags & XS_SEEN_SUBTREE:
            rc = xs_tree_same_subtree(&core.tree, tx.base, core.top, &core.path, same)
        elif seen.flags != 0:
            same[0] = xs_tree_same(tx.base, core.top, &core.path,
                                   seen.flags & XS_SEEN_KIDS != 0)
        seen = xs_pathset_next(&tx.seen, seen)
    return rc


# ---- what it does -------------------------------------------------------------------

cdef int delta_reserve(Core *core, Tx *tx, size_t more) noexcept nogil:
    return xs_mem_grow(&core.mem, tx.account, <void **>&tx.delta, &tx.delta_cap,
                       tx.delta_count + more, sizeof(xs_tally))


cdef void delta_add(Tx *tx, const xs_tally *tally, size_t count) noexcept nogil:
    """Adds what a change means for quotas; room was reserved."""
    cdef size_t i, j
    for i in range(count):
        for j in range(tx.delta_count):
            if tx.delta[j].domid == tally[i].domid:
                tx.delta[j].nodes += tally[i].nodes
                tx.delta[j].bytes += tally[i].bytes
                break
        else:
            tx.delta[tx.delta_count] = tally[i]
            tx.delta_count += 1


cdef int tx_apply(Core *core, Tx *into, xs_node **top, unsigned op, const char *value,
                  uint32_t value_len) noexcept nogil:
    """Makes the prepared change of a private tree and counts it in `into`."""
    cdef int rc = quota_prepare_tally(core)
    if rc == XS_OK:
        rc = delta_reserve(core, into, core.tree.tally_count)
    if rc != XS_OK:
        xs_tree_abort(&core.tree)
        return rc
    delta_add(into, core.tree.tally, core.tree.tally_count)
    if core.tree.change.created > 0:
        into.created = True
    xs_tree_commit(&core.tree, value if op == XS_OP_WRITE else NULL)
    return XS_OK


cdef int prepare_again(Conn *c, xs_node **top, const xs_oprec *rec) noexcept nogil:
    """Prepares a logged change on another tree. The path is in core.path."""
    cdef Core *core = c.core
    cdef const char *data = rec.data + rec.path_len
    cdef xs_perms *perms
    cdef xs_found found
    cdef int rc
    rc = xs_tree_seek(&core.tree, top[0], &core.path, &found)
    if rc != XS_OK:
        return rc
    if rec.op == XS_OP_SET_PERMS:
        memcpy(core.perm, data, rec.data_len)
        rc = xs_perms_intern(&core.tree.perms, core.perm, rec.data_len // sizeof(xs_perm),
                             &perms)
        if rc == XS_OK:
            rc = xs_tree_prepare_perms(&core.tree, top, &core.path, perms)
            xs_perms_unref(&core.tree.perms, perms)
        return rc
    if rec.op == XS_OP_RM:
        return xs_tree_prepare_remove(&core.tree, top, &core.path)
    rc = creation_perms(c, found.near, &perms)
    if rc == XS_OK:
        rc = xs_tree_prepare_write(&core.tree, top, &core.path, perms,
                                   rec.data_len if rec.op == XS_OP_WRITE else 0)
        xs_perms_unref(&core.tree.perms, perms)
    return rc


cdef int merge(Conn *c, Tx *tx, Tx *into) noexcept nogil:
    """Applies the log to a copy of the live tree. Nothing that it depends on has changed."""
    cdef Core *core = c.core
    cdef const xs_oprec *rec = xs_oplog_next(&tx.log, NULL)
    cdef int rc = XS_OK
    into.top = xs_tree_share(core.top)
    while rec != NULL and rc == XS_OK:
        xs_path_set(&core.path, rec.data, rec.path_len)
        rc = prepare_again(c, &into.top, rec)
        if rc == XS_OK:
            rc = tx_apply(core, into, &into.top, rec.op, rec.data + rec.path_len, rec.data_len)
        rec = xs_oplog_next(&tx.log, rec)
    return rc


cdef int quota_prepare_delta(Core *core, const Tx *tx) noexcept nogil:
    """Makes sure that domains to be charged have an object: one may have died meanwhile."""
    cdef size_t i
    for i in range(tx.delta_count):
        if domain_get(core, tx.delta[i].domid) == NULL:
            return XS_ENOMEM
    return XS_OK


cdef void tx_doom(Core *core, uint32_t domid) noexcept nogil:
    """A domain is gone: transactions that set permissions for it can no longer commit.

    Otherwise a later domain of the same id would inherit them.
    """
    cdef Tx *tx = core.all_tx
    cdef const xs_oprec *rec
    cdef xs_perm entry
    cdef size_t i
    while tx != NULL:
        rec = xs_oplog_next(&tx.log, NULL)
        while rec != NULL:
            if rec.op == XS_OP_SET_PERMS:
                for i in range(rec.data_len // sizeof(xs_perm)):
                    memcpy(&entry, rec.data + rec.path_len + i * sizeof(xs_perm),
                           sizeof(xs_perm))
                    tx.doomed |= entry.domid == domid
            rec = xs_oplog_next(&tx.log, rec)
        tx = tx.all_next


cdef int check_quotas(Conn *c, const Tx *tx) noexcept nogil:
    """Whether a commit keeps every domain within its quotas. XS_OK, XS_ENOSPC, XS_ENOMEM."""
    cdef Core *core = c.core
    cdef size_t i
    cdef Domain *d
    cdef int64_t freed
    if not quota_applies(c) or not tx.created:
        return XS_OK
    for i in range(tx.delta_count):
        d = core.domains[tx.delta[i].domid]
        if (tx.delta[i].nodes > 0 and d.domid != core.priv_domid
                and not quota_allows(d, Q_NODES, d.nodes + tx.delta[i].nodes)):
            return XS_ENOSPC
        freed = tx.charged if d == c.dom else 0
        if (tx.delta[i].bytes > 0 and d.domid != core.priv_domid
                and not quota_allows(d, Q_MEMORY,
                                     quota_memory(d) + tx.delta[i].bytes - freed)):
            return XS_ENOMEM
    return XS_OK


cdef int tx_install(Core *core, Tx *tx, const Tx *ending, xs_node *fresh, Conn *requester,
                    const Conn *skip) noexcept nogil:
    """Makes a tree the live one, with the quotas and events of the log that led to it.

    `ending` is the transaction that ends with it, if any. Takes over the reference to `fresh`
    when it succeeds. XS_OK, XS_ENOMEM, or RC_WAIT when a transaction with priority must end
    first.
    """
    cdef xs_node *old = core.top
    cdef int rc
    if priority_breaks(core, requester, old, fresh):
        return RC_WAIT
    events_begin(core)
    rc = events_for_log(core, old, fresh, &tx.log, skip)
    if rc == XS_OK:
        rc = history_reserve(core, requester, ending)
    if rc != XS_OK:
        events_abort(core)
        return rc
    core.top = fresh
    history_commit(core, requester, ending, old)
    xs_tree_drop(&core.tree, old)
    quota_apply(core, tx.delta, tx.delta_count)
    events_publish(core, requester)
    core.commits += 1
    return XS_OK


cdef int install_other(Conn *c, Tx *tx, Tx *other) noexcept nogil:
    """Makes the view that was built at commit the live tree, and clears the rest of it."""
    cdef Core *core = c.core
    cdef int rc
    other.charged = tx.charged # freed with the transaction, whichever view becomes live
    rc = check_quotas(c, other)
    if rc == XS_OK:
        rc = tx_install(core, other, tx, other.top, c, NULL)
        if rc == XS_OK:
            other.top = NULL
    return rc


cdef int commit_merge(Conn *c, Tx *tx) noexcept nogil:
    """All that was seen is as it was: the changes are made again on the live tree."""
    cdef Core *core = c.core
    cdef Tx merged
    cdef int rc
    memset(&merged, 0, sizeof(merged))
    merged.account = tx.account
    merged.log = tx.log # borrowed
    rc = merge(c, tx, &merged)
    if rc == XS_OK:
        rc = install_other(c, tx, &merged)
    core.commits_merge += rc == XS_OK
    memset(&merged.log, 0, sizeof(merged.log))
    tx_clear(core, &merged)
    return rc


cdef int commit_replay(Conn *c, Tx *tx) noexcept nogil:
    """Something that was seen has moved: only if nothing would be answered otherwise."""
    cdef Core *core = c.core
    cdef Tx again
    cdef cbool same
    cdef int rc = replay(c, tx, core.top, &again, &same)
    if rc == XS_OK:
        rc = install_other(c, tx, &again) if same else XS_EAGAIN
    core.commits_replay += rc == XS_OK
    tx_clear(core, &again)
    return rc


cdef bint unlucky(Core *core) noexcept nogil:
    """One time in three, when clients are to be tested for repeating what failed."""
    if not core.test_eagain:
        return False
    core.dice = core.dice * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407
    return (core.dice >> 33) % 3 == 0


cdef void learn(Conn *c, Tx *tx) noexcept nogil:
    """Counts failures in a row; what a transaction saw tells what its next try will see."""
    cdef Core *core = c.core
    if core.priority_after == 0:
        return
    c.failures += 1
    tx.failed = True
    xs_pathset_free(&c.foreseen, &core.mem, &c.dom.account)
    if c.failures >= core.priority_after:
        c.foreseen = tx.seen
        memset(&tx.seen, 0, sizeof(tx.seen))


cdef void forget_failures(Conn *c) noexcept nogil:
    """A transaction has succeeded: nothing is foreseen any more, wherever the row has ended."""
    c.failures = 0
    if c.foreseen.count > 0:
        xs_pathset_free(&c.foreseen, &c.core.mem, &c.dom.account)


cdef int commit(Conn *c, Tx *tx) noexcept nogil:
    """Tries the cheapest way that is right; see the top of this file."""
    cdef Core *core = c.core
    cdef cbool same = False
    cdef xs_node *fresh
    cdef int rc
    if tx.poisoned:
        return XS_ENOMEM
    if tx.log.count == 0:
        return XS_OK
    if tx.doomed or unlucky(core):
        core.conflicts += 1
        return XS_EAGAIN
    if quota_prepare_delta(core, tx) != XS_OK:
        return XS_ENOMEM
    rc = check_quotas(c, tx)
    if rc != XS_OK:
        return rc
    if core.top == tx.base:
        fresh = xs_tree_share(tx.top)
        rc = tx_install(core, tx, tx, fresh, c, NULL)
        if rc != XS_OK:
            xs_tree_drop(&core.tree, fresh)
        core.commits_swap += rc == XS_OK
        return rc
    if core.merge_on:
        rc = unchanged(core, tx, &same)
        if rc != XS_OK:
            return rc
    rc = commit_merge(c, tx) if same else commit_replay(c, tx)
    if rc == XS_EAGAIN:
        core.conflicts += 1
        if history_conflict(c, tx):
            learn(c, tx)
    return rc


cdef int op_transaction_end(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil:
    """TRANSACTION_END T or F: the transaction is gone afterwards, whatever the answer."""
    cdef int rc = XS_OK
    if (p[0] != b'T' and p[0] != b'F') or p[1] != 0:
        return XS_EINVAL
    if tx == NULL:
        return XS_ENOENT
    if p[0] == b'T':
        rc = commit(c, tx)
        if rc == RC_WAIT:
            priority_hold(c)
            return RC_WAIT
        if rc == XS_OK and tx.log.count > 0 and c.core.open_tx > 1:
            write_rate_charge(c, 1)
        if rc == XS_OK and tx.log.count > 0: # reading alone always succeeds
            forget_failures(c)
    else:
        c.core.aborts += 1
    tx_free(c, tx)
    if rc == XS_OK:
        reply_ok(c, h)
    return rc
