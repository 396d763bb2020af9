from bench.loads.score import ENTRANCE_SECONDS, Score


def test_nothing_is_told_before_its_time_and_nothing_twice() -> None:
    score = Score([[0.0, 2.0], [1.0]])
    assert list(score.take_messages(-0.1)) == []
    assert list(score.take_messages(1.0)) == [0, 1]
    assert list(score.take_messages(1.0)) == []
    assert list(score.take_messages(9.0)) == [0]


def test_what_is_due_together_is_told_together_each_message_for_itself() -> None:
    assert sorted(Score([[1.0, 1.0], [1.0]]).take_messages(1.0)) == [0, 0, 1]


def test_a_reader_enters_before_the_first_message_and_once() -> None:
    score = Score([[3.0, 4.0], [1.0]])
    assert score.take_entrances(1.0 - ENTRANCE_SECONDS - 0.1) == []
    assert score.take_entrances(1.0 - ENTRANCE_SECONDS) == [1]
    assert score.take_entrances(3.0) == [0]
    assert score.take_entrances(9.0) == []


def test_the_next_moment_is_that_of_an_entrance_or_of_a_message() -> None:
    score = Score([[0.0, 9.0]])
    assert score.next_seconds == -ENTRANCE_SECONDS
    score.take_entrances(0.0)
    assert score.next_seconds == 0.0
    score.take_messages(0.0)
    assert score.next_seconds == 9.0
    score.take_messages(9.0)
    assert score.next_seconds == float("inf")
