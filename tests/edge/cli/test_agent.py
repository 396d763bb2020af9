import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from agents.secretskey import encode_key, key_ids, make_key, read_keys
from storage import open_archive
from tests.edge.cli.conftest import Ringlog
from tests.edge.server_process import ServerProcess, server_process

URL = "https://agents.example/hook"
CANARY = "canary-1f0e2d"

_numbers = count(1)


@pytest.fixture
def name() -> str:
    """An id that no other test uses: they share the server."""
    return f"agent-{next(_numbers)}"


def test_an_agent_is_added_shown_changed_and_removed(talk: Ringlog, name: str) -> None:
    added = talk("agent", "add", name, "--endpoint", URL, "--set", "debounce_window_ms=0")
    assert added.code == 0
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=\n", added.out)
    assert "not shown again" in added.err

    shown = talk("agent", "show", name, "--json")
    assert (shown.json["url"], shown.json["debounce_window_ms"]) == (URL, 0)
    assert added.out.strip() not in shown.out
    assert f"id                     {name}" in talk("agent", "show", name).out

    edited = talk("agent", "edit", name, "--set", "status=disabled", "--set", 'metadata={"a":1}')
    assert (edited.code, edited.out) == (0, "")
    assert talk("agent", "show", name, "--json").json["version"] == 2

    looked = talk("agent", "remove", name, "--dry-run", "--json")
    assert (looked.code, looked.json["removed"]) == (0, False)
    assert talk("agent", "remove", name).code == 2
    removed = talk("agent", "remove", name, "--yes", "--json")
    assert (removed.code, removed.json["removed"]) == (0, True)
    assert talk("agent", "show", name).code == 3
    assert talk("agent", "remove", name, "--yes").code == 3


def test_agents_are_listed_in_pages_with_the_built_in_ones(talk: Ringlog, name: str) -> None:
    talk("agent", "add", name, "--type", "pull")
    found: list[str] = []
    cursor: list[str] = []
    while True:
        page = json.loads(talk("agent", "list", "--limit", "1", *cursor, "--json").out)
        found += [row["id"] for row in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = ["--cursor", page["next_cursor"]]
    assert {"echo", "lorem", name} <= set(found)
    assert found == sorted(found)
    listed = talk("agent", "list", "--limit", "1")
    assert "more: --cursor" in listed.err


def test_secrets_come_from_a_variable_a_file_or_stdin(
    talk: Ringlog, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", f"{CANARY}-env")
    (tmp_path / "key").write_text(f"{CANARY}-file\n")
    added = talk(
        "agent", "add", name, "--type=openai", f"--endpoint={URL}", "--model=m", "--bearer=env:MY_KEY",
        "--header", "X-File=file:key", "--header", "X-Stdin=-", "--json", stdin=f"{CANARY}-stdin\n",
    )  # fmt: skip
    assert added.code == 0, added.err
    assert added.json["header_names"] == ["X-File", "X-Stdin", "Authorization"]
    edited = talk("agent", "edit", name, "--remove-header", "x-file", "--json")
    assert edited.json["header_names"] == ["X-Stdin", "Authorization"]
    shown = talk("agent", "show", name)
    for result in (added, edited, shown):
        assert CANARY not in result.out + result.err


def test_a_signing_secret_is_replaced_in_two_steps(talk: Ringlog, name: str) -> None:
    first = talk("agent", "add", name, "--endpoint", URL).out
    second = talk("agent", "edit", name, "--signing-secret", "generate")
    assert second.out.startswith("whsec_")
    assert second.out != first
    assert talk("agent", "show", name, "--json").json["signing_secrets"] == 2
    retired = talk("agent", "edit", name, "--signing-secret", "retire")
    assert (retired.code, retired.out) == (0, "")
    assert talk("agent", "show", name, "--json").json["signing_secrets"] == 1
    own = talk("agent", "edit", name, "--signing-secret", "-", "--json", stdin="whsec_" + "A" * 32)
    assert (own.code, "signing_secret" in own.json) == (0, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--header", f"Authorization={CANARY}"),
        ("--header", CANARY),
        ("--header", "X-A=env:NOT_SET_ANYWHERE"),
        ("--header", "X-A=file:none"),
        ("--header", "X-A=-", "--header", "X-B=-"),
        ("--header", "X-A=-"),
        ("--bearer", CANARY),
        ("--signing-secret", f"whsec_{CANARY}"),
        ("--set", f"signing_secret={CANARY}"),
        ("--set", f'headers={{"a":"{CANARY}"}}'),
        ("--set", "timeout_ms"),
        ("--set", "timeout_ms=soon"),
        ("--set", "timeout_ms=1"),
        ("--set", "status=asleep"),
        ("--system-file", "none"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_repeating_a_secret(
    talk: Ringlog, name: str, arguments: tuple[str, ...]
) -> None:
    for verb in ("add", "edit"):
        refused = talk("agent", verb, name, "--endpoint", URL, *arguments)
        if verb == "edit" and "--set" in arguments and "=" in arguments[1]:
            assert refused.code in {2, 3}  # the server looks for the agent first
        else:
            assert refused.code == 2, refused.err
        assert CANARY not in refused.out + refused.err
    assert talk("agent", "show", name).code == 3


def test_a_change_of_another_version_is_refused(talk: Ringlog, name: str) -> None:
    talk("agent", "add", name, "--type", "pull")
    refused = talk("agent", "edit", name, "--set=concurrency=3", "--expected-version=7", "--json")
    assert (refused.code, json.loads(refused.err)["error"]["code"]) == (3, "conflict")
    assert talk("agent", "edit", name).code == 2


def test_what_is_built_in_or_there_already_is_refused(talk: Ringlog, name: str) -> None:
    assert talk("agent", "add", "echo", "--type", "echo").code == 3
    assert talk("agent", "remove", "lorem", "--yes").code == 3
    assert talk("agent", "add", name, "--type", "pull").code == 0
    refused = talk("agent", "add", name, "--type", "echo")
    assert (refused.code, "ringlog agent edit" in refused.err) == (3, True)


# Rotation


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose data directory, and so its key, is the test's own."""
    with server_process(tmp_path / "data") as process:
        yield process.wait_ready()


def test_all_secrets_are_sealed_anew_with_the_newest_key(
    ringlog: Ringlog,
    own_server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RINGLOG_URL", own_server.url)
    data = ("--data", str(tmp_path / "data"))
    assert ringlog("agent", "rotate", *data).code == 2  # no key, as there is no secret
    for number in range(3):
        assert ringlog("agent", "add", f"a{number}", "--endpoint", URL).code == 0
    assert ringlog("agent", "add", "plain", "--type", "pull").code == 0
    path = tmp_path / "data" / "secrets.key"
    assert path.stat().st_mode & 0o777 == 0o600
    [old] = read_keys(path)
    same = ringlog("agent", "rotate", *data, "--json")
    assert (same.json["renewed"], same.json["current"], same.json["unreadable"]) == (0, 3, [])

    new = make_key()
    path.write_text(f"# two\n{encode_key(new)}\n{encode_key(old)}\n")
    looked = ringlog("agent", "rotate", "--dry-run", *data, "--json")
    assert (looked.json["renewed"], looked.json["key_id"]) == (3, key_ids([new])[0])
    assert ringlog("agent", "rotate", *data, "--json").json["renewed"] == 3
    assert ringlog("agent", "rotate", *data, "--json").json["current"] == 3

    # The older key can go now; a key that never sealed anything opens nothing.
    path.write_text(encode_key(new))
    assert ringlog("agent", "rotate", *data, "--json").code == 0
    path.write_text(encode_key(make_key()))
    left = ringlog("agent", "rotate", *data, "--json")
    assert left.code == 1
    assert left.json["unreadable"] == [
        {"workspace": "default", "agent": f"a{number}", "key_id": new.id} for number in range(3)
    ]
    archive = open_archive(f"sqlite:///{tmp_path}/data/archive.db")
    versions = {row.version for row in archive.list_agents(None)}
    archive.close()
    assert versions == {1}


def test_rotating_needs_a_key_that_is_one(
    ringlog: Ringlog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.key").write_text(CANARY)
    refused = ringlog("agent", "rotate", "--secrets-key", "bad.key")
    assert (refused.code, CANARY in refused.err, "bad.key" in refused.err) == (2, False, True)
    assert ringlog("agent", "rotate", "--secrets-key", "none.key").code == 2
    monkeypatch.setenv("RINGLOG_SECRETS_KEY", CANARY)
    refused = ringlog("agent", "rotate", "--json")
    assert (refused.code, CANARY in refused.err) == (2, False)
    assert json.loads(refused.err)["error"]["code"] == "invalid_secrets_key"
    monkeypatch.setenv("RINGLOG_SECRETS_KEY", encode_key(make_key()))
    assert ringlog("agent", "rotate").code == 3  # there is no archive


def test_the_options_are_read_as_they_stand(talk: Ringlog) -> None:
    """A name that looks like a number stays text where the field is text."""
    name = f"agent-{next(_numbers)}"
    added = talk("agent", "add", name, "--type=openai", f"--endpoint={URL}", "--model=4", "--json")
    assert (added.code, added.json["model"]) == (0, "4")
    edited = talk("agent", "edit", name, "--set", "model=5", "--json")
    assert edited.json["model"] == "5"
