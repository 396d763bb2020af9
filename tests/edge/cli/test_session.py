import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge.cli.failure import CommandError
from edge.cli.session import check_no_hole
from tests.edge.cli.conftest import Ringlog
from tests.edge.server_process import ROOT, ServerProcess


def test_a_session_is_made_written_shown_listed_and_followed(talk: Ringlog) -> None:
    sent = talk("session", "send", "round", "hello", "--user", "alice", "--create")
    assert (sent.code, sent.out, sent.err) == (0, "", "durable as #1\n")

    assert talk("session", "show", "round", "--json").json["user_id"] == "alice"
    assert "user_id     alice" in talk("session", "show", "round").out
    listed = talk("session", "list", "--user", "alice", "--json").json["data"]
    assert isinstance(listed, list)
    assert "round" in [row["id"] for row in listed]
    assert talk("session", "tail", "round").out.endswith(" alice: hello\n")


def test_an_export_goes_on_behind_what_a_gap_leaves_out() -> None:
    gap = b'{"type":"gap","session":"s","from":4,"to":9,"reason":"lost"}'
    message = b'{"type":"message","seq":10,"sender":"a","kind":"text","content":1,"at":""}'
    # Up to 5 was exported before: 4 and 5 are lost since.
    for after in (3, 5, 8):
        assert check_no_hole([gap, message], after) == 10
    for after in (2, 9):
        with pytest.raises(CommandError):
            check_no_hole([gap, message], after)


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
    assert talk("session", "export", "export", "--out", "-").out == exported.out
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


def test_an_export_writes_into_a_pipe_and_leaves_it_one(talk: Ringlog, tmp_path: Path) -> None:
    talk("session", "send", "into-pipe", "x", "-u", "a", "--create")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()

    exported = talk("session", "export", "into-pipe", "--out", "pipe")
    if not pipe.is_fifo():  # nobody else would end the reader
        pytest.fail("the pipe was replaced")
    reader.join(20)

    assert exported.code == 0
    assert json.loads(read[0])["content"] == {"text": "x"}
    assert list(tmp_path.iterdir()) == [pipe]


def test_an_export_goes_where_a_link_points(talk: Ringlog, tmp_path: Path) -> None:
    talk("session", "send", "by-link", "x", "-u", "a", "--create")
    (tmp_path / "deep").mkdir()
    target, link, dangling = tmp_path / "deep/target", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    dangling.symlink_to("deep/new")

    for name in ("link", "dangling"):
        assert talk("session", "export", "by-link", "--out", name).code == 0

    assert link.is_symlink()
    assert dangling.is_symlink()
    assert json.loads(target.read_text())["seq"] == 1
    assert target.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"target", "new"}


def test_an_export_that_fails_leaves_the_file_as_it_was(talk: Ringlog, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("old")

    assert talk("session", "export", "no-such", "--out", "kept").code == 3
    assert talk("session", "export", "no-such", "--out", "new").code == 3
    assert talk("session", "export", "no-such", "--out", "missing/new").code == 1

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (("send", "nope", "x", "-u", "a"), 3, "--create"),
        (("send", "nope", "x"), 2, "--user NAME"),
        (("show", "a/b c"), 2, "an id is 1 to 128 characters"),
        (("show", ""), 2, "an id is 1 to 128 characters"),
        (("tail", "hints", "--after", "9"), 3, "start again with --after 1"),
        (("tail", "hints", "--key", "rl_wrong"), 1, "--key"),
        (("show", "hints", "--key", "rl_wrong"), 1, "--key"),
    ],
)
def test_a_hint_speaks_of_this_command_line(
    talk: Ringlog, arguments: tuple[str, ...], code: int, hint: str
) -> None:
    talk("session", "send", "hints", "x", "-u", "a", "--create", "--client-id", "once")

    result = talk("session", *arguments)

    assert (result.code, result.out) == (code, "")
    assert hint in result.err.partition("hint: ")[2]
    assert "POST" not in result.err
    assert "Bearer" not in result.err


@pytest.mark.parametrize(
    ("rest", "code"),
    [("- <&-", "input"), (r"- < <(printf '\xff')", "not_text"), (r"$'\xff'", "usage")],
)
def test_what_is_no_text_is_not_sent(server: ServerProcess, rest: str, code: str) -> None:
    command = f"{sys.executable} -m edge session send s -u a --json --url={server.url} {rest}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert json.loads(done.stderr)["error"]["code"] == code
    assert done.returncode == (2 if code == "usage" else 1)
