"""All pages: links lead somewhere, decisions are numbered and whole, and tests that are named exist."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docs.markdown import DOCS, code_blocks, headings, table
from tests.docs.test_invariants_doc import TEST_ID, functions_of

ROOT = DOCS.parent
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: str) -> set[str]:
    """The anchors that a page's headings get."""
    found = set()
    for heading in headings(page):
        text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(text.strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_every_link_leads_somewhere(path: Path) -> None:
    page = path.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name) if name else path
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.read_text()), target


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_every_file_and_test_that_is_named_is_there(path: Path) -> None:
    page = path.read_text()
    for test_id in TEST_ID.findall(page):
        module, _, name = test_id.partition("::")
        assert name in functions_of(ROOT / module), test_id
    folders = "storage|runtime|agents|edge|bench|tests|docs"
    for name in re.findall(rf"`((?:{folders})/[a-z0-9_/.-]+\.(?:py|md))`", page):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_json_that_is_shown_can_be_read(path: Path) -> None:
    for block in code_blocks(path.read_text()):
        for line in block.splitlines():
            if line.startswith("{") and "…" not in line:
                json.loads(line)


def test_decisions_are_numbered_without_a_gap_and_titled_by_their_number() -> None:
    numbers = [path.name[:4] for path in DECISIONS]

    assert numbers == [f"{number:04d}" for number in range(1, len(DECISIONS) + 1)]
    for path in DECISIONS:
        assert path.read_text().startswith(f"# {path.name[:4]} — ")


@pytest.mark.parametrize("path", DECISIONS, ids=relative)
def test_a_decision_says_what_why_and_at_what_price(path: Path) -> None:
    text = path.read_text()

    assert "\n**Decided.** " in text
    assert re.search(r"\n\*\*(Why\.\*\* |Why)|\| why ", text)
    assert len(text.splitlines()) <= 45


def test_every_dependency_has_its_reason() -> None:
    page = (DOCS / "decisions" / "0002-dependencies.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    cells = table(page, "0002 — What we depend on, and why", "package").column("package")
    documented = {name.strip() for cell in cells for name in cell.split(",")}

    asked = {Requirement(text).name for text in project["project"]["dependencies"]}
    assert documented == asked
    for text in project["dependency-groups"]["dev"]:
        name = Requirement(text).name
        assert name.removeprefix("pytest-") in page, name
