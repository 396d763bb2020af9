"""`ringlog node …` on an archive that nodes have started on."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from storage import Archive, open_archive
from tests.edge.cli.conftest import Ringlog
from tests.edge.cli.ring_archive import A, B, C, beating, make_ring
from tests.edge.server_process import ROOT

NODE = uuid.UUID("7c0e5a1d-e366-4a2c-8f0c-4c3a2b1f9d10")
OTHER = uuid.UUID("00000000-0000-4000-8000-000000000001")


@pytest.fixture
def flag(tmp_path: Path) -> str:
    return f"--archive=sqlite:///{tmp_path}/archive.db"


@pytest.fixture
def owned(tmp_path: Path) -> Archive:
    archive = open_archive(f"sqlite:///{tmp_path}/archive.db")
    archive.begin_epoch(NODE.hex, "local")
    archive.close()
    return archive


def test_a_node_is_listed_and_retired_and_then_another_may_begin(
    ringlog: Ringlog, owned: Archive, flag: str
) -> None:
    row = {"node_id": NODE.hex, "in_ring": False, "state": None}
    row |= {"epoch": 1, "flushed_lsn": 0, "retired": False}
    assert ringlog("node", "list", flag, "--json").json["data"] == [row]
    retired = ringlog("node", "retire", str(NODE), "--yes", flag)
    assert retired.code == 0
    assert "everything below LSN 0" in retired.err
    assert "are lost" in retired.err
    listed = json.loads(ringlog("node", "list", flag, "--json").out)["data"]
    assert listed == [row | {"retired": True}]
    assert owned.begin_epoch(OTHER.hex, "local").epoch == 1
    owned.close()
    assert ringlog("node", "retire", NODE.hex, "--yes", flag).code == 3


@pytest.mark.parametrize(("node_id", "code"), [(OTHER.hex, 3), ("nonsense", 2), (NODE.hex, 2)])
def test_what_cannot_be_retired_is_refused_and_nothing_is_without_a_yes(
    ringlog: Ringlog, owned: Archive, flag: str, node_id: str, code: int
) -> None:
    assert ringlog("node", "retire", node_id, flag).code == code
    assert [node.retired for node in owned.list_nodes()] == [False]
    owned.close()


def test_looking_for_nodes_makes_no_archive(ringlog: Ringlog, tmp_path: Path) -> None:
    assert ringlog("node", "list", f"--data={tmp_path}").code == 3
    assert list(tmp_path.iterdir()) == []


def test_where_json_was_asked_for_nothing_else_is_said(
    ringlog: Ringlog, owned: Archive, flag: str
) -> None:
    retired = ringlog("node", "retire", NODE.hex, "--yes", flag, "--json")

    assert (retired.json["retired"], retired.err) == (True, "")
    owned.close()


@pytest.mark.parametrize(("answer", "code"), [("ctrl-c", 130), ("n", 1), ("y", 0)])
def test_a_question_takes_a_no_and_a_ctrl_c(
    owned: Archive, flag: str, answer: str, code: int
) -> None:
    terminal, stdin = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "node", "retire", NODE.hex, flag],
        stdin=stdin, stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    os.close(stdin)
    with process:
        assert process.stderr is not None
        said = b""
        while not said.endswith(b"[y/N]: "):
            said += process.stderr.read(1)
        if answer == "ctrl-c":
            process.send_signal(signal.SIGINT)
        else:
            os.write(terminal, f"{answer}\n".encode())
        rest = process.stderr.read()
        assert process.wait(20) == code
    os.close(terminal)

    assert b"Traceback" not in rest
    assert [node.retired for node in owned.list_nodes()] == [answer == "y"]
    owned.close()


def test_a_node_of_a_ring_is_listed_with_its_state_and_shown_with_its_place(
    ringlog: Ringlog, archive: Archive, archive_url: str
) -> None:
    make_ring(archive)
    flag = f"--archive={archive_url}"
    listed = json.loads(ringlog("node", "list", flag, "--json").out)["data"]
    assert [(row["node_id"], row["in_ring"], row["state"]) for row in listed] == [
        (A, True, "active"),
        (B, True, "active"),
        (C, True, "joining"),
    ]
    shown = ringlog("node", "show", A, flag, "--json").json
    assert shown == listed[0] | {
        "weight": 1,
        "link": "127.0.0.1:1",
        "slots": archive.read_ring().owners.count(A),
        "slots_meant": archive.read_ring().targets.count(A),
    }
    with beating(archive, A):
        assert ringlog("node", "show", A, "--probe", flag, "--json").json["alive"] is True
        assert ringlog("node", "show", B, "--probe", flag, "--json").json["alive"] is False


def test_a_node_outside_the_ring_is_shown_too_and_one_that_never_was_is_not(
    ringlog: Ringlog, owned: Archive, flag: str
) -> None:
    shown = ringlog("node", "show", str(NODE), flag, "--json").json
    assert (shown["in_ring"], shown["state"], shown["link"]) == (False, None, None)
    assert (shown["slots"], shown["slots_meant"], shown["epoch"]) == (0, 0, 1)
    missing = ringlog("node", "show", OTHER.hex, flag, "--json")
    assert missing.code == 3
    assert json.loads(missing.err)["error"]["code"] == "node_not_found"
    owned.close()
