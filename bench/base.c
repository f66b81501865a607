#include "base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FNV_PRIME 1099511628211u

enum { BUFFER_BYTES = 32 << 10 };

static void die(const char *more, const char *format, va_list args)
    __attribute__((noreturn, format(printf, 2, 0)));

static void die(const char *more, const char *format, va_list args)
{
    char text[512];

    (void)vsnprintf(text, sizeof(text), format, args);
    printf("{\"error\": \"");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ' || (unsigned char)*c > '~') {
            putchar('?');
        } else {
            putchar(*c);
        }
    }
    printf("\"%s}\n", more);
    fprintf(stderr, "load: %s\n", text);
    exit(1);
}

void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format); /* its end is the process's */
    die("", format, args);
}

void fail_late(const char *format, ...)
{
    va_list args;

    va_start(args, format); /* its end is the process's */
    die(", \"late\": true", format, args);
}

void *make(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);

    if (p == NULL) {
        fail("out of memory");
    }
    return p;
}

uint64_t fnv(uint64_t hash, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;

    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ b[i]) * FNV_PRIME;
    }
    return hash;
}

void buffer_reserve(struct buffer *b, size_t room)
{
    size_t used = b->end - b->start;
    size_t cap = b->cap > 0 ? b->cap : BUFFER_BYTES;

    if (b->start > 0) {
        memmove(b->data, b->data + b->start, used);
        b->start = 0;
        b->end = used;
    }
    while (cap < used + room) {
        cap *= 2;
    }
    if (cap > MAX_BUFFER_BYTES) {
        fail("a buffer would grow beyond %d bytes", MAX_BUFFER_BYTES);
    }
    if (cap != b->cap) {
        b->data = realloc(b->data, cap);
        if (b->data == NULL) {
            fail("out of memory");
        }
        b->cap = cap;
    }
}
