"""The Durable Streams protocol: ``POST /v1/stream/NAME`` appends, any 2xx is the ack.

HTTP/1.1 with keep-alive. Requests could be pipelined by the letter of the standard, but no client does and few
servers answer well, so a connection has one message on the way. A stream is of type JSON: each POST is one
message, and a GET answers with an array of them.
"""

import http.client
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import msgspec

from bench.peers.drivers.driver import Driver
from bench.wire import ANSWER_SECONDS_MAX, WireError

PREFIX = "/v1/stream/"
_JSON = {"Content-Type": "application/json"}
_HEAD_END = b"\r\n\r\n"


class HttpDriver(Driver):
    """One connection to a server that speaks Durable Streams."""

    pipelines = False

    @classmethod
    def prepare(cls, url: str, streams: Sequence[str]) -> None:
        """Create each stream."""
        connection = _open(url)
        for stream in streams:
            connection.request("PUT", PREFIX + stream, headers=_JSON)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status not in {200, 201, 204}:
                raise WireError(f"{stream}: not created: {answer.status} {body[:200]!r}")
        connection.close()

    def frame(self, content: bytes) -> bytes:
        """Return one POST."""
        lines = (
            f"POST {PREFIX}{self.stream} HTTP/1.1",
            f"Host: {urlsplit(self.url).netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            "\r\n",
        )
        return "\r\n".join(lines).encode() + content

    def count_acks(self, data: bytes) -> int:
        """Count answers that are whole."""
        data = self._rest + data
        acks = 0
        while (size := self._answer_size(data)) is not None:
            acks += 1
            data = data[size:]
        self._rest = data
        return acks

    def _answer_size(self, data: bytes) -> int | None:
        """Return the length of the first answer with its body; None while it is incomplete."""
        head_end = data.find(_HEAD_END)
        if head_end < 0:
            return None
        if not data.startswith(b"HTTP/1.1 2"):
            status = data.splitlines()[0]
            raise WireError(f"{self.stream}: refused: {status!r}")
        body = head_end + len(_HEAD_END)
        if data.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304")):
            return body
        headers = _headers(data[:head_end])
        if b"chunked" in headers.get(b"transfer-encoding", b""):
            end = _chunks_end(data, body)
        else:
            end = body + int(headers.get(b"content-length", b"0"))
        return None if end is None or end > len(data) else end

    def read_back(self) -> Iterator[tuple[int, bytes]]:
        """Yield the messages by GET, until the server says that there are no more."""
        connection, offset, position = _open(self.url), "-1", 0
        while True:
            connection.request("GET", f"{PREFIX}{self.stream}?offset={offset}")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise WireError(f"{self.stream}: not read: {answer.status} {body[:200]!r}")
            for content in msgspec.json.decode(body, type=list[msgspec.Raw]):
                position += 1
                yield position, bytes(content)
            before, offset = offset, answer.headers["Stream-Next-Offset"]
            if answer.headers["Stream-Up-To-Date"] == "true" or offset == before:
                connection.close()
                return


def _open(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS_MAX)


def _headers(head: bytes) -> dict[bytes, bytes]:
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip().lower() for name, _, value in pairs}


def _chunks_end(data: bytes, start: int) -> int | None:
    """Return where a chunked body ends; None while it is incomplete."""
    while (line_end := data.find(b"\r\n", start)) >= 0:
        size = int(data[start:line_end].partition(b";")[0], 16)
        start = line_end + 2 + size + 2
        if size == 0:
            return start
    return None
