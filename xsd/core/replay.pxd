from xsd.core.cxs cimport cbool, xs_header, xs_node
from xsd.core.types cimport Conn, Tx

cdef int replay_begin(Conn *c, Tx *tx, const xs_header *h, const char *p) noexcept nogil
cdef void replay_forget(Conn *c) noexcept nogil
cdef void replay_end(Conn *c) noexcept nogil
cdef int replay(Conn *c, Tx *tx, xs_node *root, Tx *again, cbool *same) noexcept nogil
