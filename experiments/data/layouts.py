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
from pathlib import Path
from typing import NamedTuple

from experiments.data.dataset import TEST, TRAIN, VALIDATION
from poscuda_fast import DatasetError
from poscuda_fast.files.layouts import has_name_of_audio

LISTS = {"validation_list.txt": VALIDATION, "testing_list.txt": TEST}
NOISE = "_background_noise_"
NOHASH = "_nohash_"
FSDD_NAME = re.compile(r"([0-9])_([^/]+)_([0-9]+)")
# The rule of Speech Commands' README for new recordings: the last 27 bits of the SHA-1 of the speaker's name.
HASH_MAX = 2**27 - 1
SHOWN = 5


class Clip(NamedTuple):
    """One audio file: its path below the folder, with "/", and what the layout says about it."""

    file: str
    label: str
    speaker: str
    split: int


def find(src: Path) -> tuple[str, list[Clip], dict[str, str]]:
    """The layout's name, all clips below a folder, sorted, and why audio files were left out; only lists are opened.

    DatasetError if it has no audio, or fewer than two classes, or its layout is unknown, or a mix of two.
    """
    files, left_out = _files(src)
    lists = [name for name in LISTS if (src / name).is_file()]
    if not files:
        raise DatasetError(f"{src} is no folder with audio files; expected CLASS/FILE.wav or DIGIT_SPEAKER_INDEX.wav.")
    if any("/" not in file for file in files):
        layout, clips = "fsdd", _fsdd(src, files)
    elif len(lists) == 1:
        raise DatasetError(f"{src} holds {lists[0]} alone; Speech Commands has {' and '.join(LISTS)}. Add the other.")
    else:
        layout, clips = "speech_commands" if lists else "folders", _in_folders(src, files, lists)
    classes = {clip.label for clip in clips}
    if len(classes) < 2:
        raise DatasetError(f"All audio files in {src} are of one class, {min(classes)!r}: point to the folder above.")
    return layout, clips, left_out


def hashed_split(speaker: str) -> int:
    """The split of a speaker by the name alone: about 80 % train, 10 % validation, 10 % test."""
    digest = hashlib.sha1(speaker.encode(), usedforsecurity=False).digest()
    share = (int.from_bytes(digest, "big") & HASH_MAX) / HASH_MAX
    return VALIDATION if share < 0.1 else TEST if share < 0.2 else TRAIN


def _files(src: Path) -> tuple[list[str], dict[str, str]]:
    """Relative names of the audio files in a folder and its folders, sorted; hidden ones and noise are ignored."""
    files, left_out = [], {}
    for path in [*src.glob("[!.]*"), *src.glob("[!.]*/[!.]*")]:
        name = path.relative_to(src).as_posix()
        if "/" in name and path.is_dir():
            raise DatasetError(f"{path} is a folder within a folder; point to the one whose folders are the classes.")
        if path.is_dir() or not has_name_of_audio(name) or path.parent.name == NOISE:
            continue
        if len(name.splitlines()) > 1 or name != os.fsencode(name).decode("utf-8", "replace"):
            left_out[ascii(name)] = "its name is not UTF-8, or has a line break"
        elif not path.is_file():
            left_out[name] = "it is not a file, or a link to nothing"
        else:
            files.append(name)
    return sorted(files), left_out


def _stem(file: str) -> str:
    """A relative path without its suffix: the lists name .wav files that may be stored as .flac."""
    return posixpath.splitext(posixpath.normpath(file))[0]


def _in_folders(src: Path, files: list[str], lists: list[str]) -> list[Clip]:
    splits: dict[str, int] = {}
    for name in lists:
        try:
            entries = (src / name).read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{src / name} is not UTF-8 text: {error}.") from None
        for entry in filter(None, map(str.strip, entries)):
            if splits.setdefault(_stem(entry), LISTS[name]) != LISTS[name]:
                raise DatasetError(f"{entry} is in {' and in '.join(LISTS)} of {src}; take it out of one.")
    clips = []
    for file in files:
        label, name = file.split("/")
        speaker = name.split(NOHASH)[0] if NOHASH in name else _stem(file)
        split = splits.get(_stem(file), TRAIN) if lists else hashed_split(speaker)
        clips.append(Clip(file, label, speaker, split))
    return clips


def _fsdd(src: Path, files: list[str]) -> list[Clip]:
    clips = [
        Clip(file, match[1], match[2], TEST if int(match[3]) < 5 else TRAIN)
        for file in files
        if (match := FSDD_NAME.fullmatch(_stem(file)))
    ]
    if len(clips) < len(files):
        others = sorted(set(files) - {clip.file for clip in clips})
        some = ", ".join(others[:SHOWN]) + ", ..." * (len(others) > SHOWN)
        raise DatasetError(
            f"{src} holds audio files outside class folders, so all must be called DIGIT_SPEAKER_INDEX; not so {some}."
        )
    return clips
