/*
 * The fake Xen as the load client uses it: domains 1 .. count, one mailbox for all of them.
 *
 *      host ── mailbox (one descriptor) ──► domid ──► owner[domid], who plays that guest
 *           └─ page[domid], mapped
 *
 * Domids are dense and start at 1. Creating and destroying says nothing to the daemon: that is
 * done over a socket, see guests.h.
 */
#ifndef BENCH_HOST_H
#define BENCH_HOST_H

#include "base.h"

#include "../tests/xen/fakexen.h"

enum {
    HOST_GFN = 1000, /* frame and port that all guests name at their introduction */
    HOST_PORT = 3,
    HOST_MAILBOX = 40000,
    HOST_GUESTS_MAX = 16000, /* a mailbox has room for a notification of each */
};

struct conn;

struct host {
    struct fakexen fx;
    int mailbox;
    uint32_t count;
    struct fakexen_ring **page;
    struct conn **owner; /* NULL: nobody waits for it */
};

/* Opens the directory of a fake Xen; domains that an earlier client left there are destroyed. */
void host_open(struct host *h, const char *directory);

/* Creates domains 1 .. count. */
void host_create(struct host *h, uint32_t count);

/* Destroys some and has the daemon told. Their pages stay mapped and are scrap. */
void host_destroy(struct host *h, uint32_t first, uint32_t last);

/* Gives the pages of destroyed domains back; nobody may look at them any more. */
void host_forget(struct host *h);

#endif
