import json
import os
import socket
from pathlib import Path

import pytest

from tests.edge.cli.conftest import Ringlog, stranger


def test_health_is_0_when_ready_and_4_when_there_is_no_server(
    talk: Ringlog, ringlog: Ringlog
) -> None:
    healthy = talk("health", "--json")
    assert (healthy.code, healthy.json["ready"], healthy.json["reasons"]) == (0, True, [])
    assert (healthy.json["role"], healthy.json["epoch"]) == ("all", 1)
    assert healthy.json["ring_state"] is None

    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"--url=http://127.0.0.1:{free.getsockname()[1]}"
    away = ringlog("health", url)
    assert away.code == 4
    assert away.out == ""
    assert "ringlog serve" in away.err
    assert ringlog("session", "tail", "s", url).code == 4


def test_doctor_finds_a_good_machine_good_and_changes_nothing(
    ringlog: Ringlog, tmp_path: Path
) -> None:
    result = ringlog("doctor", "--listen", ":0", "--data", "deep/data", "--json")

    findings = {row["what"]: row for row in json.loads(result.out)["data"]}
    assert result.code == 0
    assert {"data directory", "sync latency", "file limit", "archive", "address"} <= set(findings)
    assert "fdatasync takes" in findings["sync latency"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_doctor_gives_each_failure_its_fix(ringlog: Ringlog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = ringlog(
            "doctor", "--listen", f":{port}", "--data", "file/data",
            "--archive", f"postgresql://u:hunter2@127.0.0.1:{port}/x",
        )  # fmt: skip

    assert result.code == 1
    assert f"FAIL  address: 127.0.0.1:{port} is in use" in result.out
    assert "FAIL  data directory: file/data: Not a directory" in result.out
    assert "FAIL  archive: postgresql://u:…@127.0.0.1" in result.out
    assert result.out.count("→") >= 3
    assert "hunter2" not in result.out


def test_doctor_looks_at_the_directory_of_another_user_to_the_end(
    ringlog: Ringlog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    private.chmod(0)
    monkeypatch.setenv("RINGLOG_CONFIG", os.devnull)
    with stranger():
        result = ringlog("doctor", "--listen", ":0", f"--data={private}/data")
        own = ringlog("doctor", "--listen", ":0", f"--data={private}")
    private.chmod(0o700)

    for found in (result, own):
        assert found.code == 1
        assert "FAIL  data directory: " in found.out
        assert "FAIL  archive: " in found.out
        assert "ok    address: " in found.out
        assert "can be written" not in found.out
