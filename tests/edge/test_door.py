"""What a server answers before it serves."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from edge import door as door_module
from edge.acceptor import open_listener
from edge.door import Door, open_door
from edge.limits import Limits
from storage import open_archive
from tests.edge.http_client import HttpClient, open_http
from tests.edge.server_process import server_process, wait_until

HEAD = b"GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def a_door(limits: Limits | None = None) -> AsyncIterator[tuple[Door, int]]:
    """A door before nothing, and its port."""
    limits = limits or Limits()
    async with (
        open_listener("127.0.0.1", 0, limits) as listener,
        open_door(listener, "edge", limits) as door,
    ):
        yield door, listener.socket.getsockname()[1]


async def until_held(door: Door, count: int) -> None:
    with trio.fail_after(10):
        while len(door._held) != count:
            await trio.sleep(0.01)


async def test_probes_are_answered_with_the_reason() -> None:
    async with a_door() as (door, port):
        for reason in ("starting", "no_ring"):
            door.reason = reason
            async with open_http(port) as http:
                ready = await http.get("/readyz")
            assert (ready.status, ready.code) == (503, "not_ready")
            assert ready.json()["details"] == {
                "reasons": [reason],
                "role": "edge",
                "node_id": None,
                "epoch": None,
                "ring": None,
            }
        async with open_http(port) as http:
            alive = await http.get("/healthz")
        assert (alive.status, alive.json()) == (200, {"status": "ok"})
        assert await door.open() == []


async def test_who_comes_with_anything_else_waits_and_is_handed_over_unread() -> None:
    async with a_door() as (door, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        silent = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(HEAD)
        await until_held(door, 2)
        await trio.sleep(0.05)
        held = await door.open()
        heads = []
        for each in held:
            with trio.move_on_after(0.2):
                heads.append(await each.receive_some(1000))
        assert heads == [HEAD]
        for each in (stream, silent, *held):
            await trio.aclose_forcefully(each)


async def test_who_comes_in_the_moment_in_which_it_opens_is_handed_over_too() -> None:
    # Whether the door or this task runs first once the connection is there is up to trio, which draws lots.
    for _ in range(20):
        async with a_door() as (door, port):
            await trio.testing.wait_all_tasks_blocked()
            with socket.create_connection(("127.0.0.1", port)):
                await trio.lowlevel.checkpoint()
                held = await door.open()
                async with await trio.open_tcp_stream("127.0.0.1", port):
                    held += await _accepted(door)
                assert len(held) == 2
            for each in held:
                await trio.aclose_forcefully(each)


async def _accepted(door: Door) -> list[trio.SocketStream]:
    """What the listener has for whoever serves after the door: up to the one that was made last."""
    streams: list[trio.SocketStream] = []
    with trio.move_on_after(0.05):
        while True:
            streams.append(await door._listener.accept())
    return streams


async def test_a_probe_that_comes_in_pieces_is_a_probe() -> None:
    async with a_door() as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /hea")
        await trio.sleep(0.15)
        await stream.send_all(b"lthz HTTP/1.1\r\nHost: x\r\n")
        await trio.sleep(0.15)
        await stream.send_all(b"\r\n")
        with trio.fail_after(10):
            assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200")
        await stream.aclose()


async def test_who_goes_away_is_forgotten_and_the_oldest_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door_module, "HELD_MAX", 2)
    async with a_door() as (door, port):
        gone = await trio.open_tcp_stream("127.0.0.1", port)
        await until_held(door, 1)
        await gone.aclose()
        await until_held(door, 0)
        streams = []
        for _ in range(3):
            streams.append(await trio.open_tcp_stream("127.0.0.1", port))
            await streams[-1].send_all(HEAD)
            await until_held(door, min(2, len(streams)))
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await streams[0].receive_some(10)
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def test_who_waits_before_a_server_that_never_serves_is_sent_away() -> None:
    async with a_door() as (door, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await until_held(door, 1)
    with trio.fail_after(10):
        assert await stream.receive_some(10) == b""
    await stream.aclose()


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def test_an_edge_without_a_ring_lives_is_not_ready_and_serves_who_waited_once_there_is_one(
    tmp_path: Path, unused_port: int
) -> None:
    archive = f"--archive=sqlite:///{tmp_path}/archive.db"
    open_archive(f"sqlite:///{tmp_path}/archive.db").close()
    (tmp_path / "data").mkdir()
    listen = f"--listen=127.0.0.1:{unused_port}"
    with server_process(tmp_path / "data/edge", "--role=edge", archive, listen) as edge:
        await trio.to_thread.run_sync(
            wait_until, lambda: any('"waiting"' in line for line in edge.lines)
        )
        async with open_http(unused_port) as http:
            assert (await http.get("/healthz")).status == 200
        async with open_http(unused_port) as http:
            assert (await http.get("/readyz")).json()["details"]["reasons"] == ["no_ring"]
        async with open_http(unused_port) as waiting:
            await waiting.send("GET", "/v1/ring")
            owner_flags = ("--role=owner", "--link=127.0.0.1:0", archive)
            with server_process(tmp_path / "data/owner", *owner_flags) as owner:
                await trio.to_thread.run_sync(owner.wait_ready)
                answer = await waiting.receive()
                assert answer.status == 200
                assert json.loads(answer.body)["slots"] == 4096
                assert await _until_ready(waiting)
                assert await trio.to_thread.run_sync(edge.stop) == 0


async def _until_ready(http: HttpClient) -> bool:
    with trio.fail_after(20):
        while (await http.get("/readyz")).status != 200:
            await trio.sleep(0.05)
    return True
