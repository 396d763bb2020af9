"""What is told of a server is told of its process and of all that it started."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from bench.processes import resident_bytes
from bench.report import MIB, Figure
from bench.usage import FLUSH, FLUSH_MEMORY, MEMORY, SERVER, Usage, memory_figures, server_readers
from tests.bench.descendants import BURN, open_family

BURNER = f"import sys; sys.stdin.readline(); {BURN}; print(flush=True); sys.stdin.readline()"

BURNERS_PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
"""


def values(figures: list[Figure]) -> dict[str, float]:
    return {figure.name: figure.value for figure in figures}


@contextmanager
def open_process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.communicate(b"\n")


async def burn(command: list[str]) -> dict[str, float]:
    """Return the usage of a process while it, or its child, uses 0.2 s of a processor."""
    with open_process(command) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        # Until its child is there.
        await trio.sleep(0.2)
        usage, start = Usage(server_readers(server.pid)), trio.current_time()
        server.stdin.write(b"\n")
        server.stdin.flush()
        await trio.to_thread.run_sync(server.stdout.readline)
        found = values(usage.figures())
        elapsed = trio.current_time() - start
    return {name: cores * elapsed for name, cores in found.items()}


async def test_what_a_child_uses_is_the_servers_and_told_beside_it() -> None:
    seconds = await burn([sys.executable, "-c", BURNERS_PARENT, BURNER])
    assert list(seconds) == [SERVER, FLUSH]
    assert 0.15 <= seconds[FLUSH] <= seconds[SERVER]


async def test_a_server_without_a_child_says_nothing_of_one() -> None:
    seconds = await burn([sys.executable, "-c", BURNER])
    assert list(seconds) == [SERVER]
    assert seconds[SERVER] >= 0.15


def test_the_memory_of_a_server_is_that_of_all_it_started() -> None:
    with open_family() as (server, child, grandchild):
        sizes = values(memory_figures(server))
        started = (resident_bytes(child) + resident_bytes(grandchild)) / MIB
        own = resident_bytes(server) / MIB
    assert list(sizes) == [MEMORY, FLUSH_MEMORY]
    assert sizes[FLUSH_MEMORY] == pytest.approx(started, rel=0.02)
    assert sizes[MEMORY] == pytest.approx(started + own, rel=0.02)
    with open_process([sys.executable, "-c", "input()"]) as alone:
        assert list(values(memory_figures(alone.pid))) == [MEMORY]
