/*
 * What waits to be sent on one connection.
 *
 *      buf:  [sent....][rest of the first message][message][message] free
 *            0         head                                          tail
 *
 * Messages stand one behind the other, ready for one write(2). A record beside them says
 * for each how long it is, when it was queued, and who caused it, so that a quota can be
 * settled when it has gone, and an event that nobody fetched can be thrown away.
 *
 * Events are merged: one with path and token of an event that still waits here is not
 * queued again. A small hash over the waiting events finds it; entries of messages that
 * have been sent simply read as too old.
 *
 * Room is reserved before an operation takes effect and used after it, so that queueing
 * cannot fail when it must not: xs_outq_reserve can, xs_outq_put cannot.
 *
 * Cost: put O(bytes), sent O(messages finished), expire O(queue) and only when something
 * is old enough. A drained queue keeps a little memory, not what its peak needed; it
 * remembers how much that was, and asks for it at once the next time.
 */
#ifndef XS_OUTQ_H
#define XS_OUTQ_H

#include "mem.h"
#include "wire.h"

struct xs_outmsg {
    uint32_t len; /* header included */
    uint32_t is_event;
    uint64_t start;  /* place in the stream of all bytes ever queued */
    uint64_t hash;   /* of an event's payload */
    uint64_t older;  /* number of the next older event in its bucket, plus one */
    int64_t when_ns; /* queued at */
    void *cause;     /* whatever the user counts; passed back when the message has gone */
};

/* Told of each message that has gone: sent, expired or thrown away. */
typedef void xs_outq_gone(void *context, const struct xs_outmsg *msg);

struct xs_outq {
    char *buf;
    size_t cap, head, tail;
    uint64_t origin;        /* place in the stream of buf[0] */
    size_t partial;         /* bytes of the first message that have been sent */
    struct xs_outmsg *msgs; /* msgs[first..last) wait */
    size_t msg_cap, first, last;
    uint64_t number;   /* of msgs[0], counted from the connection's beginning */
    uint64_t *buckets; /* newest event per hash: its number plus one; 0: none */
    size_t bucket_count;
    size_t events;                             /* waiting */
    size_t room_bytes, room_msgs, room_events; /* reserved */
    size_t room_event_bytes;                   /* of room_bytes */
    size_t last_cap, last_msg_cap; /* of what was given back when the queue drained */
};

static inline size_t xs_outq_bytes(const struct xs_outq *q)
{
    return q->tail - q->head;
}

static inline size_t xs_outq_waiting(const struct xs_outq *q)
{
    return q->last - q->first;
}

void xs_outq_free(struct xs_outq *q, struct xs_mem *m, struct xs_account *who);

/* Adds room for one message of `payload` bytes to what is reserved. 0 or XS_ENOMEM. */
int xs_outq_reserve(struct xs_outq *q, struct xs_mem *m, struct xs_account *who, size_t payload,
                    bool event);
/* Forgets what is reserved. */
static inline void xs_outq_release(struct xs_outq *q)
{
    q->room_bytes = q->room_msgs = q->room_events = q->room_event_bytes = 0;
}

/* Queues a reply into reserved room; the payload may be written to the returned place. */
char *xs_outq_put(struct xs_outq *q, const struct xs_header *h, int64_t now_ns, void *cause);

/* Whether an event with this payload, in two pieces each followed by a NUL, waits. */
bool xs_outq_has_event(const struct xs_outq *q, const char *path, size_t path_len,
                       const char *token, size_t token_len, uint64_t *hash);
void xs_outq_put_event(struct xs_outq *q, const char *path, size_t path_len, const char *token,
                       size_t token_len, uint64_t hash, int64_t now_ns, void *cause);

/* The message queued last, header and all. There must be one. */
static inline const char *xs_outq_last(const struct xs_outq *q, size_t *len)
{
    const struct xs_outmsg *msg = &q->msgs[q->last - 1];

    *len = msg->len;
    return q->buf + (msg->start - q->origin);
}

/* The first n waiting bytes have been sent. */
void xs_outq_sent(struct xs_outq *q, struct xs_mem *m, struct xs_account *who, size_t n,
                  xs_outq_gone *gone, void *context);

/* Throws away events queued before `before_ns` of which no byte has been sent. */
void xs_outq_expire(struct xs_outq *q, int64_t before_ns, xs_outq_gone *gone, void *context);

/* When the oldest waiting event was queued; INT64_MAX when none waits. */
int64_t xs_outq_oldest_event(const struct xs_outq *q);

/* Throws away everything. */
void xs_outq_clear(struct xs_outq *q, xs_outq_gone *gone, void *context);

#endif
