import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.codec import SessionInfo, digest_of, encode_payload, make_session
from runtime.errors import (
    ClientIdReusedError,
    ConflictError,
    SessionArchivedError,
    SessionDeletedError,
)
from runtime.identifiers import Stamper
from runtime.session import Session
from storage import MessageRecord


def info(state: str = "active") -> SessionInfo:
    return make_session(
        "s1",
        user_id="alice",
        members=(),
        agent_id=None,
        metadata=b"{}",
        state=state,
        created_at_ms=1,
        updated_at_ms=1,
        version=1,
    )


def new_session(state: str = "active") -> Session:
    session = Session("default", info(state))
    session.remember(())
    return session


def assign(session: Session, client_id: str | None, content: bytes = b"1") -> MessageRecord:
    payload = encode_payload("text", content, b"{}")
    stamper = Stamper()
    stamper.tick(1_000)
    return session.assign("alice", client_id, payload, digest_of(payload), stamper)


@given(st.lists(st.integers(0, 5)))
def test_seqs_count_from_one_without_gaps_and_resends_add_none(client_ids: list[int]) -> None:
    session = new_session()
    seqs: dict[str, int] = {}
    digest = digest_of(encode_payload("text", b"1", b"{}"))
    for number in client_ids:
        client_id = f"c{number}"
        known = session.find_resend("alice", client_id, digest)
        if known is None:
            seqs[client_id] = assign(session, client_id).seq
        else:
            assert known.seq == seqs[client_id]
    assert sorted(seqs.values()) == list(range(1, len(seqs) + 1))


def test_a_client_id_is_known_from_the_moment_its_message_has_a_seq() -> None:
    session = new_session()
    record = assign(session, "c1")
    found = session.find_resend("alice", "c1", record.digest)
    assert found is not None
    assert (found.seq, found.id) == (record.seq, record.id)


def test_a_reused_client_id_is_refused() -> None:
    session = new_session()
    record = assign(session, "c1")
    with pytest.raises(ClientIdReusedError) as refused:
        session.find_resend("alice", "c1", record.digest + 1)
    assert refused.value.details == {"client_id": "c1", "seq": 1}


def test_expected_seq_is_the_head_that_the_sender_saw() -> None:
    session = new_session()
    session.check_append(0)
    assign(session, None)
    session.check_append(1)
    with pytest.raises(ConflictError) as refused:
        session.check_append(0)
    assert refused.value.details == {"expected_seq": 0, "head_seq": 1}


def test_archived_and_deleted_sessions_take_no_messages() -> None:
    with pytest.raises(SessionArchivedError):
        Session("default", info("archived")).check_append(None)
    with pytest.raises(SessionDeletedError):
        Session("default", info("deleted")).check_append(None)


def test_a_read_cursor_that_moves_is_a_record() -> None:
    session = new_session()
    stamper = Stamper()
    stamper.tick(1_000)
    record = session.move_read_cursor("alice", 2, stamper)
    assert (record.user, record.seq, session.reads) == ("alice", 2, {"alice": 2})
