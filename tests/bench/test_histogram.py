import math
import random

from hypothesis import given
from hypothesis import strategies as st

from bench.histogram import VALUE_BITS_MAX, Histogram

PERCENTS = (0, 1, 50, 90, 99, 99.9, 100)

values = st.lists(
    st.one_of(st.integers(0, 300), st.integers(0, 2**VALUE_BITS_MAX - 1)), min_size=1, max_size=200
)


def exact_percentile(samples: list[int], percent: float) -> int:
    return sorted(samples)[max(1, math.ceil(len(samples) * percent / 100)) - 1]


@given(values)
def test_percentiles_are_the_exact_ones_or_at_most_one_part_in_128_above(
    samples: list[int],
) -> None:
    histogram = Histogram()
    for sample in samples:
        histogram.record(sample)
    for percent in PERCENTS:
        exact = exact_percentile(samples, percent)
        assert exact <= histogram.percentile(percent) <= exact * (1 + 1 / 128)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=200))
def test_small_values_have_cells_of_their_own(samples: list[int]) -> None:
    histogram = Histogram()
    for sample in samples:
        histogram.record(sample)
    for percent in PERCENTS:
        assert histogram.percentile(percent) == exact_percentile(samples, percent)


@given(values)
def test_count_total_and_maximum_are_exact(samples: list[int]) -> None:
    histogram = Histogram()
    for sample in samples:
        histogram.record(sample)
    assert (histogram.count, histogram.total) == (len(samples), sum(samples))
    assert histogram.max == max(samples)


def test_an_empty_histogram_reports_zero() -> None:
    assert Histogram().percentile(99) == 0


def test_a_value_beyond_the_last_cell_is_counted_there_and_kept_as_the_maximum() -> None:
    histogram = Histogram()
    histogram.record(1 << 50)
    assert histogram.count == 1
    assert histogram.max == 1 << 50
    assert histogram.percentile(50) == 2**VALUE_BITS_MAX - 1


def test_what_is_added_or_packed_has_the_same_percentiles_as_if_recorded_here() -> None:
    source = random.Random(7)
    values = [source.randrange(1, 10_000_000) for _ in range(500)]
    together, first, second = Histogram(), Histogram(), Histogram()
    for place, value in enumerate(values):
        together.record(value)
        (first if place % 3 else second).record(value)
    first.add(Histogram(second.pack()))
    for percent in (0, 1, 50, 99, 99.9, 100):
        assert first.percentile(percent) == together.percentile(percent)
    assert (first.count, first.total, first.max) == (500, sum(values), max(values))
    first.clear()
    assert (first.count, first.percentile(50)) == (0, 0)
