#include "perms.h"

#include <string.h>

#include "err.h"
#include "proto.h"
#include "wire.h"

enum { FIRST_BUCKETS = 256 };

static size_t perms_size(uint32_t count)
{
    return sizeof(struct xs_perms) + count * sizeof(struct xs_perm);
}

int xs_permtab_init(struct xs_permtab *t, struct xs_mem *mem)
{
    t->mem = mem;
    t->count = 0;
    t->bucket_count = FIRST_BUCKETS;
    t->buckets = xs_mem_zalloc(mem, NULL, FIRST_BUCKETS * sizeof(*t->buckets));
    return t->buckets == NULL ? XS_ENOMEM : XS_OK;
}

void xs_permtab_destroy(struct xs_permtab *t)
{
    for (size_t i = 0; i < t->bucket_count && t->buckets != NULL; i++) {
        struct xs_perms *p = t->buckets[i];

        while (p != NULL) {
            struct xs_perms *next = p->next;
            xs_mem_free(t->mem, NULL, p, perms_size(p->count));
            p = next;
        }
    }
    xs_mem_free(t->mem, NULL, t->buckets, t->bucket_count * sizeof(*t->buckets));
    t->buckets = NULL;
}

/* A domid as permission entries spell it: decimal, 0x hexadecimal or 0 octal. */
static bool parse_domid(const char *p, size_t n, uint16_t *domid)
{
    uint32_t base = 10, v = 0;

    if (n == 0)
        return false;
    if (n > 2 && p[0] == '0' && (p[1] | 0x20) == 'x') {
        base = 16;
        p += 2, n -= 2;
    } else if (n > 1 && p[0] == '0') {
        base = 8;
        p += 1, n -= 1;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t c = (uint8_t)p[i], digit;

        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (c | 0x20) - 'a' + 10;
        else
            return false;
        if (digit >= base)
            return false;
        v = v * base + digit;
        if (v > 65535)
            return false;
    }
    *domid = (uint16_t)v;
    return true;
}

int xs_perms_parse(const char *p, uint32_t strings, struct xs_perm *out)
{
    static const char letters[] = "nrwb"; /* index = access bits */

    if (strings > XS_PERMS_MAX)
        return XS_EINVAL;
    for (uint32_t i = 0; i < strings; i++) {
        const char *s;
        size_t n = xs_wire_next(&p, &s);
        const char *letter = n == 0 ? NULL : memchr(letters, s[0], 4);

        if (letter == NULL || !parse_domid(s + 1, n - 1, &out[i].domid))
            return XS_EINVAL;
        out[i].access = (uint8_t)(letter - letters);
        out[i].flags = 0;
    }
    return XS_OK;
}

static uint32_t hash_entries(const struct xs_perm *entry, uint32_t count)
{
    uint32_t h = 2166136261u;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t word = (uint32_t)entry[i].domid | (uint32_t)entry[i].access << 16 |
                        (uint32_t)entry[i].flags << 24;
        h = (h ^ word) * 16777619u;
        h ^= h >> 15;
    }
    return h;
}

/* Doubles the table. Failing is harmless: chains get longer. */
static void rehash(struct xs_permtab *t)
{
    size_t want = t->bucket_count * 2;
    struct xs_perms **fresh = xs_mem_zalloc(t->mem, NULL, want * sizeof(*fresh));

    if (fresh == NULL)
        return;
    for (size_t i = 0; i < t->bucket_count; i++) {
        struct xs_perms *p = t->buckets[i];

        while (p != NULL) {
            struct xs_perms *next = p->next;
            p->next = fresh[p->hash & (want - 1)];
            fresh[p->hash & (want - 1)] = p;
            p = next;
        }
    }
    xs_mem_free(t->mem, NULL, t->buckets, t->bucket_count * sizeof(*fresh));
    t->buckets = fresh;
    t->bucket_count = want;
}

int xs_perms_intern(struct xs_permtab *t, const struct xs_perm *entry, uint32_t count,
                    struct xs_perms **out)
{
    uint32_t hash = hash_entries(entry, count);
    size_t bytes = count * sizeof(*entry);

    for (struct xs_perms *p = t->buckets[hash & (t->bucket_count - 1)]; p != NULL; p = p->next)
        if (p->hash == hash && p->count == count && memcmp(p->entry, entry, bytes) == 0) {
            *out = xs_perms_ref(p);
            return XS_OK;
        }

    struct xs_perms *p = xs_mem_alloc(t->mem, NULL, perms_size(count));
    if (p == NULL)
        return XS_ENOMEM;
    p->refs = 1;
    p->hash = hash;
    p->count = count;
    p->mentions = 0;
    memcpy(p->entry, entry, bytes);
    for (uint32_t i = 0; i < count; i++)
        p->mentions |= xs_perms_mention(entry[i].domid);
    if (t->count >= t->bucket_count)
        rehash(t);
    p->next = t->buckets[hash & (t->bucket_count - 1)];
    t->buckets[hash & (t->bucket_count - 1)] = p;
    t->count++;
    *out = p;
    return XS_OK;
}

void xs_perms_unref(struct xs_permtab *t, struct xs_perms *p)
{
    if (--p->refs != 0)
        return;

    struct xs_perms **link = &t->buckets[p->hash & (t->bucket_count - 1)];
    while (*link != p)
        link = &(*link)->next;
    *link = p->next;
    t->count--;
    xs_mem_free(t->mem, NULL, p, perms_size(p->count));
}

unsigned xs_perms_access(const struct xs_perms *p, uint32_t domid, uint32_t target)
{
    uint32_t owner = p->entry[0].domid;

    if (domid == owner || (target == owner && target != XS_DOMID_INVALID))
        return XS_ACCESS_READ | XS_ACCESS_WRITE | XS_ACCESS_OWNER;
    for (uint32_t i = 1; i < p->count; i++) {
        uint32_t who = p->entry[i].domid;

        if (p->entry[i].flags & XS_PERM_IGNORED)
            continue;
        if (who == domid || who == XS_DOMID_ANY ||
            (who == target && target != XS_DOMID_INVALID))
            return p->entry[i].access;
    }
    return p->entry[0].access;
}

static size_t decimal_len(uint32_t v)
{
    return v < 10 ? 1 : v < 100 ? 2 : v < 1000 ? 3 : v < 10000 ? 4 : 5;
}

size_t xs_perms_text_len(const struct xs_perms *p)
{
    size_t n = 0;

    for (uint32_t i = 0; i < p->count; i++)
        n += 2 + decimal_len(p->entry[i].domid);
    return n;
}

void xs_perms_text(const struct xs_perms *p, char *out)
{
    for (uint32_t i = 0; i < p->count; i++) {
        *out++ = "nrwb"[p->entry[i].access & 3];
        out += xs_wire_put_number(out, p->entry[i].domid);
    }
}
