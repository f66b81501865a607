#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

void xs_mem_init(struct xs_mem *m)
{
    memset(m, 0, sizeof(*m));
}

static bool must_fail(struct xs_mem *m)
{
    m->calls++;
    if (m->fail_at == 0)
        return false;
    return m->fail_sticky ? m->calls >= m->fail_at : m->calls == m->fail_at;
}

static void charge(struct xs_mem *m, struct xs_account *who, int64_t bytes, int64_t blocks)
{
    m->total.bytes += bytes;
    m->total.blocks += blocks;
    if (who != NULL) {
        who->bytes += bytes;
        who->blocks += blocks;
    }
}

void *xs_mem_alloc(struct xs_mem *m, struct xs_account *who, size_t n)
{
    void *p = must_fail(m) ? NULL : malloc(n);

    if (p == NULL) {
        m->failures++;
        return NULL;
    }
    charge(m, who, (int64_t)n, 1);
    return p;
}

void *xs_mem_zalloc(struct xs_mem *m, struct xs_account *who, size_t n)
{
    void *p = xs_mem_alloc(m, who, n);

    if (p != NULL)
        memset(p, 0, n);
    return p;
}

void *xs_mem_resize(struct xs_mem *m, struct xs_account *who, void *p, size_t old_n, size_t n)
{
    void *q = must_fail(m) ? NULL : realloc(p, n);

    if (q == NULL) {
        m->failures++;
        return NULL;
    }
    charge(m, who, (int64_t)n - (int64_t)old_n, p == NULL ? 1 : 0);
    return q;
}

void xs_mem_free(struct xs_mem *m, struct xs_account *who, void *p, size_t n)
{
    if (p == NULL)
        return;
    charge(m, who, -(int64_t)n, -1);
    free(p);
}

int xs_mem_grow(struct xs_mem *m, struct xs_account *who, void **p, size_t *cap, size_t need,
                size_t size)
{
    if (need <= *cap)
        return XS_OK;

    size_t want = *cap < 8 ? 8 : *cap * 2;
    if (want < need)
        want = need;
    void *q = xs_mem_resize(m, who, *p, *cap * size, want * size);
    if (q == NULL)
        return XS_ENOMEM;
    *p = q;
    *cap = want;
    return XS_OK;
}

_Noreturn void xs_assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "xsd: internal error: %s does not hold (%s:%d)\n", what, file, line);
    abort();
}
