"""The commands, against a real server in a process of its own."""

import io
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.cli import main
from tests.edge.server_process import ROOT, ServerProcess, server_process, wait_until


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.out)
        return value


Ringlog = Callable[..., Result]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that only talk to it; each uses a session of its own."""
    with server_process(tmp_path_factory.mktemp("cli") / "data") as process:
        yield process.wait_ready()


@pytest.fixture
def ringlog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Ringlog:
    """Run a command in this process, as the console script would."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["ringlog", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code: object = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Result(int(str(code or 0)), captured.out.decode(), captured.err.decode())

    return run


@pytest.fixture
def talk(ringlog: Ringlog, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Ringlog:
    """Run a command that finds the server by RINGLOG_URL."""
    monkeypatch.setenv("RINGLOG_URL", server.url)
    return ringlog


# Sessions.


def test_a_session_is_made_written_shown_listed_and_followed(talk: Ringlog) -> None:
    sent = talk("session", "send", "round", "hello", "--user", "alice", "--create")
    assert (sent.code, sent.out, sent.err) == (0, "", "durable as #1\n")

    assert talk("session", "show", "round", "--json").json["user_id"] == "alice"
    assert "user_id     alice" in talk("session", "show", "round").out
    listed = talk("session", "list", "--user", "alice", "--json").json["data"]
    assert isinstance(listed, list)
    assert "round" in [row["id"] for row in listed]
    assert talk("session", "tail", "round").out.endswith(" alice: hello\n")


def test_a_resend_with_the_same_client_id_is_stored_once(talk: Ringlog) -> None:
    first = talk(
        "session", "send", "once", "x", "-u", "a", "--create", "--client-id", "c", "--json"
    )
    again = talk("session", "send", "once", "x", "-u", "a", "--client-id", "c", "--json")
    other = talk("session", "send", "once", "y", "-u", "a", "--client-id", "c", "--json")

    assert (first.json["seq"], first.json["duplicate"]) == (1, False)
    assert (again.json["seq"], again.json["duplicate"]) == (1, True)
    assert other.code == 3
    assert json.loads(other.err)["error"]["code"] == "client_id_reused"


def test_an_export_is_what_is_stored_byte_for_byte(talk: Ringlog, tmp_path: Path) -> None:
    for text in ("é\u2028\x1b[2J", "-", "third"):
        talk("session", "send", "export", text, "-u", "a", "--create", stdin="from stdin\n")

    exported = talk("session", "export", "export")
    lines = exported.out.removesuffix("\n").split("\n")
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]
    assert json.loads(lines[1])["content"] == {"text": "from stdin\n"}
    assert exported.err == "3 messages, up to #3\n"
    assert talk("session", "tail", "export", "--after", "0", "--json").out == exported.out
    assert talk("session", "export", "export", "--out", "copy.jsonl").out == ""
    assert (tmp_path / "copy.jsonl").read_text() == exported.out
    assert talk("session", "export", "export", "--after", "2").out == lines[2] + "\n"


def test_nothing_in_a_message_drives_the_terminal(talk: Ringlog) -> None:
    talk("session", "send", "escape", "\x1b[2J\r\nforged\x9b", "-u", "a", "--create")

    out = talk("session", "tail", "escape").out

    assert out.endswith("a: \\u001b[2J\\u000d\\u000aforged\\u009b\n")


def test_tail_shows_the_last_ones_or_those_after_a_seq(talk: Ringlog) -> None:
    for number in range(1, 6):
        talk("session", "send", "tail", f"m{number}", "-u", "a", "--create")

    assert [line[:2] for line in talk("session", "tail", "tail", "-n", "2").out.splitlines()] == [
        "#4",
        "#5",
    ]
    assert len(talk("session", "tail", "tail", "--after", "3").out.splitlines()) == 2
    assert talk("session", "tail", "tail", "-n", "0").out == ""
    ahead = talk("session", "tail", "tail", "--after", "9")
    assert (ahead.code, "9" in ahead.err) == (3, True)


def test_chat_sends_each_line_and_ends_when_all_are_durable(talk: Ringlog) -> None:
    chat = talk("session", "chat", "chat", "--user", "bob", stdin="one\n\ntwo\n")

    assert chat.code == 0
    stored = talk("session", "export", "chat").out.splitlines()
    assert [json.loads(line)["content"]["text"] for line in stored] == ["one", "two"]
    assert {json.loads(line)["sender"] for line in stored} == {"bob"}


def test_chat_asks_who_you_are(talk: Ringlog) -> None:
    chat = talk("session", "chat", "chat")

    assert (chat.code, "--user NAME" in chat.err) == (2, True)


@pytest.mark.parametrize(
    "command", [("show",), ("tail",), ("export",), ("send", "text", "--user", "a")]
)
def test_a_session_that_is_not_there_is_exit_code_3(
    talk: Ringlog, command: tuple[str, ...]
) -> None:
    name, *rest = command
    missing = talk("session", name, "no-such", *rest)

    assert missing.code == 3
    assert missing.out == ""
    assert "no-such" in missing.err
    assert "hint: " in missing.err


def test_follow_resumes_across_a_crash_and_shows_everything_once(
    tmp_path: Path, ringlog: Ringlog
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    data, url = tmp_path / "data", f"--url=http://{address}"
    shown: list[str] = []
    with server_process(data, f"--listen={address}") as first:
        first.wait_ready()
        ringlog("session", "send", "s", "before", "--user", "a", "--create", url)
        follower = subprocess.Popen(
            [sys.executable, "-m", "edge", "session", "tail", "s", "--follow", url],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip
        assert follower.stdout is not None
        reader = threading.Thread(target=lambda: shown.extend(follower.stdout or ()), daemon=True)
        reader.start()
        wait_until(lambda: len(shown) == 1)
        first.kill()
    with server_process(data, f"--listen={address}") as second:
        second.wait_ready()
        ringlog("session", "send", "s", "after", "--user", "a", url)
        wait_until(lambda: len(shown) == 2)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
        reader.join(10)
        follower.stdout.close()

    assert [line.split(" ", 2)[2] for line in shown] == ["a: before\n", "a: after\n"]


def test_flush_status_says_that_the_archive_has_caught_up(talk: Ringlog) -> None:
    talk("session", "send", "flush", "x", "-u", "a", "--create")

    wait_until(lambda: talk("flush", "status", "--json").json["backlog_records"] == 0)
    status = talk("flush", "status", "--json")
    assert status.code == 0
    assert status.json["durable_lsn"] == status.json["flushed_lsn"] != 0
    assert status.json["failing"] is False
    assert "lag_seconds" in talk("flush", "status").out


# Servers that are not there, not ready, or silent.


def test_health_is_0_when_ready_and_4_when_there_is_no_server(
    talk: Ringlog, ringlog: Ringlog
) -> None:
    healthy = talk("health", "--json")
    assert (healthy.code, healthy.json["ready"], healthy.json["reasons"]) == (0, True, [])

    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"--url=http://127.0.0.1:{free.getsockname()[1]}"
    away = ringlog("health", url)
    assert away.code == 4
    assert away.out == ""
    assert "ringlog serve" in away.err
    assert ringlog("session", "tail", "s", url).code == 4


def test_a_server_that_does_not_answer_in_time_is_exit_code_5(ringlog: Ringlog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"--url=http://127.0.0.1:{silent.getsockname()[1]}"
        result = ringlog("session", "list", url, "--timeout-seconds", "0.2", "--json")

    assert result.code == 5
    assert json.loads(result.err)["error"]["code"] == "timeout"


def test_something_else_at_the_address_is_said_to_be_no_ringlog_server(ringlog: Ringlog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-x\r\n\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        result = ringlog("session", "list", f"--url=http://127.0.0.1:{other.getsockname()[1]}")
        greeter.join()

    assert (result.code, "no Ringlog server" in result.err) == (4, True)


# Configuration, keys, doctor.


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


def test_a_wrong_option_is_exit_code_2_and_names_itself(ringlog: Ringlog) -> None:
    result = ringlog("config", "show", "--listen", "nonsense")

    assert result.code == 2
    assert "listen = 'nonsense' (from flag --listen)" in result.err
    assert ringlog("serv").code == 2
    assert ringlog("session", "tail").code == 2


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


@pytest.mark.parametrize("arguments", [("--scope", "everything"), ("na me",), ("--workspace", "")])
def test_a_key_with_a_wrong_scope_or_name_is_refused(
    ringlog: Ringlog, arguments: tuple[str, ...]
) -> None:
    assert ringlog("key", "create", *arguments).code == 2


def test_doctor_finds_a_good_machine_good_and_changes_nothing(
    ringlog: Ringlog, tmp_path: Path
) -> None:
    result = ringlog("doctor", "--listen", ":0", "--data", "deep/data", "--json")

    findings = {row["what"]: row for row in json.loads(result.out)["data"]}
    assert result.code == 0
    assert {"data directory", "sync latency", "file limit", "archive", "address"} <= set(findings)
    assert "fdatasync takes" in findings["sync latency"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_doctor_gives_each_failure_its_fix(ringlog: Ringlog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = ringlog(
            "doctor", "--listen", f":{port}", "--data", "file/data",
            "--archive", f"postgresql://u:hunter2@127.0.0.1:{port}/x",
        )  # fmt: skip

    assert result.code == 1
    assert f"FAIL  address: 127.0.0.1:{port} is in use" in result.out
    assert "FAIL  data directory: file/data: Not a directory" in result.out
    assert "FAIL  archive: postgresql://u:…@127.0.0.1" in result.out
    assert result.out.count("→") >= 3
    assert "hunter2" not in result.out


# Help.


def test_every_command_has_an_example_in_its_help(ringlog: Ringlog) -> None:
    commands = [
        *(("session", name) for name in ("list", "show", "send", "tail", "export", "chat")),
        *(("log", name) for name in ("dump", "verify", "repair")),
        *(("key", name) for name in ("create", "list", "revoke")),
        ("serve",), ("doctor",), ("health",), ("config", "show"), ("flush", "status"),
    ]  # fmt: skip

    for command in commands:
        help_text = ringlog(*command, "-h")
        assert help_text.code == 0
        assert f"  ringlog {' '.join(command)}" in help_text.out, command


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'trio', 'sqlalchemy', 'quart', 'structlog', 'msgspec', 'rich.console', 'websockets'}"
    program = f"from edge.cli.program import build; build(); import sys; print({heavy} & set(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout == "set()\n"


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m edge config show --json | true; exit 0"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip

    assert done.stderr == ""
