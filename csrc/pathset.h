/*
 * Two small logs of a transaction: what it saw and what it did.
 *
 * xs_pathset: the paths a transaction has looked at, each once, with what it learned
 * there. Entries stand behind each other in one array; a table of offsets finds them by
 * hash. At commit the set is gone through in order of first look.
 *
 * xs_oplog: the requests a transaction has sent, with a digest of what each was answered,
 * to be asked again; and the changes it has made, to be made again. Records stand in order,
 * behind each other, padded to eight bytes:
 *
 *      | size | op | path_len | data_len | answer | path | data |
 *
 * Both only grow and are freed as a whole. Appending is amortised O(bytes).
 */
#ifndef XS_PATHSET_H
#define XS_PATHSET_H

#include "mem.h"
#include "path.h"

enum {
    XS_SEEN_SELF = 1,    /* value and permissions, or that there is no such node */
    XS_SEEN_KIDS = 2,    /* names of the children */
    XS_SEEN_SUBTREE = 4, /* everything below */
};

struct xs_seen {
    uint64_t hash;
    uint32_t size; /* of the entry, padded */
    uint16_t flags;
    uint16_t len;
    char path[];
};

struct xs_pathset {
    char *buf;
    size_t len, cap;
    uint32_t *table;   /* offset / 8 plus one; 0: free */
    size_t table_size; /* power of two */
    size_t count;
};

/* Adds a path, or flags to it. 0 or XS_ENOMEM; then nothing changed. */
int xs_pathset_add(struct xs_pathset *s, struct xs_mem *m, struct xs_account *who,
                   const char *path, size_t len, unsigned flags);
/* Whether a path is in the set. */
bool xs_pathset_has(const struct xs_pathset *s, const char *path, size_t len);
void xs_pathset_free(struct xs_pathset *s, struct xs_mem *m, struct xs_account *who);
/* Entries in order; NULL to begin; NULL at the end. */
const struct xs_seen *xs_pathset_next(const struct xs_pathset *s, const struct xs_seen *prev);

struct xs_oprec {
    uint32_t size; /* of the record, padded */
    uint16_t op;
    uint16_t path_len;
    uint32_t data_len;
    uint64_t answer; /* digest of the reply; 0 for changes */
    char data[];     /* path, then data */
};

struct xs_oplog {
    char *buf;
    size_t len, cap;
    size_t count;
};

/* Appends a record. 0 or XS_ENOMEM. */
int xs_oplog_add(struct xs_oplog *log, struct xs_mem *m, struct xs_account *who, unsigned op,
                 uint64_t answer, const char *path, size_t path_len, const void *data,
                 size_t data_len);
/* Takes the last record back; `mark` is what log->len was before it. */
static inline void xs_oplog_undo(struct xs_oplog *log, size_t mark)
{
    log->len = mark;
    log->count--;
}
/* The record that begins at `mark`. */
static inline struct xs_oprec *xs_oplog_at(const struct xs_oplog *log, size_t mark)
{
    return (struct xs_oprec *)(void *)(log->buf + mark);
}
void xs_oplog_free(struct xs_oplog *log, struct xs_mem *m, struct xs_account *who);
const struct xs_oprec *xs_oplog_next(const struct xs_oplog *log, const struct xs_oprec *prev);

#endif
