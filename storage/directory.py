"""The seam between the log and the file system: what a directory and a file must do.

What the log relies on, and the contract suite checks:

- `File.sync` returns only when all that was written to the file before is durable.
- `Directory.sync` returns only when every create, rename and unlink before it is durable.
- A rename is atomic and replaces what had the new name: after a crash that is one or the other.
- `File.allocate` reserves: writes below the allocated size do not fail for want of space.
- `File.write_at` writes all of the data or raises; what a failed write left behind is unknown.

All methods block; they are called in worker threads.
"""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from storage.errors import DirectoryLockedError

LOCK_NAME = "lock"
_UNNAMED = "another process"


class File(Protocol):
    """A file of the log."""

    def size(self) -> int:
        """Return the length in bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end of the file."""

    def write_at(self, offset: int, data: bytes | bytearray) -> None:
        """Write all of `data` at `offset`, or raise OSError."""

    def allocate(self, size: int) -> None:
        """Reserve disk space for the first `size` bytes; the file becomes that long, of zeros."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""

    def sync(self) -> None:
        """Make all that was written durable."""

    def close(self) -> None:
        """Close the file; it may be called once."""


class Directory(Protocol):
    """A directory of the log, held by one process."""

    @property
    def path(self) -> str:
        """Return the path, for messages."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def create(self, name: str) -> File:
        """Create an empty file that must not exist yet."""

    def open(self, name: str, *, writable: bool = False) -> File:
        """Open a file that exists."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of the file that had it."""

    def unlink(self, name: str) -> None:
        """Remove a file."""

    def sync(self) -> None:
        """Make creates, renames and unlinks durable."""


class RealFile:
    """A file on disk. Errors of the kernel are reported on this one descriptor: it is never reopened."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def size(self) -> int:
        """Return the length in bytes."""
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end of the file."""
        data = os.pread(self._descriptor, length, offset)
        if len(data) == length or not data:
            return data
        return data + self.read_at(offset + len(data), length - len(data))

    def write_at(self, offset: int, data: bytes | bytearray) -> None:
        """Write all of `data` at `offset`, or raise OSError.

        A nearly full disk takes a part and refuses the rest: the part is written on until the kernel
        either takes all or says why not.
        """
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            step = os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)
            if step == 0:
                raise OSError(errno.EIO, "the disk takes no more and does not say why")
            written += step

    def allocate(self, size: int) -> None:
        """Reserve disk space for the first `size` bytes; the file becomes that long, of zeros."""
        os.posix_fallocate(self._descriptor, 0, size)

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """Make all that was written durable."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; it may be called once."""
        os.close(self._descriptor)


class RealDirectory:
    """A directory on disk, private to its user and locked against a second process.

    With `read_only` nothing is created and the lock is not taken: for tools that look at a log which a
    server may be writing.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self._path = Path(path)
        self._lock: int | None = None
        if not read_only:
            make_directory(self._path)
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not read_only:
            try:
                self._lock = self._take_lock()
            except BaseException:
                os.close(self._descriptor)
                raise

    @property
    def path(self) -> str:
        """Return the path, for messages."""
        return str(self._path)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(os.listdir(self._descriptor))  # noqa: PTH208 - by descriptor

    def create(self, name: str) -> RealFile:
        """Create an empty file that must not exist yet."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return RealFile(os.open(name, flags, 0o600, dir_fd=self._descriptor))

    def open(self, name: str, *, writable: bool = False) -> RealFile:
        """Open a file that exists."""
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        return RealFile(os.open(name, flags, dir_fd=self._descriptor))

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of the file that had it."""
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def unlink(self, name: str) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """Make creates, renames and unlinks durable."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the directory and give up the lock, whose text then names nobody."""
        if self._lock is not None:
            with suppress(OSError):
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None
        os.close(self._descriptor)

    def _take_lock(self) -> int:
        """Hold the lock file with `flock`, which ends with the process however that ends.

        The file's text only names the holder for the one who is refused.
        """
        descriptor = os.open(
            LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._descriptor
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read_holder(descriptor)
            os.close(descriptor)
            raise DirectoryLockedError(self.path, holder) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        return descriptor

    def __enter__(self) -> "RealDirectory":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def lock_holder(path: Path) -> str | None:
    """Return who holds a directory, as a refused process would be told; None if nobody does.

    To find out it shares the lock for a moment, and only where a process left its id: a clean end does not.
    """
    try:
        descriptor = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if _read_holder(descriptor) != _UNNAMED:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read_holder(descriptor: int) -> str:
    holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
    return f"process {holder}" if holder else _UNNAMED


def make_directory(path: Path) -> None:
    """Create a directory, private to its user, and its parents, all of them durably.

    A directory that is not synced into its parent can vanish with all that is durable in it.
    """
    missing = [path, *path.parents]
    missing = [each for each in missing if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(each.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
