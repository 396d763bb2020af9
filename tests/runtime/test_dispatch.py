"""The states of a dispatch, by hand and by table."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from runtime import (
    Dispatch,
    DispatchState,
    Ending,
    close_dispatch,
    decode_dispatch,
    due_at_ms,
    encode_dispatch,
    retry_dispatch,
    send_dispatch,
    stream_dispatch,
)
from runtime.dispatch import NEXT, IllegalStateError, queue_dispatch

S = DispatchState
AT = 1_700_000_000_000


def queued() -> Dispatch:
    return queue_dispatch("s", "d", "bot", 3, AT)


def sent() -> Dispatch:
    return send_dispatch(queued(), AT + 1, to_seq=5, policy="queue")


def streaming() -> Dispatch:
    return stream_dispatch(sent(), AT + 2, 200)


def closed(state: DispatchState) -> Dispatch:
    return close_dispatch(sent(), state, AT + 3, Ending())


IN_STATE: dict[DispatchState, Callable[[], Dispatch]] = {
    S.QUEUED: queued,
    S.SENT: sent,
    S.STREAMING: streaming,
    **{state: partial(closed, state) for state in (S.DONE, S.FAILED, S.INTERRUPTED, S.CANCELLED)},
}


def go(dispatch: Dispatch, state: DispatchState) -> Dispatch:
    match state:
        case S.QUEUED:
            return retry_dispatch(dispatch, AT + 9, AT + 99, Ending(code="x"))
        case S.SENT:
            return send_dispatch(dispatch, AT + 9, to_seq=7, policy="reject")
        case S.STREAMING:
            return stream_dispatch(dispatch, AT + 9, 200)
        case _:
            return close_dispatch(dispatch, state, AT + 9, Ending(code="y"))


@pytest.mark.parametrize(("old", "new"), list(itertools.product(S, S)))
def test_only_what_the_table_has_follows_a_state(old: DispatchState, new: DispatchState) -> None:
    dispatch = IN_STATE[old]()
    if new in NEXT[old]:
        changed = go(dispatch, new)
        assert (changed.state, changed.version) == (new, dispatch.version + 1)
        assert changed.is_open == bool(NEXT[new])
    else:
        before = encode_dispatch(dispatch)
        with pytest.raises(IllegalStateError, match=f"{old} to {new}"):
            go(dispatch, new)
        assert encode_dispatch(dispatch) == before


def test_each_attempt_shows_the_agent_what_the_first_one_showed() -> None:
    first = send_dispatch(queued(), AT, to_seq=5, policy="queue")
    again = retry_dispatch(first, AT + 10, AT + 500, Ending("agent_unreachable", "refused"))
    assert due_at_ms(again) == AT + 500
    second = send_dispatch(again, AT + 500, to_seq=9, policy="queue")
    assert (second.attempt, second.to_seq, second.due_at) == (2, 5, None)
    assert [each.code for each in second.attempts] == ["agent_unreachable", None]


def test_what_an_attempt_came_to_is_kept() -> None:
    done = close_dispatch(streaming(), S.DONE, AT + 50, Ending(bytes=120, chunks=4))
    (attempt,) = done.attempts
    assert (attempt.status, attempt.bytes, attempt.chunks) == (200, 120, 4)
    assert attempt.first_byte_at is not None
    assert attempt.ended_at is not None


def test_a_reason_is_cut_to_what_is_kept_of_it() -> None:
    failed = close_dispatch(sent(), S.FAILED, AT, Ending("agent_failed", "<html>" * 1_000))
    assert failed.error is not None
    assert len(failed.error) == 500
    assert failed.attempts[0].error == failed.error


def test_a_dispatch_survives_its_line_of_json() -> None:
    for make in IN_STATE.values():
        dispatch = make()
        body = encode_dispatch(dispatch)
        assert body.startswith(b'{"type":"dispatch","session":"s","dispatch":"d","agent_id":"bot"')
        assert b"\n" not in body
        assert decode_dispatch(body) == dispatch


def test_time_never_runs_backwards_in_a_dispatch() -> None:
    late = send_dispatch(queued(), AT + 5_000, to_seq=1, policy="queue")
    early = stream_dispatch(late, AT, 200)
    assert early.updated_at == late.updated_at
