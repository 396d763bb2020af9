"""No credential in a log or on the disk, and no open server where others can reach it."""

import re
from pathlib import Path

import pytest

from edge.auth import generate_key, hash_key
from storage import ApiKey, open_archive
from tests.edge.guarded import SCOPES, Guarded, open_guarded
from tests.edge.raw_socket import TEXT, frame, open_raw
from tests.edge.server_process import server_process


def test_no_credential_is_ever_logged(tmp_path: Path) -> None:
    with open_guarded(tmp_path, "--log-level=debug") as guarded:
        server, keys = guarded.server, guarded.keys
        session = guarded.new_session()
        token = guarded.mint("alice")
        expired = guarded.forge(exp=1)
        secrets = (keys["all"], keys["revoked"], generate_key(), token, expired)
        for secret in secrets:
            guarded.ask("GET", f"/v1/sessions/{session}", None, secret)
            for path in (
                f"/v1/sessions/{session}/stream?access_token={secret}",
                f"/v1/sessions/{session}/stream?ACCESS_TOKEN={secret}",
                f"/v1/sessions/{session}/stream?access%5Ftoken={secret}",
                f"/v1/sessions/{session}/stream?last_seq=x&access_token=%{ord(secret[0]):x}{secret[1:]}",
                f"/v1/sessions?key={secret}",
                f"/v1/sessions?{secret}",
                f"/v1/sessions/{secret}",
                f"/v1/ws?user_id={secret}",
            ):
                guarded.ask("GET", path)
            guarded.ask(
                "POST", "/v1/sessions", {"id": secret, "user_id": secret, "x": secret}, secret
            )
            with open_raw(server.address) as raw:
                raw.upgrade(
                    f"user_id={secret}", [f"Sec-WebSocket-Protocol: ringlog.v1, bearer.{secret}"]
                )
                raw.send(frame(TEXT, b'{"type":"auth","token":"%b"}' % secret.encode()))
                raw.send(frame(TEXT, b'{"type":"send","session":"%b"}' % secret.encode()))
            with open_raw(server.address) as raw:
                raw.send(
                    b"GET / HTTP/1.1\r\nAuthorization: Bearer %b\r\nX\r\n\r\n" % secret.encode()
                )
                raw.end()
                raw.read_to_the_end()
    logged = "\n".join(server.lines)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in secrets:
        assert secret not in logged
        assert secret[4:40] not in logged
        assert secret.encode() not in on_disk
    assert guarded.signing_key.hex() not in logged


def test_a_server_with_only_revoked_keys_is_no_open_server(tmp_path: Path) -> None:
    archive_url = f"sqlite:///{tmp_path}/archive.db"
    key = generate_key()
    archive = open_archive(archive_url)
    archive.create_key(ApiKey("r", "r", hash_key(key), SCOPES["all"], "default", 1))
    archive.revoke_key("r", 2)
    archive.close()
    with server_process(tmp_path / "data", f"--archive={archive_url}") as server:
        guarded = Guarded(server.wait_ready(), {}, b"")
        assert guarded.ask("GET", "/v1/sessions")[0] == 401
        assert guarded.ask("GET", "/v1/sessions", None, key)[0] == 401


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_others_can_reach_is_refused_without_a_usable_key(
    tmp_path: Path, listen: str
) -> None:
    with server_process(tmp_path / "data", f"--listen={listen}") as server:
        assert server.wait() == 1
        (line,) = server.lines
    assert re.search("no key|cannot listen", line)


def test_a_revoked_key_ends_what_it_opened(tmp_path: Path) -> None:
    archive_url = f"sqlite:///{tmp_path}/archive.db"
    with open_guarded(tmp_path) as guarded:
        session = guarded.new_session()
        address = guarded.server.address
        with open_raw(address) as kept, open_raw(address) as ended, open_raw(address) as stream:
            kept.upgrade("", [f"Authorization: Bearer {guarded.keys['read']}"])
            ended.upgrade("", [f"Authorization: Bearer {guarded.keys['all']}"])
            lines = f"GET /v1/sessions/{session}/stream HTTP/1.1\r\nHost: localhost\r\n"
            stream.send(f"{lines}Authorization: Bearer {guarded.keys['all']}\r\n\r\n".encode())
            stream.read_until(b"retry: ")
            stream.socket.settimeout(30)
            archive = open_archive(archive_url)
            archive.revoke_key("all", 3)
            archive.close()

            outcome = ended.outcome()
            assert outcome.codes == ["unauthorized"]
            assert outcome.close_code == 4401
            path = f"/v1/sessions/{session}/messages"
            body = {"sender": "alice", "content": "not for a revoked key"}
            assert guarded.ask("POST", path, body, guarded.keys["write"])[0] == 201
            assert b'"code":"unauthorized"' in stream.read_until(b"}\n\n")
            kept.send(frame(TEXT, b'{"type":"ping","ref":"1"}'))
            assert kept.outcome(answers=1).codes == ["ok"]


def test_the_first_key_ends_what_was_opened_without_one(tmp_path: Path) -> None:
    archive_url = f"sqlite:///{tmp_path}/archive.db"
    with (
        server_process(tmp_path / "data", f"--archive={archive_url}") as server,
        open_raw(server.wait_ready().address) as raw,
    ):
        raw.upgrade("user_id=alice")
        archive = open_archive(archive_url)
        archive.create_key(ApiKey("k", "k", hash_key(generate_key()), ("read",), "default", 1))
        archive.close()

        outcome = raw.outcome()
        assert outcome.codes == ["unauthorized"]
        assert outcome.close_code == 4401
