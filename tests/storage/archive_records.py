"""Records to put into an archive."""

from typing import Any

from storage import Archive, MessageRecord, ReadRecord, SessionRecord, SessionSnapshot


def message(
    seq: int,
    *,
    session: str = "s1",
    workspace: str = "default",
    sender: str = "alice",
    client_id: str | None = "",
    digest: int = 7,
    body: bytes | None = None,
) -> MessageRecord:
    return MessageRecord(
        workspace=workspace,
        session=session,
        seq=seq,
        id=f"id-{seq}",
        sender=sender,
        client_id=f"c-{seq}" if client_id == "" else client_id,
        digest=digest,
        at_ms=1_700_000_000_000 + seq,
        body=b'{"seq":%d}' % seq if body is None else body,
    )


def messages(first: int, last: int, *, session: str = "s1") -> list[MessageRecord]:
    """Messages with first <= seq <= last."""
    return [message(seq, session=session) for seq in range(first, last + 1)]


def session_row(
    session: str = "s1",
    *,
    workspace: str = "default",
    user_id: str = "alice",
    members: tuple[str, ...] = (),
    state: str = "active",
    created_at_ms: int = 1_000,
    version: int = 1,
) -> SessionRecord:
    return SessionRecord(
        workspace=workspace,
        session=session,
        user_id=user_id,
        members=members,
        state=state,
        created_at_ms=created_at_ms,
        updated_at_ms=created_at_ms + version,
        version=version,
        body=b'{"id":"%s","version":%d}' % (session.encode(), version),
    )


def read(user: str, seq: int, *, session: str = "s1") -> ReadRecord:
    return ReadRecord("default", session, user, seq, 5, b'{"user":"%s"}' % user.encode())


def read_session(
    archive: Archive, workspace: str, session: str, *limits: Any, **more: Any
) -> SessionSnapshot | None:
    """Return what the archive knows of one session."""
    key = (workspace, session)
    return archive.read_sessions([key], *limits, **more).get(key)
