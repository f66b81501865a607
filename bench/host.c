#define _GNU_SOURCE
#include "host.h"

#include <stdlib.h>

void host_open(struct host *h, const char *directory)
{
    struct fakexen_shared *shared;
    uint32_t left = 0;

    if (fakexen_open(&h->fx, directory) != 0) {
        fail("no fake Xen in %s: %s", directory, strerror(errno));
    }
    shared = h->fx.shared;
    h->mailbox = fakexen_mailbox(&h->fx, HOST_MAILBOX);
    if (h->mailbox < 0) {
        fail("mailbox: %s", strerror(errno));
    }
    for (uint32_t domid = 1; domid < FAKEXEN_DOMAINS; domid++) {
        if (shared->domains[domid].flags & FAKEXEN_EXISTS) {
            fakexen_destroy(&h->fx, domid);
            left++;
        }
    }
    if (left > 0 && fakexen_virq(&h->fx) != 0) {
        fail("virq: %s", strerror(errno));
    }
}

void host_create(struct host *h, uint32_t count)
{
    h->count = count;
    h->page = make(count + 1, sizeof(struct fakexen_ring *));
    h->owner = make(count + 1, sizeof(struct conn *));
    for (uint32_t domid = 1; domid <= count; domid++) {
        if (fakexen_create(&h->fx, domid, HOST_PORT, HOST_GFN, HOST_MAILBOX) != 0) {
            fail("domain %u: %s", domid, strerror(errno));
        }
        h->page[domid] = fakexen_page(&h->fx, domid);
        if (h->page[domid] == NULL) {
            fail("page of domain %u: %s", domid, strerror(errno));
        }
    }
}

void host_destroy(struct host *h, uint32_t first, uint32_t last)
{
    for (uint32_t domid = first; domid <= last; domid++) {
        fakexen_destroy(&h->fx, domid);
    }
    if (fakexen_virq(&h->fx) != 0) {
        fail("virq: %s", strerror(errno));
    }
}

void host_forget(struct host *h)
{
    for (uint32_t domid = 1; domid <= h->count; domid++) {
        (void)munmap(h->page[domid], FAKEXEN_PAGE);
        /* Each life has a page of its own in the file: without this it would only grow. */
        (void)fallocate(h->fx.pages, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        fakexen_offset(&h->fx, domid), FAKEXEN_PAGE);
    }
    free(h->page);
    free(h->owner);
    (void)close(h->mailbox);
    fakexen_close(&h->fx);
}
