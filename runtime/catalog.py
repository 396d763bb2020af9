"""The catalog: creating, changing, erasing and listing sessions.

A change is a record in the log like a message is: it is answered once it is durable, and it reaches the
archive with the flush. A listing waits for the flusher, so it holds everything that was answered before.
"""

import base64
import binascii
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from runtime.codec import SessionInfo, decode_session, make_session
from runtime.errors import (
    ConflictError,
    InvalidFieldError,
    SessionExistsError,
    SessionNotFoundError,
)
from runtime.identifiers import IDENTIFIER_RULE, is_identifier
from runtime.session import Session
from storage import Archive

if TYPE_CHECKING:
    from runtime.node import Node
    from runtime.server import SessionServer

MEMBERS_MAX = 1_000
"""Members are part of every session record; a larger audience reads through a backend's key."""


CREATED_AT_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""

METADATA_BYTES_MAX = 16 * 1024
"""Metadata is part of every session record and listing: a page of 1,000 sessions stays under 16 MiB."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of a listing; `next_cursor` is None on the last."""

    sessions: list[SessionInfo]
    next_cursor: str | None


class Catalog:
    """The sessions that exist, active or not."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    async def create(
        self,
        workspace: str,
        session_id: str | None,
        *,
        user_id: str,
        members: tuple[str, ...] = (),
        agent_id: str | None = None,
        metadata: bytes = b"{}",
    ) -> tuple[SessionInfo, bool]:
        """Create a session and return its state, and whether it is new; same id and body: as it is.

        Raises:
            SessionExistsError: created before with another body.
            SessionDeletedError: the id belonged to an erased session.
            InvalidFieldError, BackpressureError, StorageError.
        """
        node = self._node
        node.tick()
        members = _distinct(members)
        session_id = node.stamper.next_id() if session_id is None else session_id
        _check_names(session_id=session_id, user_id=user_id, agent_id=agent_id, members=members)
        _check_metadata(metadata)
        info = make_session(
            session_id,
            user_id=user_id,
            members=members,
            agent_id=agent_id,
            metadata=metadata,
            state="active",
            created_at_ms=node.stamper.at_ms,
            updated_at_ms=node.stamper.at_ms,
            version=1,
        )
        try:
            server = await node.open(workspace, session_id, may_be_new=True)
        except SessionNotFoundError:
            # No checkpoint since the activation looked: nobody else can have created it.
            session = Session(workspace, info)
            session.remember(())
            server = node.adopt(session)
            try:
                lsn_end = self._log_change(server, info)
            except BaseException:
                node.discard(server)
                raise
            await node.wait_durable(lsn_end)
        else:
            if not _same_creation(server.info, info):
                raise SessionExistsError(session_id)
            return server.info, False
        return info, True

    async def change(
        self,
        workspace: str,
        session_id: str,
        *,
        state: str | None = None,
        members: tuple[str, ...] | None = None,
        metadata: bytes | None = None,
        agent_id: str | None = None,
        clear_agent: bool = False,
        expected_version: int | None = None,
    ) -> SessionInfo:
        """Change what is given and return the new state once it is durable; no change, no record.

        Raises:
            ConflictError: `expected_version` is not the present one.
            SessionNotFoundError, SessionDeletedError, InvalidFieldError, StorageError.
        """
        server = await self._node.open(workspace, session_id)
        old = server.info
        if expected_version is not None and expected_version != old.version:
            raise ConflictError(
                f"expected_version is {expected_version}, but the version is {old.version}",
                expected_version=expected_version,
                version=old.version,
            )
        members = None if members is None else _distinct(members)
        _check_names(agent_id=agent_id, members=members or ())
        _check_metadata(metadata or b"")
        self._node.tick()
        new = make_session(
            old.session,
            user_id=old.user_id,
            members=old.members if members is None else members,
            agent_id=None if clear_agent else agent_id or old.agent_id,
            metadata=old.metadata if metadata is None else metadata,
            state=old.state if state is None else state,
            created_at_ms=old.created_at_ms,
            updated_at_ms=max(old.updated_at_ms, self._node.stamper.at_ms),
            version=old.version + 1,
        )
        if _same_content(old, new):
            return old
        await self._node.wait_durable(self._log_change(server, new))
        return new

    async def delete(self, workspace: str, session_id: str) -> None:
        """Erase a session's messages and members; a tombstone keeps the id from being used again."""
        server = await self._node.open(workspace, session_id)
        self._node.tick()
        old = server.info
        lsn_end = self._log_change(
            server,
            make_session(
                old.session,
                user_id=old.user_id,
                members=(),
                agent_id=None,
                metadata=b"{}",
                state="deleted",
                created_at_ms=old.created_at_ms,
                updated_at_ms=max(old.updated_at_ms, self._node.stamper.at_ms),
                version=old.version + 1,
            ),
        )
        await self._node.wait_durable(lsn_end)

    async def list(
        self,
        workspace: str,
        *,
        user_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        include_archived: bool = False,
    ) -> SessionPage:
        """Return sessions newest first; those of one user where `user_id` is given.

        Raises:
            InvalidFieldError: a cursor that this did not give out.
            ArchiveUnavailableError: listings are read from the archive.
        """
        await self._node.wait_sessions_flushed()
        return await list_sessions(
            self._node.archive,
            workspace,
            user_id=user_id,
            cursor=cursor,
            limit=limit,
            include_archived=include_archived,
            limiter=self._node.reader.limiter,
        )

    def _log_change(self, server: "SessionServer", info: SessionInfo) -> int:
        lsn_end = server.change(info)
        self._node.note_session_change(lsn_end)
        return lsn_end


async def list_sessions(
    archive: Archive,
    workspace: str,
    *,
    user_id: str | None,
    cursor: str | None,
    limit: int,
    include_archived: bool,
    limiter: trio.CapacityLimiter | None = None,
) -> SessionPage:
    """Return sessions as the archive lists them now.

    Raises:
        InvalidFieldError: a cursor that this did not give out.
        ArchiveUnavailableError: it is away.
    """
    after = None if cursor is None else _decode_cursor(cursor)
    query = partial(
        archive.list_sessions,
        workspace,
        user_id=user_id,
        after=after,
        limit=limit + 1,
        include_archived=include_archived,
    )
    records = await trio.to_thread.run_sync(query, limiter=limiter)
    sessions = [decode_session(record.body) for record in records[:limit]]
    last = sessions[-1] if len(records) > limit else None
    return SessionPage(sessions, None if last is None else _encode_cursor(last))


def _distinct(members: tuple[str, ...]) -> tuple[str, ...]:
    """Naming a member twice says no more than once; the order of first mention stays."""
    return tuple(dict.fromkeys(members))


def _check_names(
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    members: tuple[str, ...] = (),
) -> None:
    names = [("id", session_id), ("user_id", user_id), ("agent_id", agent_id)]
    names += [("members", member) for member in members]
    for field, name in names:
        if name is not None and not is_identifier(name):
            raise InvalidFieldError(f"{field} must be {IDENTIFIER_RULE}", field=field)
    if len(members) > MEMBERS_MAX:
        raise InvalidFieldError(f"at most {MEMBERS_MAX} members", field="members")


def _check_metadata(metadata: bytes) -> None:
    if len(metadata) > METADATA_BYTES_MAX:
        raise InvalidFieldError(f"at most {METADATA_BYTES_MAX} bytes of metadata", field="metadata")


def _same_creation(existing: SessionInfo, wanted: SessionInfo) -> bool:
    return existing.user_id == wanted.user_id and _same_content(existing, wanted)


def _same_content(old: SessionInfo, new: SessionInfo) -> bool:
    return (old.members, old.agent_id, old.metadata, old.state) == (
        new.members,
        new.agent_id,
        new.metadata,
        new.state,
    )


def _encode_cursor(last: SessionInfo) -> str:
    text = f"{last.created_at_ms}:{last.session}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> tuple[int, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        created_at_ms, _, session = base64.urlsafe_b64decode(padded).decode().partition(":")
        after = int(created_at_ms), session
    except (binascii.Error, ValueError):
        after = (-1, "")
    if not 0 <= after[0] <= CREATED_AT_MS_MAX or not is_identifier(after[1]):
        raise InvalidFieldError("cursor must be a next_cursor of an earlier page", field="cursor")
    return after
