"""`ringlog ring …` on an archive that has a ring, on SQLite and on PostgreSQL."""

import getpass
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from runtime import plan_drain, slot_of
from storage import Archive
from tests.edge.cli.conftest import Result, Ringlog
from tests.edge.cli.ring_archive import SLOTS, A, B, C, add_sessions, beating, make_ring, settle
from tests.edge.server_process import ROOT

OnRing = Callable[..., Result]


@pytest.fixture
def ring(archive: Archive) -> Archive:
    make_ring(archive)
    return archive


@pytest.fixture
def on_ring(ringlog: Ringlog, ring: Archive, archive_url: str) -> OnRing:
    """Run a command on the archive with the ring."""

    def run(*arguments: str) -> Result:
        return ringlog(*arguments, f"--archive={archive_url}")

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listen for less than half of the time."""
    monkeypatch.setattr("runtime.LISTEN_SECONDS", 0.1)


def states(archive: Archive) -> dict[str, str]:
    return {node.node_id: node.state for node in archive.read_ring().nodes}


def failure(result: Result) -> dict[str, str]:
    error: dict[str, str] = json.loads(result.err)["error"]
    return error


def test_the_ring_is_shown_with_what_each_owns_and_who_lives(
    on_ring: OnRing, ring: Archive
) -> None:
    shown = on_ring("ring", "show", "--json").json
    assert (shown["slots"], shown["moving"]) == (SLOTS, 0)
    nodes = {node["node_id"]: node for node in shown["data"]}  # type: ignore[attr-defined]
    assert set(nodes) == {A, B, C}
    assert nodes[A]["slots"] + nodes[B]["slots"] == SLOTS
    assert (nodes[C]["state"], nodes[C]["slots"]) == ("joining", 0)
    assert "alive" not in nodes[A]
    with beating(ring, A):
        probed = on_ring("ring", "show", "--probe", "--json").json
    alive = {node["node_id"]: node["alive"] for node in probed["data"]}  # type: ignore[attr-defined]
    assert alive == {A: True, B: False, C: False}


def test_a_plan_tells_every_slot_and_counts_and_names_sessions_and_changes_nothing(
    on_ring: OnRing, ring: Archive
) -> None:
    names = [(workspace, f"s-{n}") for workspace in ("acme", "default") for n in range(50)]
    add_sessions(ring, *names)
    before = ring.read_ring()
    plan: Any = on_ring("ring", "plan", "drain", B, "--sessions", "--json").json

    assert ring.read_ring() == before
    [pair] = plan["pairs"]
    slots = [slot for first, last in pair["ranges"] for slot in range(first, last + 1)]
    assert slots == [slot for slot, owner in enumerate(before.owners) if owner == B]
    assert (pair["source"], pair["target"], pair["slots"]) == (B, A, len(slots))
    moving = {name for name in names if slot_of(*name, SLOTS) in slots}
    assert plan["sessions_moved"] == pair["sessions"] == len(moving)
    assert plan["sessions_whole"] is True
    listed = {(move["workspace"], move["session"]) for move in plan["sessions"]}
    assert listed == moving

    limited = on_ring("ring", "plan", "drain", B, "--sessions", "--limit", "2")
    lines = limited.out.splitlines()
    assert lines[1].split("\t")[:4] == [B, A, str(len(slots)), str(len(moving))]
    assert lines[1].split("\t")[4].startswith("0" if slots[0] == 0 else str(slots[0]))
    assert len(lines) == 6
    assert "2 of them are listed" in limited.err
    assert f"{len(slots)} of {SLOTS} slots would move" in limited.err


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("plan", "drain"), 2, "usage"),
        (("plan", "rebalance", A), 2, "usage"),
        (("plan", "weight", A), 2, "usage"),
        (("plan", "drain", A, "3"), 2, "usage"),
        (("plan", "fly", A), 2, "usage"),
        (("plan", "drain", "nonsense"), 2, "invalid_field"),
        (("plan", "drain", "d" * 32), 3, "node_not_found"),
        (("drain", "d" * 32, "--yes"), 3, "node_not_found"),
        (("weight", A, "0"), 3, "ring_refused"),
        (("weight", A, "101"), 3, "ring_refused"),
        (("join", A), 3, "ring_refused"),
        (("undrain", A), 3, "ring_refused"),
        (("remove", A, "--yes"), 3, "ring_refused"),
        (("drain", A), 2, "not_confirmed"),
        (("remove", C), 2, "not_confirmed"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(
    on_ring: OnRing, ring: Archive, quick: None, arguments: tuple[str, ...], code: int, error: str
) -> None:
    before = ring.read_ring()
    with beating(ring, A, B):
        result = on_ring("ring", *arguments, "--json")
    assert (result.code, failure(result)["code"]) == (code, error)
    assert failure(result)["hint"]
    after = ring.read_ring()
    assert (after.version, after.targets) == (before.version, before.targets)


@pytest.mark.parametrize(
    "arguments",
    [("drain", B, "--yes"), ("weight", A, "9"), ("join", C)],
    ids=lambda arguments: arguments[0],
)
def test_slots_are_given_to_nodes_that_live_unless_it_is_forced(
    on_ring: OnRing, ring: Archive, quick: None, arguments: tuple[str, ...]
) -> None:
    version = ring.read_ring_version()
    refused = on_ring("ring", *arguments, "--json")
    assert (refused.code, failure(refused)["code"]) == (3, "nodes_silent")
    assert "--force" in failure(refused)["hint"]
    assert ring.read_ring_version() == version
    forced = on_ring("ring", *arguments, "--force", "--json")
    assert forced.code == 0
    assert forced.json["version"] == ring.read_ring_version() > version


def test_a_drain_is_made_waited_for_and_recorded(on_ring: OnRing, ring: Archive) -> None:
    dry = on_ring("ring", "drain", B, "--dry-run", "--json")
    assert dry.json["dry_run"] is True
    assert states(ring)[B] == "active"
    with beating(ring, A, and_settling=True):
        made = on_ring("ring", "drain", B, "--yes", "--wait")
    assert made.code == 0
    assert f"{B} → {A}" in made.err
    assert made.err.endswith("\n0 slots on their way\n")
    assert states(ring)[B] == "drained"
    history = on_ring("ring", "history", "--json").json["data"]
    drain = next(entry for entry in history if entry["action"] == "drain")  # type: ignore[attr-defined]
    assert (drain["actor"], drain["node_id"]) == (getpass.getuser(), B)
    assert drain["slots_moved"] == dry.json["slots_moved"] > 0  # type: ignore[operator]


def test_where_json_was_asked_for_nothing_else_is_said(on_ring: OnRing, ring: Archive) -> None:
    with beating(ring, A, and_settling=True):
        made = on_ring("ring", "drain", B, "--yes", "--wait", "--json")
        waited = on_ring("ring", "wait", "--json")
    assert (made.code, made.err) == (0, "")
    assert made.json["dry_run"] is False
    assert (waited.json["moving"], waited.err) == (0, "")


def test_waiting_ends_with_its_time_and_says_that_the_change_goes_on(
    on_ring: OnRing, ring: Archive
) -> None:
    ring.change_ring(plan_drain(ring.read_ring(), B, at_ms=0, actor="ops"))
    late = on_ring("ring", "wait", "--wait-seconds", "0.3", "--json")
    assert (late.code, failure(late)["code"]) == (5, "timeout")
    assert "ringlog ring wait" in failure(late)["hint"]
    settle(ring)
    assert on_ring("ring", "wait", "--wait-seconds", "0").code == 0


def test_a_drained_node_is_removed_once_it_is_stopped(
    on_ring: OnRing, ring: Archive, quick: None
) -> None:
    ring.change_ring(plan_drain(ring.read_ring(), B, at_ms=0, actor="ops"))
    moving = on_ring("ring", "remove", B, "--yes", "--json")
    assert failure(moving)["hint"].endswith("ringlog ring wait")
    settle(ring)
    with beating(ring, B):
        lives = on_ring("ring", "remove", B, "--yes", "--json")
    assert "lives" in failure(lives)["message"]
    assert on_ring("ring", "remove", B, "--dry-run").code == 0
    assert set(states(ring)) == {A, B, C}

    removed = on_ring("ring", "remove", B, "--yes")
    assert (removed.code, removed.err.splitlines()[-1]) == (0, f"{B} is removed")
    assert set(states(ring)) == {A, C}
    last = on_ring("ring", "remove", A, "--yes", "--json")
    assert "the last owner" in failure(last)["message"]


@pytest.mark.parametrize("command", [("show",), ("plan", "rebalance"), ("rebalance",), ("wait",)])
def test_an_archive_without_a_ring_says_so(
    ringlog: Ringlog, archive: Archive, archive_url: str, command: tuple[str, ...]
) -> None:
    archive.begin_epoch(A, "local")
    result = ringlog("ring", *command, f"--archive={archive_url}", "--json")
    assert (result.code, failure(result)["code"]) == (3, "no_ring")
    assert "--link" in failure(result)["hint"]


def test_ctrl_c_ends_the_waiting_and_not_the_change(ring: Archive, archive_url: str) -> None:
    ring.change_ring(plan_drain(ring.read_ring(), B, at_ms=0, actor="ops"))
    seen, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "ring", "wait", f"--archive={archive_url}"],
        stdin=subprocess.DEVNULL, stderr=terminal, cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(terminal)
    said = b""
    with process:
        # The bar is drawn: the waiting has begun.
        while b"0 of " not in said:
            said += os.read(seen, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    said += os.read(seen, 65536)
    os.close(seen)

    assert b"the change goes on by itself; to wait for it again: ringlog ring wait" in said
    assert b"Traceback" not in said
    assert states(ring)[B] == "draining"
