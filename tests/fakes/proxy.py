"""A TCP proxy that breaks connections at the worst moments. Threads, so that blocking clients can use it."""

import enum
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

RECEIVE_BYTES = 65_536


class Cut(enum.Enum):
    """What happens when the marker passes on its way to the server."""

    NOTHING = "it passes"
    REQUEST = "it is dropped and the connection ends: the server never saw it"
    REPLY = "the server gets it, its reply is dropped and the connection ends"
    CRASH = "the server gets it, and then `crash` is called: it should end the server"
    FREEZE = "the server gets it, and then nothing passes any more, both ways, and nothing ends"


class CuttingProxy:
    """Forwards to one server; the first time `marker` passes it does what `cut` says, once."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.marker = b"COMMIT"
        self.cut = Cut.NOTHING
        self.cuts = 0
        self.crash: Callable[[], None] = lambda: None
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """End every connection and thread."""
        self._closed.set()
        # Wakes the accepting thread up.
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closed.is_set():
            client, _ = self._listener.accept()
            if self._closed.is_set():
                client.close()
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                client.close()
                continue
            thread = threading.Thread(target=self._serve, args=(client, server), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, suppress(OSError):
            while not self._closed.is_set():
                readable, _, _ = select.select([client, server], [], [], 0.05)
                for source in readable:
                    data = source.recv(RECEIVE_BYTES)
                    if not data:
                        return
                    if source is server:
                        client.sendall(data)
                    elif self.cut is not Cut.NOTHING and self.marker in data:
                        self._break(server, data)
                        return
                    else:
                        server.sendall(data)

    def _break(self, server: socket.socket, data: bytes) -> None:
        cut, self.cut = self.cut, Cut.NOTHING
        if cut is not Cut.REQUEST:
            server.sendall(data)
            if cut is Cut.CRASH:
                self.crash()
            else:
                # The reply tells that the server is done with it.
                assert server.recv(RECEIVE_BYTES)
        self.cuts += 1
        if cut is Cut.FREEZE:
            self._closed.wait()


@contextmanager
def open_cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    """Run a proxy before a server on loopback until the block ends."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
