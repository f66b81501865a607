#include "outq.h"

#include "err.h"

enum {
    FIRST_BYTES = 256,
    KEEP_BYTES = 4096,
    KEEP_MSGS = 64,
    REMEMBER_BYTES = 65536,
    REMEMBER_MSGS = 1024,
};

void xs_outq_free(struct xs_outq *q, struct xs_mem *m, struct xs_account *who)
{
    xs_mem_free(m, who, q->buf, q->cap);
    xs_mem_free(m, who, q->msgs, q->msg_cap * sizeof(*q->msgs));
    xs_mem_free(m, who, q->buckets, q->bucket_count * sizeof(*q->buckets));
    memset(q, 0, sizeof(*q));
}

static uint64_t hash_event(const char *path, size_t path_len, const char *token,
                           size_t token_len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ path_len;

    for (size_t i = 0; i < path_len; i++)
        h = (h ^ (uint8_t)path[i]) * UINT64_C(0x100000001b3);
    for (size_t i = 0; i < token_len; i++)
        h = (h ^ (uint8_t)token[i]) * UINT64_C(0x100000001b3);
    return h ^ (h >> 32);
}

static void link_event(struct xs_outq *q, size_t i)
{
    uint64_t *bucket = &q->buckets[q->msgs[i].hash & (q->bucket_count - 1)];

    q->msgs[i].older = *bucket;
    *bucket = q->number + i + 1;
}

static void relink_events(struct xs_outq *q)
{
    memset(q->buckets, 0, q->bucket_count * sizeof(*q->buckets));
    for (size_t i = q->first; i < q->last; i++)
        if (q->msgs[i].is_event)
            link_event(q, i);
}

/* Moves what waits to the front of both arrays. Numbers of messages stay. */
static void compact(struct xs_outq *q)
{
    size_t start = q->head - q->partial;

    if (start > 0) {
        memmove(q->buf, q->buf + start, q->tail - start);
        q->origin += start;
        q->head -= start;
        q->tail -= start;
    }
    if (q->first > 0) {
        memmove(q->msgs, q->msgs + q->first, (q->last - q->first) * sizeof(*q->msgs));
        q->number += q->first;
        q->last -= q->first;
        q->first = 0;
    }
}

static int more_buckets(struct xs_outq *q, struct xs_mem *m, struct xs_account *who)
{
    size_t want = q->bucket_count == 0 ? 8 : q->bucket_count * 4;
    uint64_t *fresh = xs_mem_alloc(m, who, want * sizeof(*fresh));

    if (fresh == NULL) /* with a table, long chains will do; without one there is no queueing */
        return q->bucket_count == 0 ? XS_ENOMEM : XS_OK;
    xs_mem_free(m, who, q->buckets, q->bucket_count * sizeof(*fresh));
    q->buckets = fresh;
    q->bucket_count = want;
    relink_events(q);
    return XS_OK;
}

int xs_outq_reserve(struct xs_outq *q, struct xs_mem *m, struct xs_account *who, size_t payload,
                    bool event)
{
    size_t bytes = q->room_bytes + XS_HEADER_SIZE + payload;
    size_t msgs = q->room_msgs + 1, events = q->room_events + event;

    if (q->tail + bytes > q->cap || q->last + msgs > q->msg_cap) {
        size_t waiting = q->tail - (q->head - q->partial);

        compact(q);
        if (waiting + bytes > q->cap) {
            size_t want = q->cap > 0 ? q->cap * 2 : q->last_cap > 0 ? q->last_cap : FIRST_BYTES;
            while (want < waiting + bytes)
                want *= 2;
            char *buf = xs_mem_resize(m, who, q->buf, q->cap, want);
            if (buf == NULL)
                return XS_ENOMEM;
            q->buf = buf;
            q->cap = want;
        }
        size_t need = q->last + msgs;
        if (q->msg_cap == 0 && need < q->last_msg_cap)
            need = q->last_msg_cap;
        int rc = xs_mem_grow(m, who, (void **)&q->msgs, &q->msg_cap, need, sizeof(*q->msgs));
        if (rc != XS_OK)
            return rc;
    }
    if (event && q->events + events > q->bucket_count) {
        int rc = more_buckets(q, m, who);
        if (rc != XS_OK)
            return rc;
    }
    q->room_bytes = bytes;
    q->room_msgs = msgs;
    q->room_events = events;
    q->room_event_bytes += event ? XS_HEADER_SIZE + payload : 0;
    return XS_OK;
}

static char *append(struct xs_outq *q, const struct xs_header *h, int64_t now_ns, void *cause)
{
    struct xs_outmsg *msg = &q->msgs[q->last++];
    char *at = q->buf + q->tail;
    size_t len = XS_HEADER_SIZE + h->len;

    xs_assert(q->tail + len <= q->cap && q->last <= q->msg_cap);
    msg->start = q->origin + q->tail;
    q->tail += len;
    msg->len = (uint32_t)len;
    msg->is_event = 0;
    msg->when_ns = now_ns;
    msg->cause = cause;
    xs_header_store(at, h);
    return at + XS_HEADER_SIZE;
}

char *xs_outq_put(struct xs_outq *q, const struct xs_header *h, int64_t now_ns, void *cause)
{
    return append(q, h, now_ns, cause);
}

bool xs_outq_has_event(const struct xs_outq *q, const char *path, size_t path_len,
                       const char *token, size_t token_len, uint64_t *hash)
{
    *hash = hash_event(path, path_len, token, token_len);
    if (q->events == 0)
        return false;

    size_t len = XS_HEADER_SIZE + path_len + token_len + 2;
    uint64_t number = q->buckets[*hash & (q->bucket_count - 1)];
    uint64_t oldest = q->number + q->first + (q->partial > 0); /* not begun to be sent */

    while (number > oldest) {
        const struct xs_outmsg *msg = &q->msgs[number - 1 - q->number];

        if (msg->hash == *hash && msg->len == len) {
            const char *p = q->buf + (msg->start - q->origin) + XS_HEADER_SIZE;

            if (memcmp(p, path, path_len) == 0 && p[path_len] == 0 &&
                memcmp(p + path_len + 1, token, token_len) == 0)
                return true;
        }
        number = msg->older;
    }
    return false;
}

void xs_outq_put_event(struct xs_outq *q, const char *path, size_t path_len, const char *token,
                       size_t token_len, uint64_t hash, int64_t now_ns, void *cause)
{
    struct xs_header h = {XS_OP_WATCH_EVENT, 0, 0, (uint32_t)(path_len + token_len + 2)};
    char *p = append(q, &h, now_ns, cause);
    struct xs_outmsg *msg = &q->msgs[q->last - 1];

    memcpy(p, path, path_len);
    p[path_len] = 0;
    memcpy(p + path_len + 1, token, token_len);
    p[path_len + 1 + token_len] = 0;
    msg->is_event = 1;
    msg->hash = hash;
    q->events++;
    link_event(q, q->last - 1);
}

/* Gives memory of a peak back once everything has gone. */
static void rewind_empty(struct xs_outq *q, struct xs_mem *m, struct xs_account *who)
{
    q->origin += q->tail;
    q->head = q->tail = 0;
    q->number += q->first;
    q->first = q->last = 0;
    if (q->cap > KEEP_BYTES && q->room_bytes == 0) {
        xs_mem_free(m, who, q->buf, q->cap);
        q->last_cap = q->cap < REMEMBER_BYTES ? q->cap : REMEMBER_BYTES;
        q->buf = NULL;
        q->cap = 0;
    }
    if (q->msg_cap > KEEP_MSGS && q->room_msgs == 0) {
        xs_mem_free(m, who, q->msgs, q->msg_cap * sizeof(*q->msgs));
        xs_mem_free(m, who, q->buckets, q->bucket_count * sizeof(*q->buckets));
        q->last_msg_cap = q->msg_cap < REMEMBER_MSGS ? q->msg_cap : REMEMBER_MSGS;
        q->msgs = NULL;
        q->buckets = NULL;
        q->msg_cap = q->bucket_count = 0;
    }
}

void xs_outq_sent(struct xs_outq *q, struct xs_mem *m, struct xs_account *who, size_t n,
                  xs_outq_gone *gone, void *context)
{
    q->head += n;
    n += q->partial;
    while (q->first < q->last && n >= q->msgs[q->first].len) {
        const struct xs_outmsg *msg = &q->msgs[q->first++];

        n -= msg->len;
        q->events -= msg->is_event;
        gone(context, msg);
    }
    q->partial = n;
    if (q->first == q->last)
        rewind_empty(q, m, who);
}

void xs_outq_expire(struct xs_outq *q, int64_t before_ns, xs_outq_gone *gone, void *context)
{
    size_t keep = 0, to, from;

    if (q->events == 0)
        return;
    compact(q);
    if (q->partial > 0)
        keep = 1;
    to = from = keep > 0 ? q->msgs[0].len : 0;
    for (size_t i = keep; i < q->last; i++) {
        struct xs_outmsg msg = q->msgs[i];

        if (msg.is_event && msg.when_ns < before_ns) {
            q->events--;
            gone(context, &msg);
        } else {
            memmove(q->buf + to, q->buf + from, msg.len);
            msg.start = q->origin + to;
            q->msgs[keep++] = msg;
            to += msg.len;
        }
        from += msg.len;
    }
    q->last = keep;
    q->tail = to;
    relink_events(q);
}

int64_t xs_outq_oldest_event(const struct xs_outq *q)
{
    if (q->events > 0)
        for (size_t i = q->first + (q->partial > 0); i < q->last; i++)
            if (q->msgs[i].is_event)
                return q->msgs[i].when_ns;
    return INT64_MAX;
}

void xs_outq_clear(struct xs_outq *q, xs_outq_gone *gone, void *context)
{
    for (size_t i = q->first; i < q->last; i++)
        gone(context, &q->msgs[i]);
    q->number += q->last;
    q->origin += q->tail;
    q->head = q->tail = q->partial = 0;
    q->first = q->last = q->events = 0;
}
