"""WebSocket frames for a client that is all about speed: the load generator.

Only what a benchmark against a known server needs: unfragmented frames, no extensions. Masks are
zero, which makes a prebuilt frame possible; RFC 6455 wants them random to protect proxies between
the two, and a load generator has none. The clients of the crash test and the demo use the
`websockets` library instead.

    byte 0  FIN 1 | RSV 0 0 0 | opcode 4 bits
    byte 1  MASK | length 7 bits   (126: 2 more bytes, 127: 8 more bytes)
    then    4 bytes of mask, only from the client
"""

from collections.abc import Iterator

ANSWER_SECONDS_MAX = 30.0
"""An answer that takes longer than this will not come."""

TEXT = 1
CLOSE = 8
PING = 9
PONG = 10

_FIN = 0x80
_MASKED = 0x80
_LENGTH_16 = 126
_LENGTH_64 = 127
_NO_MASK = bytes(4)


class WireError(Exception):
    """The server sent what this client does not speak."""


def handshake(host: str, target: str) -> bytes:
    """Return the request that opens a connection."""
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: cmluZ2xvZy1iZW5jaC0wMA==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: ringlog.v1",
        "\r\n",
    )
    return "\r\n".join(lines).encode()


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return one masked frame, the mask being zero."""
    length = len(payload)
    first = _FIN | opcode
    if length < _LENGTH_16:
        head = bytes((first, _MASKED | length))
    elif length < 1 << 16:
        head = bytes((first, _MASKED | _LENGTH_16)) + length.to_bytes(2)
    else:
        head = bytes((first, _MASKED | _LENGTH_64)) + length.to_bytes(8)
    return head + _NO_MASK + payload


class FrameReader:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_rest",)

    def __init__(self, rest: bytes = b"") -> None:
        self._rest = rest

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield opcode and payload of each frame that is complete; keep what is left."""
        if self._rest:
            data = self._rest + data
        start = 0
        end = len(data)
        while start + 2 <= end:
            length = data[start + 1]
            payload = start + 2
            if length == _LENGTH_16:
                payload += 2
                length = int.from_bytes(data[start + 2 : payload])
            elif length == _LENGTH_64:
                payload += 8
                length = int.from_bytes(data[start + 2 : payload])
            if payload + length > end:
                break
            first = data[start]
            start = payload + length
            if not first & _FIN:
                raise WireError("a fragmented message")
            yield first & 0x0F, data[payload:start]
        self._rest = data[start:]
