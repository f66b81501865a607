/* The history against a list twin: records, forgetting, and who gave a stamp. */
#include "history.h"

#include "check.h"
#include "err.h"

enum { MAX = 20000 };

struct entry {
    uint64_t number, stamp;
    uint32_t domid;
    bool recorded;
};

static struct entry list[MAX];

static void test_records(size_t steps)
{
    static struct xs_history h;
    struct xs_mem mem;
    struct xs_tree tree;
    struct xs_perms *perms;
    struct xs_perm owner = {0, 0, 0};
    struct xs_node *top;
    size_t count = 0, first = 0;

    xs_mem_init(&mem);
    CHECK_EQ(xs_tree_init(&tree, &mem), XS_OK);
    CHECK_EQ(xs_perms_intern(&tree.perms, &owner, 1, &perms), XS_OK);
    CHECK_EQ(xs_tree_new(&tree, perms, &top), XS_OK);
    xs_history_init(&h, &tree);
    CHECK(xs_history_author(&h, 1) == NULL);

    for (size_t step = 0; step < steps && count < MAX; step++) {
        check_step = step;
        struct xs_author author = {0};
        struct entry *e = &list[count];

        tree.stamp += 1 + any_below(3);
        author.stamp = e->stamp = tree.stamp;
        author.domid = e->domid = any_below(100);
        e->recorded = any_below(2) == 0;
        if (e->recorded) {
            mem.fail_at = any_below(5) == 0 ? mem.calls + 1 : 0;
            if (xs_history_reserve(&h) != XS_OK) {
                CHECK_EQ(xs_history_reserve(&h), XS_OK);
            }
            mem.fail_at = 0;
            uint64_t calls = mem.calls;
            CHECK_EQ(xs_history_reserve(&h), XS_OK); /* one is enough */
            CHECK_EQ(mem.calls, calls);
        }
        xs_history_count(&h, &author);
        e->number = h.number;
        if (e->recorded)
            xs_history_record(&h, &author, xs_tree_share(top), xs_tree_share(top));
        count++;
        if (any_below(20) == 0) {
            first += any_below((uint32_t)(count - first + 1));
            uint64_t number = first == 0 ? 0 : list[first - 1].number;
            size_t most = 1 + any_below(30);
            size_t before;
            bool more;
            do { /* in portions, none of them too large, none for nothing */
                before = h.count;
                more = xs_history_forget(&h, number, most);
                CHECK(before - h.count <= most);
                CHECK(!more || before - h.count == most);
            } while (more);
        }

        const struct xs_commit *c = h.oldest;
        size_t kept = 0;
        for (size_t i = step % 50 == 0 ? first : count; i < count; i++) {
            if (!list[i].recorded)
                continue;
            CHECK(c != NULL);
            CHECK_EQ(c->number, list[i].number);
            CHECK_EQ(c->author.domid, list[i].domid);
            c = c->newer;
            kept++;
        }
        if (step % 50 == 0) {
            CHECK(c == NULL);
            CHECK_EQ(h.count, kept);
        }

        /* Any stamp up to that of a commit, and after the one before, is that commit's. */
        size_t i = any_below((uint32_t)count);
        const struct xs_author *found = xs_history_author(&h, list[i].stamp);
#ifdef CANARY
        i = count > 1 && i > 0 ? i - 1 : i; /* a twin that is off by one */
#endif
        if (count - i < XS_AUTHORS)
            CHECK(found != NULL && found->domid == list[i].domid);
        else
            CHECK(found == NULL);
        CHECK(xs_history_author(&h, tree.stamp + 1) == NULL);
    }
    xs_history_destroy(&h);
    xs_tree_drop(&tree, top);
    xs_perms_unref(&tree.perms, perms);
    xs_tree_destroy(&tree);
    CHECK_EQ(h.account.bytes, 0);
    CHECK_EQ(mem.total.bytes, 0);
    CHECK_EQ(mem.total.blocks, 0);
}

/* Only the last authors are known; who comes before them is nobody's name. */
static void test_authors(void)
{
    enum { COMMITS = 3 * XS_AUTHORS };
    static struct xs_history h;
    struct xs_mem mem;
    struct xs_tree tree = {.mem = &mem};

    xs_mem_init(&mem);
    xs_history_init(&h, &tree);
    for (uint32_t i = 1; i <= COMMITS; i++)
        xs_history_count(&h, &(struct xs_author){.stamp = 2 * i, .domid = i});
    for (uint32_t i = 1; i <= COMMITS; i++) {
        const struct xs_author *even = xs_history_author(&h, 2 * i);
        const struct xs_author *odd = xs_history_author(&h, 2 * i - 1);

        check_step = i;
        CHECK(odd == even); /* stamps between two commits are the later one's */
        if (i > COMMITS - XS_AUTHORS + 1)
            CHECK(even != NULL && even->domid == i);
        else
            CHECK(even == NULL);
    }
    CHECK(xs_history_author(&h, 2 * COMMITS + 1) == NULL);
    xs_history_destroy(&h);
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    test_records(steps);
    test_authors();
    return 0;
}
