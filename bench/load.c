/*
 * load: one client process that plays many, against any xenstored on a unix socket or a fake Xen.
 *
 *      base        failing, memory, options           proto, histogram   frames, latencies
 *      host        the fake Xen and its domains       transport          a socket or a ring
 *      toolstack   one request at a time              guests             who come and go
 *      script      what a client asks                 lane               clients at work
 *      hostile     a guest that means harm            phase              all of them together
 *      result      figures, as JSON                   load               this: modes and options
 *
 * One JSON object is printed. Exit code 0; 1 when a reply was wrong or did not come (the object
 * then has only "error"); 2 for a mistake on the command line.
 *
 * Bounds: --limit seconds for everything measured, a stall limit for each wait, MAX_* for counts.
 */
#define _GNU_SOURCE
#include "guests.h"
#include "phase.h"
#include "result.h"
#include "toolstack.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* How soon a guest that broke its ring is introduced again: by its toolstack, whose work that is. */
enum { AGAIN_MS = 10 };

/* One script, once, on a connection of its own, unmeasured. */
static void script_run_once(const struct options *o, const char *name)
{
    struct group g;
    struct phase phase = {.main = &g, .limit_s = o->limit_s};

    if (name == NULL) {
        return;
    }
    group_open(&g, o, script_find(name), 1, 1, NULL, 0);
    group_reset(&g, g.script, 1);
    if (!phase_run(&phase)) {
        fail_late("%s: not done within %u s", name, o->limit_s);
    }
    group_close(&g);
}

/* Watches on paths that nobody touches, up to 1000 on one connection; they stay until the end. */
static void watches_place(const struct options *o, struct group *g)
{
    uint32_t conns = (o->watches + 999) / 1000;
    struct phase phase = {.main = g, .limit_s = o->limit_s};

    group_open(g, o, script_find("watch"), conns, (o->watches + conns - 1) / conns, NULL, 0);
    group_reset(g, g->script, o->watches);
    if (!phase_run(&phase)) {
        fail_late("%u watches: not placed within %u s", o->watches, o->limit_s);
    }
    if (!o->floor) {
        /* Each watch fires once when it is placed; these events must be out of the way. */
        phase_await_events(&phase, o->watches);
    }
}

static void idle_open(const struct options *o)
{
    for (uint32_t i = 0; i < o->idle && !o->rings; i++) {
        (void)socket_connect(o->socket); /* until this process ends */
    }
}

/* ---- connect, one operation, close ---------------------------------------------------------- */

/* A client comes for one READ of the probe's node; returns the reply's hash. */
static uint64_t churn_once(const struct options *o, struct toolstack *t, uint32_t req_id)
{
    static const char path[] = "/bench/probe";
    struct answer a;

    toolstack_open(t, o->socket, req_id);
    toolstack_ask(t, MSG_READ, path, sizeof(path), &a);
    if (a.header.type != MSG_READ ||
        (!o->floor && (a.header.len != 5 || memcmp(a.payload, "value", 5) != 0))) {
        fail("a short-lived client read '%s'", (const char *)a.payload);
    }
    return fnv(fnv(FNV_START, &a.header.type, sizeof(a.header.type)), a.payload, a.header.len);
}

/* Clients that live for one READ each: one after the other, or, in a crowd, none of them goes
 * before the last has come. */
static void measure_churn(const struct options *o, bool crowd)
{
    static struct histogram latency;
    struct result r = {.complete = true, .latency = &latency};
    struct toolstack *clients = make(crowd ? o->ops : 1, sizeof(*clients));
    uint64_t deadline;

    script_run_once(o, "probe-before");
    result_begin(&r, o);
    deadline = r.wall_ns + (uint64_t)o->limit_s * 1000000000u;
    for (uint64_t i = 0; i < o->ops && r.complete; i++) {
        uint64_t begun = now_ns();

        r.checksum += churn_once(o, &clients[crowd ? i : 0], (uint32_t)i);
        if (!crowd) {
            toolstack_close(&clients[0]);
        }
        r.ops++;
        histogram_add(&latency, now_ns() - begun);
        r.complete = begun < deadline || i + 1 == o->ops;
    }
    for (uint64_t i = 0; crowd && i < r.ops; i++) {
        toolstack_close(&clients[i]);
    }
    result_end(&r, o);
    free(clients);
    r.requests = r.ops;
    result_print(&r, o);
}

/* ---- a script, on sockets or rings ---------------------------------------------------------- */

/* All that takes part. Guests are the hostile one if any, the measured ones, the idle ones. */
struct scene {
    struct host host;
    struct group main;
    struct group probe;
    struct group again;
    struct group watchers;
    struct hostile hostile;
    struct phase phase;
};

/* Connections with a watch on the path that is going to change, their first event taken. */
static void watchers_open(const struct options *o, struct group *g)
{
    struct phase phase = {.main = g, .limit_s = o->limit_s};

    group_open(g, o, script_find("watcher"), o->watchers, 1, NULL, 0);
    group_reset(g, g->script, o->watchers);
    if (!phase_run(&phase)) {
        fail_late("%u watchers: not placed within %u s", o->watchers, o->limit_s);
    }
    phase_await_events(&phase, o->watchers);
    g->events = 0;
}

_Static_assert(MACHINE_FIRST - 1 + MACHINES_MAX <= HOST_GUESTS_MAX, "a page for each");

/* Whether machines are to be domains of the fake Xen: a toolstack creates a domain before it
 * writes of it, and a daemon may ask whether it is there. */
static bool plays_machines(const struct options *o)
{
    return o->xen != NULL && strcmp(o->mode, "storm") == 0;
}

static void scene_open(struct scene *s, const struct options *o, const struct script *script)
{
    uint32_t first = 0;

    s->phase.main = &s->main;
    s->phase.limit_s = o->limit_s;
    if (o->rings) {
        first = o->hostile != NULL ? HOSTILE_DOMID + 1 : 1;
        guests_arrive(o, &s->host, first - 1 + o->connections + o->idle);
        s->phase.host = &s->host;
    } else if (plays_machines(o)) {
        machines_arrive(o, &s->host, MACHINE_FIRST - 1 + o->connections * o->depth);
    }
    group_open(&s->main, o, script, o->connections, o->depth, &s->host, first);
    s->main.window = o->window;
    if (o->probe_mode != NULL) {
        script_run_once(o, "probe-before");
        group_open(&s->probe, o, script_find(o->probe_mode), 1, 1, NULL, 0);
        s->probe.endless = true;
        if (o->pid > 0) {
            group_clock(&s->probe, o->pid);
        }
        s->phase.probe = &s->probe;
    }
    if (o->hostile != NULL) {
        hostile_open(&s->hostile, o->hostile, &s->host, o->value_bytes);
    }
    if (o->watchers > 0) {
        watchers_open(o, &s->watchers);
        s->phase.watchers = &s->watchers;
    }
}

static bool scene_run(struct scene *s, uint64_t ops)
{
    if (s->phase.probe != NULL) {
        group_reset(&s->probe, s->probe.script, 0);
    }
    if (s->phase.again != NULL) {
        group_reset(&s->again, s->again.script, 0);
    }
    group_reset(&s->main, s->main.script, ops);
    s->phase.events_due = ops * s->main.script->count * s->watchers.conn_count;
    return phase_run(&s->phase);
}

/* What the latencies are while nothing disturbs: neither the hostile guest nor, where there is
 * none, the measured clients. */
static void scene_quiet(struct scene *s, const struct options *o, struct histogram *latency,
                        struct histogram *probe)
{
    bool done;

    if (o->hostile != NULL) {
        done = scene_run(s, o->quiet);
        *latency = s->main.latency;
    } else {
        group_reset(&s->main, s->main.script, 0);
        group_reset(&s->probe, s->probe.script, 0);
        done = phase_probe(&s->phase, o->quiet);
    }
    *probe = s->probe.latency;
    if (!done) {
        fail_late("%s: not done within %u s, undisturbed", o->mode, o->limit_s);
    }
}

static void scene_unleash(struct scene *s, const struct options *o)
{
    if (o->hostile == NULL) {
        return;
    }
    s->phase.hostile = &s->hostile;
    if (hostile_breaks(&s->hostile)) {
        group_open(&s->again, o, script_find("again"), 1, 1, NULL, 0);
        s->again.endless = true;
        group_pace(&s->again, AGAIN_MS, 1);
        s->phase.again = &s->again;
    }
}

/* What the server says it keeps for the hostile guest: the command `quota` of C xenstored. */
static void scene_account(const struct options *o, struct result *r)
{
    static const char command[] = "quota\0001";
    struct toolstack t;
    struct answer a;

    if (o->hostile == NULL || o->floor) {
        return;
    }
    toolstack_open(&t, o->socket, 0);
    toolstack_ask(&t, MSG_CONTROL, command, sizeof(command), &a);
    (void)snprintf(r->account, sizeof(r->account), "%.*s", (int)sizeof(r->account) - 1,
                   (const char *)a.payload);
    toolstack_close(&t);
}

static void scene_close(struct scene *s, const struct options *o)
{
    group_close(&s->main);
    if (s->phase.watchers != NULL) {
        group_close(&s->watchers);
    }
    if (s->phase.probe != NULL) {
        group_close(&s->probe);
    }
    if (s->phase.again != NULL) {
        group_close(&s->again);
    }
    if (o->hostile != NULL) {
        hostile_close(&s->hostile);
        /* Before its home is removed: oxenstored has whoever changes a node wait until those
         * who watch it have taken their events, and this one takes no more. */
        guests_expel(o, &s->host, HOSTILE_DOMID);
    }
    if (o->rings) {
        guests_depart(o, &s->host);
    }
}

/* What machines have left behind that were stopped by the time limit. */
static void storm_undo(const struct options *o)
{
    struct group g;
    struct phase phase = {.main = &g, .limit_s = STALL_S};
    uint32_t machines = o->connections * o->depth;

    group_open(&g, o, script_find("storm-undo"), 1, machines, NULL, 0);
    group_reset(&g, g.script, machines);
    if (!phase_run(&phase)) {
        fail_late("%u machines: not cleaned up within %d s", machines, STALL_S);
    }
    group_close(&g);
}

static void measure_script(const struct options *o, const struct script *script)
{
    static struct scene scene;
    static struct histogram quiet_latency;
    static struct histogram quiet_probe;
    static struct histogram latency;
    struct group *main = &scene.main;
    struct result r = {0};

    script_run_once(o, script->before);
    scene_open(&scene, o, script);
    /* Each connection says something first, so that none is measured while being accepted. */
    if (o->warm > 0) {
        struct phase warming = {.main = main, .host = scene.phase.host, .limit_s = o->limit_s};

        group_reset(main, script, o->warm);
        if (!phase_run(&warming)) {
            fail_late("%s: warm-up not done within %u s", o->mode, o->limit_s);
        }
    }
    if (o->quiet > 0) {
        scene_quiet(&scene, o, &quiet_latency, &quiet_probe);
        r.quiet_latency = o->hostile != NULL ? &quiet_latency : NULL;
        r.quiet_probe = &quiet_probe;
    }
    scene_unleash(&scene, o);
    group_pace(main, o->every_ms, o->burst);
    result_begin(&r, o);
    r.complete = scene_run(&scene, o->ops);
    result_end(&r, o);
    scene_account(o, &r);
    r.ops = main->ops;
    r.requests = main->requests;
    r.retries = main->retries;
    r.probe_retries = scene.probe.retries;
    r.events = main->events + scene.watchers.events;
    r.names = main->names;
    r.checksum = group_hash(main);
    latency = main->latency;
    r.latency = &latency;
    r.probe = scene.phase.probe != NULL ? &scene.probe.latency : NULL;
    r.probe_served = scene.probe.clocked ? &scene.probe.served : NULL;
    r.hostile = scene.phase.hostile;
    r.introductions = scene.again.ops;
    scene_close(&scene, o);
    if (!r.complete && strcmp(o->mode, "storm") == 0) {
        storm_undo(o);
    }
    if (plays_machines(o)) {
        machines_depart(o, &scene.host);
    }
    script_run_once(o, script->after);
    result_print(&r, o);
}

/* ---- command line --------------------------------------------------------------------------- */

static void usage(void)
{
    fprintf(
        stderr,
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
        "  -v --watchers N       connections that watch --path; measured until they have\n"
        "                        an event for each request\n"
        "  -r --path PATH        for modes that work on one path (default /bench/w)\n"
        "  -b --probe            a synchronous reader beside; its latencies are reported\n"
        "  -B --probe-tx         the same with a transaction that reads a node of domain 1\n"
        "  -x --xen DIR          the fake Xen that the server runs on; with --rings and for\n"
        "                        a storm, all domains there are but 0 are ours to destroy\n"
        "  -g --rings            connections, idle ones too, are guests on their rings\n"
        "  -S --sparing          guests kick only a daemon that had taken all\n"
        "  -e --every MS         each connection works in bursts, one in so long\n"
        "  -u --burst N          operations of a burst (default 1)\n"
        "  -q --quiet N          operations measured before anything disturbs\n"
        "  -h --hostile WHAT     what domain 1 does; see below\n"
        "  -W --window           refill a pipeline at once, not batch by batch\n"
        "  -f --floor            the server is the echo floor: check less, no checksum\n"
        "  -t --limit SECONDS    time for what is measured (default 60)\n\n"
        "Modes:\n");
    for (uint32_t i = 0; script_at(i) != NULL; i++) {
        fprintf(stderr, "  %-12s %s\n", script_at(i)->name, script_at(i)->help);
    }
    fprintf(stderr, "  %-12s %s\n", "churn", "connect, one READ, close");
    fprintf(stderr, "  %-12s %s\n\nHostile guests:", "crowd",
            "the same, none before all have come");
    for (uint32_t i = 0; hostile_name(i) != NULL; i++) {
        fprintf(stderr, " %s", hostile_name(i));
    }
    fprintf(stderr, "\n");
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
        {"socket", required_argument, NULL, 's'},
        {"pid", required_argument, NULL, 'p'},
        {"cpu", required_argument, NULL, 'a'},
        {"ops", required_argument, NULL, 'n'},
        {"warm", required_argument, NULL, 'm'},
        {"connections", required_argument, NULL, 'c'},
        {"depth", required_argument, NULL, 'd'},
        {"value", required_argument, NULL, 'k'},
        {"nodes", required_argument, NULL, 'N'},
        {"keys", required_argument, NULL, 'K'},
        {"idle", required_argument, NULL, 'i'},
        {"watches", required_argument, NULL, 'w'},
        {"path", required_argument, NULL, 'r'},
        {"probe", no_argument, NULL, 'b'},
        {"window", no_argument, NULL, 'W'},
        {"floor", no_argument, NULL, 'f'},
        {"limit", required_argument, NULL, 't'},
        {"probe-tx", no_argument, NULL, 'B'},
        {"xen", required_argument, NULL, 'x'},
        {"rings", no_argument, NULL, 'g'},
        {"sparing", no_argument, NULL, 'S'},
        {"every", required_argument, NULL, 'e'},
        {"burst", required_argument, NULL, 'u'},
        {"hostile", required_argument, NULL, 'h'},
        {"quiet", required_argument, NULL, 'q'},
        {"watchers", required_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "s:p:a:n:m:c:d:k:N:K:i:w:v:r:bBWfx:gSe:u:h:q:t:", names,
                            NULL)) != -1) {
        switch (c) {
        case 's':
            o->socket = optarg;
            break;
        case 'p':
            o->pid = (pid_t)number(optarg, INT32_MAX);
            break;
        case 'a':
            o->cpu = (int)number(optarg, CPU_SETSIZE - 1);
            break;
        case 'n':
            o->ops = number(optarg, 1000000000);
            break;
        case 'm':
            o->warm = number(optarg, 1000000000);
            break;
        case 'c':
            o->connections = (uint32_t)number(optarg, MAX_CONNECTIONS);
            break;
        case 'd':
            o->depth = (uint32_t)number(optarg, MAX_LANES);
            break;
        case 'k':
            o->value_bytes = (uint32_t)number(optarg, 2048);
            break;
        case 'N':
            o->nodes = number(optarg, 100000000);
            break;
        case 'K':
            o->keys = keys_named(optarg);
            break;
        case 'i':
            o->idle = (uint32_t)number(optarg, MAX_CONNECTIONS);
            break;
        case 'w':
            o->watches = (uint32_t)number(optarg, MAX_LANES);
            break;
        case 'v':
            o->watchers = (uint32_t)number(optarg, MAX_CONNECTIONS);
            break;
        case 'r':
            o->path = optarg;
            break;
        case 'b':
            o->probe_mode = "probe";
            break;
        case 'B':
            o->probe_mode = "probe-tx";
            break;
        case 'x':
            o->xen = optarg;
            break;
        case 'g':
            o->rings = true;
            break;
        case 'S':
            o->sparing = true;
            break;
        case 'e':
            o->every_ms = (uint32_t)number(optarg, 3600000);
            break;
        case 'u':
            o->burst = (uint32_t)number(optarg, 1000000);
            break;
        case 'h':
            o->hostile = optarg;
            break;
        case 'q':
            o->quiet = number(optarg, 1000000000);
            break;
        case 'W':
            o->window = true;
            break;
        case 'f':
            o->floor = true;
            break;
        case 't':
            o->limit_s = (uint32_t)number(optarg, 3600);
            break;
        default:
            usage();
        }
    }
    if (optind + 1 != argc || o->socket == NULL || o->connections == 0 || o->depth == 0 ||
        o->nodes == 0 || strlen(o->path) > 1024 ||
        (uint64_t)o->connections * o->depth > MAX_LANES) {
        usage();
    }
    if ((o->rings && (o->xen == NULL || o->connections + o->idle > HOST_GUESTS_MAX)) ||
        (o->hostile != NULL && (!o->rings || !hostile_known(o->hostile))) ||
        (o->quiet > 0 && o->probe_mode == NULL) || o->burst == 0) {
        usage();
    }
    if (o->rings) {
        o->nodes = GUEST_LEAVES;
    }
    o->mode = argv[optind];
    if (strcmp(o->mode, "storm") == 0 && o->connections * o->depth > MACHINES_MAX) {
        fprintf(stderr, "load: a storm has at most %d machines at once\n", MACHINES_MAX);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct options o = {.path = "/bench/w",
                               .cpu = -1,
                               .ops = 1000,
                               .nodes = 1000,
                               .connections = 1,
                               .depth = 1,
                               .value_bytes = 16,
                               .limit_s = 60,
                               .burst = 1};
    static struct group watches;
    struct rlimit files;
    const struct script *script;

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
    idle_open(&o);
    if (o.watches > 0) {
        watches_place(&o, &watches);
    }
    script = script_find(o.mode);
    if (strcmp(o.mode, "churn") == 0 || strcmp(o.mode, "crowd") == 0) {
        measure_churn(&o, o.mode[1] == 'r');
    } else if (script != NULL && script->help != NULL) {
        measure_script(&o, script);
    } else {
        usage();
    }
    return 0;
}
