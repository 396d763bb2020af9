"""Redis Streams: ``XADD stream * c CONTENT``, in RESP2.

*5 CRLF $4 CRLF XADD CRLF …      a command is an array of bulk strings
$15 CRLF 1700000000000-0 CRLF    the answer: the id of the entry
-ERR … CRLF                      or a refusal
"""

from collections.abc import Iterator

from bench.peers.drivers.driver import Driver, Lines, connect
from bench.wire import WireError

PAGE_ENTRIES = 1000
"""Entries in one answer when a stream is read back."""

_Reply = bytes | int | list["_Reply"] | None


class RedisDriver(Driver):
    """One connection to Redis."""

    def frame(self, content: bytes) -> bytes:
        """Return one XADD."""
        return encode(b"XADD", self.stream.encode(), b"*", b"c", content)

    def count_acks(self, data: bytes) -> int:
        """Count ids: two lines each."""
        data = self._rest + data
        if data.startswith(b"-") or b"\r\n-" in data:
            raise WireError(f"{self.stream}: refused: {data[:200]!r}")
        if data and not data.startswith(b"$"):
            raise WireError(f"{self.stream}: no id: {data[:200]!r}")
        if data.endswith(b"\r\n") and (ends := data.count(b"\r\n")) % 2 == 0:
            # Nothing was cut, as nearly always: at tens of thousands a second the generator is busy enough.
            self._rest = b""
            return ends // 2
        *lines, _ = data.split(b"\r\n")
        whole = len(lines) // 2 * 2
        self._rest = data[sum(len(line) + 2 for line in lines[:whole]) :]
        return whole // 2

    def read_back(self) -> Iterator[tuple[int, bytes]]:
        """Yield the entries by XRANGE."""
        position, start = 0, b"-"
        with connect(self.url) as sock:
            lines = Lines(sock)
            while True:
                name, count = self.stream.encode(), b"%d" % PAGE_ENTRIES
                sock.sendall(encode(b"XRANGE", name, start, b"+", b"COUNT", count))
                entries = _read(lines)
                assert isinstance(entries, list)
                for entry in entries:
                    match entry:
                        case [bytes() as id, [b"c", bytes() as content]]:
                            position += 1
                            start = b"(" + id
                            yield position, content
                        case _:
                            raise WireError(f"{self.stream}: an entry of another kind: {entry!r}")
                if len(entries) < PAGE_ENTRIES:
                    return


def encode(*words: bytes) -> bytes:
    """Return a command."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def _read(lines: Lines) -> _Reply:
    """Read one answer of any kind."""
    line = lines.line()
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise WireError(f"refused: {rest!r}")
    if kind == b"*":
        return [_read(lines) for _ in range(int(rest))]
    if kind == b"$":
        return None if rest == b"-1" else lines.block(int(rest) + 2)[:-2]
    return int(rest) if kind == b":" else rest
