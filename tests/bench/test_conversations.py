import msgspec

from bench.conversations import load_conversations


def test_the_whole_data_set_is_there() -> None:
    conversations = load_conversations("p-")
    assert len(conversations) == 7168
    assert sum(len(conversation.messages) for conversation in conversations) == 258_145


def test_the_longest_conversation_comes_first() -> None:
    lengths = [len(conversation.messages) for conversation in load_conversations("p-", 500)]
    assert lengths == sorted(lengths, reverse=True)


def test_a_message_has_its_sender_its_text_and_its_time() -> None:
    by_session = {c.session: c for c in load_conversations("p-", 1)}
    first = by_session["p-a07edb12-6b91-4138-b11e-02421888d699"].messages[0]
    assert first.sender == "720840be-e522-47ba-9e9f-143f66372673"
    assert msgspec.json.decode(first.content) == {"text": "Hello"}
    assert msgspec.json.decode(first.metadata) == {"written_at": "2018-05-02T19:38:15Z"}


def test_everyone_who_speaks_is_a_member_of_the_session() -> None:
    for conversation in load_conversations("p-", 200):
        create = conversation.delivery(window=1).create
        senders = {message.sender for message in conversation.messages}
        assert {create.user_id, *create.members} == senders
