"""Documents name what is there: links lead somewhere, commands, files, functions, markers and extras exist."""

from __future__ import annotations

import builtins
import re
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import documents
import pytest
import readme
import rooms
import rooms_picture
from documents import PACKAGE, ROOT, name_of, text_of

from poscuda_fast import Key, protect_folder

ALL = documents.every()
DESIGN = PACKAGE / "DESIGN.md"
FOR_USERS = ("recipes.md", "folders.md", "installing.md")
PAGES = [page for page in sorted((PACKAGE / "docs").glob("*.md")) if page.name not in FOR_USERS]
FOR_DEVELOPERS = [ROOT / "CONTRIBUTING.md", DESIGN, *PAGES]
PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]+)*(?:\.(?:py|md|cpp|h|js|html|svg|toml|cff|yml|txt|pyi)|/)")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
CHECKED = re.compile(r"[a-z]_[a-z]|[a-z]\.[a-zA-Z_]|^[A-Z]\w*[a-z]")  # what a plain word never has

each = pytest.mark.parametrize("document", ALL, ids=name_of)
each_for_developers = pytest.mark.parametrize("document", FOR_DEVELOPERS, ids=name_of)


def test_all_documents_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "poscuda_fast/DESIGN.md", "tests/trust/README.md"} <= set(map(name_of, ALL))


# Links.


def leads_somewhere(link: str, document: Path) -> bool:
    """Whether a link leads to a web page, or to a file of the repository and a heading in it."""
    scheme, host, path, _, anchor = urlsplit(link)
    if scheme:
        return scheme == "https" and "." in host
    target = (document.parent / unquote(path)).resolve() if path else document
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return anchor in documents.anchors(target) if anchor else bool(path)


@each
def test_links_lead_somewhere(document: Path) -> None:
    assert [link for link in documents.links(document) if not leads_somewhere(link, document)] == []


@pytest.mark.parametrize("link", ["", "#", "#no-such", "no-such.md", "FORMAT.md#no-such", "http://a.b/", "../../etc/"])
def test_a_link_to_nowhere_is_told(link: str) -> None:
    assert not leads_somewhere(link, DESIGN)
    assert leads_somewhere("FORMAT.md#sidecar", DESIGN)


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Security: what is promised, and what is not", "security-what-is-promised-and-what-is-not"),
        ("Bytes & `names_of` things", "bytes--names_of-things"),
        ("Does it protect?", "does-it-protect"),
        ("Größe: 10 %", "größe-10-"),
    ],
)
def test_anchors_are_those_of_github(tmp_path: Path, heading: str, anchor: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"# {heading}\n\n# {heading}\n", encoding="utf-8")
    assert documents.anchors(path) == {anchor, f"{anchor}-1"}


# Commands.


@each
def test_the_modules_that_documents_run_are_there(document: Path) -> None:
    named = re.findall(r"python -m ((?:experiments|benchmarks|tests)[.\w]+)", text_of(document))
    places = [ROOT / name.rstrip(".").replace(".", "/") for name in named]
    assert not [
        place for place in places if not place.with_suffix(".py").is_file() and not (place / "__main__.py").is_file()
    ]


@each
def test_the_extras_that_documents_install_are_there(document: Path) -> None:
    known = set(metadata.metadata("poscuda-fast").get_all("Provides-Extra") or [])
    lists = re.findall(r"pip install [^\n`]*\[([\w,]+)\]", text_of(document))
    named = {name for some in lists for name in some.split(",")}
    assert named - known - {"NAME"} == set()


@each
def test_the_environment_variables_that_documents_name_are_read(document: Path) -> None:
    named = set(re.findall(r"\bPOSCUDA_[A-Z_0-9]+\b", text_of(document)))
    sources = [path for folder in documents.CODE for path in (ROOT / folder).rglob("*.py")]
    known = "\n".join(map(text_of, [*sources, ROOT / "pyproject.toml"]))
    assert {name for name in named if name not in known} == set()


@each
def test_the_markers_that_documents_name_are_registered(document: Path, pytestconfig: pytest.Config) -> None:
    registered = {re.split(r"[:(]", line)[0] for line in pytestconfig.getini("markers")}
    text = text_of(document)
    chosen = re.findall(r"pytest [^\n`]*?-m (?:'([^']*)'|\"([^\"]*)\"|(\w+))", text)
    named = {word for parts in chosen for word in re.findall(r"\w+", "".join(parts))} - {"and", "or", "not"}
    named |= set(re.findall(r"pytest\.mark\.(\w+)", text))
    assert named - registered == set()


# Files and functions, in what developers read.


@each_for_developers
def test_the_files_that_it_names_are_there(document: Path) -> None:
    named = [name for name in documents.in_backticks(document) if PATH.fullmatch(name) and "NAME" not in name]
    named += re.findall(rf"(?<![\w/.])(?:{'|'.join(documents.CODE)})/[\w./-]*\w", text_of(document))
    assert {name for name in named if not documents.is_file(name, document)} == set()


@each_for_developers
def test_the_functions_that_it_names_are_there(document: Path) -> None:
    words = {word.removesuffix("()") for word in documents.in_backticks(document)}
    named = {word for word in words if IDENTIFIER.fullmatch(word) and CHECKED.search(word) and not PATH.fullmatch(word)}
    assert {name for name in named if not documents.is_known(name)} - set(dir(builtins)) == set()


@pytest.mark.parametrize("name", ["files/no_such.py", "no_such.py", "no_such/", "mark/verbs.py"])
def test_a_file_that_is_not_there_is_told(name: str) -> None:
    assert not documents.is_file(name, DESIGN)


@pytest.mark.parametrize("name", ["no_such_function", "steps.no_such", "nothing.protect", "Journal.fresh"])
def test_a_function_that_is_not_there_is_told(name: str) -> None:
    assert not documents.is_known(name)


# DESIGN.md.


def test_the_picture_of_the_rooms_is_true() -> None:
    assert rooms_picture.PICTURE.read_text(encoding="utf-8") == rooms_picture.draw(), "python tests/rooms_picture.py"
    assert "docs/rooms.svg" in documents.links(DESIGN)


def test_the_table_of_rooms_is_true() -> None:
    said = {
        name.removesuffix(".py").rstrip("/"): int(floor)
        for floor, named, *_ in documents.rows(documents.section(DESIGN, "The rooms"))
        for name in re.findall(r"`([^`]+)`", named)
    }
    assert said == rooms.FLOOR_OF


def test_a_sample_takes_the_way_that_is_told(tmp_path: Path, key: Key) -> None:
    """The functions of the walk are called, and first called in that order."""
    table = documents.rows(documents.section(DESIGN, "The way of a sample"))
    told = [(where.strip("`"), name.strip("`")) for where, name, _ in table]
    assert len(told) > 10
    called: dict[tuple[str, str], None] = {}

    def note(frame: Any, event: str, _: object) -> None:
        path = frame.f_code.co_filename.replace("\\", "/")
        if event == "call" and "/poscuda_fast/" in path:
            called.setdefault((path.rpartition("/poscuda_fast/")[2], frame.f_code.co_name))

    folder = readme.recordings(tmp_path / "recordings", n=1)
    _profiled(note, lambda: protect_folder(folder, None, key, backend="reference"))
    order = list(called)
    assert [step for step in told if step not in called] == []
    assert sorted(told, key=order.index) == told


def _profiled(note: Callable[..., None], work: Callable[[], object]) -> None:
    """Do some work, and note every call in it, also of threads that it starts."""
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


# Versions.


def test_what_is_to_be_cited_has_the_version_of_the_package() -> None:
    cited = dict(re.findall(r"^([\w-]+): *\"?([^\"\n]*)\"?$", text_of(ROOT / "CITATION.cff"), re.MULTILINE))
    (version,) = re.findall(r'^version = "(.*)"$', text_of(ROOT / "pyproject.toml"), re.MULTILINE)
    assert cited["version"] == version
    heading = rf"^## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)$"
    dates = re.findall(heading, text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert dates in ([], [cited["date-released"]])
