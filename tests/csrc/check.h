/*
 * What every C test needs: a check that says where it failed, and random numbers that are
 * the same for the same seed.
 *
 * A test program is called with a seed and a number of steps. It prints the seed and the
 * step when a check fails, and exits with 1; it exits with 0 when all held.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned long long check_seed;
static size_t check_step;
static uint64_t check_state;

#define CHECK(cond)                                                                      \
    do {                                                                                 \
        if (!(cond)) {                                                                   \
            fprintf(stderr, "%s:%d: %s does not hold (seed %llu, step %zu)\n", __FILE__, \
                    __LINE__, #cond, check_seed, check_step);                            \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

/* Equality of two numbers, with both in the message. */
#define CHECK_EQ(a, b)                                                                         \
    do {                                                                                       \
        long long a_ = (long long)(a), b_ = (long long)(b);                                    \
        if (a_ != b_) {                                                                        \
            fprintf(stderr, "%s:%d: %s is %lld, %s is %lld (seed %llu, step %zu)\n", __FILE__, \
                    __LINE__, #a, a_, #b, b_, check_seed, check_step);                         \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

static inline void check_begin(int argc, char **argv, size_t *steps)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s seed steps\n", argv[0]);
        exit(2);
    }
    check_seed = strtoull(argv[1], NULL, 10);
    *steps = strtoull(argv[2], NULL, 10);
    check_state = check_seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

/* splitmix64 */
static inline uint64_t any64(void)
{
    uint64_t z = (check_state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 <= any_below(n) < n */
static inline uint32_t any_below(uint32_t n)
{
    return (uint32_t)(any64() % n);
}

static inline int one_in(uint32_t n)
{
    return any_below(n) == 0;
}

/* Memory of the test itself, which must not run out. */
static inline void *must_alloc(size_t n)
{
    void *p = malloc(n > 0 ? n : 1);

    CHECK(p != NULL);
    return p;
}

#endif
