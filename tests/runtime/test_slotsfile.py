"""What a node remembers of its slots, when the archive says something else."""

import errno
from pathlib import Path

import pytest
import trio

from runtime.slotsfile import SlotsFile
from storage import Archive, CorruptLogError, RingRestoredError
from tests.runtime.clusters import SLOTS, open_member, open_members, until_settled
from tests.storage.sql import run_sql


def test_what_is_noted_is_read_back(tmp_path: Path) -> None:
    file = SlotsFile(tmp_path)
    assert file.read() is None
    file.write({3, 1})
    file.write({2, 5})
    assert SlotsFile(tmp_path).read() == frozenset({2, 5})
    file.path.write_text("{")
    with pytest.raises(CorruptLogError):
        file.read()


async def test_a_node_notes_what_it_owns(tmp_path: Path, archive: Archive) -> None:
    async with open_members(tmp_path, archive, 2) as members:
        ring = await until_settled(archive, members)
        noted = [SlotsFile(tmp_path / f"node-{number}").read() for number in range(2)]
        for member, slots in zip(members, noted, strict=True):
            assert slots is not None
            owned = {slot for slot, owner in enumerate(ring.owners) if owner == member.node_id}
            assert owned <= slots


async def test_a_node_serves_no_slot_that_it_has_given_up(
    tmp_path: Path, archive: Archive, archive_url: str
) -> None:
    async with open_members(tmp_path, archive, 2) as members:
        first = members[0].node_id
    # As a backup from before the second one came has it.
    run_sql(archive_url, f"UPDATE slots SET owner = '{first}', target = '{first}'")
    with pytest.RaisesGroup(
        pytest.RaisesExc(RingRestoredError), allow_unwrapped=True, flatten_subgroups=True
    ):
        async with open_member(tmp_path / "node-0", archive) as member:
            await until_settled(archive, [member])
    SlotsFile(tmp_path / "node-0").path.unlink()
    async with open_member(tmp_path / "node-0", archive) as member:
        await until_settled(archive, [member])
        assert member.node.slots is not None
        assert len(member.node.slots.served) == SLOTS


async def test_a_claim_that_was_not_made_does_no_harm(tmp_path: Path, archive: Archive) -> None:
    async with open_members(tmp_path, archive, 1):
        pass
    SlotsFile(tmp_path / "node-0").write(set(range(SLOTS)))
    async with open_members(tmp_path, archive, 2):
        pass


async def test_a_disk_that_takes_no_note_keeps_a_node_from_claiming_and_ends_nothing(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "told to be full")

    async with open_members(tmp_path, archive, 1) as [first]:
        with monkeypatch.context() as patched:
            patched.setattr(SlotsFile, "write", refuse)
            (tmp_path / "node-1").mkdir()
            async with open_member(tmp_path / "node-1", archive) as second:
                member = second.cluster.member
                assert member is not None
                with trio.fail_after(20):
                    while member.stuck is None:
                        await trio.sleep(0.02)
                assert "told to be full" in member.stuck
                assert member.slots_served == 0
                patched.undo()
                await until_settled(archive, [first, second])
                assert member.slots_served > 0
