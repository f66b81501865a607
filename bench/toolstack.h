/*
 * One request, one reply, on a socket that waits: for what is not measured, and for clients that
 * live for one request.
 */
#ifndef BENCH_TOOLSTACK_H
#define BENCH_TOOLSTACK_H

#include "base.h"
#include "proto.h"

struct toolstack {
    int fd;
    uint32_t req_id;
};

struct answer {
    struct header header;
    uint8_t payload[PAYLOAD_BYTES_MAX + 1]; /* a NUL behind what has come */
};

void toolstack_open(struct toolstack *t, const char *socket, uint32_t req_id);

/* Sends a request and waits for its reply; events on the way are dropped. */
void toolstack_ask(struct toolstack *t, uint32_t type, const char *payload, size_t n,
                   struct answer *answer);

void toolstack_close(struct toolstack *t);

#endif
