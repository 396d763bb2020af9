"""A Redis that knows XADD and XRANGE, and breaks its promise in a chosen way.

It keeps everything in memory, so it is good for nothing but to show that what watches a real one would notice.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Lie = Callable[[list[bytes]], list[bytes]]
"""What a stream holds when it is read, made from what was acknowledged."""


def honest(contents: list[bytes]) -> list[bytes]:
    return contents


class FakeRedis:
    """The streams of one such server."""

    def __init__(self, lie: Lie, refuse_after: int | None) -> None:
        self._lie = lie
        self._refuse_after = refuse_after
        self._streams: dict[bytes, list[bytes]] = {}

    def serve(self, connection: socket.socket) -> None:
        """Answer one client until it goes."""
        with suppress(ConnectionError), connection, connection.makefile("rb") as requests:
            while line := requests.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int(requests.readline()[1:])
                    words.append(requests.read(size + 2)[:-2])
                connection.sendall(self._answer(*words))

    def _answer(self, command: bytes, stream: bytes, *words: bytes) -> bytes:
        contents = self._streams.setdefault(stream, [])
        if command == b"XADD":
            if self._refuse_after is not None and len(contents) >= self._refuse_after:
                return b"-OOM command not allowed\r\n"
            contents.append(words[-1])
            return _bulk(b"%d-0" % len(contents))
        start, count = words[0], int(words[3])
        first = 0 if start == b"-" else int(start[1:].split(b"-")[0])
        entries = list(enumerate(self._lie(contents), 1))[first : first + count]
        answer = b"*%d\r\n" % len(entries)
        for number, content in entries:
            answer += b"*2\r\n" + _bulk(b"%d-0" % number)
            answer += b"*2\r\n" + _bulk(b"c") + _bulk(content)
        return answer


@contextmanager
def open_fake_redis(lie: Lie = honest, *, refuse_after: int | None = None) -> Iterator[str]:
    """Serve on a free port; yields the address."""
    fake = FakeRedis(lie, refuse_after)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, fake), daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _accept(listener: socket.socket, fake: FakeRedis) -> None:
    clients = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            break
        clients.append(threading.Thread(target=fake.serve, args=(connection,), daemon=True))
        clients[-1].start()
    for client in clients:
        client.join(10)


def _bulk(content: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(content), content)
