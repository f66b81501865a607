from libc.stdint cimport uint32_t

from xsd.core.cxs cimport xs_header, xs_node, xs_perms
from xsd.core.types cimport Conn, Tx

cdef int path_of(Conn *c, const char *text, size_t n) noexcept nogil
cdef int tree_op(Conn *c, const xs_header *h, Tx *tx, const char *p,
                 uint32_t strings) noexcept nogil
cdef int creation_perms(Conn *c, const xs_node *near, xs_perms **out) noexcept nogil
