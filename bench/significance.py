"""Whether two small sets of measurements differ by more than chance: the exact Mann–Whitney test.

A bench has three to ten rounds, and no reason to believe that they are normally distributed: a sync that
stalls makes one round much slower and none much faster. So only the order of the values counts. All of
them are ranked together; if both sets came from the same distribution, each choice of ranks for the first
set would be equally likely. `p` is the share of those choices whose sum of ranks is as far from the
expected one as what was seen, in either direction.

Equal values share the mean of their ranks. The choices are counted rank by rank, not listed: the shift
algorithm needs a few thousand additions where ten rounds beside ten have 184,756 choices.

The least `p` that two sets can have is that of two sets that do not overlap::

    rounds     3 v 3    3 v 4    3 v 5    4 v 4    5 v 5    10 v 10
    least p    0.100    0.057    0.036    0.029    0.008    0.00001

Sources: Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than
the Other", Annals of Mathematical Statistics 18 (1947); Streitberg and Röhmel, "Exact Distributions for
Permutations and Rank Tests", Statistical Software Newsletter 12 (1986), for the counting.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence


def mann_whitney_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the exact two-sided probability of a difference like this one by chance alone."""
    pooled = sorted((*a, *b))
    # Twice the mean rank of each value, which is an integer even where two values are equal.
    ranks = {
        value: bisect_left(pooled, value) + bisect_right(pooled, value) + 1 for value in pooled
    }
    expected = len(a) * (len(pooled) + 1)
    seen = abs(sum(ranks[value] for value in a) - expected)
    sums = _rank_sums([ranks[value] for value in pooled], len(a))
    as_far = sum(choices for total, choices in sums.items() if abs(total - expected) >= seen)
    return as_far / sums.total()


def least_p(count_a: int, count_b: int) -> float:
    """Return the smallest p that sets of these sizes can have."""
    return min(1.0, 2 / math.comb(count_a + count_b, count_a))


def _rank_sums(ranks: Sequence[int], size: int) -> Counter[int]:
    """Return each sum of `size` of these ranks, with the number of choices that give it."""
    by_size = [Counter({0: 1}), *(Counter[int]() for _ in range(size))]
    for rank in ranks:
        # From the largest: no choice takes the same rank twice.
        for taken in range(size, 0, -1):
            for total, choices in by_size[taken - 1].items():
                by_size[taken][total + rank] += choices
    return by_size[size]
