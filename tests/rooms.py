"""The rooms of the package: on which floor each is, and what it imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import poscuda_fast

PACKAGE = Path(poscuda_fast.__file__).parent

# From the ground up: a file imports from floors below its own, or from its own room.
FLOORS = [floor.split() for floor in (
    "text attributes interrupts system_errors", "recipe results secrecy errors", "disk kernels", "key", "mark", "undo",
    "arrays files", "statement",
    "protector ownership evaluation", "adapters __init__", "reporting", "cli",
)]  # fmt: skip
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FOR_ALL = frozenset(FLOORS[0] + FLOORS[1])  # small rooms, which almost every other one imports


def modules() -> list[tuple[str, ast.Module]]:
    """("mark.plan", its syntax tree) for each file; a room's own file is "mark.__init__"."""
    paths = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
    return [(".".join(path.with_suffix("").parts), ast.parse((PACKAGE / path).read_text("utf-8"))) for path in paths]


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a file names in an import, at any depth of the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(tree: ast.Module) -> set[str]:
    """The rooms that a file imports from; the package's public names are those of "__init__"."""
    ours = {name.split(".")[1] if "." in name else "" for name in imported(tree) if name.startswith("poscuda_fast")}
    return {room if room in FLOOR_OF else "__init__" for room in ours}


def imports() -> dict[str, set[str]]:
    """The other rooms that each room imports."""
    found: dict[str, set[str]] = {room: set() for room in FLOOR_OF}
    for name, tree in modules():
        own = name.split(".")[0]
        found[own] |= rooms_of(tree) - {own}
    return found


def arrows() -> set[tuple[str, str]]:
    """(room, room that it imports), without those that it can reach through another; none to the rooms for all."""
    direct = {room: others - FOR_ALL for room, others in imports().items() if room not in FOR_ALL}

    def below(room: str) -> set[str]:
        return direct[room].union(*(below(other) for other in direct[room]))

    return {
        (room, other)
        for room, others in direct.items()
        for other in others
        if not any(other in below(third) for third in others - {other})
    }
