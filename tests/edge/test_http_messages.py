from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import OnePort, open_one_port
from tests.edge.socket_client import open_socket

MESSAGES = "/v1/sessions/s/messages"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[OnePort]:
    async with open_one_port(tmp_path) as edge:
        yield edge


@pytest.fixture
async def http(edge: OnePort) -> AsyncIterator[HttpClient]:
    """A client of a server that has the session `s`."""
    async with open_http(edge.port) as client:
        await client.post("/v1/sessions", {"id": "s", "user_id": "u"})
        yield client


async def append(http: HttpClient, count: int) -> None:
    for number in range(1, count + 1):
        answer = await http.post(MESSAGES, {"sender": "u", "content": number})
        assert answer.json()["seq"] == number


async def seqs(http: HttpClient, query: str) -> tuple[list[int], bool]:
    answer = await http.get(f"{MESSAGES}?{query}")
    assert answer.status == 200
    page = answer.json()
    return [message["seq"] for message in page["data"]], page["has_more"]


async def test_an_appended_message_is_read_back_as_it_was_sent(http: HttpClient) -> None:
    body = {
        "sender": "alice",
        "client_id": "c-1",
        "kind": "note",
        "content": {"text": "hi"},
        "metadata": {"a": 1},
        "expected_seq": 0,
    }
    answer = await http.post(MESSAGES, body)
    assert answer.status == 201
    ack = answer.json()
    message_id = ack.pop("id")
    assert ack == {
        "session": "s",
        "seq": 1,
        "client_id": "c-1",
        "duplicate": False,
        "durability": "local",
    }
    page = (await http.get(MESSAGES)).json()
    assert page["head_seq"] == 1
    assert page["has_more"] is False
    (message,) = page["data"]
    assert message.pop("at").endswith("Z")
    assert message == {
        "type": "message",
        "session": "s",
        "seq": 1,
        "id": message_id,
        "sender": "alice",
        "client_id": "c-1",
        "kind": "note",
        "content": {"text": "hi"},
        "metadata": {"a": 1},
    }


async def test_a_resend_gets_the_first_answer_and_other_content_is_refused(
    http: HttpClient,
) -> None:
    body = {"sender": "u", "client_id": "c-1", "content": "hi"}
    first, again = [await http.post(MESSAGES, body) for _ in range(2)]
    assert (first.status, again.status) == (201, 200)
    assert again.json() == first.json() | {"duplicate": True}
    other = await http.post(MESSAGES, body | {"content": "ho"})
    assert (other.status, other.code) == (409, "client_id_reused")
    assert (await http.post(MESSAGES, body | {"sender": "v"})).status == 201


async def test_a_resend_to_a_session_at_rest_gets_the_first_answer(
    edge: OnePort, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.archivereader.DEDUPLICATION_AT_ONCE", 1)
    body = {"sender": "u", "client_id": "c-1", "content": "hi"}
    first = await http.post(MESSAGES, body)
    await edge.node.flusher.flush_all()
    edge.node.active.clear()
    again = await http.post(MESSAGES, body)
    assert (again.status, again.json()) == (200, first.json() | {"duplicate": True})


async def test_expected_seq_guards_against_races(http: HttpClient) -> None:
    body = {"sender": "u", "content": "hi", "expected_seq": 0}
    assert (await http.post(MESSAGES, body)).status == 201
    refused = await http.post(MESSAGES, body)
    assert (refused.status, refused.code) == (409, "conflict")
    assert refused.json()["details"] == {"expected_seq": 0, "head_seq": 1}


@pytest.mark.parametrize(
    "content",
    [
        b'"\\u0000"',
        b'{"a":1e999,"a":2,"b":' + b"9" * 400 + b"}",
        b"[" * 127 + b"]" * 127,
        '"\u202e \\u202e \U0001f469\u200d\U0001f469 \ufeff \uffff"'.encode(),
        b'"</script><script>alert(1)</script>"',
        rb'"\ud83d\ude00 \/ \b"',
        b"null",
        b"-0.0",
        b" [1 ,\t2] ".strip(),
        b'""',
    ],
)
async def test_content_stays_the_clients_own_bytes(http: HttpClient, content: bytes) -> None:
    sent = await http.post(
        MESSAGES, b'{"sender":"u","content":%b,"metadata":{"m":%b}}' % ((content,) * 2)
    )
    assert sent.status == 201
    body = (await http.get(MESSAGES)).body
    assert b'"content":%b,"metadata":{"m":%b},"at":' % (content, content) in body


async def test_raw_newlines_become_spaces_and_nothing_else_changes(http: HttpClient) -> None:
    sent = await http.post(MESSAGES, b'{"sender":"u","content":{\n\r\n  "a": "x\\ny"\n}}')
    assert sent.status == 201
    body = (await http.get(MESSAGES)).body
    assert b'"content":{     "a": "x\\ny" },' in body
    assert b"\n" not in body


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b'{"sender":"u"}', 400, "missing_field", "content"),
        (b'{"content":1}', 400, "missing_field", "sender"),
        (b'{"sender":"u","content":}', 400, "bad_json", None),
        (b'{"sender":"u","content":NaN}', 400, "bad_json", None),
        (b'{"sender":"u","content":Infinity}', 400, "bad_json", None),
        (b'{"sender":"u","content":01}', 400, "bad_json", None),
        (b'{"sender":"u","content":"\xc3("}', 400, "bad_utf8", None),
        (b'{"sender":"u","content":"\xed\xa0\x80"}', 400, "bad_utf8", None),
        (rb'{"sender":"u","content":"\ud800"}', 400, "lone_surrogate", None),
        (rb'{"sender":"u","content":{"\udfff":1}}', 400, "lone_surrogate", None),
        (b'{"sender":"u","content":"\n"}', 400, "bad_json", None),
        (b'{"sender":"u","content":' + b"[" * 129 + b"]" * 129 + b"}", 400, "too_deep", None),
        (b'{"sender":"u","content":1,"seq":5}', 400, "unknown_field", "seq"),
        (b'{"sender":"u","content":1,"type":"send"}', 400, "unknown_field", "type"),
        (b'{"sender":"a b","content":1}', 400, "invalid_field", "sender"),
        (b'{"sender":"u","content":1,"client_id":""}', 400, "invalid_field", "client_id"),
        (b'{"sender":"u","content":1,"client_id":7}', 400, "invalid_field", "client_id"),
        (b'{"sender":"u","content":1,"kind":"a b"}', 400, "invalid_field", "kind"),
        (b'{"sender":"u","content":1,"kind":null}', 400, "invalid_field", "kind"),
        (b'{"sender":"u","content":1,"expected_seq":-1}', 400, "invalid_field", "expected_seq"),
        (b'{"sender":"u","content":1,"expected_seq":1.5}', 400, "invalid_field", "expected_seq"),
        (b'{"sender":"u","content":"' + b"x" * 1_100_000 + b'"}', 413, "body_too_large", None),
        (b'{"sender":"u","content":"' + b"x" * 300_000 + b'"}', 413, "message_too_large", None),
    ],
)
async def test_a_bad_message_is_refused_by_name(
    http: HttpClient, body: bytes, status: int, code: str, field: str | None
) -> None:
    answer = await http.post(MESSAGES, body)
    assert (answer.status, answer.code) == (status, code)
    if field is not None:
        assert answer.json()["details"]["field"] == field


async def test_pages_go_forward_from_a_cursor_and_back_from_a_seq(http: HttpClient) -> None:
    await append(http, 7)
    assert await seqs(http, "") == ([1, 2, 3, 4, 5, 6, 7], False)
    assert await seqs(http, "last_seq=0&limit=3") == ([1, 2, 3], True)
    assert await seqs(http, "last_seq=3&limit=3") == ([4, 5, 6], True)
    assert await seqs(http, "last_seq=6&limit=3") == ([7], False)
    assert await seqs(http, "last_seq=7") == ([], False)
    assert await seqs(http, "before_seq=8&limit=3") == ([5, 6, 7], True)
    assert await seqs(http, "before_seq=5&limit=9") == ([1, 2, 3, 4], False)
    assert await seqs(http, "before_seq=1") == ([], False)
    assert await seqs(http, "before_seq=1000&limit=1") == ([7], True)


async def test_a_page_is_the_same_before_and_after_the_flush(
    edge: OnePort, http: HttpClient
) -> None:
    await append(http, 5)
    before = await http.get(MESSAGES)
    await edge.node.flusher.flush_all()
    assert (await http.get(MESSAGES)).body == before.body


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("last_seq=3", 409, "ahead_of_log"),
        ("last_seq=1&before_seq=2", 400, "invalid_field"),
        ("last_seq=-1", 400, "invalid_field"),
        ("last_seq=1.5", 400, "invalid_field"),
        ("last_seq=", 400, "invalid_field"),
        ("last_seq=99999999999999999999", 400, "invalid_field"),
        ("limit=0", 400, "invalid_field"),
        ("limit=1001", 400, "invalid_field"),
        ("cursor=x", 400, "unknown_field"),
    ],
)
async def test_a_bad_page_is_refused(http: HttpClient, query: str, status: int, code: str) -> None:
    await append(http, 2)
    answer = await http.get(f"{MESSAGES}?{query}")
    assert (answer.status, answer.code) == (status, code)


async def test_what_is_sent_over_http_reaches_sockets_and_the_other_way(
    edge: OnePort, http: HttpClient
) -> None:
    async with open_socket(edge.port, "user_id=u") as websocket:
        await websocket.ask(type="join", ref="1", session="s", last_seq=0)
        await http.post(MESSAGES, {"sender": "u", "content": "over http"})
        assert (await websocket.receive("message"))["content"] == "over http"
        await websocket.ask(type="send", ref="2", session="s", content="over a socket")
        page = (await http.get(MESSAGES)).json()
        assert [message["content"] for message in page["data"]] == ["over http", "over a socket"]


async def test_an_append_is_refused_while_the_node_stops(edge: OnePort, http: HttpClient) -> None:
    await edge.node.shutdown(5)
    answer = await http.post(MESSAGES, {"sender": "u", "content": 1})
    assert (answer.status, answer.code) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "1"
    assert msgspec.json.decode(answer.body)["retry_after_ms"] == 1000
