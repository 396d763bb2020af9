"""Hostile but legal JSON comes back byte for byte: live, out of the log, and out of each archive."""

import http.client
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.transports import READERS, contents, open_socket, receive
from tests.edge.server_process import ServerProcess, server_process
from tests.hostile_json import LEGAL, as_stored, legal_documents, naughty_documents, naughty_strings

IN_FLIGHT = 100


@contextmanager
def held_archive(url: str) -> Iterator[None]:
    """Let the archive take nothing until the block ends, so that the log alone has what is new."""
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(urlsplit(url).path[1:], isolation_level=None, timeout=10)
        with closing(connection):
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
    else:
        import psycopg

        with psycopg.connect(url) as lock:
            lock.execute("LOCK TABLE flush_cursors IN EXCLUSIVE MODE")
            yield
            lock.rollback()


def archived(url: str, session: str) -> list[bytes]:
    """The session's bodies as the database holds them."""
    query = f"SELECT body FROM messages WHERE session = '{session}' ORDER BY seq"
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(urlsplit(url).path[1:])) as connection:
            return [row[0].encode() for row in connection.execute(query)]
    import psycopg

    with psycopg.connect(url) as database:
        return [row[0].encode() for row in database.execute(query.encode())]


def send_all(server: ServerProcess, session: str, documents: list[bytes]) -> list[bytes]:
    """Send each document as content and as metadata; return the messages that were published."""
    published: list[bytes] = []
    acked = 0
    with open_socket(server.address) as websocket:
        websocket.send(f'{{"type":"join","ref":"j","session":"{session}","create":{{}}}}')
        for number, document in enumerate(documents):
            frame = b'{"type":"send","ref":%d,"session":"%b","content":%b,"metadata":%b}'
            websocket.send(frame % (number, session.encode(), document, document), text=True)
            while number + 1 - acked >= IN_FLIGHT or (number + 1 == len(documents) > acked):
                answer = receive(websocket)
                assert not answer.startswith(b'{"type":"error"'), (answer, document)
                published += [answer] if answer.startswith(b'{"type":"message"') else []
                acked += answer.startswith(b'{"type":"ack"')
    return published


def post_all(server: ServerProcess, session: str, documents: list[bytes]) -> None:
    with closing(http.client.HTTPConnection(server.address, timeout=20)) as connection:
        for document in documents:
            body = b'{"sender":"alice","content":%b,"metadata":%b}' % (document, document)
            connection.request("POST", f"/v1/sessions/{session}/messages?user_id=alice", body)
            response = connection.getresponse()
            answer = response.read()
            assert response.status == 201, (answer, document)


@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hostile_json_survives_log_and_archive_byte_for_byte(
    archive_url: str, tmp_path: Path, everything: bool
) -> None:
    posted = legal_documents() if everything else list(LEGAL.values())
    sent = posted + naughty_documents() if everything else posted
    documents = {"socket": sent, "posted": posted}
    flags = (f"--archive={archive_url}", "--segment-bytes=4MiB")

    def check(server: ServerProcess) -> dict[str, list[bytes]]:
        """Every transport must send the same lines, and these must hold what was sent."""
        found: dict[str, list[bytes]] = {}
        for session, wanted in documents.items():
            for read in READERS:
                bodies = read(server.address, session, len(wanted))
                assert found.setdefault(session, bodies) == bodies
            assert contents(found[session]) == [as_stored(document) for document in wanted]
        return found

    with server_process(tmp_path / "data", *flags) as server:
        server.wait_ready()
        with held_archive(archive_url):
            live = send_all(server, "socket", sent)
            with open_socket(server.address) as websocket:
                websocket.send('{"type":"join","ref":"j","session":"posted","create":{}}')
                assert b'"hello"' in receive(websocket)
                assert b'"joined"' in receive(websocket)
            post_all(server, "posted", posted)
            from_memory = check(server)
            assert from_memory["socket"] == live
            assert archived(archive_url, "socket") == []
            server.kill()

    with server_process(tmp_path / "data", *flags) as server:
        from_log = check(server.wait_ready())
        assert from_log == from_memory
        assert server.stop() == 0

    assert archived(archive_url, "socket") == from_memory["socket"]
    assert archived(archive_url, "posted") == from_memory["posted"]
    with server_process(tmp_path / "data", *flags) as server:
        assert check(server.wait_ready()) == from_memory
        assert [event for event in server.events() if event["level"] == "error"] == []


def test_a_naughty_ref_comes_back_byte_for_byte(tmp_path: Path) -> None:
    with (
        server_process(tmp_path / "data") as server,
        open_socket(server.wait_ready().address) as ws,
    ):
        assert b'"hello"' in receive(ws)
        for text in naughty_strings():
            for escaped in (False, True):
                ref = json.dumps(text, ensure_ascii=escaped).encode()
                ws.send(b'{"type":"ping","ref":%b}' % ref, text=True)
                answer = receive(ws)
                if len(ref) <= 128:
                    assert answer == b'{"type":"ok","ref":%b}' % ref
                else:
                    refusal = json.loads(answer)
                    assert refusal["code"] == "invalid_field"
                    assert refusal["details"]["field"] == "ref"
