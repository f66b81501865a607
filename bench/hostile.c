#define _GNU_SOURCE
#include "hostile.h"

#include "proto.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hostile_kind {
    const char *name;
    uint32_t watches; /* asked for first */
    bool deaf;
    bool breaks;
};

static const struct hostile_kind kinds[] = {
    {.name = "flood"},
    {.name = "deaf", .watches = 100, .deaf = true},
    {.name = "indices", .breaks = true},
    {.name = "watches", .watches = HOSTILE_WATCHES},
};

static const struct hostile_kind *kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            return &kinds[i];
        }
    }
    return NULL;
}

bool hostile_known(const char *kind)
{
    return kind_find(kind) != NULL;
}

const char *hostile_name(uint32_t i)
{
    return i < sizeof(kinds) / sizeof(kinds[0]) ? kinds[i].name : NULL;
}

void hostile_open(struct hostile *h, const char *kind, struct host *host, uint32_t value_bytes)
{
    memset(h, 0, sizeof(*h));
    h->kind = kind_find(kind);
    h->value_bytes = value_bytes;
    transport_ring(&h->transport, host, HOSTILE_DOMID, false);
    buffer_reserve(&h->in, 2 * FAKEXEN_RING + PAYLOAD_BYTES_MAX);
    buffer_reserve(&h->out, 2 * FAKEXEN_RING + PAYLOAD_BYTES_MAX);
}

bool hostile_breaks(const struct hostile *h)
{
    return h->kind->breaks;
}

static void queue(struct hostile *h, uint32_t type, const char *payload, size_t n)
{
    struct header header = {
        .type = type, .req_id = (uint32_t)h->requests++, .len = (uint32_t)n};

    memcpy(h->out.data + h->out.end, &header, HEADER_BYTES);
    memcpy(h->out.data + h->out.end + HEADER_BYTES, payload, n);
    h->out.end += HEADER_BYTES + n;
}

/* The next request: as many watches as this kind wants, each with a token of its own, then
 * writes of the one value that everybody expects in leaf 0. */
static void queue_next(struct hostile *h)
{
    char payload[PAYLOAD_BYTES_MAX];
    size_t n;

    if (h->requests < h->kind->watches) {
        n = (size_t)snprintf(payload, sizeof(payload), "data%ctoken-%08u", '\0',
                             (unsigned)h->requests);
        queue(h, MSG_WATCH, payload, n + 1);
        return;
    }
    memcpy(payload, "data/0", 7);
    memset(payload + 7, 'x', h->value_bytes);
    payload[7] = '0';
    queue(h, MSG_WRITE, payload, 7 + h->value_bytes);
}

/* Keeps the ring full: stops when there is no room. A frame may be cut at any byte. */
static void fill(struct hostile *h)
{
    size_t n;

    do {
        while (h->out.end - h->out.start < FAKEXEN_RING) {
            if (h->out.cap - h->out.end < HEADER_BYTES + PAYLOAD_BYTES_MAX) {
                buffer_reserve(&h->out, HEADER_BYTES + PAYLOAD_BYTES_MAX);
            }
            queue_next(h);
        }
        n = transport_send(&h->transport, h->out.data + h->out.start,
                           h->out.end - h->out.start);
        h->out.start += n;
    } while (n > 0);
}

static void take(struct hostile *h)
{
    size_t n;

    do {
        if (h->in.cap - h->in.end < FAKEXEN_RING) {
            buffer_reserve(&h->in, FAKEXEN_RING);
        }
        n = transport_receive(&h->transport, h->in.data + h->in.end, h->in.cap - h->in.end);
        h->in.end += n;
        while (h->in.end - h->in.start >= HEADER_BYTES) {
            struct header header;

            memcpy(&header, h->in.data + h->in.start, HEADER_BYTES);
            if (header.len > PAYLOAD_BYTES_MAX) {
                fail("the hostile guest got a frame of %u bytes", header.len);
            }
            if (h->in.end - h->in.start - HEADER_BYTES < header.len) {
                break;
            }
            h->in.start += HEADER_BYTES + header.len;
            h->events += header.type == MSG_WATCH_EVENT;
            h->refused += header.type == MSG_ERROR;
            h->replies += header.type != MSG_WATCH_EVENT;
        }
    } while (n > 0);
}

/* One of several impossible pages, in turn; half a frame stands before some of them. */
static void corrupt(struct hostile *h)
{
    struct fakexen_ring *r = h->transport.ring;
    uint32_t odd = h->introduced * 2654435761u;

    memset(r->request, 0xff, sizeof(r->request));
    switch (h->introduced % 4) {
    case 0:
        __atomic_store_n(&r->req_prod, r->req_cons + 1025u + odd % 65536u, __ATOMIC_SEQ_CST);
        break;
    case 1:
        __atomic_store_n(&r->req_cons, odd | 0x80000000u, __ATOMIC_SEQ_CST);
        break;
    case 2:
        __atomic_store_n(&r->rsp_cons, odd | 0x40000000u, __ATOMIC_SEQ_CST);
        __atomic_store_n(&r->req_prod, 40, __ATOMIC_SEQ_CST);
        break;
    default:
        __atomic_store_n(&r->req_prod, 1024, __ATOMIC_SEQ_CST);
    }
    h->introduced++;
    h->requests++;
}

void hostile_step(struct hostile *h, uint64_t introduced)
{
    if (h->kind->breaks) {
        if (h->introduced <= introduced) {
            corrupt(h);
        }
    } else {
        if (!h->kind->deaf) {
            take(h);
        }
        fill(h);
    }
    /* On a port that is masked this costs the daemon nothing; on any other, a look. */
    (void)fakexen_kick(&h->transport.host->fx, HOSTILE_DOMID);
}

void hostile_close(struct hostile *h)
{
    free(h->in.data);
    free(h->out.data);
}
