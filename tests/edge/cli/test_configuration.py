import json
from pathlib import Path

import pytest

from tests.edge.cli.conftest import Ringlog


def test_config_show_says_where_each_value_came_from(
    ringlog: Ringlog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ringlog.toml").write_text('data = "here"')
    monkeypatch.setenv("RINGLOG_ARCHIVE", "postgresql://u:hunter2@h/db")
    monkeypatch.setenv("RINGLOG_LISEN", "typo")

    result = ringlog("config", "show", "--listen", ":1", "--json")

    rows = {row["option"]: row for row in json.loads(result.out)["data"]}
    assert rows["listen"] == {
        "option": "listen", "value": "127.0.0.1:1", "origin": "flag --listen",
    }  # fmt: skip
    assert rows["data"]["origin"] == "file ringlog.toml"
    assert rows["archive"]["value"] == "postgresql://u:…@h/db"
    assert rows["drain_seconds"]["origin"] == "default"
    assert "RINGLOG_LISEN" in result.err
    assert "hunter2" not in ringlog("config", "show").out
