import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from edge.auth import Authenticator
from edge.limits import Limits
from edge.origin import OriginPolicy
from edge.pump import Pump
from runtime import Node, NodeOptions, open_node
from storage import LogOptions, open_archive

SMALL_LOG = LogOptions(segment_bytes=1 << 20, first_segment_bytes=1 << 20)
TOKEN_SECRET = b"a secret of at least thirty-two bytes"


@dataclass
class PumpUnderTest:
    node: Node
    pump: Pump
    auth: Authenticator
    port: int


OpenPump = Callable[..., AbstractAsyncContextManager[PumpUnderTest]]


@pytest.fixture
def open_pump(tmp_path: Path) -> OpenPump:
    """A node and its socket pump behind a bare listener: real sockets, real files, SQLite."""

    @asynccontextmanager
    async def open_it(
        limits: Limits | None = None, auth: Authenticator | None = None
    ) -> AsyncIterator[PumpUnderTest]:
        auth = auth or Authenticator(TOKEN_SECRET, allow_development=True)
        archive = open_archive(f"sqlite:///{tmp_path}/archive.db")
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        try:
            options = NodeOptions(data_dir=tmp_path, log=SMALL_LOG)
            async with open_node(options, archive) as node:
                pump = Pump(node, auth, OriginPolicy(development=lambda: True), limits or Limits())
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pump.run)
                    nursery.start_soon(_accept, listener, pump)
                    yield PumpUnderTest(node, pump, auth, listener.getsockname()[1])
                    nursery.cancel_scope.cancel()
        finally:
            listener.close()
            archive.close()

    return open_it


async def _accept(listener: socket.socket, pump: Pump) -> None:
    trio_listener = trio.socket.from_stdlib_socket(listener)
    while True:
        accepted, _ = await trio_listener.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += await accepted.recv(65536)
        plain = socket.socket(fileno=accepted.detach())
        plain.setblocking(False)
        pump.adopt(plain, head)
