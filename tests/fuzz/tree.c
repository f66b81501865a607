/* The tree: changes that are committed, aborted or run out of memory, in views that share it,
 * against sorted arrays. What a step does stands in the input. */
#define main program_main
#include "fuzz.h"

#include "../csrc/test_tree.c"
#undef main

enum { STEPS = 300 };

static void step(struct holder *h)
{
    char text[600];

    change(h);
    if (one_in(3))
        compare_list(h);
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
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t mode = 0;

    fuzz_begin(data, size);
    twin_stamp = 0;
    init();
    for (size_t i = 0; i < STEPS && fuzz_more(); i++) {
        uint32_t what = any_below(32);
        struct holder *h = &holders[what % HOLDERS];

        if (what >= 28)
            mode = what - 28;
        check_step = mode * PHASE_STEPS;
        if (h->top == NULL || what == 27)
            share();
        else
            step(h);
    }
    for (size_t i = 0; i < HOLDERS; i++)
        if (holders[i].top != NULL) {
            compare(&holders[i]); /* also what was not worked on lately */
            xs_tree_drop(&tree, holders[i].top);
            twin_free(&holders[i].twin);
            holders[i].top = NULL;
        }
    for (size_t i = 0; i < PERMS; i++)
        xs_perms_unref(&tree.perms, perms[i]);
    while (xs_tree_collect(&tree, 7))
        ;
    CHECK_EQ(tree.perms.count, 0);
    xs_tree_destroy(&tree);
    CHECK_EQ(tree.account.blocks, 0);
    CHECK_EQ(mem.total.bytes, 0);
    CHECK_EQ(mem.total.blocks, 0);
    return 0;
}
