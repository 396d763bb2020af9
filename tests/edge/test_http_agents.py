"""Agents over HTTP: what is answered, to whom, and what never is."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from agents import BUILT_IN, Vault
from agents.secretskey import make_key
from edge.auth import SCOPES, generate_key
from edge.http_agents import AGENTS_DEFAULT
from edge.http_bodies import Agent
from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import OnePort, api_key, keyed, open_one_port

ADMIN = generate_key()
OTHER = generate_key()
BACKEND = generate_key()
CANARY = "canary-4be1"
WEBHOOK = {
    "id": "support",
    "type": "webhook",
    "url": "https://agents.example/hook",
    "headers": {"Authorization": f"Bearer {CANARY}", "X-Team": f"{CANARY}-2"},
}


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
    auth = keyed(
        api_key(ADMIN, "admin"),
        api_key(OTHER, "admin", workspace="acme"),
        api_key(BACKEND, *(SCOPES - {"admin"})),
    )
    async with open_one_port(tmp_path, auth=auth) as edge:
        yield edge


async def create(http: HttpClient, **fields: Any) -> dict[str, Any]:
    answer = await http.post("/v1/agents", WEBHOOK | fields)
    assert answer.status == 201, answer.body
    agent: dict[str, Any] = answer.json()
    return agent


async def change(http: HttpClient, agent: str = "support", **fields: Any) -> Any:
    return (await http.request("PATCH", f"/v1/agents/{agent}", fields)).json()


# Creating


async def test_an_agent_is_created_and_found_where_the_answer_says(http: HttpClient) -> None:
    created = await http.post("/v1/agents", WEBHOOK)
    assert created.status == 201
    assert created.headers["location"] == "/v1/agents/support"
    assert created.headers["cache-control"] == "no-store"
    agent = created.json()
    secret = agent.pop("signing_secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert agent["header_names"] == ["Authorization", "X-Team"]
    assert (agent["version"], agent["signing_secrets"], agent["built_in"]) == (1, 1, False)
    assert (agent["timeout_ms"], agent["message_history_mode"]) == (300_000, "tail")
    assert set(agent) == set(Agent.__struct_fields__) - {"signing_secret"}
    shown = await http.get(created.headers["location"])
    assert (shown.json(), "cache-control" in shown.headers) == (agent, False)
    assert CANARY.encode() not in created.body + shown.body


async def test_the_same_again_is_answered_without_the_signing_secret(http: HttpClient) -> None:
    agent = await create(http)
    del agent["signing_secret"]
    again = await http.post("/v1/agents", WEBHOOK)
    assert (again.status, again.json()) == (200, agent)
    assert "location" not in again.headers
    others: list[dict[str, Any]] = [
        {"concurrency": 3},
        {"headers": {}},
        {"headers": {"X-Team": "x"}},
    ]
    for other in others:
        refused = await http.post("/v1/agents", WEBHOOK | other)
        assert (refused.status, refused.code) == (409, "agent_exists")
        assert CANARY.encode() not in refused.body


async def test_every_field_comes_back_as_it_was_given(http: HttpClient) -> None:
    fields = {
        "id": "a|~+=@:._-Z9", "type": "openai", "url": "http://127.0.0.1:9/v1/chat/completions?x=1",
        "model": "gpt é", "system": "Be kind.\n\u0000 😀", "status": "disabled",
        "message_history_mode": "entire", "message_history_limit": 1_000, "timeout_ms": 3_600_000,
        "connect_timeout_ms": 100, "first_byte_timeout_ms": 3_600_000, "idle_timeout_ms": 100,
        "debounce_window_ms": 0, "debounce_max_ms": 0, "concurrency": 1, "attempts_max": 20,
        "on_message": "reject", "on_loss": "restart", "metadata": [1, {"a": None}],
    }  # fmt: skip
    created = (await http.post("/v1/agents", fields)).json()
    assert {name: created[name] for name in fields} == fields
    assert "signing_secret" not in created
    raw = b'{"big":123456789012345678901234567890, "e":1e999,"dup":1,"dup":2}'
    answer = await http.post("/v1/agents", b'{"id":"m","type":"pull","metadata":%b}' % raw)
    assert raw in answer.body
    assert raw in (await http.get("/v1/agents/m")).body


async def test_the_built_in_agents_can_be_seen_and_not_changed(http: HttpClient) -> None:
    for name in BUILT_IN:
        shown = (await http.get(f"/v1/agents/{name}")).json()
        assert (shown["built_in"], shown["version"], shown["created_at"]) == (True, 0, None)
        for method, path, body in (
            ("POST", "/v1/agents", {"id": name, "type": name}),
            ("PATCH", f"/v1/agents/{name}", {"status": "disabled"}),
            ("DELETE", f"/v1/agents/{name}", None),
        ):
            refused = await http.request(method, path, body)
            assert (refused.status, refused.code) == (409, "agent_built_in")


# Reading


async def test_agents_are_listed_by_id_in_pages(http: HttpClient) -> None:
    ids = [f"agent-{number:02}" for number in range(5)]
    for agent in reversed(ids):
        await create(http, id=agent, type="pull", url=None, headers={})
    found: list[str] = []
    path = "/v1/agents?limit=3"
    page = (await http.get(path)).json()
    while True:
        found += [each["id"] for each in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        page = (await http.get(f"{path}&cursor={page['next_cursor']}")).json()
    assert found == sorted([*ids, *BUILT_IN])
    whole = (await http.get("/v1/agents")).json()
    assert [each["id"] for each in whole["data"]] == found
    assert len(found) < AGENTS_DEFAULT


# Changing


async def test_a_change_counts_and_touches_what_it_names(http: HttpClient) -> None:
    before = await create(http)
    del before["signing_secret"]
    after = await change(http, concurrency=7, headers={"x-team": None, "X-New": "1"})
    named = {"concurrency", "header_names", "version", "updated_at"}
    assert {name for name in before if before[name] != after[name]} <= named
    assert (after["version"], after["concurrency"]) == (2, 7)
    assert after["header_names"] == ["Authorization", "X-New"]
    assert await change(http, concurrency=7) == after
    assert await change(http) == after


async def test_signing_secrets_are_replaced_in_two_steps(edge: OnePort, http: HttpClient) -> None:
    first = (await create(http))["signing_secret"]
    answer = await http.request("PATCH", "/v1/agents/support", {"signing_secret": "generate"})
    assert answer.headers["cache-control"] == "no-store"
    second = answer.json()["signing_secret"]
    assert answer.json()["signing_secrets"] == 2

    def signing() -> tuple[str, ...]:
        registry = edge.services.agents
        return registry.open_secrets(registry.show("default", "support")).signing

    assert await trio.to_thread.run_sync(signing) == (second, first)
    retired = await change(http, signing_secret="retire")
    assert (retired["signing_secrets"], "signing_secret" in retired) == (1, False)
    own = f"whsec_{base64.b64encode(bytes(24)).decode()}"
    assert "signing_secret" not in await change(http, signing_secret=own)
    assert await trio.to_thread.run_sync(signing) == (own, second)


async def test_only_the_version_that_was_expected_is_changed_or_deleted(http: HttpClient) -> None:
    await create(http)
    refused = await http.request(
        "PATCH", "/v1/agents/support", {"status": "disabled", "expected_version": 2}
    )
    assert (refused.status, refused.code) == (409, "conflict")
    assert refused.json()["details"] == {
        "agent": "support",
        "expected_version": 2,
        "version": 1,
    }
    assert (await change(http, status="disabled", expected_version=1))["version"] == 2
    refused = await http.request("DELETE", "/v1/agents/support?expected_version=1")
    assert (refused.status, refused.code) == (409, "conflict")
    assert (await http.request("DELETE", "/v1/agents/support?expected_version=2")).status == 204
    assert (await http.get("/v1/agents/support")).code == "agent_not_found"


async def test_changes_at_once_are_all_made(edge: OnePort, http: HttpClient) -> None:
    await create(http)

    async def add(number: int) -> None:
        async with open_http(edge.port) as client:
            answer = await client.request(
                "PATCH", "/v1/agents/support", {"headers": {f"X-{number}": "x"}}
            )
            assert answer.status == 200

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(add, number)
    agent = (await http.get("/v1/agents/support")).json()
    assert set(agent["header_names"]) >= {f"X-{number}" for number in range(6)}
    assert agent["version"] == 7


async def test_a_deleted_agent_is_gone_and_its_id_can_be_used_again(http: HttpClient) -> None:
    await create(http)
    deleted = await http.request("DELETE", "/v1/agents/support")
    assert (deleted.status, deleted.body) == (204, b"")
    for method, body in (("GET", None), ("PATCH", {"status": "enabled"}), ("DELETE", None)):
        answer = await http.request(method, "/v1/agents/support", body)
        assert (answer.status, answer.code) == (404, "agent_not_found")
    listed = (await http.get("/v1/agents")).json()["data"]
    assert [each["id"] for each in listed] == sorted(BUILT_IN)
    assert (await create(http, headers={}))["version"] == 3


# Who may


ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/agents", WEBHOOK | {"id": "another"}),
    ("GET", "/v1/agents", None),
    ("GET", "/v1/agents/support", None),
    ("PATCH", "/v1/agents/support", {"status": "disabled"}),
    ("DELETE", "/v1/agents/support", None),
]


async def test_only_a_key_with_the_scope_admin_sees_or_changes_agents(guarded: OnePort) -> None:
    user = guarded.auth.mint("default", "alice", 60).text
    async with open_http(guarded.port) as http:
        admin = {"Authorization": f"Bearer {ADMIN}"}
        assert (await http.request("POST", "/v1/agents", WEBHOOK, admin)).status == 201
        for method, path, body in ROUTES:
            for credential in (BACKEND, user):
                headers = {"Authorization": f"Bearer {credential}"}
                for target in (path, path.replace("support", "none")):
                    refused = await http.request(method, target, body, headers)
                    assert (refused.status, refused.code) == (403, "forbidden"), (method, path)
            nobody = await http.request(method, path, body)
            assert (nobody.status, nobody.code) == (401, "unauthorized")
        for method, path, body in ROUTES:
            answer = await http.request(method, path, body, admin)
            assert answer.status in {200, 201, 204}, (method, path)


async def test_a_workspace_does_not_know_of_the_agents_of_another(guarded: OnePort) -> None:
    async with (
        open_http(guarded.port, Authorization=f"Bearer {ADMIN}") as ours,
        open_http(guarded.port, Authorization=f"Bearer {OTHER}") as theirs,
    ):
        await create(ours)
        listed = (await theirs.get("/v1/agents")).json()["data"]
        assert [each["id"] for each in listed] == sorted(BUILT_IN)
        for method, body in (("GET", None), ("PATCH", {"status": "disabled"}), ("DELETE", None)):
            answer = await theirs.request(method, "/v1/agents/support", body)
            assert (answer.status, answer.code) == (404, "agent_not_found")
        assert (await create(theirs, url="https://theirs.example/"))["version"] == 1
        assert (await theirs.request("DELETE", "/v1/agents/support")).status == 204
        assert (await ours.get("/v1/agents/support")).json()["url"] == WEBHOOK["url"]


# Keys


async def test_without_a_key_agents_with_secrets_are_refused_with_what_to_do(
    tmp_path: Path,
) -> None:
    async with open_one_port(tmp_path, vault=Vault()) as edge, open_http(edge.port) as http:
        for body in (WEBHOOK, WEBHOOK | {"headers": {}}):
            refused = await http.post("/v1/agents", body)
            assert (refused.status, refused.code) == (503, "secrets_key_missing")
            assert "--secrets-key" in refused.json()["hint"]
            assert "retry-after" not in refused.headers
            assert CANARY.encode() not in refused.body
        assert (await http.post("/v1/agents", {"id": "w", "type": "pull"})).status == 201


async def test_what_another_key_has_sealed_is_told_by_the_keys_id(tmp_path: Path) -> None:
    key = make_key()
    async with open_one_port(tmp_path, vault=Vault([key])) as edge, open_http(edge.port) as http:
        await create(http)
    async with (
        open_one_port(tmp_path, vault=Vault([make_key()])) as edge,
        open_http(edge.port) as http,
    ):
        refused = await http.post("/v1/agents", WEBHOOK)
        assert (refused.status, refused.code) == (503, "secrets_key_unknown")
        assert refused.json()["details"] == {"agent": "support", "key_id": key.id}
        assert (await http.get("/v1/agents/support")).status == 200
        assert (await change(http, status="disabled"))["version"] == 2


async def test_a_damaged_secret_is_told_and_can_be_replaced(tmp_path: Path) -> None:
    key = make_key()
    async with (
        open_one_port(tmp_path, vault=Vault([key])) as edge,
        open_http(edge.port) as http,
    ):
        await create(http)
        [row] = edge.archive.list_agents("default")
        text = row.secrets.decode()
        place = text.index('"header:X-Team":"') + 60
        damaged = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert edge.archive.change_agent(replace(row, secrets=damaged.encode()), row)
        refused = await http.post("/v1/agents", WEBHOOK)
        assert (refused.status, refused.code) == (500, "secrets_damaged")
        assert refused.json()["details"] == {"agent": "support"}
        assert (await change(http, headers={"X-Team": f"{CANARY}-2"}))["version"] == 2
        assert (await http.post("/v1/agents", WEBHOOK)).status == 200
