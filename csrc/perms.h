/*
 * Permission lists, interned.
 *
 * A list is one or more (right, domid) entries. The first names the owner, who may
 * do everything; its right is that of every domain without an entry of its own.
 * Text form, as on the wire: a letter of "nrwb" and the decimal domid, each entry
 * with a NUL:  "n0\0r5\0".
 *
 * A tree of 100 000 nodes has a few hundred different lists, so each is kept once,
 * reference counted, in a table; a node holds one pointer, and equal lists are
 * equal pointers. A list is immutable: changing a node's permissions gives it
 * another list.
 *
 * An entry that named a domain unknown at the time is kept, flagged IGNORED, and
 * never gives a right: a later domain of that id must not inherit it.
 *
 * Cost: parse and intern O(entries); unref O(1); access O(entries), mostly one or two.
 */
#ifndef XS_PERMS_H
#define XS_PERMS_H

#include "mem.h"

enum {
    XS_ACCESS_READ = 1,
    XS_ACCESS_WRITE = 2,
    XS_ACCESS_OWNER = 4, /* implies the other two */
};

enum { XS_PERM_IGNORED = 1 };

struct xs_perm {
    uint8_t access; /* XS_ACCESS_READ | XS_ACCESS_WRITE */
    uint8_t flags;
    uint16_t domid;
};

struct xs_perms {
    uint32_t refs;
    uint32_t hash;
    uint64_t mentions;     /* xs_perms_mention() of every domid in the list, or-ed */
    struct xs_perms *next; /* in its bucket */
    uint32_t count;
    struct xs_perm entry[];
};

struct xs_permtab {
    struct xs_mem *mem;
    struct xs_perms **buckets;
    size_t bucket_count; /* power of two */
    size_t count;
};

int xs_permtab_init(struct xs_permtab *t, struct xs_mem *mem);
void xs_permtab_destroy(struct xs_permtab *t);

/* Reads `strings` entries from a payload. `out` has room for XS_PERMS_MAX.
 * Returns 0 or XS_EINVAL. */
int xs_perms_parse(const char *p, uint32_t strings, struct xs_perm *out);

/* The list with these entries, with a reference for the caller; 0 or XS_ENOMEM. */
int xs_perms_intern(struct xs_permtab *t, const struct xs_perm *entry, uint32_t count,
                    struct xs_perms **out);

static inline struct xs_perms *xs_perms_ref(struct xs_perms *p)
{
    p->refs++;
    return p;
}

void xs_perms_unref(struct xs_permtab *t, struct xs_perms *p);

/* What a domain may do, XS_ACCESS_* bits. `target` is the domain whose rights it has
 * in addition (SET_TARGET), or XS_DOMID_INVALID. */
unsigned xs_perms_access(const struct xs_perms *p, uint32_t domid, uint32_t target);

/* Bytes of the text form, and the text itself. */
size_t xs_perms_text_len(const struct xs_perms *p);
void xs_perms_text(const struct xs_perms *p, char *out);

static inline uint32_t xs_perms_owner(const struct xs_perms *p)
{
    return p->entry[0].domid;
}

/* One bit of 64 for a domid: a set of domids that errs on the side of yes. */
static inline uint64_t xs_perms_mention(uint32_t domid)
{
    return (uint64_t)1 << ((domid * 0x9e3779b1u) >> 26);
}

#endif
