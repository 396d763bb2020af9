from typing import Any

import msgspec
import pytest

import agents
import runtime.errors
import storage.errors
from edge.errors import (
    ERRORS,
    INTERNAL,
    EdgeError,
    encode_problem,
    problem_headers,
    problem_of,
)

# Errors that end the process before there is anyone to tell.
STARTUP_CODES = {
    "storage_error",
    "session_error",
    "corrupt_log",
    "log_behind_cursor",
    "archive_behind_log",
    "directory_locked",
    "node_running",
    "archive_too_new",
    "archive_settings",
    "archive_conflict",
    "archive_owned",
    "cursor_mismatch",
    "durability_mismatch",
    # Between owners.
    "node_returned",
    "ring_restored",
    "ring_size",
}


def codes_below(root: type[Any]) -> set[str]:
    return {root.code}.union(*(codes_below(child) for child in root.__subclasses__()))


@pytest.mark.parametrize(
    "root",
    [
        runtime.errors.SessionError,
        storage.errors.StorageError,
        runtime.PlanError,
        agents.AgentError,
    ],
)
def test_every_error_from_below_has_a_row_in_the_table(root: type[Any]) -> None:
    assert codes_below(root) - STARTUP_CODES - {"agent_error"} <= set(ERRORS)


def test_every_row_says_what_to_do_next_and_has_a_legal_status_and_close_code() -> None:
    for code, kind in ERRORS.items():
        assert code.replace("_", "").isalnum(), code
        assert code == code.lower()
        assert kind.hint, code
        assert kind.title, code
        assert 400 <= kind.status <= 599, code
        legal = kind.close_code is None or kind.close_code in range(1000, 1015)
        assert legal or kind.close_code in range(4000, 5000), code


def test_a_problem_document_has_the_fields_of_rfc_9457_and_ours() -> None:
    error = EdgeError("missing_field", "field content is missing", field="content")
    document = msgspec.json.decode(encode_problem(problem_of(error), "/v1/sessions/a/messages"))
    assert document == {
        "type": "urn:ringlog:error:missing_field",
        "title": "Missing field",
        "status": 400,
        "detail": "field content is missing",
        "code": "missing_field",
        "hint": "add the field that is named",
        "details": {"field": "content"},
        "instance": "/v1/sessions/a/messages",
    }


def test_an_error_from_below_keeps_its_hint_its_details_and_its_retry_time() -> None:
    problem = problem_of(runtime.errors.ConflictError("the head is 4", expected_seq=3, head_seq=4))
    assert (problem.code, problem.details) == ("conflict", {"expected_seq": 3, "head_seq": 4})
    assert problem.hint == runtime.errors.ConflictError.hint
    full = problem_of(storage.errors.StorageFullError())
    assert full.code == "storage_full"
    assert full.retry_after_ms == 5_000
    assert problem_headers(full)["Retry-After"] == "5"


def test_an_unexpected_error_tells_the_client_nothing_of_itself() -> None:
    assert problem_of(RuntimeError("password is swordfish")) is INTERNAL
    assert problem_of(SystemExit(3)) is INTERNAL
    assert b"swordfish" not in encode_problem(problem_of(RuntimeError("swordfish")))


def test_an_error_that_ends_the_process_is_internal_to_a_client() -> None:
    assert problem_of(storage.errors.ArchiveConflictError("messages", "a/1")) is INTERNAL


def test_a_refused_credential_says_which_scheme_to_use() -> None:
    headers = problem_headers(problem_of(EdgeError("token_expired", "expired")))
    assert headers["WWW-Authenticate"].startswith("Bearer")


def test_a_code_that_is_not_in_the_table_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        EdgeError("no_such_code", "x")
