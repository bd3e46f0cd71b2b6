"""Lists a folder's audio files, reads how they are encoded, and refuses folders that are unsafe to edit."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from poscuda_fast import disk
from poscuda_fast.disk import Stamp, stamp_of
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.files import headers
from poscuda_fast.files.encoded import Encoding, probe
from poscuda_fast.recipe import RATES, PaperRecipe, Recipe
from poscuda_fast.text import one_line
from poscuda_fast.undo.journal import MANIFEST, SIDECAR

WAV_SUFFIXES = {".wav", ".wave"}
LOSSY_SUFFIXES = {".mp3", ".ogg", ".oga", ".opus"}
OTHER_SUFFIXES = {".flac", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au", ".m4a", ".aac", ".wma"}
AUDIO_SUFFIXES = WAV_SUFFIXES | LOSSY_SUFFIXES | OTHER_SUFFIXES
PROBLEMS_SHOWN = 10


class AudioFile(NamedTuple):
    """One audio file below a folder: its relative path with "/", its size in bytes, and how its samples are stored.

    `output_name` is its name in a protected copy; `stamp` tells whether it is still the file that was read.
    """

    name: str
    size: int
    layout: headers.WavLayout | Encoding
    output_name: str
    stamp: Stamp

    @property
    def frames(self) -> int:
        """Its length in frames."""
        return self.layout.frames

    @property
    def lossy(self) -> bool:
        """Whether it is lossy, so that only a converted copy can be protected."""
        return isinstance(self.layout, Encoding) and self.layout.lossy

    @property
    def coding(self) -> str:
        """Name of its samples' coding in codings.CODINGS."""
        return self.layout.coding


def find_files(root: Path, left_out: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
    """Names of (audio files, other files) below `root`, sorted, without hidden files, manifests and sidecars.

    Raises
    ------
    DatasetError
        There is a symbolic link, a pipe, socket or device, or a name that is not UTF-8, unless these go to `left_out`,
        each with the reason; or there are two names that some file systems cannot tell apart.
    """
    audio: list[str] = []
    others: list[str] = []
    problems: dict[str, str] = {} if left_out is None else left_out
    for entry, name in _walk(root, ""):
        if not _is_text(name):
            problems[name] = f"{os.fsencode(name)!r} has a name that is not UTF-8; rename it"
        elif entry.is_symlink():
            problems[name] = f"{name} is a symbolic link; replace it with the file, or move it away"
        elif not entry.is_file(follow_symlinks=False):
            problems[name] = f"{name} is not a regular file; move it away"
        elif suffix_of(name) in AUDIO_SUFFIXES:
            audio.append(name)
        elif not name.endswith((SIDECAR, MANIFEST)):
            others.append(name)
    if left_out is None:
        refuse(list(problems.values()), f"{root} cannot be used")
    refuse(collisions([*audio, *others]), f"{root} cannot be used")
    return sorted(audio), sorted(others)


def audio_among(names: Iterable[str]) -> list[str]:
    """Those that have the name of an audio file."""
    return [name for name in names if suffix_of(name) in AUDIO_SUFFIXES]


def find_sidecars(root: Path) -> list[Path]:
    """Paths of what is named like a sidecar of a file or folder below `root`; nothing is opened."""
    return sorted(root / name for entry, name in _walk(root, "", hidden=True) if entry.name.endswith(SIDECAR))


def find_parts(root: Path) -> list[str]:
    """Names of files below `root` beside which a run that was killed may have left what was to replace them."""
    found = []
    for entry, name in _walk(root, "", hidden=True):
        if entry.name.startswith(".") and name.endswith(disk.PART_SUFFIX):
            folder, slash, last = name.removesuffix(disk.PART_SUFFIX).rpartition("/")
            if suffix_of(last) in AUDIO_SUFFIXES - WAV_SUFFIXES:
                found.append(f"{folder}{slash}{last[1:]}")
    return found


def _walk(root: Path, prefix: str, *, hidden: bool = False) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Every entry below a folder that is not itself a folder, with its relative name."""
    waiting = [prefix]  # folders may lie in each other more deeply than calls may
    while waiting:
        prefix = waiting.pop()
        with os.scandir(f"{root}/{prefix}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        waiting.append(f"{prefix}{entry.name}/")
                elif hidden or not entry.name.startswith("."):
                    yield entry, prefix + entry.name


def read_layouts(root: Path, names: Sequence[str]) -> list[AudioFile]:
    """Read every file's layout from its header; a DatasetError lists the files that cannot be edited."""
    files = []
    problems = []
    for name in names:
        try:
            files.append(read_layout(root, name))
        except (AudioFileError, OSError) as error:
            problems.append(str(error))
    refuse(problems, f"{len(problems)} of {len(names)} audio files cannot be used")
    return files


def read_layout(root: Path, name: str) -> AudioFile:
    """One file's layout; AudioFileError with the reason if it cannot be edited."""
    path = f"{root}/{name}"
    if suffix_of(name) in WAV_SUFFIXES:
        descriptor = os.open(path, disk.READING)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise AudioFileError(f"{path} cannot be used: it is not a regular file.")
            layout = headers.parse_wav(descriptor, status.st_size, path)
        finally:
            os.close(descriptor)
        return AudioFile(name, status.st_size, layout, name, stamp_of(status))
    status = os.lstat(path)
    encoding = probe(Path(path))
    output_name = str(PurePosixPath(name).with_suffix(".flac")) if encoding.lossy else name
    return AudioFile(name, status.st_size, encoding, output_name, stamp_of(status))


def refuse_rates(files: Sequence[AudioFile], recipe: Recipe) -> None:
    """DatasetError that lists the files for whose sample rate the recipe has no mark."""
    found = [problem for file in files if (problem := rate_problem(file, recipe)) is not None]
    refuse(found, f"{len(found)} of {len(files)} audio files cannot be marked")


def rate_problem(file: AudioFile, recipe: Recipe) -> str | None:
    """Why the recipe has no mark for a file's sample rate, as a line of a list; None if it has one."""
    least, most = RATES
    if isinstance(recipe, PaperRecipe) or least <= file.layout.sample_rate <= most:
        return None
    return (
        f"{file.name} has a sample rate of {file.layout.sample_rate:,} Hz; it must be from {least:,} to {most:,} Hz, "
        f"so resample it or leave it out"
    )


def suffix_of(name: str) -> str:
    """A name's suffix in lower case, such as ".wav"."""
    return os.path.splitext(name)[1].lower()


def refuse(problems: Sequence[str], title: str) -> None:
    """Raise a DatasetError that lists the first few problems, if there are any."""
    if problems:
        shown = "".join(f"\n  {one_line(problem)}" for problem in problems[:PROBLEMS_SHOWN])
        more = f"\n  and {len(problems) - PROBLEMS_SHOWN:,} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise DatasetError(f"{one_line(title)}; nothing was written:{shown}{more}")


def collisions(names: Sequence[str]) -> list[str]:
    """Problems with names that a file system blind to case or Unicode form takes for one file."""
    hashes = np.fromiter((hash(_folded(name)) for name in names), np.int64, len(names))
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    first: dict[str, tuple[str, int]] = {}  # of the few that may collide, since there may be millions
    problems = []
    for number in np.flatnonzero(np.isin(hashes, twice)).tolist():
        name = names[number]
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
