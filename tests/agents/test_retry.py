"""What follows from how a call ended."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.callerror import CALL_ERRORS, CallError
from agents.retry import (
    RETRIED,
    Answered,
    Disable,
    Done,
    GiveUp,
    Outcome,
    Retry,
    RetryPolicy,
    Verdict,
    judge,
    may_pass,
    parse_retry_after,
    pause_bound_ms,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
POLICY = RetryPolicy(
    attempts_max=5, pause_ms=1_000, pause_ms_max=60_000, retry_after_ms_max=900_000
)


def verdict(outcome: Outcome, attempt: int = 1, random: float = 0.5) -> Verdict:
    return judge(outcome, attempt, POLICY, now=NOW, random=random)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_an_answer_is_done(status: int) -> None:
    assert verdict(Answered(status)) == Done()


@pytest.mark.parametrize("status", range(100, 600))
def test_each_status_has_one_verdict(status: int) -> None:
    got = verdict(Answered(status))

    if 200 <= status < 300:
        assert got == Done()
    elif status in {429, 502, 503, 504}:
        assert got == Retry(500, "agent_status")
    elif status == 410:
        assert got == Disable("agent_gone")
    else:
        assert got == GiveUp("agent_status", exhausted=False)


@pytest.mark.parametrize("code", CALL_ERRORS)
def test_a_call_that_may_succeed_later_is_made_again(code: str) -> None:
    got = verdict(CallError(code, "it failed"))

    if CALL_ERRORS[code].retryable:
        assert got == Retry(500, code)
    else:
        assert got == GiveUp(code, exhausted=False)


def test_no_connection_and_every_timeout_but_the_whole_are_tried_again() -> None:
    assert {code for code, kind in CALL_ERRORS.items() if kind.retryable} == {
        "agent_calls_full",
        "agent_disconnected",
        "agent_timeout_connect",
        "agent_timeout_first_byte",
        "agent_timeout_idle",
        "agent_unreachable",
    }


def test_the_last_attempt_is_the_last() -> None:
    assert verdict(Answered(503), attempt=4) == Retry(4_000, "agent_status")
    assert verdict(Answered(503), attempt=5) == GiveUp("agent_status", exhausted=True)
    assert verdict(Answered(503), attempt=6) == GiveUp("agent_status", exhausted=True)


def test_the_bound_of_the_pause_doubles_up_to_a_limit() -> None:
    bounds = [pause_bound_ms(attempt, POLICY) for attempt in range(1, 9)]

    assert bounds == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
    assert pause_bound_ms(10**9, POLICY) == 60_000


@settings(deadline=None)
@given(st.integers(1, 4), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_drawn_from_all_of_its_range(attempt: int, random: float) -> None:
    got = verdict(Answered(503), attempt, random)

    assert isinstance(got, Retry)
    assert 0 <= got.after_ms < pause_bound_ms(attempt, POLICY)
    assert got.after_ms == int(random * pause_bound_ms(attempt, POLICY))


def test_what_the_agent_asks_for_is_waited_for_and_jitter_comes_on_top() -> None:
    assert verdict(Answered(429, "7"), random=0.0) == Retry(7_000, "agent_status")
    assert verdict(Answered(429, "7"), random=0.25) == Retry(7_250, "agent_status")
    assert verdict(Answered(503, "Sun, 01 Mar 2026 12:00:30 GMT"), random=0.0) == Retry(
        30_000, "agent_status"
    )


def test_an_agent_cannot_ask_for_more_than_the_limit() -> None:
    for asked in ("86400", "999999999", "Fri, 01 Jan 2100 00:00:00 GMT"):
        assert verdict(Answered(503, asked), random=0.0) == Retry(900_000, "agent_status")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("120", 120_000),
        (" 5 ", 5_000),
        ("Sun, 01 Mar 2026 12:00:05 GMT", 5_000),
        ("Sun, 01 Mar 2026 11:59:00 GMT", 0),
        ("Sunday, 01-Mar-26 12:00:05 GMT", 5_000),
        ("Sun Mar  1 12:00:05 2026", 5_000),
        ("Sun, 01 Mar 2026 13:00:05 +0100", 5_000),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("1" * 10, None),
        ("٣", None),
        ("Sun, 99 Mar 2026 12:00:05 GMT", None),
        ("Sun, 01 Mar 99999999999 12:00:05 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_of_its_forms(text: str | None, wanted: int | None) -> None:
    assert parse_retry_after(text, NOW) == wanted


@settings(deadline=None)
@given(st.text(max_size=60))
def test_nothing_in_retry_after_raises(text: str) -> None:
    got = parse_retry_after(text, NOW)

    assert got is None or got >= 0


def test_only_what_may_pass_speaks_against_the_agent() -> None:
    assert all(may_pass(Answered(status)) for status in RETRIED)
    assert not any(may_pass(Answered(status)) for status in (200, 400, 401, 404, 410, 500))
    assert may_pass(CallError("agent_unreachable", ""))
    assert not may_pass(CallError("agent_address_refused", ""))
