"""An HTTP/1.1 client for tests: h11 over a trio stream, one connection, kept alive."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import msgspec
import trio


@dataclass
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False, default=b"")

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of a problem document, which must say the same status as the response."""
        document = self.json()
        assert self.headers["content-type"] == "application/problem+json"
        assert document["status"] == self.status
        assert document["hint"]
        code: str = document["code"]
        return code


class HttpClient:
    """One connection; everything that waits gives up after ten seconds."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._connection = h11.Connection(h11.CLIENT)
        self.default_headers: dict[str, str] = {"Host": "localhost"}

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the whole response; `body` is JSON unless it is bytes."""
        await self.send(method, path, body, headers)
        return await self.receive()

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, headers=_dashed(headers))

    async def post(self, path: str, body: object = b"", **headers: str) -> Answer:
        return await self.request("POST", path, body, _dashed(headers))

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a request and no more."""
        whole = {**self.default_headers, **(headers or {})}
        data = body if isinstance(body, bytes) else b"" if body is None else _encode(body)
        if body is not None:
            whole["Content-Length"] = str(len(data))
        request = h11.Request(method=method, target=path, headers=list(whole.items()))
        pieces = [self._connection.send(request)]
        if data:
            pieces.append(self._connection.send(h11.Data(data=data)))
        pieces.append(self._connection.send(h11.EndOfMessage()))
        await self.stream.send_all(b"".join(piece or b"" for piece in pieces))

    async def receive(self) -> Answer:
        """Return the whole response, and be ready for the next request if the server is."""
        answer = await self.receive_head()
        while piece := await self.receive_piece():
            answer.body += piece
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
            self._connection.start_next_cycle()
        return answer

    async def receive_head(self) -> Answer:
        """Return the response without its body."""
        event = await self._next_event()
        assert isinstance(event, h11.Response), event
        return Answer(
            event.status_code, {name.decode(): value.decode() for name, value in event.headers}
        )

    async def receive_piece(self) -> bytes:
        """Return a piece of the body, or nothing at its end."""
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        return b""

    async def closed_by_server(self) -> bool:
        """Return whether the server ends the connection, soon."""
        with trio.move_on_after(10):
            try:
                while await self.stream.receive_some(65536):
                    pass
            except trio.BrokenResourceError:
                pass
            return True
        return False

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        with trio.fail_after(10):
            while True:
                event = self._connection.next_event()
                if event is not h11.NEED_DATA:
                    return event  # type: ignore[return-value]
                self._connection.receive_data(bytes(await self.stream.receive_some(65536)))


class EventReader:
    """Server-sent events out of a response's body."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._text = ""

    async def block(self) -> dict[str, str]:
        """Return the fields of the next block; a comment is under the empty name."""
        while "\n\n" not in self._text:
            piece = await self._client.receive_piece()
            if not piece:
                raise EOFError
            self._text += piece.decode()
        block, self._text = self._text.split("\n\n", 1)
        return dict(line.split(": ", 1) for line in block.split("\n"))

    async def message(self) -> tuple[int, Any]:
        """Return the next message's id and data, passing over comments."""
        while True:
            block = await self.block()
            if "id" in block:
                return int(block["id"]), msgspec.json.decode(block["data"])


@asynccontextmanager
async def open_http(port: int, **headers: str) -> AsyncIterator[HttpClient]:
    """Connect; `headers` go with every request."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        client = HttpClient(stream)
        client.default_headers |= _dashed(headers)
        yield client


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _encode(body: object) -> bytes:
    return msgspec.json.encode(body)
