/* The watch index against a list of watches in the order of their registration. */
#define main program_main
#include "fuzz.h"

#include "../csrc/test_watchtrie.c"
#undef main

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(data, size);
    xs_mem_init(&mem);
    CHECK_EQ(xs_watches_init(&watches, &mem, fuzz_byte()), XS_OK);
    memset(owners, 0, sizeof(owners));
    memset(accounts, 0, sizeof(accounts));
    count = 0;
    for (size_t i = 0; i < OWNERS; i++) {
        owners[i].id = i + 1;
        owners[i].account = &accounts[i];
    }
    while (fuzz_more()) {
        check_step++;
        if (count > 0 && one_in(3))
            drop();
        else if (count < MAX)
            add();
        if (one_in(2))
            check_match();
        if (one_in(4))
            check_below();
    }
    check_lists();
    while (count > 0)
        drop();
    check_lists();
    xs_watches_destroy(&watches);
    CHECK_EQ(mem.total.bytes, 0);
    CHECK_EQ(mem.total.blocks, 0);
    return 0;
}
