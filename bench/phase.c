#define _GNU_SOURCE
#include "phase.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    NOTIFICATIONS = 1024,
    PROBE_BEFORE = 200,       /* operations of the probe before the others start */
    PROBE_AFTER_NS = 50000000 /* how long it goes on when they are done */
};

static void conn_watch(const struct phase *p, struct conn *c, int how, bool want_write)
{
    struct epoll_event event = {.events = EPOLLIN | (want_write ? (uint32_t)EPOLLOUT : 0u),
                                .data.ptr = c};

    if (c->transport.fd >= 0 && epoll_ctl(p->epoll, how, c->transport.fd, &event) != 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
}

static void group_watch(const struct phase *p, struct group *g)
{
    for (uint32_t i = 0; g != NULL && i < g->conn_count; i++) {
        conn_watch(p, &g->conns[i], EPOLL_CTL_ADD, false);
    }
}

static void conn_serve(const struct phase *p, struct conn *c, bool readable)
{
    bool wanted = c->want_write;

    if (readable) {
        conn_input(c);
    }
    conn_flush(c);
    if (wanted != c->want_write) {
        conn_watch(p, c, EPOLL_CTL_MOD, c->want_write);
    }
}

/* Guests that were notified. One without an owner is idle, or hostile: that one acts at the end
 * of each turn anyway. */
static void mail_serve(const struct phase *p)
{
    uint32_t domids[NOTIFICATIONS];
    struct host *h = p->host;
    int n = fakexen_take(&h->fx, h->mailbox, domids, NOTIFICATIONS);

    if (n < 0) {
        fail("mailbox: %s", strerror(errno));
    }
    for (int i = 0; i < n; i++) {
        if (domids[i] <= h->count && h->owner[domids[i]] != NULL) {
            conn_serve(p, h->owner[domids[i]], true);
        }
    }
}

/* Begins the bursts that are due and has the timer tell of the next. */
static void pace(struct phase *p)
{
    uint64_t now = now_ns();
    uint64_t due = group_wake(p->main, now);
    struct itimerspec alarm = {{0, 0}, {0, 0}};

    if (p->again != NULL) {
        uint64_t other = group_wake(p->again, now);

        due = other < due ? other : due;
    }
    if (due == p->alarm_ns || due == UINT64_MAX) {
        return;
    }
    p->alarm_ns = due;
    alarm.it_value.tv_sec = (time_t)(due / 1000000000u);
    alarm.it_value.tv_nsec = (long)(due % 1000000000u);
    if (timerfd_settime(p->timer, TFD_TIMER_ABSTIME, &alarm, NULL) != 0) {
        fail("timerfd_settime: %s", strerror(errno));
    }
}

static void phase_stop(struct phase *p)
{
    p->stopping = true;
    group_stop(p->main);
    if (p->probe != NULL) {
        group_stop(p->probe);
    }
    if (p->again != NULL) {
        group_stop(p->again);
    }
}

/* Waits once and serves what is ready. */
static void phase_turn(struct phase *p)
{
    struct epoll_event events[EVENTS];
    int n;

    pace(p);
    n = epoll_wait(p->epoll, events, EVENTS, STALL_S * 1000);
    if (n == 0) {
        fail_late("no reply for %d s", STALL_S);
    }
    if (n < 0 && errno != EINTR) {
        fail("epoll_wait: %s", strerror(errno));
    }
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == NULL) {
            mail_serve(p);
        } else if (events[i].data.ptr == p) {
            uint64_t expired;

            (void)!read(p->timer, &expired, sizeof(expired));
        } else {
            conn_serve(p, events[i].data.ptr, (events[i].events & ~(uint32_t)EPOLLOUT) != 0);
        }
    }
    if (p->hostile != NULL && !p->stopping) {
        hostile_step(p->hostile, p->again != NULL ? p->again->ops : 0);
    }
    if (!p->stopping && now_ns() > p->deadline_ns) {
        phase_stop(p);
        p->truncated = true;
    }
}

static void phase_begin(struct phase *p)
{
    struct epoll_event mail = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event timer = {.events = EPOLLIN, .data.ptr = p};

    p->stopping = false;
    p->truncated = false;
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    p->alarm_ns = UINT64_MAX;
    p->deadline_ns = now_ns() + (uint64_t)p->limit_s * 1000000000u;
    if (p->epoll < 0 || epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->timer, &timer) != 0) {
        fail("epoll: %s", strerror(errno));
    }
    if (p->host != NULL && epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->host->mailbox, &mail) != 0) {
        fail("epoll: %s", strerror(errno));
    }
    group_watch(p, p->main);
    group_watch(p, p->probe);
    group_watch(p, p->again);
    group_watch(p, p->watchers);
}

static void phase_end(struct phase *p)
{
    (void)close(p->timer);
    (void)close(p->epoll);
}

static uint32_t group_busy(const struct group *g)
{
    return g == NULL ? 0 : g->busy;
}

static bool main_done(const struct phase *p)
{
    return p->main->busy == 0 &&
           (p->watchers == NULL || p->watchers->events >= p->events_due || p->stopping);
}

bool phase_run(struct phase *p)
{
    uint64_t main_done_ns = 0;

    phase_begin(p);
    if (p->probe != NULL) {
        group_start(p->probe);
        while (p->probe->ops < PROBE_BEFORE && !p->stopping) {
            phase_turn(p);
        }
        memset(&p->probe->latency, 0, sizeof(p->probe->latency));
        memset(&p->probe->served, 0, sizeof(p->probe->served));
    }
    if (p->again != NULL) {
        group_start(p->again);
    }
    group_start(p->main);
    while (!main_done(p) || group_busy(p->probe) > 0 || group_busy(p->again) > 0) {
        phase_turn(p);
        if (main_done(p) && main_done_ns == 0) {
            main_done_ns = now_ns();
        }
        if (main_done(p) && !p->stopping && now_ns() > main_done_ns + PROBE_AFTER_NS) {
            phase_stop(p);
        }
    }
    phase_end(p);
    return !p->truncated;
}

bool phase_probe(struct phase *p, uint64_t ops)
{
    phase_begin(p);
    group_start(p->probe);
    while (p->probe->busy > 0) {
        phase_turn(p);
        if (p->probe->ops >= ops && !p->stopping) {
            phase_stop(p);
        }
    }
    phase_end(p);
    return !p->truncated;
}

void phase_await_events(struct phase *p, uint64_t events)
{
    phase_begin(p);
    while (p->main->events < events && !p->stopping) {
        phase_turn(p);
    }
    phase_end(p);
    if (p->truncated) {
        fail_late("%u s without all events", p->limit_s);
    }
}
