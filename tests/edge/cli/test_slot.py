"""`ringlog slot …`, on SQLite and on PostgreSQL."""

import json

import pytest

from runtime import plan_drain, slot_of
from storage import Archive
from tests.edge.cli.conftest import Ringlog
from tests.edge.cli.ring_archive import SLOTS, A, B, add_sessions, make_ring


def test_a_slot_is_shown_with_its_owner_its_target_and_its_sessions(
    ringlog: Ringlog, archive: Archive, archive_url: str
) -> None:
    make_ring(archive)
    names = [("default", f"s-{n}") for n in range(100)]
    add_sessions(archive, *names)
    ring = archive.read_ring()
    archive.change_ring(plan_drain(ring, B, at_ms=0, actor="ops"))
    slot = ring.owners.index(B)
    inside = [session for _, session in names if slot_of("default", session, SLOTS) == slot]
    flag = f"--archive={archive_url}"

    shown = ringlog("slot", "show", str(slot), flag, "--json").json
    assert shown == {"slot": slot, "owner": B, "target": A, "sessions": len(inside)}
    of_session = ringlog("slot", "show", "--session", inside[0], flag, "--json").json
    assert of_session == shown | {"workspace": "default", "session": inside[0], "exists": True}
    elsewhere = ringlog("slot", "show", "--session=s-1", "--workspace=other", flag, "--json").json
    assert elsewhere["slot"] == slot_of("other", "s-1", SLOTS)
    assert elsewhere["exists"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [((), 2, "usage"), (("1", "--session", "s"), 2, "usage"), ((str(SLOTS),), 3, "slot_not_found")],
)
def test_a_slot_that_is_not_there_is_refused(
    ringlog: Ringlog,
    archive: Archive,
    archive_url: str,
    arguments: tuple[str, ...],
    code: int,
    error: str,
) -> None:
    make_ring(archive)
    result = ringlog("slot", "show", *arguments, f"--archive={archive_url}", "--json")
    assert result.code == code
    assert json.loads(result.err)["error"]["code"] == error
