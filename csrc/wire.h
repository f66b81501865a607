/*
 * The wire: headers, the table of operations, and cutting payloads.
 *
 *      0        4        8        12       16
 *      +--------+--------+--------+--------+----------------- - -
 *      | type   | req_id | tx_id  | len    | payload, len <= 4096
 *      +--------+--------+--------+--------+----------------- - -
 *
 * Four unsigned words in host byte order. The table is the only place that knows
 * which operation needs privilege, how its payload is cut, and whether it takes
 * part in a transaction; the engine asks it before anything else happens.
 */
#ifndef XS_WIRE_H
#define XS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto.h"

enum xs_op {
    XS_OP_CONTROL = 0,
    XS_OP_DIRECTORY = 1,
    XS_OP_READ = 2,
    XS_OP_GET_PERMS = 3,
    XS_OP_WATCH = 4,
    XS_OP_UNWATCH = 5,
    XS_OP_TRANSACTION_START = 6,
    XS_OP_TRANSACTION_END = 7,
    XS_OP_INTRODUCE = 8,
    XS_OP_RELEASE = 9,
    XS_OP_GET_DOMAIN_PATH = 10,
    XS_OP_WRITE = 11,
    XS_OP_MKDIR = 12,
    XS_OP_RM = 13,
    XS_OP_SET_PERMS = 14,
    XS_OP_WATCH_EVENT = 15,
    XS_OP_ERROR = 16,
    XS_OP_IS_DOMAIN_INTRODUCED = 17,
    XS_OP_RESUME = 18,
    XS_OP_SET_TARGET = 19,
    XS_OP_RESET_WATCHES = 21,
    XS_OP_DIRECTORY_PART = 22,
    XS_OP_GET_FEATURE = 23,
    XS_OP_SET_FEATURE = 24,
    XS_OP_GET_QUOTA = 25,
    XS_OP_SET_QUOTA = 26,
    XS_OP_COUNT
};

enum {
    XS_OPF_KNOWN = 1 << 0,      /* a client may send it */
    XS_OPF_PRIVILEGED = 1 << 1, /* only a privileged connection may send it */
    XS_OPF_IGNORES_TX = 1 << 2, /* tx_id is not looked at, valid or not */
    XS_OPF_ONE_STRING = 1 << 3, /* payload: exactly one NUL, at its very end */
    XS_OPF_TREE = 1 << 4,       /* works on the tree: on the transaction's, if one is named */
    XS_OPF_WRITES = 1 << 5,     /* may change the tree */
};

struct xs_op_info {
    const char *name;
    uint8_t flags;
    uint8_t strings_min; /* NULs wanted; counting operations only */
    uint8_t strings_max;
};

/* The row of a type, or NULL for types that no client may send. */
const struct xs_op_info *xs_op_info(uint32_t type);

struct xs_header {
    uint32_t type, req_id, tx_id, len;
};

static inline void xs_header_load(struct xs_header *h, const void *p)
{
    memcpy(h, p, XS_HEADER_SIZE);
}

static inline void xs_header_store(void *p, const struct xs_header *h)
{
    memcpy(p, h, XS_HEADER_SIZE);
}

/* NULs in a payload; what stands behind the last one does not count. */
uint32_t xs_wire_count_strings(const char *p, size_t n);

/* Whether a payload has the shape its operation wants: one string, or a number of
 * strings between the bounds of the table. Sets *strings. */
bool xs_wire_check(const struct xs_op_info *op, const char *p, size_t n, uint32_t *strings);

/* The next NUL-terminated string of a payload. Call it only as often as strings were
 * counted. Returns its length, moves *p behind its NUL. */
size_t xs_wire_next(const char **p, const char **string);

/* Strict domain id: decimal digits and nothing else, at most 65535; "" is 0. */
bool xs_wire_domid(const char *p, size_t n, uint32_t *domid);

/* Lenient decimal, as strtol reads it: blanks, a sign, digits; the rest is ignored,
 * no digits are 0. Saturates. */
int64_t xs_wire_number(const char *p, size_t n);

/* Writes v in decimal with a NUL; returns the bytes written, at most 21. */
size_t xs_wire_put_number(char *out, uint64_t v);

#endif
