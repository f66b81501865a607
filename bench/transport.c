#define _GNU_SOURCE
#include "transport.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { PORTION_BYTES = 16 };

int socket_connect(const char *path)
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

void transport_socket(struct transport *t, const char *path)
{
    *t = (struct transport){.fd = socket_connect(path)};
}

void transport_ring(struct transport *t, struct host *host, uint32_t domid, bool sparing)
{
    *t = (struct transport){
        .fd = -1, .host = host, .ring = host->page[domid], .domid = domid, .sparing = sparing};
}

static void kick(struct transport *t)
{
    if (fakexen_kick(&t->host->fx, t->domid) != 0) {
        fail("kick of domain %u: %s", t->domid, strerror(errno));
    }
}

static size_t ring_send(struct transport *t, const uint8_t *bytes, size_t n)
{
    struct fakexen_ring *r = t->ring;
    uint32_t prod = __atomic_load_n(&r->req_prod, __ATOMIC_RELAXED);
    uint32_t cons = __atomic_load_n(&r->req_cons, __ATOMIC_SEQ_CST);
    uint32_t room = FAKEXEN_RING - (prod - cons);
    uint32_t at = prod % FAKEXEN_RING;
    size_t first;

    if (prod - cons > FAKEXEN_RING) {
        fail("domain %u: the daemon broke the request ring", t->domid);
    }
    if (t->sparing && n > PORTION_BYTES) {
        n = PORTION_BYTES;
    }
    if (n > room) {
        n = room;
    }
    if (n == 0) {
        return 0;
    }
    first = n < FAKEXEN_RING - at ? n : FAKEXEN_RING - at;
    memcpy(r->request + at, bytes, first);
    memcpy(r->request, bytes + first, n - first);
    __atomic_store_n(&r->req_prod, prod + (uint32_t)n, __ATOMIC_SEQ_CST);
    if (!t->sparing || __atomic_load_n(&r->req_cons, __ATOMIC_SEQ_CST) == prod) {
        kick(t);
    }
    return n;
}

static size_t ring_receive(struct transport *t, uint8_t *bytes, size_t cap)
{
    struct fakexen_ring *r = t->ring;
    uint32_t cons = __atomic_load_n(&r->rsp_cons, __ATOMIC_RELAXED);
    uint32_t ready = __atomic_load_n(&r->rsp_prod, __ATOMIC_SEQ_CST) - cons;
    uint32_t at = cons % FAKEXEN_RING;
    size_t n = ready < cap ? ready : cap;
    size_t first = n < FAKEXEN_RING - at ? n : FAKEXEN_RING - at;

    if (ready > FAKEXEN_RING) {
        fail("domain %u: the daemon broke the response ring", t->domid);
    }
    if (n == 0) {
        return 0;
    }
    memcpy(bytes, r->response + at, first);
    memcpy(bytes + first, r->response, n - first);
    __atomic_store_n(&r->rsp_cons, cons + (uint32_t)n, __ATOMIC_SEQ_CST);
    /* Loaded again: it may have become full while its bytes were copied. */
    if (__atomic_load_n(&r->rsp_prod, __ATOMIC_SEQ_CST) - cons >= FAKEXEN_RING) {
        kick(t);
    }
    return n;
}

size_t transport_send(struct transport *t, const uint8_t *bytes, size_t n)
{
    ssize_t sent;

    if (t->fd < 0) {
        return ring_send(t, bytes, n);
    }
    sent = send(t->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
        return 0;
    }
    if (sent <= 0) {
        fail("send: %s", strerror(errno));
    }
    return (size_t)sent;
}

size_t transport_receive(struct transport *t, uint8_t *bytes, size_t cap)
{
    ssize_t got;

    if (t->fd < 0) {
        return ring_receive(t, bytes, cap);
    }
    got = recv(t->fd, bytes, cap, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (got <= 0) {
        fail("the server closed a connection: %s", got < 0 ? strerror(errno) : "end of file");
    }
    return (size_t)got;
}

void transport_close(struct transport *t)
{
    if (t->fd >= 0) {
        (void)close(t->fd);
    }
}
