#define _GNU_SOURCE
#include "result.h"

#include "proto.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

/* Resident bytes of process `pid`; 0 when there is no pid. */
static uint64_t server_rss(pid_t pid)
{
    char path[64];
    unsigned long long resident = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    file = pid > 0 ? fopen(path, "r") : NULL;
    if (file == NULL) {
        return 0;
    }
    if (fscanf(file, "%*u %llu", &resident) != 1) {
        resident = 0;
    }
    (void)fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

void result_begin(struct result *r, const struct options *o)
{
    r->server_ns = server_cpu_at_rest_ns(o->pid);
    r->rss_before = server_rss(o->pid);
    r->client_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    r->wall_ns = now_ns();
}

void result_end(struct result *r, const struct options *o)
{
    r->wall_ns = now_ns() - r->wall_ns;
    r->client_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - r->client_ns;
    r->rss_during = server_rss(o->pid);
    r->server_ns = server_cpu_at_rest_ns(o->pid) - r->server_ns;
}

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
           ", \"p999\": %" PRIu64 ", \"max\": %" PRIu64 ", \"buckets\": [",
           name, h->count, histogram_at(h, 500), histogram_at(h, 990), histogram_at(h, 999),
           h->max);
    for (uint32_t i = 0, printed = 0; i < HIST_BUCKETS; i++) {
        if (h->bucket[i] > 0) {
            printf("%s[%" PRIu64 ", %" PRIu64 "]", printed++ > 0 ? ", " : "", histogram_high(i),
                   h->bucket[i]);
        }
    }
    printf("]}");
}

static void print_text(const char *name, const char *text)
{
    printf(", \"%s\": \"", name);
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '\n') {
            printf("\\n");
        } else {
            putchar(*c == '"' || *c == '\\' || *c < ' ' || *c > '~' ? '?' : *c);
        }
    }
    putchar('"');
}

static void print_hostile(const struct result *r)
{
    const struct hostile *h = r->hostile;

    printf(", \"hostile\": {\"requests\": %" PRIu64 ", \"replies\": %" PRIu64
           ", \"refused\": %" PRIu64 ", \"events\": %" PRIu64 ", \"introductions\": %" PRIu64,
           h->requests, h->replies, h->refused, h->events, r->introductions);
    print_text("account", r->account);
    printf("}");
}

void result_print(const struct result *r, const struct options *o)
{
    bool known = o->pid > 0;

    printf("{\"mode\": \"%s\", \"connections\": %u, \"depth\": %u, \"idle\": %u, "
           "\"watches\": %u, \"nodes\": %" PRIu64 ", \"ops\": %" PRIu64
           ", \"requests\": %" PRIu64 ", \"retries\": %" PRIu64 ", \"events\": %" PRIu64
           ", \"names\": %" PRIu64,
           o->mode, o->connections, o->depth, o->idle, o->watches, o->nodes, r->ops,
           r->requests, r->retries, r->events, r->names);
    printf(", \"truncated\": %s, \"wall_ns\": %" PRIu64 ", \"client_cpu_ns\": %" PRIu64,
           r->complete ? "false" : "true", r->wall_ns, r->client_ns);
    print_per("server_cpu_ns", r->server_ns, 1, known);
    print_per("server_ns_per_op", r->server_ns, r->ops, known);
    print_per("server_ns_per_request", r->server_ns, r->requests, known);
    print_per("wall_ns_per_op", r->wall_ns, r->ops, true);
    print_latency("latency_ns", r->latency);
    print_latency("probe_ns", r->probe);
    print_latency("probe_served_ns", r->probe_served);
    printf(", \"probe_retries\": %" PRIu64, r->probe_retries);
    print_latency("quiet_latency_ns", r->quiet_latency);
    print_latency("quiet_probe_ns", r->quiet_probe);
    printf(", \"rings\": %s, \"rss_before_bytes\": %" PRIu64 ", \"rss_during_bytes\": %" PRIu64
           ", \"rss_under_load_bytes\": %" PRId64,
           o->rings ? "true" : "false", r->rss_before, r->rss_during,
           (int64_t)(r->rss_during - r->rss_before));
    if (r->hostile != NULL) {
        print_hostile(r);
    }
    if (r->complete && !o->floor) {
        printf(", \"checksum\": \"%016" PRIx64 "\"}\n", r->checksum);
    } else {
        printf(", \"checksum\": null}\n");
    }
}
