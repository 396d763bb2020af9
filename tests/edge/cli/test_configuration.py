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
    assert (result.json["unknown_variables"], result.err) == (["RINGLOG_LISEN"], "")
    assert "RINGLOG_LISEN" in ringlog("config", "show").err
    assert "hunter2" not in ringlog("config", "show").out


def test_config_show_has_the_options_of_commands_and_masks_the_key(
    ringlog: Ringlog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.toml").write_text('timeout_seconds = 3\nlisten = ":4123"')
    monkeypatch.setenv("RINGLOG_KEY", "rl_0123456789secret")

    result = ringlog("config", "show", "--config", "other.toml", "--json")

    rows = {row.pop("option"): row for row in json.loads(result.out)["data"]}
    assert rows["url"] == {"value": "http://127.0.0.1:4123", "origin": "default"}
    assert rows["key"] == {"value": "rl_0123…", "origin": "environment RINGLOG_KEY"}
    assert rows["timeout_seconds"] == {"value": "3.0", "origin": "file other.toml"}
