/*
 * What every fuzz target in C needs. It takes the place of tests/csrc/check.h, so that the
 * programs there can be included with their twins: what they draw at random comes from the
 * fuzzer's input here, and a check that fails aborts.
 *
 *      #define main program_main
 *      #include "fuzz.h"
 *      #include "../csrc/test_outq.c"
 *      #undef main
 *
 * An input that has ended draws the greatest number, so one_in(n) is false from then on and
 * every loop that waits for it ends; targets stop when fuzz_more() is false.
 */
#ifndef FUZZ_H
#define FUZZ_H

#define CHECK_H /* ours is used instead */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *fuzz_at, *fuzz_end;
static unsigned long long check_seed;
static size_t check_step;

static inline void fuzz_begin(const uint8_t *data, size_t size)
{
    fuzz_at = data;
    fuzz_end = data + size;
    check_step = 0;
}

static inline bool fuzz_more(void)
{
    return fuzz_at < fuzz_end;
}

static inline uint8_t fuzz_byte(void)
{
    return fuzz_at < fuzz_end ? *fuzz_at++ : 0xff;
}

#define CHECK(cond)                                                                            \
    do {                                                                                       \
        if (!(cond)) {                                                                         \
            fprintf(stderr, "%s:%d: %s does not hold (step %zu)\n", __FILE__, __LINE__, #cond, \
                    check_step);                                                               \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

#define CHECK_EQ(a, b)                                                                        \
    do {                                                                                      \
        long long a_ = (long long)(a), b_ = (long long)(b);                                   \
        if (a_ != b_) {                                                                       \
            fprintf(stderr, "%s:%d: %s is %lld, %s is %lld (step %zu)\n", __FILE__, __LINE__, \
                    #a, a_, #b, b_, check_step);                                              \
            abort();                                                                          \
        }                                                                                     \
    } while (0)

/* For the main functions of the included programs, which are never called. */
static inline void check_begin(int argc, char **argv, size_t *steps)
{
    (void)argc;
    (void)argv;
    check_seed = 0;
    *steps = 0;
}

static inline uint64_t any64(void)
{
    return fuzz_byte() * UINT64_C(0x9e3779b97f4a7c15);
}

/* 0 <= any_below(n) < n */
static inline uint32_t any_below(uint32_t n)
{
    uint32_t v;

    if (n < 2)
        return 0;
    if (!fuzz_more())
        return n - 1;
    v = fuzz_byte();
    if (n > 256)
        v |= (uint32_t)fuzz_byte() << 8;
    if (n > 65536)
        v |= (uint32_t)fuzz_byte() << 16;
    return v % n;
}

static inline int one_in(uint32_t n)
{
    return any_below(n) == 0;
}

static inline void *must_alloc(size_t n)
{
    void *p = malloc(n > 0 ? n : 1);

    CHECK(p != NULL);
    return p;
}

#endif
