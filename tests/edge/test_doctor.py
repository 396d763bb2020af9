import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from agents.secretskey import encode_key, make_key
from edge.config import load_config
from edge.doctor import Finding, examine, measure_sync
from storage import ApiKey, open_archive
from tests.edge.server_process import join, open_socket, send, server_process

MEMORY = Path("/dev/shm")


def findings(tmp_path: Path, **flags: str) -> dict[str, Finding]:
    options = {"listen": "127.0.0.1:0", "data": str(tmp_path / "data")} | flags
    return {finding.what: finding for finding in examine(load_config(options, environment={}))}


def test_a_good_machine_has_no_failure(tmp_path: Path) -> None:
    assert {f.level for f in findings(tmp_path).values()} <= {"ok", "warning"}


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    findings(tmp_path, data=str(tmp_path / "a" / "b"))

    assert list(tmp_path.iterdir()) == []


def test_syncs_are_measured_in_ascending_order(tmp_path: Path) -> None:
    seconds = measure_sync(tmp_path)

    assert seconds == sorted(seconds)
    assert len(seconds) > 1
    assert seconds[0] > 0


@pytest.mark.skipif(not MEMORY.is_dir(), reason="no file system in memory here")
def test_a_file_system_in_memory_is_a_warning() -> None:
    found = findings(MEMORY, data=str(MEMORY / "ringlog-doctor"))["file system"]

    assert found.level == "warning"
    assert "on a disk" in found.fix


def test_too_little_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.doctor.SEGMENTS_WANTED", 1 << 40)

    assert findings(tmp_path)["disk space"].level == "warning"


def test_a_slow_disk_and_an_impossibly_fast_one_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.doctor.SYNC_MS_SLOW", 0.0)
    assert "faster disk" in findings(tmp_path)["sync latency"].fix
    monkeypatch.setattr("edge.doctor.SYNC_MS_SLOW", 1e9)
    monkeypatch.setattr("edge.doctor.SYNC_MS_IMPLAUSIBLE", 1e9)
    assert "stable storage" in findings(tmp_path)["sync latency"].fix


def test_a_low_limit_of_open_files_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.doctor.DESCRIPTORS_WANTED", 1 << 40)

    assert "ulimit -n" in findings(tmp_path)["file limit"].fix


def test_a_data_directory_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    found = findings(tmp_path, data=str(tmp_path / "file" / "data"))["data directory"]

    assert found.level == "failure"
    assert "flag --data" in found.fix


def test_an_address_in_use_is_a_failure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = findings(tmp_path, listen=f":{taken.getsockname()[1]}")["address"]

    assert (found.level, "in use" in found.detail) == ("failure", True)


def test_the_archive_is_looked_at_and_not_touched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/archive.db"
    assert "the first start" in findings(tmp_path, archive=url)["archive"].detail
    assert not (tmp_path / "archive.db").exists()

    open_archive(url).close()

    assert "at revision" in findings(tmp_path, archive=url)["archive"].detail


def test_a_key_that_does_not_fit_its_certificate_is_a_failure(tmp_path: Path) -> None:
    authority = trustme.CA()
    for name in ("one", "two"):
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    good = {"tls_cert": str(tmp_path / "one.pem"), "tls_key": str(tmp_path / "one.key")}
    bad = good | {"tls_key": str(tmp_path / "two.key")}

    assert findings(tmp_path, **good)["TLS"].level == "ok"
    assert findings(tmp_path, **bad)["TLS"].level == "failure"


def test_certificates_for_links_are_looked_at_too(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("10.0.0.5")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "node.pem")
    issued.private_key_pem.write_to_path(tmp_path / "node.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = {"cert": "node.pem", "key": "node.key", "ca": "ca.pem"}
    good = {f"link_{name}": str(tmp_path / file) for name, file in files.items()}
    good |= {"role": "edge"}

    assert findings(tmp_path, **good)["TLS on links"].level == "ok"
    bad = good | {"link_ca": str(tmp_path / "missing.pem")}
    assert findings(tmp_path, **bad)["TLS on links"].level == "failure"


def test_the_key_for_secrets_is_looked_at(tmp_path: Path) -> None:
    assert "secrets key" not in findings(tmp_path)
    assert findings(tmp_path, link="127.0.0.1:0")["secrets key"].level == "warning"
    path = tmp_path / "keys"
    key = make_key()
    path.write_text(encode_key(key))
    found = findings(tmp_path, link="127.0.0.1:0", secrets_key=str(path))["secrets key"]
    assert (found.level, key.id in found.detail) == ("ok", True)
    path.write_text("nonsense")
    found = findings(tmp_path, secrets_key=str(path))["secrets key"]
    assert (found.level, str(path) in found.detail) == ("failure", True)
    assert "openssl rand" in found.fix


def test_variables_that_nothing_reads_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGLOG_LISEN", "typo")

    assert "RINGLOG_LISEN" in findings(tmp_path)["options"].detail


def test_a_public_address_without_a_key_is_a_failure(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/archive.db"
    assert "key create" in findings(tmp_path, listen="0.0.0.0:0", archive=url)["keys"].fix
    archive = open_archive(url)
    archive.create_key(ApiKey("key-1", "", b"hash", ("read",), "default", 1))
    archive.close()

    assert "keys" not in findings(tmp_path, listen="0.0.0.0:0", archive=url)


def test_beside_its_own_server_all_is_well_and_another_start_would_fail(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server:
        server.wait_ready()
        own = findings(tmp_path, listen=server.address)
        other = findings(tmp_path)
        assert server.stop() == 0
    after = findings(tmp_path, listen=server.address)

    assert f"own server, process {server.pid}" in own["address"].detail
    assert {each.level for each in own.values()} <= {"ok", "warning"}
    assert other["lock"].level == "failure"
    assert f"in use by process {server.pid}" in other["lock"].detail
    assert {each.level for each in after.values()} <= {"ok", "warning"}
    assert "whole" in after["log"].detail


def test_an_archive_of_another_node_and_a_damaged_log_are_failures(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        with closing(sqlite3.connect(tmp_path / "data" / "archive.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            for text in ("damaged", "after"):
                send(websocket, "s", text)
            server.kill()
    assert findings(tmp_path)["log"].level == "ok"

    archive = f"sqlite:///{tmp_path}/data/archive.db"
    owned = findings(tmp_path, data=str(tmp_path / "other"), archive=archive)["archive"]
    assert (owned.level, "node retire" in owned.fix) == ("failure", True)

    (segment,) = (
        path
        for path in (tmp_path / "data" / "log").glob("*.log")
        if b"damaged" in path.read_bytes()
    )
    segment.write_bytes(segment.read_bytes().replace(b"damaged", b"Damaged"))
    damaged = findings(tmp_path)["log"]
    assert (damaged.level, "log verify" in damaged.fix) == ("failure", True)
    assert "at byte" in damaged.detail


def test_an_archive_in_a_directory_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    found = findings(tmp_path, archive=f"sqlite:///{tmp_path}/none/archive.db")["archive"]

    assert (found.level, "is no directory" in found.detail) == ("failure", True)
