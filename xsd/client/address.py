"""Where the server listens."""

from __future__ import annotations

import os
from collections.abc import Mapping

DEFAULT_RUNDIR = "/run/xenstored"


def socket_path(explicit: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The path of the server's unix socket.

    The explicit path, else ``$XENSTORED_PATH``, else ``socket`` in ``$XENSTORED_RUNDIR``, else in
    ``/run/xenstored``. An empty string counts as not given.
    """
    if explicit:
        return explicit
    env = os.environ if environ is None else environ
    if path := env.get("XENSTORED_PATH"):
        return path
    return f"{env.get('XENSTORED_RUNDIR') or DEFAULT_RUNDIR}/socket"
