# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The engine: events in, bytes and effects out.

It is a function of its events. It reads no clock, has no randomness and does no I/O: `now`
and a seed are arguments. The same events give the same bytes and the same state.

    open       a connection comes             received   bytes have come
    tick       time has passed                complete   an effect has been carried out
    close      a connection has gone          domain_*   the hypervisor has news of a domain

Everything between "bytes have come" and "bytes to send" runs without the interpreter.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from xsd.core.connection cimport (
    conn_close, conn_get, conn_open, conn_owe, conn_pay, conn_sent, conn_wake, next_dirty,
    next_runnable, reply, reply_error)
from xsd.core.credit cimport credit_reset, credit_tick
from xsd.core.cxs cimport (
    XS_ENOMEM, XS_ERROR_COUNT, XS_OK, xs_history_destroy, xs_history_init,
    XS_DOMID_FIRST_RESERVED, xs_error_from_name, xs_error_name, xs_found, xs_mem_alloc,
    xs_mem_free, xs_mem_init, xs_node, xs_node_size, xs_outq_bytes, xs_outq_release,
    xs_outq_reserve, xs_path_set, xs_perm, xs_perms, xs_perms_intern, xs_perms_unref,
    xs_tree_collect, xs_tree_commit, xs_tree_destroy, xs_tree_drop, xs_tree_init, xs_tree_new,
    xs_tree_prepare_perms, xs_tree_prepare_write, xs_tree_seek, xs_walk, xs_walk_end,
    xs_walk_next, xs_walk_start, xs_watches_destroy, xs_watches_init)
from xsd.core.domain cimport domain_get
from xsd.core.effects cimport effect_find, effect_next, effect_remove, effects_free
from xsd.core.history cimport (
    blames_free, history_deadline, history_summary, history_summary_deadline, history_trim,
    priority_deadline)
from xsd.core.inventory cimport (
    tree_of, counts_of, peaks_of, domain_peaks_of, watches_of, transactions_of,
    conflict_figures_of, conflicts_of, connections_of, counters_of)
from xsd.core.lifecycle cimport (
    complete_domain, complete_introduce, deaths_retry, domain_died, domain_was_shut_down,
    introduce)
from xsd.core.quota cimport quota_find, quota_name
from xsd.core.request cimport RX_SIZE, engine_close, engine_received, engine_rx_space
from xsd.core.state cimport state_check, state_hash
from xsd.core.types cimport (
    CONN_RING, CONN_SOCKET, Conn, Core, Domain, EFFECT_CONTROL, EFFECT_LOG, EFFECT_DOMAIN,
    EFFECT_INTRODUCE, EFFECT_NOTICE, EFFECT_RELEASE, Effect, Q_COUNT, RX_CLOSE, RX_DIRTY,
    RX_EFFECTS, RX_MORE, RX_PAUSE, RX_TICK)
from xsd.core.watches cimport events_expire
from xsd.core.writerate cimport write_rate_tick

cdef extern from "malloc.h" nogil:
    int malloc_trim(size_t pad)
    int mallopt(int param, int value)
    int M_MXFAST

# Small blocks are joined with their neighbours as they are freed. Otherwise all of a large tree
# that was removed would be, at once, by whoever asks for a large block next: milliseconds.
mallopt(M_MXFAST, 0)

cdef enum:
    COLLECT_TICK = 1024    # dead nodes and blocks freed with each tick: below a millisecond
    PACE_NS = 1_000_000    # between two such portions, so that clients get the processor
    RETRY_NS = 10_000_000  # how soon to come back when memory ran out for a clean-up


cdef int64_t sooner(int64_t a, int64_t b) noexcept nogil:
    """The earlier of two times, -1 being never."""
    return a if b < 0 or (a >= 0 and a < b) else b


# ---- the class -----------------------------------------------------------------------

EFFECT_NAMES = ("domain", "introduce", "release", "control", "notice", "log")

DIRTY = RX_DIRTY
EFFECTS = RX_EFFECTS
PAUSE = RX_PAUSE
MORE = RX_MORE
CLOSE = RX_CLOSE
TICK = RX_TICK

ERROR_NAMES = tuple(xs_error_name(i).decode() for i in range(XS_ERROR_COUNT))

SOCKET = CONN_SOCKET
RING = CONN_RING


cdef dict initial_quotas():
    return {"nodes": 1000, "watches": 128, "outstanding": 20, "memory": 2621440,
            "transactions": 10, "transaction-nodes": 1024, "node-permissions": 5,
            "path-max": 2048, "node-size": 2048, "transaction-requests": 1024,
            "watch-events": 1024,
            "soft-memory": 2097152}


cdef class Engine:
    """A store with its connections. Not thread safe; times are nanoseconds."""

    def __cinit__(self, uint64_t seed=0, uint32_t priv_domid=0, uint32_t store_domid=0):
        cdef Core *core = <Core *>calloc(1, sizeof(Core))
        cdef str name
        if core == NULL:
            raise MemoryError
        self.core = core
        xs_mem_init(&core.mem)
        core.priv_domid = priv_domid
        core.store_domid = store_domid
        core.quota_on = core.perms_on = core.event_perms_on = True
        core.event_timeout_ns = 20_000_000_000
        core.merge_on = core.conflict_on = core.credit_aggregate = True
        core.credit_limit = 5.0
        core.credit_period_ns = 50_000_000
        core.summary_ns = core.write_mark = -1
        core.priority_after = 8
        core.priority_hold_ns = 200_000_000
        core.write_rate = 200
        core.write_burst = 10
        core.write_global = 1000
        core.write_newcomers = 5
        core.dice = seed
        core.socket_output_max = 64 << 20
        core.rx = <char *>xs_mem_alloc(&core.mem, NULL, RX_SIZE + 64)
        if (core.rx == NULL or xs_tree_init(&core.tree, &core.mem) != XS_OK
                or xs_watches_init(&core.watches, &core.mem, seed) != XS_OK):
            raise MemoryError
        xs_history_init(&core.history, &core.tree)
        for name, value in initial_quotas().items():
            self.set_quota(name, value)
        self.plant()

    cdef int plant(self) except -1:
        """Creates the initial tree."""
        cdef Core *core = self.core
        cdef xs_perm[2] entry
        cdef xs_perms *perms
        cdef xs_perms *release
        cdef xs_found found
        cdef Domain *d
        entry[0].access = 0
        entry[0].flags = 0
        entry[0].domid = <unsigned short>core.priv_domid
        entry[1].access = 1
        entry[1].flags = 0
        entry[1].domid = 32757
        for domid in {core.priv_domid, core.store_domid}:
            d = domain_get(core, domid)
            if d == NULL:
                raise MemoryError
            d.exists = d.introduced = True
        if (xs_perms_intern(&core.tree.perms, entry, 1, &perms) != XS_OK
                or xs_perms_intern(&core.tree.perms, entry, 2, &release) != XS_OK
                or xs_tree_new(&core.tree, perms, &core.top) != XS_OK):
            raise MemoryError
        # The root and both special nodes stand already; they are charged with the rest.
        self.grow(b"/tool/xenstored", perms)
        xs_path_set(&core.path, b"@releaseDomain", 14)
        if xs_tree_seek(&core.tree, core.top, &core.path, &found) != XS_OK:
            raise MemoryError
        if xs_tree_prepare_perms(&core.tree, &core.top, &core.path, release) != XS_OK:
            raise MemoryError
        xs_tree_commit(&core.tree, NULL)
        xs_perms_unref(&core.tree.perms, perms)
        xs_perms_unref(&core.tree.perms, release)
        self.recount()
        return 0

    cdef int grow(self, bytes path, xs_perms *perms) except -1:
        cdef Core *core = self.core
        cdef xs_found found
        xs_path_set(&core.path, PyBytes_AS_STRING(path), len(path))
        if xs_tree_seek(&core.tree, core.top, &core.path, &found) != XS_OK:
            raise MemoryError
        if xs_tree_prepare_write(&core.tree, &core.top, &core.path, perms, 0) != XS_OK:
            raise MemoryError
        xs_tree_commit(&core.tree, b"")
        return 0

    cdef int recount(self) except -1:
        """Charges the privileged domain with the tree as it stands."""
        cdef Core *core = self.core
        cdef Domain *d = core.domains[core.priv_domid]
        cdef xs_walk w
        cdef xs_node *n
        cdef int rc
        xs_walk_start(&w, &core.tree, core.top, NULL, 0)
        while True:
            n = xs_walk_next(&w)
            if n == NULL:
                break
            d.nodes += 1
            d.node_bytes += <int64_t>xs_node_size(n) + w.path.len
        rc = w.error
        xs_walk_end(&w)
        if rc != XS_OK:
            raise MemoryError
        return 0

    def __dealloc__(self):
        cdef Core *core = self.core
        cdef size_t i
        cdef Domain *d
        if core == NULL:
            return
        for i in range(core.conn_cap):
            if core.conns[i] != NULL:
                conn_close(core.conns[i])
        effects_free(core)
        blames_free(core)
        if core.history.tree != NULL:
            xs_history_destroy(&core.history)
        xs_tree_drop(&core.tree, core.top)
        if core.watches.points != NULL:
            xs_watches_destroy(&core.watches)
        xs_tree_destroy(&core.tree)
        while core.domain_list != NULL:
            d = core.domain_list
            core.domain_list = d.next
            xs_mem_free(&core.mem, NULL, d, sizeof(Domain))
        xs_mem_free(&core.mem, NULL, core.conns, core.conn_cap * sizeof(Conn *))
        xs_mem_free(&core.mem, NULL, core.free_ids, core.free_cap * sizeof(uint32_t))
        xs_mem_free(&core.mem, NULL, core.pending, core.pending_cap * sizeof(core.pending[0]))
        xs_mem_free(&core.mem, NULL, core.points, core.points_cap * sizeof(core.points[0]))
        xs_mem_free(&core.mem, NULL, core.access, core.access_cap)
        xs_mem_free(&core.mem, NULL, core.rx, RX_SIZE + 64)
        free(core)

    cdef Conn *conn(self, uint32_t id) except NULL:
        cdef Conn *c = conn_get(self.core, id)
        if c == NULL:
            raise KeyError(f"no connection {id}")
        return c

    # -- events

    def open(self, int64_t now, int kind, uint32_t domid, int64_t pid=-1, int64_t uid=-1):
        """A connection comes: SOCKET or RING, of a domain. Returns its id.

        Raises MemoryError, and ValueError for a domid above 65535.
        """
        cdef Conn *c
        if domid > 65535:
            raise ValueError(f"domid {domid}: expected 0 to 65535")
        self.core.now = now
        c = conn_open(self.core, kind, domid)
        if c == NULL:
            raise MemoryError
        c.pid = pid
        c.uid = uid
        return c.id

    def close(self, int64_t now, uint32_t id):
        """A connection has gone: what it had goes with it. Raises KeyError."""
        engine_close(self.conn(id), now)

    def feed(self, int64_t now, uint32_t id, bytes data, int budget=1 << 30):
        """Bytes have come on a connection. Returns the bits DIRTY, EFFECTS, PAUSE, MORE, CLOSE.

        Raises KeyError, and BlockingIOError when not all could be taken: what is behind the
        first `characters_written` bytes must be fed again when it is runnable.
        """
        cdef Conn *c = self.conn(id)
        cdef const char *p = PyBytes_AS_STRING(data)
        cdef size_t n = len(data), done = 0, room
        cdef int flags = 0
        while True:
            at = engine_rx_space(c, &room)
            room = min(room, n - done)
            memcpy(at, p + done, room)
            flags = engine_received(c, now, room, budget)
            done += room - c.unread
            if done == n or flags & (PAUSE | CLOSE):
                break
        if done < n and not flags & CLOSE:
            raise BlockingIOError(
                EAGAIN, f"connection {id} is paused with {n - done} bytes to come", done)
        return flags

    def take(self, uint32_t id, size_t most=1 << 30):
        """Takes up to `most` bytes of a connection's output. Raises KeyError."""
        cdef Conn *c = self.conn(id)
        cdef size_t n = min(most, xs_outq_bytes(&c.out))
        cdef bytes data = PyBytes_FromStringAndSize(c.out.buf + c.out.head, n) if n else b""
        conn_sent(c, n)
        return data

    def tick(self, int64_t now):
        """Time has passed. Returns when to be called again at the latest, or None."""
        cdef Core *core = self.core
        cdef int64_t next
        cdef size_t i
        core.now = now
        next = events_expire(core) if core.aging != NULL else -1
        deaths_retry(core)
        history_trim(core)
        history_summary(core)
        next = sooner(next, priority_deadline(core))
        next = sooner(next, credit_tick(core))
        next = sooner(next, history_deadline(core))
        next = sooner(next, history_summary_deadline(core))
        next = sooner(next, write_rate_tick(core))
        if core.starved and now >= core.retry_ns: # at once would be to go round in circles
            core.starved = False
            for i in range(core.conn_cap):
                if core.conns[i] != NULL and core.conns[i].starved:
                    core.conns[i].starved = False
                    conn_pay(core.conns[i])
                    conn_wake(core.conns[i])
        if xs_tree_collect(&core.tree, COLLECT_TICK) and (next < 0 or next > now + PACE_NS):
            next = now + PACE_NS
        if core.deaths_due > 0:
            next = sooner(next, now + RETRY_NS)
        if core.starved:
            next = sooner(next, core.retry_ns)
        return None if next < 0 else next

    def next_dirty(self):
        """The id of a connection that has gained output, or -1. Each is told once."""
        cdef Conn *c = next_dirty(self.core)
        return -1 if c == NULL else c.id

    def next_runnable(self):
        """The id of a paused connection that may go on: feed it, if only b"". Or -1."""
        cdef Conn *c = next_runnable(self.core)
        return -1 if c == NULL else c.id

    def next_effect(self):
        """What Python is asked to do: (id, kind, connection id or -1, arguments), or None.

        Kinds and arguments: "domain" (domid), "introduce" (domid, gfn, port), "control"
        (payload), which want a completion; "release" (domid), "notice" (domid, quota name,
        whether it is over), "log" (text, whether it is a detail), which do not.
        """
        cdef Effect *e = effect_next(self.core)
        if e == NULL:
            return None
        conn = -1 if e.conn == 0xffffffff else <int>e.conn
        if e.kind == EFFECT_DOMAIN:
            args = (e.domid,)
        elif e.kind == EFFECT_INTRODUCE:
            args = (e.domid, e.gfn, e.port)
        elif e.kind == EFFECT_CONTROL:
            args = (PyBytes_FromStringAndSize(e.data, e.len),)
        elif e.kind == EFFECT_NOTICE:
            args = (e.domid, PyBytes_FromStringAndSize(e.data, e.len).decode(), e.gfn != 0)
        elif e.kind == EFFECT_LOG:
            args = (PyBytes_FromStringAndSize(e.data, e.len).decode(), e.gfn != 0)
        else:
            args = (e.domid,)
        found = (e.id, EFFECT_NAMES[e.kind], conn, args)
        if e.kind == EFFECT_RELEASE or e.kind == EFFECT_NOTICE or e.kind == EFFECT_LOG:
            effect_remove(self.core, e)
        else:
            e.taken = True
        return found

    def complete(self, int64_t now, uint64_t id, str error="", bytes data=b""):
        """An effect has been carried out; `error` names why not. Raises KeyError."""
        cdef Core *core = self.core
        cdef Effect *e = effect_find(core, id)
        cdef Conn *c
        cdef bytes name = error.encode()
        cdef int rc = XS_OK
        if e == NULL:
            raise KeyError(f"no effect {id}")
        if error:
            rc = xs_error_from_name(PyBytes_AS_STRING(name), len(name))
        core.now = now
        c = conn_get(core, e.conn)
        if e.kind == EFFECT_DOMAIN:
            complete_domain(core, c, e, rc)
        elif e.kind == EFFECT_INTRODUCE:
            complete_introduce(core, c, e, rc)
        elif c != NULL:
            self.answer(c, rc, data)
        if e.kind != EFFECT_RELEASE:
            effect_remove(core, e)
        if c != NULL:
            xs_outq_release(&c.out)
            c.waiting = 0
            conn_wake(c)

    cdef int answer(self, Conn *c, int rc, bytes data) except -1:
        if xs_outq_reserve(&c.out, &self.core.mem, &c.dom.account, 16, False) != XS_OK:
            conn_owe(c, XS_ENOMEM if rc == XS_OK else rc) # what was to be told is lost
            return 0
        if rc == XS_OK:
            rc = reply(c, &c.pending, PyBytes_AS_STRING(data), len(data))
        if rc != XS_OK:
            reply_error(c, &c.pending, rc)
        return 0

    def introduce(self, int64_t now, uint32_t domid):
        """A domain's ring is served from now on, without a request that asked for it.

        Raises MemoryError, and ValueError for a reserved domid.
        """
        if domid >= XS_DOMID_FIRST_RESERVED:
            raise ValueError(f"domid {domid}: expected 0 to {XS_DOMID_FIRST_RESERVED - 1}")
        self.core.now = now
        if introduce(self.core, NULL, domid) != XS_OK:
            raise MemoryError

    def domain_died(self, int64_t now, uint32_t domid):
        """The hypervisor says that a domain is gone."""
        self.core.now = now
        domain_died(self.core, domid & 0xffff)

    def domain_shutdown(self, int64_t now, uint32_t domid):
        """The hypervisor says that a domain has shut down. Whether that was news."""
        self.core.now = now
        return domain_was_shut_down(self.core, domid & 0xffff)

    # -- settings

    def set_quota(self, str name, uint32_t value):
        """Sets a quota ("nodes", "soft-memory" ...) for domains to come. Raises KeyError."""
        cdef bytes text = name.encode()
        cdef bint soft
        cdef int i = quota_find(PyBytes_AS_STRING(text), len(text), &soft)
        if i < 0:
            raise KeyError(f"no quota {name!r}")
        if soft:
            self.core.soft[i] = value
        else:
            self.core.hard[i] = value

    def set_soft_quota(self, str name, uint32_t value):
        """The same for the soft quota of that name."""
        self.set_quota("soft-" + name, value)

    def quotas(self):
        """All quotas for domains to come, hard and soft, by name."""
        found = {}
        for i in range(Q_COUNT):
            name = quota_name(i).decode()
            found[name] = self.core.hard[i]
            found["soft-" + name] = self.core.soft[i]
        return found

    def domain_quotas(self, uint32_t domid):
        """The same for one domain. Raises KeyError."""
        cdef Domain *d = self.core.domains[domid & 0xffff]
        if d == NULL:
            raise KeyError(f"no domain {domid}")
        found = {}
        for i in range(Q_COUNT):
            name = quota_name(i).decode()
            found[name] = d.hard[i]
            found["soft-" + name] = d.soft[i]
        return found

    def configure(self, *, quota=None, perms=None, event_perms=None, event_timeout_ns=None,
                  keep_orphans=None, access_log=None, socket_output_max=None, merge=None,
                  test_eagain=None, conflict=None, burst_limit=None, period_ns=None,
                  aggregate=None, priority_after=None, priority_hold_ns=None, write_rate=None,
                  writes_per_second=None, write_burst=None, write_reserve=None,
                  write_newcomers=None, log_debug=None):
        """Switches: whether quotas, permissions and event permissions are applied, after how
        many nanoseconds guests lose unfetched events (0: never), whether nodes of dead domains
        are kept for the privileged one, whether requests are recorded, and how many bytes may
        wait on a socket.

        Transactions: whether changes may be merged without asking again, whether one commit in
        three fails for the sake of testing clients. Conflict credit: whether, how many points a
        domain can have, how many nanoseconds make one (and how long transactions are
        protected), whether the rate is an aggregate. Priority: after how many failures in a
        row (0: never), and for how many nanoseconds others are held back. Write rate: whether,
        writes per second of all guests, what one may save, what all together, for how many
        newcomers the reserve may go into debt. log_debug: whether details go to the log.

        Raises ValueError for a figure that cannot be, and changes nothing then.
        """
        cdef Core *core = self.core
        for name, value, least in (
                ("event_timeout_ns", event_timeout_ns, 0), ("period_ns", period_ns, 1),
                ("burst_limit", burst_limit, 1e-3), ("priority_after", priority_after, 0),
                ("priority_hold_ns", priority_hold_ns, 0),
                ("writes_per_second", writes_per_second, 1), ("write_burst", write_burst, 0),
                ("write_reserve", write_reserve, 0), ("write_newcomers", write_newcomers, 0)):
            if value is not None and not value >= least:
                raise ValueError(f"{name}={value}: expected {least} or more")
        if quota is not None:
            core.quota_on = quota
            for i in range(core.conn_cap):
                if core.conns[i] != NULL:
                    conn_wake(core.conns[i])
        if perms is not None:
            core.perms_on = perms
        if event_perms is not None:
            core.event_perms_on = event_perms
        if event_timeout_ns is not None:
            core.event_timeout_ns = event_timeout_ns
        if keep_orphans is not None:
            core.keep_orphans = keep_orphans
        if access_log is not None:
            core.access_on = access_log
        if socket_output_max is not None:
            core.socket_output_max = socket_output_max
        if merge is not None:
            core.merge_on = merge
        if test_eagain is not None:
            core.test_eagain = test_eagain
        if conflict is not None:
            core.conflict_on = conflict
        if burst_limit is not None:
            core.credit_limit = burst_limit
        if period_ns is not None:
            core.credit_period_ns = period_ns
        if aggregate is not None:
            core.credit_aggregate = aggregate
        if not (conflict is None and burst_limit is None and period_ns is None
                and aggregate is None):
            credit_reset(core)
        if priority_after is not None:
            core.priority_after = priority_after
        if priority_hold_ns is not None:
            core.priority_hold_ns = priority_hold_ns
        if write_rate is not None:
            core.write_rate_on = write_rate
        if writes_per_second is not None:
            core.write_rate = writes_per_second
        if write_burst is not None:
            core.write_burst = write_burst
        if write_reserve is not None:
            core.write_global = write_reserve
        if write_newcomers is not None:
            core.write_newcomers = write_newcomers
        if log_debug is not None:
            core.log_debug = log_debug

    # -- looking

    def domain_conn(self, uint32_t domid):
        """The id of a domain's ring connection, or -1."""
        cdef Domain *d = self.core.domains[domid & 0xffff]
        return -1 if d == NULL or d.conn == NULL else d.conn.id

    def state_hash(self):
        """A hash of all that clients can see. Raises MemoryError."""
        cdef uint64_t h
        if state_hash(self.core, &h) != XS_OK:
            raise MemoryError
        return h

    def check(self):
        """Checks every invariant; slow. Raises AssertionError naming what does not hold."""
        cdef const char *bad = state_check(self.core)
        if bad != NULL:
            raise AssertionError(bad.decode())

    def tree(self):
        """The live tree: {path: (value, permissions in text form)}, special nodes included."""
        return tree_of(self.core)

    def counts(self):
        """What each domain is charged with: {domid: {figure: value}}, zero figures left out."""
        return counts_of(self.core)

    def peaks(self, bint reset=False):
        """The greatest figures seen per quota among guests; optionally starts anew."""
        return peaks_of(self.core, reset)

    def domain_peaks(self, uint32_t domid):
        """The greatest figures seen of one domain. Raises KeyError."""
        return domain_peaks_of(self.core, domid)

    def watches(self):
        """All watches: [(connection id, path as registered, token)]."""
        return watches_of(self.core)

    def transactions(self):
        """Open transactions: [(connection id, domid, tx id, start in ns, changes, poisoned)].

        Changes are pairs of operation name and path.
        """
        return transactions_of(self.core)

    def conflict_figures(self):
        """Per domain: {domid: {"caused", "suffered", "paused_ns", "credit", "paused"}}."""
        return conflict_figures_of(self.core)

    def conflicts(self):
        """The last conflicts explained, oldest first.

        [{"when_ns", "conn", "domid", "tx", "path", "seen", "known", "by_conn", "by_domid",
        "by_tx", "by_when_ns", "charged"}]; "seen" holds of "self", "children", "subtree" what was
        looked at; the fields of the culprit count if "known".
        """
        return conflicts_of(self.core)

    def connections(self):
        """All connections: [(id, "socket" or "ring", domid, pid, uid, requests)]."""
        return connections_of(self.core)

    def counters(self):
        """What has happened so far and what there is now: {name: int or {name: int}}."""
        return counters_of(self.core)

    def memory(self):
        """Bytes and blocks asked for: in total, by the tree, by the watch indexes."""
        cdef Core *core = self.core
        return {"total_bytes": core.mem.total.bytes, "total_blocks": core.mem.total.blocks,
                "tree_bytes": core.tree.account.bytes, "tree_blocks": core.tree.account.blocks,
                "watch_bytes": core.watches.account.bytes,
                "permission_lists": core.tree.perms.count, "failures": core.mem.failures}

    def account(self, uint32_t domid):
        """Bytes and blocks held for a domain: connections, watches, queues, transactions."""
        cdef Domain *d = self.core.domains[domid & 0xffff]
        if d == NULL:
            return 0, 0
        return d.account.bytes, d.account.blocks

    def collect(self):
        """Frees at once what would be freed little by little, and gives it to the system."""
        xs_tree_collect(&self.core.tree, <size_t>-1)
        malloc_trim(0)

    def take_access(self):
        """Takes the records of requests made since the last call, as one block of bytes.

        Each: time (i64), connection, kind, domid, type, tx_id, result, length, 0 (u32), payload.
        """
        cdef Core *core = self.core
        cdef bytes data = PyBytes_FromStringAndSize(core.access, core.access_len)
        core.access_len = 0
        return data

    # -- for tests

    def fail_allocation(self, uint64_t nth=0, bint sticky=False):
        """Lets the nth allocation from now fail, and with `sticky` all after it; 0: none."""
        self.core.mem.fail_at = self.core.mem.calls + nth if nth else 0
        self.core.mem.fail_sticky = sticky

    def allocations(self):
        """How often memory has been asked for."""
        return self.core.mem.calls

    def set_last_transaction(self, uint32_t id, uint32_t last):
        """Lets a connection go on counting its transactions from `last`."""
        self.conn(id).last_tx = last

    def bench_feed(self, uint32_t id, bytes data, int repeats):
        """Nanoseconds per request of feeding the same requests again and again.

        The clock stands around the loop, outside the engine; output is thrown away.
        """
        cdef Conn *c = self.conn(id)
        cdef const char *p = PyBytes_AS_STRING(data)
        cdef size_t n = len(data), room
        cdef timespec start, end
        cdef uint64_t before
        cdef int i
        if n > RX_SIZE:
            raise ValueError(f"{n} bytes of requests: at most {RX_SIZE} fit")
        before = c.requests
        with nogil:
            clock_gettime(CLOCK_MONOTONIC, &start)
            for i in range(repeats):
                memcpy(engine_rx_space(c, &room), p, n)
                engine_received(c, i, n, 1 << 30)
                conn_sent(c, xs_outq_bytes(&c.out))
                next_dirty(c.core)
            clock_gettime(CLOCK_MONOTONIC, &end)
        spent = (end.tv_sec - start.tv_sec) * 1_000_000_000 + end.tv_nsec - start.tv_nsec
        before = c.requests - before
        return spent / before if before else 0.0
