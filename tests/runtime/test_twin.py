"""A node of which another process runs already, on a copy of its data directory; and whoever else has its address."""

import shutil
from pathlib import Path

import pytest
import trio

from runtime import append_durably
from storage import Archive, DirectoryLockedError, NodeRunningError, Place
from tests.runtime.clusters import SLOTS, open_edge, open_member, until_settled

W = "default"


def register(archive: Archive, node_id: str, address: str) -> None:
    archive.begin_epoch(node_id, "local", 0, Place(address, 1, SLOTS))


async def live_once(data_dir: Path, archive: Archive) -> str:
    """Run a node for a moment; return its id."""
    data_dir.mkdir(exist_ok=True)
    async with open_member(data_dir, archive) as member:
        return member.node_id


async def test_a_copy_of_a_data_directory_does_not_start_while_the_first_runs(
    tmp_path: Path, archive: Archive
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    async with open_member(original, archive) as first, open_edge(archive) as edge:
        await until_settled(archive, [first])
        await edge.catalog.create(W, "s", user_id="alice")
        shutil.copytree(original, copy)
        ring = await trio.to_thread.run_sync(archive.read_ring)
        with pytest.raises(NodeRunningError) as refused:
            async with open_member(copy, archive):
                raise AssertionError
        assert refused.value.address == ring.nodes[0].address
        assert first.node_id in str(refused.value)
        # The one that runs has kept its epoch, its address and its slots.
        assert await trio.to_thread.run_sync(archive.read_ring) == ring
        server = await edge.open(W, "s", to_append=True)
        assert (await append_durably(server, sender="alice", content=b"1")).seq == 1
        await first.node.flusher.flush_all()
    # Nor does anything keep it from starting when the first has ended.
    assert await live_once(original, archive) == first.node_id


async def test_a_second_process_does_not_start_on_the_same_directory(
    tmp_path: Path, archive: Archive
) -> None:
    directory = tmp_path / "node"
    directory.mkdir()
    async with open_member(directory, archive) as first:
        await until_settled(archive, [first])
        with pytest.raises(DirectoryLockedError):
            async with open_member(directory, archive):
                raise AssertionError


async def test_a_node_starts_where_another_has_its_last_address_by_now(
    tmp_path: Path, archive: Archive
) -> None:
    node_id = await live_once(tmp_path / "a", archive)
    (tmp_path / "b").mkdir()
    refusals: list[tuple[str, Exception]] = []
    async with open_member(tmp_path / "b", archive, told=refusals) as other:
        ring = await trio.to_thread.run_sync(archive.read_ring)
        entry = ring.node(other.node_id)
        assert entry is not None
        register(archive, node_id, entry.address)
        assert await live_once(tmp_path / "a", archive) == node_id


@pytest.mark.parametrize("accepts", [True, False])
async def test_nobody_who_answers_is_not_waited_for(
    tmp_path: Path, archive: Archive, accepts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `kill -9`, or where a process is stopped, or its machine is away."""
    node_id = await live_once(tmp_path / "a", archive)
    monkeypatch.setattr("runtime.twin.ANSWER_SECONDS", 0.3)
    if not accepts:  # where nobody listens it is not waited for at all
        monkeypatch.setattr("runtime.twin.CONNECT_SECONDS", 600)
    [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with silent:
        register(archive, node_id, f"127.0.0.1:{silent.socket.getsockname()[1]}")
        if not accepts:
            await silent.aclose()
        with trio.fail_after(20):
            assert await live_once(tmp_path / "a", archive) == node_id
