#include "pathset.h"

#include "err.h"

static size_t padded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* ---- what it saw ----------------------------------------------------------------- */

static uint64_t hash_of(const char *path, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)path[i]) * UINT64_C(0x100000001b3);
    return h ^ (h >> 32);
}

static struct xs_seen *entry_at(const struct xs_pathset *s, uint32_t slot)
{
    return (struct xs_seen *)(void *)(s->buf + (size_t)(slot - 1) * 8);
}

/* The table slot of a path: its own, or the free one where it belongs. */
static uint32_t *find_slot(const struct xs_pathset *s, uint64_t hash, const char *path,
                           size_t len)
{
    size_t i = hash & (s->table_size - 1);

    for (;; i = (i + 1) & (s->table_size - 1)) {
        if (s->table[i] == 0)
            return &s->table[i];
        const struct xs_seen *e = entry_at(s, s->table[i]);
        if (e->hash == hash && e->len == len && memcmp(e->path, path, len) == 0)
            return &s->table[i];
    }
}

static int grow_table(struct xs_pathset *s, struct xs_mem *m, struct xs_account *who)
{
    size_t want = s->table_size == 0 ? 16 : s->table_size * 2;
    uint32_t *fresh = xs_mem_zalloc(m, who, want * sizeof(*fresh));

    if (fresh == NULL)
        return XS_ENOMEM;
    xs_mem_free(m, who, s->table, s->table_size * sizeof(*fresh));
    s->table = fresh;
    s->table_size = want;
    for (const struct xs_seen *e = NULL; (e = xs_pathset_next(s, e)) != NULL;)
        *find_slot(s, e->hash, e->path, e->len) =
            (uint32_t)((size_t)((const char *)e - s->buf) / 8 + 1);
    return XS_OK;
}

int xs_pathset_add(struct xs_pathset *s, struct xs_mem *m, struct xs_account *who,
                   const char *path, size_t len, unsigned flags)
{
    uint64_t hash = hash_of(path, len);
    size_t size = padded(sizeof(struct xs_seen) + len);
    uint32_t *slot;
    int rc;

    if ((s->count + 1) * 2 > s->table_size && (rc = grow_table(s, m, who)) != XS_OK)
        return rc;
    slot = find_slot(s, hash, path, len);
    if (*slot != 0) {
        entry_at(s, *slot)->flags |= (uint16_t)flags;
        return XS_OK;
    }
    rc = xs_mem_grow(m, who, (void **)&s->buf, &s->cap, s->len + size, 1);
    if (rc != XS_OK)
        return rc;

    *slot = (uint32_t)(s->len / 8 + 1);
    struct xs_seen *e = entry_at(s, *slot);
    e->hash = hash;
    e->size = (uint32_t)size;
    e->flags = (uint16_t)flags;
    e->len = (uint16_t)len;
    memcpy(e->path, path, len);
    s->len += size;
    s->count++;
    return XS_OK;
}

bool xs_pathset_has(const struct xs_pathset *s, const char *path, size_t len)
{
    return s->count > 0 && *find_slot(s, hash_of(path, len), path, len) != 0;
}

void xs_pathset_free(struct xs_pathset *s, struct xs_mem *m, struct xs_account *who)
{
    xs_mem_free(m, who, s->buf, s->cap);
    xs_mem_free(m, who, s->table, s->table_size * sizeof(*s->table));
    memset(s, 0, sizeof(*s));
}

const struct xs_seen *xs_pathset_next(const struct xs_pathset *s, const struct xs_seen *prev)
{
    const char *p = prev == NULL ? s->buf : (const char *)prev + prev->size;

    if (s->len == 0)
        return NULL;
    return p == s->buf + s->len ? NULL : (const struct xs_seen *)(const void *)p;
}

/* ---- what it did ------------------------------------------------------------------ */

int xs_oplog_add(struct xs_oplog *log, struct xs_mem *m, struct xs_account *who, unsigned op,
                 uint64_t answer, const char *path, size_t path_len, const void *data,
                 size_t data_len)
{
    size_t size = padded(sizeof(struct xs_oprec) + path_len + data_len);
    int rc = xs_mem_grow(m, who, (void **)&log->buf, &log->cap, log->len + size, 1);

    if (rc != XS_OK)
        return rc;
    struct xs_oprec *rec = (struct xs_oprec *)(void *)(log->buf + log->len);
    rec->size = (uint32_t)size;
    rec->op = (uint16_t)op;
    rec->answer = answer;
    rec->path_len = (uint16_t)path_len;
    rec->data_len = (uint32_t)data_len;
    if (path_len > 0) /* what is asked has none, and NULL must not be passed even for nothing */
        memcpy(rec->data, path, path_len);
    if (data_len > 0)
        memcpy(rec->data + path_len, data, data_len);
    log->len += size;
    log->count++;
    return XS_OK;
}

void xs_oplog_free(struct xs_oplog *log, struct xs_mem *m, struct xs_account *who)
{
    xs_mem_free(m, who, log->buf, log->cap);
    memset(log, 0, sizeof(*log));
}

const struct xs_oprec *xs_oplog_next(const struct xs_oplog *log, const struct xs_oprec *prev)
{
    const char *p = prev == NULL ? log->buf : (const char *)prev + prev->size;

    if (log->len == 0)
        return NULL;
    return p == log->buf + log->len ? NULL : (const struct xs_oprec *)(const void *)p;
}
