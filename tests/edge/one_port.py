"""The whole edge over a node, on one port: what `ringlog serve` composes, without the process."""

import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import trio

from agents import Registry, Vault
from agents.secretskey import make_key
from edge.acceptor import Acceptor, open_listener, serve_connections
from edge.app import build_app
from edge.auth import Authenticator, hash_key
from edge.http_server import HttpServer
from edge.limits import Limits
from edge.metrics import Metrics
from edge.origin import OriginPolicy
from edge.pump import Pump
from edge.services import Services
from edge.stream_ws import StreamWebSockets
from runtime import Node, NodeOptions, open_node
from storage import ApiKey, Archive, Directory, LogOptions, open_archive

SMALL_LOG = LogOptions(segment_bytes=1 << 20, first_segment_bytes=1 << 20)
SIGNING_KEY = b"a signing key of at least thirty-two bytes"


@dataclass
class OnePort:
    """An edge under test."""

    node: Node
    archive: Archive
    pump: Pump
    streams: StreamWebSockets
    http_server: HttpServer
    acceptor: Acceptor
    services: Services
    port: int

    @property
    def metrics(self) -> Metrics:
        return self.services.metrics

    @property
    def auth(self) -> Authenticator:
        return self.services.auth


def keyed(*keys: ApiKey) -> Authenticator:
    """Return who may come in where these keys were created."""
    return Authenticator(SIGNING_KEY, allow_development=True, keys=keys)


def api_key(text: str, *scopes: str, workspace: str = "default") -> ApiKey:
    """Return the stored form of a key."""
    return ApiKey(f"key-{text[-6:]}", "test", hash_key(text), scopes, workspace, 0)


@cache
def _migrated() -> bytes:
    """Return an empty archive's file; migrating one anew costs each test half a second."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "archive.db"
        open_archive(f"sqlite:///{path}").close()
        return path.read_bytes()


def _open_migrated(path: Path) -> Archive:
    if not path.exists():
        path.write_bytes(_migrated())
    return open_archive(f"sqlite:///{path}")


@asynccontextmanager
async def open_one_port(
    data_dir: Path,
    *,
    limits: Limits | None = None,
    auth: Authenticator | None = None,
    allowed_origins: Iterable[str] = (),
    allowed_hosts: Iterable[str] = (),
    ssl_context: ssl.SSLContext | None = None,
    directory: Directory | None = None,
    vault: Vault | None = None,
) -> AsyncIterator[OnePort]:
    """Serve until the block ends; development mode unless `auth` has keys."""
    limits = limits or Limits()
    who = auth or Authenticator(SIGNING_KEY, allow_development=True)
    metrics = Metrics()
    origins = OriginPolicy(
        lambda: who.development, frozenset(allowed_origins), frozenset(allowed_hosts)
    )
    archive = _open_migrated(data_dir / "archive.db")
    try:
        options = NodeOptions(data_dir=data_dir, log=SMALL_LOG)
        async with open_node(options, archive, directory) as node:
            agents = Registry(
                archive, vault or Vault([make_key()]), lambda: time.time_ns() // 1_000_000
            )
            services = Services(node, who, origins, limits, metrics, agents, archive.dispatches)
            async with open_front(services, node, ssl_context) as front:
                pump, streams, http_server, acceptor, port = front
                yield OnePort(node, archive, pump, streams, http_server, acceptor, services, port)
    finally:
        archive.close()


class Front(NamedTuple):
    """What stands between clients and the sessions of one process."""

    pump: Pump
    streams: StreamWebSockets
    http_server: HttpServer
    acceptor: Acceptor
    port: int


@asynccontextmanager
async def open_front(
    services: Services, node: Node | None, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Front]:
    """Serve what the services give until the block ends; `node` is this process's own part of it."""
    limits, metrics = services.limits, services.metrics
    listener = open_listener("127.0.0.1", 0, limits)
    async with trio.open_nursery() as nursery:
        pump = Pump(services.host, services.auth, services.origins, limits)
        streams = StreamWebSockets(pump.board)
        http_server = HttpServer(build_app(services), limits, metrics)
        acceptor = Acceptor(pump, http_server, streams.serve, ssl_context, limits, metrics)
        metrics.attach(node, pump.board)
        nursery.start_soon(pump.run)
        await nursery.start(serve_connections, [listener], acceptor, nursery)
        yield Front(pump, streams, http_server, acceptor, listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()
