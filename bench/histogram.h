/*
 * Latencies, counted in buckets instead of kept: 32 buckets for each power of two, so a
 * percentile is right to about 3 % over the whole range of 64 bits, in 16 KiB, without allocation.
 *
 *     value   0 .. 31      bucket = value
 *     above:  the highest set bit chooses the row, the five bits below it the place in the row
 *
 * Adding costs O(1); a percentile O(buckets). The largest value is kept exactly.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum { HIST_SUB_BITS = 5, HIST_BUCKETS = 64 << HIST_SUB_BITS };

struct histogram {
    uint64_t bucket[HIST_BUCKETS];
    uint64_t count;
    uint64_t max;
};

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    uint32_t index = (uint32_t)value;

    if (value >= 1u << HIST_SUB_BITS) {
        uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HIST_SUB_BITS;
        uint32_t place = (uint32_t)(value >> shift) & ((1u << HIST_SUB_BITS) - 1u);

        index = ((shift + 1u) << HIST_SUB_BITS) + place;
    }
    h->bucket[index]++;
    h->count++;
    if (value > h->max) {
        h->max = value;
    }
}

/* The largest value that belongs into bucket `i`. */
static inline uint64_t histogram_high(uint32_t i)
{
    uint32_t row = i >> HIST_SUB_BITS;
    uint64_t place = i & ((1u << HIST_SUB_BITS) - 1u);

    if (row == 0) {
        return place;
    }
    return (((1u << HIST_SUB_BITS) + place + 1u) << (row - 1u)) - 1u;
}

/* The value below which `per_mille` thousandths of all values lie; 0 when there are none. */
static inline uint64_t histogram_at(const struct histogram *h, uint32_t per_mille)
{
    uint64_t wanted = (h->count * per_mille + 999u) / 1000u;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < HIST_BUCKETS && h->count > 0; i++) {
        seen += h->bucket[i];
        if (seen >= wanted) {
            uint64_t high = histogram_high(i);

            return high < h->max ? high : h->max;
        }
    }
    return h->max;
}

#endif
