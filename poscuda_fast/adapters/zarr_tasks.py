"""Makes a protected copy of a Zarr array, shard by shard, with workers of Dask, Ray or a pool; no undo."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poscuda_fast import disk
from poscuda_fast.arrays import zarr as sharded
from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.arrays.opening import path_of
from poscuda_fast.arrays.zarr import METADATA, TASKS
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.plan import make_plan
from poscuda_fast.recipe import Recipe
from poscuda_fast.secrecy import discreet
from poscuda_fast.undo.record import keyed_mac, refuse_protected


@discreet
def shard_tasks(
    src: PathLike,
    dst: PathLike,
    labels: Any,
    key_file: PathLike,
    *,
    recipe: Recipe = Recipe.strong(),
    sample_rate: int | None = None,
    lengths: Any = None,
    classes: Sequence[str] | None = None,
) -> list[ShardTask]:
    """Begin a protected copy of a Zarr array, and return the tasks that fill it, for Dask, Ray or a process pool.

    Each task writes whole shards that no other task writes; tasks may run anywhere, in any order, and more than once.
    The copy's metadata are written now, so that it can be opened; it has no samples until the tasks have run. There is
    no undo: keep `src`.

    Parameters
    ----------
    src, dst : path
        The folder of the array, and the folder of the copy, which is made; every worker must have access to both.
    labels, recipe, sample_rate, lengths, classes
        As for `protect_array`, but whether the mark would protect the data is not judged.
    key_file : path
        As for `Protector`: the key is not in the tasks.

    Returns
    -------
    list of ShardTask
        Picklable callables without arguments.

    Raises
    ------
    DatasetError
        `src` is not an array that can be copied exactly, or is such a copy itself; or `dst` exists and was not begun
        with the same arguments, or one of the two lies inside the other.
    SidecarError
        `src` is protected: the copy would be marked twice.
    KeyFileError, TypeError, ValueError, OSError
        As for `Key.load` and `protect_array`.

    Notes
    -----
    What the copy is made with is written beside its metadata: the key's fingerprint, the recipe, the sample rate, and a
    keyed MAC of the labels, the lengths and the source's path. A killed worker may leave a hidden file that ends in
    ".poscuda-part", which Zarr ignores.
    """
    if isinstance(key_file, Key):
        raise TypeError("key_file is a Key, which never leaves its process; give the path of its key file.")
    key, source, target = Key.load(key_file), Path(os.path.realpath(path_of(src))), Path(os.path.realpath(dst))
    if disk.overlap(source, target):
        raise DatasetError(f"{dst} is {src} itself, or one lies inside the other; choose another path for the copy.")
    clips = sharded.ZarrArray(source, None, lengths=lengths)
    plan = make_plan(key, recipe, labels, classes, clips.lengths, sample_rate)
    refuse_protected(source, [clips.sidecar], key)
    run = {
        "fingerprint": key.fingerprint,
        "recipe": recipe.to_dict(),
        "rates": list(plan.rates),
        "source": keyed_mac(key, b"tasks", os.fsencode(source) + plan.digest()),
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
            sample_rate,
            None if classes is None else tuple(classes),
            first,
            tuple(given[first : first + step]),
            tuple(clips.lengths[first : first + step].tolist()),
        )
        for first in range(0, clips.shape[0], step)
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class ShardTask:
    """Writes one row of shards, those that share their clips, of a copy that `shard_tasks` began.

    Attributes
    ----------
    src, dst, key_file : str
        Full paths.
    recipe, sample_rate, classes
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
    sample_rate: int | None
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
        clips = np.array(sharded.read(source, Path(self.src), self.first, end))
        mark_batch(
            clips, self.labels, Key.load(self.key_file), recipe=self.recipe, engine=Engine(threads=1),
            sample_rate=self.sample_rate, lengths=self.lengths, classes=self.classes,
        )  # fmt: skip
        for region in sharded.regions(target, self.first // step):
            sharded.replace(Path(self.dst), region, clips[(slice(None), *region[1:])], alone=False)
        return len(clips)


def _begin_copy(src: Path, dst: Path, run: bytes) -> None:
    """Begin a copy, or continue one that was begun with the same key, recipe, labels, lengths and source."""
    tells, metadata = dst / TASKS, (src / METADATA).read_bytes()
    if os.path.lexists(dst) and not (dst.is_dir() and (tells.is_file() or not any(dst.iterdir()))):
        raise DatasetError(
            f"{dst} exists and is not a copy that was begun here, and nothing is ever overwritten; choose another path."
        )
    if not dst.exists():
        dst.mkdir(0o700, parents=True)
        dst.chmod(stat.S_IMODE(os.stat(src).st_mode) & 0o777 | 0o700)
    for path, content in ((tells, run), (dst / METADATA, metadata)):
        if not path.exists():
            disk.create(path, content, mode=stat.S_IMODE(os.stat(src / METADATA).st_mode) & 0o666 | 0o600)
        if path.read_bytes() != content:
            raise DatasetError(
                f"{path} was made with another key, recipe, sample rate, labels, lengths or source; choose another "
                f"path for it."
            )
