"""A WebSocket connection on trio, spoken by the `websockets` library and not by the product's code.

One task uses it: `send` what there is, `receive` what has come. Everything that one read brought is
decoded and returned at once.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from bench.protocol import Answer, decode_answer, encode

RECEIVE_BYTES = 64 * 1024
"""Room for a few hundred messages in one read."""

CONNECT_SECONDS_MAX = 10.0
"""A server that accepts and then stays silent is taken for gone."""

FRAME_BYTES_MAX = 1 << 20
"""Four times the longest message that a server takes by default."""


class ConnectionLostError(Exception):
    """The server is gone, or hung up."""


class Connection:
    """An open connection; `open_connection` makes one."""

    def __init__(self, stream: trio.SocketStream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self._protocol = protocol

    async def send(self, *requests: msgspec.Struct) -> None:
        """Write requests, in one write.

        Raises:
            ConnectionLostError: The server is gone, or said goodbye after its last answers.
        """
        if requests and self._protocol.state is not State.OPEN:
            raise ConnectionLostError("the server said goodbye")
        for request in requests:
            self._protocol.send_text(encode(request))
        await self._write()

    async def receive(self) -> list[Answer]:
        """Wait for the next answers; at least one.

        Raises:
            ConnectionLostError: There will be no more.
        """
        while not (answers := self._decode_received()):
            await self.receive_more()
        return answers

    def _decode_received(self) -> list[Answer]:
        return [
            decode_answer(event.data)
            for event in self._protocol.events_received()
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT
        ]

    async def receive_more(self) -> None:
        """Read once, and write what the protocol itself has to say to it."""
        if self._protocol.state is State.CLOSED:
            raise ConnectionLostError(str(self._protocol.close_exc))
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except trio.BrokenResourceError as error:
            raise ConnectionLostError("the connection broke") from error
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        await self._write()

    async def say_goodbye(self) -> None:
        """Close as a polite client does, without waiting for the server to agree."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            await self._write()

    async def _write(self) -> None:
        """Write what the protocol has queued; its empty string stands for the end."""
        out = b"".join(self._protocol.data_to_send())
        try:
            if out:
                await self._stream.send_all(out)
        except trio.BrokenResourceError as error:
            raise ConnectionLostError("the connection broke") from error


@asynccontextmanager
async def open_connection(url: str) -> AsyncIterator[Connection]:
    """Connect and upgrade.

    Raises:
        ConnectionLostError: Nobody answers there, or the answer is no.
    """
    uri = parse_uri(url)
    protocol = ClientProtocol(
        uri, subprotocols=[Subprotocol("ringlog.v1")], max_size=FRAME_BYTES_MAX
    )
    try:
        with trio.fail_after(CONNECT_SECONDS_MAX):
            stream = await trio.open_tcp_stream(uri.host, uri.port)
    except (OSError, trio.TooSlowError) as error:
        raise ConnectionLostError(f"{uri.host}:{uri.port} does not answer") from error
    async with stream:
        connection = Connection(stream, protocol)
        protocol.send_request(protocol.connect())
        with trio.move_on_after(CONNECT_SECONDS_MAX):
            await connection.send()
            while protocol.state is State.CONNECTING:
                await connection.receive_more()
        if protocol.handshake_exc is not None or protocol.state is not State.OPEN:
            raise ConnectionLostError(f"no upgrade: {protocol.handshake_exc}")
        yield connection
        with contextlib.suppress(ConnectionLostError):
            await connection.say_goodbye()
