# Declarations of csrc. Structs name only the fields that the core reads; the C compiler
# knows the layout. What a function means stands in the header, and only there.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "stdbool.h" nogil:
    ctypedef bint cbool "bool"

cdef extern from "proto.h" nogil:
    enum:
        XS_HEADER_SIZE
        XS_PAYLOAD_MAX
        XS_MESSAGE_MAX
        XS_DOMID_ANY
        XS_DOMID_SELF
        XS_DOMID_INVALID
        XS_DOMID_FIRST_RESERVED
        XS_PERMS_MAX

cdef extern from "err.h" nogil:
    enum:
        XS_OK
        XS_EINVAL
        XS_EACCES
        XS_EEXIST
        XS_ENOENT
        XS_ENOMEM
        XS_ENOSPC
        XS_ENOSYS
        XS_EBUSY
        XS_EAGAIN
        XS_E2BIG
        XS_EPERM
        XS_ERROR_COUNT
    const char *xs_error_name(int error)
    int xs_error_from_name(const char *name, size_t len)

cdef extern from "mem.h" nogil:
    struct xs_account:
        int64_t bytes
        int64_t blocks
    struct xs_mem:
        xs_account total
        uint64_t calls
        uint64_t fail_at
        uint64_t failures
        cbool fail_sticky
    void xs_mem_init(xs_mem *m)
    void *xs_mem_alloc(xs_mem *m, xs_account *who, size_t n)
    void *xs_mem_zalloc(xs_mem *m, xs_account *who, size_t n)
    void *xs_mem_resize(xs_mem *m, xs_account *who, void *p, size_t old_n, size_t n)
    void xs_mem_free(xs_mem *m, xs_account *who, void *p, size_t n)
    int xs_mem_grow(xs_mem *m, xs_account *who, void **p, size_t *cap, size_t need, size_t size)

cdef extern from "path.h" nogil:
    struct xs_path:
        uint32_t len
        uint32_t base_len
        char *buf
    int xs_path_parse(xs_path *out, const char *p, size_t n, uint32_t base_domid)
    void xs_path_set(xs_path *out, const char *p, size_t n)
    uint32_t xs_path_home(const xs_path *path)
    bint xs_path_is_special(const xs_path *path)
    uint32_t xs_path_parent_len(const xs_path *path)
    uint32_t xs_path_depth_below(const xs_path *path, size_t n)

cdef extern from "ring.h" nogil:
    enum:
        XS_RING_SIZE
        XS_RING_BAD
        XS_RING_RECONNECT
        XS_RING_ERROR_NONE
        XS_RING_ERROR_CHANNEL
        XS_RING_ERROR_INDICES
        XS_RING_ERROR_PROTOCOL
        XS_RING_ERROR
        XS_RING_DEPTH
        XS_RING_FEATURES
    struct xs_ring_page:
        uint32_t port
    int xs_ring_read(const xs_ring_page *page, char *into, size_t n, uint32_t *at)
    void xs_ring_taken(xs_ring_page *page, uint32_t at, size_t n)
    int xs_ring_write(xs_ring_page *page, const char *src, size_t n)
    bint xs_ring_reconnecting(const xs_ring_page *page)
    void xs_ring_reset(xs_ring_page *page, uint32_t features)
    void xs_ring_fail(xs_ring_page *page, uint32_t error)

cdef extern from "wire.h" nogil:
    enum:
        XS_OP_CONTROL
        XS_OP_DIRECTORY
        XS_OP_READ
        XS_OP_GET_PERMS
        XS_OP_WATCH
        XS_OP_UNWATCH
        XS_OP_TRANSACTION_START
        XS_OP_TRANSACTION_END
        XS_OP_INTRODUCE
        XS_OP_RELEASE
        XS_OP_GET_DOMAIN_PATH
        XS_OP_WRITE
        XS_OP_MKDIR
        XS_OP_RM
        XS_OP_SET_PERMS
        XS_OP_ERROR
        XS_OP_IS_DOMAIN_INTRODUCED
        XS_OP_RESUME
        XS_OP_SET_TARGET
        XS_OP_RESET_WATCHES
        XS_OP_DIRECTORY_PART
        XS_OP_GET_FEATURE
        XS_OP_SET_FEATURE
        XS_OP_GET_QUOTA
        XS_OP_SET_QUOTA
        XS_OP_COUNT
        XS_OPF_PRIVILEGED
        XS_OPF_IGNORES_TX
        XS_OPF_TREE
    struct xs_op_info:
        const char *name
        uint8_t flags
    const xs_op_info *xs_op_info_of "xs_op_info"(uint32_t type)
    struct xs_header:
        uint32_t type
        uint32_t req_id
        uint32_t tx_id
        uint32_t len
    void xs_header_load(xs_header *h, const void *p)
    bint xs_wire_check(const xs_op_info *op, const char *p, size_t n, uint32_t *strings)
    size_t xs_wire_next(const char **p, const char **string)
    bint xs_wire_domid(const char *p, size_t n, uint32_t *domid)
    int64_t xs_wire_number(const char *p, size_t n)
    size_t xs_wire_put_number(char *out, uint64_t v)

cdef extern from "perms.h" nogil:
    enum:
        XS_ACCESS_READ
        XS_ACCESS_WRITE
        XS_ACCESS_OWNER
        XS_PERM_IGNORED
    struct xs_perm:
        uint8_t access
        uint8_t flags
        uint16_t domid
    struct xs_perms:
        uint32_t refs
        uint32_t count
        xs_perm *entry
    struct xs_permtab:
        size_t count
    int xs_perms_parse(const char *p, uint32_t strings, xs_perm *out)
    int xs_perms_intern(xs_permtab *t, const xs_perm *entry, uint32_t count, xs_perms **out)
    xs_perms *xs_perms_ref(xs_perms *p)
    void xs_perms_unref(xs_permtab *t, xs_perms *p)
    unsigned xs_perms_access(const xs_perms *p, uint32_t domid, uint32_t target)
    size_t xs_perms_text_len(const xs_perms *p)
    void xs_perms_text(const xs_perms *p, char *out)
    uint32_t xs_perms_owner(const xs_perms *p)
    uint64_t xs_perms_mention(uint32_t domid)

cdef extern from "trie.h" nogil:
    struct xs_dir:
        pass
    struct xs_node:
        uint16_t value_len
        xs_perms *perms
        xs_dir *kids
        uint64_t stamp
        uint64_t kids_stamp
    const char *xs_node_name(const xs_node *n)
    const char *xs_node_value(const xs_node *n)
    uint32_t xs_node_names_bytes(const xs_node *n)
    uint64_t xs_node_size(const xs_node *n)
    uint64_t xs_node_generation(const xs_node *n)
    size_t xs_dir_list(const xs_dir *d, uint64_t offset, char *out, size_t room, cbool *end)
    struct xs_tally:
        uint32_t domid
        int64_t nodes
        int64_t bytes
    struct xs_name:
        const char *p
        uint32_t len
    struct xs_change:
        xs_node *node
        xs_node *parent
        uint32_t created
        int64_t nodes
        xs_name name
    struct xs_tree:
        xs_permtab perms
        xs_account account
        uint64_t stamp
        size_t made
        xs_change change
        xs_tally *tally
        size_t tally_count
    struct xs_found:
        xs_node *node
        xs_node *parent
        xs_node *near
        uint32_t near_len
    int xs_tree_init(xs_tree *t, xs_mem *mem)
    void xs_tree_destroy(xs_tree *t)
    int xs_tree_new(xs_tree *t, xs_perms *perms, xs_node **top)
    xs_node *xs_tree_share(xs_node *top)
    void xs_tree_drop(xs_tree *t, xs_node *top)
    void xs_tree_find(xs_node *top, const xs_path *path, xs_found *found)
    int xs_tree_seek(xs_tree *t, xs_node *top, const xs_path *path, xs_found *found)
    int xs_tree_prepare_write(xs_tree *t, xs_node **top, const xs_path *path, xs_perms *perms,
                              uint32_t value_len)
    int xs_tree_prepare_remove(xs_tree *t, xs_node **top, const xs_path *path)
    int xs_tree_prepare_perms(xs_tree *t, xs_node **top, const xs_path *path, xs_perms *perms)
    void xs_tree_commit(xs_tree *t, const char *value)
    void xs_tree_abort(xs_tree *t)
    bint xs_tree_collect(xs_tree *t, size_t budget)
    bint xs_tree_same(xs_node *a, xs_node *b, const xs_path *path, bint kids)
    int xs_tree_same_subtree(xs_tree *t, xs_node *a, xs_node *b, const xs_path *path, cbool *same)
    int xs_tree_check(xs_tree *t, xs_node *top)
    struct xs_walk:
        int error
        xs_path path
    void xs_walk_start(xs_walk *w, xs_tree *t, const xs_node *node, const xs_path *path,
                       uint64_t mentions)
    xs_node *xs_walk_next(xs_walk *w)
    void xs_walk_skip(xs_walk *w)
    void xs_walk_end(xs_walk *w)

cdef extern from "watchtrie.h" nogil:
    enum:
        XS_DEPTH_UNLIMITED
    struct xs_watch_owner:
        xs_watch *first
        uint32_t count
        uint64_t id
        xs_account *account
        void *context
    struct xs_watch:
        xs_watchpoint *point
        xs_watch_owner *owner
        xs_watch *point_next
        xs_watch *owner_next
        int32_t depth
        uint32_t base_len
        uint32_t path_len
        uint32_t token_len
        char *data
    struct xs_watchpoint:
        xs_watch *first
        uint32_t len
        char *path
    struct xs_watches:
        void *points
        uint64_t seed
        size_t watch_count
        xs_account account
    int xs_watches_init(xs_watches *w, xs_mem *mem, uint64_t seed)
    void xs_watches_destroy(xs_watches *w)
    xs_watch *xs_watches_find(const xs_watches *w, const xs_watch_owner *owner,
                              const xs_path *path, const char *token, size_t token_len)
    int xs_watches_add(xs_watches *w, xs_watch_owner *owner, const xs_path *path,
                       const char *text, size_t text_len, const char *token, size_t token_len,
                       int32_t depth, xs_watch **out)
    void xs_watches_remove(xs_watches *w, xs_watch *watch)
    const char *xs_watch_token(const xs_watch *watch)
    struct xs_match:
        pass
    void xs_match_start(xs_match *m, const xs_watches *w, const xs_path *path)
    xs_watch *xs_match_next(xs_match *m)
    xs_watchpoint *xs_watches_below(const xs_watches *w, const xs_path *path,
                                    const xs_watchpoint *prev)
    void xs_watchpoints_sort(xs_watchpoint **points, size_t count)
    bint xs_watches_check(const xs_watches *w)

cdef extern from "outq.h" nogil:
    struct xs_outmsg:
        uint32_t len
        int64_t when_ns
        void *cause
    ctypedef void (*xs_outq_gone)(void *context, const xs_outmsg *msg) noexcept nogil
    struct xs_outq:
        char *buf
        size_t head
        size_t partial
        size_t events
        size_t room_event_bytes
    size_t xs_outq_bytes(const xs_outq *q)
    void xs_outq_free(xs_outq *q, xs_mem *m, xs_account *who)
    int xs_outq_reserve(xs_outq *q, xs_mem *m, xs_account *who, size_t payload, bint event)
    void xs_outq_release(xs_outq *q)
    char *xs_outq_put(xs_outq *q, const xs_header *h, int64_t now_ns, void *cause)
    bint xs_outq_has_event(const xs_outq *q, const char *path, size_t path_len,
                           const char *token, size_t token_len, uint64_t *hash)
    void xs_outq_put_event(xs_outq *q, const char *path, size_t path_len, const char *token,
                           size_t token_len, uint64_t hash, int64_t now_ns, void *cause)
    const char *xs_outq_last(const xs_outq *q, size_t *len)
    void xs_outq_sent(xs_outq *q, xs_mem *m, xs_account *who, size_t n, xs_outq_gone gone,
                      void *context)
    void xs_outq_expire(xs_outq *q, int64_t before_ns, xs_outq_gone gone, void *context)
    int64_t xs_outq_oldest_event(const xs_outq *q)
    void xs_outq_clear(xs_outq *q, xs_outq_gone gone, void *context)

cdef extern from "pathset.h" nogil:
    enum:
        XS_SEEN_SELF
        XS_SEEN_KIDS
        XS_SEEN_SUBTREE
    struct xs_seen:
        uint16_t flags
        uint16_t len
        char *path
    struct xs_pathset:
        size_t len
        size_t count
    int xs_pathset_add(xs_pathset *s, xs_mem *m, xs_account *who, const char *path, size_t len,
                       unsigned flags)
    bint xs_pathset_has(const xs_pathset *s, const char *path, size_t len)
    void xs_pathset_free(xs_pathset *s, xs_mem *m, xs_account *who)
    const xs_seen *xs_pathset_next(const xs_pathset *s, const xs_seen *prev)
    struct xs_oprec:
        uint16_t op
        uint16_t path_len
        uint32_t data_len
        uint64_t answer
        char *data
    struct xs_oplog:
        size_t len
        size_t count
    int xs_oplog_add(xs_oplog *log, xs_mem *m, xs_account *who, unsigned op, uint64_t answer,
                     const char *path, size_t path_len, const void *data, size_t data_len)
    xs_oprec *xs_oplog_at(const xs_oplog *log, size_t mark)
    void xs_oplog_undo(xs_oplog *log, size_t mark)
    void xs_oplog_free(xs_oplog *log, xs_mem *m, xs_account *who)
    const xs_oprec *xs_oplog_next(const xs_oplog *log, const xs_oprec *prev)

cdef extern from "history.h" nogil:
    struct xs_author:
        uint64_t stamp
        uint64_t owner
        int64_t when_ns
        uint32_t conn
        uint32_t domid
        uint32_t tx
    struct xs_commit:
        xs_commit *older
        xs_commit *newer
        uint64_t number
        xs_author author
        xs_node *before
        xs_node *after
    struct xs_history:
        xs_tree *tree
        xs_commit *oldest
        xs_commit *newest
        size_t count
        uint64_t number
        xs_account account
    void xs_history_init(xs_history *h, xs_tree *tree)
    void xs_history_destroy(xs_history *h)
    int xs_history_reserve(xs_history *h)
    void xs_history_count(xs_history *h, const xs_author *author)
    void xs_history_record(xs_history *h, const xs_author *author, xs_node *before,
                           xs_node *after)
    void xs_history_extend(xs_history *h, const xs_author *author, xs_node *after)
    cbool xs_history_forget(xs_history *h, uint64_t number, size_t most)
    const xs_author *xs_history_author(const xs_history *h, uint64_t stamp)
