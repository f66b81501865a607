/* The history of commits against a list: records, forgetting, and who gave a stamp. */
#define main program_main
#include "fuzz.h"

#include "../csrc/test_history.c"
#undef main

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(data, size);
    test_records(size / 4); /* a step takes four bytes or more */
    return 0;
}
