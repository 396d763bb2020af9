import json
from pathlib import Path

import pytest

from bench.report import write_json
from bench.scenarios.append import AppendOptions, run_append
from bench.scenarios.memory import MemoryOptions, run_memory


@pytest.mark.parametrize("joined", [False, True])
async def test_a_short_append_run_has_a_rate_and_a_clean_verdict(
    tmp_path: Path, joined: bool
) -> None:
    options = AppendOptions(
        connections=4,
        in_flight=4,
        seconds=0.5,
        content_bytes=200,
        joined=joined,
        directory=tmp_path,
    )
    report = await run_append(options)
    write_json(report, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["scenario"] == "append"
    assert written["rate_per_second"] > 0
    assert written["acked"] > 0
    assert set(written["ack_ms"]) == {"p50", "p90", "p99", "p999", "max"}
    assert set(written["fdatasync_ms"]) == {"p50", "p99"}
    assert written["verdict"] == {
        "ok": True,
        "lost": 0,
        "duplicated": 0,
        "reordered": 0,
        "changed": 0,
        "phantom": 0,
        "gap": 0,
    }
    assert written["config"]["joined"] is joined
    assert written["server_cpu"] > 0
    assert written["server_rss_bytes"] > 0


async def test_sessions_and_connections_can_be_weighed(tmp_path: Path) -> None:
    options = MemoryOptions(sessions=300, connections=20, directory=tmp_path, settle_seconds=0.1)
    report = await run_memory(options)
    assert report.rss_bytes > 0
    assert report.sessions == 300
