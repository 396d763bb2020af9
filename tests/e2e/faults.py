"""Faults that a test switches on and off in a server that runs: see `inject/sitecustomize.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INJECT = Path(__file__).parent / "inject"


class Faults:
    """The folder that a server's disk looks into."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.environment = {"PYTHONPATH": str(INJECT), "FAULTS": str(folder)}

    def set(self, fault: str, value: object = "") -> None:
        """Switch a fault on."""
        draft = self._folder / f".{fault}"
        draft.write_text(str(value))
        draft.replace(self._folder / fault)

    def clear(self, fault: str) -> None:
        """Switch it off; one that has happened by itself is off already."""
        (self._folder / fault).unlink(missing_ok=True)

    @contextmanager
    def during(self, fault: str, value: object = "") -> Iterator[None]:
        """Switch it on for a while."""
        self.set(fault, value)
        try:
            yield
        finally:
            self.clear(fault)
