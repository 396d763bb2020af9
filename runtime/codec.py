"""Records and the JSON in them: encoded once, by joining bytes; the client's own bytes stay as they are.

A message on the wire, in the log and in the archive is one line::

    {"type":"message","session":S,"seq":N,"id":I,"sender":U,"client_id":C|null,
     "kind":K,"content":…,"metadata":…,"at":T}

Nothing here escapes anything: ids come from an alphabet that needs no escaping (`identifiers`), and
`content` and `metadata` are valid one-line JSON already.
"""

import msgspec
from fastcrc import crc64

from runtime.dispatch import decode_dispatch, dispatch_record
from runtime.identifiers import format_time, parse_time
from storage import (
    ChunkRecord,
    MessageRecord,
    ReadRecord,
    Record,
    RecordType,
    SessionRecord,
    StoredRecord,
)

_SIGNED_64_MAX = (1 << 63) - 1


class SessionInfo(msgspec.Struct, frozen=True, gc=False):
    """The state of a session that its owner, its members and the API see."""

    session: str
    user_id: str
    members: tuple[str, ...]
    agent_id: str | None
    metadata: bytes
    state: str
    created_at_ms: int
    updated_at_ms: int
    version: int
    body: bytes

    def allows(self, user_id: str) -> bool:
        """Tell whether this user may read and write the session."""
        return user_id == self.user_id or user_id in self.members


class _MessageBody(msgspec.Struct):
    session: str
    seq: int
    id: str
    sender: str
    client_id: str | None
    kind: str
    content: msgspec.Raw
    metadata: msgspec.Raw
    at: str


class _ReadBody(msgspec.Struct):
    session: str
    user_id: str
    seq: int
    at: str


class _ChunkBody(msgspec.Struct):
    session: str
    dispatch: str
    attempt: int
    n: int
    at: str


class _SessionBody(msgspec.Struct):
    id: str
    user_id: str
    members: tuple[str, ...]
    agent_id: str | None
    metadata: msgspec.Raw
    state: str
    created_at: str
    updated_at: str
    version: int


_decode_message = msgspec.json.Decoder(_MessageBody).decode
_decode_read = msgspec.json.Decoder(_ReadBody).decode
_decode_chunk = msgspec.json.Decoder(_ChunkBody).decode
_decode_session = msgspec.json.Decoder(_SessionBody).decode
_encode = msgspec.json.encode


def message_prefix(session: str) -> str:
    """Return how every message of this session begins; made once per session."""
    return f'{{"type":"message","session":"{session}","seq":'


def encode_payload(kind: str, content: bytes, metadata: bytes) -> bytes:
    """Return what the client sent, as it stands inside the message; `digest_of` is taken over this."""
    return b"".join(
        (b'"kind":"', kind.encode(), b'","content":', content, b',"metadata":', metadata)
    )


def digest_of(payload: bytes) -> int:
    """Return a 63-bit checksum of a payload: CRC-64/XZ, masked to fit a signed column."""
    return crc64.xz(payload) & _SIGNED_64_MAX


def encode_message(
    prefix: str,
    seq: int,
    message_id: str,
    sender: str,
    client_id: str | None,
    payload: bytes,
    at: bytes,
) -> bytes:
    """Return a message's one line of JSON."""
    quoted = "null" if client_id is None else f'"{client_id}"'
    envelope = f'{prefix}{seq},"id":"{message_id}","sender":"{sender}","client_id":{quoted},'
    return b"".join((envelope.encode(), payload, b',"at":"', at, b'"}'))


def encode_read(session: str, user_id: str, seq: int, at: bytes) -> bytes:
    """Return a read cursor's one line of JSON."""
    return b'{"session":"%b","user_id":"%b","seq":%d,"at":"%b"}' % (
        session.encode(),
        user_id.encode(),
        seq,
        at,
    )


def encode_chunk(
    session: str, dispatch: str, attempt: int, number: int, at: bytes, chunk: bytes
) -> bytes:
    """Return the frame that shows clients a piece of an answer: one line of JSON."""
    return (
        b'{"type":"chunk","session":"%b","dispatch":"%b","attempt":%d,"n":%d,"at":"%b","chunk":%b}'
    ) % (session.encode(), dispatch.encode(), attempt, number, at, chunk)


def make_session(  # noqa: PLR0913
    session: str,
    *,
    user_id: str,
    members: tuple[str, ...],
    agent_id: str | None,
    metadata: bytes,
    state: str,
    created_at_ms: int,
    updated_at_ms: int,
    version: int,
) -> SessionInfo:
    """Return a session's state with its one line of JSON."""
    body = (
        b'{"id":"%b","user_id":"%b","members":%b,"agent_id":%b,"metadata":%b,"state":"%b",'
        b'"created_at":"%b","updated_at":"%b","version":%d}'
    ) % (
        session.encode(),
        user_id.encode(),
        _encode(members),
        _encode(agent_id),
        metadata,
        state.encode(),
        format_time(created_at_ms).encode(),
        format_time(updated_at_ms).encode(),
        version,
    )
    return SessionInfo(
        session,
        user_id,
        members,
        agent_id,
        metadata,
        state,
        created_at_ms,
        updated_at_ms,
        version,
        body,
    )


def session_record(workspace: str, info: SessionInfo) -> SessionRecord:
    """Return the record that makes this state durable."""
    return SessionRecord(
        workspace,
        info.session,
        info.user_id,
        info.members,
        info.state,
        info.created_at_ms,
        info.updated_at_ms,
        info.version,
        info.body,
    )


def decode_session(body: bytes) -> SessionInfo:
    """Return a session's state from its stored line."""
    parsed = _decode_session(body)
    return SessionInfo(
        parsed.id,
        parsed.user_id,
        parsed.members,
        parsed.agent_id,
        bytes(parsed.metadata),
        parsed.state,
        parse_time(parsed.created_at),
        parse_time(parsed.updated_at),
        parsed.version,
        body,
    )


def decode_record(stored: StoredRecord) -> Record:
    """Return the record that recovery read back from the log.

    Raises:
        ValueError: a type this version does not know, or a body that is not what it wrote.
    """
    workspace, body = stored.workspace, stored.body
    if stored.type == RecordType.MESSAGE:
        message = _decode_message(body)
        payload = encode_payload(message.kind, bytes(message.content), bytes(message.metadata))
        return MessageRecord(
            workspace,
            message.session,
            message.seq,
            message.id,
            message.sender,
            message.client_id,
            digest_of(payload),
            parse_time(message.at),
            body,
        )
    if stored.type == RecordType.READ:
        read = _decode_read(body)
        return ReadRecord(
            workspace, read.session, read.user_id, read.seq, parse_time(read.at), body
        )
    if stored.type == RecordType.SESSION:
        return session_record(workspace, decode_session(body))
    if stored.type == RecordType.DISPATCH:
        return dispatch_record(workspace, decode_dispatch(body), body)
    if stored.type == RecordType.CHUNK:
        chunk = _decode_chunk(body)
        return ChunkRecord(
            workspace,
            chunk.session,
            chunk.dispatch,
            chunk.attempt,
            chunk.n,
            parse_time(chunk.at),
            body,
        )
    raise ValueError(
        f"record {stored.lsn} has type {stored.type}, which this version does not know"
    )
