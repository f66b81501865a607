/*
 * What the load client and the echo floor share: the frame on the wire and the clocks.
 *
 * A frame is a header of four 32-bit words in host byte order, then `len` bytes of payload:
 *
 *     +------+--------+-------+-----+----------------+
 *     | type | req_id | tx_id | len | payload ...    |
 *     +------+--------+-------+-----+----------------+
 *     0      4        8       12    16
 *
 * The numbers stand here a second time on purpose: a benchmark that took them from the daemon's
 * own headers would follow the daemon into a mistake.
 */
#ifndef BENCH_PROTO_H
#define BENCH_PROTO_H

#include <stdint.h>
#include <time.h>

enum msg_type {
    MSG_CONTROL = 0,
    MSG_DIRECTORY = 1,
    MSG_READ = 2,
    MSG_GET_PERMS = 3,
    MSG_WATCH = 4,
    MSG_UNWATCH = 5,
    MSG_TRANSACTION_START = 6,
    MSG_TRANSACTION_END = 7,
    MSG_INTRODUCE = 8,
    MSG_RELEASE = 9,
    MSG_GET_DOMAIN_PATH = 10,
    MSG_WRITE = 11,
    MSG_MKDIR = 12,
    MSG_RM = 13,
    MSG_SET_PERMS = 14,
    MSG_WATCH_EVENT = 15,
    MSG_ERROR = 16,
    MSG_IS_DOMAIN_INTRODUCED = 17,
    MSG_DIRECTORY_PART = 22,
};

enum {
    HEADER_BYTES = 16,
    PAYLOAD_BYTES_MAX = 4096,
};

struct header {
    uint32_t type;
    uint32_t req_id;
    uint32_t tx_id;
    uint32_t len;
};

/* Nanoseconds of clock `id`. */
static inline uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    if (clock_gettime(id, &ts) != 0) {
        return 0;
    }
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

#endif
