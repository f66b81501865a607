/*
 * The rings of a page against twins: two queues of bytes, and a domain that works on the page
 * byte by byte. Then against a domain that writes whatever it likes: what is told is told of
 * indices as they stood, and no byte changes but those that may.
 *
 * The page stands in a block of its own size, so that a step beside it is noticed.
 */
#include <string.h>

#include "check.h"
#include "ring.h"

enum { SIZE = XS_RING_SIZE, PLENTY = 3 * SIZE };

static struct xs_ring_page *page;

/* What is in a ring: all bytes that were put in and not taken out. */
struct queue {
    unsigned char bytes[SIZE];
    size_t count;
};

static struct queue requests, replies;

static void queue_put(struct queue *q, const char *from, size_t n)
{
    CHECK(q->count + n <= SIZE);
    memcpy(q->bytes + q->count, from, n);
    q->count += n;
}

static void queue_take(struct queue *q, size_t n)
{
    CHECK(n <= q->count);
    memmove(q->bytes, q->bytes + n, q->count - n);
    q->count -= n;
}

static void fill(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (char)any64();
}

/* Any index, mostly where something is about to happen. */
static uint32_t any_index(void)
{
    static const uint32_t edges[] = {0, SIZE, 0x7fffffffu, 0x80000000u, 0xffffffffu};

    if (one_in(3))
        return (uint32_t)any64();
    return edges[any_below(5)] + any_below(2 * SIZE) - SIZE;
}

/* ---- a domain that keeps to the rules ---------------------------------------------------- */

static void domain_sends(void)
{
    char data[SIZE];
    size_t n = any_below((uint32_t)(SIZE - requests.count) + 1);

    if (n > 40 && !one_in(4))
        n = any_below(40);
    fill(data, n);
    for (size_t i = 0; i < n; i++)
        page->req[page->req_prod++ % SIZE] = data[i];
    queue_put(&requests, data, n);
}

static void domain_fetches(void)
{
    size_t n = any_below((uint32_t)replies.count + 1);

    for (size_t i = 0; i < n; i++)
        CHECK_EQ((unsigned char)page->rsp[page->rsp_cons++ % SIZE], replies.bytes[i]);
    queue_take(&replies, n);
}

/* ---- the store ----------------------------------------------------------------------------- */

static void store_reads(void)
{
    char into[PLENTY];
    size_t room = one_in(3) ? PLENTY : any_below(SIZE + 2), taken;
    size_t most = requests.count < room ? requests.count : room;
    uint32_t at = 0, before = page->req_cons;
    int n;

#ifdef CANARY
    if (before % SIZE + most > SIZE) /* as if nothing ever went round */
        most = SIZE - before % SIZE;
#endif
    memset(into, 0x5a, sizeof(into));
    n = xs_ring_read(page, into, room, &at);
    CHECK_EQ(n, most);
    CHECK_EQ(at, before);
    CHECK_EQ(page->req_cons, before); /* nothing is taken yet */
    CHECK(n == 0 || memcmp(into, requests.bytes, most) == 0);
    for (size_t i = most; i < PLENTY; i++)
        CHECK_EQ(into[i], 0x5a);
    if (n == 0)
        return;
    if (one_in(10)) /* the domain may add meanwhile */
        domain_sends();
    taken = one_in(3) ? any_below((uint32_t)most + 1) : most;
    xs_ring_taken(page, at, taken);
    CHECK_EQ(page->req_cons, before + (uint32_t)taken);
    queue_take(&requests, taken);
}

static void store_writes(void)
{
    char data[PLENTY];
    size_t n = one_in(3) ? any_below(PLENTY) : any_below(60), room = SIZE - replies.count;
    size_t most = n < room ? n : room;

    fill(data, n);
    CHECK_EQ(xs_ring_write(page, data, n), most);
    queue_put(&replies, data, most);
}

static void compare(void)
{
    CHECK_EQ(page->req_prod - page->req_cons, requests.count);
    CHECK_EQ(page->rsp_prod - page->rsp_cons, replies.count);
    for (size_t i = 0; i < requests.count; i++)
        CHECK_EQ((unsigned char)page->req[(page->req_cons + i) % SIZE], requests.bytes[i]);
    for (size_t i = 0; i < replies.count; i++)
        CHECK_EQ((unsigned char)page->rsp[(page->rsp_cons + i) % SIZE], replies.bytes[i]);
}

static void reset(uint32_t features)
{
    struct xs_ring_page before = *page;

    xs_ring_reset(page, features);
    CHECK(memcmp(page->req, before.req, 2 * SIZE) == 0);
    CHECK_EQ(page->req_cons | page->req_prod | page->rsp_cons | page->rsp_prod, 0);
    CHECK_EQ(page->features, features);
    CHECK_EQ(page->state, 0);
    CHECK_EQ(page->error, XS_RING_ERROR_NONE);
    CHECK_EQ(page->port, before.port);
    requests.count = replies.count = 0;
}

static void begin_at(uint32_t req, uint32_t rsp)
{
    page->req_cons = page->req_prod = req;
    page->rsp_cons = page->rsp_prod = rsp;
    requests.count = replies.count = 0;
}

static void honest_step(void)
{
    switch (any_below(one_in(50) ? 9 : 8)) {
    case 0:
    case 1:
        domain_sends();
        break;
    case 2:
    case 3:
        store_reads();
        break;
    case 4:
    case 5:
        store_writes();
        break;
    case 6:
    case 7:
        domain_fetches();
        break;
    default:
        if (one_in(2))
            reset((uint32_t)any64());
        else
            begin_at(any_index(), any_index());
    }
    compare();
}

/* ---- a domain that does not ---------------------------------------------------------------- */

static void any_words(void)
{
    uint32_t *pair = one_in(2) ? &page->req_cons : &page->rsp_cons;

    switch (any_below(5)) {
    case 0:
        pair[any_below(2)] = any_index();
        break;
    case 1: /* one too many, or just not */
        pair[0] = any_index();
        pair[1] = pair[0] + SIZE + any_below(3) - 1;
        break;
    case 2: /* one too few, or just not */
        pair[0] = any_index();
        pair[1] = pair[0] + any_below(3) - 1;
        break;
    case 3:
        fill((char *)&page->req_cons, sizeof(*page) - offsetof(struct xs_ring_page, req_cons));
        break;
    default:
        pair[0] = any_index();
        pair[1] = pair[0] + any_below(SIZE + 1);
    }
    if (one_in(8))
        page->state = any_below(3);
}

/* What stands in a ring of these indices. */
static void expect(const char *ring, uint32_t from, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        CHECK_EQ(bytes[i], ring[(from + i) % SIZE]);
}

static void hostile_step(void)
{
    char data[PLENTY];
    struct xs_ring_page before;
    uint32_t there, at = 7;
    size_t n = one_in(2) ? any_below(PLENTY) : any_below(30), most;
    int done;

    any_words();
    if (one_in(20))
        fill(page->req, 2 * SIZE);
    before = *page;
    CHECK_EQ(xs_ring_reconnecting(page), before.state == 1);
    switch (any_below(4)) {
    case 0:
        there = before.req_prod - before.req_cons;
        most = there < n ? there : n;
        memset(data, 0x5a, sizeof(data));
        done = xs_ring_read(page, data, n, &at);
        CHECK_EQ(done, there > SIZE ? XS_RING_BAD : (int)most);
        CHECK(memcmp(page, &before, sizeof(before)) == 0);
        if (done >= 0)
            expect(before.req, before.req_cons, data, most);
        for (size_t i = done > 0 ? most : 0; i < PLENTY; i++)
            CHECK_EQ(data[i], 0x5a);
        if (done > 0) {
            any_words(); /* nothing that it does meanwhile changes what is taken */
            before = *page;
            xs_ring_taken(page, at, most);
            before.req_cons = at + (uint32_t)most;
            CHECK(memcmp(page, &before, sizeof(before)) == 0);
        }
        break;
    case 1:
        there = before.rsp_prod - before.rsp_cons;
        fill(data, n);
        done = xs_ring_write(page, data, n);
        if (there > SIZE) {
            CHECK_EQ(done, XS_RING_BAD);
        } else {
            most = SIZE - there < n ? SIZE - there : n;
            CHECK_EQ(done, most);
            expect(page->rsp, before.rsp_prod, data, most);
            for (size_t i = 0; i < most; i++)
                before.rsp[(before.rsp_prod + i) % SIZE] = data[i];
            before.rsp_prod += (uint32_t)most;
        }
        CHECK(memcmp(page, &before, sizeof(before)) == 0);
        break;
    case 2:
        before.error = any_below(4);
        xs_ring_fail(page, before.error);
        CHECK(memcmp(page, &before, sizeof(before)) == 0);
        break;
    default:
        if (one_in(5))
            reset((uint32_t)any64());
    }
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    page = must_alloc(sizeof(*page));
    fill((char *)page, sizeof(*page));
    for (check_step = 0; check_step < steps; check_step++) {
        if (check_step % 500 == 0) {
            begin_at(any_index(), any_index());
            compare();
        }
        if (check_step / 500 % 2 == 0)
            honest_step();
        else
            hostile_step();
    }
    free(page);
    return 0;
}
