"""`curl` against a real server: what docs/clients.md shows, typed as it stands there."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.server_process import ServerProcess, server_process


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    if shutil.which("curl") is None:
        reason = "no curl on this machine: apt-get install curl"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with server_process(tmp_path / "data") as process:
        yield process.wait_ready()


def curl(server: ServerProcess, path: str, *arguments: str, seconds: float = 20) -> str:
    """Run curl on a path; what it printed until it ended, or was ended after some seconds."""
    command = ["curl", "--silent", "--show-error", "--no-buffer", *arguments, server.url + path]
    done = subprocess.run(
        [*command, "--max-time", str(seconds)],
        capture_output=True,
        timeout=seconds + 20,
        check=False,
        text=True,
    )
    assert done.returncode in {0, 28}, done.stderr  # 28: --max-time has come
    return done.stdout


def events(output: str) -> list[tuple[str, Any]]:
    """Return what an event stream brought, as (id, data)."""
    blocks = [block.split("\n") for block in output.split("\n\n") if block.startswith("id: ")]
    return [(first[4:], json.loads(second[6:])["content"]) for first, second in blocks]


def test_curl_creates_sends_pages_and_follows(server: ServerProcess) -> None:
    created = curl(server, "/v1/sessions", "-d", '{"id":"demo","user_id":"alice"}')
    assert json.loads(created)["id"] == "demo"
    for text in ("one", "two", "three"):
        body = json.dumps({"sender": "alice", "client_id": text, "content": {"text": text}})
        acks = [json.loads(curl(server, "/v1/sessions/demo/messages", "-d", body)) for _ in "ab"]
        assert [ack["duplicate"] for ack in acks] == [False, True]

    page = json.loads(curl(server, "/v1/sessions/demo/messages?last_seq=1"))
    assert [message["seq"] for message in page["data"]] == [2, 3]
    follow = "/v1/sessions/demo/stream"
    contents = [("1", {"text": "one"}), ("2", {"text": "two"}), ("3", {"text": "three"})]
    assert events(curl(server, f"{follow}?last_seq=0", seconds=1)) == contents
    again = curl(server, f"{follow}?last_seq=0", "-H", "Last-Event-ID: 2", seconds=1)
    assert events(again) == contents[2:]


def test_curl_is_told_what_it_did_wrong(server: ServerProcess) -> None:
    answer = curl(server, "/v1/sessions", "-i", "-d", "{'id': 'demo'}")
    assert answer.startswith("HTTP/1.1 400")
    assert '"code":"bad_json"' in answer
    answer = curl(server, "/v1/sessions/none/messages", "-i", "--http1.0")
    assert answer.startswith("HTTP/1.1 404")
    assert '"code":"session_not_found"' in answer
    assert curl(server, "/healthz", "--head").startswith("HTTP/1.1 200")
