#define _GNU_SOURCE
#include "lane.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    INPUT_BYTES = 32 << 10,
    FRAME_BYTES_MAX =
        16 << 20, /* oxenstored sends lists longer than the protocol's 4096 bytes */
};

void conn_flush(struct conn *c)
{
    uint64_t now;

    if (c->out.start == c->out.end) {
        return;
    }
    if (!c->want_write && !c->group->window && c->unsent != c->queued) {
        return;
    }
    now = now_ns();
    for (uint32_t i = c->queued - c->unsent; i < c->queued; i++) {
        struct lane *lane = &c->lanes[c->queue[(c->head + i) % c->lane_count]];

        if (lane->begun_ns == 0) {
            lane->begun_ns = now;
            lane->begun_server_ns = c->group->clocked ? clock_ns(c->group->server_clock) : 0;
        }
    }
    c->unsent = 0;
    c->want_write = false;
    while (c->out.start < c->out.end) {
        size_t n = transport_send(&c->transport, c->out.data + c->out.start,
                                  c->out.end - c->out.start);

        if (n == 0) {
            c->want_write = true;
            return;
        }
        c->out.start += n;
    }
    c->out.start = 0;
    c->out.end = 0;
}

/* ---- lanes ---------------------------------------------------------------------------------- */

static uint64_t lane_random(struct lane *lane)
{
    lane->rng ^= lane->rng << 13;
    lane->rng ^= lane->rng >> 7;
    lane->rng ^= lane->rng << 17;
    return lane->rng;
}

static void lane_choose_keys(struct lane *lane)
{
    const struct group *g = lane->conn->group;
    uint64_t nodes = g->options->nodes;
    uint64_t share = nodes / g->lane_count > 0 ? nodes / g->lane_count : 1;

    for (uint32_t i = 0; i < KEYS; i++) {
        switch (g->options->keys) {
        case KEYS_RANDOM:
            lane->blanks.key[i] = lane_random(lane) % nodes;
            break;
        case KEYS_OWN:
            lane->blanks.key[i] =
                (lane->blanks.lane * share + lane_random(lane) % share) % nodes;
            break;
        case KEYS_SAME:
            lane->blanks.key[i] = i % nodes;
            break;
        }
    }
}

/* Payload of `step` into out[PAYLOAD_BYTES_MAX]; returns its length. */
static size_t step_payload(char *out, const struct step *step, const struct lane *lane)
{
    size_t cap = PAYLOAD_BYTES_MAX;
    size_t len = 0;
    size_t path;

    if (step->type == MSG_TRANSACTION_START) {
        out[0] = '\0';
        return 1;
    }
    if (step->path != NULL) {
        len = template_fill(out, cap - 32, step->path, &lane->blanks);
        out[len++] = '\0';
    }
    path = len;
    if (lane->in_parts) {
        return len + (size_t)snprintf(out + len, cap - len, "%" PRIu64, lane->offset) + 1;
    }
    for (size_t i = 0; i < len && step->type == MSG_CONTROL; i++) {
        if (out[i] == ',') {
            out[i] = '\0';
        }
    }
    if (step->arg == NULL || step->type == MSG_READ) {
        return len;
    }
    len += template_fill(out + len, cap - len - 1, step->arg, &lane->blanks);
    if (step->type == MSG_WRITE) {
        return len;
    }
    out[len++] = '\0';
    for (size_t i = path; i < len; i++) {
        if (out[i] == ',' && (step->type == MSG_SET_PERMS || step->type == MSG_INTRODUCE)) {
            out[i] = '\0';
        }
    }
    return len;
}

/* Queues the request that the lane has come to. */
static void lane_send(struct lane *lane)
{
    struct conn *c = lane->conn;
    struct group *g = c->group;
    const struct step *step = &g->script->steps[lane->step];
    struct header h = {.type = lane->in_parts ? MSG_DIRECTORY_PART : step->type,
                       .req_id = c->next_req_id++,
                       .tx_id = step->flags & STEP_IN_TX ? lane->tx_id : 0};

    if (c->out.cap - c->out.end < HEADER_BYTES + PAYLOAD_BYTES_MAX) {
        buffer_reserve(&c->out, HEADER_BYTES + PAYLOAD_BYTES_MAX);
    }
    h.len = (uint32_t)step_payload((char *)c->out.data + c->out.end + HEADER_BYTES, step, lane);
    memcpy(c->out.data + c->out.end, &h, HEADER_BYTES);
    c->out.end += HEADER_BYTES + h.len;
    if (h.type == MSG_TRANSACTION_START) {
        lane->start_step = lane->step;
        lane->hash_at_start = lane->hash;
    }
    lane->sent_type = (uint8_t)h.type;
    c->queue[(c->head + c->queued) % c->lane_count] = (uint32_t)(lane - c->lanes);
    c->queued++;
    c->unsent++;
    g->requests++;
}

/* Begins the lane's next operation, or counts the lane as done. */
static void lane_begin(struct lane *lane)
{
    struct group *g = lane->conn->group;

    if (g->stopping || (lane->left == 0 && !g->endless)) {
        g->busy--;
        return;
    }
    if (g->every_ns > 0 && lane->burst_left-- == 0) {
        lane->resting = true;
        g->resting++;
        return;
    }
    lane->left--;
    lane->blanks.sequence = lane->next_sequence;
    lane->next_sequence += g->lane_count;
    lane->step = 0;
    lane->begun_ns = 0;
    lane->in_parts = false;
    lane_choose_keys(lane);
    lane_send(lane);
}

/* Adds a list of names: hashed so that their order does not matter. Returns the bytes of it. */
static size_t lane_hash_names(struct lane *lane, const uint8_t *list, size_t n)
{
    size_t begin = 0;

    for (size_t i = 0; i < n; i++) {
        if (list[i] == '\0') {
            if (i == begin) {
                return begin; /* the empty name that ends a list in parts */
            }
            lane->names_hash += fnv(FNV_START, list + begin, i - begin);
            lane->conn->group->names++;
            begin = i + 1;
        }
    }
    return begin;
}

/*
 * One part of a child list: "generation NUL name NUL name NUL ...", with one more NUL in the last.
 * Returns whether this was the last.
 */
static bool lane_take_part(struct lane *lane, const uint8_t *payload, size_t n)
{
    const uint8_t *nul = memchr(payload, '\0', n);
    size_t head;
    size_t used;

    if (nul == NULL) {
        fail("part of a child list without a generation");
    }
    head = (size_t)(nul - payload) + 1;
    used = lane_hash_names(lane, payload + head, n - head);
    lane->offset += used;
    if (used == 0 && n - head != 1) {
        fail("part of a child list without a name");
    }
    return n - head > used;
}

static bool payload_is(const uint8_t *payload, size_t n, const char *text)
{
    return n == strlen(text) + 1 && memcmp(payload, text, n) == 0;
}

static void lane_complain(const struct lane *lane, const char *what, const uint8_t *payload,
                          size_t n)
{
    char path[256];
    const struct group *g = lane->conn->group;
    const struct step *step = &g->script->steps[lane->step];
    size_t len = step->path == NULL
                     ? 0
                     : template_fill(path, sizeof(path) - 1, step->path, &lane->blanks);

    path[len] = '\0';
    fail("%s, step %u, request type %u, path '%s': %s: '%.*s'", g->script->name, lane->step,
         lane->sent_type, path, what, (int)(n < 80 ? n : 80), (const char *)payload);
}

/* Success replies: right shape, right value. The floor answers anything, so it is excused. */
static void lane_check(struct lane *lane, const uint8_t *payload, size_t n)
{
    char wanted[PAYLOAD_BYTES_MAX];
    const struct group *g = lane->conn->group;
    const struct step *step = &g->script->steps[lane->step];
    size_t len;

    if (g->options->floor) {
        return;
    }
    if ((step->flags & STEP_CONFLICT) != 0) {
        lane_complain(lane, "not EAGAIN", payload, n);
    }
    switch (lane->sent_type) {
    case MSG_CONTROL:
        return;
    case MSG_READ:
        if (step->arg == NULL) {
            return;
        }
        len = template_fill(wanted, sizeof(wanted), step->arg, &lane->blanks);
        if (len != n || memcmp(wanted, payload, n) != 0) {
            lane_complain(lane, "wrong value", payload, n);
        }
        return;
    case MSG_DIRECTORY:
        if (n > 0 && payload[n - 1] != '\0') {
            lane_complain(lane, "list without a final NUL", payload, n);
        }
        return;
    case MSG_GET_PERMS:
        if (n < 3 || payload[n - 1] != '\0' || memchr("nrwb", payload[0], 4) == NULL) {
            lane_complain(lane, "not a permission list", payload, n);
        }
        return;
    case MSG_GET_DOMAIN_PATH:
        if (n < 15 || memcmp(payload, "/local/domain/", 14) != 0) {
            lane_complain(lane, "not a domain's path", payload, n);
        }
        return;
    case MSG_DIRECTORY_PART:
    case MSG_TRANSACTION_START:
        return;
    default:
        if (!payload_is(payload, n, "OK")) {
            lane_complain(lane, "not OK", payload, n);
        }
    }
}

/* An error reply; returns whether the lane has already queued its next request. */
static bool lane_take_error(struct lane *lane, const uint8_t *payload, size_t n)
{
    struct group *g = lane->conn->group;
    const struct step *step = &g->script->steps[lane->step];

    if ((step->flags & STEP_ANY) != 0 ||
        ((step->flags & STEP_CONFLICT) != 0 && payload_is(payload, n, "EAGAIN"))) {
        return false;
    }
    if (step->type == MSG_TRANSACTION_END && payload_is(payload, n, "EAGAIN")) {
        g->retries++;
        lane->hash = lane->hash_at_start;
        lane->step = lane->start_step;
        if (g->stopping) {
            g->busy--;
        } else {
            lane_send(lane);
        }
        return true;
    }
    if ((step->flags & STEP_LIST) != 0 && !lane->in_parts && payload_is(payload, n, "E2BIG")) {
        lane->in_parts = true;
        lane->offset = 0;
        lane_send(lane);
        return true;
    }
    if ((step->flags & STEP_ABSENT_OK) == 0 || !payload_is(payload, n, "ENOENT")) {
        lane_complain(lane, "error", payload, n);
    }
    return false;
}

static void lane_hash(struct lane *lane, uint32_t type, const uint8_t *payload, size_t n)
{
    lane->hash = fnv(lane->hash, &type, sizeof(type));
    if (type == MSG_DIRECTORY) {
        lane->hash = fnv(lane->hash, &lane->names_hash, sizeof(lane->names_hash));
    } else if (type != MSG_TRANSACTION_START) {
        lane->hash = fnv(lane->hash, payload, n);
    }
}

/* A reply has come: checks it, adds it up, goes one step on. */
static void lane_take(struct lane *lane, const struct header *h, const uint8_t *payload,
                      uint64_t now)
{
    struct group *g = lane->conn->group;
    uint32_t hashed_type = h->type;

    if (h->type == MSG_ERROR) {
        if (lane_take_error(lane, payload, h->len)) {
            return;
        }
    } else if (h->type != lane->sent_type) {
        fail("reply of type %u to a request of type %u", h->type, lane->sent_type);
    } else {
        lane_check(lane, payload, h->len);
    }
    if (h->type == MSG_TRANSACTION_START) {
        lane->tx_id = (uint32_t)strtoul((const char *)payload, NULL, 10);
    }
    if (h->type == MSG_DIRECTORY || (h->type == MSG_DIRECTORY_PART && lane->offset == 0)) {
        lane->names_hash = 0;
    }
    if (h->type == MSG_DIRECTORY) {
        (void)lane_hash_names(lane, payload, h->len);
    }
    if (h->type == MSG_DIRECTORY_PART) {
        if (!lane_take_part(lane, payload, h->len)) {
            if (g->stopping) {
                g->busy--;
            } else {
                lane_send(lane);
            }
            return;
        }
        lane->in_parts = false;
        hashed_type = MSG_DIRECTORY;
    }
    lane_hash(lane, hashed_type, payload, h->len);
    if (++lane->step < g->script->count) {
        if (g->stopping) {
            g->busy--;
        } else {
            lane_send(lane);
        }
        return;
    }
    g->ops++;
    histogram_add(&g->latency, now - lane->begun_ns);
    if (g->clocked) {
        histogram_add(&g->served, clock_ns(g->server_clock) - lane->begun_server_ns);
    }
    lane_begin(lane);
}

/* ---- connections ---------------------------------------------------------------------------- */

static void conn_take(struct conn *c, const struct header *h, const uint8_t *payload,
                      uint64_t now)
{
    struct lane *lane;

    if (h->type == MSG_WATCH_EVENT) {
        c->group->events++;
        return;
    }
    if (c->queued == c->unsent) {
        fail("a reply of type %u that nobody asked for", h->type);
    }
    lane = &c->lanes[c->queue[c->head]];
    c->head = (c->head + 1) % c->lane_count;
    c->queued--;
    if (h->req_id != c->expected_req_id++) {
        fail("reply with req_id %u where %u was due", h->req_id, c->expected_req_id - 1);
    }
    if (h->tx_id !=
        (c->group->script->steps[lane->step].flags & STEP_IN_TX ? lane->tx_id : 0)) {
        fail("reply with tx_id %u that the request did not have", h->tx_id);
    }
    lane_take(lane, h, payload, now);
}

void conn_input(struct conn *c)
{
    uint64_t now;
    size_t n;

    if (c->in.cap - c->in.end < INPUT_BYTES / 2) {
        buffer_reserve(&c->in, INPUT_BYTES);
    }
    n = transport_receive(&c->transport, c->in.data + c->in.end, c->in.cap - c->in.end);
    if (n == 0) {
        return;
    }
    now = now_ns();
    c->in.end += n;
    while (c->in.end - c->in.start >= HEADER_BYTES) {
        struct header h;

        memcpy(&h, c->in.data + c->in.start, HEADER_BYTES);
        if (h.len > FRAME_BYTES_MAX) {
            fail("a reply of %u bytes", h.len);
        }
        if (c->in.end - c->in.start - HEADER_BYTES < h.len) {
            break;
        }
        conn_take(c, &h, c->in.data + c->in.start + HEADER_BYTES, now);
        c->in.start += HEADER_BYTES + h.len;
    }
    if (c->in.start == c->in.end) {
        c->in.start = 0;
        c->in.end = 0;
    }
}

void group_open(struct group *g, const struct options *o, const struct script *script,
                uint32_t conn_count, uint32_t depth, struct host *host, uint32_t first_domid)
{
    memset(g, 0, sizeof(*g));
    g->script = script;
    g->options = o;
    g->conn_count = conn_count;
    g->lane_count = conn_count * depth;
    g->conns = make(conn_count, sizeof(*g->conns));
    g->lanes = make(g->lane_count, sizeof(*g->lanes));
    g->queues = make(g->lane_count, sizeof(*g->queues));
    for (uint32_t i = 0; i < conn_count; i++) {
        struct conn *c = &g->conns[i];

        c->group = g;
        c->lane_count = depth;
        c->lanes = g->lanes + (size_t)i * depth;
        c->queue = g->queues + (size_t)i * depth;
        if (first_domid == 0) {
            transport_socket(&c->transport, o->socket);
        } else {
            transport_ring(&c->transport, host, first_domid + i, o->sparing);
            host->owner[first_domid + i] = c;
        }
    }
}

void group_reset(struct group *g, const struct script *script, uint64_t ops)
{
    g->script = script;
    g->busy = 0;
    g->resting = 0;
    g->paced = 0;
    g->stopping = false;
    g->ops = 0;
    g->requests = 0;
    g->retries = 0;
    g->events = 0;
    g->names = 0;
    memset(&g->latency, 0, sizeof(g->latency));
    memset(&g->served, 0, sizeof(g->served));
    memset(g->lanes, 0, g->lane_count * sizeof(*g->lanes));
    for (uint32_t i = 0; i < g->lane_count; i++) {
        struct lane *lane = &g->lanes[i];

        lane->conn = &g->conns[i / (g->lane_count / g->conn_count)];
        lane->hash = FNV_START;
        lane->rng = 0x9e3779b97f4a7c15u * (i + 1u) | 1u;
        lane->left = ops / g->lane_count + (i < ops % g->lane_count ? 1u : 0u);
        lane->blanks.lane = i;
        lane->blanks.domid = lane->conn->transport.domid;
        lane->next_sequence = i;
        lane->blanks.value_bytes = g->options->value_bytes;
        lane->blanks.root = g->options->path;
    }
}

void group_clock(struct group *g, pid_t pid)
{
    if (clock_getcpuclockid(pid, &g->server_clock) != 0) {
        fail("no process %d", (int)pid);
    }
    g->clocked = true;
}

void group_pace(struct group *g, uint32_t every_ms, uint32_t burst)
{
    g->every_ns = every_ms * (uint64_t)1000000;
    g->burst = burst;
}

void group_start(struct group *g)
{
    g->busy = g->lane_count;
    g->due_ns = now_ns();
    for (uint32_t i = 0; i < g->lane_count; i++) {
        lane_begin(&g->lanes[i]);
    }
    for (uint32_t i = 0; i < g->conn_count; i++) {
        conn_flush(&g->conns[i]);
    }
}

uint64_t group_wake(struct group *g, uint64_t now)
{
    if (g->every_ns == 0 || g->busy == 0) {
        return UINT64_MAX;
    }
    while (g->resting > 0 && g->due_ns <= now) {
        struct lane *lane = &g->lanes[g->paced];

        g->paced = (g->paced + 1) % g->lane_count;
        g->due_ns += g->every_ns / g->lane_count;
        if (lane->resting) { /* else it is still at its last burst: the period is too short */
            lane->resting = false;
            lane->burst_left = g->burst;
            g->resting--;
            lane_begin(lane);
            conn_flush(lane->conn);
        }
    }
    return g->resting > 0 ? g->due_ns : UINT64_MAX;
}

void group_stop(struct group *g)
{
    g->stopping = true;
    g->busy -= g->resting;
    g->resting = 0;
}

uint64_t group_hash(const struct group *g)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < g->lane_count; i++) {
        sum += g->lanes[i].hash;
    }
    return sum;
}

void group_close(struct group *g)
{
    for (uint32_t i = 0; i < g->conn_count; i++) {
        transport_close(&g->conns[i].transport);
        free(g->conns[i].in.data);
        free(g->conns[i].out.data);
    }
    free(g->conns);
    free(g->lanes);
    free(g->queues);
}
