"""What to do about a server's refusal, said for this command line: the server's own hints speak of its API."""

from collections.abc import Mapping
from typing import Any

from edge.cli.failure import CommandError, ExitCode, refusal

_HINTS = {
    "agent_exists": "change it with `ringlog agent edit`, or choose another id",
    "agent_not_found": "see `ringlog agent list`",
    "forbidden": "ask a member of the session, or give a secret key of the right scope with --key",
    "session_archived": "unarchive it over HTTP, or use another session",
    "session_deleted": "use a new session",
    "session_not_found": "see `ringlog session list`; `session send --create` and `session chat` make a session",
    "token_expired": "get a fresh token, and give it with --key or RINGLOG_KEY",
    "unauthorized": "give a secret key or a user token with --key or RINGLOG_KEY",
}


def refused(status: int, problem: Mapping[str, Any], session: str | None = None) -> CommandError:
    """Return the failure for a server's refusal; `session` is the one that the command names, if any."""
    error = refusal(status, problem)
    details = problem.get("details")
    details = details if isinstance(details, Mapping) else {}
    if error.code == "missing_field" and details.get("field") in {"sender", "user_id"}:
        return CommandError(
            "missing_field", "who are you?", "say it with --user NAME", ExitCode.USAGE
        )
    if error.code == "not_found" and session is not None:
        return _no_such_name(session)
    if error.code == "ahead_of_log" and isinstance(details.get("head_seq"), int):
        error.hint = f"start again with --after {details['head_seq']}"
    elif error.code == "forbidden" and details.get("field") in {"sender", "user_id"}:
        error.hint = "leave --user out, or give a secret key with --key"
    else:
        error.hint = _HINTS.get(error.code, error.hint)
    return error


def _no_such_name(session: str) -> CommandError:
    """Return the failure for a session whose name is not even a path of the API."""
    from runtime import IDENTIFIER_RULE

    return CommandError(
        "invalid_field",
        f"{session!r} is not the id of a session",
        f"an id is {IDENTIFIER_RULE}",
        ExitCode.USAGE,
    )
