"""The table of what a call can fail for."""

from agents.callerror import CALL_ERRORS, CallError


def test_an_error_carries_what_its_code_means() -> None:
    error = CallError("agent_unreachable", "cannot connect to a.example")

    assert (error.code, error.message, str(error)) == (
        "agent_unreachable",
        "cannot connect to a.example",
        "cannot connect to a.example",
    )
    assert error.retryable
    assert error.hint == CALL_ERRORS["agent_unreachable"].hint


def test_every_code_is_the_agents_and_says_what_to_do() -> None:
    own = ("agent_", "secrets_")
    assert all(code.startswith(own) and kind.hint for code, kind in CALL_ERRORS.items())
