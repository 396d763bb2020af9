"""An agent over real sockets that does what the test says, request by request."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio


@dataclass
class Request:
    """What came: a call of the agent."""

    path: str
    headers: dict[str, str]
    body: bytes
    stream: trio.SocketStream

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def head(self, status: int = 200, **headers: str) -> None:
        """Begin a response whose end is the connection's."""
        lines = [f"HTTP/1.1 {status} X", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode())

    async def send(self, *chunks: Any) -> None:
        """Send lines of JSON."""
        await self.stream.send_all(b"".join(json.dumps(each).encode() + b"\n" for each in chunks))

    async def answer(self, *deltas: str, pause: float = 0) -> None:
        """Give a whole answer."""
        await self.head()
        await self.send({"type": "start", "messageId": "m"}, {"type": "text-start", "id": "t"})
        for delta in deltas:
            await trio.sleep(pause)
            await self.send({"type": "text-delta", "id": "t", "delta": delta})
        await self.send({"type": "text-end", "id": "t"}, {"type": "finish"})


Script = Callable[[Request], Awaitable[None]]


@dataclass
class Agent:
    """The server: its address, what it was asked, and what it does."""

    url: str
    script: Script
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    open_max: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await stream.receive_some(65_536)
            if not piece:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (each.partition(":") for each in lines)
        }
        while len(body) < int(headers.get("content-length", 0)):
            body += await stream.receive_some(65_536)
        request = Request(first.split()[1], headers, body, stream)
        self.requests.append(request)
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            await self.script(request)
        finally:
            self.open -= 1


@asynccontextmanager
async def open_agent(script: Script) -> AsyncIterator[Agent]:
    """Serve on a port of its own until the block ends."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    agent = Agent(f"http://127.0.0.1:{port}/hook", script)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, agent.serve, [listener])
        yield agent
        nursery.cancel_scope.cancel()
