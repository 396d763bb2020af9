import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.codec import (
    decode_record,
    decode_session,
    digest_of,
    encode_message,
    encode_payload,
    encode_read,
    make_session,
    message_prefix,
    session_record,
)
from storage import MessageRecord, ReadRecord, RecordType, StoredRecord

names = st.from_regex(r"[A-Za-z0-9._:@~+=|-]{1,20}", fullmatch=True)
json_bytes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
valid_json = json_bytes.filter(lambda raw: b"\xed" not in raw)


def encoded(content: bytes, client_id: str | None = "c-1") -> bytes:
    payload = encode_payload("text", content, b"{}")
    return encode_message(
        message_prefix("s1"), 7, "id-1", "alice", client_id, payload, b"2026-01-02T03:04:05.678Z"
    )


def test_a_message_is_one_line_of_json_in_the_protocols_order() -> None:
    body = encoded(b'{"text":"hi"}')
    assert body == (
        b'{"type":"message","session":"s1","seq":7,"id":"id-1","sender":"alice","client_id":"c-1",'
        b'"kind":"text","content":{"text":"hi"},"metadata":{},"at":"2026-01-02T03:04:05.678Z"}'
    )


@pytest.mark.parametrize(
    "content",
    [b"1e999", b"1" * 400, b'{"a":1,"a":2}', b'"\\u0000"', b"[ 1 , 2 ]", '"é\U0001f600"'.encode()],
)
def test_the_clients_bytes_stand_in_the_message_as_they_came(content: bytes) -> None:
    assert b'"content":' + content + b',"metadata"' in encoded(content)


@given(session=names, sender=names, client_id=st.none() | names, content=valid_json)
def test_a_message_record_survives_the_log(
    session: str, sender: str, client_id: str | None, content: bytes
) -> None:
    payload = encode_payload("text", content, b'{"k":1}')
    body = encode_message(
        message_prefix(session), 3, "i", sender, client_id, payload, b"2026-01-02T03:04:05.678Z"
    )
    record = decode_record(StoredRecord(0, RecordType.MESSAGE, "w", body))
    assert record == MessageRecord(
        "w", session, 3, "i", sender, client_id, digest_of(payload), 1767323045678, body
    )


def test_a_read_record_survives_the_log() -> None:
    body = encode_read("s1", "alice", 4, b"2026-01-02T03:04:05.678Z")
    record = decode_record(StoredRecord(0, RecordType.READ, "w", body))
    assert record == ReadRecord("w", "s1", "alice", 4, 1767323045678, body)


def test_a_session_record_survives_the_log() -> None:
    info = make_session(
        "s1",
        user_id="alice",
        members=("bob", "eve"),
        agent_id=None,
        metadata=b'{ "x" : 1 }',
        state="active",
        created_at_ms=1,
        updated_at_ms=2,
        version=3,
    )
    assert decode_session(info.body) == info
    stored = StoredRecord(0, RecordType.SESSION, "w", info.body)
    assert decode_record(stored) == session_record("w", info)


def test_digests_tell_contents_apart_and_fit_a_signed_column() -> None:
    digests = {digest_of(encode_payload("text", b"%d" % n, b"{}")) for n in range(10_000)}
    assert len(digests) == 10_000
    assert all(0 <= digest < 1 << 63 for digest in digests)


def test_a_digest_is_taken_over_all_that_a_client_sends() -> None:
    payloads = [("text", b"1", b"{}"), ("note", b"1", b"{}"), ("text", b"2", b"{}")]
    payloads += [("text", b"1", b'{"a":1}')]
    assert len({digest_of(encode_payload(*payload)) for payload in payloads}) == len(payloads)


def test_an_unknown_type_of_record_is_refused() -> None:
    with pytest.raises(ValueError, match="type 9"):
        decode_record(StoredRecord(0, 9, "w", b"{}"))
