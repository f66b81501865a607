/*
 * A hypervisor made of files: what stands in its directory, and how guests use it.
 *
 * Two kinds of programs share the directory. The library of fakexen.c is inside a daemon and
 * answers what the daemon asks of Xen. Whoever plays guests includes this header (or loads the
 * library, which exports the same functions) and needs neither Xen nor the daemon for it.
 *
 *      guests                    directory                        daemon
 *      fakexen_kick() ──────►  events      FIFO of its ports ──►  read() of the event channels
 *      fakexen_take() ◄──────  mail/N      FIFO of domids    ◄──  xenevtchn_notify()
 *      fakexen_page() ◄─────►  pages       the ring pages    ◄─►  xengnttab_map_grant_ref() ...
 *      fakexen_create() ─────► state       struct fakexen_shared: domains, ports, counters
 *                              run log lib proc dev   where the daemon's fixed paths lead to
 *
 * A guest's notifications go to a mailbox: a FIFO that any number of guests share, since what
 * comes out of it are domids. One process that plays 4000 guests polls one descriptor.
 *
 *      struct fakexen fx;
 *      fakexen_open(&fx, getenv("XSD_FAKEXEN_DIR"));
 *      int box = fakexen_mailbox(&fx, 7);
 *      fakexen_create(&fx, 5, 3, 1000, 7);            domain 5, its port 3, gfn 1000, mailbox 7
 *      struct fakexen_ring *ring = fakexen_page(&fx, 5);
 *      ... over a socket: INTRODUCE 5 1000 3 ...
 *      ... write a request, advance ring->req_prod; fakexen_kick(&fx, 5); poll box; then
 *      count = fakexen_take(&fx, box, domids, 64);    and only now look at those rings
 *      fakexen_destroy(&fx, 5); fakexen_virq(&fx);
 *
 * Invariants. A port is bound, masked or pending as in Linux's event channel driver: an event on
 * an unmasked port masks it and queues it once; on a masked one it stays pending until the daemon
 * unmasks the port. So FIFOs hold at most one entry per port or domain and never fill up. A page
 * belongs to one life of a domid: creating the domain again takes the next of the file (which has
 * holes where pages were never written), and who still maps
 * the old one sees the dead domain's page. Numbers that both sides change are changed atomically.
 *
 * Functions that can fail return -1 (or NULL) and set errno. Costs: kick and take are one system
 * call each at most. Needs gnu11 or _GNU_SOURCE.
 */
#ifndef XSD_FAKEXEN_H
#define XSD_FAKEXEN_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAKEXEN_MAGIC 0x316e7866u
#define FAKEXEN_DOMAINS 0x7ff0u /* domids below the reserved ones */
#define FAKEXEN_PORTS 0x8000u   /* of the daemon; 0 is none */
#define FAKEXEN_RULES 16u
#define FAKEXEN_WORDS (FAKEXEN_DOMAINS / 64u + 1u)
#define FAKEXEN_PAGE 4096u
#define FAKEXEN_RING 1024u
#define FAKEXEN_LIVES (1u << 20) /* domains that there can be, one after the other */
#define FAKEXEN_FOREVER UINT32_MAX

/* What is known of a domain. */
#define FAKEXEN_EXISTS 1u
#define FAKEXEN_DYING 2u
#define FAKEXEN_SHUTDOWN 4u
#define FAKEXEN_DEAD 8u        /* dying is over, something still holds it */
#define FAKEXEN_HVM 16u        /* not a PV domain */
#define FAKEXEN_NO_GRANT 32u   /* its toolstack has not set grant reference 1 */
#define FAKEXEN_NO_FOREIGN 64u /* its frames cannot be mapped */

/* What newer hypervisors tell of a domain's rights. */
#define FAKEXEN_CAP_CONTROL 1u
#define FAKEXEN_CAP_HARDWARE 2u
#define FAKEXEN_CAP_XENSTORE 4u

/* State of a port of the daemon. */
#define FAKEXEN_BOUND 1u
#define FAKEXEN_MASKED 2u
#define FAKEXEN_PENDING 4u

/* Whose port: a domid, or this for the virtual interrupt. */
#define FAKEXEN_VIRQ 0xffffu

struct fakexen_ring {
    uint8_t request[FAKEXEN_RING];
    uint8_t response[FAKEXEN_RING];
    uint32_t req_cons, req_prod;
    uint32_t rsp_cons, rsp_prod;
    uint32_t features;
    uint32_t state;
    uint32_t error;
    uint32_t port;
};

struct fakexen_domain {
    uint32_t flags;
    uint32_t shutdown_reason;
    uint64_t unique; /* differs for each domain that ever was; never 0 */
    uint8_t handle[16];
    uint64_t gfn;          /* of the ring page */
    uint32_t port;         /* the domain's end of the event channel */
    uint32_t local;        /* the daemon's end; 0 while it is not bound */
    uint32_t mailbox;      /* where notifications go; 0: nobody wants them */
    uint32_t waiting;      /* a notification is in the mailbox */
    uint32_t capabilities; /* FAKEXEN_CAP_* */
    uint32_t granted;      /* pages that the daemon has mapped by grant */
    uint32_t foreign;      /* and by frame */
    uint32_t padding;
    uint64_t kicks;         /* events that the guest sent */
    uint64_t notifications; /* and that the daemon sent to it */
    uint64_t cpu_ns;        /* how long it has run */
    uint8_t unused[32];
};

struct fakexen_port {
    uint32_t state;
    uint32_t domid;
    uint64_t unique; /* of the domain that it was bound to */
};

/* Makes calls of the daemon fail: after `after` good ones, `times` of them. */
struct fakexen_rule {
    char call[48]; /* name of the function; empty: no rule */
    int32_t error;
    uint32_t after;
    uint32_t times;
    uint32_t padding;
};

struct fakexen_shared {
    uint32_t magic;
    uint32_t owner; /* process id of the daemon */
    uint32_t virq;  /* the port on which VIRQ_DOM_EXC arrives; 0: not bound */
    uint32_t ports_bound;
    uint32_t handles_evtchn, handles_gnttab, handles_foreign, handles_ctrl, handles_manage;
    uint32_t overflows; /* events that found a FIFO full: always 0 */
    uint64_t last_unique;
    uint64_t notifications; /* calls of xenevtchn_notify */
    uint64_t unmask_calls;  /* writes that unmask, each of any number of ports */
    uint64_t unmasked_ports;
    uint32_t pages_mapped;
    uint32_t rules_set; /* whether any rule may be there */
    struct fakexen_rule rules[FAKEXEN_RULES];
    uint64_t present[FAKEXEN_WORDS]; /* a bit for each domid that exists */
    uint64_t changed[FAKEXEN_WORDS]; /* and for each that has news */
    struct fakexen_port ports[FAKEXEN_PORTS];
    struct fakexen_domain domains[FAKEXEN_DOMAINS];
};

_Static_assert(sizeof(struct fakexen_domain) == 128, "also laid out elsewhere");
_Static_assert(sizeof(struct fakexen_port) == 16, "also laid out elsewhere");
_Static_assert(sizeof(struct fakexen_rule) == 64, "also laid out elsewhere");
_Static_assert(offsetof(struct fakexen_ring, port) == 2076, "the protocol says so");

struct fakexen {
    struct fakexen_shared *shared;
    int dir;
    int events; /* towards the daemon */
    int pages;
};

static inline int fakexen_fifo(struct fakexen *fx, const char *name)
{
    if (mkfifoat(fx->dir, name, 0600) != 0 && errno != EEXIST)
        return -1;
    return openat(fx->dir, name, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static inline void fakexen_mark(uint64_t *bits, uint32_t domid, int on)
{
    uint64_t bit = (uint64_t)1 << (domid % 64);

    if (on)
        __atomic_fetch_or(&bits[domid / 64], bit, __ATOMIC_SEQ_CST);
    else
        __atomic_fetch_and(&bits[domid / 64], ~bit, __ATOMIC_SEQ_CST);
}

/* Says that something about a domain is new; the daemon hears of it by fakexen_virq(). */
static inline void fakexen_set_flags(struct fakexen *fx, uint32_t domid, uint32_t flags)
{
    __atomic_store_n(&fx->shared->domains[domid].flags, flags, __ATOMIC_SEQ_CST);
    fakexen_mark(fx->shared->present, domid, (flags & FAKEXEN_EXISTS) != 0);
    fakexen_mark(fx->shared->changed, domid, 1);
}

/* A new domain with an empty ring page. A domain that has the domid already is gone without a
 * word, as when one is destroyed and another created before the daemon looks. */
static inline int fakexen_create(struct fakexen *fx, uint32_t domid, uint32_t port,
                                 uint64_t gfn, uint32_t mailbox)
{
    struct fakexen_domain *domain;
    uint64_t unique;

    if (domid >= FAKEXEN_DOMAINS) {
        errno = EINVAL;
        return -1;
    }
    unique = __atomic_add_fetch(&fx->shared->last_unique, 1, __ATOMIC_SEQ_CST);
    if (unique > FAKEXEN_LIVES) {
        errno = ENOSPC;
        return -1;
    }
    domain = &fx->shared->domains[domid];
    __atomic_store_n(&domain->flags, 0, __ATOMIC_SEQ_CST);
    memset(domain, 0, sizeof(*domain));
    domain->unique = unique;
    memset(domain->handle, 0xdb, sizeof(domain->handle));
    memcpy(domain->handle, &unique, sizeof(unique));
    domain->gfn = gfn;
    domain->port = port;
    domain->mailbox = mailbox;
    fakexen_set_flags(fx, domid, FAKEXEN_EXISTS);
    return 0;
}

/* The domain is gone. Counts of what the daemon still holds of it stay until the next life. */
static inline void fakexen_destroy(struct fakexen *fx, uint32_t domid)
{
    __atomic_store_n(&fx->shared->domains[domid].local, 0, __ATOMIC_SEQ_CST);
    fakexen_set_flags(fx, domid, 0);
}

/* Where the page of a domain begins in the file; that of domain 0 is the first. */
static inline off_t fakexen_offset(struct fakexen *fx, uint32_t domid)
{
    return (off_t)((fx->shared->domains[domid].unique - 1) * FAKEXEN_PAGE);
}

/* Its ring page, to be given back with munmap(page, FAKEXEN_PAGE). */
static inline void *fakexen_page(struct fakexen *fx, uint32_t domid)
{
    void *page = MAP_FAILED;

    if (domid < FAKEXEN_DOMAINS && fx->shared->domains[domid].unique > 0)
        page = mmap(NULL, FAKEXEN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fx->pages,
                    fakexen_offset(fx, domid));
    else
        errno = ESRCH;
    return page == MAP_FAILED ? NULL : page;
}

/* An event on a port of the daemon. Nobody hears it while the port is not bound. */
static inline int fakexen_raise(struct fakexen *fx, uint32_t port)
{
    uint32_t *state = &fx->shared->ports[port].state;
    uint32_t before = __atomic_load_n(state, __ATOMIC_SEQ_CST), after;

    do {
        if (!(before & FAKEXEN_BOUND))
            return 0;
        after = before | (before & FAKEXEN_MASKED ? FAKEXEN_PENDING : FAKEXEN_MASKED);
    } while (!__atomic_compare_exchange_n(state, &before, after, 0, __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));
    if (before & FAKEXEN_MASKED)
        return 0;
    if (write(fx->events, &port, sizeof(port)) == (ssize_t)sizeof(port))
        return 0;
    __atomic_add_fetch(&fx->shared->overflows, 1, __ATOMIC_SEQ_CST);
    return -1;
}

/* The guest sends an event. What it wrote to its ring before is visible to who sees the event. */
static inline int fakexen_kick(struct fakexen *fx, uint32_t domid)
{
    struct fakexen_domain *domain = &fx->shared->domains[domid];
    uint32_t port = __atomic_load_n(&domain->local, __ATOMIC_SEQ_CST);

    __atomic_add_fetch(&domain->kicks, 1, __ATOMIC_SEQ_CST);
    return port == 0 ? 0 : fakexen_raise(fx, port);
}

/* VIRQ_DOM_EXC: the hypervisor has news of some domain. */
static inline int fakexen_virq(struct fakexen *fx)
{
    uint32_t port = __atomic_load_n(&fx->shared->virq, __ATOMIC_SEQ_CST);

    return port == 0 ? 0 : fakexen_raise(fx, port);
}

/* A descriptor that is readable while a guest of this mailbox has a notification; numbers are
 * chosen by who plays guests, from 1 to 65535. */
static inline int fakexen_mailbox(struct fakexen *fx, uint32_t number)
{
    char name[32];

    if (number == 0 || number > 0xffff) {
        errno = EINVAL;
        return -1;
    }
    (void)snprintf(name, sizeof(name), "mail/%u", number);
    return fakexen_fifo(fx, name);
}

/* Takes up to max notifications, at most 1024, out of a mailbox: domids. 0: there are none.
 * Look at a ring after this, not before: a later change of it is a notification of its own. */
static inline int fakexen_take(struct fakexen *fx, int mailbox, uint32_t *domids, size_t max)
{
    ssize_t got;
    size_t i, count;

    got = read(mailbox, domids, (max < 1024 ? max : 1024) * sizeof(*domids));
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    count = (size_t)got / sizeof(*domids);
    for (i = 0; i < count; i++)
        if (domids[i] < FAKEXEN_DOMAINS)
            (void)__atomic_exchange_n(&fx->shared->domains[domids[i]].waiting, 0,
                                      __ATOMIC_SEQ_CST);
    return (int)count;
}

static inline int fakexen_text(struct fakexen *fx, const char *name, const char *text)
{
    int fd = openat(fx->dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t size = strlen(text);
    int failed;

    if (fd < 0)
        return -1;
    failed = write(fd, text, size) != (ssize_t)size;
    (void)close(fd);
    return failed ? -1 : 0;
}

/* The first time: domain 0 with port 1, and the devices by which its kernel offers its ring. */
static inline int fakexen_populate(struct fakexen *fx)
{
    static const char *const devices[] = {"dev/evtchn", "dev/gntdev", "dev/privcmd"};
    size_t i;

    if (fakexen_create(fx, 0, 1, 0, 0) != 0)
        return -1;
    fx->shared->domains[0].capabilities =
        FAKEXEN_CAP_CONTROL | FAKEXEN_CAP_HARDWARE | FAKEXEN_CAP_XENSTORE;
    if (linkat(fx->dir, "pages", fx->dir, "proc/xsd_kva", 0) != 0 ||
        linkat(fx->dir, "pages", fx->dir, "dev/xenbus_backend", 0) != 0 ||
        fakexen_text(fx, "proc/xsd_port", "1") != 0 ||
        fakexen_text(fx, "proc/capabilities", "control_d\n") != 0)
        return -1;
    for (i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
        if (fakexen_text(fx, devices[i], "") != 0)
            return -1;
    fx->shared->magic = FAKEXEN_MAGIC;
    return 0;
}

static inline void fakexen_close(struct fakexen *fx)
{
    if (fx->shared)
        (void)munmap(fx->shared, sizeof(*fx->shared));
    if (fx->events >= 0)
        (void)close(fx->events);
    if (fx->pages >= 0)
        (void)close(fx->pages);
    if (fx->dir >= 0)
        (void)close(fx->dir);
    fx->shared = NULL;
    fx->events = fx->pages = fx->dir = -1;
}

/* Opens an existing directory as a hypervisor and puts into it what is not there. */
static inline int fakexen_open(struct fakexen *fx, const char *path)
{
    static const char *const below[] = {"mail", "run", "log", "lib", "proc", "dev"};
    void *shared = MAP_FAILED;
    size_t i;
    int fd, failed = -1;

    fx->shared = NULL;
    fx->events = fx->pages = -1;
    fx->dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fx->dir < 0)
        return -1;
    for (i = 0; i < sizeof(below) / sizeof(below[0]); i++)
        if (mkdirat(fx->dir, below[i], 0700) != 0 && errno != EEXIST)
            goto out;
    fx->events = fakexen_fifo(fx, "events");
    if (fx->events < 0)
        goto out;
#ifdef F_SETPIPE_SZ
    /* Room for every port there is; refused to some users, and half of that is there anyway. */
    (void)fcntl(fx->events, F_SETPIPE_SZ, (int)(FAKEXEN_PORTS * sizeof(uint32_t)));
#endif
    fx->pages = openat(fx->dir, "pages", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fx->pages < 0 || ftruncate(fx->pages, (off_t)FAKEXEN_LIVES * FAKEXEN_PAGE) != 0)
        goto out;
    fd = openat(fx->dir, "state", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        goto out;
    if (flock(fd, LOCK_EX) == 0 && ftruncate(fd, sizeof(struct fakexen_shared)) == 0)
        shared = mmap(NULL, sizeof(struct fakexen_shared), PROT_READ | PROT_WRITE, MAP_SHARED,
                      fd, 0);
    if (shared != MAP_FAILED) {
        fx->shared = shared;
        failed = fx->shared->magic == FAKEXEN_MAGIC ? 0 : fakexen_populate(fx);
    }
    (void)flock(fd, LOCK_UN); /* closing is not enough: the mapping keeps the lock */
    (void)close(fd);
out:
    if (failed)
        fakexen_close(fx);
    return failed;
}

#endif
