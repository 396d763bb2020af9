"""What a crash could still take back is told to nobody: real clients, and a disk that keeps a sync."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from edge.auth import SCOPES, Principal
from edge.sse import EventStream
from tests.edge.http_client import Answer, open_http
from tests.edge.one_port import OnePort, open_one_port
from tests.edge.socket_client import SocketClient, open_socket
from tests.fakes.directory import StallingDirectory

TOLD_SECONDS = 0.3
"""Long enough for an answer that should not come."""

SESSION = {"id": "s", "user_id": "alice", "members": ["bob"]}
MESSAGE = {"sender": "alice", "content": 1}


@asynccontextmanager
async def open_stallable(tmp_path: Path) -> AsyncIterator[tuple[OnePort, StallingDirectory]]:
    """Serve a session with two messages from a disk that can be made to stall."""
    directory = StallingDirectory()
    async with open_one_port(tmp_path, directory=directory) as edge:
        async with open_http(edge.port) as http:
            await http.post("/v1/sessions", SESSION)
            for _ in range(2):
                await http.post("/v1/sessions/s/messages", MESSAGE)
        with trio.fail_after(10):
            while not edge.node.log.statistics().spare_ready:
                await trio.sleep(0.01)
        try:
            yield edge, directory
        finally:
            directory.answer()


async def ask(port: int, method: str, path: str, body: object, answers: list[Answer]) -> None:
    async with open_http(port) as http:
        answers.append(await http.request(method, path, body))


async def stalled(edge: OnePort) -> None:
    """Return when the disk keeps a write."""
    with trio.fail_after(5):
        while not edge.node.log.statistics().write_seconds:
            await trio.sleep(0.01)


async def hears_nothing(client: SocketClient) -> bool:
    with trio.move_on_after(TOLD_SECONDS) as scope:
        await client.receive()
    return scope.cancelled_caught


async def test_an_erasure_is_told_to_nobody_before_it_is_durable(tmp_path: Path) -> None:
    async with (
        open_stallable(tmp_path) as (edge, directory),
        open_socket(edge.port, "user_id=bob") as follower,
        open_socket(edge.port, "user_id=bob") as asker,
        trio.open_nursery() as nursery,
    ):
        await follower.receive("hello")
        await asker.receive("hello")
        await follower.ask(type="join", ref=1, session="s")
        directory.stalled = True
        deleted: list[Answer] = []
        seen: list[Answer] = []
        nursery.start_soon(ask, edge.port, "DELETE", "/v1/sessions/s", None, deleted)
        await stalled(edge)
        nursery.start_soon(ask, edge.port, "GET", "/v1/sessions/s", None, seen)
        await asker.send(type="join", ref=1, session="s")
        await asker.send(type="send", ref=2, session="s", content=1)
        assert await hears_nothing(follower)
        assert await hears_nothing(asker)
        assert deleted == seen == []
        directory.answer()
        assert (await follower.receive("error"))["code"] == "session_deleted"
        assert [(await asker.receive("error"))["ref"] for _ in range(2)] == [1, 2]
    assert [answer.status for answer in deleted + seen] == [204, 410]


async def test_readers_are_let_go_also_if_who_removed_them_has_left(tmp_path: Path) -> None:
    async with (
        open_stallable(tmp_path) as (edge, directory),
        open_socket(edge.port, "user_id=bob") as follower,
        trio.open_nursery() as nursery,
    ):
        await follower.receive("hello")
        await follower.ask(type="join", ref=1, session="s")
        [tail] = edge.node.active["default", "s"].tails
        tail.reader = "bob"  # as for a user with a token
        directory.stalled = True
        nursery.start_soon(ask, edge.port, "PATCH", "/v1/sessions/s", {"members": []}, [])
        await stalled(edge)
        nursery.cancel_scope.cancel()
        directory.answer()
        assert (await follower.receive("error"))["code"] == "session_not_found"


async def test_requests_behind_a_change_in_flight_keep_their_order(tmp_path: Path) -> None:
    async with (
        open_stallable(tmp_path) as (edge, directory),
        open_socket(edge.port, "user_id=bob") as client,
        trio.open_nursery() as nursery,
    ):
        await client.receive("hello")
        directory.stalled = True
        nursery.start_soon(ask, edge.port, "PATCH", "/v1/sessions/s", {"metadata": {"a": 1}}, [])
        await stalled(edge)
        await client.send(type="join", ref=1, session="s")
        await client.send(type="leave", ref=2, session="s")
        await client.send(type="send", ref=3, session="s", content=1)
        assert await hears_nothing(client)
        directory.answer()
        assert [(await client.receive())["type"] for _ in range(3)] == ["joined", "ok", "ack"]
        assert edge.node.tails == 0


async def test_a_message_that_is_not_durable_is_beyond_the_head(tmp_path: Path) -> None:
    async with (
        open_stallable(tmp_path) as (edge, directory),
        open_socket(edge.port, "user_id=alice") as sender,
        open_socket(edge.port, "user_id=bob") as reader,
    ):
        await sender.receive("hello")
        directory.stalled = True
        await sender.send(type="send", ref=1, session="s", content=1)
        await stalled(edge)
        assert (await reader.ask(type="read", ref=1, session="s", seq=3))["code"] == "ahead_of_log"
        ahead = await reader.ask(type="join", ref=2, session="s", last_seq=3)
        assert ahead["code"] == "ahead_of_log"
        assert (await reader.ask(type="join", ref=3, session="s"))["head_seq"] == 2
        assert await hears_nothing(reader)
        assert await hears_nothing(sender)
        directory.answer()
        assert (await reader.receive("message"))["seq"] == 3
        assert (await sender.receive("ack"))["seq"] == 3


async def test_a_read_cursor_is_answered_as_far_as_it_is_durable(tmp_path: Path) -> None:
    first: list[Answer] = []
    second: list[Answer] = []
    path = "/v1/sessions/s/read"
    async with open_stallable(tmp_path) as (edge, directory), trio.open_nursery() as nursery:
        directory.stalled = True
        nursery.start_soon(ask, edge.port, "POST", path, {"user_id": "bob", "seq": 1}, first)
        await stalled(edge)
        nursery.start_soon(ask, edge.port, "POST", path, {"user_id": "bob", "seq": 2}, second)
        with trio.fail_after(5):
            while edge.node.active["default", "s"].reads != {"bob": 2}:
                await trio.sleep(0.01)
        directory.let_go()
        with trio.fail_after(5):
            while not first:
                await trio.sleep(0.01)
        assert (first[0].json()["seq"], second) == (1, [])
        directory.answer()
    assert second[0].json()["seq"] == 2


async def test_a_read_that_is_repeated_is_not_answered_before_the_first_is_durable(
    tmp_path: Path,
) -> None:
    async with (
        open_stallable(tmp_path) as (edge, directory),
        open_socket(edge.port, "user_id=bob") as first,
        open_socket(edge.port, "user_id=bob") as second,
    ):
        await first.receive("hello")
        await second.receive("hello")
        directory.stalled = True
        await first.send(type="read", ref=1, session="s", seq=1)
        await stalled(edge)
        await second.send(type="read", ref=2, session="s", seq=1)
        assert await hears_nothing(second)
        directory.answer()
        assert (await second.receive("ok"))["ref"] == 2
        assert (await first.receive("ok"))["ref"] == 1


async def test_a_stream_whose_session_was_erased_before_it_began_says_so(tmp_path: Path) -> None:
    async with open_stallable(tmp_path) as (edge, _), open_http(edge.port) as http:
        await http.request("DELETE", "/v1/sessions/s")
        principal = Principal("development", "default", "bob", SCOPES)
        async with EventStream(edge.services, principal, "s", 0) as stream:
            with trio.fail_after(5):
                events = [event async for event in stream]
        assert len(events) == 2
        assert b"event: error" in events[1]
        assert b"session_deleted" in events[1]


async def test_a_stream_of_a_session_that_was_put_away_meanwhile_is_live(tmp_path: Path) -> None:
    async with open_stallable(tmp_path) as (edge, _), open_http(edge.port) as http:
        await edge.node.flusher.flush_all()
        edge.node.active.clear()
        principal = Principal("development", "default", "bob", SCOPES)
        async with EventStream(edge.services, principal, "s", 2) as stream:
            await http.post("/v1/sessions/s/messages", MESSAGE)
            with trio.fail_after(5):
                events = [await anext(stream) for _ in range(2)]
        assert events[1].startswith(b"id: 3\n")
