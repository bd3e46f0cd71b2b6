"""Sidecars as somebody sees them who has SQLite but no key."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class edited:  # a context manager, named for what it gives
    """The database of a sidecar."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> sqlite3.Connection:
        return self._database

    def __exit__(self, *_: object) -> None:
        self._database.close()


def edit(path: Path, *statements: str) -> None:
    """Run statements on a sidecar."""
    with edited(path) as database:
        for statement in statements:
            database.execute(statement)
