"""The composition root: a server, from its options to its exit code.

It is the one place where the parts of several packages meet. They are opened in this order, and each
one's failure to open is one clear line::

    bind the address → open the archive → check who may come in → lock the directory, take an epoch,
    recover the log, flush what survived → accept

Until it accepts, a `Door` answers probes and keeps everybody else waiting.

How it ends:

- SIGTERM or SIGINT: take no new work, make durable what was accepted, flush for at most `drain_seconds`,
  close the WebSockets with 1012, exit 0. A second signal ends the wait for the archive.
- The log is poisoned, the node is fenced, or the archive holds another history: exit 70, at the latest
  `FATAL_SECONDS` after the node gave up, whatever thread is stuck in the disk or the database. Nothing is
  acknowledged in between, because only a commit acknowledges.
"""

import errno
import gc
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NoReturn

import structlog
import trio

from agents import AgentError, Registry, Vault, run_engine
from edge.acceptor import Acceptor, open_listener, serve_accepted, serve_connections
from edge.app import build_app
from edge.auth import SIGNING_KEY_NAME, Authenticator
from edge.banner import banner
from edge.config import FAILPOINT_VARIABLE, Config, failpoint_to_arm, shown
from edge.door import Door, open_door
from edge.http_server import HttpServer, tls_context
from edge.limits import Limits
from edge.logging import configure_logging
from edge.metrics import Metrics
from edge.origin import OriginPolicy
from edge.printable import escape
from edge.pump import Pump
from edge.runtime_options import cluster_options, node_options
from edge.secretsvault import open_vault
from edge.services import Services
from edge.stream_ws import StreamWebSockets
from edge.values import Address
from edge.watch import Watch
from runtime import (
    Host,
    LinkTls,
    Member,
    Node,
    open_cluster,
    open_node,
)
from storage import (
    Archive,
    ArchiveUnavailableError,
    StorageError,
    arm_failpoint,
    make_directory,
    open_archive,
    open_flush_process,
)

# How soon a key that was created or revoked counts in a running server.
KEYS_REFRESH_SECONDS = 2.0
# From the moment the node gives up to the end of the process.
FATAL_SECONDS = 0.9
# After a graceful stop, for what is left to unwind: a thread that waits for a database that went away.
STOPPED_SECONDS = 2.0

EXIT_FAILURE = 1
EXIT_PROMISE_AT_RISK = 70
EXIT_INTERRUPTED = 130

log = structlog.get_logger()


class StartError(Exception):
    """The server cannot start; the message says why, `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def run_server(config: Config) -> int:
    """Run a server until it is told to stop, and return the process's exit code."""
    configure_logging(config.log_level, config.log_format)
    server = Server(config)
    try:
        trio.run(server.run, strict_exception_groups=True)
    except BaseException as error:  # noqa: ASYNC103, BLE001 - the root: failures become exit codes
        code = server.explain(error)
        if server.ready:
            end_process(code)  # not by returning: a thread may be stuck in the disk or the database
        return code  # noqa: ASYNC104
    return 0


def end_process(code: int) -> NoReturn:
    """End at once, after what was logged; nothing is left to do that the next start does not."""
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


class Server:
    """One server, through its one life."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ready = False
        self._ended = False
        self._door: Door
        self._vault: Vault
        self._member: Member | None = None
        self._started = time.perf_counter()
        self._limits = Limits()
        self._metrics = Metrics()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop gracefully.

        Raises:
            StartError: It cannot start.
            StorageError: The archive or the log cannot be opened, or failed later; perhaps in a group.
        """
        config = self.config
        _arm_failpoint(config)
        tls, link_tls = _open_tls(config), _open_link_tls(config)
        listener = _bind(config.listen, self._limits)
        async with listener, open_door(listener, config.role, self._limits) as self._door:
            await trio.to_thread.run_sync(_make_data_directory, config)
            self._vault = await trio.to_thread.run_sync(open_vault, config)
            async with _open_archive(config) as archive:
                auth = await _open_authenticator(archive, config)
                async with AsyncExitStack() as stack:
                    node = link = None
                    if config.link is not None:
                        link = await stack.enter_async_context(_bind(config.link, self._limits))
                    if config.role != "edge":
                        flush_process = await stack.enter_async_context(
                            open_flush_process(config.archive)
                        )
                        self._door.reason = "recovering"
                        node = await stack.enter_async_context(
                            open_node(
                                node_options(config, link),
                                archive,
                                flush_target=flush_process,
                                tls=link_tls,
                            )
                        )
                    host: Host
                    cluster = None
                    if link is None and node is not None:
                        host = node
                    else:
                        self._door.reason = "starting"
                        options = cluster_options(config, node, link, link_tls, self._tell_waiting)
                        cluster = await stack.enter_async_context(
                            open_cluster(options, archive, node)
                        )
                        host = cluster.router
                        self._member = cluster.member
                    self._metrics.cluster = cluster
                    await self._serve(host, node, auth, archive, listener, tls)

    async def _serve(
        self,
        host: Host,
        node: Node | None,
        auth: Authenticator,
        archive: Archive,
        listener: trio.SocketListener,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Serve connections to the sessions of `host`; `node` is this process's own part of them."""
        config, limits, metrics = self.config, self._limits, self._metrics
        origins = OriginPolicy(
            lambda: auth.development, frozenset(config.allow_origin), frozenset(config.allow_host)
        )
        pump = Pump(host, auth, origins, limits)
        metrics.attach(node, pump.board)
        # Where it is alone, a ring in the archive is one of an earlier life.
        ring_archive = None if metrics.cluster is None else archive
        agents = Registry(archive, self._vault, lambda: time.time_ns() // 1_000_000)
        services = Services(
            host,
            auth,
            origins,
            limits,
            metrics,
            agents,
            archive.dispatches,
            config.role,
            ring_archive,
        )
        http_server = HttpServer(build_app(services), limits, metrics)
        streams = StreamWebSockets(pump.board)
        acceptor = Acceptor(pump, http_server, streams.serve, tls, limits, metrics)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as connections, trio.open_nursery() as tasks:
                tasks.start_soon(self._bound_the_end, host)
                tasks.start_soon(pump.run)
                tasks.start_soon(_watch_archive, archive, auth, metrics)
                if node is not None:
                    tasks.start_soon(Watch(node).run)
                    await tasks.start(run_engine, node, agents, config.agent_networks)
                held = await self._door.open()
                accepting = await tasks.start(_accept, listener, acceptor, connections)
                for stream in held:
                    connections.start_soon(serve_accepted, acceptor, stream)
                self._announce(auth, listener)
                number = await anext(signals)
                log.info("stopping", drain_seconds=config.drain_seconds)
                accepting.cancel()
                if node is not None:
                    # SIGINT stops all of a cluster as a rule: there would be nobody to leave anything to.
                    member = self._member if number == signal.SIGTERM else None
                    await self._drain(node, member, signals)
                services.closing.begin()
                async with trio.open_nursery() as closing:
                    closing.start_soon(pump.close_all)
                    closing.start_soon(streams.close_all)
                    closing.start_soon(http_server.stop)
                self._ended = True
                _end_later(STOPPED_SECONDS, 0)
                tasks.cancel_scope.cancel()
                connections.cancel_scope.cancel()

    async def _bound_the_end(self, host: Host) -> None:
        """Wait to be cancelled; where that is no graceful stop, see to it that the process ends soon.

        A task of its own, because this one is told at once, while the others may still be busy ending.
        """
        try:
            await trio.sleep_forever()
        finally:
            if not self._ended:
                _end_later(FATAL_SECONDS, EXIT_PROMISE_AT_RISK, not_ready=host.not_ready())

    def _tell_waiting(self) -> None:
        self._door.reason = "no_ring"
        log.warning(
            "waiting",
            reason="no owner has started on this archive",
            next="start one with --link",
        )

    def _announce(self, auth: Authenticator, listener: trio.SocketListener) -> None:
        """Say that the server is ready: to a person with what to try, to a log with the facts."""
        # What was made until now lives as long as the process: the collector need not visit it again.
        gc.collect()
        gc.freeze()
        gc.enable()
        self.ready = True
        config = self.config
        seconds = time.perf_counter() - self._started
        address = Address(*listener.socket.getsockname()[:2])
        if sys.stderr.isatty() and config.log_format != "json":
            text = banner(config, address, development=auth.development, seconds=seconds)
            print(f"{text}\n", file=sys.stderr, flush=True)
            return
        log.info(
            "ready",
            address=str(address),
            data=str(config.data),
            archive=shown(config)["archive"],
            durability=config.durability,
            development=auth.development,
            seconds=round(seconds, 3),
        )

    async def _drain(self, node: Node, member: Member | None, signals: AsyncIterator[int]) -> None:
        """Hand over what others can take, make durable what was accepted, and give the archive the time for it."""

        async def hurry(scope: trio.CancelScope) -> None:
            await anext(signals)
            log.warning("hurried", reason="a second signal")
            scope.cancel()

        flushed = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurry, nursery.cancel_scope)
            give_up_at = trio.current_time() + self.config.drain_seconds
            with trio.move_on_at(give_up_at):
                if member is not None and await member.leave():
                    log.info("left", slots=0)
            flushed = await node.shutdown(max(0.0, give_up_at - trio.current_time()))
            nursery.cancel_scope.cancel()
        if flushed:
            log.info("stopped", records_unflushed=0)
        else:
            rows = node.statistics().unflushed_records
            log.warning("stopped", records_unflushed=rows, next="they are in the log; start again")

    def explain(self, error: BaseException) -> int:
        """Say in one line why the server ended, and return the exit code for it."""
        causes = list(_leaves(error))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            return EXIT_INTERRUPTED
        for cause in causes:
            if not self.ready and isinstance(
                cause, StartError | StorageError | AgentError | OSError
            ):
                hint = getattr(cause, "hint", "") or "`ringlog doctor` looks at what a server needs"
                line = f"ringlog: cannot start: {escape(_reason(cause))}; {hint}"
                print(line, file=sys.stderr, flush=True)
                return EXIT_FAILURE
            if isinstance(cause, StorageError):
                log.error("failed", code=cause.code, reason=str(cause), hint=cause.hint)
                return EXIT_PROMISE_AT_RISK
        log.error("failed", code="internal", exc_info=error)
        return EXIT_FAILURE


async def _accept(
    listener: trio.SocketListener,
    acceptor: Acceptor,
    connections: trio.Nursery,
    task_status: trio.TaskStatus[trio.CancelScope],
) -> None:
    """Accept connections until the scope that is reported is cancelled."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await serve_connections([listener], acceptor, connections)


def _arm_failpoint(config: Config) -> None:
    """If a test has this process die, say so loudly; and let no other machine count on it."""
    name = failpoint_to_arm()
    if not name:
        return
    hint = f"unset {FAILPOINT_VARIABLE}"
    if not all(address.is_loopback for address in (config.listen, config.link) if address):
        raise StartError(f"failpoint {name} is armed where other machines count on this one", hint)
    try:
        arm_failpoint(name)
    except ValueError as error:
        raise StartError(str(error), hint) from None
    log.warning("failpoint_armed", name=name)


def _open_tls(config: Config) -> ssl.SSLContext | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    try:
        return tls_context(str(config.tls_cert), str(config.tls_key))
    except OSError as error:  # SSLError is one
        raise StartError(
            f"cannot use {config.tls_cert} with {config.tls_key}: {_reason(error)}",
            "give a PEM chain and its own private key",
        ) from None


def _open_link_tls(config: Config) -> LinkTls | None:
    certificate, key, authority = config.link_cert, config.link_key, config.link_ca
    if certificate is None or key is None or authority is None:
        return None
    try:
        return LinkTls(str(certificate), str(key), str(authority))
    except OSError as error:  # SSLError is one
        raise StartError(
            f"cannot use {certificate} with {key} and {authority} for links: {_reason(error)}",
            "give a PEM chain, its own private key, and the certificates of the authority that signs all nodes'",
        ) from None


def _bind(address: Address, limits: Limits) -> trio.SocketListener:
    try:
        return open_listener(address.host, address.port, limits)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"{address} is in use",
                "stop what listens there, or choose another: --listen HOST:PORT",
            ) from None
        raise StartError(
            f"cannot listen on {address}: {_reason(error)}", "choose another: --listen HOST:PORT"
        ) from None


def _make_data_directory(config: Config) -> None:
    try:
        make_directory(config.data)
        if not config.data.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(config.data, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StartError(
            f"cannot write in the data directory {config.data}: {error.strerror}",
            "let this user write there, or give another with --data DIR",
        ) from None


@asynccontextmanager
async def _open_archive(config: Config) -> AsyncIterator[Archive]:
    archive = await trio.to_thread.run_sync(open_archive, config.archive, abandon_on_cancel=True)
    try:
        yield archive
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(archive.close)


async def _open_authenticator(archive: Archive, config: Config) -> Authenticator:
    """Return who may come in; a server that others can reach does not start without a key."""
    signing_key = await trio.to_thread.run_sync(archive.secret, SIGNING_KEY_NAME)
    keys = await trio.to_thread.run_sync(archive.list_keys)
    auth = Authenticator(signing_key, allow_development=config.listen.is_loopback, keys=keys)
    if not config.listen.is_loopback and not auth.has_usable_keys:
        raise StartError(
            f"{config.listen} can be reached from other machines, and there is no key yet",
            "create one first: ringlog key create NAME (same --data or --archive); or listen on 127.0.0.1",
        )
    return auth


async def _watch_archive(archive: Archive, auth: Authenticator, metrics: Metrics) -> None:
    """Take in keys that were created or revoked; while the archive is away, the known ones count."""
    while True:
        await trio.sleep(KEYS_REFRESH_SECONDS)
        try:
            auth.replace_keys(
                await trio.to_thread.run_sync(archive.list_keys, abandon_on_cancel=True)
            )
            counted = await trio.to_thread.run_sync(archive.statistics, abandon_on_cancel=True)
            metrics.dead_letters = counted.dead_letters
        except ArchiveUnavailableError as error:
            log.debug("keys_not_refreshed", reason=error.reason)


def _end_later(seconds: float, code: int, **why: object) -> None:
    """End the process after a while, if it has not ended by itself."""

    def end() -> None:
        if code:
            log.error("failed", code="stuck", reason="a thread did not end", **why)
        end_process(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
