"""Arrays mapped from a file, raw or .npy: checks, read-ahead and sync.

Read-ahead and write-back are only hints to the system; `MappedArray.sync` makes changes durable.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import disk
from poscuda_fast.arrays.layouts import ArrayClips
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.kernels import Ints, will_need
from poscuda_fast.mark.patches import Patches
from poscuda_fast.text import one_line
from poscuda_fast.undo.journal import sidecar_of

MOST_BYTES = 1 << 20  # a patch that is spread wider than this is not read ahead
PAGE_BYTES = 4096
FEW_RUNS = 64  # of a batch: so many may be small and are still read and written by a call each
MAX_NPY_HEADER = 65536


class MappedArray(ArrayClips):
    """Clips mapped from a file; TypeError or ValueError if they are not, or if an edit would not reach the file.

    See `target.StoredArray`.
    """

    def __init__(
        self, arr: NDArray[Any], sidecar: PathLike | None, *, lengths: Any = None, writing: bool = True
    ) -> None:
        root = _root(arr)
        _check_mode(root, writing=writing)
        super().__init__(arr, lengths, writing=writing, name="arr")
        self.path = Path(os.path.realpath(str(root.filename)))
        self.sidecar = sidecar_of(self.path) if sidecar is None else disk.in_full(sidecar)
        self._mapping = _mapping_of(root)
        # Where the array's first and its lowest sample lie in the file.
        self.offset = root.offset + _address(arr) - _address(root)
        self._lowest = root.offset + np.lib.array_utils.byte_bounds(arr)[0] - _address(root)
        self._n_bytes = root.offset + root.nbytes
        self._file = -1
        self._refuse_replaced(root)
        self.computed = self._steps.packed
        self.lost: Counter[str] = Counter()  # nothing: its file is never replaced
        self._file = os.open(self.path, disk.WRITING if writing else disk.READING)

    def location(self) -> list[int | str]:
        """Where the array lies in its file: first byte and strides."""
        return [self.offset, *self.array.strides]

    def room(self, n_patches: int, n_bytes: int) -> int:
        """Bytes of disk that holes of a sparse file may take when stored into; a full disk would kill the process."""
        status = os.stat(self.path)
        holes = max(0, status.st_size - 512 * getattr(status, "st_blocks", status.st_size))
        return min(holes, n_bytes + 2 * PAGE_BYTES * n_patches)

    def preflight(self) -> None:
        """Nothing: the file is open for writing, and its samples need no decoding."""

    def refuse_cut(self) -> None:
        """DatasetError if the file has become shorter: the rest of its last page then reads as zeros."""
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            raise DatasetError(f"{self.path} was deleted or replaced after it was mapped; map it again.") from None
        if size < self._n_bytes:
            raise DatasetError(
                f"{self.path} has {size} bytes, fewer than the {self._n_bytes} that arr maps; it was cut after it was "
                f"mapped. Restore the file and map it again."
            )

    def firsts(self, patches: Patches) -> Ints:
        """The first byte of each patch in the file."""
        return self._lowest + self._first(patches) * self.dtype.itemsize

    def read(self, patches: Patches) -> NDArray[Any]:
        """A dense copy of the patches: read from the file, or from the mapping where they are many and small.

        A call for each patch takes longer. A mapping cannot say that reading failed: where a file is cut just then, or
        its disk fails, the system ends the process (SIGBUS), and the next run goes on.
        """
        runs = self._runs(patches)
        if runs is None:
            self.refuse_cut()  # the mapping would kill the process
            self._begin_reading(patches)
            return super().read(patches)
        dense = np.empty(patches.n_frames * self.channels, self.dtype)
        view = dense.view(np.uint8).data
        for begin, first, size in runs:
            disk.read_into(self._file, view[first : first + size], begin, str(self.path))
        return dense

    def write(self, patches: Patches, dense: NDArray[Any]) -> None:
        """Store a dense buffer; write-back of large parts starts at once."""
        runs = self._runs(patches)
        if runs is None:
            self.refuse_cut()
            super().write(patches, dense)
            return
        view = dense.view(np.uint8).data
        for begin, first, size in runs:
            disk.write_at(self._file, view[first : first + size], begin)
            disk.start_writing(self._file, begin, size)

    def _runs(self, patches: Patches) -> list[tuple[int, int, int]] | None:
        """(first byte in the file, first byte in a dense buffer, bytes) of runs without a gap.

        None if frames do not lie one behind the other, or if the runs are many, and less than a page each on average.
        """
        if not self.computed:
            return None
        begins, sizes = self.firsts(patches), patches.sizes * (self.channels * self.dtype.itemsize)
        edges = np.flatnonzero(np.append(True, begins[1:] != begins[:-1] + sizes[:-1]))[: len(sizes)]
        starts = np.cumsum(sizes) - sizes
        lengths = np.add.reduceat(sizes, edges) if len(edges) else sizes
        if len(edges) > FEW_RUNS and lengths.sum() < PAGE_BYTES * len(edges):
            return None
        return list(zip(begins[edges].tolist(), starts[edges].tolist(), lengths.tolist(), strict=True))

    def _begin_reading(self, patches: Patches) -> None:
        """Start reading the pages of some patches in the background, all of them at once."""
        first, n_bytes = self.reach(patches)
        if len(first) and n_bytes <= MOST_BYTES:
            will_need(self.flat, first, n_bytes)

    def sync(self) -> None:
        """Return once every store is on the disk; OSError if that fails."""
        self._mapping.flush()
        if self._file >= 0:
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def _refuse_replaced(self, root: np.memmap[Any, Any]) -> None:
        """ValueError if the file was deleted, replaced or cut: edits of the mapping would be lost or crash."""
        self.refuse_cut()
        with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                low, _, high = line.split(" ", 1)[0].partition("-")
                if int(low, 16) <= _address(root) < int(high, 16):
                    _, _, _, _, inode, *name = line.rstrip("\n").split(maxsplit=5)
                    # Path or inode may differ for one file (overlays, bind mounts), but not both.
                    if name != [str(self.path)] and int(inode) != os.stat(self.path).st_ino:
                        raise ValueError(f"{self.path} was deleted or replaced after it was mapped; map it again.")


class NpyLayout(NamedTuple):
    """The array in a .npy file: raw samples from byte `offset` on, in "C" or "F" order."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str


def map_npy(path: Path, *, writing: bool) -> np.memmap[Any, Any]:
    """Map the array of a .npy file, after checking its header."""
    with open(path, "rb") as file:
        layout = read_npy(file, str(path))
    if 0 in layout.shape:
        raise AudioFileError(f"{path} cannot be used: its shape {layout.shape} holds no samples.")
    return np.memmap(
        path, layout.dtype, "r+" if writing else "r", layout.offset, layout.shape, "F" if layout.order == "F" else "C"
    )


def read_npy(file: BinaryIO, name: str) -> NpyLayout:
    """The layout of an open .npy file of int16 or float32 samples; nothing is unpickled.

    Raises
    ------
    AudioFileError
        Not a .npy file, another dtype, an impossible shape, or a file size that does not match the header.
    """

    def refuse(reason: str) -> AudioFileError:
        return AudioFileError(f"{name} cannot be used: {reason}.")

    size = os.fstat(file.fileno()).st_size
    try:
        offset, shape, dtype, order = read_header(file)
    except ValueError as error:
        raise refuse(str(error)) from None
    if dtype not in (np.dtype("<i2"), np.dtype("<f4")):
        raise refuse(f"its samples are {dtype}; expected int16 ('<i2') or float32 ('<f4'), so convert it")
    if len(shape) not in (2, 3) or any(isinstance(n, bool) or n < 0 for n in shape):
        raise refuse(f"its shape is {shape}; expected (n_clips, n_frames) or (n_clips, n_frames, n_channels)")
    needed = offset + dtype.itemsize * int(np.prod(np.array(shape, object)))
    if needed != size:
        raise refuse(f"its shape {shape} needs {needed} bytes and it has {size}")
    return NpyLayout(offset, shape, dtype, order)


def read_header(file: BinaryIO) -> NpyLayout:
    """The layout that an open .npy file says it has; ValueError with the reason if its header cannot be read.

    No warning is given, and no filter of warnings is changed, since these are the whole process's: a header that NumPy
    would warn of is refused before NumPy sees it.
    """
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    content = os.read(file.fileno(), min(os.fstat(file.fileno()).st_size, MAX_NPY_HEADER))
    head = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(head)
        read = _NPY_READERS.get(version)
        if read is not None:
            length = struct.Struct("<H" if version == (1, 0) else "<I")
            (size,) = length.unpack_from(content, head.tell())
            text = head.tell() + length.size
            if _WARNED.search(content, text, text + size):  # no sample may be read as header
                raise ValueError("it is not one that numpy.save writes; save the array again")
            shape, fortran, dtype = read(head, max_header_size=MAX_NPY_HEADER)
    except Exception as error:  # noqa: BLE001 - NumPy's parser raises over a dozen kinds on hostile headers
        raise ValueError(f"its .npy header cannot be read ({one_line(str(error)[:200])})") from None
    if read is None:
        raise ValueError("its .npy version is unknown; save it again with numpy.save")
    return NpyLayout(head.tell(), tuple(shape), dtype, "F" if fortran else "C")


# An escape, a number that runs into a word (as in Python 2), or NumPy's old name for bytes.
_WARNED = re.compile(rb"""\\|\d\s*[A-Za-z_]|['"][<>=|]?a\d+['"]|descr['"]\s*:\s*['"][<>=|]?a""")
_NPY_READERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def map_again(arr: NDArray[Any], path: Path) -> NDArray[Any]:
    """The same array, or view of one, mapped from a copy of its file."""
    root = _root(arr)
    offset = root.offset + _address(arr) - _address(root)
    size, expected = os.stat(path).st_size, os.stat(str(root.filename)).st_size
    if size != expected:
        raise ValueError(f"{path} has {size} bytes and the file that arr maps {expected}: it is not a copy of that.")
    whole = np.memmap(path, np.uint8, "r+")
    return np.ndarray(arr.shape, arr.dtype, whole, offset, arr.strides)


def file_of(arr: NDArray[Any]) -> Path:
    """The file that an array is mapped from."""
    root = _root(arr)
    _check_mode(root, writing=False)
    return Path(str(root.filename))


def _check_mode(root: np.memmap[Any, Any], *, writing: bool) -> None:
    mode = getattr(root, "mode", None)
    if mode == "c":
        raise ValueError('arr is mapped copy-on-write (mode="c"): edits would never reach the file; use mode="r+".')
    if writing and mode not in ("r+", "w+"):
        raise ValueError(f'arr is mapped with mode="{mode}"; open the array with mode="r+" to edit its file.')
    if root.filename is None:
        raise ValueError("arr is mapped from a file without a name; map it by its path.")


def _root(arr: NDArray[Any]) -> np.memmap[Any, Any]:
    """The np.memmap that a (view of a) mapped array comes from."""
    root: Any = arr
    while isinstance(root, np.ndarray):
        if isinstance(root, np.memmap) and _mapping_of(root) is not None:
            return root
        root = root.base
    raise TypeError(
        f"arr is a {type(arr).__name__} that is not mapped from a file; open it with numpy.memmap or "
        f'numpy.load(path, mmap_mode="r+"), or use protect for arrays in memory.'
    )


def _mapping_of(root: np.memmap[Any, Any]) -> Any:
    """The mmap object that holds an array's memory, if one does."""
    base: Any = root.base
    return base if isinstance(base, mmap.mmap) else None


def _address(array: NDArray[Any]) -> int:
    """Where an array's first element lies in memory."""
    return int(array.__array_interface__["data"][0])
