"""How far a long command is: a bar on a terminal, nothing where no person looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[int, int | None], None]
"""Told how much is done, and of how much, if that is known."""


@contextmanager
def progress(what: str, *, shown: bool) -> Iterator[Tell]:
    """Give a function that is told how far it is; on a terminal, if it is to be `shown`, it draws a bar.

    The bar is gone at the end: what was done is the command's own to say.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    console = Console(stderr=True)
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(what, total=None, text="", visible=False)

        def tell(done: int, total: int | None) -> None:
            text = f"{done:,}" if total is None else f"{done:,} of {total:,}"
            bar.update(task, completed=done, total=total, text=text, visible=True, refresh=True)

        yield tell
