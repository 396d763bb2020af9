"""A WebSocket client for tests: `websockets`' own client protocol over a trio socket."""

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri


class SocketClient:
    """One connection; everything that waits gives up after five seconds."""

    def __init__(self, stream: trio.abc.Stream, protocol: ClientProtocol) -> None:
        self.stream = stream
        self.protocol = protocol
        self.response: Response | None = None
        self.reading = True
        self._frames: deque[dict[str, Any]] = deque()
        self._partial = b""

    async def send(self, **frame: Any) -> None:
        await self.send_raw(json.dumps(frame, ensure_ascii=False).encode())

    async def send_raw(self, payload: bytes) -> None:
        self.protocol.send_text(payload)
        await self.flush()

    async def flush(self) -> None:
        for piece in self.protocol.data_to_send():
            if piece:
                await self.stream.send_all(piece)

    async def receive(self, *types: str) -> dict[str, Any]:
        """Return the next frame, which must be of one of `types` if any are given."""
        with trio.fail_after(10):
            while not self._frames:
                if not await self._read():
                    raise ConnectionError(f"closed with {self.protocol.close_code}")
        frame = self._frames.popleft()
        assert not types or frame["type"] in types, frame
        return frame

    async def ask(self, **frame: Any) -> dict[str, Any]:
        """Send a request and return its answer, passing over everything else."""
        await self.send(**frame)
        while True:
            answer = await self.receive()
            if answer.get("ref") == frame["ref"]:
                return answer

    async def wait_closed(self) -> int | None:
        """Read to the end and return the close code."""
        with trio.fail_after(15):
            while await self._read():
                pass
        return self.protocol.close_code

    async def _read(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if data:
            self.protocol.receive_data(data)
        elif self.protocol.state is not State.CLOSED:
            self.protocol.receive_eof()
        for event in self.protocol.events_received():
            if isinstance(event, Response):
                self.response = event
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
                self._partial += bytes(event.data)
                if event.fin:
                    self._frames.append(json.loads(self._partial))
                    self._partial = b""
        try:
            await self.flush()
        except trio.BrokenResourceError:
            return False
        return bool(data)


@asynccontextmanager
async def open_socket(
    port: int,
    query: str = "user_id=alice",
    *,
    subprotocols: list[str] | None = None,
    headers: dict[str, str] | None = None,
    stream: trio.abc.Stream | None = None,
) -> AsyncIterator[SocketClient]:
    """Connect and shake hands; the response is checked by the caller where it is a refusal."""
    if stream is None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    uri = parse_uri(f"ws://127.0.0.1:{port}/v1/ws" + (f"?{query}" if query else ""))
    protocol = ClientProtocol(uri, subprotocols=subprotocols, max_size=None)  # type: ignore[arg-type]
    request = protocol.connect()
    for name, value in (headers or {}).items():
        request.headers[name] = value
    protocol.send_request(request)
    client = SocketClient(stream, protocol)
    async with stream:
        await client.flush()
        with trio.fail_after(5):
            while client.response is None and await client._read():
                pass
        yield client
