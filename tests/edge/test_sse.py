from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from edge.auth import SCOPES, generate_key
from edge.limits import Limits
from runtime import append_durably
from tests.edge.http_client import EventReader, HttpClient, open_http
from tests.edge.one_port import OnePort, api_key, keyed, open_one_port

STREAM = "/v1/sessions/s/stream"
KEY = generate_key()


@asynccontextmanager
async def open_events(port: int, path: str = STREAM, **headers: str) -> AsyncIterator[EventReader]:
    """Open a stream, past its first block."""
    async with open_http(port, **headers) as http:
        await http.send("GET", path)
        head = await http.receive_head()
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["x-accel-buffering"] == "no"
        events = EventReader(http)
        assert await events.block() == {"retry": "1000"}
        yield events


@asynccontextmanager
async def open_edge(
    tmp_path: Path, limits: Limits | None = None
) -> AsyncIterator[tuple[OnePort, HttpClient]]:
    async with open_one_port(tmp_path, limits=limits) as edge, open_http(edge.port) as http:
        await http.post("/v1/sessions", {"id": "s", "user_id": "u"})
        yield edge, http


async def send(http: HttpClient, *contents: str) -> None:
    for content in contents:
        body = {"sender": "u", "content": content}
        assert (await http.post("/v1/sessions/s/messages", body)).status == 201


async def test_a_stream_replays_from_its_cursor_and_goes_on_live(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        await send(http, "a", "b", "c")
        async with open_events(edge.port, f"{STREAM}?last_seq=1") as events:
            for seq, content in ((2, "b"), (3, "c")):
                got, message = await events.message()
                assert (got, message["seq"], message["content"]) == (seq, seq, content)
            await send(http, "d")
            assert (await events.message())[0] == 4


async def test_a_stream_without_a_cursor_has_only_what_is_new(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        await send(http, "a")
        async with open_events(edge.port) as events:
            await send(http, "b")
            assert (await events.message())[0] == 2


async def test_last_event_id_wins_over_the_address(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        await send(http, "a", "b", "c")
        path = f"{STREAM}?last_seq=0"
        async with open_events(edge.port, path, Last_Event_ID="2") as events:
            assert (await events.message())[0] == 3


async def test_a_long_replay_comes_whole_and_in_order(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        server = await edge.node.open("default", "s")
        async with trio.open_nursery() as nursery:
            for number in range(1_500):
                body = b'"%d"' % number

                async def append(body: bytes = body) -> None:
                    await append_durably(server, sender="u", content=body)

                nursery.start_soon(append)
        await edge.node.flusher.flush_all()
        async with open_events(edge.port, f"{STREAM}?last_seq=0") as events:
            for seq in range(1, 1_501):
                assert (await events.message())[0] == seq
            await send(http, "live")
            assert (await events.message())[0] == 1_501


async def test_a_silent_stream_is_kept_alive_with_comments(tmp_path: Path) -> None:
    async with (
        open_edge(tmp_path, Limits(sse_keep_alive_seconds=0.05)) as (edge, http),
        open_events(edge.port) as events,
    ):
        for _ in range(3):
            assert await events.block() == {"": "keep-alive"}
        await send(http, "a")
        assert (await events.message())[0] == 1


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (f"{STREAM}?last_seq=9", {}, 409, "ahead_of_log"),
        (STREAM, {"Last-Event-ID": "9"}, 409, "ahead_of_log"),
        (STREAM, {"Last-Event-ID": "x"}, 400, "invalid_field"),
        (STREAM, {"Last-Event-ID": ""}, 400, "invalid_field"),
        (f"{STREAM}?last_seq=x", {}, 400, "invalid_field"),
        (f"{STREAM}?lastEventId=1", {}, 400, "unknown_field"),
        ("/v1/sessions/nope/stream", {}, 404, "session_not_found"),
    ],
)
async def test_a_bad_request_is_refused_with_a_status_that_ends_an_event_source(
    tmp_path: Path, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    async with open_edge(tmp_path) as (_, http):
        answer = await http.request("GET", path, headers=headers)
        assert (answer.status, answer.code) == (status, code)


async def test_head_answers_without_a_stream(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http):
        await http.stream.send_all(b"HEAD %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % STREAM.encode())
        with trio.fail_after(5):
            assert b"text/event-stream" in await http.stream.receive_some()
        assert edge.metrics.event_streams == 0


async def test_a_reader_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, _):
        server = await edge.node.open("default", "s")
        async with open_events(edge.port):
            assert edge.metrics.event_streams == 1
            assert len(server.tails) == 1
        with trio.fail_after(5):
            while edge.metrics.event_streams or server.tails:
                await trio.sleep(0.01)


async def test_a_stream_ends_with_the_reason_when_its_session_is_erased(tmp_path: Path) -> None:
    async with open_edge(tmp_path) as (edge, http), open_events(edge.port) as events:
        await http.request("DELETE", "/v1/sessions/s")
        block = await events.block()
        assert block["event"] == "error"
        assert '"code":"session_deleted"' in block["data"]
        with pytest.raises(EOFError):
            await events.block()


async def test_a_stream_takes_a_token_in_its_address_until_it_expires(tmp_path: Path) -> None:
    limits = Limits(sse_keep_alive_seconds=0.05)
    auth = keyed(api_key(KEY, *SCOPES))
    async with (
        open_one_port(tmp_path, limits=limits, auth=auth) as edge,
        open_http(edge.port, Authorization=f"Bearer {KEY}") as http,
    ):
        await http.post("/v1/sessions", {"id": "s", "user_id": "alice"})
        token = auth.mint("default", "alice", 2).text
        async with open_events(edge.port, f"{STREAM}?access_token={token}") as events:
            block = await events.block()
            while "event" not in block:
                block = await events.block()
            assert '"code":"token_expired"' in block["data"]
            with pytest.raises(EOFError):
                await events.block()
        async with open_http(edge.port) as late:
            refused = await late.get(f"{STREAM}?access_token={token}")
            assert (refused.status, refused.code) == (401, "token_expired")
            refused = await late.get(f"{STREAM}?access_token={KEY}")
            assert (refused.status, refused.code) == (401, "unauthorized")
            # A token in a URL opens streams and nothing else.
            elsewhere = await late.get(f"/v1/sessions/s?access_token={token}")
            assert elsewhere.status == 401


async def test_a_member_who_is_removed_reads_no_more(tmp_path: Path) -> None:
    auth = keyed(api_key(KEY, *SCOPES))
    async with (
        open_one_port(tmp_path, auth=auth) as edge,
        open_http(edge.port, Authorization=f"Bearer {KEY}") as http,
    ):
        await http.post("/v1/sessions", {"id": "s", "user_id": "alice", "members": ["bob"]})
        authorization = f"Bearer {auth.mint('default', 'bob', 60).text}"
        async with open_events(edge.port, Authorization=authorization) as events:
            await http.request("PATCH", "/v1/sessions/s", {"members": []})
            message = {"sender": "alice", "content": "secret"}
            await http.post("/v1/sessions/s/messages", message)
            block = await events.block()
            assert '"code":"session_not_found"' in block["data"]
            with pytest.raises(EOFError):
                await events.block()


async def test_a_silent_stream_ends_as_soon_as_its_key_is_revoked(tmp_path: Path) -> None:
    key = api_key(KEY, *SCOPES)
    auth = keyed(key)
    async with open_one_port(tmp_path, auth=auth) as edge:
        await edge.node.catalog.create("default", "s", user_id="alice")
        async with open_events(edge.port, Authorization=f"Bearer {KEY}") as events:
            auth.replace_keys([key])
            auth.replace_keys([replace(key, revoked_at_ms=1)])
            with trio.fail_after(2):
                block = await events.block()
                while "event" not in block:
                    block = await events.block()
            assert '"code":"unauthorized"' in block["data"]
            with pytest.raises(EOFError):
                await events.block()
