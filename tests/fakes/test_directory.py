import errno
from random import Random

import pytest

from storage.directory import Directory
from tests.contracts.directory import DirectoryContract
from tests.fakes.directory import SECTOR_BYTES, CrashingDirectory, PowerCutError


class TestCrashingDirectory(DirectoryContract):
    @pytest.fixture
    def directory(self) -> Directory:
        return CrashingDirectory()


def test_synced_content_survives_every_crash() -> None:
    directory = CrashingDirectory()
    file = directory.create("a")
    file.write_at(0, b"kept" * 1000)
    file.sync()
    directory.sync()
    for seed in range(20):
        assert bytes(directory.crash(Random(seed)).content("a")) == b"kept" * 1000


def test_unsynced_sectors_survive_in_part() -> None:
    directory = CrashingDirectory()
    file = directory.create("a")
    file.allocate(100 * SECTOR_BYTES)
    file.sync()
    directory.sync()
    file.write_at(0, b"x" * 100 * SECTOR_BYTES)
    survivors = {directory.crash(Random(seed)).content("a").count(b"x") for seed in range(10)}
    assert len(survivors) > 1
    assert all(0 < count < 100 * SECTOR_BYTES for count in survivors)


def test_unsynced_entries_may_be_lost_or_kept() -> None:
    directory = CrashingDirectory()
    directory.create("a.tmp").close()
    directory.sync()
    directory.rename("a.tmp", "a")
    found = {tuple(directory.crash(Random(seed)).names()) for seed in range(20)}
    assert found == {("a",), ("a.tmp",)}


def test_restart_keeps_everything_but_leaves_it_unsynced() -> None:
    directory = CrashingDirectory()
    file = directory.create("a")
    file.write_at(0, b"x")
    after = directory.restart()
    assert bytes(after.content("a")) == b"x"
    assert any(after.crash(Random(seed)).names() == [] for seed in range(20))


def test_failed_sync_loses_sectors_that_are_still_seen() -> None:
    directory = CrashingDirectory()
    file = directory.create("a")
    file.allocate(10)
    file.sync()
    directory.sync()
    file.write_at(0, b"x")
    directory.fail("sync", 2, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()
    assert file.read_at(0, 1) == b"x"
    assert bytes(directory.crash(Random(0)).content("a")) == bytes(10)


def test_full_disk_takes_what_fits() -> None:
    directory = CrashingDirectory()
    directory.faults.capacity_bytes = 10
    file = directory.create("a")
    file.write_at(0, b"x" * 6)
    with pytest.raises(OSError, match="No space"):
        file.write_at(6, b"y" * 6)
    assert file.read_at(0, 99) == b"x" * 6 + b"y" * 4
    with pytest.raises(OSError, match="No space"):
        file.allocate(11)
    file.write_at(0, b"z" * 10)


def test_nothing_works_after_a_power_cut() -> None:
    directory = CrashingDirectory()
    file = directory.create("a")
    directory.faults.power_cut_at = 2
    with pytest.raises(PowerCutError):
        file.write_at(0, b"x")
    with pytest.raises(PowerCutError):
        directory.sync()
