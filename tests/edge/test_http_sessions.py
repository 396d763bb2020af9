import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from edge.auth import SCOPES, generate_key
from edge.http_request import redact_query
from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import OnePort, api_key, keyed, open_one_port

KEY = generate_key()
READER = generate_key()
OTHER = generate_key()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[OnePort]:
    """Development mode."""
    async with open_one_port(tmp_path) as edge:
        yield edge


@pytest.fixture
async def http(edge: OnePort) -> AsyncIterator[HttpClient]:
    async with open_http(edge.port) as client:
        yield client


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[OnePort]:
    """A server with keys: everything, read only, and everything in another workspace."""
    auth = keyed(
        api_key(KEY, *SCOPES), api_key(READER, "read"), api_key(OTHER, *SCOPES, workspace="acme")
    )
    async with open_one_port(tmp_path, auth=auth) as edge:
        yield edge


def bearer(edge: OnePort, user: str, *sessions: str, ttl: int = 600) -> dict[str, str]:
    token = edge.auth.mint("default", user, ttl, sessions or None)
    return {"Authorization": f"Bearer {token.text}"}


def encoded(cursor: str) -> str:
    return base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


# Creating


async def test_a_session_is_created_and_found_where_the_answer_says(http: HttpClient) -> None:
    body = {
        "id": "s1",
        "user_id": "alice",
        "members": ["bob", "carol", "bob"],
        "metadata": {"title": "hello"},
    }
    created = await http.post("/v1/sessions", body)
    assert created.status == 201
    assert created.headers["location"] == "/v1/sessions/s1"
    session = created.json()
    assert session["id"] == "s1"
    assert session["user_id"] == "alice"
    assert session["members"] == ["bob", "carol"]
    assert session["metadata"] == {"title": "hello"}
    assert (session["state"], session["version"]) == ("active", 1)
    assert (await http.get(created.headers["location"])).json() == session


async def test_the_server_gives_out_an_id_where_none_is_given(http: HttpClient) -> None:
    first, second = [await http.post("/v1/sessions", {"user_id": "u"}) for _ in range(2)]
    assert first.json()["id"] != second.json()["id"]
    assert first.headers["location"] == f"/v1/sessions/{first.json()['id']}"


async def test_the_same_again_is_answered_the_same_and_another_body_is_refused(
    http: HttpClient,
) -> None:
    body = {"id": "s1", "user_id": "alice", "metadata": {"a": 1}}
    first = await http.post("/v1/sessions", body)
    again = await http.post("/v1/sessions", body)
    assert (again.status, again.body) == (200, first.body)
    for other in (
        body | {"metadata": {"a": 2}},
        body | {"user_id": "bob"},
        body | {"members": ["x"]},
    ):
        answer = await http.post("/v1/sessions", other)
        assert (answer.status, answer.code) == (409, "session_exists")


async def test_metadata_is_the_clients_own_bytes(http: HttpClient) -> None:
    raw = b'{"big":123456789012345678901234567890, "e":1e999,"dup":1,"dup":2,"nul":"\\u0000"}'
    created = await http.post("/v1/sessions", b'{"id":"s1","user_id":"u","metadata":%b}' % raw)
    assert raw in created.body
    assert raw in (await http.get("/v1/sessions/s1")).body


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", "bad_json", None),
        (b"{", "bad_json", None),
        (b'{"user_id":"u",}', "bad_json", None),
        (b'{"user_id":"u","metadata":NaN}', "bad_json", None),
        (b'{"user_id":"\xff"}', "bad_utf8", None),
        (b'{"user_id":"u","metadata":{"a":"\xff"}}', "bad_utf8", None),
        (rb'{"user_id":"\ud800"}', "lone_surrogate", None),
        (rb'{"user_id":"u","metadata":{"a":"\udc00 \ud800"}}', "lone_surrogate", None),
        (b'{"user_id":"u","metadata":' + b"[" * 129 + b"]" * 129 + b"}", "too_deep", None),
        (b'{"user_id":"u","metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep", None),
        (b"[]", "invalid_field", ""),
        (b'"x"', "invalid_field", ""),
        (b'{"user_id":"u","colour":1}', "unknown_field", "colour"),
        (b'{"user_id":5}', "invalid_field", "user_id"),
        (b'{"members":["a"]}', "missing_field", "user_id"),
        (b'{"user_id":"a b"}', "invalid_field", "user_id"),
        (b'{"user_id":""}', "invalid_field", "user_id"),
        (b'{"user_id":"u","id":"a/b"}', "invalid_field", "id"),
        (b'{"user_id":"u","id":".."}', "invalid_field", "id"),
        (b'{"user_id":"."}', "invalid_field", "user_id"),
        (b'{"user_id":"u","members":["a b"]}', "invalid_field", "members"),
        (b'{"user_id":"u","members":"abc"}', "invalid_field", "members"),
    ],
)
async def test_a_bad_body_is_refused_by_name(
    http: HttpClient, body: bytes, code: str, field: str | None
) -> None:
    answer = await http.post("/v1/sessions", body)
    assert (answer.status, answer.code) == (400, code)
    if field is not None:
        assert answer.json()["details"]["field"] == field
    assert answer.json()["instance"] == "/v1/sessions"
    assert (await http.get("/healthz")).status == 200


# Reading


async def test_sessions_are_listed_newest_first_in_pages(http: HttpClient) -> None:
    for number in range(5):
        await http.post("/v1/sessions", {"id": f"s{number}", "user_id": "alice"})
        await trio.sleep(0.002)
    await http.post("/v1/sessions", {"id": "other", "user_id": "bob", "members": ["alice"]})
    found: list[str] = []
    path = "/v1/sessions?user_id=alice&limit=2"
    page = (await http.get(path)).json()
    while True:
        found += [session["id"] for session in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        page = (await http.get(f"{path}&cursor={page['next_cursor']}")).json()
    assert found == ["other", "s4", "s3", "s2", "s1", "s0"]
    assert len((await http.get("/v1/sessions?user_id=bob")).json()["data"]) == 1
    assert (await http.get("/v1/sessions?user_id=nobody")).json()["data"] == []


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("limit=0", "invalid_field", "limit"),
        ("limit=1001", "invalid_field", "limit"),
        ("limit=x", "invalid_field", "limit"),
        ("limit=-1", "invalid_field", "limit"),
        ("limit=1&limit=2", "invalid_field", "limit"),
        ("cursor=nonsense", "invalid_field", "cursor"),
        (f"cursor={encoded('9223372036854775808:a')}", "invalid_field", "cursor"),
        (f"cursor={encoded('-1:a')}", "invalid_field", "cursor"),
        (f"cursor={encoded('1:')}", "invalid_field", "cursor"),
        (f"cursor={encoded('1:' + chr(0))}", "invalid_field", "cursor"),
        ("include_archived=maybe", "invalid_field", "include_archived"),
        ("after_seq=3", "unknown_field", "after_seq"),
        ("user_id=a%20b", "invalid_field", "user_id"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(
    http: HttpClient, query: str, code: str, field: str
) -> None:
    answer = await http.get(f"/v1/sessions?{query}")
    assert (answer.status, answer.code) == (400, code)
    assert answer.json()["details"]["field"] == field


async def test_an_unknown_session_is_not_found(http: HttpClient) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", b"{}"),
        ("DELETE", "", None),
        ("POST", "/archive", b""),
        ("POST", "/read", b'{"seq":0,"user_id":"u"}'),
        ("POST", "/stop", b""),
        ("GET", "/messages", None),
        ("POST", "/messages", b'{"content":1,"sender":"u"}'),
        ("GET", "/stream", None),
    ):
        answer = await http.request(method, f"/v1/sessions/nope{path}", body)
        assert (answer.status, answer.code) == (404, "session_not_found"), path
        assert answer.json()["details"] == {"session": "nope"}


# Changing


async def test_a_session_is_changed_in_what_is_given(http: HttpClient) -> None:
    await http.post("/v1/sessions", {"id": "s1", "user_id": "alice", "metadata": {"a": 1}})
    path = "/v1/sessions/s1"
    changed = await http.request("PATCH", path, {"members": ["bob"], "agent_id": "echo"})
    assert changed.json()["members"] == ["bob"]
    assert changed.json()["agent_id"] == "echo"
    assert changed.json()["metadata"] == {"a": 1}
    assert changed.json()["version"] == 2
    changed = await http.request("PATCH", path, {"metadata": {"b": 2}})
    assert (changed.json()["metadata"], changed.json()["agent_id"]) == ({"b": 2}, "echo")
    changed = await http.request("PATCH", path, {"agent_id": None})
    assert changed.json()["agent_id"] is None
    unchanged = await http.request("PATCH", path, {})
    assert unchanged.body == changed.body


async def test_a_change_is_refused_if_another_came_first(http: HttpClient) -> None:
    await http.post("/v1/sessions", {"id": "s1", "user_id": "alice"})
    path = "/v1/sessions/s1"
    change = {"members": ["bob"], "expected_version": 1}
    assert (await http.request("PATCH", path, change)).status == 200
    answer = await http.request("PATCH", path, change | {"members": []})
    assert (answer.status, answer.code) == (409, "conflict")
    assert answer.json()["details"] == {"expected_version": 1, "version": 2}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"user_id":"bob"}', "unknown_field"),
        (b'{"state":"archived"}', "unknown_field"),
        (b'{"members":null}', "invalid_field"),
        (b'{"expected_version":null}', "invalid_field"),
        (b'{"expected_version":-1}', "invalid_field"),
        (b'{"agent_id":"a b"}', "invalid_field"),
    ],
)
async def test_a_bad_change_is_refused(http: HttpClient, body: bytes, code: str) -> None:
    await http.post("/v1/sessions", {"id": "s1", "user_id": "alice"})
    answer = await http.request("PATCH", "/v1/sessions/s1", body)
    assert (answer.status, answer.code) == (400, code)
    assert (await http.get("/v1/sessions/s1")).json()["version"] == 1


async def test_an_archived_session_is_read_only_and_listed_on_request(http: HttpClient) -> None:
    await http.post("/v1/sessions", {"id": "s1", "user_id": "u"})
    await http.post("/v1/sessions/s1/messages", {"sender": "u", "content": "x"})
    assert (await http.post("/v1/sessions/s1/archive")).json()["state"] == "archived"
    assert (await http.post("/v1/sessions/s1/archive")).json()["version"] == 2
    refused = await http.post("/v1/sessions/s1/messages", {"sender": "u", "content": "x"})
    assert (refused.status, refused.code) == (409, "session_archived")
    assert len((await http.get("/v1/sessions/s1/messages")).json()["data"]) == 1
    assert (await http.get("/v1/sessions?user_id=u")).json()["data"] == []
    listed = await http.get("/v1/sessions?user_id=u&include_archived=true")
    assert [session["id"] for session in listed.json()["data"]] == ["s1"]
    assert (await http.post("/v1/sessions/s1/unarchive")).json()["state"] == "active"
    again = await http.post("/v1/sessions/s1/messages", {"sender": "u", "content": "x"})
    assert again.json()["seq"] == 2


async def test_an_erased_session_leaves_a_tombstone(http: HttpClient) -> None:
    await http.post("/v1/sessions", {"id": "s1", "user_id": "u"})
    await http.post("/v1/sessions/s1/messages", {"sender": "u", "content": "x"})
    erased = await http.request("DELETE", "/v1/sessions/s1")
    assert (erased.status, erased.body) == (204, b"")
    assert "content-type" not in erased.headers
    for answer in (
        await http.get("/v1/sessions/s1"),
        await http.get("/v1/sessions/s1/messages"),
        await http.post("/v1/sessions", {"id": "s1", "user_id": "u"}),
        await http.request("DELETE", "/v1/sessions/s1"),
    ):
        assert (answer.status, answer.code) == (410, "session_deleted")
    assert (await http.get("/v1/sessions?user_id=u&include_archived=1")).json()["data"] == []


async def test_a_read_cursor_never_goes_back_and_never_beyond_the_head(http: HttpClient) -> None:
    await http.post("/v1/sessions", {"id": "s1", "user_id": "u"})
    for _ in range(3):
        await http.post("/v1/sessions/s1/messages", {"sender": "u", "content": "x"})
    read = "/v1/sessions/s1/read"
    assert (await http.post(read, {"seq": 2, "user_id": "u"})).json() == {
        "session": "s1",
        "user_id": "u",
        "seq": 2,
    }
    assert (await http.post(f"{read}?user_id=u", {"seq": 1})).json()["seq"] == 2
    beyond = await http.post(read, {"seq": 4, "user_id": "u"})
    assert (beyond.status, beyond.code) == (409, "ahead_of_log")
    assert beyond.json()["details"]["head_seq"] == 3
    assert (await http.post(read, {"seq": -1, "user_id": "u"})).code == "invalid_field"
    assert (await http.post(read, {"seq": 1})).code == "missing_field"


# Who may


async def test_other_users_sessions_do_not_exist(guarded: OnePort) -> None:
    async with open_http(guarded.port) as http:
        alice, bob, eve = (bearer(guarded, user) for user in ("alice", "bob", "eve"))
        created = await http.request(
            "POST", "/v1/sessions", {"id": "s1", "members": ["bob"]}, headers=alice
        )
        assert created.json()["user_id"] == "alice"
        missing = await http.request("GET", "/v1/sessions/s2", headers=eve)
        hidden = await http.request("GET", "/v1/sessions/s1", headers=eve)
        assert (hidden.status, hidden.code) == (404, "session_not_found")
        assert hidden.body.replace(b"s1", b"s2") == missing.body
        for method, path, body in (
            ("PATCH", "", b'{"members":["eve"]}'),
            ("DELETE", "", None),
            ("POST", "/archive", b""),
            ("POST", "/unarchive", b""),
            ("POST", "/read", b'{"seq":0}'),
            ("POST", "/messages", b'{"content":1}'),
            ("GET", "/messages", None),
            ("GET", "/stream", None),
        ):
            refused = await http.request(method, f"/v1/sessions/s1{path}", body, headers=eve)
            assert (refused.status, refused.code) == (404, "session_not_found"), (method, path)
        assert (await http.request("GET", "/v1/sessions/s1", headers=bob)).status == 200
        assert (await http.request("GET", "/v1/sessions", headers=eve)).json()["data"] == []
        listed = (await http.request("GET", "/v1/sessions", headers=bob)).json()["data"]
        assert [session["id"] for session in listed] == ["s1"]


async def test_an_erased_session_of_others_was_never_there(guarded: OnePort) -> None:
    async with open_http(guarded.port) as http:
        alice, bob, eve = (bearer(guarded, user) for user in ("alice", "bob", "eve"))
        body = {"id": "s1", "members": ["bob"]}
        await http.request("POST", "/v1/sessions", body, headers=alice)
        await http.request("DELETE", "/v1/sessions/s1", headers=alice)
        for _ in range(2):
            gone = await http.request("GET", "/v1/sessions/s1", headers=alice)
            assert (gone.status, gone.code) == (410, "session_deleted")
            gone = await http.request("POST", "/v1/sessions", {"id": "s1"}, headers=alice)
            assert (gone.status, gone.code) == (410, "session_deleted")
            for stranger in (bob, eve):
                hidden = await http.request("GET", "/v1/sessions/s1", headers=stranger)
                missing = await http.request("GET", "/v1/sessions/s2", headers=stranger)
                assert hidden.body == missing.body.replace(b"s2", b"s1")
                taken = await http.request("POST", "/v1/sessions", {"id": "s1"}, headers=stranger)
                assert (taken.status, taken.code) == (409, "session_exists")
            # And the same where the session is not in memory.
            await guarded.node.flusher.flush_all()
            guarded.node.active.clear()


async def test_a_member_writes_and_only_the_owner_changes(guarded: OnePort) -> None:
    async with open_http(guarded.port) as http:
        alice, bob = bearer(guarded, "alice"), bearer(guarded, "bob")
        await http.request("POST", "/v1/sessions", {"id": "s1", "members": ["bob"]}, headers=alice)
        path = "/v1/sessions/s1"
        sent = await http.request("POST", f"{path}/messages", {"content": "hi"}, headers=bob)
        assert sent.status == 201
        for method, suffix, body in (
            ("PATCH", "", {"members": []}),
            ("POST", "/archive", None),
            ("DELETE", "", None),
        ):
            refused = await http.request(method, path + suffix, body, headers=bob)
            assert (refused.status, refused.code) == (403, "forbidden")
        assert (await http.request("PATCH", path, {"members": []}, headers=alice)).status == 200
        assert (await http.request("GET", path, headers=bob)).status == 404


async def test_a_user_speaks_for_themselves_and_a_backend_for_anyone(guarded: OnePort) -> None:
    async with open_http(guarded.port) as http:
        alice, backend = bearer(guarded, "alice"), {"Authorization": f"Bearer {KEY}"}
        refused = await http.request("POST", "/v1/sessions", {"user_id": "bob"}, headers=alice)
        assert (refused.status, refused.code) == (403, "forbidden")
        refused = await http.request("GET", "/v1/sessions?user_id=bob", headers=alice)
        assert refused.code == "forbidden"
        await http.request(
            "POST", "/v1/sessions", {"id": "s1", "user_id": "alice"}, headers=backend
        )
        message = {"content": "hi", "sender": "bob"}
        path = "/v1/sessions/s1/messages"
        assert (await http.request("POST", path, message, headers=alice)).code == "forbidden"
        assert (await http.request("POST", path, message, headers=backend)).status == 201
        unnamed = await http.request("POST", path, {"content": "hi"}, headers=backend)
        assert (unnamed.code, unnamed.json()["details"]) == ("missing_field", {"field": "sender"})
        everything = await http.request("GET", "/v1/sessions", headers=backend)
        assert len(everything.json()["data"]) == 1


async def test_a_limited_token_opens_only_what_it_names(guarded: OnePort) -> None:
    async with open_http(guarded.port) as http:
        backend = {"Authorization": f"Bearer {KEY}"}
        for session in ("s1", "s2"):
            body = {"id": session, "user_id": "alice"}
            await http.request("POST", "/v1/sessions", body, headers=backend)
        limited = bearer(guarded, "alice", "s1", "s3")
        assert (await http.request("GET", "/v1/sessions/s1", headers=limited)).status == 200
        assert (await http.request("GET", "/v1/sessions/s2", headers=limited)).status == 404
        listed = (await http.request("GET", "/v1/sessions", headers=limited)).json()["data"]
        assert [session["id"] for session in listed] == ["s1"]
        assert (
            await http.request("POST", "/v1/sessions", {"id": "s3"}, headers=limited)
        ).status == 201
        for body in ({"id": "s4"}, {}):
            refused = await http.request("POST", "/v1/sessions", body, headers=limited)
            assert refused.code == "forbidden"


async def test_scopes_and_workspaces_are_walls(guarded: OnePort) -> None:
    async with open_http(guarded.port) as http:
        backend, reader, other = (
            {"Authorization": f"Bearer {key}"} for key in (KEY, READER, OTHER)
        )
        body: dict[str, Any] = {"id": "s1", "user_id": "alice"}
        assert (await http.request("POST", "/v1/sessions", body, headers=backend)).status == 201
        assert (await http.request("GET", "/v1/sessions/s1", headers=reader)).status == 200
        refused = await http.request("POST", "/v1/sessions", body, headers=reader)
        assert (refused.status, refused.code) == (403, "forbidden")
        assert (await http.request("GET", "/v1/sessions/s1", headers=other)).status == 404
        assert (await http.request("GET", "/v1/sessions", headers=other)).json()["data"] == []
        created = await http.request("POST", "/v1/sessions", body | {"user_id": "x"}, headers=other)
        assert created.status == 201


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {generate_key()}"}],
)
async def test_nobody_gets_in_without_a_credential(
    guarded: OnePort, headers: dict[str, str]
) -> None:
    async with open_http(guarded.port) as http:
        for method, path in (
            ("GET", "/v1/sessions"),
            ("POST", "/v1/sessions"),
            ("GET", "/v1/sessions/s1"),
            ("GET", "/v1/sessions/s1/stream"),
            ("POST", "/v1/tokens"),
            ("GET", "/v1/agents"),
            ("GET", "/v1/users/u/inbox"),
            ("GET", "/metrics"),
        ):
            refused = await http.request(method, f"{path}?user_id=alice", headers=headers)
            assert (refused.status, refused.code) == (401, "unauthorized"), path
            assert refused.headers["www-authenticate"].startswith("Bearer")
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await http.request("GET", path, headers=headers)).status == 200


def test_tokens_in_urls_are_redacted() -> None:
    assert redact_query("a=1&access_token=se.cr.et&b=2") == "a=1&access_token=[redacted]&b=2"
    assert redact_query("Access_Token=x") == "Access_Token=[redacted]"
    assert redact_query("my_access_token=x") == "my_access_token=x"
