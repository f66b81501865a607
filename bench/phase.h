/*
 * A phase: groups at work until they are done or time is up.
 *
 *      phase ──┬── main       the measured clients
 *              ├── probe      one synchronous client on a socket beside them, without end
 *              ├── watchers   connections that take events; done when all of them have come
 *              ├── hostile    a guest that disturbs both, and `again`, who lets it start afresh
 *              ├── epoll      sockets of all of these, and the mailbox of all guests
 *              └── timer      the next burst of a paced group; set once for each, since setting
 *                             a timer is slow on a virtual machine
 */
#ifndef BENCH_PHASE_H
#define BENCH_PHASE_H

#include "hostile.h"
#include "lane.h"

struct phase {
    struct group *main;
    struct group *probe;     /* NULL: none */
    struct group *again;     /* NULL: none */
    struct group *watchers;  /* NULL: none */
    uint64_t events_due;     /* of the watchers in all */
    struct hostile *hostile; /* NULL: none */
    struct host *host;       /* NULL: there are sockets only */
    uint32_t limit_s;
    int epoll;
    int timer;
    uint64_t alarm_ns; /* what the timer is set to */
    uint64_t deadline_ns;
    bool stopping;
    bool truncated;
};

/* Runs `main` until its operations are done, and watchers have their events, or time is up;
 * returns whether they were. With a
 * probe beside it, the probe begins alone, and goes on for a while after: work put off until
 * after the reply hurts too. */
bool phase_run(struct phase *p);

/* Lets the probe of the phase alone do so many operations. */
bool phase_probe(struct phase *p, uint64_t ops);

/* Waits until `main` has got so many events in all. */
void phase_await_events(struct phase *p, uint64_t events);

#endif
