# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The write-rate limit: what a guest may write while transactions are open.

The older answer to the same problem as conflict credit, behind its own switch: a write can only
hurt somebody while a transaction is open, and then it costs. Guests share a rate; each saves
up to a burst, what is beyond goes to a common reserve, and the reserve helps those in debt. A
guest in debt is not read until it has earned its way out; its output continues.

Credit is counted in thousandths of a write, time in whole milliseconds.
"""

from libc.stdint cimport int64_t

from xsd.core.connection cimport conn_wake
from xsd.core.effects cimport effect_log
from xsd.core.types cimport CONN_RING, Conn, Core, Domain

cdef enum:
    UNIT = 1000

cdef int64_t QUIET_NS = 120_000_000_000 # after the last warning, one line says that it is over
cdef int64_t CREDIT_MAX = 1_000_000_000


cdef int64_t transfer(int64_t *source, int64_t floor, int64_t *into,
                      int64_t ceiling) noexcept nogil:
    """Moves as much as possible; nothing, if a bound is violated already."""
    cdef int64_t much = source[0] - floor
    if ceiling - into[0] < much:
        much = ceiling - into[0]
    if much <= 0:
        return 0
    source[0] -= much
    into[0] += much
    return much


cdef void update(Core *core, Domain *d) noexcept nogil:
    """What a domain has earned since the last look."""
    cdef int64_t now = core.now // 1_000_000
    cdef int64_t spent = now - d.write_time_ms, earned = 0
    if spent > CREDIT_MAX:
        spent = CREDIT_MAX
    if core.write_domains > 0 and spent > 0:
        earned = spent * core.write_rate // core.write_domains
    if earned > 0: # else the time goes on counting: looking often must not cost anything
        d.write_credit += earned
        d.write_time_ms = now
    if d.write_credit > CREDIT_MAX:
        d.write_credit = CREDIT_MAX
    if d.write_credit < 0:
        transfer(&core.write_reserve, 0, &d.write_credit, 0)
    transfer(&d.write_credit, core.write_burst * UNIT, &core.write_reserve,
             core.write_global * UNIT)
    if d.write_credit > core.write_burst * UNIT:
        d.write_credit = core.write_burst * UNIT


cdef void write_rate_join(Core *core, Domain *d) noexcept nogil:
    """A domain comes: equipped from the reserve, which may go into debt for newcomers."""
    core.write_domains += 1
    d.write_credit = 0
    d.write_time_ms = core.now // 1_000_000
    transfer(&core.write_reserve, -core.write_newcomers * core.write_burst * UNIT,
             &d.write_credit, core.write_burst * UNIT)


cdef void write_rate_leave(Core *core, Domain *d) noexcept nogil:
    """A domain goes; the reserve gets what it saved."""
    cdef Domain **link = &core.write_waiting
    core.write_domains -= 1
    transfer(&d.write_credit, 0, &core.write_reserve, core.write_burst * UNIT)
    if d.write_waits:
        while link[0] != d:
            link = &link[0].write_next
        link[0] = d.write_next
        d.write_waits = False


cdef void write_rate_charge(Conn *c, int64_t units) noexcept nogil:
    """A guest has written while a transaction was open."""
    cdef Core *core = c.core
    cdef Domain *d = c.dom
    if not core.write_rate_on or c.kind != CONN_RING or c.privileged:
        return
    update(core, d)
    d.write_credit -= units * UNIT
    if d.write_credit >= 0:
        return
    if not d.write_logged:
        d.write_logged = True
        effect_log(core, False, b"write rate limit: domain %lld is affected", d.domid, 0, 0)
    elif core.write_mark < 0:
        effect_log(core, False, b"write rate limit: rate limiting restarts", 0, 0, 0)
    core.write_mark = core.now
    if not d.write_waits:
        d.write_waits = True
        d.write_next = core.write_waiting
        core.write_waiting = d
    core.tick_wanted = True


cdef bint write_rate_waits(Conn *c) noexcept nogil:
    return c.core.write_rate_on and c.dom.write_waits and not c.privileged


cdef int64_t write_rate_tick(Core *core) noexcept nogil:
    """Lets those go on who are out of debt. When to come back, or -1."""
    cdef Domain **link = &core.write_waiting
    cdef Domain *d
    cdef int64_t wait, next = -1
    while link[0] != NULL:
        d = link[0]
        update(core, d)
        if d.write_credit < 0 and core.write_rate_on:
            # Rounded up to the millisecond in which the debt is paid.
            wait = (-d.write_credit * core.write_domains + core.write_rate - 1) // core.write_rate
            wait = core.now + wait * 1_000_000
            if next < 0 or wait < next:
                next = wait
            link = &d.write_next
        else:
            link[0] = d.write_next
            d.write_waits = False
            if d.conn != NULL:
                conn_wake(d.conn)
    if core.write_mark >= 0 and core.now - core.write_mark >= QUIET_NS:
        core.write_mark = -1
        effect_log(core, False, b"write rate limit: not in force recently", 0, 0, 0)
    if core.write_mark >= 0 and (next < 0 or next > core.write_mark + QUIET_NS):
        next = core.write_mark + QUIET_NS
    return next
