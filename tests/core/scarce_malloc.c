/* Preloaded, it lets one allocation of the store fail: the engine can be told to let its
 * allocations fail, but not before there is an engine. */
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void let_fail(long nth);

static long left; /* calls until the one that fails; 0: none will */

static int fails(const void *caller)
{
    Dl_info info;

    if (left == 0 || dladdr(caller, &info) == 0 || strstr(info.dli_fname, "/xsd/core/") == NULL)
        return 0;
    return --left == 0;
}

/* The nth call of the store from now on; 0: none. */
void let_fail(long nth)
{
    left = nth;
}

void *malloc(size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}
