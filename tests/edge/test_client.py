import time

import pytest
import trio
from websockets.frames import Frame, Opcode

from edge.auth import Authenticator, generate_key, hash_key
from edge.limits import Limits
from runtime import append_durably
from storage import ApiKey
from tests.edge.conftest import TOKEN_SECRET, OpenPump
from tests.edge.socket_client import open_socket


async def test_the_first_frame_says_who_the_client_is_and_what_it_may_do(
    open_pump: OpenPump,
) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        hello = await client.receive("hello")
        assert (hello["user"], hello["workspace"], hello["durability"]) == (
            "alice",
            "default",
            "local",
        )
        assert hello["limits"]["message_bytes_max"] == Limits().message_bytes_max


async def test_a_joined_sender_gets_its_message_and_then_the_acknowledgement(
    open_pump: OpenPump,
) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.receive("hello")
        joined = await client.ask(type="join", ref="1", session="s", create={}, last_seq=0)
        assert joined == {"type": "joined", "ref": "1", "session": "s", "head_seq": 0}
        await client.send(type="send", ref="2", session="s", client_id="c1", content={"t": "hi"})
        message = await client.receive("message")
        ack = await client.receive("ack")
        assert (message["seq"], message["sender"], message["content"]) == (1, "alice", {"t": "hi"})
        assert ack == {
            "type": "ack",
            "ref": "2",
            "session": "s",
            "seq": 1,
            "id": message["id"],
            "client_id": "c1",
            "duplicate": False,
            "durability": "local",
        }


async def test_frames_behind_an_activation_keep_their_order(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.receive("hello")
        await client.send(type="join", ref=0, session="s", create={}, last_seq=0)
        for n in range(1, 51):
            await client.send(type="send", ref=n, session="s", content=n)
        await client.send(type="ping", ref="p")
        seen = [await client.receive() for _ in range(102)]
        messages = [frame for frame in seen if frame["type"] == "message"]
        acks = [frame for frame in seen if frame["type"] == "ack"]
        assert [frame["content"] for frame in messages] == list(range(1, 51))
        assert [(frame["ref"], frame["seq"]) for frame in acks] == [(n, n) for n in range(1, 51)]


async def test_sending_needs_no_join(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await server.node.catalog.create("default", "s", user_id="alice")
        ack = await client.ask(type="send", ref="1", session="s", content=1)
        assert (ack["type"], ack["client_id"]) == ("ack", None)


async def test_every_member_sees_what_one_sends(open_pump: OpenPump) -> None:
    async with open_pump() as server:
        await server.node.catalog.create("default", "s", user_id="alice")
        async with (
            open_socket(server.port) as alice,
            open_socket(server.port, "user_id=bob") as bob,
            open_socket(server.port, "user_id=eve") as eve,
        ):
            for client in (bob, eve):
                await client.ask(type="join", ref="j", session="s")
            await alice.ask(type="send", ref="1", session="s", content="x")
            for client in (bob, eve):
                assert (await client.receive("message"))["content"] == "x"


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        ({"last_seq": 0}, [1, 2, 3, 4, 5]),
        ({"last_seq": 3}, [4, 5]),
        ({"tail": 2}, [4, 5]),
        ({"tail": 100}, [1, 2, 3, 4, 5]),
        ({}, []),
    ],
)
async def test_a_join_replays_from_its_cursor_and_then_is_live(
    open_pump: OpenPump, cursor: dict[str, int], expected: list[int]
) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await server.node.catalog.create("default", "s", user_id="alice")
        for n in range(5):
            await client.ask(type="send", ref=n, session="s", content=n)
        assert (await client.ask(type="join", ref="j", session="s", **cursor))["head_seq"] == 5
        seqs = [(await client.receive("message"))["seq"] for _ in expected]
        assert seqs == expected
        await client.send(type="send", ref="l", session="s", content="live")
        assert (await client.receive("message"))["seq"] == 6


async def test_joining_again_moves_the_cursor_and_leaving_ends_it(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.ask(type="join", ref="1", session="s", create={}, last_seq=0)
        await client.ask(type="send", ref="2", session="s", content=1)
        await client.send(type="join", ref="3", session="s", last_seq=0)
        assert (await client.receive())["type"] == "joined"
        assert (await client.receive("message"))["seq"] == 1
        assert (await client.ask(type="leave", ref="4", session="s"))["type"] == "ok"
        await client.send(type="send", ref="5", session="s", content=2)
        assert (await client.receive())["type"] == "ack"
        assert (await client.ask(type="leave", ref="6", session="s"))["code"] == "not_joined"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "send", "session": "nope", "content": 1}, "session_not_found"),
        ({"type": "join", "session": "nope"}, "session_not_found"),
        ({"type": "join", "session": "s", "last_seq": 99}, "ahead_of_log"),
        ({"type": "join", "session": "s", "last_seq": 0, "tail": 1}, "invalid_field"),
        ({"type": "join"}, "missing_field"),
        ({"type": "join", "inbox": "alice"}, "not_built"),
        ({"type": "stop", "session": "nope"}, "session_not_found"),
        ({"type": "read", "session": "s", "seq": 99}, "ahead_of_log"),
        ({"type": "send", "session": "s", "content": 1, "expected_seq": 7}, "conflict"),
        ({"type": "send", "session": "s", "content": 1, "client_id": "a b"}, "invalid_field"),
        ({"type": "send", "session": "s", "content": 1, "kind": "a b"}, "invalid_field"),
        ({"type": "send", "session": "a/b", "content": 1}, "invalid_field"),
        ({"type": "send", "session": "s", "content": 2, "client_id": "c1"}, "client_id_reused"),
        ({"type": "auth", "token": "nonsense"}, "unauthorized"),
    ],
)
async def test_a_refused_request_is_told_why_and_the_connection_stays_open(
    open_pump: OpenPump, frame: dict[str, object], code: str
) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await server.node.catalog.create("default", "s", user_id="alice")
        await client.ask(type="send", ref="0", session="s", client_id="c1", content=1)
        answer = await client.ask(ref="r", **frame)
        assert (answer["type"], answer["code"]) == ("error", code)
        assert answer["message"]
        assert answer["hint"]
        assert (await client.ask(type="ping", ref="p"))["type"] == "ok"


async def test_a_resend_is_answered_with_the_original(open_pump: OpenPump) -> None:
    async with open_pump() as server:
        await server.node.catalog.create("default", "s", user_id="alice")
        async with open_socket(server.port) as client:
            first = await client.ask(
                type="send", ref="1", session="s", client_id="c", content={"a": 1}
            )
        async with open_socket(server.port) as client:
            again = await client.ask(
                type="send", ref="1", session="s", client_id="c", content={"a": 1}
            )
        assert again == first | {"duplicate": True}


async def test_read_cursors_are_acknowledged(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await server.node.catalog.create("default", "s", user_id="alice")
        await client.ask(type="send", ref="1", session="s", content=1)
        assert (await client.ask(type="read", ref="2", session="s", seq=1))["type"] == "ok"
        assert (await server.node.open("default", "s")).reads == {"alice": 1}


async def test_more_requests_than_allowed_are_refused_one_by_one(open_pump: OpenPump) -> None:
    async with (
        open_pump(Limits(in_flight_max=4)) as server,
        open_socket(server.port) as client,
    ):
        await client.receive("hello")
        await client.send(type="join", ref="j", session="s", create={})
        for n in range(10):
            await client.send(type="send", ref=n, session="s", content=n)
        answers = [await client.receive() for _ in range(11)]
        codes = [answer.get("code") for answer in answers]
        assert codes.count("too_many_in_flight") >= 1
        refused = [a for a in answers if a.get("code") == "too_many_in_flight"]
        assert refused[0]["retry_after_ms"] > 0
        assert (await client.ask(type="ping", ref="p"))["type"] == "ok"


async def test_as_many_requests_as_allowed_are_taken_and_each_answer_makes_room(
    open_pump: OpenPump,
) -> None:
    async with (
        open_pump(Limits(in_flight_max=3)) as server,
        open_socket(server.port) as client,
    ):
        await client.receive("hello")
        # In one segment, so that none is answered before the last is read.
        requests = [b'{"type":"join","ref":0,"session":"s","create":{}}']
        requests += [b'{"type":"send","ref":%d,"session":"s","content":1}' % n for n in range(1, 6)]
        frames = [Frame(Opcode.TEXT, request).serialize(mask=True) for request in requests]
        await client.stream.send_all(b"".join(frames))
        answers = [await client.receive("joined", "message", "ack", "error") for _ in range(8)]
        refused = [answer["ref"] for answer in answers if answer["type"] == "error"]
        acked = [answer["ref"] for answer in answers if answer["type"] == "ack"]
        assert (acked, refused) == ([1, 2], [3, 4, 5])
        for turn in range(4):
            for frame in (
                {"type": "join", "session": "s"},
                {"type": "send", "session": "s", "content": 1, "client_id": f"c{turn}"},
                {"type": "send", "session": "s", "content": 1, "client_id": f"c{turn}"},
                {"type": "send", "session": "s", "content": 2, "client_id": f"c{turn}"},
                {"type": "read", "session": "s", "seq": turn},
                {"type": "read", "session": "s", "seq": 1_000},
                {"type": "leave", "session": "s"},
                {"type": "leave", "session": "s"},
                {"type": "join", "session": "none"},
                {"type": "ping"},
            ):
                answer = await client.ask(ref="r", **frame)
                assert answer.get("code") != "too_many_in_flight"
        (connection,) = server.pump.board.connections.values()
        assert connection.client is not None
        assert connection.client.in_flight == 0


async def test_what_follows_the_frame_for_which_a_client_is_cut_is_not_done(
    open_pump: OpenPump,
) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.ask(type="join", ref="j", session="s", create={})
        requests = [b"\xff", b'{"type":"send","ref":"1","session":"s","content":1}']
        frames = [Frame(Opcode.TEXT, request).serialize(mask=True) for request in requests]
        await client.stream.send_all(b"".join(frames))
        assert await client.wait_closed() == 1007
        await server.node.log.sync()
        assert (await server.node.open("default", "s")).session.next_seq == 1


async def test_a_repeat_right_behind_the_join_of_a_resting_session_is_recognised(
    open_pump: OpenPump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.archivereader.DEDUPLICATION_AT_ONCE", 1)
    async with open_pump() as server, open_socket(server.port) as client:
        await client.ask(type="join", ref="j", session="s", create={})
        first = await client.ask(type="send", ref=1, session="s", client_id="c1", content=1)
        await client.ask(type="leave", ref="l", session="s")
        await server.node.flusher.flush_all()
        server.node.active.clear()
        await client.send(type="join", ref="j", session="s")
        for ref, client_id in enumerate(("c1", "c2", "c1"), 1):
            content = int(client_id[1:])
            await client.send(
                type="send", ref=ref, session="s", client_id=client_id, content=content
            )
        answers = [await client.receive() for _ in range(5)]
        acks = [answer for answer in answers if answer["type"] == "ack"]
        assert [answers[0]["type"], len(acks)] == ["joined", 3]
        seqs = [(ack["ref"], ack["seq"], ack["duplicate"]) for ack in acks]
        assert sorted(seqs) == [(1, 1, True), (2, 2, False), (3, 1, True)]
        assert acks[0]["id"] == first["id"]
        await client.ask(type="leave", ref="l", session="s")
        await server.node.flusher.flush_all()
        server.node.active.clear()
        # Behind the answer to the join too, when the session is there and may not know its client_ids yet.
        await client.ask(type="join", ref="j", session="s")
        again = await client.ask(type="send", ref=1, session="s", client_id="c1", content=1)
        assert (again["seq"], again["duplicate"]) == (1, True)


async def test_messages_carry_the_time_at_which_they_came(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.ask(type="join", ref="j", session="s", create={})
        times = []
        for active in (True, True, False):
            await trio.sleep(0.05)
            if not active:
                await server.node.flusher.flush_all()
                server.node.active.clear()
            before = time.time_ns() // 1_000_000
            await client.ask(type="send", ref="r", session="s", content=1)
            times.append((before, server.node.stamper.at_ms))
        assert all(at_ms - before >= 0 for before, at_ms in times)


async def test_more_joins_than_allowed_are_refused(open_pump: OpenPump) -> None:
    limits = Limits(subscriptions_max=2)
    async with open_pump(limits) as server, open_socket(server.port) as client:
        for n in range(2):
            await client.ask(type="join", ref=n, session=f"s{n}", create={})
        refused = await client.ask(type="join", ref="x", session="s2", create={})
        assert refused["code"] == "too_many_subscriptions"
        assert (await client.ask(type="join", ref="y", session="s0"))["type"] == "joined"


def token_auth(clock: list[float]) -> Authenticator:
    key = ApiKey("k1", "test", hash_key(generate_key()), ("read", "write"), "default", 0)
    return Authenticator(TOKEN_SECRET, allow_development=True, keys=[key], clock=lambda: clock[0])


async def test_users_see_their_own_sessions_only(open_pump: OpenPump) -> None:
    auth = token_auth([time.time()])
    bob = auth.mint("default", "bob", 60).text
    async with open_pump(auth=auth) as server:
        await server.node.catalog.create("default", "s", user_id="alice")
        await server.node.catalog.create("default", "t", user_id="alice", members=("bob",))
        async with open_socket(
            server.port, "", subprotocols=["ringlog.v1", f"bearer.{bob}"]
        ) as client:
            assert (await client.receive("hello"))["user"] == "bob"
            for frame in (
                {"type": "join", "session": "s"},
                {"type": "send", "session": "s", "content": 1},
                {"type": "read", "session": "s", "seq": 0},
            ):
                assert (await client.ask(ref="r", **frame))["code"] == "session_not_found"
            assert (await client.ask(type="join", ref="t", session="t"))["type"] == "joined"
            spoof = await client.ask(type="send", ref="u", session="t", content=1, sender="alice")
            assert spoof["code"] == "forbidden"


async def test_a_token_that_expires_ends_the_connection_unless_it_is_refreshed(
    open_pump: OpenPump,
) -> None:
    clock = [time.time()]
    auth = token_auth(clock)
    stays = auth.mint("default", "bob", 60).text
    async with open_pump(auth=auth) as server:
        headers = {"Authorization": f"Bearer {stays}"}
        async with (
            open_socket(server.port, "", headers=headers) as refreshed,
            open_socket(server.port, "", headers=headers) as expired,
        ):
            longer = auth.mint("default", "bob", 600).text
            assert (await refreshed.ask(type="auth", ref="a", token=longer))["type"] == "ok"
            other = auth.mint("default", "eve", 600).text
            assert (await refreshed.ask(type="auth", ref="b", token=other))["code"] == "forbidden"
            clock[0] += 61
            assert await expired.wait_closed() == 4401
            assert (await refreshed.ask(type="ping", ref="p"))["type"] == "ok"


async def test_who_is_removed_from_a_session_hears_no_more_of_it(open_pump: OpenPump) -> None:
    auth = token_auth([time.time()])
    bob = {"Authorization": f"Bearer {auth.mint('default', 'bob', 60).text}"}
    async with open_pump(auth=auth) as server:
        await server.node.catalog.create("default", "s", user_id="alice", members=("bob",))
        async with open_socket(server.port, "", headers=bob) as client:
            await client.receive("hello")
            await client.ask(type="join", ref="j", session="s")
            await server.node.catalog.change("default", "s", members=())
            ended = await client.receive("error")
            assert (ended["code"], ended["session"]) == ("session_not_found", "s")
            session = await server.node.open("default", "s")
            await append_durably(session, sender="alice", content=b"1")
            assert (await client.ask(type="ping", ref="p"))["type"] == "ok"


async def test_a_client_that_vanishes_leaves_nothing_behind(open_pump: OpenPump) -> None:
    async with open_pump() as server:
        async with open_socket(server.port) as client:
            await client.ask(type="join", ref="j", session="s", create={})
            await client.send(type="send", ref="1", session="s", content=1)
        with trio.fail_after(5):
            while server.pump.board.connections:
                await trio.sleep(0.01)
        session = await server.node.open("default", "s")
        assert not session.tails
        assert not session.live


async def test_a_client_that_leaves_before_its_session_is_active_disturbs_nobody(
    open_pump: OpenPump,
) -> None:
    async with open_pump() as server, open_socket(server.port) as other:
        async with open_socket(server.port) as client:
            await client.receive("hello")
            # In one segment, so that the close is read before the activation has begun.
            request = Frame(Opcode.TEXT, b'{"type":"join","ref":"j","session":"s","create":{}}')
            leaving = request.serialize(mask=True) + Frame(Opcode.CLOSE, b"").serialize(mask=True)
            await client.stream.send_all(leaving)
            assert await client.wait_closed() == 1005
        assert (await other.ask(type="join", ref="j", session="s", create={}))["type"] == "joined"


async def test_a_key_that_may_only_read_changes_nothing(open_pump: OpenPump) -> None:
    text = generate_key()
    key = ApiKey("k1", "reader", hash_key(text), ("read",), "default", 0)
    auth = Authenticator(TOKEN_SECRET, allow_development=True, keys=[key])
    async with open_pump(auth=auth) as server:
        await server.node.catalog.create("default", "s", user_id="alice")
        headers = {"Authorization": f"Bearer {text}"}
        async with open_socket(server.port, "", headers=headers) as client:
            assert (await client.ask(type="join", ref="j", session="s"))["type"] == "joined"
            for frame in (
                {"type": "send", "session": "s", "content": 1, "sender": "alice"},
                {"type": "read", "session": "s", "seq": 0, "user_id": "alice"},
                {"type": "join", "session": "t", "create": {"user_id": "alice"}},
            ):
                assert (await client.ask(ref="r", **frame))["code"] == "forbidden"


async def test_a_bug_behind_an_activation_closes_its_client_and_no_other(
    open_pump: OpenPump, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("swordfish")

    async with open_pump() as server, open_socket(server.port) as other:
        async with open_socket(server.port) as broken:
            with monkeypatch.context() as patched:
                patched.setattr(server.node, "open", fail)
                await broken.send(type="join", ref="j", session="s")
                assert await broken.wait_closed() == 1011
                assert (await broken.receive("hello"))["type"] == "hello"
                assert (await broken.receive("error"))["code"] == "internal"
        assert (await other.ask(type="join", ref="j", session="s", create={}))["type"] == "joined"
        assert server.pump.board.errors == {"internal": 1}
    logged = "".join(capfd.readouterr())
    assert logged.count("connection_failed") == 1
    assert logged.count("RuntimeError: swordfish") == 1


async def test_a_client_that_asks_for_many_sessions_does_not_stand_before_the_others(
    open_pump: OpenPump,
) -> None:
    async with (
        open_pump() as server,
        open_socket(server.port, "user_id=greedy") as greedy,
        open_socket(server.port) as other,
    ):
        joins = [b'{"type":"join","ref":1,"session":"none-%d"}' % n for n in range(1_000)]
        frames = [Frame(Opcode.TEXT, join).serialize(mask=True) for join in joins]
        await greedy.stream.send_all(b"".join(frames))
        assert (await other.ask(type="join", ref="j", session="s", create={}))["type"] == "joined"
        waiting = [
            connection.client.in_flight
            for connection in server.pump.board.connections.values()
            if connection.client
        ]
        assert max(waiting) > 500
        codes = [(await greedy.receive("hello", "error")).get("code") for _ in range(1_001)]
        assert codes == [None] + ["session_not_found"] * 1_000
