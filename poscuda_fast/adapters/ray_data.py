"""Ray Data: protects data sets on many machines, for data too large for one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poscuda_fast import disk
from poscuda_fast.errors import DatasetError
from poscuda_fast.files.layouts import LOSSY_SUFFIXES, suffix_of
from poscuda_fast.protector import Protector
from poscuda_fast.secrecy import discreet

if TYPE_CHECKING:
    import ray.data


@discreet
def protect_dataset(
    dataset: ray.data.Dataset, key_file: str | os.PathLike[str], *, concurrency: int = 1, batch_size: int = 64,
    **options: Any,
) -> ray.data.Dataset:  # fmt: skip
    """Protect a data set's audio as it is read, batch by batch, with `concurrency` workers.

    Ray replaces workers that die and hands their batches out again. A batch's result depends only on the batch, so the
    output is the same as on one machine, byte for byte. Each worker reads the key file, which must be at the same path
    on each machine.

    Parameters
    ----------
    dataset : ray.data.Dataset
        For example from `ray.data.read_binary_files(folder, include_paths=True)` (with `audio="bytes"` and
        `label=label_of_folder`), `read_parquet` or `read_webdataset`.
    key_file, options
        As for `Protector`; what `skip_unusable` leaves is said by each worker, in Ray's log.
    concurrency : int
        Number of workers, each with one CPU. Leave some of the cluster's CPUs for reading.
    batch_size : int
        Rows in a batch.

    Returns
    -------
    ray.data.Dataset
        Lazy, as Ray's data sets are; all columns are kept.

    Raises
    ------
    TypeError, ValueError
        `Protector` refuses an option. Errors that it raises later, in a worker, come wrapped in Ray's own error.
    """
    options["key_file"] = Protector(key_file, **options).key_file  # a full path: workers may run in other folders
    return dataset.map_batches(
        Protector, fn_constructor_kwargs=options, batch_format="numpy", batch_size=batch_size, concurrency=concurrency
    )


@discreet
def write_files(
    dataset: ray.data.Dataset, src: str | os.PathLike[str], dst: str | os.PathLike[str], *, audio: str = "bytes"
) -> int:
    """Write the files of a data set below `dst`, under their names below `src`; returns how many there are.

    Files that exist with the same content are kept and counted, so the same call made again finishes one that was
    stopped.

    Parameters
    ----------
    dataset : ray.data.Dataset
        With a column `path` and the column that `audio` names; Ray computes it now.
    src, dst, audio
        As for `WriteFiles`.

    Raises
    ------
    DatasetError
        As for `WriteFiles`; nothing was read or written.
    ray.exceptions.RayTaskError
        A `WriteFiles` raised an error on a worker; other files may have been written.
    """
    writer = WriteFiles(src, dst, audio)
    # Writing waits for the disk, and must not wait for a CPU that protecting holds.
    options: dict[str, Any] = {"batch_format": "numpy", "concurrency": 1, "num_cpus": 0}
    return int(
        dataset.map_batches(WriteFiles, fn_constructor_args=(writer.src, writer.dst, writer.audio), **options).count()
    )


class WriteFiles:
    """A batch function for `map_batches` that writes the files of one folder to the same names below another.

    A file appears once it is complete and on the disk, and never replaces another. The same batch may be written twice.
    A lossy file that became FLAC gets the suffix .flac. The returned batch has only the paths.

    Parameters
    ----------
    src, dst : path
        The folder that holds the files at each row's `path`, and a separate folder to write to.
    audio : str
        The column of bytes.

    Raises
    ------
    DatasetError
        `src` and `dst` are one folder, or one lies inside the other.
    """

    @discreet
    def __init__(self, src: str | os.PathLike[str], dst: str | os.PathLike[str], audio: str = "bytes") -> None:
        self.src, self.dst, self.audio = os.path.abspath(src), os.path.abspath(dst), audio
        if disk.overlap(src, dst):
            raise DatasetError(
                f"{self.dst} is {self.src} itself, or one lies inside the other; choose a separate folder to write to. "
                f"Nothing was written."
            )

    @discreet
    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Write a batch.

        Raises
        ------
        KeyError
            The batch has no `path`, or no such column of bytes.
        TypeError
            An entry of the column is not bytes.
        ValueError
            A path does not lie below `src`.
        FileExistsError
            A file below `dst` exists with other content.
        OSError
            A file cannot be written.
        """
        for column in ("path", self.audio):
            if column not in batch:
                raise KeyError(
                    f"The batch has the columns {sorted(batch)}, and none is {column!r}; read files with "
                    f"include_paths=True, and pass the column of their bytes as audio."
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
        """The path that a file is written to."""
        name = os.path.relpath(path, self.src)
        if name.split(os.sep)[0] in (os.curdir, os.pardir):
            raise ValueError(f"{path} does not lie below {self.src}; pass the folder that was read as src.")
        if content.startswith(b"fLaC") and suffix_of(name) in LOSSY_SUFFIXES:
            name = os.path.splitext(name)[0] + ".flac"
        return os.path.join(self.dst, name)


def _write(target: Path, content: bytes) -> None:
    """Write a file unless it exists; FileExistsError if it exists with other content."""
    if not os.path.lexists(target):
        with contextlib.suppress(FileExistsError), disk.appearing(target, mode=None) as file:
            file.write(content)
    if not target.is_file() or target.read_bytes() != content:
        raise FileExistsError(
            f"{target} exists with other content, and nothing is ever overwritten; choose another folder to write to, "
            f"or rename one of the two files that get this name."
        )
