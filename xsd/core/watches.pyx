# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Watches: registering them, and telling watchers what a change did.

Events are prepared before a change takes effect: who is to be told is found out, the right
to know is tested, room is reserved on every queue. Only then is the change made, and the
events are published, which cannot fail. A change whose events cannot be prepared does not
happen.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from xsd.core.connection cimport (
    conn_reset_watches, conn_wake, mark_dirty, message_gone, reply_ok, reply_room)
from xsd.core.cxs cimport (
    XS_ACCESS_READ, XS_DEPTH_UNLIMITED, XS_EEXIST, XS_EINVAL, XS_ENOENT, XS_ENOMEM,
    XS_ENOSPC, XS_HEADER_SIZE, XS_OK, XS_OP_RM, XS_PAYLOAD_MAX, XS_RING_DEPTH, xs_found,
    xs_header, xs_match, xs_match_next, xs_match_start, xs_mem_grow, xs_node, xs_oplog,
    xs_oplog_next, xs_oprec, xs_outq_expire, xs_outq_has_event, xs_outq_oldest_event,
    xs_outq_put_event, xs_outq_release, xs_outq_reserve, xs_path, xs_path_depth_below,
    xs_path_is_special, xs_path_set, xs_perms, xs_perms_access, xs_tree_find, xs_watch,
    xs_watch_token, xs_watches_add, xs_watches_below, xs_watches_find, xs_watches_remove,
    xs_watchpoint, xs_watchpoints_sort, xs_wire_next, xs_wire_number, xs_wire_put_number)
from xsd.core.quota cimport quota_allows, quota_applies, quota_memory, quota_note
from xsd.core.store cimport path_of
from xsd.core.transaction cimport tx_abort_all
from xsd.core.types cimport (
    CONN_RING, Conn, Core, Domain, Pending, Q_MEMORY, Q_WATCHES, Q_WATCH_EVENTS)


# ---- preparing ---------------------------------------------------------------------

cdef void events_begin(Core *core) noexcept nogil:
    core.pending_count = 0


cdef bint may_know(const Core *core, const Conn *c, const xs_perms *perms) noexcept nogil:
    if c.privileged or not core.event_perms_on:
        return True
    return perms != NULL and xs_perms_access(perms, c.domid, c.target) & XS_ACCESS_READ != 0


cdef int prepare(Core *core, xs_watch *watch, const char *path, uint32_t path_len,
                 bint special) noexcept nogil:
    """Reserves what one event needs. XS_OK also when it is dropped by rule."""
    cdef Conn *c = <Conn *>watch.owner.context
    cdef uint32_t skip = 0 if special else watch.base_len
    cdef size_t payload = path_len - skip + watch.token_len + 2
    cdef Pending *p
    if payload > XS_PAYLOAD_MAX or c.ignored:
        core.events_dropped += 1
        return XS_OK
    if quota_applies(c) and not quota_allows(
            c.dom, Q_MEMORY, quota_memory(c.dom)
            + <int64_t>(c.out.room_event_bytes + payload + XS_HEADER_SIZE)):
        core.events_dropped += 1
        return XS_OK
    if quota_applies(c) and not quota_allows(c.dom, Q_WATCH_EVENTS, c.out.events + 1):
        core.events_dropped += 1
        return XS_OK
    if xs_mem_grow(&core.mem, NULL, <void **>&core.pending, &core.pending_cap,
                   core.pending_count + 1, sizeof(Pending)) != XS_OK:
        return XS_ENOMEM
    if xs_outq_reserve(&c.out, &core.mem, &c.dom.account, payload, True) != XS_OK:
        return XS_ENOMEM
    p = &core.pending[core.pending_count]
    p.watch = watch
    p.conn = c
    p.path = path + skip
    p.path_len = path_len - skip
    p.special = special
    p.domid = -1
    core.pending_count += 1
    return XS_OK


cdef int events_for_path(Core *core, const xs_path *path, const char *text,
                         const xs_perms *own, const xs_perms *parent,
                         const xs_perms *before, const Conn *skip) noexcept nogil:
    """Events of a change at a path, for watches on it and on its ancestors.

    A watcher must be able to read the node, its parent, or the node as it was `before` its
    permissions changed or another took its place (NULL: neither). `text` holds the path
    until the events are published.
    """
    cdef xs_match m
    cdef xs_watch *watch
    cdef Conn *c
    cdef int rc = XS_OK
    if path.len == 1:
        parent = NULL # above the root there is nothing that anybody could have a right to
    xs_match_start(&m, &core.watches, path)
    watch = xs_match_next(&m)
    while watch != NULL and rc == XS_OK:
        c = <Conn *>watch.owner.context
        if c != skip and (
                watch.depth == XS_DEPTH_UNLIMITED
                or xs_path_depth_below(path, watch.point.len) <= <uint32_t>watch.depth):
            if may_know(core, c, own) or may_know(core, c, parent) or (
                    before != NULL and may_know(core, c, before)):
                rc = prepare(core, watch, text, path.len, False)
        watch = xs_match_next(&m)
    return rc


cdef int events_below(Core *core, xs_node *old, const xs_path *path,
                      const Conn *skip) noexcept nogil:
    """Events of a removal for watches sitting on nodes below the path, deepest first."""
    cdef xs_watchpoint *point = xs_watches_below(&core.watches, path, NULL)
    cdef xs_found found
    cdef xs_watch *watch
    cdef Conn *c
    cdef size_t i, count = 0
    cdef int rc = XS_OK
    while point != NULL:
        xs_path_set(&core.other, point.path, point.len)
        xs_tree_find(old, &core.other, &found)
        if found.node != NULL:
            if xs_mem_grow(&core.mem, NULL, <void **>&core.points, &core.points_cap, count + 1,
                           sizeof(xs_watchpoint *)) != XS_OK:
                return XS_ENOMEM
            core.points[count] = point
            count += 1
        point = xs_watches_below(&core.watches, path, point)
    if count == 0:
        return XS_OK
    xs_watchpoints_sort(core.points, count)
    for i in range(count):
        point = core.points[i]
        xs_path_set(&core.other, point.path, point.len)
        xs_tree_find(old, &core.other, &found)
        watch = point.first
        while watch != NULL and rc == XS_OK:
            c = <Conn *>watch.owner.context
            if c != skip and (may_know(core, c, found.node.perms)
                              or may_know(core, c, found.parent.perms)):
                rc = prepare(core, watch, point.path, point.len, False)
            watch = watch.point_next
    return rc


cdef int events_for_log(Core *core, xs_node *old, xs_node *fresh, const xs_oplog *log,
                        const Conn *skip) noexcept nogil:
    """Events of a series of changes that led from one tree to another, in their order.

    What was created and removed again within the series is told to nobody. Whoever could read a
    node before is told of it, also if its permissions have changed or another one took its place.
    """
    cdef const xs_oprec *rec
    cdef const xs_perms *before
    cdef xs_found now, was
    cdef int rc = XS_OK
    if core.watches.watch_count == 0:
        return XS_OK
    rec = xs_oplog_next(log, NULL)
    while rec != NULL and rc == XS_OK:
        xs_path_set(&core.path, rec.data, rec.path_len)
        if xs_path_is_special(&core.path):
            rec = xs_oplog_next(log, rec)
            continue # setting the permissions of a special node is no coming or going
        if rec.op == XS_OP_RM:
            rc = events_below(core, old, &core.path, skip)
        xs_tree_find(fresh, &core.path, &now)
        xs_tree_find(old, &core.path, &was)
        if rc != XS_OK:
            pass
        elif now.node != NULL:
            before = NULL if was.node == NULL else was.node.perms
            rc = events_for_path(core, &core.path, rec.data, now.node.perms,
                                 now.parent.perms, before, skip)
        elif was.node != NULL:
            rc = events_for_path(core, &core.path, rec.data, was.node.perms,
                                 was.parent.perms, NULL, skip)
        rec = xs_oplog_next(log, rec)
    return rc


cdef int events_special(Core *core, xs_node *top, const char *name, int64_t domid,
                        const Conn *skip) noexcept nogil:
    """Events of @introduceDomain or @releaseDomain.

    With a domid: the form `name/domid`, for watches with a depth on `name` and for watches
    on exactly that path. With -1: the plain form, for watches without a depth.
    """
    cdef xs_path path
    cdef xs_path root
    cdef xs_found found, root_found
    cdef xs_watchpoint *point
    cdef xs_match m
    cdef xs_watch *watch
    cdef Conn *c
    cdef char text[64]
    cdef size_t n = strlen(name)
    cdef bint exact, wanted
    cdef int rc = XS_OK
    if core.watches.watch_count == 0:
        return XS_OK
    xs_path_set(&path, name, n)
    xs_tree_find(top, &path, &found)
    xs_path_set(&root, b"/", 1)
    xs_tree_find(top, &root, &root_found)
    memcpy(text, name, n)
    if domid >= 0:
        text[n] = b'/'
        n += xs_wire_put_number(text + n + 1, <uint64_t>domid)
        xs_path_set(&path, text, n)
    xs_match_start(&m, &core.watches, &path)
    watch = xs_match_next(&m)
    while watch != NULL and rc == XS_OK:
        c = <Conn *>watch.owner.context
        exact = watch.point.len == path.len
        if domid >= 0:
            wanted = exact or watch.depth >= 1
        else:
            wanted = watch.depth == XS_DEPTH_UNLIMITED
        if wanted and c != skip and (may_know(core, c, found.node.perms)
                                     or may_know(core, c, root_found.node.perms)):
            rc = prepare_special(core, watch, -1 if exact else domid)
        watch = xs_match_next(&m)
    return rc


cdef int prepare_special(Core *core, xs_watch *watch, int64_t domid) noexcept nogil:
    """Prepares an event whose path is the watched one, or one name more."""
    cdef size_t before = core.pending_count
    cdef bint longer = domid >= 0
    cdef char text[24]
    cdef uint32_t len = watch.path_len
    cdef int rc
    if longer: # a slash and the digits, written into the event when it is published
        len += <uint32_t>xs_wire_put_number(text, <uint64_t>domid)
    rc = prepare(core, watch, watch.data, len, True)
    if longer and core.pending_count > before:
        core.pending[before].domid = domid
    return rc


# ---- publishing --------------------------------------------------------------------

cdef void publish_one(Core *core, Pending *p, Conn *requester, bint merge) noexcept nogil:
    cdef Conn *c = p.conn
    cdef uint64_t hash
    cdef char text[64]
    cdef const char *path = p.path
    cdef uint32_t len = p.path_len
    cdef bint same
    if p.domid >= 0:
        memcpy(text, p.watch.data, p.watch.path_len)
        text[p.watch.path_len] = b'/'
        len = p.watch.path_len + <uint32_t>xs_wire_put_number(
            text + p.watch.path_len + 1, <uint64_t>p.domid)
        path = text
    same = xs_outq_has_event(&c.out, path, len, xs_watch_token(p.watch), p.watch.token_len,
                             &hash)
    if same and merge and not p.special:
        core.events_merged += 1
        return
    if requester != NULL and requester.cause != NULL:
        requester.cause.refs += 1
    xs_outq_put_event(&c.out, path, len, xs_watch_token(p.watch), p.watch.token_len, hash,
                      core.now, NULL if requester == NULL else requester.cause)
    c.dom.queued += len + p.watch.token_len + 2 + XS_HEADER_SIZE
    quota_note(core, c.dom, Q_MEMORY, quota_memory(c.dom))
    core.events_queued += 1
    if quota_applies(c) and core.event_timeout_ns > 0 and not c.aging:
        core.tick_wanted |= core.aging == NULL
        c.aging = True
        c.aging_next = core.aging
        core.aging = c
    mark_dirty(c)


cdef void events_publish(Core *core, Conn *requester) noexcept nogil:
    """Queues all prepared events. They count as the requester's until they are fetched."""
    cdef size_t i
    for i in range(core.pending_count):
        publish_one(core, &core.pending[i], requester, True)
    for i in range(core.pending_count):
        if core.pending[i].conn != requester:
            xs_outq_release(&core.pending[i].conn.out)
    core.pending_count = 0


cdef void events_abort(Core *core) noexcept nogil:
    """Forgets all prepared events and the room they had."""
    cdef size_t i
    for i in range(core.pending_count):
        xs_outq_release(&core.pending[i].conn.out)
    core.pending_count = 0


cdef int64_t events_expire(Core *core) noexcept nogil:
    """Throws away what guests have not fetched in time. When to come back, or -1."""
    cdef Conn **link = &core.aging
    cdef Conn *c
    cdef int64_t oldest, next = -1
    cdef size_t waiting
    while link[0] != NULL:
        c = link[0]
        if xs_outq_oldest_event(&c.out) <= core.now - core.event_timeout_ns:
            waiting = c.out.events # only now: it moves the whole queue
            xs_outq_expire(&c.out, core.now - core.event_timeout_ns + 1, message_gone, c)
            core.events_expired += waiting - c.out.events
            conn_wake(c)
        if c.out.events == 0:
            link[0] = c.aging_next
            c.aging = False
            continue
        oldest = xs_outq_oldest_event(&c.out)
        if oldest != INT64_MAX: # else the only one has been begun, and is sent to its end
            oldest += core.event_timeout_ns
            if next < 0 or oldest < next:
                next = oldest
        link = &c.aging_next
    return next


# ---- operations --------------------------------------------------------------------

cdef int parse(Conn *c, const char **p, const char **text, size_t *text_len, const char **token,
               size_t *token_len) noexcept nogil:
    """Cuts path and token from a payload and makes the path absolute."""
    text_len[0] = xs_wire_next(p, text)
    token_len[0] = xs_wire_next(p, token)
    return path_of(c, text[0], text_len[0])


cdef int op_watch(Conn *c, const xs_header *h, const char *p, uint32_t strings) noexcept nogil:
    """WATCH path, token [, depth]: the reply, then one event with the path as given."""
    cdef Core *core = c.core
    cdef Domain *d = c.dom
    cdef const char *text
    cdef const char *token
    cdef const char *number
    cdef size_t text_len, token_len, n
    cdef int64_t depth = XS_DEPTH_UNLIMITED
    cdef xs_watch *watch
    cdef int rc = parse(c, &p, &text, &text_len, &token, &token_len)
    if rc != XS_OK:
        return rc
    if strings > 2:
        if c.kind == CONN_RING and not d.features & XS_RING_DEPTH:
            return XS_EINVAL
        n = xs_wire_next(&p, &number)
        depth = xs_wire_number(number, n)
        if depth < 0:
            return XS_EINVAL
        if depth > 0xffff:
            depth = 0xffff
    if xs_watches_find(&core.watches, &c.watches, &core.path, token, token_len) != NULL:
        return XS_EEXIST
    if quota_applies(c):
        if not quota_allows(d, Q_WATCHES, d.watches + 1):
            return XS_ENOSPC
        if not quota_allows(d, Q_MEMORY, quota_memory(d) + <int64_t>(text_len + token_len)):
            return XS_ENOMEM
    rc = reply_room(c, 3)
    if rc == XS_OK: # path and token came in one payload, so the event fits one too
        rc = xs_outq_reserve(&c.out, &core.mem, &d.account, text_len + token_len + 2, True)
    if rc == XS_OK:
        rc = xs_watches_add(&core.watches, &c.watches, &core.path, text, text_len, token,
                            token_len, <int32_t>depth, &watch)
    if rc != XS_OK:
        return rc
    d.watches += 1
    d.watch_bytes += text_len + token_len
    quota_note(core, d, Q_WATCHES, d.watches)
    reply_ok(c, h)
    put_first_event(c, watch)
    return XS_OK


cdef void put_first_event(Conn *c, xs_watch *watch) noexcept nogil:
    """The event every new watch gets, even if one like it waits. It has no cause."""
    cdef Core *core = c.core
    cdef Pending first
    first.watch = watch
    first.conn = c
    first.path = watch.data
    first.path_len = watch.path_len
    first.special = watch.data[0] == b'@'
    first.domid = -1
    publish_one(core, &first, NULL, False)


cdef int op_unwatch(Conn *c, const xs_header *h, const char *p) noexcept nogil:
    """UNWATCH path, token: events already queued still arrive."""
    cdef Core *core = c.core
    cdef const char *text
    cdef const char *token
    cdef size_t text_len, token_len
    cdef xs_watch *watch
    cdef int rc = parse(c, &p, &text, &text_len, &token, &token_len)
    if rc != XS_OK:
        return rc
    watch = xs_watches_find(&core.watches, &c.watches, &core.path, token, token_len)
    if watch == NULL:
        return XS_ENOENT
    c.dom.watches -= 1
    c.dom.watch_bytes -= watch.path_len + watch.token_len
    xs_watches_remove(&core.watches, watch)
    reply_ok(c, h)
    return XS_OK


cdef int op_reset_watches(Conn *c, const xs_header *h) noexcept nogil:
    """RESET_WATCHES: the caller's watches and transactions go, the one named included."""
    conn_reset_watches(c)
    tx_abort_all(c)
    reply_ok(c, h)
    return XS_OK
