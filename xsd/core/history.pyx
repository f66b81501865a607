# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The recent past, and what follows from a conflict: who is to blame, who is charged, who is
given priority.

Every commit that changed something is counted while transactions are open, and its author is
remembered. Commits of guests are also recorded, with the tree before and after, as long as a
transaction that is young enough to be protected might fail because of them. Sockets and the
privileged domain are free to conflict: their commits are never recorded, so they are never
blamed.

Commits of one author that follow each other, with no commit of others and no start of a
transaction between them, share one record: nobody could tell them apart, and whoever writes
all the time does not fill the history.

A transaction that fails asks, newest first, each record since its start, of others than its own
connection and of authors not blamed yet: did this commit change anything I saw (stamps), and
if so, would I have been answered as I was before it, but not after it (trial)? Whoever is found
so is charged one point. The work is bounded: at most BLAME_RECORDS records are looked at, with
BLAME_TRIALS trials. If what is older than those has made a difference as well, one who is to
blame for that is found by halving, so that nobody can hide behind the number of his commits.

Priority. A connection whose transactions have failed several times in a row gets priority for
its next one: until that one ends, and for a bounded time at most, commits of others that would
change what it saw, now or when it failed last, are held back: their requests wait, and nobody
is charged. Nobody is held back for somebody less privileged.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from xsd.core.connection cimport conn_wake
from xsd.core.credit cimport credit_charge
from xsd.core.cxs cimport (
    XS_OK, XS_SEEN_KIDS, XS_SEEN_SELF, XS_SEEN_SUBTREE, cbool, xs_author, xs_commit, xs_found,
    xs_history_author, xs_history_count, xs_history_extend, xs_history_forget, xs_history_record,
    xs_history_reserve, xs_mem_alloc, xs_mem_free, xs_mem_zalloc, xs_node, xs_path_set,
    xs_perms_access,
    xs_pathset, xs_pathset_free, xs_pathset_next, xs_seen, xs_tree_find, xs_tree_same,
    xs_tree_same_subtree, xs_tree_share)
from xsd.core.effects cimport effect_log
from xsd.core.quota cimport quota_applies
from xsd.core.replay cimport replay
from xsd.core.transaction cimport tx_clear
from xsd.core.types cimport BLAMES, Blame, CONN_RING, Conn, Core, Domain, Tx

cdef enum:
    BLAME_RECORDS = 512         # looked at one by one per failed commit
    BLAME_TRIALS = 32           # replays for those
    BLAME_MOVED = 16            # paths whose change is looked for first
    FORGET = 256                # records forgotten at a time: 50 us

cdef int64_t FORGET_PACE_NS = 1_000_000 # between two such portions

cdef int64_t SUMMARY_NS = 120_000_000_000


# ---- recording -----------------------------------------------------------------------

cdef bint history_wanted(const Core *core, const Tx *ending) noexcept nogil:
    """Whether a transaction, other than the one that is ending, is young enough to ask."""
    return core.young != NULL and (core.young != ending or ending.all_prev != NULL)


cdef bint recorded(const Conn *c) noexcept nogil:
    return c != NULL and c.kind == CONN_RING and not c.privileged


cdef int history_reserve(Core *core, const Conn *c, const Tx *ending) noexcept nogil:
    """Makes sure that a commit can be recorded, if it will be. XS_OK or XS_ENOMEM."""
    if not recorded(c) or not history_wanted(core, ending):
        return XS_OK
    return xs_history_reserve(&core.history)


cdef void history_commit(Core *core, const Conn *c, const Tx *ending, xs_node *before) noexcept nogil:
    """A commit has taken effect; `before` was the top until then. Borrowed."""
    cdef xs_author author
    cdef const xs_commit *last
    if core.all_tx == NULL:
        return
    memset(&author, 0, sizeof(author))
    author.stamp = core.tree.stamp
    author.when_ns = core.now
    if c != NULL:
        author.owner = c.watches.id
        author.conn = c.id
        author.domid = c.domid
    if ending != NULL:
        author.tx = ending.id
    xs_history_count(&core.history, &author)
    if not recorded(c) or not history_wanted(core, ending):
        return
    last = core.history.newest
    if (last != NULL and last.author.owner == author.owner
            and last.number + 1 == core.history.number
            and core.all_tx.start_commit < last.number):
        xs_history_extend(&core.history, &author, xs_tree_share(core.top))
        return
    core.tick_wanted |= core.history.count == 0 # for somebody must forget it
    xs_history_record(&core.history, &author, xs_tree_share(before), xs_tree_share(core.top))


cdef uint64_t useless(const Core *core) noexcept nogil:
    """The number of the last commit that no protected transaction can ask for."""
    return <uint64_t>-1 if core.young == NULL else core.young.start_commit


cdef void history_trim(Core *core) noexcept nogil:
    """Forgets what no protected transaction can ask for, or a portion of it.

    With a portion per end of a transaction and one per pace of the clock, nobody pays for the
    whole history, and it goes faster than it can have come.
    """
    while core.young != NULL and core.young.start_ns + core.credit_period_ns < core.now:
        core.young = core.young.all_prev
    if core.history.count == 0:
        return
    if xs_history_forget(&core.history, useless(core), FORGET):
        core.tick_wanted = True


cdef int64_t history_deadline(const Core *core) noexcept nogil:
    """When records will have outlived their use, or -1 when there are none."""
    if core.history.count == 0:
        return -1
    if core.history.oldest.number <= useless(core):
        return core.now + FORGET_PACE_NS
    return core.young.start_ns + core.credit_period_ns + 1


cdef void history_tx_begins(Core *core, Tx *tx) noexcept nogil:
    tx.start_commit = core.history.number
    if core.young == NULL:
        core.young = tx
    if (core.priority_after > 0 and tx.conn.failures >= core.priority_after
            and priority_free(core, tx.conn)):
        priority_release(core)
        core.priority = tx
        tx.hold_until = core.now + core.priority_hold_ns
        core.tick_wanted = True


cdef void history_tx_ends(Core *core, Tx *tx) noexcept nogil:
    if core.young == tx:
        core.young = tx.all_prev
    if core.priority == tx:
        core.priority = NULL
        priority_release(core)
    if tx.held_others and (core.now >= tx.hold_until or not tx.failed):
        tx.conn.failures = 0 # its turn has been used up: priority must be earned anew
    history_trim(core)


# ---- what was seen ---------------------------------------------------------------------

cdef bint sees_change(Core *core, const xs_seen *seen, xs_node *before,
                      xs_node *after) noexcept nogil:
    """Whether one path that was seen is different in two trees. Without memory: yes."""
    cdef cbool same = True
    if seen.flags == 0:
        return False
    xs_path_set(&core.other, seen.path, seen.len)
    if seen.flags & XS_SEEN_SUBTREE:
        if xs_tree_same_subtree(&core.tree, before, after, &core.other, &same) != XS_OK:
            return True
        return not same
    return not xs_tree_same(before, after, &core.other, seen.flags & XS_SEEN_KIDS != 0)


cdef const xs_seen *first_change(Core *core, const xs_pathset *set, xs_node *before,
                                 xs_node *after) noexcept nogil:
    cdef const xs_seen *seen = xs_pathset_next(set, NULL)
    while seen != NULL and not sees_change(core, seen, before, after):
        seen = xs_pathset_next(set, seen)
    return seen


# ---- blame -----------------------------------------------------------------------------

cdef bint explain(Conn *c, Tx *tx) noexcept nogil:
    """Notes which node made the difference and who changed it last.

    Returns whether that was, as far as is known, somebody else.
    """
    cdef Core *core = c.core
    cdef const xs_seen *seen = first_change(core, &tx.seen, tx.base, core.top)
    cdef const xs_author *author = NULL
    cdef xs_found found
    cdef uint64_t stamp
    cdef Blame *b
    if core.blames == NULL:
        core.blames = <Blame *>xs_mem_zalloc(&core.mem, NULL, BLAMES * sizeof(Blame))
        if core.blames == NULL:
            return True
    b = &core.blames[core.blame_count % BLAMES]
    xs_mem_free(&core.mem, NULL, b.path, b.path_len)
    memset(b, 0, sizeof(Blame))
    core.blame_count += 1
    b.when_ns = core.now
    b.conn = c.id
    b.domid = c.domid
    b.tx = tx.id
    if seen == NULL:
        return True
    b.seen = seen.flags
    b.path = <char *>xs_mem_alloc(&core.mem, NULL, seen.len)
    if b.path != NULL:
        b.path_len = seen.len
        memcpy(b.path, seen.path, seen.len)
    xs_path_set(&core.other, seen.path, seen.len)
    xs_tree_find(core.top, &core.other, &found)
    # A node that has gone left its mark on the children of what remains.
    stamp = found.near.kids_stamp
    if found.node != NULL and found.node.stamp > stamp:
        stamp = found.node.stamp
    if found.node != NULL and not seen.flags & (XS_SEEN_KIDS | XS_SEEN_SUBTREE):
        stamp = found.node.stamp
    author = xs_history_author(&core.history, stamp)
    if author != NULL:
        b.known = True
        b.culprit = author[0]
    return author == NULL or author.owner != c.watches.id


cdef enum:
    UNKNOWN = -1  # memory ran out: nobody is charged for that

# One failed commit being looked into.
cdef struct Case:
    Conn *conn
    Tx *tx
    const xs_seen *moved[BLAME_MOVED] # what was seen and has changed since
    uint32_t moved_count              # more than BLAME_MOVED: too many to list
    uint64_t owners[BLAME_TRIALS]     # who is guilty
    uint32_t guilty
    uint32_t trials
    const xs_node *tried              # the tree of the last trial, and what it showed
    int alike


cdef bint touches(Core *core, const Case *q, const xs_commit *record) noexcept nogil:
    """Whether a commit changed anything that was seen and is now different."""
    cdef uint32_t i
    if q.moved_count > BLAME_MOVED:
        return first_change(core, &q.tx.seen, record.before, record.after) != NULL
    for i in range(q.moved_count):
        if sees_change(core, q.moved[i], record.before, record.after):
            return True
    return False


cdef void case_open(Core *core, Case *q, Conn *c, Tx *tx) noexcept nogil:
    cdef const xs_seen *seen = xs_pathset_next(&tx.seen, NULL)
    memset(q, 0, sizeof(Case))
    q.conn = c
    q.tx = tx
    q.tried = core.top # where it has just failed
    while seen != NULL and q.moved_count <= BLAME_MOVED:
        if sees_change(core, seen, tx.base, core.top):
            if q.moved_count < BLAME_MOVED:
                q.moved[q.moved_count] = seen
            q.moved_count += 1
        seen = xs_pathset_next(&tx.seen, seen)


cdef int alike(Case *q, xs_node *root) noexcept nogil:
    """Whether the transaction would be answered on this tree as it was: 1, 0 or UNKNOWN.

    Neighbours in the history share trees, so the last result is kept.
    """
    cdef Tx again
    cdef cbool same = False
    cdef int rc
    if q.tried == root:
        return q.alike
    q.trials += 1
    rc = replay(q.conn, q.tx, root, &again, &same)
    tx_clear(q.conn.core, &again)
    q.tried = root
    q.alike = UNKNOWN if rc != XS_OK else same
    return q.alike


cdef bint charged(const Case *q, uint64_t owner) noexcept nogil:
    cdef uint32_t i
    for i in range(q.guilty):
        if q.owners[i] == owner:
            return True
    return False


cdef void judge(Core *core, Case *q, const xs_commit *record) noexcept nogil:
    """Charges a commit's author if the answers were the same right before it, but not after."""
    cdef Domain *d
    if (record.author.owner == q.conn.watches.id or charged(q, record.author.owner)
            or q.guilty == BLAME_TRIALS or not touches(core, q, record)):
        return
    if alike(q, record.after) != 0 or alike(q, record.before) != 1:
        return
    q.owners[q.guilty] = record.author.owner
    q.guilty += 1
    d = core.domains[record.author.domid]
    effect_log(core, True, b"domain %lld is to blame, commit %lld", record.author.domid,
               <int64_t>record.number, 0)
    if core.blames != NULL and core.blame_count > 0:
        core.blames[(core.blame_count - 1) % BLAMES].guilty = True
    if d != NULL and d.conn != NULL and d.conn.watches.id == record.author.owner:
        credit_charge(core, d)


cdef void halve(Core *core, Case *q, const xs_commit *newest) noexcept nogil:
    """Finds one record, up to `newest`, with which the answers changed, if they have by then.

    Two trials per doubling of their number.
    """
    cdef const xs_commit *first = newest
    cdef const xs_commit *middle
    cdef size_t count = 1, half, i
    if alike(q, newest.after) != 0:
        return
    while first.older != NULL and first.older.number > q.tx.start_commit:
        first = first.older
        count += 1
    while count > 1:
        half = count // 2
        middle = first
        for i in range(half):
            middle = middle.newer
        if alike(q, middle.before) == 1:
            first = middle
            count -= half
        else:
            count = half
    judge(core, q, first)


cdef bint history_conflict(Conn *c, Tx *tx) noexcept nogil:
    """A transaction has failed: explains it, finds all whose commits made the difference.

    Returns whether somebody else was in the way: a connection's own doing earns no priority.
    """
    cdef Core *core = c.core
    cdef const xs_commit *record
    cdef uint32_t looked = 0
    cdef bint others
    cdef Case q
    history_trim(core)
    history_summary(core)
    core.failed += 1
    if core.summary_ns < 0:
        core.summary_ns = core.now
        core.tick_wanted = True
    c.dom.suffered += 1
    others = explain(c, tx)
    effect_log(core, True, b"connection %lld: transaction %lld of domain %lld conflicts", c.id,
               tx.id, c.domid)
    case_open(core, &q, c, tx)
    record = core.history.newest
    while (record != NULL and record.number > tx.start_commit and looked < BLAME_RECORDS
            and q.trials < BLAME_TRIALS):
        looked += 1
        judge(core, &q, record)
        record = record.older
    if record != NULL and record.number > tx.start_commit:
        halve(core, &q, record)
    if q.guilty == 0:
        core.failed_alone += 1
        effect_log(core, True, b"connection %lld: nobody is to blame", c.id, 0, 0)
    return others or q.guilty > 0


cdef int64_t history_summary_deadline(const Core *core) noexcept nogil:
    """When the log is to be told, or -1 when there is nothing to tell."""
    return -1 if core.summary_ns < 0 else core.summary_ns + SUMMARY_NS


cdef void history_summary(Core *core) noexcept nogil:
    """Tells the log what has happened, once per two minutes at most."""
    cdef Domain *d = core.domain_list
    if core.summary_ns < 0 or core.now - core.summary_ns < SUMMARY_NS:
        return
    effect_log(core, False, b"conflicts of the last %lld s: %lld transactions failed, %lld of "
               b"them without a culprit", (core.now - core.summary_ns) // 1_000_000_000,
               <int64_t>core.failed, <int64_t>core.failed_alone)
    while d != NULL:
        if d.caused_lately > 0:
            effect_log(core, False, b"Dom%lld caused %lld conflicts", d.domid,
                       <int64_t>d.caused_lately, 0)
            d.caused_lately = 0
        d = d.next
    core.failed = core.failed_alone = 0
    core.summary_ns = -1


cdef void blames_free(Core *core) noexcept nogil:
    cdef int i
    if core.blames == NULL:
        return
    for i in range(BLAMES):
        xs_mem_free(&core.mem, NULL, core.blames[i].path, core.blames[i].path_len)
    xs_mem_free(&core.mem, NULL, core.blames, BLAMES * sizeof(Blame))
    core.blames = NULL


# ---- priority --------------------------------------------------------------------------

cdef bint priority_free(const Core *core, const Conn *c) noexcept nogil:
    """Whether a connection may have priority: one at a time, and nobody keeps it by waiting."""
    cdef const Tx *tx = core.priority
    return (tx == NULL or core.now >= tx.hold_until
            or (quota_applies(tx.conn) and not quota_applies(c)))


cdef bint priority_breaks(Core *core, const Conn *c, xs_node *before,
                          xs_node *after) noexcept nogil:
    """Whether a commit must wait because it would break the transaction with priority."""
    cdef Tx *tx = core.priority
    if tx == NULL or tx.conn == c or core.now >= tx.hold_until:
        return False
    if quota_applies(tx.conn) and not quota_applies(c):
        return False # nobody waits for somebody less privileged
    if c.hold_until != 0 and core.now >= c.hold_until:
        return False # nor for one after the other
    return (first_change_for(core, tx.conn, &tx.seen, before, after)
            or first_change_for(core, tx.conn, &tx.conn.foreseen, before, after))


cdef bint has_rights(Core *core, const Conn *c, const xs_seen *seen, xs_node *top) noexcept nogil:
    cdef xs_found found
    if c.privileged or not core.perms_on:
        return True
    xs_path_set(&core.other, seen.path, seen.len)
    xs_tree_find(top, &core.other, &found)
    return xs_perms_access(found.near.perms, c.domid, c.target) != 0


cdef bint first_change_for(Core *core, const Conn *c, const xs_pathset *set, xs_node *before,
                           xs_node *after) noexcept nogil:
    """Whether anything has changed that it saw and has a right to.

    Asking for what it may not see is kept as well, but must not hold anybody up.
    """
    cdef const xs_seen *seen = xs_pathset_next(set, NULL)
    while seen != NULL:
        if sees_change(core, seen, before, after) and (
                has_rights(core, c, seen, before) or has_rights(core, c, seen, after)):
            return True
        seen = xs_pathset_next(set, seen)
    return False


cdef void priority_hold(Conn *c) noexcept nogil:
    """Keeps a connection's request back until the transaction with priority has ended."""
    cdef Conn **link = &c.core.held
    cdef Core *core = c.core
    core.holds += 1
    core.priority.held_others = True
    if c.hold_until == 0:
        c.hold_until = core.now + core.priority_hold_ns
    c.held = True
    c.held_next = NULL
    while link[0] != NULL: # they go on in the order in which they came
        link = &link[0].held_next
    link[0] = c
    core.tick_wanted = True


cdef void priority_release(Core *core) noexcept nogil:
    """Everybody who was held back may go on."""
    cdef Conn *c
    while core.held != NULL:
        c = core.held
        core.held = c.held_next
        c.held = False
        conn_wake(c)


cdef int64_t priority_deadline(Core *core) noexcept nogil:
    """Lets those go on who have been held back long enough. When to come back, or -1."""
    cdef Conn **link = &core.held
    cdef Conn *c
    cdef int64_t next = -1
    if core.held == NULL:
        return -1
    if core.now >= core.priority.hold_until: # who is held waits for somebody
        priority_release(core)
        return -1
    next = core.priority.hold_until
    while link[0] != NULL:
        c = link[0]
        if core.now >= c.hold_until:
            link[0] = c.held_next
            c.held = False
            conn_wake(c)
            continue
        if c.hold_until < next:
            next = c.hold_until
        link = &c.held_next
    return next
