/*
 * Preloaded into a daemon whose limit of writes per second cannot be switched off: the clock that
 * it measures with runs a thousand times faster, and it sleeps a thousand times shorter for it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <time.h>

#define FASTER 1000

typedef int clock_function(clockid_t, struct timespec *);
typedef int poll_function(struct pollfd *, nfds_t, int);

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static clock_function *real;
    long long ns;
    int result;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    result = real(clock, now);
    if (result == 0 && clock == CLOCK_MONOTONIC) {
        ns = (long long)now->tv_nsec * FASTER;
        now->tv_sec = now->tv_sec * FASTER + (time_t)(ns / 1000000000);
        now->tv_nsec = (long)(ns % 1000000000);
    }
    return result;
}

int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    static poll_function *real;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "poll");
    if (timeout_ms > 0)
        timeout_ms = timeout_ms / FASTER + 1;
    return real(fds, count, timeout_ms);
}
