"""A mutant: a guarantee taken away by small edits, and the tests that must notice."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """A text that stands exactly once in a file, and what it becomes."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is broken, by which edits, and every test that must notice."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the files that are edited."""
        return tuple(dict.fromkeys(edit.path for edit in self.edits))


def mutant(name: str, path: str, old: str, new: str, *tests: str) -> Mutant:
    """Return a mutant of one edit."""
    return Mutant(name, (Edit(path, old, new),), tests)
