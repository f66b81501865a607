from libc.stdint cimport int64_t

from xsd.core.cxs cimport xs_node
from xsd.core.types cimport Conn, Core, Tx

cdef bint history_wanted(const Core *core, const Tx *ending) noexcept nogil
cdef int history_reserve(Core *core, const Conn *c, const Tx *ending) noexcept nogil
cdef void history_commit(Core *core, const Conn *c, const Tx *ending, xs_node *before) noexcept nogil
cdef void history_tx_begins(Core *core, Tx *tx) noexcept nogil
cdef void history_tx_ends(Core *core, Tx *tx) noexcept nogil
cdef void history_trim(Core *core) noexcept nogil
cdef int64_t history_summary_deadline(const Core *core) noexcept nogil
cdef int64_t history_deadline(const Core *core) noexcept nogil
cdef bint history_conflict(Conn *c, Tx *tx) noexcept nogil
cdef void history_summary(Core *core) noexcept nogil
cdef void blames_free(Core *core) noexcept nogil

cdef bint priority_breaks(Core *core, const Conn *c, xs_node *before,
                          xs_node *after) noexcept nogil
cdef void priority_hold(Conn *c) noexcept nogil
cdef void priority_release(Core *core) noexcept nogil
cdef int64_t priority_deadline(Core *core) noexcept nogil
