"""Break each guarantee on purpose, one at a time, and show that a test notices: `make mutants`.

A mutant is a small edit of the sources and the tests that must fail because of it. It is applied to a
temporary copy of the tree, where only those tests are run. A mutant that survives is a test that is
missing. Exits with 1 if one survives, if its text is no longer in the sources, or if the tests fail
without it.

    python -m tests.mutants [WORD …]      only mutants whose name contains one of the words
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.agents import AGENT_MUTANTS
from tests.mutants.answers import ANSWERS_MUTANTS
from tests.mutants.archive import ARCHIVE_MUTANTS
from tests.mutants.commit_log import LOG_MUTANTS
from tests.mutants.edge import EDGE_MUTANTS
from tests.mutants.losses import LOSSES_MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.ring import RING_MUTANTS
from tests.mutants.runtime import RUNTIME_MUTANTS
from tests.mutants.takeover import TAKEOVER_MUTANTS

MUTANTS = (
    LOG_MUTANTS
    + ARCHIVE_MUTANTS
    + RUNTIME_MUTANTS
    + RING_MUTANTS
    + TAKEOVER_MUTANTS
    + LOSSES_MUTANTS
    + EDGE_MUTANTS
    + AGENT_MUTANTS
    + ANSWERS_MUTANTS
)

ROOT = Path(__file__).parent.parent.parent
COPIED = ("storage", "runtime", "agents", "edge", "bench", "tests", "pyproject.toml")

TEST_SECONDS = 20
"""A mutant may make a test wait for ever; whole, each of them takes a fraction of this."""

RUN_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mutant: `problem` is empty if every one of its tests failed."""

    mutant: Mutant
    problem: str
    seconds: float


class StaleMutantError(Exception):
    """The text that a mutant replaces is not in the sources, or more than once."""


def main(words: Sequence[str]) -> int:
    """Run the mutants that the words choose, and return the exit code."""
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    if not chosen:
        print("no mutant has a name like that")
        return 1
    with copied_tree() as tree:
        failed = run_tests(tree, {test for mutant in chosen for test in mutant.tests})
        if failed:
            print("these tests fail without any mutant:", *sorted(failed), sep="\n  ")
            return 1
        outcomes = []
        for mutant in chosen:
            outcome = try_mutant(tree, mutant)
            outcomes.append(outcome)
            verdict = f"SURVIVED: {outcome.problem}" if outcome.problem else "caught"
            print(f"{outcome.seconds:5.1f} s  {mutant.name}: {verdict}", flush=True)
    bad = sum(bool(outcome.problem) for outcome in outcomes)
    print(f"{len(outcomes) - bad} of {len(outcomes)} mutants caught")
    return 1 if bad else 0


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Yield a copy of the sources that may be broken."""
    with tempfile.TemporaryDirectory(prefix="ringlog-mutants-") as folder:
        tree = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        yield tree


def try_mutant(tree: Path, mutant: Mutant) -> Outcome:
    """Apply a mutant, run its tests, and put the tree right again."""
    began = time.monotonic()
    originals = {path: (tree / path).read_text() for path in mutant.paths}
    try:
        for path, text in mutated(originals, mutant).items():
            (tree / path).write_text(text)
        failed = run_tests(tree, mutant.tests)
    except StaleMutantError as error:
        problem = str(error)
    else:
        passed = set(mutant.tests) - failed
        problem = f"not noticed by {', '.join(sorted(passed))}" if passed else ""
    finally:
        for path, text in originals.items():
            (tree / path).write_text(text)
    return Outcome(mutant, problem, time.monotonic() - began)


def mutated(originals: dict[str, str], mutant: Mutant) -> dict[str, str]:
    """Return the texts of the files with the mutant's edits.

    Raises:
        StaleMutantError: an edit does not apply.
    """
    texts = dict(originals)
    for edit in mutant.edits:
        count = texts[edit.path].count(edit.old)
        if count != 1:
            raise StaleMutantError(f"{edit.path} holds its text {count} times: {edit.old!r}")
        texts[edit.path] = texts[edit.path].replace(edit.old, edit.new)
    return texts


def run_tests(tree: Path, tests: Iterable[str]) -> set[str]:
    """Run tests by their ids and return those that failed; where none could run, all of them did not.

    Raises:
        RuntimeError: pytest could not run the tests.
    """
    wanted = sorted(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "--no-header"]
    command += ["-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}", *wanted]
    environment = os.environ | {
        # Servers that a test starts must be broken too; and a source that changes twice within a second
        # must not be taken from a cache.
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return set(wanted)
    if done.returncode not in {0, 1}:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    lines = [line.split() for line in done.stdout.splitlines()]
    named = {words[1].partition("[")[0] for words in lines if words[:1] in (["FAILED"], ["ERROR"])}
    return {test for test in wanted if test.partition("[")[0] in named}
