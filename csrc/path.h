/*
 * Paths: from what a client sent to one absolute, checked form.
 *
 * A path is kept as its bytes in a fixed buffer and is walked name by name,
 * never cut into a list: a guest may choose 2000 components.
 *
 *      "/local/domain/3"   names:  ""  "local"  "domain"  "3"
 *      "/"                 names:  ""
 *      "@releaseDomain/3"  names:  "@releaseDomain"  "3"
 *
 * So a path reads as its text cut at "/", and the first name tells the tree
 * ("" is the root) from the special nodes, which live outside it. The tree and
 * the watch index both hang everything below one nameless top and need no
 * special case for either.
 *
 * Names are compared by a key first: their first eight bytes, big-endian, zero
 * padded. Integer order of keys is byte order of names up to eight bytes; equal
 * keys need a look at the rest. Names contain no NUL, so padding is unambiguous.
 *
 * Worked example, domain 3 sends "data/x": xs_path_parse(.., base 3) gives
 * "/local/domain/3/data/x", base_len 16; an event for a watch registered with a
 * relative path is reported from byte base_len on: "data/x".
 */
#ifndef XS_PATH_H
#define XS_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto.h"

struct xs_path {
    uint32_t len;      /* behind it stand XS_PATH_PAD zeros */
    uint32_t base_len; /* bytes of home prefix we put before a relative path; 0: absolute */
    char buf[XS_PATH_MAX + XS_PATH_PAD];
};

/* One name of a path, and where the walk goes on. */
struct xs_name {
    const char *p;
    uint32_t len;
    uint32_t end; /* offset in the path just behind this name */
    uint64_t key;
};

/* Checks the syntax of `n` bytes and makes them absolute for a connection whose
 * home is /local/domain/<base_domid>. Returns 0 or XS_EINVAL. */
int xs_path_parse(struct xs_path *out, const char *p, size_t n, uint32_t base_domid);

/* Takes a path that is known to be absolute and well formed. */
void xs_path_set(struct xs_path *out, const char *p, size_t n);

/* Bytes of a leading "/local/domain/<one to five digits>/", else 0. Length limits do
 * not count them, so that a path stays legal when its domain is given a longer id. */
uint32_t xs_path_home(const struct xs_path *path);

static inline bool xs_path_is_special(const struct xs_path *path)
{
    return path->buf[0] == '@';
}

/* Length of the parent's path; 1 for children of "/", 0 for what has no parent. */
uint32_t xs_path_parent_len(const struct xs_path *path);

/* Whether `below` (n bytes) lies strictly below `above` (m bytes). */
bool xs_path_is_below(const char *below, size_t n, const char *above, size_t m);

/* Components of `path` beyond the first `n` bytes, which are themselves a path. */
uint32_t xs_path_depth_below(const struct xs_path *path, size_t n);

/* Orders paths so that what lies below a path comes before it and siblings stand in
 * byte order: the order in which a removal reports the nodes that it removed. */
int xs_path_order_removal(const char *a, size_t an, const char *b, size_t bn);

static inline uint64_t xs_name_key(const char *p, size_t len)
{
    uint64_t k;

    memcpy(&k, p, 8); /* callers guarantee eight readable bytes: XS_PATH_PAD */
    k = __builtin_bswap64(k);
    if (len < 8)
        k = len == 0 ? 0 : k & (~(uint64_t)0 << (64 - 8 * len));
    return k;
}

/* Bytes before the first slash or NUL of eight. */
static inline uint32_t xs_name_span8(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    uint64_t slashes = word ^ (ones * '/');
    uint64_t ends = ((word - ones) & ~word) | ((slashes - ones) & ~slashes);

    ends &= high;
    return ends == 0 ? 8 : (uint32_t)__builtin_ctzll(ends) / 8;
}

/* Fills in the name that starts at `start`. It ends at a slash or at the padding. */
static inline void xs_path_name_at(const struct xs_path *path, uint32_t start,
                                   struct xs_name *name)
{
    const char *p = path->buf + start;
    uint64_t word;
    uint32_t n, span;

    memcpy(&word, p, 8);
    n = span = xs_name_span8(word);
    name->key = __builtin_bswap64(word);
    if (span < 8)
        name->key &= span == 0 ? 0 : ~(uint64_t)0 << (64 - 8 * span);
    while (span == 8) {
        memcpy(&word, p + n, 8);
        span = xs_name_span8(word);
        n += span;
    }
    name->p = p;
    name->len = n;
    name->end = start + n;
}

/* First name of a path; sets the walk up. */
static inline void xs_path_first(const struct xs_path *path, struct xs_name *name)
{
    xs_path_name_at(path, 0, name);
}

/* Next name; false at the end of the path. */
static inline bool xs_path_next(const struct xs_path *path, struct xs_name *name)
{
    if (name->end + 1 >= path->len)
        return false;
    xs_path_name_at(path, name->end + 1, name);
    return true;
}

/* Offset just behind the first `name->end` bytes, as a path length: "/" has length 1. */
static inline uint32_t xs_name_path_len(const struct xs_name *name)
{
    return name->end == 0 ? 1 : name->end;
}

#endif
