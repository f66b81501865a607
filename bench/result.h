/*
 * What a run found out, and how it is said: one JSON object.
 *
 * The first figure is the server's own CPU time, read from its process clock before and after,
 * when it has come to rest: work put off until after the reply is counted.
 */
#ifndef BENCH_RESULT_H
#define BENCH_RESULT_H

#include "base.h"
#include "histogram.h"
#include "hostile.h"

struct result {
    uint64_t ops;
    uint64_t requests;
    uint64_t retries;
    uint64_t probe_retries;
    uint64_t events;
    uint64_t names;
    uint64_t checksum;
    uint64_t wall_ns;
    uint64_t server_ns;
    uint64_t client_ns;
    uint64_t rss_before; /* bytes */
    uint64_t rss_during;
    uint64_t introductions; /* of the hostile guest, again */
    bool complete;
    const struct histogram *latency;
    const struct histogram *probe;
    const struct histogram *probe_served;  /* the server's share of that */
    const struct histogram *quiet_latency; /* the same before anything disturbed */
    const struct histogram *quiet_probe;
    const struct hostile *hostile;
    char account[512]; /* what the server says it keeps for the hostile guest */
};

/* Starts and stops the clocks. */
void result_begin(struct result *r, const struct options *o);
void result_end(struct result *r, const struct options *o);

void result_print(const struct result *r, const struct options *o);

#endif
