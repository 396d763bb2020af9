import fcntl
import json
import os
import pty
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.edge.cli.conftest import Ringlog
from tests.edge.server_process import ROOT, ServerProcess, server_process

WAIT_SECONDS = 20.0


class Terminal:
    """A command on a terminal of its own, and all that the terminal showed."""

    def __init__(self, *arguments: str) -> None:
        self._keyboard, inside = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge", *arguments],
            stdin=inside, stdout=inside, stderr=inside, cwd=ROOT, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509, no threads here
        )  # fmt: skip
        os.close(inside)

    def read_until(self, text: str) -> None:
        while text not in self.shown:
            self.shown += os.read(self._keyboard, 4096).decode()

    def type(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def end(self) -> int:
        """Return the exit code; the rest of what was shown has been read."""
        try:
            while read := os.read(self._keyboard, 4096):
                self.shown += read.decode()
        except OSError:  # nobody holds the terminal any more
            pass
        return self.process.wait(WAIT_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._keyboard)


@contextmanager
def on_terminal(*arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(*arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def test_chat_sends_each_line_and_ends_when_all_are_durable(talk: Ringlog) -> None:
    chat = talk("session", "chat", "chat", "--user", "bob", stdin="one\n\ntwo\n")

    assert chat.code == 0
    stored = talk("session", "export", "chat").out.splitlines()
    assert [json.loads(line)["content"]["text"] for line in stored] == ["one", "two"]
    assert {json.loads(line)["sender"] for line in stored} == {"bob"}


def test_chat_asks_who_you_are(talk: Ringlog) -> None:
    chat = talk("session", "chat", "chat")

    assert (chat.code, "--user NAME" in chat.err) == (2, True)


def test_ctrl_c_ends_a_chat_in_silence(server: ServerProcess) -> None:
    with on_terminal("session", "chat", "ctrl-c", "--user", "bob", f"--url={server.url}") as chat:
        chat.read_until("Ctrl-D ends")
        chat.type(b"hello\n")
        chat.read_until("#1\r\n")
        chat.type(b"\x03")

        assert chat.end() == 130
        assert "Traceback" not in chat.shown
        assert chat.shown.endswith("#1\r\n^C")


def test_ctrl_d_ends_a_chat_when_all_is_durable(server: ServerProcess) -> None:
    with on_terminal("session", "chat", "ctrl-d", "--user", "bob", f"--url={server.url}") as chat:
        chat.read_until("Ctrl-D ends")
        chat.type(b"hello\n\x04")

        assert chat.end() == 0
        assert "Traceback" not in chat.shown


@pytest.mark.parametrize(
    ("session", "flags", "code", "message"),
    [
        ("demo", ["--url=http://127.0.0.1:{closed}"], 4, "Connection refused"),
        ("demo", ["--key=rl_wrong_00000000000000000000"], 1, "--key"),
        ("bad name", [], 2, "must be 1 to 128 characters"),
    ],
)
def test_a_chat_that_cannot_be_says_so_in_one_line(
    server: ServerProcess, session: str, flags: list[str], code: int, message: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    flags = [flag.format(closed=closed) for flag in (f"--url={server.url}", *flags)]

    with on_terminal("session", "chat", session, "--user", "bob", *flags) as chat:
        assert chat.end() == code
        assert message in chat.shown
        assert "Traceback" not in chat.shown
        assert chat.shown.count("ringlog: ") == 1


def test_a_chat_fails_when_a_message_is_refused(ringlog: Ringlog, tmp_path: Path) -> None:
    data = f"--data={tmp_path}/data"
    full = f"--key={ringlog('key', 'create', data).out.strip()}"
    reader = f"--key={ringlog('key', 'create', '--scope', 'read', data).out.strip()}"
    with server_process(tmp_path / "data") as process:
        url = f"--url={process.wait_ready().url}"
        ringlog("session", "send", "r", "hi", "-u", "a", "--create", full, url)
        chat = ringlog("session", "chat", "r", "-u", "a", reader, url, stdin="hi\nho\n")

    assert chat.code == 1
    assert chat.err.count("not sent: ") == 2
    assert "2 of 2 messages were refused" in chat.err


def test_a_chat_in_json_prints_the_messages_as_they_are_stored(talk: Ringlog) -> None:
    chat = talk("session", "chat", "lines", "--user", "bob", "--json", stdin="one\ntwo\n")

    assert (chat.code, chat.err) == (0, "")
    stored = talk("session", "export", "lines", "--json")
    assert stored.err == ""
    assert stored.out.startswith(chat.out)
    assert [json.loads(line)["content"]["text"] for line in stored.out.splitlines()] == [
        "one",
        "two",
    ]


@pytest.mark.parametrize(
    ("stdin", "code"), [("<&-", "input"), (r"< <(printf '\xff\n')", "not_text")]
)
def test_a_chat_cannot_read_what_is_no_text(server: ServerProcess, stdin: str, code: str) -> None:
    command = f"{sys.executable} -m edge session chat s -u a --json --url={server.url} {stdin}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["code"] == code
