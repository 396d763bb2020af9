import json
from pathlib import Path

import pytest

from tests.edge.cli.conftest import Ringlog


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
