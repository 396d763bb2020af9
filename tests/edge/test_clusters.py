"""Processes of a cluster: what they refuse, and what their operators read of it."""

import json
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from storage import ACTIVE, Place, PlannedChange, open_archive
from tests.edge.server_process import join, open_socket, send, server_process, wait_until

SLOTS = 4_096


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """Listen on an address, and answer whatever comes with `data`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1_024)
                connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_link_that_is_refused_is_a_line_that_says_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/archive.db"
    node_id = "0" * 32
    archive = open_archive(url)
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        epoch = archive.begin_epoch(node_id, "local", 0, Place(address)).epoch
        targets = [(slot, node_id) for slot in range(SLOTS)]
        version = archive.read_ring_version()
        states = [(node_id, ACTIVE)]
        archive.change_ring(PlannedChange(version, 0, "me", "join", node_id, targets, states))
        archive.claim_slots(node_id, epoch, range(SLOTS))
        with server_process(tmp_path / "edge", "--role=edge", f"--archive={url}") as edge:
            edge.wait_ready()
            with open_socket(edge) as websocket:
                websocket.send(json.dumps({"type": "join", "ref": "1", "session": "s"}))
                wait_until(lambda: any('"link_refused"' in line for line in edge.lines))
            [line] = [event for event in edge.events() if event["event"] == "link_refused"]
    archive.close()
    assert line["level"] == "warning"
    assert line["peer"] == f"{node_id} at {address}"
    assert line["code"] == "link_protocol"
    assert "what came is no handshake" in line["reason"]
    assert "look at what listens on" in line["hint"]


def test_links_are_encrypted_where_there_are_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, host in (("owner", "127.0.0.1"), ("edge", "edge.example")):
        issued = authority.issue_cert(host)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")

    def flags(name: str, key: str) -> list[str]:
        files = {"cert": f"{name}.pem", "key": f"{key}.key", "ca": "ca.pem"}
        return [
            f"--role={name}",
            f"--archive=sqlite:///{tmp_path}/archive.db",
            *(f"--link-{option}={tmp_path / file}" for option, file in files.items()),
        ]

    with (
        server_process(tmp_path / "owner", "--link=127.0.0.1:0", *flags("owner", "owner")) as owner,
        server_process(tmp_path / "edge", *flags("edge", "edge")) as edge,
    ):
        owner.wait_ready()
        edge.wait_ready()
        with open_socket(edge) as websocket:
            join(websocket, "s")
            assert send(websocket, "s", "over TLS") == 1
        # Without certificates of its own, an edge gets nowhere.
        plain = flags("edge", "edge")[:2]
        with server_process(tmp_path / "plain", *plain) as stranger:
            stranger.wait_ready()
            with open_socket(stranger) as websocket:
                websocket.send(json.dumps({"type": "join", "ref": "1", "session": "s"}))
                wait_until(lambda: any('"link_refused"' in line for line in stranger.lines))
        [line] = [event for event in owner.events() if event["event"] == "link_refused"]
        assert line["code"] == "link_tls"
    with server_process(tmp_path / "edge", *flags("edge", "owner")) as wrong:
        assert wrong.wait() == 1
        assert "for links" in wrong.lines[-1]
        assert "its own private key" in wrong.lines[-1]


def test_a_copy_of_a_data_directory_ends_with_where_the_first_process_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/archive.db"
    flags = ("--role=owner", "--link=127.0.0.1:0", f"--archive={url}")
    with server_process(tmp_path / "data", *flags) as first:
        first.wait_ready()
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
        archive = open_archive(url)
        [node] = archive.read_ring().nodes
        with server_process(tmp_path / "copy", *flags) as second:
            assert second.wait() == 1
            assert f"serves as this node, {node.node_id}, at {node.address}" in second.lines[-1]
            assert "stop that process first" in second.lines[-1]
        assert archive.read_ring().nodes[0].epoch == node.epoch
        archive.close()
        first.kill()
    # What was killed is nobody's any more.
    with server_process(tmp_path / "copy", *flags) as second:
        second.wait_ready()


def test_two_processes_never_have_one_data_directory(tmp_path: Path) -> None:
    """In a cluster too: the second ends, and the first one's epoch goes on."""
    url = f"sqlite:///{tmp_path}/archive.db"
    flags = ("--role=owner", "--link=127.0.0.1:0", f"--archive={url}")
    with server_process(tmp_path / "data", *flags) as first:
        first.wait_ready()
        with server_process(tmp_path / "data", *flags) as second:
            assert second.wait() == 1
            assert f"in use by process {first.pid}" in second.lines[-1]
            assert "give this one another directory" in second.lines[-1]
        archive = open_archive(url)
        assert [node.epoch for node in archive.read_ring().nodes] == [1]
        archive.close()
        assert not any("failed" in line for line in first.lines)
        first.signal(signal.SIGINT)
        assert first.wait() == 0
