/*
 * The xenbus page: two rings of bytes, shared with a domain that may be hostile.
 *
 *      0     1024    2048                2064      2068   2072   2076
 *      +-----+-------+-------------------+---------+------+------+------+
 *      | req | rsp   | cons prod  (each) | features| state| error| port |
 *      +-----+-------+-------------------+---------+------+------+------+
 *
 * Indices run freely through 32 bits; a position is an index modulo 1024. What is in a ring
 * is producer minus consumer, and no more than 1024, or the page is not to be trusted.
 *
 * The other side may change any byte at any moment. So each index is loaded once, into a
 * local; what was loaded is checked, and only that is used. Bytes are copied out before
 * anybody looks at them. Our own indices stand in the page too, and are believed no more than
 * the other side's: a guest's firmware sets them to zero for the kernel it starts.
 *
 * Cost: two loads, one or two copies, one store, two fences.
 */
#ifndef XS_RING_H
#define XS_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto.h"

enum {
    XS_RING_SIZE = 1024,
    XS_RING_BAD = -1, /* indices that cannot be */
};

/* Error word. */
enum {
    XS_RING_ERROR_NONE = 0,
    XS_RING_ERROR_CHANNEL = 1,  /* the event channel is unusable */
    XS_RING_ERROR_INDICES = 2,  /* producer and consumer cannot be */
    XS_RING_ERROR_PROTOCOL = 3, /* a request announces more than 4096 bytes */
};

/* Feature bits. */
enum {
    XS_RING_RECONNECT = 1,
    XS_RING_ERROR = 2,
    XS_RING_DEPTH = 4,
    XS_RING_ANY_DOMAIN = 8,
    XS_RING_FEATURES = XS_RING_RECONNECT | XS_RING_ERROR | XS_RING_DEPTH | XS_RING_ANY_DOMAIN,
};

struct xs_ring_page {
    char req[XS_RING_SIZE]; /* domain to store */
    char rsp[XS_RING_SIZE];
    uint32_t req_cons, req_prod;
    uint32_t rsp_cons, rsp_prod;
    uint32_t features;
    uint32_t state; /* 0 connected, 1 reconnect requested */
    uint32_t error;
    uint32_t port;
};

/* Copies up to n bytes of requests out. How many, or XS_RING_BAD. They stay in the ring until
 * xs_ring_taken says, with what `at` is set to here, how many of them are not needed again. */
int xs_ring_read(const struct xs_ring_page *page, char *into, size_t n, uint32_t *at);
void xs_ring_taken(struct xs_ring_page *page, uint32_t at, size_t n);

/* Puts up to n bytes of replies in, as many as there is room for. How many, or XS_RING_BAD. */
int xs_ring_write(struct xs_ring_page *page, const char *from, size_t n);

/* Whether the domain asks to start afresh. */
bool xs_ring_reconnecting(const struct xs_ring_page *page);

/* Empties both rings, clears the error, and says that it is connected. */
void xs_ring_reset(struct xs_ring_page *page, uint32_t features);

void xs_ring_fail(struct xs_ring_page *page, uint32_t error);

#endif
