/*
 * Nodes and directory blocks: what the tree is made of.
 *
 *   xs_node "domain"                    xs_dir (level 0: a leaf)
 *   +------------------------+         +---------------------------------+
 *   | refs  stamps  perms    |    +--->| refs  count  level  aggregates  |
 *   | kids ------------------+----+    | [key|node*] [key|node*] ...     |
 *   | "domain" value bytes   |         +-----|-----------|---------------+
 *   +------------------------+            xs_node "1"  xs_node "2"
 *
 * A node owns its name and value in one block. Its children stand in a B-tree of
 * directory blocks, at most XS_DIR_SLOTS wide, sorted by name; a small directory
 * is one block, sized to fit. Slots carry the key of a name (path.h), so a search
 * stays inside the block until its last step.
 *
 * Sharing. Nodes and blocks are reference counted, and whoever holds a reference
 * to a node may count on it and on everything below never to change. So a snapshot
 * of the whole tree is one reference to its top. A change first makes its path its
 * own: what has one reference is changed in place, what has more is copied.
 *
 * Aggregates. A block knows, for everything in and below it: how many nodes, how
 * many accounted bytes, whether all have the same owner, and which domains their
 * permission lists mention (as a 64-bit set that may err on the side of yes). So
 * removing a subtree of one owner settles its quota without visiting it, and the
 * death of a domain visits only where it is mentioned. `mixed` and `mentions` only
 * ever widen while a block lives.
 *
 * Stamps. Each modification takes the next number of one counter: `stamp` moves
 * with value and permissions, `kids_stamp` with the set of children. Two nodes of
 * equal path and equal stamps are the same as far as a transaction can tell.
 */
#ifndef XS_NODE_H
#define XS_NODE_H

#include "path.h"
#include "perms.h"

enum {
    XS_LINE_BYTES = 64, /* what processors fetch at once, most of them */
    XS_DIR_SLOTS = 64,  /* widest block */
    XS_DIR_LEVELS = 12, /* a root gains a level only when it is full: 64^11 insertions */
};

struct xs_node {
    uint32_t refs;
    uint16_t name_len;
    uint16_t value_len;
    struct xs_perms *perms;
    struct xs_dir *kids; /* NULL: no children */
    union {
        uint64_t stamp;
        struct xs_node *next_dead;
    };
    uint64_t kids_stamp;
    char data[]; /* name, then value */
};

struct xs_slot {
    uint64_t key;
    union {
        struct xs_node *node; /* level 0 */
        struct xs_dir *dir;   /* above: a block one level lower; key bounds its names below */
    };
};

enum { XS_LINE_SLOTS = XS_LINE_BYTES / sizeof(struct xs_slot) };

struct xs_dir {
    uint32_t refs;
    uint16_t count, cap;
    uint16_t owner; /* of every node in and below, unless mixed */
    uint8_t level;
    uint8_t mixed;
    uint32_t names_bytes; /* names of the direct children, each with its NUL */
    uint64_t nodes;       /* in and below */
    union {
        uint64_t bytes; /* accounted, in and below */
        struct xs_dir *next_dead;
    };
    uint64_t mentions;
    struct xs_slot slot[];
};

static inline const char *xs_node_name(const struct xs_node *n)
{
    return n->data;
}

static inline const char *xs_node_value(const struct xs_node *n)
{
    return n->data + n->name_len;
}

static inline uint32_t xs_node_names_bytes(const struct xs_node *n)
{
    return n->kids == NULL ? 0 : n->kids->names_bytes;
}

/* What quotas call the size of a node: a header of 16 bytes, 8 for each permission,
 * the value, the names of its children with their NULs. */
static inline uint64_t xs_node_size(const struct xs_node *n)
{
    return 16u + 8u * (uint64_t)n->perms->count + n->value_len + xs_node_names_bytes(n);
}

/* The number that changes whenever anything of this node does; never 0. */
static inline uint64_t xs_node_generation(const struct xs_node *n)
{
    return n->stamp > n->kids_stamp ? n->stamp : n->kids_stamp;
}

/* Length of a child's path, given its directory's: 0 for the top, 1 for "/". */
static inline uint32_t xs_node_path_len(uint32_t dir_len, uint32_t name_len)
{
    if (dir_len == 0)
        return name_len == 0 ? 1 : name_len;
    return dir_len == 1 ? 1 + name_len : dir_len + 1 + name_len;
}

#endif
