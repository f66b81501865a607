"""The daemon: settings, an engine, sockets and what surrounds them, put together and run.

This is the only place that knows everything.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import time
from collections.abc import Sequence

from xsd.core.engine import ERROR_NAMES, Engine
from xsd.daemon import config, logs, pidfile, privileges, process
from xsd.daemon.accesslog import AccessLog
from xsd.daemon.conflicts import register_conflicts
from xsd.daemon.control import ControlRegistry, register_all
from xsd.daemon.domains import Domains
from xsd.daemon.effects import Effects
from xsd.daemon.loop import new_event_loop
from xsd.daemon.requests import block
from xsd.daemon.settings import Settings
from xsd.daemon.tuning import Tuning
from xsd.daemon.view import View
from xsd.io.listener import Listener, ListenError, listen
from xsd.io.poll import Poll
from xsd.io.rings import Rings
from xsd.io.sockets import Sockets
from xsd.io.turn import Turn
from xsd.xen.api import Host, HostError

_logger = logging.getLogger("xsd.daemon")

READY = "xenstored is ready"

SWITCH_SECONDS = 0.0005
"""How long the thread of the access log may keep the interpreter from the loop."""

START_ERRORS = (OSError, HostError, ListenError, MemoryError, privileges.PrivilegesError)


def main(arguments: Sequence[str]) -> int:
    """Runs the daemon with the words behind ``xsd daemon``; returns the exit status."""
    process.open_standard_files()
    loaded = config.startup(arguments)
    if isinstance(loaded, int):
        return loaded
    settings = loaded.settings
    readiness: process.Readiness
    readiness = process.daemonise() if settings.daemon.fork else process.Foreground()
    try:
        daemon = Daemon(settings)
    except pidfile.AnotherRunsError as other:
        readiness.unneeded(str(other))
    except START_ERRORS as failure:
        readiness.failed(str(failure))
    for note in loaded.notes:
        _logger.warning("%s", note)
    return daemon.run(readiness)


def engine_for(settings: Settings) -> Engine:
    """An engine with the quotas and switches of the settings."""
    engine = Engine(
        seed=time.time_ns(),
        priv_domid=settings.xen.privileged_domid,
        store_domid=settings.xen.store_domid,
    )
    for prefix, section in (("", settings.quota), ("soft-", settings.quota_soft)):
        for field in section.__dataclass_fields__:
            if field != "active":
                name = prefix + field.replace("_", "-")
                engine.set_quota(name, getattr(section, field))
    engine.configure(
        quota=settings.quota.active,
        perms=settings.permissions.active,
        event_perms=settings.permissions.watches,
        event_timeout_ns=settings.timeout.watch_event * 1_000_000_000,
        keep_orphans=settings.domains.keep_orphans,
        socket_output_max=settings.socket.output_limit,
        log_debug=_logger.isEnabledFor(logging.DEBUG),
    )
    return engine


def host_for(settings: Settings) -> Host:
    """The hypervisor below us. Raises OSError or HostError when it is wanted and not there."""
    # Each is imported only if it is wanted: neither is small.
    if not settings.xen.enabled:
        from xsd.xen.fake import FakeHost

        return FakeHost(everybody=True)
    from xsd.xen.real import RealHost, XenAccess

    return RealHost(
        XenAccess(
            domid=settings.xen.store_domid,
            kva_file=settings.xen.kva_file,
            port_file=settings.xen.port_file,
            event_channel=settings.xen.event_channel,
            early=bool(settings.daemon.user),
        )
    )


class Daemon:
    """A daemon that is ready to run: everything that can fail at start has succeeded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._user = privileges.find(settings.daemon.user) if settings.daemon.user else None
        if self._user is not None:
            privileges.seal()
        self._log = logs.setup(settings.log)
        if self._user is not None:
            self._log.hand_over(self._user.uid, self._user.gid)
        process.raise_descriptor_limit()
        self._pid = pidfile.acquire(settings.daemon.pid_file) if settings.daemon.pid_file else None
        self._listener: Listener | None = None
        self._host: Host | None = None
        try:
            self._host = host = host_for(settings)
            if settings.socket.enabled:
                self._listener = listen(settings.socket.path, settings.socket.backlog)
            self._access = AccessLog(settings.access_log)
            if self._user is not None:
                self._access.hand_over(self._user.uid, self._user.gid)
            self._engine = engine_for(settings)
        except BaseException:
            self._release()
            raise
        self._loop = new_event_loop()
        control = ControlRegistry()
        register_all(control, View(self._engine), self._access)
        tuning = Tuning(self._engine, settings)
        register_conflicts(control, self._engine, tuning, time.monotonic_ns)
        self._domains = Domains(self._engine, host, time.monotonic_ns)
        effects = Effects(self._engine, self._domains, control, time.monotonic_ns)
        self._turn = Turn(self._engine, self._loop, effects.run, self._settled)
        Poll(self._turn)  # what watches both sockets and rings
        self._sockets = Sockets(self._turn, settings.xen.store_domid)
        self._rings: Rings | None = None
        if (channels := host.channels) is not None:
            self._rings = Rings(
                self._turn, channels.fd, channels.notify, channels.handle, host.event
            )
        self._domains.rings = self._rings
        self._domains.changed = self._turn.settle

    def run(self, readiness: process.Readiness) -> int:
        """Serves until told to stop; returns the exit status."""
        process.install_signals(self._loop, stop=self._loop.stop, reopen=self._reopen)
        self._loop.set_exception_handler(_report)
        try:
            self._domains.start(self._settings.xen.master_domid, self._settings.xen.init_domain_0)
            self._give_up_root()
        except START_ERRORS as failure:
            self._stop()
            readiness.failed(str(failure))
        if self._rings is not None:
            self._rings.listen(self._settings.xen.ring_scan_interval)
        if self._listener is not None:
            self._sockets.listen(self._listener.sock)
        self._settled()
        _say_ready()
        _logger.info("serving %s", self._settings.socket.path if self._listener else "no socket")
        process.notify(process.ready_state())
        readiness.ready()
        sys.setswitchinterval(SWITCH_SECONDS)
        # What is there now stays; looking through it again and again would take milliseconds.
        gc.collect()
        gc.freeze()
        try:
            self._loop.run_forever()
        finally:
            self._stop()
        return 0

    def _give_up_root(self) -> None:
        """Goes on as the user of the settings, if they name one. Raises PrivilegesError."""
        if (user := self._user) is None:
            return
        privileges.drop(user)
        if not os.access(__file__, os.R_OK):
            raise privileges.PrivilegesError(
                f"daemon.user: {user.name} may not read the program itself, {__file__}: "
                "install it where everybody can"
            )
        _logger.info("goes on as %s (user %d, group %d)", user.name, user.uid, user.gid)
        for path in dict.fromkeys((self._settings.log.file, self._settings.access_log.file)):
            directory = os.path.dirname(path)
            if directory and not os.access(directory, os.W_OK | os.X_OK):
                _logger.warning(
                    "%s: can neither be rotated nor opened again, for %s may not write to %s",
                    path, user.name, directory,
                )  # fmt: skip

    def _settled(self) -> None:
        """Once a turn: what clients did goes to the access log."""
        noted = self._engine.take_access()
        if noted:
            self._access.submit(block(noted, ERROR_NAMES))
        self._engine.configure(access_log=self._access.enabled)

    def _reopen(self) -> None:
        self._log.reopen()
        self._access.reopen()
        _logger.info("logs reopened")

    def _stop(self) -> None:
        process.notify(process.STOPPING)
        _logger.info("stopping")
        self._sockets.shut()
        if self._rings is not None:
            self._rings.shut()
        self._turn.stop()
        self._settled()
        self._access.close()
        self._loop.close()
        self._release()

    def _release(self) -> None:
        if self._host is not None:
            self._host.close()
        if self._listener is not None:
            self._listener.close()
        if self._pid is not None:
            self._pid.release()
        self._log.close()


def _say_ready() -> None:
    """Tells whoever reads our standard error; that nobody can read it is no reason to stop."""
    with contextlib.suppress(OSError):
        os.write(2, f"{READY}\n".encode())


def _report(loop: object, context: dict[str, object]) -> None:
    """An exception in a callback harms that callback; the loop goes on."""
    failure = context.get("exception")
    _logger.error(
        "%s",
        context.get("message"),
        exc_info=failure if isinstance(failure, BaseException) else None,
    )
