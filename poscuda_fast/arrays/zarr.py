"""Zarr arrays of clips, read and written a row of shards at a time.

A shard (a chunk, if the array has no shards) is the smallest part of an array that can be written. It is encoded in
memory, decoded again and compared with the intended samples, and then replaces the old one in one step, so that a crash
leaves one of the two complete. Zarr also replaces it in one step, but does not wait for the disk.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import stat
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import attributes, disk
from poscuda_fast.arrays.layouts import ArrayClips, check_dtype, check_lengths
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError, require
from poscuda_fast.kernels import Engine, Ints, usable_cores
from poscuda_fast.key import holds_key
from poscuda_fast.mark.packed import measure_dense, survey_dense
from poscuda_fast.mark.patches import Patches
from poscuda_fast.undo.journal import sidecar_of

METADATA = "zarr.json"
TASKS = "poscuda-tasks.json"  # beside it in a copy that tasks make: their key, recipe, labels and so on
_METADATA_OF_2 = (".zarray", ".zgroup")
FORMAT = 3
ROWS_BESIDE = 4
MOST_SHOWN = 120  # characters of somebody else's text in a message
CACHE_BYTES = 64 << 20  # of decoded rows that are kept
# Any other codec is refused, since it might change samples outside patches.
LOSSLESS = {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd"} | {
    f"numcodecs.{name}"
    for name in ("adler32", "blosc", "bz2", "crc32", "fletcher32", "gzip", "lz4", "lzma", "shuffle", "zlib", "zstd")
}


class ZarrArray:
    """The clips of a Zarr array in its folder, read and changed in memory a row of shards at a time.

    See `target.StoredArray`. DatasetError if the folder does not hold an array that can be edited exactly.
    """

    def __init__(
        self, path: Path, sidecar: PathLike | None, *, lengths: Any = None, threads: int | None = None
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.sidecar = sidecar_of(self.path) if sidecar is None else disk.in_full(sidecar)
        if (self.path / TASKS).exists():
            raise DatasetError(
                f"{self.path} is a protected copy that shard_tasks made. It has no sidecar, so it can be neither "
                f"restored nor verified, and protecting it would mark it twice; its source is its only undo."
            )
        self._array = open_exact(self.path)
        self.shape: tuple[int, ...] = self._array.shape
        self.dtype: np.dtype[Any] = self._array.dtype
        self.channels = self.shape[2] if len(self.shape) == 3 else 1
        self.lengths: Ints = check_lengths(lengths, full_lengths(self._array))
        self.clips_a_row = shards(self._array)[0]
        self.row_bytes = self.clips_a_row * int(np.prod(self.shape[1:])) * self.dtype.itemsize
        self._rows: OrderedDict[int, ArrayClips] = OrderedDict()  # decoded; the most recently used is last
        self.computed = True
        self.lost: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._alone = threading.Lock()  # one batch may be read while another is stored
        self._changed: dict[int, set[int]] = {}  # for each row, its changed shards along the frames
        self._workers = threads or usable_cores()
        self._threads = disk.Threads(self._workers)
        self._writing: dict[int, list[Callable[[], None]]] = {}

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches."""
        with self._alone:
            parts = [self._row(row).read(part) for row, part in self._by_row(patches)]
        return np.concatenate([*parts, np.empty(0, self.dtype)])

    def write(self, patches: Patches, dense: NDArray[Any]) -> None:
        """Change the patches; earlier rows are written, since patches come in the order of their clips."""
        with self._alone:
            done = 0
            for row, part in self._by_row(patches):
                for other in [other for other in self._changed if other < row]:
                    self._begin_writing(other)
                n = part.n_frames * self.channels
                self._row(row).write(part, dense[done : done + n])
                self._changed.setdefault(row, set()).update(columns(self._array, part))
                done += n

    def survey(self, patches: Patches, engine: Engine) -> NDArray[np.uint8]:
        """What each patch holds."""
        return survey_dense(self.read(patches), patches, self.channels, engine)

    def measure(self, patches: Patches, engine: Engine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The energy and the peak of each patch."""
        return measure_dense(self.read(patches), patches, self.channels, engine)

    def clip(self, number: int) -> NDArray[Any]:
        """(n_frames,) or (n_frames, n_channels): one clip with its padding; its neighbours are decoded with it."""
        row, place = divmod(number, self.clips_a_row)
        with self._alone:
            return self._row(row).clip(place)

    def location(self) -> list[int | str]:
        """The same for every Zarr array: it may be moved, and its shards changed."""
        return ["zarr"]

    def room(self, n_patches: int, n_bytes: int) -> int:
        """A shard is written beside the one that it replaces."""
        del n_bytes
        return ROWS_BESIDE * self.row_bytes if n_patches else 0

    def firsts(self, patches: Patches) -> Ints:
        """The first byte of each patch in its clip: shards are replaced whole, and may be divided otherwise later."""
        return patches.starts * (self.channels * self.dtype.itemsize)

    def sync(self) -> None:
        """Return once every change is on the disk; OSError if that fails."""
        for row in sorted(self._changed):
            self._begin_writing(row)
        for row in list(self._writing):
            self._wait_for(row)

    def close(self) -> None:
        """Finish the shards being written, and cancel the rest."""
        self._threads.close()

    def preflight(self) -> None:
        """Refuse shards that cannot be decoded or replaced, before anything is written."""
        refuse_unsafe(self.path)
        for first in range(0, self.shape[0], self.clips_a_row):
            read(self._array, self.path, first, min(first + self.clips_a_row, self.shape[0]))

    def _by_row(self, patches: Patches) -> Iterator[tuple[int, Patches]]:
        """The rows that patches lie in, and their patches with clips counted from the row's first."""
        rows = patches.clips // self.clips_a_row
        edges = [0, *(np.flatnonzero(np.diff(rows)) + 1).tolist(), len(rows)]
        for first, end in itertools.pairwise(edges):
            if first < end:
                row = int(rows[first])
                part = slice(first, end)
                clips = patches.clips[part] - row * self.clips_a_row
                yield row, Patches(clips, patches.starts[part], patches.sizes[part], patches.rows[part])

    def _row(self, row: int) -> ArrayClips:
        """A row's clips, decoded."""
        if row not in self._rows:
            self._wait_for(row)
            first = row * self.clips_a_row
            end = min(first + self.clips_a_row, self.shape[0])
            self._rows[row] = ArrayClips(np.ascontiguousarray(read(self._array, self.path, first, end)), None)
            unchanged = [other for other in self._rows if other not in self._changed and other != row]
            for other in unchanged[: max(0, len(self._rows) - max(1, CACHE_BYTES // max(1, self.row_bytes)))]:
                del self._rows[other]
        self._rows.move_to_end(row)
        return self._rows[row]

    def _begin_writing(self, row: int) -> None:
        """Write a row's shards in the background, one task each; the number of waiting rows stays bounded."""
        samples = self._rows.pop(row).array
        changed = self._changed.pop(row)
        for other in list(self._writing)[: max(0, len(self._writing) - self._workers)]:
            self._wait_for(other)
        self._writing[row] = [
            self._threads.submit(functools.partial(self._replace, region, samples[(slice(None), *region[1:])]))
            for region in regions(self._array, row, changed)
        ]

    def _replace(self, region: tuple[slice, ...], samples: NDArray[Any]) -> None:
        lost = replace(self.path, region, samples)
        with self._counting:
            self.lost.update(lost)

    def _wait_for(self, row: int) -> None:
        for wait in self._writing.pop(row, ()):
            wait()


def is_zarr(path: Path) -> bool:
    """Whether a folder holds a Zarr array or group, of any format."""
    return any((path / name).is_file() for name in (METADATA, *_METADATA_OF_2))


def refuse_unsafe(folder: Path) -> None:
    """DatasetError if shards lie behind links or may not be replaced, or if a key would be published with them."""
    problems, waiting = [], [folder]
    while waiting:
        here = waiting.pop()
        if not os.access(here, os.W_OK | os.X_OK):
            problems.append(f"you may not write in {here}; change its permissions")
        for entry in os.scandir(here):
            if entry.is_symlink():
                problems.append(f"{entry.path} is a link; replace it by what it leads to")
            elif entry.is_dir():
                waiting.append(Path(entry.path))
            elif not entry.is_file():
                problems.append(f"{entry.path} is not a regular file; move it away")
            elif holds_key(entry.path):
                problems.append(f"{entry.path} holds a key; move it out of the folder")
            elif not disk.may_write(entry.path):
                problems.append(f"you may not write {entry.path}; change its permissions")
    if problems:
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise DatasetError(f"{folder} cannot be edited in place: {problems[0]}{more}. Nothing was written.")


def open_exact(path: str | os.PathLike[str]) -> Any:
    """Open an array for reading; DatasetError if it cannot be edited exactly."""
    folder = Path(path)
    unknown = _unknown_codecs(folder)
    if unknown:
        raise DatasetError(
            f"{folder} is encoded with {', '.join(unknown)}, which may not give back the same samples; "
            f"copy it into an array with lossless codecs first. Nothing was written."
        )
    array = _open(folder)
    if array.ndim not in (2, 3):
        raise ValueError(f"{folder} has shape {array.shape}; expected (n_clips, n_frames[, n_channels]).")
    if array.shape[2:] == (0,):
        raise ValueError(f"{folder} has shape {array.shape}, and so no channels; there is nothing to protect.")
    check_dtype(array.dtype, str(folder))
    needed, held = math.prod(shards(array)) * array.dtype.itemsize, _memory_bytes()
    if needed > held:
        raise DatasetError(
            f"{folder} has shards of {shards(array)}, {needed:,} bytes each, which are rewritten whole, and this "
            f"machine has {held:,} bytes of memory; copy it into an array with smaller shards first."
        )
    return array


def _unknown_codecs(folder: Path) -> list[str]:
    """The codecs of an array that may lose something; DatasetError if its metadata are not those of an array."""
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
        is_array = metadata["zarr_format"] == FORMAT and metadata["node_type"] == "array" and "codecs" in metadata
    except (OSError, ValueError, KeyError, TypeError):
        is_array = False
    except RecursionError as error:
        raise _unreadable(folder, error) from None
    if not is_array:
        raise DatasetError(
            f"{folder} is not the folder of a Zarr array of format {FORMAT}; give the array itself, not its group, and "
            f"copy arrays of format 2 into one of format {FORMAT} first."
        )
    try:
        return sorted({str(name)[:MOST_SHOWN] for name in set(_codecs(metadata["codecs"])) - LOSSLESS})
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(folder, error) from None


def _open(folder: Path) -> Any:
    """Open an array, with a sentence for all that Zarr raises of metadata."""
    require("zarr", "zarr")
    import zarr  # noqa: PLC0415 - an extra

    try:
        array = zarr.open_array(folder, mode="r")
        sizes = (*array.chunks, *shards(array))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - over a dozen kinds
        raise _unreadable(folder, error) from None
    if min(sizes, default=1) < 1 or not all(0 <= n < 1 << 63 for n in array.shape):
        raise DatasetError(f"{folder} has shape {array.shape} in chunks of {array.chunks}, which cannot be; {_AGAIN}.")
    return array


def read(array: Any, folder: Path, first: int, end: int) -> NDArray[Any]:
    """The clips from `first` to before `end`; DatasetError if they cannot be decoded."""
    try:
        return np.asarray(array[first:end])
    except (OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - each codec has its own kinds
        raise DatasetError(
            f"{folder} has damaged data: {_damaged(array, first, end)} of clips {first} to {end - 1} cannot be decoded "
            f"({_reason(error)}); put it back from a backup."
        ) from None


def _damaged(array: Any, first: int, end: int) -> str:
    """The shard that cannot be decoded, by the name of its file, among those of some clips."""
    step = shards(array)[0]
    for row in range(first // step, -(-end // step)):
        for region in regions(array, row):
            try:
                array[region]
            except Exception:  # noqa: BLE001 - each codec has its own kinds
                return f"the shard {_name_of(array, region)}"
    return "a shard"


def _name_of(array: Any, region: tuple[slice, ...]) -> str:
    """The name of a shard's file in the array's folder."""
    place = tuple(part.start // step for part, step in zip(region, shards(array), strict=True))
    return str(array.metadata.encode_chunk_key(place))


_AGAIN = "write the array again from its source"


def _unreadable(folder: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{folder} has metadata ({METADATA}) that are damaged, or of a kind that the installed zarr does not know "
        f"({_reason(error)}); {_AGAIN}, or update zarr."
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:MOST_SHOWN]}"


def _memory_bytes() -> int:
    """The memory of this machine; a tebibyte where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 40


def _codecs(codecs: Iterable[Any]) -> Iterator[str]:
    """The names of some codecs, and of those inside them."""
    for codec in codecs:
        yield codec if isinstance(codec, str) else codec["name"]
        inner = {} if isinstance(codec, str) else codec.get("configuration", {})
        yield from _codecs([*inner.get("codecs", ()), *inner.get("index_codecs", ())])


def shards(array: Any) -> tuple[int, ...]:
    """The shape of a shard, or of a chunk if there are no shards."""
    return tuple(array.shards or array.chunks)


def full_lengths(array: Any) -> Ints:
    """(n_clips,) frames of each clip, padding included."""
    return np.broadcast_to(np.int64(array.shape[1]), array.shape[:1])


def columns(array: Any, patches: Patches) -> set[int]:
    """The indexes, along the frames, of the shards that patches lie in."""
    step = shards(array)[1]
    spans = {*zip(patches.starts // step, (patches.starts + patches.sizes - 1) // step, strict=True)}
    return {column for first, last in spans for column in range(int(first), int(last) + 1)}


def regions(array: Any, row: int, columns: Container[int] | None = None) -> Iterator[tuple[slice, ...]]:
    """The shards of a row, or only those of some columns."""
    first, *others = shards(array)
    rows = slice(row * first, min((row + 1) * first, array.shape[0]))
    steps = [range(0, n, step) for n, step in zip(array.shape[1:], others, strict=True)]
    for begins in itertools.product(*steps):
        if columns is not None and begins[0] // others[0] not in columns:
            continue
        ends = [min(b + step, n) for b, step, n in zip(begins, others, array.shape[1:], strict=True)]
        yield (rows, *(slice(begin, end) for begin, end in zip(begins, ends, strict=True)))


def replace(folder: Path, region: tuple[slice, ...], samples: NDArray[Any], *, alone: bool = True) -> set[str]:
    """Replace a whole shard, in one step and durably; unless `alone`, others may replace it at the same time.

    If `alone`, it keeps its owner, permissions and attributes; one that was missing gets those of the metadata. Returns
    what could not be kept.
    """
    name, content = encode(folder, region, samples)
    path = folder / name
    if os.path.realpath(path.parent) != os.path.normpath(f"{os.path.realpath(folder)}/{os.path.dirname(name)}"):
        raise DatasetError(
            f"{path} lies behind a symbolic link, so writing it would change files outside {folder}; replace the link "
            f"with the folder. The shard was not written."
        )
    if content is None:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            disk.sync_folder(path.parent)
        return set()
    for above in reversed(path.parents):
        if folder in above.parents and above.is_symlink():
            raise DatasetError(f"{above} is a link, and an array's folders are not followed; replace it by the folder.")
        if folder in above.parents and not above.is_dir():
            above.mkdir(stat.S_IMODE(os.stat(folder).st_mode), exist_ok=True)
            disk.sync_folder(above.parent)
    before = path if path.exists() else folder / METADATA
    lost: set[str] = set()
    if alone:
        disk.replace(path, content, mode=lambda target: lost.update(attributes.give_those_of(before, target)))
        return lost
    with disk.appearing(path, mode=stat.S_IMODE(os.stat(before).st_mode), replacing=True) as file:
        file.write(content)
    return lost


def encode(folder: Path, region: tuple[slice, ...], samples: NDArray[Any]) -> tuple[str, bytes | None]:
    """The name of a shard's file, and its content (None if it is empty), checked by decoding it again.

    Unless told otherwise, Zarr leaves out chunks that equal the fill value, and -0.0 equals 0.0.
    """
    import zarr  # noqa: PLC0415
    from zarr.buffer.cpu import Buffer  # noqa: PLC0415
    from zarr.storage import MemoryStore  # noqa: PLC0415

    kept: dict[str, Any] = {METADATA: Buffer.from_bytes((folder / METADATA).read_bytes())}
    opened = zarr.open_array(MemoryStore(kept), mode="r+")
    for write_all in (False, True):
        # For this array alone: Zarr's own configuration is the whole process's.
        config: Any = {"order": "C", "write_empty_chunks": write_all}
        metadata: Any = opened.metadata
        memory: Any = zarr.Array(zarr.AsyncArray(metadata, opened.store_path, config))
        memory[region] = samples
        if np.asarray(memory[region]).tobytes() == samples.tobytes():
            break
    else:
        raise DatasetError(
            f"The codecs of {folder} do not give back the same samples; the shard that begins at "
            f"{tuple(part.start for part in region)} was not written. Copy the array into one with other codecs."
        )
    name = _name_of(memory, region)
    return name, kept[name].to_bytes() if name in kept else None
