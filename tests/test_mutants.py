"""The table of mutants does not rot: each still applies, and the tests that it names are there."""

import ast

import pytest

from tests.mutants.mutant import Edit, Mutant
from tests.mutants.run import MUTANTS, ROOT, StaleMutantError, mutated, run_tests


def name_of(mutant: Mutant) -> str:
    return mutant.name.replace(" ", "-")


@pytest.mark.parametrize("mutant", MUTANTS, ids=name_of)
def test_a_mutant_still_applies_to_the_sources(mutant: Mutant) -> None:
    originals = {path: (ROOT / path).read_text() for path in mutant.paths}
    for path, text in mutated(originals, mutant).items():
        assert text != originals[path]
        ast.parse(text)


@pytest.mark.parametrize("mutant", MUTANTS, ids=name_of)
def test_a_mutant_names_tests_that_exist(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        name = name.rpartition("::")[2].partition("[")[0]
        sources = [ROOT / path, *(ROOT / "tests" / "contracts").glob("*.py")]
        assert any(f"def {name}(" in source.read_text() for source in sources), test


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("text", ["nothing of the kind", "a a"])
def test_an_edit_that_does_not_apply_once_is_stale(text: str) -> None:
    mutant = Mutant("m", (Edit("file", "a", "b"),), ())
    with pytest.raises(StaleMutantError):
        mutated({"file": text}, mutant)


def test_only_tests_that_failed_are_reported() -> None:
    here = "tests/test_mutants.py::"
    passing = here + "test_names_are_unique"
    assert run_tests(ROOT, [passing]) == set()
    with pytest.raises(RuntimeError, match="pytest ended with"):
        run_tests(ROOT, [passing, here + "test_that_does_not_exist"])
