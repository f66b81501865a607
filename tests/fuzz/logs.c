/* The two logs of a transaction against plain lists: what it saw, what it did. */
#define main program_main
#include "fuzz.h"

#include "../csrc/test_logs.c"
#undef main

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool which;

    fuzz_begin(data, size);
    which = one_in(2);
    xs_mem_init(&mem);
    memset(&account, 0, sizeof(account));
    /* A step takes three bytes or more. */
    if (which)
        test_pathset(size / 3);
    else
        test_oplog(size / 3);
    CHECK_EQ(mem.total.blocks, 0);
    CHECK_EQ(account.bytes, 0);
    return 0;
}
