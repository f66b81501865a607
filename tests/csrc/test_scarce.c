/*
 * Trees whose scratch space has to grow at the worst moment, with memory running out there.
 *
 * The arrays of steps and tallies only grow, so that in a store of some age they seldom fail.
 * Here they are given back before each attempt, at all depths of a path whose directories are
 * B-trees of two levels. An attempt that fails has changed nothing, and works with memory.
 */
#include <string.h>

#include "check.h"
#include "err.h"
#include "trie.h"

enum { WIDE = 120, DEEP = 12 };

static struct xs_mem mem;
static struct xs_tree tree;
static struct xs_perms *perms[2];
static struct xs_node *top;

static void open_tree(void)
{
    struct xs_perm entry = {0, 0, 0};

    CHECK_EQ(xs_tree_init(&tree, &mem), XS_OK);
    for (uint16_t i = 0; i < 2; i++) {
        entry.domid = i;
        CHECK_EQ(xs_perms_intern(&tree.perms, &entry, 1, &perms[i]), XS_OK);
    }
}

static void close_tree(void)
{
    for (size_t i = 0; i < 2; i++)
        xs_perms_unref(&tree.perms, perms[i]);
    xs_tree_destroy(&tree);
    CHECK_EQ(mem.total.blocks, 0);
}

/* Everything the next change needs has to be asked for anew. */
static void forget_scratch(void)
{
    xs_mem_free(&mem, &tree.account, tree.steps, tree.step_cap * sizeof(*tree.steps));
    xs_mem_free(&mem, &tree.account, tree.tally, tree.tally_cap * sizeof(*tree.tally));
    tree.steps = NULL;
    tree.tally = NULL;
    tree.step_count = tree.step_cap = tree.tally_count = tree.tally_cap = 0;
}

/* A change of the tree at a path; XS_OK or XS_ENOMEM. */
typedef int operation(struct xs_path *path);

static int write(struct xs_path *path)
{
    struct xs_found found;
    int rc = xs_tree_seek(&tree, top, path, &found);

    if (rc == XS_OK)
        rc = xs_tree_prepare_write(&tree, &top, path, perms[0], 1);
    if (rc == XS_OK)
        xs_tree_commit(&tree, "v");
    return rc;
}

static int give_away(struct xs_path *path)
{
    struct xs_found found;
    int rc = xs_tree_seek(&tree, top, path, &found);

    if (rc == XS_OK)
        rc = xs_tree_prepare_perms(&tree, &top, path, perms[1]);
    if (rc == XS_OK)
        xs_tree_commit(&tree, NULL);
    return rc;
}

static int take_out(struct xs_path *path)
{
    struct xs_found found;
    int rc = xs_tree_seek(&tree, top, path, &found);

    if (rc == XS_OK) {
        CHECK(found.node != NULL);
        rc = xs_tree_prepare_remove(&tree, &top, path);
    }
    if (rc == XS_OK)
        xs_tree_commit(&tree, NULL);
    else
        xs_tree_abort(&tree);
    return rc;
}

/* Stamps and counts of the whole tree, in one number. */
static uint64_t picture(void)
{
    struct xs_walk w;
    struct xs_node *n;
    uint64_t h = 0;

    CHECK_EQ(xs_tree_check(&tree, top), XS_OK);
    xs_walk_start(&w, &tree, top, NULL, 0);
    while ((n = xs_walk_next(&w)) != NULL)
        h = (h ^ n->stamp ^ n->kids_stamp << 32 ^ w.path.len) * UINT64_C(0x9e3779b97f4a7c15);
    CHECK_EQ(w.error, XS_OK);
    xs_walk_end(&w);
    return h;
}

/* Lets each allocation of an operation fail, one after the other, until none does. */
static void sweep(operation *op, const char *text)
{
    struct xs_path path;
    uint64_t before = picture();
    int rc;

    xs_path_set(&path, text, strlen(text));
    for (uint64_t nth = 1;; nth++) {
        uint64_t failures = mem.failures;

        forget_scratch();
        mem.fail_at = mem.calls + nth;
        rc = op(&path);
        mem.fail_at = 0;
        while (xs_tree_collect(&tree, 100))
            ;
        if (rc == XS_OK) {
            CHECK_EQ(xs_tree_check(&tree, top), XS_OK);
            if (mem.failures == failures)
                return;
            before = picture(); /* it did without: some memory is only convenient */
            if (op == take_out)
                return;
        } else {
            CHECK_EQ(rc, XS_ENOMEM);
            CHECK(mem.failures == failures + 1);
            CHECK(picture() == before);
        }
    }
}

/* Not even a first tree. */
static void test_new(void)
{
    int rc = XS_ENOMEM;

    for (uint64_t nth = 1; rc != XS_OK; nth++) {
        open_tree();
        mem.fail_at = mem.calls + nth;
        rc = xs_tree_new(&tree, perms[0], &top);
        mem.fail_at = 0;
        CHECK(rc == XS_OK || rc == XS_ENOMEM);
        if (rc == XS_OK)
            xs_tree_drop(&tree, top);
        close_tree();
    }
}

/* Fills a directory until it has two levels; a name of its right block. */
static void widen(const char *dir)
{
    struct xs_path path;

    for (int i = 0; i < WIDE; i++) {
        char text[200];

        xs_path_set(&path, text, (size_t)sprintf(text, "%s/n%03d", dir, i));
        CHECK_EQ(write(&path), XS_OK);
    }
}

static void test_depths(void)
{
    char dir[100] = "", text[200];

    open_tree();
    CHECK_EQ(xs_tree_new(&tree, perms[0], &top), XS_OK);
    for (int depth = 0; depth < DEEP; depth++) {
        sprintf(dir + strlen(dir), "/d%d", depth);
        widen(dir);
        sprintf(text, "%s/n119", dir);
        sweep(give_away, text);
        sprintf(text, "%s/n119x", dir);
        sweep(write, text);
        sprintf(text, "%s/n118/first", dir);
        sweep(write, text);
        sprintf(text, "%s/n117", dir);
        sweep(take_out, text);
    }
    xs_tree_drop(&tree, top);
    close_tree();
}

/* Blocks that empty give memory back if they can; that they cannot is no failure. */
static void test_narrowing(void)
{
    struct xs_path path;
    char text[32];

    open_tree();
    CHECK_EQ(xs_tree_new(&tree, perms[0], &top), XS_OK);
    widen("/w");
    for (int i = 0; i < WIDE; i++) {
        uint64_t before = picture();

        xs_path_set(&path, text, (size_t)sprintf(text, "/w/n%03d", i));
        mem.fail_at = mem.calls + 1;
        CHECK_EQ(take_out(&path), XS_OK); /* only narrowing asks for memory */
        mem.fail_at = 0;
        CHECK(picture() != before);
    }
    xs_tree_drop(&tree, top);
    close_tree();
}

/* Comparing two deep trees, node by node, needs room for both walks. */
static void test_comparing(void)
{
    struct xs_node *old;
    struct xs_path path;
    char text[200] = "/r";
    bool same;
    int rc = XS_ENOMEM;

    open_tree();
    CHECK_EQ(xs_tree_new(&tree, perms[0], &top), XS_OK);
    for (int depth = 0; depth < 20; depth++)
        strcat(text, "/d");
    xs_path_set(&path, text, strlen(text));
    CHECK_EQ(write(&path), XS_OK);
    old = xs_tree_share(top);
    /* Copied, and the same again: a change that is prepared and forgotten. */
    struct xs_found found;
    CHECK_EQ(xs_tree_seek(&tree, top, &path, &found), XS_OK);
    CHECK_EQ(xs_tree_prepare_write(&tree, &top, &path, perms[0], 2), XS_OK);
    xs_tree_abort(&tree);
    CHECK(old != top);
    xs_path_set(&path, "/r", 2);
    for (uint64_t nth = 1; rc != XS_OK; nth++) {
        mem.fail_at = mem.calls + nth;
        rc = xs_tree_same_subtree(&tree, old, top, &path, &same);
        mem.fail_at = 0;
        CHECK(rc == XS_OK ? same && nth > 4 : rc == XS_ENOMEM);
    }
    xs_tree_drop(&tree, old);
    xs_tree_drop(&tree, top);
    close_tree();
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    xs_mem_init(&mem);
    test_new();
    test_depths();
    test_narrowing();
    test_comparing();
    return 0;
}
