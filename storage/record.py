"""What the log stores: one record for everything that changes a session.

A record's body is the JSON that clients see, on one line, with the client's own bytes inside. It is
encoded once and the same bytes are logged, published and archived; storage never parses it. The other
fields are what the archive needs as columns.

On disk, inside a batch frame, little endian::

    u32 length of what follows | u8 type | u8 workspace length | workspace, UTF-8 | body

An LSN is the ordinal of a record in one owner's log: 0, 1, 2, … with no gaps, whatever the type. An
"LSN end" is exclusive.
"""

import enum

import msgspec

RECORD_LENGTH_BYTES = 4
WORKSPACE_BYTES_MAX = 255


class RecordType(enum.IntEnum):
    """The kinds of record; a number is never given a second meaning."""

    MESSAGE = 1
    CHUNK = 2
    DISPATCH = 3
    READ = 4
    SESSION = 5


class MessageRecord(msgspec.Struct, gc=False, array_like=True, tag=int(RecordType.MESSAGE)):
    """A message: `seq` counts from 1 within its session, with no gaps.

    `digest` is a signed 64-bit checksum of what the client sent (kind, content, metadata): it tells a
    resend from a reused `client_id`.
    """

    workspace: str
    session: str
    seq: int
    id: str
    sender: str
    client_id: str | None
    digest: int
    at_ms: int
    body: bytes


class ReadRecord(msgspec.Struct, gc=False, array_like=True, tag=int(RecordType.READ)):
    """A user's read cursor: everything up to and including `seq` has been read."""

    workspace: str
    session: str
    user: str
    seq: int
    at_ms: int
    body: bytes


class SessionRecord(msgspec.Struct, gc=False, array_like=True, tag=int(RecordType.SESSION)):
    """The whole state of a session after a change; `version` counts the changes from 1."""

    workspace: str
    session: str
    user_id: str
    members: tuple[str, ...]
    state: str
    created_at_ms: int
    updated_at_ms: int
    version: int
    body: bytes


class DispatchRecord(msgspec.Struct, gc=False, array_like=True, tag=int(RecordType.DISPATCH)):
    """The whole state of one call to an agent after a change; `version` counts the changes from 1.

    `is_open` tells whether anything is still to come of it.
    """

    workspace: str
    session: str
    dispatch: str
    agent: str
    state: str
    is_open: bool
    created_at_ms: int
    updated_at_ms: int
    version: int
    body: bytes


class ChunkRecord(msgspec.Struct, gc=False, array_like=True, tag=int(RecordType.CHUNK)):
    """A piece of an answer: `place` counts from 1 within an attempt, with no gaps.

    Kept until its dispatch is closed: what it was a piece of is a message then.
    """

    workspace: str
    session: str
    dispatch: str
    attempt: int
    place: int
    at_ms: int
    body: bytes


Record = MessageRecord | ReadRecord | SessionRecord | DispatchRecord | ChunkRecord


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as the log holds it: not yet decoded."""

    lsn: int
    type: int
    workspace: str
    body: bytes


def record_prefix(record_type: RecordType, workspace: str) -> bytes:
    """Return what stands between a record's length and its body; made once per session and type."""
    name = workspace.encode()
    if len(name) > WORKSPACE_BYTES_MAX:
        raise ValueError(f"workspace name of {len(name)} bytes, at most {WORKSPACE_BYTES_MAX}")
    return bytes((record_type, len(name))) + name
