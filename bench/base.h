/*
 * What every part of the load client needs: how it fails, its memory, its hash, its options.
 *
 * The client never goes on after a surprise: `fail` prints the one JSON object of the run, with
 * nothing but "error" in it, and ends the process with exit code 1.
 */
#ifndef BENCH_BASE_H
#define BENCH_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FNV_START 14695981039346656037u

enum {
    MAX_CONNECTIONS = 20000,
    MAX_LANES = 200000,
    MAX_BUFFER_BYTES = 64 << 20,
    STALL_S = 60, /* no reply at all for so long: the server hangs */
};

enum keys { KEYS_RANDOM, KEYS_OWN, KEYS_SAME };

/* The command line. Counts are of the measured part; 0 is "none" throughout. */
struct options {
    const char *mode;
    const char *socket;
    const char *xen;        /* directory of the fake Xen; NULL: there are sockets only */
    const char *path;       /* for modes that work on one path */
    const char *probe_mode; /* what a client on a socket does beside; NULL: there is none */
    const char *hostile;    /* name of what a hostile guest does; NULL: there is none */
    pid_t pid;
    int cpu;
    uint64_t ops;
    uint64_t warm;
    uint64_t quiet; /* operations measured first, while what disturbs is still silent */
    uint64_t nodes;
    uint32_t connections;
    uint32_t depth;
    uint32_t value_bytes;
    uint32_t idle;
    uint32_t watches;
    uint32_t watchers; /* connections that watch `path` */
    uint32_t limit_s;
    uint32_t every_ms; /* each connection works once in so long */
    uint32_t burst;    /* and does so many operations then */
    enum keys keys;
    bool rings;   /* the measured connections are guests on their rings */
    bool sparing; /* they kick no more than they must */
    bool floor;
    bool window;
};

void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* The same, with "late": nothing was wrong, but the server was too slow to be made ready. */
void fail_late(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Zeroed memory; never NULL. */
void *make(size_t count, size_t size);

uint64_t fnv(uint64_t hash, const void *bytes, size_t n);

struct buffer {
    uint8_t *data;
    size_t cap;
    size_t start;
    size_t end;
};

/* Makes room for so many bytes at the end; what is in the buffer may move. */
void buffer_reserve(struct buffer *b, size_t room);

#endif
