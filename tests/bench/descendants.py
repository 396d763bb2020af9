"""A small family of real processes: what belongs to a server and is not the server's own process."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.report import MIB

BURN = "import time; [sum(range(1000)) for _ in iter(lambda: time.process_time() < 0.2, False)]"
"""Uses 0.2 s of a processor."""

_GRANDCHILD = f"""
{BURN}
held = b"x" * {20 * MIB}
import os, sys
print(os.getpid(), flush=True)
sys.stdin.readline()
"""

_CHILD = r"""
import os, subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
if sys.argv[2] == "grandchild":
    grandchild.communicate(b"\n")
print(os.getpid(), flush=True)
sys.stdin.readline()
grandchild.communicate(b"\n")
"""

_PARENT = r"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdin=subprocess.PIPE)
print(os.getpid(), flush=True)
sys.stdin.readline()
child.communicate(b"\n")
"""


@contextmanager
def open_family(*, ends: str = "nobody") -> Iterator[list[int]]:
    """Yield a process, its child, and its grandchild, which has worked for 0.2 s and holds 20 MiB.

    With `ends` of "grandchild" that one has ended, and its parent has taken note.
    """
    command = [sys.executable, "-c", _PARENT, _CHILD, _GRANDCHILD, ends]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = sorted(int(parent.stdout.readline()) for _ in range(3))
        yield pids
        parent.communicate(b"\n")
