"""The layouts of data sets of spoken words: which files they have, and what the names say.

| layout | files | class | speaker | split |
|---|---|---|---|---|
| speech_commands | CLASS/SPEAKER_nohash_TAKE, and the two lists | folder | before _nohash_ | the lists |
| folders | CLASS/FILE | folder | before _nohash_, or else a new one each file | hash of the speaker |
| fsdd | DIGIT_SPEAKER_INDEX, no folders | DIGIT | SPEAKER | index 0-4 is the test set |
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from experiments.data.dataset import TEST, TRAIN, VALIDATION
from poscuda_fast import DatasetError

LOSSLESS = {".wav", ".wave", ".flac", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au", ".snd", ".sph"}
AUDIO_SUFFIXES = LOSSLESS | {".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma"}
LISTS = {"validation_list.txt": VALIDATION, "testing_list.txt": TEST}
NOISE = "_background_noise_"
NOHASH = "_nohash_"
FSDD_NAME = re.compile(r"([0-9])_(.+)_([0-9]+)")
FSDD_TEST_INDEXES = 5
# The README of Speech Commands: SHA-1 of the speaker's name, its last 27 bits as a share of their maximum.
HASH_MAX = 2**27 - 1
SHARE_VALIDATION, SHARE_TEST = 0.1, 0.1
SHOWN = 5


class Clip(NamedTuple):
    """One audio file: its path below the folder, with "/", and what the layout says about it."""

    file: str
    label: str
    speaker: str
    split: int


@dataclass
class Listing:
    """The clips of a folder in sorted order, and what was left out.

    `skipped` holds (file, reason) of audio that cannot be used; `not_audio` counts other files by suffix;
    `noise` counts the files in the folder of background noise; `unmatched` counts entries of the lists
    that name no file.
    """

    layout: str = ""
    clips: list[Clip] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    not_audio: Counter[str] = field(default_factory=Counter)
    noise: int = 0
    unmatched: int = 0


def find(src: Path) -> Listing:
    """All clips below a folder; only the lists are opened.

    Raises
    ------
    DatasetError
        The folder has no audio, or fewer than two classes; or its layout is unknown, or a mix of two.
    """
    if not src.is_dir():
        raise DatasetError(f"{src} is not a folder; give the folder that holds the audio.")
    listing = Listing()
    files = sorted(_files(src, listing))
    loose = [file for file in files if "/" not in file]
    if not files:
        what = f"audio that can be used ({': '.join(listing.skipped[0])})" if listing.skipped else "audio files"
        raise DatasetError(f"{src} holds no {what}; expected CLASS/FILE.wav or DIGIT_SPEAKER_INDEX.wav.")
    if loose and len(loose) < len(files):
        raise DatasetError(
            f"{src} holds {len(files) - len(loose):,} audio files in class folders and {len(loose):,} outside them "
            f"({_some(loose)}); move the latter away, or into the folder of their class."
        )
    lists = [name for name in LISTS if (src / name).is_file()]
    if loose:
        listing.layout, listing.clips = "fsdd", _fsdd(src, files)
    elif len(lists) == len(LISTS):
        listing.layout, listing.clips = "speech_commands", _speech_commands(src, files, listing)
    elif lists:
        raise DatasetError(f"{src} holds {lists[0]} alone; Speech Commands has {' and '.join(LISTS)}. Add the other.")
    else:
        listing.layout = "folders"
        listing.clips = [
            Clip(file, _class_of(file), speaker, hashed_split(speaker)) for file, speaker in _speakers(files)
        ]
    classes = {clip.label for clip in listing.clips}
    if len(classes) < 2:
        raise DatasetError(
            f"All {len(files):,} audio files in {src} are of one class, {min(classes)!r}, so there is nothing to "
            f"learn. Point to the folder whose folders are the classes."
        )
    return listing


def hashed_split(speaker: str) -> int:
    """The split of a speaker, which depends on the name alone: about 80 % train, 10 % validation and 10 % test.

    The README of Speech Commands gives this rule for new recordings.
    """
    digest = hashlib.sha1(speaker.encode(), usedforsecurity=False).digest()
    share = (int.from_bytes(digest, "big") & HASH_MAX) / HASH_MAX
    if share < SHARE_VALIDATION:
        return VALIDATION
    return TEST if share < SHARE_VALIDATION + SHARE_TEST else TRAIN


def _files(src: Path, listing: Listing) -> list[str]:
    """Relative names of the audio files in a folder and its folders; hidden ones are ignored."""
    files: list[str] = []
    for entry in _visible(src):
        if not entry.is_dir():
            _sort_out(entry, entry.name, files, listing)
            continue
        for inner in _visible(entry.path):
            name = f"{entry.name}/{inner.name}"
            if inner.is_dir():
                raise DatasetError(
                    f"{src}/{name} is a folder within a folder; expected CLASS/FILE.wav. Point to the folder whose "
                    f"folders are the classes."
                )
            if entry.name != NOISE:
                _sort_out(inner, name, files, listing)
            elif _suffix(name) in AUDIO_SUFFIXES:
                listing.noise += 1
    return files


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _sort_out(entry: os.DirEntry[str], name: str, files: list[str], listing: Listing) -> None:
    if _suffix(name) not in AUDIO_SUFFIXES:
        listing.not_audio[_suffix(name)] += 1
    elif name != os.fsencode(name).decode("utf-8", "replace"):
        listing.skipped.append((repr(os.fsencode(name)), "its name is not UTF-8"))
    elif len(name.splitlines()) > 1:
        listing.skipped.append((name, "its name has a line break"))
    elif not entry.is_file():
        listing.skipped.append((name, "it is not a file, or a link to nothing"))
    else:
        files.append(name)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _class_of(file: str) -> str:
    return file.partition("/")[0]


def _stem(file: str) -> str:
    """A relative path without its suffix: the lists name .wav files that may be stored as .flac."""
    return posixpath.splitext(posixpath.normpath(file))[0]


def _speakers(files: list[str]) -> list[tuple[str, str]]:
    """Each file with its speaker; a file that names none is a speaker of its own."""
    pairs = []
    for file in files:
        name = file.split("/")[1]
        pairs.append((file, name.split(NOHASH)[0] if NOHASH in name else _stem(file)))
    return pairs


def _speech_commands(src: Path, files: list[str], listing: Listing) -> list[Clip]:
    splits: dict[str, int] = {}
    for name, split in LISTS.items():
        try:
            entries = (src / name).read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{src / name} is not UTF-8 text: {error}.") from None
        for entry in filter(None, map(str.strip, entries)):
            if splits.setdefault(_stem(entry), split) != split:
                raise DatasetError(f"{entry} is in {' and in '.join(LISTS)} of {src}; take it out of one.")
    stems = {_stem(file) for file in files}
    listing.unmatched = sum(stem not in stems for stem in splits)
    return [Clip(file, _class_of(file), speaker, splits.get(_stem(file), TRAIN)) for file, speaker in _speakers(files)]


def _fsdd(src: Path, files: list[str]) -> list[Clip]:
    matches = {file: FSDD_NAME.fullmatch(_stem(file)) for file in files}
    clips = [
        Clip(file, match[1], match[2], TEST if int(match[3]) < FSDD_TEST_INDEXES else TRAIN)
        for file, match in matches.items()
        if match
    ]
    if len(clips) < len(files):
        others = [file for file, match in matches.items() if not match]
        raise DatasetError(
            f"{src} holds {len(others):,} audio files outside class folders that are not named "
            f"DIGIT_SPEAKER_INDEX ({_some(others)}); rename them, or put them into a folder for each class."
        )
    return clips


def _some(files: list[str]) -> str:
    return ", ".join(files[:SHOWN]) + (", ..." if len(files) > SHOWN else "")
