/*
 * Simulated clients: groups of connections, each with lanes that go through a script.
 *
 *      group (a script, its figures)
 *        ├── conn ── transport, input, output, queue of lanes that wait for a reply
 *        │     ├── lane   one simulated client: where it is in the script
 *        │     └── lane
 *        └── conn ...
 *
 * A lane has at most one request under way; D lanes on one connection are a pipeline of depth D.
 * Replies of a connection come in order, so a queue of lanes and a running req_id match them, and
 * a reply that is late, early or foreign is found at once. In lockstep (the usual case) a
 * connection sends its next requests when all replies of the last batch are in, so that every
 * server sees batches of the same size; with `window` it sends as soon as it can.
 *
 * A paced group works in bursts: lane i of N begins `burst` operations at i/N of each period and
 * rests when they are done.
 *
 * Every reply is checked (type, ids, and the payload where it is known) and hashed. A lane's hash
 * is a chain, the total is the sum over lanes: the same whatever the interleaving. Left out are
 * what servers may choose: transaction ids, the order of children, attempts that ended in EAGAIN.
 */
#ifndef BENCH_LANE_H
#define BENCH_LANE_H

#include "base.h"
#include "histogram.h"
#include "proto.h"
#include "script.h"
#include "transport.h"

struct lane {
    struct conn *conn;
    struct blanks blanks;
    uint64_t left;
    uint64_t next_sequence;
    uint64_t rng;
    uint64_t begun_ns;
    uint64_t begun_server_ns; /* the server's CPU time then */
    uint64_t hash;
    uint64_t hash_at_start; /* of the transaction: an attempt that failed is forgotten */
    uint64_t names_hash;
    uint64_t offset; /* into a child list that comes in parts */
    uint32_t step;
    uint32_t start_step;
    uint32_t tx_id;
    uint32_t burst_left;
    uint8_t sent_type;
    bool in_parts;
    bool resting;
};

struct conn {
    struct group *group;
    struct lane *lanes;
    uint32_t *queue; /* ring of lane_count places: lanes whose request is queued or sent */
    uint32_t lane_count;
    uint32_t head;
    uint32_t queued;
    uint32_t unsent;
    uint32_t next_req_id;
    uint32_t expected_req_id;
    bool want_write; /* there was no room for all of the output */
    struct transport transport;
    struct buffer in;
    struct buffer out;
};

struct group {
    const struct script *script;
    const struct options *options;
    struct conn *conns;
    struct lane *lanes;
    uint32_t *queues;
    uint32_t conn_count;
    uint32_t lane_count;
    uint32_t busy;    /* lanes that are not done */
    uint32_t resting; /* of those: lanes that wait for their next burst */
    uint32_t paced;   /* lane whose burst is next */
    uint32_t burst;
    uint64_t every_ns; /* 0: not paced */
    uint64_t due_ns;
    bool window;
    bool endless;
    bool stopping; /* no request leaves any more */
    bool clocked;  /* the server's clock is read for each operation too */
    clockid_t server_clock;
    uint64_t ops;
    uint64_t requests;
    uint64_t retries;
    uint64_t events;
    uint64_t names;
    struct histogram latency;
    struct histogram served; /* CPU time of the server from the request to the reply */
};

/* Opens conn_count connections: on the rings of domains first_domid .., or, with 0, sockets. */
void group_open(struct group *g, const struct options *o, const struct script *script,
                uint32_t conn_count, uint32_t depth, struct host *host, uint32_t first_domid);

/* Back to the state before the first operation; the connections stay. */
void group_reset(struct group *g, const struct script *script, uint64_t ops);

/* From now on the CPU time that process `pid` uses meanwhile is taken for each operation: the
 * part of a latency that a busy machine does not change. */
void group_clock(struct group *g, pid_t pid);

void group_pace(struct group *g, uint32_t every_ms, uint32_t burst);

void group_start(struct group *g);

/* Begins the bursts that are due. Returns when the next one is, UINT64_MAX for never. */
uint64_t group_wake(struct group *g, uint64_t now);

/* No further request leaves; lanes that wait for a reply still get it. */
void group_stop(struct group *g);

uint64_t group_hash(const struct group *g);

void group_close(struct group *g);

/* Takes what has come on a connection; queues what follows from it. */
void conn_input(struct conn *c);

/* Sends what is queued, unless the batch before it is still being answered. `want_write` says
 * afterwards whether there was too little room. */
void conn_flush(struct conn *c);

#endif
