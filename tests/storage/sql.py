"""SQL past the archive: to look at its tables, and to make a database refuse what tests want refused."""

import sqlite3
from contextlib import closing
from typing import Any

import psycopg


def run_sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement in a transaction of its own and return its rows, if any."""
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file, file:
            return file.execute(statement).fetchall()
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def refuse_rows(url: str, table: str, condition: str) -> None:
    """Make the database refuse rows for their data: by a CHECK, or on SQLite by a trigger."""
    if url.startswith("sqlite:///"):
        run_sql(
            url,
            f"CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table}"
            f" WHEN NEW.{condition} BEGIN SELECT RAISE(ABORT, 'refused by the test'); END",
        )
    else:
        run_sql(url, f"ALTER TABLE {table} ADD CONSTRAINT refused CHECK (NOT {condition})")


def accept_rows(url: str, table: str) -> None:
    """Take `refuse_rows` back."""
    if url.startswith("sqlite:///"):
        run_sql(url, f"DROP TRIGGER refuse_{table}")
    else:
        run_sql(url, f"ALTER TABLE {table} DROP CONSTRAINT refused")
