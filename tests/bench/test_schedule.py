import pytest

from bench.conversations import load_conversations
from bench.loads.schedule import (
    PAUSE_SECONDS_MAX,
    SILENCE_SECONDS_MAX,
    busiest_second,
    due_seconds,
    run_seconds,
    written_seconds,
)

MONDAY = 1_525_046_400.0


def due(*written: list[float], speed_up: float = 1.0) -> list[list[float]]:
    shifted = [[MONDAY + time for time in times] for times in written]
    return [list(times) for times in due_seconds(shifted, speed_up)]


def test_messages_keep_their_distances_divided_by_the_speed() -> None:
    assert due([0, 5, 5, 60], speed_up=10) == [[0.0, 0.5, 0.5, 6.0]]


def test_a_long_pause_counts_as_the_longest_there_is() -> None:
    assert due([0, 10, 10 + 86_400, 86_415]) == [
        [0.0, 10.0, 10 + PAUSE_SECONDS_MAX, 15 + PAUSE_SECONDS_MAX]
    ]


def test_conversations_begin_in_their_order_and_density_and_end_with_the_longest() -> None:
    # They begin after 0, 300 and 400 of 400 s; the longest lasts for 100 s.
    assert due([0, 100], [400, 420], [300, 320]) == [[0.0, 100.0], [80.0, 100.0], [60.0, 80.0]]


def test_the_longest_conversation_begins_at_once_wherever_it_stood() -> None:
    assert due([0], [50, 150]) == [[0.0], [0.0, 100.0]]


def test_a_night_without_conversations_is_cut() -> None:
    # Three begin an hour apart, as one that came a week later does after the cut.
    hour = SILENCE_SECONDS_MAX
    week = 7 * 86_400
    starts = due([0], [hour], [2 * hour], [2 * hour + week], [0, 300])
    assert [times[0] for times in starts] == [0.0, 100.0, 200.0, 300.0, 0.0]


def test_conversations_that_all_begin_at_once_do_so() -> None:
    assert due([0, 4], [0, 2]) == [[0.0, 4.0], [0.0, 2.0]]


def test_the_run_is_as_long_as_its_longest_conversation() -> None:
    assert run_seconds(due([0, 30], [7, 8])) == 30


def test_the_busiest_second_is_that_in_which_most_is_due() -> None:
    assert busiest_second([[0.0, 1.0, 1.5], [1.99, 2.0]]) == 3


@pytest.mark.parametrize("speed_up", [1.0, 1000.0])
def test_the_data_set_is_played_in_the_order_in_which_it_was_written(speed_up: float) -> None:
    conversations = load_conversations("p-", 300)
    written = [written_seconds(conversation) for conversation in conversations]
    played = due_seconds(written, speed_up)
    assert [len(times) for times in played] == [len(each.messages) for each in conversations]
    assert all(list(times) == sorted(times) for times in played)
    assert min(times[0] for times in played) >= 0
    assert run_seconds(played) == pytest.approx(run_seconds(due_seconds(written, 1.0)) / speed_up)


def test_times_are_those_of_the_data_set() -> None:
    by_session = {each.session: each for each in load_conversations("p-", 1)}
    times = written_seconds(by_session["p-a07edb12-6b91-4138-b11e-02421888d699"])
    assert times[0] == 1_525_289_895.0
