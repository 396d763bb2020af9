"""`ringlog log …` on the log that a real server left behind."""

import contextlib
import json
import os
import sqlite3
from pathlib import Path

import pytest

from tests.edge.cli.conftest import Ringlog, stranger
from tests.edge.server_process import join, open_socket, send, server_process

TEXTS = [f"message-{number}" for number in range(5)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose server was killed; the archive has the session, and no message."""
    data = tmp_path / "data"
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        with contextlib.closing(sqlite3.connect(data / "archive.db", isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            for text in TEXTS:
                send(websocket, "s", text)
            server.kill()
    return data


def flip_bit_in(data: Path, text: str) -> str:
    """Damage the first record that holds `text`; return the name of its file."""
    for path in sorted((data / "log").glob("*.log")):
        content = path.read_bytes()
        position = content.find(text.encode())
        if position >= 0:
            with path.open("r+b") as file:
                file.seek(position)
                file.write(bytes([content[position] ^ 1]))
            return path.name
    raise AssertionError(f"no {text} in the log")


def dumped(ringlog: Ringlog, data: Path) -> list[str]:
    result = ringlog("log", "dump", f"--data={data}", "--json")
    records = [json.loads(line) for line in result.out.splitlines()]
    return [r["body"]["content"]["text"] for r in records if r["type"] == "message"]


def test_dump_prints_every_record_with_its_lsn_and_place(ringlog: Ringlog, data: Path) -> None:
    result = ringlog("log", "dump", f"--data={data}", "--json")
    records = [json.loads(line) for line in result.out.splitlines()]

    assert result.code == 0
    assert [record["lsn"] for record in records] == list(range(len(records)))
    assert records[0]["type"] == "session"
    assert dumped(ringlog, data) == TEXTS
    last = ringlog("log", "dump", f"--data={data}", "--from", str(len(records) - 1)).out
    assert last.count("\n") == 1
    assert last.split("\t")[:3] == [str(len(records) - 1), "message", "default"]


def test_a_whole_log_verifies_and_needs_no_repair(ringlog: Ringlog, data: Path) -> None:
    verified = ringlog("log", "verify", f"--data={data}", "--json")

    assert verified.code == 0
    assert verified.json["ok"] is True
    assert verified.json["lsn_end"] == len(TEXTS) + 1
    assert "whole: LSN 0 to 6" in ringlog("log", "verify", f"--data={data}").err
    repaired = ringlog("log", "repair", f"--data={data}")
    assert (repaired.code, repaired.err) == (0, "the log needs no repair\n")


def test_the_log_of_a_running_server_may_be_looked_at_and_not_repaired(
    ringlog: Ringlog, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        send(websocket, "s", "hello")

        assert ringlog("log", "verify", f"--data={data}").code == 0
        assert dumped(ringlog, data) == ["hello"]
        refused = ringlog("log", "repair", "--apply", f"--data={data}")
        assert (refused.code, str(server.pid) in refused.err) == (1, True)


def test_damage_is_named_by_file_and_byte_repaired_on_demand_and_the_rest_served(
    ringlog: Ringlog, data: Path
) -> None:
    name = flip_bit_in(data, TEXTS[3])
    before = {path.name: path.read_bytes() for path in (data / "log").glob("*.log")}

    verified = ringlog("log", "verify", f"--data={data}", "--json")
    assert verified.code == 1
    [damage] = json.loads(verified.out)["damage"]
    assert damage["name"] == name
    assert damage["position"] > 0
    assert (
        f"{name} at byte {damage['position']}: " in ringlog("log", "verify", f"--data={data}").err
    )
    assert ringlog("log", "dump", f"--data={data}").code == 1
    with server_process(data) as server:
        assert server.wait() == 1
        assert f"{name} at byte {damage['position']}: " in server.lines[0]

    planned = ringlog("log", "repair", f"--data={data}")
    assert (planned.code, f"set aside {name}" in planned.out) == (1, True)
    assert "LOST      LSN 4: it cannot be read" in planned.out
    assert "left out  LSN 5: behind the damage" in planned.out
    assert ringlog("log", "repair", "--apply", f"--data={data}").code == 2  # nobody to ask
    after = {path.name: path.read_bytes() for path in (data / "log").glob("*.log")}
    assert after == before

    assert ringlog("log", "repair", "--apply", "--yes", f"--data={data}").code == 0
    assert (data / "log" / f"{name}.damaged").read_bytes() == before[name]
    assert dumped(ringlog, data) == TEXTS[:3]
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        websocket.send('{"type":"join","ref":"j","session":"s","last_seq":0}')
        frames = [json.loads(websocket.recv(10)) for _ in range(5)]
        assert [f["content"]["text"] for f in frames if f["type"] == "message"] == TEXTS[:3]


def test_damage_in_what_the_archive_has_is_repaired_and_nothing_is_lost(
    ringlog: Ringlog, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        for text in TEXTS:
            send(websocket, "s", text)
        assert server.stop() == 0
    name = flip_bit_in(data, TEXTS[2])
    assert name in ringlog("log", "verify", f"--data={data}").err
    with server_process(data) as server:
        assert server.wait() == 1
        assert name in server.lines[0]

    planned = ringlog("log", "repair", f"--data={data}", "--json")
    assert (planned.json["cursor"], planned.json["lsn_end"], planned.json["lost"]) == (6, 6, [])
    repaired = ringlog("log", "repair", "--apply", "--yes", f"--data={data}")
    assert (repaired.code, "nothing is lost" in repaired.out) == (0, True)
    assert (data / "log" / f"{name}.damaged").exists()
    assert ringlog("log", "verify", f"--data={data}").code == 0
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        websocket.send('{"type":"join","ref":"j","session":"s","last_seq":0}')
        frames = [json.loads(websocket.recv(10)) for _ in range(len(TEXTS) + 2)]
        assert [f["content"]["text"] for f in frames if f["type"] == "message"] == TEXTS
        assert send(websocket, "s", "after") == len(TEXTS) + 1


def test_a_repair_needs_to_know_what_the_archive_has(ringlog: Ringlog, data: Path) -> None:
    flip_bit_in(data, TEXTS[3])
    away = f"--archive=sqlite:///{data}/none/archive.db"
    for archive, code in ((away, 3), ("--archive=postgresql://127.0.0.1:1/x", 4)):
        refused = ringlog("log", "repair", f"--data={data}", archive)
        assert (refused.code, "--cursor LSN" in refused.err) == (code, True)
    given = ringlog("log", "repair", f"--data={data}", away, "--cursor=5", "--json")
    assert (given.json["cursor"], given.json["lsn_end"], given.json["lost"]) == (5, 6, [])
    (data / "node_id").unlink()
    assert ringlog("log", "repair", f"--data={data}").code == 3


@pytest.mark.parametrize("command", ["dump", "verify", "repair"])
def test_a_directory_without_a_log_is_exit_code_3(
    ringlog: Ringlog, tmp_path: Path, command: str
) -> None:
    missing = ringlog("log", command, f"--data={tmp_path}/none")

    assert (missing.code, "--data DIR" in missing.err) == (3, True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["dump", "verify", "repair"])
def test_the_log_of_another_user_is_one_line_with_a_fix(
    ringlog: Ringlog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    private = tmp_path / "private"
    (private / "data" / "log").mkdir(parents=True)
    private.chmod(0)
    monkeypatch.setenv("RINGLOG_CONFIG", os.devnull)
    with stranger():
        refused = ringlog("log", command, f"--data={private}/data")
    private.chmod(0o700)

    where = private / "data"
    assert refused.code == 1
    assert refused.err == (
        f"ringlog: cannot read {where}/log: Permission denied\n  hint: run it as the owner of {where}\n"
    )


def test_where_json_was_asked_for_stderr_has_no_plain_text(ringlog: Ringlog, data: Path) -> None:
    flags = (f"--data={data}", "--json")
    assert ringlog("log", "verify", *flags).err == ""
    assert ringlog("log", "repair", *flags).err == ""
    name = flip_bit_in(data, TEXTS[3])

    assert ringlog("log", "verify", *flags).err == ""
    [damage] = [json.loads(line) for line in ringlog("log", "dump", *flags).err.splitlines()]
    assert damage["damage"]["name"] == name
    planned = ringlog("log", "repair", *flags)
    assert (planned.code, planned.json["needed"], planned.err) == (1, True, "")
    repaired = ringlog("log", "repair", "--apply", "--yes", *flags)
    assert (repaired.code, repaired.json["needed"], repaired.err) == (0, True, "")
