"""docs/invariants.md: every guarantee names a test, and every test that it names exists."""

import ast
import re
from pathlib import Path

from tests.docs.markdown import read_page

ROOT = Path(__file__).parent.parent.parent
PAGE = read_page("invariants.md")
GUARANTEES, _, GAPS = PAGE.partition("\n## Known gaps\n")
TEST_ID = re.compile(r"`(tests/[a-z0-9_/]+\.py::[A-Za-z0-9_:]+)`")
LINES = re.findall(r"^- (.*(?:\n  .*)*)", GUARANTEES, re.MULTILINE)


def functions_of(path: Path) -> set[str]:
    """The tests of a module as pytest names them; those of a base class under each that derives from it."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            inherited = {name for base in bases for name in _methods(base)}
            own = {
                f.name for f in node.body if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            names |= {f"{node.name}::{name}" for name in own | inherited}
    return names


def _methods(name: str) -> set[str]:
    """The methods of a contract suite."""
    return {
        method.name
        for path in (ROOT / "tests" / "contracts").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == name
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_that_is_named_exists() -> None:
    named = set(TEST_ID.findall(PAGE))
    paths = {test_id.partition("::")[0] for test_id in named}
    there = {
        f"{path}::{name}"
        for path in paths
        if (ROOT / path).is_file()
        for name in functions_of(ROOT / path)
    }

    assert sorted(named - there) == []


def test_every_guarantee_names_a_test() -> None:
    assert len(LINES) > 50
    assert [line for line in LINES if not TEST_ID.search(line)] == []


def test_what_stands_in_backticks_like_a_test_is_one() -> None:
    claimed = re.findall(r"`(tests/[^`]*::[^`]*)`", PAGE)

    assert sorted(claimed) == sorted(TEST_ID.findall(PAGE))


def test_there_are_gaps_and_they_say_why() -> None:
    gaps = re.findall(r"^- \*\*(.*?)\*\*(.*)", GAPS, re.MULTILINE)

    assert gaps
    assert all(rest.strip() for _, rest in gaps)
