"""How a command fails: one line that says what, one that says what to do, and an exit code.

====  ===========================================================================
code  meaning
====  ===========================================================================
0     done
1     it failed, or what was checked is not well
2     the command or an option is wrong
3     not found, or in conflict with what is there
4     the server or the archive cannot be reached
5     no answer in time; what was sent may have been done
70    a server stopped because going on could break the promise (log or epoch lost)
130   interrupted
====  ===========================================================================
"""

import enum
from collections.abc import Mapping
from typing import Any

import orjson


class ExitCode(enum.IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    TIMEOUT = 5
    PROMISE_AT_RISK = 70
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what was asked; `hint` is the next thing to try."""

    def __init__(
        self, code: str, message: str, hint: str = "", exit_code: ExitCode = ExitCode.FAILURE
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


EXIT_CODES = {
    "archive_unavailable": ExitCode.UNREACHABLE,
    "invalid_config": ExitCode.USAGE,
    "invalid_field": ExitCode.USAGE,
    "invalid_secrets_key": ExitCode.USAGE,
    "no_ring": ExitCode.NOT_FOUND,
    "node_not_found": ExitCode.NOT_FOUND,
    "nodes_silent": ExitCode.NOT_FOUND,
    "ring_changed": ExitCode.NOT_FOUND,
    "ring_refused": ExitCode.NOT_FOUND,
}
_STATUS_EXIT_CODES = {404: ExitCode.NOT_FOUND, 409: ExitCode.NOT_FOUND, 410: ExitCode.NOT_FOUND}


def command_error(error: Exception) -> CommandError | None:
    """Return the failure that a known error of the packages below stands for; None if it is a bug."""
    if isinstance(error, CommandError):
        return error
    code = getattr(error, "code", None)
    if not isinstance(code, str):
        return None
    hint = getattr(error, "hint", "")
    return CommandError(code, str(error), hint, EXIT_CODES.get(code, ExitCode.FAILURE))


def refusal(status: int, problem: Mapping[str, Any]) -> CommandError:
    """Return the failure that a server's refusal stands for: a problem document, or an error frame."""
    code = str(problem.get("code") or f"http_{status}")
    message = problem.get("detail") or problem.get("message") or f"the server answered {status}"
    exit_code = EXIT_CODES.get(code) or _STATUS_EXIT_CODES.get(status, ExitCode.FAILURE)
    return CommandError(code, str(message), str(problem.get("hint", "")), exit_code)


def read_problem(answer: bytes) -> dict[str, Any]:
    """Return the problem document in an answer; empty if it is something else."""
    try:
        problem = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}
