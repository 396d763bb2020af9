"""`/v1/ring` and `/readyz` of processes that share a ring, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

import runtime
from agents import Registry, Vault
from edge import http_ring
from edge.auth import SCOPES, Authenticator, generate_key
from edge.http_bodies import Readiness, RingChanged, RingHistory, RingPlan, RingState
from edge.limits import Limits
from edge.metrics import Metrics
from edge.origin import OriginPolicy
from edge.services import Services
from runtime import Host, Node, slot_of
from storage import Archive, Place
from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import SIGNING_KEY, api_key, keyed, open_front, open_one_port
from tests.edge.test_metrics import total
from tests.edge.test_openapi import exactly
from tests.runtime.clusters import (
    SLOTS,
    Member,
    open_edge,
    open_member,
    open_members,
    until_settled,
)

ADMIN, READER = generate_key(), generate_key()
GHOST = "f" * 32
"""A node that is registered and has no process."""


@dataclass
class Ring:
    """Two owners, and a way to the first one's HTTP."""

    archive: Archive
    members: list[Member]
    http: HttpClient
    port: int
    services: Services

    async def settled(self) -> None:
        await until_settled(self.archive, self.members)


@asynccontextmanager
async def serving(
    host: Host,
    archive: Archive,
    auth: Authenticator,
    *,
    node: Node | None = None,
    role: str = "all",
) -> AsyncIterator[tuple[int, Services]]:
    """Serve HTTP for a process of a cluster; give its port."""
    origins = OriginPolicy(lambda: auth.development, frozenset(), frozenset())
    agents = Registry(archive, Vault(), lambda: 0)
    services = Services(
        host, auth, origins, Limits(), Metrics(), agents, archive.dispatches, role, archive
    )
    async with open_front(services, node) as front:
        yield front.port, services


def admins() -> Authenticator:
    return keyed(api_key(ADMIN, *SCOPES), api_key(READER, "read", "write", "tokens"))


@pytest.fixture
async def ring(tmp_path: Path, archive: Archive) -> AsyncIterator[Ring]:
    async with (
        open_members(tmp_path, archive, 2) as members,
        serving(members[0].router, archive, admins(), node=members[0].node) as (port, services),
        open_http(port, Authorization=f"Bearer {ADMIN}") as http,
    ):
        yield Ring(archive, members, http, port, services)


def register_ghost(archive: Archive) -> None:
    archive.begin_epoch(GHOST, "local", 0, Place("127.0.0.1:1", 1, SLOTS))


async def test_the_ring_is_shown_with_who_lives(ring: Ring) -> None:
    answer = await ring.http.get("/v1/ring")
    exactly(answer, RingState)
    shown = answer.json()
    assert (shown["slots"], shown["moving"]) == (SLOTS, 0)
    assert {node["node_id"] for node in shown["data"]} == {m.node_id for m in ring.members}
    assert sum(node["slots"] for node in shown["data"]) == SLOTS
    register_ghost(ring.archive)
    probed = (await ring.http.get("/v1/ring?probe=true")).json()
    alive = {node["node_id"]: node["alive"] for node in probed["data"]}
    assert alive == {**dict.fromkeys((m.node_id for m in ring.members), True), GHOST: False}


async def test_a_node_is_drained_and_undrained_in_the_name_of_the_key(ring: Ring) -> None:
    first, second = ring.members
    path = f"/v1/ring/plan?action=drain&node_id={second.node_id}"
    planned = await ring.http.get(path)
    exactly(planned, RingPlan)
    answer = await ring.http.post("/v1/ring/drain", {"node_id": second.node_id})
    exactly(answer, RingChanged)
    made = answer.json()
    assert made["slots_moved"] == planned.json()["slots_moved"] > 0
    [pair] = made["pairs"]
    assert (pair["source"], pair["target"]) == (second.node_id, first.node_id)
    await ring.settled()
    owners = set((await trio.to_thread.run_sync(ring.archive.read_ring)).owners)
    assert owners == {first.node_id}

    history = await ring.http.get("/v1/ring/history?limit=2")
    exactly(history, RingHistory)
    drain = next(each for each in history.json()["data"] if each["action"] == "drain")
    assert drain["actor"] == f"key-{ADMIN[-6:]} (test)"
    assert drain["version"] == made["version"]
    again = await ring.http.post("/v1/ring/undrain", {"node_id": second.node_id})
    assert again.status == 200
    await ring.settled()
    weighed = await ring.http.post("/v1/ring/weight", {"node_id": second.node_id, "weight": 3})
    assert weighed.json()["slots_moved"] > 0
    assert (await ring.http.post("/v1/ring/rebalance", {})).json()["action"] == "rebalance"


async def test_a_plan_counts_all_sessions_and_names_those_of_the_keys_own_workspace(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    for workspace in ("default", "acme"):
        for n in range(20):
            await ring.members[0].router.catalog.create(workspace, f"s-{n}", user_id="u")
    for member in ring.members:
        await member.node.wait_sessions_flushed()
    second = ring.members[1].node_id
    owners = ring.archive.read_ring().owners
    moving = {
        (workspace, f"s-{n}")
        for workspace in ("default", "acme")
        for n in range(20)
        if owners[slot_of(workspace, f"s-{n}", SLOTS)] == second
    }
    path = f"/v1/ring/plan?action=drain&node_id={second}"
    plan = (await ring.http.get(f"{path}&sessions=true")).json()
    assert plan["sessions_moved"] == sum(pair["sessions"] for pair in plan["pairs"]) == len(moving)
    assert plan["sessions_whole"] is True
    named = {(move["workspace"], move["session"]) for move in plan["sessions"]}
    assert named == {(workspace, name) for workspace, name in moving if workspace == "default"}
    assert "sessions" not in (await ring.http.get(path)).json()
    limited = (await ring.http.get(f"{path}&sessions=true&limit=1")).json()
    assert len(limited["sessions"]) == 1

    monkeypatch.setattr("runtime.ringchange.SESSIONS_PAGE", 10)
    monkeypatch.setattr(http_ring, "SESSIONS_COUNTED_MAX", 20)
    part = (await ring.http.get(path)).json()
    assert part["sessions_whole"] is False


async def test_slots_go_to_a_node_that_does_not_live_only_if_it_is_forced(ring: Ring) -> None:
    register_ghost(ring.archive)
    refused = await ring.http.post("/v1/ring/join", {"node_id": GHOST})
    assert (refused.status, refused.code) == (409, "nodes_silent")
    assert refused.json()["details"] == {"nodes": [GHOST]}
    assert '"force": true' in refused.json()["hint"]
    assert GHOST not in ring.archive.read_ring().targets
    forced = await ring.http.post("/v1/ring/join", {"node_id": GHOST, "force": True})
    assert forced.status == 200
    assert GHOST in ring.archive.read_ring().targets


async def test_a_node_that_has_nothing_and_does_not_live_is_removed(ring: Ring) -> None:
    register_ghost(ring.archive)
    removed = await ring.http.post("/v1/ring/remove", {"node_id": GHOST})
    assert (removed.status, removed.json()["slots_moved"]) == (200, 0)
    assert {node.node_id for node in ring.archive.read_ring().nodes} == {
        member.node_id for member in ring.members
    }
    again = await ring.http.post("/v1/ring/remove", {"node_id": GHOST})
    assert (again.status, again.code) == (404, "node_not_found")


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("drain", {}, 400, "missing_field"),
    ("drain", {"node_id": "x"}, 400, "invalid_field"),
    ("drain", {"node_id": "OWN", "colour": "red"}, 400, "unknown_field"),
    ("drain", {"node_id": GHOST}, 404, "node_not_found"),
    ("join", {"node_id": "OWN"}, 409, "ring_refused"),
    ("undrain", {"node_id": "OWN"}, 409, "ring_refused"),
    ("remove", {"node_id": "OWN"}, 409, "ring_refused"),
    ("remove", {"node_id": "OWN", "force": True}, 400, "unknown_field"),
    ("weight", {"node_id": "OWN", "weight": 0}, 400, "invalid_field"),
    ("weight", {"node_id": "OWN", "weight": 101}, 400, "invalid_field"),
    ("rebalance", {"node_id": "OWN"}, 400, "unknown_field"),
    ("drain?force=true", {"node_id": "OWN"}, 400, "unknown_field"),
    ("explode", {}, 404, "not_found"),
]


async def test_what_makes_no_sense_is_refused_as_on_the_command_line(ring: Ring) -> None:
    before = ring.archive.read_ring()
    for path, body, status, code in REFUSED:
        own = ring.members[0].node_id
        sent = {name: own if value == "OWN" else value for name, value in body.items()}
        answer = await ring.http.post(f"/v1/ring/{path}", sent)
        assert (answer.status, answer.code) == (status, code), (path, body)
    after = ring.archive.read_ring()
    assert (after.version, after.targets) == (before.version, before.targets)


BAD_PLANS = [
    ("", "missing_field", "action"),
    ("action=fly", "invalid_field", "action"),
    ("action=drain", "missing_field", "node_id"),
    ("action=drain&node_id=x", "invalid_field", "node_id"),
    (f"action=rebalance&node_id={GHOST}", "unknown_field", "node_id"),
    (f"action=weight&node_id={GHOST}", "missing_field", "weight"),
    (f"action=weight&node_id={GHOST}&weight=101", "invalid_field", "weight"),
    (f"action=drain&node_id={GHOST}&weight=2", "unknown_field", "weight"),
    ("action=rebalance&limit=0", "invalid_field", "limit"),
    ("action=rebalance&colour=red", "unknown_field", "colour"),
]


async def test_a_plan_that_is_asked_for_badly_is_refused(ring: Ring) -> None:
    for query, code, field in BAD_PLANS:
        answer = await ring.http.get(f"/v1/ring/plan?{query}")
        assert (answer.status, answer.code) == (400, code), query
        assert answer.json()["details"]["field"] == field, query


ROUTES = [
    ("GET", "/v1/ring"),
    ("GET", "/v1/ring/history"),
    ("GET", "/v1/ring/plan?action=rebalance"),
    *(
        ("POST", f"/v1/ring/{action}")
        for action in ("join", "drain", "undrain", "weight", "remove", "rebalance")
    ),
]


def body_for(path: str) -> dict[str, object]:
    if path.endswith("rebalance"):
        return {}
    return {"node_id": GHOST} | ({"weight": 2} if path.endswith("weight") else {})


async def test_only_an_admin_sees_or_changes_the_ring(ring: Ring) -> None:
    version = ring.archive.read_ring_version()
    token = ring.services.auth.mint("default", "alice", 60).text
    for credential, status, code in (
        (f"Bearer {READER}", 403, "forbidden"),
        (f"Bearer {token}", 403, "forbidden"),
        ("Bearer rl_nobody", 401, "unauthorized"),
    ):
        async with open_http(ring.port, Authorization=credential) as http:
            for method, path in ROUTES:
                answer = await http.request(
                    method, path, body_for(path) if method == "POST" else None
                )
                assert (answer.status, answer.code) == (status, code), path
    assert ring.archive.read_ring_version() == version


async def test_an_edge_shows_and_changes_the_ring_too_and_in_development_anybody_may(
    ring: Ring,
) -> None:
    auth = Authenticator(SIGNING_KEY, allow_development=True)
    async with (
        open_edge(ring.archive) as router,
        serving(router, ring.archive, auth, role="edge") as (port, _),
        open_http(port) as http,
    ):
        node_id = ring.members[1].node_id
        body = {"node_id": node_id, "weight": 2}
        assert (await http.post("/v1/ring/weight?user_id=carol", body)).status == 200
        history = (await http.get("/v1/ring/history")).json()["data"]
        assert next(e for e in history if e["action"] == "weight")["actor"] == "carol"
        nodes = {node["node_id"]: node for node in (await http.get("/v1/ring")).json()["data"]}
        assert nodes[node_id]["weight"] == 2


async def test_a_node_that_is_alone_has_no_ring(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        for method, path in ROUTES:
            answer = await http.request(method, path, body_for(path) if method == "POST" else None)
            assert (answer.status, answer.code) == (404, "no_ring"), path
        ready = await http.get("/readyz")
        exactly(ready, Readiness)
        assert ready.json() == {
            "status": "ready",
            "role": "all",
            "node_id": edge.node.flusher.node_id,
            "epoch": 1,
            "ring": None,
        }


async def test_readiness_tells_who_a_process_is_and_what_it_has_of_the_ring(ring: Ring) -> None:
    member = ring.members[0]
    ready = await ring.http.get("/readyz")
    exactly(ready, Readiness)
    told = ready.json()
    assert (told["status"], told["node_id"], told["epoch"]) == ("ready", member.node_id, 1)
    part = told["ring"]
    assert part["state"] == "active"
    assert part["slots"] == part["slots_meant"] == part["slots_served"] > 0
    async with (
        open_edge(ring.archive) as router,
        serving(router, ring.archive, admins(), role="edge") as (port, _),
        open_http(port) as http,
    ):
        told = (await http.get("/readyz")).json()
        assert (told["role"], told["node_id"], told["epoch"]) == ("edge", None, None)
        assert (told["ring"]["state"], told["ring"]["slots"]) == (None, 0)


async def test_a_node_that_drains_says_so_and_is_ready_all_the_same(ring: Ring) -> None:
    await ring.http.post("/v1/ring/drain", {"node_id": ring.members[0].node_id})
    await ring.settled()
    ready = await ring.http.get("/readyz")
    assert ready.status == 200
    assert ready.json()["ring"]["state"] == "drained"
    assert ready.json()["ring"]["slots_served"] == 0


async def test_an_owner_that_leaves_is_not_ready(ring: Ring) -> None:
    member = ring.members[0].cluster.member
    assert member is not None
    with trio.fail_after(20):
        while len(member.alive) < 2:
            await trio.sleep(0.05)
        assert await member.leave()
    refused = await ring.http.get("/readyz")
    assert (refused.status, refused.code) == (503, "not_ready")
    details = refused.json()["details"]
    assert details["reasons"] == ["leaving"]
    assert (details["node_id"], details["epoch"]) == (ring.members[0].node_id, 1)
    assert (details["ring"]["state"], details["ring"]["slots_served"]) == ("joining", 0)


async def test_an_owner_is_ready_once_it_serves_what_it_is_given(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = trio.Event()
    step = runtime.Member._step

    async def held_step(self: Any, ring: Any) -> bool:
        await held.wait()
        return bool(await step(self, ring))

    monkeypatch.setattr("runtime.member.Member._step", held_step)
    async with (
        open_member(tmp_path, archive) as member,
        serving(member.router, archive, admins(), node=member.node) as (port, services),
        open_http(port) as http,
    ):
        services.metrics.cluster = member.cluster
        refused = await http.get("/readyz")
        assert refused.json()["details"]["reasons"] == ["slots_not_served", "no_owner"]
        assert total(services.metrics, "ringlog_ready") == 0
        held.set()
        await until_settled(archive, [member])
        with trio.fail_after(10):
            while (await http.get("/readyz")).status != 200:
                await trio.sleep(0.02)
        assert total(services.metrics, "ringlog_ready") == 1
