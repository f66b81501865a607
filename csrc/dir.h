/*
 * Directories: the children of one node, as a B-tree of blocks (see node.h).
 *
 * Searching follows the slot with the greatest lower bound; the leftmost slot takes
 * what is smaller. Bounds are kept, not maintained: removing the first name of a
 * block leaves its bound too low, which is still a bound.
 *
 * Insertion splits full blocks on the way down, before anything is inserted, so that
 * the way up never has to. A split changes no content: if memory runs out half way,
 * the directory says what it said before. Removal frees blocks that become empty
 * and shrinks those that become sparse; it never merges neighbours.
 *
 * Cost: find O(log n) comparisons of integers, one look at a name; insert and remove
 * move at most one block's slots; list is sequential, and seeking in it O(log n).
 */
#ifndef XS_DIR_H
#define XS_DIR_H

#include "node.h"

struct xs_tree;

/* One block on the way to a name, and the slot taken there. */
struct xs_dir_step {
    struct xs_dir *dir;
    uint32_t index;
};

struct xs_node *xs_dir_find(const struct xs_dir *d, const struct xs_name *name);

/* The same, recording the blocks and slots on the way in the tree's steps. The last step's
 * index is the name's slot or the place where it belongs. 0 or XS_ENOMEM. */
int xs_dir_seek(struct xs_tree *t, struct xs_dir *d, const struct xs_name *name,
                struct xs_node **found);

/* Makes the blocks of `count` recorded steps, from the one at *link down, our own: what is
 * shared is copied, which moves no slot. Returns the last block, or NULL without memory. */
struct xs_dir *xs_dir_own_steps(struct xs_tree *t, struct xs_dir **link,
                                struct xs_dir_step *steps, size_t count);

/* A directory of one child. `dir_len` as in xs_dir_way. */
struct xs_dir *xs_dir_new(struct xs_tree *t, struct xs_node *child, const struct xs_name *name);

/* Makes the blocks on the way to a name that is missing our own, with a free slot for it
 * in the leaf, and records them in the tree's steps. `dir_len` is the length of the
 * directory's own path. Returns 0, XS_ENOMEM, or XS_ENOSPC (never in practice). */
int xs_dir_make_room(struct xs_tree *t, struct xs_dir **link, const struct xs_name *name,
                     uint32_t dir_len);

/* Puts a child at the last recorded step, where room was made. Aggregates are the
 * caller's. */
void xs_dir_insert(struct xs_dir_step *last, const struct xs_name *name, struct xs_node *child);

/* Takes the slot at the last of `count` recorded steps out of the directory at *link. */
void xs_dir_remove(struct xs_tree *t, struct xs_dir **link, struct xs_dir_step *steps,
                   size_t count);

/* Copies names, each with its NUL, from byte `offset` of the whole list on: as many as
 * fit into `room` as a whole. Returns the bytes written; *end tells whether the list
 * ended there. */
size_t xs_dir_list(const struct xs_dir *d, uint64_t offset, char *out, size_t room, bool *end);

/* Accounts `child_nodes` and bytes of `owner` into a block. */
void xs_dir_account(struct xs_dir *d, int64_t nodes, int64_t bytes, uint32_t owner,
                    uint64_t mentions);

size_t xs_dir_size(uint32_t cap);

/* Whether aggregates, order and bounds of a directory hold (its nodes' own kids are
 * trusted). For tests. */
bool xs_dir_check(const struct xs_dir *d, uint32_t dir_len);

#endif
