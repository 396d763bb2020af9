"""The watch of a call, on a clock that jumps: nothing real is waited for."""

import pytest
import trio
import trio.testing

from agents.callerror import CallError
from agents.deadlines import Deadlines, Watch

GIVEN = Deadlines(connect_seconds=1, first_byte_seconds=10, idle_seconds=5, total_seconds=30)


async def ends(watch: Watch, seconds: float = float("inf")) -> tuple[str, float]:
    """How waiting ends, and when; the clock of a test begins at zero."""
    with pytest.raises(CallError) as info, watch.limit():
        await trio.sleep(seconds)
    return info.value.code, trio.current_time()


async def test_a_call_begins_by_connecting(autojump_clock: trio.testing.MockClock) -> None:
    assert await ends(Watch(GIVEN)) == ("agent_timeout_connect", 1)


async def test_a_phase_has_its_time_in_all_however_often_is_waited(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = Watch(GIVEN)
    with watch.limit():
        await trio.sleep(0.75)

    assert await ends(watch) == ("agent_timeout_connect", 1)


async def test_a_phase_may_begin_while_is_waited(autojump_clock: trio.testing.MockClock) -> None:
    watch = Watch(GIVEN)
    with pytest.raises(CallError) as info, watch.limit():
        await trio.sleep(0.5)
        watch.begin("first_byte")
        await trio.sleep_forever()

    assert info.value.code == "agent_timeout_first_byte"
    assert str(info.value) == "the agent did not begin to answer in 10 s"
    assert trio.current_time() == 10.5


async def test_time_between_two_waits_counts_for_the_whole_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = Watch(GIVEN)
    watch.begin("idle")
    await trio.sleep(20)
    with watch.limit():
        await trio.sleep(4)
    watch.begin("idle")

    assert await ends(watch) == ("agent_timeout_idle", 29)


async def test_the_whole_ends_before_a_phase_that_would_take_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = Watch(GIVEN)
    for _ in range(7):
        watch.begin("idle")
        with watch.limit():
            await trio.sleep(4)
    watch.begin("idle")

    assert await ends(watch) == ("agent_timeout_total", 30)


async def test_a_call_whose_time_is_over_waits_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = Watch(GIVEN)
    watch.begin("idle")
    await trio.sleep(31)

    assert await ends(watch, 1) == ("agent_timeout_total", 31)


async def test_what_is_over_in_time_and_what_fails_by_itself_come_out_as_they_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    watch = Watch(GIVEN)
    with watch.limit():
        await trio.sleep(0.5)
    with pytest.raises(ZeroDivisionError), watch.limit():
        raise ZeroDivisionError


async def test_cancellation_from_outside_is_no_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.move_on_after(0.5) as scope:
        with Watch(GIVEN).limit():
            await trio.sleep_forever()

    assert scope.cancelled_caught
