from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.significance import least_p, mann_whitney_p

# The largest U with a two-sided p of at most 0.05, from the published tables for this test.
CRITICAL_U = {4: 0, 5: 2, 6: 5, 7: 8, 8: 13, 9: 17, 10: 23}


def samples_with_u(size: int, u: int) -> tuple[list[float], list[float]]:
    """Return two sets of one size, without equal values, in which `u` pairs are the other way round."""
    full, rest = divmod(u, size)
    above = [0] * (size - full - 1) + [rest] + [size] * full
    first = [above_count + number / 100 for number, above_count in enumerate(above)]
    return first, [number + 0.5 for number in range(size)]


def p_by_listing(a: list[float], b: list[float]) -> float:
    """Return the definition: every choice of places for the first set, one by one."""
    pooled = [*a, *b]

    def distance(chosen: set[int]) -> float:
        first = [pooled[place] for place in chosen]
        second = [pooled[place] for place in range(len(pooled)) if place not in chosen]
        wins = sum((x > y) + (x == y) / 2 for x in first for y in second)
        return abs(wins - len(first) * len(second) / 2)

    seen = distance(set(range(len(a))))
    choices = [set(choice) for choice in combinations(range(len(pooled)), len(a))]
    return sum(distance(choice) >= seen for choice in choices) / len(choices)


@pytest.mark.parametrize(
    ("size_a", "size_b", "p"),
    [(3, 3, 2 / 20), (3, 4, 2 / 35), (3, 5, 2 / 56), (4, 4, 2 / 70), (5, 5, 2 / 252)],
)
def test_sets_that_do_not_overlap_have_the_least_p_of_their_sizes(
    size_a: int, size_b: int, p: float
) -> None:
    low, high = list(range(size_a)), list(range(100, 100 + size_b))
    assert mann_whitney_p(low, high) == pytest.approx(p)
    assert mann_whitney_p(high, low) == pytest.approx(p)
    assert least_p(size_a, size_b) == pytest.approx(p)


def test_a_p_counted_by_hand() -> None:
    # 5 v 5 and U = 2: of 252 choices one has U 0, one U 1 and two U 2; as many at the other end.
    assert mann_whitney_p(*samples_with_u(5, 2)) == pytest.approx(8 / 252)


@pytest.mark.parametrize(("size", "critical"), CRITICAL_U.items())
def test_the_critical_values_are_those_of_the_published_tables(size: int, critical: int) -> None:
    assert mann_whitney_p(*samples_with_u(size, critical)) <= 0.05
    assert mann_whitney_p(*samples_with_u(size, critical + 1)) > 0.05


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
)
def test_equal_values_share_their_rank(a: list[float], b: list[float]) -> None:
    assert mann_whitney_p(a, b) == pytest.approx(p_by_listing(a, b))


def test_equal_sets_differ_by_chance_alone() -> None:
    assert mann_whitney_p([1, 2, 3, 4], [1, 2, 3, 4]) == 1.0
    assert mann_whitney_p([7, 7, 7, 7], [7, 7, 7, 7]) == 1.0


def test_twenty_rounds_beside_twenty_are_counted_and_not_listed() -> None:
    p = mann_whitney_p(range(20), range(20, 40))
    assert p == pytest.approx(least_p(20, 20))
    assert p < 1e-10
