import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.postgres import PostgresServer, PrivatePostgresServer
from bench.processes import (
    cpu_seconds,
    family,
    family_cpu_seconds,
    family_resident_bytes,
    find_postmaster,
    resident_bytes,
)
from bench.report import MIB
from tests.bench.descendants import BURN, open_family


def test_our_own_processor_time_and_memory_can_be_read() -> None:
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) < before + 0.05:
        sum(range(100_000))
    assert resident_bytes(os.getpid()) > 1 << 20


@contextmanager
def open_parent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that worked little, of a child that worked 0.2 s and is gone."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}]); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        yield parent
        parent.communicate(b"\n")


def test_a_family_counts_the_children_that_have_ended() -> None:
    with open_parent() as parent:
        alone, family = cpu_seconds(parent.pid), family_cpu_seconds(parent.pid)
    assert family - alone >= 0.15


def test_a_family_is_all_its_generations() -> None:
    with open_family() as pids:
        assert family(pids[0]) == pids


def test_a_family_counts_what_its_descendants_use_and_hold_while_they_live() -> None:
    with open_family() as (parent, child, grandchild):
        alone, together = cpu_seconds(parent), family_cpu_seconds(parent)
        assert together - alone == pytest.approx(cpu_seconds(child) + cpu_seconds(grandchild))
        assert cpu_seconds(grandchild) >= 0.15
        held = sum(map(resident_bytes, (parent, child, grandchild)))
        assert family_resident_bytes(parent) == pytest.approx(held, rel=0.02)
        assert resident_bytes(grandchild) > 20 * MIB


def test_a_descendant_that_ended_and_was_waited_for_is_still_counted() -> None:
    with open_family(ends="grandchild") as (parent, child, _):
        assert family(parent) == [parent, child]
        assert family_cpu_seconds(parent) - cpu_seconds(parent) - cpu_seconds(child) >= 0.15


def test_the_postmaster_is_the_parent_of_what_answers(postgres_server: PostgresServer) -> None:
    assert isinstance(postgres_server, PrivatePostgresServer)
    assert find_postmaster(postgres_server.url("postgres")) == postgres_server.pid


def test_another_archive_or_one_elsewhere_has_no_processes_here() -> None:
    assert find_postmaster("sqlite:////tmp/archive.db") is None
    assert find_postmaster("postgresql://ringlog@192.0.2.1/ringlog") is None
