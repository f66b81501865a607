/*
 * A guest that means harm, on the ring of domain 1. It acts whenever the daemon has told it
 * something and at each turn of whoever measures, so its ring is as full as it can be kept.
 *
 *      flood     one WRITE after the other, replies taken
 *      deaf      watches its own node, writes it without end, and never takes a byte out
 *      indices   puts numbers into its page that cannot be, again after each introduction
 *      watches   asks for 10 000 watches, then writes what it watches
 *
 * Refusals of what it asks for are expected, and counted.
 */
#ifndef BENCH_HOSTILE_H
#define BENCH_HOSTILE_H

#include "transport.h"

enum { HOSTILE_DOMID = 1, HOSTILE_WATCHES = 10000 };

struct hostile {
    const struct hostile_kind *kind;
    struct transport transport;
    struct buffer in;
    struct buffer out;
    uint32_t value_bytes;
    uint32_t introduced; /* how often it was attacked by `indices` */
    uint64_t requests;
    uint64_t replies;
    uint64_t refused;
    uint64_t events;
};

/* Whether there is a kind of that name. */
bool hostile_known(const char *kind);

/* The i-th kind, or NULL after the last. */
const char *hostile_name(uint32_t i);

void hostile_open(struct hostile *h, const char *kind, struct host *host, uint32_t value_bytes);

/* Whether it has to be introduced again and again to go on. */
bool hostile_breaks(const struct hostile *h);

/* Does what it can do now; `introduced` says how often it was introduced again until now. */
void hostile_step(struct hostile *h, uint64_t introduced);

void hostile_close(struct hostile *h);

#endif
