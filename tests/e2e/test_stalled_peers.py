"""Peers that stop reading: cut off in time, in bounded memory, unfelt by others."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.crowd import Crowd, percentile, stall
from tests.e2e.transports import open_socket, receive
from tests.edge.bystander import Bystander, open_bystander
from tests.edge.raw_socket import open_raw
from tests.edge.server_process import ServerProcess, server_process

MIB = 1024 * 1024
READING, STALLED = 1_500, 500
GONE_SECONDS_MAX = STOP_SECONDS_MAX = 10.0
"""What is promised: from its last byte to the end of its connection."""
LOOK_SECONDS = 0.5


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def fill(server: ServerProcess, session: str, count: int, size: int) -> None:
    """Send so many messages to a session that is created for them."""
    with open_socket(server.address, "writer") as websocket:
        websocket.send(f'{{"type":"join","ref":0,"session":"{session}","create":{{}}}}')
        websocket.send(f'{{"type":"leave","ref":0,"session":"{session}"}}')
        content = json.dumps("x" * size)
        for _ in range(count):
            websocket.send(f'{{"type":"send","ref":1,"session":"{session}","content":{content}}}')
        acked = 0
        while acked < count:
            answer = receive(websocket)
            assert b'"error"' not in answer, answer
            acked += b'"ack"' in answer[:20]


@contextlib.contextmanager
def stalled(address: str, session: str, count: int, last_seq: int | None) -> Iterator[None]:
    """So many peers that join and then read nothing."""
    sockets: list[socket.socket] = []
    try:
        sockets.extend(stall(address, session, last_seq) for _ in range(count))
        yield
    finally:
        for each in sockets:
            each.close()


class Watcher:
    """Looks at a server several times a second, from a thread of its own."""

    def __init__(self, bystander: Bystander, connections: int) -> None:
        self.evicted = self.gone = 0.0
        self.peak_bytes = 0
        self.done = threading.Event()
        self._bystander = bystander
        self._connections = connections
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.done.is_set():
            self.peak_bytes = max(self.peak_bytes, resident_bytes(self._bystander.server.pid))
            passed = time.monotonic() - self._began
            cut, left = self._bystander.metrics(
                "ringlog_readers_stalled_total", "ringlog_websockets"
            )
            if cut == STALLED and not self.evicted:
                self.evicted = passed
            if self.evicted and left <= self._connections:
                self.gone = passed
                self.done.set()
            self.done.wait(LOOK_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_500_stalled_readers_among_2000_are_cut_and_the_others_feel_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_bystander(tmp_path / "data", "--segment-bytes=16MiB") as bystander:
        server = bystander.server
        fill(server, "history", 500, 8_000)
        crowd = Crowd(server.address, sessions=15)
        crowd.gather(READING)
        connections = int(bystander.metric("ringlog_websockets"))
        try:
            alone = crowd.run(5, per_second=30)
            before = resident_bytes(server.pid)
            with (
                # Half of them in the middle of a replay, half of them live.
                stalled(server.address, "history", STALLED // 2, 0),
                stalled(server.address, "loud", STALLED // 2, None),
            ):
                fill(server, "loud", 300, 8_000)
                watcher = Watcher(bystander, connections)
                beside: list[float] = []
                while not watcher.done.is_set():
                    beside += crowd.run(0.5, per_second=30)
                    assert len(beside) < 100 * len(alone), "they were not cut"
            crowd.settle()
            after = resident_bytes(server.pid)
        finally:
            crowd.close()
        bystander.check()

    figures = {
        "p50_ms alone, beside": [round(percentile(v, 0.5) * 1000, 1) for v in (alone, beside)],
        "p99_ms alone, beside": [round(percentile(v, 0.99) * 1000, 1) for v in (alone, beside)],
        "MiB before, peak, after": [round(v / MIB) for v in (before, watcher.peak_bytes, after)],
        "evicted, gone after seconds": [round(watcher.evicted, 1), round(watcher.gone, 1)],
    }
    with capsys.disabled():
        print(f"\n{figures}")
    # The promise, and what two cores need that run another test at the same time.
    assert watcher.gone < GONE_SECONDS_MAX + 3
    assert watcher.peak_bytes - before < STALLED * MIB
    # Two cores carry server, clients and 250 replays: what must not be seen is a wait for a peer.
    assert percentile(beside, 0.5) < 0.1
    assert percentile(beside, 0.99) < 1.0


@pytest.mark.slow
def test_a_stop_does_not_wait_for_readers_that_have_stalled(tmp_path: Path) -> None:
    with server_process(tmp_path / "data", "--segment-bytes=16MiB") as server:
        server.wait_ready()
        fill(server, "history", 200, 8_000)
        with stalled(server.address, "history", 20, 0), contextlib.ExitStack() as streams:
            for _ in range(20):
                raw = streams.enter_context(open_raw(server.address))
                raw.send(
                    b"GET /v1/sessions/history/stream?last_seq=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
                assert raw.read_until(b"\n").startswith(b"HTTP/1.1 200")
            began = time.monotonic()
            assert server.stop() == 0

        assert time.monotonic() - began < STOP_SECONDS_MAX
        assert '"event": "stopped"' in server.lines[-1]
