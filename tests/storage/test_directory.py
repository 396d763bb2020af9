import errno
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.directory import (
    LOCK_NAME,
    Directory,
    RealDirectory,
    RealFile,
    lock_holder,
    make_directory,
)
from storage.errors import DirectoryLockedError
from tests.contracts.directory import DirectoryContract


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealDirectory]:
    with RealDirectory(tmp_path / "log") as directory:
        yield directory


class TestRealDirectory(DirectoryContract):
    @pytest.fixture
    def directory(self, real: RealDirectory) -> Directory:
        return real


def test_directory_and_files_are_private(real: RealDirectory) -> None:
    real.create("a").close()
    assert stat.S_IMODE(Path(real.path).stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(real.path, "a").stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(real.path, LOCK_NAME).stat().st_mode) == 0o600


def test_parents_are_made(tmp_path: Path) -> None:
    with RealDirectory(tmp_path / "a" / "b") as directory:
        assert directory.names() == [LOCK_NAME]


def test_parents_that_were_made_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory is an entry of its parent: only a sync of that makes it last."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    RealDirectory(tmp_path / "a" / "b").close()
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]


def test_a_made_directory_is_synced_into_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
    )
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


def test_second_opening_is_refused_and_names_the_holder(real: RealDirectory) -> None:
    with pytest.raises(DirectoryLockedError) as caught:
        RealDirectory(real.path)
    assert caught.value.holder == f"process {os.getpid()}"
    assert str(os.getpid()) in str(caught.value)


def test_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from storage.directory import RealDirectory\n"
        "held = RealDirectory(sys.argv[1])\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(DirectoryLockedError) as caught:
            RealDirectory(tmp_path)
        assert caught.value.holder == f"process {process.pid}"
        process.kill()
    RealDirectory(tmp_path).close()


def test_closing_gives_up_the_lock_and_names_nobody(tmp_path: Path) -> None:
    RealDirectory(tmp_path).close()
    assert (tmp_path / LOCK_NAME).read_bytes() == b""
    RealDirectory(tmp_path).close()


def test_the_holder_of_the_lock_can_be_asked_for(real: RealDirectory) -> None:
    path = Path(real.path)
    assert lock_holder(path / "none") is None
    assert lock_holder(path) == f"process {os.getpid()}"
    real.sync()
    with pytest.raises(DirectoryLockedError):
        RealDirectory(path)


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    RealDirectory(tmp_path).close()
    (tmp_path / LOCK_NAME).write_text("1\n")
    assert lock_holder(tmp_path) is None
    RealDirectory(tmp_path).close()


def test_reading_only_takes_no_lock_and_makes_nothing(real: RealDirectory, tmp_path: Path) -> None:
    with RealDirectory(real.path, read_only=True) as reader:
        assert reader.names() == [LOCK_NAME]
    with pytest.raises(FileNotFoundError):
        RealDirectory(tmp_path / "missing", read_only=True)


def test_short_write_is_continued_until_the_kernel_refuses(real: RealDirectory) -> None:
    file = real.create("a")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The file size limit makes the kernel take a part and refuse the rest, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            file.write_at(900, b"x" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert file.size() == 1000
    file.close()


def test_file_sync_reaches_the_kernel() -> None:
    # A pipe cannot be synced, and only the kernel says so.
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            RealFile(writing).sync()
    finally:
        os.close(reading)
        os.close(writing)


def test_directory_sync_reaches_the_kernel(tmp_path: Path) -> None:
    directory = RealDirectory(tmp_path)
    reading, writing = os.pipe()
    os.dup2(writing, directory._descriptor)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            directory.sync()
    finally:
        directory.close()
        os.close(reading)
        os.close(writing)


def test_allocation_is_refused_when_it_cannot_be_kept(real: RealDirectory) -> None:
    file = real.create("a")
    with pytest.raises(OSError, match=r"No space left|File too large"):
        file.allocate(1 << 60)
    assert file.size() == 0
    file.close()
