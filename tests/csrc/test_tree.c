/*
 * The tree against a twin: a sorted array of paths, each with its value, permissions and the
 * numbers of its last changes.
 *
 * Several holders share one tree and change their views of it; each has a twin of its own.
 * After every step the view that was worked on is walked and compared as a whole. Changes
 * are committed, aborted, or fail for want of memory, and then nothing may have changed.
 */
#include <string.h>

#include "check.h"
#include "err.h"
#include "trie.h"

enum { HOLDERS = 5, PERMS = 6, VALUE_MAX = 60 };

/* ---- the twin ------------------------------------------------------------------ */

struct entry {
    char *path;
    uint32_t len;
    char value[VALUE_MAX];
    uint32_t value_len;
    struct xs_perms *perms;
    uint64_t stamp, kids_stamp;
};

struct twin {
    struct entry *e;
    size_t count, cap;
};

struct holder {
    struct xs_node *top; /* NULL: free */
    struct twin twin;
};

static struct xs_mem mem;
static struct xs_tree tree;
static struct xs_perms *perms[PERMS];
static struct holder holders[HOLDERS];
static uint64_t twin_stamp;

/* Parents first, siblings in byte order: "/" sorts before everything. */
static int order(const char *a, size_t an, const char *b, size_t bn)
{
    for (size_t i = 0; i < an && i < bn; i++) {
        unsigned ca = a[i] == '/' ? 0 : (uint8_t)a[i], cb = b[i] == '/' ? 0 : (uint8_t)b[i];

        if (ca != cb)
            return ca < cb ? -1 : 1;
    }
    return (an > bn) - (an < bn);
}

/* Place of a path, or where it belongs. */
static size_t place(const struct twin *t, const char *p, size_t n, bool *found)
{
    size_t lo = 0, hi = t->count;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (order(t->e[mid].path, t->e[mid].len, p, n) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = lo < t->count && t->e[lo].len == n && memcmp(t->e[lo].path, p, n) == 0;
    return lo;
}

static struct entry *lookup(const struct twin *t, const char *p, size_t n)
{
    bool found;
    size_t i = place(t, p, n, &found);

    return found ? &t->e[i] : NULL;
}

static size_t parent_len(const char *p, size_t n)
{
    while (p[n - 1] != '/')
        n--;
    return n == 1 ? 1 : n - 1;
}

static bool below(const struct entry *e, const char *p, size_t n)
{
    if (n == 1)
        return e->len > 1 && e->path[0] == '/';
    return e->len > n && e->path[n] == '/' && memcmp(e->path, p, n) == 0;
}

static void insert(struct twin *t, const char *p, size_t n, struct xs_perms *with)
{
    bool found;
    size_t i = place(t, p, n, &found);

    CHECK(!found);
    if (t->count == t->cap) {
        t->cap = t->cap * 2 + 16;
        t->e = realloc(t->e, t->cap * sizeof(*t->e));
        CHECK(t->e != NULL);
    }
    memmove(t->e + i + 1, t->e + i, (t->count - i) * sizeof(*t->e));
    memset(&t->e[i], 0, sizeof(t->e[i]));
    t->e[i].path = must_alloc(n);
    memcpy(t->e[i].path, p, n);
    t->e[i].len = (uint32_t)n;
    t->e[i].perms = with;
    t->e[i].stamp = t->e[i].kids_stamp = ++twin_stamp;
    t->count++;
}

static void twin_write(struct twin *t, const char *p, size_t n, struct xs_perms *with,
                       const char *value, uint32_t value_len)
{
    if (lookup(t, p, n) == NULL) {
        size_t up = parent_len(p, n);

        for (size_t end = 2; end <= n; end++)
            if ((end == n || p[end] == '/') && lookup(t, p, end) == NULL) {
                insert(t, p, end, with);
                up = parent_len(p, end);
                lookup(t, p, up)->kids_stamp = ++twin_stamp;
            }
    }
    struct entry *e = lookup(t, p, n);
    memcpy(e->value, value, value_len);
    e->value_len = value_len;
    e->stamp = ++twin_stamp;
}

static void twin_remove(struct twin *t, const char *p, size_t n)
{
    size_t to = 0;

    lookup(t, p, parent_len(p, n))->kids_stamp = ++twin_stamp;
    for (size_t i = 0; i < t->count; i++) {
        bool gone = t->e[i].len == n && memcmp(t->e[i].path, p, n) == 0;

#ifndef CANARY
        gone = gone || below(&t->e[i], p, n);
#endif
        if (gone)
            free(t->e[i].path);
        else
            t->e[to++] = t->e[i];
    }
    t->count = to;
}

static void twin_copy(struct twin *to, const struct twin *from)
{
    to->count = to->cap = from->count;
    to->e = must_alloc(from->count * sizeof(*to->e));
    memcpy(to->e, from->e, from->count * sizeof(*to->e));
    for (size_t i = 0; i < to->count; i++) {
        to->e[i].path = must_alloc(from->e[i].len);
        memcpy(to->e[i].path, from->e[i].path, from->e[i].len);
    }
}

static void twin_free(struct twin *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->e[i].path);
    free(t->e);
    memset(t, 0, sizeof(*t));
}

/* Bytes of the names of the children of entry i, and their list if wanted. */
static uint32_t child_names(const struct twin *t, size_t i, char *out)
{
    const struct entry *e = &t->e[i];
    uint32_t bytes = 0;

    for (size_t k = i + 1; k < t->count && below(&t->e[k], e->path, e->len); k++) {
        const struct entry *c = &t->e[k];
        uint32_t start = e->len == 1 ? 1 : e->len + 1;

        if (memchr(c->path + start, '/', c->len - start) != NULL)
            continue;
        if (out != NULL) {
            memcpy(out + bytes, c->path + start, c->len - start);
            out[bytes + c->len - start] = 0;
        }
        bytes += c->len - start + 1;
    }
    return bytes;
}

/* What quotas count, by owner. */
static void sums(const struct twin *t, int64_t nodes[PERMS], int64_t bytes[PERMS])
{
    memset(nodes, 0, PERMS * sizeof(*nodes));
    memset(bytes, 0, PERMS * sizeof(*bytes));
    for (size_t i = 0; i < t->count; i++) {
        const struct entry *e = &t->e[i];
        uint32_t owner = xs_perms_owner(e->perms);

        CHECK(owner < PERMS);
        nodes[owner]++;
        bytes[owner] +=
            16 + 8 * (int64_t)e->perms->count + e->value_len + child_names(t, i, NULL) + e->len;
    }
}

/* ---- comparing ------------------------------------------------------------------- */

static void compare(const struct holder *h)
{
    struct xs_walk w;
    struct xs_node *n;
    size_t i = 0;

    CHECK_EQ(xs_tree_check(&tree, h->top), XS_OK);
    xs_walk_start(&w, &tree, h->top, NULL, 0);
    while ((n = xs_walk_next(&w)) != NULL) {
        CHECK(i < h->twin.count);
        const struct entry *e = &h->twin.e[i++];

        CHECK_EQ(w.path.len, e->len);
        CHECK(memcmp(w.path.buf, e->path, e->len) == 0);
        CHECK_EQ(n->value_len, e->value_len);
        CHECK(memcmp(xs_node_value(n), e->value, e->value_len) == 0);
        CHECK(n->perms == e->perms);
    }
    CHECK_EQ(w.error, XS_OK);
    CHECK_EQ(i, h->twin.count);
    xs_walk_end(&w);
}

/* That of the top is no directory that a path names: it has the nameless root. */
static void list_the_top(const struct holder *h)
{
    static const char names[] = "\0@introduceDomain\0@releaseDomain";
    char list[64];
    bool end;

    CHECK_EQ(xs_dir_list(h->top->kids, 0, list, sizeof(list), &end), sizeof(names));
    CHECK(end && memcmp(list, names, sizeof(names)) == 0);
}

/* Names of a directory come in pieces from any offset on. */
static void compare_list(const struct holder *h)
{
    static char all[1 << 20], part[4096];
    size_t i = any_below((uint32_t)h->twin.count);
    const struct entry *e = &h->twin.e[i];
    uint32_t bytes = child_names(&h->twin, i, all);
    uint64_t offset = any_below(bytes + 3), room = any_below(200);
    struct xs_found f;
    struct xs_path path;
    bool end;

    xs_path_set(&path, e->path, e->len);
    xs_tree_find(h->top, &path, &f);
    CHECK(f.node != NULL && f.near == f.node && f.near_len == e->len);
    CHECK_EQ(xs_node_names_bytes(f.node), bytes);

    size_t n = xs_dir_list(f.node->kids, offset, part, room, &end);
    CHECK(n <= room);
    if (offset > bytes)
        offset = bytes;
    CHECK(offset + n <= bytes && memcmp(part, all + offset, n) == 0);
    CHECK_EQ(end, offset + n == bytes);
    if (!end) /* the next name did not fit as a whole */
        CHECK(strlen(all + offset + n) + 1 > room - n);
}

static bool twin_same(const struct entry *a, const struct entry *b, bool kids)
{
    if (a == NULL || b == NULL)
        return a == b;
    return a->stamp == b->stamp && (!kids || a->kids_stamp == b->kids_stamp);
}

/* Two views say the same about a path when neither changed it since they parted. */
static void compare_views(const struct holder *a, const struct holder *b, const char *p,
                          size_t n)
{
    const struct entry *ea = lookup(&a->twin, p, n), *eb = lookup(&b->twin, p, n);
    struct xs_path path;
    bool same, want = twin_same(ea, eb, true);

    xs_path_set(&path, p, n);
    CHECK_EQ(xs_tree_same(a->top, b->top, &path, false), twin_same(ea, eb, false));
    CHECK_EQ(xs_tree_same(a->top, b->top, &path, true), want);

    for (size_t i = 0; want && i < a->twin.count; i++) {
        const struct entry *e = &a->twin.e[i];
        if (below(e, p, n))
            want = twin_same(e, lookup(&b->twin, e->path, e->len), true);
    }
    CHECK_EQ(xs_tree_same_subtree(&tree, a->top, b->top, &path, &same), XS_OK);
    CHECK_EQ(same, want);
}

/* The walk of those that may be mentioned finds all that are. */
static void compare_mentions(const struct holder *h)
{
    uint32_t domid = any_below(PERMS);
    size_t want = 0, got = 0;
    struct xs_walk w;
    struct xs_node *n;

    for (size_t i = 0; i < h->twin.count; i++)
        for (uint32_t k = 0; k < h->twin.e[i].perms->count; k++)
            want += h->twin.e[i].perms->entry[k].domid == domid;
    xs_walk_start(&w, &tree, h->top, NULL, xs_perms_mention(domid));
    while ((n = xs_walk_next(&w)) != NULL)
        for (uint32_t k = 0; k < n->perms->count; k++)
            got += n->perms->entry[k].domid == domid;
    xs_walk_end(&w);
    CHECK_EQ(got, want);
}

/* ---- random work ------------------------------------------------------------------- */

/* Trees grow and shrink; and now and then all happens in one directory, so that blocks split,
 * lose their first names and become empty. */
enum phase { GROW, SHRINK, FILL, CHURN, PHASES };
enum { PHASE_STEPS = 250 };

static enum phase phase(void)
{
    return (enum phase)(check_step / PHASE_STEPS % PHASES);
}

static size_t put_name(char *out)
{
    static const char *const shorts[] = {"a", "b", "c", "abcdefgh", "abcdefg", "zz", "0", "-"};

    switch (phase() >= FILL ? 1 + any_below(3) : any_below(4)) {
    case 0: /* few and short: deep trees */
        return (size_t)sprintf(out, "%s", shorts[any_below(8)]);
    case 1: /* many that share their first eight bytes: blocks split between them */
        return (size_t)sprintf(out, "sharedby%u", any_below(150));
    case 2: /* two groups side by side */
        return (size_t)sprintf(out, "sharedb%c%c", "yz"[any_below(2)],
                               (char)('a' + any_below(26)));
    default:
        return (size_t)sprintf(out, "n%u", any_below(200));
    }
}

static size_t random_path(const struct twin *t, char *out)
{
    size_t n = 0;

    if (phase() >= FILL && !one_in(8)) {
        memcpy(out, "/w/", 3);
        return 3 + put_name(out + 3);
    }
    if ((phase() == SHRINK || one_in(3)) &&
        t->count > 3) { /* something that exists, or a child of it */
        const struct entry *e = &t->e[any_below((uint32_t)t->count)];

        if (e->path[0] == '/' && e->len > 1 && e->len < 300) {
            memcpy(out, e->path, e->len);
            n = e->len;
            if (one_in(2))
                return n;
        }
    }
    do {
        out[n++] = '/';
        n += put_name(out + n);
    } while (one_in(3) && n < 400);
    return n;
}

static void check_found(const struct holder *h, const struct xs_path *path,
                        const struct xs_found *f)
{
    const struct entry *e = lookup(&h->twin, path->buf, path->len);
    size_t near = path->len;

    CHECK_EQ(f->node != NULL, e != NULL);
    while (lookup(&h->twin, path->buf, near) == NULL)
        near = parent_len(path->buf, near);
    CHECK_EQ(f->near_len, near);
}

/* The tally of the prepared change is what the twin gains by it. */
static void check_tally(const struct twin *before, const struct twin *after)
{
    int64_t n0[PERMS], b0[PERMS], n1[PERMS], b1[PERMS];

    sums(before, n0, b0);
    sums(after, n1, b1);
    for (size_t i = 0; i < tree.tally_count; i++) {
        const struct xs_tally *t = &tree.tally[i];

        n0[t->domid] += t->nodes;
        b0[t->domid] += t->bytes;
    }
    for (size_t i = 0; i < PERMS; i++) {
        CHECK_EQ(n0[i], n1[i]);
        CHECK_EQ(b0[i], b1[i]);
    }
}

enum kind { WRITE, REMOVE, SET_PERMS };

struct job {
    enum kind kind;
    struct xs_path path;
    char value[VALUE_MAX];
    uint32_t value_len;
    struct xs_perms *perms;
    bool abort;
};

/* One attempt. XS_OK or XS_ENOMEM; then nothing has changed. */
static int attempt(struct holder *h, const struct job *j)
{
    struct xs_found f;
    struct twin after;
    int rc = xs_tree_seek(&tree, h->top, &j->path, &f);

    if (rc != XS_OK)
        return rc;
    check_found(h, &j->path, &f);
    if (j->kind == REMOVE)
        rc = xs_tree_prepare_remove(&tree, &h->top, &j->path);
    else if (j->kind == SET_PERMS)
        rc = xs_tree_prepare_perms(&tree, &h->top, &j->path, j->perms);
    else
        rc = xs_tree_prepare_write(&tree, &h->top, &j->path, j->perms, j->value_len);
    if (rc != XS_OK)
        return rc;

    twin_copy(&after, &h->twin);
    if (j->kind == REMOVE) {
        twin_remove(&after, j->path.buf, j->path.len);
    } else if (j->kind == SET_PERMS) {
        struct entry *e = lookup(&after, j->path.buf, j->path.len);
        e->perms = j->perms;
        e->stamp = ++twin_stamp;
    } else {
        twin_write(&after, j->path.buf, j->path.len, j->perms, j->value, j->value_len);
        CHECK_EQ(tree.change.created, after.count - h->twin.count);
    }
    check_tally(&h->twin, &after);
    if (j->abort) {
        xs_tree_abort(&tree);
        twin_free(&after);
        return XS_OK;
    }
    xs_tree_commit(&tree, j->kind == WRITE ? j->value : NULL);
    twin_free(&h->twin);
    h->twin = after;
    return XS_OK;
}

static void random_job(const struct holder *h, struct job *j)
{
    char text[600];
    size_t n = random_path(&h->twin, text);
    static const uint32_t removals[PHASES] = {1, 7, 0, 6}; /* of ten */
    uint32_t what = any_below(10);

    xs_path_set(&j->path, text, n);
    j->kind = what < removals[phase()] ? REMOVE : what < 8 ? WRITE : SET_PERMS;
    if (lookup(&h->twin, text, n) == NULL)
        j->kind = WRITE;
    if (j->kind == REMOVE && n < 3 && phase() != SHRINK)
        j->kind = WRITE; /* would take everything at once */
    j->perms = perms[any_below(PERMS)];
    j->value_len = any_below(VALUE_MAX);
    for (uint32_t i = 0; i < j->value_len; i++)
        j->value[i] = (char)any64();
    j->abort = one_in(8);
}

static void change(struct holder *h)
{
    static struct job j;
    uint64_t calls;
    int rc;

    random_job(h, &j);
    switch (any_below(3)) {
    case 0: /* one of the next twenty allocations fails, and so on until none does */
        mem.fail_at = mem.calls + 1 + any_below(20);
        break;
    case 1: /* sweep: the first fails, the second, ... */
        for (uint64_t nth = 1;; nth++) {
            calls = mem.calls;
            mem.fail_at = calls + nth;
            mem.fail_sticky = one_in(2);
            rc = attempt(h, &j);
            mem.fail_at = 0;
            mem.fail_sticky = false;
            if (rc == XS_OK)
                break;
            CHECK_EQ(rc, XS_ENOMEM);
            CHECK(mem.calls >= calls + nth);
            compare(h);
        }
        compare(h);
        return;
    }
    rc = attempt(h, &j);
    if (rc != XS_OK) {
        CHECK_EQ(rc, XS_ENOMEM);
        CHECK(mem.fail_at != 0);
    }
    mem.fail_at = 0;
    compare(h);
}

static void share(void)
{
    struct holder *from = &holders[any_below(HOLDERS)], *to = &holders[any_below(HOLDERS)];

    if (from == to || from->top == NULL)
        return;
    if (to->top != NULL) {
        xs_tree_drop(&tree, to->top);
        twin_free(&to->twin);
    }
    to->top = xs_tree_share(from->top);
    twin_copy(&to->twin, &from->twin);
}

static void random_work(size_t steps)
{
    char text[600];

    for (check_step = 0; check_step < steps; check_step++) {
        struct holder *h = &holders[any_below(HOLDERS)];

        if (h->top == NULL || one_in(40)) {
            share();
            continue;
        }
        change(h);
        if (one_in(3))
            compare_list(h);
        list_the_top(h);
        if (one_in(10))
            compare_mentions(h);
        if (one_in(4)) {
            const struct holder *other = &holders[any_below(HOLDERS)];
            size_t n = one_in(5) ? 1 : random_path(&h->twin, text);

            text[0] = '/';
            if (other->top != NULL)
                compare_views(h, other, text, n);
        }
        if (one_in(3))
            xs_tree_collect(&tree, any_below(50));
        if (one_in(50)) /* what was not worked on has not changed either */
            for (size_t i = 0; i < HOLDERS; i++)
                if (holders[i].top != NULL)
                    compare(&holders[i]);
    }
}

/* ---- great sizes --------------------------------------------------------------------- */

static void do_write(struct xs_node **top, const char *p, size_t n, const char *value)
{
    struct xs_path path;
    struct xs_found f;

    xs_path_set(&path, p, n);
    CHECK_EQ(xs_tree_seek(&tree, *top, &path, &f), XS_OK);
    CHECK_EQ(xs_tree_prepare_write(&tree, top, &path, perms[1], (uint32_t)strlen(value)),
             XS_OK);
    xs_tree_commit(&tree, value);
}

static void do_remove(struct xs_node **top, const char *p, size_t n)
{
    struct xs_path path;
    struct xs_found f;

    xs_path_set(&path, p, n);
    CHECK_EQ(xs_tree_seek(&tree, *top, &path, &f), XS_OK);
    CHECK(f.node != NULL);
    CHECK_EQ(xs_tree_prepare_remove(&tree, top, &path), XS_OK);
    xs_tree_commit(&tree, NULL);
}

static bool exists(struct xs_node *top, const char *p, size_t n)
{
    struct xs_path path;
    struct xs_found f;

    xs_path_set(&path, p, n);
    xs_tree_find(top, &path, &f);
    return f.node != NULL;
}

static void shuffle(uint32_t *a, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = any_below(i), x = a[i - 1];
        a[i - 1] = a[k];
        a[k] = x;
    }
}

/* One directory of many children, made in one order and unmade in another; a snapshot taken
 * when it was full shows it full at the end. */
static void wide(struct xs_node *base, uint32_t count, const char *format)
{
    struct xs_node *top = xs_tree_share(base), *full;
    uint32_t *a = must_alloc(count * sizeof(*a));
    char text[64];

    for (uint32_t i = 0; i < count; i++)
        a[i] = i;
    if (one_in(2))
        shuffle(a, count);
    for (uint32_t i = 0; i < count; i++)
        do_write(&top, text, (size_t)sprintf(text, format, a[i]), "x");
    CHECK_EQ(xs_tree_check(&tree, top), XS_OK);
    full = xs_tree_share(top);
    shuffle(a, count);
    for (uint32_t i = 0; i < count; i++) {
        do_remove(&top, text, (size_t)sprintf(text, format, a[i]));
        if (i == count / 2)
            for (uint32_t k = 0; k < count; k++)
                CHECK_EQ(exists(top, text, (size_t)sprintf(text, format, a[k])), k > i);
        if (i % (count / 4 + 1) == 0)
            CHECK_EQ(xs_tree_check(&tree, top), XS_OK);
        xs_tree_collect(&tree, 2);
    }
    CHECK(exists(top, "/w", 2) && !exists(full, "/nothing", 8));
    CHECK_EQ(xs_tree_check(&tree, top), XS_OK);
    CHECK_EQ(xs_tree_check(&tree, full), XS_OK);
    for (uint32_t k = 0; k < count; k++)
        CHECK(exists(full, text, (size_t)sprintf(text, format, k)));
    do_remove(&full, "/w", 2); /* of one owner: nothing is visited now, all is freed later */
    CHECK_EQ(tree.tally_count > 0 ? -tree.tally[0].nodes : 0, count + 1);
    xs_tree_drop(&tree, top);
    xs_tree_drop(&tree, full);
    while (xs_tree_collect(&tree, 100))
        ;
    free(a);
}

/* Ranges of names come and go in one directory, so that blocks lose their first names, which
 * bound them, and become empty, while neighbours share their first eight bytes. */
static void churn(struct xs_node *base, size_t steps)
{
    enum { NAMES = 600 };
    static bool there[NAMES];
    static char names[NAMES][24];
    struct xs_node *top = xs_tree_share(base);

    do_write(&top, "/c", 2, "");
    for (uint32_t i = 0; i < NAMES; i++)
        sprintf(names[i], "/c/shared%s%u", i < 400 ? "by" : i < 500 ? "bz" : "b", i);
    for (check_step = 0; check_step < steps; check_step++) {
        uint32_t first = any_below(NAMES), n = one_in(3) ? 1 + any_below(120) : 1;
        bool add = one_in(2);

        for (uint32_t i = first; i < first + n && i < NAMES; i++) {
            if (there[i] == add)
                continue;
            if (add)
                do_write(&top, names[i], strlen(names[i]), "");
            else
                do_remove(&top, names[i], strlen(names[i]));
            there[i] = add;
        }
        for (uint32_t i = 0; i < NAMES; i++)
            CHECK_EQ(exists(top, names[i], strlen(names[i])), there[i]);
        CHECK_EQ(xs_tree_check(&tree, top), XS_OK);
        xs_tree_collect(&tree, 20);
    }
    xs_tree_drop(&tree, top);
}

static void deep(struct xs_node *base)
{
    static char text[4096];
    struct xs_node *top = xs_tree_share(base), *old;
    size_t n = 4000;

    for (size_t i = 0; i < n; i += 2) {
        text[i] = '/';
        text[i + 1] = (char)('a' + i % 26);
    }
    do_write(&top, text, n, "bottom");
    CHECK_EQ(xs_tree_check(&tree, top), XS_OK);
    old = xs_tree_share(top);
    do_write(&top, text, n, "changed"); /* copies two thousand nodes */
    CHECK_EQ(xs_tree_check(&tree, top), XS_OK);
    for (uint64_t nth = 1;; nth++) { /* and again, failing everywhere */
        struct xs_node *other = xs_tree_share(old);
        struct xs_path path;
        struct xs_found f;

        xs_path_set(&path, text, n);
        mem.fail_at = mem.calls + nth * nth;
        int rc = xs_tree_seek(&tree, other, &path, &f);
        if (rc == XS_OK)
            rc = xs_tree_prepare_write(&tree, &other, &path, perms[2], 100);
        mem.fail_at = 0;
        if (rc == XS_OK)
            xs_tree_abort(&tree);
        CHECK_EQ(xs_tree_check(&tree, other), XS_OK);
        xs_tree_drop(&tree, other);
        if (rc == XS_OK)
            break;
    }
    do_remove(&top, text, 2);
    CHECK(!exists(top, text, 4) && exists(old, text, n));
    xs_tree_drop(&tree, top);
    xs_tree_drop(&tree, old);
    while (xs_tree_collect(&tree, 1))
        ;
}

/* ---- */

static void init(void)
{
    struct xs_perm entry[3] = {{0, 0, 0}, {XS_ACCESS_READ, 0, 3}, {XS_ACCESS_WRITE, 0, 1}};

    xs_mem_init(&mem);
    CHECK_EQ(xs_tree_init(&tree, &mem), XS_OK);
    for (uint16_t i = 0; i < PERMS; i++) {
        entry[0].domid = i;
        CHECK_EQ(xs_perms_intern(&tree.perms, entry, 1u + i % 3u, &perms[i]), XS_OK);
    }
    CHECK_EQ(xs_tree_new(&tree, perms[0], &holders[0].top), XS_OK);
    insert(&holders[0].twin, "/", 1, perms[0]);
    insert(&holders[0].twin, "@introduceDomain", 16, perms[0]);
    insert(&holders[0].twin, "@releaseDomain", 14, perms[0]);
    compare(&holders[0]);
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    init();
    struct xs_node *base = xs_tree_share(holders[0].top);
    random_work(steps);
    uint32_t count = steps >= 20000 ? 100000 : (uint32_t)(steps * 5);
    wide(base, count, "/w/%u");
    wide(base, count, "/w/sharedby%u");
    churn(base, steps / 2);
    deep(base);

    xs_tree_drop(&tree, base);
    for (size_t i = 0; i < HOLDERS; i++) {
        xs_tree_drop(&tree, holders[i].top);
        twin_free(&holders[i].twin);
    }
    for (size_t i = 0; i < PERMS; i++)
        xs_perms_unref(&tree.perms, perms[i]);
    while (xs_tree_collect(&tree, 7))
        ;
    CHECK_EQ(tree.perms.count, 0);
    xs_tree_destroy(&tree);
    CHECK_EQ(tree.account.bytes, 0);
    CHECK_EQ(tree.account.blocks, 0);
    CHECK_EQ(mem.total.bytes, 0);
    CHECK_EQ(mem.total.blocks, 0);
    return 0;
}
