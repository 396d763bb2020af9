from tests.edge.cli.conftest import Ringlog
from tests.edge.server_process import wait_until


def test_flush_status_says_that_the_archive_has_caught_up(talk: Ringlog) -> None:
    talk("session", "send", "flush", "x", "-u", "a", "--create")

    wait_until(lambda: talk("flush", "status", "--json").json["backlog_records"] == 0)
    status = talk("flush", "status", "--json")
    assert status.code == 0
    assert status.json["durable_lsn"] == status.json["flushed_lsn"] != 0
    assert status.json["failing"] is False
    assert "lag_seconds" in talk("flush", "status").out
