#define _GNU_SOURCE
#include "guests.h"

#include "phase.h"
#include "toolstack.h"

#include <stdio.h>
#include <string.h>

enum { DEPTH = 16, PAUSE_NS = 2000000 };

static void run(const struct options *o, const char *name, uint32_t count)
{
    struct group g;
    struct phase phase = {.main = &g, .limit_s = STALL_S};

    group_open(&g, o, script_find(name), 1, DEPTH, NULL, 0);
    group_reset(&g, g.script, count);
    if (!phase_run(&phase)) {
        fail_late("%s: %u guests: not done within %d s", name, count, STALL_S);
    }
    group_close(&g);
}

/* Until the daemon does not know a domain any more, or no longer knows it as introduced. */
static void await_gone(const struct options *o, uint32_t first, uint32_t last)
{
    struct timespec pause = {0, PAUSE_NS};
    uint64_t deadline = now_ns() + STALL_S * (uint64_t)1000000000;
    struct toolstack t;
    struct answer a;
    char text[16];

    toolstack_open(&t, o->socket, 0);
    for (uint32_t domid = first; domid <= last;) {
        int n = snprintf(text, sizeof(text), "%u", domid);

        toolstack_ask(&t, MSG_IS_DOMAIN_INTRODUCED, text, (size_t)n + 1, &a);
        if (a.header.type != MSG_ERROR && a.payload[0] == 'F') {
            domid++;
            continue;
        }
        if (now_ns() > deadline) {
            fail("domain %u is gone, and introduced after %d s", domid, STALL_S);
        }
        (void)nanosleep(&pause, NULL);
    }
    toolstack_close(&t);
}

void guests_arrive(const struct options *o, struct host *h, uint32_t count)
{
    memset(h, 0, sizeof(*h));
    host_open(h, o->xen);
    await_gone(o, 1, count); /* those of a client that came to no good end */
    host_create(h, count);
    run(o, "arrive", count);
}

void guests_expel(const struct options *o, struct host *h, uint32_t domid)
{
    host_destroy(h, domid, domid);
    await_gone(o, domid, domid);
}

void guests_depart(const struct options *o, struct host *h)
{
    run(o, "depart", h->count);
    host_destroy(h, 1, h->count);
    await_gone(o, 1, h->count);
    host_forget(h);
}

void machines_arrive(const struct options *o, struct host *h, uint32_t count)
{
    memset(h, 0, sizeof(*h));
    host_open(h, o->xen);
    await_gone(o, 1, count);
    host_create(h, count);
}

void machines_depart(const struct options *o, struct host *h)
{
    host_destroy(h, 1, h->count);
    await_gone(o, 1, 1); /* an answer to anything says that events were looked at before */
    host_forget(h);
}
