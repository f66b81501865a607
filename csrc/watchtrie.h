/*
 * Who wants to know about a path.
 *
 * A watchpoint is a path that somebody watches; it holds its watches in the order in
 * which they were registered. Two indexes lead to watchpoints:
 *
 *   by hash     An event for /a/b/c must reach watches on /, /a, /a/b and /a/b/c. The
 *               hash of a path is built name by name, so one walk over the event's path
 *               looks up all its ancestors: as many lookups as names, however many
 *               watches there are elsewhere.
 *   by order    A removal of /a must also reach watches below it. A treap keeps the
 *               watchpoints sorted so that what lies below a path stands together:
 *
 *                   /    /a    /a/b    /a/b/c    /a/x    /ab    /b
 *                              '-------- below /a -----'
 *
 *               Its priorities are the path hashes, so its shape is a function of its
 *               content.
 *
 * There are no intermediate nodes: a watch on a path of a thousand names costs its bytes
 * and a constant, not a thousand nodes.
 *
 * The index knows no connections. A watch belongs to an owner, which is a list head and
 * an account; removing a watch takes it out of everything at once.
 *
 * Cost: add and remove O(log watchpoints); match O(names of the path + matches).
 */
#ifndef XS_WATCHTRIE_H
#define XS_WATCHTRIE_H

#include "mem.h"
#include "path.h"

enum { XS_DEPTH_UNLIMITED = -1 };

struct xs_watch_owner {
    struct xs_watch *first, *last; /* in order of registration */
    uint32_t count;
    uint64_t id; /* never reused */
    struct xs_account *account;
    void *context; /* the connection, for whoever uses the index */
};

struct xs_watch {
    struct xs_watchpoint *point;
    struct xs_watch_owner *owner;
    struct xs_watch *point_prev, *point_next;
    struct xs_watch *owner_prev, *owner_next;
    struct xs_watch *hash_next;
    uint64_t hash;     /* of point, owner and token */
    int32_t depth;     /* names below the path that still match, or XS_DEPTH_UNLIMITED */
    uint32_t base_len; /* bytes that an event's path loses: the watch is relative */
    uint32_t path_len; /* of the path as registered */
    uint32_t token_len;
    char data[]; /* the path as registered, then the token */
};

struct xs_watchpoint {
    struct xs_watchpoint *hash_next;
    struct xs_watchpoint *left, *right, *up; /* treap */
    struct xs_watch *first, *last;
    uint64_t hash;
    uint32_t len;
    char path[]; /* absolute */
};

struct xs_watches {
    struct xs_mem *mem;
    struct xs_account account; /* watchpoints and tables; watches are their owners' */
    uint64_t seed;
    struct xs_watchpoint *root;
    struct xs_watchpoint **points;
    size_t point_buckets, point_count;
    struct xs_watch **watches;
    size_t watch_buckets, watch_count;
};

int xs_watches_init(struct xs_watches *w, struct xs_mem *mem, uint64_t seed);
void xs_watches_destroy(struct xs_watches *w);

/* Whether owner, path and token are registered already; then that watch. */
struct xs_watch *xs_watches_find(const struct xs_watches *w, const struct xs_watch_owner *owner,
                                 const struct xs_path *path, const char *token,
                                 size_t token_len);

/* Registers a watch that does not exist yet. `text` is the path as the client gave it.
 * 0 or XS_ENOMEM. */
int xs_watches_add(struct xs_watches *w, struct xs_watch_owner *owner,
                   const struct xs_path *path, const char *text, size_t text_len,
                   const char *token, size_t token_len, int32_t depth, struct xs_watch **out);

void xs_watches_remove(struct xs_watches *w, struct xs_watch *watch);

static inline const char *xs_watch_token(const struct xs_watch *watch)
{
    return watch->data + watch->path_len;
}

/*
 * Watches on a path and on its ancestors, from the root down:
 *
 *      xs_match_start(&m, watches, &path);
 *      while ((watch = xs_match_next(&m)) != NULL) ...
 *
 * Depth is the caller's business. Nothing may be added or removed meanwhile.
 */
struct xs_match {
    const struct xs_watches *watches;
    const struct xs_path *path;
    struct xs_name name;
    uint64_t hash;
    bool more;
    struct xs_watch *next;
};

void xs_match_start(struct xs_match *m, const struct xs_watches *w, const struct xs_path *path);
struct xs_watch *xs_match_next(struct xs_match *m);

/* The watchpoint of exactly this path, or NULL. */
struct xs_watchpoint *xs_watches_point(const struct xs_watches *w, const struct xs_path *path);

/* Watchpoints strictly below a path, one after the other; NULL as `prev` to begin. */
struct xs_watchpoint *xs_watches_below(const struct xs_watches *w, const struct xs_path *path,
                                       const struct xs_watchpoint *prev);

/* Sorts watchpoints into the order in which a removal reports them (path.h). */
void xs_watchpoints_sort(struct xs_watchpoint **points, size_t count);

/* Whether both indexes agree. For tests. */
bool xs_watches_check(const struct xs_watches *w);

#endif
