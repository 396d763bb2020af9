"""A blocking connection for requests one at a time: setting sessions up, and replaying them."""

import contextlib
import socket
import urllib.parse
from collections import deque
from collections.abc import Iterator

import msgspec

from bench.checker import Replayed
from bench.protocol import Error, Join, Joined, Leave, Message, Ok, decode_answer, encode
from bench.wire import (
    ANSWER_SECONDS_MAX,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameReader,
    WireError,
    client_frame,
    handshake,
)

RECEIVE_BYTES = 256 * 1024
"""One read empties what a socket buffer holds."""


class Channel:
    """One connection, for requests one at a time: setting up and replaying."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), ANSWER_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(handshake(parts.netloc, f"{parts.path}?{parts.query}"))
        head, rest = self._receive_head()
        if not head.startswith(b"HTTP/1.1 101"):
            raise WireError(f"the server answered the upgrade with {head[:300]!r}")
        self.reader = FrameReader()
        self._ready = deque(self.reader.feed(rest))

    def _receive_head(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            received = self.socket.recv(RECEIVE_BYTES)
            if not received:
                raise WireError(f"the server closed the connection after {data!r}")
            data += received
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def send(self, *requests: msgspec.Struct) -> None:
        """Write requests."""
        self.socket.sendall(b"".join(client_frame(encode(request)) for request in requests))

    def payloads(self) -> Iterator[bytes]:
        """Yield text payloads as they come."""
        while True:
            while self._ready:
                opcode, payload = self._ready.popleft()
                if opcode == TEXT:
                    yield payload
                elif opcode == PING:
                    self.socket.sendall(client_frame(payload, PONG))
                elif opcode == CLOSE:
                    raise WireError(f"the server closed: {payload!r}")
            self._ready.extend(self.reader.feed(self._receive()))

    def _receive(self) -> bytes:
        data = self.socket.recv(RECEIVE_BYTES)
        if not data:
            raise WireError("the server hung up")
        return data

    def wait_for(self, kind: type[Joined] | type[Ok]) -> Joined | Ok:
        """Skip to the first answer of `kind`; a refusal is an error."""
        for payload in self.payloads():
            answer = decode_answer(payload)
            if isinstance(answer, Error):
                raise WireError(f"refused: {answer}")
            if isinstance(answer, kind):
                return answer
        raise AssertionError("payloads() never ends")

    def replay(self, session: str) -> Iterator[Replayed]:
        """Yield the messages of a session from its beginning up to its head.

        A replay that stops half-way ends here too, so that the checker can say what is missing.
        """
        self.send(Join(ref="replay", session=session, last_seq=0))
        joined = self.wait_for(Joined)
        assert isinstance(joined, Joined)
        if joined.head_seq == 0:
            return
        with contextlib.suppress(TimeoutError):
            for payload in self.payloads():
                answer = decode_answer(payload)
                if isinstance(answer, Message):
                    yield answer.replayed()
                    if answer.seq >= joined.head_seq:
                        return

    def leave(self, session: str) -> None:
        """Follow a session no longer."""
        self.send(Leave(ref="leave", session=session))
        self.wait_for(Ok)


def user_url(url: str, user: str) -> str:
    """Return the address of a development connection of `user`."""
    return f"{url}?user_id={urllib.parse.quote(user)}"
