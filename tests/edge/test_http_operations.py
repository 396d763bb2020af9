from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from edge.auth import SCOPES, generate_key
from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import OnePort, api_key, keyed, open_one_port
from tests.edge.socket_client import open_socket

KEY = generate_key()
READER = generate_key()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[OnePort]:
    auth = keyed(api_key(KEY, *SCOPES, workspace="acme"), api_key(READER, "read"))
    async with open_one_port(tmp_path, auth=auth) as edge:
        yield edge


@pytest.fixture
async def http(edge: OnePort) -> AsyncIterator[HttpClient]:
    async with open_http(edge.port, Authorization=f"Bearer {KEY}") as client:
        yield client


async def test_a_minted_token_opens_http_and_sockets(edge: OnePort, http: HttpClient) -> None:
    answer = await http.post("/v1/tokens", {"user_id": "alice", "ttl": 60})
    assert answer.status == 201
    assert answer.headers["cache-control"] == "no-store"
    minted = answer.json()
    assert minted["user_id"] == "alice"
    expires_at = datetime.fromisoformat(minted["expires_at"]).timestamp()
    principal = edge.auth.authenticate_credential(minted["token"])
    assert (principal.workspace, principal.user_id) == ("acme", "alice")
    assert principal.expires_at == expires_at
    assert 55 < edge.auth.seconds_left(principal) <= 60
    async with open_http(edge.port, Authorization=f"Bearer {minted['token']}") as alice:
        assert (await alice.post("/v1/sessions", {"id": "s"})).json()["user_id"] == "alice"
    subprotocols = ["ringlog.v1", f"bearer.{minted['token']}"]
    async with open_socket(edge.port, "", subprotocols=subprotocols) as websocket:
        hello = await websocket.receive("hello")
        assert (hello["user"], hello["workspace"]) == ("alice", "acme")


async def test_a_token_may_be_limited_to_sessions(edge: OnePort, http: HttpClient) -> None:
    body = {"user_id": "alice", "sessions": ["s1", "s2"]}
    minted = (await http.post("/v1/tokens", body)).json()
    principal = edge.auth.authenticate_credential(minted["token"])
    assert principal.sessions == frozenset({"s1", "s2"})
    assert 3590 < edge.auth.seconds_left(principal) <= 3600


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "missing_field", "user_id"),
        ({"user_id": "a b"}, "invalid_field", "user_id"),
        ({"user_id": "a", "ttl": 0}, "invalid_field", "ttl"),
        ({"user_id": "a", "ttl": -5}, "invalid_field", "ttl"),
        ({"user_id": "a", "ttl": 86_401}, "invalid_field", "ttl"),
        ({"user_id": "a", "ttl": "1h"}, "invalid_field", "ttl"),
        ({"user_id": "a", "sessions": ["a/b"]}, "invalid_field", "sessions"),
        ({"user_id": "a", "sessions": ["s"] * 65}, "invalid_field", "sessions"),
        ({"user_id": "a", "scopes": ["admin"]}, "unknown_field", "scopes"),
        ({"user_id": "a", "workspace": "other"}, "unknown_field", "workspace"),
    ],
)
async def test_a_bad_request_for_a_token_is_refused(
    http: HttpClient, body: dict[str, object], code: str, field: str
) -> None:
    answer = await http.post("/v1/tokens", body)
    assert (answer.status, answer.code) == (400, code)
    assert answer.json()["details"]["field"] == field


async def test_tokens_are_minted_by_backends_alone(edge: OnePort) -> None:
    token = edge.auth.mint("acme", "alice", 60).text
    for credential in (READER, token):
        async with open_http(edge.port, Authorization=f"Bearer {credential}") as http:
            answer = await http.post("/v1/tokens", {"user_id": "alice"})
            assert (answer.status, answer.code) == (403, "forbidden")


async def test_the_metrics_are_the_operators(edge: OnePort, http: HttpClient) -> None:
    answer = await http.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"\nringlog_connections_accepted_total{" in answer.body
    assert b"\nprocess_resident_memory_bytes " in answer.body
    token = edge.auth.mint("acme", "alice", 60).text
    async with open_http(edge.port, Authorization=f"Bearer {token}") as alice:
        assert (await alice.get("/metrics")).code == "forbidden"


async def test_a_plain_request_for_the_websocket_says_what_to_do(http: HttpClient) -> None:
    answer = await http.get("/v1/ws")
    assert (answer.status, answer.code) == (426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/dispatches/d/redeliver"),
        ("GET", "/v1/users/alice/inbox"),
    ],
)
async def test_what_is_not_built_says_so(http: HttpClient, method: str, path: str) -> None:
    await http.post("/v1/sessions", {"id": "s", "user_id": "u"})
    answer = await http.request(method, path)
    assert (answer.status, answer.code) == (501, "not_built")
