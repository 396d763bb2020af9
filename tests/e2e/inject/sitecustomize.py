"""Loaded by Python before a server that a test starts: its disk fails as files in a folder say.

Only what the commit log calls is touched; SQLite has the operating system for itself. The folder is
`$FAULTS`; a file in it is a fault for as long as it is there::

    sync_error     the next fdatasync fails with EIO; once, as after a real one the kernel forgets
    full           nothing can be reserved, and no file grows
    short_writes   the kernel takes a third of every write
    slow_sync      every fdatasync takes as many seconds as the file says
    kill_at        kill -9 at the operation whose number the file says, counted from the start
"""

import errno
import os
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("FAULTS", "no faults"))

_fdatasync, _pwrite, _allocate = os.fdatasync, os.pwrite, os.posix_fallocate
_operations = count(1)


def wanted(fault: str) -> bool:
    return (FOLDER / fault).exists()


def value(fault: str) -> str:
    return (FOLDER / fault).read_text()


def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        operation_number = next(_operations)
        if wanted("kill_at") and operation_number == int(value("kill_at")):
            os.kill(os.getpid(), signal.SIGKILL)
        return operation(*args, **kwargs)

    return run


def fdatasync(descriptor: int) -> None:
    if wanted("slow_sync"):
        time.sleep(float(value("slow_sync")))  # noqa: TID251 - stands for the disk
    if wanted("sync_error"):
        (FOLDER / "sync_error").unlink()
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    _fdatasync(descriptor)


def pwrite(descriptor: int, data: Any, offset: int) -> int:
    if wanted("full") and offset + len(data) > os.fstat(descriptor).st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if wanted("short_writes"):
        data = memoryview(data)[: max(1, len(data) // 3)]
    return _pwrite(descriptor, data, offset)


def allocate(descriptor: int, offset: int, length: int) -> None:
    if wanted("full"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _allocate(descriptor, offset, length)


if FOLDER.is_dir():
    os.fdatasync = counted(fdatasync)
    os.pwrite = counted(pwrite)
    os.posix_fallocate = counted(allocate)
    for name in ("fsync", "ftruncate", "rename", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
