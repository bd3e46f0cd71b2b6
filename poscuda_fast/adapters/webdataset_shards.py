"""WebDataset: tar shards in, tar shards out, with every member but the audio as it was."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from poscuda_fast import durability
from poscuda_fast.errors import DatasetError
from poscuda_fast.kernels import usable_cores
from poscuda_fast.key import Key
from poscuda_fast.listing import AUDIO_SUFFIXES
from poscuda_fast.protector import Protector
from poscuda_fast.recipe import Recipe

RUN = "poscuda-shards.json"  # beside the shards: what they were made with
SAMPLES_PER_BATCH = 64

Sample = dict[str, bytes]  # extension -> content
Label = str | Callable[[str, Sample], "str | int"]


class Shards(NamedTuple):
    """How many shards were made now, how many were there already, and the samples in the former."""

    made: int
    found: int
    samples: int


def protect_shards(
    src: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    dst: str | os.PathLike[str],
    key_file: str | os.PathLike[str],
    *,
    recipe: Recipe = Recipe.strong(),
    label: Label = "cls",
    classes: Sequence[str] | None = None,
    lossy: str = "refuse",
    workers: int | None = None,
) -> Shards:
    """Protected copies of tar shards, one process for each core.

    Parameters
    ----------
    src : path or sequence of paths
        A folder of .tar files, or the files.
    dst : path
        The folder for the copies, which get the same names. A shard appears once it is whole and on the disk; shards
        that are there are left as they are, so that the same call made again goes on where a run was stopped.
    key_file, recipe, classes, lossy
        As for `Protector`. A lossy file that becomes FLAC is named so.
    label : str or callable
        Which member of a sample is its label: an extension, whose content is a number or a name ("cls"), "json:FIELD"
        for a field of its .json, or a function of (sample's key, {extension: bytes}).
    workers : int, optional
        Processes; by default one for each core.

    Returns
    -------
    Shards

    Raises
    ------
    DatasetError
        No shards, a sample without a label, or shards in `dst` that another key or recipe made.
    AudioFileError, TypeError, ValueError, KeyFileError, OSError
        As for `Protector`; the shard in question is not made, others may be.

    Notes
    -----
    Members keep their order, names, modes and times; all but audio keep their bytes.
    """
    shards = _shards(src)
    target = Path(dst)
    target.mkdir(parents=True, exist_ok=True)
    _refuse_other_run(target, Key.load(key_file), recipe)
    todo = [shard for shard in shards if not os.path.lexists(target / shard.name)]
    work = _Work(Protector(key_file, recipe=recipe, classes=classes, lossy=lossy), label, target)
    n_workers = min(len(todo), workers or usable_cores())
    if n_workers <= 1:
        done = [work(shard) for shard in todo]
    else:
        with ProcessPoolExecutor(n_workers, get_context("spawn")) as pool:
            done = list(pool.map(work, todo))
    made = [samples for samples in done if samples is not None]
    return Shards(len(made), len(shards) - len(made), sum(made))


def _shards(src: Any) -> list[Path]:
    if isinstance(src, str | os.PathLike):
        paths = sorted(Path(src).glob("*.tar")) if Path(src).is_dir() else [Path(src)]
    else:
        paths = [Path(path) for path in src]
    if not paths:
        raise DatasetError(f"{src} has no shards (*.tar); give their folder, or their paths.")
    if len({path.name for path in paths}) != len(paths):
        raise DatasetError("Two shards have the same name; copy them to different folders.")
    return paths


def _refuse_other_run(target: Path, key: Key, recipe: Recipe) -> None:
    """DatasetError if the shards that are there were made with another key or recipe."""
    run = {"fingerprint": key.fingerprint, "recipe": recipe.to_dict()}
    path = target / RUN
    with contextlib.suppress(FileExistsError):
        durability.create(path, json.dumps(run, indent=1).encode(), mode=None)
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if found != run:
        raise DatasetError(f"{path} tells of another key or recipe than {run}; choose another folder for these shards.")


class _Work:
    """What a process does with a shard; picklable without the key."""

    def __init__(self, protector: Protector, label: Label, target: Path) -> None:
        self._protector, self._label, self._target = protector, label, target

    def __call__(self, shard: Path) -> int | None:
        """Make one shard's copy; how many samples it has, or None if it is there by now."""
        target = self._target / shard.name
        if os.path.lexists(target):
            return None
        try:
            with durability.appearing(target, mode=None) as file:
                return self._copy(shard, file)
        except FileExistsError:
            if not os.path.lexists(target):
                raise
            return None

    def _copy(self, shard: Path, file: IO[bytes]) -> int:
        """Write a shard's protected form; how many samples it has."""
        samples = 0
        with tarfile.open(shard) as read, tarfile.open(fileobj=file, mode="w", format=read.format) as write:
            for batch in _batches(_samples(read)):
                samples += len(batch)
                self._write(write, batch)
        return samples

    def _write(self, write: tarfile.TarFile, batch: list[_Group]) -> None:
        """Write some samples with their audio protected."""
        audio = [(group, member) for group in batch for member in group.members if member.is_audio]
        entries = [{"bytes": member.content, "path": member.info.name} for _, member in audio]
        labels = [self._label_of(group) for group, _ in audio]
        edited = iter(self._protector.protect(entries, labels))
        for group in batch:
            for member in group.members:
                info, content = member
                if member.is_audio:
                    entry = next(edited)
                    content = entry["bytes"]
                    info.name, info.size = entry["path"], len(content)
                    info.pax_headers = {name: text for name, text in info.pax_headers.items() if name != "path"}
                write.addfile(info, io.BytesIO(content) if info.isreg() else None)

    def _label_of(self, group: _Group) -> str | int:
        sample = {member.extension: member.content for member in group.members}
        if callable(self._label):
            return self._label(group.key, sample)
        extension, _, field = self._label.partition(":")
        if extension not in sample:
            raise DatasetError(
                f"Sample {group.key} has the members {sorted(sample)}, and none is its label {extension!r}."
            )
        if field:
            found = json.loads(sample[extension])
            if field not in found:
                raise DatasetError(f"Sample {group.key} has no field {field!r} in its {extension!r}.")
            return found[field]  # type: ignore[no-any-return]
        text = sample[extension].decode().strip()
        return int(text) if text.isascii() and text.isdigit() else text


class _Member(NamedTuple):
    """One file of a tar file."""

    info: tarfile.TarInfo
    content: bytes

    @property
    def extension(self) -> str:
        """What comes behind the first dot of the name, as WebDataset has it."""
        return PurePosixPath(self.info.name).name.partition(".")[2].lower()

    @property
    def is_audio(self) -> bool:
        return self.info.isreg() and PurePosixPath(self.info.name).suffix.lower() in AUDIO_SUFFIXES


class _Group(NamedTuple):
    """One sample: the members in a row that have one key."""

    key: str
    members: list[_Member]


def _samples(read: tarfile.TarFile) -> Iterator[_Group]:
    group: _Group | None = None
    for info in read:
        file = read.extractfile(info) if info.isreg() else None
        member = _Member(info, file.read() if file is not None else b"")
        pure = PurePosixPath(info.name)
        key = str(pure.parent / pure.name.partition(".")[0])
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = _Group(key, [])
        group.members.append(member)
    if group is not None:
        yield group


def _batches(groups: Iterator[_Group]) -> Iterator[list[_Group]]:
    batch: list[_Group] = []
    for group in groups:
        batch.append(group)
        if len(batch) == SAMPLES_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
