/*
 * The tree: finding, changing, sharing.
 *
 *                     top                (nameless, never seen by clients)
 *          /           |            \
 *        ""    "@introduceDomain"  "@releaseDomain"
 *       /  \        special nodes, outside the tree
 *   "local" "tool"
 *
 * Whoever works on a tree holds a pointer to its top: the store for what is live, a
 * transaction for its own view. xs_tree_share gives another holder the same tree in
 * O(1); from then on each one's changes copy what is still shared on their path.
 *
 * A change begins with xs_tree_seek and has two halves. xs_tree_prepare_* does everything
 * that can fail: makes the path our own, builds new nodes, makes room, adds up what quotas
 * need to know; it changes nothing anybody can see. xs_tree_commit cannot fail; xs_tree_abort forgets.
 * Between the two the caller checks quotas and prepares the rest of its operation,
 * and so a request is all or nothing, memory running out included. One change is in
 * preparation at a time.
 *
 * What a change means for quotas stands in its tally: per domain, nodes and bytes
 * gained or lost.
 *
 * Nothing recurses: clients choose the depth. What loses its last reference goes to a
 * list and is freed in small portions by xs_tree_collect, so removing a million nodes
 * costs the request that does it no more than removing one.
 *
 * Cost, in a tree of any size: find: one block search per name of the path. Change:
 * the same; plus a copy of each shared node and block on the path. Share: O(1).
 * Removal: O(1) for a subtree of one owner, else the blocks whose owners are mixed.
 */
#ifndef XS_TRIE_H
#define XS_TRIE_H

#include "dir.h"

struct xs_tally {
    uint32_t domid;
    int64_t nodes;
    int64_t bytes;
};

enum xs_change_kind {
    XS_CHANGE_NONE,
    XS_CHANGE_CREATE,
    XS_CHANGE_VALUE,
    XS_CHANGE_PERMS,
    XS_CHANGE_REMOVE
};

/* The change in preparation. Callers read kind, node, parent, created and the tally. */
struct xs_change {
    enum xs_change_kind kind;
    struct xs_node *node;   /* target as it is (NULL: it will be created) */
    struct xs_node *parent; /* node that gains or loses a child; NULL: none does */
    uint32_t created;       /* nodes that will come into being */
    struct xs_node **link;  /* slot of the target */
    struct xs_node *fresh;  /* node, or chain of nodes, to put in place */
    struct xs_node *last;   /* end of that chain */
    struct xs_dir *dir;     /* first directory block of a node that had no children */
    struct xs_perms *perms; /* list to put in place */
    struct xs_name name;    /* name of the node, or the first one that is missing */
    uint32_t dir_len;       /* length of the path of its directory */
    size_t dir_mark;        /* first step inside that directory */
    int64_t nodes, bytes;   /* gained by the directory of the target, it included */
    uint32_t value_len;
};

struct xs_tree {
    struct xs_mem *mem;
    struct xs_account account; /* nodes and blocks, live and shared */
    struct xs_permtab perms;
    uint64_t stamp; /* last one given */
    struct xs_node *dead_nodes;
    struct xs_dir *dead_dirs;
    size_t made; /* nodes and blocks since the last collection */
    struct xs_change change;
    struct xs_dir_step *steps;
    size_t step_count, step_cap;
    struct xs_tally *tally;
    size_t tally_count, tally_cap;
};

struct xs_found {
    struct xs_node *node;   /* NULL: there is none */
    struct xs_node *parent; /* of the node; NULL when it is missing or has none */
    struct xs_node *near;   /* the node, or its nearest existing ancestor */
    uint32_t near_len;      /* length of the path of `near` */
};

int xs_tree_init(struct xs_tree *t, struct xs_mem *mem);
/* Frees everything at once; all holders' tops must have been let go. */
void xs_tree_destroy(struct xs_tree *t);

/* A new tree: top, "/" and two special nodes, all with these permissions. */
int xs_tree_new(struct xs_tree *t, struct xs_perms *perms, struct xs_node **top);

static inline struct xs_node *xs_tree_share(struct xs_node *top)
{
    top->refs++;
    return top;
}

void xs_tree_drop(struct xs_tree *t, struct xs_node *top);

void xs_tree_find(struct xs_node *top, const struct xs_path *path, struct xs_found *found);

/* The same, as the first step of a change: remembers the way, so that xs_tree_prepare_* need
 * not search again. They go with the last seek, of the same path in the same tree, which must
 * not have changed in between. 0 or XS_ENOMEM. */
int xs_tree_seek(struct xs_tree *t, struct xs_node *top, const struct xs_path *path,
                 struct xs_found *found);

/* WRITE and MKDIR: create the node with all missing ancestors, each with `perms`, or
 * give an existing one a value of `value_len` bytes. 0 or XS_ENOMEM. */
int xs_tree_prepare_write(struct xs_tree *t, struct xs_node **top, const struct xs_path *path,
                          struct xs_perms *perms, uint32_t value_len);
/* The node must exist, and must not be "/" or special. */
int xs_tree_prepare_remove(struct xs_tree *t, struct xs_node **top, const struct xs_path *path);
/* The node must exist. */
int xs_tree_prepare_perms(struct xs_tree *t, struct xs_node **top, const struct xs_path *path,
                          struct xs_perms *perms);

/* Puts the prepared change in place; `value` for a write, else NULL. */
void xs_tree_commit(struct xs_tree *t, const char *value);
void xs_tree_abort(struct xs_tree *t);

/* Frees up to `budget` dead nodes and blocks, and two for each one made since the last call.
 * Whether more are waiting. */
bool xs_tree_collect(struct xs_tree *t, size_t budget);

/* Whether a path says the same in two trees: present or absent in both with the same
 * stamp and, if asked, the same set of children. */
bool xs_tree_same(struct xs_node *a, struct xs_node *b, const struct xs_path *path, bool kids);

/* The same for the whole subtree at a path. Sets *same; 0 or XS_ENOMEM. Visits only what
 * the two trees do not share. */
int xs_tree_same_subtree(struct xs_tree *t, struct xs_node *a, struct xs_node *b,
                         const struct xs_path *path, bool *same);

/*
 * Walking, parents first, siblings in byte order.
 *
 *      xs_walk_start(&w, tree, top, NULL, 0);
 *      while ((node = xs_walk_next(&w)) != NULL) ... w.path, w.len ...
 *      failed = w.error;  xs_walk_end(&w);
 *
 * The tree must not change while walked: share it first. With `mentions`, only nodes
 * below blocks that may mention one of these domains are visited.
 */
struct xs_walk_frame {
    const struct xs_dir *dir;
    uint32_t index;
    uint32_t dir_len;
};

struct xs_walk {
    struct xs_tree *tree;
    struct xs_walk_frame *frames;
    size_t count, cap;
    uint64_t mentions;
    const struct xs_dir *descend; /* children of the node last returned; NULL to skip them */
    int error;
    struct xs_path path;
};

/* Walks what is below `node`, whose path is `path` (NULL: it is the top). */
void xs_walk_start(struct xs_walk *w, struct xs_tree *t, const struct xs_node *node,
                   const struct xs_path *path, uint64_t mentions);
/* NULL at the end, or when memory ran out (w->error). */
struct xs_node *xs_walk_next(struct xs_walk *w);
static inline void xs_walk_skip(struct xs_walk *w)
{
    w->descend = NULL;
}
void xs_walk_end(struct xs_walk *w);

/* Whether every block and aggregate of the tree holds. For tests. 0, XS_EIO, XS_ENOMEM. */
int xs_tree_check(struct xs_tree *t, struct xs_node *top);

/* Internal to dir.c and trie.c. */
int xs_tree_push_step(struct xs_tree *t, struct xs_dir *d, uint32_t index);
void xs_tree_bury_node(struct xs_tree *t, struct xs_node *n);
void xs_tree_bury_dir(struct xs_tree *t, struct xs_dir *d);

#endif
