from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from edge.watch import WATCH_SECONDS, Watch
from runtime import Node
from tests.edge.http_client import open_http
from tests.edge.one_port import SMALL_LOG, open_one_port
from tests.fakes.directory import CrashingDirectory, StallingDirectory
from tests.storage.sql import run_sql

MESSAGE = {"sender": "u", "content": "x"}


async def test_an_archive_outage_is_told_once_when_it_begins_and_once_when_it_ends(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/archive.db"
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        node = edge.node
        await http.post("/v1/sessions", {"id": "s", "user_id": "u"})
        await node.flusher.flush_all()
        watch = Watch(node)
        with capture_logs() as lines:
            watch.look()
            assert lines == []
            run_sql(url, "ALTER TABLE messages RENAME TO away")
            await http.post("/v1/sessions/s/messages", MESSAGE)
            with trio.fail_after(10):
                while node.flusher.failing_since is None:
                    await trio.sleep(0.01)
            for _ in range(5):
                await http.post("/v1/sessions/s/messages", MESSAGE)
                await trio.sleep(0.1)
                watch.look()
            run_sql(url, "ALTER TABLE away RENAME TO messages")
            await node.flusher.flush_all()
            for _ in range(3):
                watch.look()
        told = [line for line in lines if line["event"] != "http_request"]
        assert [(line["event"], line["log_level"]) for line in told] == [
            ("archive_failing", "warning"),
            ("archive_back", "info"),
        ]
        assert "no such table" in told[0]["reason"]
        assert told[0]["records_waiting"] >= 1
        assert told[1]["records_flushed"] == 6
        assert told[1]["records_waiting"] == 0
        assert 0.4 <= told[1]["seconds"] < 10


async def test_a_full_disk_is_told_once_when_it_begins_and_once_when_it_ends(
    tmp_path: Path,
) -> None:
    directory = CrashingDirectory()
    directory.faults.capacity_bytes = SMALL_LOG.segment_bytes * 3 // 2
    with capture_logs() as lines:
        async with open_one_port(tmp_path, directory=directory) as edge:
            with trio.fail_after(10):
                while not edge.node.log.statistics().full:
                    await trio.sleep(0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Watch(edge.node).run)
                await trio.sleep(2.2 * WATCH_SECONDS)
                directory.faults.capacity_bytes = None
                with trio.fail_after(10):
                    while lines[-1]["event"] != "storage_free":
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("storage_full", "warning"),
        ("storage_free", "info"),
    ]
    assert "no room" in lines[0]["reason"]
    assert lines[0]["hint"]
    assert 0 < lines[1]["seconds"] < 10


async def test_a_disk_that_does_not_answer_is_told_and_the_node_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.node.DISK_STALLED_SECONDS", 0.2)
    monkeypatch.setattr("edge.watch.DISK_STALLED_SECONDS", 0.2)
    directory = StallingDirectory()
    with capture_logs() as lines:
        async with (
            open_one_port(tmp_path, directory=directory) as edge,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(Watch(edge.node).run)
            directory.stalled = True
            nursery.start_soon(create_session, edge.node)
            with trio.fail_after(10):
                while not lines:
                    await trio.sleep(0.01)
            assert edge.node.not_ready() == ["disk_stalled"]
            directory.answer()
            with trio.fail_after(10):
                while len(lines) < 2:
                    await trio.sleep(0.01)
            assert edge.node.not_ready() == []
            nursery.cancel_scope.cancel()
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("disk_stalled", "warning"),
        ("disk_answers", "info"),
    ]
    assert 0.2 < lines[1]["seconds"] < 10


async def create_session(node: Node) -> None:
    await node.catalog.create(
        "default", "s1", user_id="alice", members=(), agent_id=None, metadata=b"{}"
    )
