/*
 * A slowdown of known size, planted into a daemon from outside: preloaded, it makes the event loop
 * burn a share of the CPU time that each of its turns took. It shows that a report would notice.
 *
 *     turn of the loop | burn | turn | burn | ...      burn = share * turn, in CPU time
 *
 * An event loop comes back to epoll after each turn, whatever it served: sockets, rings, timers.
 * Reading the thread's clock costs as much as a small request, so it is read once in TURNS turns.
 * BENCH_PLANT_PERCENT is the share; without it nothing is done.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

enum { TURNS = 64 };

typedef int (*epoll_pwait_fn)(int, struct epoll_event *, int, int, const sigset_t *);

static _Thread_local int64_t since_ns;
static _Thread_local unsigned turns;

static int64_t thread_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int64_t percent(void)
{
    static int64_t known = -1;

    if (known < 0) {
        const char *text = getenv("BENCH_PLANT_PERCENT");

        known = text == NULL ? 0 : strtol(text, NULL, 10);
    }
    return known;
}

static void burn(void)
{
    int64_t now;
    int64_t until;

    if (++turns % TURNS != 0 || percent() <= 0) {
        return;
    }
    now = thread_ns();
    if (since_ns > 0) {
        until = now + (now - since_ns) * percent() / 100;
        while (now < until) {
            now = thread_ns();
        }
    }
    since_ns = now;
}

int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout,
                const sigset_t *mask)
{
    static epoll_pwait_fn next;

    if (next == NULL) {
        void *found = dlsym(RTLD_NEXT, "epoll_pwait");

        __builtin_memcpy(&next, &found, sizeof(next));
        if (next == NULL) {
            errno = ENOSYS;
            return -1;
        }
    }
    burn();
    return next(epfd, events, max, timeout, mask);
}

int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    return epoll_pwait(epfd, events, max, timeout, NULL);
}
