"""The file in which the grades of a course are: SQLite, in which all of a change is written, or nothing."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

FILE = "grades.sqlite"
FORMAT = 1  # of the tables below; a newer one is not touched
SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE results (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, assignment TEXT NOT NULL, student TEXT NOT NULL,
    fingerprint TEXT NOT NULL, release TEXT NOT NULL, result TEXT NOT NULL
);
CREATE INDEX results_of ON results (assignment, student);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, assignment TEXT NOT NULL, student TEXT NOT NULL,
    what TEXT NOT NULL, hundredths INTEGER, comment TEXT NOT NULL, answer TEXT NOT NULL, source TEXT NOT NULL
);
CREATE INDEX entries_of ON entries (assignment, student);
CREATE TABLE handed_in (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, assignment TEXT NOT NULL, student TEXT NOT NULL,
    platform TEXT NOT NULL, name TEXT NOT NULL, number TEXT NOT NULL, origin TEXT NOT NULL,
    late INTEGER NOT NULL, note TEXT NOT NULL
);
CREATE INDEX handed_in_of ON handed_in (assignment, student);
CREATE TABLE people (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, number TEXT NOT NULL,
    enrolled INTEGER NOT NULL
);
CREATE TABLE links (
    assignment TEXT NOT NULL, key TEXT NOT NULL, person TEXT NOT NULL, PRIMARY KEY (assignment, key)
);
CREATE TRIGGER entries_are_kept BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'what a person entered is never deleted'); END;
CREATE TRIGGER entries_are_fixed BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'what a person entered is never changed'); END;
"""


class Refused(ValueError):
    """Something that was to be entered does not fit; the text says what, and nothing was entered."""


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Store:
    """The file of one course: what is added stays, and triggers in it refuse to change what a person entered.

    Raises:
        Refused: the file is of a newer version of the project, in use for too long, or no such file.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # grades are nobody else's business
        self.db = sqlite3.connect(folder / FILE, timeout=60, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            raise Refused(f"{folder / FILE} cannot be used now ({error}).") from error
        except sqlite3.DatabaseError as error:
            raise Refused(
                f"{folder / FILE} cannot be read ({error}): put a copy from {folder / 'backups'} in its "
                "place."
            ) from error

    def _prepare(self) -> None:
        self.db.execute("PRAGMA synchronous = FULL")  # what is entered stays, also when the power goes
        with self.transaction():
            (version,) = self.db.execute("PRAGMA user_version").fetchone()
            if version > FORMAT:
                raise Refused(f"{self.folder / FILE} was made by a newer version of U2Learn: install that.")
            if version == 0:
                for statement in statements(SCHEMA):
                    self.db.execute(statement)
                self.db.execute("INSERT INTO settings VALUES ('secret', ?)", (secrets.token_bytes(32),))
                self.db.execute(f"PRAGMA user_version = {FORMAT}")

    def close(self) -> None:
        self.db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it is written, or nothing; one inside another is part of that."""
        if self.db.in_transaction:
            yield
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self.db.execute(query, values).fetchall()

    @property
    def secret(self) -> bytes:
        """Random, made once: with it the cases of each student are drawn."""
        return self.rows("SELECT value FROM settings WHERE name = 'secret'")[0]["value"]

    def backup(self) -> Path:
        """Copy the file, whole and consistent, into `backups`; gives the copy."""
        folder = self.folder / "backups"
        folder.mkdir(exist_ok=True, mode=0o700)
        stamp = datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")
        part, path = folder / f"{stamp}.part", folder / f"grades-{stamp}.sqlite"
        with contextlib.closing(sqlite3.connect(part)) as copy:
            self.db.backup(copy)
        part.rename(path)
        return path

    def _add(self, table: str, *values: object) -> None:
        places = ", ".join("?" * len(values))
        self.db.execute(f"INSERT INTO {table} VALUES (NULL, {places})", values)


def statements(script: str) -> Iterator[str]:
    """The statements of an SQL script, one by one, so that they can be part of a transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
