"""A real server process, and a second client on it that must never notice what the first one does."""

import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.edge.raw_socket import TEXT, RawSocket, frame
from tests.edge.server_process import ServerProcess, server_process, wait_until

ANSWER_SECONDS_MAX = 2.0
"""A ping is answered in a millisecond; two seconds are a server that was held up."""


class Bystander:
    """The second client, with the process it is connected to."""

    def __init__(self, server: ServerProcess, tls: ssl.SSLContext | None = None) -> None:
        self.server = server
        self.address = server.address
        self.tls = tls
        self._pings = 0
        self._socket = RawSocket(server.address, tls=tls)
        self._socket.upgrade("user_id=bystander")

    def check(self) -> None:
        """Assert that the server answers as ever, and has logged no error of its own."""
        self._pings += 1
        started = time.monotonic()
        self._socket.send(frame(TEXT, b'{"type":"ping","ref":"%d"}' % self._pings))
        opcode, payload = next(self._socket.frames())
        while opcode != TEXT:  # its heartbeat, perhaps
            opcode, payload = next(self._socket.frames())
        assert payload == b'{"type":"ok","ref":"%d"}' % self._pings
        assert time.monotonic() - started < ANSWER_SECONDS_MAX
        logged = [event for event in self.server.events() if event["level"] == "error"]
        assert logged == []

    def wait_alone(self) -> None:
        """Wait until the server has let go of every other connection."""
        wait_until(lambda: self.metric("ringlog_connections") <= 2)  # its own, and this request's

    def metric(self, name: str) -> float:
        """Return the sum over a metric's series."""
        return self.metrics(name)[0]

    def metrics(self, *names: str) -> list[float]:
        """Return the sum over each metric's series, at one moment."""
        scheme = "http" if self.tls is None else "https"
        url = f"{scheme}://{self.address}/metrics"
        with urllib.request.urlopen(url, timeout=10, context=self.tls) as response:
            lines = response.read().decode().splitlines()
        sums = dict.fromkeys(names, 0.0)
        for line in lines:
            name = line.split("{")[0].split(" ")[0]
            if name in sums:
                sums[name] += float(line.rpartition(" ")[2])
        return list(sums.values())

    def close(self) -> None:
        self._socket.close()


@contextmanager
def open_bystander(
    data: Path, *flags: str, tls: ssl.SSLContext | None = None
) -> Iterator[Bystander]:
    """A server in a process of its own, ready, with its bystander; it must survive the block."""
    with server_process(data, *flags) as server:
        bystander = Bystander(server.wait_ready(), tls)
        try:
            yield bystander
            bystander.check()
        finally:
            bystander.close()
        assert server.stop() == 0
