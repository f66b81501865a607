# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""What the tree operations mean: paths, rights, quotas, and what a change sets off.

Each works on the live tree or on a transaction's view, by the same code. A request that
fails has changed nothing: everything that can fail is prepared before anything is done.

Permission beats existence: whoever may not read the nearest existing ancestor of a missing
node is not told that it is missing.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

from xsd.core.connection cimport reply, reply_ok, reply_put, reply_room
from xsd.core.cxs cimport (
    XS_ACCESS_OWNER, XS_ACCESS_READ, XS_ACCESS_WRITE, XS_DOMID_ANY, XS_EACCES, XS_EINVAL,
    XS_ENOENT, XS_ENOMEM, XS_ENOSPC, XS_ENOSYS, XS_EPERM, XS_OK, XS_OP_DIRECTORY,
    XS_OP_DIRECTORY_PART, XS_OP_GET_PERMS, XS_OP_MKDIR, XS_OP_READ, XS_OP_RM, XS_OP_SET_PERMS,
    XS_OP_WRITE, XS_PAYLOAD_MAX, XS_PERM_IGNORED, XS_SEEN_KIDS, XS_SEEN_SELF, cbool,
    xs_dir_list, xs_found, xs_header, xs_node, xs_node_generation, xs_node_names_bytes,
    xs_node_size, xs_node_value, xs_oplog_add, xs_oplog_undo, xs_oprec, xs_path, xs_path_home,
    xs_path_is_special, xs_path_parent_len, xs_path_parse, xs_perm, xs_perms, xs_perms_access,
    xs_perms_intern, xs_perms_owner, xs_perms_parse, xs_perms_ref, xs_perms_text,
    xs_perms_text_len, xs_perms_unref, xs_tree_abort, xs_tree_commit, xs_tree_drop,
    xs_tree_find, xs_tree_prepare_perms, xs_tree_prepare_remove, xs_tree_prepare_write,
    xs_tree_seek, xs_tree_share, xs_wire_next, xs_wire_number, xs_wire_put_number)
from xsd.core.history cimport (
    history_commit, history_reserve, history_wanted, priority_breaks, priority_hold)
from xsd.core.lifecycle cimport domain_exists
from xsd.core.quota cimport (
    quota_allows, quota_applies, quota_apply, quota_check_tally, quota_note,
    quota_prepare_tally)
from xsd.core.transaction cimport tx_affords, tx_apply, tx_note, tx_note_creation, tx_note_removal, tx_recharge
from xsd.core.types cimport Conn, Core, Q_NODE_PERMISSIONS, Q_NODE_SIZE, Q_PATH_MAX, RC_WAIT, Tx
from xsd.core.watches cimport (
    events_abort, events_begin, events_below, events_for_path, events_publish)
from xsd.core.writerate cimport write_rate_charge


# ---- paths and rights ----------------------------------------------------------------

cdef int path_of(Conn *c, const char *text, size_t n) noexcept nogil:
    """Checks a path and makes it absolute, in core.path. XS_OK or XS_EINVAL."""
    cdef xs_path *path = &c.core.path
    cdef int rc = xs_path_parse(path, text, n, c.domid)
    if rc == XS_OK and quota_applies(c) and not quota_allows(
            c.dom, Q_PATH_MAX, path.len - xs_path_home(path)):
        rc = XS_EINVAL
    return rc


cdef int plain_path_of(Conn *c, const char *text, size_t n) noexcept nogil:
    """The same for operations that special nodes do not have."""
    cdef int rc = path_of(c, text, n)
    if rc == XS_OK and xs_path_is_special(&c.core.path):
        rc = XS_EINVAL
    return rc


cdef unsigned access(const Conn *c, const xs_node *node) noexcept nogil:
    if c.privileged or not c.core.perms_on:
        return XS_ACCESS_READ | XS_ACCESS_WRITE | XS_ACCESS_OWNER
    return xs_perms_access(node.perms, c.domid, c.target)


cdef int find(Conn *c, Tx *tx, unsigned seen, xs_found *found) noexcept nogil:
    """Looks the current path up; a transaction remembers that it did."""
    xs_tree_find(c.core.top if tx == NULL else tx.top, &c.core.path, found)
    return XS_OK if tx == NULL else tx_note(c, tx, found, seen)


cdef int seek(Conn *c, Tx *tx, xs_found *found) noexcept nogil:
    """Looks the current path up in order to change something there."""
    cdef xs_node *top = c.core.top if tx == NULL else tx.top
    cdef int rc = xs_tree_seek(&c.core.tree, top, &c.core.path, found)
    if rc == XS_OK and tx != NULL:
        rc = tx_note(c, tx, found, XS_SEEN_SELF)
    return rc


cdef int find_readable(Conn *c, Tx *tx, unsigned seen, xs_found *found) noexcept nogil:
    """Looks up a node that must exist and be readable."""
    cdef int rc = find(c, tx, seen, found)
    if rc != XS_OK:
        return rc
    if not access(c, found.near) & XS_ACCESS_READ:
        return XS_EACCES
    return XS_OK if found.node != NULL else XS_ENOENT


# ---- reading -------------------------------------------------------------------------

cdef int op_read(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil:
    """READ path: the value, as it is."""
    cdef xs_found f
    cdef int rc = plain_path_of(c, p, strlen(p))
    if rc == XS_OK:
        rc = find_readable(c, tx, XS_SEEN_SELF, &f)
    if rc == XS_OK:
        rc = reply(c, h, xs_node_value(f.node), f.node.value_len)
    return rc


cdef int op_directory(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil:
    """DIRECTORY path: all names of children in byte order, each with a NUL."""
    cdef xs_found f
    cdef cbool end
    cdef uint32_t n
    cdef int rc = plain_path_of(c, p, strlen(p))
    if rc == XS_OK:
        rc = find_readable(c, tx, XS_SEEN_SELF | XS_SEEN_KIDS, &f)
    if rc != XS_OK:
        return rc
    n = xs_node_names_bytes(f.node)
    rc = reply_room(c, n)
    if rc == XS_OK:
        xs_dir_list(f.node.kids, 0, reply_put(c, h, n), n, &end)
    return rc


cdef int op_directory_part(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil:
    """DIRECTORY_PART path, offset: generation, then as many names as fit.

    A further NUL marks the end of the list.
    """
    cdef const char *text
    cdef const char *number
    cdef size_t n = xs_wire_next(&p, &text), used
    cdef char part[XS_PAYLOAD_MAX]
    cdef int64_t offset
    cdef cbool end
    cdef xs_found f
    cdef int rc = plain_path_of(c, text, n)
    if rc == XS_OK:
        rc = find_readable(c, tx, XS_SEEN_SELF | XS_SEEN_KIDS, &f)
    if rc != XS_OK:
        return rc
    n = xs_wire_next(&p, &number)
    offset = xs_wire_number(number, n)
    used = xs_wire_put_number(part, xs_node_generation(f.node))
    used += xs_dir_list(f.node.kids, <uint64_t>(offset if offset > 0 else 0), part + used,
                        XS_PAYLOAD_MAX - used - 1, &end)
    if end:
        part[used] = 0
        used += 1
    return reply(c, h, part, used)


cdef int op_get_perms(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil:
    """GET_PERMS path: the permission list in text form."""
    cdef xs_found f
    cdef size_t n
    cdef int rc = path_of(c, p, strlen(p))
    if rc == XS_OK:
        rc = find_readable(c, tx, XS_SEEN_SELF, &f)
    if rc != XS_OK:
        return rc
    n = xs_perms_text_len(f.node.perms)
    rc = reply_room(c, n)
    if rc == XS_OK:
        xs_perms_text(f.node.perms, reply_put(c, h, n))
    return rc


# ---- changing ------------------------------------------------------------------------

cdef int creation_perms(Conn *c, const xs_node *near, xs_perms **out) noexcept nogil:
    """Permissions of what is created below a node: its list, owned by a guest that creates.

    Gives a reference. XS_OK or XS_ENOMEM.
    """
    cdef Core *core = c.core
    cdef xs_perms *perms = near.perms
    if c.privileged or xs_perms_owner(perms) == c.domid:
        out[0] = xs_perms_ref(perms)
        return XS_OK
    memcpy(core.perm, perms.entry, perms.count * sizeof(xs_perm))
    core.perm[0].domid = <unsigned short>c.domid
    return xs_perms_intern(&core.tree.perms, core.perm, perms.count, out)


cdef int events_of(Conn *c, unsigned op, const xs_found *f, const xs_perms *perms) noexcept nogil:
    """Prepares the events of one change of the live tree, before it is made."""
    cdef Core *core = c.core
    cdef const xs_perms *parent
    cdef int rc
    if core.watches.watch_count == 0 or xs_path_is_special(&core.path):
        return XS_OK # setting the permissions of a special node is no coming or going
    if op == XS_OP_RM:
        rc = events_below(core, core.top, &core.path, NULL)
        if rc != XS_OK:
            return rc
        return events_for_path(core, &core.path, core.path.buf, f.node.perms, f.parent.perms,
                               NULL, NULL)
    if f.node == NULL:
        # The parent may be created along with the node, with the same permissions.
        parent = perms
        if xs_path_parent_len(&core.path) == f.near_len:
            parent = f.near.perms
        return events_for_path(core, &core.path, core.path.buf, perms, parent, NULL, NULL)
    parent = f.parent.perms
    if op == XS_OP_SET_PERMS:
        return events_for_path(core, &core.path, core.path.buf, perms, parent, f.node.perms,
                               NULL)
    return events_for_path(core, &core.path, core.path.buf, f.node.perms, parent, NULL, NULL)


cdef int undo(Conn *c, xs_node *before) noexcept nogil:
    """Takes a change of the live tree back that must not be seen yet. RC_WAIT."""
    cdef Core *core = c.core
    events_abort(core)
    xs_tree_drop(&core.tree, core.top)
    core.top = xs_tree_share(before)
    priority_hold(c)
    return RC_WAIT


cdef int finish_live(Conn *c, unsigned op, const xs_found *f, const xs_perms *perms,
                     const char *value, xs_node *before) noexcept nogil:
    """The second half of a change of the live tree; `before` is the tree as it was, if kept."""
    cdef Core *core = c.core
    cdef int64_t units
    cdef int rc
    events_begin(core)
    rc = quota_prepare_tally(core)
    if rc == XS_OK:
        rc = quota_check_tally(c, NULL, 0)
    if rc == XS_OK:
        rc = events_of(c, op, f, perms)
    if rc == XS_OK:
        rc = history_reserve(core, c, NULL)
    if rc != XS_OK:
        events_abort(core)
        xs_tree_abort(&core.tree)
        return rc
    units = 1 if core.tree.change.created == 0 else core.tree.change.created + 1
    if op == XS_OP_RM:
        units = 1 - core.tree.change.nodes
    xs_tree_commit(&core.tree, value if op == XS_OP_WRITE else NULL)
    if before != NULL and priority_breaks(core, c, before, core.top):
        return undo(c, before)
    history_commit(core, c, NULL, before)
    if core.open_tx > 0:
        write_rate_charge(c, units)
    quota_apply(core, core.tree.tally, core.tree.tally_count)
    events_publish(core, c)
    core.commits += 1
    return XS_OK


cdef int change(Conn *c, const xs_header *h, Tx *tx, unsigned op, const xs_found *f,
                xs_perms *perms, const char *value, size_t value_len) noexcept nogil:
    """Makes one change, on the live tree or in a transaction, and replies OK.

    `perms` is what a created node gets, or what SET_PERMS sets.
    """
    cdef Core *core = c.core
    cdef xs_node **top = &core.top if tx == NULL else &tx.top
    cdef const void *data = value
    cdef xs_node *before = NULL
    cdef size_t mark = 0, len = value_len
    cdef int rc
    if op == XS_OP_SET_PERMS:
        data = perms.entry
        len = perms.count * sizeof(xs_perm)
    if tx != NULL:
        if not tx_affords(c, tx, sizeof(xs_oprec) + core.path.len + len + 7):
            return XS_ENOMEM
        mark = tx.log.len
        rc = xs_oplog_add(&tx.log, &core.mem, tx.account, op, 0, core.path.buf, core.path.len,
                          data, len)
        if rc != XS_OK:
            return rc
    elif core.priority != NULL or history_wanted(core, NULL):
        before = xs_tree_share(core.top)
    if op == XS_OP_RM:
        rc = xs_tree_prepare_remove(&core.tree, top, &core.path)
    elif op == XS_OP_SET_PERMS:
        rc = xs_tree_prepare_perms(&core.tree, top, &core.path, perms)
    else:
        rc = xs_tree_prepare_write(&core.tree, top, &core.path, perms, <uint32_t>value_len)
    if rc == XS_OK and tx == NULL:
        rc = finish_live(c, op, f, perms, value, before)
    elif rc == XS_OK:
        rc = quota_check_tally(c, tx.delta, tx.delta_count)
        if rc == XS_OK:
            rc = tx_apply(core, tx, top, op, value, <uint32_t>value_len)
        else:
            xs_tree_abort(&core.tree)
    if tx != NULL:
        if rc != XS_OK:
            xs_oplog_undo(&tx.log, mark)
        tx_recharge(c, tx)
    xs_tree_drop(&core.tree, before)
    if rc == XS_OK:
        reply_ok(c, h)
    return rc


cdef int check_sizes(Conn *c, const xs_found *f, size_t value_len, uint32_t perms) noexcept nogil:
    """Whether the nodes that grow by a write stay within the node size quota."""
    cdef Core *core = c.core
    cdef const char *p = core.path.buf
    cdef uint32_t start, end, len = core.path.len
    cdef uint64_t fixed = 16 + 8 * <uint64_t>perms
    if not quota_applies(c):
        return XS_OK
    if f.node != NULL:
        fixed = 16 + 8 * <uint64_t>f.node.perms.count + xs_node_names_bytes(f.node)
        return XS_OK if quota_allows(c.dom, Q_NODE_SIZE, fixed + value_len) else XS_ENOSPC
    if not quota_allows(c.dom, Q_NODE_SIZE, fixed + value_len):
        return XS_ENOSPC
    # Each name below the nearest ancestor makes its parent grow.
    end = f.near_len if f.near_len > 1 else 0
    fixed = xs_node_size(f.near)
    while end < len:
        start = end + 1
        end = start
        while end < len and p[end] != b'/':
            end += 1
        if not quota_allows(c.dom, Q_NODE_SIZE, fixed + end - start + 1):
            return XS_ENOSPC
        fixed = 16 + 8 * <uint64_t>perms
    return XS_OK


cdef int write(Conn *c, const xs_header *h, Tx *tx, unsigned op, const char *text, size_t n,
               const char *value, size_t value_len) noexcept nogil:
    cdef xs_perms *perms
    cdef xs_found f
    cdef int rc = plain_path_of(c, text, n)
    if rc == XS_OK:
        rc = seek(c, tx, &f)
    if rc != XS_OK:
        return rc
    if not access(c, f.near) & XS_ACCESS_WRITE:
        return XS_EACCES
    if op == XS_OP_MKDIR and f.node != NULL:
        reply_ok(c, h)
        return XS_OK
    if tx != NULL and f.node == NULL:
        rc = tx_note_creation(c, tx, f.near_len)
    if rc == XS_OK:
        rc = check_sizes(c, &f, value_len, f.near.perms.count)
    if rc == XS_OK:
        rc = creation_perms(c, f.near, &perms)
    if rc == XS_OK:
        rc = change(c, h, tx, op, &f, perms, value, value_len)
        xs_perms_unref(&c.core.tree.perms, perms)
    return rc


cdef int op_write(Conn *c, const xs_header *h, Tx *tx, const char *p, size_t n) noexcept nogil:
    """WRITE path, value: creates the node and its missing ancestors, or sets its value."""
    cdef size_t len = strlen(p)
    return write(c, h, tx, XS_OP_WRITE, p, len, p + len + 1, n - len - 1)


cdef int op_mkdir(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil:
    """MKDIR path: the same without a value; nothing happens when the node exists."""
    return write(c, h, tx, XS_OP_MKDIR, p, strlen(p), b"", 0)


cdef int op_rm(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil:
    """RM path: the node with everything below it. A missing leaf is removed already."""
    cdef Core *core = c.core
    cdef xs_found f
    cdef int rc = plain_path_of(c, p, strlen(p))
    if rc == XS_OK:
        rc = seek(c, tx, &f)
    if rc != XS_OK:
        return rc
    if not access(c, f.near) & XS_ACCESS_WRITE:
        return XS_EACCES
    if f.node == NULL:
        if f.near_len != xs_path_parent_len(&core.path):
            return XS_ENOENT
        reply_ok(c, h)
        return XS_OK
    if core.path.len == 1:
        return XS_EINVAL
    if tx != NULL:
        rc = tx_note_removal(c, tx)
    if rc == XS_OK:
        rc = change(c, h, tx, XS_OP_RM, &f, NULL, NULL, 0)
    return rc


cdef int resolve(Conn *c, uint32_t count) noexcept nogil:
    """Finds out which of the named domains exist; the owner must. May have to wait."""
    cdef Core *core = c.core
    cdef uint32_t i
    cdef int rc
    for i in range(count):
        if i > 0 and core.perm[i].domid == XS_DOMID_ANY:
            if not c.dom.features & 8 and c.kind != 0:
                core.perm[i].flags |= XS_PERM_IGNORED
            continue
        rc = domain_exists(c, core.perm[i].domid)
        if rc == RC_WAIT or rc == XS_ENOMEM:
            return rc
        if rc == XS_ENOENT:
            if i == 0:
                return XS_ENOENT
            core.perm[i].flags |= XS_PERM_IGNORED
    return XS_OK


cdef int op_set_perms(Conn *c, const xs_header *h, Tx *tx, const char *p,
                      uint32_t strings) noexcept nogil:
    """SET_PERMS path, entry...: the owner's to do; a new owner only by the privileged."""
    cdef Core *core = c.core
    cdef const char *text
    cdef size_t n = xs_wire_next(&p, &text)
    cdef xs_perms *perms
    cdef xs_found f
    cdef uint64_t size
    cdef int rc = xs_perms_parse(p, strings - 1, core.perm)
    if rc != XS_OK:
        return rc
    if quota_applies(c) and not quota_allows(c.dom, Q_NODE_PERMISSIONS, strings - 1):
        return XS_ENOSPC
    quota_note(core, c.dom, Q_NODE_PERMISSIONS, strings - 1)
    rc = resolve(c, strings - 1)
    if rc == XS_OK:
        rc = path_of(c, text, n)
    if rc == XS_OK:
        rc = seek(c, tx, &f)
    if rc != XS_OK:
        return rc
    if f.node == NULL:
        return XS_ENOENT if access(c, f.near) & XS_ACCESS_WRITE else XS_EACCES
    if not access(c, f.node) & XS_ACCESS_OWNER:
        return XS_EACCES
    if not c.privileged and core.perm[0].domid != xs_perms_owner(f.node.perms):
        return XS_EPERM
    size = xs_node_size(f.node) + 8 * (<uint64_t>strings - 1) - 8 * f.node.perms.count
    if quota_applies(c) and not quota_allows(c.dom, Q_NODE_SIZE, <int64_t>size):
        return XS_ENOSPC
    rc = xs_perms_intern(&core.tree.perms, core.perm, strings - 1, &perms)
    if rc == XS_OK:
        rc = change(c, h, tx, XS_OP_SET_PERMS, &f, perms, NULL, 0)
        xs_perms_unref(&core.tree.perms, perms)
    return rc


# ---- which it is ---------------------------------------------------------------------

cdef int tree_op(Conn *c, const xs_header *h, Tx *tx, const char *p,
                 uint32_t strings) noexcept nogil:
    """An operation on the tree, whose payload has `strings` strings. XS_OK once replied."""
    if h.type == XS_OP_READ:
        return op_read(c, h, tx, p)
    if h.type == XS_OP_WRITE:
        return op_write(c, h, tx, p, h.len)
    if h.type == XS_OP_DIRECTORY:
        return op_directory(c, h, tx, p)
    if h.type == XS_OP_GET_PERMS:
        return op_get_perms(c, h, tx, p)
    if h.type == XS_OP_MKDIR:
        return op_mkdir(c, h, tx, p)
    if h.type == XS_OP_RM:
        return op_rm(c, h, tx, p)
    if h.type == XS_OP_SET_PERMS:
        return op_set_perms(c, h, tx, p, strings)
    if h.type == XS_OP_DIRECTORY_PART:
        return op_directory_part(c, h, tx, p)
    return XS_ENOSYS
