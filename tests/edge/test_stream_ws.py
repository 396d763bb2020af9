import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trustme
from websockets.frames import Frame, Opcode

from edge.auth import SCOPES, Authenticator, generate_key
from edge.limits import Limits
from tests.edge.http_client import HttpClient
from tests.edge.one_port import OnePort, api_key, keyed, open_one_port
from tests.edge.socket_client import SocketClient, open_socket


@dataclass
class Secure:
    """An edge behind TLS, and how to connect to it."""

    edge: OnePort
    client_context: ssl.SSLContext

    async def connect(self) -> trio.SSLStream[trio.SocketStream]:
        return await trio.open_ssl_over_tcp_stream(
            "localhost", self.edge.port, ssl_context=self.client_context, https_compatible=True
        )

    @asynccontextmanager
    async def websocket(
        self, query: str = "user_id=alice", subprotocols: list[str] | None = None
    ) -> AsyncIterator[SocketClient]:
        stream = await self.connect()
        async with open_socket(
            self.edge.port, query, stream=stream, subprotocols=subprotocols
        ) as client:
            yield client


@asynccontextmanager
async def open_secure(
    tmp_path: Path, limits: Limits | None = None, auth: Authenticator | None = None
) -> AsyncIterator[Secure]:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with open_one_port(
        tmp_path, limits=limits, auth=auth, ssl_context=server_context
    ) as edge:
        yield Secure(edge, client_context)


async def test_the_whole_protocol_is_spoken_over_tls(tmp_path: Path) -> None:
    async with (
        open_secure(tmp_path) as secure,
        secure.websocket() as alice,
        secure.websocket("user_id=bob") as bob,
    ):
        create = {"user_id": "alice", "members": ["bob"]}
        joined = await alice.ask(type="join", ref="1", session="s", create=create, last_seq=0)
        assert joined["head_seq"] == 0
        await bob.ask(type="join", ref="1", session="s")
        ack = await alice.ask(type="send", ref="2", session="s", content={"text": "hi"})
        assert (ack["type"], ack["seq"]) == ("ack", 1)
        assert (await bob.receive("message"))["content"] == {"text": "hi"}
        assert (await bob.ask(type="read", ref="2", session="s", seq=1))["type"] == "ok"
        assert secure.edge.streams.connections == 2
        assert b"ringlog_websockets 2.0" in secure.edge.metrics.exposition()
        assert secure.edge.acceptor.connections == 2


async def test_a_long_replay_and_large_messages_come_whole(tmp_path: Path) -> None:
    limits = Limits(connection_buffer_bytes_max=64 * 1024)
    async with open_secure(tmp_path, limits) as secure, secure.websocket() as writer:
        await writer.ask(type="join", ref="j", session="s", create={}, tail=0)
        for number in range(40):
            await writer.ask(type="send", ref=number, session="s", content="x" * 50_000)
        async with secure.websocket() as reader:
            await reader.ask(type="join", ref="j", session="s", last_seq=0)
            for seq in range(1, 41):
                message = await reader.receive("message")
                assert (message["seq"], len(message["content"])) == (seq, 50_000)


async def test_an_upgrade_on_a_kept_alive_connection_works_over_tls_too(tmp_path: Path) -> None:
    async with open_secure(tmp_path) as secure:
        stream = await secure.connect()
        http = HttpClient(stream)
        assert (await http.get("/healthz")).status == 200
        async with open_socket(secure.edge.port, stream=stream) as client:
            assert (await client.receive("hello"))["user"] == "alice"
            assert (await client.ask(type="ping", ref="1"))["type"] == "ok"


async def test_a_refused_handshake_is_a_problem_document(tmp_path: Path) -> None:
    auth = keyed(api_key(generate_key(), *SCOPES))
    async with open_secure(tmp_path, auth=auth) as secure, secure.websocket("") as client:
        assert client.response is not None
        assert client.response.status_code == 401
        await client.wait_closed()
        assert secure.edge.pump.board.handshakes_refused == 1


@pytest.mark.parametrize(
    ("frames", "close_code"),
    [
        ([Frame(Opcode.BINARY, b"x")], 1003),
        ([Frame(Opcode.TEXT, b"x" * 300_000)], 1009),
        ([Frame(Opcode.CONT, b"x")], 1002),
        ([Frame(Opcode.TEXT, b"", fin=False)] + [Frame(Opcode.CONT, b"", fin=False)] * 2000, 1008),
    ],
)
async def test_what_the_protocol_does_not_allow_closes_the_connection(
    tmp_path: Path, frames: list[Frame], close_code: int
) -> None:
    async with open_secure(tmp_path) as secure, secure.websocket() as client:
        await client.receive("hello")
        with suppress(trio.BrokenResourceError):
            await client.stream.send_all(b"".join(frame.serialize(mask=True) for frame in frames))
        assert await client.wait_closed() == close_code


async def test_a_peer_that_closes_is_answered_and_gone(tmp_path: Path) -> None:
    async with open_secure(tmp_path) as secure, secure.websocket() as client:
        await client.receive("hello")
        client.protocol.send_close(1000)
        await client.flush()
        assert await client.wait_closed() == 1000
        with trio.fail_after(5):
            while secure.edge.streams.connections:
                await trio.sleep(0.01)


async def test_a_peer_that_answers_pings_stays_and_a_silent_one_is_closed(tmp_path: Path) -> None:
    limits = Limits(heartbeat_seconds=0.5, idle_timeout_seconds=2.2)
    async with (
        open_secure(tmp_path, limits) as secure,
        secure.websocket() as silent,
        secure.websocket() as answering,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(answering.wait_closed)
        with trio.fail_after(10):
            while data := await silent.stream.receive_some(65536):
                silent.protocol.receive_data(data)
                silent.protocol.data_to_send()
                if silent.protocol.close_rcvd is not None:
                    break
        assert silent.protocol.close_rcvd is not None
        assert silent.protocol.close_rcvd.code == 4408
        assert secure.edge.pump.board.closed_idle == 1
        assert answering.protocol.close_rcvd is None
        nursery.cancel_scope.cancel()


async def test_a_stalled_reader_is_cut(tmp_path: Path) -> None:
    limits = Limits(stall_timeout_seconds=0.5, connection_buffer_bytes_max=64 * 1024)
    async with (
        open_secure(tmp_path, limits) as secure,
        secure.websocket() as stalled,
        secure.websocket() as writer,
    ):
        await stalled.ask(type="join", ref="j", session="s", create={}, last_seq=0)
        with trio.fail_after(20):
            number = 0
            while secure.edge.pump.board.closed_stalled == 0:
                number += 1
                await writer.ask(type="send", ref=number, session="s", content="x" * 200_000)
            while secure.edge.streams.connections > 1:
                await trio.sleep(0.01)


async def test_a_token_that_expires_closes_unless_it_is_renewed(tmp_path: Path) -> None:
    auth = keyed(api_key(generate_key(), *SCOPES))
    async with open_secure(tmp_path, auth=auth) as secure:
        token = auth.mint("default", "alice", 2).text
        async with secure.websocket("", subprotocols=["ringlog.v1", f"bearer.{token}"]) as client:
            await client.receive("hello")
            fresh = auth.mint("default", "alice", 4).text
            assert (await client.ask(type="auth", ref="1", token=fresh))["type"] == "ok"
            started = trio.current_time()
            error = await client.receive("error")
            assert error["code"] == "token_expired"
            assert trio.current_time() - started > 2
            assert await client.wait_closed() == 4401


async def test_stopping_closes_with_1012(tmp_path: Path) -> None:
    async with open_secure(tmp_path) as secure, secure.websocket() as client:
        await client.receive("hello")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(secure.edge.streams.close_all)
            assert await client.wait_closed() == 1012
        assert secure.edge.streams.connections == 0
