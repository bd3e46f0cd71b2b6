"""Ray Data: the batch function on many machines; the answer to data that are larger than one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poscuda_fast import disk
from poscuda_fast.errors import DatasetError
from poscuda_fast.files.listing import LOSSY_SUFFIXES, suffix_of
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

    Raises
    ------
    TypeError, ValueError
        An option that `Protector` refuses. What it raises later comes out of a worker, as Ray's own error around it.
    """
    options["key_file"] = Protector(key_file, **options).key_file  # whose workers may be at work in other folders
    return dataset.map_batches(
        Protector, fn_constructor_kwargs=options, batch_format="numpy", batch_size=batch_size, concurrency=concurrency
    )


def write_files(
    dataset: ray.data.Dataset, src: str | os.PathLike[str], dst: str | os.PathLike[str], *, audio: str = "bytes"
) -> int:
    """Write the files of a data set below `dst`, with the names that they have below `src`; returns their number.

    What is there already with the same content is counted too, so that the same call made again goes on where a run was
    stopped.

    Parameters
    ----------
    dataset : ray.data.Dataset
        With columns `path` and `audio`; it is worked out now.
    src, dst, audio
        As for `WriteFiles`.

    Raises
    ------
    DatasetError
        As for `WriteFiles`; nothing was read or written.
    ray.exceptions.RayTaskError
        What a `WriteFiles` raises, on a worker; files before it may have been written.
    """
    writer = WriteFiles(src, dst, audio)
    # Writing waits for the disk, and must not wait for a CPU that protecting holds.
    options: dict[str, Any] = {"batch_format": "numpy", "concurrency": 1, "num_cpus": 0}
    return int(
        dataset.map_batches(WriteFiles, fn_constructor_args=(writer.src, writer.dst, writer.audio), **options).count()
    )


class WriteFiles:
    """A batch function for `map_batches` that writes the files of a folder to the same names below another.

    Each appears under its name once it is whole and on the disk, and never in the place of another file. A batch may be
    given out twice. What was lossy and has become FLAC is named so. The batch that it gives back has the paths alone.

    Parameters
    ----------
    src, dst : path
        The folder that `path` lies below in each row, and a separate one to write to.
    audio : str
        The column of bytes.

    Raises
    ------
    DatasetError
        `src` and `dst` are one folder, or one lies inside the other.
    """

    def __init__(self, src: str | os.PathLike[str], dst: str | os.PathLike[str], audio: str = "bytes") -> None:
        self.src, self.dst, self.audio = os.path.abspath(src), os.path.abspath(dst), audio
        if disk.overlap(src, dst):
            raise DatasetError(
                f"{self.dst} is {self.src} itself, or one lies inside the other; choose a separate folder to write to. "
                f"Nothing was written."
            )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Write a batch.

        Raises
        ------
        KeyError
            The batch has no `path`, or no such column of bytes.
        TypeError
            An entry of the column that is not bytes.
        ValueError
            A path that does not lie below `src`.
        FileExistsError
            A name below `dst` that is taken by other content.
        OSError
            A file cannot be written.
        """
        for column in ("path", self.audio):
            if column not in batch:
                raise KeyError(
                    f"The batch has the columns {sorted(batch)}, and none is {column!r}; read files with "
                    f"include_paths=True, and say which column has their bytes."
                )
        written = []
        for path, content in zip(batch["path"], batch[self.audio], strict=True):
            if not isinstance(content, bytes):
                raise TypeError(
                    f"{path} has a {type(content).__name__} in the column {self.audio!r}; expected a file's bytes. "
                    f"It was not written."
                )
            target = self._target(str(path), content)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _write(Path(target), content)
            written.append(target)
        return {"path": np.array(written, object)}

    def _target(self, path: str, content: bytes) -> str:
        """Where a file is written."""
        name = os.path.relpath(path, self.src)
        if name.split(os.sep)[0] in (os.curdir, os.pardir):
            raise ValueError(f"{path} does not lie below {self.src}; give the folder that was read.")
        if content.startswith(b"fLaC") and suffix_of(name) in LOSSY_SUFFIXES:
            name = os.path.splitext(name)[0] + ".flac"
        return os.path.join(self.dst, name)


def _write(target: Path, content: bytes) -> None:
    """Write a file, unless it is there by now; FileExistsError if another is."""
    if not os.path.lexists(target):
        with contextlib.suppress(FileExistsError), disk.appearing(target, mode=None) as file:
            file.write(content)
    if not target.is_file() or target.read_bytes() != content:
        raise FileExistsError(
            f"{target} exists with other content, and nothing is ever overwritten; choose another folder to write to, "
            f"or rename one of two files that come by this name."
        )
