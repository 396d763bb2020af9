"""Syncs are counted from outside: only those of the load, each once, of all processes of a peer."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.peers.tracer import Tracer

TRACE = b"""\
11 1700000000.900000 fdatasync(7) = 0
11 1700000001.000000 openat(AT_FDCWD, "/d/wal", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 7
12 1700000001.100000 fdatasync(7 <unfinished ...>
11 1700000001.200000 fsync(9)                 = 0
12 1700000001.300000 <... fdatasync resumed>) = 0
12 1700000001.400000 openat(AT_FDCWD, "/d/meta.lmdb", O_WRONLY|O_DSYNC|O_CLOEXEC) = 8
12 1700000001.500000 openat(AT_FDCWD, "/d/once.tmp", O_WRONLY|O_SYNC|O_CLOEXEC) = 8
11 1700000001.900000 msync(0x7f0000000000, 4096, MS_SYNC) = 0
11 1700000002.100000 fsync(9)                 = 0
11 1700000002.200000 +++ exited with 0 +++
"""


def test_calls_of_the_load_are_counted_once_and_others_are_not(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path)
    for prefix in (tracer.prefix(), tracer.prefix()):
        Path(prefix[-1]).write_bytes(TRACE)
    assert tracer.count(1700000001, 1700000002) == 2 * 3
    assert tracer.opened_for_sync() == {"meta.lmdb"}


@pytest.mark.skipif(not Tracer.is_installed(), reason="strace is an extra of the machine")
def test_a_program_keeps_its_process_id_and_its_syncs_are_seen(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "print(os.getpid(), flush=True)\n"
        f"file = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "for n in range(5):\n"
        "    os.write(file, b'x')\n"
        "    os.fdatasync(file) if n else os.fsync(file)\n"
        "if os.fork() == 0:\n"
        "    os.fsync(file)\n"
        "else:\n"
        "    os.wait()\n"
        "print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    tracer = Tracer(tmp_path)
    start = time.time()
    with subprocess.Popen(
        [*tracer.prefix(), sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        assert process.stdout.readline() == b"done\n"
        counted = tracer.count(start, time.time())
        process.kill()
    assert counted == 6
