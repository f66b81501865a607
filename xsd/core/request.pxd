from libc.stdint cimport int64_t

from xsd.core.types cimport Conn

cdef enum:
    COLLECT_NOW = 128      # dead nodes and blocks freed with each batch of requests
    RX_SIZE = 64 * 1024    # most that is read from a socket at once, half-read input included

cdef char *engine_rx_space(Conn *c, size_t *room) noexcept nogil
cdef int engine_received(Conn *c, int64_t now, size_t n, int budget) noexcept nogil
cdef bint engine_close(Conn *c, int64_t now) noexcept nogil
