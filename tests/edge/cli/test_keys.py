import json
from pathlib import Path

import pytest

from tests.edge.cli.conftest import Ringlog


def test_a_key_is_shown_once_listed_without_itself_and_revoked(ringlog: Ringlog) -> None:
    made = ringlog("key", "create", "backend", "--scope", "read")
    key = made.out.strip()
    assert key.startswith("rl_")
    assert "scopes read" in made.err

    listed = ringlog("key", "list", "--json")
    [row] = json.loads(listed.out)["data"]
    assert (row["name"], row["scopes"], row["revoked_at"]) == ("backend", ["read"], None)
    assert key not in listed.out
    assert ringlog("key", "revoke", row["id"]).code == 0
    assert ringlog("key", "revoke", row["id"]).code == 3
    assert json.loads(ringlog("key", "list", "--json").out)["data"][0]["revoked_at"] is not None


def test_a_key_may_change_the_ring_only_if_it_was_made_to(ringlog: Ringlog) -> None:
    assert json.loads(ringlog("key", "create", "--json").out)["scopes"] == [
        "read",
        "tokens",
        "write",
    ]
    operator = ringlog("key", "create", "--scope", "admin", "--json")
    assert json.loads(operator.out)["scopes"] == ["admin"]


@pytest.mark.parametrize("arguments", [("--scope", "everything"), ("na me",), ("--workspace", "")])
def test_a_key_with_a_wrong_scope_or_name_is_refused(
    ringlog: Ringlog, arguments: tuple[str, ...]
) -> None:
    assert ringlog("key", "create", *arguments).code == 2


@pytest.mark.parametrize("arguments", [("list",), ("revoke", "key-1")])
def test_looking_for_keys_makes_no_archive(
    ringlog: Ringlog, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    refused = ringlog("key", *arguments, "--data=typo")

    assert (refused.code, "--data DIR" in refused.err) == (3, True)
    assert "typo/archive.db" in refused.err
    assert list(tmp_path.iterdir()) == []
