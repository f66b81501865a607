# cython: language_level=3
"""Makes one figure of an engine wrong, which no request can, for the check to find."""

from libc.stdint cimport int64_t, uint32_t

from xsd.core.engine cimport Engine
from xsd.core.types cimport Conn, Core


def add(Engine engine, str figure, uint32_t first, uint32_t second, int64_t change):
    """Adds to a figure of a connection, or of its domain. Raises KeyError for an unknown one.

    "owner" gives the first watch of one connection to another one, or back.
    """
    cdef Core *core = engine.core
    cdef Conn *c = core.conns[first]
    if figure == "nodes":
        c.dom.nodes += change
    elif figure == "node bytes":
        c.dom.node_bytes += change
    elif figure == "watches":
        c.dom.watches += change
    elif figure == "watch bytes":
        c.dom.watch_bytes += change
    elif figure == "transactions":
        c.dom.transactions += change
    elif figure == "transaction bytes":
        c.dom.tx_bytes += change
    elif figure == "queued":
        c.dom.queued += change
    elif figure == "watches of a connection":
        c.watches.count += change
    elif figure == "watches of all":
        core.watches.watch_count += change
    elif figure == "owner":
        c.watches.first.owner = &core.conns[second if change > 0 else first].watches
    else:
        raise KeyError(figure)
