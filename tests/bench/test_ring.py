"""What the ring scenario says of the assignment, beside what the assignment promises."""

from pathlib import Path

from bench.report import Figure
from bench.scenarios import ring
from bench.scenarios.ring import RingOptions, figures_for, run_ring


def named(figures: list[Figure]) -> dict[str, float]:
    return {figure.name: figure.value for figure in figures}


def test_a_ring_of_few_and_of_many_nodes_is_even_and_changes_little() -> None:
    found = named(figures_for([f"{number:032x}" for number in range(ring.MANY)]))
    # The three keep 1.05 of a fair share each at most.
    assert 1 - 3 * 1.05 / 4 - 0.001 < found["moved when a node joins 3"] <= 1 / 4 + 0.03
    assert 1 <= found["moved when one of 100 leaves, over its share"] <= 3
    assert 1 <= found["largest share of 3 over a fair one"] <= 1.08
    assert 1 <= found["largest share of 100 over a fair one"] <= 1.08


def test_what_is_uneven_and_what_moves_is_seen() -> None:
    assert ring._imbalance(["a", "a", "a", "b"]) == 1.5
    assert ring._share_moved(["a", "a", "b", "b"], ["a", "b", "b", "a"]) == 0.5


async def test_each_set_of_names_is_a_round(tmp_path: Path) -> None:
    report = await run_ring(RingOptions(rounds=2, directory=tmp_path))
    assert report.ok
    assert report.scenario == "ring"
    moved = report.metric("moved when a node joins 3")
    assert moved is not None
    assert len(moved.values) == 2
    assert moved.values[0] != moved.values[1]
