"""The circuit breaker, step by step, with a clock in the test's hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.breaker import (
    TRANSITIONS,
    Breaker,
    BreakerOptions,
    Event,
    Permission,
    State,
    ask,
    failed,
    succeeded,
)

OPTIONS = BreakerOptions(failures_max=3, pause_seconds=5, pause_seconds_max=60, probe_seconds=30)


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker = failed(breaker, OPTIONS, now)
    assert breaker.state is State.OPEN
    return breaker


def test_a_new_breaker_lets_calls_through() -> None:
    assert ask(Breaker(), OPTIONS, 0.0) == (Breaker(), Permission(granted=True))


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = failed(failed(Breaker(), OPTIONS, 1.0), OPTIONS, 2.0)
    assert ask(breaker, OPTIONS, 2.0)[1].granted

    breaker = failed(breaker, OPTIONS, 3.0)

    assert ask(breaker, OPTIONS, 3.0) == (breaker, Permission(granted=False, ask_again_at=8.0))


def test_a_success_in_between_begins_the_count_anew() -> None:
    breaker = failed(failed(Breaker(), OPTIONS, 1.0), OPTIONS, 2.0)

    assert succeeded(breaker) == Breaker()


def test_after_the_pause_one_call_is_let_through() -> None:
    breaker = opened(100.0)
    assert not ask(breaker, OPTIONS, 104.9)[1].granted

    breaker, permission = ask(breaker, OPTIONS, 105.0)

    assert (breaker.state, permission.granted) == (State.HALF_OPEN, True)
    assert ask(breaker, OPTIONS, 105.0)[1] == Permission(granted=False, ask_again_at=135.0)


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker, _ = ask(opened(100.0), OPTIONS, 105.0)

    assert succeeded(breaker) == Breaker()


def test_the_pause_doubles_with_each_probe_that_fails_up_to_a_limit() -> None:
    breaker, now, pauses = opened(100.0), 100.0, []
    for _ in range(7):
        pauses.append(breaker.until - now)
        now = breaker.until
        breaker, permission = ask(breaker, OPTIONS, now)
        assert permission.granted
        breaker = failed(breaker, OPTIONS, now)

    assert pauses == [5, 10, 20, 40, 60, 60, 60]


def test_a_probe_that_is_never_heard_of_again_is_followed_by_another() -> None:
    breaker, _ = ask(opened(100.0), OPTIONS, 105.0)

    assert not ask(breaker, OPTIONS, 134.9)[1].granted
    breaker, permission = ask(breaker, OPTIONS, 135.0)
    assert permission.granted
    assert not ask(breaker, OPTIONS, 135.0)[1].granted


def test_calls_that_were_under_way_when_it_opened_change_nothing() -> None:
    breaker = opened(100.0)

    assert failed(breaker, OPTIONS, 101.0) == breaker
    assert succeeded(breaker) == breaker


@pytest.mark.parametrize("state", State)
def test_every_state_knows_every_event_that_it_can_meet(state: State) -> None:
    met = {event for known, event in TRANSITIONS if known is state}

    assert {Event.SUCCEEDED, Event.FAILED} <= met
    assert (Event.PAUSE_OVER in met) == (state is not State.CLOSED)
    assert (Event.FAILED_TOO_OFTEN in met) == (state is State.CLOSED)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("asf"), st.floats(0, 100)), max_size=60))
def test_whoever_asks_long_enough_is_let_through(steps: list[tuple[str, float]]) -> None:
    """No order of events leaves an agent shut out for longer than the longest wait."""
    breaker, now = Breaker(), 0.0
    for step, seconds in steps:
        now += seconds
        if step == "a":
            breaker, permission = ask(breaker, OPTIONS, now)
            assert permission.granted or permission.ask_again_at > now
        elif step == "s":
            breaker = succeeded(breaker)
        else:
            breaker = failed(breaker, OPTIONS, now)

    assert ask(breaker, OPTIONS, now + 60)[1].granted
