import json

from tests.edge.cli.conftest import Ringlog


def test_chat_sends_each_line_and_ends_when_all_are_durable(talk: Ringlog) -> None:
    chat = talk("session", "chat", "chat", "--user", "bob", stdin="one\n\ntwo\n")

    assert chat.code == 0
    stored = talk("session", "export", "chat").out.splitlines()
    assert [json.loads(line)["content"]["text"] for line in stored] == ["one", "two"]
    assert {json.loads(line)["sender"] for line in stored} == {"bob"}


def test_chat_asks_who_you_are(talk: Ringlog) -> None:
    chat = talk("session", "chat", "chat")

    assert (chat.code, "--user NAME" in chat.err) == (2, True)
