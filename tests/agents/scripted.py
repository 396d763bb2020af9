"""An agent whose every byte is in a script, over real sockets: HTTP/1.1, HTTP/2, or nothing of the kind."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import trio
import trustme

from agents.addresses import AddressRules
from agents.deadlines import Deadlines
from agents.http import CallerOptions

PIECE = 64 * 1024

# Nothing waits for so long where nothing is wrong.
PATIENT = Deadlines(connect_seconds=10, first_byte_seconds=10, idle_seconds=10, total_seconds=20)
LOCAL = CallerOptions(addresses=AddressRules(allow_private=True))


def answer(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    """A whole answer with a length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


async def until_hung_up(stream: trio.abc.ReceiveStream) -> None:
    """Return when the connection is closed; what was not read by then makes that a reset."""
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some(PIECE):
            pass


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Exchange:
    """One connection to the agent, of which one request was read."""

    stream: trio.abc.Stream
    head: bytes = b""
    body: bytes = b""
    sent: int = 0

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n")

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.stream.send_all(piece)
            self.sent += len(piece)

    async def until_hung_up(self) -> None:
        """Return when the caller has closed the connection."""
        await until_hung_up(self.stream)

    async def read_request(self) -> bool:
        """Read the next request; False when there is none."""
        received = b""
        while b"\r\n\r\n" not in received:
            data = await self.stream.receive_some(PIECE)
            if not data:
                return False
            received += data
        self.head, _, self.body = received.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in self.lines if line.startswith(b"content-length:")
        )
        while len(self.body) < length:
            self.body += await self.stream.receive_some(PIECE)
        return True


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class Agent:
    """What the agent has seen so far."""

    port: int
    scheme: str = "http"
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    hung_up: trio.Event = field(default_factory=trio.Event)
    """Set once a connection is over."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}/answer"


async def loopback(host: str) -> list[str]:
    """A resolver to which everything is this machine."""
    return ["127.0.0.1"]


@asynccontextmanager
async def open_listener(
    serve: Callable[[trio.SocketStream, Agent], Awaitable[None]], host: str = "127.0.0.1"
) -> AsyncIterator[Agent]:
    """Serve each connection in a task; broken connections are the caller's right."""

    async def handle(stream: trio.SocketStream) -> None:
        agent.connections += 1
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                await serve(stream, agent)
        agent.hung_up.set()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        agent = Agent(int(listeners[0].socket.getsockname()[1]))
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield agent
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_agent(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Agent]:
    """An HTTP/1.1 agent that runs `script` for each request, and keeps connections open."""

    async def serve(plain: trio.SocketStream, agent: Agent) -> None:
        stream: trio.abc.Stream = plain
        if tls is not None:
            stream = trio.SSLStream(plain, tls, server_side=True, https_compatible=True)
        while True:
            exchange = Exchange(stream)
            if not await exchange.read_request():
                return
            agent.exchanges.append(exchange)
            await script(exchange)

    async with open_listener(serve) as agent:
        agent.scheme = "http" if tls is None else "https"
        yield agent


class Authority:
    """Signs the agent's certificate; what `client` trusts."""

    def __init__(self, *names: str) -> None:
        authority = trustme.CA()
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(*(names or ("localhost",))).configure_cert(self.server)

    @property
    def options(self) -> CallerOptions:
        return CallerOptions(addresses=LOCAL.addresses, tls=self.client)


@dataclass
class Http2Exchange:
    """One stream of an HTTP/2 connection whose request was read."""

    connection: h2.connection.H2Connection
    stream: trio.SSLStream[trio.SocketStream]
    stream_id: int
    headers: dict[bytes, bytes]
    body: bytes

    async def flush(self) -> None:
        await self.stream.send_all(self.connection.data_to_send())

    async def begin(self, *headers: tuple[str, str]) -> None:
        self.connection.send_headers(self.stream_id, [(":status", "200"), *headers])
        await self.flush()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        self.connection.send_data(self.stream_id, data, end_stream=end)
        await self.flush()

    async def until_hung_up(self) -> None:
        await until_hung_up(self.stream)


@asynccontextmanager
async def open_http2_agent(
    authority: Authority, script: Callable[[Http2Exchange], Awaitable[None]]
) -> AsyncIterator[Agent]:
    """An agent that speaks HTTP/2 alone."""
    authority.server.set_alpn_protocols(["h2"])

    async def serve(plain: trio.SocketStream, agent: Agent) -> None:
        stream = trio.SSLStream(plain, authority.server, server_side=True, https_compatible=True)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        await stream.send_all(connection.data_to_send())
        headers: dict[int, dict[bytes, bytes]] = {}
        bodies: dict[int, bytes] = {}
        while data := await stream.receive_some(PIECE):
            for event in connection.receive_data(bytes(data)):
                if isinstance(event, h2.events.RequestReceived):
                    headers[event.stream_id] = dict(event.headers)
                    bodies[event.stream_id] = b""
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    connection.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, h2.events.StreamEnded):
                    number = event.stream_id
                    head, body = headers.pop(number), bodies.pop(number)
                    await script(Http2Exchange(connection, stream, number, head, body))
            await stream.send_all(connection.data_to_send())

    async with open_listener(serve) as agent:
        agent.scheme = "https"
        yield agent
