/*
 * The recent past: one record per commit that changed the tree, kept only while somebody
 * might ask.
 *
 *      oldest  <──>  record  <──>  newest
 *                    number, who, when
 *                    before ──> top of the tree right before
 *                    after  ──> top of the tree right after
 *
 * When a transaction fails, the records since its start tell whose commits made the
 * difference: what it asked would be answered alike on `before` and differently on `after`.
 * Both are true snapshots, and cost what the commit copied.
 *
 * The number counts all commits, recorded or not. A record is allocated before its commit
 * takes effect (xs_history_reserve), so that recording cannot fail (xs_history_record).
 *
 * Beside it stands a small ring that remembers of the last commits, recorded or not, only who
 * and when, by the stamps that they gave: it answers "who changed this node last?" in O(log).
 *
 * Cost: record and forget O(1) each; a record keeps alive what later commits replaced.
 */
#ifndef XS_HISTORY_H
#define XS_HISTORY_H

#include "trie.h"

enum { XS_AUTHORS = 4096 }; /* commits whose authors are remembered; a power of two */

struct xs_author {
    uint64_t stamp; /* last one the commit gave; 0: nothing is known */
    uint64_t owner; /* identity of the connection, never reused */
    int64_t when_ns;
    uint32_t conn;
    uint32_t domid;
    uint32_t tx;
};

struct xs_commit {
    struct xs_commit *older, *newer;
    uint64_t number;
    struct xs_author author;
    struct xs_node *before, *after;
};

struct xs_history {
    struct xs_tree *tree;
    struct xs_account account;
    struct xs_commit *oldest, *newest;
    struct xs_commit *spare; /* reserved for the next record */
    size_t count;
    uint64_t number; /* of the last commit */
    uint64_t author_count;
    struct xs_author authors[XS_AUTHORS]; /* as many of them as were counted mean something */
};

void xs_history_init(struct xs_history *h, struct xs_tree *tree);
void xs_history_destroy(struct xs_history *h);

/* Makes sure that the next record can be kept. 0 or XS_ENOMEM. */
int xs_history_reserve(struct xs_history *h);

/* Counts a commit and remembers its author. */
void xs_history_count(struct xs_history *h, const struct xs_author *author);

/* Keeps a record of the commit counted last. Takes both references. */
void xs_history_record(struct xs_history *h, const struct xs_author *author,
                       struct xs_node *before, struct xs_node *after);

/* The commit counted last belongs to the newest record: same author, and nothing between.
 * Takes the reference. */
void xs_history_extend(struct xs_history *h, const struct xs_author *author,
                       struct xs_node *after);

/* Forgets records up to and including this number, the oldest first, at most so many.
 * Returns whether some are left. */
bool xs_history_forget(struct xs_history *h, uint64_t number, size_t most);

/* Who gave a stamp; NULL when that is no longer known. */
const struct xs_author *xs_history_author(const struct xs_history *h, uint64_t stamp);

#endif
