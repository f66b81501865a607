#include "ring.h"

#define MASK (XS_RING_SIZE - 1u)

_Static_assert((XS_RING_SIZE & MASK) == 0, "positions are indices modulo the size");
_Static_assert(offsetof(struct xs_ring_page, req_cons) == 2048, "layout");
_Static_assert(offsetof(struct xs_ring_page, features) == 2064, "layout");
_Static_assert(offsetof(struct xs_ring_page, port) == 2076, "layout");

static uint32_t load(const uint32_t *shared)
{
    return __atomic_load_n(shared, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *shared, uint32_t value)
{
    __atomic_store_n(shared, value, __ATOMIC_RELEASE);
}

static void fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

int xs_ring_read(const struct xs_ring_page *page, char *into, size_t n, uint32_t *at)
{
    uint32_t cons = load(&page->req_cons);
    uint32_t ready = load(&page->req_prod) - cons;
    uint32_t from = cons & MASK;
    size_t most = ready, first;

    if (ready > XS_RING_SIZE)
        return XS_RING_BAD;
    if (most > n)
        most = n;
    *at = cons;
    if (most == 0)
        return 0;
    fence(); /* the bytes are those that the index tells of */
    first = XS_RING_SIZE - from < most ? XS_RING_SIZE - from : most;
    memcpy(into, page->req + from, first);
    memcpy(into + first, page->req, most - first);
    return (int)most;
}

void xs_ring_taken(struct xs_ring_page *page, uint32_t at, size_t n)
{
    fence(); /* the bytes are out before the other side may use their place */
    store(&page->req_cons, at + (uint32_t)n);
    fence(); /* a guest that still saw the old index does not kick: who looks again must see it */
}

int xs_ring_write(struct xs_ring_page *page, const char *from, size_t n)
{
    uint32_t prod = load(&page->rsp_prod);
    uint32_t waiting = prod - load(&page->rsp_cons);
    uint32_t at = prod & MASK;
    size_t most, first;

    if (waiting > XS_RING_SIZE)
        return XS_RING_BAD;
    most = XS_RING_SIZE - waiting;
    if (most > n)
        most = n;
    if (most == 0)
        return 0;
    fence(); /* the other side has read what stood there */
    first = XS_RING_SIZE - at < most ? XS_RING_SIZE - at : most;
    memcpy(page->rsp + at, from, first);
    memcpy(page->rsp, from + first, most - first);
    fence(); /* the bytes are there before the index tells of them */
    store(&page->rsp_prod, prod + (uint32_t)most);
    fence(); /* as above, for room that it makes */
    return (int)most;
}

bool xs_ring_reconnecting(const struct xs_ring_page *page)
{
    return load(&page->state) == 1;
}

void xs_ring_reset(struct xs_ring_page *page, uint32_t features)
{
    store(&page->req_cons, 0);
    store(&page->req_prod, 0);
    store(&page->rsp_cons, 0);
    store(&page->rsp_prod, 0);
    store(&page->features, features);
    store(&page->error, XS_RING_ERROR_NONE);
    fence(); /* whoever sees that it is connected sees empty rings */
    store(&page->state, 0);
}

void xs_ring_fail(struct xs_ring_page *page, uint32_t error)
{
    store(&page->error, error);
    fence();
}
