"""Zarr v3 arrays of clips: in place and with undo; or shard by shard into a copy, by any number of workers."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poscuda_fast import array_runs, durability, runs, sharded
from poscuda_fast.discretion import discreet
from poscuda_fast.errors import DatasetError
from poscuda_fast.inplace import Progress
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.memory import check_key, make_plan, protect
from poscuda_fast.recipe import Recipe
from poscuda_fast.report import Report
from poscuda_fast.sharded import METADATA, TASKS
from poscuda_fast.verification import Verification

PathLike = str | os.PathLike[str]


@discreet
def protect_array(
    path: PathLike,
    labels: Any,
    key: Key,
    *,
    recipe: Recipe = Recipe.strong(),
    lengths: Any = None,
    classes: Sequence[str] | None = None,
    backend: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    sidecar: PathLike | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> Report:
    """Protect a Zarr array in its folder, durably, as `protect_memmap` does a mapped one.

    Parameters
    ----------
    path : path
        The folder of an array of format 3, also one inside a group: int16 or float32, (n_clips, n_frames) or (n_clips,
        n_frames, n_channels), with any chunks, shards and lossless codecs. Only samples inside patches change.
    labels, key, recipe, lengths, classes, backend, threads, progress, dry_run
        As for `protect_memmap`.
    workers : int, optional
        Shards that are encoded and written at a time, each by one thread; all cores by default.
    sidecar : path, optional
        By default ".poscuda" inside the folder, which Zarr does not look at.

    Returns
    -------
    Report
        As of `protect_memmap`; killed at any moment, the same call made again finishes the job.

    Raises
    ------
    DatasetError
        No array of format 3 is there, or one of its codecs may lose samples. Nothing was written.
    TypeError, ValueError, SidecarError, BusyError, OSError
        As for `protect_memmap`.

    Notes
    -----
    Attributes, chunks, shards, codecs and all samples outside patches are preserved. Undo brings every sample back; the
    compressed bytes are those that the installed version of the codec makes of them, and a shard of nothing but the
    fill value is left out, as Zarr does. A few decoded rows of shards (all shards that share their clips) for each
    worker are in memory at once.
    """
    check_key(key)
    storage, clips = sharded.open_folder(path, sidecar, lengths=lengths, workers=workers)
    engine = Engine(backend, threads)
    return array_runs.protect(storage, clips, labels, key, recipe, classes, engine, progress, dry_run=dry_run)


@discreet
def restore_array(
    path: PathLike,
    key: Key,
    *,
    workers: int | None = None,
    sidecar: PathLike | None = None,
    progress: Progress | None = None,
) -> Report:
    """Put the original samples of a protected Zarr array back, as `restore_memmap` does.

    Parameters
    ----------
    path, key, workers, sidecar, progress
        As for `protect_array`. The array may have been moved, and its shards or codecs changed, since.

    Returns
    -------
    Report
        With state "restored" or "already original".

    Raises
    ------
    DatasetError, SidecarError, BusyError, OSError
        As for `protect_array`. Nothing was written.
    """
    check_key(key)
    return array_runs.restore(*sharded.open_folder(path, sidecar, workers=workers), key, progress)


@discreet
def verify_array(path: PathLike, key: Key, *, sidecar: PathLike | None = None) -> Verification:
    """Compare every patch of a Zarr array with its original and that one's marked form; nothing is written.

    Parameters
    ----------
    path, key, sidecar
        As for `protect_array`.

    Returns
    -------
    Verification
        Of clips, named by their numbers.

    Raises
    ------
    DatasetError, SidecarError, BusyError, OSError
        As for `protect_array`.
    """
    check_key(key)
    return array_runs.verify(*sharded.open_folder(path, sidecar, workers=1), key)


def shard_tasks(
    src: PathLike,
    dst: PathLike,
    labels: Any,
    key_file: PathLike,
    *,
    recipe: Recipe = Recipe.strong(),
    lengths: Any = None,
    classes: Sequence[str] | None = None,
) -> list[ShardTask]:
    """What has to be done for a protected copy of a Zarr array, as tasks for Dask, Ray or a pool of processes.

    Each task writes whole shards that no other one writes; they may run anywhere, in any order, and again. The copy's
    metadata are written now, so that it can be opened; it has no samples until the tasks have run. There is no undo but
    to keep `src`.

    Parameters
    ----------
    src, dst : path
        The folder of the array, and the one to make; every worker must see both.
    labels, recipe, lengths, classes
        As for `protect_array`.
    key_file : path
        As for `Protector`: the key is not in the tasks.

    Returns
    -------
    list of ShardTask
        Callables without arguments, picklable.

    Raises
    ------
    DatasetError
        `src` is not an array that can be copied exactly, or is such a copy itself; or `dst` is there and was not begun
        with the same arguments, or lies where `src` does.
    SidecarError
        `src` is protected: the copy would be marked twice.
    KeyFileError, TypeError, ValueError, OSError
        As for `Key.load` and `protect_array`.

    Notes
    -----
    What the copy is made with is written beside its metadata: the key's fingerprint, the recipe, and a keyed MAC of the
    labels, the lengths and the source's place. A worker that is killed may leave a hidden file that ends with
    ".poscuda-part", which Zarr does not look at.
    """
    sharded.refuse_no_path(src)
    if isinstance(key_file, Key):
        raise TypeError("key_file is a Key, which never leaves its process; give the path of its key file.")
    key, source, target = Key.load(key_file), Path(os.path.realpath(src)), Path(os.path.realpath(dst))
    if durability.overlap(source, target):
        raise DatasetError(f"{dst} and {src} are one, or lie inside one another; choose a separate place for the copy.")
    storage, clips = sharded.open_folder(source, None, lengths=lengths)
    plan = make_plan(key, recipe, labels, classes, clips)
    runs.refuse_protected(source, [storage.sidecar], key)
    run = {
        "fingerprint": key.fingerprint,
        "recipe": recipe.to_dict(),
        "source": runs.keyed_mac(key, b"tasks", os.fsencode(source) + plan.digest()),
    }
    _begin_copy(source, target, json.dumps(run, indent=1).encode())
    given = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    step = clips.clips_a_row
    return [
        ShardTask(
            str(source),
            str(target),
            os.path.abspath(key_file),
            recipe,
            None if classes is None else tuple(classes),
            first,
            tuple(given[first : first + step]),
            tuple(clips.lengths[first : first + step].tolist()),
        )
        for first in range(0, clips.shape[0], step)
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class ShardTask:
    """One row of shards, all that share their clips, of a copy that `shard_tasks` began.

    Attributes
    ----------
    src, dst, key_file : str
        Full paths.
    recipe, classes
        As for `shard_tasks`.
    first : int
        The first clip.
    labels, lengths : tuple
        Of the clips of these shards.
    """

    src: str
    dst: str
    key_file: str
    recipe: Recipe
    classes: tuple[str, ...] | None
    first: int
    labels: tuple[Any, ...]
    lengths: tuple[int, ...]

    @discreet
    def __call__(self) -> int:
        """Write the protected clips of these shards; returns their number.

        Raises
        ------
        ValueError
            The clips are not whole shards: another task would write the rest of them at the same time.
        """
        source, target = sharded.open_exact(self.src), sharded.open_exact(self.dst)
        step, end = sharded.shards(target)[0], self.first + len(self.labels)
        if self.first % step or (len(self.labels) != step and end != target.shape[0]):
            raise ValueError(
                f"Clips {self.first} to {end - 1} are not whole shards of {step} clips, and another task would write "
                f"the rest at the same time; use the tasks as shard_tasks made them."
            )
        clips = np.asarray(source[self.first : end])
        protect(
            clips, self.labels, Key.load(self.key_file), recipe=self.recipe, lengths=self.lengths,
            classes=self.classes, threads=1,
        )  # fmt: skip
        for region in sharded.regions(target, self.first // step):
            sharded.replace(Path(self.dst), region, clips[(slice(None), *region[1:])], alone=False)
        return len(clips)


def _begin_copy(src: Path, dst: Path, run: bytes) -> None:
    """Begin a copy, or go on with one that was begun with the same key, recipe, labels and source."""
    tells, metadata = dst / TASKS, (src / METADATA).read_bytes()
    if os.path.lexists(dst) and not (dst.is_dir() and (tells.is_file() or not any(dst.iterdir()))):
        raise DatasetError(
            f"{dst} exists and is no copy that was begun here, and nothing is ever overwritten; choose another name."
        )
    dst.mkdir(parents=True, exist_ok=True)
    for path, content in ((tells, run), (dst / METADATA, metadata)):
        if not path.exists():
            durability.create(path, content, mode=None)
        if path.read_bytes() != content:
            raise DatasetError(
                f"{path} is of another key, recipe, labels, lengths or source; choose another place for this copy."
            )
