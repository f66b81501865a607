/*
 * The two logs of a transaction against plain lists: the set of paths seen and the record of
 * changes made.
 */
#include <string.h>

#include "check.h"
#include "err.h"
#include "pathset.h"

enum { MAX = 2000, LEN = 48 };

struct seen {
    char path[LEN];
    size_t len;
    unsigned flags;
};

struct change {
    unsigned op, flags;
    char path[LEN], data[LEN];
    size_t path_len, data_len, mark;
};

static struct xs_mem mem;
static struct xs_account account;

static size_t random_path(char *out, uint32_t names)
{
    return (size_t)sprintf(out, "/%u/%.*s", any_below(names), (int)any_below(30),
                           "abcdefghijklmnopqrstuvwxyzabcdefghijkl");
}

static void test_pathset(size_t steps)
{
    struct xs_pathset set = {0};
    struct seen *list = must_alloc(MAX * sizeof(*list));
    size_t count = 0;

    for (check_step = 0; check_step < steps && count < MAX; check_step++) {
        struct seen *e = &list[count];
        size_t n = random_path(e->path, 40), i = 0;
        unsigned flags = any_below(8);
        int rc;

        e->len = n;
        while (list[i].len != n || memcmp(list[i].path, e->path, n) != 0)
            i++;
        CHECK_EQ(xs_pathset_has(&set, e->path, n), i < count);
        mem.fail_at = one_in(5) ? mem.calls + 1 + any_below(2) : 0;
        rc = xs_pathset_add(&set, &mem, &account, e->path, n, flags);
        CHECK(rc == XS_OK || (rc == XS_ENOMEM && mem.fail_at != 0));
        mem.fail_at = 0;
        if (rc == XS_OK && i == count)
            list[count++].flags = flags;
#ifdef CANARY
        else if (rc == XS_OK)
            list[i].flags = flags;
#else
        else if (rc == XS_OK)
            list[i].flags |= flags;
#endif
        CHECK_EQ(set.count, count);

        const struct xs_seen *at = xs_pathset_next(&set, NULL);
        for (i = 0; i < count; i++, at = xs_pathset_next(&set, at)) {
            CHECK(at != NULL && at->len == list[i].len);
            CHECK(memcmp(at->path, list[i].path, at->len) == 0);
            CHECK_EQ(at->flags, list[i].flags);
        }
        CHECK(at == NULL);
    }
    xs_pathset_free(&set, &mem, &account);
    CHECK_EQ(account.blocks, 0);
    CHECK(!xs_pathset_has(&set, "/", 1));
    free(list);
}

static void test_oplog(size_t steps)
{
    struct xs_oplog log = {0};
    struct change *list = must_alloc(MAX * sizeof(*list));
    size_t count = 0;

    for (check_step = 0; check_step < steps && count < MAX; check_step++) {
        struct change *e = &list[count];
        int rc;

        if (count > 0 && one_in(4)) {
            count--;
            xs_oplog_undo(&log, list[count].mark);
        } else {
            e->op = any_below(30);
            e->flags = any_below(4);
            e->path_len = random_path(e->path, 1000);
            e->data_len = any_below(LEN);
            for (size_t i = 0; i < e->data_len; i++)
                e->data[i] = (char)any64();
            e->mark = log.len;
            mem.fail_at = one_in(5) ? mem.calls + 1 : 0;
            rc = xs_oplog_add(&log, &mem, &account, e->op, e->flags, e->path, e->path_len,
                              e->data_len == 0 ? NULL : e->data, e->data_len);
            CHECK(rc == XS_OK || (rc == XS_ENOMEM && mem.fail_at != 0));
            mem.fail_at = 0;
            count += rc == XS_OK;
        }
        CHECK_EQ(log.count, count);

        const struct xs_oprec *at = xs_oplog_next(&log, NULL);
        for (size_t i = 0; i < count; i++, at = xs_oplog_next(&log, at)) {
            CHECK(at != NULL && (uintptr_t)at % 8 == 0);
            CHECK_EQ(at->op, list[i].op);
            CHECK_EQ(at->answer, list[i].flags);
            CHECK_EQ(at->path_len, list[i].path_len);
            CHECK_EQ(at->data_len, list[i].data_len);
            CHECK(memcmp(at->data, list[i].path, at->path_len) == 0);
            CHECK(memcmp(at->data + at->path_len, list[i].data, at->data_len) == 0);
        }
        CHECK(at == NULL);
    }
    xs_oplog_free(&log, &mem, &account);
    free(list);
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    xs_mem_init(&mem);
    test_pathset(steps);
    test_oplog(steps);
    CHECK_EQ(mem.total.bytes, 0);
    CHECK_EQ(mem.total.blocks, 0);
    CHECK_EQ(account.bytes, 0);
    return 0;
}
