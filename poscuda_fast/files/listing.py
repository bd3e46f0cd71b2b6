"""Lists a folder's audio files, reads how they are encoded, and refuses folders that are unsafe to edit."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from poscuda_fast import disk
from poscuda_fast.errors import DatasetError
from poscuda_fast.files import layouts
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.layouts import has_name_of_audio
from poscuda_fast.files.table import AudioFile, FileTable, Names
from poscuda_fast.recipe import RATES, PaperRecipe, Recipe
from poscuda_fast.text import noun, one_line
from poscuda_fast.undo.journal import MANIFEST, SIDECAR

PROBLEMS_SHOWN = 50
NAMES_SHOWN = 5


def find_files(root: Path, left_out: dict[str, str] | None = None) -> tuple[Names, Names]:
    """Names of (audio files, other files) below `root`, sorted, without hidden files, manifests and sidecars.

    Audio files are those that have the name of one, or content that is known to be sound.

    Raises
    ------
    DatasetError
        There is a symbolic link, a pipe, socket or device, or a name that is not UTF-8, unless these go to `left_out`,
        each with the reason; or there are two names that some file systems cannot tell apart.
    """
    audio, others = Names(), Names()
    problems: dict[str, str] = {} if left_out is None else left_out
    for name, problem in _walk(root):
        if problem is not None:
            problems[name] = problem
        elif has_name_of_audio(name):
            audio.append(name)
        elif not name.endswith((SIDECAR, MANIFEST)):
            (audio if layouts.holds_sound(f"{root}/{name}", name) else others).append(name)
    if left_out is None:
        refuse(list(problems.values()), f"{root} cannot be used")
    refuse(collisions(audio, others), f"{root} cannot be used")
    return audio, others


def audio_among(names: Iterable[str]) -> list[str]:
    """Those that have the name of an audio file."""
    return list(filter(has_name_of_audio, names))


def find_named(root: Path, ending: str) -> list[Path]:
    """Paths of what has a name with an ending below `root`; nothing is opened."""
    return [root / name for name, _ in _walk(root, hidden=True) if name.endswith(ending)]


def find_parts(root: Path) -> list[str]:
    """Names of files below `root` beside which a run that was killed may have left what was to replace them."""
    found = []
    for name, _ in _walk(root, hidden=True):
        if name.endswith(disk.PART_SUFFIX):
            folder, slash, last = name.removesuffix(disk.PART_SUFFIX).rpartition("/")
            replaced = f"{folder}{slash}{last[1:]}"
            is_audio = has_name_of_audio(replaced) or layouts.holds_sound(f"{root}/{replaced}", replaced)
            if last.startswith(".") and is_audio:
                found.append(replaced)
    return found


def left_behind(root: Path) -> tuple[int, int]:
    """How many hidden files or folders, and how many empty folders, lie below `root`: a copy has neither."""
    hidden = empty = 0
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        with os.scandir(folder) as entries:
            found = list(entries)
        empty += not found and folder != str(root)
        for entry in found:
            if entry.name.startswith("."):
                hidden += 1
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return hidden, empty


def notes_on_hidden(root: Path, *, copying: bool) -> list[str]:
    """What a report says of hidden files and empty folders."""
    hidden, empty = left_behind(root)
    parts = [f"{hidden:,} hidden {noun(hidden, 'file or folder', 'files or folders')}"] * bool(hidden)
    if copying:
        parts += [f"{empty:,} empty {noun(empty, 'folder')}"] * bool(empty)
    if not parts:
        return []
    return [f"{' and '.join(parts)} {'are not in the copy' if copying else 'were not looked at, and are as they were'}"]


def notes_on_others(root: Path, others: Iterable[str]) -> list[str]:
    """What a report says of files that may hold audio in a way that is not looked at: archives, arrays, tables."""
    found = [name for name in others if layouts.is_container(f"{root}/{name}")]
    if not found:
        return []
    names = ", ".join(map(one_line, found[:NAMES_SHOWN])) + ", ..." * (len(found) > NAMES_SHOWN)
    kinds = noun(len(found), "archive, array or table", "archives, arrays or tables")
    return [f"{len(found):,} {kinds}, in which nothing is marked: {names}"]


def _walk(root: Path, *, hidden: bool = False) -> Iterator[tuple[str, str | None]]:
    """(relative name, what is wrong with it) of all below a folder that is not itself a folder, in order of names."""
    open_folders = [_entries(root, "", hidden=hidden)]  # folders may lie in each other more deeply than calls may
    while open_folders:
        name, problem = next(open_folders[-1], (None, None))
        if name is None:
            open_folders.pop()
        elif name.endswith("/"):
            open_folders.append(_entries(root, name, hidden=hidden))
        else:
            yield name, problem


def _entries(root: Path, prefix: str, *, hidden: bool) -> Iterator[tuple[str, str | None]]:
    """What `_walk` yields of one folder, and the folders in it, whose names end in "/"."""
    names: list[str] = []
    problems: dict[str, str] = {}
    try:
        found = os.scandir(f"{root}/{prefix}")
    except PermissionError:
        raise DatasetError(f"You may not look into {root / prefix}; change its permissions, or move it away.") from None
    with found as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    names.append(f"{entry.name}/")
            elif hidden or not entry.name.startswith("."):
                names.append(entry.name)
                problem = _problem_of(entry, prefix + entry.name)
                if problem is not None:
                    problems[entry.name] = problem
    names.sort()
    return ((prefix + name, problems.get(name)) for name in names)


def _problem_of(entry: os.DirEntry[str], name: str) -> str | None:
    if not _is_text(name):
        return f"{os.fsencode(name)!r} has a name that is not UTF-8; rename it"
    if entry.is_symlink():
        return f"{name} is a symbolic link; replace it with the file, or move it away"
    if not entry.is_file(follow_symlinks=False):
        return f"{name} is not a regular file; move it away"
    return None


def read_layout(root: Path, name: str) -> AudioFile:
    """One file's layout; AudioFileError with the reason if it cannot be edited."""
    layout, stamp = layouts.of_file(f"{root}/{name}", name)
    lossy = isinstance(layout, Encoding) and layout.lossy
    return AudioFile(name, layout, str(PurePosixPath(name).with_suffix(".flac")) if lossy else name, stamp)


def unmarkable(files: FileTable, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(name, problem) of the files for whose sample rate the recipe has no mark."""
    for file in files.of(lambda layout: rate_problem("", layout.sample_rate, recipe) is not None):
        yield file.name, rate_problem(file.name, file.layout.sample_rate, recipe) or ""


def rate_problem(name: str, rate: int, recipe: Recipe) -> str | None:
    """Why the recipe has no mark for a file's sample rate, as a line of a list; None if it has one."""
    least, most = RATES
    if isinstance(recipe, PaperRecipe) or least <= rate <= most:
        return None
    return (
        f"{name} has a sample rate of {rate:,} Hz; it must be from {least:,} to {most:,} Hz, so resample it or leave "
        f"it out"
    )


def refuse(problems: Sequence[str], title: str) -> None:
    """Raise a DatasetError that lists the first few problems, if there are any."""
    if problems:
        shown = "".join(f"\n  {one_line(problem)}" for problem in problems[:PROBLEMS_SHOWN])
        more = f"\n  and {len(problems) - PROBLEMS_SHOWN:,} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise DatasetError(f"{one_line(title)}; nothing was written:{shown}{more}")


def collisions(*groups: Sequence[str]) -> list[str]:
    """Problems with names that a file system blind to case or Unicode form takes for one file."""
    every = itertools.chain.from_iterable
    hashes = np.fromiter((hash(_folded(name)) for name in every(groups)), np.int64, sum(map(len, groups)))
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    first: dict[str, tuple[str, int]] = {}  # of the few that may collide, since there may be millions
    problems = []
    colliding = np.isin(hashes, twice).tolist() if len(twice) else []
    for number, name in enumerate(itertools.compress(every(groups), colliding)):
        other, owner = first.setdefault(_folded(name), (name, number))
        if owner != number:
            how = "are one name" if other == name else "differ only in case or Unicode form"
            problems.append(f"{other} and {name} {how}; rename one")
    return problems


def _folded(name: str) -> str:
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _is_text(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
