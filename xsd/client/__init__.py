"""Clients of xenstored. Pure Python; needs nothing of the daemon.

The protocol is in ``wire`` (packets, pairing of replies with requests) and ``requests`` (what can
be asked and what the replies mean), both without I/O. ``sync`` does blocking I/O around them,
through a ``stream``: the daemon's socket, or the kernel's device where there is no daemon.
"""

from .address import socket_path
from .errors import ConnectError, ProtocolError, XenstoreError
from .perms import Permission
from .sync import Client, Pipeline, Transaction
from .wire import WatchEvent

__all__ = [
    "Client",
    "ConnectError",
    "Permission",
    "Pipeline",
    "ProtocolError",
    "Transaction",
    "WatchEvent",
    "XenstoreError",
    "socket_path",
]
