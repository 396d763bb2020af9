"""A WebSocket peer that keeps no rules: bytes go out as they are, frames come in as they are."""

import json
import os
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TIMEOUT_SECONDS = 10.0


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """One frame, well-formed unless told otherwise.

    `length` is what its header says, `length_bytes` how many bytes say it (0, 2 or 8).
    """
    said = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if said < 126 else 2 if said < 1 << 16 else 8
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    second = 0x80 if masked else 0
    if length_bytes == 0:
        header = struct.pack("!BB", first, second | said)
    elif length_bytes == 2:
        header = struct.pack("!BBH", first, second | 126, said)
    else:
        header = struct.pack("!BBQ", first, second | 127, said)
    if not masked:
        return header + payload
    key = os.urandom(4)
    return header + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def pieces(data: bytes, size: int = 1) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@dataclass
class Outcome:
    """What came back until the end, or until the answer to the last ping."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    close_code: int | None = None
    close_reason: str = ""
    ended: bool = False

    @property
    def codes(self) -> list[str]:
        """The type of each answer, or the code of each error."""
        return [answer.get("code", answer["type"]) for answer in self.answers]


class RawSocket:
    """One TCP connection, upgraded or not."""

    def __init__(
        self, address: str, *, tls: ssl.SSLContext | None = None, receive_buffer: int = 0
    ) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT_SECONDS)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._received = b""

    def send(self, *pieces: bytes) -> None:
        """Send each piece by itself; a server that has hung up in between is no error."""
        with suppress(ConnectionError, ssl.SSLError):
            for piece in pieces:
                self.socket.sendall(piece)

    def upgrade(self, query: str = "user_id=mallory", headers: Iterable[str] = ()) -> bytes:
        """Shake hands and return the response's head; the `hello` is read too."""
        lines = [
            f"GET /v1/ws?{query} HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            *headers,
        ]
        self.send("\r\n".join([*lines, "", ""]).encode())
        head = self.read_until(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 101 "):
            opcode, payload = next(self.frames())
            assert opcode == TEXT
            assert json.loads(payload)["type"] == "hello"
        return head

    def read_until(self, end: bytes) -> bytes:
        """Return what comes up to and with `end`, or all that comes before the connection ends."""
        while end not in self._received and self._read():
            pass
        found, mark, self._received = self._received.partition(end)
        return found + mark

    def read_to_the_end(self) -> bytes:
        while self._read():
            pass
        received, self._received = self._received, b""
        return received

    def received_end(self) -> bool:
        """Look, for as long as the socket's timeout lets it, whether the server has hung up."""
        try:
            return not self._read()
        except TimeoutError:
            return False

    def outcome(self, *, until_ref: str | None = None, answers: int | None = None) -> Outcome:
        """Read frames to the end, or until the answer to `until_ref`, or so many answers."""
        seen = Outcome()
        for opcode, payload in self.frames():
            assert seen.close_code is None, "nothing may follow a close frame"
            if opcode == TEXT:
                answer = json.loads(payload)
                if until_ref is not None and answer.get("ref") == until_ref:
                    return seen
                seen.answers.append(answer)
                seen.texts.append(payload)
                if len(seen.answers) == answers:
                    return seen
            elif opcode == PONG:
                seen.pongs.append(payload)
            elif opcode == CLOSE:
                seen.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
                seen.close_reason = payload[2:].decode()
                self.end()
        seen.ended = True
        return seen

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield what comes as (opcode, payload); the server neither masks nor fragments."""
        while (header := self._take(2)) is not None:
            assert header[0] & 0xF0 == 0x80, header
            assert not header[1] & 0x80, "the server must not mask"
            length = header[1]
            if length >= 126:
                extended = self._take(2 if length == 126 else 8)
                assert extended is not None
                length = int.from_bytes(extended, "big")
            payload = self._take(length)
            assert payload is not None
            yield header[0] & 0x0F, payload

    def end(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):
            # Not the method of an SSLSocket, which would forget how to decrypt.
            socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def _take(self, size: int) -> bytes | None:
        while len(self._received) < size:
            if not self._read():
                return None
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _read(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except (ConnectionError, ssl.SSLEOFError):
            return False
        self._received += data
        return bool(data)


@contextmanager
def open_raw(address: str, tls: ssl.SSLContext | None = None) -> Iterator[RawSocket]:
    """A connection that is not upgraded yet."""
    raw = RawSocket(address, tls=tls)
    try:
        yield raw
    finally:
        raw.close()
