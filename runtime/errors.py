"""What a request to a session can be refused for.

Each class is one stable `code`; the same code stands on the socket, in HTTP problems and in the logs.
`details` holds the numbers a program needs, `hint` what a person should do next.
"""

from typing import Any


class SessionError(Exception):
    """Root of this package's errors: the request was refused and nothing was changed by it."""

    code = "session_error"
    hint = ""
    retry_after_ms: int | None = None

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidFieldError(SessionError):
    """A field has a value that is not allowed; `details["field"]` names it."""

    code = "invalid_field"
    hint = "see the field's rules in docs/protocol.md"


class SessionNotFoundError(SessionError):
    """No such session, or none that the caller may know of."""

    code = "session_not_found"
    hint = 'create it with POST /v1/sessions, or join with "create"'


class SessionExistsError(SessionError):
    """The id is taken by a session that was created with another body."""

    code = "session_exists"
    hint = "choose another id, or change the session with PATCH"

    def __init__(self, session: str) -> None:
        super().__init__(f"session {session} exists with another body", session=session)


class SessionArchivedError(SessionError):
    """The session is archived: it can be read, not written."""

    code = "session_archived"
    hint = "unarchive it first: POST /v1/sessions/{id}/unarchive"


class SessionDeletedError(SessionError):
    """The session was erased; its id is not given out again. `user_id` is whose it was."""

    code = "session_deleted"
    hint = "use a new session id"

    def __init__(self, session: str, user_id: str) -> None:
        super().__init__(f"session {session} was deleted", session=session)
        self.session = session
        self.user_id = user_id


class ConflictError(SessionError):
    """`expected_seq` or `expected_version` is not the present one."""

    code = "conflict"
    hint = "read up to the actual position, decide again, and resend"


class ClientIdReusedError(SessionError):
    """This `client_id` was already used by this sender for other content."""

    code = "client_id_reused"
    hint = "a resend must carry the same content; give a new message a new client_id"


class AgentBusyError(SessionError):
    """The session's agent answers, and is configured to take no message meanwhile."""

    code = "agent_busy"
    hint = "wait until its answer has ended, or stop it; then resend"
    retry_after_ms: int | None = 1_000


class AheadOfLogError(SessionError):
    """The cursor is beyond the last message of the session."""

    code = "ahead_of_log"
    hint = "start again from details.head_seq; if you saw a higher seq, the archive lost history"


class BackpressureError(SessionError):
    """Too much is waiting to be stored; nothing was accepted."""

    code = "backpressure"
    hint = "resend with the same client_id after retry_after_ms"
    retry_after_ms: int | None = 1_000


class SlotMovedError(SessionError):
    """The session is another node's, or on its way to one; nothing was accepted here."""

    code = "moving"
    hint = "resend with the same client_id after retry_after_ms"
    retry_after_ms: int | None = 250


class OwnerUnavailableError(SessionError):
    """The session's owner does not answer; what was not sent to it was not accepted."""

    code = "owner_unavailable"
    hint = "resend with the same client_id after retry_after_ms"
    retry_after_ms: int | None = 1_000


class OutcomeUnknownError(SessionError):
    """The request went to the session's owner, who has not answered: it may have happened."""

    code = "unknown"
    hint = "resend with the same client_id: the answer tells whether it was stored"
    retry_after_ms: int | None = 1_000


class ShuttingDownError(SessionError):
    """The node is stopping and takes no new work."""

    code = "shutting_down"
    hint = "reconnect with your last_seq and resend with the same client_id"
    retry_after_ms: int | None = 1_000
