"""Errors on their way from an owner to an edge: the same code, text, hint and details on both sides."""

from typing import Any

from runtime.errors import (
    SessionDeletedError,
    SessionError,
    SessionExistsError,
    SessionNotFoundError,
)
from runtime.links.messages import Refused
from storage import ArchiveUnavailableError


class RefusedByOwnerError(SessionError):
    """What an owner refused, in its own words; `code` is the owner's."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.text, **refused.details)
        self.code = refused.code
        self.hint = refused.hint
        self.retry_after_ms = refused.retry_after_ms


def refuse(channel: int, number: int, error: Exception, *, decided: bool = False) -> Refused:
    """Return an error as a message; it has a stable code."""
    details: dict[str, Any] = dict(getattr(error, "details", None) or {})
    if isinstance(error, SessionDeletedError):
        details["user_id"] = error.user_id
    if isinstance(error, ArchiveUnavailableError):
        details["reason"] = error.reason
    return Refused(
        channel,
        number,
        error.code,  # type: ignore[attr-defined]
        str(error),
        getattr(error, "hint", ""),
        getattr(error, "retry_after_ms", None),
        details,
        decided,
    )


def error_of(refused: Refused) -> Exception:
    """Return the error that a message holds: of its own class, where somebody catches that."""
    details = refused.details
    if refused.code == SessionDeletedError.code:
        return SessionDeletedError(details["session"], details["user_id"])
    if refused.code == SessionNotFoundError.code:
        return SessionNotFoundError(refused.text, **details)
    if refused.code == SessionExistsError.code:
        return SessionExistsError(details["session"])
    if refused.code == ArchiveUnavailableError.code:
        return ArchiveUnavailableError(details["reason"], refused.hint)
    return RefusedByOwnerError(refused)
