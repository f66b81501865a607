#include "dir.h"

#include "err.h"
#include "trie.h"

size_t xs_dir_size(uint32_t cap)
{
    return sizeof(struct xs_dir) + cap * sizeof(struct xs_slot);
}

/* Capacities are few, so that freed blocks are found again by malloc. */
static uint32_t next_cap(uint32_t count)
{
    static const uint8_t caps[] = {1, 2, 4, 6, 8, 12, 16, 24, 32, 48, XS_DIR_SLOTS};
    size_t i = 0;

    while (caps[i] < count)
        i++;
    return caps[i];
}

/* The first leaf slot inside an inner block's slot. */
static const struct xs_slot *first_slot(const struct xs_dir *d, uint32_t index)
{
    uint32_t level = d->level;

    for (; level > 0; level--) {
        d = d->slot[index].dir;
        index = 0;
    }
    return &d->slot[index];
}

/* Order of the names behind equal keys. */
static int compare_rest(const struct xs_name *name, const struct xs_node *n)
{
    uint32_t len = name->len < n->name_len ? name->len : n->name_len;

    if (len > 8) {
        int c = memcmp(name->p + 8, n->data + 8, len - 8);
        if (c != 0)
            return c;
    }
    return (name->len > n->name_len) - (name->len < n->name_len);
}

/* Asks at once for the lines of a large block that a search may come to. In a tree that is
 * larger than the caches it would wait for one after the other. */
static void fetch_slots(const struct xs_dir *d)
{
    for (uint32_t i = XS_LINE_SLOTS; i < d->count; i += XS_LINE_SLOTS)
        __builtin_prefetch(&d->slot[i]);
}

/* Slot of a name in a leaf, or where it belongs. */
static uint32_t leaf_index(const struct xs_dir *d, const struct xs_name *name, bool *found)
{
    const struct xs_slot *at = d->slot;
    uint32_t n = d->count, lo;
    uint64_t key = name->key;

    fetch_slots(d);

    /* First slot whose key is not smaller. Halving without branches: where a name stands
     * cannot be predicted, so a jump would be wrong every other time. */
    while (n > 1) {
        uint32_t half = n / 2;

        at += half & -(uint32_t)(at[half - 1].key < key);
        n -= half;
    }
    lo = (uint32_t)(at - d->slot) + (at->key < key); /* no block is empty */
    /* A key that ends in a zero is a whole name; a full one may be that of several. */
    if ((key & 0xff) == 0) {
        *found = lo < d->count && d->slot[lo].key == key;
        return lo;
    }
    for (; lo < d->count && d->slot[lo].key == key; lo++) {
        int c = compare_rest(name, d->slot[lo].node);

        if (c <= 0) {
            *found = c == 0;
            return lo;
        }
    }
    *found = false;
    return lo;
}

/* Slot of an inner block to follow: the last whose bound is not above the name. */
static uint32_t inner_index(const struct xs_dir *d, const struct xs_name *name)
{
    uint32_t lo = 1, hi = d->count;

    fetch_slots(d);
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        bool below = d->slot[mid].key < name->key;

        if (d->slot[mid].key == name->key) {
            const struct xs_slot *first = first_slot(d, mid);
            /* The name that gave the bound may have gone, and its key with it. */
            below = first->key == name->key && compare_rest(name, first->node) >= 0;
        }
        if (below)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo - 1;
}

struct xs_node *xs_dir_find(const struct xs_dir *d, const struct xs_name *name)
{
    if (d == NULL)
        return NULL;
    while (d->level > 0)
        d = d->slot[inner_index(d, name)].dir;

    bool found;
    uint32_t i = leaf_index(d, name, &found);
    return found ? d->slot[i].node : NULL;
}

int xs_dir_seek(struct xs_tree *t, struct xs_dir *d, const struct xs_name *name,
                struct xs_node **found)
{
    bool there;
    int rc;

    while (d->level > 0) {
        uint32_t i = inner_index(d, name);

        if ((rc = xs_tree_push_step(t, d, i)) != XS_OK)
            return rc;
        d = d->slot[i].dir;
    }

    uint32_t i = leaf_index(d, name, &there);
    *found = there ? d->slot[i].node : NULL;
    return xs_tree_push_step(t, d, i);
}

static struct xs_dir *dir_alloc(struct xs_tree *t, uint32_t cap, uint8_t level)
{
    struct xs_dir *d = xs_mem_alloc(t->mem, &t->account, xs_dir_size(cap));

    if (d == NULL)
        return NULL;
    t->made++;
    memset(d, 0, sizeof(*d));
    d->refs = 1;
    d->cap = (uint16_t)cap;
    d->level = level;
    return d;
}

struct xs_dir *xs_dir_new(struct xs_tree *t, struct xs_node *child, const struct xs_name *name)
{
    struct xs_dir *d = dir_alloc(t, 1, 0);

    if (d == NULL)
        return NULL;
    d->count = 1;
    d->slot[0].key = name->key;
    d->slot[0].node = child;
    d->names_bytes = name->len + 1;
    return d;
}

void xs_dir_account(struct xs_dir *d, int64_t nodes, int64_t bytes, uint32_t owner,
                    uint64_t mentions)
{
    if (d->nodes == 0 || (d->nodes == 1 && nodes == 0))
        d->owner = (uint16_t)owner, d->mixed = 0;
    else if (d->owner != owner)
        d->mixed = 1;
    d->nodes += (uint64_t)nodes;
    d->bytes += (uint64_t)bytes;
    d->mentions |= mentions;
}

/* Makes a block our own: itself when unshared, else a copy in its place. */
static struct xs_dir *own(struct xs_tree *t, struct xs_dir **link)
{
    struct xs_dir *d = *link;

    if (d->refs == 1)
        return d;

    uint32_t cap = next_cap(d->count);
    struct xs_dir *copy = xs_mem_alloc(t->mem, &t->account, xs_dir_size(cap));
    if (copy == NULL)
        return NULL;
    t->made++;
    memcpy(copy, d, xs_dir_size(d->count));
    copy->refs = 1;
    copy->cap = (uint16_t)cap;
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->level > 0)
            d->slot[i].dir->refs++;
        else
            d->slot[i].node->refs++;
    }
    d->refs--;
    *link = copy;
    return copy;
}

struct xs_dir *xs_dir_own_steps(struct xs_tree *t, struct xs_dir **link,
                                struct xs_dir_step *steps, size_t count)
{
    struct xs_dir *d = NULL;

    for (size_t i = 0; i < count; i++) {
        if ((d = own(t, link)) == NULL)
            return NULL;
        steps[i].dir = d;
        link = &d->slot[steps[i].index].dir;
    }
    return d;
}

/* Room for one more slot in a block of our own that is not full. */
static struct xs_dir *widen(struct xs_tree *t, struct xs_dir **link)
{
    struct xs_dir *d = *link;

    if (d->count < d->cap)
        return d;
    uint32_t cap = next_cap(d->count + 1u);
    d = xs_mem_resize(t->mem, &t->account, d, xs_dir_size(d->cap), xs_dir_size(cap));
    if (d == NULL)
        return NULL;
    d->cap = (uint16_t)cap;
    *link = d;
    return d;
}

/* Recomputes the aggregates of a block from its slots. */
static void sum_up(struct xs_dir *d, uint32_t dir_len)
{
    d->names_bytes = 0;
    d->nodes = d->bytes = d->mentions = 0;
    d->mixed = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->level > 0) {
            const struct xs_dir *c = d->slot[i].dir;

            d->names_bytes += c->names_bytes;
            xs_dir_account(d, (int64_t)c->nodes, (int64_t)c->bytes, c->owner, c->mentions);
            d->mixed |= c->mixed;
        } else {
            const struct xs_node *n = d->slot[i].node;

            d->names_bytes += n->name_len + 1u;
            xs_dir_account(d, 1,
                           (int64_t)(xs_node_size(n) + xs_node_path_len(dir_len, n->name_len)),
                           xs_perms_owner(n->perms), n->perms->mentions);
            if (n->kids != NULL) {
                xs_dir_account(d, (int64_t)n->kids->nodes, (int64_t)n->kids->bytes,
                               n->kids->owner, n->kids->mentions);
                d->mixed |= n->kids->mixed;
            }
        }
    }
}

/* Moves the upper slots of the full block at `at` of `d` into a new block right of it. */
static int split(struct xs_tree *t, struct xs_dir *d, uint32_t at, const struct xs_name *name,
                 uint32_t dir_len)
{
    struct xs_dir *left = d->slot[at].dir;
    bool found;
    uint32_t where = left->level > 0 ? inner_index(left, name) : leaf_index(left, name, &found);
    /* Names that arrive in order should leave full blocks behind, not half full ones. */
    uint32_t keep = where + 1u >= left->count ? XS_DIR_SLOTS - XS_DIR_SLOTS / 8
                    : where == 0              ? XS_DIR_SLOTS / 8
                                              : XS_DIR_SLOTS / 2;
    uint32_t moved = left->count - keep;
    struct xs_dir *right = dir_alloc(t, next_cap(moved), left->level);

    if (right == NULL)
        return XS_ENOMEM;
    memcpy(right->slot, left->slot + keep, moved * sizeof(struct xs_slot));
    right->count = (uint16_t)moved;
    left->count = (uint16_t)keep;
    sum_up(left, dir_len);
    sum_up(right, dir_len);

    memmove(d->slot + at + 2, d->slot + at + 1, (d->count - at - 1u) * sizeof(struct xs_slot));
    d->slot[at + 1].key = right->slot[0].key;
    d->slot[at + 1].dir = right;
    d->count++;
    return XS_OK;
}

/* A full root becomes the only child of a new one. */
static int raise_root(struct xs_tree *t, struct xs_dir **link, uint32_t dir_len)
{
    struct xs_dir *old = *link;

    if (old->level + 1 >= XS_DIR_LEVELS)
        return XS_ENOSPC;
    struct xs_dir *root = dir_alloc(t, 2, (uint8_t)(old->level + 1));
    if (root == NULL)
        return XS_ENOMEM;
    root->count = 1;
    root->slot[0].key = old->slot[0].key;
    root->slot[0].dir = old;
    sum_up(root, dir_len);
    *link = root;
    return XS_OK;
}

int xs_dir_make_room(struct xs_tree *t, struct xs_dir **link, const struct xs_name *name,
                     uint32_t dir_len)
{
    bool found;
    int rc;

    if (own(t, link) == NULL)
        return XS_ENOMEM;
    if ((*link)->count == XS_DIR_SLOTS && (rc = raise_root(t, link, dir_len)) != XS_OK)
        return rc;

    /* Here and below *link is ours and not full: one level a turn. */
    while ((*link)->level > 0) {
        struct xs_dir *d = *link;
        uint32_t i = inner_index(d, name);
        struct xs_dir *child = own(t, &d->slot[i].dir);

        if (child == NULL)
            return XS_ENOMEM;
        if (child->count == XS_DIR_SLOTS) {
            if ((d = widen(t, link)) == NULL || split(t, d, i, name, dir_len) != XS_OK)
                return XS_ENOMEM;
            i = inner_index(d, name);
        }
        if ((rc = xs_tree_push_step(t, d, i)) != XS_OK)
            return rc;
        link = &d->slot[i].dir;
    }
    if (widen(t, link) == NULL)
        return XS_ENOMEM;
    return xs_tree_push_step(t, *link, leaf_index(*link, name, &found));
}

void xs_dir_insert(struct xs_dir_step *last, const struct xs_name *name, struct xs_node *child)
{
    struct xs_dir *d = last->dir;
    uint32_t i = last->index;

    memmove(d->slot + i + 1, d->slot + i, (d->count - i) * sizeof(struct xs_slot));
    d->slot[i].key = name->key;
    d->slot[i].node = child;
    d->count++;
}

/* Gives memory back when a block has become sparse. Failing to is harmless. */
static void narrow(struct xs_tree *t, struct xs_dir **link)
{
    struct xs_dir *d = *link;

    if (d->count * 4u > d->cap)
        return;
    uint32_t cap = next_cap(d->count * 2u);
    d = xs_mem_resize(t->mem, &t->account, d, xs_dir_size(d->cap), xs_dir_size(cap));
    if (d == NULL)
        return;
    d->cap = (uint16_t)cap;
    *link = d;
}

void xs_dir_remove(struct xs_tree *t, struct xs_dir **link, struct xs_dir_step *steps,
                   size_t count)
{
    size_t at = count;

    /* Upwards, as long as a block becomes empty. */
    for (;;) {
        struct xs_dir *d = steps[--at].dir;
        uint32_t i = steps[at].index;

        memmove(d->slot + i, d->slot + i + 1, (d->count - i - 1u) * sizeof(struct xs_slot));
        d->count--;
        if (d->count > 0)
            break;
        xs_mem_free(t->mem, &t->account, d, xs_dir_size(d->cap));
        if (at == 0) {
            *link = NULL;
            return;
        }
    }
    if (at == 0 && (*link)->level > 0 && (*link)->count == 1) {
        struct xs_dir *root = *link;

        *link = root->slot[0].dir;
        xs_mem_free(t->mem, &t->account, root, xs_dir_size(root->cap));
    } else {
        narrow(t, at == 0 ? link : &steps[at - 1].dir->slot[steps[at - 1].index].dir);
    }
}

/* Copies out the name that a key holds completely: its length, or 0 if the node must be asked,
 * which costs a list a line of memory for each name. */
static size_t short_name(uint64_t key, char name[sizeof(key)])
{
    if (key == 0 || (key & 0xff) != 0)
        return 0;

    uint64_t bytes = __builtin_bswap64(key);
    memcpy(name, &bytes, sizeof(bytes));
    return sizeof(key) - (size_t)__builtin_ctzll(key) / 8;
}

size_t xs_dir_list(const struct xs_dir *d, uint64_t offset, char *out, size_t room, bool *end)
{
    struct xs_dir_step stack[XS_DIR_LEVELS];
    size_t depth = 0, written = 0;

    *end = true;
    if (d == NULL)
        return 0;
    stack[0].dir = (struct xs_dir *)d;
    stack[0].index = 0;
    for (;;) {
        struct xs_dir_step *s = &stack[depth];

        if (s->index == s->dir->count) {
            if (depth == 0)
                return written;
            depth--;
            continue;
        }
        if (s->dir->level > 0) {
            struct xs_dir *c = s->dir->slot[s->index++].dir;

            if (offset >= c->names_bytes) {
                offset -= c->names_bytes;
                continue;
            }
            depth++;
            stack[depth].dir = c;
            stack[depth].index = 0;
            continue;
        }

        const struct xs_slot *slot = &s->dir->slot[s->index++];
        char name[sizeof(slot->key)];
        const char *p = name;
        size_t len = short_name(slot->key, name);
        if (len > 0 && offset == 0 && room - written >= sizeof(name)) {
            memcpy(out + written, name, sizeof(name)); /* a NUL or more at its end */
            written += len + 1;
            continue;
        }
        if (len == 0) {
            p = slot->node->data;
            len = slot->node->name_len;
        }
        len++; /* its NUL */
        if (offset >= len) {
            offset -= len;
            continue;
        }
        len -= offset;
        if (len > room - written) {
            *end = false;
            return written;
        }
        memcpy(out + written, p + offset, len - 1);
        out[written + len - 1] = 0;
        written += len;
        offset = 0;
    }
}

/* Whether one block's own figures are what its slots say. */
static bool block_check(const struct xs_dir *d, uint32_t dir_len)
{
    union {
        struct xs_dir d;
        char room[sizeof(struct xs_dir) + XS_DIR_SLOTS * sizeof(struct xs_slot)];
    } copy;

    if (d->count == 0 || d->count > d->cap || d->cap > XS_DIR_SLOTS || d->refs == 0)
        return false;
    memcpy(&copy, d, xs_dir_size(d->count));
    sum_up(&copy.d, dir_len);
    return copy.d.names_bytes == d->names_bytes && copy.d.nodes == d->nodes &&
           copy.d.bytes == d->bytes && (copy.d.mentions & ~d->mentions) == 0 &&
           (d->mixed || (!copy.d.mixed && copy.d.owner == d->owner));
}

bool xs_dir_check(const struct xs_dir *d, uint32_t dir_len)
{
    struct xs_dir_step stack[XS_DIR_LEVELS];
    const struct xs_node *prev = NULL;
    size_t depth = 0;

    stack[0].dir = (struct xs_dir *)d;
    stack[0].index = 0;
    if (!block_check(d, dir_len))
        return false;
    for (;;) {
        struct xs_dir_step *s = &stack[depth];
        uint32_t i = s->index++;

        if (i == s->dir->count) {
            if (depth-- == 0)
                return true;
            continue;
        }
        if (s->dir->level > 0) {
            struct xs_dir *c = s->dir->slot[i].dir;

            if (c->level + 1 != s->dir->level || !block_check(c, dir_len) ||
                (i > 0 && s->dir->slot[i].key > first_slot(s->dir, i)->key))
                return false;
            depth++;
            stack[depth].dir = c;
            stack[depth].index = 0;
            continue;
        }

        const struct xs_node *n = s->dir->slot[i].node;
        struct xs_name name = {n->data, n->name_len, 0, s->dir->slot[i].key};
        char padded[8] = {0};
        uint32_t len = prev == NULL                   ? 0
                       : prev->name_len < n->name_len ? prev->name_len
                                                      : n->name_len;
        int order = prev == NULL ? -1 : memcmp(prev->data, n->data, len);

        memcpy(padded, n->data, n->name_len < 8 ? n->name_len : 8);
        if (n->refs == 0 || order > 0 || (order == 0 && prev->name_len >= n->name_len) ||
            name.key != xs_name_key(padded, n->name_len) || xs_dir_find(d, &name) != n)
            return false;
        prev = n;
    }
}
