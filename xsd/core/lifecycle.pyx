# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Domains coming and going, and the operations that manage them.

What only the hypervisor knows (does a domain exist? can its ring be mapped?) is asked for by
an effect. A question about existence leaves the request where it is, to be tried again with
the answer; INTRODUCE is answered when its mapping completes.

The clean-up after a domain is one change: nodes it owned go, entries that name it go, and
watchers are told, or, should memory run out, nothing happens and it is tried again.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy, memset

from xsd.core.connection cimport (
    conn_close, conn_open, conn_owe, conn_reset, conn_wake, reply, reply_error, reply_number, reply_ok)
from xsd.core.cxs cimport (
    XS_DOMID_FIRST_RESERVED, XS_DOMID_INVALID, XS_DOMID_SELF, XS_EACCES, XS_EBUSY,
    XS_EINVAL, XS_ENOENT, XS_ENOMEM, XS_OK, XS_OP_RM, XS_OP_SET_PERMS, XS_RING_FEATURES,
    xs_found, xs_header,
    xs_node, xs_oplog_add, xs_outq_reserve, xs_path_set, xs_perms, xs_perms_intern,
    xs_perms_mention, xs_perms_owner, xs_perms_unref, xs_tree_drop, xs_tree_prepare_perms,
    xs_tree_prepare_remove, xs_tree_seek, xs_tree_share, xs_walk, xs_walk_end,
    xs_walk_next, xs_walk_skip, xs_walk_start, xs_wire_domid, xs_wire_next, xs_wire_number,
    xs_wire_put_number)
from xsd.core.credit cimport credit_forget
from xsd.core.domain cimport domain_forget, domain_found, domain_get
from xsd.core.effects cimport effect_push, effect_remove, effect_turn
from xsd.core.history cimport history_commit
from xsd.core.quota cimport quota_apply, quota_find, quota_list
from xsd.core.transaction cimport tx_apply, tx_clear, tx_doom
from xsd.core.types cimport (
    CONN_RING, CONN_SOCKET, Conn, Core, Domain, EFFECT_CONTROL, EFFECT_DOMAIN,
    EFFECT_INTRODUCE, EFFECT_RELEASE, Effect, RC_REPLIED, RC_WAIT, Tx)
from xsd.core.watches cimport (
    events_abort, events_begin, events_for_log, events_publish, events_special)
from xsd.core.writerate cimport write_rate_join, write_rate_leave

cdef enum:
    ABSENT_MAX = 32  # domids one request may have denied


# ---- existence -----------------------------------------------------------------------

cdef int domain_exists(Conn *c, uint32_t domid) noexcept nogil:
    """XS_OK, XS_ENOENT, XS_ENOMEM, or RC_WAIT when the hypervisor has to be asked first.

    One that exists has an object.
    """
    cdef Core *core = c.core
    cdef Domain *d = core.domains[domid]
    cdef Effect *e
    cdef uint32_t i
    if domid == core.priv_domid or domid == core.store_domid:
        return XS_OK
    if d != NULL and d.exists and not d.dying:
        return XS_OK
    if domid >= XS_DOMID_FIRST_RESERVED or c.absent_count == ABSENT_MAX:
        return XS_ENOENT
    if c.replaying:
        return XS_ENOENT # a trial does not wait
    for i in range(c.absent_count):
        if c.absent[i] == domid:
            return XS_ENOENT
    e = effect_push(core, EFFECT_DOMAIN, c, domid, NULL, 0)
    if e == NULL:
        return XS_ENOMEM
    c.waiting = e.id
    return RC_WAIT


cdef void complete_domain(Core *core, Conn *c, const Effect *e, int error) noexcept nogil:
    """The hypervisor has answered whether a domain exists."""
    cdef Domain *d
    if error == XS_OK:
        d = domain_get(core, e.domid)
        if d != NULL:
            domain_found(core, d)
    elif c != NULL and c.absent_count < ABSENT_MAX:
        c.absent[c.absent_count] = e.domid
        c.absent_count += 1


# ---- coming --------------------------------------------------------------------------

cdef bint next_domid(const char **p, uint32_t *domid) noexcept nogil:
    cdef const char *text
    cdef size_t n = xs_wire_next(p, &text)
    return xs_wire_domid(text, n, domid)


cdef int op_introduce(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """INTRODUCE domid, gfn, port: maps the ring and makes the domain a client."""
    cdef const char *gfn
    cdef const char *port
    cdef size_t gfn_len, port_len
    cdef uint32_t domid
    cdef Effect *e
    if not next_domid(&p, &domid):
        return XS_EINVAL
    gfn_len = xs_wire_next(&p, &gfn)
    port_len = xs_wire_next(&p, &port)
    if xs_wire_number(port, port_len) <= 0:
        return XS_EINVAL
    e = effect_push(c.core, EFFECT_INTRODUCE, c, domid, NULL, 0)
    if e == NULL:
        return XS_ENOMEM
    e.gfn = xs_wire_number(gfn, gfn_len)
    e.port = xs_wire_number(port, port_len)
    c.waiting = e.id
    c.pending = h[0]
    return RC_REPLIED


cdef int introduce(Core *core, Conn *requester, uint32_t domid) noexcept nogil:
    """The ring is mapped: the domain gets a connection, or a fresh start on the one it has."""
    cdef Domain *d = domain_get(core, domid)
    cdef bint fresh
    cdef int rc = XS_OK
    if d != NULL and d.dying: # a new domain must not pay for, or inherit from, the old one
        d = NULL if bury(core, d, NULL) != XS_OK else domain_get(core, domid)
    if d == NULL:
        return XS_ENOMEM
    fresh = not d.introduced and domid != core.priv_domid
    events_begin(core)
    if fresh:
        rc = events_special(core, core.top, b"@introduceDomain", domid, NULL)
        if rc == XS_OK:
            rc = events_special(core, core.top, b"@introduceDomain", -1, NULL)
    if rc == XS_OK and d.conn == NULL:
        d.conn = conn_open(core, CONN_RING, domid)
        if d.conn == NULL:
            rc = XS_ENOMEM
    elif rc == XS_OK:
        conn_reset(d.conn)
        d.conn.ignored = False
        d.conn.error = 0
        conn_wake(d.conn)
    if rc != XS_OK:
        events_abort(core)
        return rc
    if not d.introduced:
        write_rate_join(core, d)
    domain_found(core, d)
    d.introduced = True
    events_publish(core, requester)
    return XS_OK


cdef void complete_introduce(Core *core, Conn *c, Effect *e, int error) noexcept nogil:
    """The mapping has succeeded or failed. A mapping that cannot be used is undone."""
    cdef int rc = error
    cdef bint room = c != NULL and xs_outq_reserve(
        &c.out, &core.mem, &c.dom.account, 16, False) == XS_OK
    if rc == XS_OK:
        rc = introduce(core, c, e.domid)
    if rc != XS_OK and error == XS_OK:
        effect_turn(e, EFFECT_RELEASE)
    if c == NULL or c.closing or c.ignored:
        return
    if not room:
        conn_owe(c, rc)
    elif rc == XS_OK:
        reply_ok(c, &c.pending)
    else:
        reply_error(c, &c.pending, rc)


# ---- going ---------------------------------------------------------------------------

cdef int remove_node(Core *core, Tx *work) noexcept nogil:
    """Removes the node of the current path from the private tree."""
    cdef xs_found found
    cdef int rc = xs_oplog_add(&work.log, &core.mem, NULL, XS_OP_RM, 0, core.path.buf,
                               core.path.len, NULL, 0)
    if rc == XS_OK:
        rc = xs_tree_seek(&core.tree, work.top, &core.path, &found)
    if rc == XS_OK:
        rc = xs_tree_prepare_remove(&core.tree, &work.top, &core.path)
    if rc == XS_OK:
        rc = tx_apply(core, work, &work.top, XS_OP_RM, NULL, 0)
    return rc


cdef int trim_perms(Core *core, Tx *work, const xs_node *node, uint32_t domid,
                    uint32_t heir) noexcept nogil:
    """Takes a domain's entries out of a node's list; an owner gives way to the heir."""
    cdef xs_perms *perms
    cdef xs_found found
    cdef uint32_t i, n = 0
    cdef int rc
    for i in range(node.perms.count):
        if i == 0 or node.perms.entry[i].domid != domid:
            core.perm[n] = node.perms.entry[i]
            n += 1
    if core.perm[0].domid == domid:
        core.perm[0].domid = <unsigned short>heir
    rc = xs_perms_intern(&core.tree.perms, core.perm, n, &perms)
    if rc != XS_OK:
        return rc
    rc = xs_tree_seek(&core.tree, work.top, &core.path, &found)
    if rc == XS_OK:
        rc = xs_tree_prepare_perms(&core.tree, &work.top, &core.path, perms)
    xs_perms_unref(&core.tree.perms, perms)
    if rc == XS_OK:
        rc = tx_apply(core, work, &work.top, XS_OP_SET_PERMS, NULL, 0)
    return rc


cdef bint names(const xs_perms *perms, uint32_t domid) noexcept nogil:
    cdef uint32_t i
    for i in range(perms.count):
        if perms.entry[i].domid == domid:
            return True
    return False


cdef int sweep(Core *core, Tx *work, uint32_t domid) noexcept nogil:
    """Makes the private tree forget a domain. Visits only where it may be mentioned."""
    cdef xs_walk w
    cdef xs_node *node
    cdef int rc = XS_OK
    xs_walk_start(&w, &core.tree, core.top, NULL, xs_perms_mention(domid))
    while rc == XS_OK:
        node = xs_walk_next(&w)
        if node == NULL:
            rc = w.error
            break
        core.nodes_swept += 1
        if not names(node.perms, domid):
            continue
        xs_path_set(&core.path, w.path.buf, w.path.len)
        if xs_perms_owner(node.perms) != domid:
            rc = trim_perms(core, work, node, domid, domid)
        elif core.keep_orphans or w.path.len == 1 or w.path.buf[0] == b'@':
            rc = trim_perms(core, work, node, domid, core.priv_domid)
        else:
            rc = remove_node(core, work)
            xs_walk_skip(&w)
    xs_walk_end(&w)
    return rc


cdef void forget_target(Core *core, Domain *gone) noexcept nogil:
    """Nobody acts for a domain that has gone."""
    cdef Domain *d = core.domain_list
    while d != NULL and gone.targeted > 0:
        if d.conn != NULL and d.conn.target == gone.domid:
            d.conn.target = XS_DOMID_INVALID
        d = d.next
    gone.targeted = 0


cdef int bury(Core *core, Domain *d, Conn *requester) noexcept nogil:
    """Everything that is or names a domain goes, and watchers are told. XS_OK, XS_ENOMEM."""
    cdef uint32_t domid = d.domid
    cdef bint introduced = d.introduced
    cdef Tx work
    cdef xs_node *old = core.top
    cdef size_t i
    cdef int rc
    memset(&work, 0, sizeof(work))
    work.top = xs_tree_share(core.top)
    rc = sweep(core, &work, domid)
    events_begin(core)
    if rc == XS_OK:
        rc = events_for_log(core, old, work.top, &work.log, d.conn)
    if rc == XS_OK and introduced:
        rc = events_special(core, work.top, b"@releaseDomain", domid, d.conn)
    if rc == XS_OK and introduced:
        rc = events_special(core, work.top, b"@releaseDomain", -1, d.conn)
    if rc != XS_OK:
        events_abort(core)
        tx_clear(core, &work)
        return rc
    core.top = work.top
    work.top = NULL
    if core.top != old:
        history_commit(core, requester, NULL, old)
    xs_tree_drop(&core.tree, old)
    quota_apply(core, work.delta, work.delta_count)
    tx_clear_published(core, &work, requester)
    tx_doom(core, domid)
    forget_target(core, d)
    core.deaths_due -= d.dying
    for i in range(core.conn_cap):
        if core.conns[i] != NULL and core.conns[i].dom == d:
            conn_close(core.conns[i])
    credit_forget(core, d)
    if introduced:
        write_rate_leave(core, d)
    domain_forget(core, d)
    return XS_OK


cdef void tx_clear_published(Core *core, Tx *work, Conn *requester) noexcept nogil:
    """Publishes the events, whose paths stand in the log, and then lets go of the log."""
    events_publish(core, requester)
    tx_clear(core, work)


cdef int take_away(Core *core, Domain *d, Conn *requester) noexcept nogil:
    """Buries a domain and has its ring unmapped, or does neither. XS_OK, XS_ENOMEM."""
    cdef Effect *e = NULL
    cdef int rc
    if d.introduced:
        e = effect_push(core, EFFECT_RELEASE, NULL, d.domid, NULL, 0)
        if e == NULL:
            return XS_ENOMEM
    rc = bury(core, d, requester)
    if rc != XS_OK and e != NULL:
        effect_remove(core, e)
    return rc


cdef int op_release(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """RELEASE domid: the domain is no longer a client, as if it had died."""
    cdef Core *core = c.core
    cdef Domain *d
    cdef uint32_t domid
    cdef int rc
    if not next_domid(&p, &domid) or domid == core.priv_domid or domid == core.store_domid:
        return XS_EINVAL
    d = core.domains[domid]
    if d == NULL or not d.introduced:
        return XS_ENOENT
    rc = take_away(core, d, c)
    if rc == XS_OK:
        reply_ok(c, h)
    return rc


cdef void domain_died(Core *core, uint32_t domid) noexcept nogil:
    """The hypervisor says that a domain is gone."""
    cdef Domain *d = core.domains[domid]
    if d == NULL or domid == core.priv_domid or domid == core.store_domid:
        return
    if take_away(core, d, NULL) != XS_OK:
        core.deaths_due += not d.dying
        core.tick_wanted = True
        d.dying = True
        if d.conn != NULL:
            d.conn.ignored = True


cdef void deaths_retry(Core *core) noexcept nogil:
    """Cleans up after domains for which memory did not suffice earlier."""
    cdef Domain *d = core.domain_list
    while d != NULL and core.deaths_due > 0:
        if d.dying and take_away(core, d, NULL) == XS_OK:
            d = core.domain_list # others may have gone with it: see domain_tidy
        else:
            d = d.next


cdef bint domain_was_shut_down(Core *core, uint32_t domid) noexcept nogil:
    """A domain was seen shut down: told once, until it is resumed. Whether it was told now."""
    cdef Domain *d = core.domains[domid]
    cdef int rc
    if d == NULL or not d.introduced or d.shutdown:
        return False
    events_begin(core)
    rc = events_special(core, core.top, b"@releaseDomain", domid, NULL)
    if rc == XS_OK:
        rc = events_special(core, core.top, b"@releaseDomain", -1, NULL)
    if rc != XS_OK:
        events_abort(core) # the next look at the hypervisor finds it again
        return False
    d.shutdown = True
    events_publish(core, NULL)
    return True


cdef int op_resume(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """RESUME domid: its next shutdown is news again."""
    cdef Core *core = c.core
    cdef uint32_t domid
    if not next_domid(&p, &domid) or domid == core.priv_domid or domid == core.store_domid:
        return XS_EINVAL
    if core.domains[domid] == NULL or not core.domains[domid].introduced:
        return XS_ENOENT
    core.domains[domid].shutdown = False
    reply_ok(c, h)
    return XS_OK


# ---- managing ------------------------------------------------------------------------

cdef int op_set_target(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """SET_TARGET domid, target: it acts with the target's rights in addition to its own."""
    cdef Core *core = c.core
    cdef uint32_t domid, target
    cdef Domain *d
    cdef Domain *t
    if not next_domid(&p, &domid) or not next_domid(&p, &target):
        return XS_EINVAL
    d = core.domains[domid]
    t = core.domains[target]
    if d == NULL or t == NULL or not d.introduced or not t.introduced:
        return XS_ENOENT
    if d.conn == NULL:
        return XS_EINVAL
    d.conn.target = target
    t.targeted += 1
    reply_ok(c, h)
    return XS_OK


cdef int op_is_introduced(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """IS_DOMAIN_INTRODUCED domid: T or F."""
    cdef Core *core = c.core
    cdef uint32_t domid
    if not next_domid(&p, &domid):
        return XS_EINVAL
    if domid == XS_DOMID_SELF or (core.domains[domid] != NULL
                                  and core.domains[domid].introduced):
        return reply(c, h, b"T", 2)
    return reply(c, h, b"F", 2)


cdef int op_get_domain_path(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """GET_DOMAIN_PATH domid: text only; the domain need not exist."""
    cdef char text[40]
    cdef uint32_t domid
    if not next_domid(&p, &domid):
        return XS_EINVAL
    memcpy(text, b"/local/domain/", 14)
    return reply(c, h, text, 14 + xs_wire_put_number(text + 14, domid))


cdef int op_get_feature(Conn *c, const xs_header *h, const char *p,
                        uint32_t strings) noexcept nogil:
    """GET_FEATURE [domid]: ring features, one's own or, for the privileged, anybody's."""
    cdef uint32_t domid
    cdef Domain *d
    cdef int rc
    if strings == 0:
        return reply_number(c, h, XS_RING_FEATURES if c.kind == CONN_SOCKET
                            else c.dom.features)
    if not c.privileged:
        return XS_EACCES
    if not next_domid(&p, &domid):
        return XS_EINVAL
    rc = domain_exists(c, domid)
    if rc != XS_OK:
        return rc
    d = c.core.domains[domid]
    return reply_number(c, h, d.features)


cdef int op_set_feature(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """SET_FEATURE domid, value: what its ring will offer; only before INTRODUCE."""
    cdef const char *text
    cdef size_t n
    cdef uint32_t domid
    cdef int64_t value
    cdef Domain *d
    cdef int rc
    if not next_domid(&p, &domid):
        return XS_EINVAL
    n = xs_wire_next(&p, &text)
    value = xs_wire_number(text, n)
    rc = domain_exists(c, domid)
    if rc != XS_OK:
        return rc
    d = c.core.domains[domid]
    if d.introduced:
        return XS_EBUSY
    if value < 0 or value & ~XS_RING_FEATURES:
        return XS_EINVAL
    d.features = <uint32_t>value
    reply_ok(c, h)
    return XS_OK


cdef int quota_place(Conn *c, const char **p, bint of_domain, uint32_t **place) noexcept nogil:
    """The figure that [domid,] name of a payload stand for."""
    cdef Core *core = c.core
    cdef const char *name
    cdef size_t n
    cdef uint32_t domid = 0
    cdef uint32_t *hard = core.hard
    cdef uint32_t *soft = core.soft
    cdef bint is_soft
    cdef int index, rc
    cdef Domain *d
    if of_domain and not next_domid(p, &domid):
        return XS_EINVAL
    n = xs_wire_next(p, &name)
    index = quota_find(name, n, &is_soft)
    if index < 0:
        return XS_EINVAL
    if of_domain:
        rc = domain_exists(c, domid)
        if rc != XS_OK:
            return rc
        d = core.domains[domid]
        hard = d.hard
        soft = d.soft
    place[0] = &soft[index] if is_soft else &hard[index]
    return XS_OK


cdef int op_get_quota(Conn *c, const xs_header *h, const char *p,
                      uint32_t strings) noexcept nogil:
    """GET_QUOTA [[domid,] name]: all names, a value for domains to come, or a domain's."""
    cdef char text[1024]
    cdef uint32_t *place
    cdef int rc
    if strings == 0:
        return reply(c, h, text, quota_list(text))
    rc = quota_place(c, &p, strings == 2, &place)
    return reply_number(c, h, place[0]) if rc == XS_OK else rc


cdef int op_set_quota(Conn *c, const xs_header *h, const char *p,
                      uint32_t strings) noexcept nogil:
    """SET_QUOTA [domid,] name, value: 0 is unlimited."""
    cdef const char *text
    cdef size_t n
    cdef const char *start = p
    cdef uint32_t *place
    cdef uint32_t domid
    cdef Domain *d
    cdef int64_t value, limit = 0xffffffff  # reserved by the protocol
    cdef int rc = quota_place(c, &p, strings == 3, &place)
    if rc != XS_OK:
        return rc
    n = xs_wire_next(&p, &text)
    value = xs_wire_number(text, n)
    if value < 0 or value >= limit:
        return XS_EINVAL
    place[0] = <uint32_t>value
    if strings == 3 and next_domid(&start, &domid):
        d = c.core.domains[domid]
        if d.conn != NULL:
            conn_wake(d.conn) # it may have waited at the old limit
    reply_ok(c, h)
    return XS_OK


cdef int op_control(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """CONTROL cmd, ...: answered by Python."""
    cdef Effect *e = effect_push(c.core, EFFECT_CONTROL, c, c.domid, p, h.len)
    if e == NULL:
        return XS_ENOMEM
    c.waiting = e.id
    c.pending = h[0]
    return RC_REPLIED
