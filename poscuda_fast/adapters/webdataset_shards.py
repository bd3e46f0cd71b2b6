"""WebDataset: tar shards in, tar shards out, with every member but the audio as it was."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from poscuda_fast import disk
from poscuda_fast.adapters.tar_samples import Group, groups, kept, outline, reading, refuse_rest, writing
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.files.listing import AUDIO_SUFFIXES
from poscuda_fast.kernels import usable_cores
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import encode
from poscuda_fast.protector import Protector
from poscuda_fast.recipe import Recipe

RUN = "poscuda-shards.json"  # beside the shards: what they were made with
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
REFUSED_SUFFIXES = (".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")
SAMPLES_PER_BATCH = 64

Sample = dict[str, bytes]  # extension -> content
Label = str | Callable[[str, Sample], "str | int"]


class Shards(NamedTuple):
    """What `protect_shards` did.

    Attributes
    ----------
    made : int
        Shards that it made.
    found : int
        Shards that were there already, or that another call made meanwhile.
    samples : int
        Samples with audio, in the shards that it made.
    """

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
        A folder whose .tar, .tar.gz and .tgz files are the shards (not those of folders inside it, nor hidden ones), or
        the files.
    dst : path
        Another folder, for the copies, which get the same names. A shard appears once it is whole and on the disk;
        shards that are there are compared with what they were made of by their members' headers and left as they are,
        so that the same call made again goes on where a run was stopped, and several machines may make it at once. A
        process that is killed leaves a hidden file that ends with ".poscuda-part".
    key_file, recipe, classes, lossy
        As for `Protector`. A lossy file that becomes FLAC is named so.
    label : str or callable
        Which member of a sample is its label: an extension, whose content is a number or a name ("cls"), "json:FIELD"
        for a field of its .json, or a function of (sample's key, {extension: bytes}). With several workers the function
        must be one that can be pickled: defined at the top of a module.
    workers : int, optional
        Processes; by default one for each core. More than one are spawned, and import the script that calls this: it
        needs ``if __name__ == "__main__":`` around the call.

    Returns
    -------
    Shards

    Raises
    ------
    DatasetError
        Before anything is written: no shards, or two of one name; a compression other than gzip; `dst` is the shards'
        own folder, or holds shards that were not made with this key, recipe, label, classes and lossy; the shards are
        themselves protected copies. From a shard, which is then not made, while others may be: it is not a whole tar
        file, has no audio, has audio that is a link, or a sample whose label is missing or cannot be used; or what is
        there by its name was made of another.
    AudioFileError
        Audio that `Protector` refuses; the shard is not made.
    TypeError, ValueError
        An argument of another kind, or a function for `label` that cannot be sent to the workers; nothing was written.
    BrokenProcessPool
        A worker died; the same call made again goes on.
    KeyFileError, OSError
        The key file cannot be used, or a file cannot be read or written.

    Notes
    -----
    Members keep their order, names, modes and times; all but audio keep their bytes. A sparse file is written out. A
    shard that is compressed with gzip is so again.
    """
    protector = Protector(key_file, recipe=recipe, classes=classes, lossy=lossy)
    encode([], classes, 0)
    _check_label(label)
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers is {workers!r}; expected a number of processes from 1, or None for one a core.")
    shards = _shards(src)
    target = Path(dst)
    _refuse_target(shards, target)
    n_workers = min(len(shards), workers or usable_cores())
    if n_workers > 1:
        _check_picklable(label)
    run = {
        "fingerprint": Key.load(key_file).fingerprint,
        "recipe": recipe.to_dict(),
        "label": None if callable(label) else label,
        "classes": protector.classes,
        "lossy": lossy,
    }
    target.mkdir(parents=True, exist_ok=True)
    _begin(target / RUN, run)
    done = _make(_Work(protector, label, target), shards, n_workers)
    made = [samples for samples in done if samples is not None]
    return Shards(len(made), len(shards) - len(made), sum(made))


def _check_label(label: Any) -> None:
    if not (isinstance(label, str) or callable(label)):
        raise TypeError(f"label is {label!r}; expected an extension, 'json:FIELD' or a function.")
    if isinstance(label, str) and not re.fullmatch(r"[^:]+(:.+)?", label, re.DOTALL):
        raise ValueError(f"label is {label!r}; expected an extension such as 'cls', or 'json:FIELD'.")


def _check_picklable(label: Label) -> None:
    """TypeError if a function cannot be sent to other processes."""
    try:
        ForkingPickler.dumps(label)
    except Exception as error:  # noqa: BLE001 - whatever pickle and the object's own methods raise
        raise TypeError(
            f"label is {label!r}, which cannot be sent to other processes ({error}); define the function at the top of "
            f"a module, or give workers=1. Nothing was written."
        ) from None


def _shards(src: Any) -> list[Path]:
    """The source's shards; DatasetError if they cannot be told apart, or cannot be read."""
    if isinstance(src, str | os.PathLike):
        paths = _of_folder(Path(src)) if Path(src).is_dir() else [Path(src)]
    else:
        paths = [Path(path) for path in src]
    if not paths:
        raise DatasetError(
            f"{src} has no shards ({', '.join(SHARD_SUFFIXES)}); give their folder, or their paths. "
            f"Nothing was written."
        )
    seen: set[str] = set()
    for path in paths:
        if not path.is_file():
            raise DatasetError(
                f"{path} is not a file; give a folder of shards, or the paths of each (patterns and addresses are not "
                f"looked up). Nothing was written."
            )
        if path.name.lower().endswith(REFUSED_SUFFIXES):
            raise DatasetError(
                f"{path} is compressed in a way that is not read here; give plain tar files, or ones compressed with "
                f"gzip. Nothing was written."
            )
        if path.name in seen:
            raise DatasetError(
                f"Two shards have the name {path.name}; copy them to different folders, in a call for each. "
                f"Nothing was written."
            )
        seen.add(path.name)
    return paths


def _of_folder(folder: Path) -> list[Path]:
    """All that may be shards, those that will be refused too."""
    suffixes = SHARD_SUFFIXES + REFUSED_SUFFIXES
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(suffixes) and not p.name.startswith("."))


def _refuse_target(shards: Sequence[Path], target: Path) -> None:
    """DatasetError if copies there would be mistaken for others, or would be copies of copies."""
    if os.path.lexists(target) and not target.is_dir():
        raise DatasetError(f"{target} is not a folder; choose another place for the copies. Nothing was written.")
    folders = {shard.parent for shard in shards} | {Path(os.path.realpath(shard)).parent for shard in shards}
    for folder in sorted(folders):
        if os.path.realpath(folder) == os.path.realpath(target):
            raise DatasetError(
                f"{target} is the folder of the shards themselves; choose another for the copies. Nothing was written."
            )
        if os.path.lexists(folder / RUN):
            raise DatasetError(
                f"{folder} has a {RUN}: its shards are protected copies, and would be marked twice; give the original "
                f"shards. Nothing was written."
            )
    for shard in shards:
        copy = target / shard.name
        if os.path.lexists(copy) and (copy.is_symlink() or not copy.is_file() or os.path.samefile(copy, shard)):
            raise DatasetError(
                f"{copy} is a link, a folder or {shard} itself, and no copy that was made here; choose another folder "
                f"for the copies. Nothing was written."
            )
    # In this order: whoever makes copies there just now has written the run's file before them.
    found = _of_folder(target) if target.is_dir() else []
    if found and not os.path.lexists(target / RUN):
        raise DatasetError(
            f"{target} has shards ({found[0].name}) and no {RUN}, so that they cannot be told from originals; choose "
            f"another folder for the copies. Nothing was written."
        )


def _begin(path: Path, run: Mapping[str, Any]) -> None:
    """Write down what a run is; DatasetError if the folder is another's."""
    if not os.path.lexists(path):
        with contextlib.suppress(FileExistsError), disk.appearing(path, mode=None) as file:
            file.write(json.dumps(run, indent=1).encode())
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DatasetError(f"{path} is damaged; choose another folder for the copies. No shard was written.")
    differing = [f"{field} {found.get(field)!r}, not {run[field]!r}" for field in run if found.get(field) != run[field]]
    if differing:
        raise DatasetError(
            f"{path} tells of a run with {'; '.join(differing)}; make the call as it was made then, or choose another "
            f"folder for the copies. No shard was written."
        )


def _make(work: _Work, shards: Sequence[Path], n_workers: int) -> list[int | None]:
    if n_workers == 1:
        return [work(shard) for shard in shards]
    try:
        with ProcessPoolExecutor(n_workers, get_context("spawn")) as pool:
            return list(pool.map(work, shards))
    except BrokenProcessPool:
        raise BrokenProcessPool(
            "A worker died: it was killed, memory ran out, or it could not import the script that made this call, "
            'which needs `if __name__ == "__main__":` around it, or the function for label, which must not be of a '
            "notebook. Shards that were made are whole; mend this, or give workers=1, and make the call again."
        ) from None


class _Work:
    """What a process does with a shard; picklable without the key."""

    def __init__(self, protector: Protector, label: Label, target: Path) -> None:
        self._protector, self._label, self._target = protector, label, target

    def __call__(self, shard: Path) -> int | None:
        """Make one shard's copy; how many samples with audio it has, or None if it was there already."""
        target = self._target / shard.name
        if os.path.lexists(target):
            _refuse_other(shard, target)
            return None
        try:
            with disk.appearing(target, mode=None) as file:
                return self._copy(shard, file)
        except FileExistsError:
            if not os.path.lexists(target):
                raise
            return None

    def _copy(self, shard: Path, file: IO[bytes]) -> int:
        """Write a shard's protected form; how many samples with audio it has."""
        with reading(shard) as (source, read):
            samples = 0
            with writing(file, source, read) as write:
                for batch in _batches(groups(read)):
                    samples += self._write(write, batch, shard)
            refuse_rest(source)
            if not samples:
                raise DatasetError(
                    f"No member is audio, which is known by its suffix: {', '.join(sorted(AUDIO_SUFFIXES))}."
                )
        return samples

    def _write(self, write: tarfile.TarFile, batch: list[Group], shard: Path) -> int:
        """Write some samples with their audio protected; how many have any."""
        edited = iter(self._protected(batch, shard))
        samples = 0
        for group in batch:
            samples += any(member.is_audio for member in group.members)
            for member in group.members:
                info, content = member
                if member.is_audio:
                    entry = next(edited)
                    content = entry["bytes"]
                    info.size = len(content)
                    group.rename(info, PurePosixPath(entry["path"]).suffix)
                info.pax_headers = kept(info.pax_headers, write.pax_headers)
                write.addfile(info, io.BytesIO(content) if info.isreg() else None)
        return samples

    def _protected(self, batch: list[Group], shard: Path) -> Any:
        """The audio of some samples, in order, each with its path inside the shard."""
        audio = [(group, member) for group in batch for member in group.members if member.is_audio]
        entries = [{"bytes": member.content, "path": f"{shard}/{member.info.name}"} for _, member in audio]
        labels = [self._label_of(group) for group, _ in audio]
        try:
            return self._protector.protect(entries, labels)
        except AudioFileError:
            raise
        except (TypeError, ValueError) as error:
            for (group, _), label in zip(audio, labels, strict=True):
                self._refuse_label(group, label)
            raise DatasetError(f"Samples {batch[0].key} to {batch[-1].key}: {error}") from None

    def _refuse_label(self, group: Group, label: Any) -> None:
        """DatasetError if a sample's label cannot be used by itself."""
        try:
            encode([label], self._protector.classes, 1)
        except (TypeError, ValueError) as error:
            raise DatasetError(f"Sample {group.key}: {error}") from None

    def _label_of(self, group: Group) -> str | int:
        sample = {member.extension: member.content for member in group.members}
        if len(sample) != len(group.members):
            names = [member.info.name for member in group.members]
            raise DatasetError(f"Sample {group.key} has two members of one extension: {names}; rename one.")
        if callable(self._label):
            return self._label(group.key, sample)
        extension, _, field = self._label.partition(":")
        if extension not in sample:
            raise DatasetError(
                f"Sample {group.key} has the members {sorted(sample)}, and none is its label {extension!r}."
            )
        try:
            text = sample[extension].decode()
            found = json.loads(text) if field else _number_or_name(text.strip())
        except ValueError as error:
            raise DatasetError(
                f"Sample {group.key} has a label {extension!r} that is not {'JSON' if field else 'text'} in UTF-8 "
                f"({error}); mend it, or leave the sample out."
            ) from None
        if not field:
            return found
        if not isinstance(found, dict) or field not in found:
            raise DatasetError(f"Sample {group.key} has no field {field!r} in its {extension!r}.")
        return found[field]  # type: ignore[no-any-return]


def _number_or_name(text: str) -> str | int:
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else text


def _refuse_other(shard: Path, copy: Path) -> None:
    """DatasetError if a shard has not the members that its copy was made of."""
    for one, other in itertools.zip_longest(outline(shard), outline(copy)):
        if one != other:
            raise DatasetError(
                f"{copy} was made of another shard than {shard}, or that was changed since; choose another folder for "
                f"the copies, or delete this one to have it made anew."
            )


def _batches(found: Iterator[Group]) -> Iterator[list[Group]]:
    batch: list[Group] = []
    for group in found:
        batch.append(group)
        if len(batch) == SAMPLES_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
