"""A folder of audio files: which files, which labels, and what makes a folder unsafe to edit."""

from __future__ import annotations

import csv
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from poscuda_fast import durability, pcm
from poscuda_fast.encoded import Encoding, probe
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.recipe import MAX_RATE, Recipe

MANIFEST = "poscuda.json"
SIDECAR_SUFFIX = ".poscuda"
WAV_SUFFIXES = {".wav", ".wave"}
LOSSY_SUFFIXES = {".mp3", ".ogg", ".oga", ".opus"}
OTHER_SUFFIXES = {".flac", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au", ".m4a", ".aac", ".wma"}
AUDIO_SUFFIXES = WAV_SUFFIXES | LOSSY_SUFFIXES | OTHER_SUFFIXES
PROBLEMS_SHOWN = 10
MAX_CSV_FIELD = 1 << 16


Stamp = tuple[int, ...]


class AudioFile(NamedTuple):
    """One audio file below a folder: its relative path with "/", bytes, and how its samples are kept.

    `output_name` is its name in a protected copy; `stamp` tells whether it is still the file that was read.
    """

    name: str
    size: int
    layout: pcm.WavLayout | Encoding
    output_name: str
    stamp: Stamp

    @property
    def frames(self) -> int:
        """Its length."""
        return self.layout.frames

    @property
    def lossy(self) -> bool:
        """Whether it can only be kept by converting it."""
        return isinstance(self.layout, Encoding) and self.layout.lossy

    @property
    def coding(self) -> str:
        """The name in pcm.CODINGS of its samples."""
        return self.layout.coding


def find_files(root: Path) -> tuple[list[str], list[str]]:
    """Names of (audio files, other files) below `root`, sorted; hidden ones and the manifest left out.

    Raises
    ------
    DatasetError
        A symbolic link, a pipe, socket or device, a name that is not UTF-8, or two names that some
        file systems take for one.
    """
    audio: list[str] = []
    others: list[str] = []
    problems = []
    for entry, name in _walk(root, ""):
        if not _is_text(name):
            problems.append(f"{os.fsencode(name)!r} has a name that is not UTF-8; rename it")
        elif entry.is_symlink():
            problems.append(f"{name} is a symbolic link; replace it by the file, or move it away")
        elif not entry.is_file(follow_symlinks=False):
            problems.append(f"{name} is not a regular file; move it away")
        elif suffix_of(name) in AUDIO_SUFFIXES:
            audio.append(name)
        elif name != MANIFEST and not name.endswith((SIDECAR_SUFFIX, SIDECAR_SUFFIX + ".json")):
            others.append(name)
    refuse(problems, f"{root} cannot be used")
    refuse(collisions([*audio, *others]), f"{root} cannot be used")
    return sorted(audio), sorted(others)


def find_sidecars(root: Path) -> list[Path]:
    """Sidecars of files and folders below `root`, its own left out."""
    found = [root / name for entry, name in _walk(root, "", hidden=True) if entry.name.endswith(SIDECAR_SUFFIX)]
    return sorted(path for path in found if path != root / SIDECAR_SUFFIX)


def _walk(root: Path, prefix: str, *, hidden: bool = False) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Everything below a folder that is not a folder, with its relative name."""
    with os.scandir(root) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    yield from _walk(root / entry.name, name + "/", hidden=hidden)
            elif hidden or not entry.name.startswith("."):
                yield entry, name


def read_layouts(root: Path, names: Sequence[str]) -> list[AudioFile]:
    """Every file's layout from its header; DatasetError that lists the files that cannot be edited."""
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
        descriptor = os.open(path, durability.READING)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise AudioFileError(f"{path} cannot be used: it is not a regular file.")
            layout = pcm.parse_wav(descriptor, status.st_size, path)
        finally:
            os.close(descriptor)
        return AudioFile(name, status.st_size, layout, name, stamp_of(status))
    status = os.lstat(path)
    encoding = probe(Path(path))
    output_name = str(PurePosixPath(name).with_suffix(".flac")) if encoding.lossy else name
    return AudioFile(name, status.st_size, encoding, output_name, stamp_of(status))


def usual_recipe(files: Sequence[AudioFile], strength: float) -> Recipe:
    """Format 2 for the sample rate that most of the files have, the lowest of several."""
    rates = Counter(min(max(1, file.layout.sample_rate), MAX_RATE) for file in files)
    most = max(rates.values(), default=0)
    rate = min((rate for rate, count in rates.items() if count == most), default=None)
    return Recipe.strong(strength) if rate is None else Recipe.strong(strength, sample_rate=rate)


def suffix_of(name: str) -> str:
    """What a name ends in, in lower case: ".wav"."""
    return os.path.splitext(name)[1].lower()


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes when a file is exchanged or written to."""
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns


def refuse_exchanged(path: str, stamp: Stamp, status: os.stat_result | None = None) -> None:
    """DatasetError if a file, or an open one by its status, is not the one that was listed."""
    if stamp_of(status or os.lstat(path)) != stamp:
        raise DatasetError(
            f"{path} was exchanged or changed since this run began; leave the files alone and run it again."
        )


def refuse_unsafe(root: Path, names: Sequence[str]) -> None:
    """DatasetError if an edit in place would fail, or would change more than the file it is meant for."""
    problems = []
    for name in names:
        links = os.stat(f"{root}/{name}").st_nlink
        if not os.access(f"{root}/{name}", os.R_OK | os.W_OK):
            problems.append(f"{name} may not be read and written by you; change its permissions")
        if links > 1:
            problems.append(
                f"{name} has {links} names (hard links), so an edit in place would change them all; copy it"
            )
    refuse(problems, f"{root} cannot be edited in place")


def find_labels(
    root: Path, names: Sequence[str], source: str | Mapping[str, str | int], *, whole: bool = True
) -> list[str | int]:
    """One label for each name, from "folder", "csv:FILE", "regex:RE" or a mapping.

    If `names` are the `whole` data set, labels of other files are refused too.

    Raises
    ------
    DatasetError
        The source is of another form, or leaves a file without a label; the sentence names files.
    """
    if not isinstance(source, str | Mapping):
        raise DatasetError(f"labels_from is {source!r}; expected 'folder', 'csv:FILE', 'regex:RE' or a mapping.")
    if isinstance(source, Mapping):
        return _from_mapping(names, source, "the mapping of labels", whole=whole)
    kind, _, rest = source.partition(":")
    if source == "folder":
        return _from_folders(root, names)
    if kind == "csv" and rest:
        return _from_mapping(names, _read_csv(Path(rest)), rest, whole=whole)
    if kind == "regex" and rest:
        return _from_regex(names, rest)
    raise DatasetError(f"labels_from is {source!r}; expected 'folder', 'csv:FILE' or 'regex:RE'.")


def _from_folders(root: Path, names: Sequence[str]) -> list[str | int]:
    own = root.absolute().name
    parents = [name.split("/")[-2] if "/" in name else own for name in names]
    loose = [name for name in names if "/" not in name]
    # One file, or a folder that is itself a class, is fine; loose files beside class folders are not.
    if loose and len(loose) != len(names):
        refuse([f"{name} lies outside every class folder" for name in loose], "Labels cannot be read from the folders")
    return list(parents)


def _from_mapping(names: Sequence[str], labels: Mapping[str, str | int], where: str, *, whole: bool) -> list[str | int]:
    problems = [f"{name} has no label" for name in names if name not in labels]
    known = set(names)
    for name, label in labels.items():
        if isinstance(label, bool) or not isinstance(label, str | int):
            problems.append(f"{name} has the label {label!r}, which is neither a name nor a number")
        elif whole and name not in known:
            problems.append(f"{name} has a label but is not an audio file there")
    refuse(problems, f"Labels and files do not match ({where})")
    return [labels[name] for name in names]


def _from_regex(names: Sequence[str], pattern: str) -> list[str | int]:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise DatasetError(f"The regular expression {pattern!r} is not valid: {error}.") from None
    if compiled.groups < 1:
        raise DatasetError(f"The regular expression {pattern!r} has no group; put the label in parentheses.")
    labels: list[str | int] = []
    problems = []
    for name in names:
        match = compiled.search(PurePosixPath(name).name)
        if match is None or not match[1]:
            problems.append(f"{name} does not match {pattern!r}")
        else:
            labels.append(match[1])
    refuse(problems, "Labels cannot be read from the file names")
    return labels


def _read_csv(path: Path) -> dict[str, str]:
    """`path,label` rows; paths are relative to the folder of audio."""
    labels: dict[str, str] = {}
    problems = []
    old_limit = csv.field_size_limit(MAX_CSV_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise DatasetError(
                    f"{path} has the columns {rows.fieldnames}; its first line must name path and label."
                )
            for row in rows:
                name, label = row["path"] or "", row["label"] or ""
                pure = PurePosixPath(name)
                if pure.is_absolute() or ".." in pure.parts or not pure.parts:
                    problems.append(f"line {rows.line_num}: {name!r} is not a path inside the folder")
                elif not label:
                    problems.append(f"line {rows.line_num}: {name!r} has an empty label")
                elif "\0" in label:
                    problems.append(f"line {rows.line_num}: {name!r} has a NUL character in its label")
                elif labels.setdefault(str(pure), label) != label or None in row:
                    problems.append(f"line {rows.line_num}: {name!r} has two labels")
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV file in UTF-8: {error}.") from None
    finally:
        csv.field_size_limit(old_limit)
    refuse(problems, f"{path} cannot be used")
    return labels


def refuse(problems: Sequence[str], title: str) -> None:
    """DatasetError that lists the problems, the first few in full."""
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:PROBLEMS_SHOWN])
        more = f"\n  and {len(problems) - PROBLEMS_SHOWN:,} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise DatasetError(f"{title}; nothing was written:{shown}{more}")


def collisions(names: Sequence[str]) -> list[str]:
    """Names that are one file where case or Unicode form does not count."""
    first: dict[str, tuple[str, int]] = {}
    problems = []
    for number, name in enumerate(names):
        same = name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
        other, owner = first.setdefault(same, (name, number))
        if owner != number:
            how = "are one name" if other == name else "differ only in case or Unicode form"
            problems.append(f"{other} and {name} {how}; rename one")
    return problems


def _is_text(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
