from libc.stdint cimport uint32_t

from xsd.core.cxs cimport xs_found, xs_header, xs_node
from xsd.core.types cimport Conn, Core, Tx

cdef Tx *tx_find(Conn *c, uint32_t id) noexcept nogil
cdef void tx_abort_all(Conn *c) noexcept nogil
cdef int tx_count_request(Conn *c, Tx *tx) noexcept nogil
cdef int tx_note(Conn *c, Tx *tx, const xs_found *found, unsigned flags) noexcept nogil
cdef int tx_note_creation(Conn *c, Tx *tx, uint32_t near_len) noexcept nogil
cdef int tx_note_removal(Conn *c, Tx *tx) noexcept nogil
cdef void tx_doom(Core *core, uint32_t domid) noexcept nogil
cdef void tx_recharge(Conn *c, Tx *tx) noexcept nogil

cdef int tx_apply(Core *core, Tx *into, xs_node **top, unsigned op, const char *value,
                  uint32_t value_len) noexcept nogil
cdef void tx_clear(Core *core, Tx *tx) noexcept nogil

cdef int op_transaction_start(Conn *c, const xs_header *h, Tx *tx) noexcept nogil
cdef int op_transaction_end(Conn *c, const xs_header *h, Tx *tx, const char *p) noexcept nogil
cdef bint tx_affords(Conn *c, const Tx *tx, size_t bytes) noexcept nogil
