"""Where the server is: a unix socket, or else the kernel's device."""

from __future__ import annotations

import os
from collections.abc import Mapping

DEFAULT_RUNDIR = "/run/xenstored"

#: The kernel's side of a domain's ring, as Linux, older Linux, FreeBSD and NetBSD call it.
DEVICES = ("/dev/xen/xenbus", "/proc/xen/xenbus", "/dev/xen/xenstore", "/kern/xen/xenbus")


def socket_path(explicit: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The path of the server's unix socket.

    The explicit path, else ``$XENSTORED_PATH``, else ``socket`` in ``$XENSTORED_RUNDIR``, else in
    ``/run/xenstored``. An empty string counts as not given.
    """
    return _named(explicit, environ) or f"{DEFAULT_RUNDIR}/socket"


def addresses(
    explicit: str | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    socket_only: bool = False,
) -> tuple[str, ...]:
    """Where to look for the server, in this order.

    What the caller or the environment names is the only place: who means one server must not
    reach another one. Otherwise the default socket and then, unless ``socket_only``, the devices.
    """
    if named := _named(explicit, environ):
        return (named,)
    return (f"{DEFAULT_RUNDIR}/socket", *(() if socket_only else DEVICES))


def _named(explicit: str | None, environ: Mapping[str, str] | None) -> str:
    if explicit:
        return explicit
    env = os.environ if environ is None else environ
    if path := env.get("XENSTORED_PATH"):
        return path
    rundir = env.get("XENSTORED_RUNDIR")
    return f"{rundir}/socket" if rundir else ""
