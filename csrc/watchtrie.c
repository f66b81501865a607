#include "watchtrie.h"

#include <stdlib.h>

#include "err.h"

enum { FIRST_BUCKETS = 64 };

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ (h >> 29);
}

/* Continues the hash of a path with one more name. */
static uint64_t hash_name(uint64_t h, const struct xs_name *name)
{
    h = mix(h, name->key);
    for (uint32_t i = 8; i < name->len; i += 8) {
        uint32_t rest = name->len - i;
        h = mix(h, xs_name_key(name->p + i, rest < 8 ? rest : 8));
    }
    return mix(h, name->len);
}

static uint64_t hash_path(const struct xs_watches *w, const struct xs_path *path)
{
    struct xs_name name;
    uint64_t h = w->seed;

    xs_path_first(path, &name);
    do
        h = hash_name(h, &name);
    while (xs_path_next(path, &name));
    return h;
}

static uint64_t hash_watch(const struct xs_watch_owner *owner, uint64_t path_hash,
                           const char *token, size_t token_len)
{
    uint64_t h = mix(path_hash, owner->id);

    for (size_t i = 0; i < token_len; i++)
        h = (h ^ (uint8_t)token[i]) * UINT64_C(0x100000001b3);
    return mix(h, token_len);
}

int xs_watches_init(struct xs_watches *w, struct xs_mem *mem, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->mem = mem;
    w->seed = seed;
    w->point_buckets = w->watch_buckets = FIRST_BUCKETS;
    w->points = xs_mem_zalloc(mem, &w->account, FIRST_BUCKETS * sizeof(*w->points));
    w->watches = xs_mem_zalloc(mem, &w->account, FIRST_BUCKETS * sizeof(*w->watches));
    if (w->points == NULL || w->watches == NULL) {
        xs_watches_destroy(w);
        return XS_ENOMEM;
    }
    return XS_OK;
}

void xs_watches_destroy(struct xs_watches *w)
{
    xs_assert(w->watch_count == 0 && w->point_count == 0);
    xs_mem_free(w->mem, &w->account, w->points, w->point_buckets * sizeof(*w->points));
    xs_mem_free(w->mem, &w->account, w->watches, w->watch_buckets * sizeof(*w->watches));
    w->points = NULL;
    w->watches = NULL;
}

/* ---- by order ------------------------------------------------------------------ */

/* Byte order with "/" before everything: a path stands right before what is below it. */
static int compare(const char *a, size_t an, const char *b, size_t bn)
{
    size_t n = an < bn ? an : bn, i = 0;

    while (i < n && a[i] == b[i])
        i++;
    if (i == an || i == bn)
        return (an > bn) - (an < bn);

    unsigned ca = a[i] == '/' ? 0 : (uint8_t)a[i], cb = b[i] == '/' ? 0 : (uint8_t)b[i];
    return ca < cb ? -1 : 1;
}

static void replace_child(struct xs_watches *w, struct xs_watchpoint *up,
                          struct xs_watchpoint *old, struct xs_watchpoint *with)
{
    if (up == NULL)
        w->root = with;
    else if (up->left == old)
        up->left = with;
    else
        up->right = with;
    if (with != NULL)
        with->up = up;
}

/* Turns p's child c to p's place. */
static void rotate_up(struct xs_watches *w, struct xs_watchpoint *p, struct xs_watchpoint *c)
{
    replace_child(w, p->up, p, c);
    if (p->left == c) {
        p->left = c->right;
        if (c->right != NULL)
            c->right->up = p;
        c->right = p;
    } else {
        p->right = c->left;
        if (c->left != NULL)
            c->left->up = p;
        c->left = p;
    }
    p->up = c;
}

static void treap_insert(struct xs_watches *w, struct xs_watchpoint *x)
{
    struct xs_watchpoint *up = NULL, **link = &w->root;

    while (*link != NULL) {
        up = *link;
        link = compare(x->path, x->len, up->path, up->len) < 0 ? &up->left : &up->right;
    }
    *link = x;
    x->up = up;
    while (x->up != NULL && x->up->hash < x->hash)
        rotate_up(w, x->up, x);
}

static void treap_remove(struct xs_watches *w, struct xs_watchpoint *x)
{
    while (x->left != NULL && x->right != NULL)
        rotate_up(w, x, x->left->hash > x->right->hash ? x->left : x->right);
    replace_child(w, x->up, x, x->left != NULL ? x->left : x->right);
}

static struct xs_watchpoint *successor(const struct xs_watchpoint *x)
{
    struct xs_watchpoint *y = x->right;

    if (y != NULL) {
        while (y->left != NULL)
            y = y->left;
        return y;
    }
    for (y = x->up; y != NULL && y->right == x; y = y->up)
        x = y;
    return y;
}

struct xs_watchpoint *xs_watches_below(const struct xs_watches *w, const struct xs_path *path,
                                       const struct xs_watchpoint *prev)
{
    struct xs_watchpoint *next = NULL;

    if (prev != NULL) {
        next = successor(prev);
    } else {
        for (struct xs_watchpoint *x = w->root; x != NULL;) {
            if (compare(x->path, x->len, path->buf, path->len) > 0) {
                next = x;
                x = x->left;
            } else {
                x = x->right;
            }
        }
    }
    if (next != NULL && !xs_path_is_below(next->path, next->len, path->buf, path->len))
        return NULL;
    return next;
}

/* ---- by hash ------------------------------------------------------------------- */

static struct xs_watchpoint *lookup(const struct xs_watches *w, uint64_t hash, const char *path,
                                    size_t len)
{
    struct xs_watchpoint *p = w->points[hash & (w->point_buckets - 1)];

    while (p != NULL && (p->hash != hash || p->len != len || memcmp(p->path, path, len) != 0))
        p = p->hash_next;
    return p;
}

struct xs_watchpoint *xs_watches_point(const struct xs_watches *w, const struct xs_path *path)
{
    return lookup(w, hash_path(w, path), path->buf, path->len);
}

/* Doubles a table of chains. Failing is harmless: chains get longer. */
static void grow_points(struct xs_watches *w)
{
    size_t want = w->point_buckets * 2;
    struct xs_watchpoint **fresh = xs_mem_zalloc(w->mem, &w->account, want * sizeof(*fresh));

    if (fresh == NULL)
        return;
    for (size_t i = 0; i < w->point_buckets; i++) {
        for (struct xs_watchpoint *p = w->points[i], *next; p != NULL; p = next) {
            next = p->hash_next;
            p->hash_next = fresh[p->hash & (want - 1)];
            fresh[p->hash & (want - 1)] = p;
        }
    }
    xs_mem_free(w->mem, &w->account, w->points, w->point_buckets * sizeof(*fresh));
    w->points = fresh;
    w->point_buckets = want;
}

static void grow_watches(struct xs_watches *w)
{
    size_t want = w->watch_buckets * 2;
    struct xs_watch **fresh = xs_mem_zalloc(w->mem, &w->account, want * sizeof(*fresh));

    if (fresh == NULL)
        return;
    for (size_t i = 0; i < w->watch_buckets; i++) {
        for (struct xs_watch *p = w->watches[i], *next; p != NULL; p = next) {
            next = p->hash_next;
            p->hash_next = fresh[p->hash & (want - 1)];
            fresh[p->hash & (want - 1)] = p;
        }
    }
    xs_mem_free(w->mem, &w->account, w->watches, w->watch_buckets * sizeof(*fresh));
    w->watches = fresh;
    w->watch_buckets = want;
}

struct xs_watch *xs_watches_find(const struct xs_watches *w, const struct xs_watch_owner *owner,
                                 const struct xs_path *path, const char *token,
                                 size_t token_len)
{
    uint64_t hash = hash_watch(owner, hash_path(w, path), token, token_len);
    struct xs_watch *x = w->watches[hash & (w->watch_buckets - 1)];

    while (x != NULL &&
           (x->hash != hash || x->owner != owner || x->token_len != token_len ||
            x->point->len != path->len || memcmp(x->point->path, path->buf, path->len) != 0 ||
            memcmp(xs_watch_token(x), token, token_len) != 0))
        x = x->hash_next;
    return x;
}

static struct xs_watchpoint *point_new(struct xs_watches *w, const struct xs_path *path,
                                       uint64_t hash)
{
    struct xs_watchpoint *p = xs_mem_zalloc(w->mem, &w->account, sizeof(*p) + path->len);

    if (p == NULL)
        return NULL;
    p->hash = hash;
    p->len = path->len;
    memcpy(p->path, path->buf, path->len);
    if (w->point_count >= w->point_buckets)
        grow_points(w);
    p->hash_next = w->points[hash & (w->point_buckets - 1)];
    w->points[hash & (w->point_buckets - 1)] = p;
    w->point_count++;
    treap_insert(w, p);
    return p;
}

static void point_free(struct xs_watches *w, struct xs_watchpoint *p)
{
    struct xs_watchpoint **link = &w->points[p->hash & (w->point_buckets - 1)];

    while (*link != p)
        link = &(*link)->hash_next;
    *link = p->hash_next;
    w->point_count--;
    treap_remove(w, p);
    xs_mem_free(w->mem, &w->account, p, sizeof(*p) + p->len);
}

int xs_watches_add(struct xs_watches *w, struct xs_watch_owner *owner,
                   const struct xs_path *path, const char *text, size_t text_len,
                   const char *token, size_t token_len, int32_t depth, struct xs_watch **out)
{
    struct xs_watch *x =
        xs_mem_zalloc(w->mem, owner->account, sizeof(*x) + text_len + token_len);
    uint64_t hash = hash_path(w, path);
    struct xs_watchpoint *p;

    if (x == NULL)
        return XS_ENOMEM;
    p = lookup(w, hash, path->buf, path->len);
    if (p == NULL && (p = point_new(w, path, hash)) == NULL) {
        xs_mem_free(w->mem, owner->account, x, sizeof(*x) + text_len + token_len);
        return XS_ENOMEM;
    }
    x->point = p;
    x->owner = owner;
    x->depth = depth;
    x->base_len = path->base_len;
    x->path_len = (uint32_t)text_len;
    x->token_len = (uint32_t)token_len;
    memcpy(x->data, text, text_len);
    memcpy(x->data + text_len, token, token_len);

    x->point_prev = p->last;
    if (p->last != NULL)
        p->last->point_next = x;
    else
        p->first = x;
    p->last = x;

    x->owner_prev = owner->last;
    if (owner->last != NULL)
        owner->last->owner_next = x;
    else
        owner->first = x;
    owner->last = x;
    owner->count++;

    if (w->watch_count >= w->watch_buckets)
        grow_watches(w);
    x->hash = hash_watch(owner, hash, token, token_len);
    x->hash_next = w->watches[x->hash & (w->watch_buckets - 1)];
    w->watches[x->hash & (w->watch_buckets - 1)] = x;
    w->watch_count++;
    *out = x;
    return XS_OK;
}

void xs_watches_remove(struct xs_watches *w, struct xs_watch *x)
{
    struct xs_watchpoint *p = x->point;
    struct xs_watch_owner *owner = x->owner;
    struct xs_watch **link = &w->watches[x->hash & (w->watch_buckets - 1)];

    while (*link != x)
        link = &(*link)->hash_next;
    *link = x->hash_next;
    w->watch_count--;

    if (x->point_prev != NULL)
        x->point_prev->point_next = x->point_next;
    else
        p->first = x->point_next;
    if (x->point_next != NULL)
        x->point_next->point_prev = x->point_prev;
    else
        p->last = x->point_prev;
    if (p->first == NULL)
        point_free(w, p);

    if (x->owner_prev != NULL)
        x->owner_prev->owner_next = x->owner_next;
    else
        owner->first = x->owner_next;
    if (x->owner_next != NULL)
        x->owner_next->owner_prev = x->owner_prev;
    else
        owner->last = x->owner_prev;
    owner->count--;
    xs_mem_free(w->mem, owner->account, x, sizeof(*x) + x->path_len + x->token_len);
}

/* ---- matching -------------------------------------------------------------------- */

void xs_match_start(struct xs_match *m, const struct xs_watches *w, const struct xs_path *path)
{
    m->watches = w;
    m->path = path;
    m->hash = w->seed;
    m->next = NULL;
    m->more = w->watch_count > 0;
    if (m->more)
        xs_path_first(path, &m->name);
}

struct xs_watch *xs_match_next(struct xs_match *m)
{
    struct xs_watch *x = m->next;

    while (x == NULL && m->more) {
        struct xs_watchpoint *p;

        m->hash = hash_name(m->hash, &m->name);
        p = lookup(m->watches, m->hash, m->path->buf, xs_name_path_len(&m->name));
        x = p == NULL ? NULL : p->first;
        m->more = xs_path_next(m->path, &m->name);
    }
    m->next = x == NULL ? NULL : x->point_next;
    return x;
}

static int by_removal(const void *a, const void *b)
{
    const struct xs_watchpoint *pa = *(struct xs_watchpoint *const *)a;
    const struct xs_watchpoint *pb = *(struct xs_watchpoint *const *)b;

    return xs_path_order_removal(pa->path, pa->len, pb->path, pb->len);
}

void xs_watchpoints_sort(struct xs_watchpoint **points, size_t count)
{
    qsort(points, count, sizeof(*points), by_removal);
}

bool xs_watches_check(const struct xs_watches *w)
{
    const struct xs_watchpoint *p = w->root, *prev = NULL;
    size_t points = 0, watches = 0;

    while (p != NULL && p->left != NULL)
        p = p->left;
    for (; p != NULL; prev = p, p = successor(p)) {
        if (p->first == NULL || lookup(w, p->hash, p->path, p->len) != p ||
            (prev != NULL && compare(prev->path, prev->len, p->path, p->len) >= 0) ||
            (p->up != NULL && p->up->hash < p->hash))
            return false;
        points++;
        for (const struct xs_watch *x = p->first; x != NULL; x = x->point_next) {
            if (x->point != p)
                return false;
            watches++;
        }
    }
    return points == w->point_count && watches == w->watch_count;
}
