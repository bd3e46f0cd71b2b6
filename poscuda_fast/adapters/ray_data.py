"""Ray Data: the batch function on many machines; the answer to data that are larger than one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from poscuda_fast import durability
from poscuda_fast.protector import Protector

if TYPE_CHECKING:
    import ray.data


def protect_dataset(
    dataset: ray.data.Dataset, key_file: str | os.PathLike[str], *, concurrency: int = 1, batch_size: int = 64,
    **options: Any,
) -> ray.data.Dataset:  # fmt: skip
    """A data set whose audio is protected as it is read, batch by batch, by `concurrency` workers.

    Workers that die are replaced by Ray, which gives their batches out again: a batch's result depends on nothing but
    the batch, so that the output is that of one machine, byte for byte. Each worker reads the key file, which must lie
    at the same path on each machine.

    Parameters
    ----------
    dataset : ray.data.Dataset
        For example of `ray.data.read_binary_files(folder, include_paths=True)` (with `audio="bytes"` and
        `label=label_of_folder`), `read_parquet` or `read_webdataset`.
    key_file, options
        As for `Protector`.
    concurrency : int
        Workers, each with one CPU; fewer than the cluster has, since reading takes CPUs too.
    batch_size : int
        Rows that are worked on at once.

    Returns
    -------
    ray.data.Dataset
        Lazily, as Ray's are; with all columns that it came with.
    """
    options["key_file"] = os.fspath(key_file)
    return dataset.map_batches(
        Protector, fn_constructor_kwargs=options, batch_format="numpy", batch_size=batch_size, concurrency=concurrency
    )


def write_files(
    dataset: ray.data.Dataset, src: str | os.PathLike[str], dst: str | os.PathLike[str], *, audio: str = "bytes"
) -> int:
    """Write the files of a data set below `dst`, with the names that they have below `src`; returns their number.

    Parameters
    ----------
    dataset : ray.data.Dataset
        With columns `path` and `audio`; it is worked out now.
    src, dst, audio
        As for `WriteFiles`.

    Raises
    ------
    ray.exceptions.RayTaskError
        What `WriteFiles` raises, on a worker.
    """
    # Writing waits for the disk, and must not wait for a CPU that protecting holds.
    options: dict[str, Any] = {"batch_format": "numpy", "concurrency": 1, "num_cpus": 0}
    return int(dataset.map_batches(WriteFiles, fn_constructor_args=(src, dst, audio), **options).count())


class WriteFiles:
    """A batch function for `map_batches` that writes the files of a folder to the same names below another.

    Each appears under its name once it is whole; what is there already is written again, so that a batch may be given
    out twice. The batch that it gives back has the paths alone.

    Parameters
    ----------
    src, dst : path
        The folder that `path` lies below in each row, and the one to write to.
    audio : str
        The column of bytes.
    """

    def __init__(self, src: str | os.PathLike[str], dst: str | os.PathLike[str], audio: str = "bytes") -> None:
        self.src, self.dst, self.audio = os.path.abspath(src), os.path.abspath(dst), audio

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Write a batch.

        Raises
        ------
        ValueError
            A path that does not lie below `src`.
        OSError
            A file cannot be written.
        """
        written = []
        for path, content in zip(batch["path"], batch[self.audio], strict=True):
            name = os.path.relpath(str(path), self.src)
            if name.startswith(".."):
                raise ValueError(f"{path} does not lie below {self.src}; give the folder that was read.")
            target = os.path.join(self.dst, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            part = durability.part_name(target)
            durability.write_part(part, content, None, durable=True)
            os.replace(part, target)
            written.append(target)
        return {"path": np.array(written, object)}
