/*
 * Memory, accounted and able to fail on demand.
 *
 * All memory of the store comes from here. A block is charged to an account:
 * that of a domain for what a domain can make us hold for it (watches, queued
 * output, unfinished input, transactions), that of the tree for nodes. Freeing
 * and resizing need the size the caller asked for, so blocks carry no header:
 *
 *      xs_mem_alloc(m, who, n)   total += n, who += n
 *      xs_mem_free(m, who, p, n) total -= n, who -= n
 *
 * When a connection has gone its account must read zero again; xs_mem is
 * therefore also the leak detector of the test-suite.
 *
 * Failing on demand. `calls` numbers every request for memory. A test sets
 * `fail_at` to the number that must fail (and `fail_sticky` when every later
 * one must fail too), runs one operation, and checks that nothing changed.
 *
 * Cost: that of malloc plus four additions. No locks: one thread owns a store.
 */
#ifndef XS_MEM_H
#define XS_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xs_account {
    int64_t bytes;
    int64_t blocks;
};

struct xs_mem {
    struct xs_account total;
    uint64_t calls;    /* allocations asked for so far */
    uint64_t fail_at;  /* the call that fails; 0: none */
    uint64_t failures; /* calls that failed, for whatever reason */
    bool fail_sticky;  /* calls after fail_at fail too */
};

void xs_mem_init(struct xs_mem *m);

/* n bytes, uninitialised, charged to `who` (NULL: to the total only), or NULL. */
void *xs_mem_alloc(struct xs_mem *m, struct xs_account *who, size_t n);
/* The same, zeroed. */
void *xs_mem_zalloc(struct xs_mem *m, struct xs_account *who, size_t n);
/* Resizes old_n bytes at p (NULL with 0) to n > 0. On NULL, p is as it was. */
void *xs_mem_resize(struct xs_mem *m, struct xs_account *who, void *p, size_t old_n, size_t n);
void xs_mem_free(struct xs_mem *m, struct xs_account *who, void *p, size_t n);

/* Grows the array *p, of *cap elements of `size` bytes, to hold at least `need`.
 * Returns 0 or XS_ENOMEM; at least doubles, so that appending is O(1) amortised. */
int xs_mem_grow(struct xs_mem *m, struct xs_account *who, void **p, size_t *cap, size_t need,
                size_t size);

/* An own mistake, never a guest's: says what failed and aborts. Stays on in release. */
#define xs_assert(cond) ((cond) ? (void)0 : xs_assert_failed(#cond, __FILE__, __LINE__))
_Noreturn void xs_assert_failed(const char *what, const char *file, int line);

#endif
