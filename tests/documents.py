"""The Markdown files of the repository: their links, headings, code and tables, and the names that the code has."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from markdown_it import MarkdownIt  # which rich brings
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "poscuda_fast"
CODE = ("poscuda_fast", "tests", "experiments", "benchmarks")
SKIPPED = {".git", ".venv", "build", "dist", "__pycache__"}
_MARKDOWN = MarkdownIt("commonmark").enable("table")


def every() -> list[Path]:
    """All Markdown files, those in hidden folders too."""
    return sorted(path for path in ROOT.rglob("*.md") if _is_ours(path))


def _is_ours(path: Path) -> bool:
    """Whether a file is part of the repository, and not built or brought here."""
    parts = path.relative_to(ROOT).parts
    return parts[0] != "data" and not SKIPPED.intersection(parts)


def name_of(path: Path) -> str:
    """A file's path below the root, as an id of tests."""
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def tokens(path: Path) -> list[Token]:
    """The blocks of a document, and what lies in them, one behind the other."""
    blocks = _MARKDOWN.parse(text_of(path))
    return [token for block in blocks for token in (block, *(block.children or ()))]


def links(path: Path) -> list[str]:
    """Where its links lead, and where its images lie."""
    ways = {"link_open": "href", "image": "src"}
    return [str(token.attrs[ways[token.type]]) for token in tokens(path) if token.type in ways]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to its headings."""
    found: set[str] = set()
    blocks = _MARKDOWN.parse(text_of(path))
    for opening, inline in itertools.pairwise(blocks):
        if opening.type == "heading_open":
            text = "".join(one.content for one in inline.children or () if one.type in ("text", "code_inline"))
            first = name = _anchor(text)
            number = 0
            while name in found:
                number += 1
                name = f"{first}-{number}"
            found.add(name)
    return found


def _anchor(heading: str) -> str:
    """Lower case; letters, digits, marks, "_", "-" and, as "-", blanks."""
    kept = (char for char in heading.lower() if char in " -_" or unicodedata.category(char)[0] in "LNM")
    return "".join(kept).replace(" ", "-")


def in_backticks(path: Path) -> list[str]:
    """What stands between single backticks."""
    return [token.content for token in tokens(path) if token.type == "code_inline"]


def section(path: Path, heading: str) -> str:
    """The text under a heading of the second level."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text_of(path), re.MULTILINE | re.DOTALL)
    return str(found)


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of the tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {n + shift for n, line in enumerate(lines) if re.fullmatch(r"[|:\- ]+", line) for shift in (-1, 0)}
    cells = (line.strip("|").split("|") for n, line in enumerate(lines) if n not in heads)
    return [[cell.strip() for cell in row] for row in cells]


# What the repository has.


@functools.cache
def files() -> frozenset[str]:
    """The paths of all files and, ending in "/", folders, below the root."""
    return frozenset(name_of(path) + "/" * path.is_dir() for path in ROOT.rglob("*") if _is_ours(path))


@functools.cache
def names() -> dict[str, frozenset[str]]:
    """Module or class -> the names that it has, at any depth; "" -> those of all, and of the modules."""
    found: dict[str, set[str]] = {"": set()}
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(text_of(path))
            module = path.parent.name if path.stem == "__init__" else path.stem
            found.setdefault(module, set()).update(_names_in(tree))
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, set()).update(_names_in(node))
    found[""] = {*found, *(name for some in found.values() for name in some)}
    return {name: frozenset(some) for name, some in found.items()}


def _names_in(tree: ast.AST) -> Iterator[str]:
    """What is defined, assigned, imported or taken as an argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).rpartition(".")[2]


def is_known(name: str) -> bool:
    """Whether the code has a name: `name`, or `module.name` or `Class.name`, with any number of dots."""
    *owners, last = name.split(".")
    known = names()
    return all(owner in known for owner in owners) and last in known[owners[-1] if owners else ""]


def is_file(name: str, beside: Path) -> bool:
    """Whether there is a file or folder of that name: below the root, the package or a document, or anywhere."""
    places: Iterable[Path] = (ROOT, PACKAGE, beside.parent)
    if any((place / name).exists() for place in places):
        return True
    return any(f"/{path}".endswith(f"/{name}") for path in files())
