#include "trie.h"

#include "err.h"

/* ---- nodes ------------------------------------------------------------------ */

/* Blocks are asked for in the sizes malloc has anyway, so that a value that changes its
 * length a little stays where it is. */
static size_t node_size(uint32_t name_len, uint32_t value_len)
{
    size_t n = sizeof(struct xs_node) + name_len + value_len;

    return ((n + 8 + 15) & ~(size_t)15) - 8;
}

static struct xs_node *node_new(struct xs_tree *t, const char *name, uint32_t name_len,
                                uint32_t value_len)
{
    struct xs_node *n = xs_mem_alloc(t->mem, &t->account, node_size(name_len, value_len));

    if (n == NULL)
        return NULL;
    t->made++;
    n->refs = 1;
    n->name_len = (uint16_t)name_len;
    n->value_len = (uint16_t)value_len;
    n->perms = NULL;
    n->kids = NULL;
    n->stamp = n->kids_stamp = 0;
    memcpy(n->data, name, name_len);
    memset(n->data + name_len, 0, value_len);
    return n;
}

static void node_free(struct xs_tree *t, struct xs_node *n)
{
    if (n->perms != NULL)
        xs_perms_unref(&t->perms, n->perms);
    xs_mem_free(t->mem, &t->account, n, node_size(n->name_len, n->value_len));
}

/* Lets a copy refer to the same children and permissions as the original. */
static void inherit(struct xs_node *copy, const struct xs_node *n)
{
    copy->perms = xs_perms_ref(n->perms);
    copy->kids = n->kids;
    if (n->kids != NULL)
        n->kids->refs++;
    copy->stamp = n->stamp;
    copy->kids_stamp = n->kids_stamp;
}

static struct xs_node *own_node(struct xs_tree *t, struct xs_node **link)
{
    struct xs_node *n = *link;

    if (n->refs == 1)
        return n;

    struct xs_node *copy = node_new(t, n->data, n->name_len, n->value_len);
    if (copy == NULL)
        return NULL;
    memcpy(copy->data + n->name_len, n->data + n->name_len, n->value_len);
    inherit(copy, n);
    n->refs--;
    *link = copy;
    return copy;
}

void xs_tree_bury_node(struct xs_tree *t, struct xs_node *n)
{
    n->next_dead = t->dead_nodes;
    t->dead_nodes = n;
}

void xs_tree_bury_dir(struct xs_tree *t, struct xs_dir *d)
{
    d->next_dead = t->dead_dirs;
    t->dead_dirs = d;
}

void xs_tree_drop(struct xs_tree *t, struct xs_node *top)
{
    if (top != NULL && --top->refs == 0)
        xs_tree_bury_node(t, top);
}

bool xs_tree_collect(struct xs_tree *t, size_t budget)
{
    /* Two for each that was made, or whoever makes and removes at once would outrun us. */
    if (budget <= SIZE_MAX - 2 * t->made)
        budget += 2 * t->made;
    t->made = 0;
    while (budget-- > 0) {
        if (t->dead_dirs != NULL) {
            struct xs_dir *d = t->dead_dirs;

            t->dead_dirs = d->next_dead;
            for (uint32_t i = 0; i < d->count; i++) {
                if (d->level == 0)
                    xs_tree_drop(t, d->slot[i].node);
                else if (--d->slot[i].dir->refs == 0)
                    xs_tree_bury_dir(t, d->slot[i].dir);
            }
            xs_mem_free(t->mem, &t->account, d, xs_dir_size(d->cap));
        } else if (t->dead_nodes != NULL) {
            struct xs_node *n = t->dead_nodes;

            t->dead_nodes = n->next_dead;
            if (n->kids != NULL && --n->kids->refs == 0)
                xs_tree_bury_dir(t, n->kids);
            node_free(t, n);
        } else {
            return false;
        }
    }
    return t->dead_dirs != NULL || t->dead_nodes != NULL;
}

/* ---- the tree --------------------------------------------------------------- */

int xs_tree_init(struct xs_tree *t, struct xs_mem *mem)
{
    memset(t, 0, sizeof(*t));
    t->mem = mem;
    return xs_permtab_init(&t->perms, mem);
}

void xs_tree_destroy(struct xs_tree *t)
{
    xs_tree_collect(t, SIZE_MAX);
    xs_permtab_destroy(&t->perms);
    xs_mem_free(t->mem, &t->account, t->steps, t->step_cap * sizeof(*t->steps));
    xs_mem_free(t->mem, &t->account, t->tally, t->tally_cap * sizeof(*t->tally));
}

int xs_tree_push_step(struct xs_tree *t, struct xs_dir *d, uint32_t index)
{
    if (t->step_count == t->step_cap &&
        xs_mem_grow(t->mem, &t->account, (void **)&t->steps, &t->step_cap, t->step_count + 1,
                    sizeof(*t->steps)) != XS_OK)
        return XS_ENOMEM;
    t->steps[t->step_count].dir = d;
    t->steps[t->step_count].index = index;
    t->step_count++;
    return XS_OK;
}

static int tally_add(struct xs_tree *t, uint32_t domid, int64_t nodes, int64_t bytes)
{
    for (size_t i = t->tally_count; i-- > 0;) {
        if (t->tally[i].domid == domid) {
            t->tally[i].nodes += nodes;
            t->tally[i].bytes += bytes;
            return XS_OK;
        }
    }
    if (xs_mem_grow(t->mem, &t->account, (void **)&t->tally, &t->tally_cap, t->tally_count + 1,
                    sizeof(*t->tally)) != XS_OK)
        return XS_ENOMEM;
    t->tally[t->tally_count++] = (struct xs_tally){domid, nodes, bytes};
    return XS_OK;
}

static void change_begin(struct xs_tree *t)
{
    memset(&t->change, 0, sizeof(t->change));
    t->step_count = 0;
    t->tally_count = 0;
}

int xs_tree_new(struct xs_tree *t, struct xs_perms *perms, struct xs_node **out)
{
    static const char *const specials[] = {"@introduceDomain", "@releaseDomain"};
    struct xs_node *top = node_new(t, "", 0, 0);
    struct xs_path path;
    struct xs_found found;
    int rc = XS_OK;

    if (top == NULL)
        return XS_ENOMEM;
    top->perms = xs_perms_ref(perms);
    xs_path_set(&path, "/", 1);
    for (int i = -1; i < 2 && rc == XS_OK; i++) {
        if (i >= 0)
            xs_path_set(&path, specials[i], strlen(specials[i]));
        rc = xs_tree_seek(t, top, &path, &found);
        if (rc == XS_OK)
            rc = xs_tree_prepare_write(t, &top, &path, perms, 0);
        if (rc == XS_OK)
            xs_tree_commit(t, "");
    }
    if (rc != XS_OK) {
        xs_tree_abort(t);
        xs_tree_drop(t, top);
        return rc;
    }
    *out = top;
    return XS_OK;
}

void xs_tree_find(struct xs_node *top, const struct xs_path *path, struct xs_found *f)
{
    struct xs_node *node = top, *child;
    struct xs_name name;
    uint32_t len = 0;

    f->parent = NULL;
    xs_path_first(path, &name);
    do {
        child = xs_dir_find(node->kids, &name);
        if (child == NULL) {
            f->node = f->parent = NULL;
            f->near = node;
            f->near_len = len;
            return;
        }
        /* Its value, if it is the last. */
        __builtin_prefetch((const void *)((uintptr_t)child + XS_LINE_BYTES));
        f->parent = node;
        node = child;
        len = xs_name_path_len(&name);
    } while (xs_path_next(path, &name));
    f->node = f->near = node;
    f->near_len = len;
}

int xs_tree_seek(struct xs_tree *t, struct xs_node *top, const struct xs_path *path,
                 struct xs_found *f)
{
    struct xs_change *c = &t->change;
    struct xs_node *node = top;
    struct xs_name next;

    change_begin(t);
    f->parent = NULL;
    xs_path_first(path, &next);
    do {
        struct xs_node *child = NULL;
        int rc;

        c->name = next;
        c->dir_mark = t->step_count;
        if (node->kids != NULL && (rc = xs_dir_seek(t, node->kids, &next, &child)) != XS_OK)
            return rc;
        if (child == NULL) {
            f->node = f->parent = NULL;
            f->near = node;
            f->near_len = c->dir_len;
            return XS_OK;
        }
        f->parent = node;
        node = child;
        f->near_len = xs_name_path_len(&next);
        if (!xs_path_next(path, &next))
            break;
        c->dir_len = f->near_len;
    } while (true);
    f->node = f->near = c->node = node;
    return XS_OK;
}

/* Makes nodes and blocks on the way of the last seek our own, the target itself excepted.
 * In the directory that lacks a name, nothing is done yet. */
static int own_way(struct xs_tree *t, struct xs_node **top)
{
    struct xs_change *c = &t->change;
    struct xs_node **link = top;
    size_t at = 0;

    for (;;) {
        struct xs_node *node = own_node(t, link);
        size_t end = at;

        if (node == NULL)
            return XS_ENOMEM;
        c->parent = node;
        if (at == c->dir_mark && c->node == NULL)
            return XS_OK;
        while (t->steps[end].dir->level > 0)
            end++;
        end++;

        struct xs_dir *leaf = xs_dir_own_steps(t, &node->kids, t->steps + at, end - at);
        if (leaf == NULL)
            return XS_ENOMEM;
        link = &leaf->slot[t->steps[end - 1].index].node;
        if (at == c->dir_mark) {
            c->link = link;
            return XS_OK;
        }
        at = end;
    }
}

/* Builds the missing part of a path as a chain hanging in the air. */
static int build_chain(struct xs_tree *t, const struct xs_path *path, struct xs_perms *perms,
                       uint32_t value_len)
{
    struct xs_change *c = &t->change;
    struct xs_name name = c->name, next;
    uint64_t fixed = 16 + 8 * (uint64_t)perms->count;
    bool more;

    do { /* what the chain will weigh, names in its inner nodes included */
        next = name;
        more = xs_path_next(path, &next);
        c->created++;
        c->bytes +=
            (int64_t)(fixed + xs_name_path_len(&name) + (more ? next.len + 1 : value_len));
        name = next;
    } while (more);
    c->nodes = c->created;

    int64_t nodes = c->nodes, bytes = c->bytes;
    name = c->name;
    for (;;) {
        next = name;
        more = xs_path_next(path, &next);

        struct xs_node *n = node_new(t, name.p, name.len, more ? 0 : value_len);
        if (n == NULL)
            return XS_ENOMEM;
        n->perms = xs_perms_ref(perms);
        if (c->last == NULL) {
            c->fresh = n;
        } else {
            struct xs_dir *d = xs_dir_new(t, n, &name);

            if (d == NULL) {
                node_free(t, n);
                return XS_ENOMEM;
            }
            xs_dir_account(d, nodes, bytes, xs_perms_owner(perms), perms->mentions);
            c->last->kids = d;
        }
        c->last = n;
        nodes--;
        bytes -= (int64_t)(fixed + xs_name_path_len(&name) + (more ? next.len + 1 : value_len));
        if (!more)
            return XS_OK;
        name = next;
    }
}

static int prepare_create(struct xs_tree *t, const struct xs_path *path, struct xs_perms *perms,
                          uint32_t value_len)
{
    struct xs_change *c = &t->change;
    int rc = build_chain(t, path, perms, value_len);

    if (rc != XS_OK)
        return rc;
    t->step_count = c->dir_mark;
    if (c->parent->kids == NULL) {
        c->dir = xs_dir_new(t, c->fresh, &c->name);
        if (c->dir == NULL)
            return XS_ENOMEM;
    } else {
        rc = xs_dir_make_room(t, &c->parent->kids, &c->name, c->dir_len);
        if (rc != XS_OK)
            return rc;
    }
    rc = tally_add(t, xs_perms_owner(perms), c->nodes, c->bytes);
    if (rc == XS_OK)
        rc = tally_add(t, xs_perms_owner(c->parent->perms), 0, c->name.len + 1);
    return rc;
}

int xs_tree_prepare_write(struct xs_tree *t, struct xs_node **top, const struct xs_path *path,
                          struct xs_perms *perms, uint32_t value_len)
{
    struct xs_change *c = &t->change;
    int rc = own_way(t, top);

    if (rc != XS_OK)
        return rc;
    c->value_len = value_len;
    if (c->node == NULL) {
        c->kind = XS_CHANGE_CREATE;
        rc = prepare_create(t, path, perms, value_len);
    } else {
        struct xs_node *n = c->node;

        c->kind = XS_CHANGE_VALUE;
        c->parent = NULL;
        c->bytes = (int64_t)value_len - n->value_len;
        if (n->refs > 1 ||
            node_size(n->name_len, value_len) != node_size(n->name_len, n->value_len)) {
            c->fresh = node_new(t, n->data, n->name_len, value_len);
            if (c->fresh == NULL)
                rc = XS_ENOMEM;
        }
        if (rc == XS_OK)
            rc = tally_add(t, xs_perms_owner(n->perms), 0, c->bytes);
    }
    if (rc != XS_OK)
        xs_tree_abort(t);
    return rc;
}

int xs_tree_prepare_perms(struct xs_tree *t, struct xs_node **top, const struct xs_path *path,
                          struct xs_perms *perms)
{
    struct xs_change *c = &t->change;
    int rc = own_way(t, top);

    if (rc != XS_OK)
        return rc;
    xs_assert(c->link != NULL);
    c->node = own_node(t, c->link);
    if (c->node == NULL)
        return XS_ENOMEM;
    c->kind = XS_CHANGE_PERMS;
    c->parent = NULL;
    c->perms = xs_perms_ref(perms);
    c->bytes = 8 * ((int64_t)perms->count - c->node->perms->count);

    int64_t weight = (int64_t)xs_node_size(c->node) + path->len;
    rc = tally_add(t, xs_perms_owner(c->node->perms), -1, -weight);
    if (rc == XS_OK)
        rc = tally_add(t, xs_perms_owner(perms), 1, weight + c->bytes);
    if (rc != XS_OK)
        xs_tree_abort(t);
    return rc;
}

/* Adds up a subtree by owner. Blocks of a single owner are not entered. */
static int tally_subtree(struct xs_tree *t, const struct xs_node *node, uint32_t path_len)
{
    struct xs_walk_frame *stack = NULL, f = {node->kids, 0, path_len};
    size_t count = 0, cap = 0;
    int rc =
        tally_add(t, xs_perms_owner(node->perms), 1, (int64_t)xs_node_size(node) + path_len);

    while (rc == XS_OK && f.dir != NULL) {
        const struct xs_dir *d = f.dir;

        if (!d->mixed)
            rc = tally_add(t, d->owner, (int64_t)d->nodes, (int64_t)d->bytes);
        else
            rc = xs_mem_grow(t->mem, &t->account, (void **)&stack, &cap, count + d->count,
                             sizeof(*stack));
        for (uint32_t i = 0; i < d->count && d->mixed && rc == XS_OK; i++) {
            if (d->level > 0) {
                stack[count++] = (struct xs_walk_frame){d->slot[i].dir, 0, f.dir_len};
                continue;
            }
            const struct xs_node *n = d->slot[i].node;
            uint32_t len = xs_node_path_len(f.dir_len, n->name_len);
            rc = tally_add(t, xs_perms_owner(n->perms), 1, (int64_t)xs_node_size(n) + len);
            if (n->kids != NULL)
                stack[count++] = (struct xs_walk_frame){n->kids, 0, len};
        }
        f = count > 0 ? stack[--count] : (struct xs_walk_frame){NULL, 0, 0};
    }
    xs_mem_free(t->mem, &t->account, stack, cap * sizeof(*stack));
    return rc;
}

int xs_tree_prepare_remove(struct xs_tree *t, struct xs_node **top, const struct xs_path *path)
{
    struct xs_change *c = &t->change;
    int rc = own_way(t, top);

    if (rc != XS_OK)
        return rc;
    xs_assert(c->link != NULL && path->len > 1 && !xs_path_is_special(path));
    rc = tally_subtree(t, c->node, path->len);
    for (size_t i = 0; i < t->tally_count; i++) {
        c->nodes -= t->tally[i].nodes;
        c->bytes -= t->tally[i].bytes;
        t->tally[i].nodes = -t->tally[i].nodes;
        t->tally[i].bytes = -t->tally[i].bytes;
    }
    if (rc == XS_OK)
        rc = tally_add(t, xs_perms_owner(c->parent->perms), 0, -(int64_t)(c->name.len + 1));
    if (rc == XS_OK)
        c->kind = XS_CHANGE_REMOVE;
    return rc;
}

static void commit_create(struct xs_tree *t)
{
    struct xs_change *c = &t->change;
    struct xs_perms *perms = c->fresh->perms;
    uint32_t owner = xs_perms_owner(perms), gained = c->name.len + 1;
    struct xs_node *n = c->fresh;

    for (;; n = n->kids->slot[0].node) {
        n->stamp = n->kids_stamp = ++t->stamp;
        if (n->kids == NULL)
            break;
    }
    c->parent->kids_stamp = ++t->stamp;
    for (size_t i = 0; i < t->step_count; i++) {
        struct xs_dir *d = t->steps[i].dir;

        /* Blocks above the directory also hold the parent, which gains a name. */
        xs_dir_account(d, c->nodes, c->bytes + (i < c->dir_mark ? gained : 0), owner,
                       perms->mentions);
        if (i >= c->dir_mark)
            d->names_bytes += gained;
    }
    if (c->dir != NULL) {
        xs_dir_account(c->dir, c->nodes, c->bytes, owner, perms->mentions);
        c->parent->kids = c->dir;
    } else {
        xs_dir_insert(&t->steps[t->step_count - 1], &c->name, c->fresh);
    }
    c->node = c->last;
}

static void commit_value(struct xs_tree *t)
{
    struct xs_change *c = &t->change;
    struct xs_node *n = c->node;

    if (c->fresh != NULL) {
        inherit(c->fresh, n);
        *c->link = c->fresh;
        if (--n->refs == 0) {
            if (n->kids != NULL)
                n->kids->refs--; /* inherit() holds another one */
            node_free(t, n);
        }
        c->node = n = c->fresh;
    }
    n->value_len = (uint16_t)c->value_len;
    n->stamp = ++t->stamp;
    for (size_t i = 0; c->bytes != 0 && i < t->step_count; i++)
        t->steps[i].dir->bytes += (uint64_t)c->bytes;
}

static void commit_perms(struct xs_tree *t)
{
    struct xs_change *c = &t->change;

    xs_perms_unref(&t->perms, c->node->perms);
    c->node->perms = c->perms;
    c->node->stamp = ++t->stamp;
    for (size_t i = 0; i < t->step_count; i++)
        xs_dir_account(t->steps[i].dir, 0, c->bytes, xs_perms_owner(c->perms),
                       c->perms->mentions);
}

static void commit_remove(struct xs_tree *t)
{
    struct xs_change *c = &t->change;
    uint32_t lost = c->name.len + 1;

    for (size_t i = 0; i < t->step_count; i++) {
        struct xs_dir *d = t->steps[i].dir;

        d->nodes += (uint64_t)c->nodes;
        d->bytes += (uint64_t)(c->bytes - (i < c->dir_mark ? lost : 0));
        if (i >= c->dir_mark)
            d->names_bytes -= lost;
    }
    xs_dir_remove(t, &c->parent->kids, t->steps + c->dir_mark, t->step_count - c->dir_mark);
    c->parent->kids_stamp = ++t->stamp;
    xs_tree_drop(t, c->node);
    c->node = NULL;
}

void xs_tree_commit(struct xs_tree *t, const char *value)
{
    struct xs_change *c = &t->change;

    switch (c->kind) {
    case XS_CHANGE_CREATE:
        commit_create(t);
        break;
    case XS_CHANGE_VALUE:
        commit_value(t);
        break;
    case XS_CHANGE_PERMS:
        commit_perms(t);
        break;
    case XS_CHANGE_REMOVE:
        commit_remove(t);
        break;
    case XS_CHANGE_NONE:
        xs_assert(c->kind != XS_CHANGE_NONE);
    }
    if (value != NULL)
        memcpy(c->node->data + c->node->name_len, value, c->value_len);
    c->kind = XS_CHANGE_NONE;
}

void xs_tree_abort(struct xs_tree *t)
{
    struct xs_change *c = &t->change;

    if (c->dir != NULL)
        xs_mem_free(t->mem, &t->account, c->dir, xs_dir_size(c->dir->cap));
    if (c->fresh != NULL)
        xs_tree_drop(t, c->fresh);
    if (c->perms != NULL)
        xs_perms_unref(&t->perms, c->perms);
    change_begin(t);
}

/* ---- comparing --------------------------------------------------------------- */

static bool same_stamps(const struct xs_node *a, const struct xs_node *b, bool kids)
{
    if (a == b)
        return true;
    return a != NULL && b != NULL && a->stamp == b->stamp &&
           (!kids || a->kids_stamp == b->kids_stamp);
}

bool xs_tree_same(struct xs_node *a, struct xs_node *b, const struct xs_path *path, bool kids)
{
    struct xs_name name;

    xs_path_first(path, &name);
    do {
        if (a == b)
            return true; /* shared from here down, or missing in both */
        a = a == NULL ? NULL : xs_dir_find(a->kids, &name);
        b = b == NULL ? NULL : xs_dir_find(b->kids, &name);
    } while (xs_path_next(path, &name));
    return same_stamps(a, b, kids);
}

int xs_tree_same_subtree(struct xs_tree *t, struct xs_node *a, struct xs_node *b,
                         const struct xs_path *path, bool *same)
{
    struct xs_found fa, fb;
    struct xs_walk wa, wb;
    int rc;

    xs_tree_find(a, path, &fa);
    xs_tree_find(b, path, &fb);
    *same = same_stamps(fa.node, fb.node, true);
    if (!*same || fa.node == fb.node)
        return XS_OK;

    /* Equal sets of children, level by level: the two walks stay in step. */
    xs_walk_start(&wa, t, fa.node, path, 0);
    xs_walk_start(&wb, t, fb.node, path, 0);
    for (;;) {
        const struct xs_node *na = xs_walk_next(&wa), *nb = xs_walk_next(&wb);

        if (na == NULL || nb == NULL)
            break;
        if (na == nb) {
            xs_walk_skip(&wa);
            xs_walk_skip(&wb);
        } else if (!same_stamps(na, nb, true)) {
            *same = false;
            break;
        }
    }
    rc = wa.error != XS_OK ? wa.error : wb.error;
    xs_walk_end(&wa);
    xs_walk_end(&wb);
    return rc;
}

/* ---- walking ------------------------------------------------------------------ */

void xs_walk_start(struct xs_walk *w, struct xs_tree *t, const struct xs_node *node,
                   const struct xs_path *path, uint64_t mentions)
{
    w->tree = t;
    w->frames = NULL;
    w->count = w->cap = 0;
    w->mentions = mentions;
    w->error = XS_OK;
    w->descend = node->kids;
    xs_path_set(&w->path, path == NULL ? "" : path->buf, path == NULL ? 0 : path->len);
}

/* Enters a block; its frame is the next to be looked at. */
static void enter(struct xs_walk *w, const struct xs_dir *d, uint32_t dir_len)
{
    if (w->mentions != 0 && (d->mentions & w->mentions) == 0)
        return;
    w->error = xs_mem_grow(w->tree->mem, &w->tree->account, (void **)&w->frames, &w->cap,
                           w->count + 1, sizeof(*w->frames));
    if (w->error == XS_OK)
        w->frames[w->count++] = (struct xs_walk_frame){d, 0, dir_len};
}

struct xs_node *xs_walk_next(struct xs_walk *w)
{
    if (w->descend != NULL) {
        enter(w, w->descend, w->path.len);
        w->descend = NULL;
    }
    while (w->count > 0 && w->error == XS_OK) {
        struct xs_walk_frame *f = &w->frames[w->count - 1];
        uint32_t i = f->index++, at = f->dir_len;

        if (i == f->dir->count) {
            w->count--;
            continue;
        }
        if (f->dir->level > 0) {
            enter(w, f->dir->slot[i].dir, f->dir_len);
            continue;
        }

        struct xs_node *n = f->dir->slot[i].node;
        w->path.len = xs_node_path_len(f->dir_len, n->name_len);
        if (f->dir_len > 1 || n->name_len == 0)
            w->path.buf[at++] = '/';
        memcpy(w->path.buf + at, n->data, n->name_len);
        memset(w->path.buf + w->path.len, 0, XS_PATH_PAD);
        w->descend = n->kids;
        return n;
    }
    return NULL;
}

void xs_walk_end(struct xs_walk *w)
{
    xs_mem_free(w->tree->mem, &w->tree->account, w->frames, w->cap * sizeof(*w->frames));
    w->frames = NULL;
    w->count = w->cap = 0;
    w->descend = NULL;
}

int xs_tree_check(struct xs_tree *t, struct xs_node *top)
{
    struct xs_walk w;
    struct xs_node *n;
    bool good = top->kids != NULL && xs_dir_check(top->kids, 0);
    int rc;

    xs_walk_start(&w, t, top, NULL, 0);
    while (good && (n = xs_walk_next(&w)) != NULL)
        good = n->perms->count > 0 && n->stamp <= t->stamp && n->kids_stamp <= t->stamp &&
               (n->kids == NULL || xs_dir_check(n->kids, w.path.len));
    rc = w.error;
    xs_walk_end(&w);
    return rc != XS_OK ? rc : good ? XS_OK : XS_EIO;
}
