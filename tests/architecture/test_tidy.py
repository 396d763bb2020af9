"""Style as a test: sizes, names, and what must not appear anywhere."""

import ast
import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("storage", "runtime", "agents", "edge", "bench")
SOURCES = sorted(path for name in (*PACKAGES, "tests") for path in (ROOT / name).rglob("*.py"))
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
# A file without a noun has no reason to end; these names are where unrelated things gather.
NAMES_BANNED = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
# Paths of one machine. The brackets keep this file from finding itself.
WORDS_BANNED = re.compile(r"/[w]ork/|/[r]oot/|/[h]ome/[a-z]|[.][.]/[s]hared")
TEXT_SUFFIXES = {
    "",
    ".py",
    ".md",
    ".toml",
    ".sh",
    ".lock",
    ".txt",
    ".html",
    ".js",
    ".ini",
    ".yml",
    ".mako",
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def files_of_the_project() -> list[Path]:
    """Return what git tracks, or in a source archive everything but the caches."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and "/." not in f"/{relative(path)}"]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines a function has below its signature and docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_module_fits_a_sitting_and_a_function_a_screen(path: Path) -> None:
    source = path.read_text()
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert len(source.splitlines()) <= MODULE_LINES_MAX
    assert [
        f"{f.name}: {body_lines(f)}" for f in functions if body_lines(f) > FUNCTION_LINES_MAX
    ] == []


def test_every_file_is_named_after_a_noun() -> None:
    assert [relative(path) for path in SOURCES if path.stem in NAMES_BANNED] == []


def test_every_module_opens_with_its_theory() -> None:
    bare = [
        relative(path)
        for path in SOURCES
        if path.parts[len(ROOT.parts)] in PACKAGES
        and not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert bare == []


@pytest.mark.parametrize("name", PACKAGES)
def test_the_general_package_names_are_ours(name: str) -> None:
    """Guard names such as `agents`, which other distributions install too."""
    found = importlib.util.find_spec(name)

    assert found is not None
    assert found.origin == str(ROOT / name / "__init__.py")


def test_only_the_configuration_reads_the_environment() -> None:
    readers = [
        relative(path)
        for path in SOURCES
        if path.parts[len(ROOT.parts)] in PACKAGES
        and re.search(r"os\.environ|os\.getenv|environb", path.read_text())
    ]

    assert [name for name in readers if not name.startswith("bench/")] == ["edge/config.py"]


def test_no_file_names_a_path_of_one_machine() -> None:
    found = []
    for path in files_of_the_project():
        if path.suffix in TEXT_SUFFIXES:
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if WORDS_BANNED.search(line):
                    found.append(f"{relative(path)}:{number}: {line.strip()}")

    assert found == []


def locked(name: str) -> dict[str, str]:
    pins = re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / name).read_text(), re.MULTILINE)
    return dict(pins)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_the_lock_holds_what_the_project_asks_for_and_names_no_host(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = list(project["project"]["dependencies"])
    if "dev" in lock:
        asked += project["dependency-groups"]["dev"]
    pins = locked(lock)

    stale = [
        text
        for text in asked
        if (wanted := Requirement(text)).name.lower() not in pins
        or pins[wanted.name.lower()] not in wanted.specifier
    ]
    assert stale == [], "run `make lock`"
    assert "://" not in (ROOT / lock).read_text()
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()
