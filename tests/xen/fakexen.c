/*
 * The hypervisor's libraries, and a little of the C library, for daemons on a fake Xen.
 *
 * One shared library with the functions of libxenevtchn, libxengnttab, libxenforeignmemory,
 * libxenctrl 4.17 and libxenmanage that xenstore daemons call. Xen's headers are not needed: the
 * few structures that cross the border are declared here. There are three ways in:
 *
 *   LD_PRELOAD         takes the place of the real libraries, moves the paths that daemons open
 *                      (table `moved`) into the directory, and sees the writes that unmask ports
 *   LD_LIBRARY_PATH    a directory of symbolic links named by the sonames, for who opens the
 *                      libraries at run time; needs the preloading too if it writes to the
 *                      descriptor of the event channels itself
 *   hypervisor_*()     the functions of fakexen.h, for who plays guests and is not written in C
 *
 * Environment: XSD_FAKEXEN_DIR is the directory, absolute. XSD_FAKEXEN_FAIL makes calls fail:
 * "call:ERROR[:times[:after]]", separated by commas; the rules in `state` do the same while the
 * daemon runs.
 *
 * A daemon is whoever opens a handle first; it takes the directory over from the one before, whose
 * ports and mappings are gone, unless it is the same process after an exec: then its ports stay.
 * One handle of the event channels at a time, one thread.
 *
 * What it costs the daemon is what the real thing costs: one system call to notify, one to
 * unmask however many, one to read.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "fakexen.h"

static struct fakexen fx = {NULL, -1, -1, -1};
static char where[PATH_MAX / 2]; /* the directory; empty: there is none */
static int channels = -1;        /* what xenevtchn_open() opened */
static int backend = -1;         /* what an open of xenbus_backend gave last */
static int mailboxes[0x10000];   /* descriptor + 1, by number */

/* ---- failing on demand ---- */

static struct fakexen_rule rules[FAKEXEN_RULES]; /* those of the environment */
static bool rules_set;

static int error_number(const char *name)
{
    static const struct {
        const char *name;
        int number;
    } known[] = {
        {"EACCES", EACCES}, {"EAGAIN", EAGAIN}, {"EBUSY", EBUSY},   {"EFAULT", EFAULT},
        {"EINVAL", EINVAL}, {"EIO", EIO},       {"EMFILE", EMFILE}, {"ENFILE", ENFILE},
        {"ENODEV", ENODEV}, {"ENOENT", ENOENT}, {"ENOMEM", ENOMEM}, {"ENOSPC", ENOSPC},
        {"ENOSYS", ENOSYS}, {"EPERM", EPERM},   {"ESRCH", ESRCH},
    };
    size_t i;

    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].number;
    return atoi(name);
}

static void parse_rules(const char *text)
{
    char copy[1024], error[16], *one, *rest;
    struct fakexen_rule *rule = rules;

    (void)snprintf(copy, sizeof(copy), "%s", text);
    for (one = strtok_r(copy, ",", &rest); one && rule < rules + FAKEXEN_RULES;
         one = strtok_r(NULL, ",", &rest)) {
        rule->times = FAKEXEN_FOREVER;
        rule->after = 0;
        if (sscanf(one, "%47[^:]:%15[^:]:%u:%u", rule->call, error, &rule->times,
                   &rule->after) < 2 ||
            (rule->error = error_number(error)) == 0) {
            (void)fprintf(stderr, "fakexen: XSD_FAKEXEN_FAIL has no call:ERROR in '%s'\n", one);
            _exit(2);
        }
        rules_set = true;
        rule++;
    }
}

static int apply_rules(struct fakexen_rule *from, const char *call)
{
    struct fakexen_rule *rule;

    for (rule = from; rule < from + FAKEXEN_RULES; rule++) {
        if (rule->times == 0 || strncmp(rule->call, call, sizeof(rule->call)) != 0)
            continue;
        if (rule->after > 0) {
            rule->after--;
            continue;
        }
        if (rule->times != FAKEXEN_FOREVER)
            rule->times--;
        return rule->error;
    }
    return 0;
}

/* Whether this call is to fail; errno says how. */
static bool refused(const char *call)
{
    int error = 0;

    if (rules_set)
        error = apply_rules(rules, call);
    if (!error && fx.shared && fx.shared->rules_set)
        error = apply_rules(fx.shared->rules, call);
    errno = error ? error : errno;
    return error != 0;
}

/* ---- becoming the daemon of a directory ---- */

static void __attribute__((constructor)) find_directory(void)
{
    const char *dir = getenv("XSD_FAKEXEN_DIR"), *fail = getenv("XSD_FAKEXEN_FAIL");

    if (!dir || where[0])
        return;
    if (dir[0] != '/' || strlen(dir) >= sizeof(where)) {
        (void)fprintf(stderr, "fakexen: XSD_FAKEXEN_DIR must be an absolute path\n");
        _exit(2);
    }
    memcpy(where, dir, strlen(dir) + 1);
    if (fail)
        parse_rules(fail);
}

static void forget_ports(struct fakexen_shared *shared)
{
    uint32_t port, queued[256];
    int fd;

    for (port = 0; port < FAKEXEN_PORTS; port++)
        if (shared->ports[port].state && shared->ports[port].domid < FAKEXEN_DOMAINS)
            shared->domains[shared->ports[port].domid].local = 0;
    memset(shared->ports, 0, sizeof(shared->ports));
    shared->virq = shared->ports_bound = 0;
    fd = openat(fx.dir, "events", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    while (fd >= 0 && read(fd, queued, sizeof(queued)) > 0)
        continue;
    if (fd >= 0)
        (void)close(fd);
}

/* Nothing works before this; every function that opens something calls it. */
static bool attach(void)
{
    struct fakexen_shared *shared;
    uint32_t domid;

    find_directory();
    if (fx.shared)
        return true;
    if (!where[0]) {
        errno = ENODEV;
        return false;
    }
    if (fakexen_open(&fx, where) != 0)
        return false;
    shared = fx.shared;
    if (shared->owner != (uint32_t)getpid())
        forget_ports(shared);
    shared->owner = (uint32_t)getpid();
    for (domid = 0; domid < FAKEXEN_DOMAINS; domid++)
        if (shared->domains[domid].granted | shared->domains[domid].foreign)
            shared->domains[domid].granted = shared->domains[domid].foreign = 0;
    shared->handles_evtchn = shared->handles_gnttab = shared->handles_foreign = 0;
    shared->handles_ctrl = shared->handles_manage = shared->pages_mapped = 0;
    return true;
}

/* Handles that have nothing in them: they differ, and can be told from those of others. */
static struct handle {
    uint32_t unused;
} gnttab_handle, foreign_handle, ctrl_handle, manage_handle, evtchn_handle;

static void *open_handle(const char *call, struct handle *handle, size_t counter)
{
    if (!attach() || refused(call))
        return NULL;
    ++*(uint32_t *)((char *)fx.shared + counter);
    return handle;
}

static int close_handle(void *handle, size_t counter)
{
    uint32_t *count = handle && fx.shared ? (uint32_t *)((char *)fx.shared + counter) : NULL;

    if (count && *count > 0)
        --*count;
    return 0;
}

#define COUNTER(name) offsetof(struct fakexen_shared, handles_##name)

static int fail(int error)
{
    errno = error;
    return -1;
}

static struct fakexen_domain *alive(uint32_t domid)
{
    if (domid < FAKEXEN_DOMAINS && fx.shared &&
        (__atomic_load_n(&fx.shared->domains[domid].flags, __ATOMIC_SEQ_CST) & FAKEXEN_EXISTS))
        return &fx.shared->domains[domid];
    errno = ESRCH;
    return NULL;
}

/* ---- libxenevtchn ---- */

static struct fakexen_port *bound(uint32_t port)
{
    if (port == 0 || port >= FAKEXEN_PORTS || !fx.shared || !fx.shared->ports[port].state) {
        errno = ENOTCONN;
        return NULL;
    }
    return &fx.shared->ports[port];
}

/* The domain at the other end, or NULL once that one is gone or the port is the interrupt's. */
static struct fakexen_domain *other_end(const struct fakexen_port *port)
{
    struct fakexen_domain *domain = port->domid == FAKEXEN_VIRQ ? NULL : alive(port->domid);

    return domain && domain->unique == port->unique ? domain : NULL;
}

static int bind_lowest(uint32_t domid, uint64_t unique)
{
    uint32_t port;

    for (port = 1; port < FAKEXEN_PORTS; port++) {
        if (fx.shared->ports[port].state)
            continue;
        fx.shared->ports[port].domid = domid;
        fx.shared->ports[port].unique = unique;
        __atomic_store_n(&fx.shared->ports[port].state, FAKEXEN_BOUND, __ATOMIC_SEQ_CST);
        fx.shared->ports_bound++;
        return (int)port;
    }
    return fail(ENOSPC);
}

static void unmask(uint32_t port)
{
    uint32_t before;

    if (!bound(port))
        return;
    before = __atomic_fetch_and(&fx.shared->ports[port].state,
                                ~(FAKEXEN_MASKED | FAKEXEN_PENDING), __ATOMIC_SEQ_CST);
    fx.shared->unmasked_ports++;
    if (before & FAKEXEN_PENDING)
        (void)fakexen_raise(&fx, port);
}

/* A write to the device: any number of ports, one system call. */
static ssize_t unmask_all(const void *ports, size_t size)
{
    uint32_t port;
    size_t i;

    fx.shared->unmask_calls++;
    for (i = 0; i + sizeof(port) <= size; i += sizeof(port)) {
        memcpy(&port, (const char *)ports + i, sizeof(port));
        unmask(port);
    }
    (void)syscall(SYS_write, fx.events, ports, (size_t)0);
    return (ssize_t)i;
}

void *xenevtchn_open(void *logger, unsigned int flags)
{
    (void)logger;
    if (!attach() || refused(__func__))
        return NULL;
    if (channels >= 0) {
        errno = EBUSY;
        return NULL;
    }
    forget_ports(fx.shared);
    channels = openat(fx.dir, "events", O_RDWR | (flags & 1 ? 0 : O_CLOEXEC));
    if (channels < 0)
        return NULL;
    fx.shared->handles_evtchn++;
    return &evtchn_handle;
}

void *xenevtchn_fdopen(void *logger, int fd, unsigned int flags)
{
    (void)logger;
    (void)flags;
    if (!attach() || refused(__func__))
        return NULL;
    channels = fd;
    fx.shared->handles_evtchn++;
    return &evtchn_handle;
}

int xenevtchn_fd(void *handle)
{
    return handle == &evtchn_handle && channels >= 0 ? channels : fail(EBADF);
}

int xenevtchn_close(void *handle)
{
    if (!handle || channels < 0)
        return 0;
    (void)close(channels);
    channels = -1;
    forget_ports(fx.shared);
    return close_handle(handle, COUNTER(evtchn));
}

int xenevtchn_bind_virq(void *handle, unsigned int virq)
{
    size_t i;
    int port;

    (void)handle;
    if (refused(__func__))
        return -1;
    if (virq != 3)
        return fail(EINVAL);
    if (fx.shared->virq)
        return fail(EEXIST);
    port = bind_lowest(FAKEXEN_VIRQ, 0);
    if (port > 0) { /* whoever listens from now on has seen no domain yet */
        for (i = 0; i < FAKEXEN_WORDS; i++)
            __atomic_fetch_or(&fx.shared->changed[i], fx.shared->present[i], __ATOMIC_SEQ_CST);
        __atomic_store_n(&fx.shared->virq, (uint32_t)port, __ATOMIC_SEQ_CST);
    }
    return port;
}

int xenevtchn_bind_interdomain(void *handle, uint32_t domid, uint32_t remote)
{
    struct fakexen_domain *domain;
    int port;

    (void)handle;
    if (refused(__func__))
        return -1;
    domain = alive(domid);
    if (!domain)
        return -1;
    if (domain->flags & FAKEXEN_DYING || domain->port != remote || domain->local)
        return fail(EINVAL);
    port = bind_lowest(domid, domain->unique);
    if (port > 0) {
        __atomic_store_n(&domain->local, (uint32_t)port, __ATOMIC_SEQ_CST);
        /* What the guest sent while nobody was bound is lost: a new port begins with an event. */
        (void)fakexen_raise(&fx, (uint32_t)port);
    }
    return port;
}

static void close_mailbox(uint32_t number)
{
    if (number < 0x10000 && mailboxes[number]) {
        (void)close(mailboxes[number] - 1);
        mailboxes[number] = 0;
    }
}

/* As with the real driver, an event that is queued already will still be read. */
int xenevtchn_unbind(void *handle, uint32_t port)
{
    struct fakexen_port *entry;
    struct fakexen_domain *domain;

    (void)handle;
    if (refused(__func__))
        return -1;
    entry = bound(port);
    if (!entry)
        return -1;
    if (entry->domid == FAKEXEN_VIRQ) {
        __atomic_store_n(&fx.shared->virq, 0, __ATOMIC_SEQ_CST);
    } else {
        domain = &fx.shared->domains[entry->domid];
        close_mailbox(domain->mailbox); /* a guest that is gone leaves no descriptor behind */
        if (domain->unique == entry->unique)
            __atomic_store_n(&domain->local, 0, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&entry->state, 0, __ATOMIC_SEQ_CST);
    fx.shared->ports_bound--;
    return 0;
}

int xenevtchn_pending(void *handle)
{
    uint32_t port;

    (void)handle;
    if (refused(__func__))
        return -1;
    return read(channels, &port, sizeof(port)) == (ssize_t)sizeof(port) ? (int)port : -1;
}

int xenevtchn_unmask(void *handle, uint32_t port)
{
    (void)handle;
    if (refused(__func__))
        return -1;
    (void)unmask_all(&port, sizeof(port));
    return 0;
}

static int mailbox_of(const struct fakexen_domain *domain)
{
    uint32_t number = domain->mailbox;
    char name[32];

    if (number == 0 || number > 0xffff)
        return -1;
    if (!mailboxes[number]) {
        (void)snprintf(name, sizeof(name), "mail/%u", number);
        mailboxes[number] = openat(fx.dir, name, O_RDWR | O_NONBLOCK | O_CLOEXEC) + 1;
    }
    return mailboxes[number] - 1;
}

/* One system call, whether the guest has taken the last notification or not. */
int xenevtchn_notify(void *handle, uint32_t port)
{
    struct fakexen_domain *domain;
    struct fakexen_port *entry;
    uint32_t waiting;
    int fd;

    (void)handle;
    if (refused(__func__))
        return -1;
    entry = bound(port);
    if (!entry || entry->domid == FAKEXEN_VIRQ)
        return fail(ENOTCONN);
    fx.shared->notifications++;
    domain = other_end(entry);
    fd = domain ? mailbox_of(domain) : -1;
    if (domain)
        __atomic_add_fetch(&domain->notifications, 1, __ATOMIC_SEQ_CST);
    if (fd < 0) { /* nobody is there to hear it, which the sender does not learn */
        (void)syscall(SYS_write, fx.events, &port, (size_t)0);
        return 0;
    }
    waiting = __atomic_exchange_n(&domain->waiting, 1, __ATOMIC_SEQ_CST);
    if (syscall(SYS_write, fd, &entry->domid, waiting ? (size_t)0 : sizeof(entry->domid)) < 0)
        __atomic_add_fetch(&fx.shared->overflows, 1, __ATOMIC_SEQ_CST);
    return 0;
}

/* ---- pages ---- */

struct mapping {
    void *address;
    size_t pages;
    uint32_t domid;
    uint64_t unique;
    bool granted;
};

static struct mapping *mappings;
static size_t mappings_used, mappings_room;

static void count_pages(const struct mapping *mapping, bool gone)
{
    struct fakexen_domain *domain = &fx.shared->domains[mapping->domid];
    uint32_t *count = mapping->granted ? &domain->granted : &domain->foreign;
    uint32_t pages = (uint32_t)mapping->pages;

    fx.shared->pages_mapped += gone ? 0 - pages : pages;
    if (domain->unique == mapping->unique) /* else they belong to an earlier life */
        *count = gone ? *count - pages : *count + pages;
}

static void remember(void *address, size_t pages, uint32_t domid, bool granted)
{
    struct mapping *more;

    if (mappings_used == mappings_room) {
        mappings_room = mappings_room ? 2 * mappings_room : 64;
        more = realloc(mappings, mappings_room * sizeof(*more));
        if (!more)
            abort();
        mappings = more;
    }
    mappings[mappings_used] =
        (struct mapping){address, pages, domid, fx.shared->domains[domid].unique, granted};
    count_pages(&mappings[mappings_used++], false);
}

static int unmap(void *address, size_t pages, bool granted)
{
    size_t i;

    for (i = 0; i < mappings_used; i++) {
        if (mappings[i].address != address || mappings[i].granted != granted ||
            mappings[i].pages != pages)
            continue;
        count_pages(&mappings[i], true);
        mappings[i] = mappings[--mappings_used];
        return munmap(address, pages * FAKEXEN_PAGE);
    }
    return fail(EINVAL);
}

/* A page that nobody counts. */
static void *map_page(uint32_t domid, int prot, size_t size)
{
    void *page = mmap(NULL, size, prot, MAP_SHARED, fx.pages, fakexen_offset(&fx, domid));

    return page == MAP_FAILED ? NULL : page;
}

static void *map(uint32_t domid, int prot, bool granted)
{
    void *page = map_page(domid, prot, FAKEXEN_PAGE);

    if (page)
        remember(page, 1, domid, granted);
    return page;
}

static bool has_frame(uint32_t domid, uint64_t gfn)
{
    struct fakexen_domain *domain = alive(domid);

    if (!domain)
        return false;
    errno = EINVAL;
    return !(domain->flags & (FAKEXEN_DYING | FAKEXEN_NO_FOREIGN)) && domain->gfn == gfn;
}

void *xengnttab_open(void *logger, unsigned int flags)
{
    (void)logger;
    (void)flags;
    return open_handle(__func__, &gnttab_handle, COUNTER(gnttab));
}

int xengnttab_close(void *handle)
{
    return close_handle(handle, COUNTER(gnttab));
}

int xengnttab_set_max_grants(void *handle, uint32_t grants)
{
    (void)handle;
    (void)grants;
    return refused(__func__) ? -1 : 0;
}

void *xengnttab_map_grant_ref(void *handle, uint32_t domid, uint32_t reference, int prot)
{
    struct fakexen_domain *domain;

    (void)handle;
    if (refused(__func__))
        return NULL;
    domain = alive(domid);
    if (!domain || reference != 1 || domain->flags & (FAKEXEN_DYING | FAKEXEN_NO_GRANT)) {
        errno = EINVAL;
        return NULL;
    }
    return map(domid, prot, true);
}

int xengnttab_unmap(void *handle, void *address, uint32_t pages)
{
    (void)handle;
    return refused(__func__) ? -1 : unmap(address, pages, true);
}

void *xenforeignmemory_open(void *logger, unsigned int flags)
{
    (void)logger;
    (void)flags;
    return open_handle(__func__, &foreign_handle, COUNTER(foreign));
}

int xenforeignmemory_close(void *handle)
{
    return close_handle(handle, COUNTER(foreign));
}

/* One page. With `errors` a frame that cannot be mapped is told of there, as the real one does,
 * and what is returned is an address at which nothing can be read. */
void *xenforeignmemory_map(void *handle, uint32_t domid, int prot, size_t pages,
                           const unsigned long frames[], int errors[])
{
    void *address;

    (void)handle;
    if (refused(__func__) || !alive(domid))
        return NULL;
    if (pages != 1) {
        errno = ENOSYS;
        return NULL;
    }
    if (has_frame(domid, frames[0])) {
        if (errors)
            errors[0] = 0;
        return map(domid, prot, false);
    }
    if (!errors)
        return NULL;
    errors[0] = -EINVAL;
    address = mmap(NULL, FAKEXEN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED)
        return NULL;
    remember(address, 1, domid, false);
    return address;
}

int xenforeignmemory_unmap(void *handle, void *address, size_t pages)
{
    (void)handle;
    return refused(__func__) ? -1 : unmap(address, pages, false);
}

/* Whoever maps by this unmaps with munmap(): that is not counted. */
void *xc_map_foreign_range(void *handle, uint32_t domid, int size, int prot,
                           unsigned long frame)
{
    (void)handle;
    if (refused(__func__) || !has_frame(domid, frame))
        return NULL;
    return map_page(domid, prot, (size_t)size);
}

/* ---- libxenctrl 4.17: what it says of domains ---- */

struct xc_domaininfo {
    uint16_t domain;
    uint16_t pad1;
    uint32_t flags;
    uint64_t pages[5];
    uint64_t shared_info_frame;
    uint64_t cpu_time;
    uint32_t nr_online_vcpus;
    uint32_t max_vcpu_id;
    uint32_t ssidref;
    uint8_t handle[16];
    uint32_t cpupool;
    uint8_t gpaddr_bits;
    uint8_t pad2[7];
    uint32_t arch_config[2];
};
_Static_assert(sizeof(struct xc_domaininfo) == 112, "Xen 4.17 on x86");
_Static_assert(offsetof(struct xc_domaininfo, handle) == 76, "Xen 4.17 on x86");

struct xc_dominfo {
    uint32_t domid;
    uint32_t ssidref;
    unsigned int dying : 1, crashed : 1, shutdown : 1, paused : 1, blocked : 1, running : 1,
        hvm : 1, debugged : 1, xenstore : 1, hap : 1;
    unsigned int shutdown_reason;
    unsigned long pages[4];
    unsigned long shared_info_frame;
    uint64_t cpu_time;
    unsigned long max_memkb;
    unsigned int nr_online_vcpus;
    unsigned int max_vcpu_id;
    uint8_t handle[16];
    unsigned int cpupool;
    uint8_t gpaddr_bits;
    uint32_t arch_config[2];
};
_Static_assert(sizeof(struct xc_dominfo) == 112, "Xen 4.17 on x86");
_Static_assert(offsetof(struct xc_dominfo, handle) == 80, "Xen 4.17 on x86");

struct xc_error {
    int code;
    char message[1024];
};

#define CRASHED 3u

/* The first domain of this id or a higher one. */
static struct fakexen_domain *next_domain(uint32_t *domid)
{
    uint64_t bits;
    uint32_t word = *domid / 64;

    for (bits = ~(uint64_t)0 << (*domid % 64); word < FAKEXEN_WORDS; word++) {
        bits &= __atomic_load_n(&fx.shared->present[word], __ATOMIC_SEQ_CST);
        for (; bits; bits &= bits - 1) {
            *domid = word * 64 + (uint32_t)__builtin_ctzll(bits);
            if (alive(*domid))
                return &fx.shared->domains[*domid];
        }
        bits = ~(uint64_t)0;
    }
    return NULL;
}

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned int flags)
{
    (void)logger;
    (void)dombuild_logger;
    (void)flags;
    return open_handle(__func__, &ctrl_handle, COUNTER(ctrl));
}

int xc_interface_close(void *handle)
{
    return close_handle(handle, COUNTER(ctrl));
}

const struct xc_error *xc_get_last_error(void *handle)
{
    static const struct xc_error none; /* which leaves it to errno */

    (void)handle;
    return &none;
}

int xc_domain_getinfolist(void *handle, uint32_t first, unsigned int max,
                          struct xc_domaininfo *info)
{
    struct fakexen_domain *domain;
    unsigned int count = 0;
    uint32_t flags;

    (void)handle;
    if (refused(__func__))
        return -1;
    for (; count < max && first < FAKEXEN_DOMAINS && (domain = next_domain(&first)); first++) {
        flags = __atomic_load_n(&domain->flags, __ATOMIC_SEQ_CST);
        memset(&info[count], 0, sizeof(info[count]));
        info[count].domain = (uint16_t)first;
        info[count].flags = (flags & FAKEXEN_DYING ? 1u : 0u) |
                            (flags & FAKEXEN_HVM ? 1u << 1 : 0u) |
                            (flags & FAKEXEN_SHUTDOWN ? 1u << 2 : 0u) |
                            (domain->capabilities & FAKEXEN_CAP_XENSTORE ? 1u << 7 : 0u) |
                            domain->shutdown_reason << 16;
        info[count].cpu_time = domain->cpu_ns;
        info[count].nr_online_vcpus = 1;
        memcpy(info[count].handle, domain->handle, sizeof(domain->handle));
        count++;
    }
    return (int)count;
}

int xc_domain_getinfo(void *handle, uint32_t first, unsigned int max, struct xc_dominfo *info)
{
    struct xc_domaininfo from;
    unsigned int count;

    if (refused(__func__))
        return -1;
    for (count = 0; count < max && xc_domain_getinfolist(handle, first, 1, &from) == 1;
         count++) {
        memset(&info[count], 0, sizeof(info[count]));
        info[count].domid = from.domain;
        info[count].dying = from.flags & 1u;
        info[count].hvm = from.flags >> 1 & 1u;
        info[count].shutdown = from.flags >> 2 & 1u;
        info[count].xenstore = from.flags >> 7 & 1u;
        info[count].shutdown_reason = from.flags >> 16 & 0xffu;
        if (info[count].shutdown && info[count].shutdown_reason == CRASHED) {
            info[count].shutdown = 0;
            info[count].crashed = 1;
        }
        memcpy(info[count].handle, from.handle, sizeof(from.handle));
        first = from.domain + 1u;
    }
    return count ? (int)count : fail(ESRCH);
}

/* ---- libxenmanage ---- */

void *xenmanage_open(void *logger, unsigned int flags)
{
    (void)logger;
    if (flags) {
        errno = EINVAL;
        return NULL;
    }
    return open_handle(__func__, &manage_handle, COUNTER(manage));
}

int xenmanage_close(void *handle)
{
    return close_handle(handle, COUNTER(manage));
}

static void tell_state(const struct fakexen_domain *domain, unsigned int *state,
                       unsigned int *capabilities, uint64_t *unique)
{
    uint32_t flags = domain ? __atomic_load_n(&domain->flags, __ATOMIC_SEQ_CST) : 0;
    bool there = flags & FAKEXEN_EXISTS;

    if (state)
        *state = (there ? 1u : 0u) | (flags & FAKEXEN_SHUTDOWN ? 2u : 0u) |
                 (flags & FAKEXEN_DYING ? 4u : 0u) | (flags & FAKEXEN_DEAD ? 8u : 0u);
    if (capabilities)
        *capabilities = there ? domain->capabilities : 0;
    if (unique)
        *unique = there ? domain->unique : 0;
}

int xenmanage_get_domain_info(void *handle, unsigned int domid, unsigned int *state,
                              unsigned int *capabilities, uint64_t *unique)
{
    struct fakexen_domain *domain;

    (void)handle;
    if (refused(__func__))
        return -1;
    domain = alive(domid);
    if (!domain)
        return -1;
    tell_state(domain, state, capabilities, unique);
    return 0;
}

int xenmanage_poll_changed_domain(void *handle, unsigned int *domid, unsigned int *state,
                                  unsigned int *capabilities, uint64_t *unique)
{
    uint64_t bits;
    uint32_t word;

    (void)handle;
    if (refused(__func__))
        return -1;
    for (word = 0; word < FAKEXEN_WORDS; word++) {
        bits = __atomic_load_n(&fx.shared->changed[word], __ATOMIC_SEQ_CST);
        if (!bits)
            continue;
        *domid = word * 64 + (uint32_t)__builtin_ctzll(bits);
        fakexen_mark(fx.shared->changed, *domid, 0);
        tell_state(alive(*domid), state, capabilities, unique);
        return 0;
    }
    return fail(ENOENT);
}

/* ---- for who plays guests: fakexen.h as functions that can be called from anywhere ---- */

struct fakexen *hypervisor_open(const char *path)
{
    struct fakexen *other = calloc(1, sizeof(*other));

    if (other && fakexen_open(other, path) != 0) {
        free(other);
        other = NULL;
    }
    return other;
}

void hypervisor_close(struct fakexen *other)
{
    fakexen_close(other);
    free(other);
}

struct fakexen_shared *hypervisor_shared(struct fakexen *other)
{
    return other->shared;
}

size_t hypervisor_shared_size(void)
{
    return sizeof(struct fakexen_shared);
}

int hypervisor_create(struct fakexen *other, uint32_t domid, uint32_t port, uint64_t gfn,
                      uint32_t mailbox)
{
    return fakexen_create(other, domid, port, gfn, mailbox);
}

void hypervisor_set_flags(struct fakexen *other, uint32_t domid, uint32_t flags)
{
    fakexen_set_flags(other, domid, flags);
}

void hypervisor_destroy(struct fakexen *other, uint32_t domid)
{
    fakexen_destroy(other, domid);
}

int hypervisor_raise(struct fakexen *other, uint32_t port)
{
    return fakexen_raise(other, port);
}

int hypervisor_kick(struct fakexen *other, uint32_t domid)
{
    return fakexen_kick(other, domid);
}

int hypervisor_virq(struct fakexen *other)
{
    return fakexen_virq(other);
}

int hypervisor_mailbox(struct fakexen *other, uint32_t number)
{
    return fakexen_mailbox(other, number);
}

int hypervisor_take(struct fakexen *other, int mailbox, uint32_t *domids, size_t max)
{
    return fakexen_take(other, mailbox, domids, max);
}

/* ---- the C library: paths that lead into the directory ---- */

static const struct {
    const char *from, *to;
} moved[] = {
    {"/proc/xen", "proc"},         {"/dev/xen", "dev"},     {"/run/xenstored", "run"},
    {"/var/run/xenstored", "run"}, {"/run/xen", "run"},     {"/var/run/xen", "run"},
    {"/var/log/xen", "log"},       {"/var/lib/xen", "lib"}, {"/var/lib/xenstored", "lib"},
};

static const char *place(const char *path, char *room)
{
    size_t i, length;

    if (!where[0] || !path || path[0] != '/')
        return path;
    for (i = 0; i < sizeof(moved) / sizeof(moved[0]); i++) {
        length = strlen(moved[i].from);
        if (strncmp(path, moved[i].from, length) != 0 ||
            (path[length] != '\0' && path[length] != '/'))
            continue;
        (void)snprintf(room, PATH_MAX, "%s/%s%s", where, moved[i].to, path + length);
        return room;
    }
    return path;
}

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
    char room[PATH_MAX];
    const char *to = place(path, room);
    int fd;

    if (to == room && refused("open"))
        return -1;
    fd = (int)syscall(SYS_openat, dir, to, flags, mode);
    if (to == room && fd >= 0 && strstr(path, "xenbus_backend"))
        backend = fd;
    return fd;
}

#define TAKE_MODE(mode, flags)               \
    mode_t mode = 0;                         \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list arguments;                   \
        va_start(arguments, flags);          \
        mode = va_arg(arguments, mode_t);    \
        va_end(arguments);                   \
    }

int open(const char *path, int flags, ...)
{
    TAKE_MODE(mode, flags)
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    TAKE_MODE(mode, flags)
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
    TAKE_MODE(mode, flags)
    return open_at(dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
    TAKE_MODE(mode, flags)
    return open_at(dir, path, flags, mode);
}

static FILE *open_stream(const char *which, const char *path, const char *mode)
{
    FILE *(*original)(const char *, const char *);
    void *symbol = dlsym(RTLD_NEXT, which);
    char room[PATH_MAX];

    if (!symbol)
        abort();
    memcpy(&original, &symbol, sizeof(original));
    return original(place(path, room), mode);
}

FILE *fopen(const char *path, const char *mode)
{
    return open_stream("fopen", path, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
    return open_stream("fopen64", path, mode);
}

int stat(const char *path, struct stat *to)
{
    char room[PATH_MAX];
    return fstatat(AT_FDCWD, place(path, room), to, 0);
}

int stat64(const char *path, struct stat64 *to)
{
    char room[PATH_MAX];
    return fstatat64(AT_FDCWD, place(path, room), to, 0);
}

int lstat(const char *path, struct stat *to)
{
    char room[PATH_MAX];
    return fstatat(AT_FDCWD, place(path, room), to, AT_SYMLINK_NOFOLLOW);
}

int lstat64(const char *path, struct stat64 *to)
{
    char room[PATH_MAX];
    return fstatat64(AT_FDCWD, place(path, room), to, AT_SYMLINK_NOFOLLOW);
}

int access(const char *path, int mode)
{
    char room[PATH_MAX];
    return faccessat(AT_FDCWD, place(path, room), mode, 0);
}

int mkdir(const char *path, mode_t mode)
{
    char room[PATH_MAX];
    return mkdirat(AT_FDCWD, place(path, room), mode);
}

int chmod(const char *path, mode_t mode)
{
    char room[PATH_MAX];
    return fchmodat(AT_FDCWD, place(path, room), mode, 0);
}

int chown(const char *path, uid_t user, gid_t group)
{
    char room[PATH_MAX];
    return fchownat(AT_FDCWD, place(path, room), user, group, 0);
}

int unlink(const char *path)
{
    char room[PATH_MAX];
    return unlinkat(AT_FDCWD, place(path, room), 0);
}

int rmdir(const char *path)
{
    char room[PATH_MAX];
    return unlinkat(AT_FDCWD, place(path, room), AT_REMOVEDIR);
}

int rename(const char *from, const char *to)
{
    char room_from[PATH_MAX], room_to[PATH_MAX];
    return renameat(AT_FDCWD, place(from, room_from), AT_FDCWD, place(to, room_to));
}

/* For bind() and connect(): the address, or its place in `to`; -1 if that has no room for it. */
static int place_address(const struct sockaddr **address, socklen_t *size,
                         struct sockaddr_un *to)
{
    char room[PATH_MAX];
    struct sockaddr_un from;
    const char *path;

    if (*size <= offsetof(struct sockaddr_un, sun_path) || *size > sizeof(from) ||
        (*address)->sa_family != AF_UNIX)
        return 0;
    memset(&from, 0, sizeof(from));
    memcpy(&from, *address, *size);
    if (memchr(from.sun_path, '\0', sizeof(from.sun_path)) == NULL)
        return 0;
    path = place(from.sun_path, room);
    if (path != room)
        return 0;
    if (strlen(path) >= sizeof(to->sun_path))
        return fail(ENAMETOOLONG);
    memset(to, 0, sizeof(*to));
    to->sun_family = AF_UNIX;
    memcpy(to->sun_path, path, strlen(path));
    *address = (const struct sockaddr *)to;
    *size = sizeof(*to);
    return 0;
}

int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    struct sockaddr_un to;

    if (place_address(&address, &size, &to) != 0)
        return -1;
    return (int)syscall(SYS_bind, fd, address, size);
}

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    struct sockaddr_un to;

    if (place_address(&address, &size, &to) != 0)
        return -1;
    return (int)syscall(SYS_connect, fd, address, size);
}

/* ---- the C library: devices and limits ---- */

ssize_t write(int fd, const void *data, size_t size)
{
    if (fd == channels && fd >= 0)
        return unmask_all(data, size);
    return syscall(SYS_write, fd, data, size);
}

/* The device of domain 0's kernel tells the port of its ring. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (fd == backend && fd >= 0 && request == _IO('B', 0) && attach())
        return refused(__func__) ? -1 : (int)fx.shared->domains[0].port;
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

/* Daemons want more open files than they may have here, and some end without them. */
int setrlimit(__rlimit_resource_t what, const struct rlimit *wanted)
{
    struct rlimit most;

    if (prlimit(0, what, wanted, NULL) == 0)
        return 0;
    if (!where[0] || what != RLIMIT_NOFILE || prlimit(0, what, NULL, &most) != 0)
        return -1;
    most.rlim_cur = most.rlim_max;
    return prlimit(0, what, &most, NULL);
}

int setrlimit64(__rlimit_resource_t what, const struct rlimit64 *wanted)
{
    struct rlimit same = {wanted->rlim_cur, wanted->rlim_max};

    return setrlimit(what, &same);
}
