"""Peers that are slow to say what they want, or say nothing: each is ended at its own deadline."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge.limits import Limits
from tests.edge.bystander import open_bystander
from tests.edge.raw_socket import CLOSE, PING, RawSocket, open_raw

LIMITS = Limits()
LATE_SECONDS = 5.0
"""Deadlines are looked at about once a second, and an answer lingers for a moment."""

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
UPGRADE = b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"

# What is sent and no more, the deadline, and what is said at it.
SILENT: dict[str, tuple[bytes, float, bytes]] = {
    "nothing": (b"", LIMITS.header_timeout_seconds, b""),
    "half a head": (GET[:30], LIMITS.header_timeout_seconds, b"header_timeout"),
    "half a handshake": (UPGRADE, LIMITS.header_timeout_seconds, b"header_timeout"),
    "half a body": (POST + b"{", LIMITS.body_timeout_seconds, b"body_timeout"),
    "one request": (GET, LIMITS.keep_alive_timeout_seconds, b'{"status":"ok"}'),
    "a request and a half": (GET + GET[:30], LIMITS.keep_alive_timeout_seconds, b'{"status":"ok"}'),
}


def read_to_the_end(raw: RawSocket) -> bytes:
    raw.socket.settimeout(LIMITS.idle_timeout_seconds + 2 * LATE_SECONDS)
    return raw.read_to_the_end()


def drip(raw: RawSocket) -> bytes:
    """Send a byte a second of a head, for as long as the server takes it."""
    stop = threading.Event()
    raw.socket.settimeout(1.0)
    for number in range(len(POST)):
        raw.send(POST[number : number + 1])
        stop.wait(1.0)
        if raw.received_end():
            break
    return raw.read_to_the_end()


def stay_silent(raw: RawSocket) -> bytes:
    """Upgrade and answer nothing, not even a ping; return the close code and its reason."""
    raw.upgrade()
    raw.socket.settimeout(LIMITS.idle_timeout_seconds + 2 * LATE_SECONDS)
    frames = []
    for opcode, payload in raw.frames():
        frames.append(opcode)
        if opcode == CLOSE:
            assert frames[:-1] == [PING, PING]
            return payload
    return b""


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_peers_that_say_nothing_more_are_ended_each_at_its_deadline(tmp_path: Path) -> None:
    found: dict[str, tuple[float, bytes]] = {}

    def measure(name: str, raw: RawSocket, wait: Callable[[RawSocket], bytes]) -> None:
        began = time.monotonic()
        said = wait(raw)
        found[name] = (time.monotonic() - began, said)

    wanted = {name: (seconds, said) for name, (_, seconds, said) in SILENT.items()}
    wanted["a byte a second"] = (LIMITS.header_timeout_seconds, b"header_timeout")
    wanted["no pong"] = (LIMITS.idle_timeout_seconds, b"\x11\x38idle_timeout")
    with (
        open_bystander(tmp_path / "data") as bystander,
        ExitStack() as stack,
        ThreadPoolExecutor(len(wanted)) as pool,
    ):
        waits = []
        for name in wanted:
            raw = stack.enter_context(open_raw(bystander.address))
            wait = {"a byte a second": drip, "no pong": stay_silent}.get(name, read_to_the_end)
            if name in SILENT:
                raw.send(SILENT[name][0])
            waits.append(pool.submit(measure, name, raw, wait))
        while not all(wait.done() for wait in waits):
            bystander.check()
            threading.Event().wait(0.5)
        for done in waits:
            done.result()
        bystander.wait_alone()

    for name, (seconds, said) in wanted.items():
        passed, received = found[name]
        assert seconds - 1 < passed < seconds + LATE_SECONDS, name
        assert said in received, name
