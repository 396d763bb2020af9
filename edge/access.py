"""What a principal may do to a session: the same rules for the socket and for HTTP.

- A user sees the sessions they own or are a member of, and of these only what their token names. Any
  other session does not exist for them: the answer is the one for an id that was never used, also when
  it was erased. (Creating one under a taken id is refused, which tells that it is taken.)
- A member reads and writes messages; the owner alone changes, archives and erases the session.
- A user speaks for themselves. A secret key, and anyone in development, may name the user.
"""

from edge.auth import Principal
from edge.errors import EdgeError
from runtime import (
    AGENT_PREFIX,
    IDENTIFIER_RULE,
    Host,
    Served,
    SessionDeletedError,
    SessionInfo,
    SessionNotFoundError,
    is_identifier,
)


def check_sees(principal: Principal, info: SessionInfo) -> None:
    """Raise `session_not_found` unless the session exists for this principal."""
    check_token_names(principal, info.session)
    if principal.kind == "user" and not (
        principal.user_id is not None and info.allows(principal.user_id)
    ):
        raise session_not_found(info.session)


async def open_session(
    host: Host,
    principal: Principal,
    session: str,
    *,
    to_append: bool = False,
    to_follow: bool = False,
) -> Served:
    """Return a session that the principal may see, as it is durable; no checkpoint follows.

    To append to it takes `to_append`, to follow it `to_follow`, as `Host.open` says.

    Raises:
        SessionNotFoundError: it is not there, or not for this principal.
        SessionDeletedError: it was the principal's own, or would be a secret key's to see.
        SessionError, StorageError: as `Node.open`.
    """
    check_token_names(principal, session)
    try:
        server = await host.open(
            principal.workspace, session, to_append=to_append, to_follow=to_follow
        )
    except SessionDeletedError as error:
        if is_stranger_to(principal, error):
            raise session_not_found(session) from None
        raise
    check_sees(principal, server.info)
    return server


def is_stranger_to(principal: Principal, erased: SessionDeletedError) -> bool:
    """Tell whether a principal must not learn that this session was ever there."""
    return principal.kind == "user" and principal.user_id != erased.user_id


def check_token_names(principal: Principal, session: str) -> None:
    """Raise `session_not_found` if the principal's token is limited to other sessions.

    Needs no session, so it can come before one is activated.
    """
    if principal.sessions is not None and session not in principal.sessions:
        raise session_not_found(session)


def check_owns(principal: Principal, info: SessionInfo) -> None:
    """Raise `forbidden` unless the principal may change the session; it must be known to see it."""
    if principal.kind == "user" and principal.user_id != info.user_id:
        raise EdgeError(
            "forbidden",
            f"only the owner may change session {info.session}",
            hint="ask the owner, or use a secret key",
        )


def session_owner(principal: Principal, session: str | None, user_id: str | None) -> str:
    """Return who will own a session that this principal creates; `user_id` is what the request named.

    Raises:
        EdgeError: missing_field, invalid_field, forbidden.
    """
    if principal.sessions is not None and session not in principal.sessions:
        raise EdgeError("forbidden", "the token is limited to other sessions", field="id")
    return acting_user(principal, user_id, field="user_id")


def acting_user(principal: Principal, named: str | None, *, field: str) -> str:
    """Return on whose behalf a request is made; `named` is what stood in its `field`, if anything.

    Raises:
        EdgeError: missing_field, invalid_field, forbidden.
    """
    if named is None:
        if principal.user_id is None:
            raise EdgeError("missing_field", f"field {field} is missing", field=field)
        return principal.user_id
    if principal.kind == "user" and named != principal.user_id:
        raise EdgeError(
            "forbidden",
            f"a user token speaks for {principal.user_id} alone",
            hint="leave the field out, or use a secret key",
            field=field,
        )
    if not is_identifier(named):
        raise EdgeError("invalid_field", f"{field} must be {IDENTIFIER_RULE}", field=field)
    check_no_agent(named, field)
    return named


def check_no_agent(user_id: str, field: str) -> None:
    """Raise `invalid_field` for a user who would be taken for an agent: what agents say comes from `agent:<id>`."""
    if user_id.startswith(AGENT_PREFIX):
        raise EdgeError("invalid_field", f"{field} must not begin with {AGENT_PREFIX}", field=field)


def user_of(principal: Principal) -> str | None:
    """Return who must be allowed to see a session, None where a secret key answers for it."""
    return principal.user_id if principal.kind == "user" else None


def session_not_found(session: str) -> SessionNotFoundError:
    """Return the error for a session that is not there, or not for this principal: the same one."""
    return SessionNotFoundError(f"no session {session}", session=session)
