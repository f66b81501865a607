/*
 * The watch index against a twin: a list of watches in the order of their registration.
 */
#include <string.h>

#include "check.h"
#include "err.h"
#include "watchtrie.h"

enum { OWNERS = 4, MAX = 400, TEXT_MAX = 64 };

struct entry {
    struct xs_watch *watch;
    size_t owner;
    char path[TEXT_MAX], token[8];
    size_t path_len, token_len;
    int32_t depth;
};

static struct xs_mem mem;
static struct xs_watches watches;
static struct xs_watch_owner owners[OWNERS];
static struct xs_account accounts[OWNERS];
static struct entry list[MAX];
static size_t count;

static size_t random_path(char *out)
{
    static const char *const names[] = {"a", "b", "ab", "a-b", "abcdefgh", "abcdefghi", "c"};
    size_t n = 0;

    if (one_in(12))
        return (size_t)sprintf(out, "/");
    if (one_in(12))
        return (size_t)sprintf(out, one_in(2) ? "@releaseDomain" : "@releaseDomain/1");
    do
        n += (size_t)sprintf(out + n, "/%s", names[any_below(7)]);
    while (!one_in(3) && n < 40);
    return n;
}

static bool is_at_or_below(const char *p, size_t n, const char *above, size_t m)
{
    if (m == 1)
        return p[0] == '/';
    return n >= m && memcmp(p, above, m) == 0 && (n == m || p[m] == '/');
}

static struct entry *twin_find(size_t owner, const char *p, size_t n, const char *token,
                               size_t token_len)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].owner == owner && list[i].path_len == n &&
            memcmp(list[i].path, p, n) == 0 && list[i].token_len == token_len &&
            memcmp(list[i].token, token, token_len) == 0)
            return &list[i];
    return NULL;
}

static void twin_drop(struct entry *e)
{
    memmove(e, e + 1, (size_t)(list + count - (e + 1)) * sizeof(*e));
    count--;
}

/* Ancestors from the root down; on each, the oldest first. */
static void check_match(void)
{
    struct xs_path path;
    struct xs_match m;
    struct xs_watch *w;
    char text[TEXT_MAX];
    size_t n = random_path(text), seen = 0, expected = 0, last_len = 0;

    xs_path_set(&path, text, n);
    for (size_t i = 0; i < count; i++)
        expected += is_at_or_below(text, n, list[i].path, list[i].path_len);
    xs_match_start(&m, &watches, &path);
    while ((w = xs_match_next(&m)) != NULL) {
        size_t len = w->point->len, i = 0;

        CHECK(is_at_or_below(text, n, w->point->path, len));
        CHECK(len >= last_len);
        while (list[i].watch != w)
            CHECK(++i < count);
        /* None of the same path that is older comes later. */
        if (len == last_len && w->point_prev != NULL) {
            size_t k = 0;
            while (list[k].watch != w->point_prev)
                k++;
            CHECK(k < i);
        }
        last_len = len;
        seen++;
    }
#ifdef CANARY
    expected += count > 20;
#endif
    CHECK_EQ(seen, expected);
}

static void check_below(void)
{
    static struct xs_watchpoint *points[MAX];
    struct xs_watchpoint *p = NULL;
    struct xs_path path;
    char text[TEXT_MAX];
    size_t n = random_path(text), seen = 0, expected = 0;

    xs_path_set(&path, text, n);
    while ((p = xs_watches_below(&watches, &path, p)) != NULL) {
        CHECK(p->len > n && is_at_or_below(p->path, p->len, text, n));
        points[seen++] = p;
    }
    for (size_t i = 0; i < count; i++) {
        bool first = true;

        if (list[i].path_len <= n || !is_at_or_below(list[i].path, list[i].path_len, text, n))
            continue;
        for (size_t k = 0; k < i; k++)
            first = first && (list[k].path_len != list[i].path_len ||
                              memcmp(list[k].path, list[i].path, list[i].path_len) != 0);
        expected += first;
    }
    CHECK_EQ(seen, expected);

    xs_watchpoints_sort(points, seen);
    for (size_t i = 0; i < seen; i++)
        for (size_t k = i + 1; k < seen; k++) /* what is below comes first */
            CHECK(!is_at_or_below(points[k]->path, points[k]->len, points[i]->path,
                                  points[i]->len));

    const struct xs_watchpoint *exact = xs_watches_point(&watches, &path);
    bool there = false;
    for (size_t i = 0; i < count; i++)
        there = there || (list[i].path_len == n && memcmp(list[i].path, text, n) == 0);
    CHECK_EQ(exact != NULL, there);
}

static void check_lists(void)
{
    CHECK(xs_watches_check(&watches));
    CHECK_EQ(watches.watch_count, count);
    for (size_t o = 0; o < OWNERS; o++) {
        const struct xs_watch *w = owners[o].first;
        size_t n = 0;
        int64_t bytes = 0;

        for (size_t i = 0; i < count; i++) {
            if (list[i].owner != o)
                continue;
            CHECK(w == list[i].watch && w->owner == &owners[o]);
            CHECK(w->token_len == list[i].token_len && w->depth == list[i].depth);
            CHECK(memcmp(xs_watch_token(w), list[i].token, w->token_len) == 0);
            bytes += (int64_t)(sizeof(*w) + w->path_len + w->token_len);
            n++;
            w = w->owner_next;
        }
        CHECK(w == NULL);
        CHECK_EQ(owners[o].count, n);
        CHECK_EQ(accounts[o].blocks, n);
        CHECK_EQ(accounts[o].bytes, bytes);
    }
}

static void add(void)
{
    struct entry *e = &list[count];
    struct xs_path path;
    int rc;

    e->owner = any_below(OWNERS);
    e->path_len = random_path(e->path);
    e->token_len = any_below(4);
    for (size_t i = 0; i < e->token_len; i++)
        e->token[i] = (char)('x' + any_below(2));
    e->depth = one_in(4) ? (int32_t)any_below(3) : XS_DEPTH_UNLIMITED;
    xs_path_set(&path, e->path, e->path_len);

    const struct xs_watch *known =
        xs_watches_find(&watches, &owners[e->owner], &path, e->token, e->token_len);
    const struct entry *twin =
        twin_find(e->owner, e->path, e->path_len, e->token, e->token_len);
    CHECK(known == (twin == NULL ? NULL : twin->watch));
    if (known != NULL)
        return;
    for (uint64_t nth = one_in(4) ? 1 : 0;; nth++) {
        mem.fail_at = nth == 0 ? 0 : mem.calls + nth;
        mem.fail_sticky = one_in(2);
        rc = xs_watches_add(&watches, &owners[e->owner], &path, e->path, e->path_len, e->token,
                            e->token_len, e->depth, &e->watch);
        mem.fail_at = 0;
        mem.fail_sticky = false;
        if (rc == XS_OK)
            break;
        CHECK_EQ(rc, XS_ENOMEM);
        check_lists();
    }
    count++;
}

static void drop(void)
{
    struct entry *e = &list[any_below((uint32_t)count)];

    xs_watches_remove(&watches, e->watch);
    twin_drop(e);
}

int main(int argc, char **argv)
{
    size_t steps, limit = MAX;

    check_begin(argc, argv, &steps);
    xs_mem_init(&mem);
    for (uint64_t nth = 1; nth <= 2; nth++) {
        mem.fail_at = mem.calls + nth;
        CHECK_EQ(xs_watches_init(&watches, &mem, check_seed), XS_ENOMEM);
        CHECK_EQ(mem.total.blocks, 0);
    }
    mem.fail_at = 0;
    CHECK_EQ(xs_watches_init(&watches, &mem, check_seed), XS_OK);
    for (size_t i = 0; i < OWNERS; i++) {
        owners[i].id = i + 1;
        owners[i].account = &accounts[i];
    }
    for (check_step = 0; check_step < steps; check_step++) {
        if (check_step % 500 == 0)
            limit = any_below(MAX);
        if (count > 0 && (count >= limit || one_in(3)))
            drop();
        else if (count < MAX)
            add();
        check_match();
        check_below();
        if (one_in(10))
            check_lists();
    }
    while (count > 0)
        drop();
    check_lists();
    xs_watches_destroy(&watches);
    CHECK_EQ(mem.total.bytes, 0);
    CHECK_EQ(mem.total.blocks, 0);
    return 0;
}
