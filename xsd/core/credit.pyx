# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Conflict credit: whoever makes transactions of others fail is served less.

Each domain has credit up to a limit and loses a point for each conflict it is proven to have
caused. Without credit it is paused: its ring is neither read nor written. Points come back with
time, one a period: to one domain in turn, paused ones first, or, when the rate is not an
aggregate, to every domain. A pause lasts at least one period: the clock starts anew when the
first domain is paused, and nobody's pause is ended by a point that comes sooner.

Nothing looks at domains that have their full credit, and no time is asked for when all have.
"""

from libc.stdint cimport int64_t

from xsd.core.connection cimport conn_wake, mark_dirty
from xsd.core.effects cimport effect_log
from xsd.core.types cimport Core, Domain


cdef bint credit_paused(const Core *core, const Domain *d) noexcept nogil:
    return core.conflict_on and d.credit <= 0


cdef void credit_welcome(Core *core, Domain *d) noexcept nogil:
    """A domain begins with as much as there is to have."""
    d.credit = core.credit_limit


# ---- queues ---------------------------------------------------------------------------

cdef void queue_paused(Core *core, Domain *d) noexcept nogil:
    d.in_paused = True
    d.paused_next = NULL
    if core.paused_last == NULL:
        core.paused_first = d
    else:
        core.paused_last.paused_next = d
    core.paused_last = d


cdef Domain *unqueue_paused(Core *core) noexcept nogil:
    cdef Domain *d = core.paused_first
    core.paused_first = d.paused_next
    if core.paused_first == NULL:
        core.paused_last = NULL
    d.in_paused = False
    return d


cdef void queue_penalised(Core *core, Domain *d) noexcept nogil:
    d.in_penalised = True
    d.penalised_next = NULL
    if core.penalised_last == NULL:
        core.penalised_first = d
    else:
        core.penalised_last.penalised_next = d
    core.penalised_last = d


cdef Domain *unqueue_penalised(Core *core) noexcept nogil:
    cdef Domain *d = core.penalised_first
    core.penalised_first = d.penalised_next
    if core.penalised_first == NULL:
        core.penalised_last = NULL
    d.in_penalised = False
    return d


cdef void credit_forget(Core *core, Domain *d) noexcept nogil:
    """A domain goes: no queue may remember it."""
    cdef Domain **link
    cdef Domain *prev = NULL
    if d.in_paused:
        link = &core.paused_first
        while link[0] != d:
            prev = link[0]
            link = &link[0].paused_next
        link[0] = d.paused_next
        if core.paused_last == d:
            core.paused_last = prev
        d.in_paused = False
    if d.in_penalised:
        prev = NULL
        link = &core.penalised_first
        while link[0] != d:
            prev = link[0]
            link = &link[0].penalised_next
        link[0] = d.penalised_next
        if core.penalised_last == d:
            core.penalised_last = prev
        d.in_penalised = False
    if credit_paused(core, d):
        core.paused_count -= 1


# ---- losing and gaining ------------------------------------------------------------------

cdef void credit_charge(Core *core, Domain *d) noexcept nogil:
    """A domain has been proven to have caused a conflict."""
    cdef double before = d.credit
    cdef double after = before - 1.0
    d.caused += 1
    d.caused_lately += 1
    if not core.conflict_on:
        return
    if after < -1.0:
        after = -1.0
    d.credit = after
    effect_log(core, True, b"domain %lld: conflict credit %lld to %lld thousandths", d.domid,
               <int64_t>(before * 1000), <int64_t>(after * 1000))
    if core.paused_first == NULL and core.penalised_first == NULL:
        core.credit_tick = core.now + core.credit_period_ns
    if before > 0 and after <= 0:
        if core.paused_count == 0: # a pause lasts a whole period
            core.credit_tick = core.now + core.credit_period_ns
        core.paused_count += 1
        d.paused_since = core.now
        if core.credit_aggregate and not d.in_paused:
            queue_paused(core, d)
    if not d.in_penalised and (not core.credit_aggregate or after > 0):
        queue_penalised(core, d)
    core.tick_wanted = True


cdef void give(Core *core, Domain *d) noexcept nogil:
    """One point, up to the limit; a domain that has credit again is served again."""
    cdef double before = d.credit
    d.credit = before + 1.0
    if d.credit > core.credit_limit:
        d.credit = core.credit_limit
    effect_log(core, True, b"domain %lld: conflict credit %lld to %lld thousandths", d.domid,
               <int64_t>(before * 1000), <int64_t>(d.credit * 1000))
    if before <= 0 and d.credit > 0:
        core.paused_count -= 1
        d.paused_ns += core.now - d.paused_since
        if d.conn != NULL:
            conn_wake(d.conn)
            mark_dirty(d.conn) # what waits for it may be written again


cdef int64_t pause_end(const Core *core, const Domain *d) noexcept nogil:
    """The earliest time at which a paused domain may be given a point."""
    return d.paused_since + core.credit_period_ns


cdef void replenish_one(Core *core) noexcept nogil:
    """The point of this period goes to who has waited longest: first to those paused.

    Somebody is below the limit.
    """
    cdef Domain *d
    if core.paused_first != NULL:
        d = unqueue_paused(core)
        give(core, d)
        # Below the limit it stands among the penalised already: it lost points one by one.
        if d.credit <= 0:
            queue_paused(core, d)
    else:
        d = unqueue_penalised(core)
        give(core, d)
        if d.credit < core.credit_limit:
            queue_penalised(core, d)


cdef void replenish_each(Core *core) noexcept nogil:
    """Every domain below the limit gets a point; one queue holds them all, and is not empty."""
    cdef Domain *d
    cdef Domain *last = core.penalised_last
    while True:
        d = unqueue_penalised(core)
        if not credit_paused(core, d) or core.now >= pause_end(core, d):
            give(core, d)
        if d.credit < core.credit_limit:
            queue_penalised(core, d)
        if d == last:
            return


cdef int64_t credit_tick(Core *core) noexcept nogil:
    """Gives what is due. When to come back, or -1 when all have their full credit."""
    if core.paused_first == NULL and core.penalised_first == NULL:
        return -1
    if core.paused_first != NULL and core.credit_tick < pause_end(core, core.paused_first):
        core.credit_tick = pause_end(core, core.paused_first) # who came before it has died
    if core.now >= core.credit_tick:
        if core.credit_aggregate:
            replenish_one(core)
        else:
            replenish_each(core)
        core.credit_tick = core.now + core.credit_period_ns
    if core.paused_first == NULL and core.penalised_first == NULL:
        return -1
    return core.credit_tick


cdef void credit_reset(Core *core) noexcept nogil:
    """The settings have changed: everybody begins anew."""
    cdef Domain *d = core.domain_list
    while core.paused_first != NULL:
        unqueue_paused(core)
    while core.penalised_first != NULL:
        unqueue_penalised(core)
    core.paused_count = 0
    while d != NULL:
        if d.credit <= 0 and d.conn != NULL:
            d.paused_ns += core.now - d.paused_since
        d.credit = core.credit_limit
        if d.conn != NULL:
            conn_wake(d.conn)
            mark_dirty(d.conn)
        d = d.next
