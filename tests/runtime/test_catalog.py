import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from runtime import (
    ConflictError,
    InvalidFieldError,
    Node,
    NodeOptions,
    SessionArchivedError,
    SessionDeletedError,
    SessionExistsError,
    SessionNotFoundError,
    append_durably,
    follow,
    open_node,
)
from storage import Archive, ArchiveUnavailableError, open_archive
from tests.runtime.conftest import SMALL_LOG, OpenNode
from tests.runtime.steps import W, deactivate, make, send


async def test_creating_again_with_the_same_body_returns_what_exists(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        first, created = await node.catalog.create(W, "s1", user_id="alice", metadata=b'{"a": 1}')
        assert created
        again, created = await node.catalog.create(W, "s1", user_id="alice", metadata=b'{"a": 1}')
        assert not created
        assert again == first
        with pytest.raises(SessionExistsError):
            await node.catalog.create(W, "s1", user_id="bob", metadata=b'{"a": 1}')


async def test_creating_one_id_at_once_makes_one_session(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        created: list[bool] = []

        async def create() -> None:
            created.append((await node.catalog.create(W, "s1", user_id="alice"))[1])

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(create)
        assert created.count(True) == 1


async def test_a_session_is_answered_for_only_once_it_is_durable(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:

        def is_durable() -> bool:
            return node.is_durable(node.active[W, "s1"].info_lsn_end)

        async def create() -> None:
            await node.catalog.create(W, "s1", user_id="alice")
            assert is_durable()

        async def change() -> None:
            await node.catalog.change(W, "s1", metadata=b'{"n":1}')
            assert is_durable()

        async def come_second() -> None:
            with pytest.raises(ConflictError):
                await node.catalog.change(W, "s1", expected_version=1)
            assert is_durable()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            nursery.start_soon(create)
        await change()
        node.catalog._log_change(node.active[W, "s1"], node.active[W, "s1"].info)
        assert not is_durable()
        await come_second()
        await node.catalog.delete(W, "s1")
        assert is_durable()


async def test_a_session_without_an_id_is_given_one(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        info, created = await node.catalog.create(W, None, user_id="alice")
        assert created
        assert (await node.open(W, info.session)).info == info


async def test_changes_survive_deactivation_and_count_versions(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        await make(node)
        await node.catalog.change(W, "s1", members=("bob",), metadata=b'{"k":1}')
        await deactivate(node)
        info = (await node.open(W, "s1")).info
        assert (info.members, info.metadata, info.version) == (("bob",), b'{"k":1}', 2)
        assert (await node.catalog.change(W, "s1", members=("bob",))).version == 2
        with pytest.raises(ConflictError):
            await node.catalog.change(W, "s1", members=(), expected_version=1)


async def test_a_member_that_is_named_twice_is_one_member(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        many = ("bob", "carol", "bob") * 500
        info, _ = await node.catalog.create(W, "s1", user_id="alice", members=many)
        assert info.members == ("bob", "carol")
        same = await node.catalog.create(W, "s1", user_id="alice", members=("bob", "carol"))
        assert same == (info, False)
        changed = await node.catalog.change(W, "s1", members=("dave", "bob", "dave"))
        assert changed.members == ("dave", "bob")


async def test_an_archived_session_is_read_but_not_written(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append_durably(server, sender="alice", content=b"1")
        await node.catalog.change(W, "s1", state="archived")
        with pytest.raises(SessionArchivedError):
            send(server, None)
        assert len((await server.read_after(0, 10)).bodies) == 1
        await node.catalog.change(W, "s1", state="active")
        await send(server, None).wait_ack()


async def test_a_deleted_session_leaves_a_tombstone(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append_durably(server, sender="alice", content=b"1")
        await node.catalog.delete(W, "s1")
        with pytest.raises(SessionDeletedError):
            await node.open(W, "s1")
        await deactivate(node)
        with pytest.raises(SessionDeletedError):
            await node.open(W, "s1")
        with pytest.raises(SessionDeletedError):
            await node.catalog.create(W, "s1", user_id="alice")
        assert (await node.catalog.list(W)).sessions == []


async def test_a_listing_holds_what_was_just_created_newest_first(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        for n in range(7):
            await node.catalog.create(
                W, f"s{n}", user_id="alice", members=("bob",) if n % 2 else ()
            )
            await trio.sleep(0.002)
        seen: list[str] = []
        cursor = None
        while True:
            page = await node.catalog.list(W, user_id="alice", cursor=cursor, limit=3)
            seen += [info.session for info in page.sessions]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == [f"s{n}" for n in reversed(range(7))]
        page = await node.catalog.list(W, user_id="bob")
        assert [info.session for info in page.sessions] == ["s5", "s3", "s1"]


async def test_archived_sessions_are_listed_only_when_asked_for(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        await make(node)
        await node.catalog.change(W, "s1", state="archived")
        assert (await node.catalog.list(W)).sessions == []
        assert len((await node.catalog.list(W, include_archived=True)).sessions) == 1


@pytest.mark.parametrize("cursor", ["x", "!!!", "AAAA", ""])
async def test_a_made_up_cursor_is_refused(open_test_node: OpenNode, cursor: str) -> None:
    async with open_test_node() as node:
        with pytest.raises(InvalidFieldError):
            await node.catalog.list(W, cursor=cursor)


async def test_names_outside_the_alphabet_are_refused_by_field(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        with pytest.raises(InvalidFieldError) as refused:
            await node.catalog.create(W, 'a"b', user_id="alice")
        assert refused.value.details == {"field": "id"}


async def test_who_is_removed_reads_no_further(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        await node.catalog.create(W, "s1", user_id="alice", members=("bob",))
        server = await node.open(W, "s1")
        async with follow(server, 0, "bob") as bob, follow(server, 0, "alice") as alice:
            await node.catalog.change(W, "s1", members=())
            await send(server, None).wait_ack()
            with pytest.raises(SessionNotFoundError):
                await bob.receive()
            assert len(await alice.receive()) == 1


class HeldArchive(Archive):
    """SQLite whose answer to `find_sessions` waits, and that is away if it is told to be."""

    def __init__(self, url: str) -> None:
        super().__init__(open_archive(url)._dialect)
        self.held = threading.Event()
        self.batches: list[int] = []
        self.away = 0

    def find_sessions(self, keys: Any, *args: Any) -> Any:
        self.batches.append(len(keys))
        found = super().find_sessions(keys, *args)
        assert self.held.wait(10)
        if self.away:
            self.away -= 1
            raise ArchiveUnavailableError("told to be away")
        return found


@asynccontextmanager
async def open_held_node(tmp_path: Path) -> AsyncIterator[tuple[Node, HeldArchive]]:
    archive = HeldArchive(f"sqlite:///{tmp_path}/archive.db")
    try:
        async with open_node(NodeOptions(data_dir=tmp_path, log=SMALL_LOG), archive) as node:
            yield node, archive
    finally:
        archive.held.set()
        archive.close()


async def test_creations_at_once_share_a_query_and_keep_every_promise(tmp_path: Path) -> None:
    async with open_held_node(tmp_path) as (node, archive):
        archive.held.set()
        await make(node, "old")
        await deactivate(node)
        archive.held.clear()
        archive.batches.clear()
        answers: list[tuple[str, object]] = []

        async def create(session: str, user_id: str) -> None:
            try:
                info, created = await node.catalog.create(W, session, user_id=user_id)
            except SessionExistsError:
                answers.append((session, "exists"))
            else:
                assert node.is_durable(node.active[W, session].info_lsn_end)
                assert info.user_id == "alice"
                answers.append((session, created))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, "s0", "alice")
            await _until(lambda: archive.batches == [1])
            for n in range(1, 20):
                for _ in range(3):
                    nursery.start_soon(create, f"s{n}", "alice")
            nursery.start_soon(create, "old", "alice")
            nursery.start_soon(create, "old", "bob")
            await trio.testing.wait_all_tasks_blocked()
            archive.held.set()
        assert archive.batches == [1, 20]
        wanted: list[tuple[str, object]] = [("s0", True), ("old", False), ("old", "exists")]
        wanted += [(f"s{n}", created) for n in range(1, 20) for created in (True, False, False)]
        assert Counter(answers) == Counter(wanted)


async def test_an_archive_that_is_away_fails_the_creations_that_asked_it(tmp_path: Path) -> None:
    async with open_held_node(tmp_path) as (node, archive):
        refused: list[str] = []

        async def create(session: str) -> None:
            try:
                await node.catalog.create(W, session, user_id="alice")
            except ArchiveUnavailableError:
                refused.append(session)

        archive.away = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, "s1")
            await _until(lambda: archive.batches == [1])
            nursery.start_soon(create, "s2")
            await trio.testing.wait_all_tasks_blocked()
            archive.held.set()
        assert refused == ["s1"]
        assert list(node.active) == [(W, "s2")]
        assert (await node.catalog.create(W, "s1", user_id="alice"))[1]


async def test_a_creation_that_is_given_up_leaves_the_id_to_the_next(tmp_path: Path) -> None:
    async with open_held_node(tmp_path) as (node, archive):
        async with trio.open_nursery() as nursery:
            given_up = trio.CancelScope()
            created: list[bool] = []

            async def give_up() -> None:
                with given_up:
                    await node.catalog.create(W, "s1", user_id="alice")

            async def create() -> None:
                created.append((await node.catalog.create(W, "s1", user_id="bob"))[1])

            nursery.start_soon(give_up)
            await _until(lambda: archive.batches == [1])
            nursery.start_soon(create)
            await trio.testing.wait_all_tasks_blocked()
            given_up.cancel()
            await trio.testing.wait_all_tasks_blocked()
            archive.held.set()
        assert created == [True]
        assert (await node.open(W, "s1")).info.user_id == "bob"


async def _until(happened: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not happened():
            await trio.sleep(0.001)
