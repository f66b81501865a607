/*
 * What the two halves of the echo server share: the answers.
 */
#ifndef BENCH_ECHO_H
#define BENCH_ECHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto.h"

enum { VALUE_BYTES_MAX = 2048, REPLY_BYTES_MAX = HEADER_BYTES + VALUE_BYTES_MAX };

struct answers {
    char value[VALUE_BYTES_MAX];
    size_t value_bytes;
    char names[128];
    size_t names_bytes;
};

/* Writes the reply to a request into out[REPLY_BYTES_MAX]; returns its length. */
size_t answer(uint8_t *out, const struct answers *a, struct header h);

void die(const char *what) __attribute__((noreturn));

/* ---- rings: echo_rings.c ---- */

/* Opens the event channels of the fake Xen below us. Returns their descriptor, -1 without one. */
int rings_open(void);

/* Serves INTRODUCE; whatever is wrong with it, the answer is "OK" and nothing is served. */
void rings_introduce(const char *payload, size_t n);

/* Serves what has sent events: one read, for each ring one notification, one write. */
void rings_serve(const struct answers *a);

#endif
