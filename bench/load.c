/*
 * load: one client process that plays many, against any xenstored on a unix socket.
 *
 *      phase ──┬── group (a script, its figures)          "the measured clients"
 *              │     ├── conn ── fd, input, output, queue of lanes that wait for a reply
 *              │     │     ├── lane   one simulated client: where it is in the script
 *              │     │     └── lane
 *              │     └── conn ...
 *              └── group "the probe": one synchronous reader beside them, if asked for
 *
 * A lane has at most one request under way; D lanes on one connection are a pipeline of depth D.
 * Replies of a connection come in order, so a queue of lanes and a running req_id match them, and
 * a reply that is late, early or foreign is found at once. In lockstep (the usual case) a
 * connection sends its next requests when all replies of the last batch are in, so that every
 * server sees batches of the same size; with --window it sends as soon as it can.
 *
 * Every reply is checked (type, ids, and the payload where it is known) and hashed. A lane's hash
 * is a chain, the total is the sum over lanes: the same whatever the interleaving. Left out are
 * what servers may choose: transaction ids, the order of children, attempts that ended in EAGAIN.
 *
 * The figure is the server's own CPU time, read from its process clock before and after, when it
 * has come to rest: work put off until after the reply is counted. One JSON object is printed.
 * Exit code 0; 1 when a reply was wrong or did not come (the object then has only "error");
 * 2 for a mistake on the command line.
 *
 * Bounds: --limit seconds for everything measured, a stall limit for each wait, MAX_* for counts.
 */
#define _GNU_SOURCE
#include "histogram.h"
#include "proto.h"
#include "script.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define FNV_START 14695981039346656037u
#define FNV_PRIME 1099511628211u

enum {
    MAX_CONNECTIONS = 20000,
    MAX_LANES = 200000,
    MAX_INPUT_BYTES = 64 << 20,
    INPUT_BYTES = 32 << 10,
    EVENTS = 256,
    STALL_S = 60,             /* no reply at all for so long: the server hangs */
    PROBE_BEFORE = 200,       /* reads of the probe before the others start */
    PROBE_AFTER_NS = 50000000 /* how long it goes on when they are done */
};

enum keys { KEYS_RANDOM, KEYS_OWN, KEYS_SAME };

struct options {
    const char *mode;
    const char *socket;
    const char *path;
    pid_t pid;
    int cpu;
    uint64_t ops;
    uint64_t warm;
    uint64_t nodes;
    uint32_t connections;
    uint32_t depth;
    uint32_t value_bytes;
    uint32_t idle;
    uint32_t watches;
    uint32_t limit_s;
    enum keys keys;
    bool probe;
    bool floor;
    bool window;
};

struct buffer {
    uint8_t *data;
    size_t cap;
    size_t start;
    size_t end;
};

struct lane {
    struct conn *conn;
    struct blanks blanks;
    uint64_t left;
    uint64_t next_sequence;
    uint64_t rng;
    uint64_t begun_ns;
    uint64_t hash;
    uint64_t hash_at_start; /* of the transaction: an attempt that failed is forgotten */
    uint64_t names_hash;
    uint64_t offset; /* into a child list that comes in parts */
    uint32_t step;
    uint32_t start_step;
    uint32_t tx_id;
    uint8_t sent_type;
    bool in_parts;
};

struct conn {
    struct group *group;
    struct lane *lanes;
    uint32_t *queue; /* ring of lane_count places: lanes whose request is queued or sent */
    uint32_t lane_count;
    uint32_t head;
    uint32_t queued;
    uint32_t unsent;
    uint32_t next_req_id;
    uint32_t expected_req_id;
    int fd;
    bool want_write;
    struct buffer in;
    struct buffer out;
};

struct group {
    const struct script *script;
    const struct options *options;
    struct conn *conns;
    struct lane *lanes;
    uint32_t *queues;
    uint32_t conn_count;
    uint32_t lane_count;
    uint32_t busy; /* lanes that are not done */
    bool window;
    bool endless;
    uint64_t ops;
    uint64_t requests;
    uint64_t retries;
    uint64_t events;
    uint64_t names;
    struct histogram latency;
};

struct phase {
    int epoll;
    uint64_t deadline_ns;
    bool stopping; /* no request leaves any more */
    bool truncated;
};

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    printf("{\"error\": \"");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ' || (unsigned char)*c > '~') {
            putchar('?');
        } else {
            putchar(*c);
        }
    }
    printf("\"}\n");
    fprintf(stderr, "load: %s\n", text);
    exit(1);
}

static void *make(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);

    if (p == NULL) {
        fail("out of memory");
    }
    return p;
}

static uint64_t fnv(uint64_t hash, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;

    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ b[i]) * FNV_PRIME;
    }
    return hash;
}

/* ---- the server's clock --------------------------------------------------------------------- */

/* CPU time in ns of all threads of process `pid`, exited ones included; 0 when there is no pid. */
static uint64_t server_cpu_ns(pid_t pid)
{
    clockid_t clock;

    if (pid <= 0) {
        return 0;
    }
    if (clock_getcpuclockid(pid, &clock) != 0) {
        fail("no process %d", (int)pid);
    }
    return clock_ns(clock);
}

/* As above, once the process has rested for 5 ms; waits for that no longer than 2 s. */
static uint64_t server_cpu_at_rest_ns(pid_t pid)
{
    struct timespec pause = {0, 5000000};
    uint64_t last = server_cpu_ns(pid);

    for (int i = 0; pid > 0 && i < 400; i++) {
        uint64_t now;

        (void)nanosleep(&pause, NULL);
        now = server_cpu_ns(pid);
        if (now - last < 20000) {
            return last;
        }
        last = now;
    }
    return last;
}

/* ---- sockets -------------------------------------------------------------------------------- */

static int socket_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = STALL_S};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        fail("socket: %s", strerror(errno));
    }
    if (strlen(path) >= sizeof(address.sun_path)) {
        fail("socket path too long: %s", path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    /* Bounds connect() too, when the server's backlog is full. */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        fail("connect %s: %s", path, strerror(errno));
    }
    return fd;
}

static void buffer_reserve(struct buffer *b, size_t room)
{
    size_t used = b->end - b->start;
    size_t cap = b->cap > 0 ? b->cap : INPUT_BYTES;

    if (b->start > 0) {
        memmove(b->data, b->data + b->start, used);
        b->start = 0;
        b->end = used;
    }
    while (cap < used + room) {
        cap *= 2;
    }
    if (cap > MAX_INPUT_BYTES) {
        fail("a buffer would grow beyond %d bytes", MAX_INPUT_BYTES);
    }
    if (cap != b->cap) {
        b->data = realloc(b->data, cap);
        if (b->data == NULL) {
            fail("out of memory");
        }
        b->cap = cap;
    }
}

static void conn_watch(const struct phase *phase, struct conn *c, bool want_write)
{
    struct epoll_event event = {.events = EPOLLIN | (want_write ? (uint32_t)EPOLLOUT : 0u),
                                .data.ptr = c};

    c->want_write = want_write;
    if (epoll_ctl(phase->epoll, EPOLL_CTL_MOD, c->fd, &event) != 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
}

/* Sends what is queued, unless the batch before it is still being answered. */
static void conn_flush(const struct phase *phase, struct conn *c)
{
    uint64_t now;

    if (c->out.start == c->out.end || c->want_write) {
        return;
    }
    if (!c->group->window && c->unsent != c->queued) {
        return;
    }
    now = now_ns();
    for (uint32_t i = c->queued - c->unsent; i < c->queued; i++) {
        struct lane *lane = &c->lanes[c->queue[(c->head + i) % c->lane_count]];

        if (lane->begun_ns == 0) {
            lane->begun_ns = now;
        }
    }
    c->unsent = 0;
    while (c->out.start < c->out.end) {
        ssize_t n = send(c->fd, c->out.data + c->out.start, c->out.end - c->out.start,
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            conn_watch(phase, c, true);
            return;
        }
        if (n <= 0) {
            fail("send: %s", strerror(errno));
        }
        c->out.start += (size_t)n;
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
        case KEYS_RANDOM: lane->blanks.key[i] = lane_random(lane) % nodes; break;
        case KEYS_OWN:
            lane->blanks.key[i] = (lane->blanks.lane * share + lane_random(lane) % share) % nodes;
            break;
        case KEYS_SAME: lane->blanks.key[i] = i % nodes; break;
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
    if (step->arg == NULL || step->type == MSG_READ) {
        return len;
    }
    len += template_fill(out + len, cap - len - 1, step->arg, &lane->blanks);
    if (step->type == MSG_WRITE) {
        return len;
    }
    out[len++] = '\0';
    for (size_t i = path; step->type == MSG_SET_PERMS && i < len; i++) {
        if (out[i] == ',') {
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
static void lane_begin(const struct phase *phase, struct lane *lane)
{
    struct group *g = lane->conn->group;

    if (phase->stopping || (lane->left == 0 && !g->endless)) {
        g->busy--;
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
    size_t len = step->path == NULL ? 0 : template_fill(path, sizeof(path) - 1, step->path,
                                                        &lane->blanks);

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
    switch (lane->sent_type) {
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
    case MSG_TRANSACTION_START: return;
    default:
        if (!payload_is(payload, n, "OK")) {
            lane_complain(lane, "not OK", payload, n);
        }
    }
}

/* An error reply; returns whether the lane has already queued its next request. */
static bool lane_take_error(const struct phase *phase, struct lane *lane, const uint8_t *payload,
                            size_t n)
{
    const struct step *step = &lane->conn->group->script->steps[lane->step];

    if (step->type == MSG_TRANSACTION_END && payload_is(payload, n, "EAGAIN")) {
        lane->conn->group->retries++;
        lane->hash = lane->hash_at_start;
        lane->step = lane->start_step;
        if (phase->stopping) {
            lane->conn->group->busy--;
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
static void lane_take(const struct phase *phase, struct lane *lane, const struct header *h,
                      const uint8_t *payload, uint64_t now)
{
    struct group *g = lane->conn->group;
    uint32_t hashed_type = h->type;

    if (h->type == MSG_ERROR) {
        if (lane_take_error(phase, lane, payload, h->len)) {
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
            if (phase->stopping) {
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
        if (phase->stopping) {
            g->busy--;
        } else {
            lane_send(lane);
        }
        return;
    }
    g->ops++;
    histogram_add(&g->latency, now - lane->begun_ns);
    lane_begin(phase, lane);
}

/* ---- connections at work -------------------------------------------------------------------- */

static void conn_take(const struct phase *phase, struct conn *c, const struct header *h,
                      const uint8_t *payload, uint64_t now)
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
    if (h->tx_id != (c->group->script->steps[lane->step].flags & STEP_IN_TX ? lane->tx_id : 0)) {
        fail("reply with tx_id %u that the request did not have", h->tx_id);
    }
    lane_take(phase, lane, h, payload, now);
}

static void conn_input(const struct phase *phase, struct conn *c)
{
    uint64_t now;
    ssize_t n;

    if (c->in.cap - c->in.end < INPUT_BYTES / 2) {
        buffer_reserve(&c->in, INPUT_BYTES);
    }
    n = recv(c->fd, c->in.data + c->in.end, c->in.cap - c->in.end, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        fail("the server closed a connection: %s", n < 0 ? strerror(errno) : "end of file");
    }
    now = now_ns();
    c->in.end += (size_t)n;
    while (c->in.end - c->in.start >= HEADER_BYTES) {
        struct header h;

        memcpy(&h, c->in.data + c->in.start, HEADER_BYTES);
        /* oxenstored sends lists longer than the protocol's 4096 bytes in one frame. */
        if (h.len > MAX_INPUT_BYTES / 4) {
            fail("a reply of %u bytes", h.len);
        }
        if (c->in.end - c->in.start - HEADER_BYTES < h.len) {
            break;
        }
        conn_take(phase, c, &h, c->in.data + c->in.start + HEADER_BYTES, now);
        c->in.start += HEADER_BYTES + h.len;
    }
    if (c->in.start == c->in.end) {
        c->in.start = 0;
        c->in.end = 0;
    }
}

static void group_open(struct group *g, const struct options *o, const struct script *script,
                       uint32_t conn_count, uint32_t depth)
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
        c->fd = socket_connect(o->socket);
        c->lane_count = depth;
        c->lanes = g->lanes + (size_t)i * depth;
        c->queue = g->queues + (size_t)i * depth;
    }
}

/* Back to the state before the first operation; the connections stay. */
static void group_reset(struct group *g, const struct script *script, uint64_t ops)
{
    g->script = script;
    g->busy = 0;
    g->ops = 0;
    g->requests = 0;
    g->retries = 0;
    g->events = 0;
    g->names = 0;
    memset(&g->latency, 0, sizeof(g->latency));
    memset(g->lanes, 0, g->lane_count * sizeof(*g->lanes));
    for (uint32_t i = 0; i < g->lane_count; i++) {
        struct lane *lane = &g->lanes[i];

        lane->conn = &g->conns[i / (g->lane_count / g->conn_count)];
        lane->hash = FNV_START;
        lane->rng = 0x9e3779b97f4a7c15u * (i + 1u) | 1u;
        lane->left = ops / g->lane_count + (i < ops % g->lane_count ? 1u : 0u);
        lane->blanks.lane = i;
        lane->next_sequence = i;
        lane->blanks.value_bytes = g->options->value_bytes;
        lane->blanks.root = g->options->path;
    }
}

static void group_start(const struct phase *phase, struct group *g)
{
    g->busy = g->lane_count;
    for (uint32_t i = 0; i < g->lane_count; i++) {
        lane_begin(phase, &g->lanes[i]);
    }
    for (uint32_t i = 0; i < g->conn_count; i++) {
        conn_flush(phase, &g->conns[i]);
    }
}

static void group_watch(const struct phase *phase, struct group *g)
{
    for (uint32_t i = 0; i < g->conn_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &g->conns[i]};

        if (epoll_ctl(phase->epoll, EPOLL_CTL_ADD, g->conns[i].fd, &event) != 0) {
            fail("epoll_ctl: %s", strerror(errno));
        }
    }
}

static uint64_t group_hash(const struct group *g)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < g->lane_count; i++) {
        sum += g->lanes[i].hash;
    }
    return sum;
}

static void group_close(struct group *g)
{
    for (uint32_t i = 0; i < g->conn_count; i++) {
        (void)close(g->conns[i].fd);
        free(g->conns[i].in.data);
        free(g->conns[i].out.data);
    }
    free(g->conns);
    free(g->lanes);
    free(g->queues);
}

/* ---- phases --------------------------------------------------------------------------------- */

/* Waits once and serves what is ready. */
static void phase_turn(struct phase *phase)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(phase->epoll, events, EVENTS, STALL_S * 1000);

    if (n == 0) {
        fail("no reply for %d s", STALL_S);
    }
    if (n < 0 && errno != EINTR) {
        fail("epoll_wait: %s", strerror(errno));
    }
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;

        if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0) {
            conn_input(phase, c);
        }
        if (c->want_write) {
            conn_watch(phase, c, false);
        }
        conn_flush(phase, c);
    }
    if (!phase->stopping && now_ns() > phase->deadline_ns) {
        phase->stopping = true;
        phase->truncated = true;
    }
}

/*
 * Runs `main` until its operations are done or time is up. With a probe beside it, the probe reads
 * alone for a while first, and for a while after: work put off until after the reply hurts too.
 */
static bool phase_run(const struct options *o, struct group *main, struct group *probe)
{
    struct phase phase = {.epoll = epoll_create1(EPOLL_CLOEXEC),
                          .deadline_ns = now_ns() + (uint64_t)o->limit_s * 1000000000u};
    uint64_t main_done_ns = 0;

    if (phase.epoll < 0) {
        fail("epoll_create1: %s", strerror(errno));
    }
    group_watch(&phase, main);
    if (probe != NULL) {
        group_watch(&phase, probe);
        group_start(&phase, probe);
        while (probe->ops < PROBE_BEFORE && !phase.stopping) {
            phase_turn(&phase);
        }
        memset(&probe->latency, 0, sizeof(probe->latency));
    }
    group_start(&phase, main);
    while (main->busy > 0 || (probe != NULL && probe->busy > 0)) {
        phase_turn(&phase);
        if (main->busy == 0 && main_done_ns == 0) {
            main_done_ns = now_ns();
        }
        if (main->busy == 0 && !phase.stopping && now_ns() > main_done_ns + PROBE_AFTER_NS) {
            phase.stopping = true;
        }
    }
    (void)close(phase.epoll);
    return !phase.truncated;
}

/* One script, once, on a connection of its own, unmeasured. */
static void script_run_once(const struct options *o, const char *name)
{
    struct group g;

    if (name == NULL) {
        return;
    }
    group_open(&g, o, script_find(name), 1, 1);
    group_reset(&g, script_find(name), 1);
    if (!phase_run(o, &g, NULL)) {
        fail("%s: not done within %u s", name, o->limit_s);
    }
    group_close(&g);
}

/* Watches on paths that nobody touches, up to 1000 on one connection; they stay until the end. */
static void watches_place(const struct options *o, struct group *g)
{
    uint32_t conns = (o->watches + 999) / 1000;
    uint64_t events = 0;
    struct phase phase = {.deadline_ns = now_ns() + (uint64_t)o->limit_s * 1000000000u};

    group_open(g, o, script_find("watch"), conns, (o->watches + conns - 1) / conns);
    group_reset(g, script_find("watch"), o->watches);
    if (!phase_run(o, g, NULL)) {
        fail("%u watches: not placed within %u s", o->watches, o->limit_s);
    }
    events = g->events;
    phase.epoll = epoll_create1(EPOLL_CLOEXEC);
    group_watch(&phase, g);
    /* Each watch fires once when it is placed; these events must be out of the way. */
    for (uint32_t i = 0; !o->floor && events < o->watches && i < MAX_LANES; i++) {
        phase_turn(&phase);
        events = g->events;
    }
    (void)close(phase.epoll);
}

static int *idle_open(const struct options *o)
{
    int *fds = make(o->idle, sizeof(*fds));

    for (uint32_t i = 0; i < o->idle; i++) {
        fds[i] = socket_connect(o->socket);
    }
    return fds;
}

/* ---- connect, one operation, close ---------------------------------------------------------- */

static void whole(int fd, uint8_t *at, size_t n, bool sending)
{
    while (n > 0) {
        ssize_t done = sending ? send(fd, at, n, MSG_NOSIGNAL) : recv(fd, at, n, 0);

        if (done <= 0) {
            fail("a short-lived client got no answer: %s", done < 0 ? strerror(errno) : "closed");
        }
        at += done;
        n -= (size_t)done;
    }
}

/* A client that lives for one READ of the probe's node; returns the reply's hash. */
static uint64_t churn_once(const struct options *o, uint32_t req_id)
{
    static const char path[] = "/bench/probe";
    uint8_t frame[HEADER_BYTES + PAYLOAD_BYTES_MAX];
    struct header h = {.type = MSG_READ, .req_id = req_id, .len = sizeof(path)};
    uint64_t hash;
    int fd = socket_connect(o->socket);

    memcpy(frame, &h, HEADER_BYTES);
    memcpy(frame + HEADER_BYTES, path, sizeof(path));
    whole(fd, frame, HEADER_BYTES + sizeof(path), true);
    whole(fd, frame, HEADER_BYTES, false);
    memcpy(&h, frame, HEADER_BYTES);
    if (h.type != MSG_READ || h.req_id != req_id || h.len > PAYLOAD_BYTES_MAX) {
        fail("a short-lived client got type %u, req_id %u, %u bytes", h.type, h.req_id, h.len);
    }
    whole(fd, frame, h.len, false);
    if (!o->floor && (h.len != 5 || memcmp(frame, "value", 5) != 0)) {
        fail("a short-lived client read '%.*s'", (int)h.len, (const char *)frame);
    }
    hash = fnv(fnv(FNV_START, &h.type, sizeof(h.type)), frame, h.len);
    (void)close(fd);
    return hash;
}

/* ---- the result ----------------------------------------------------------------------------- */

struct result {
    uint64_t ops;
    uint64_t requests;
    uint64_t retries;
    uint64_t events;
    uint64_t names;
    uint64_t checksum;
    uint64_t wall_ns;
    uint64_t server_ns;
    uint64_t client_ns;
    bool complete;
    const struct histogram *latency;
    const struct histogram *probe;
};

static void print_per(const char *name, uint64_t ns, uint64_t count, bool known)
{
    if (known && count > 0) {
        printf(", \"%s\": %.1f", name, (double)ns / (double)count);
    } else {
        printf(", \"%s\": null", name);
    }
}

static void print_latency(const char *name, const struct histogram *h)
{
    if (h == NULL) {
        printf(", \"%s\": null", name);
        return;
    }
    printf(", \"%s\": {\"count\": %" PRIu64 ", \"p50\": %" PRIu64 ", \"p99\": %" PRIu64
           ", \"max\": %" PRIu64 "}",
           name, h->count, histogram_at(h, 500), histogram_at(h, 990), h->max);
}

static void print_result(const struct options *o, const struct result *r)
{
    bool known = o->pid > 0;

    printf("{\"mode\": \"%s\", \"connections\": %u, \"depth\": %u, \"idle\": %u, "
           "\"watches\": %u, \"nodes\": %" PRIu64 ", \"ops\": %" PRIu64 ", \"requests\": %" PRIu64
           ", \"retries\": %" PRIu64 ", \"events\": %" PRIu64 ", \"names\": %" PRIu64,
           o->mode, o->connections, o->depth, o->idle, o->watches, o->nodes, r->ops, r->requests,
           r->retries, r->events, r->names);
    printf(", \"truncated\": %s, \"wall_ns\": %" PRIu64 ", \"client_cpu_ns\": %" PRIu64,
           r->complete ? "false" : "true", r->wall_ns, r->client_ns);
    print_per("server_cpu_ns", r->server_ns, 1, known);
    print_per("server_ns_per_op", r->server_ns, r->ops, known);
    print_per("server_ns_per_request", r->server_ns, r->requests, known);
    print_per("wall_ns_per_op", r->wall_ns, r->ops, true);
    print_latency("latency_ns", r->latency);
    print_latency("probe_ns", r->probe);
    if (r->complete && !o->floor) {
        printf(", \"checksum\": \"%016" PRIx64 "\"}\n", r->checksum);
    } else {
        printf(", \"checksum\": null}\n");
    }
}

static void result_begin(struct result *r, const struct options *o)
{
    r->server_ns = server_cpu_at_rest_ns(o->pid);
    r->client_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    r->wall_ns = now_ns();
}

static void result_end(struct result *r, const struct options *o)
{
    r->wall_ns = now_ns() - r->wall_ns;
    r->client_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - r->client_ns;
    r->server_ns = server_cpu_at_rest_ns(o->pid) - r->server_ns;
}

static void measure_churn(const struct options *o)
{
    static struct histogram latency;
    struct result r = {.complete = true, .latency = &latency};
    uint64_t deadline;

    script_run_once(o, "probe-before");
    result_begin(&r, o);
    deadline = r.wall_ns + (uint64_t)o->limit_s * 1000000000u;
    for (uint64_t i = 0; i < o->ops && r.complete; i++) {
        uint64_t begun = now_ns();

        r.checksum += churn_once(o, (uint32_t)i);
        r.ops++;
        histogram_add(&latency, now_ns() - begun);
        r.complete = begun < deadline || i + 1 == o->ops;
    }
    result_end(&r, o);
    r.requests = r.ops;
    print_result(o, &r);
}

static void measure_script(const struct options *o, const struct script *script)
{
    static struct group group;
    static struct group probe;
    struct result r = {0};

    script_run_once(o, script->before);
    group_open(&group, o, script, o->connections, o->depth);
    group.window = o->window;
    if (o->probe) {
        script_run_once(o, "probe-before");
        group_open(&probe, o, script_find("probe"), 1, 1);
        group_reset(&probe, probe.script, 0);
        probe.endless = true;
    }
    /* Each connection says something first, so that none is measured while being accepted. */
    group_reset(&group, script, o->warm);
    if (o->warm > 0 && !phase_run(o, &group, NULL)) {
        fail("%s: warm-up not done within %u s", o->mode, o->limit_s);
    }
    group_reset(&group, script, o->ops);
    result_begin(&r, o);
    r.complete = phase_run(o, &group, o->probe ? &probe : NULL);
    result_end(&r, o);
    r.ops = group.ops;
    r.requests = group.requests;
    r.retries = group.retries;
    r.events = group.events;
    r.names = group.names;
    r.checksum = group_hash(&group);
    r.latency = &group.latency;
    r.probe = o->probe ? &probe.latency : NULL;
    group_close(&group);
    script_run_once(o, script->after);
    print_result(o, &r);
}

/* ---- command line --------------------------------------------------------------------------- */

static void usage(void)
{
    fprintf(stderr,
            "usage: load MODE --socket PATH [options]\n\n"
            "  -s --socket PATH      the server's unix socket\n"
            "  -p --pid PID          the server's process, for its CPU time\n"
            "  -a --cpu N            run on this CPU only\n"
            "  -n --ops N            operations in all (default 1000)\n"
            "  -m --warm N           operations before those, unmeasured (default 0)\n"
            "  -c --connections N    connections (default 1)\n"
            "  -d --depth N          requests under way on each connection (default 1)\n"
            "  -k --value N          bytes of a leaf's value (default 16)\n"
            "  -N --nodes N          leaves in the tree (default 1000)\n"
            "  -K --keys HOW         leaves used: random, own (of each lane), same\n"
            "  -i --idle N           connections that do nothing, beside\n"
            "  -w --watches N        watches on paths that nobody touches, beside\n"
            "  -r --path PATH        for modes that work on one path (default /bench/w)\n"
            "  -b --probe            a synchronous reader beside; its latencies are reported\n"
            "  -W --window           refill a pipeline at once, not batch by batch\n"
            "  -f --floor            the server is the echo floor: check less, no checksum\n"
            "  -t --limit SECONDS    time for what is measured (default 60)\n\n"
            "Modes:\n");
    for (uint32_t i = 0; script_at(i) != NULL; i++) {
        fprintf(stderr, "  %-12s %s\n", script_at(i)->name, script_at(i)->help);
    }
    fprintf(stderr, "  %-12s %s\n", "churn", "connect, one READ, close");
    exit(2);
}

static uint64_t number(const char *text, uint64_t max)
{
    char *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || n > max) {
        fprintf(stderr, "load: '%s' is not a number from 0 to %" PRIu64 "\n", text, max);
        exit(2);
    }
    return n;
}

static enum keys keys_named(const char *text)
{
    if (strcmp(text, "own") == 0) {
        return KEYS_OWN;
    }
    if (strcmp(text, "same") == 0) {
        return KEYS_SAME;
    }
    if (strcmp(text, "random") != 0) {
        usage();
    }
    return KEYS_RANDOM;
}

static void options_parse(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"socket", required_argument, NULL, 's'}, {"pid", required_argument, NULL, 'p'},
        {"cpu", required_argument, NULL, 'a'},    {"ops", required_argument, NULL, 'n'},
        {"warm", required_argument, NULL, 'm'},   {"connections", required_argument, NULL, 'c'},
        {"depth", required_argument, NULL, 'd'},  {"value", required_argument, NULL, 'k'},
        {"nodes", required_argument, NULL, 'N'},  {"keys", required_argument, NULL, 'K'},
        {"idle", required_argument, NULL, 'i'},   {"watches", required_argument, NULL, 'w'},
        {"path", required_argument, NULL, 'r'},   {"probe", no_argument, NULL, 'b'},
        {"window", no_argument, NULL, 'W'},       {"floor", no_argument, NULL, 'f'},
        {"limit", required_argument, NULL, 't'},  {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "s:p:a:n:m:c:d:k:N:K:i:w:r:bWft:", names, NULL)) != -1) {
        switch (c) {
        case 's': o->socket = optarg; break;
        case 'p': o->pid = (pid_t)number(optarg, INT32_MAX); break;
        case 'a': o->cpu = (int)number(optarg, CPU_SETSIZE - 1); break;
        case 'n': o->ops = number(optarg, 1000000000); break;
        case 'm': o->warm = number(optarg, 1000000000); break;
        case 'c': o->connections = (uint32_t)number(optarg, MAX_CONNECTIONS); break;
        case 'd': o->depth = (uint32_t)number(optarg, MAX_LANES); break;
        case 'k': o->value_bytes = (uint32_t)number(optarg, 2048); break;
        case 'N': o->nodes = number(optarg, 100000000); break;
        case 'K': o->keys = keys_named(optarg); break;
        case 'i': o->idle = (uint32_t)number(optarg, MAX_CONNECTIONS); break;
        case 'w': o->watches = (uint32_t)number(optarg, MAX_LANES); break;
        case 'r': o->path = optarg; break;
        case 'b': o->probe = true; break;
        case 'W': o->window = true; break;
        case 'f': o->floor = true; break;
        case 't': o->limit_s = (uint32_t)number(optarg, 3600); break;
        default: usage();
        }
    }
    if (optind + 1 != argc || o->socket == NULL || o->connections == 0 || o->depth == 0 ||
        o->nodes == 0 || strlen(o->path) > 1024 ||
        (uint64_t)o->connections * o->depth > MAX_LANES) {
        usage();
    }
    o->mode = argv[optind];
}

int main(int argc, char **argv)
{
    static struct options o = {.path = "/bench/w", .cpu = -1, .ops = 1000, .nodes = 1000,
                               .connections = 1, .depth = 1, .value_bytes = 16, .limit_s = 60};
    static struct group watches;
    struct rlimit files;
    const struct script *script;
    int *idle;

    options_parse(&o, argc, argv);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    if (o.cpu >= 0) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET((size_t)o.cpu, &set);
        if (sched_setaffinity(0, sizeof(set), &set) != 0) {
            fail("CPU %d: %s", o.cpu, strerror(errno));
        }
    }
    idle = idle_open(&o);
    if (o.watches > 0) {
        watches_place(&o, &watches);
    }
    script = script_find(o.mode);
    if (strcmp(o.mode, "churn") == 0) {
        measure_churn(&o);
    } else if (script != NULL && script->help != NULL) {
        measure_script(&o, script);
    } else {
        usage();
    }
    free(idle);
    return 0;
}
