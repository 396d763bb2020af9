"""A real `ringlog serve` in a process of its own, for tests that watch it start, serve, stop and fail."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parent.parent.parent
READY_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 20.0


class ServerProcess:
    """One process; its log lines are collected as they come."""

    def __init__(self, data: Path, *flags: str, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.lines: list[str] = []
        self.address = ""
        self._ready = threading.Event()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RINGLOG_")}
        options = {"listen": "127.0.0.1:0", "data": str(data), "segment-bytes": "1MiB"}
        given = {flag.split("=", 1)[0].removeprefix("--") for flag in flags}
        defaults = [f"--{name}={value}" for name, value in options.items() if name not in given]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edge", "serve", *defaults, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=data.parent,
            env=clean | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def socket_url(self) -> str:
        return f"ws://{self.address}/v1/ws"

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if '"event": "ready"' in line:
                self.address = json.loads(line)["address"]
                self._ready.set()
        self._ready.set()

    def wait_ready(self) -> "ServerProcess":
        assert self._ready.wait(READY_SECONDS_MAX), self.lines
        assert self.address, f"it ended: {self.lines}"
        return self

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS_MAX) -> int:
        """Return the exit code; everything it printed has been read."""
        code = self._process.wait(seconds)
        self._reader.join(seconds)
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def server_process(
    data: Path, *flags: str, environment: dict[str, str] | None = None
) -> Iterator[ServerProcess]:
    """A process that has not been waited for; none is left when the block ends."""
    process = ServerProcess(data, *flags, environment=environment)
    try:
        yield process
    finally:
        process.close()


def open_socket(server: ServerProcess, user: str = "alice") -> ClientConnection:
    return connect(f"{server.socket_url}?user_id={user}", proxy=None)


def ask(websocket: ClientConnection, **request: object) -> dict[str, object]:
    """Send one request and return its answer; messages in between are passed over."""
    websocket.send(json.dumps(request))
    while True:
        answer: dict[str, object] = json.loads(websocket.recv(10))
        if answer.get("ref") == request["ref"]:
            return answer


def join(websocket: ClientConnection, session: str) -> None:
    assert ask(websocket, type="join", ref="j", session=session, create={})["type"] == "joined"


def send(websocket: ClientConnection, session: str, text: str) -> int:
    ack = ask(websocket, type="send", ref=text, session=session, content={"text": text})
    assert ack["type"] == "ack", ack
    assert isinstance(ack["seq"], int)
    return ack["seq"]


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    """Poll for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)  # noqa: TID251 - another process has no event to wait for
