from libc.stdint cimport uint32_t

from xsd.core.types cimport Core

cdef dict tree_of(Core *core)
cdef dict counts_of(Core *core)
cdef dict peaks_of(Core *core, bint reset)
cdef dict domain_peaks_of(Core *core, uint32_t domid)
cdef list watches_of(Core *core)
cdef list transactions_of(Core *core)
cdef dict conflict_figures_of(Core *core)
cdef list conflicts_of(Core *core)
cdef list connections_of(Core *core)
cdef dict counters_of(Core *core)
