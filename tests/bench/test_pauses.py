"""What is taken from the waits of messages, by hand."""

from bench.pauses import first_answers, histogram_of, longest_waits

WAITS = {
    "quiet": [(1.0, 1.1), (2.0, 2.1), (3.0, 3.1)],
    "paused": [(1.0, 1.1), (2.0, 2.9), (3.0, 3.2)],
    "silent": [(9.0, 9.1)],
}


def rounded(seconds: list[float]) -> list[float]:
    return [round(each, 3) for each in seconds]


def test_of_each_session_the_longest_wait_of_those_that_were_due_then() -> None:
    assert rounded(longest_waits(WAITS, 1.5, 3.5)) == [0.1, 0.9]
    assert rounded(longest_waits(WAITS, 3.0, 9.0)) == [0.1, 0.2]
    assert longest_waits(WAITS, 4.0, 8.0) == []


def test_what_was_due_before_an_instant_is_no_answer_to_what_happened_then() -> None:
    # The message that was due at 2.0 was acknowledged after 2.5, and may have been answered before.
    assert rounded(first_answers(WAITS, ["paused"], 2.5)) == [0.7]
    assert rounded(first_answers(WAITS, ["quiet", "paused"], 2.0)) == [0.1, 0.9]
    assert first_answers(WAITS, ["quiet"], 4.0) == []


def test_an_answer_that_overtook_is_the_first() -> None:
    assert rounded(first_answers({"a": [(1.0, 3.0), (1.2, 1.5)]}, ["a"], 1.0)) == [0.5]


def test_seconds_become_whole_microseconds_as_in_every_load() -> None:
    histogram = histogram_of([0.0001, 0.000_200_9])
    assert (histogram.count, histogram.max) == (2, 200)
