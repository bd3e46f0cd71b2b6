"""WebDataset: protects the audio in tar shards; every other member is unchanged."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import stat
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
from poscuda_fast.errors import AudioFileError, DatasetError, warn_of_unprotected
from poscuda_fast.files.in_memory import refuse_unusable
from poscuda_fast.kernels import usable_cores
from poscuda_fast.key import Key
from poscuda_fast.mark.labels import encode
from poscuda_fast.protector import Protector
from poscuda_fast.recipe import Recipe
from poscuda_fast.secrecy import discreet
from poscuda_fast.text import MOST_LISTED

RUN = "poscuda-shards.json"  # beside the shards: what they were made with
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
REFUSED_SUFFIXES = (".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")
SAMPLES_PER_BATCH = 64
BYTES_PER_BATCH = 64 << 20

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
    unprotected : int
        Members that `skip_unusable` left unprotected, in the shards that it made.
    """

    made: int
    found: int
    samples: int
    unprotected: int = 0


@discreet
def protect_shards(
    src: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    dst: str | os.PathLike[str],
    key_file: str | os.PathLike[str],
    *,
    recipe: Recipe = Recipe.strong(),
    label: Label = "cls",
    classes: Sequence[str] | None = None,
    lossy: str = "refuse",
    skip_unusable: bool = False,
    workers: int | None = None,
) -> Shards:
    """Make protected copies of tar shards, with one process per core.

    Parameters
    ----------
    src : path or sequence of paths
        A folder whose .tar, .tar.gz and .tgz files are the shards (not those of folders inside it, nor hidden ones), or
        the files.
    dst : path
        Another folder for the copies, which get the same names. A copy appears once it is complete and on the disk.
        Copies that exist are kept, after their members' headers are compared with the shard's. So the same call made
        again finishes one that was stopped, and several machines may make it at once. A killed process leaves a hidden
        file that ends in ".poscuda-part".
    key_file, recipe, classes, lossy
        As for `Protector`. A lossy file that becomes FLAC gets the suffix .flac.
    label : str or callable
        Which member of a sample is its label: an extension, whose content is a number or a name ("cls"), "json:FIELD"
        for a field of its .json, or a function of (sample's key, {extension: bytes}). With several workers the function
        must be picklable: defined at the top level of a module.
    skip_unusable : bool
        Leave as they are audio that cannot be marked, and audio that webdataset gives to no sample; they are counted,
        and an `UnprotectedWarning` names them. Otherwise they are refused.
    workers : int, optional
        Number of processes; by default one per core. Two or more are spawned and import the calling script, which
        needs ``if __name__ == "__main__":`` around the call.

    Returns
    -------
    Shards

    Raises
    ------
    DatasetError
        Before any shard is written: there are no shards, or two with one name; a compression is not gzip; `dst` is the
        shards' own folder, or holds shards that were not made with this key, recipe, label, classes and lossy; or the
        shards are protected copies themselves. For one shard, which gets no copy while others may: it is not a whole
        tar file, has no audio, has audio that is a link, or has a sample whose label is missing or cannot be used; or
        its copy exists and was made from another shard.
    AudioFileError
        `Protector` refuses some audio; that shard gets no copy.
    TypeError, ValueError
        An argument has the wrong type or value, or `label` is a function that cannot be sent to the workers; nothing
        was written.
    BrokenProcessPool
        A worker died; make the same call again to finish.
    KeyFileError, OSError
        The key file cannot be used, or a file cannot be read or written.

    Warns
    -----
    UnprotectedWarning
        `skip_unusable` left something unprotected in the shards that this call made.

    Notes
    -----
    Samples are what the webdataset library reads: consecutive members whose names are the same up to the first dot of
    the last part. Names that begin with a dot or have none, folders, links and "__meta__" files belong to no sample,
    and neither end nor begin one; they stay where they are.

    Members keep their order, names, modes and times; all but audio keep their bytes. Sparse files are written in full.
    The copy of a gzip shard is compressed with gzip too.
    """
    protector = Protector(key_file, recipe=recipe, classes=classes, lossy=lossy, skip_unusable=skip_unusable)
    encode([], classes, 0)
    _check_label(label)
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers is {workers!r}; expected a number of processes from 1, or None for one per core.")
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
    if not target.exists():
        target.mkdir(0o700, parents=True)
        target.chmod(0o700 | stat.S_IMODE(os.stat(shards[0].parent).st_mode) & 0o777)
    _begin(target / RUN, run)
    done = _make(_Work(protector, label, target), shards, n_workers)
    made = [one for one in done if one is not None]
    unprotected = sum(one.unprotected for one in made)
    warn_of_unprotected([reason for one in made for reason in one.reasons], unprotected, "the shards")
    return Shards(len(made), len(shards) - len(made), sum(one.samples for one in made), unprotected)


class _Made(NamedTuple):
    """What is told of one copy: some of the reasons why members were left unprotected, and the number of all."""

    samples: int
    unprotected: int
    reasons: list[str]


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
            f"label is {label!r}, which cannot be sent to other processes ({error}); define the function at the top "
            f"level of a module, or pass workers=1. Nothing was written."
        ) from None


def _shards(src: Any) -> list[Path]:
    """The shards of `src`; DatasetError if two have the same name, or one cannot be read."""
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
                f"{path} is not a file; give a folder of shards, or the path of each (glob patterns and URLs are not "
                f"supported). Nothing was written."
            )
        if path.name.lower().endswith(REFUSED_SUFFIXES):
            raise DatasetError(
                f"{path} is compressed in a way that cannot be read here; give tar files that are plain or compressed "
                f"with gzip. Nothing was written."
            )
        if path.name in seen:
            raise DatasetError(
                f"Two shards have the name {path.name}; copy them to two folders, with one call each. "
                f"Nothing was written."
            )
        seen.add(path.name)
    return paths


def _of_folder(folder: Path) -> list[Path]:
    """All files that may be shards, including those that will be refused."""
    suffixes = SHARD_SUFFIXES + REFUSED_SUFFIXES
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(suffixes) and not p.name.startswith("."))


def _refuse_target(shards: Sequence[Path], target: Path) -> None:
    """DatasetError if copies in `target` could be mistaken for other files, or would be copies of copies."""
    if os.path.lexists(target) and not target.is_dir():
        raise DatasetError(f"{target} is not a folder; choose another path for the copies. Nothing was written.")
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
                f"{copy} is a link, a folder or {shard} itself, not a copy that was made here; choose another folder "
                f"for the copies. Nothing was written."
            )
    # Look for shards first: a call that is making copies there now has written RUN before any of them.
    found = _of_folder(target) if target.is_dir() else []
    if found and not os.path.lexists(target / RUN):
        raise DatasetError(
            f"{target} has shards ({found[0].name}) but no {RUN}, so they cannot be told from originals; choose "
            f"another folder for the copies. Nothing was written."
        )


def _readable(folder: Path) -> int:
    """The mode of a file that those may read who may look into a folder."""
    return 0o600 | stat.S_IMODE(os.stat(folder).st_mode) & 0o044


def _begin(path: Path, run: Mapping[str, Any]) -> None:
    """Write down what the copies are made with; DatasetError if the folder's copies were made with something else."""
    if not os.path.lexists(path):
        with contextlib.suppress(FileExistsError), disk.appearing(path, mode=_readable(path.parent)) as file:
            file.write(json.dumps(run, indent=1).encode())
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DatasetError(f"{path} is damaged; choose another folder for the copies. No shard was written.")
    differing = [f"{field} {found.get(field)!r}, not {run[field]!r}" for field in run if found.get(field) != run[field]]
    if differing:
        raise DatasetError(
            f"{path} records copies made with {'; '.join(differing)}; use the same arguments, or choose another "
            f"folder for the copies. No shard was written."
        )


def _make(work: _Work, shards: Sequence[Path], n_workers: int) -> list[_Made | None]:
    if n_workers == 1:
        return [work(shard) for shard in shards]
    try:
        with ProcessPoolExecutor(n_workers, get_context("spawn")) as pool:
            return list(pool.map(work, shards))
    except BrokenProcessPool:
        raise BrokenProcessPool(
            "A worker died: it was killed, ran out of memory, or could not import the calling script (which needs "
            '`if __name__ == "__main__":` around the call) or the function for label (which must not be defined in a '
            "notebook). Finished shards are complete. Fix the cause, or pass workers=1, and make the same call again."
        ) from None


class _Work:
    """Makes the copy of one shard, in any process; pickled without the key."""

    def __init__(self, protector: Protector, label: Label, target: Path) -> None:
        self._protector, self._label, self._target = protector, label, target

    def __call__(self, shard: Path) -> _Made | None:
        """Make one shard's copy; returns None if the copy exists."""
        target = self._target / shard.name
        if os.path.lexists(target):
            _refuse_other(shard, target)
            return None
        try:
            with disk.appearing(target, mode=0o600 | stat.S_IMODE(os.stat(shard).st_mode) & 0o666) as file:
                return self._copy(shard, file)
        except FileExistsError:
            if not os.path.lexists(target):
                raise
            return None

    def _copy(self, shard: Path, file: IO[bytes]) -> _Made:
        """Write a shard's protected form."""
        left: list[str] = []
        with reading(shard) as (source, read):
            samples = 0
            with writing(file, source, read) as write:
                for batch in _batches(groups(read)):
                    samples += self._write(write, batch, shard, left)
            refuse_rest(source)
            if not samples:
                raise DatasetError("No member is audio, by name or by content.")
        return _Made(samples, len(left), left[:MOST_LISTED])

    def _write(self, write: tarfile.TarFile, batch: list[Group], shard: Path, left: list[str]) -> int:
        """Write some samples with their audio protected; returns how many have audio, and adds to what is `left`."""
        edited = iter(self._protected(batch, shard, left))
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

    def _protected(self, batch: list[Group], shard: Path, left: list[str]) -> Any:
        """The audio of some samples, in order, each with its path inside the shard."""
        audio = [(group, member) for group in batch for member in group.members if member.is_audio]
        entries = [{"bytes": member.content, "path": f"{shard}/{member.info.name}"} for _, member in audio]
        labels = [self._label_of(group) for group, _ in audio]
        strays = [
            f"{shard}/{member.info.name} holds audio, but belongs to no sample by its name; rename it, take it out, or "
            f"leave it unprotected (skip_unusable)."
            for group in batch
            for member in group.members
            if member.key is None and member.holds_sound
        ]
        if not self._protector.skip_unusable:
            refuse_unusable(strays)
        try:
            found, reasons = self._protector.protect_usable(entries, labels)
        except AudioFileError:
            raise
        except (TypeError, ValueError) as error:
            for (group, _), label in zip(audio, labels, strict=True):
                self._refuse_label(group, label)
            raise DatasetError(f"Samples {batch[0].key} to {batch[-1].key}: {error}") from None
        left += [*strays, *reasons]
        return found

    def _refuse_label(self, group: Group, label: Any) -> None:
        """DatasetError if this sample's label cannot be used, by itself."""
        try:
            encode([label], self._protector.classes, 1)
        except (TypeError, ValueError) as error:
            raise DatasetError(f"Sample {group.key}: {error}") from None

    def _label_of(self, group: Group) -> str | int:
        members = [member for member in group.members if member.key is not None]
        sample = {member.extension: member.content for member in members}
        if len(sample) != len(members):
            names = [member.info.name for member in members]
            raise DatasetError(f"Sample {group.key} has two members of one extension: {names}; rename one.")
        if callable(self._label):
            return self._label(str(group.key), sample)
        extension, _, field = self._label.partition(":")
        if extension not in sample:
            raise DatasetError(
                f"Sample {group.key} has the members {sorted(sample)}, and none is its label {extension!r}; pass the "
                f"one that is as label. Extensions begin at the first dot, and a sample's members lie together."
            )
        try:
            text = sample[extension].decode()
            found = json.loads(text) if field else text.strip()
        except (ValueError, RecursionError) as error:
            raise DatasetError(
                f"Sample {group.key} has a label {extension!r} that is not {'JSON' if field else 'text'} in UTF-8 "
                f"({error}); fix it, or leave the sample out."
            ) from None
        if not field:
            return found
        if not isinstance(found, dict) or field not in found:
            raise DatasetError(f"Sample {group.key} has no field {field!r} in its {extension!r}.")
        return found[field]  # type: ignore[no-any-return]


def _refuse_other(shard: Path, copy: Path) -> None:
    """DatasetError if a copy that exists was not made from this shard, by the headers of their members."""
    for one, other in itertools.zip_longest(outline(shard), outline(copy)):
        if one != other:
            raise DatasetError(
                f"{copy} was made from another shard than {shard}, or that has changed since; choose another folder "
                f"for the copies, or delete this copy to have it made again."
            )


def _batches(found: Iterator[Group]) -> Iterator[list[Group]]:
    batch: list[Group] = []
    n_bytes = 0
    for group in found:
        batch.append(group)
        n_bytes += sum(len(member.content) for member in group.members)
        if len(batch) == SAMPLES_PER_BATCH or n_bytes >= BYTES_PER_BATCH:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch
