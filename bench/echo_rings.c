/*
 * The floor for rings: what any daemon must do for them, and nothing else. A wake-up costs one
 * read of up to 64 ports and one write that unmasks them, each ring that moved one notification.
 *
 * The functions of libxenevtchn and libxengnttab are looked up at run time: they are there when
 * the fake Xen is preloaded. Rings are answered only as far as there is room for replies; the
 * rest stays until the guest has taken some. A guest that breaks its ring is not served.
 */
#define _GNU_SOURCE
#include "echo.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RING = 1024,
    DOMIDS = 0x8000,
    PORTS = 0x8000,
    EVENTS = 64,
    INPUT_BYTES = HEADER_BYTES + PAYLOAD_BYTES_MAX + RING,
};

struct page {
    uint8_t request[RING];
    uint8_t response[RING];
    uint32_t req_cons, req_prod;
    uint32_t rsp_cons, rsp_prod;
};

struct ring {
    struct page *page;
    uint32_t port;
    size_t in_bytes;
    uint8_t in[INPUT_BYTES];
};

static struct {
    void *(*open)(void *logger, unsigned flags);
    int (*fd)(void *handle);
    int (*bind)(void *handle, uint32_t domid, uint32_t port);
    int (*unbind)(void *handle, uint32_t port);
    int (*notify)(void *handle, uint32_t port);
    void *(*map)(void *handle, uint32_t domid, uint32_t reference, int protection);
    int (*unmap)(void *handle, void *page, uint32_t pages);
    void *(*open_grants)(void *logger, unsigned flags);
    void *channels;
    void *grants;
    int descriptor;
} xen;

static struct ring *by_domid[DOMIDS];
static struct ring *by_port[PORTS];

/* POSIX wants this way round the difference between functions and data. */
#define LOOK_UP(member, name) (*(void **)&xen.member = dlsym(RTLD_DEFAULT, name))

int rings_open(void)
{
    LOOK_UP(open, "xenevtchn_open");
    LOOK_UP(fd, "xenevtchn_fd");
    LOOK_UP(bind, "xenevtchn_bind_interdomain");
    LOOK_UP(unbind, "xenevtchn_unbind");
    LOOK_UP(notify, "xenevtchn_notify");
    LOOK_UP(map, "xengnttab_map_grant_ref");
    LOOK_UP(unmap, "xengnttab_unmap");
    LOOK_UP(open_grants, "xengnttab_open");
    if (xen.open == NULL) {
        return -1;
    }
    xen.channels = xen.open(NULL, 0);
    xen.grants = xen.open_grants(NULL, 0);
    if (xen.channels == NULL || xen.grants == NULL) {
        die("the fake Xen");
    }
    xen.descriptor = xen.fd(xen.channels);
    return xen.descriptor;
}

static void ring_forget(struct ring *r)
{
    by_port[r->port] = NULL;
    (void)xen.unbind(xen.channels, r->port);
    (void)xen.unmap(xen.grants, r->page, 1);
    free(r);
}

void rings_introduce(const char *payload, size_t n)
{
    char text[64];
    const char *port_text;
    unsigned long domid;
    struct ring *r;
    int port;

    if (xen.channels == NULL || n >= sizeof(text)) {
        return;
    }
    memset(text, 0, sizeof(text));
    memcpy(text, payload, n);
    domid = strtoul(text, NULL, 10);
    port_text = text + strlen(text) + 1;
    port_text += strlen(port_text) + 1;
    if (domid >= DOMIDS || port_text >= text + sizeof(text)) {
        return;
    }
    if (by_domid[domid] != NULL) {
        ring_forget(by_domid[domid]);
        by_domid[domid] = NULL;
    }
    r = calloc(1, sizeof(*r));
    port = xen.bind(xen.channels, (uint32_t)domid, (uint32_t)strtoul(port_text, NULL, 10));
    if (r == NULL || port <= 0 || port >= PORTS) {
        die("INTRODUCE");
    }
    r->port = (uint32_t)port;
    r->page = xen.map(xen.grants, (uint32_t)domid, 1, 3);
    if (r->page == NULL) {
        die("the ring's page");
    }
    memset(&r->page->req_cons, 0, 4 * sizeof(uint32_t));
    by_domid[domid] = r;
    by_port[port] = r;
}

/* Takes what is there, answers as much as there is room for. Returns whether an index moved. */
static bool ring_serve(struct ring *r, const struct answers *a)
{
    static uint8_t out[RING + REPLY_BYTES_MAX];
    struct page *p = r->page;
    uint32_t cons = __atomic_load_n(&p->req_cons, __ATOMIC_RELAXED);
    uint32_t ready = __atomic_load_n(&p->req_prod, __ATOMIC_ACQUIRE) - cons;
    uint32_t prod = __atomic_load_n(&p->rsp_prod, __ATOMIC_RELAXED);
    uint32_t room = RING - (prod - __atomic_load_n(&p->rsp_cons, __ATOMIC_ACQUIRE));
    size_t at = 0;
    size_t out_bytes = 0;
    size_t first;

    if (ready > RING || room > RING) {
        return false;
    }
    if (ready > INPUT_BYTES - r->in_bytes) {
        ready = (uint32_t)(INPUT_BYTES - r->in_bytes);
    }
    first = ready < RING - cons % RING ? ready : RING - cons % RING;
    memcpy(r->in + r->in_bytes, p->request + cons % RING, first);
    memcpy(r->in + r->in_bytes + first, p->request, ready - first);
    r->in_bytes += ready;
    __atomic_store_n(&p->req_cons, cons + ready, __ATOMIC_SEQ_CST);
    while (r->in_bytes - at >= HEADER_BYTES) {
        struct header h;
        size_t n;

        memcpy(&h, r->in + at, HEADER_BYTES);
        if (h.len > PAYLOAD_BYTES_MAX || r->in_bytes - at - HEADER_BYTES < h.len) {
            break;
        }
        n = answer(out + out_bytes, a, h);
        if (out_bytes + n > room) {
            break;
        }
        out_bytes += n;
        at += HEADER_BYTES + h.len;
    }
    r->in_bytes -= at;
    memmove(r->in, r->in + at, r->in_bytes);
    first = out_bytes < RING - prod % RING ? out_bytes : RING - prod % RING;
    memcpy(p->response + prod % RING, out, first);
    memcpy(p->response, out + first, out_bytes - first);
    __atomic_store_n(&p->rsp_prod, prod + (uint32_t)out_bytes, __ATOMIC_SEQ_CST);
    return ready > 0 || out_bytes > 0;
}

void rings_serve(const struct answers *a)
{
    uint32_t ports[EVENTS];
    ssize_t n = read(xen.descriptor, ports, sizeof(ports));
    size_t count = n > 0 ? (size_t)n / sizeof(ports[0]) : 0;

    for (size_t i = 0; i < count; i++) {
        struct ring *r = ports[i] < PORTS ? by_port[ports[i]] : NULL;

        if (r != NULL && ring_serve(r, a)) {
            (void)xen.notify(xen.channels, ports[i]);
        }
    }
    if (count > 0 && write(xen.descriptor, ports, count * sizeof(ports[0])) < 0) {
        die("unmasking");
    }
}
