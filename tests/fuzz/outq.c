/* The output queue against a list of messages: queued, sent in pieces, expired, merged. */
#define main program_main
#include "fuzz.h"

#include "../csrc/test_outq.c"
#undef main

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(data, size);
    xs_mem_init(&mem);
    memset(&account, 0, sizeof(account));
    memset(&queue, 0, sizeof(queue));
    count = 0;
    now = gone_count = put_count = 0;
    if (list == NULL)
        list = must_alloc(MAX * sizeof(*list));
    while (fuzz_more()) {
        uint32_t what = any_below(16);

        check_step++;
        now += any_below(3);
        if (what < 2)
            send_some(what == 1);
        else if (what == 2)
            expire();
        else if (what == 3) {
            xs_outq_clear(&queue, gone, &queue);
            while (count > 0)
                twin_drop(count - 1);
        } else if (count < MAX - 1)
            what < 8 ? put_reply() : put_event();
        compare();
    }
    xs_outq_sent(&queue, &mem, &account, xs_outq_bytes(&queue), gone, &queue);
    while (count > 0)
        twin_drop(0);
    compare();
    CHECK(queue.cap <= 4096);
    xs_outq_free(&queue, &mem, &account);
    CHECK_EQ(account.bytes, 0);
    CHECK_EQ(account.blocks, 0);
    CHECK_EQ(mem.total.blocks, 0);
    return 0;
}
