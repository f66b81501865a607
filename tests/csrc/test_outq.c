/*
 * The output queue against a twin: a list of whole messages, of which the first may have
 * been sent in part.
 */
#include <string.h>

#include "check.h"
#include "err.h"
#include "outq.h"

enum { MAX = 3000, PAYLOAD = 300 };

struct message {
    size_t len, sent;
    bool event;
    int64_t when;
    int cause;
    char bytes[XS_HEADER_SIZE + PAYLOAD];
};

static struct xs_mem mem;
static struct xs_account account;
static struct xs_outq queue;
static struct message *list;
static size_t count;
static int64_t now;
static int causes[MAX * 8];
static int next_cause;
static int64_t gone_count, put_count;

static void gone(void *context, const struct xs_outmsg *msg)
{
    CHECK(context == &queue);
    CHECK_EQ(*(int *)msg->cause, 1); /* alive, and told once */
    *(int *)msg->cause = 0;
    gone_count++;
}

static void *cause(void)
{
    next_cause = (next_cause + 1) % (int)(sizeof(causes) / sizeof(*causes));
    CHECK_EQ(causes[next_cause], 0);
    causes[next_cause] = 1;
    list[count].cause = next_cause;
    return &causes[next_cause];
}

/* A message leaves the twin; the queue must have said so. */
static void twin_drop(size_t i)
{
    CHECK_EQ(causes[list[i].cause], 0);
    memmove(list + i, list + i + 1, (count - i - 1) * sizeof(*list));
    count--;
}

static void compare(void)
{
    size_t bytes = 0, events = 0;
    int64_t oldest = INT64_MAX;

    for (size_t i = 0; i < count; i++) {
        size_t n = list[i].len - list[i].sent;

        CHECK(bytes + n <= xs_outq_bytes(&queue));
        CHECK(memcmp(queue.buf + queue.head + bytes, list[i].bytes + list[i].sent, n) == 0);
        bytes += n;
        events += list[i].event;
        CHECK_EQ(causes[list[i].cause], 1);
        if (list[i].event && list[i].sent == 0 && oldest == INT64_MAX)
            oldest = list[i].when;
    }
    CHECK_EQ(xs_outq_bytes(&queue), bytes);
    CHECK_EQ(xs_outq_waiting(&queue), count);
    CHECK_EQ(queue.events, events);
    CHECK_EQ(xs_outq_oldest_event(&queue), oldest);
    CHECK_EQ(put_count - gone_count, count);
    CHECK_EQ(account.bytes, mem.total.bytes);
}

/* Reserves room for n messages; when memory runs out nothing has changed. */
static bool reserve(size_t n, size_t payload, bool event)
{
    bool room = true;

    if (one_in(6)) {
        mem.fail_at = mem.calls + 1 + any_below(3);
        mem.fail_sticky = one_in(2);
    }
    for (size_t i = 0; i < n && room; i++)
        room = xs_outq_reserve(&queue, &mem, &account, payload, event) == XS_OK;
    CHECK(room || mem.fail_at != 0);
    mem.fail_at = 0;
    mem.fail_sticky = false;
    if (!room) {
        xs_outq_release(&queue);
        compare();
    }
    return room;
}

static void put_reply(void)
{
    struct message *m = &list[count];
    size_t payload = any_below(PAYLOAD);
    struct xs_header h = {2, (uint32_t)any64(), 3, (uint32_t)payload};
    char *at;

    if (!reserve(1 + any_below(3), payload, false))
        return;
    at = xs_outq_put(&queue, &h, now, cause());
    for (size_t i = 0; i < payload; i++)
        at[i] = m->bytes[XS_HEADER_SIZE + i] = (char)any64();
    xs_header_store(m->bytes, &h);
    m->len = XS_HEADER_SIZE + payload;
    m->sent = 0;
    m->event = false;
    m->when = now;
    count++;
    put_count++;
    xs_outq_release(&queue);
}

static void put_event(void)
{
    char path[64], token[16];
    size_t path_len = (size_t)sprintf(path, "/p/%u", any_below(one_in(2) ? 4 : 1000));
    size_t token_len = (size_t)sprintf(token, "t%u", any_below(3));
    struct xs_header h = {XS_OP_WATCH_EVENT, 0, 0, (uint32_t)(path_len + token_len + 2)};
    struct message *m = &list[count];
    uint64_t hash;
    bool waits = false;

    if (!reserve(1 + any_below(3), path_len + token_len + 2, true))
        return;
    xs_header_store(m->bytes, &h);
    memcpy(m->bytes + XS_HEADER_SIZE, path, path_len + 1);
    memcpy(m->bytes + XS_HEADER_SIZE + path_len + 1, token, token_len + 1);
    m->len = XS_HEADER_SIZE + h.len;
    for (size_t i = 0; i < count; i++)
        waits = waits || (list[i].event && list[i].sent == 0 && list[i].len == m->len &&
                          memcmp(list[i].bytes, m->bytes, m->len) == 0);
#ifdef CANARY
    waits = waits && count < 20;
#endif
    CHECK_EQ(xs_outq_has_event(&queue, path, path_len, token, token_len, &hash), waits);
    if (!waits || one_in(10)) { /* special events are queued nevertheless */
        xs_outq_put_event(&queue, path, path_len, token, token_len, hash, now, cause());
        m->sent = 0;
        m->event = true;
        m->when = now;
        count++;
        put_count++;
    }
    xs_outq_release(&queue);
}

static void send_some(bool much)
{
    size_t n = xs_outq_bytes(&queue), left;

    if (!much || !one_in(10))
        n = any_below((uint32_t)n + 1) / (1 + any_below(20));
    if (!much && n > 300)
        n = any_below(300);
    left = n;
    xs_outq_sent(&queue, &mem, &account, n, gone, &queue);
    while (count > 0 && left >= list[0].len - list[0].sent) {
        left -= list[0].len - list[0].sent;
        twin_drop(0);
    }
    if (count > 0)
        list[0].sent += left;
}

static void expire(void)
{
    int64_t before = now - any_below(200);

    xs_outq_expire(&queue, before, gone, &queue);
    for (size_t i = count; i-- > 0;)
        if (list[i].event && list[i].sent == 0 && list[i].when < before)
            twin_drop(i);
}

static void *token_cause(void)
{
    static int alive;

    alive = 1;
    return &alive;
}

static void event(const char *path, uint64_t hash)
{
    CHECK_EQ(xs_outq_reserve(&queue, &mem, &account, strlen(path) + 3, true), XS_OK);
    xs_outq_put_event(&queue, path, strlen(path), "t", 1, hash, now, token_cause());
    xs_outq_release(&queue);
}

static bool waits(const char *path)
{
    uint64_t hash;

    return xs_outq_has_event(&queue, path, strlen(path), "t", 1, &hash);
}

static uint64_t hash_of(const char *path, const char *token)
{
    uint64_t hash;

    xs_outq_has_event(&queue, path, strlen(path), token, strlen(token), &hash);
    return hash;
}

static void empty(void)
{
    for (size_t i = 0; i < xs_outq_waiting(&queue); i++)
        queue.msgs[queue.first + i].cause = token_cause();
    while (xs_outq_bytes(&queue) > 0) {
        token_cause();
        xs_outq_sent(&queue, &mem, &account, queue.msgs[queue.first].len, gone, &queue);
    }
}

/* Events with the same hash are told apart by their bytes. */
static void test_collisions(void)
{
    event("/longer", hash_of("/a", "t"));
    CHECK(!waits("/a")); /* another length */
    event("/b", hash_of("/a", "t"));
    CHECK(!waits("/a")); /* another path */
    event("/ab", hash_of("/a", "bt"));
    uint64_t hash;
    CHECK(!xs_outq_has_event(&queue, "/a", 2, "bt", 2, &hash)); /* cut elsewhere */
    event("/a", hash_of("/a", "u"));
    CHECK(!xs_outq_has_event(&queue, "/a", 2, "u", 1, &hash)); /* another token */
    event("/a", hash_of("/a", "t"));
    CHECK(waits("/a"));
    empty();
}

/* Without memory for more buckets chains get longer, and nothing else happens. */
static void test_long_chains(void)
{
    char path[16];
    size_t buckets;

    event("/0", hash_of("/0", "t"));
    buckets = queue.bucket_count;
    for (size_t i = 1; i < 40; i++) {
        sprintf(path, "/%zu", i);
        if (queue.events == buckets) { /* room for the bytes is there: only the table fails */
            CHECK_EQ(xs_outq_reserve(&queue, &mem, &account, 200, false), XS_OK);
            xs_outq_release(&queue);
            mem.fail_at = mem.calls + 1;
            mem.fail_sticky = true;
        }
        if (xs_outq_reserve(&queue, &mem, &account, strlen(path) + 3, true) != XS_OK)
            break;
        xs_outq_put_event(&queue, path, strlen(path), "t", 1, hash_of(path, "t"), now,
                          token_cause());
        xs_outq_release(&queue);
        CHECK(waits(path) && waits("/0"));
    }
    CHECK_EQ(queue.bucket_count, buckets);
    CHECK(queue.events > buckets);
    mem.fail_at = 0;
    mem.fail_sticky = false;
    empty();
}

/* What is reserved stays, also when the queue drains meanwhile. */
static void test_reserved_room_stays(void)
{
    struct xs_header h = {2, 0, 0, 3000};
    uint64_t calls;

    for (size_t i = 0; i < 70; i++)
        event("/x", i);
    CHECK_EQ(xs_outq_reserve(&queue, &mem, &account, 3000, false), XS_OK);
    CHECK_EQ(xs_outq_reserve(&queue, &mem, &account, 3000, false), XS_OK);
    calls = mem.calls;
    empty();
    CHECK(queue.cap >= 2 * (3000 + XS_HEADER_SIZE) && queue.msg_cap >= 2);
    xs_outq_put(&queue, &h, now, token_cause());
    xs_outq_put(&queue, &h, now, token_cause());
    CHECK_EQ(mem.calls, calls);
    xs_outq_release(&queue);
    empty();
    CHECK(queue.buf == NULL && queue.msgs == NULL); /* and goes when nobody needs it */
}

int main(int argc, char **argv)
{
    size_t steps;

    check_begin(argc, argv, &steps);
    xs_mem_init(&mem);
    list = must_alloc(MAX * sizeof(*list));
    for (check_step = 0; check_step < steps; check_step++) {
        bool filling = check_step / 400 % 2 == 0;

        now += any_below(3);
        switch (any_below(filling ? 12 : 6)) {
        case 0:
        case 1:
            send_some(!filling);
            break;
        case 2:
            if (one_in(filling ? 30 : 4))
                expire();
            break;
        case 3:
            if (one_in(150)) {
                xs_outq_clear(&queue, gone, &queue);
                while (count > 0)
                    twin_drop(count - 1);
            }
            break;
        default:
            if (count < MAX - 1)
                one_in(3) ? put_reply() : put_event();
        }
        if (filling ? one_in(5) : 1)
            compare();
    }
    xs_outq_sent(&queue, &mem, &account, xs_outq_bytes(&queue), gone, &queue);
    while (count > 0)
        twin_drop(0);
    compare();
    CHECK(queue.cap <= 4096); /* a drained queue keeps little */
    test_collisions();
    test_long_chains();
    test_reserved_room_stays();
    xs_outq_free(&queue, &mem, &account);
    CHECK_EQ(account.bytes, 0);
    CHECK_EQ(account.blocks, 0);
    CHECK_EQ(mem.total.blocks, 0);
    free(list);
    return 0;
}
