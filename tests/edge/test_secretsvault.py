"""Which keys a process seals with: given, made, or none; and that no secret shows anywhere."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agents import SecretsKeyInvalidError
from agents.sealed import decode_sealed
from agents.secretskey import encode_key, make_key, read_keys
from agents.vault import Place
from edge.config import load_config
from edge.secretsvault import SECRETS_KEY_NAME, is_shared, open_vault
from storage import open_archive
from tests.edge.guarded import open_guarded
from tests.edge.server_process import ROOT, ServerProcess, server_process

PLACE = Place("default", "support", "header:X")
CANARY = "canary-8f21c0"
WEBHOOK = {
    "id": "support",
    "type": "webhook",
    "url": "https://agents.example/hook",
    "headers": {"Authorization": f"Bearer {CANARY}-header"},
}


def ask(server: ServerProcess, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(server.address, timeout=10)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None


# Where the keys come from


def test_a_process_that_is_alone_makes_a_key_when_it_seals_first(tmp_path: Path) -> None:
    config = load_config({"data": str(tmp_path)}, environment={})
    path = tmp_path / SECRETS_KEY_NAME
    vault = open_vault(config)
    assert (vault.key_ids, path.exists()) == ([], False)
    sealed = vault.seal("x", PLACE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_vault(config).open(sealed, PLACE) == "x"


@pytest.mark.parametrize("source", ["flag", "file", "variable", "variable of a file"])
def test_keys_are_given_by_a_file_or_by_their_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    new, old = make_key(), make_key()
    path = tmp_path / "keys"
    path.write_text(f"{encode_key(new)}\n{encode_key(old)}\n")
    flags, environment = {}, {}
    if source == "flag":
        flags = {"secrets_key": str(path)}
    elif source == "file":
        (tmp_path / "ringlog.toml").write_text(f"secrets_key = '{path}'")
    elif source == "variable":
        environment = {"RINGLOG_SECRETS_KEY": f"{encode_key(new)},{encode_key(old)}"}
    else:
        environment = {"RINGLOG_SECRETS_KEY_FILE": str(path)}
    vault = open_vault(load_config(flags, environment=environment))
    assert vault.key_ids == [new.id, old.id]
    assert not (tmp_path / ".ringlog").exists()


def test_in_a_cluster_no_key_is_made(tmp_path: Path) -> None:
    data = {"data": str(tmp_path)}
    for flags in (data | {"link": "127.0.0.1:0"}, data | {"role": "edge"}):
        config = load_config(flags, environment={})
        assert is_shared(config)
        assert open_vault(config).key_ids == []
        # Not even one that lies there from a time when it was alone: the others do not have it.
        (tmp_path / SECRETS_KEY_NAME).write_text(encode_key(make_key()))
        assert open_vault(config).key_ids == []


def test_what_is_no_key_is_refused_by_where_it_came_from(tmp_path: Path) -> None:
    environment = {"RINGLOG_SECRETS_KEY": CANARY}
    with pytest.raises(SecretsKeyInvalidError, match=r"^environment RINGLOG_SECRETS_KEY: ") as bad:
        open_vault(load_config(environment=environment))
    assert CANARY not in str(bad.value)
    path = tmp_path / SECRETS_KEY_NAME
    path.write_text(CANARY)
    with pytest.raises(SecretsKeyInvalidError) as bad:
        open_vault(load_config({"data": str(tmp_path)}, environment={}))
    assert str(path) in str(bad.value)
    assert CANARY not in str(bad.value)


@pytest.mark.parametrize("given", ["flag", "variable"])
def test_a_server_does_not_start_with_what_is_no_key(tmp_path: Path, given: str) -> None:
    path = tmp_path / "keys"
    path.write_text(CANARY)
    flags = [f"--secrets-key={path}"] if given == "flag" else []
    environment = {} if given == "flag" else {"RINGLOG_SECRETS_KEY": CANARY}
    with server_process(tmp_path / "data", *flags, environment=environment) as server:
        assert server.wait() == 1
        (line,) = server.lines
    assert line.startswith("ringlog: cannot start: ")
    assert "openssl rand -base64 32" in line
    assert CANARY not in line


# Servers


def test_a_key_outlives_the_server_that_made_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with server_process(data) as server:
        server.wait_ready()
        assert not (data / SECRETS_KEY_NAME).exists()
        assert ask(server, "POST", "/v1/agents", WEBHOOK)[0] == 201
        server.kill()
    assert (data / SECRETS_KEY_NAME).stat().st_mode & 0o777 == 0o600
    with server_process(data) as server:
        server.wait_ready()
        # It must open what is sealed to know that it is the same.
        assert ask(server, "POST", "/v1/agents", WEBHOOK)[0] == 200
        assert server.stop() == 0


@pytest.fixture
def shared(tmp_path: Path) -> tuple[str, ...]:
    return (f"--archive=sqlite:///{tmp_path}/archive.db",)


def test_a_cluster_needs_a_key_that_all_have(tmp_path: Path, shared: tuple[str, ...]) -> None:
    link = "--link=127.0.0.1:0"
    with (
        server_process(tmp_path / "owner", *shared, "--role=owner", link) as owner,
        server_process(tmp_path / "edge", *shared, "--role=edge") as edge,
    ):
        for server in (owner, edge):
            server.wait_ready()
            status, problem = ask(server, "POST", "/v1/agents", WEBHOOK)
            assert (status, problem["code"]) == (503, "secrets_key_missing")
            assert "--secrets-key" in problem["hint"]
            assert ask(server, "POST", "/v1/agents", {"id": "w", "type": "pull"})[0] in {200, 201}
    assert list(tmp_path.rglob(SECRETS_KEY_NAME)) == []

    path = tmp_path / "keys"
    path.write_text(encode_key(make_key()))
    given = f"--secrets-key={path}"
    with (
        server_process(tmp_path / "owner", *shared, "--role=owner", link, given) as owner,
        server_process(tmp_path / "edge", *shared, "--role=edge", given) as edge,
    ):
        owner.wait_ready()
        edge.wait_ready()
        assert ask(edge, "POST", "/v1/agents", WEBHOOK)[0] == 201
        # A change counts at once in every process.
        assert ask(owner, "POST", "/v1/agents", WEBHOOK)[0] == 200
        changed = ask(owner, "PATCH", "/v1/agents/support", {"status": "disabled"})[1]
        assert ask(edge, "GET", "/v1/agents/support")[1] == changed


def test_up_makes_a_key_and_gives_it_to_all(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "import edge.supervisor\n"
        "edge.supervisor.run_cluster = lambda owners, edges, say: print(*(\n"
        "    argument for part in (*owners, *edges) for argument in part.arguments), sep='\\n')\n"
        "from edge.cli import main\n"
        "sys.argv[0] = 'ringlog'\n"
        "main()\n"
    )

    def up(*flags: str, **variables: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, "up", f"--data={tmp_path}", *flags],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | variables,
        )
        return [line for line in done.stdout.splitlines() if "secrets" in line]

    path = tmp_path / SECRETS_KEY_NAME
    assert up() == [f"--secrets-key={path}"] * 3
    keys = read_keys(path)
    assert up() == [f"--secrets-key={path}"] * 3
    assert read_keys(path) == keys
    own = tmp_path / "own-secrets"
    own.write_text(encode_key(make_key()))
    assert up(f"--secrets-key={own}") == [f"--secrets-key={own}"] * 3
    assert up(RINGLOG_SECRETS_KEY=own.read_text()) == []  # they find it where this one did


# No secret shows


def misuse(tell: Callable[..., int], agent: dict[str, Any], signing: str) -> None:
    """Do what is refused, and what is not, with secrets in each place where they could be."""
    headers = agent["headers"]
    for body in (
        agent,
        agent | {"concurrency": 0},
        agent | {"headers": {"X-Three": f"{CANARY}-3\r\nX: y"}},
        agent | {"headers": {"X-Three": [f"{CANARY}-4"]}},
        agent | {"headers": f"{CANARY}-5"},
        agent | {"signing_secret": f"whsec_{CANARY}"},
        agent | {"headers": {"Host": CANARY}},
        agent | {"type": "pull", "url": None},
        agent | {"unknown": CANARY},
        agent | {"headers": headers | {"X-Two": f"{CANARY}-6"}},
    ):
        for who in ("all", "read", "none"):
            tell("POST", "/v1/agents", body, who)
    change = {"headers": {"X-Three": f"{CANARY}-7"}, "signing_secret": signing}
    assert tell("PATCH", "/v1/agents/support", change) == 200
    tell("PATCH", "/v1/agents/support", change | {"expected_version": 9})
    tell("PATCH", "/v1/agents/none", change)
    tell("PATCH", "/v1/agents/echo", change)
    tell("PATCH", "/v1/agents/support", change, "read")
    tell("GET", "/v1/agents")
    tell("GET", "/v1/agents/support")
    tell("GET", "/metrics")


def test_no_secret_of_an_agent_is_ever_logged_answered_or_stored(tmp_path: Path) -> None:
    """Everything that can be done with agents, also wrongly, with secrets that are then looked for everywhere."""
    key = make_key()
    variable = {"RINGLOG_SECRETS_KEY": encode_key(key)}
    signing = f"whsec_{encode_key(make_key())}"
    (tmp_path / "guarded").mkdir()
    with open_guarded(tmp_path / "guarded", "--log-level=debug", environment=variable) as guarded:
        answers = []

        def tell(method: str, path: str, body: object = None, who: str = "all") -> int:
            status, answer = guarded.ask(method, path, body, guarded.keys[who])
            answers.append(json.dumps(answer))
            return status

        headers = {"Authorization": f"Bearer {CANARY}-1", "X-Two": f"{CANARY}-2"}
        agent = WEBHOOK | {"headers": headers, "signing_secret": signing}
        assert tell("POST", "/v1/agents", agent) == 201
        misuse(tell, agent, signing)
        assert tell("POST", "/v1/agents", agent | {"id": "second"}) == 201
        assert tell("DELETE", "/v1/agents/second") == 204
        made = guarded.ask("POST", "/v1/agents", WEBHOOK | {"id": "third"}, guarded.keys["all"])[1]
        tell("GET", "/v1/agents/third")
        tell("POST", "/v1/agents", WEBHOOK | {"id": "third"})

    archive = open_archive(f"sqlite:///{tmp_path}/guarded/archive.db")
    rows = archive.list_agents(None)
    archive.close()
    assert {row.id for row in rows} == {"support", "third"}
    logged = "\n".join(guarded.server.lines)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    # They are stored as base64, which would hide them from the search.
    on_disk += b"".join(
        part for row in rows for part in decode_sealed("", "", row.secrets).fields.values()
    )
    assert '"path": "/v1/agents"' in logged
    assert b"agents.example" in on_disk
    for secret in (CANARY, signing, made["signing_secret"], encode_key(key), key.material.hex()):
        text = secret.removeprefix("whsec_")
        assert text not in logged
        assert text not in "".join(answers)
        assert text.encode() not in on_disk
