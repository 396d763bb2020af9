"""NATS JetStream: a publish with a reply inbox; what comes to the inbox is the stream's ack.

    PUB subject inbox size CRLF content CRLF
    MSG inbox 1 size CRLF {"stream":"…","seq":12} CRLF         stored
    MSG inbox 1 size CRLF {"error":{…},…} CRLF                 refused

Each session is a JetStream stream of its own, so that it has gapless sequences. One stream with a subject for each
session takes half as many a second with a sync for each message, for they sync one after the other; but it would
not cost a directory, files and timers for each session.
"""

import json
import secrets
import socket
from collections.abc import Iterator, Sequence

from bench.peers.drivers.driver import Driver, Lines, connect
from bench.wire import WireError

SUBJECT = "bench"
PAGE_MESSAGES = 500
"""Messages of one request when a subject is read back."""

END_OF_PAGE = b"204"
NOT_FOUND = b"404"
"""Statuses that end an answer: of a page, and where there is nothing more."""

_CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'


class NatsDriver(Driver):
    """One connection to NATS."""

    def set_up(self) -> None:
        """Say hello, and listen to an inbox."""
        self._inbox = _greet(Lines(self.socket), self.socket)
        self.socket.sendall(b"SUB %b 1\r\n" % self._inbox)

    @classmethod
    def prepare(cls, url: str, streams: Sequence[str]) -> None:
        """Make the streams."""
        with connect(url) as sock:
            lines = Lines(sock)
            inbox = _greet(lines, sock)
            sock.sendall(b"SUB %b 1\r\n" % inbox)
            for stream in streams:
                config = {"name": stream, "subjects": [f"{SUBJECT}.{stream}"], "storage": "file"}
                request = json.dumps(config | {"allow_direct": True}).encode()
                sock.sendall(_publish(f"$JS.API.STREAM.CREATE.{stream}", inbox, request))
                _, answer = _receive(lines, sock)
                _check(answer)

    def frame(self, content: bytes) -> bytes:
        """Return one publish."""
        return _publish(f"{SUBJECT}.{self.stream}", self._inbox, content)

    def count_acks(self, data: bytes) -> int:
        """Count what came to the inbox."""
        data = self._rest + data
        acks, start = 0, 0
        while (end := data.find(b"\r\n", start)) >= 0:
            line = data[start:end]
            if line.startswith(b"MSG "):
                size = int(line.rsplit(b" ", 1)[1])
                if end + 2 + size + 2 > len(data):
                    break
                _check(data[end + 2 : end + 2 + size])
                acks += 1
                end += size + 2
            elif line == b"PING":
                self.out += b"PONG\r\n"
            elif line.startswith((b"-ERR", b"HMSG")):
                # A message with headers is how NATS says that no stream took the publish.
                raise WireError(f"{self.stream}: refused: {data[start : end + 100]!r}")
            start = end + 2
        self._rest = data[start:]
        return acks

    def read_back(self) -> Iterator[tuple[int, bytes]]:
        """Yield the messages of the stream by their sequences, page by page."""
        sequence = 0
        with connect(self.url) as sock:
            lines = Lines(sock)
            inbox = _greet(lines, sock)
            sock.sendall(b"SUB %b 1\r\n" % inbox)
            while True:
                before = sequence
                page = json.dumps({"seq": sequence + 1, "batch": PAGE_MESSAGES}).encode()
                sock.sendall(_publish(f"$JS.API.DIRECT.GET.{self.stream}", inbox, page))
                headers, content = _receive(lines, sock)
                while b"Nats-Sequence" in headers:
                    sequence = int(headers[b"Nats-Sequence"])
                    yield sequence, content
                    headers, content = _receive(lines, sock)
                if headers[b""].split()[1:2] not in ([END_OF_PAGE], [NOT_FOUND]):
                    raise WireError(f"{self.stream}: {headers!r}")
                if sequence - before < PAGE_MESSAGES:
                    return


def _greet(lines: Lines, sock: socket.socket) -> bytes:
    """Say hello, wait until it was heard, and return an inbox."""
    if not lines.line().startswith(b"INFO "):
        raise WireError("this is no NATS server")
    sock.sendall(_CONNECT + b"PING\r\n")
    if (answer := lines.line()) != b"PONG":
        raise WireError(f"NATS refuses: {answer!r}")
    return b"_INBOX." + secrets.token_hex(8).encode()


def _publish(subject: str, inbox: bytes, content: bytes) -> bytes:
    return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), inbox, len(content), content)


def _check(answer: bytes) -> None:
    if b'"error"' in answer or not (b'"seq"' in answer or b'"config"' in answer):
        raise WireError(f"refused: {answer!r}")


def _receive(lines: Lines, sock: socket.socket) -> tuple[dict[bytes, bytes], bytes]:
    """Return the headers of the next message, the status line among them by no name, and its content."""
    while True:
        kind, *words = lines.line().split(b" ")
        if kind == b"PING":
            sock.sendall(b"PONG\r\n")
        elif kind == b"MSG":
            return {b"": b""}, lines.block(int(words[-1]) + 2)[:-2]
        elif kind == b"HMSG":
            head_size, size = int(words[-2]), int(words[-1])
            whole = lines.block(size + 2)
            status, *rest = whole[:head_size].split(b"\r\n")
            pairs = (line.partition(b":") for line in rest if line)
            headers = {name: value.strip() for name, _, value in pairs}
            return headers | {b"": status}, whole[head_size:size]
        elif kind == b"-ERR":
            raise WireError(f"refused: {words!r}")
