"""What is stored of agents, on SQLite and on PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from storage import AgentRow, Archive
from tests.storage.sql import run_sql

SECRETS = bytes(range(256))


def row(id: str = "a1", workspace: str = "default", **fields: object) -> AgentRow:
    made = AgentRow(workspace, id, 1, 1_000, 1_000, b'{"type":"pull"}', SECRETS)
    return replace(made, **fields)


def test_an_agent_comes_back_as_it_was_stored(archive: Archive) -> None:
    body = '{"system":"é 漢字 😀 \\u0000 \'; DROP TABLE agents; -- :name %s"}'.encode()
    wanted = row(body=body)
    assert archive.create_agent(wanted) == 1
    assert archive.read_agents([wanted.key]) == {wanted.key: wanted}


def test_an_id_is_taken_once_in_each_workspace(archive: Archive) -> None:
    assert archive.create_agent(row()) == 1
    assert archive.create_agent(row(body=b"{}", secrets=b"")) is None
    assert archive.create_agent(row(workspace="other", body=b"{}"))
    read = archive.read_agents([("default", "a1"), ("other", "a1")])
    assert read == {("default", "a1"): row(), ("other", "a1"): row(workspace="other", body=b"{}")}


def test_agents_are_read_many_at_once_and_only_those_that_are_there(archive: Archive) -> None:
    ids = [f"a{number}" for number in range(50)] + ["aZ9._:@~+=|-"]
    for agent_id in ids:
        archive.create_agent(row(agent_id))
    asked = [("default", agent_id) for agent_id in ids] + [("other", "a1"), ("default", "none")]
    asked += [("default", "a1")] * 3
    assert set(archive.read_agents(asked)) == {("default", agent_id) for agent_id in ids}
    assert archive.read_agents([]) == {}
    assert archive.read_agents([("default", "none")]) == {}


def test_agents_are_listed_by_id_in_pages(archive: Archive) -> None:
    ids = ["B", "a", "a-1", "a:1", "b", "~"]
    for agent_id in reversed(ids):
        archive.create_agent(row(agent_id))
    archive.create_agent(row("a", workspace="other"))
    found = []
    after = ("default", "")
    while page := archive.list_agents("default", after, 4):
        found += [each.id for each in page]
        after = page[-1].key
    assert found == sorted(ids)
    everyone = [each.key for each in archive.list_agents(None)]
    assert everyone == [("default", agent_id) for agent_id in sorted(ids)] + [("other", "a")]
    assert archive.list_agents(None, ("default", "~")) == [row("a", workspace="other")]


def test_a_change_counts_only_if_the_agent_is_as_expected(archive: Archive) -> None:
    first = row()
    archive.create_agent(first)
    second = row(version=2, updated_at_ms=2_000, body=b"{}", secrets=b"new")
    assert archive.change_agent(second, first)
    assert archive.read_agents([first.key]) == {first.key: second}
    for expected in (first, replace(second, version=3), replace(second, secrets=SECRETS)):
        assert not archive.change_agent(row(version=9, body=b'{"lost":1}'), expected)
    assert not archive.change_agent(row("none"), row("none"))
    assert archive.read_agents([first.key]) == {first.key: second}


def test_a_deleted_agent_is_hidden_and_its_secrets_are_gone(
    archive: Archive, archive_url: str
) -> None:
    archive.create_agent(row())
    assert not archive.delete_agent(("default", "a1"), 2, 5_000)
    assert not archive.delete_agent(("other", "a1"), 1, 5_000)
    assert archive.delete_agent(("default", "a1"), 1, 5_000)
    assert not archive.delete_agent(("default", "a1"), 2, 5_000)
    assert archive.read_agents([("default", "a1")]) == {}
    assert archive.list_agents("default") == []
    assert not archive.change_agent(row(version=3), row(version=2, secrets=b""))
    [(version, deleted, secrets)] = run_sql(
        archive_url, "SELECT version, deleted, secrets FROM agents"
    )
    assert (version, deleted, bytes(secrets)) == (2, 1, b"")


def test_an_id_that_is_used_again_goes_on_counting(archive: Archive) -> None:
    archive.create_agent(row())
    archive.delete_agent(("default", "a1"), 1, 5_000)
    again = row(created_at_ms=9_000, updated_at_ms=9_000, body=b'{"again":1}')
    assert archive.create_agent(again) == 3
    assert archive.read_agents([again.key]) == {again.key: replace(again, version=3)}


@pytest.mark.parametrize("attempt", range(3))
def test_of_those_who_act_at_once_one_succeeds(archive: Archive, attempt: int) -> None:
    callers = 8
    barrier = threading.Barrier(callers)

    def create(number: int) -> bool:
        barrier.wait()
        return archive.create_agent(row(body=b'{"by":%d}' % number)) == 1

    def change(number: int) -> bool:
        barrier.wait()
        return archive.change_agent(row(version=2, body=b'{"by":%d}' % number), expected)

    with ThreadPoolExecutor(callers) as pool:
        assert sum(pool.map(create, range(callers))) == 1
        [expected] = archive.list_agents("default")
        assert sum(pool.map(change, range(callers))) == 1
    [changed] = archive.list_agents("default")
    assert changed.version == 2
